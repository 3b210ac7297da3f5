"""Steps as arrays: the same touches as a program's generator, made without walking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from iosim.masks import TileVisits
from iosim.schedule import StepTable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def q_outer_table(
    visits: TileVisits, q_tile: int, kv_tile: int, walked: Sequence[str], written: Sequence[str]
) -> StepTable:
    """Q outer: a step that reads Q, one per visited KV tile that reads `walked`, one that writes `written`.

    A Q tile that visits nothing only writes. Equal to walking `iosim.kernels.programs.q_outer_program`.
    """
    import numpy as np

    visited = visits.per_tile()
    busy = visited > 0
    item = np.concatenate(([0], np.cumsum(visited + busy + 1)))
    touches = np.full(item[-1], len(walked), np.int64)
    touches[item[:-1][busy]] = 1
    touches[item[1:] - 1] = len(written)
    step = np.concatenate(([0], np.cumsum(touches)))
    tensor, row, rows = (np.empty(step[-1], np.int64) for _ in range(3))
    write = np.zeros(step[-1], np.bool_)
    first_row, first_key = visits.q_firsts(q_tile), visits.kv_firsts(kv_tile)

    opening = step[item[:-1][busy]]
    tensor[opening], row[opening], rows[opening] = 0, first_row[busy], visits.q_rows[busy]
    owner, columns = _columns(visits, visited)
    place = np.arange(len(columns)) - (np.cumsum(visited) - visited)[owner]
    inner = step[item[:-1][owner] + 1 + place]
    for offset in range(len(walked)):
        at = inner + offset
        tensor[at], row[at], rows[at] = 1 + offset, first_key[columns], visits.kv_cols[columns]
    closing = step[item[1:] - 1]
    for offset in range(len(written)):
        at = closing + offset
        tensor[at], row[at], rows[at], write[at] = 1 + len(walked) + offset, first_row, visits.q_rows, True
    return StepTable(("Q", *walked, *written), item, step, tensor, row, rows, write)


def kv_outer_table(
    visits: TileVisits, q_tile: int, kv_tile: int, walked: Sequence[str], state: Sequence[str], initial_rows: int
) -> StepTable:
    """K/V outer, as one item: a step that writes `initial_rows` rows of `state`, if any; per visited KV tile one that
    reads `walked`, then per Q tile that sees it one that reads Q and `state` and one that writes `state`.

    Equal to walking the steps of `iosim.kernels.flash1`.
    """
    import numpy as np

    owner, columns = _columns(visits, visits.per_tile())
    order = np.argsort(columns, kind="stable")
    owner, columns = owner[order], columns[order]
    opens = np.diff(columns, prepend=-1) > 0
    start = int(initial_rows > 0)
    loads = start + 2 * np.arange(len(columns)) + np.cumsum(opens)  # the step in which a pair reads
    touches = np.full(start + 2 * len(columns) + int(opens.sum()), len(state), np.int64)
    touches[loads] = 1 + len(state)
    touches[loads[opens] - 1] = len(walked)
    step = np.concatenate(([0], np.cumsum(touches)))
    tensor, row, rows = (np.empty(step[-1], np.int64) for _ in range(3))
    write = np.zeros(step[-1], np.bool_)

    def put(at: NDArray[np.int64], number: int, first: NDArray[np.int64], count: NDArray[np.int64]) -> None:
        tensor[at], row[at], rows[at] = number, first, count

    for offset in range(len(walked)):
        at = step[loads[opens] - 1] + offset
        put(at, 1 + offset, visits.kv_firsts(kv_tile)[columns[opens]], visits.kv_cols[columns[opens]])
    first_row = visits.q_firsts(q_tile)[owner]
    put(step[loads], 0, first_row, visits.q_rows[owner])
    for offset in range(len(state)):
        number = 1 + len(walked) + offset
        for at, writes in ((step[loads] + 1 + offset, False), (step[loads + 1] + offset, True)):
            put(at, number, first_row, visits.q_rows[owner])
            write[at] = writes
        if start:
            tensor[offset], row[offset], rows[offset], write[offset] = number, 0, initial_rows, True
    return StepTable(("Q", *walked, *state), np.array([0, len(touches)]), step, tensor, row, rows, write)


def _columns(visits: TileVisits, visited: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Q tile, KV tile) of every visited pair, Q tile by Q tile, keys ascending."""
    import numpy as np

    owner = np.repeat(np.arange(len(visited)), visited)
    return owner, np.concatenate([visits.tiles_of(tile) for tile in range(len(visited))] or [owner]).astype(np.int64)


def shared_pattern(visits: Callable[[int], TileVisits]) -> Callable[[int], object]:
    """A mark that heads with the same visited tiles share."""
    return lambda head: id(visits(head))
