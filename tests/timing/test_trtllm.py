"""trtllm-gen's terms, and what every family shares: the raster of replayed graphs, block starts, the power limit.

Measured: AIConfigurator 0.12.0 (Apache-2.0, NVIDIA), vLLM 0.24.0 and SGLang 0.5.14 on B200; microseconds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.machine import load_device
from iosim.timing import trtllm
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import expected_parts
from iosim.timing.parts import cache_write_s, replay_s, slowdown, total_s
from iosim.timing.rates import rates_of
from iosim.timing.traffic import floors_s

B200 = load_device("b200-sxm")
STEP = 2.048e-6


def call(n_q: int, n_kv: int, batch: int = 1, heads: int = 8, kv_heads: int = 1, d: int = 128) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": d, "n_q": n_q, "n_kv": n_kv}
    return Calls.of({name: [number] for name, number in numbers.items()})


def microseconds(c: Calls, device: str = "b200-sxm", framework: str = "vllm") -> float:
    return float(total_s(expected_parts(c, load_device(device), "trtllm", framework))[0]) * 1e6


def waiting(busy: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return replay_s(np.asarray(busy, np.float64), "vllm", rates_of(B200)) - 4.2e-6 / 6


@given(st.integers(3, 6), st.floats(0.2, 0.8))
def test_short_calls_wait_for_the_next_step(step: int, phase: float) -> None:
    """An exact sawtooth, but for the harmonics that are left out and the damping of what does not repeat itself."""
    assert waiting([(step + phase) * STEP])[0] == pytest.approx((1 - phase) * STEP, abs=0.2 * STEP)


def test_the_raster_has_a_mean_of_half_a_step_and_long_calls_do_not_feel_it() -> None:
    whole = np.linspace(8, 9, 1001)[:-1] * STEP
    assert waiting(whole).mean() == pytest.approx(STEP / 2, rel=0.02)
    long = np.linspace(100, 101, 50) * STEP
    assert np.ptp(waiting(long)) < 0.01 * STEP
    assert not replay_s(whole, "vllm", rates_of(load_device("h100-sxm5"))).any()


def test_readings_lie_on_the_raster_that_each_collector_sees() -> None:
    """Readings below 20 us cluster 0.70 us (6 repetitions) and 0.21 us (20) above multiples of the step."""
    rates = rates_of(B200)
    for framework, offset in (("vllm", 0.70e-6), ("sglang", 0.21e-6)):
        busy = np.array([3.4, 3.5, 3.6]) * STEP
        reading = busy + replay_s(busy, framework, rates)
        assert reading == pytest.approx(np.full(3, 4 * STEP + offset), abs=0.25e-6)


@pytest.mark.parametrize(
    ("n_kv", "measured"), [(1024, 10.9), (8192, 11.0), (16384, 15.1), (32768, 19.2), (65536, 27.5), (131072, 31.4)]
)
def test_pieces_beyond_a_cluster_go_through_global_memory(n_kv: int, measured: float) -> None:
    """8 heads over 1: 16 pieces of 512 keys at 8,192 cost no more than two, 64 at 32,768 cost 8 us."""
    assert microseconds(call(1, n_kv)) == pytest.approx(measured, rel=0.07)


@pytest.mark.parametrize(("n_kv", "measured"), [(8192, 49.7), (16384, 86.9), (32768, 160.3)])
def test_a_cold_stream_starts_late(n_kv: int, measured: float) -> None:
    """64 sequences, 268 to 1,074 MB: bytes at 7.3 TB/s, and 4 us that do not grow."""
    assert microseconds(call(1, n_kv, 64)) == pytest.approx(measured, rel=0.03)


def test_splits_are_pieces_of_512_keys_over_idle_cores() -> None:
    rates = rates_of(B200)
    for batch, kv_heads, n_kv in ((1, 1, 511), (1, 1, 513), (3, 2, 8192), (1, 1, 131072), (200, 1, 131072)):
        c = call(1, n_kv, batch, 8 * kv_heads, kv_heads)
        wanted = max(1, min(-(-n_kv // 512), 148 // (batch * kv_heads)))
        assert trtllm.plan(c, rates, "vllm").splits[0] == wanted


def test_small_blocks_of_the_cache_write_start_one_a_clock() -> None:
    """65,536 tokens of one head of 64: 34 us, which neither waves nor bytes explain."""
    made = cache_write_s(call(1024, 1024, 64, 1, 1, 64), rates_of(B200), load_calibration("trtllm").values())
    assert made[0] * 1e6 == pytest.approx(34, rel=0.05)


def test_sglang_copies_into_the_cache_without_waves() -> None:
    """131,072 tokens of 8 heads of 128: 1.07 GB at four fifths of 7.67 TB/s, where vLLM's blocks take twice as long."""
    c = call(512, 512, 256, 8, 8)
    sglang, vllm = (
        expected_parts(c, B200, "trtllm", framework)["cache_write_s"][0] for framework in ("sglang", "vllm")
    )
    assert sglang == pytest.approx(
        1.0737e9 / 7.672e12 / load_calibration("trtllm-sglang").values()["write_bandwidth"], rel=0.01
    )
    assert vllm > 2 * sglang


@given(st.floats(0, 1), st.floats(1e-6, 1), st.floats(0.5, 2), st.floats(0.5, 0.99))
def test_power_only_slows_down_and_more_so_the_busier_the_units(b: float, t: float, power: float, held: float) -> None:
    rates = replace(rates_of(B200), sustained=held)
    less, more = (slowdown(np.array([t]), np.array([x]), power, rates)[0] for x in (b / 2, b))
    assert 0 <= less <= more <= (power / held**3) ** (1 / 3)


def test_a_host_that_launches_slower_shows_in_every_call() -> None:
    """Grace against x86: 0.4 us a launch, arXiv 2504.11750."""
    b200, gb200 = rates_of(B200), rates_of(load_device("gb200"))
    assert gb200.host_launch_s - b200.host_launch_s == pytest.approx(0.4e-6, rel=0.02)


@given(
    st.sampled_from(["l40s", "a100-sxm-80gb", "b200-sxm", "gb300"]), st.sampled_from([1, 2, 7, 100, 3000]),
    st.sampled_from([1, 1000, 60000]), st.sampled_from([1, 64, 1000]), st.sampled_from([(1, 1), (8, 1), (32, 8), (130, 1)]),
    st.sampled_from([16, 64, 128, 256]), st.sampled_from(["none", "vllm"]),
)  # fmt: skip
def test_no_expectation_is_below_the_floor(
    name: str, n_q: int, more: int, batch: int, heads: tuple[int, int], d: int, framework: str
) -> None:
    """Few queries on many keys, which no table holds, are bound by their bytes."""
    device, c = load_device(name), call(n_q, n_q + more, batch, *heads, d)
    kernel = "trtllm" if device.architecture == "blackwell" else "flash2"
    for warm in (False, True):
        expected = total_s(expected_parts(c, device, kernel, framework, warm))
        assert expected[0] >= floors_s(c, device, "bf16", "bf16", warm)[0]
