"""What was measured and counted here is compared with what iosim predicts for the same schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iosim.cli import run
from iosim.measure.cases import Case, case_of
from iosim.measure.clock import Measured, Timing
from iosim.measure.experiments import Board, cuda_cases
from iosim.measure.result_file import Row, case_row, measured_rows, write_rows
from iosim.validate.readers import read_table
from iosim.validate.validating import validate

SECTIONS = Case(
    "triton-tiled",
    1,
    8,
    8,
    64,
    4096,
    4096,
    "full",
    128,
    64,
    grid="sections:4",
    pick="atomic",
    per_core=1,
    stages=2,
    warps=8,
)
TIMES = Measured({"warm": Timing(1e-3, 9e-4, 2e-3, 9), "cold": Timing(2e-3, 1e-3, 3e-3, 9)})


def file(path: Path, case: Case, read_bytes: float) -> Path:
    rows: list[Row] = measured_rows(case, "a100-sxm-80gb", {}, TIMES)
    rows[1]["hbm_read_bytes"] = f"{read_bytes:.0f}"
    write_rows(path, rows)
    return path


def test_the_measured_order_is_the_predicted_order(tmp_path: Path) -> None:
    table = read_table(file(tmp_path / "out.csv", SECTIONS, 25e6))
    assert list(table.skipped) == ["mask, phase or tile outside the time model"]  # its own tile has no calibrated time
    (row,) = table.counted
    assert (row.grid_order, row.residency, row.kind.tile, row.kind.warm) == ("sections:4", 1, "128x64", False)
    found = validate([file(tmp_path / "out.csv", SECTIONS, 3 * 8 * 4096 * 128)])
    (group,) = (group for group in found.groups if group.quantity == "hbm_read_bytes")
    assert group.errors is not None
    assert group.errors.median_ratio == pytest.approx(1.0)  # K and V of 8 MiB stay in a half of 20
    assert group.floors_beaten == 0


def test_libraries_keep_their_own_order(tmp_path: Path) -> None:
    (row,) = read_table(file(tmp_path / "out.csv", replace(SECTIONS, kernel="fa3"), 25e6)).counted
    assert (row.kind.kernel, row.grid_order, row.kv_order) == ("flash3", "", "")


def test_schedules_that_nobody_counts_are_left_out_with_their_reason(tmp_path: Path) -> None:
    for case in (replace(SECTIONS, stagger=50), replace(SECTIONS, writes=4), replace(SECTIONS, kernel="fill")):
        table = read_table(file(tmp_path / "out.csv", case, 25e6))
        assert table.counted == ()
        assert any("probe" in why or "phase" in why for why in table.skipped), table.skipped


def test_every_case_can_be_read_off_its_range() -> None:
    for case in cuda_cases(Board(packages=frozenset(["fa3"]))):
        assert case_of(f'1 "<default domain>:{case.label}:none:none" ') == replace(case, experiment="")
        assert case_row(case, "x")["case"] == case.key


@pytest.mark.parametrize("order", ["sections:x", "sections:0", "sections:-1", "section:4"])
def test_sections_of_no_heads_are_refused(order: str, capsys: pytest.CaptureFixture[str]) -> None:
    shape = ["--heads", "8", "--head-dim", "64", "--seq", "256", "--device", "a100-sxm-80gb"]
    assert run(["simulate", "--kernel", "triton", *shape, "--grid-order", order]) == 2
    assert "--grid-order" in capsys.readouterr().err
