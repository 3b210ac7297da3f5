"""Where a part of a matrix lies when a kernel stores it block by block, so that every block is contiguous.

Scores: strips of query rows, and in a strip one key tile after another. V and O: strips of columns.
Addresses count single elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import overload

from iosim.exact import ceil_div, least, most

Extent = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Strips(Sequence[Extent]):
    """(first, how many) of each strip of an extent, all of one width but the last."""

    extent: int
    """what is cut"""
    width: int
    """of a whole strip"""

    @property
    def number(self) -> int:
        """How many."""
        return ceil_div(self.extent, self.width)

    @property
    def widest(self) -> int:
        """The width of the first."""
        return least(self.width, self.extent)

    def total(self, value: Callable[[int], int]) -> int:
        """The sum of a function of each strip's width."""
        before = (self.extent - 1) // self.width
        last = most(0, least(self.width, self.extent - before * self.width))
        return before * value(self.width) + value(last)

    def __len__(self) -> int:
        return self.number

    @overload
    def __getitem__(self, index: int) -> Extent: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Extent]: ...
    def __getitem__(self, index: int | slice) -> Extent | Sequence[Extent]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return index * self.width, min(self.width, self.extent - index * self.width)


def score_block(n_kv: int, q_tile: Extent, kv_tile: Extent) -> Extent:
    """(first element, elements) of a tile of scores; tiles are (first, how many)."""
    (row, rows), (key, keys) = q_tile, kv_tile
    return row * n_kv + rows * key, rows * keys


def column_block(rows_all: int, tile: Extent, columns: Extent) -> Extent:
    """(first element, elements) of some rows of one strip of columns."""
    (row, rows), (left, width) = tile, columns
    return left * rows_all + row * width, rows * width


def strips(extent: int, width: int) -> Strips:
    """(first, how many) of each strip.

    >>> list(strips(5, 2))
    [(0, 2), (2, 2), (4, 1)]
    """
    return Strips(extent, width)
