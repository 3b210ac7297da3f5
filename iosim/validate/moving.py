"""Measured bytes beside iosim's at the same boundary: one group per device, kernel, phase, boundary and direction.

Errors are those of times: |predicted / measured - 1|. The yardstick is each tensor once, which is what formula tools say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from iosim.analysis import analyze
from iosim.attention import Attention, Shape
from iosim.cache.replay_options import ReplayOptions
from iosim.errors import IosimError
from iosim.floors.compulsory import compulsory_bytes
from iosim.masks import Grid, bind, parse_mask, parse_tile
from iosim.report import Options
from iosim.validate.comparing import CUTS, IDLE, NO_WINDOW, Compared, Errors, Group, Points
from iosim.validate.timings import MOVED, Counted

_Key = tuple[str, str, str, str, str, str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Predicted:
    """What iosim says of one call."""

    moved: dict[str, tuple[int, str]]
    """column of `MOVED` -> (bytes, method)"""
    floor: dict[str, int]
    """column of `MOVED` -> bytes that no kernel avoids"""


def compare_bytes(rows: Sequence[Counted]) -> tuple[Compared, dict[str, int]]:
    """(groups and worst rows, why rows were left out)."""
    skipped: dict[str, int] = {}
    found: dict[_Key, list[tuple[Counted, Predicted]]] = {}
    for row in rows:
        try:
            predicted = predict_bytes(row.kind, row.shape, row.kv_order, row.grid_order, row.residency)
        except IosimError as error:
            why = error.faults[0].what
            skipped[why] = skipped.get(why, 0) + 1
            continue
        for column in row.moved:
            if column not in predicted.moved:
                skipped[f"no {column} of this kernel"] = skipped.get(f"no {column} of this kernel", 0) + 1
            elif row.moved[column] > 0:
                kind = row.kind
                types = (kind.types.q, kind.types.kv)
                key = (kind.device.key, kind.kernel, kind.phase, kind.framework, column, _window(row), types)
                found.setdefault(key, []).append((row, predicted))
    points = [_points(key, members) for key, members in found.items()]
    worst = [_described(row, predicted, key[4]) for key, members in found.items() for row, predicted in members]
    return Compared(tuple(each.group for each in points), tuple(worst), np.empty(0), tuple(points)), skipped


def _window(row: Counted) -> str:
    """What the row's window does, as in groups of times."""
    name, _, width = row.kind.mask.partition(":")
    if name != "window":
        return NO_WINDOW
    return CUTS if not width.isdigit() or int(width) < row.shape[-1] else IDLE


def _points(key: _Key, members: Sequence[tuple[Counted, Predicted]]) -> Points:
    device, kernel, phase, framework, column, window, types = key
    measured = np.array([row.moved[column] for row, _ in members])
    predicted = np.array([made.moved[column][0] for _, made in members], np.float64)
    least = np.array([made.floor[column] for _, made in members], np.float64)
    group = Group(
        device, kernel, phase, framework, window, Errors.of(predicted, measured), Errors.of(least, measured), None,
        len(members), int((measured < _unavoidable(members, column, least)).sum()), quantity=column, types=types,
        floor_rows=len(members),
    )  # fmt: skip
    return Points(group, measured, predicted, least)


def _unavoidable(members: Sequence[tuple[Counted, Predicted]], column: str, least: np.ndarray) -> np.ndarray:
    """The floor: outputs, and inputs of a warm call, may stay in the last cache."""
    boundary, direction = MOVED[column]
    made = []
    for (row, _), floor in zip(members, least.tolist(), strict=True):
        cache = row.kind.device.cache_before("hbm")
        kept = cache.total_bytes or 0 if cache else 0
        made.append(max(0.0, floor - kept) if boundary == "hbm" and (direction == "write" or row.kind.warm) else floor)
    return np.array(made)


@lru_cache(maxsize=4096)
def predict_bytes(
    kind: object, shape: tuple[int, ...], kv_order: str = "", grid_order: str = "", residency: int = 0
) -> Predicted:
    """iosim's bytes of one call, by replay where it may take so many touches, else by closed form.

    Raises:
        IosimError: the call, kernel or tile cannot be.
    """
    from iosim.validate.predicting import Kind

    assert isinstance(kind, Kind)
    batch, heads, kv_heads, head_dim, head_dim_v, n_q, n_kv = shape
    mask = bind(parse_mask(kind.mask, "mask"), Grid((n_q,), (n_kv,)))
    problem = Attention(Shape(batch, heads, kv_heads, head_dim, head_dim_v), mask, kind.types, phase=kind.phase)
    options = Options(
        tile=parse_tile(kind.tile) if kind.tile else None,
        warm=kind.warm,
        replay=ReplayOptions(
            kv_order=kv_order or None, grid_order=grid_order or None, residency=residency or None, warm=kind.warm
        ),
    )
    kernel = analyze(problem, kind.device, [kind.kernel], options).kernels[0]
    at = {boundary.name: boundary for boundary in kernel.boundaries}
    read, written = compulsory_bytes(problem)
    once = {"read": read, "write": written}
    moved, floor = {}, {}
    for column, (name, direction) in MOVED.items():
        if name in at:
            traffic, memory = at[name].traffic, at[name].memory
            count = traffic.read_bytes if direction == "read" else traffic.write_bytes
            if column == "hbm_write_bytes" and memory is not None and memory.written_in_kernel_bytes is not None:
                count = memory.written_in_kernel_bytes  # counters stop with the kernel; the rest leaves the cache later
            moved[column] = (count, at[name].method)
            floor[column] = once[direction]
    return Predicted(moved, floor)


def _described(row: Counted, predicted: Predicted, column: str) -> dict[str, object]:
    names = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "seq_q", "seq_kv")
    value, method = predicted.moved[column]
    return {
        "source": row.source, "row": row.row, "device": row.kind.device.key, "kernel": row.kind.kernel,
        **dict(zip(names, row.shape, strict=True)), "mask": row.kind.mask, "quantity": column, "measured": row.moved[column],
        "predicted": value, "ratio": value / row.moved[column], "method": method,
    }  # fmt: skip
