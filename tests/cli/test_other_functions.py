"""Reports and rooflines of kernels that compute another function than softmax attention: their own FLOP, no false zero."""

from __future__ import annotations

import pytest
from oracles.random_calls import problem
from test_bounds import Run

from iosim.kernels import make_schedule
from iosim.machine import load_device

CALL = ("--heads", 2, "--head-dim", 8, "--seq", 4096, "--mask", "causal")


@pytest.mark.parametrize("kernel", ["gla", "mamba1", "flashconv", "rat"])
def test_a_roofline_takes_a_kernels_own_flop(iosim: Run, kernel: str) -> None:
    done = iosim("roofline", *CALL, "--kernel", f"{kernel},flash2", "--format", "json").json["result"]
    intensity = {(p["kernel"], p["boundary"]): p["intensity_flop_per_byte"] for p in done["points"]}
    asked, device = problem(4096, 4096, 8, mask="causal", heads=2, kv_heads=2), load_device("h100-sxm5")
    own = make_schedule(asked, device, kernel)
    assert intensity[kernel, "core"] == own.work.flop / own.traffic.total_bytes
    assert intensity["flash2", "core"] == asked.flop() / make_schedule(asked, device, "flash2").traffic.total_bytes
    assert (kernel, "shared") not in intensity


def test_what_is_not_counted_is_no_time(iosim: Run) -> None:
    done = iosim("report", *CALL, "--kernel", "gla,rat,flash2", "--no-replay", "--format", "json").json
    shared = {row["kernel"]: row["ceilings"]["shared_s"] for row in done["result"]["kernels"]}
    assert shared["gla"] is shared["rat"] is None
    assert shared["flash2"] > 0
    assert any(note.startswith("gla, rat: no shared ceiling") for note in done["assumptions"])
