"""`iosim calibrate --family processor`: made-up calls give their constants back; the kept calls, what they can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iosim.cli import run
from iosim.errors import UsageError
from iosim.machine import load_device
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.parts import total_s
from iosim.validate.calibrating import NAMES, calibrate, fitted_rows
from iosim.validate.expecting import on_tiles
from iosim.validate.fitting import Measured, fit
from iosim.validate.readers import read_table

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / "measurements" / "processor"


def test_a_refit_gives_back_the_constants_of_several_head_sizes() -> None:
    truth, core = load_calibration("processor"), load_device(str(KEPT / "epyc.device.toml"))
    tables = []
    for kernel, tiles in (("cpu-tiled", [(64, 64), (8, 8), (16, 512)]), ("cpu-unfused", [(64, 64)])):
        shapes = [(d, n, tile) for d in (32, 64, 128) for n in (256, 1024, 16384) for tile in tiles]
        d, n, by = zip(*shapes, strict=True)
        ones = np.ones(len(shapes), np.int64)
        calls = Calls.of({"batch": ones, "heads": ones, "kv_heads": ones, "head_dim": d, "n_q": 256 * ones, "n_kv": n})
        times = total_s(on_tiles(calls, core, kernel, by, True))
        tables.append(Measured(core, "none", calls, times, kernel, tiles=by))
    start = replace(
        truth, constants=tuple(replace(c, value=c.value * (0.8, 1.25)[i % 2]) for i, c in enumerate(truth.constants))
    )
    made = fit(start, tables, "made up").values()
    assert {name: made[name] for name in ("near_share", "score", "row", "pass")} == pytest.approx(
        {name: truth.values()[name] for name in ("near_share", "score", "row", "pass")}, rel=0.02
    )


def test_the_kept_calls_agree_with_the_constants_in_what_they_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One head size: clocks per score and its loads, together; a pass over a score by itself."""
    monkeypatch.chdir(tmp_path)
    (refit,) = calibrate([KEPT], tmp_path, ["processor"])
    assert refit.after.rows == 29
    assert refit.file.read_text().startswith('name = "processor"')
    core = load_device(str(KEPT / "epyc.device.toml"))
    near, clock = core.bandwidth_bytes_per_s("l1"), core.max_clock_hz
    assert clock is not None
    before, after = (
        made.values()["score"] + 2 * 64 * 2 * 4 / near / made.values()["near_share"] * clock
        for made in (refit.before, refit.after)
    )
    assert after == pytest.approx(before, rel=0.02)
    intervals = {c.name: (c.low, c.value, c.high) for c in refit.before.constants}
    for constant in refit.after.constants:
        if constant.name in ("row", "pass", "exposed_memory"):
            low, _, high = intervals[constant.name]
            assert low <= constant.value <= high, constant.name


def test_the_kept_calls_are_judged_as_none_was_fitted() -> None:
    tables = read_table(KEPT).timings
    assert sum(len(table) for table in tables) == 29
    assert not any(fitted_rows(table).any() for table in tables)


def test_the_family_is_named_and_asks_for_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "processor" in NAMES
    figures = ROOT / "measurements" / "published-figures.csv"
    with pytest.raises(UsageError, match="one probed core"):
        calibrate([figures], tmp_path, ["processor"])
    assert run(["calibrate", str(figures), "--family", "procesor"]) == 2
    assert "processor" in capsys.readouterr().err


def test_a_folder_without_tables_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["validate", str(tmp_path)]) == 3
    assert "or CSVs" in capsys.readouterr().err
