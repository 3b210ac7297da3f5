"""Runs cases under Nsight Compute and puts what it counted beside their times.

Each batch of cases is one run of the profiler over this program; its numbers are in the file before the next batch starts.
Names of counters that this profiler does not know are replaced by other names of the same quantity, or left out and said.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import iosim
from iosim.errors import AbsentError, FileError
from iosim.measure.cases import LABEL, label_of
from iosim.measure.nsight import QUANTITIES, Launch, parse_nsight, totals
from iosim.measure.result_file import Row, read_rows, write_rows

#: asked for in this order of worth; few enough for one pass over a kernel (facts of experiments: big lists replay it)
ASKED = ("profiled_s", "hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes", "l2_read_hit_bytes", "l2_fabric_bytes")
#: cases per run of the profiler; the first run has one, to learn what is refused
BATCH = 12
#: state of the last cache -> what the profiler does with caches between passes
CACHE_CONTROL = {"cold": "all", "warm": "none"}
#: seconds that a run of the profiler may take beyond its budget before it is ended
GRACE_S = 120.0
NO_PERMISSION = "ERR_NVGPUCTRPERM"
PERMISSION = "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
PLACES = ("/usr/local/cuda*/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")


@dataclass(slots=True)
class Counted:
    """What a run under the profiler did."""

    counted: int = 0
    """rows that got their counters"""
    left: int = 0
    """rows for another run"""
    refused: list[str] = field(default_factory=list)
    """quantities that this profiler has no counter for"""


def find_ncu() -> str:
    """The profiler.

    Raises:
        AbsentError: it is not installed.
    """
    found = shutil.which("ncu")
    elsewhere = sorted(path for pattern in PLACES for path in glob.glob(pattern))
    if not found and not elsewhere:
        raise AbsentError("Nsight Compute (ncu) is not installed", "--counters", "times were kept; it comes with CUDA")
    return found or elsewhere[-1]


def metrics(chosen: Mapping[str, int] | None = None) -> list[str]:
    """Names of counters, one per quantity: the first, or the one with the chosen number."""
    picks = dict.fromkeys(ASKED, 0) if chosen is None else chosen
    return [QUANTITIES[name][index][0] for name, index in picks.items()]


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
        child: command that profiles the cases whose labels a JSON file lists: the file and a budget are appended.
        say: called with what happens.
    Raises:
        AbsentError: no profiler, or it may not or cannot read counters. FileError: the CSV cannot be read or written.
    """
    ncu, start = find_ncu(), time.monotonic()
    chosen, made, size = dict.fromkeys(ASKED, 0), Counted(), 1
    for state in CACHE_CONTROL:
        while True:
            rows = read_rows(path)
            waiting = [row for row in rows if row["l2"] == state and row["case"] in keys and _uncounted(row)]
            left_s = budget_s - (time.monotonic() - start)
            if not waiting or left_s <= 0:
                made.left += len(waiting)
                break
            batch = {label_of(row["case"]): row for row in waiting[:size]}
            if say:
                say(f"counting {len(batch)} of {len(waiting)} {state} rows")
            launches = _profile(ncu, list(batch), child, CACHE_CONTROL[state], left_s, chosen, made.refused)
            if launches or budget_s - (time.monotonic() - start) > 0:  # a spent budget says nothing of the next row
                made.counted += _fill(batch, launches)
            write_rows(path, rows)
            size = BATCH
    return made


def merge(path: Path, launches: Iterable[Launch], state: str = "cold") -> int:
    """Put counters that were taken by hand beside the times; how many rows got them.

    Raises:
        FileError: the CSV cannot be read or written, or none of its rows was profiled.
    """
    rows = read_rows(path)
    batch = {label_of(row["case"]): row for row in rows if row["l2"] == state}
    found = [launch for launch in launches if _label(launch) in batch]
    if not found:
        raise FileError(
            f"no launch belongs to a {state} row", str(path), "was ncu given --nvtx, and --profile the same cases?"
        )
    there = {_label(launch) for launch in found}
    filled = _fill({label: row for label, row in batch.items() if label in there}, found)
    write_rows(path, rows)
    return filled


def _uncounted(row: Row) -> bool:
    return bool(row["time_s"]) and not row["launches"] and not row["profile_error"]


def _fill(batch: Mapping[str, Row], launches: Iterable[Launch]) -> int:
    """Counters into the rows of a batch, in the order of its run; how many got them.

    A row without a launch is not asked for again where a later one has some, and where it is the first behind the last
    that has: there the program ended. What comes after that did not have its turn.
    """
    found: dict[str, list[Launch]] = {label: [] for label in batch}
    for launch in launches:
        if (label := _label(launch)) in found:
            found[label].append(launch)
    last = max((number for number, rows in enumerate(found.values()) if rows), default=-1)
    for number, (label, rows) in enumerate(found.items()):
        row = batch[label]
        if not rows:
            row["profile_error"] = "no launch was profiled" if number <= last + 1 else ""
            continue
        names = dict.fromkeys(launch.kernel for launch in rows)
        row |= {name: f"{value:.9g}" for name, value in totals(rows).items()}
        row |= {"launches": str(len(rows)), "profiled_kernels": "; ".join(names)[:300], "profile_error": ""}
    return sum(bool(rows) for rows in found.values())


def _label(launch: Launch) -> str:
    found = LABEL.search(" ".join(launch.ranges))
    return found[0] if found else ""


def _profile(
    ncu: str, labels: list[str], child: Sequence[str], control: str, left_s: float, chosen: dict[str, int],
    refused: list[str],
) -> tuple[Launch, ...]:  # fmt: skip
    """One run of the profiler, again with other names where it refuses some."""
    with tempfile.TemporaryDirectory() as folder:
        listed, log = Path(folder) / "cases.json", Path(folder) / "ncu.log"
        listed.write_text(json.dumps(labels))
        while chosen:
            log.unlink(missing_ok=True)
            command = [
                ncu, "--nvtx", "--profile-from-start", "off", "--clock-control", "none", "--cache-control", control,
                "--target-processes", "all", "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log),
                "--metrics", ",".join(metrics(chosen)), *child, str(listed), "--budget", f"{max(1.0, left_s):.0f}s",
            ]  # fmt: skip
            output = _run(command, left_s + GRACE_S)
            text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
            if not _renamed(text + output, chosen, refused):
                return _launches(text, output)
    raise AbsentError("Nsight Compute knows none of the counters", "--counters", "times were kept")


def _run(command: list[str], limit_s: float) -> str:
    found = os.pathsep.join(filter(None, [str(Path(iosim.__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": found, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=limit_s, check=False, env=settings
        )
    except subprocess.TimeoutExpired:
        raise AbsentError(
            "Nsight Compute did not come back in time", "--counters", "what was counted is kept"
        ) from None
    except OSError as error:
        raise AbsentError(
            f"Nsight Compute cannot be started: {error.strerror}", "--counters", "times were kept"
        ) from None
    return done.stdout.decode(errors="replace")


def _renamed(text: str, chosen: dict[str, int], refused: list[str]) -> bool:
    """Take other names for counters that were refused; whether any was."""
    stems = set(re.findall(r"[Ff]ailed to find metric (?:regex:)?\^?(\w+)", text))
    bad = [name for name, index in chosen.items() if QUANTITIES[name][index][0].partition(".")[0] in stems]
    for name in bad:
        others = QUANTITIES[name][chosen[name] + 1 :]
        if others and "__" in others[0][0]:
            chosen[name] += 1
        else:
            del chosen[name]
            refused.append(name)
    return bool(bad)


def _launches(text: str, output: str) -> tuple[Launch, ...]:
    """Launches that the profiler reports.

    Raises:
        AbsentError: it reports none and says why, or the program under it failed.
    """
    said = text + "\n" + output
    if NO_PERMISSION in said:
        what = f"no permission to read the GPU's counters ({NO_PERMISSION})"
        raise AbsentError(what, "--counters", f"times were kept; {PERMISSION}")
    try:
        launches = parse_nsight(text, "ncu --csv")
    except FileError:
        launches = ()
    if launches or "No kernels were profiled" in said:
        return launches
    errors = re.findall(r"==ERROR== (.*)", said) or [line for line in output.strip().splitlines() if line.strip()][-1:]
    why = "; ".join(dict.fromkeys(errors)) or "it printed no table"
    raise AbsentError(f"Nsight Compute counted nothing: {why[:300]}", "--counters", "times were kept")
