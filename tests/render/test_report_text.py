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
