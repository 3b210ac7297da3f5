"""Masks under which consecutive queries share their keys: documents, chunks, blocks, sliding tiles.

Optionally each query sees only part of its group's keys, those within a band around its own position
(causal inside a document).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from iosim.errors import UsageError
from iosim.masks.band import bottom_right
from iosim.masks.counting import split_at
from iosim.masks.run_mask import RunMask
from iosim.masks.runs import Ints, Runs
from iosim.masks.tiling import Grid

if TYPE_CHECKING:
    from iosim.masks.spec import MaskSpec


@dataclass(frozen=True, eq=False)
class Grouped(RunMask):
    """Groups of consecutive queries with runs of keys each."""

    grid: Grid
    """the layouts; both are read as row-major token sequences"""
    edges: Ints
    """(G,) first query of each group, ascending from 0; equal edges make empty groups"""
    keys: Runs
    """G rows: the keys of each group"""
    text: str
    """the mask in the command line's notation"""
    left: int | None = None
    """keys before the aligned one that stay visible; None: all of the group's"""
    right: int | None = None
    """keys after the aligned one that stay visible; None: all of the group's"""
    offset: int = 0
    """key that query 0 is aligned with"""

    @property
    def constant(self) -> bool:
        return self.left is None and self.right is None

    def group_of(self, q: Ints) -> Ints:
        """The group of each query."""
        group: Ints = np.searchsorted(self.edges, q, side="right") - 1
        return group

    def pieces(self, first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
        return split_at(self.edges, first, last)

    def spans(self, first: Ints, last: Ints) -> tuple[Runs, Runs]:
        keys = self.keys.take(self.group_of(first))
        if self.constant:
            return keys, keys
        some = keys.clipped(self._low(first), self._high(last))
        return some, some if first is last else keys.clipped(self._low(last), self._high(first))

    def _low(self, q: Ints) -> Ints:
        """First key of the band of each query."""
        return np.zeros_like(q) if self.left is None else np.clip(q + self.offset - self.left, 0, self.n_kv)

    def _high(self, q: Ints) -> Ints:
        """One past the last key of the band of each query."""
        if self.right is None:
            return np.full_like(q, self.n_kv)
        return np.clip(q + self.offset + self.right + 1, 0, self.n_kv)

    def key_counts(self, q: Ints) -> Ints:
        group = self.group_of(q)
        if self.constant:
            return self.keys.lengths()[group]
        begin = int(group.min(initial=0))
        keys, row = self.keys.between(begin, int(group.max(initial=0)) + 1), group - begin
        counts: Ints = np.maximum(keys.below(row, self._high(q)) - keys.below(row, self._low(q)), 0)
        return counts

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside = self.keys.contains(self.group_of(q), kv)
        ahead = kv - q - self.offset
        if self.left is not None:
            inside = inside & (ahead >= -self.left)
        return inside if self.right is None else inside & (ahead <= self.right)


def partition(grid: Grid, bounds: Ints, causal: bool, text: str, where: str = "--mask") -> Grouped:
    """Tokens cut at `bounds` (ascending from 0 to n_kv); each sees its own part, up to itself when causal.

    Queries are the last tokens when there are fewer of them than keys.
    """
    offset = bottom_right(grid, where)
    keys = Runs.single(bounds[:-1], bounds[1:], grid.n_kv)
    edges = np.maximum(bounds[:-1] - offset, 0)
    return Grouped(grid, edges, keys, text, right=0 if causal else None, offset=offset)


def even_bounds(n: int, size: int, shift: int = 0) -> Ints:
    """0, then the multiples of `size` plus `shift` below n, then n."""
    inner = np.arange(shift, n, size)
    return np.concatenate(([0], inner[inner > 0], [n]))


def build_document(spec: MaskSpec, grid: Grid) -> Grouped:
    """`document:L1+L2+...[,causal=1]`: documents packed into one row that do not see each other.

    Tiles lie on the row and straddle documents, as in FlexAttention's document masks; sequences that are tiled from
    their own starts are `iosim.masks.sequences`.

    Raises:
        UsageError: the lengths do not add up to the keys.
    """
    spec.only("causal", value=True)
    parts = spec.value.split("+")
    if not all(part.isdecimal() and len(part) < 13 and int(part) > 0 for part in parts):
        raise UsageError(f"document needs lengths such as 512+1024, got {spec.value!r}", spec.where)
    lengths = np.array([int(part) for part in parts], np.int64)
    if int(lengths.sum()) != grid.n_kv:
        raise UsageError(
            f"the documents hold {int(lengths.sum())} tokens, the key axis {grid.n_kv}",
            spec.where,
            "lengths must add up to the keys of one sequence",
        )
    bounds = np.concatenate(([0], np.cumsum(lengths)))
    return partition(grid, bounds, spec.flag("causal"), str(spec), spec.where)


def build_chunk(spec: MaskSpec, grid: Grid) -> Grouped:
    """`chunk:N`: causal within chunks of N tokens (Llama 4's local layers)."""
    spec.only(value=True)
    bounds = even_bounds(grid.n_kv, spec.number(least=1))
    return partition(grid, bounds, True, str(spec), spec.where)


def build_blocked(spec: MaskSpec, grid: Grid) -> Grouped:
    """`blocked:N`: every token sees its own block of N."""
    spec.only(value=True)
    bounds = even_bounds(grid.n_kv, spec.number(least=1))
    return partition(grid, bounds, False, str(spec), spec.where)
