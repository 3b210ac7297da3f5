"""Linear attention in one pass: Lightning Attention 2 with the state on chip, and Lightning Attention 1.

Words per head, N tokens, b blocks of value columns (each a work item with its own slice of the state):
    lightning2     reads b N (2 d + gate) + N d_v   writes N d_v      compulsory when b = 1
    lightning1     FlashAttention-2's words without the log-sum-exp: the product (QK^T * mask) V, tile by tile
Within a chunk of c tokens the scores are formed, c^2 of them; what lies before comes from the state, f x d_v.
`prefix` P adds an encoder part that every token sees (JRT's prefix linear attention): P (b d + d_v) more reads.
Full attention reads all K and V first, then all Q: the same words.
Sources: Qin et al. 2024, Lightning Attention-2 (arXiv 2401.04658); Qin et al. 2023, TransNormerLLM (arXiv
2307.14995) for Lightning Attention-1; Arora et al. 2024, Just read twice (arXiv 2407.05483).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels import flash2
from iosim.kernels.algorithm import MMA_ROWS, STAGES, Algorithm, Call, Parameter, register
from iosim.kernels.linear_parts import (
    FEATURE_MAP,
    GATE,
    NORMALISE,
    VALUE_BLOCK,
    Chunks,
    causal_pairs,
    chunks_of,
    item_exp,
    square_pairs,
)
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Program, Touch, Traffic, Work, WorkingSet


def one_pass(call: Call) -> tuple[Launch, ...]:
    """lightning2: an item is one block of value columns of one head."""
    cut, prefix = chunks_of(call), _prefix(call)
    n_q, n_kv, d, d_v = call.problem.n_q, call.problem.n_kv, call.problem.shape.head_dim, call.problem.shape.head_dim_v
    times = cut.blocks.number
    tensors = [
        cut.moved("Q", times * n_q * d),
        cut.moved("K", times * n_kv * d),
        cut.moved("V", n_kv * d_v),
        cut.moved("O", 0, n_q * d_v),
    ]
    if decide(cut.gate != 0):
        tensors.append(cut.moved("g", times * n_kv * cut.gate))
    if prefix:
        bits = call.problem.types.bits
        tensors.append(replace(cut.moved("K_prefix", times * prefix * d), bits=bits("K")))
        tensors.append(replace(cut.moved("V_prefix", prefix * d_v), bits=bits("V")))
    program = _program(call, cut, prefix)
    return (Launch("forward", program.items, Traffic(tuple(tensors)), _work(call, cut, prefix), program),)


def _prefix(call: Call) -> int:
    """Tokens of the encoder part.

    Raises:
        UsageError: longer than the sequence.
    """
    prefix = call.number("prefix")
    if decide(prefix > call.problem.n_kv):
        raise UsageError(f"a prefix of {prefix} in {call.problem.n_kv} keys", "--set prefix")
    return prefix


def _work(call: Call, cut: Chunks, prefix: int) -> Work:
    """Products with the state, and in causal chunks the scores; masked scores are executed."""
    problem, f = call.problem, cut.features
    columns = problem.shape.head_dim_v + cut.extra * cut.blocks.number
    tokens, chunks = problem.n_q, cut.chunks(problem.n_q)
    state = 2 * f * columns * (problem.n_q + problem.n_kv + prefix)
    useful, executed = state, state
    if cut.causal:
        useful = state + causal_pairs(chunks) * 2 * (f + columns)
        executed = state + square_pairs(chunks) * 2 * (f * cut.blocks.number + columns)
    exp = item_exp(call, cut, tokens + problem.n_kv + prefix, problem.n_kv) * cut.blocks.number
    pairs = chunks.number * cut.blocks.number if cut.causal else 0
    return Work(pairs, useful, executed, exp) * cut.heads


def _program(call: Call, cut: Chunks, prefix: int) -> Program:
    """Chunks in order; the state never leaves the core."""
    problem = call.problem
    k_chunks, q_chunks = cut.chunks(problem.n_kv), cut.chunks(problem.n_q)

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, cut.blocks.number)
        block = cut.blocks[index]
        for at in cut.chunks(prefix):
            left, width = block
            values = Touch("V_prefix", cut.kv_head(head), left * prefix + at[0] * width, at[1] * width, False)
            yield Touch("K_prefix", cut.kv_head(head), *at, False), values
        if cut.causal:
            for at in q_chunks:
                yield (
                    *(touch for name in ("Q", "K", "g") for touch in cut.rows(name, head, at)),
                    *cut.values("V", head, at, block),
                )
                yield cut.values("O", head, at, block, write=True)
            return
        for at in k_chunks:
            keys = (touch for name in ("K", "g") for touch in cut.rows(name, head, at))
            yield (*keys, *cut.values("V", head, at, block))
        for at in q_chunks:
            yield cut.rows("Q", head, at)
            yield cut.values("O", head, at, block, write=True)

    widths = cut.widths() | {"K_prefix": problem.shape.head_dim, "V_prefix": 1}
    return Program(cut.heads, cut.blocks.number, widths, steps)


def working_set(call: Call) -> WorkingSet:
    """One chunk of Q, K and V in shared memory; the state, the chunk's scores and output in registers."""
    cut, bits, shape = chunks_of(call), call.problem.types.bits, call.problem.shape
    width = cut.blocks.widest
    shared = cut.chunk * (shape.head_dim * (bits("Q") + bits("K")) + width * bits("V") + cut.gate * bits("g"))
    words = cut.features * (width + cut.extra) + cut.chunk * (width + (cut.chunk if cut.causal else 0))
    return WorkingSet(shared // 8, words * bits("accumulator") // 8)


def left_product(call: Call) -> tuple[Launch, ...]:
    """lightning1: FlashAttention-2 without a softmax."""
    chunks_of(call)
    (launch,) = flash2.forward(call)
    return (replace(launch, work=replace(launch.work, exp=0, exp_rescale=0)),)


LIGHTNING2 = register(
    Algorithm(
        name="lightning2",
        title="Lightning Attention 2: chunks with the state on chip",
        source="Qin et al. 2024, arXiv 2401.04658",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(
            FEATURE_MAP,
            GATE,
            VALUE_BLOCK,
            NORMALISE,
            Parameter("prefix", 0, "tokens of an encoder part that every token sees", least=1),
        ),
        launches=one_pass,
        working_set=working_set,
        packs=False,
    )
)

LIGHTNING1 = register(
    Algorithm(
        name="lightning1",
        title="Lightning Attention 1: the left product tile by tile",
        source="Qin et al. 2023, arXiv 2307.14995",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(STAGES, MMA_ROWS),
        launches=left_product,
        working_set=flash2.working_set,
    )
)
