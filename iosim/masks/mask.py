"""What a mask is: a relation between query and key tokens, with exact counts.

Four views, from coarse to fine, are all that the rest of iosim asks for: `counts` (allowed pairs and
used rows, for floors), `sums` over visited tile pairs (for a kernel's traffic), `work` of each Q tile
(for bounds on speedup) and `visits`, the visited tiles themselves (for traces and pictures). A mask that
only knows `allowed` is counted by evaluating it; a mask with structure overrides the rest. numpy is
imported where arrays are made.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from iosim.masks.tiling import Grid, Tiling
from iosim.masks.visits import TileSums, TileVisits, TileWork

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class MaskCounts:
    """Exact counts of one head that floors need (`*_ok`: rows with at least two keys).

    A row with a single key has O = V, so it needs neither its query nor that key: L0 counts it apart.
    """

    pairs: int
    """allowed (query, key) pairs"""
    pairs_ok: int
    """allowed pairs in rows with at least two keys"""
    rows: int
    """queries with at least one key"""
    rows_ok: int
    """queries with at least two keys"""
    keys: int
    """keys that some query uses"""
    keys_ok: int
    """keys that some query with at least two keys uses"""

    def plus(self, other: MaskCounts) -> MaskCounts:
        """Counts of two masks side by side, no query and no key in common."""
        return MaskCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(MaskCounts)))

    def repeated(self, times: int) -> MaskCounts:
        """Counts of `times` such masks side by side."""
        return MaskCounts(*(getattr(self, f.name) * times for f in fields(MaskCounts)))

    def times(self, other: MaskCounts) -> MaskCounts:
        """Counts of the product of two masks, one per axis.

        A row of the product has a single key if its row on either axis has; a key serves only such rows
        if, on both axes, it serves only such rows.
        """
        single_rows = (self.rows - self.rows_ok) * (other.rows - other.rows_ok)
        lone_keys = (self.keys - self.keys_ok) * (other.keys - other.keys_ok)
        pairs, rows, keys = self.pairs * other.pairs, self.rows * other.rows, self.keys * other.keys
        return MaskCounts(pairs, pairs - single_rows, rows, rows - single_rows, keys, keys - lone_keys)


class Mask(ABC):
    """One head's mask, bound to its token layouts.

    Masks are immutable and remember their counts and sums: a report asks for them many times.
    """

    grid: Grid
    """the layouts it is bound to"""
    text: str
    """the mask in the command line's notation"""

    @property
    def n_q(self) -> int:
        """Query tokens."""
        return self.grid.n_q

    @property
    def n_kv(self) -> int:
        """Key tokens."""
        return self.grid.n_kv

    @property
    def lengths(self) -> tuple[str, str]:
        """Queries and keys as typed: `8192`, a layout `30x48x80`, one length per sequence `100+200`."""
        return "x".join(map(str, self.grid.layout_q)), "x".join(map(str, self.grid.layout_kv))

    def sequences(self) -> tuple[tuple[Mask, int], ...]:
        """(mask, times) of the sequences that are laid end to end: one, but for a batch of unequal lengths."""
        return ((self, 1),)

    def page_of(self, key: int, page_size: int) -> int:
        """The page that holds a key of a paged cache."""
        return key // page_size

    @property
    def dilations(self) -> tuple[int, ...]:
        """Dilation of each axis: a permuted tiling keeps dilation groups apart."""
        return (1,) * self.grid.rank

    @abstractmethod
    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The mask itself on row-major token numbers, broadcast; the oracle of every count."""

    def counts(self) -> MaskCounts:
        """Allowed pairs and used rows, exact."""
        return self._counts

    @cached_property
    def _counts(self) -> MaskCounts:
        return self._count()

    def _count(self) -> MaskCounts:
        """The counts; a subclass with structure overrides this."""
        from iosim.masks.evaluated import evaluated_counts

        return evaluated_counts(self)

    def visits(self, tiling: Tiling) -> TileVisits:
        """The tiles that a kernel with this tiling visits: those with at least one allowed entry."""
        from iosim.masks.evaluated import evaluated_visits

        return evaluated_visits(self, tiling)

    def walks(self, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """((T_q,) KV tiles that each Q tile visits, (T_q,) its rows)."""
        visits = self.visits(tiling)
        return visits.per_tile(), visits.q_rows

    def walk_counts(self, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(KV tiles, rows, how many Q tiles) of Q tiles, of which those that are alike may be given once."""
        import numpy as np

        walks, rows = self.walks(tiling)
        return walks, rows, np.ones_like(rows)

    def sums(self, tiling: Tiling) -> TileSums:
        """Sums over visited tile pairs."""
        if tiling not in self._sums:
            self._sums[tiling] = self._sum(tiling)
        return self._sums[tiling]

    @cached_property
    def _sums(self) -> dict[Tiling, TileSums]:
        return {}

    def _sum(self, tiling: Tiling) -> TileSums:
        """The sums; a subclass with a shorter way overrides this."""
        return self.visits(tiling).sums()

    def work(self, tiling: Tiling) -> TileWork:
        """The work of each Q tile."""
        return self.visits(tiling).work()

    def head(self, index: int, heads: int) -> Mask:
        """The mask of query head `index` of `heads`."""
        return self

    def per_head(self, heads: int) -> tuple[tuple[Mask, int], ...]:
        """Masks of `heads` query heads in order, as (mask, how many consecutive heads have it)."""
        masks = [self.head(index, heads) for index in range(heads)]
        if all(mask is self for mask in masks):
            return ((self, heads),)
        groups = [list(group) for _, group in groupby(masks, key=lambda mask: mask.text)]
        return tuple((group[0], len(group)) for group in groups)

    def notes(self) -> tuple[str, ...]:
        """What a user should know about this mask before trusting numbers made with it."""
        idle = self.n_q - self.counts().rows
        if not idle:
            return ()
        return (f"{idle} of {self.n_q} queries see no key: their output is taken as zero and costs nothing",)

    def __str__(self) -> str:
        return self.text
