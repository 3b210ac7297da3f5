"""Real kernels on this machine: right results, honest files, resumed runs, clear messages without a GPU."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from iosim.errors import AbsentError, CheckError, FileError, UsageError
from iosim.masks import Grid, bind, parse_mask
from iosim.measure.cases import Case, cpu_cases
from iosim.measure.clock import Measured, Timing, timing_of
from iosim.measure.cpu import CpuMachine, error_of, runner, tensors
from iosim.measure.cuda import CudaMachine
from iosim.measure.experiments import cuda_cases
from iosim.measure.measuring import measure, seconds
from iosim.measure.result_file import COLUMNS, SCHEDULES

SMALL = Case("cpu-tiled", 2, 4, 2, 16, 37, 53, "causal", 8, 16, dtype="fp32")


@pytest.mark.parametrize("mask", ["full", "causal", "window:9", "window:1"])
@pytest.mark.parametrize("order", ["cyclic", "sawtooth"])
@pytest.mark.parametrize("kernel", ["cpu-tiled", "cpu-unfused"])
def test_kernels_equal_a_double_precision_softmax(mask: str, order: str, kernel: str) -> None:
    case = replace(SMALL, kernel=kernel, mask=mask, order=order)
    q, k, v = tensors(case)
    made = runner(case, q, k, v)()
    assert error_of(case, q, k, v, made) < 1e-5
    assert made.shape == q.shape


def test_a_wrong_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iosim.measure.cpu.runner", lambda case, q, k, v: lambda: q * 0 + 1)
    with pytest.raises(CheckError, match="wrong by"):
        CpuMachine().run(SMALL, 0.0)


@pytest.mark.parametrize("mask", ["full", "causal", "window:9"])
def test_pairs_are_the_masks_own(mask: str) -> None:
    case = replace(SMALL, mask=mask)
    assert case.pairs == bind(parse_mask(mask), Grid((37,), (53,))).counts().pairs


class Clockwork:
    """A machine that fails on one case and takes a second of nobody's time on the others."""

    def facts(self) -> dict[str, str]:
        return {"board": "clockwork"}

    def run(self, case: Case, limit_s: float) -> Measured:
        if case.batch == 3:
            raise RuntimeError("no such shape\nhere")
        if case.batch == 7:
            raise KeyboardInterrupt
        return Measured({"warm": Timing(1.0, 0.9, 1.1, 7), "cold": Timing(2.0, 1.9, 2.1, 7)}, {"registers": 99})

    def release(self) -> bool:
        return True


def cases(*batches: int) -> Iterator[Case]:
    return (replace(SMALL, batch=batch) for batch in batches)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    first = measure(Clockwork(), cases(1, 3), path, "cpu", 60)
    assert (first.measured, first.failed, first.before, first.left) == (1, 1, 0, 0)
    second = measure(Clockwork(), cases(1, 3, 5), path, "cpu", 60)
    assert (second.measured, second.failed, second.before, second.left) == (1, 0, 2, 0)
    rows = read(path)
    assert [row["l2"] for row in rows] == ["warm", "cold", "", "warm", "cold"]
    assert rows[2]["error"] == "RuntimeError: no such shape here"
    assert float(rows[0]["flop_per_s"]) == pytest.approx(4 * 4 * 16 * SMALL.pairs, rel=1e-4)
    assert tuple(rows[0]) == COLUMNS


def test_what_failed_is_measured_again_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.csv"
    measure(Clockwork(), cases(1, 3), path, "cpu", 60)
    assert measure(Clockwork(), cases(1, 3), path, "cpu", 60, retry=True).failed == 1
    assert len(read(path)) == 3
    monkeypatch.setattr(Clockwork, "run", lambda self, case, limit: Measured({"warm": Timing(1.0, 0.9, 1.1, 7)}))
    outcome = measure(Clockwork(), cases(1, 3), path, "cpu", 60, retry=True)
    assert (outcome.measured, outcome.before) == (1, 1)
    assert [row["error"] for row in read(path)] == ["", "", ""]


def test_an_interruption_keeps_what_is_done(tmp_path: Path) -> None:
    outcome = measure(Clockwork(), cases(1, 7, 2), tmp_path / "out.csv", "cpu", 60)
    assert (outcome.stopped, outcome.measured, outcome.left) == ("interrupted", 1, 2)
    assert len(read(tmp_path / "out.csv")) == 2


def test_a_spent_budget_leaves_cases_for_another_run(tmp_path: Path) -> None:
    outcome = measure(Clockwork(), cases(1, 2, 4), tmp_path / "out.csv", "cpu", -1.0)
    assert (outcome.measured, outcome.left) == (0, 3)


def test_another_file_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FileError, match="not a file of"):
        measure(Clockwork(), cases(1), path, "cpu", 60)
    assert path.read_text() == "a,b\n1,2\n"
    with pytest.raises(FileError, match="no such folder"):
        measure(Clockwork(), cases(1), tmp_path / "no" / "out.csv", "cpu", 60)


def test_the_processor_measures_itself(tmp_path: Path) -> None:
    outcome = measure(CpuMachine(), [SMALL, replace(SMALL, kernel="cpu-unfused")], tmp_path / "cpu.csv", "cpu", 60)
    assert (outcome.measured, outcome.failed) == (2, 0)
    assert all(0 < float(row["time_s"]) < 1 for row in read(tmp_path / "cpu.csv"))


def test_without_a_gpu_the_message_says_so() -> None:
    try:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    except ImportError:
        pass
    with pytest.raises(AbsentError, match=r"PyTorch"):
        CudaMachine.find()


def test_budgets() -> None:
    assert [seconds(text) for text in ("90", "90s", "8m", "1.5h")] == [90, 90, 480, 5400]
    for text in ("", "soon", "-3m", "0"):
        with pytest.raises(UsageError):
            seconds(text)


def test_cases_are_distinct_and_have_schedules() -> None:
    for made in (list(cpu_cases()), list(cuda_cases())):
        assert len({case.key for case in made}) == len(made)
        assert {case.kernel for case in made} <= SCHEDULES.keys()
        assert all(case.heads % case.kv_heads == 0 for case in made)


def test_timing_of_a_few() -> None:
    assert timing_of([3.0, 1.0, 2.0]) == Timing(2.0, 1.0, 3.0, 3)
