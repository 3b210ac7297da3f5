"""Shared memory's traffic, the sixth count of `Work`: operands per visited tile, and a copy of each word delivered."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from oracles.loop_counters import Counters, length, tiles
from oracles.random_calls import calls, make, problem, tile

from iosim.kernels import Call, make_schedule
from iosim.kernels.stream_k import line_of
from iosim.kernels.stretches import boundaries

Array = np.ndarray
BITS = 16  # of all operands here


def operand_bits(allowed: Array, call: dict[str, Any], depths: list[tuple[int, int]], mma_rows: int, heads: int) -> int:
    """Matrix units' reads: for each (depth of Q, of K and V) pass over the visited tiles, rows apart, keys shared."""
    total = 0
    for q_depth, kv_depth in depths:
        rows, shared = 0, Fraction(0)
        for i in tiles(allowed.shape[0], call["rows"]):
            for j in tiles(allowed.shape[1], call["cols"]):
                if allowed[i, j].any():
                    rows += length(i)
                    shared += Fraction(length(i) * length(j), mma_rows)
        total += heads * rows * q_depth * BITS + ceil(heads * shared) * kv_depth * BITS
    return total


def copied_bits(loops: Counters) -> int:
    return BITS * sum(loops.read[tensor] for tensor in "QKV")


@given(
    calls(), st.sampled_from(["flash2", "flash3", "flash4", "flash1", "flash-bias", "flash-sigmoid", "lightning1"]),
    st.integers(1, 5), st.booleans(),
)  # fmt: skip
def test_walks_over_tiles(call: dict[str, Any], kernel: str, mma_rows: int, pack: bool) -> None:
    pack = pack and kernel not in ("flash1", "lightning1")
    if kernel == "lightning1" and (call["mask"] not in ("full", "causal") or call["n_q"] != call["n_kv"]):
        return
    chosen: dict[str, object] = {"mma_rows": mma_rows} | ({"bias": "alibi"} if kernel == "flash-bias" else {})
    allowed = np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)
    loops = (loop_counters.flash1 if kernel == "flash1" else loop_counters.flash2)(
        allowed, call["d"], call["d_v"], call["rows"], call["cols"], False
    )
    heads = call["batch"] * call["kv_heads"] * (1 if pack else call["group"])
    wanted = heads * copied_bits(loops)
    wanted += operand_bits(allowed, call, [(call["d"], call["d"] + call["d_v"])], mma_rows, heads)
    assert make(call, kernel, pack, **chosen).work.shared_bytes == wanted // 8


@given(calls(), st.integers(1, 6), st.integers(1, 5))
def test_scores_formed_again_read_their_operands_again(call: dict[str, Any], width: int, mma_rows: int) -> None:
    loops = loop_counters.recompute_values(call["allowed"], call["d"], call["d_v"], call["rows"], call["cols"], width)
    heads, d = call["batch"] * call["kv_heads"] * call["group"], call["d"]
    depths = [(d, d + call["d_v"])] + [(d, d)] * (len(tiles(call["d_v"], width)) - 1)
    wanted = heads * copied_bits(loops) + operand_bits(call["allowed"], call, depths, mma_rows, heads)
    assert make(call, "recompute-dv", value_block=width, mma_rows=mma_rows).work.shared_bytes == wanted // 8


@given(calls(), st.integers(1, 6), st.sampled_from(["split-kv", "stream-k", "flashmla"]))
def test_parts_copy_their_queries_again(call: dict[str, Any], parts: int, kernel: str) -> None:
    allowed = np.repeat(call["allowed"], call["group"], axis=0)
    sizes = (call["d"], call["d_v"], call["rows"], call["cols"])
    longest = max(
        sum(allowed[i, j].any() for j in tiles(call["n_kv"], call["cols"])) for i in tiles(len(allowed), call["rows"])
    )
    if not longest:
        return
    heads = call["batch"] * call["kv_heads"]
    chosen: dict[str, object] = {"splits": min(parts, int(longest))} if kernel == "split-kv" else {"workers": parts}
    schedule = make(call, kernel, phase="decode", mma_rows=3, **chosen)
    if kernel == "split-kv":
        copied = heads * copied_bits(loop_counters.split_kv(allowed, *sizes, min(parts, int(longest)), True))
    else:
        line = line_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
        share = schedule.parameters.get("share", "flashmla")
        overhead = schedule.parameters.get("overhead", 0)
        ends = boundaries(line, str(share), parts, int(overhead))
        copied = copied_bits(loop_counters.stream_k(allowed, *sizes, heads, ends, kernel == "flashmla"))
    wanted = copied + operand_bits(allowed, call, [(call["d"], call["d"] + call["d_v"])], 3, heads)
    assert schedule.work.shared_bytes == wanted // 8


def test_a_tile_of_flash4_reads_96_kibibytes() -> None:
    """FlashAttention-4, section 3: one 128 x 128 tile at head size 128; beside it the copies of Q, K and V."""
    asked = problem(128, 128, 128)
    work = make_schedule(asked, None, "flash4", tile(128, 128), {"mma_rows": 128}).work
    assert work.shared_bytes == (96 + 96) * 1024


@pytest.mark.parametrize("latent", [True, False])
def test_latent_values_are_copied_with_the_keys(latent: bool) -> None:
    asked = problem(64, 64, 32, 16, heads=1, phase="decode", latent=latent)
    work = make_schedule(asked, None, "flash2", tile(64, 64), {"mma_rows": 64}).work
    operands = 64 * 32 * 2 + 64 * (32 + 16) * 2
    assert work.shared_bytes == operands + 64 * 32 * 2 + 64 * (32 if latent else 32 + 16) * 2
