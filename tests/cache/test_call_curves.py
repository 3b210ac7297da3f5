"""Curves and replays of whole calls: the cliffs that theory names, and one cache against another way to count."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.random_calls import calls, concurrencies, make, problem, tile

import iosim
from iosim.cache import oracle
from iosim.cache.device_replay import single_cache
from iosim.cache.l2_oracle import lockstep_touches
from iosim.cache.replay_options import ReplayOptions
from iosim.cache.replaying import replay
from iosim.curve_analysis import miss_curve_of_call, touches_of
from iosim.schedule import Schedule
from iosim.trace.concurrency import Concurrency

LINE = 128


def touched_bytes(
    schedule: Schedule, concurrency: Concurrency, line_bytes: int
) -> list[tuple[str, int, int, int, bool]]:
    """(tensor, head, first byte, bytes, write) in order, from the readable walk."""
    bits = {m.tensor: m.bits for m in schedule.traffic.moved}
    made = []
    for launch in schedule.launches:
        program = launch.program
        assert program is not None
        for _, touch in lockstep_touches(program, concurrency):
            row = program.row_elements[touch.tensor] * bits[touch.tensor]
            made.append((touch.tensor, touch.head, touch.row * row // 8, touch.rows * row // 8, touch.write))
    return made


@settings(max_examples=60)
@given(calls(), concurrencies)
def test_the_lines_of_a_call_are_those_of_its_walk(call: dict[str, Any], concurrency: Concurrency) -> None:
    """Same tensors, heads and extents in the same order, whatever the order of items and keys.

    The replay of the last caches has this loop once more, and the same readable form of it (`test_shared_l2`).
    """
    schedule = make(call, "flash2", lse=False)
    touches = touches_of(schedule, 2, concurrency).touches  # a line of one element: nothing is rounded
    expected = touched_bytes(schedule, concurrency, 2)
    parts = [(touches.start + copy * touches.extent, touches.length, touches.flags) for copy in range(touches.copies)]
    start, length, flags = (np.concatenate([part[i] for part in parts]) for i in range(3))
    assert [int(n) * 2 for n in length] == [size for _, _, _, size, _ in expected]
    assert [bool(f & 1) for f in flags] == [write for *_, write in expected]
    places: dict[tuple[str, int, int], int] = {}
    for (tensor, head, first, _, _), line in zip(expected, start.tolist(), strict=True):
        assert places.setdefault((tensor, head, first), line) == line
    assert len(set(places.values())) == len(places)


def test_the_cliff_of_flash2_is_where_one_head_fits() -> None:
    """One head, N = 4096, d = 128, fp16, 128 x 64: all misses up to 16,895 lines, compulsory from 16,896."""
    asked = iosim.problem(heads=1, head_dim=128, seq=4096, dtype="fp16")
    curve = iosim.miss_curve(asked, "flash2", tile="128x64", settings={"lse": False})
    assert [(p.capacity_bytes // LINE, p.read_bytes // LINE, p.write_bytes // LINE) for p in curve.points] == [
        (1, 540_672 - 8_192, 8_192), (16_896, 32_768 - 8_192, 8_192),
    ]  # fmt: skip
    assert curve.at(16_895 * LINE).read_bytes == 532_480 * LINE
    assert curve.bends[0].to_bytes == 16_896 * LINE
    assert "K and V of one head" in curve.bends[0].why


def test_many_heads_cost_one() -> None:
    one = iosim.miss_curve(iosim.problem(heads=1, head_dim=64, seq=2048), tile="128x128")
    many = iosim.miss_curve(iosim.problem(heads=32, batch=4, head_dim=64, seq=2048), tile="128x128")
    assert [p.capacity_bytes for p in many.points] == [p.capacity_bytes for p in one.points]
    assert [p.read_bytes for p in many.points] == [128 * p.read_bytes for p in one.points]
    assert "128 copies" in many.method


def test_grouped_heads_share_their_keys() -> None:
    """Four query heads over one key head, unpacked: with room for K and V the second head finds them."""
    curve = iosim.miss_curve(iosim.problem(heads=4, kv_heads=1, head_dim=64, seq=1024), tile="64x64")
    compulsory = (4 * 1024 * 64 + 2 * 1024 * 64) * 2
    assert curve.points[-1].read_bytes == compulsory


@settings(max_examples=30)
@given(calls(), st.integers(1, 3), st.integers(1, 40), st.sampled_from(["lru", "fifo", "opt", "opt-bypass"]))
def test_one_cache_equals_the_oracle_on_lines(call: dict[str, Any], cores: int, lines: int, policy: str) -> None:
    schedule = make(call, "flash2", lse=False)
    options = ReplayOptions(capacity_bytes=lines * LINE, cores=cores, policy=policy)
    made = single_cache(schedule, None, options)
    touches = touches_of(schedule, LINE, Concurrency(cores)).touches
    lines_of: list[int] = []
    flags: list[int] = []
    for chunk in touches.expand():
        lines_of += chunk.lines.tolist()
        flags += chunk.flags.tolist()
    run = {
        "lru": oracle.lru,
        "fifo": oracle.fifo,
        "opt": oracle.opt,
        "opt-bypass": lambda *given: oracle.opt(*given, bypass=True),
    }[policy]
    expected = run(lines_of, flags, lines)
    assert made.traffic.read_bytes == expected.fills * LINE
    assert made.traffic.write_bytes == (expected.write_backs + expected.dirty_at_end) * LINE


@settings(max_examples=30)
@given(calls(), st.sampled_from(["flash1", "flash2", "unfused"]), st.integers(1, 2))
def test_opt_of_items_in_turn_is_known_at_every_capacity(call: dict[str, Any], kernel: str, line_words: int) -> None:
    """One point where the curve steps; each holds until the next."""
    asked = make(call, kernel)
    line = 4 * line_words
    curve = miss_curve_of_call(asked.problem, None, kernel, asked.tiling, policies=("opt",), line_bytes=line)
    points = curve.of("opt")
    moved = [(point.read_bytes, point.write_bytes) for point in points]
    assert all(before != after for before, after in pairwise(moved))
    touches = touches_of(asked, line, Concurrency(1)).touches
    for capacity in range(1, points[-1].capacity_bytes // line + 3):
        counts, at = replay(touches, "opt", capacity), curve.at(capacity * line, "opt")
        assert (at.read_bytes, at.write_bytes) == (counts.read_bytes(line), counts.write_bytes(line))


def test_opt_is_below_lru_and_both_above_the_floors() -> None:
    asked = iosim.problem(heads=1, head_dim=64, seq=1024, mask="causal")
    curve = miss_curve_of_call(asked, None, "flash2", tile(64, 64), {"lse": False}, ("lru", "opt"))
    for point in curve.of("opt"):
        assert point.read_bytes <= curve.at(point.capacity_bytes).read_bytes
    own = curve.schedule.working_set.total_bytes
    for size, any_bytes, standard, once in curve.floors:
        assert any_bytes <= standard <= once <= curve.at(size).total_bytes
        assert once == iosim.bounds(asked, memory_elements=(size + own) // 2).once_bytes or size % 2


def test_accelforges_minimum_equals_a_256_row_tile() -> None:
    """A mapper's minimum at 228 kB, one head, d = 128, 16 bit: 2.5x, 8.5x, 32.5x compulsory at 1k, 4k, 16k."""
    for tokens, ratio in ((1024, 2.5), (4096, 8.5), (16_384, 32.5)):
        schedule = make_schedule_256(tokens)
        moved = schedule.traffic
        compulsory = 4 * tokens * 128
        assert (moved.read_elements + moved.write_elements) / compulsory == pytest.approx(ratio)


def make_schedule_256(tokens: int) -> Schedule:
    from iosim.kernels import make_schedule

    return make_schedule(problem(tokens, tokens, 128), None, "flash2", tile(256, 64), {"lse": False})
