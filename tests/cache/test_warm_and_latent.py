"""What lies in a warm cache, what is a slice of another tensor, and caches of several instances: closed form and replay."""

from __future__ import annotations

import pytest
from oracles.random_calls import problem

from iosim.analysis import analyze
from iosim.attention import Attention
from iosim.cache.closed_form import hbm_traffic
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.report import Options


@pytest.mark.parametrize(
    ("kernel", "asked"),
    [("flash2-backward", problem(1024, 1024, 128, heads=4, kv_heads=4, phase="backward")),
     ("gla-fused", problem(1024, 1024, 128, mask="causal", heads=4, kv_heads=4)),
     ("fixed-state", problem(1, 4096, 128, mask="causal", heads=8, kv_heads=8, batch=4, phase="decode"))],
)  # fmt: skip
def test_a_warm_cache_holds_whatever_a_call_reads_first(kernel: str, asked: Attention) -> None:
    """The output of the forward pass, gates and states as well as queries, keys and values."""
    report = analyze(asked, load_device("h100-sxm5"), [kernel], Options(warm=True))
    assert report.kernels[0].boundary("hbm").traffic.read_bytes == 0
    cold = analyze(asked, load_device("h100-sxm5"), [kernel])
    assert cold.kernels[0].boundary("hbm").traffic.read_bytes > 0


def test_values_within_keys_are_fetched_with_them() -> None:
    asked = problem(1, 500, 576, 512, heads=16, kv_heads=1, batch=2, phase="decode", latent=True)
    found = hbm_traffic(make_schedule(asked, None, "unfused"), load_device("a100-sxm-80gb"))
    assert found
    assert found.traffic.read_bytes == 2 * (16 * 576 + 500 * 576) * 2


def test_several_caches_fetch_what_they_share_more_than_once() -> None:
    asked = problem(157, 157, 256, mask="causal", heads=4, kv_heads=2, batch=2)
    one, twelve = (
        hbm_traffic(make_schedule(asked, load_device(name), "flash2"), load_device(name))
        for name in ("a100-sxm-80gb", "epyc-9654")
    )
    assert one
    assert twelve
    assert (one.exact, twelve.exact) == (True, False)
