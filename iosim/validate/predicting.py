"""Predictions for many rows: expected time, time floor, main-memory bytes, chunk by chunk.

Bands on kernels with a calibration go through arrays; every other row goes through the same formulas one by one,
each distinct row once. A row that cannot be predicted says why in `status`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from iosim.analysis import multicast
from iosim.attention import PHASES, Attention, Shape, Types, dtype
from iosim.cache.closed_form import hbm_traffic
from iosim.errors import AbsentError, IosimError, UsageError, did_you_mean
from iosim.floors import time_floor
from iosim.kernels import load_kernel, make_schedule
from iosim.machine import Device, load_device
from iosim.masks import Grid, bind, parse_mask, parse_tile
from iosim.timing.calls import Calls, Flags, Ints
from iosim.timing.ceilings import kernel_ceilings
from iosim.timing.expected import expectation
from iosim.timing.families import BEYOND, FAMILIES, GENERIC, beyond, calibration_of, check_framework, expected_parts
from iosim.timing.parts import total_s
from iosim.timing.plan import Plan
from iosim.timing.rates import rates_of
from iosim.timing.traffic import COUNTS_EXACT, floors_s, main_memory
from iosim.validate.predicted import ADDED, Predicted
from iosim.validate.rows import KEYS, Columns, Rows, band, read_rows

#: rows of a chunk: large enough for arrays, small enough for memory
CHUNK_ROWS = 100_000
OK = "ok"
ONCE, HEADS, SWEPT = (
    "closed form: all tensors fit the last cache",
    "closed form: K and V of the heads in flight stay cached",
    "closed form: each round of items sweeps K and V again",
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What rows with the same words share."""

    device: Device
    """where"""
    kernel: str
    """catalogue name"""
    phase: str
    """prefill | decode | backward"""
    types: Types
    """element types"""
    mask: str
    """as written"""
    warm: bool
    """last cache"""
    tile: str
    """given tile, or empty"""
    framework: str
    """whose call"""
    band: tuple[int, bool] | None
    """(left, causal) where arrays hold the mask"""


def predict_columns(columns: Columns) -> Predicted:
    """The added columns for rows given as columns of text."""
    rows = read_rows(columns)
    made = Predicted.of(rows.count)
    status = made.columns["status"]
    for row, why in rows.refused.items():
        status[row] = why
    order = np.argsort(rows.kind, kind="stable")
    edges = np.searchsorted(rows.kind[order], np.arange(len(rows.kinds) + 1))
    for number, words in enumerate(rows.kinds):
        members = order[edges[number] : edges[number + 1]]
        if rows.refused:
            members = np.array([row for row in members.tolist() if row not in rows.refused], np.int64)
        if members.size:
            _predict_kind(words, members, rows, made)
    made.failed = sum(value is None for value in made.columns["time_floor_s"])
    return made


def predict_rows(rows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
    """Rows as dictionaries with the added columns: for notebooks and small jobs."""
    if not rows:
        return []
    names = list(rows[0])
    columns = {name: [str(row.get(name, "")) for row in rows] for name in names}
    added = predict_columns(columns).columns
    return [{**row, **{name: added[name][i] for name in ADDED}} for i, row in enumerate(rows)]


def _predict_kind(words: tuple[str, ...], members: Ints, rows: Rows, made: Predicted) -> None:
    try:
        kind = read_kind(words)
    except IosimError as error:
        made.fill("status", members, str(error.faults[0].what))
        return
    members = _aligned(kind, members, rows, made)
    if not members.size:
        return
    if kind.band is None or kind.tile or kind.phase == "backward" or not _has_arrays(kind):
        _one_by_one(kind, members, rows, made)
    else:
        _by_arrays(kind, members, rows, made)


@lru_cache(maxsize=4096)
def read_kind(words: tuple[str, ...]) -> Kind:
    """The words of a row as what they name.

    Raises:
        UsageError: an unknown device, kernel, phase, type, mask, framework. FileError: a broken file.
    """
    text = dict(zip(KEYS, words, strict=True))
    for name in ("device", "kernel", "phase", "dtype", "mask"):
        if not text[name]:
            raise UsageError(f"{name} is missing")
    if text["phase"] not in PHASES:
        raise UsageError(f"unknown phase {text['phase']!r}", "phase", did_you_mean(text["phase"], PHASES))
    if text["l2"] not in ("cold", "warm"):
        raise UsageError(f"l2 is cold or warm, not {text['l2']!r}", "l2")
    q = dtype(text["dtype"], "dtype")
    file = load_kernel(text["kernel"])
    return Kind(
        device=load_device(text["device"]),
        kernel=file.decode or file.name if text["phase"] == "decode" else file.name,
        phase=text["phase"],
        types=Types.of(q, dtype(text["kv_dtype"], "kv_dtype") if text["kv_dtype"] else None),
        mask=text["mask"],
        warm=text["l2"] == "warm",
        tile=text["tile"],
        framework=check_framework(text["framework"]),
        band=band(text["mask"]),
    )


def _aligned(kind: Kind, members: Ints, rows: Rows, made: Predicted) -> Ints:
    """Members whose lengths the mask allows."""
    if kind.band is None or not kind.band[1]:
        return members
    longer = rows.numbers["seq_q"][members] > rows.numbers["seq_kv"][members]
    if longer.any():
        made.fill("status", members[longer], "a causal mask needs at least as many keys as queries")
    kept: Ints = members[~longer]
    return kept


@lru_cache(maxsize=4096)
def _has_arrays(kind: Kind) -> bool:
    """Whether the array formulas know the kernel's tiles on this device."""
    try:
        calibration = calibration_of(kind.kernel, kind.device)
        rates_of(kind.device)
    except AbsentError:
        return False
    family = FAMILIES.get(calibration.family)
    return family is not None and kind.framework in family.frameworks


def _by_arrays(kind: Kind, members: Ints, rows: Rows, made: Predicted) -> None:
    assert kind.band is not None
    number = {name: column[members] for name, column in rows.numbers.items()}
    left, causal = kind.band
    calls = Calls(
        number["batch"], number["heads"], number["kv_heads"], number["head_dim"], number["head_dim_v"],
        number["seq_q"], number["seq_kv"], np.full(members.size, left), np.full(members.size, causal),
    )  # fmt: skip
    try:
        floor = floors_s(calls, kind.device, kind.types.q, kind.types.kv, kind.warm)
    except AbsentError as error:
        made.fill("status", members, error.faults[0].what)
        return
    made.put("time_floor_s", members, np.nextafter(floor, 0))
    try:
        load_kernel(kind.kernel).check_types(kind.types)
    except UsageError as error:
        made.fill("status", members, error.faults[0].what)
        return
    family = calibration_of(kind.kernel, kind.device).family
    plan = FAMILIES[family].plan(calls, rates_of(kind.device), kind.framework)
    exact = _put_bytes(kind, calls, plan, family, members, made)
    if not exact.all():
        _one_by_one(kind, members[~exact], rows, made)
        members, calls = members[exact], calls[exact]
    why = beyond(calls)
    for code in np.flatnonzero(np.bincount(why)).tolist():
        made.fill("status", members[why == code], f"no expected time: {BEYOND[code]}")
    members, calls = members[why == 0], calls[why == 0]
    if not members.size:
        return
    if kind.types.q not in ("bf16", "fp16") or kind.types.kv not in ("bf16", "fp16"):
        what = f"no expected time: calibrated for 16-bit tensors, not {kind.types.q} with {kind.types.kv} keys"
        made.fill("status", members, what)
        return
    parts = expected_parts(calls, kind.device, kind.kernel, kind.framework, kind.warm)
    made.put("time_expected_s", members, total_s(parts))
    names = np.array([name.removesuffix("_s") for name in parts])
    largest = names[np.argmax(np.stack(list(parts.values())), axis=0)]
    made.put("bottleneck", members, largest)
    made.fill("status", members, OK)


def _put_bytes(kind: Kind, calls: Calls, plan: Plan, family: str, members: Ints, made: Predicted) -> Flags:
    """Main-memory bytes of the rows that float64 counts exactly; returns which those are."""
    moved = main_memory(calls, plan, kind.device, kind.types.q, kind.types.kv, FAMILIES[family].stages)
    read = np.where(moved.once, 0, moved.read_bytes) if kind.warm else moved.read_bytes
    method = np.where(moved.once, ONCE, np.where(moved.again, SWEPT, HEADS))
    if kind.warm:
        method = np.where(moved.once, ONCE + ", warm", np.char.add(method, "; from a cold cache"))
    if kind.kernel in GENERIC:  # it has the tiles of the architecture's own kernel, as its time does
        method = np.char.add(method, f"; tiles of {family}")
    exact: Flags = np.maximum(moved.read_bytes, moved.write_bytes) < COUNTS_EXACT
    made.put("hbm_read_bytes", members[exact], read[exact].astype(np.int64))
    made.put("hbm_write_bytes", members[exact], moved.write_bytes[exact].astype(np.int64))
    made.put("method", members[exact], method[exact])
    return exact


def _one_by_one(kind: Kind, members: Ints, rows: Rows, made: Predicted) -> None:
    """The general path: any mask, kernel and tile, each distinct row once."""
    names = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "seq_q", "seq_kv")
    for row in members.tolist():
        answer = _single(kind, *(int(rows.numbers[name][row]) for name in names))
        for name, value in answer.items():
            made.columns[name][row] = value


@lru_cache(maxsize=1 << 16)
def _single(
    kind: Kind, batch: int, heads: int, kv_heads: int, head_dim: int, head_dim_v: int, n_q: int, n_kv: int
) -> dict[str, object]:
    """The added columns of one row."""
    try:
        mask = bind(parse_mask(kind.mask, "mask"), Grid((n_q,), (n_kv,)))
        problem = Attention(Shape(batch, heads, kv_heads, head_dim, head_dim_v), mask, kind.types, phase=kind.phase)
        floor = time_floor(problem, kind.device, kind.warm)
    except IosimError as error:
        return {"status": error.faults[0].what}
    made: dict[str, object] = {"time_floor_s": float(np.nextafter(floor.time_s, 0))}
    try:
        tile = parse_tile(kind.tile) if kind.tile else None
        schedule = make_schedule(problem, kind.device, kind.kernel, tile)
        moved = hbm_traffic(schedule, kind.device, kind.warm)
    except IosimError as error:
        return {**made, "status": error.faults[0].what}
    if moved:
        made |= {
            "hbm_read_bytes": moved.traffic.read_bytes,
            "hbm_write_bytes": moved.traffic.write_bytes,
            "method": moved.method,
        }
    bytes_status = OK if moved else "no main-memory formula for this kernel"
    expected, why = None, "calibrated for the kernel's own tiles"
    if tile is None or kind.device.kind == "cpu":  # a processor's model takes any tile
        expected, why = expectation(schedule, kind.device, kind.warm, kind.framework)
    if expected:
        return {
            **made, "time_expected_s": expected.time_s, "bottleneck": expected.bottleneck, "status": bytes_status
        }  # fmt: skip
    total = moved.traffic.total_bytes if moved else None
    ceilings = kernel_ceilings(schedule, kind.device, multicast(schedule).total_bytes, total)
    return {
        **made,
        "bottleneck": ceilings.bottleneck or None,
        "status": f"no expected time: {why}" if moved else bytes_status,
    }
