"""Touches: what a program touches, element by element, is what the closed form counts."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_calls import cached_calls, calls, make

from iosim.attention import Attention, Shape
from iosim.kernels import make_schedule
from iosim.masks import Grid, Tiling, bind
from iosim.schedule import Launch, Program, Schedule

#: a kernel of each algorithm that reads a cache of keys and values
CACHED = ("flash2", "flash-sigmoid", "flash-v100", "split-kv", "stream-k", "flashmla", "fast-attention")


def touched(launch: Launch) -> dict[str, tuple[int, int]]:
    """(read, written) elements by tensor, by walking every item."""
    program = launch.program
    assert program is not None
    read: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for item in range(program.items):
        for step in program.steps(item):
            for touch in step:
                side = written if touch.write else read
                side[touch.tensor] += touch.rows * program.row_elements[touch.tensor]
    return {tensor: (read[tensor], written[tensor]) for tensor in {*read, *written}}


def counted(launch: Launch) -> dict[str, tuple[int, int]]:
    return {
        m.tensor: (m.read_elements, m.write_elements)
        for m in launch.traffic.moved
        if m.read_elements or m.write_elements
    }


def check(schedule: Schedule) -> None:
    for launch in schedule.runs:
        assert launch.program is not None
        assert launch.program.items == launch.items
        assert touched(launch) == counted(launch)
        one_head_of_each_tensor(launch.program)


def one_head_of_each_tensor(program: Program) -> None:
    """What traces rely on: heads with one pattern touch the same rows, each of one head of every tensor."""
    rows: dict[object, list[object]] = {}
    for head in range(program.heads):
        steps = [step for tile in range(program.tiles) for step in program.steps(head * program.tiles + tile)]
        heads = {(touch.tensor, touch.head) for step in steps for touch in step}
        assert len(heads) == len({tensor for tensor, _ in heads})
        mark = program.pattern(head) if program.pattern else None
        seen = [[(t.tensor, t.row, t.rows, t.write) for t in step] for step in steps]
        assert rows.setdefault(mark, seen) == seen


@given(calls(), st.booleans())
def test_flash2_touches_what_it_counts(call: dict[str, Any], pack: bool) -> None:
    check(make(call, "flash2", pack))


@given(calls(), st.booleans())
def test_flash1_touches_what_it_counts(call: dict[str, Any], init: bool) -> None:
    check(make(call, "flash1", init=init))


@given(calls(), st.integers(1, 3), st.integers(0, 9))
def test_unfused_touches_what_it_counts(call: dict[str, Any], passes: int, gemm_tile: int) -> None:
    chosen = {"passes": passes} | ({"gemm_tile": gemm_tile} if gemm_tile else {})
    check(make(call, "unfused", **chosen))


@given(calls(), st.integers(1, 6), st.booleans())
def test_split_kv_touches_what_it_counts(call: dict[str, Any], splits: int, pack: bool) -> None:
    longest = -(-call["n_kv"] // call["cols"])
    if call["mask"] == "full":
        check(make(call, "split-kv", pack, splits=min(splits, longest)))
    check(make(call, "split-kv", pack))


@given(calls(), st.booleans())
def test_queries_that_come_with_every_tile(call: dict[str, Any], pack: bool) -> None:
    schedule = make(call, "flash2", pack, q_again=True)
    check(schedule)
    group, rows, cols = call["group"] if pack else 1, call["rows"], call["cols"]
    seen = np.repeat(call["allowed"], group, axis=0)
    visited = sum(
        len(seen[i : i + rows]) * seen[i : i + rows, j : j + cols].any()
        for i in range(0, len(seen), rows) for j in range(0, call["n_kv"], cols)
    )  # fmt: skip
    heads = call["batch"] * call["kv_heads"] * call["group"] // group
    assert {m.tensor: m.read_elements for m in schedule.traffic.moved}["Q"] == visited * heads * call["d"]


@given(cached_calls(), st.sampled_from(CACHED), st.booleans(), st.integers(1, 5))
def test_pages_and_scales_are_touched_as_counted(
    drawn: tuple[dict[str, Any], dict[str, object]], kernel: str, pack: bool, workers: int
) -> None:
    call, layout = drawn
    if kernel in ("stream-k", "flashmla"):
        if not call["allowed"].any():
            return
        layout = layout | {"workers": workers}
    schedule = make(call, kernel, pack, "decode" if kernel == "flashmla" else "prefill", **layout)
    check(schedule)
    read = {tensor for launch in schedule.launches for tensor, (words, _) in counted(launch).items() if words}
    if call["allowed"].any():
        assert ("block_table" in read, "K_scale" in read) == ("page_size" in layout, "scale_group" in layout)


@pytest.mark.parametrize(
    "kernel",
    ["flash1", "flash2", "split-kv", "flash-bias", "recompute-dv", "square-tiling", "unfused", "flash2-backward",
     "backward-q-outer", "backward-two-kernels"],
)  # fmt: skip
def test_heads_with_masks_of_their_own(kernel: str) -> None:
    """Two masks among four heads: counts add over heads, and heads with equal steps are told apart from others."""
    phase = "backward" if "backward" in kernel else "prefill"
    shape = Shape(2, 4, 4, 5, 3)
    parts = []
    for text in ("heads(causal;window:5)", "causal", "window:5"):
        asked = Attention(shape, bind(text, Grid((23,), (23,))), phase=phase)
        schedule = make_schedule(asked, None, kernel, Tiling((6,), (6,)))
        check(schedule)
        parts.append(schedule.traffic)
    mixed, causal, window = parts
    assert 2 * mixed.read_elements == causal.read_elements + window.read_elements
    assert 2 * mixed.write_elements == causal.write_elements + window.write_elements
