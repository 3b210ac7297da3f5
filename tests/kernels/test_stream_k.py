"""Stream-K and FlashMLA: cuts against the printed formula, traffic against loops, FlashMLA's schedule."""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from test_counts import calls, expected, make, per_tensor, problem, without_idle
from test_programs import check

from iosim.errors import UsageError
from iosim.kernels import Call, make_schedule
from iosim.kernels.stream_line import line_of
from iosim.kernels.stretches import Line, boundaries
from iosim.machine import load_device


def cuts(line: Line, ends: list[int]) -> int:
    return sum(line.place(at)[2] > 0 for at in ends[:-1])


@pytest.mark.parametrize(("tiles", "depth", "workers", "step", "expected_cuts"), [(3, 8, 5, 5, 4), (2, 64, 8, 16, 6)])
def test_cuts_of_the_theory_note(tiles: int, depth: int, workers: int, step: int, expected_cuts: int) -> None:
    """Oracle 17."""
    line = Line(tiles, (depth,), (1,))
    ends = boundaries(line, "whole", workers)
    assert ends[0] == step
    assert cuts(line, ends) == expected_cuts


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 60))
def test_cuts_by_the_formula(tiles: int, depth: int, workers: int) -> None:
    """#{c in 1 .. ceil(T / L) - 1 : c L mod T_c != 0}, and none when L is a multiple of T_c (oracle 37)."""
    line, total = Line(tiles, (depth,), (1,)), tiles * depth
    step = -(-total // workers)
    ends = boundaries(line, "whole", workers)
    stretches = -(-total // step)
    assert len(ends) == stretches
    assert cuts(line, ends) == stretches - 1 - (stretches - 1) // (depth // gcd(depth, step))
    if step % depth == 0:
        assert cuts(line, ends) == 0
    even = boundaries(line, "balanced", workers)
    lengths = np.diff([0, *even])
    assert even[-1] == total
    assert lengths.max() - lengths.min() <= 1
    assert len(even) == min(workers, total)


@given(calls(), st.integers(1, 9), st.sampled_from(["whole", "balanced"]))
def test_stream_k_equals_loops(call: dict[str, Any], workers: int, share: str) -> None:
    if not call["allowed"].any():
        return
    schedule = make(call, "stream-k", workers=workers, share=share)
    line = line_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    heads = call["batch"] * call["kv_heads"] * call["group"]
    ends = boundaries(line, share, workers)
    loops = loop_counters.stream_k(
        call["allowed"], call["d"], call["d_v"], call["rows"], call["cols"], heads, ends, False
    )
    assert without_idle(per_tensor(schedule)) == without_idle(expected(loops, 1))
    check(schedule)


@given(calls(), st.integers(1, 9), st.integers(0, 6))
def test_flashmla_equals_loops(call: dict[str, Any], workers: int, overhead: int) -> None:
    rows = np.repeat(call["allowed"], call["group"], axis=0)
    if not rows.any():
        return
    schedule = make(call, "flashmla", phase="decode", workers=workers, overhead=overhead)
    line = line_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    ends = boundaries(line, "flashmla", workers, overhead)
    heads = call["batch"] * call["kv_heads"]
    assert len(ends) <= workers * len(line.ends)
    assert ends[-1] == line.length
    loops = loop_counters.stream_k(rows, call["d"], call["d_v"], call["rows"], call["cols"], heads, ends, True)
    assert without_idle(per_tensor(schedule)) == without_idle(expected(loops, 1))
    check(schedule)


def flashmla_metadata(blocks: list[int], parts: int, overhead: int) -> list[tuple[int, int]]:
    """FlashMLA's own loop, by hand: (sequence, block) where each part ends."""
    payload = -(-sum(b + overhead for b in blocks) // parts) + overhead
    sequence = block = 0
    ends = []
    for _ in range(parts):
        remaining = payload
        while sequence < len(blocks):
            left = blocks[sequence] - block
            if remaining >= left + overhead:
                remaining -= left + overhead
                sequence, block = sequence + 1, 0
            else:
                if remaining - overhead > 0:
                    block += remaining - overhead
                break
        ends.append((sequence, block))
    return ends


@given(st.integers(1, 30), st.integers(1, 40), st.integers(1, 80), st.integers(0, 6))
def test_flashmla_cuts_where_its_code_does(sequences: int, blocks: int, parts: int, overhead: int) -> None:
    line = Line(sequences, (blocks,), (1,))
    places = [line.place(at)[0::2] for at in boundaries(line, "flashmla", parts, overhead)[:-1]]

    theirs = flashmla_metadata([blocks] * sequences, parts, overhead)
    assert places == theirs[: len(places)]


def test_deepseek_decode_reads_each_latent_once() -> None:
    """128 heads, one latent head of 576, V its first 512: bytes of the cache and little else."""
    asked = problem(1, 4096, 576, 512, heads=128, kv_heads=1, batch=128, phase="decode", latent=True)
    schedule = make_schedule(asked, load_device("h800-sxm5"), "flashmla")
    moved = {m.tensor: m.read_elements for m in schedule.traffic.moved}
    assert moved["K"] == 2 * 128 * 4096 * 576  # two Q tiles of 64 heads each read the latents
    assert moved["V"] == 0
    assert moved["block_table"] == 2 * 128 * 64
    # a part may spend ceil(128 x 69 / 66) + 5 = 139 tiles: two whole sequences, so 64 of 66 parts work, per Q tile
    assert schedule.launches[0].items == 2 * 64
    with pytest.raises(UsageError, match="flashmla has no tile for head size 640"):
        make_schedule(problem(1, 64, 640, 512, heads=16, kv_heads=1, phase="decode", latent=True), None, "flashmla")


def test_lean_attention_keeps_every_core_busy() -> None:
    """56 heads of 64 tiles on 108 cores: 34 tiles each on all but the last, against two waves of split-KV."""
    asked = problem(1, 64 * 256, 64, heads=56, kv_heads=56, phase="decode")
    schedule = make_schedule(asked, load_device("a100-sxm-80gb"), "stream-k")
    assert schedule.launches[0].items == -(-56 * 64 // -(-56 * 64 // 108)) == 106
