"""What the work items of one launch touch, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Touch(NamedTuple):
    """Consecutive rows of one tensor's head, read or written in one step."""

    tensor: str
    """Q, K, V, O, ..."""
    head: int
    """head of that tensor, counted over the batch"""
    row: int
    """first row"""
    rows: int
    """how many"""
    write: bool
    """written, not read; a read-modify-write is two touches"""


@dataclass(frozen=True, slots=True, eq=False)
class StepTable:
    """The steps of all items of one head as arrays; tensors' heads are left to the program."""

    tensors: tuple[str, ...]
    """names that `tensor` numbers"""
    item: NDArray[np.int64]
    """(tiles + 1,) step range of each item"""
    step: NDArray[np.int64]
    """(steps + 1,) touch range of each step"""
    tensor: NDArray[np.int64]
    """(touches,) tensor number"""
    row: NDArray[np.int64]
    """(touches,) first row"""
    rows: NDArray[np.int64]
    """(touches,) how many"""
    write: NDArray[np.bool_]
    """(touches,) written"""


@dataclass(frozen=True, slots=True)
class Program:
    """What the items of one launch touch, step by step.

    Item `head * tiles + tile` is tile `tile` of head `head`; a grid order is a permutation of items. A step is
    what one item touches at once: items that run side by side proceed step by step.
    """

    heads: int
    """heads (or packed groups) over the batch"""
    tiles: int
    """items of one head"""
    row_elements: Mapping[str, int]
    """tensor -> elements of one row"""
    steps: Callable[[int], Iterator[tuple[Touch, ...]]]
    """the steps of one item"""
    table: Callable[[int], StepTable] | None = None
    """head -> the same steps as arrays, where a kernel can make them without walking"""
    pattern: Callable[[int], object] | None = None
    """head -> a mark that heads with equal steps (but for the tensors' heads) share; None: all of them do"""

    @property
    def items(self) -> int:
        """All items."""
        return self.heads * self.tiles
