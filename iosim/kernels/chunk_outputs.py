"""Outputs of chunked linear attention: what lies before through the state, the rest by scores of the chunk.

Scores are formed where they are used, or come from memory (`chunk_launches`): whole rows of blocks of which only those at
or below the diagonal were written, or row block by row block as far as the diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide, least
from iosim.kernels.algorithm import Call
from iosim.kernels.blocks import strips
from iosim.kernels.chunk_launches import as_wide, gate_touches, gates_of, moved_gates, pairs, state, values_of, widths
from iosim.kernels.linear_parts import Chunks, causal_pairs, item_exp, square_pairs
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Program, Touch, Traffic, Work


def from_keys(call: Call, cut: Chunks, values: str = "V") -> Launch:
    """Scores formed from Q and K: one chunk and one block of value columns per item."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents, times = cut.chunks(n), cut.blocks.number
    tensors = [cut.moved("Q", times * n * d), cut.moved("K", times * n * d), *moved_gates(call, cut, times * n)]
    tensors.append(as_wide(cut, values, "V", n * d_v))
    tensors += [as_wide(cut, "states", "K", extents.number * cut.features * d_v), cut.moved("O", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number * times)
        number, part = divmod(index, times)
        at, block = extents[number], cut.blocks[part]
        read = (*cut.rows("Q", head, at), *cut.rows("K", head, at), *gate_touches(cut, gates_of(call), head, at))
        yield (*read, values_of(cut, values, head, at, block, False), state(cut, "states", head, number, block, False))
        yield cut.values("O", head, at, block, write=True)

    inter = 2 * n * cut.features * d_v
    useful = inter + causal_pairs(extents) * 2 * (cut.features + d_v)
    executed = inter + square_pairs(extents) * 2 * (cut.features * times + d_v)
    work = Work(extents.number * times, useful, executed, item_exp(call, cut, 2 * n, n) * times) * cut.heads
    program = Program(cut.heads, extents.number * times, widths(call, cut), steps)
    return Launch("outputs", program.items, Traffic(tuple(tensors)), work, program)


def from_lower(call: Call, cut: Chunks) -> Launch:
    """Whole rows of scores from memory: one chunk and one block of value columns per item."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents, times = cut.chunks(n), cut.blocks.number
    tensors = [cut.moved("Q", times * n * d), *moved_gates(call, cut, times * n), cut.moved("V", n * d_v)]
    tensors.append(as_wide(cut, "states", "K", extents.number * cut.features * d_v))
    tensors += [cut.moved("scores", times * n * cut.chunk), cut.moved("O", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number * times)
        number, part = divmod(index, times)
        at, block = extents[number], cut.blocks[part]
        read = (*cut.rows("Q", head, at), *gate_touches(cut, gates_of(call), head, at))
        yield (*read, state(cut, "states", head, number, block, False))
        formed = Touch("scores", head, number * cut.chunk**2, at[1] * cut.chunk, False)
        yield (values_of(cut, "V", head, at, block, False), formed)
        yield cut.values("O", head, at, block, write=True)

    inter, each = 2 * n * cut.features * d_v, 2 * d_v
    useful, executed = (inter + each * area for area in (causal_pairs(extents), square_pairs(extents)))
    work = Work(extents.number * times, useful, executed, times * n * cut.gate) * cut.heads
    program = Program(cut.heads, extents.number * times, widths(call, cut), steps)
    return Launch("outputs", program.items, Traffic(tuple(tensors)), work, program)


def from_whole(call: Call, cut: Chunks) -> Launch:
    """One block of score rows and one of value columns per item: the state, then the keys of its chunk up to it."""
    n, d, d_v, size = (
        call.problem.n_kv,
        call.problem.shape.head_dim,
        call.problem.shape.head_dim_v,
        _row_block(call, cut),
    )
    extents, rows, times = cut.chunks(n), strips(n, size), cut.blocks.number
    keys = n + extents.total(lambda r: size * pairs(r, size))
    area = extents.total(lambda r: size * size * pairs(r, size) + r * (r - size * ((r - 1) // size)))
    tensors = [cut.moved("Q", times * n * d), *moved_gates(call, cut, times * (n + keys)), cut.moved("V", keys * d_v)]
    tensors.append(as_wide(cut, "states", "K", rows.number * cut.features * d_v))
    tensors += [cut.moved("scores", times * area), cut.moved("O", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, rows.number * times)
        at, block = rows[index // times], cut.blocks[index % times]
        number, within = divmod(at[0], cut.chunk)
        seen = at[0] - within, within + at[1]
        own, gates = gate_touches(cut, gates_of(call), head, at), gate_touches(cut, gates_of(call), head, seen)
        yield (*cut.rows("Q", head, at), *own, state(cut, "states", head, number, block, False))
        formed = Touch("scores", head, number * cut.chunk**2 + within * cut.chunk, at[1] * seen[1], False)
        yield (formed, *gates, values_of(cut, "V", head, seen, block, False))
        yield cut.values("O", head, at, block, write=True)

    inter, each = 2 * n * cut.features * d_v, 2 * d_v
    work = Work(
        rows.number * times, inter + each * causal_pairs(extents), inter + each * area, times * cut.gate * (n + area)
    )
    program = Program(cut.heads, rows.number * times, widths(call, cut), steps)
    return Launch("outputs", program.items, Traffic(tuple(tensors)), work * cut.heads, program)


def _row_block(call: Call, cut: Chunks) -> int:
    """Rows of one item of the outputs.

    Raises:
        UsageError: chunks that are no whole blocks.
    """
    size = least(cut.chunk, call.number("score_block"))
    if decide(cut.chunk % size != 0):
        raise UsageError(f"chunks of {cut.chunk} are no whole blocks of {size}", "--set score_block", "a divisor")
    return size
