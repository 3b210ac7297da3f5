"""Counts of any mask, from its truth alone: every entry is looked at once, in blocks of bounded memory.

The slow path, for Python predicates and for combinations that have no structure; also the oracle that
the structured masks are tested against.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from iosim.masks.counting import stacked_visits
from iosim.masks.cut import Cut, cuts
from iosim.masks.mask import Mask, MaskCounts
from iosim.masks.runs import Bools, Ints, Runs, steps
from iosim.masks.tiling import Tiling
from iosim.masks.visits import TileVisits
from iosim.masks.watching import Progress, watcher

BLOCK_ENTRIES = 1 << 20  # entries looked at together: 8 MB per int64 temporary of a mask function


def evaluated_counts(mask: Mask, progress: Progress | None = None) -> MaskCounts:
    """Allowed pairs and used rows and keys.

    A row with a single key is known by the sum of its key numbers, so one pass is enough.
    """
    per_row, key_sum = np.zeros(mask.n_q, np.int64), np.zeros(mask.n_q, np.int64)
    per_key = np.zeros(mask.n_kv, np.int64)
    every_q, every_key = np.arange(mask.n_q), np.arange(mask.n_kv)
    for top, left, truth in _blocks(mask, every_q, every_key, _Report(progress, mask.n_q * mask.n_kv)):
        per_row[top] += truth.sum(1)
        per_key[left] += truth.sum(0)
        key_sum[top] += truth @ every_key[left]
    lone = per_row == 1
    per_key_ok = per_key - np.bincount(key_sum[lone], minlength=mask.n_kv)
    pairs, single = int(per_row.sum()), int(lone.sum())
    rows = int((per_row > 0).sum())
    return MaskCounts(pairs, pairs - single, rows, rows - single, int((per_key > 0).sum()), int((per_key_ok > 0).sum()))


def evaluated_visits(mask: Mask, tiling: Tiling, progress: Progress | None = None) -> TileVisits:
    """The tiles visited on row-major or permuted tokens, packed heads included.

    Raises:
        UsageError: a permuted tiling of another rank than the layouts.
    """
    q_cut, kv_cut = cuts(mask.grid, tiling)
    keys = _tiles(kv_cut, 0, kv_cut.count)
    per_block = max(1, BLOCK_ENTRIES // (mask.n_kv * tiling.rows))
    report = _Report(progress, mask.n_q * mask.n_kv)
    blocks = []
    for begin in range(0, q_cut.count, per_block):
        end = min(begin + per_block, q_cut.count)
        blocks.append(_visit_block(mask, q_cut, kv_cut, keys, begin, end, report))
    return stacked_visits(blocks)


@dataclass(frozen=True, eq=False)
class _Tokens:
    """Tokens of consecutive tiles."""

    token: Ints
    """(N,) row-major numbers, tile after tile"""
    tile: Ints
    """(N,) tile of each, counted from the first of them"""

    @property
    def heads(self) -> Ints:
        """Where each tile begins."""
        return np.flatnonzero(np.diff(self.tile, prepend=-1))


def _tiles(cut: Cut, begin: int, end: int) -> _Tokens:
    owner, first, last = cut.ranges(begin, end)
    count = last - first + 1
    return _Tokens(np.repeat(first, count) + steps(count), np.repeat(owner, count))


def _visit_block(
    mask: Mask, q_cut: Cut, kv_cut: Cut, keys: _Tokens, begin: int, end: int, report: _Report
) -> TileVisits:
    """Whole Q tiles: which keys some and which keys every query of each sees, then the tiles of those."""
    queries = _tiles(q_cut, begin, end)
    seen = np.zeros((end - begin, mask.n_kv), np.bool_)
    missed = np.zeros((end - begin, mask.n_kv), np.bool_)
    for rows, cols, truth in _blocks(mask, queries.token, np.arange(mask.n_kv), report):
        tile = queries.tile[rows]
        heads = np.flatnonzero(np.diff(tile, prepend=-1))
        seen[tile[heads], cols] |= np.logical_or.reduceat(truth, heads, axis=0)
        missed[tile[heads], cols] |= ~np.logical_and.reduceat(truth, heads, axis=0)
    permuted = keys.token
    return TileVisits(
        q_rows=q_cut.sizes[begin:end],
        kv_cols=kv_cut.sizes,
        visited=Runs.dense(np.logical_or.reduceat(seen[:, permuted], keys.heads, axis=1)),
        filled=Runs.dense(~np.logical_or.reduceat(missed[:, permuted], keys.heads, axis=1)),
        dynamic=kv_cut.dynamic(Runs.dense(seen)),
    )


class _Report:
    """Adds up entries and tells whoever watches."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.progress = progress or watcher.get()
        self.done, self.total = 0, total

    def add(self, entries: int) -> None:
        self.done += entries
        if self.progress:
            self.progress(min(self.done, self.total), self.total)


def _blocks(mask: Mask, q: Ints, kv: Ints, report: _Report) -> Iterator[tuple[slice, slice, Bools]]:
    """The mask on queries x keys in blocks: (rows, columns, truth)."""
    width = min(len(kv), BLOCK_ENTRIES)
    height = max(1, BLOCK_ENTRIES // width)
    for top in range(0, len(q), height):
        rows = slice(top, min(top + height, len(q)))
        for left in range(0, len(kv), width):
            cols = slice(left, min(left + width, len(kv)))
            shape = (rows.stop - rows.start, cols.stop - cols.start)
            yield rows, cols, np.broadcast_to(mask.allowed(q[rows, None], kv[None, cols]), shape)
            report.add(shape[0] * shape[1])
