"""`iosim measure` from the command line: times and counters in one command, resumed runs, and clear ends."""

from __future__ import annotations

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from iosim.cli import run
from iosim.measure.cases import Case
from iosim.measure.result_file import COLUMNS, read_rows

#: a processor's device file
CORE = Path(__file__).parents[2] / "measurements" / "processor" / "epyc.device.toml"
CUDA = ["measure", "--device", "cuda", "--budget", "60s"]


def test_times_and_counters_in_one_command(
    fake_torch: Any, fake_ncu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, ranges = tmp_path / "out.csv", tmp_path / "ranges"
    monkeypatch.setenv("FAKE_TORCH_RANGES", str(ranges))
    assert run([*CUDA, "--counters", "--only", "waves", "-o", str(path)]) == 0
    rows = read_rows(path)
    counted = [row for row in rows if row["launches"]]
    assert len(counted) == len([row for row in rows if row["time_s"]]) >= 4
    assert all(row["device"] == "h200-sxm" for row in rows)
    assert any("out of memory" in row["error"] for row in rows)
    assert len(set(ranges.read_text().split())) == len(counted) / 2  # the program under the profiler opened each range
    assert "got their counters, 0 left" in capsys.readouterr().err


@pytest.mark.parametrize(("fault", "words"), [("permission", "ERR_NVGPUCTRPERM"), ("broken", "LibraryNotLoaded")])
def test_no_permission_for_counters_is_exit_4_and_times_are_kept(
    fake_torch: Any, fake_ncu: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("FAKE_NCU", fault)
    path = tmp_path / "out.csv"
    assert run([*CUDA, "--counters", "--only", "waves", "-o", str(path)]) == 4
    assert words in capsys.readouterr().err
    assert any(row["time_s"] for row in read_rows(path))


def test_no_gpu_and_no_profiler_are_exit_4(
    fake_torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iosim.measure.profiler.PLACES", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "out.csv"
    assert run([*CUDA, "--counters", "--only", "waves", "-o", str(path)]) == 4
    assert "ncu" in capsys.readouterr().err
    assert read_rows(path)
    monkeypatch.setenv("FAKE_TORCH", "no-gpu")
    assert run([*CUDA, "-o", str(tmp_path / "none.csv")]) == 4
    assert "no CUDA GPU" in capsys.readouterr().err
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu", "--counters", "-o", "x.csv"], "on CUDA only"),
        (["--device", "cuda", "--only", "E11", "-o", "x.csv"], "no case is called"),
        (["--device", "cpu", "--only", "cpu-tilled", "-o", "x.csv"], "cpu-tiled"),
        (["--device", "cpu"], "where to"),
        (["--device", "cpu", "--as", "h1000", "-o", "x.csv"], "h1000"),
        (["--device", "cpu", "-o", "x.json"], "writes CSV"),
        (["--device", "cpu", "-o", "x.csv", "--budget", "soon"], "not a time"),
        (["--device", "gpu", "-o", "x.csv"], "gpu"),
    ],
)
def test_mistakes_are_named(
    arguments: list[str], words: str, fake_torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(["measure", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_run_keeps_its_rows_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iosim.measure.cpu import CpuMachine

    path, plain = tmp_path / "cpu.csv", CpuMachine.run
    calls = iter(range(100))

    def interrupted(self: CpuMachine, case: Any, limit_s: float) -> Any:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, case, 0.0)

    monkeypatch.setattr(CpuMachine, "run", interrupted)
    small = [Case("cpu-tiled", batch, 2, 2, 16, 32, 32, "full", 16, 16, dtype="fp32") for batch in (1, 2, 3, 4)]
    monkeypatch.setattr("iosim.measure.cases.cpu_cases", lambda pytorch: small)
    arguments = ["measure", "--as", "epyc-9654", "-o", str(path)]
    assert run(arguments) == 130
    assert len(read_rows(path)) == 2
    half = path.read_bytes()
    path.write_bytes(half + b"cpu-tiled 3 2 2 16 3")  # a run killed while it wrote
    assert run(arguments) == 0
    rows = read_rows(path)
    assert len(rows) == 4
    assert path.read_bytes().startswith(half)
    assert len({row["case"] for row in rows}) == len(rows)


def test_a_file_of_another_version_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "old.csv"
    path.write_text("case,device,time_s\nx,cpu,1\n")
    assert run(["measure", "-o", str(path)]) == 3
    assert "another file" in capsys.readouterr().err
    assert path.read_text() == "case,device,time_s\nx,cpu,1\n"


def test_counters_merged_by_hand(fake_torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, ncu = tmp_path / "out.csv", tmp_path / "ncu.csv"
    assert run([*CUDA, "--only", "E8", "-o", str(path)]) == 0
    ncu.write_text("nothing\n")
    assert run([*CUDA, "--merge", str(ncu), "-o", str(path)]) == 3
    assert "no table" in capsys.readouterr().err


def test_cases_are_profiled_in_the_order_asked_for(
    fake_torch: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from iosim.measure.experiments import cuda_cases, selected

    labels = [case.label for case in selected(cuda_cases(), ["waves"])][::-1]
    (tmp_path / "cases.json").write_text(json.dumps([*labels, "iosim/no/such/case"]))
    assert run([*CUDA, "--profile", str(tmp_path / "cases.json"), "--l2", "warm"]) == 0
    said = [line.split()[:2] for line in capsys.readouterr().err.splitlines()]
    assert [label for word, label in said if word == "profiling"] == labels
    ended = {label.rstrip(":"): word for word, label in said if word != "profiling"}
    assert ended.keys() == set(labels)
    assert set(ended.values()) == {"profiled", "failed"}  # the stand-in has little memory
    assert "flush" not in fake_torch.LOG


def test_the_list_shows_every_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["measure", "--device", "cuda", "--list"]) == 0
    text = capsys.readouterr().out
    for name in ("E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E9"):
        assert f"{name} " in text
    assert run(["measure", "--metrics"]) == 0
    assert capsys.readouterr().out.startswith("gpu__time_duration.sum,dram__bytes_read.sum,")


def test_the_file_is_plain_csv(tmp_path: Path) -> None:
    path = tmp_path / "cpu.csv"
    assert run(["measure", "--only", "cpu-tiled", "--budget", "0.01s", "--as", "epyc-9654", "-o", str(path)]) == 0
    with path.open(newline="") as handle:
        assert tuple(next(csv.reader(handle))) == COLUMNS
    assert os.listdir(tmp_path) == ["cpu.csv"]


def test_a_processor_is_probed_once_and_its_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    probed: list[int | None] = []

    def text(system: object, cores: int | None, progress: object) -> str:
        probed.append(cores)
        return "# a device\n"

    monkeypatch.setattr("iosim.measure.probe_file.probed_text", text)
    small = [Case("cpu-tiled", 1, 2, 2, 16, 32, 32, "full", 16, 16, dtype="fp32")]
    monkeypatch.setattr("iosim.measure.cases.cpu_cases", lambda pytorch: small)
    path = tmp_path / "cpu.csv"
    for _ in range(2):
        assert run(["measure", "-o", str(path)]) == 0
    assert probed == [1]  # our loops run on one core
    assert read_rows(path)[0]["device"] == "cpu.device.toml"  # beside the rows, wherever they are read from
    assert capsys.readouterr().err.count("probed this machine") == 1


@pytest.fixture
def one_case(monkeypatch: pytest.MonkeyPatch) -> None:
    small = [Case("cpu-tiled", 1, 2, 2, 16, 32, 32, "full", 16, 16, dtype="fp32")]
    monkeypatch.setattr("iosim.measure.cases.cpu_cases", lambda pytorch: small)


@pytest.mark.usefixtures("one_case")
def test_a_short_budget_measures_and_leaves_the_probe_to_a_longer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(system: object, cores: int | None, progress: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("iosim.measure.probe_file.probed_text", interrupted)
    path = tmp_path / "cpu.csv"
    assert run(["measure", "--budget", "2s", "-o", str(path)]) == 0
    beside = tmp_path / "cpu.device.toml"
    said = capsys.readouterr().err
    assert f"hardware new {beside} --probe" in said
    rows = read_rows(path)
    assert [row["device"] for row in rows] == [beside.name]
    assert run(["measure", "--budget", "1m", "-o", str(path)]) == 130  # while probing
    assert read_rows(path) == rows


@pytest.mark.usefixtures("one_case")
def test_a_device_file_that_is_named_is_written_relative_to_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "away").mkdir()
    (tmp_path / "core.toml").write_bytes(CORE.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run(["measure", "--as", "core.toml", "-o", "away/cpu.csv"]) == 0
    assert read_rows(tmp_path / "away" / "cpu.csv")[0]["device"] == "../core.toml"


@pytest.mark.usefixtures("one_case")
def test_a_probe_takes_its_time_from_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(system: object, cores: int | None, progress: object) -> str:
        time.sleep(0.3)
        return "# a device\n"

    monkeypatch.setattr("iosim.measure.probe_file.probed_text", slow)
    monkeypatch.setattr("iosim.cli.measure_command.SHORTEST_PROBED_S", 0.0)
    path = tmp_path / "cpu.csv"
    assert run(["measure", "--budget", "0.3s", "-o", str(path)]) == 0
    assert "1 left for another run" in capsys.readouterr().err
    assert (tmp_path / "cpu.device.toml").exists()


def test_a_board_without_a_device_file_is_named_by_itself(
    fake_torch: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = fake_torch.cuda.get_device_properties(0)
    known.name = "NVIDIA H200 NVL"
    monkeypatch.setattr(fake_torch.cuda, "get_device_properties", lambda index: known)
    path = tmp_path / "out.csv"
    assert run([*CUDA, "--only", "E8", "-o", str(path)]) == 0
    assert "no device file for NVIDIA H200 NVL: rows name it nvidia-h200-nvl" in capsys.readouterr().err
    assert {row["device"] for row in read_rows(path)} == {"nvidia-h200-nvl"}
