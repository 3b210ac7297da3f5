"""Touches of the loop structures that kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from iosim.kernels.algorithm import Call, head_sums
from iosim.kernels.key_values import kv_row_elements, kv_touches
from iosim.kernels.step_tables import q_outer_table, shared_pattern
from iosim.masks import Mask, TileVisits
from iosim.schedule import Program, Touch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Step = tuple[Touch, ...]


@dataclass(frozen=True, slots=True)
class HeadTiles:
    """The tiles that each head (or packed group) of a call visits, found when first asked for."""

    heads: int
    """heads, or packed groups, over the batch"""
    tiles: int
    """Q tiles of one head"""
    rows: int
    """rows of a whole Q tile"""
    cols: int
    """keys of a whole KV tile"""
    kv_share: int
    """heads, or packed groups, per key/value head"""
    visits: Callable[[int], TileVisits]
    """head -> its visited tiles"""
    q_tiles_of: Callable[[int, int], NDArray[np.int64]]
    """(head, KV tile) -> the Q tiles that visit it, ascending"""

    def q_tile(self, head: int, tile: int) -> tuple[int, int]:
        """(first row, rows) of a Q tile."""
        visits = self.visits(head)
        first = tile * self.rows if visits.q_first is None else int(visits.q_first[tile])
        return first, int(visits.q_rows[tile])

    def kv_tile(self, head: int, column: int) -> tuple[int, int]:
        """(first key, keys) of a KV tile."""
        visits = self.visits(head)
        first = column * self.cols if visits.kv_first is None else int(visits.kv_first[column])
        return first, int(visits.kv_cols[column])


def head_tiles(call: Call) -> HeadTiles:
    """The tiles of a call; nothing is computed until a head is asked for."""
    tiling, shape = call.tiling, call.problem.shape
    heads = shape.batch * shape.heads // tiling.group

    @cache
    def masks() -> list[Mask]:
        return [mask for mask, heads in call.problem.masks() for _ in range(heads // tiling.group)]

    def mask_of(head: int) -> Mask:
        return masks()[head % len(masks())]

    @cache
    def visits_of(mask: Mask) -> TileVisits:
        return mask.visits(tiling)

    @cache
    def columns_of(mask: Mask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        import numpy as np

        q_tiles, columns = visits_of(mask).visited.columns()
        order = np.argsort(columns, kind="stable")
        return q_tiles[order], np.searchsorted(columns[order], np.arange(len(visits_of(mask).kv_cols) + 1))

    def q_tiles_of(head: int, column: int) -> NDArray[np.int64]:
        q_tiles, start = columns_of(mask_of(head))
        return q_tiles[start[column] : start[column + 1]]

    return HeadTiles(
        heads,
        head_sums(call).q_tiles,
        tiling.rows,
        tiling.cols,
        shape.group // tiling.group,
        lambda head: visits_of(mask_of(head)),
        q_tiles_of,
    )


def q_outer_program(call: Call) -> Program:
    """Q outer, K/V inner: read the Q tile, walk the visited KV tiles, write the output tile.

    Rows of Q and O are packed rows: with a group of G heads, row r is query r // G of head r % G. With `q_again` the
    Q tile comes with every KV tile.
    """
    shape, plan = call.problem.shape, head_tiles(call)
    again = bool(call.settings.get("q_again"))

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        row, rows = plan.q_tile(head, tile)
        columns = plan.visits(head).tiles_of(tile)
        query = (Touch("Q", head, row, rows, False),)
        if len(columns) and not again:
            yield query
        for column in columns.tolist():
            keys = kv_touches(call, head // plan.kv_share, *plan.kv_tile(head, column))
            yield (*query, *keys) if again else keys
        done = (Touch("O", head, row, rows, True),)
        yield (*done, Touch("LSE", head, row, rows, True)) if call.settings.get("lse") else done

    elements = {"Q": shape.head_dim, **kv_row_elements(call), "O": shape.head_dim_v, "LSE": 1}
    walked, written = tuple(kv_row_elements(call)), ("O", "LSE") if call.settings.get("lse") else ("O",)
    table = None
    if "block_table" not in walked and not again:
        table = lambda head: q_outer_table(plan.visits(head), plan.rows, plan.cols, walked, written)  # noqa: E731
    return Program(plan.heads, plan.tiles, elements, steps, table, shared_pattern(plan.visits))
