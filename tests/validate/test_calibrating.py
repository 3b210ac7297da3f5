"""`iosim calibrate` on data that holds too little: which rows it misses, and how wide unseen constants are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iosim.cli import run
from iosim.machine import load_device
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import expected_parts
from iosim.timing.parts import total_s
from iosim.validate.fitting import Measured, fit

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "measurements" / "aiconfigurator-0.12.0-sample.csv"
FIGURES = ROOT / "measurements" / "published-figures.csv"
HEADER = "device,kernel,framework,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,l2,time_ms"


def fa3_rows(path: Path, count: int) -> Path:
    """Prefills of so many lengths on an H100 under vLLM."""
    lengths = [128 * (i + 1) for i in range(count)]
    rows = [f"h100-sxm5,flash3,vllm,prefill,bf16,bf16,1,32,8,128,{n},{n},causal,warm,{n / 4096}" for n in lengths]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_data_of_the_judged_half_alone_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["calibrate", str(SAMPLE), "--into", str(tmp_path / "c")]) == 3
    said = capsys.readouterr().err
    assert "fa3: no rows of the half of shapes that fits use" in said
    assert "trtllm: no rows of the half" in said
    assert run(["calibrate", str(SAMPLE), "--into", str(tmp_path / "c"), "--family", "fa3"]) == 2
    assert "no rows of the half" in capsys.readouterr().err


def test_a_family_with_fewer_rows_than_constants_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = fa3_rows(tmp_path / "few.csv", 8)
    assert run(["calibrate", str(few), "--into", str(tmp_path / "c"), "--family", "fa3"]) == 2
    assert "more rows than its 20 constants" in capsys.readouterr().err
    assert not (tmp_path / "c" / "fa3.toml").exists()


def test_families_with_too_little_are_named_beside_those_that_were_fitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = fa3_rows(tmp_path / "few.csv", 8)
    figures = tmp_path / "figures.csv"
    lines = FIGURES.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    figures.write_text(
        "\n".join([lines[start], *(line for line in lines[start:] if ",triton," in line.lower())]) + "\n"
    )
    assert run(["calibrate", str(figures), str(few), "--into", str(tmp_path / "c")]) == 0
    assert "left out: fa3: " in capsys.readouterr().err
    assert (tmp_path / "c" / "triton.toml").exists()
    assert not (tmp_path / "c" / "fa3.toml").exists()


def test_constants_that_the_rows_do_not_determine_have_wide_intervals() -> None:
    """One shape thirty times tells one sum of the constants and none of them, however well it is met."""
    truth, device = load_calibration("fa3"), load_device("h100-sxm5")
    ones = np.ones(30, np.int64)
    shape = {
        "batch": ones,
        "heads": 32 * ones,
        "kv_heads": 8 * ones,
        "head_dim": 128 * ones,
        "n_q": 2048 * ones,
        "n_kv": 2048 * ones,
    }
    calls = Calls.of(shape)
    times = total_s(expected_parts(calls, device, "flash3", "vllm")) * 1.1
    start = replace(truth, constants=tuple(replace(c, low=c.value, high=c.value) for c in truth.constants))
    for constant in fit(start, [Measured(device, "vllm", calls, times)], "made up").constants:
        assert constant.low < constant.value / 100, constant.name
