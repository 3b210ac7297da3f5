"""Tile sums of a band in closed form: every edge is a clamped floor, so no loop over tiles is needed.

Written over ints, int64 arrays and intervals alike (`iosim.exact`).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import TYPE_CHECKING

from iosim.exact import bounded, ceil_div, choose, least, most, most_over
from iosim.masks.sums import clamped_floor_sum, ranged_floor_sum, steps_below
from iosim.masks.tiling import Tiling
from iosim.masks.visits import TileSums

if TYPE_CHECKING:
    from iosim.masks.band import Band


def band_sums(band: Band, tiling: Tiling) -> TileSums:
    """Tile sums on row-major tokens."""
    tiles = BandTiles(band, tiling)
    return TileSums(*(getattr(tiles, name) for name in TileSums.__dataclass_fields__))


class BandTiles:
    """The sums of `TileSums`, each computed when asked for.

    Q tile i covers queries floor(i A / g) .. floor(((i + 1) A - 1) / g). The end of its last KV tile is
    floor((A i + A - 1 + g (offset + right + B)) / (g B)), clamped: the floor of a floor is one floor (Concrete
    Mathematics, 3.11). The one Q tile that may be ragged, the last, is counted by hand.
    """

    def __init__(self, band: Band, tiling: Tiling) -> None:
        self.band, self.tiling = band, tiling
        self.tile, self.width, self.group = tiling.rows, tiling.cols, tiling.group
        self.period = self.group * self.width
        self.kv_tiles = ceil_div(band.n_kv, self.width)
        self.sink_tiles = ceil_div(least(band.sink, band.n_kv), self.width)
        self.rows_all = band.n_q * self.group
        self.count = (self.rows_all - 1) // self.tile  # whole Q tiles before the last
        self.q_tiles = self.count + 1

    def repeated(self, times: int) -> RepeatedTiles:
        """The sums of so many equal heads side by side."""
        return RepeatedTiles(self, times)

    # --- sums over the whole Q tiles ----------------------------------------------------------

    @cached_property
    def _beyond(self) -> int:
        """Q tiles whose first query's band starts beyond the last key."""
        band = self.band
        if band.left is None:
            return 0
        # floor(i A / g) + offset - left >= n_kv  <=>  i A >= g (n_kv - offset + left)
        return self.count - steps_below(self.count, self.tile, 0, self.group * (band.n_kv - band.offset + band.left))

    @cached_property
    def _stops(self) -> tuple[int, int]:
        """(sum of the ends of the last KV tiles, sum of the keys below them)."""
        band, tops = self.band, self.kv_tiles
        if band.right is None:
            return self.count * tops, self.count * band.n_kv
        shift = self.tile - 1 + self.group * (band.offset + band.right + self.width)
        total = clamped_floor_sum(self.count, self.tile, shift, self.period, tops)
        full = self.count - steps_below(self.count, self.tile, shift, self.period * tops)
        return total, total * self.width - full * (tops * self.width - band.n_kv)

    def _starts(self, top: int) -> int:
        """Sum of the first KV tiles of the bands, at most `top`; a band beyond the last key starts at the end."""
        band = self.band
        if band.left is None:
            return 0
        low = self.group * (band.offset - band.left)
        inside = clamped_floor_sum(self.count - self._beyond, self.tile, low, self.period, top)
        return inside + self._beyond * top

    @cached_property
    def _start_tiles(self) -> int:
        return self._starts(self.kv_tiles)

    @cached_property
    def _sinks(self) -> int:
        """Sink tiles apart from the band: min(sink tiles, first tile of the band), summed."""
        return 0 if _none(self.band.sink) else self._starts(self.sink_tiles)

    @cached_property
    def _even_pairs(self) -> int:
        return bounded(self._stops[0] - self._start_tiles + self._sinks, lambda: self.count * self.kv_tiles)

    @cached_property
    def _even_keys(self) -> int:
        """Keys of those tiles; where a band starts beyond the last key, the end is that of the ragged last tile."""
        spare = self.kv_tiles * self.width - self.band.n_kv
        keys = self._stops[1]
        if self.band.left is not None:
            keys = keys - (self._start_tiles * self.width - self._beyond * spare)
        if not _none(self.band.sink):  # only a sink that reaches the last tile is clipped
            clipped = choose(self.sink_tiles == self.kv_tiles, self._beyond, 0)
            keys = keys + self._sinks * self.width - clipped * spare
        return bounded(keys, lambda: self.count * self.band.n_kv)

    @cached_property
    def _idle(self) -> int:
        """Q tiles that visit nothing: before the first key, or beyond the last one without sinks."""
        band, before = self.band, 0
        if band.right is not None:
            limit = -self.group * (band.offset + band.right)
            before = steps_below(self.count, self.tile, self.tile - 1, limit)
        return before + (self._beyond if _none(band.sink) else choose(band.sink > 0, 0, self._beyond))

    # --- the last Q tile ----------------------------------------------------------------------

    @cached_property
    def last(self) -> tuple[int, int]:
        """(KV tiles, keys in them) that the last Q tile visits."""
        return self.visit(self.count)

    @cached_property
    def ragged(self) -> int:
        """Its rows."""
        return most(1, least(self.tile, self.rows_all - self.count * self.tile))

    def visit(self, index: int) -> tuple[int, int]:
        """(KV tiles, keys in them) that Q tile `index` visits: the sinks' apart from the band's, and the band's."""
        band, width, tops = self.band, self.width, self.kv_tiles
        begin = index * self.tile
        end = least(begin + self.tile, self.rows_all)
        first, stop_key = band.first_key(begin // self.group), band.end_key((end - 1) // self.group)
        sees = first < stop_key
        start, stop = choose(sees, first // width, tops), choose(sees, ceil_div(stop_key, width), tops)
        apart = 0 if _none(band.sink) else least(ceil_div(least(band.sink, stop_key), width), start)
        keys = least(stop * width, band.n_kv) - least(start * width, band.n_kv)
        tiles = bounded(stop - start + apart, lambda: tops)
        return tiles, bounded(keys + least(apart * width, band.n_kv), lambda: band.n_kv)

    # --- the sums of TileSums -----------------------------------------------------------------

    @cached_property
    def tile_pairs(self) -> int:
        """See `TileSums`."""
        return bounded(self._even_pairs + self.last[0], lambda: self.q_tiles * self.kv_tiles)

    @cached_property
    def key_rows(self) -> int:
        """See `TileSums`."""
        return bounded(self._even_keys + self.last[1], lambda: self.q_tiles * self.band.n_kv)

    @cached_property
    def query_rows(self) -> int:
        """See `TileSums`."""
        rows = self._even_pairs * self.tile + self.last[0] * self.ragged
        return bounded(rows, lambda: self.rows_all * self.kv_tiles)

    @cached_property
    def area(self) -> int:
        """See `TileSums`."""
        area = self._even_keys * self.tile + self.last[1] * self.ragged
        return bounded(area, lambda: self.rows_all * self.band.n_kv)

    @cached_property
    def active_query_rows(self) -> int:
        """See `TileSums`."""
        rows = (self.count - self._idle) * self.tile + choose(self.last[0] > 0, self.ragged, 0)
        return bounded(rows, lambda: self.rows_all)

    @cached_property
    def active_key_rows(self) -> int:
        """Keys of the KV tiles that some Q tile visits: from the first query that sees a key to the last one."""
        band, width = self.band, self.width
        first_query = least(most(0, -(band.offset + band.right_reach)), band.n_q - 1)
        last_query = most(0, least(band.n_q, band.n_kv - band.offset + band.left_reach) - 1)
        last_query = choose(band.sink > 0, band.n_q - 1, last_query)
        first, stop = band.first_key(first_query), ceil_div(band.end_key(last_query), width)
        start = choose(first < band.n_kv, first // width, stop)
        sinks = least(start, self.sink_tiles)
        keys = least(stop * width, band.n_kv) - least(start * width, band.n_kv) + least(sinks * width, band.n_kv)
        idle = self._idle + choose(self.last[0] > 0, 0, 1)
        return bounded(choose(idle == self.q_tiles, 0, keys), lambda: band.n_kv)

    @cached_property
    def longest(self) -> int:
        """Most KV tiles of one Q tile.

        Without a left edge the last tile sees most. Else, before the right edge meets the end of the keys the count,
        left edge unclamped, repeats with a period of B g / gcd(A, B g) tiles and clamping only lowers it; after the
        meeting it falls. So one period before the meeting holds a longest tile.
        """
        band = self.band
        if band.left is None:
            return self.last[0]
        meet = (band.n_kv - band.offset - band.right_reach - 1) * self.group // self.tile
        meet = least(self.count, most(0, meet))
        begin = most(0, meet - _period(self.tile, self.period) - 1)
        end = least(meet + 2, self.count) + 1
        return most_over(end - begin, lambda step: self.visit(least(begin + step, self.count))[0])

    @cached_property
    def whole_pairs(self) -> int:
        """Visited pairs without a masked entry.

        Of Q tile i all queries see the keys from a = floor(((i + 1) A - 1) / g) + offset - left to
        b = floor(i A / g) + offset + right + 1, clamped. Three kinds of Q tiles, in order of a, which rises:
        * a <= sink: sinks and band are one run, whole up to b's tile, the ragged last one included at the end of keys;
        * else the whole tiles within [a, b), and those of the sinks. Within: W(b) - ceil(a / B) if b - a >= B - 1, and
          if b - a <= B - 1 none but the ragged last one, when b is at or beyond the end of the keys. b - a takes
          two neighbouring values at most, so one of the two cases is that of all tiles.
        """
        band, n = self.band, self.band.n_kv
        first_query, last_query = self.count * self.tile // self.group, band.n_q - 1
        last = _whole_tiles(band, first_query, last_query, self.width)
        ahead = band.offset + band.right_reach + 1
        if band.left is None:
            return self._whole_stops(0, self.count, ahead) + last
        behind = self.tile - 1 + self.group * (band.offset - band.left)  # a = floor((A i + behind) / g)
        merged = steps_below(self.count, self.tile, behind, self.group * (band.sink + 1))
        merged = choose(band.sink >= n, self.count, merged)
        shortest = ahead - band.offset + band.left - ceil_div(self.tile - 1, self.group)
        rising = steps_below(self.count, self.tile, 0, self.group * (n - ahead))
        begin = choose(shortest >= self.width - 1, merged, most(merged, rising))
        starts = ranged_floor_sum(
            begin, self.count, self.tile, behind + self.group * (self.width - 1), self.period, self.kv_tiles
        )
        within = self._whole_stops(begin, self.count, ahead) - starts
        sinks = ranged_floor_sum(
            merged, self.count, self.tile, self.group * ahead, self.period, least(band.sink, n) // self.width
        )
        return self._whole_stops(0, merged, ahead) + within + sinks + last

    def _whole_stops(self, begin: int, end: int, ahead: int) -> int:
        """Sum over Q tiles begin..end-1 of W(b): whole KV tiles below b, all of them once b passes the last key."""
        rising = steps_below(self.count, self.tile, 0, self.group * (self.band.n_kv - ahead))
        rising = most(begin, least(rising, end))
        below = ranged_floor_sum(begin, rising, self.tile, self.group * ahead, self.period, self.kv_tiles)
        return below + most(0, end - rising) * self.kv_tiles


class RepeatedTiles:
    """The sums of several equal heads, each computed when asked for."""

    def __init__(self, tiles: BandTiles, times: int) -> None:
        self._tiles, self._times = tiles, times

    def __getattr__(self, name: str) -> int:
        value: int = getattr(self._tiles, name)
        if name != "longest":
            value = value * self._times
        setattr(self, name, value)
        return value


def _none(count: int) -> bool:
    """Whether a count is zero for every problem: formulas leave its terms out."""
    return isinstance(count, int) and count == 0


def _period(tile: int, wrap: int) -> int:
    if isinstance(tile, int) and isinstance(wrap, int):
        return wrap // math.gcd(tile, wrap)
    if made := getattr(tile, "period", None) or getattr(wrap, "period", None):
        return made(tile, wrap)
    import numpy as np

    return wrap // np.gcd(tile, wrap)


def _whole_tiles(band: Band, first_query: int, last_query: int, width: int) -> int:
    """KV tiles of which every query from `first_query` to `last_query` sees every key."""
    low, high = band.first_key(last_query), band.end_key(first_query)
    sinks, tops = least(band.sink, high), ceil_div(band.n_kv, width)
    stop, sink_stop = (choose(end == band.n_kv, tops, end // width) for end in (high, sinks))
    apart = most(0, stop - ceil_div(low, width)) + sink_stop
    return choose(sinks >= low, stop, apart)
