"""RAT's decoding: a cache of one summary per chunk, and the states of the chunk that is not complete.

Words per key/value head with G query heads, t new tokens that end at token N, S = floor((N - t) / L) summaries in the
cache, w = max(d, d_v) gate words per token, e = d + d_v:
    reads   S e + t (e + w + G d), and e of states when the new tokens begin inside a chunk
    writes  t G d_v + (floor(N / L) - S) e of summaries that are complete now, and e of states when they end inside one
The cache is an L-th of softmax attention's N e. New tokens of one call find each other's states on chip; all rows of
a key/value head share each tile of summaries.
FLOP: recurrence 3 e + w per token (e + w where a chunk begins), attention 2 e per query head and summary that a
token sees, its own state included. Exponentials: one each; corrections: one per row and tile, the states on chip
being one more.
Sources: Wei et al. 2025, RAT (arXiv 2507.04416) section 3; `step` of CLAIRE-Labo/RAT src/model/backbone/rat/rat.py,
which takes one token and writes the states at a chunk's end too.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import ceil_div, decide, least, most
from iosim.kernels.algorithm import Algorithm, Call, register
from iosim.kernels.blocks import strips
from iosim.kernels.kernel_file import mask_kind
from iosim.kernels.linear_parts import is_causal
from iosim.kernels.programs import Step
from iosim.kernels.rat import CHUNK, chunks_before
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

#: tensors as wide as an operand; gates are fp32
LIKE = {"K_summary": "K", "K_state": "K", "K_state_out": "K", "V_summary": "V", "V_state": "V", "V_state_out": "V"}
PAIRS = (("K", "head_dim"), ("V", "head_dim_v"))


def decode(call: Call) -> tuple[Launch, ...]:
    """One item per key/value head.

    Raises:
        UsageError: a mask that hides summaries, or V within K.
    """
    _check(call)
    problem, shape, chunk = call.problem, call.problem.shape, call.number("chunk")
    end, new = problem.n_kv, problem.n_q
    cached, complete = (end - new) // chunk, end // chunk
    enters, leaves = (least(1, place % chunk) for place in (end - new, end))  # 1 inside a chunk, 0 between two
    rows = {"Q": new * shape.group, "g": new, "O": new * shape.group}
    widths = {"Q": shape.head_dim, "g": most(shape.head_dim, shape.head_dim_v), "O": shape.head_dim_v}
    read, written = {"Q": rows["Q"], "g": new}, {"O": rows["O"]}
    for name, size in PAIRS:
        widths |= {name + end_: getattr(shape, size) for end_ in ("", "_summary", "_state", "_state_out")}
        read |= {name: new, f"{name}_summary": cached, f"{name}_state": enters}
        written |= {f"{name}_summary": complete - cached, f"{name}_state_out": leaves}

    def steps(head: int) -> Iterator[Step]:
        yield tuple(Touch(t, head, 0, count, False) for t, count in read.items() if count and "summary" not in t)
        for tile in strips(cached, call.tiling.cols):
            yield tuple(Touch(f"{name}_summary", head, *tile, False) for name, _ in PAIRS)
        first = {"K_summary": cached, "V_summary": cached}
        yield tuple(Touch(t, head, first.get(t, 0), count, True) for t, count in written.items() if count)

    heads, bits = shape.batch * shape.kv_heads, problem.types.bits
    tensors = dict.fromkeys((*read, *written))
    moved = tuple(
        Moved(t, bits(LIKE.get(t, t)), *(heads * side.get(t, 0) * widths[t] for side in (read, written)))
        for t in tensors
    )
    program = Program(heads, 1, widths, steps)
    return (Launch("decode", heads, Traffic(moved), _work(call, cached) * heads, program),)


def _check(call: Call) -> None:
    problem = call.problem
    if not is_causal(problem) and not (mask_kind(problem) == "full" and decide(problem.n_q == 1)):
        raise UsageError("RAT decodes causally: each new token sees all summaries before it", "--mask", "causal")
    if problem.shape.latent:
        raise UsageError("RAT reads V apart from K", "--latent")


def _work(call: Call, cached: int) -> Work:
    """Of one key/value head."""
    problem, shape, chunk = call.problem, call.problem.shape, call.number("chunk")
    first, new, group = problem.n_kv - problem.n_q, problem.n_q, shape.group
    begun = ceil_div(problem.n_kv, chunk) - ceil_div(first, chunk)
    seen = chunks_before(problem.n_kv, chunk) - chunks_before(first, chunk) + new  # of all new tokens, with their own
    gates = new * most(shape.head_dim, shape.head_dim_v)
    flop = problem.pair_elements * (3 * new - 2 * begun) + gates + 2 * problem.pair_elements * group * seen
    tiles = ceil_div(cached, call.tiling.cols)
    return Work(tiles, flop, flop, group * seen, group * new * (tiles + 1))


def working_set(call: Call) -> WorkingSet:
    """Rows of Q, a tile of summaries and the new tokens' states in shared memory; scores and output in registers."""
    shape, bits, new = call.problem.shape, call.problem.types.bits, call.problem.n_q
    row, rows = shape.head_dim * bits("K") + shape.head_dim_v * bits("V"), new * shape.group
    shared = rows * shape.head_dim * bits("Q") + (call.tiling.cols + 2 * new) * row
    return WorkingSet(shared // 8, rows * (call.tiling.cols + shape.head_dim_v + 2) * bits("accumulator") // 8)


RAT_DECODE = register(
    Algorithm(
        name="rat-decode",
        title="RAT's decoding from a cache of summaries",
        source="Wei et al. 2025, arXiv 2507.04416",
        algorithm_class="summaries",
        phases=("decode",),
        parameters=(CHUNK,),
        launches=decode,
        working_set=working_set,
        packs=False,
    )
)
