"""The line of KV tiles of a call, which stream-K and FlashMLA cut into stretches; `stream_k` has the counts."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache

from iosim.errors import UsageError
from iosim.exact import decide, most
from iosim.kernels.algorithm import Call, head_sums, total_sums
from iosim.kernels.stretches import Line, boundaries


def line_heads(call: Call) -> int:
    """Equal heads (or packed groups) in the line.

    Raises:
        UsageError: heads with different masks, or a mask that shows nobody anything.
    """
    problem, shape = call.problem, call.problem.shape
    if len(problem.masks()) > 1:
        raise UsageError("stream-k lines up heads of one mask; these have several", "--kernel", "split-kv")
    if decide(total_sums(problem, call.tiling).tile_pairs == 0):
        raise UsageError("no query sees a key, so there is no work to share out", "--mask")
    return most(1, shape.batch * shape.heads // call.tiling.group)


def uniform(call: Call) -> bool:
    """Whether every Q tile walks as many KV tiles."""
    sums = total_sums(call.problem, call.tiling)
    return call.tiling.flat and decide(sums.q_tiles * sums.longest == sums.tile_pairs)


def line_of(call: Call) -> Line:
    """The line of a call; FlashMLA's goes through the sequences once per Q tile of a sequence.

    Raises:
        UsageError: heads with different masks, or a mask that shows nobody anything.
    """
    problem, tile_major, heads = call.problem, "share" not in call.settings, line_heads(call)
    sums = total_sums(problem, call.tiling)
    if uniform(call):
        rows_all, rows = problem.n_q * call.tiling.group, call.tiling.rows
        tiles = head_sums(call).q_tiles
        each = tuple(min(rows, rows_all - tile * rows) for tile in range(tiles))
        return Line(heads, tuple(sums.longest * (tile + 1) for tile in range(tiles)), each, tile_major)
    walks, rows_of = problem.masks()[0][0].walks(call.tiling)
    return Line(heads, tuple(walks.cumsum().tolist()), tuple(rows_of.tolist()), tile_major)


@lru_cache(maxsize=8)
def _cuts(line: Line, share: str, workers: int, overhead: int) -> tuple[tuple[int, ...], int, int]:
    """(boundaries, rows at cuts, rows of cut Q tiles)."""
    ends = boundaries(line, share, workers, overhead)
    rows, cut_rows, tiles = 0, 0, set()
    for at in ends[:-1]:
        head, tile, before = line.place(at)
        if before:
            rows += line.rows[tile]
            cut_rows += line.rows[tile] if (head, tile) not in tiles else 0
            tiles.add((head, tile))
    return tuple(ends), rows, cut_rows


def stretches_in(call: Call, line: Line) -> tuple[tuple[int, ...], int, int]:
    """(boundaries, rows at cuts, rows of cut Q tiles) of a call."""
    share = str(call.settings.get("share", "flashmla"))
    return _cuts(line, share, workers_of(call), int(call.settings.get("overhead", 0)))


def workers_of(call: Call) -> int:
    """g: as many as asked for, or the device's cores; FlashMLA shares them out to the Q tiles of a sequence."""
    if call.settings["workers"] or "share" in call.settings:
        return int(call.settings["workers"]) or call.cores
    shape = call.problem.shape
    packed = -(-call.problem.n_q * shape.group // call.tiling.rows)
    return most(1, call.cores // shape.kv_heads // packed)


def stretches_of(call: Call) -> Callable[[], tuple[Line, tuple[int, ...]]]:
    """The line and its boundaries, listed when they are first asked for."""

    @cache
    def stretches() -> tuple[Line, tuple[int, ...]]:
        line = line_of(call)
        return line, stretches_in(call, line)[0]

    return stretches


def cut_tiles(line: Line, ends: tuple[int, ...]) -> list[tuple[int, int]]:
    """(head, Q tile) of the Q tiles that are cut."""
    return sorted({(head, tile) for head, tile, before in map(line.place, ends[:-1]) if before})
