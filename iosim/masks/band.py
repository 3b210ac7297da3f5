"""Band masks on row-major tokens: full, causal, sliding windows, attention sinks.

Query q sees keys q + offset - left .. q + offset + right, and the first `sink` keys among those at or
before its right edge. Both edges are clamped lines in q, so every count is a sum of clamped floors:
exact Python ints at any size, in O(log N). `pairs` and the tile sums also take int64 arrays (`iosim.exact`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iosim.errors import UsageError
from iosim.exact import bounded, least, most
from iosim.masks.mask import MaskCounts
from iosim.masks.run_mask import RunMask
from iosim.masks.sums import clamped_floor_sum
from iosim.masks.tiling import Grid, Tiling
from iosim.masks.visits import TileSums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iosim.masks.runs import Ints, Runs
    from iosim.masks.spec import MaskSpec


@dataclass(frozen=True)
class Band(RunMask):
    """Keys from `left` before to `right` after the aligned position; None means no limit."""

    grid: Grid
    """the layouts; both are read as row-major token sequences"""
    left: int | None = None
    """keys before the aligned one that are visible; None: all"""
    right: int | None = None
    """keys after the aligned one that are visible; None: all"""
    sink: int = 0
    """first keys of the sequence that stay visible whatever `left` says"""
    offset: int = 0
    """key that query 0 is aligned with: n_kv - n_q for bottom-right alignment"""
    text: str = "full"
    """the mask in the command line's notation"""

    # --- edges -------------------------------------------------------------------------------

    @property
    def left_reach(self) -> int:
        """`left` as a number: with no limit, enough to reach key 0 from every query."""
        return self.n_q + self.n_kv + abs(self.offset) if self.left is None else self.left

    @property
    def right_reach(self) -> int:
        """`right` as a number: with no limit, enough to reach the last key from every query."""
        return self.n_q + self.n_kv + abs(self.offset) if self.right is None else self.right

    def first_key(self, query: int) -> int:
        """First key of the query's band, in 0..n_kv."""
        return 0 if self.left is None else least(self.n_kv, most(0, query + self.offset - self.left))

    def end_key(self, query: int) -> int:
        """One past the last key of the query's band, in 0..n_kv."""
        return self.n_kv if self.right is None else least(self.n_kv, most(0, query + self.offset + self.right + 1))

    def key_count(self, query: int) -> int:
        """How many keys the query sees."""
        first = self.first_key(query)
        return self.end_key(query) - first + min(self.sink, first)

    # --- counts ------------------------------------------------------------------------------

    def _count(self) -> MaskCounts:
        some, ok = self.rows_with(1), self.rows_with(2)
        pairs = self.pairs()
        return MaskCounts(
            pairs=pairs,
            pairs_ok=pairs - (len(some) - len(ok)),
            rows=len(some),
            rows_ok=len(ok),
            keys=self._distinct_keys(some),
            keys_ok=self._distinct_keys(ok),
        )

    def pairs(self) -> int:
        """Allowed pairs."""
        n, pairs = self.n_q, self.n_q * self.n_kv
        if self.right is not None:
            pairs = clamped_floor_sum(n, 1, self.offset + self.right + 1, 1, self.n_kv)
        if self.left is None:
            return bounded(pairs, lambda: self.n_q * self.n_kv)
        low, sinks = self.offset - self.left, least(self.sink, self.n_kv)
        pairs = pairs - clamped_floor_sum(n, 1, low, 1, self.n_kv) + clamped_floor_sum(n, 1, low, 1, sinks)
        return bounded(pairs, lambda: self.n_q * self.n_kv)

    def rows_with(self, least: int) -> range:
        """The queries with at least `least` keys: consecutive, since the count rises and then falls."""
        peak = min(self.n_q - 1, max(0, self.n_kv - self.offset - self.right_reach - 1))
        if self.key_count(peak) < least:
            return range(0)
        begin = bisect_left(range(peak + 1), least, key=self.key_count)
        falling: Callable[[int], int] = lambda step: -self.key_count(peak + step)  # noqa: E731
        end = peak + bisect_left(range(self.n_q - peak), -least + 1, key=falling)
        return range(begin, end)

    def _distinct_keys(self, rows: range) -> int:
        """Keys seen by consecutive queries: their bands overlap or abut, so the union is one run and sinks."""
        if not rows:
            return 0
        first = self.first_key(rows[0])
        return self.end_key(rows[-1]) - first + min(self.sink, first)

    # --- tiles -------------------------------------------------------------------------------

    def _sum(self, tiling: Tiling) -> TileSums:
        if len(tiling.q_tile) > 1:
            return super()._sum(tiling)
        from iosim.masks.band_tiles import band_sums

        return band_sums(self, tiling)

    def walks(self, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if not tiling.flat:
            return super().walks(tiling)
        from iosim.masks.band_walks import band_walks

        return band_walks(self, tiling)

    def walk_counts(self, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        if not tiling.flat:
            return super().walk_counts(tiling)
        from iosim.masks.band_walks import band_walk_counts

        return band_walk_counts(self, tiling)

    def spans(self, first: Ints, last: Ints) -> tuple[Runs, Runs]:
        import numpy as np

        from iosim.masks.runs import Runs

        def keys(low_query: Ints, high_query: Ints) -> Runs:
            """From the band's left edge at one query to its right edge at the other, and the sinks before."""
            low = np.clip(low_query + self.offset - self.left_reach, 0, self.n_kv)
            high = np.clip(high_query + self.offset + self.right_reach + 1, 0, self.n_kv)
            band = Runs.single(low, high, self.n_kv)
            if not self.sink:
                return band
            return band.union(Runs.single(np.zeros_like(low), np.minimum(high, self.sink), self.n_kv))

        some = keys(first, last)
        return some, some if first is last else keys(last, first)

    def key_counts(self, q: Ints) -> Ints:
        import numpy as np

        low = np.clip(q + self.offset - self.left_reach, 0, self.n_kv)
        high = np.clip(q + self.offset + self.right_reach + 1, 0, self.n_kv)
        counts: Ints = np.maximum(high - low, 0) + np.minimum(np.minimum(low, high), self.sink)
        return counts

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        aligned = q + self.offset
        inside: NDArray[np.bool_] = (kv <= aligned + self.right_reach) & (
            (kv >= aligned - self.left_reach) | (kv < self.sink)
        )
        return inside


# --- builders ---------------------------------------------------------------------------------


def full(grid: Grid) -> Band:
    """Every query sees every key."""
    return Band(grid, text="full")


def causal(grid: Grid, where: str = "--mask") -> Band:
    """Query q sees keys up to its own, the last query aligned with the last key (bottom-right).

    Raises:
        UsageError: more queries than keys: the first queries would see nothing.
    """
    return Band(grid, right=0, offset=bottom_right(grid, where), text="causal")


def build_full(spec: MaskSpec, grid: Grid) -> Band:
    """`full`."""
    spec.only()
    return full(grid)


def build_causal(spec: MaskSpec, grid: Grid) -> Band:
    """`causal`."""
    spec.only()
    return causal(grid, spec.where)


def build_causal_top_left(spec: MaskSpec, grid: Grid) -> Band:
    """`causal-top-left`: query q sees keys 0..q, the first query aligned with the first key."""
    spec.only()
    return Band(grid, right=0, text="causal-top-left")


def build_window(spec: MaskSpec, grid: Grid) -> Band:
    """`window:W[,sink=S]`: causal; the W keys up to and including the query's own, and the first S keys."""
    spec.only("sink", value=True)
    size, sink, offset = spec.number(least=1), spec.number("sink", default=0), bottom_right(grid, spec.where)
    return Band(grid, left=size - 1, right=0, sink=sink, offset=offset, text=str(spec))


def build_band(spec: MaskSpec, grid: Grid) -> Band:
    """`band:left=L,right=R`: keys from L before to R after the query's own; without a side, no limit there."""
    spec.only("left", "right")
    left, right = (spec.number(side) if side in spec.options else None for side in ("left", "right"))
    return Band(grid, left, right, 0, bottom_right(grid, spec.where), str(spec))


def bottom_right(grid: Grid, where: str) -> int:
    """The key that query 0 is aligned with when the last query is aligned with the last key.

    Raises:
        UsageError: more queries than keys.
    """
    if grid.n_q > grid.n_kv:
        raise UsageError(
            f"a causal mask needs at least as many keys as queries, got {grid.n_q} queries and {grid.n_kv} keys",
            where,
            "raise --seq-kv, or use causal-top-left",
        )
    return grid.n_kv - grid.n_q
