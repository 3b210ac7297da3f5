"""Linear attention whose states go through slow memory, so that all chunks work at once.

Words per head, N tokens in n = ceil(N / c) chunks, b blocks of value columns, f the feature width, g gate words:
  chunk-states (gated linear attention, materialised)
    states    reads b N (d + g) + N d_v             writes n f d_v      (the state before each chunk)
    outputs   reads b N (2 d + g) + N d_v + n f d_v  writes N d_v
  delta-rule (chunkwise, in its WY form; beta is one word per token)
    prepare   reads N (d + d_v + 1 + g)             writes N (d + d_v)  (W and U of the chunk)
    states    reads b N (2 d + g) + N d_v           writes N d_v + n d d_v   (corrected values, states)
    outputs   reads b N (2 d + g) + N d_v + n d d_v  writes N d_v
Released code has more launches (`chunk_launches`): `cumsum` sums gates first; `scores` go through memory, so that outputs
read them and not K, N c words for each block of value columns, or with `whole` scores, a block of s rows per item, those of
U keys up to it in its chunk: reads b (N (d + g) + U g + C) + U d_v + f d_v ceil(N / s), C scores and U keys in all; with
`pass_states` a chunk's own state is one item, n f d_v words written in fp32.
State traffic 2 n f d_v is below that of V and O, 2 N d_v, when c > f.
Sources: Yang et al. 2024, Gated Linear Attention (arXiv 2312.06635) section 4; Yang et al. 2024, Parallelizing
Linear Transformers with the Delta Rule (arXiv 2406.06484); Dao, Gu 2024, Mamba-2 (arXiv 2405.21060) section 6.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.exact import decide, least
from iosim.kernels import chunk_launches as beside
from iosim.kernels.algorithm import Algorithm, Call, register
from iosim.kernels.chunk_launches import as_wide, gate_touches, gates_of, moved_gates, state, values_of, widths
from iosim.kernels.chunk_outputs import from_keys, from_lower, from_whole
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
from iosim.schedule import Launch, Program, Touch, Traffic, Work, WorkingSet


def gated(call: Call) -> tuple[Launch, ...]:
    """chunk-states: states, then outputs, and what released code has around them."""
    cut = causal_chunks(call, "lightning2 computes full attention")
    beside.check(call, cut)
    states = _own_states(call, cut) if call.flag("pass_states") else _states(call, cut, ("K",), "V", "")
    outputs = {"none": from_keys, "lower": from_lower, "whole": from_whole}[str(call.settings["scores"])]
    last = outputs(call, cut)
    return (*beside.cumsum(call, cut), states, *beside.passed(call, cut), *beside.scores(call, cut), last)


def delta(call: Call) -> tuple[Launch, ...]:
    """delta-rule: W and U of each chunk, states with corrected values, outputs."""
    cut = causal_chunks(call, "lightning2 computes full attention")
    return (_prepare(call, cut), _states(call, cut, ("K", "W"), "U", "V_new"), from_keys(call, cut, "V_new"))


def _prepare(call: Call, cut: Chunks) -> Launch:
    """One chunk per item: T = (I + tril(beta K K^T))^-1 beta, W = T K, U = T V."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents = cut.chunks(n)
    tensors = [cut.moved("K", n * d), cut.moved("V", n * d_v), cut.moved("beta", n)]
    tensors += [cut.moved("g", n * cut.gate)] if decide(cut.gate != 0) else []
    tensors += [as_wide(cut, "W", "K", 0, n * d), as_wide(cut, "U", "V", 0, n * d_v)]

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number)
        at = extents[index]
        read = (touch for name in ("K", "g") for touch in cut.rows(name, head, at))
        values = (touch for block in cut.blocks for touch in cut.values("V", head, at, block))
        yield (*read, *values, Touch("beta", cut.kv_head(head), *at, False))
        written = (values_of(cut, "U", head, at, block, True) for block in cut.blocks)
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
    tensors = [as_wide(cut, name, "K", times * n * d) for name in rows]
    tensors += moved_gates(call, cut, times * n)
    tensors.append(as_wide(cut, values, "V", n * d_v))
    tensors.append(as_wide(cut, "states", "K", 0, extents.number * cut.features * d_v))
    tensors += [as_wide(cut, corrected, "V", 0, n * d_v)] if corrected else []

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, times)
        block = cut.blocks[index]
        for number, at in enumerate(extents):
            yield (state(cut, "states", head, number, block, True),)
            own = (Touch(name, head, *at, False) for name in rows if name != "K")
            shared = (*cut.rows("K", head, at), *gate_touches(cut, gates_of(call), head, at))
            yield (*shared, *own, values_of(cut, values, head, at, block, False))
            if corrected:
                yield (values_of(cut, corrected, head, at, block, True),)

    flop = 2 * n * cut.features * d_v * (2 if corrected else 1)
    work = Work(0, flop, flop, item_exp(call, cut, n, n) * times) * cut.heads
    program = Program(cut.heads, times, widths(call, cut), steps)
    return Launch("states", program.items, Traffic(tuple(tensors)), work, program)


def _own_states(call: Call, cut: Chunks) -> Launch:
    """One chunk and one block of value columns per item: the state of the chunk alone, in fp32."""
    n, d, d_v = call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    extents, times = cut.chunks(n), cut.blocks.number
    tensors = [cut.moved("K", times * n * d), cut.moved("V", n * d_v), *moved_gates(call, cut, times * n)]
    tensors.append(cut.moved("chunk_states", 0, extents.number * cut.features * d_v))

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number * times)
        number, part = divmod(index, times)
        at, block = extents[number], cut.blocks[part]
        gates = gate_touches(cut, gates_of(call), head, at)
        yield (*cut.rows("K", head, at), *gates, values_of(cut, "V", head, at, block, False))
        yield (state(cut, "chunk_states", head, number, block, True),)

    flop = 2 * n * cut.features * d_v
    work = Work(0, flop, flop, item_exp(call, cut, n, n) * times) * cut.heads
    program = Program(cut.heads, extents.number * times, widths(call, cut), steps)
    return Launch("states", program.items, Traffic(tuple(tensors)), work, program)


def working_set(call: Call) -> WorkingSet:
    """Of the outputs: a block of rows of Q and as many keys, 64 with scores from memory row block by row block, 64 key
    columns at a time; scores and output in registers."""
    cut, bits, shape = chunks_of(call), call.problem.types.bits, call.problem.shape
    width, depth, rows, keys = cut.blocks.widest, least(64, shape.head_dim), cut.chunk, cut.chunk
    if call.settings.get("scores") == "whole":
        rows, keys = least(cut.chunk, call.number("score_block")), least(64, cut.chunk)
    shared = rows * (depth * bits("Q") + least(depth, cut.gate) * bits("g"))
    shared += keys * (depth * bits("K") + width * bits("V")) + least(64, cut.features) * width * bits("K")
    return WorkingSet(shared // 8, rows * (keys + width) * bits("accumulator") // 8)


CHUNK_STATES = register(
    Algorithm(
        name="chunk-states",
        title="Gated linear attention with materialised states",
        source="Yang et al. 2024, arXiv 2312.06635, section 4",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(FEATURE_MAP, GATE, VALUE_BLOCK, *beside.PARAMETERS),
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
