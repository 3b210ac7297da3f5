"""Biases, sigmoid, recomputed scores and square tiling against naive loops and published numbers."""

from __future__ import annotations

from math import isqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from test_counts import calls, expected, make, per_tensor, problem, tile, without_idle
from test_programs import check

from iosim.errors import UsageError
from iosim.floors import Memory, attention_floors
from iosim.floors.bound import narrowest_bits
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.schedule import Schedule


def times(call: dict[str, Any], pack: bool = False) -> int:
    return call["batch"] * call["kv_heads"] * (1 if pack else call["group"])


def compare(schedule: Schedule, loops: loop_counters.Counters, copies: int) -> None:
    assert without_idle(per_tensor(schedule)) == without_idle(expected(loops, copies))
    check(schedule)


def same_work(schedule: Schedule, loops: loop_counters.Counters, copies: int) -> None:
    work = schedule.work
    counted = (loops.tiles, loops.executed, loops.exp)
    assert (work.tile_pairs, work.flop_executed, work.exp) == tuple(count * copies for count in counted)


@given(calls(), st.sampled_from(["none", "dense", "low-rank", "alibi", "softcap"]), st.integers(1, 4), st.booleans())
def test_bias_equals_loops(call: dict[str, Any], bias: str, rank: int, pack: bool) -> None:
    chosen: dict[str, object] = {"bias": bias} | ({"rank": rank} if bias == "low-rank" else {})
    schedule = make(call, "flash-bias", pack, **chosen)
    rows = np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)
    loops = loop_counters.biased(rows, call["d"], call["d_v"], call["rows"], call["cols"], bias, rank)
    compare(schedule, loops, times(call, pack))
    assert schedule.work.flop_executed == loops.executed * times(call, pack)
    assert schedule.work.flop == loops.flop * times(call, pack)


def test_a_rank_and_its_bias_belong_together() -> None:
    for chosen in ({"bias": "low-rank"}, {"bias": "dense", "rank": 4}):
        with pytest.raises(UsageError, match="rank"):
            make_schedule(problem(64, 64, 8), None, "flash-bias", tile(16, 16), chosen)


@given(calls())
def test_sigmoid_is_flash2_without_statistics(call: dict[str, Any]) -> None:
    schedule = make(call, "flash-sigmoid")
    loops = loop_counters.flash2(call["allowed"], call["d"], call["d_v"], call["rows"], call["cols"], False)
    compare(schedule, loops, times(call))
    assert (schedule.work.exp, schedule.work.exp_rescale) == (loops.exp * times(call), 0)


@given(calls(), st.integers(1, 6))
def test_recomputed_values_equal_loops(call: dict[str, Any], width: int) -> None:
    schedule = make(call, "recompute-dv", value_block=width)
    loops = loop_counters.recompute_values(call["allowed"], call["d"], call["d_v"], call["rows"], call["cols"], width)
    compare(schedule, loops, times(call))
    same_work(schedule, loops, times(call))


@pytest.mark.parametrize(
    ("d_v", "words", "once"), [(256, 4_987_027_456, 7_107_596_147), (512, 9_969_860_608, 16_229_739_881)]
)
def test_recomputing_goes_under_the_floor_of_once(d_v: int, words: int, once: int) -> None:
    """The review's example: N = 65,536, d = 64, 58,112 words: legal schedules below L3, above L1."""
    n, memory = 65_536, 58_112
    rows = (memory - 64 - 2) // (2 * 64 + 3)
    asked = problem(n, n, 64, d_v)
    schedule = make_schedule(asked, None, "recompute-dv", tile(rows, 1), {"lse": False})
    moved = schedule.traffic.read_elements + schedule.traffic.write_elements
    floors = attention_floors(asked, Memory("given", memory * narrowest_bits(asked)))
    assert moved == words < once
    l3 = next(bound.value_elements for bound in floors.bounds if bound.id == "L3")
    assert l3 == pytest.approx(once, abs=2)  # the review rounded a float
    assert floors.any_elements <= floors.standard_elements <= moved < floors.once_elements
    assert schedule.algorithm_class == "standard"


@given(calls(), st.sampled_from(["flash3", "fast-attention", "split-kv", "stream-k"]), st.booleans())
def test_other_placements_do_the_arithmetic_of_flash2(call: dict[str, Any], kernel: str, pack: bool) -> None:
    """Where items run and what is handed over changes no visited tile."""
    made, known = (make(call, name, pack).launches[0].work for name in (kernel, "flash2"))
    assert (made.tile_pairs, made.flop, made.flop_executed, made.exp) == (
        known.tile_pairs, known.flop, known.flop_executed, known.exp,
    )  # fmt: skip


@given(calls(), st.integers(1, 9), st.booleans())
def test_square_tiling_equals_loops(call: dict[str, Any], block: int, safe: bool) -> None:
    schedule = make(call | {"rows": block, "cols": block}, "square-tiling", safe=safe)
    loops = loop_counters.square_tiling(call["allowed"], call["d"], call["d_v"], block, safe)
    compare(schedule, loops, times(call))
    same_work(schedule, loops, times(call))


@pytest.mark.parametrize(
    ("n", "d", "memory", "block", "read", "written"),
    [(256, 64, 1024, 16, 1_048_832, 82_176), (1024, 128, 4096, 32, 16_778_240, 1_180_672)],
)
def test_square_tiling_of_the_theory_note(n: int, d: int, memory: int, block: int, read: int, written: int) -> None:
    """Oracle 18; twice the block with one stationary block costs nearly half."""
    assert isqrt(memory // 4) == block  # three blocks and a vector
    moved = make_schedule(problem(n, n, d), None, "square-tiling", tile(block, block)).traffic
    assert (moved.read_elements, moved.write_elements) == (read, written)
    improved = isqrt(memory) - 1  # one block, a column and a row
    assert improved == 2 * block - 1
    better = make_schedule(problem(n, n, d), None, "square-tiling", tile(improved, improved)).traffic
    assert better.read_elements < 0.62 * moved.read_elements


@given(st.integers(1, 300), st.integers(2, 300), st.integers(1, 64), st.integers(1, 64), st.integers(1, 40))
def test_square_tiling_is_above_every_floor(n_q: int, n_kv: int, d: int, d_v: int, block: int) -> None:
    asked = problem(n_q, n_kv, d, d_v)
    moved = make_schedule(asked, None, "square-tiling", tile(block, block)).traffic
    floors = attention_floors(asked, Memory("given", (block * block + 2 * block + 1) * narrowest_bits(asked)))
    assert floors.once_elements <= moved.read_elements + moved.write_elements


def test_square_tiling_refuses_other_tiles() -> None:
    with pytest.raises(UsageError, match="square tile"):
        make_schedule(problem(64, 64, 8), None, "square-tiling", tile(16, 8))


@given(calls(), st.integers(1, 3), st.integers(1, 9))
def test_tiled_products_equal_loops(call: dict[str, Any], passes: int, size: int) -> None:
    schedule = make(call, "unfused", passes=passes, gemm_tile=size)
    loops = loop_counters.tiled_products(call["n_q"], call["n_kv"], call["d"], call["d_v"], passes, size)
    compare(schedule, loops, times(call))


@given(calls(), st.booleans())
def test_split_cores_hand_over_scores_and_products(call: dict[str, Any], pack: bool) -> None:
    """FlashAttention-2's loops, and per visited tile S, P and the product P V once each way."""
    schedule = make(call, "fast-attention", pack)
    rows = np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)
    loops = loop_counters.flash2(rows, call["d"], call["d_v"], call["rows"], call["cols"], True)
    for i in loop_counters.tiles(len(rows), call["rows"]):
        for j in loop_counters.tiles(call["n_kv"], call["cols"]):
            if rows[i, j].any():
                sizes = (rows[i, j].size, rows[i, j].size, loop_counters.length(i) * call["d_v"])
                for name, size in zip(("S_handed", "P_handed", "O_handed"), sizes, strict=True):
                    loops.store(name, size)
                    loops.load(name, size)
    compare(schedule, loops, times(call, pack))
    same = make(call, "fast-attention", pack, shared=True)
    assert same.traffic == make(call, "flash2", pack).traffic


def test_first_level_tiles_fit_l1_and_second_level_blocks_fit_l0() -> None:
    """Ascend 910B2: 512 KiB of L1, 128 KiB of L0C; a key tile twice as long is refused with the largest that fits."""
    device = load_device("ascend-910b2")
    asked = problem(8192, 8192, 128, mask="causal", heads=8)
    schedule = make_schedule(asked, device, "fast-attention")
    assert str(schedule.tiling) == "128x256"
    assert schedule.working_set.shared_bytes == (32 + 2 * 128) * 1024 <= device.level("l1").capacity_bytes
    assert dict(schedule.working_set.levels)["l0c"] == device.level("l0c").capacity_bytes
    with pytest.raises(UsageError, match="L1 per core"):
        make_schedule(asked, device, "fast-attention", tile(128, 512))
    with pytest.raises(UsageError, match="no tile for head size 128"):
        make_schedule(asked, load_device("h100-sxm5"), "fast-attention")


@given(
    calls(), st.sampled_from(["stream-k", "flash-bias", "flash-sigmoid", "flash4", "recompute-dv", "fast-attention"]),
)  # fmt: skip
def test_every_class_of_kernel_stays_above_its_floors(call: dict[str, Any], kernel: str) -> None:
    if not call["allowed"].any():
        return
    schedule = make(call, kernel)
    d, d_v, rows, cols = call["d"], call["d_v"], call["rows"], call["cols"]
    memory = rows * (d + d_v + 2) + cols * (d + d_v) + rows * cols
    asked, moved = schedule.problem, schedule.traffic
    floors = attention_floors(asked, Memory("given", memory * narrowest_bits(asked)))
    own = floors.once_elements if schedule.algorithm_class == "standard-once" else floors.standard_elements
    assert floors.any_elements <= own <= moved.read_elements + moved.write_elements
