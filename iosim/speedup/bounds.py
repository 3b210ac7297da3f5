"""Counts a mask under a tiling and turns the counts into upper bounds on the speedup."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iosim.errors import UsageError
from iosim.masks import Mask, TileWork, Tiling
from iosim.speedup.reasons import reasons
from iosim.speedup.result import EndToEnd, MachineBound, Speedup, TileBound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def speedup(
    mask: Mask,
    tiling: Tiling,
    *,
    heads: int = 1,
    head_dim: int = 128,
    head_dim_v: int | None = None,
    dtype_bytes: float = 2,
    machine: MachineBound | None = None,
    end_to_end: EndToEnd | None = None,
) -> Speedup:
    """Upper bounds on the speedup of a mask over the dense problem, one head of one sequence.

    Args:
        mask: the mask, bound to its layouts.
        tiling: the kernel's tiles, row-major or permuted.
        heads: query heads; where their masks differ, the counts cover all of them.
        head_dim, head_dim_v, dtype_bytes: what a token's row weighs, for `permute_bytes`.
        machine: time floors of the dense and the masked call on a device.
        end_to_end: the workload that attention is part of.
    Raises:
        UsageError: a tiling that does not fit the layouts, or a mask without an allowed pair.
    """
    parts = mask.per_head(heads)
    if len(parts) == 1:
        parts = ((parts[0][0], 1),)
    tiling.check(mask.grid)
    counted = [_count(part, tiling, times) for part, times in parts]
    total = counted[0]
    for other in counted[1:]:
        total = total.plus(other)
    if not total.pairs:
        raise UsageError(f"{mask.text} allows no pair at all: there is nothing to speed up", "--mask")
    dense = [(part.n_q, part.n_kv, times) for part, times in mask.sequences()]
    return Speedup(
        mask=mask.text,
        tiling=str(tiling),
        heads=total.heads,
        qk_pairs=total.pairs,
        dense_pairs=total.heads * sum(times * n_q * n_kv for n_q, n_kv, times in dense),
        q_tiles_launched=total.heads * _launched(parts[0][0], tiling),
        dense_tile_pairs_1d=total.heads
        * sum(times * -(-n_q * tiling.group // tiling.rows) * -(-n_kv // tiling.cols) for n_q, n_kv, times in dense),
        tiles=total.static,
        dynamic=total.dynamic,
        flat=total.flat,
        whole_tile_pairs=total.whole,
        permute_bytes=total.heads * _permute_bytes(parts[0][0], tiling, head_dim, head_dim_v, dtype_bytes),
        selection=float(getattr(parts[0][0], "selection", 0.0)),
        machine=machine,
        end_to_end=end_to_end,
        reasons=total.reasons,
        notes=_notes(parts, total.heads) + _of_batch(sum(times for _, _, times in dense)),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """Counts of some heads."""

    heads: int
    """heads counted"""
    pairs: int
    """allowed pairs"""
    whole: int
    """visited tile pairs without a masked entry"""
    static: TileBound
    """tiles as the tiling says"""
    dynamic: TileBound
    """KV tiles from each Q tile's first key on"""
    flat: TileBound
    """the same extents on row-major tokens"""
    reasons: tuple[str, ...]
    """why tiles are cut"""

    def plus(self, other: _Counts) -> _Counts:
        """The counts of both together."""
        return _Counts(
            self.heads + other.heads,
            self.pairs + other.pairs,
            self.whole + other.whole,
            _joined(self.static, other.static),
            _joined(self.dynamic, other.dynamic),
            _joined(self.flat, other.flat),
            tuple(dict.fromkeys(self.reasons + other.reasons)),
        )


def _joined(a: TileBound, b: TileBound) -> TileBound:
    return TileBound(
        a.q_tiles + b.q_tiles,
        a.kv_tiles_dense,
        a.dense_tile_pairs + b.dense_tile_pairs,
        a.visited_sum + b.visited_sum,
        min(a.visited_min, b.visited_min),
        max(a.visited_max, b.visited_max),
    )


def _count(mask: Mask, tiling: Tiling, times: int) -> _Counts:
    work = mask.work(tiling)
    flat = work if tiling.flat else mask.work(tiling.flattened())
    dense, flat_dense = _dense(mask, tiling, work), _dense(mask, tiling.flattened(), flat)
    return _Counts(
        heads=times,
        pairs=times * mask.counts().pairs,
        whole=times * int(work.whole.sum()),
        static=_bound(work.visited, dense, times),
        dynamic=_bound(work.dynamic, dense, times),
        flat=_bound(flat.visited, flat_dense, times),
        reasons=reasons(mask, tiling, work),
    )


def _dense(mask: Mask, tiling: Tiling, work: TileWork) -> tuple[int, int]:
    """(KV tiles of a Q tile of the dense problem, its tile pairs); of unequal lengths the longest's, and the sum."""
    parts = mask.sequences()
    if parts[0][0] is mask:
        tiles = _dense_tiles(mask, tiling)
        return tiles, len(work.visited) * tiles
    each = [(_dense_tiles(part, tiling), times * len(part.work(tiling).visited)) for part, times in parts]
    return max(tiles for tiles, _ in each), sum(tiles * count for tiles, count in each)


def _dense_tiles(mask: Mask, tiling: Tiling) -> int:
    """KV tiles of a Q tile of the dense problem."""
    layout = (mask.n_kv,) if tiling.flat else mask.grid.layout_kv
    return math.prod(-(-n // tile) for n, tile in zip(layout, tiling.kv_tile, strict=True))


def _bound(tiles: NDArray[np.int64], dense: tuple[int, int], times: int) -> TileBound:
    longest, pairs = dense
    return TileBound(
        times * len(tiles), longest, times * pairs, times * int(tiles.sum()), int(tiles.min()), int(tiles.max())
    )


def _launched(mask: Mask, tiling: Tiling) -> int:
    """Q tiles when every dilation group takes as many as the largest."""
    if tiling.flat:
        return sum(times * -(-part.n_q * tiling.group // tiling.rows) for part, times in mask.sequences())
    count = 1
    for axis, (n, tile, dilation) in enumerate(zip(mask.grid.layout_q, tiling.q_tile, mask.dilations, strict=True)):
        rows = -(-n // dilation) * tiling.axis(axis).group
        count *= dilation * -(-rows // tile)
    return count


def _permute_bytes(mask: Mask, tiling: Tiling, head_dim: int, head_dim_v: int | None, dtype_bytes: float) -> int:
    """Q, K, V and O read and written once, where the tiles need another order than row-major."""
    in_order = tiling.flat or (mask.grid.rank == 1 and mask.dilations == (1,))
    if in_order:
        return 0
    row = head_dim + (head_dim if head_dim_v is None else head_dim_v)
    return math.ceil(2 * (mask.n_q + mask.n_kv) * row * dtype_bytes)


def _of_batch(sequences: int) -> tuple[str, ...]:
    if sequences == 1:
        return ()
    return (f"counts cover {sequences} sequences; the dense problem is each of them unmasked, worst is the longest's",)


def _notes(parts: tuple[tuple[Mask, int], ...], heads: int) -> tuple[str, ...]:
    notes = list(dict.fromkeys(note for part, _ in parts for note in part.notes()))
    if heads > 1:
        notes.append(f"heads have different masks: counts cover all {heads} of them")
    return tuple(notes)
