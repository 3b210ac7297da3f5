"""Stream-K decoding (LeanAttention), and FlashMLA's cut: every core gets an equal run of KV tiles.

The KV tiles of all Q tiles stand in one line, T of them; worker w of g takes a stretch. A stretch that begins
inside a Q tile's walk is a cut: the rows of that Q tile are read again, and their partial output and log-sum-exp
go through slow memory once each way.
    share=whole     L = ceil(T / g) tiles per worker: boundaries at L, 2 L, ...          (LeanAttention)
    share=balanced  boundaries at floor(w T / g), so that stretches differ by one tile
    flashmla        for each Q tile of a sequence, a line of its own over the n sequences and g workers: a sequence
                    costs `overhead` tiles more, a worker may spend ceil((T + overhead n) / g) + overhead
Words per head, cuts c_i of Q tile i with b_i rows:
    reads   N_q d + sum c_i b_i (d + d_v + 1) + keys of visited tiles x (d + d_v)
    writes  sum c_i b_i (d_v + 1) + N_q d_v + N_q (log-sum-exp)
stream-k sums partials in the same launch: the worker that ends a Q tile reads those before it. flashmla writes
all c_i + 1 parts of a cut Q tile and sums them in a second launch, as its split-KV combine does.
Sources: Sanovar et al. 2024, LeanAttention (arXiv 2405.10480); Osama et al. 2023, Stream-K (arXiv 2301.03598);
deepseek-ai/FlashMLA, get_mla_metadata, April 2026.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from functools import cache, lru_cache

from iosim.errors import UsageError
from iosim.exact import decide, most
from iosim.kernels import flash2
from iosim.kernels.algorithm import (
    LSE,
    MMA_ROWS,
    STAGES,
    Algorithm,
    Call,
    Parameter,
    head_sums,
    moved,
    register,
    total_sums,
    visited_work,
)
from iosim.kernels.key_values import KV_PARAMETERS, kv_moved, kv_row_elements, kv_touches, page_size
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.stretches import Line, UniformLine, boundaries
from iosim.schedule import Launch, Program, Touch, Traffic, Work

SHARES = ("whole", "balanced")


def _heads(call: Call) -> int:
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


def _uniform(call: Call) -> bool:
    """Whether every Q tile walks as many KV tiles."""
    sums = total_sums(call.problem, call.tiling)
    return call.tiling.flat and decide(sums.q_tiles * sums.longest == sums.tile_pairs)


def line_of(call: Call) -> Line:
    """The line of a call; FlashMLA's goes through the sequences once per Q tile of a sequence.

    Raises:
        UsageError: heads with different masks, or a mask that shows nobody anything.
    """
    problem, tile_major, heads = call.problem, "share" not in call.settings, _heads(call)
    sums = total_sums(problem, call.tiling)
    if _uniform(call):
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


def _stretches(call: Call, line: Line) -> tuple[tuple[int, ...], int, int]:
    """(boundaries, rows at cuts, rows of cut Q tiles) of a call."""
    share = str(call.settings.get("share", "flashmla"))
    return _cuts(line, share, _workers(call), int(call.settings.get("overhead", 0)))


def _workers(call: Call) -> int:
    """g: as many as asked for, or the device's cores; FlashMLA shares them out to the Q tiles of a sequence."""
    if call.settings["workers"] or "share" in call.settings:
        return int(call.settings["workers"]) or call.cores
    shape = call.problem.shape
    packed = -(-call.problem.n_q * shape.group // call.tiling.rows)
    return most(1, call.cores // shape.kv_heads // packed)


def fused(call: Call) -> tuple[Launch, ...]:
    """stream-k: one launch that also sums the partials."""
    heads = _heads(call)
    if _uniform(call):
        items, cut_rows = _uniform_cuts(call, heads)
    else:
        ends, cut_rows, _ = _stretches(call, line_of(call))
        items = len(ends)
    traffic, work = _main(call, cut_rows, written=cut_rows, read=cut_rows)
    return (Launch("forward", items, traffic, work, _program(call, items, fixup=True)),)


def _uniform_cuts(call: Call, heads: int) -> tuple[int, int]:
    """(stretches, rows at cuts) of a line whose Q tiles all have as many KV tiles."""
    sums, rows = head_sums(call), call.tiling.rows
    tiles, size = sums.q_tiles, most(1, sums.longest)  # as much is visited
    line = UniformLine(size, tiles, heads)
    items, cuts, ragged_cuts = line.cuts(str(call.settings["share"]), _workers(call))
    ragged = call.problem.n_q * call.tiling.group - (tiles - 1) * rows
    return items, (cuts - ragged_cuts) * rows + ragged_cuts * ragged


def combined(call: Call) -> tuple[Launch, ...]:
    """flashmla: parts of cut Q tiles, then their combine."""
    problem, heads = call.problem, _heads(call)
    if _uniform(call):
        line, tiles = UniformLine(most(1, head_sums(call).longest), 1, heads), head_sums(call).q_tiles
        rows = problem.n_q * call.tiling.group
        stretches, cuts, cut = line.budgets(_workers(call), call.number("overhead"))
        items, cut_items, cut_rows, tile_rows = stretches * tiles, cut * tiles, cuts * rows, cut * rows
    else:
        ends, cut_rows, tile_rows = _stretches(call, line_of(call))
        items, cut_items = len(ends), len(_cut_tiles(line_of(call), ends))
    parts = cut_rows + tile_rows
    traffic, work = _main(call, cut_rows, written=parts, read=0, whole=-tile_rows)
    main = Launch("main", items, traffic, work, _program(call, items, fixup=False))
    if decide(tile_rows == 0):
        return (main,)
    width = problem.shape.head_dim_v
    tensors = [
        moved(problem, "O_partial", read=parts * width),
        moved(problem, "LSE_partial", read=parts),
        moved(problem, "O", write=tile_rows * width),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=tile_rows))
    program = _combine_program(call, cut_items)
    return (main, Launch("combine", program.items, Traffic(tuple(tensors)), Work(exp_rescale=parts), program))


def _main(call: Call, cut_rows: int, written: int, read: int, whole: int = 0) -> tuple[Traffic, Work]:
    """Traffic and work of the walk: `whole` is added to the rows that it writes at once."""
    problem, shape = call.problem, call.problem.shape
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q + whole
    tensors = [
        moved(problem, "Q", read=(sums.active_query_rows + cut_rows) * shape.head_dim),
        *kv_moved(call, sums),
        moved(problem, "O_partial", read * shape.head_dim_v, written * shape.head_dim_v),
        moved(problem, "LSE_partial", read, written),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    work = visited_work(problem, sums, call.number("mma_rows"), tensors)
    return Traffic(tuple(tensors)), work + Work(exp_rescale=read)


def _stretches_of(call: Call) -> Callable[[], tuple[Line, tuple[int, ...]]]:
    """The line and its boundaries, listed when they are first asked for."""

    @cache
    def stretches() -> tuple[Line, tuple[int, ...]]:
        line = line_of(call)
        return line, _stretches(call, line)[0]

    return stretches


def _cut_tiles(line: Line, ends: tuple[int, ...]) -> list[tuple[int, int]]:
    """(head, Q tile) of the Q tiles that are cut."""
    return sorted({(head, tile) for head, tile, before in map(line.place, ends[:-1]) if before})


def _program(call: Call, items: int, fixup: bool) -> Program:
    """One stretch per item. Rows of a Q tile's part p lie p times all rows of the call behind its own."""
    shape, plan = call.problem.shape, head_tiles(call)
    span = plan.tiles * plan.rows

    stretches = _stretches_of(call)

    def outputs(head: int, tile: int, write: bool, part: int) -> Step:
        row, rows = plan.q_tile(head, tile)
        at = part * span * plan.heads + row
        return tuple(Touch(name, head, at, rows, write) for name in ("O_partial", "LSE_partial"))

    def finished(head: int, tile: int) -> Step:
        done = (Touch("O", head, *plan.q_tile(head, tile), True),)
        return (*done, Touch("LSE", head, *plan.q_tile(head, tile), True)) if call.flag("lse") else done

    def walk(item: int) -> Iterator[Step]:
        line, ends = stretches()
        if item == 0:  # Q tiles that visit nothing are written by the first worker
            for head in range(plan.heads):
                for tile in range(plan.tiles):
                    if not line.size(tile):
                        yield finished(head, tile)
        at, stop = (ends[item - 1] if item else 0), ends[item]
        while at < stop:
            head, tile, before = line.place(at)
            size = line.size(tile)
            last = min(size, before + stop - at)
            yield (Touch("Q", head, *plan.q_tile(head, tile), False),)
            for column in plan.visits(head).tiles_of(tile)[before:last].tolist():
                yield kv_touches(call, head // plan.kv_share, *plan.kv_tile(head, column))
            part = _part(line, ends, head, tile, at)
            if last < size or (before and not fixup):
                yield outputs(head, tile, True, part)
            else:
                for earlier in range(part):
                    yield outputs(head, tile, False, earlier)
                yield finished(head, tile)
            at += last - before

    elements = {"Q": shape.head_dim, **kv_row_elements(call), "O": shape.head_dim_v, "LSE": 1}
    elements |= {"O_partial": shape.head_dim_v, "LSE_partial": 1}
    return Program(1, items, elements, lambda item: _in_line(call, span, walk(item)))


def _in_line(call: Call, span: int, steps: Iterator[Step]) -> Iterator[Step]:
    """The steps with all heads of a tensor end to end, since an item serves several heads."""
    n_kv, pages = call.problem.n_kv, page_size(call)
    lengths = dict.fromkeys(kv_row_elements(call), n_kv) | {"block_table": -(-n_kv // pages) if pages else 0}
    for step in steps:
        yield tuple(t._replace(head=0, row=t.head * lengths.get(t.tensor, span) + t.row) for t in step)


def _part(line: Line, ends: tuple[int, ...], head: int, tile: int, at: int) -> int:
    """How many cuts of a Q tile come before a place."""
    return bisect_right(ends, at) - bisect_right(ends, line.start(head, tile))


def _combine_program(call: Call, items: int) -> Program:
    """One cut Q tile per item: all its parts, then its rows."""
    shape, plan = call.problem.shape, head_tiles(call)
    span = plan.tiles * plan.rows
    stretches = _stretches_of(call)
    cut = cache(lambda: _cut_tiles(*stretches()))

    def walk(item: int) -> Iterator[Step]:
        (line, ends), (head, tile) = stretches(), cut()[item]
        row, rows = plan.q_tile(head, tile)
        start = line.start(head, tile)
        parts = bisect_left(ends, start + line.size(tile)) - bisect_right(ends, start) + 1
        for part in range(parts):
            at = part * span * plan.heads + row
            yield tuple(Touch(name, head, at, rows, False) for name in ("O_partial", "LSE_partial"))
        done = (Touch("O", head, row, rows, True),)
        yield (*done, Touch("LSE", head, row, rows, True)) if call.flag("lse") else done

    elements = {"O_partial": shape.head_dim_v, "LSE_partial": 1, "O": shape.head_dim_v, "LSE": 1}
    return Program(1, items, elements, lambda item: _in_line(call, span, walk(item)))


WORKERS = Parameter("workers", 0, "equal shares; by default one per core", least=1)

STREAM_K = register(
    Algorithm(
        name="stream-k",
        title="Stream-K decoding (LeanAttention)",
        source="Sanovar et al. 2024, arXiv 2405.10480",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            WORKERS,
            Parameter("share", "whole", "how the line of KV tiles is shared out", choices=SHARES),
        ),
        launches=fused,
        working_set=flash2.working_set,
    )
)

FLASHMLA = register(
    Algorithm(
        name="flashmla",
        title="FlashMLA: absorbed multi-head latent attention in decode",
        source="deepseek-ai/FlashMLA, April 2026",
        algorithm_class="standard-once",
        phases=("decode",),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            WORKERS,
            Parameter("overhead", 5, "KV tiles that a sequence costs beside its own"),
        ),
        launches=combined,
        working_set=flash2.working_set,
    )
)
