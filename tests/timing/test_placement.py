"""Items on cores against naive loops: visited tiles, greedy placement, the split rule."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iosim.masks import Grid, Tiling, bind, parse_mask
from iosim.timing.calls import UNBOUNDED
from iosim.timing.kernels import GRID, SECTIONS, TAIL_PER_SLOT, makespans, visited_keys, wave_splits


def naive_tiles(
    rows: int, keys: int, group: int, n_q: int, n_kv: int, left: int, causal: bool, shifted: bool = False
) -> list[int]:
    """Tiles of each row block, counted over its keys; `shifted`: numbered from the first key that any row sees."""
    made = []
    for begin in range(0, n_q * group, rows):
        queries = range(begin // group, (min(begin + rows, n_q * group) - 1) // group + 1)
        offset = n_kv - n_q
        reached = [
            k
            for q in (queries[0], queries[-1])
            for k in (range(max(0, q + offset - left), q + offset + 1) if causal else range(n_kv))
        ]
        seen = {(k - (min(reached) if shifted else 0)) // keys for k in reached}
        made.append(max(seen) - min(seen) + 1 if seen else 0)
    return made


def call(
    rows: int, keys: int, group: int, n_q: int, n_kv: int, left: int, causal: bool, shifted: bool = False
) -> list[np.ndarray]:
    whole = [np.array([x], np.int64) for x in (rows, keys, group, n_q, n_kv, left)]
    return [*whole, np.array([causal]), np.array([shifted])]


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, bool]:
    group = draw(st.sampled_from([1, 2, 3, 5, 8]))
    n_q = draw(st.integers(1, 70))
    n_kv = n_q + draw(st.integers(0, 60))
    rows, keys = draw(st.sampled_from([1, 4, 12, 16, 64])), draw(st.sampled_from([1, 3, 16, 20]))
    left = draw(st.one_of(st.just(UNBOUNDED), st.integers(0, 80)))
    return rows, keys, group, n_q, n_kv, left, draw(st.booleans())


@given(shapes(), st.booleans())
@settings(deadline=None, max_examples=300)
def test_tiles_of_row_blocks_equal_a_walk_over_keys(
    shape: tuple[int, int, int, int, int, int, bool], shifted: bool
) -> None:
    one = np.ones(1, np.int64)
    _, tiles = makespans(
        *call(*shape, shifted), one, one, one, GRID, one, 4, one, np.array([1.0]), np.array([1.0]), np.array([1.0])
    )
    assert tiles[0] == sum(naive_tiles(*shape, shifted))


@given(shapes())
@settings(deadline=None, max_examples=100)
def test_visited_keys_equal_the_masks_own_sums(shape: tuple[int, int, int, int, int, int, bool]) -> None:
    rows, keys, group, n_q, n_kv, left, causal = shape
    text = "full" if not causal else "causal" if left == UNBOUNDED else f"window:{left + 1}"
    mask = bind(parse_mask(text), Grid((n_q,), (n_kv,)))
    assert visited_keys(*call(*shape))[0] == mask.sums(Tiling((rows,), (keys,), group)).key_rows


def greedy(costs: list[float], slots: int) -> float:
    free = [0.0] * slots
    for cost in costs:
        heapq.heappush(free, heapq.heappop(free) + cost)
    return max(free)


@given(
    blocks=st.integers(1, 6), batches=st.integers(1, 3), heads=st.integers(1, 3), section=st.integers(1, 3),
    splits=st.integers(1, 3), cores=st.integers(3, 9), order=st.sampled_from([SECTIONS, GRID]),
)  # fmt: skip
@settings(deadline=None, max_examples=300)
def test_makespan_is_greedy_list_scheduling_in_the_kernels_order(
    blocks: int, batches: int, heads: int, section: int, splits: int, cores: int, order: int
) -> None:
    splits = 1 if order == GRID else splits
    rows, keys, n = 16, 16, 16 * blocks
    item, tile = 0.7, 1.3
    tiles = naive_tiles(rows, keys, 1, n, n, UNBOUNDED, True)
    costs = []
    for _ in range(batches):
        if order == GRID:
            costs += [item + tile * t for _ in range(heads) for t in tiles]
        elif splits > 1:
            for _h in range(heads):
                for s in range(splits):
                    for t in reversed(tiles):
                        share = math.ceil(t / splits)
                        costs.append(item + tile * min(share, max(0, t - s * share)))
        else:
            for begin in range(0, heads, section):
                width = min(section, heads - begin)
                costs += [item + tile * t for t in reversed(tiles) for _h in range(width)]
    if len(costs) > TAIL_PER_SLOT * cores:
        return  # the part before the tail is spread, by design
    whole = [np.array([x], np.int64) for x in (batches, heads, section)]
    made, _ = makespans(
        *call(rows, keys, 1, n, n, UNBOUNDED, True), *whole, order, np.array([splits]), cores, np.array([1]),
        np.array([item]), np.array([tile]), np.array([1.0]),
    )  # fmt: skip
    assert made[0] == pytest.approx(greedy(costs, cores), rel=1e-9, abs=1e-9)


@given(
    blocks=st.integers(2, 6), batches=st.integers(1, 3), heads=st.integers(1, 100_000), section=st.integers(1, 30),
    splits=st.integers(1, 3), cores=st.integers(3, 9), order=st.sampled_from([SECTIONS, GRID]),
)  # fmt: skip
@settings(deadline=None, max_examples=200)
def test_any_number_of_heads_is_placed_within_the_bounds_of_list_scheduling(
    blocks: int, batches: int, heads: int, section: int, splits: int, cores: int, order: int
) -> None:
    """No sooner than all work shared evenly, and no later than that and the longest item (Graham 1969, theorem 1)."""
    splits = 1 if order == GRID else splits
    tiles = naive_tiles(16, 16, 1, 16 * blocks, 16 * blocks, UNBOUNDED, True)
    item, tile = 0.7, 1.3
    work = batches * heads * (splits * blocks * item + tile * sum(tiles))
    longest = item + tile * math.ceil(max(tiles) / splits)
    whole = [np.array([x], np.int64) for x in (batches, heads, section)]
    (made,), _ = makespans(
        *call(16, 16, 1, 16 * blocks, 16 * blocks, UNBOUNDED, True), *whole, order, np.array([splits]), cores,
        np.array([1]), np.array([item]), np.array([tile]), np.array([1.0]),
    )  # fmt: skip
    assert work / cores * (1 - 1e-9) <= made <= (work / cores + longest) * (1 + 1e-9)


@pytest.mark.parametrize(("section", "splits"), [(1, 1), (3, 1), (1, 2)])
def test_the_tail_of_many_heads_is_still_placed(section: int, splits: int) -> None:
    """Six uneven row blocks a head on seven cores do not come out even, however many heads went before."""
    shape = call(16, 16, 1, 96, 96, UNBOUNDED, True)
    few, many = (
        makespans(
            *shape, np.array([1]), np.array([heads]), np.array([section]), SECTIONS, np.array([splits]), 7,
            np.array([1]), np.array([0.7]), np.array([1.3]), np.array([1.0]),
        )[0][0] - heads * (6 * splits * 0.7 + 21 * 1.3) / 7
        for heads in (21, 21 * 7000)
    )  # fmt: skip
    assert few > 0
    assert many == pytest.approx(few, rel=1e-3)


def test_a_block_alone_on_its_core_runs_at_its_own_speed() -> None:
    """Two slots per core, three equal items on two cores: two share a core, the third is alone from the start."""
    one = np.ones(1, np.int64)
    made, _ = makespans(
        *call(16, 16, 1, 16, 32, UNBOUNDED, False), np.array([3]), one, one, GRID, one, 2, np.array([2]),
        np.array([0.0]), np.array([1.0]), np.array([0.6]),
    )  # fmt: skip
    assert made[0] == pytest.approx(2.0)  # the pair: two tiles each at full cost
    made, _ = makespans(
        *call(16, 16, 1, 16, 32, UNBOUNDED, False), np.array([2]), one, one, GRID, one, 2, np.array([2]),
        np.array([0.0]), np.array([1.0]), np.array([0.6]),
    )  # fmt: skip
    assert made[0] == pytest.approx(2.0 * 0.6)  # each alone


def test_the_longer_of_two_blocks_speeds_up_once_it_is_alone() -> None:
    """One core, row blocks of one and of two tiles: together until the short one ends, then 1 / 0.6 faster."""
    one = np.ones(1, np.int64)
    made, _ = makespans(
        *call(16, 16, 1, 32, 32, UNBOUNDED, True), one, one, one, GRID, one, 1, np.array([2]),
        np.array([0.0]), np.array([1.0]), np.array([0.6]),
    )  # fmt: skip
    assert made[0] == pytest.approx(1.0 + 0.6)


def naive_splits(items: int, tiles: int, slots: int, most: int, fewest: int, only_new: bool) -> int:
    if items >= 0.8 * slots or tiles <= fewest:
        return 1

    def fill(s: int) -> float:
        return items * s / slots / math.ceil(items * s / slots)

    able = [
        s
        for s in range(1, min(most, slots, tiles) + 1)
        if not (only_new and s > 1 and math.ceil(tiles / s) == math.ceil(tiles / (s - 1)))
    ]
    best = max(map(fill, able))
    return next(s for s in able if fill(s) >= 0.85 * best)


@given(st.integers(1, 200), st.integers(1, 400), st.sampled_from([108, 132, 216]), st.booleans())
@settings(deadline=None, max_examples=200)
def test_split_rule(items: int, tiles: int, slots: int, only_new: bool) -> None:
    made = wave_splits(np.array([items]), np.array([tiles]), slots, 128, 4, only_new)
    assert made[0] == naive_splits(items, tiles, slots, 128, 4, only_new)


def test_split_rule_on_the_published_shapes() -> None:
    """H100, one sequence of one head, 128 x 128 tiles: 12,288 tokens split, 16,384 do not (0.8 x 132 row blocks)."""
    made = wave_splits(np.array([96, 128]), np.array([96, 128]), 132, 128, 4, False)
    assert made.tolist() == [4, 1]
