"""The tiles that a kernel visits under a mask, and the sums that its traffic is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iosim.masks.runs import Runs


@dataclass(frozen=True, slots=True)
class TileSums:
    """Sums over the visited tile pairs of one head (or one packed group of heads), exact ints.

    Extents are clipped to real rows and keys. Every flash-like schedule's traffic is made of these.
    """

    tile_pairs: int
    """visited (Q tile, KV tile) pairs"""
    whole_pairs: int
    """visited pairs without a masked entry"""
    key_rows: int
    """sum of keys over visited pairs: K (and V) rows loaded when Q is the outer loop"""
    query_rows: int
    """sum of query rows over visited pairs: Q rows loaded when K/V is the outer loop"""
    area: int
    """sum of rows x keys over visited pairs: scores computed"""
    active_query_rows: int
    """rows of the Q tiles that visit at least one KV tile"""
    active_key_rows: int
    """keys of the KV tiles that at least one Q tile visits"""
    q_tiles: int
    """Q tiles launched, idle ones included"""
    kv_tiles: int
    """KV tiles of the key sequence"""
    longest: int
    """most KV tiles that one Q tile visits"""

    def repeated(self, times: int) -> TileSums:
        """The sums of so many equal heads side by side."""
        return TileSums(*(getattr(self, f.name) * (1 if f.name == "longest" else times) for f in fields(TileSums)))

    def plus(self, other: TileSums) -> TileSums:
        """The sums of two masks side by side."""
        added = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(TileSums)}
        return TileSums(**added | {"longest": max(self.longest, other.longest)})

    def times(self, other: TileSums) -> TileSums:
        """The sums of a product of two axes: every one of them is a product over axes."""
        return TileSums(*(getattr(self, f.name) * getattr(other, f.name) for f in fields(TileSums)))


@dataclass(frozen=True, slots=True, eq=False)
class TileWork:
    """The work of each Q tile."""

    visited: NDArray[np.int64]
    """(T_q,) KV tiles visited, of a tiling fixed in advance (static)"""
    whole: NDArray[np.int64]
    """(T_q,) visited KV tiles without a masked entry"""
    dynamic: NDArray[np.int64]
    """(T_q,) KV tiles from the tile's first to its last key on each axis, tiled from that first key on"""

    def times(self, other: TileWork) -> TileWork:
        """The work under a product of masks: `other` is the inner axis."""
        import numpy as np

        return TileWork(
            *(np.multiply.outer(getattr(self, f.name), getattr(other, f.name)).reshape(-1) for f in fields(TileWork))
        )


@dataclass(frozen=True, slots=True, eq=False)
class TileVisits:
    """The visited tiles: for each Q tile, runs of consecutive KV tiles, ascending and disjoint."""

    q_rows: NDArray[np.int64]
    """(T_q,) real rows of each Q tile"""
    kv_cols: NDArray[np.int64]
    """(T_kv,) real keys of each KV tile"""
    visited: Runs
    """T_q rows of KV tile numbers: tiles with at least one allowed entry"""
    filled: Runs
    """T_q rows of KV tile numbers: tiles without a masked entry"""
    dynamic: NDArray[np.int64]
    """(T_q,) see `TileWork.dynamic`"""
    q_first: NDArray[np.int64] | None = None
    """(T_q,) first row of each Q tile where tiles begin anew at each sequence; None: multiples of the extent"""
    kv_first: NDArray[np.int64] | None = None
    """(T_kv,) first key of each KV tile, likewise"""

    def q_firsts(self, extent: int) -> NDArray[np.int64]:
        """(T_q,) first row of each Q tile of `extent` rows."""
        import numpy as np

        return np.arange(len(self.q_rows)) * extent if self.q_first is None else self.q_first

    def kv_firsts(self, extent: int) -> NDArray[np.int64]:
        """(T_kv,) first key of each KV tile of `extent` keys."""
        import numpy as np

        return np.arange(len(self.kv_cols)) * extent if self.kv_first is None else self.kv_first

    @property
    def ptr(self) -> NDArray[np.int64]:
        """(T_q + 1,) runs of Q tile i are `ptr[i]` to `ptr[i + 1]`."""
        return self.visited.ptr

    @property
    def start(self) -> NDArray[np.int64]:
        """(R,) first KV tile of each run."""
        return self.visited.start

    @property
    def stop(self) -> NDArray[np.int64]:
        """(R,) one past the last KV tile of each run."""
        return self.visited.stop

    @property
    def whole(self) -> NDArray[np.int64]:
        """(T_q,) visited KV tiles without a masked entry, per Q tile."""
        return self.filled.lengths()

    def per_tile(self) -> NDArray[np.int64]:
        """(T_q,) KV tiles visited by each Q tile."""
        return self.visited.lengths()

    def tiles_of(self, q_tile: int) -> NDArray[np.int64]:
        """KV tile numbers that one Q tile visits, ascending."""
        import numpy as np

        return self.visited.take(np.array([q_tile])).columns()[1]

    def work(self) -> TileWork:
        """The work of each Q tile."""
        return TileWork(self.per_tile(), self.whole, self.dynamic)

    def sums(self) -> TileSums:
        """The sums over visited pairs."""
        return total_sums([self])


def total_sums(blocks: Iterable[TileVisits]) -> TileSums:
    """The sums over visited pairs of blocks of Q tiles that share their KV tiles."""
    import numpy as np

    total = dict.fromkeys((f.name for f in fields(TileSums)), 0)
    cover: NDArray[np.int64] = np.zeros(0, np.int64)
    for block in blocks:
        cover = cover if len(cover) else np.zeros(len(block.kv_cols) + 1, np.int64)
        _add_block(total, cover, block)
        kv_cols = block.kv_cols
    total["active_key_rows"] = int(kv_cols[np.cumsum(cover)[:-1] > 0].sum())
    return TileSums(**total)


def _add_block(total: dict[str, int], cover: NDArray[np.int64], block: TileVisits) -> None:
    import numpy as np

    edges = np.concatenate(([0], np.cumsum(block.kv_cols)))
    tiles = block.per_tile()
    seen = np.concatenate(([0], np.cumsum(edges[block.stop] - edges[block.start])))
    keys = seen[block.ptr[1:]] - seen[block.ptr[:-1]]
    total["tile_pairs"] += int(tiles.sum())
    total["whole_pairs"] += int(block.whole.sum())
    total["key_rows"] += int(keys.sum())
    total["query_rows"] += int((block.q_rows * tiles).sum())
    total["area"] += int((block.q_rows * keys).sum())
    total["active_query_rows"] += int(block.q_rows[tiles > 0].sum())
    total["q_tiles"] += len(block.q_rows)
    total["kv_tiles"] = len(block.kv_cols)
    total["longest"] = max(total["longest"], int(tiles.max(initial=0)))
    cover += np.bincount(block.start, minlength=len(cover))
    cover -= np.bincount(block.stop, minlength=len(cover))
