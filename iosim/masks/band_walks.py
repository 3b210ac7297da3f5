"""What Q tiles of a band walk, one by one, the parts that their walks are cut into, and what masks cut of them."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Any

from iosim.exact import bounded, ceil_div, choose
from iosim.masks.band_tiles import BandTiles
from iosim.masks.sums import clamped_floor_sum, ranged_floor_sum, steps_below
from iosim.masks.tiling import Tiling

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iosim.masks.band import Band


def band_walks(band: Band, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`Mask.walks` on row-major tokens: the formula of one Q tile on all of their numbers."""
    import numpy as np

    tiles = BandTiles(band, tiling)
    rows = np.full(tiles.q_tiles, tiles.tile)
    rows[-1] = tiles.ragged
    index: Any = np.arange(tiles.q_tiles)
    return np.broadcast_to(np.asarray(tiles.visit(index)[0]), rows.shape), rows


def band_walk_counts(band: Band, tiling: Tiling) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """`Mask.walk_counts` on row-major tokens.

    Where neither the first nor the last key clips a window, and its sinks lie apart, both ends of its walk are floors
    of A i / (g B), which g B / gcd(A, g B) Q tiles later are larger by the same whole number: walks repeat.
    """
    import numpy as np

    tiles = BandTiles(band, tiling)
    low, high = _unclipped(band, tiles)
    period = tiles.period // gcd(tiles.tile, tiles.period)
    if high - low <= period:
        low = high = 0
    middle = np.arange(low, min(low + period, high))
    index: Any = np.concatenate((np.arange(low), middle, np.arange(high, tiles.q_tiles)))
    times = np.ones(index.size, np.int64)
    times[low : low + middle.size] = (high - middle + period - 1) // period
    rows = np.full(index.size, tiles.tile)
    rows[-1] = tiles.ragged
    return np.broadcast_to(np.asarray(tiles.visit(index)[0]), rows.shape), rows, times


def _unclipped(band: Band, tiles: BandTiles) -> tuple[int, int]:
    """(first, one past the last) of the whole Q tiles whose window lies behind the sinks and ends before the last key."""
    if band.left is None or band.right is None or band.left + band.right < 0:
        return 0, 0
    behind = band.left - band.offset + tiles.sink_tiles * tiles.width + 1
    before = band.n_kv - band.offset - band.right - 1
    first = max(0, ceil_div(behind * tiles.group, tiles.tile))
    return first, max(first, min(tiles.count, before * tiles.group // tiles.tile))


def split_rows(band: Band, tiling: Tiling, per_split: int) -> int:
    """Rows of all parts when each Q tile's KV tiles are shared out, `per_split` to a part, of a band without left edge.

    ceil(stop / p) of a stop that is a floor is one floor again.
    """
    tiles = BandTiles(band, tiling)
    tops = ceil_div(tiles.kv_tiles, per_split)
    shift = tiles.tile - 1 + tiles.group * (band.offset + band.right_reach + tiles.width)
    period = tiles.period * per_split
    parts = clamped_floor_sum(tiles.count, tiles.tile, shift + period - tiles.period, period, tops)
    return parts * tiles.tile + ceil_div(tiles.last[0], per_split) * tiles.ragged


def masked_area(band: Band, tiling: Tiling) -> int:
    """Rows x keys of the visited tiles that hold a masked entry, of a band without left edge.

    Those of a Q tile begin where the keys that all its queries see end, rounded down to tiles, and end with the visit.
    """
    if band.right is None:
        return 0
    tiles, n_kv = BandTiles(band, tiling), band.n_kv
    ahead = tiles.group * (band.offset + band.right + 1)
    rising = steps_below(tiles.count, tiles.tile, ahead, tiles.group * n_kv)
    whole = ranged_floor_sum(0, rising, tiles.tile, ahead, tiles.period, tiles.kv_tiles) * tiles.width
    end = band.end_key(tiles.count * tiles.tile // tiles.group)
    last = choose(end == n_kv, n_kv, end // tiles.width * tiles.width)
    area = (whole + (tiles.count - rising) * n_kv) * tiles.tile + last * tiles.ragged
    return bounded(tiles.area - area, lambda: tiles.rows_all * n_kv)
