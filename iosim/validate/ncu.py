"""Calls from what `ncu --csv` prints: kernels of one NVTX range are one call, their times and bytes add.

A range says the shape in columns of `iosim predict` ("batch=1 heads=32 ..."), or is one of `iosim measure --profile`, whose
cases say it. Without ranges each kernel is a call whose shape the user gives. Counters start from a flushed cache, as
Nsight Compute does unless told otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from iosim.errors import AbsentError, FileError
from iosim.machine import Device, load_device
from iosim.measure.cases import Case, case_of
from iosim.measure.nsight import QUANTITIES, Launch, parse_nsight, totals
from iosim.measure.result_file import case_row
from iosim.validate.own_rows import filled, own_table
from iosim.validate.rows import OPTIONAL, REQUIRED
from iosim.validate.timings import MOVED, Table

#: a quoted range of Nsight's columns: domain, name, six fields about payload and colour
NAME = re.compile(r'"[^":]*:(?P<name>[^"]*?)(?::[^":]*){6}"')


def is_ncu(text: str) -> bool:
    """Whether a text is Nsight Compute's output, with a table or without."""
    return '"Kernel Name"' in text or text.lstrip().startswith("==")


def read_ncu(text: str, source: str, fill: Mapping[str, str]) -> Table:
    """Measured time and bytes per call.

    Args:
        fill: columns of `iosim predict` that the output cannot say: device, and the shape where ranges do not name it.
    Raises:
        FileError: no table, none of the counters, or another board. AbsentError: counters were not permitted.
    """
    if "ERR_NVGPUCTRPERM" in text:
        raise AbsentError(
            "Nsight Compute had no permission to read counters", source,
            "run it as root, or allow counters for users (NVreg_RestrictProfilingToAdminUsers=0)",
        )  # fmt: skip
    launches = parse_nsight(text, source)
    if not any(totals([launch]) for launch in launches):
        names = ",".join(counters[0][0] for counters in QUANTITIES.values())
        raise FileError("none of the counters that are compared", source, f"ncu --metrics {names}")
    if not fill.get("device"):
        raise FileError("Nsight Compute's output does not name the board", source, "--device NAME")
    board = load_device(fill["device"])
    _check_board(board, launches, source)
    total = Table((), {})
    rows, numbers = [], []
    for members in _calls(launches):
        words = _words(members[0])
        if not words and members[0].ranges and not fill.get("seq_q"):
            why = "a range that names neither columns nor a case of `iosim measure`"
            total += Table((), {why: 1})
            continue
        rows.append({**dict.fromkeys((*REQUIRED, *OPTIONAL), ""), **words, **_measured(members)})
        numbers.append(members[0].number + 1)
    if not rows:
        return total
    return total + own_table(_even(filled(rows, {"l2": "cold", **fill})), source, numbers)


def _calls(launches: Sequence[Launch]) -> Iterator[list[Launch]]:
    """Neighbours in one range are one call; kernels outside ranges are calls of their own."""
    members: list[Launch] = []
    for launch in launches:
        if members and (not launch.ranges or launch.ranges != members[0].ranges):
            yield members
            members = []
        members.append(launch)
    if members:
        yield members


def _words(launch: Launch) -> dict[str, str]:
    """What the innermost range that says something says; nothing where none does."""
    text = " ".join(launch.ranges)
    names = [match["name"].strip() for match in NAME.finditer(text)] or list(launch.ranges)
    for name in reversed(names):
        pairs = dict(word.split("=", 1) for word in name.split() if "=" in word)
        if pairs and set(pairs) <= {*REQUIRED, *OPTIONAL, "order", "grid"}:
            return pairs
        if case := case_of(name):
            return _of_case(case)
    return {}


def _of_case(case: Case) -> dict[str, str]:
    """The columns that the file of `iosim measure` has for the case."""
    names = (*REQUIRED, "tile", "order", "grid", "per_core")
    return {name: value for name, value in case_row(case, "").items() if name in names and value}


def _measured(members: Sequence[Launch]) -> dict[str, str]:
    """Sums over the kernels of a call, those that every kernel has."""
    found = totals(members)
    made = {name: repr(found[name]) for name in MOVED if name in found}
    return {**made, **({"time_s": repr(found["profiled_s"])} if "profiled_s" in found else {})}


def _check_board(device: Device, launches: Sequence[Launch], source: str) -> None:
    seen = {launch.about.get("CC", "").strip() for launch in launches} - {""}
    if device.compute_capability and seen - {device.compute_capability}:
        raise FileError(
            f"profiled on compute capability {', '.join(sorted(seen))}, but {device.key} has {device.compute_capability}",
            source,
            "name the board that was profiled with --device",
        )


def _even(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows with the same columns."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name, "") for name in names} for row in rows]
