"""Evaluation entry by entry: equal to the structured counts, in bounded memory, with progress."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from oracles import dense_mask

from iosim.masks import Grid, Mask, Tiling, bind
from iosim.masks import evaluated as room
from iosim.masks.evaluated import evaluated_counts, evaluated_visits
from iosim.masks.predicate import Predicate
from iosim.masks.watching import watching


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few entries, so that every seam between blocks is crossed."""
    monkeypatch.setattr(room, "BLOCK_ENTRIES", 50)


MASKS = {
    "window": bind("window:9,sink=2", Grid((37,), (41,))),
    "gna": bind("gna:window=3x4,stride=2x3,causal=1x0", Grid((6, 7), (6, 7))),
    "rows of one key": bind("or(window:1;and(document:20+21;band:left=1,right=1))", Grid((37,), (41,))),
    "only rows of one key": bind("window:1", Grid((37,), (41,))),
    "empty rows": bind("and(causal;not(window:5))", Grid((37,), (41,))),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("tiling", [Tiling((5,), (6,)), Tiling((8,), (3,), 3), Tiling((1,), (1,))])
def test_evaluation_equals_structure(mask: Mask, tiling: Tiling, small_blocks: None) -> None:
    assert evaluated_counts(mask) == mask.counts()
    found, expected = evaluated_visits(mask, tiling), mask.visits(tiling)
    assert found.sums() == expected.sums() == dense_mask.flat_sums(dense_mask.dense(mask), tiling)
    assert found.dynamic.tolist() == expected.dynamic.tolist()
    assert [found.tiles_of(i).tolist() for i in range(len(found.q_rows))] == [
        expected.tiles_of(i).tolist() for i in range(len(expected.q_rows))
    ]


def test_evaluation_on_permuted_tiles(small_blocks: None) -> None:
    mask = MASKS["gna"]
    for tiling in (Tiling((2, 3), (4, 2)), Tiling((4, 4), (2, 2), 2)):
        found = evaluated_visits(mask, tiling)
        assert found.sums() == mask.visits(tiling).sums()
        assert found.work().dynamic.tolist() == mask.work(tiling).dynamic.tolist()


def test_progress_reaches_the_end_and_watchers_are_forgotten() -> None:
    mask = MASKS["window"]
    seen: list[tuple[int, int]] = []
    evaluated_counts(mask, lambda done, total: seen.append((done, total)))
    assert seen[-1] == (37 * 41, 37 * 41)
    with watching(lambda done, total: seen.append((done, total))):
        evaluated_visits(mask, Tiling((8,), (8,)))
    count = len(seen)
    evaluated_counts(mask)
    assert len(seen) == count > 1


def test_memory_stays_bounded() -> None:
    """6,000 x 6,000 entries are 36 MB as truth values alone; int64 temporaries of the whole would be 288 MB."""
    mask = bind("window:100", Grid((6000,), (6000,)))
    tracemalloc.start()
    evaluated_counts(mask)
    evaluated_visits(mask, Tiling((128,), (128,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_mask_is_counted_once() -> None:
    asked = []

    def rule(b: int, h: int, q: np.ndarray, kv: np.ndarray) -> np.ndarray:
        asked.append(q.shape)
        return q >= kv

    mask = Predicate(Grid((32,), (32,)), rule, "py:rule")
    assert mask.counts() is mask.counts()
    assert mask.sums(Tiling((8,), (8,))) is mask.sums(Tiling((8,), (8,)))
    assert len(asked) == 2
