"""and, or, not: combinations of masks, with structure kept wherever it survives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from iosim.errors import UsageError
from iosim.masks.band import Band
from iosim.masks.counting import split_every
from iosim.masks.grouped import Grouped
from iosim.masks.mask import Mask
from iosim.masks.product import Product
from iosim.masks.run_mask import RunMask
from iosim.masks.runs import Bools, Ints, Runs
from iosim.masks.tiling import Grid
from iosim.masks.toeplitz import Toeplitz, as_toeplitz


@dataclass(frozen=True, eq=False)
class Combined(Mask):
    """A combination with a part that is only known entry by entry: counted by evaluation."""

    grid: Grid
    """the layouts of every part"""
    operator: str
    """and | or | not"""
    parts: tuple[Mask, ...]
    """the operands"""
    text: str
    """the mask in the command line's notation"""

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _truth(self.operator, [part.allowed(q, kv) for part in self.parts])

    def head(self, index: int, heads: int) -> Mask:
        return _head(self, index, heads)


@dataclass(frozen=True, eq=False)
class CombinedRuns(RunMask):
    """A combination of run masks.

    What *some* and what *every* query of a range sees passes through and, or and not as long as at most one
    part varies within the range; otherwise ranges are cut into single queries.
    """

    grid: Grid
    """the layouts of every part"""
    operator: str
    """and | or | not"""
    parts: tuple[RunMask, ...]
    """the operands"""
    text: str
    """the mask in the command line's notation"""

    @property
    def constant(self) -> bool:
        return all(part.constant for part in self.parts)

    def pieces(self, first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
        index, first, last = super().pieces(first, last)
        for part in self.parts:
            cut, first, last = part.pieces(first, last)
            index = index[cut]
        if sum(not part.constant for part in self.parts) > 1:
            cut, first, last = split_every(1, first, last)
            index = index[cut]
        return index, first, last

    def spans(self, first: Ints, last: Ints) -> tuple[Runs, Runs]:
        if first is not last and (first == last).all():
            last = first  # parts recognise ranges of one query, and answer once
        spans = [part.spans(first, last) for part in self.parts]
        if self.operator == "not":
            some, every = spans[0]
            missed = every.complement()
            return missed, missed if every is some else some.complement()
        join = Runs.intersection if self.operator == "and" else Runs.union
        some = join(*(part for part, _ in spans))
        if all(part is other for part, other in spans):
            return some, some
        return some, join(*(part for _, part in spans))

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        return _truth(self.operator, [part.allowed(q, kv) for part in self.parts])

    def head(self, index: int, heads: int) -> Mask:
        return _head(self, index, heads)


def combine(operator: str, parts: Sequence[Mask], text: str = "") -> Mask:
    """Join masks on the same layouts.

    Raises:
        UsageError: no parts, or masks bound to different layouts.
    """
    if not parts:
        raise UsageError(f"{operator}(...) needs at least one mask", "--mask")
    grid = parts[0].grid
    if any(part.grid != grid for part in parts):
        raise UsageError(f"{operator}(...) joins masks on different layouts", "--mask")
    text = text or f"{operator}({';'.join(part.text for part in parts)})"
    if len(parts) == 1 and operator != "not":
        return parts[0]
    return _simplified(operator, parts, text) or _general(grid, operator, parts, text)


def _general(grid: Grid, operator: str, parts: Sequence[Mask], text: str) -> Mask:
    runs = tuple(part for part in parts if isinstance(part, RunMask))
    if len(runs) == len(parts):
        return CombinedRuns(grid, operator, runs, text)
    return Combined(grid, operator, tuple(parts), text)


def _simplified(operator: str, parts: Sequence[Mask], text: str) -> Mask | None:
    """The combination as a mask of a simpler kind, where it is one."""
    lines = [_line(part) for part in parts]
    rules = [line.rule for line in lines if line is not None]
    if len(rules) == len(parts):
        return Toeplitz(parts[0].grid, lambda delta: _truth(operator, [rule(delta) for rule in rules]), text)
    if operator != "and":
        return None
    products = [part for part in parts if isinstance(part, Product)]
    if len(products) == len(parts):
        axes = zip(*(part.axes for part in products), strict=True)
        joined = [combine("and", axis) for axis in axes]
        runs = tuple(axis for axis in joined if isinstance(axis, RunMask))
        return Product(parts[0].grid, runs, text)
    return _clipped(parts, text) if len(parts) == 2 else None


def _line(part: Mask) -> Toeplitz | None:
    """A mask that depends on distance only, as one."""
    if isinstance(part, Band) and not part.sink:
        return as_toeplitz(part)
    return part if isinstance(part, Toeplitz) else None


def _clipped(parts: Sequence[Mask], text: str) -> Mask | None:
    """A band over groups, as groups clipped to the band."""
    for band, groups in (parts, parts[::-1]):
        if isinstance(band, Band) and not band.sink and isinstance(groups, Grouped) and groups.constant:
            return replace(groups, left=band.left, right=band.right, offset=band.offset, text=text)
    return None


def _head(mask: Combined | CombinedRuns, index: int, heads: int) -> Mask:
    parts = [part.head(index, heads) for part in mask.parts]
    if all(part is own for part, own in zip(parts, mask.parts, strict=True)):
        return mask
    return combine(mask.operator, parts)


def _truth(operator: str, parts: Sequence[Bools]) -> Bools:
    if operator == "not":
        return ~parts[0]
    return reduce(np.logical_and if operator == "and" else np.logical_or, parts)
