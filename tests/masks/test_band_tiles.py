"""Closed tile sums of bands where all of their cases meet: small tiles, groups, long sinks, any alignment."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from oracles import dense_mask

from iosim.masks import Band, Grid, Tiling
from iosim.masks.band_walks import split_rows


def band(draw: random.Random, size: int) -> Band:
    number = draw.randint
    grid = Grid((number(1, size),), (number(1, size),))
    left = draw.choice([None, number(0, 40), number(0, 12), number(0, 5)])
    right, sink = draw.choice([None, number(0, 20), 0]), draw.choice([0, 0, number(0, 6), number(0, 70)])
    return Band(grid, left, right, sink, draw.choice([number(-40, 50), grid.n_kv - grid.n_q]))


@pytest.mark.parametrize("seed", range(6))
def test_all_sums_equal_the_dense_matrix(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(100):
        mask = band(draw, draw.choice([25, 60]))
        tiling = Tiling((draw.randint(1, 20),), (draw.randint(1, 20),), draw.randint(1, 4))
        dense = dense_mask.dense(mask)
        assert mask.sums(tiling) == dense_mask.flat_sums(dense, tiling), (mask, tiling)
        assert mask.pairs() == dense.sum()


def test_parts_of_walks_equal_those_of_the_visited_tiles() -> None:
    draw = random.Random(1)
    for _ in range(300):
        mask = band(draw, 60)
        mask = Band(mask.grid, None, mask.right, mask.sink, mask.offset)
        tiling = Tiling((draw.randint(1, 20),), (draw.randint(1, 9),), draw.randint(1, 4))
        per_split = draw.randint(1, 5)
        visits = mask.visits(tiling)
        parts = -(-visits.per_tile() // per_split)
        assert split_rows(mask, tiling, per_split) == int((visits.q_rows * parts).sum())


def test_walks_that_repeat_are_given_once_with_their_number() -> None:
    draw, shorter = random.Random(2), 0
    for _ in range(400):
        mask = band(draw, draw.choice([60, 400]))
        tiling = Tiling((draw.randint(1, 20),), (draw.randint(1, 9),), draw.randint(1, 4))
        walks, rows, times = mask.walk_counts(tiling)
        visits = mask.visits(tiling)
        found: Counter[tuple[int, int]] = Counter()
        for walk, height, number in zip(walks.tolist(), rows.tolist(), times.tolist(), strict=True):
            found[walk, height] += number
        assert found == Counter(zip(visits.per_tile().tolist(), visits.q_rows.tolist(), strict=True)), (mask, tiling)
        shorter += len(walks) < len(visits.q_rows)
    assert shorter > 20


def test_a_window_of_a_million_tokens_takes_no_loop_over_tiles() -> None:
    """62,500 Q tiles: sixteen times as many queries as a window, and every count a product of tiles and periods."""
    n, width = 1_000_000, 4096
    mask = Band(Grid((n,), (n,)), width - 1, 0)
    sums = mask.sums(Tiling((16,), (16,)))
    assert sums.longest == width // 16 + 1
    full = n // 16 - width // 16  # tiles whose window lies within the keys
    assert sums.tile_pairs == full * (width // 16 + 1) + (width // 16) * (width // 16 + 1) // 2
    assert sums.whole_pairs == full * (width // 16 - 1) + (width // 16) * (width // 16 - 1) // 2


def test_walks_equal_those_of_the_visited_tiles() -> None:
    draw = random.Random(2)
    for _ in range(300):
        mask, tiling = band(draw, 60), Tiling((draw.randint(1, 20),), (draw.randint(1, 9),), draw.randint(1, 4))
        walks, rows = mask.walks(tiling)
        visits = mask.visits(tiling)
        assert (walks.tolist(), rows.tolist()) == (visits.per_tile().tolist(), visits.q_rows.tolist())
