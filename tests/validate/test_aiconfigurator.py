"""AIConfigurator tables with planted faults: every row is compared, or counted with the reason; floors need no model."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from iosim.cli import run
from iosim.errors import FileError
from iosim.timing.families import expected_parts
from iosim.timing.parts import total_s
from iosim.validate import aiconfigurator
from iosim.validate.readers import read_table
from iosim.validate.timings import Timings
from iosim.validate.validating import Validation, validate

pandas = pytest.importorskip("pandas")
#: without pyarrow the tables are pickled frames: only reading the bytes is left out
PARQUET = find_spec("pyarrow") is not None

GOOD = {"kernel_source": "vllm_flash_attn_fa3", "batch_size": 1, "isl": 4096, "num_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "attn_dtype": "bfloat16", "kv_cache_dtype": "bfloat16", "step": 0, "window_size": 0,
        "beam_width": 1, "latency": 0.5}  # fmt: skip


@pytest.fixture(autouse=True)
def _pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    if not PARQUET:
        monkeypatch.setattr(aiconfigurator, "parquet", pandas.read_pickle)


def table(
    folder: Path, rows: list[dict[str, Any]], system: str = "h100_sxm", framework: str = "vllm", decode: bool = False
) -> Path:
    place = folder / system / "attention" / framework / "0.24.0"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{'generation' if decode else 'context'}_attention_perf.parquet"
    frame = pandas.DataFrame([{**GOOD, **row} for row in rows])
    frame.to_parquet(path) if PARQUET else frame.to_pickle(path)
    return path


def listed(found: Validation) -> int:
    return sum(group.rows for group in found.groups) + sum(found.skipped.values())


def test_every_row_is_used_or_listed(tmp_path: Path) -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({"isl": 1.5}, "isl is not a whole number"),
        ({"num_heads": 32.25}, "num_heads is not a whole number"),
        ({"step": None}, "step is missing"),
        ({"window_size": None}, "window_size is missing"),
        ({"window_size": -1}, "window_size cannot be"),
        ({"latency": float("inf")}, "latency cannot be"),
        ({"beam_width": 4}, "beam_width is not 1"),
        ({"attn_dtype": "int4"}, "unknown element type int4 (attn_dtype)"),
        ({"attn_dtype": None}, "attn_dtype is missing"),
        ({"kv_cache_dtype": "fp5"}, "unknown element type fp5 (kv_cache_dtype)"),
    ]
    odd = [{"kernel_source": None}, {"kernel_source": "new_kernel"}]
    path = table(tmp_path, [{}, {"isl": 2048}, *(row for row, _ in faults), *odd])
    found = validate([path])
    assert found.skipped == {why: 1 for _, why in faults}
    assert listed(found) == 2 + len(faults) + len(odd)
    without = {group.kernel: (group.rows, group.why) for group in found.groups if not group.errors}
    assert without == {
        "unnamed": (1, "kernel_source is missing"), "new_kernel": (1, "no time model of vllm's new_kernel"),
    }  # fmt: skip


def test_a_table_of_another_system_is_counted_whole(tmp_path: Path) -> None:
    found = validate([table(tmp_path, [{}] * 400, system="quantum9")])
    assert found.skipped == {"a system without a device file: quantum9": 400}


def test_systems_of_the_catalogue_are_known_by_their_own_names(tmp_path: Path) -> None:
    found = validate([table(tmp_path, [{"latency": 5.0}] * 3, system="mi300x"), table(tmp_path, [{}], "h100_pcie")])
    assert {group.device: group.rows for group in found.groups} == {"mi300x": 3, "h100-pcie": 1}


def test_floors_need_no_time_model(tmp_path: Path) -> None:
    """The floor of 32 heads, 4,096 causal tokens, head size 128 on an H100 is 0.14 ms."""
    rows = [{"kernel_source": "torch_flow"}] * 9 + [{"kernel_source": "torch_flow", "latency": 0.02}]
    found = validate([table(tmp_path, [*rows, {}], framework="trtllm")])
    floors = found.floors()
    assert (floors["rows"], floors["beaten"]) == (11, 1)
    (group,) = [group for group in found.groups if group.floors_beaten]
    assert (group.framework, group.kernel, group.rows) == ("trtllm", "torch_flow", 10)
    assert group.floor_ratio == pytest.approx(7, rel=0.15)
    assert group.yardstick is None


def test_the_command_lists_floors_and_rows_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"kernel_source": "torch_flow"}] * 9 + [{"kernel_source": "torch_flow", "latency": 0.02}]
    path = table(tmp_path, rows, framework="trtllm")
    table(tmp_path, [{}, {"isl": 1.5}])
    assert run(["validate", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "floors beaten: 1 of 11 rows" in said
    assert "1 of 10: h100-sxm5 trtllm torch_flow bf16 prefill, up to 6." in said
    assert "no expectation: 10 rows: no time model of trtllm's torch_flow (h100-sxm5)" in said
    assert "left out: 1 rows: isl is not a whole number" in said
    assert run(["validate", str(path), "--format", "csv"]) == 0
    (group,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert {name: group[name] for name in ("n", "floor_rows", "floors_beaten", "yardstick_n", "judged_n", "dtype")} == {
        "n": "10", "floor_rows": "10", "floors_beaten": "1", "yardstick_n": "", "judged_n": "", "dtype": "bf16",
    }  # fmt: skip


def test_windows_and_single_queries_of_prefill_stand_apart(tmp_path: Path) -> None:
    rows = [{}, {"window_size": 8192}, {"window_size": 128}, {"isl": 1, "latency": 0.01}, {"head_dim": 192}]
    found = validate([table(tmp_path, rows), table(tmp_path, [{"isl": 1, "step": 4095, "latency": 0.03}], decode=True)])
    assert {(group.phase, group.window_kind, group.head_dims) for group in found.groups} == {
        ("prefill", "none", "64, 128, 256"), ("prefill", "idle", "64, 128, 256"), ("prefill", "cuts", "64, 128, 256"),
        ("prefill", "none", "other"), ("one-query", "none", "64, 128, 256"), ("decode", "none", "64, 128, 256"),
    }  # fmt: skip
    assert {group.window_kind: group.window for group in found.groups} == {"none": False, "idle": False, "cuts": True}


@pytest.mark.parametrize(("factor", "unit"), [(1e3, "us"), (1e6, "ns"), (1e-3, "s")])
def test_a_table_in_another_unit_is_refused(tmp_path: Path, factor: float, unit: str) -> None:
    shapes = [{"isl": 1 << n, "latency": 1.0} for n in range(7, 13)]
    (timings,) = read_table(table(tmp_path, shapes)).timings
    rows = [{**row, "latency": float(time) * 1e3 * factor} for row, time in zip(shapes, expected(timings), strict=True)]
    path = table(tmp_path, rows)
    with pytest.raises(FileError) as caught:
        validate([path])
    assert unit in caught.value.faults[0].hint
    assert "context_attention_perf" in str(caught.value)


def expected(timings: Timings) -> list[float]:
    made: list[float] = total_s(expected_parts(timings.calls, timings.device, timings.kernel, "vllm")).tolist()
    return made


def test_a_broken_table_does_not_throw_away_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path, [{"isl": 1024 * (i + 1)} for i in range(6)])
    broken = table(tmp_path, [{}], system="b200_sxm")
    broken.write_bytes(broken.read_bytes()[:40])
    assert listed(validate([tmp_path])) == 6
    assert run(["validate", str(tmp_path), "-o", str(tmp_path / "found.csv")]) == 3
    assert str(broken) in capsys.readouterr().err
    assert "flash3" in (tmp_path / "found.csv").read_text()
    assert run(["calibrate", str(tmp_path), "--into", str(tmp_path / "c")]) == 3  # constants of a part would be others
    assert str(broken) in capsys.readouterr().err
    with pytest.raises(FileError, match="whole Parquet"):
        validate([broken])
