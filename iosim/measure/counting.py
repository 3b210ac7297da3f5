"""Puts what Nsight Compute counted beside the times of its cases.

Each batch of cases is one run of the profiler over this program; its numbers are in the file before the next batch starts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iosim.errors import AbsentError, FileError
from iosim.measure import profiler
from iosim.measure.cases import LABEL, label_of
from iosim.measure.nsight import Launch, totals
from iosim.measure.profiler import Choice, Run, find_ncu, profile
from iosim.measure.result_file import Row, read_rows, write_rows

#: states of the last cache, in the order in which they are counted
STATES = ("cold", "warm")
#: cases per run of the profiler; the first run has one, to learn what is refused
BATCH = 24


@dataclass(slots=True)
class Counted:
    """What a run under the profiler did."""

    choice: Choice
    """counters that were asked for, and those that were not"""
    counted: int = 0
    """rows that got their counters"""
    left: int = 0
    """rows for another run"""


def count(
    keys: Container[str],
    path: Path,
    child: Sequence[str],
    budget_s: float,
    say: Callable[[str], None] | None = None,
) -> Counted:
    """Fill in counters of measured rows, cold ones first, until the budget is spent.

    Args:
        keys: cases that are asked for.
        path: CSV of `iosim measure`; rewritten after each batch.
        child: command that profiles cases, as `profile` takes it.
        say: called with what happens.
    Raises:
        AbsentError: no profiler, or it may not or cannot read counters. FileError: the CSV cannot be read or written.
        KeyboardInterrupt: interrupted, after what was counted is in the file.
    """
    ncu, deadline = find_ncu(), time.monotonic() + budget_s
    made, size = Counted(Choice()), 1
    for state in STATES:
        while waiting := _waiting(rows := read_rows(path), state, keys):
            batch = {label_of(row["case"]): row for row in waiting[:size]}
            if deadline - time.monotonic() <= profiler.START_S:
                break
            if say:
                say(f"counting {len(batch)} of {len(waiting)} {state} rows")
            run = profile(ncu, list(batch), child, state, deadline, made.choice)
            made.counted += _fill(batch, run)
            write_rows(path, rows)
            if run.ended:
                _stop(run)
            if not run.turns and not run.launches:
                break  # no case had its turn before the budget was spent
            size = BATCH
        made.left += len(waiting)
    return made


def _stop(run: Run) -> None:
    """Raises what ended a run of the profiler, once its numbers are in the file."""
    if run.ended == "interrupted":
        raise KeyboardInterrupt
    late = "did not come back in time" if run.ended == "late" else run.ended
    raise AbsentError(f"Nsight Compute {late}"[:300], "--counters", "what was counted is kept; run again to go on")


def merge(path: Path, launches: Iterable[Launch], state: str = "cold") -> int:
    """Put counters that were taken by hand beside the times; how many rows got them.

    Args:
        state: of the last cache before each call.
    Raises:
        FileError: the CSV cannot be read or written, or none of its rows was profiled.
    """
    rows = read_rows(path)
    batch = {label_of(row["case"]): row for row in rows if row["l2"] == state}
    found = tuple(launch for launch in launches if _label(launch) in batch)
    if not found:
        raise FileError(
            f"no launch belongs to a {state} row", str(path), "was ncu given --nvtx, and --profile the same cases?"
        )
    filled = _fill(batch, Run(found, done=frozenset(map(_label, found))))
    write_rows(path, rows)
    return filled


def _waiting(rows: Iterable[Row], state: str, keys: Container[str]) -> list[Row]:
    """Rows with a time and without counters, that did not fail under the profiler."""
    return [
        row
        for row in rows
        if row["l2"] == state and row["case"] in keys and row["time_s"]
        if not row["launches"] and not row["profile_error"]
    ]


def _fill(batch: Mapping[str, Row], run: Run) -> int:
    """Counters into the rows of a batch; how many got them.

    A row is not asked for again where its case had its turn and did not end, or launched nothing.
    """
    found: dict[str, list[Launch]] = {label: [] for label in batch}
    for launch in run.launches:
        if (label := _label(launch)) in found:
            found[label].append(launch)
    for label, launches in found.items():
        row = batch[label]
        if launches and label in run.done:
            names = dict.fromkeys(launch.kernel for launch in launches)
            row |= {name: f"{value:.9g}" for name, value in totals(launches).items()}
            row |= {"launches": str(len(launches)), "profiled_kernels": "; ".join(names)[:300], "profile_error": ""}
        elif label in run.turns and run.ended != "interrupted":
            why = "no launch was profiled" if label in run.done else "the program ended in it"
            row["profile_error"] = run.failures.get(label, why)[:300]
    return sum(bool(launches) and label in run.done for label, launches in found.items())


def _label(launch: Launch) -> str:
    found = LABEL.search(" ".join(launch.ranges))
    return found[0] if found else ""
