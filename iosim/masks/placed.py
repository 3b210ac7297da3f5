"""Rows taken from a longer causal sequence: what one device of several attends to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from iosim.masks.run_mask import RunMask
from iosim.masks.runs import Ints, Runs
from iosim.masks.tiling import Grid


@dataclass(frozen=True, eq=False)
class Placed(RunMask):
    """Causal; row i is a token of a longer sequence, whose keys up to that token it sees.

    Tokens ascend with the rows, so a range of rows sees what its last row sees.
    """

    grid: Grid
    """rows of all parts, and keys up to the last token of the last part"""
    parts: tuple[tuple[int, int], ...]
    """(first token, tokens), ascending and apart"""
    text: str
    """for people"""

    @cached_property
    def _steps(self) -> tuple[Ints, Ints]:
        """First row of each part, and what to add to a row of it."""
        first = np.array([part[0] for part in self.parts], np.int64)
        rows = np.concatenate(([0], np.cumsum([part[1] for part in self.parts])))[:-1]
        return rows, first - rows

    def tokens(self, q: Ints) -> Ints:
        """The token of each row."""
        rows, shift = self._steps
        token: Ints = q + shift[np.searchsorted(rows, q, side="right") - 1]
        return token

    def spans(self, first: Ints, last: Ints) -> tuple[Runs, Runs]:
        def before(q: Ints) -> Runs:
            return Runs.single(np.zeros_like(q), self.tokens(q) + 1, self.n_kv)

        some = before(last)
        return some, some if first is last else before(first)

    def key_counts(self, q: Ints) -> Ints:
        return self.tokens(q) + 1

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = kv <= self.tokens(q)
        return inside


def placed(parts: tuple[tuple[int, int], ...]) -> Placed:
    """The causal mask of the tokens of some parts of a sequence."""
    grid = Grid((sum(tokens for _, tokens in parts),), (sum(parts[-1]),))
    named = " and ".join(f"{first}..{first + tokens - 1}" for first, tokens in parts)
    return Placed(grid, parts, f"causal, tokens {named}")
