"""FlashAttention-2's terms against loops over its grid, and against single measured calls that show one term each.

Measured: AIConfigurator 0.12.0 (Apache-2.0, NVIDIA), vLLM 0.24.0 on L40S and 0.14.0 on A100; microseconds.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.machine import load_device
from iosim.timing import fa2
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.constants import load_calibration
from iosim.timing.fa2_memory import loaded_bytes, sweeps_of
from iosim.timing.families import CACHE_WRITE, expected_parts, values_of
from iosim.timing.parts import total_s
from iosim.timing.rates import Rates, rates_of

L40S = load_device("l40s")


def call(n_q: int, n_kv: int, batch: int, heads: int, kv_heads: int, d: int = 128, window: int = 0) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": d, "n_q": n_q, "n_kv": n_kv,
               "left": window - 1 if window else UNBOUNDED}  # fmt: skip
    return Calls.of({name: [number] for name, number in numbers.items()})


def microseconds(c: Calls, device: str = "l40s") -> float:
    return float(total_s(expected_parts(c, load_device(device), "flash2", "vllm"))[0]) * 1e6


def rates(cores: int, usable_bytes: float) -> Rates:
    return replace(rates_of(L40S), cores=cores, l2_usable_bytes=usable_bytes, shared_bytes=100 << 10)


def naive_sweeps(batch: int, heads: int, kv_heads: int, cores: int) -> float:
    """Rounds of `cores` blocks, heads slowest; a cache that holds one round only."""
    blocks = [(sequence, head * kv_heads // heads) for head in range(heads) for sequence in range(batch)]
    rounds = [set(blocks[i : i + cores]) for i in range(0, len(blocks), cores)]
    return sum(map(len, rounds)) / (batch * kv_heads)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), st.integers(1, 8))
def test_sweeps_are_those_of_a_loop_over_rounds(kv_heads: int, group: int, whole: int, together: int) -> None:
    """Where a round is a whole number of heads of all sequences, or all sequences a whole number of rounds."""
    for batch, cores in ((4, 4 * together), (4 * whole, 4)):
        if batch > cores or group % max(1, cores // batch) == 0:
            c = call(1, 4096, batch, group * kv_heads, kv_heads, window=1024)
            r = rates(cores, 1.0)
            plan = fa2.plan(c, r, "vllm")
            found = sweeps_of(plan, c, loaded_bytes(plan, c), r, np.ones(1, np.int64))[0]
            assert found == pytest.approx(naive_sweeps(batch, group * kv_heads, kv_heads, cores))


def test_a_cache_that_holds_one_head_sweeps_once() -> None:
    c = call(1, 4096, 64, 16, 2, window=1024)
    r = rates(8, 1e12)
    plan = fa2.plan(c, r, "vllm")
    assert sweeps_of(plan, c, loaded_bytes(plan, c), r, np.ones(1, np.int64))[0] == 1


@given(st.integers(1, 3000), st.integers(1, 400), st.sampled_from([64, 128, 256]))
def test_loaded_bytes_are_those_of_visited_tiles(n_kv: int, window: int, d: int) -> None:
    c = call(1, n_kv, 3, 4, 4, d, window)
    plan = fa2.plan(c, rates_of(L40S), "vllm")
    keys = int(plan.keys[0])
    visited = [k for k in range(n_kv) if any(j >= n_kv - window for j in range(k // keys * keys, min(k // keys * keys + keys, n_kv)))]  # fmt: skip
    assert loaded_bytes(plan, c)[0] == len(visited) * 2 * 2 * d * 4 * 3


@given(st.integers(2, 4000), st.sampled_from([64, 128, 256]))
def test_masked_tiles_are_two_a_row_block_unless_it_has_one(n: int, d: int) -> None:
    c = call(n, n, 1, 1, 1, d)
    plan = fa2.plan(c, rates_of(L40S), "vllm")
    keys, rows = int(plan.keys[0]), int(plan.rows[0])
    counts = [min(2, -(-min((i + 1) * rows, n) // keys)) for i in range(-(-n // rows))]
    assert fa2.masked_tiles(plan, c)[0] == pytest.approx(np.mean(counts), abs=1 / len(counts) + 1e-9)


@pytest.mark.parametrize(("batch", "measured"), [(16, 168.4), (32, 381.1), (64, 924.8), (128, 3431.9)])
def test_a_window_of_five_heads_is_swept_as_often_as_heads_run_apart(batch: int, measured: float) -> None:
    """5 heads over 1, window 8,192: 142 cores hold all heads of 16 sequences, two of 64, one of 128."""
    assert microseconds(call(1, 16385, batch, 5, 1, window=8192)) == pytest.approx(measured, rel=0.1)


def test_a_window_of_128_loads_the_tile_that_it_cuts() -> None:
    """67 MB in windows would stay in 96 MiB, the 135 MB of whole tiles of 256 keys do not."""
    assert microseconds(call(1, 257, 256, 8, 8, 64, window=128)) == pytest.approx(231.6, rel=0.15)


@pytest.mark.parametrize(("batch", "keys", "measured"), [(512, 4, 115.5), (512, 64, 121.2), (128, 16, 35.2)])
def test_waits_of_a_block_alone_on_its_core_are_hidden_by_nothing(batch: int, keys: int, measured: float) -> None:
    """L40S, a window that covers the keys: 8 heads are 8 blocks of one row, whose start costs more than their tile."""
    assert microseconds(call(1, keys, batch, 8, 1, window=128)) == pytest.approx(measured, rel=0.1)


def test_the_cache_write_is_the_frameworks_own_kernel() -> None:
    """vLLM 0.24 writes the cache on L40S as on H100, whatever attention follows; A100's table is version 0.14's."""
    c, hopper, own = call(4096, 4096, 1, 4, 4), load_calibration("fa3").values(), load_calibration("fa2").values()
    for device, constants in (("l40s", hopper), ("a100-sxm-80gb", own)):
        made = values_of(load_calibration("fa2"), "vllm", load_device(device).architecture)
        assert {name: made[name] for name in CACHE_WRITE} == {name: constants[name] for name in CACHE_WRITE}
    assert microseconds(c) < total_s(expected_parts(c, L40S, "flash2", "vllm", constants=own))[0] * 1e6


def test_copies_of_many_heads_take_their_bytes() -> None:
    """1,024 sequences of 32 keys, 64 heads over 2, A100: half of the time is the transposes of Q and O."""
    c = call(1, 31, 1024, 64, 2)
    assert microseconds(c, "a100-sxm-80gb") == pytest.approx(173.5, rel=0.1)
    made = expected_parts(c, load_device("a100-sxm-80gb"), "flash2", "vllm")
    assert made["layout_copies_s"][0] > 0.4 * total_s(made)[0]


def test_long_runs_are_slowed_by_power_where_the_board_is_known_to_be() -> None:
    constants = load_calibration("fa2").values()
    c = call(16384, 16384, 4, 32, 8)
    shares = {}
    for name in ("l40s", "rtx-pro-6000-blackwell-server", "rtx-4090"):
        device = load_device(name)
        made = expected_parts(c, device, "flash2", "vllm", constants=constants)
        shares[name] = float(made["power_s"][0] / total_s(made)[0])
    assert shares["l40s"] > 0.2  # 278 TFLOP/s in bursts, 195 in the long run
    assert 0 < shares["rtx-pro-6000-blackwell-server"] < 0.08
    assert shares["rtx-4090"] == 0  # nobody measured it


def test_a_cold_start_still_keeps_what_the_call_itself_has_read() -> None:
    c = call(1, 4097, 64, 32, 1, window=1024)
    cold, warm = (total_s(expected_parts(c, L40S, "flash2", "vllm", warm))[0] for warm in (False, True))
    once = loaded_bytes(fa2.plan(c, rates_of(L40S), "vllm"), c)[0] / L40S.bandwidth_bytes_per_s("hbm")
    assert cold >= warm
    assert cold - warm < 2 * once
