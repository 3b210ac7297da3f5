"""FlashAttention-3's terms one by one: against loops over repetitions and blocks, and against measured steps."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iosim.machine import load_device
from iosim.timing import fa3
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import expected_parts, values_of
from iosim.timing.parts import REPEATS, slowed, total_s
from iosim.timing.rates import rates_of
from iosim.timing.splitting import combine_s, sequences_s

DEVICE = load_device("h100-sxm5")
RATES = rates_of(DEVICE)


def calls(batch: int, n_q: int, n_kv: int, heads: int, kv_heads: int, d: int, window: int = 0) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": d, "n_q": n_q, "n_kv": n_kv}
    columns = {name: [number] for name, number in numbers.items()}
    return Calls.of({**columns, "left": [window - 1]} if window else columns)


def expected_us(shape: Calls) -> float:
    return float(total_s(expected_parts(shape, DEVICE, "flash3", "vllm"))[0]) * 1e6


@given(
    call_ms=st.floats(0.1, 200), busy=st.floats(0, 1), power=st.floats(0.5, 3), framework=st.sampled_from(list(REPEATS))
)
@settings(deadline=None, max_examples=100)
def test_power_is_the_mean_over_timed_repetitions(call_ms: float, busy: float, power: float, framework: str) -> None:
    """A clock ticks through all repetitions in small steps; late ones take longer by the cube root of the power."""
    limit_ms = 38.0
    made = slowed(np.array([call_ms / 1e3]), np.array([busy]), {"power": power, "power_time": limit_ms}, framework)
    before, timed = REPEATS[framework]
    slow = max(1.0, power * (0.5 + busy / 2)) ** (1 / 3)
    steps = 4000
    late = sum(call_ms * (before + timed * (k + 0.5) / steps) > limit_ms for k in range(steps))
    assert made[0] == pytest.approx((slow - 1) * late / steps, abs=2e-3)


def blocks_of_combine(batch: int, n_q: int, heads: int, d: int) -> tuple[int, int]:
    """(blocks, groups of 32 sequences that they look through), block by block as the kernel numbers them."""
    rows = 16 if d <= 64 else 8
    chunks = math.ceil(d / 128)
    if 2 * math.ceil(batch * n_q / rows) >= batch * math.ceil(n_q / rows):
        return batch * math.ceil(n_q * heads / rows) * chunks, 0
    ends = np.cumsum([math.ceil(n_q * heads / rows)] * batch)
    launched = math.ceil(batch * n_q * heads / rows) + batch
    steps = 0
    for block in range(launched):
        owner = int(np.searchsorted(ends, block, side="right"))
        steps += min(owner, batch - 1) // 32 + 1
    return launched * chunks, steps * chunks


@pytest.mark.parametrize(
    ("batch", "n_q", "heads", "d"), [(512, 1, 64, 128), (64, 1, 32, 64), (7, 3, 8, 256), (3, 40, 16, 128)]
)
def test_blocks_of_the_combine_look_for_their_sequence(batch: int, n_q: int, heads: int, d: int) -> None:
    shape = calls(batch, n_q, n_q + 100, heads, heads, d)
    constants = {"combine_block": 0.0, "combine_leave": 1000.0, "combine_split": 0.0, "second_launch": 0.0}
    plan = fa3.plan(shape, RATES, "vllm")
    plan = type(plan)(
        plan.rows, plan.keys, plan.packed, plan.heads, np.ones(1, np.int64), np.array([True]), plan.by_tma,
        plan.section, plan.shifted,
    )  # fmt: skip
    blocks, steps = blocks_of_combine(batch, n_q, heads, d)
    own = blocks * 1000 / RATES.clock_hz / RATES.cores
    looked = steps * RATES.l2_latency_s / 8 / RATES.cores
    assert combine_s(plan, shape, RATES, constants)[0] == pytest.approx(own + looked, rel=0.13)


def test_the_scheduler_walks_the_batch_twice_as_slowly_where_it_splits() -> None:
    shape = calls(100, 1, 4096, 8, 8, 128)
    plan = fa3.plan(shape, RATES, "vllm")
    assert plan.combines[0]
    assert sequences_s(plan, shape, RATES)[0] == pytest.approx(4 * 2 * RATES.l2_latency_s)


@pytest.mark.parametrize(("d", "wide"), [(64, 192), (128, 128)])
def test_few_rows_take_one_warp_group(d: int, wide: int) -> None:
    """use_one_mma_wg of vLLM's fork: at most 64 packed rows, whatever the phase, and no window."""
    for n_q, heads, rows in [(1, 64, 64), (16, 4, 64), (64, 1, 64), (65, 1, wide), (16, 5, wide)]:
        assert fa3.plan(calls(2, n_q, 500, heads, 1, d), RATES, "vllm").rows[0] == rows
        assert fa3.plan(calls(2, n_q, 500, heads, 1, d, window=64), RATES, "vllm").rows[0] == wide
        assert fa3.plan(calls(2, n_q, 500, heads, 1, d), RATES, "sglang").rows[0] == rows
        assert fa3.plan(calls(2, n_q, 500, heads, 1, d), RATES, "none").rows[0] == wide


def test_a_window_takes_one_tile_or_two_by_where_its_first_key_lies() -> None:
    """H100, window 128, head size 64, 192 x 160 tiles from the first key on: 5 heads a group reach 167 keys, 6 reach 159.

    Measured (AIConfigurator, vLLM 0.24): 8 x 5 heads 661.9 us, 8 x 6 heads 586.0 us, though they do a fifth more.
    """
    five, six = calls(4, 8192, 8192, 40, 8, 64, window=128), calls(4, 8192, 8192, 48, 8, 64, window=128)
    assert expected_us(six) < expected_us(five)
    assert [expected_us(five), expected_us(six)] == pytest.approx([661.9, 586.0], rel=0.1)


def test_long_runs_lose_their_burst_clock() -> None:
    """H100, 64/8 heads of 128, 4 x 16,384 tokens: 28,690 us, a tenth more than at the clock of short runs."""
    shape = calls(4, 16384, 16384, 64, 8, 128)
    made = expected_parts(shape, DEVICE, "flash3", "vllm")
    assert expected_us(shape) == pytest.approx(28690, rel=0.03)
    assert made["power_s"][0] / total_s(made)[0] == pytest.approx(0.09, abs=0.02)
    assert expected_parts(calls(1, 4096, 4096, 64, 8, 128), DEVICE, "flash3", "vllm")["power_s"][0] == 0


def test_constants_are_those_the_formulas_read() -> None:
    """A constant that no formula reads, or one read without being fitted, would not be noticed otherwise."""
    read: set[str] = set()

    class Watched(dict[str, float]):
        def __getitem__(self, name: str) -> float:
            read.add(name)
            return super().__getitem__(name)

    known = load_calibration("fa3").values()
    expected_parts(calls(4, 8192, 8192, 40, 8, 64), DEVICE, "flash3", "vllm", constants=Watched(known))
    assert read == set(known)


def test_sglang_calls_have_their_own_launch_and_copy() -> None:
    """H100, 16 queries on 64 keys each, 32/4 heads of 128: SGLang 0.5.14 10.0 us, vLLM 0.24 12.7 us (AIConfigurator)."""
    shape = calls(16, 1, 64, 32, 4, 128)
    made = {
        framework: float(total_s(expected_parts(shape, DEVICE, "flash3", framework))[0]) * 1e6
        for framework in ("vllm", "sglang")
    }
    assert made == pytest.approx({"vllm": 12.7, "sglang": 10.0}, rel=0.07)
    copied = expected_parts(calls(64, 1024, 1024, 4, 4, 128), DEVICE, "flash3", "sglang")["cache_write_s"][0]
    assert copied == pytest.approx(2 * 2 * 2 * 64 * 1024 * 4 * 128 / 3.35e12, rel=0.06)  # K and V, read and written


def test_constants_of_a_framework_replace_those_of_the_family() -> None:
    own, family = load_calibration("fa3-sglang"), load_calibration("fa3")
    assert own.rows > 1000
    assert set(own.values()) < set(family.values())
    assert all(0 < c.low <= c.value <= c.high < 1.3 * c.low and c.meaning and c.unit for c in own.constants)
    assert values_of(family, "sglang", "hopper") == {**family.values(), **own.values()}
    assert values_of(family, "vllm", "hopper") == family.values()


def test_a_call_that_sweeps_the_cache_starts_late() -> None:
    """H100, 8 sequences, 16/2 heads of 128: 33 MB of keys and values stay in the cache, 67 and 134 MB do not.

    Measured (AIConfigurator, vLLM 0.24): 18.9, 37.7 and 58.6 us. The second 67 MB take 21.0 us, so 16.7 are left of 37.7,
    5.3 more than the 11.4 of a call with few keys: a start that no bandwidth explains.
    """
    made = [expected_us(calls(8, 1, n, 16, 2, 128)) for n in (4096, 8192, 16384)]
    assert made == pytest.approx([18.9, 37.7, 58.6], rel=0.1)
    late = [
        expected_parts(calls(8, 1, n, 16, 2, 128), DEVICE, "flash3", "vllm")["cold_start_s"][0] for n in (64, 16384)
    ]
    assert late == pytest.approx([0.0, load_calibration("fa3").values()["cold_start"] * RATES.hbm_latency_s])
    alone = expected_parts(calls(8, 1, 16384, 16, 2, 128), DEVICE, "flash3", "none")["cold_start_s"][0]
    assert alone == pytest.approx(late[1] / 2)  # one kernel of the call's two


def test_items_fall_out_of_step_and_overlap_the_stream() -> None:
    """H100, 2,048 sequences of 256 keys, 4 heads over 4 of 128: 394 us (AIConfigurator, vLLM 0.24); in step it would be 500."""
    shape = calls(2048, 1, 256, 4, 4, 128)
    assert expected_us(shape) == pytest.approx(393.6, rel=0.05)
    constants = load_calibration("fa3").values()

    def time(sequences: int, in_step: float) -> float:
        one = calls(sequences, 1, 256, 4, 4, 128)
        values = {**constants, "in_step": in_step}
        return float(total_s(expected_parts(one, DEVICE, "flash3", "vllm", constants=values))[0]) * 1e6

    assert time(2048, 1e9) > 1.2 * time(2048, constants["in_step"])  # 62 items a core
    assert time(128, 1e9) == time(128, constants["in_step"])  # 4 items a core: all in step
    assert time(2048, 0) < time(2048, constants["in_step"])
