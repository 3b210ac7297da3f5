"""Counters beside times: the profiler run over the program, its refusals, its absence, and files made by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iosim.errors import AbsentError, FileError
from iosim.measure.cases import Case
from iosim.measure.clock import Measured, Timing
from iosim.measure.counting import count, find_ncu, merge
from iosim.measure.measuring import measure
from iosim.measure.nsight import QUANTITIES, parse_nsight
from iosim.measure.profiler import ASKED, metrics
from iosim.measure.result_file import read_rows

CASES = [Case("sdpa-flash", batch, 4, 4, 16, 64, 64, "full") for batch in range(1, 16)]
#: the program under the profiler: says whose turn it is, in an order of its own, and dies where it is told to
PROGRAM = """
import json, os, sys
for label in sorted(json.load(open(sys.argv[2]))):
    print("profiling", label, flush=True)
    if label == os.environ.get("FAKE_NCU_ENDS_AT"):
        sys.exit(9)
    print("profiled", label)
"""
CHILD = [sys.executable, "-c", PROGRAM, "--profile"]


class Clockwork:
    def facts(self) -> dict[str, str]:
        return {"board": "clockwork"}

    def run(self, case: Case, limit_s: float) -> Measured:
        if case.batch == 4:
            raise RuntimeError("refused")
        return Measured({"warm": Timing(1.0, 0.9, 1.1, 7), "cold": Timing(2.0, 1.9, 2.1, 7)})

    def release(self) -> bool:
        return True


@pytest.fixture
def path(tmp_path: Path) -> Path:
    measure(Clockwork(), CASES, tmp_path / "out.csv", "h200-sxm", 60)
    return tmp_path / "out.csv"


def cold(path: Path) -> Iterator[dict[str, str]]:
    return (row for row in read_rows(path) if row["l2"] == "cold")


def test_counters_come_beside_the_times_of_their_case(path: Path, fake_ncu: Path) -> None:
    said: list[str] = []
    before = [row["time_s"] for row in read_rows(path)]
    made = count({case.key for case in CASES}, path, CHILD, 60, said.append)
    assert (made.counted, made.left, made.choice.refused, made.choice.unfit) == (28, 0, [], [])
    assert said[0].startswith("counting 1 of 14 cold")
    first, *rest = cold(path)
    assert first["hbm_read_bytes"] == "2000"  # two launches of the first case of a run
    assert first["l2_read_bytes"] == "64000"
    assert float(first["profiled_s"]) == pytest.approx(2e-6)
    assert first["profiled_kernels"] == "kernel_0; kernel_1"
    assert [row["hbm_write_bytes"] for row in rest[:3]] == ["14000", "16000", "18000"]  # behind 10 to 15 sequences
    warm = next(row for row in read_rows(path) if row["l2"] == "warm")
    assert int(warm["hbm_read_bytes"]) % 1000 == 2
    assert [row["time_s"] for row in read_rows(path)] == before
    assert all(not row["launches"] for row in read_rows(path) if row["error"])
    assert count({case.key for case in CASES}, path, CHILD, 60).counted == 0


def test_only_what_is_asked_for_is_counted(path: Path, fake_ncu: Path) -> None:
    assert count({CASES[0].key}, path, CHILD, 60).counted == 2
    assert sum(bool(row["launches"]) for row in read_rows(path)) == 2


def test_names_that_are_refused_are_replaced_or_left_out(
    path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NCU", "old-names")
    made = count({CASES[0].key}, path, CHILD, 60)
    assert made.choice.refused == ["l2_fabric_bytes"]
    row = next(cold(path))
    assert row["l2_fabric_bytes"] == ""
    assert row["hbm_read_bytes"] == "2000"
    assert metrics(made.choice)[1:3] == ["dram__bytes_op_read.sum", "dram__bytes_op_write.sum"]  # alike, in one try


@pytest.mark.parametrize(
    ("fault", "why"),
    [("permission", "ERR_NVGPUCTRPERM"), ("broken", "LibraryNotLoaded"), ("silent", "counted nothing: no such thing")],
)
def test_a_profiler_that_cannot_count_says_so_and_times_stay(
    path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch, fault: str, why: str
) -> None:
    monkeypatch.setenv("FAKE_NCU", fault)
    before = path.read_text()
    child = [sys.executable, "-c", "print('no such thing')", "--profile"]
    with pytest.raises(AbsentError, match=why) as caught:
        count({CASES[0].key}, path, child, 60)
    assert "times were kept" in caught.value.faults[0].hint
    assert path.read_text() == before


def test_a_case_that_the_profiler_fails_over_is_not_asked_for_again(
    path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {case.key for case in CASES[:2]}
    monkeypatch.setenv("FAKE_NCU", "fails")
    with pytest.raises(AbsentError, match="Failed to profile"):
        count(keys, path, CHILD, 60)
    monkeypatch.setenv("FAKE_NCU", "")
    assert count(keys, path, CHILD, 60).counted == 3  # one of them cold
    assert [row["batch"] for row in cold(path) if row["profile_error"]] == ["1"]


def test_a_case_without_a_launch_is_not_asked_for_again(
    path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_NCU", "nothing")
    assert count({CASES[0].key}, path, CHILD, 60).counted == 0
    assert next(cold(path))["profile_error"] == "no launch was profiled"
    monkeypatch.setenv("FAKE_NCU", "")
    assert count({CASES[0].key}, path, CHILD, 60).counted == 0


def test_a_program_that_ends_early_leaves_the_rest_for_the_next_run(
    path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sixth case kills the program each time, wherever its turn is: its row says so, all others are counted."""
    monkeypatch.setenv("FAKE_NCU_ENDS_AT", CASES[5].label)
    made = count({case.key for case in CASES}, path, CHILD, 60)
    assert made.counted == 2 * 13
    errors = {row["batch"]: row["profile_error"] for row in cold(path)}
    assert {batch for batch, error in errors.items() if error} == {"6"}


def test_what_takes_a_second_pass_is_left_out(path: Path, fake_ncu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pass over the kernel would find what the first one left in the cache."""
    monkeypatch.setenv("FAKE_NCU", "passes")
    made = count({CASES[0].key}, path, CHILD, 60)
    assert made.choice.unfit == ["l2_fabric_bytes", "l2_read_hit_bytes"]
    row = next(cold(path))
    assert (row["l2_read_bytes"], row["l2_read_hit_bytes"]) == ("64000", "")


def test_a_spent_budget_leaves_rows(path: Path, fake_ncu: Path) -> None:
    made = count({case.key for case in CASES}, path, CHILD, 0)
    assert (made.counted, made.left) == (0, 28)


@pytest.fixture
def hanging(fake_ncu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program hangs in its third case; the file names another process that it started."""
    monkeypatch.setenv("FAKE_NCU", "hangs")
    monkeypatch.setenv("FAKE_NCU_SLEEPER", str(tmp_path / "sleeper"))
    monkeypatch.setattr("iosim.measure.counting.BATCH", 5)
    return tmp_path / "sleeper"


def outlives(pid: int) -> bool:
    """Whether a process is still there after a while; one that nobody has waited for is not."""
    for _ in range(200):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except FileNotFoundError:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize(
    ("why", "raised", "hung"),
    [(subprocess.TimeoutExpired("ncu", 60), AbsentError, ["5"]), (KeyboardInterrupt(), KeyboardInterrupt, [])],
)
def test_a_profiler_that_is_ended_keeps_what_it_counted(
    path: Path, hanging: Path, monkeypatch: pytest.MonkeyPatch, why: BaseException, raised: type[BaseException],
    hung: list[str],
) -> None:  # fmt: skip
    """Late, or by Ctrl-C, which reaches this program alone since the profiler has a session of its own."""
    wait = subprocess.Popen.wait

    def ended(self: Any, timeout: float | None = None) -> int:
        while timeout and timeout > 25 and self.poll() is None:
            time.sleep(0.01)
            if hanging.exists():
                raise why
        return wait(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", ended)
    with pytest.raises(raised):
        count({case.key for case in CASES}, path, CHILD, 60)
    rows = list(cold(path))
    assert [row["launches"] for row in rows if row["time_s"]][:5] == ["2", "2", "2", "", ""]  # one, then two of five
    assert [row["batch"] for row in rows if row["profile_error"]] == hung  # not asked for again
    assert not outlives(int(hanging.read_text()))


def test_a_profiler_that_does_not_come_back(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ncu").write_text("#!/bin/sh\nexec sleep 30\n")
    (tmp_path / "ncu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("iosim.measure.profiler.GRACE_S", 0.0)
    monkeypatch.setattr("iosim.measure.profiler.START_S", 0.0)
    with pytest.raises(AbsentError, match="did not come back"):
        count({CASES[0].key}, path, CHILD, 0.2)


def test_without_a_profiler(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("iosim.measure.profiler.PLACES", (str(tmp_path / "cuda*" / "ncu"),))
    with pytest.raises(AbsentError, match="not installed"):
        count(set(), path, CHILD, 60)
    (tmp_path / "cuda-13").mkdir()
    (tmp_path / "cuda-13" / "ncu").touch()
    assert find_ncu() == str(tmp_path / "cuda-13" / "ncu")


def by_hand(*cases: Case) -> str:
    cell = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
    lines = [f'"ID","Kernel Name","{cell}","dram__bytes_read.sum"', '"","","","Mbyte"']
    lines += [f'"{i}","fmha","1 ""<default domain>:{case.label}:none""","57.7"' for i, case in enumerate(cases)]
    return "\n".join(lines) + "\n"


def test_counters_taken_by_hand(path: Path) -> None:
    assert merge(path, parse_nsight(by_hand(CASES[2], CASES[0]))) == 2
    assert [row["hbm_read_bytes"] for row in cold(path)][:3] == ["57700000", "", "57700000"]
    with pytest.raises(FileError, match="no launch belongs"):
        merge(path, parse_nsight(by_hand(replace(CASES[0], batch=99))))


def test_what_is_asked_for_are_counters_of_known_quantities() -> None:
    assert metrics()[1] == "dram__bytes_read.sum"
    assert len(metrics()) == len(ASKED)
    assert set(ASKED) <= QUANTITIES.keys()
    assert json.dumps([case.label for case in CASES])
