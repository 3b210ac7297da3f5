"""Linear attention whose states go through slow memory, so that all chunks work at once.

Words per head, N tokens in n = ceil(N / c) chunks, b blocks of value columns, f the feature width, g gate words:
  chunk-states (gated linear attention, materialised)
    states    reads b N (d + g) + N d_v             writes n f d_v      (the state before each chunk)
    outputs   reads b N (2 d + g) + N d_v + n f d_v  writes N d_v
  delta-rule (chunkwise, in its WY form; beta is one word per token)
    prepare   reads N (d + d_v + 1 + g)             writes N (d + d_v)  (W and U of the chunk)
    states    reads b N (2 d + g) + N d_v           writes N d_v + n d d_v   (corrected values, states)
    outputs   reads b N (2 d + g) + N d_v + n d d_v  writes N d_v
State traffic 2 n f d_v is below that of V and O, 2 N d_v, when c > f.
Sources: Yang et al. 2024, Gated Linear Attention (arXiv 2312.06635) section 4; Yang et al. 2024, Parallelizing
Linear Transformers with the Delta Rule (arXiv 2406.06484); the chunk kernels of flash-linear-attention.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.exact import decide
from iosim.kernels.algorithm import Algorithm, Call, register
from iosim.kernels.blocks import Extent
from iosim.kernels.linear_parts import (
    FEATURE_MAP,
    GATE,
    VALUE_BLOCK,
    Chunks,
    causal_chunks,
    causal_pairs,
    chunks_of,
    item_exp,
    square_pairs,
)
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet


def gated(call: Call) -> tuple[Launch, ...]:
    """chunk-states: states, then outputs."""
    cut = causal_chunks(call, "lightning2 computes full attention")
    return (_states(call, cut, ("K",), "V", ""), _outputs(call, cut, "V"))


def delta(call: Call) -> tuple[Launch, ...]:
    """delta-rule: W and U of each chunk, states with corrected values, outputs."""
    cut = causal_chunks(call, "lightning2 computes full attention")
    return (_prepare(call, cut), _states(call, cut, ("K", "W"), "U", "V_new"), _outputs(call, cut, "V_new"))


def _prepare(call: Call, cut: Chunks) -> Launch:
    """One chunk per item: T = (I + tril(beta K K^T))^-1 beta, W = T K, U = T V."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents = cut.chunks(n)
    tensors = [cut.moved("K", n * d), cut.moved("V", n * d_v), cut.moved("beta", n)]
    tensors += [cut.moved("g", n * cut.gate)] if decide(cut.gate != 0) else []
    tensors += [_as(cut, "W", "K", 0, n * d), _as(cut, "U", "V", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number)
        at = extents[index]
        read = (touch for name in ("K", "g") for touch in cut.rows(name, head, at))
        values = (touch for block in cut.blocks for touch in cut.values("V", head, at, block))
        yield (*read, *values, Touch("beta", cut.kv_head(head), *at, False))
        written = (_values(cut, "U", head, at, block, True) for block in cut.blocks)
        yield (Touch("W", head, *at, True), *written)

    inverse = extents.total(lambda size: size * (size - 1) * (size - 2) // 3)
    scores, applied = 2 * d, 2 * (d + d_v)  # K K^T below its diagonal; T, which has one, with K and V
    useful = causal_pairs(extents) * (scores + applied) - n * scores + inverse
    executed = square_pairs(extents) * (scores + applied) + inverse
    work = Work(0, useful, executed, cut.gate * n) * cut.heads
    program = Program(cut.heads, extents.number, cut.widths() | {"beta": 1, "W": d, "U": 1}, steps)
    return Launch("prepare", program.items, Traffic(tuple(tensors)), work, program)


def _states(call: Call, cut: Chunks, rows: tuple[str, ...], values: str, corrected: str) -> Launch:
    """One block of value columns of one head per item, chunks in order; a state is written before each chunk."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents, times = cut.chunks(n), cut.blocks.number
    tensors = [_as(cut, name, "K", times * n * d) for name in rows]
    tensors += [cut.moved("g", times * n * cut.gate)] if decide(cut.gate != 0) else []
    tensors.append(_as(cut, values, "V", n * d_v))
    tensors.append(_as(cut, "states", "K", 0, extents.number * cut.features * d_v))
    tensors += [_as(cut, corrected, "V", 0, n * d_v)] if corrected else []

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, times)
        block = cut.blocks[index]
        for number, at in enumerate(extents):
            yield (_state(cut, head, number, block, True),)
            own = (Touch(name, head, *at, False) for name in rows if name != "K")
            shared = (touch for name in ("K", "g") for touch in cut.rows(name, head, at))
            yield (*shared, *own, _values(cut, values, head, at, block, False))
            if corrected:
                yield (_values(cut, corrected, head, at, block, True),)

    flop = 2 * n * cut.features * d_v * (2 if corrected else 1)
    work = Work(0, flop, flop, item_exp(call, cut, n, n) * times) * cut.heads
    program = Program(cut.heads, times, _named(cut, d), steps)
    return Launch("states", program.items, Traffic(tuple(tensors)), work, program)


def _outputs(call: Call, cut: Chunks, values: str) -> Launch:
    """One chunk and one block of value columns per item."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents, times = cut.chunks(n), cut.blocks.number
    tensors = [cut.moved("Q", times * n * d), cut.moved("K", times * n * d)]
    tensors += [cut.moved("g", times * n * cut.gate)] if decide(cut.gate != 0) else []
    tensors.append(_as(cut, values, "V", n * d_v))
    tensors += [_as(cut, "states", "K", extents.number * cut.features * d_v), cut.moved("O", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number * times)
        number, part = divmod(index, times)
        at, block = extents[number], cut.blocks[part]
        read = (touch for name in ("Q", "K", "g") for touch in cut.rows(name, head, at))
        yield (*read, _values(cut, values, head, at, block, False), _state(cut, head, number, block, False))
        yield cut.values("O", head, at, block, write=True)

    inter = 2 * n * cut.features * d_v
    useful = inter + causal_pairs(extents) * 2 * (cut.features + d_v)
    executed = inter + square_pairs(extents) * 2 * (cut.features * times + d_v)
    work = Work(extents.number * times, useful, executed, item_exp(call, cut, 2 * n, n) * times) * cut.heads
    program = Program(cut.heads, extents.number * times, _named(cut, d), steps)
    return Launch("outputs", program.items, Traffic(tuple(tensors)), work, program)


def _named(cut: Chunks, d: int) -> dict[str, int]:
    return cut.widths() | {"W": d, "U": 1, "V_new": 1, "states": 1}


def _as(cut: Chunks, tensor: str, like: str, read: int = 0, write: int = 0) -> Moved:
    """A tensor of the call's own, as wide as an operand."""
    return Moved(tensor, cut.problem.types.bits(like), read * cut.heads, write * cut.heads)


def _values(cut: Chunks, tensor: str, head: int, at: Extent, block: Extent, write: bool) -> Touch:
    """Rows of V, which query heads of a group share, or of a head's own U or corrected values."""
    (touch,) = cut.values(tensor, head, at, block, write)
    return touch if tensor == "V" else touch._replace(head=head)


def _state(cut: Chunks, head: int, number: int, block: Extent, write: bool) -> Touch:
    """The slice of a chunk's state that belongs to a block of value columns."""
    left, width = block
    at = cut.features * (number * cut.problem.shape.head_dim_v + left)
    return Touch("states", head, at, cut.features * width, write)


def working_set(call: Call) -> WorkingSet:
    """Of the outputs: a chunk of V, and of Q, K and the state 64 key columns at a time; scores and output in registers."""
    cut, bits, shape = chunks_of(call), call.problem.types.bits, call.problem.shape
    width, depth = cut.blocks.widest, min(64, shape.head_dim)
    shared = cut.chunk * (depth * (bits("Q") + bits("K")) + width * bits("V") + min(depth, cut.gate) * bits("g"))
    shared += min(64, cut.features) * width * bits("K")
    return WorkingSet(shared // 8, cut.chunk * (cut.chunk + width) * bits("accumulator") // 8)


CHUNK_STATES = register(
    Algorithm(
        name="chunk-states",
        title="Gated linear attention with materialised states",
        source="Yang et al. 2024, arXiv 2312.06635, section 4",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(FEATURE_MAP, GATE, VALUE_BLOCK),
        launches=gated,
        working_set=working_set,
        packs=False,
    )
)

DELTA_RULE = register(
    Algorithm(
        name="delta-rule",
        title="Delta rule, chunkwise",
        source="Yang et al. 2024, arXiv 2406.06484",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(GATE, VALUE_BLOCK),
        launches=delta,
        working_set=working_set,
        packs=False,
    )
)
