"""The closed form at main memory beside the replay, for kernels with inputs of their own: gates, filters, parameters."""

from __future__ import annotations

import pytest
from oracles.random_calls import problem

from iosim.analysis import analyze
from iosim.cache.replay_options import ReplayOptions
from iosim.machine import load_device
from iosim.report import Options


@pytest.mark.parametrize("kernel", ["gla", "mamba1", "rat", "flashconv", "flash-bias", "flash2"])
def test_exact_means_equal_to_the_replay(kernel: str) -> None:
    """Parameters that all sequences share are fetched once; a closed form that does not know so says that it is a model."""
    asked = problem(1024, 1024, 8, mask="causal", heads=2, kv_heads=2, batch=2)
    device = load_device("h100-sxm5")
    replayed, closed = (
        analyze(asked, device, [kernel], Options(replay=ReplayOptions(closed_form=choice))).kernels[0].boundary("hbm")
        for choice in (False, True)
    )
    unwritten = (
        98_304 * 4 if kernel == "gla" else 0
    )  # blocks of scores above the diagonal, read though nobody wrote them
    assert replayed.traffic.read_bytes <= closed.traffic.read_bytes + unwritten
    assert not closed.exact or closed.traffic.read_bytes == replayed.traffic.read_bytes
    assert closed.exact == (kernel == "flash2")
