"""Reads what `ncu --csv` prints: one line per metric (details page), or one line per kernel (`--page raw`).

Kernels of one NVTX range belong to one call: `iosim measure --profile` names the range after its case. Without
ranges each kernel is a call whose shape the user gives. Counters start from a flushed cache, as Nsight Compute does
unless told otherwise. Format: Nsight Compute CLI manual, and outputs of versions 2022 to 2025.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from iosim.errors import AbsentError, FileError
from iosim.machine import load_device
from iosim.measure.cases import Case
from iosim.measure.measuring import SCHEDULES
from iosim.validate.own_rows import filled, own_table
from iosim.validate.rows import OPTIONAL, REQUIRED
from iosim.validate.timings import Table

#: quantity -> metrics that give it, the best first
METRICS = {
    "time_s": ("gpu__time_duration.sum", "gpu__time_duration.max", "gpu__time_duration.avg", "Duration"),
    "hbm_read_bytes": ("dram__bytes_read.sum", "dram__sectors_read.sum"),
    "hbm_write_bytes": ("dram__bytes_write.sum", "dram__sectors_write.sum"),
    "l2_read_bytes": ("lts__t_bytes_srcunit_tex_op_read.sum", "lts__t_sectors_srcunit_tex_op_read.sum",
                      "lts__t_bytes_op_read.sum", "lts__t_sectors_op_read.sum"),
    "l2_write_bytes": ("lts__t_bytes_srcunit_tex_op_write.sum", "lts__t_sectors_srcunit_tex_op_write.sum",
                       "lts__t_bytes_op_write.sum", "lts__t_sectors_op_write.sum"),
}  # fmt: skip
WANTED = {metric for metrics in METRICS.values() for metric in metrics}
SECTOR_BYTES = 32
#: Nsight Compute's decimal prefixes
PREFIX = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
SECONDS = {
    "s": 1.0,
    "second": 1.0,
    "ms": 1e-3,
    "msecond": 1e-3,
    "us": 1e-6,
    "usecond": 1e-6,
    "ns": 1e-9,
    "nsecond": 1e-9,
}
SECONDS |= {f"{name}s": value for name, value in SECONDS.items() if name.endswith("second")}
RANGES = ("thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg",
          "Id:Domain:Start/Stop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg")  # fmt: skip
#: a quoted range of such a column: domain, name (which may hold colons), six fields about payload and colour
NAME = re.compile(r'"[^":]*:(?P<name>[^"]*?)(?::[^":]*){6}"')


@dataclass(slots=True)
class Launch:
    """One profiled kernel."""

    row: int
    """line of its first number, from 1 below the header"""
    range: str
    """the NVTX ranges around it, or empty"""
    capability: str
    """of the device, or empty"""
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    """metric -> (number, unit), as printed"""


def is_ncu(text: str) -> bool:
    """Whether a text is Nsight Compute's output, with a table or without."""
    return '"Kernel Name"' in text[:200_000] or text.lstrip().startswith("==")


def read_ncu(text: str, source: str, fill: Mapping[str, str]) -> Table:
    """Measured time and bytes per call.

    Args:
        fill: columns of `iosim predict` that the output cannot say: device, and the shape where ranges do not name it.
    Raises:
        FileError: no table, or none of the metrics. AbsentError: counters were not permitted.
    """
    launches = list(_launches(text, source))
    found = {metric for launch in launches for metric in launch.values}
    if not found & WANTED:
        raise FileError(
            f"none of the metrics that are compared: {', '.join(sorted(found)[:4]) or 'no metric'}", source,
            f"ncu --metrics {','.join(metrics[0] for metrics in METRICS.values())}",
        )  # fmt: skip
    total = Table((), {})
    rows, numbers = [], []
    for launch, members in _calls(launches):
        case = _case(launch.range)
        if launch.range and case is None and not fill.get("seq_q"):
            total += Table((), {f"a range that names no case of `iosim measure`: {launch.range[:60]}": 1})
            continue
        row, broken = _measured(members)
        if broken:
            total += Table((), {broken: 1})
        rows.append({**dict.fromkeys((*REQUIRED, *OPTIONAL), ""), **_words(case), "l2": "", **row})
        numbers.append(launch.row)
    if not rows:
        return total
    capabilities = {launch.capability for launch in launches} - {""}
    _check_board(fill.get("device", ""), capabilities, source)
    made = filled(
        rows,
        {"dtype": "bf16", "l2": "cold", **fill} if any(_case(x.range) for x in launches) else {"l2": "cold", **fill},
    )
    return total + own_table(_without_empty(made), source, numbers)


def _launches(text: str, source: str) -> Iterator[Launch]:
    """Kernels in order of their first line."""
    lines = [line for line in text.splitlines() if line.startswith('"')]
    start = next((i for i, line in enumerate(lines) if '"Kernel Name"' in line), None)
    if start is None:
        if "ERR_NVGPUCTRPERM" in text:
            raise AbsentError(
                "Nsight Compute had no permission to read counters", source,
                "run it as root, or allow counters for users (NVreg_RestrictProfilingToAdminUsers=0)",
            )  # fmt: skip
        raise FileError("no table: Nsight Compute profiled no kernel", source, "ncu --csv --metrics ... COMMAND")
    header = next(csv.reader([lines[start]]))
    body = [row for row in csv.reader(lines[start + 1 :]) if len(row) >= len(header) - 5 and row != header]
    long = "Metric Name" in header
    units = {} if long or not body else dict(zip(header, body[0], strict=False))
    made: dict[tuple[str, str], Launch] = {}
    for number, cells in enumerate(body, 1):
        row = dict(zip(header, cells, strict=False))
        if not row.get("ID", "").strip():
            continue  # the line of units
        key = (row.get("Process ID", ""), row["ID"])
        if key not in made:
            named = " ".join(row.get(column, "") for column in RANGES).strip()
            made[key] = Launch(number, named, row.get("CC", "").strip())
        if long:
            if row.get("Metric Name") in WANTED:
                made[key].values[row["Metric Name"]] = (row.get("Metric Value", ""), row.get("Metric Unit", ""))
        else:
            made[key].values |= {name: (row[name], units.get(name, "")) for name in WANTED if name in row}
    yield from made.values()


def _calls(launches: Sequence[Launch]) -> Iterator[tuple[Launch, list[Launch]]]:
    """Neighbours in one range are one call; kernels outside ranges are calls of their own."""
    members: list[Launch] = []
    for launch in launches:
        if members and (not launch.range or launch.range != members[0].range):
            yield members[0], members
            members = []
        members.append(launch)
    if members:
        yield members[0], members


def _case(ranges: str) -> Case | None:
    """The case that the innermost fitting range names."""
    names = [match["name"] for match in NAME.finditer(ranges)] or [ranges]
    for name in reversed(names):
        words = name.split()
        fields = list(Case.__dataclass_fields__)
        if len(words) == len(fields) and words[0] in SCHEDULES:
            try:
                typed = [
                    word if fields[i] in ("kernel", "mask", "order", "grid") else int(word)
                    for i, word in enumerate(words)
                ]
            except ValueError:
                continue
            return Case(*typed)  # type: ignore[arg-type]
    return None


def _words(case: Case | None) -> dict[str, str]:
    if case is None:
        return {}
    names = ("phase", "batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "mask")
    made = {name: str(getattr(case, name)) for name in names}
    if case.kernel == "triton-tiled":  # its order is the case's; libraries have their own
        made |= {"order": case.order, "grid": case.grid}
    return {**made, "kernel": SCHEDULES[case.kernel], "tile": f"{case.tile_q}x{case.tile_kv}" if case.tile_q else ""}


def _measured(members: Sequence[Launch]) -> tuple[dict[str, str], str]:
    """(sums over the kernels of a call, what could not be read)."""
    sums: dict[str, float] = {}
    broken = ""
    for quantity, metrics in METRICS.items():
        values = []
        for launch in members:
            name = next((metric for metric in metrics if metric in launch.values), "")
            text, unit = launch.values[name] if name else ("", "")
            value = _number(text, unit or ("sector" if "sectors" in name else ""), seconds=quantity == "time_s")
            if value is None and text.strip() not in ("", "n/a", "N/A", "nan"):
                broken = f"a number or unit that cannot be read: {text.strip()[:20]} {unit}".strip()
            values.append(value)
        if None not in values:
            sums[quantity] = sum(value for value in values if value is not None)
    return {name: repr(value) for name, value in sums.items()}, broken


def _number(text: str, unit: str, seconds: bool) -> float | None:
    """Seconds or bytes of a printed number; None where it cannot be read."""
    plain = text.strip()
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    if not re.fullmatch(r"\d+(\.\d+)?([eE][+-]?\d+)?", plain):
        return None
    word = unit.strip().lower()
    if seconds:
        return float(plain) * SECONDS[word] if word in SECONDS else None
    found = re.fullmatch(r"(?P<prefix>[kmgt]?)(?P<what>bytes?|b|sectors?)", word)
    if not found:
        return None
    width = SECTOR_BYTES if found["what"].startswith("sector") else 1
    return float(plain) * PREFIX[found["prefix"]] * width


def _check_board(device: str, capabilities: set[str], source: str) -> None:
    if not device:
        raise FileError("Nsight Compute's output does not name the board", source, "--device NAME")
    known = load_device(device).compute_capability
    if known and capabilities - {known}:
        raise FileError(
            f"profiled on compute capability {', '.join(sorted(capabilities))}, but {device} has {known}", source,
            "name the board that was profiled with --device",
        )  # fmt: skip


def _without_empty(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The same rows with the same columns; quantities that no call has are dropped."""
    quantities = [name for name in METRICS if any(row.get(name) for row in rows)]
    plain = [{name: value for name, value in row.items() if name not in METRICS} for row in rows]
    return [{**kept, **{name: row.get(name, "") for name in quantities}} for kept, row in zip(plain, rows, strict=True)]
