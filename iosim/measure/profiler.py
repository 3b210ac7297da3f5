"""One run of Nsight Compute over this program: what it counted, which cases had their turn, and what they say.

The program flushes the last cache before a cold call itself, as it does before a timed one, and the profiler leaves caches
alone: so a call of several launches is cold at its first launch only, and counters and times are of the same call. That
holds where a launch is profiled in one pass; counters that need a second one, which would find the cache warm, are left out.
Names of counters that this profiler does not know are replaced by other names of the same quantity, or left out and said.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import iosim
from iosim.errors import AbsentError, FileError
from iosim.measure.cases import LABEL
from iosim.measure.nsight import QUANTITIES, Launch, parse_nsight

#: asked for in this order of worth; few enough for one pass over a kernel
ASKED = ("profiled_s", "hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes", "l2_read_hit_bytes", "l2_fabric_bytes")
#: counters that are never left out because of passes: time and main memory
FEWEST = 3
#: seconds that the profiler, Python and PyTorch take before the first case runs
START_S = 20.0
#: seconds that a run may take beyond its budget before it is told to end, and then to print what it has
GRACE_S, END_S = 60.0, 20.0
NO_PERMISSION = "ERR_NVGPUCTRPERM"
PERMISSION = "run as root, or load the driver with NVreg_RestrictProfilingToAdminUsers=0"
PLACES = ("/usr/local/cuda*/bin/ncu", "/opt/nvidia/nsight-compute/*/ncu")
#: how the program under the profiler says, line by line, whose turn it is, what was run and what failed
TURN, DONE, FAILED = "profiling ", "profiled ", "failed "


@dataclass(slots=True)
class Choice:
    """Which counters are asked for."""

    names: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ASKED, 0))
    """quantity -> number of its counter in `QUANTITIES`"""
    refused: list[str] = field(default_factory=list)
    """quantities that this profiler has no counter for"""
    unfit: list[str] = field(default_factory=list)
    """quantities that did not fit into one pass"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of the profiler gave."""

    launches: tuple[Launch, ...] = ()
    """profiled"""
    turns: frozenset[str] = frozenset()
    """labels of the cases that the program started"""
    done: frozenset[str] = frozenset()
    """labels of the cases that it ran to their end: the launches of others may be cut short"""
    failures: Mapping[str, str] = field(default_factory=dict)
    """label -> why the program could not run it"""
    ended: str = ""
    """why the run was ended, where it did not end itself: late | interrupted; failed: why, where the profiler did"""


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


def metrics(choice: Choice | None = None) -> list[str]:
    """Names of counters, one per quantity."""
    return [QUANTITIES[name][index][0] for name, index in (choice or Choice()).names.items()]


def profile(
    ncu: str, labels: Sequence[str], child: Sequence[str], state: str, deadline: float, choice: Choice
) -> Run:  # fmt: skip
    """One run of the profiler over some cases, again with other counters where it refuses some or needs another pass.

    Args:
        child: command that profiles the cases whose labels a JSON file lists: the file, the state and a budget are appended.
        state: of the last cache before a call: cold | warm.
        deadline: of `time.monotonic`.
    Raises:
        AbsentError: it may not or cannot count.
    """
    with tempfile.TemporaryDirectory() as folder:
        listed, log, printed = (Path(folder) / name for name in ("cases.json", "ncu.log", "output"))
        listed.write_text(json.dumps(list(labels)))
        while choice.names:
            log.unlink(missing_ok=True)
            left_s = deadline - time.monotonic()
            command = [
                ncu, "--nvtx", "--profile-from-start", "off", "--clock-control", "none", "--cache-control", "none",
                "--target-processes", "all", "--csv", "--page", "raw", "--print-units", "base", "--log-file", str(log),
                "--metrics", ",".join(metrics(choice)), *child, str(listed), "--l2", state,
                "--budget", f"{max(1.0, left_s - START_S):.0f}s",
            ]  # fmt: skip
            ended = _run(command, printed, max(0.0, left_s) + GRACE_S)
            text, output = _text(log), _text(printed)
            again = _renamed(text + output, choice) or _fewer(text + output, choice)
            if not again or ended:
                return _made(text, output, ended)
            if deadline - time.monotonic() <= START_S:
                return Run()
    raise AbsentError("Nsight Compute knows none of the counters", "--counters", "times were kept")


def _run(command: Sequence[str], printed: Path, limit_s: float) -> str:
    """Run it, its output into a file; why it was ended, where it did not end itself."""
    found = os.pathsep.join(filter(None, [str(Path(iosim.__file__).parent.parent), os.environ.get("PYTHONPATH")]))
    settings = {**os.environ, "PYTHONPATH": found, "LC_ALL": "C", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    try:
        with printed.open("wb") as output:
            process = subprocess.Popen(  # a session of its own, so that all it starts can be ended together
                command, stdout=output, stderr=subprocess.STDOUT, env=settings, start_new_session=True
            )
    except OSError as error:
        raise AbsentError(
            f"Nsight Compute cannot be started: {error.strerror}", "--counters", "times were kept"
        ) from None
    try:
        process.wait(limit_s)
        return ""
    except subprocess.TimeoutExpired:
        return "late"
    except KeyboardInterrupt:
        return "interrupted"
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Tell it to stop, since it then prints what it has counted, and kill what is left of all that it started."""
    try:
        if process.poll() is None:
            _signal(process, signal.SIGINT)
            process.wait(END_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, sign)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def _renamed(text: str, choice: Choice) -> bool:
    """Take other names for counters that were refused; whether any was."""
    stems = set(re.findall(r"[Ff]ailed to find metric (?:regex:)?\^?(\w+)", text))
    stems |= {
        stem.replace("_read", "_write") for stem in stems
    }  # a chip names both alike, and each refusal costs a run
    names = choice.names
    bad = [name for name, index in names.items() if QUANTITIES[name][index][0].partition(".")[0] in stems]
    for name in bad:
        others = QUANTITIES[name][names[name] + 1 :]
        if others and "__" in others[0][0]:
            names[name] += 1
        else:
            del names[name]
            choice.refused.append(name)
    return bool(bad)


def _fewer(text: str, choice: Choice) -> bool:
    """Leave the least worthy counter out where a launch took several passes; whether one was."""
    passes = [int(count) for count in re.findall(r" - (\d+) pass(?:es)?\b", text)]
    if max(passes, default=1) == 1 or len(choice.names) <= FEWEST:
        return False
    choice.unfit.append(choice.names.popitem()[0])
    return True


def _made(text: str, output: str, ended: str) -> Run:
    """What a run says.

    Raises:
        AbsentError: it reports no launch and says why, or the program under it failed.
    """
    said = text + "\n" + output
    if NO_PERMISSION in said:
        what = f"no permission to read the GPU's counters ({NO_PERMISSION})"
        raise AbsentError(what, "--counters", f"times were kept; {PERMISSION}")
    try:
        launches = parse_nsight(text, "ncu --csv")
    except FileError:
        launches = ()
    turns, done = (
        frozenset(re.findall(rf"^{word}({LABEL.pattern})\s*$", output, re.MULTILINE)) for word in (TURN, DONE)
    )
    failures = dict(re.findall(rf"^{FAILED}({LABEL.pattern}): (.*)$", output, re.MULTILINE))
    why = _errors(said)
    if launches or ended or (not why and "No kernels were profiled" in said):
        return Run(launches, turns, done, failures, ended)
    why = why or "".join([line for line in output.strip().splitlines() if line.strip()][-1:]) or "it printed no table"
    if turns - done:  # the profiler may have failed over this case alone, which is not asked for again
        return Run((), turns, done, failures, f"failed: {why}")
    raise AbsentError(f"Nsight Compute counted nothing: {why[:300]}", "--counters", "times were kept")


def _errors(said: str) -> str:
    """What the profiler says went wrong with itself, not with the program under it."""
    lines = re.findall(r"==ERROR== (.*)", said)
    return "; ".join(dict.fromkeys(line for line in lines if "application returned an error code" not in line))
