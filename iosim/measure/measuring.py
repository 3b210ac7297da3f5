"""Runs cases within a budget; each is on disk before the next starts, and a run goes on where another stopped."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from iosim.errors import FileError, UsageError
from iosim.measure.cases import Case
from iosim.measure.clock import Measured
from iosim.measure.result_file import Appending, failed_row, measured_rows

#: seconds of repetitions per case and cache state
PER_CASE_S = 0.6


class Machine(Protocol):
    """What runs cases."""

    def facts(self) -> dict[str, str]:
        """What stands in each row."""

    def run(self, case: Case, limit_s: float) -> Measured:
        """Times by state of the last cache, and what else is known of the case."""

    def release(self) -> bool:
        """Give memory back; whether the machine still answers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    measured: int = 0
    """cases measured now"""
    failed: int = 0
    """cases that could not run; their rows say why"""
    before: int = 0
    """cases found in the file"""
    left: int = 0
    """cases for another run"""
    stopped: str = ""
    """why it ended early, where the budget is not the reason: interrupted | lost"""


def seconds(text: str) -> float:
    """A budget: 90, 90s, 8m, 1h.

    Raises:
        UsageError: not such a time.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|)", text.strip())
    if not found or float(found[1]) <= 0:
        raise UsageError(f"{text!r} is not a time", "--budget", "write 90s, 8m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[found[2]]


def measure(
    machine: Machine,
    cases: Iterable[Case],
    path: Path,
    device: str,
    budget_s: float,
    progress: Callable[[str], None] | None = None,
    retry: bool = False,
) -> Outcome:
    """Measure cases until the budget is spent, which a case that has started may overrun.

    Args:
        path: CSV to write or to go on with.
        device: catalogue name, or path of the device's file from the CSV's folder, for `iosim validate`.
        progress: called with what runs next.
        retry: measure again what failed before.
    Raises:
        FileError: the file exists and is not one of these, or cannot be written.
    """
    todo = list(cases)
    start = time.monotonic()
    if not path.parent.is_dir():
        raise FileError("no such folder", str(path.parent), "make it first")
    with Appending(path, lambda row: not (retry and row["error"])) as file:
        done = {row["case"] for row in file.rows}
        waiting = [case for case in todo if case.key not in done]
        outcome = Outcome(before=len(todo) - len(waiting), left=len(waiting))
        facts = machine.facts() if waiting else {}
        for number, case in enumerate(waiting):
            if time.monotonic() - start > budget_s:
                break
            if progress:
                progress(f"{number + 1} of {len(waiting)}: {case.experiment} {case.key}".replace("  ", " "))
            try:
                failed = _one(machine, case, device, facts, file)
                alive = machine.release()
            except KeyboardInterrupt:
                return replace(outcome, stopped="interrupted")
            outcome = replace(
                outcome, measured=outcome.measured + (not failed), failed=outcome.failed + failed, left=outcome.left - 1
            )
            if not alive:
                return replace(outcome, stopped="lost")
    return outcome


def _one(machine: Machine, case: Case, device: str, facts: dict[str, str], file: Appending) -> bool:
    """Measure one case and write it; whether it failed."""
    now = {**facts, "measured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}
    try:
        file.add(measured_rows(case, device, now, machine.run(case, PER_CASE_S)))
    except FileError:
        raise
    except Exception as error:  # kernels, compilers and drivers raise whatever they like; the row says it
        file.add([failed_row(case, device, now, error)])
        return True
    return False
