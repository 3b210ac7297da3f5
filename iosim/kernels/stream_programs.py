"""Touches of stream-K's and FlashMLA's launches; `stream_k` has the counts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from functools import cache

from iosim.kernels.algorithm import Call
from iosim.kernels.key_values import kv_row_elements, kv_touches, page_size
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.stream_line import cut_tiles, stretches_of
from iosim.kernels.stretches import Line
from iosim.schedule import Program, Touch


def walk_program(call: Call, items: int, fixup: bool) -> Program:
    """One stretch per item. Rows of a Q tile's part p lie p times all rows of the call behind its own."""
    shape, plan = call.problem.shape, head_tiles(call)
    span = plan.tiles * plan.rows

    stretches = stretches_of(call)

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


def combine_program(call: Call, items: int) -> Program:
    """One cut Q tile per item: all its parts, then its rows."""
    shape, plan = call.problem.shape, head_tiles(call)
    span = plan.tiles * plan.rows
    stretches = stretches_of(call)
    cut = cache(lambda: cut_tiles(*stretches()))

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
