"""The report in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

import iosim


def test_parts_that_round_to_nothing_are_left_out_of_the_text_only() -> None:
    problem = iosim.problem(heads=4, head_dim=128, seq=2048)
    report = iosim.analyze(problem, iosim.device("h100-sxm5"), kernels=["flash2"])
    (kernel,) = report.kernels
    expected = kernel.expected
    assert expected is not None
    breakdown = {**expected.breakdown, "dust_s": 1e-7 * expected.time_s, "seen_s": 2e-6 * expected.time_s}
    kernel = replace(kernel, expected=replace(expected, breakdown=breakdown))
    (line,) = (
        line for line in str(replace(report, kernels=(kernel,))).splitlines() if "expected" in line and "=" in line
    )
    assert "dust" not in line
    assert "seen" in line
    assert kernel.to_dict()["breakdown"]["dust_s"] == pytest.approx(1e-7 * expected.time_s)


@pytest.mark.parametrize("columns", [40, 60, 200])
def test_remarks_are_folded_to_the_width_and_say_the_same(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    report = iosim.analyze(iosim.problem("llama-3-8b", seq=1024), iosim.device("h100-sxm5"), kernels=["unfused"])
    monkeypatch.delenv("COLUMNS", raising=False)
    wide = str(report)
    assert max(map(len, wide.splitlines())) > 110
    monkeypatch.setenv("COLUMNS", str(columns))
    folded = str(report)
    assert folded.split() == wide.split()
    remarks = folded[folded.index("\nassumptions\n") :].splitlines()[2:]
    assert all(len(line) <= columns for line in remarks)
    assert all(line.startswith(("  - ", "    ")) for line in remarks)
    table = [
        line
        for line in wide.splitlines()
        if "HBM" in line or "───" in line or (" us " in line and "expected" not in line)
    ]
    assert [line for line in table if line in folded.splitlines()] == table
