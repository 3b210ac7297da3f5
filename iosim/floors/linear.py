"""Floors of linear attention and of decoding with a state: other functions than softmax attention.

    linear-reads    N_q d + N_kv (d + d_v), every row that is seen: without a softmax even a lone key matters; of a
                    kernel's function also its gates, steps and prefix (`own_inputs`)
    linear-writes   N_q d_v
    linear-state    4 N d d_v / sqrt(M) - 2 M - d d_v per head and N_q = N_kv = N: full attention through a
                    state, each multiply-add once; positive only for memories below about d d_v
    state-reads     f d_v words of state, and the rows and gates of the new tokens
    state-writes    f d_v words of state, and the outputs
    summary-reads   (N - L) d of Q, N d_v of V and of its gates and, when N > L, N d of K and the gates of its other
                    elements, N max(0, d - d_v): attention to summaries of chunks of L
    summary-writes  N d_v
                    decoding: each summary or state that there is before is read, each that is new is written
The third is the argument of L3: two products of N d d_v multiply-adds, Loomis and Whitney per segment of 2 M
virtual loads, where a state word's first use costs nothing. Query heads of a group may share its state. A query of
the first chunk sees one summary, its own, whose weight is one: neither it nor, in a lone chunk, any key matters.
Source: the arguments of L0 and L3, docs/explanation/floors.
"""

from __future__ import annotations

from math import isqrt

from iosim.attention import Attention
from iosim.exact import most
from iosim.floors.bound import Bound, Memory, narrowest_bits
from iosim.floors.own_inputs import gate_words, linear_inputs, operands
from iosim.schedule import Moved, Schedule, bits_to_bytes

COMPULSORY = ("any kernel of the same function, on worst-case data without compression", "a cold memory")
STATE = (
    "full attention computed as Q (K^T V) without a feature map",
    "each multiply-add executed once",
)


def own_bounds(schedule: Schedule, memory: Memory) -> tuple[Bound, ...]:
    """Floors of the function that a schedule computes, where it is not softmax attention and they are known.

    Args:
        schedule: linear attention, decoding with a state, attention to summaries; of others there are none.
        memory: the near side of the boundary.
    """
    problem, named = schedule.problem, schedule.algorithm_class
    if named == "linear":
        return linear_bounds(problem, memory, linear_inputs(schedule))
    if named == "summaries":
        return summary_bounds(problem, memory, int(str(schedule.parameters["chunk"])))
    if named == "recurrent":
        (state,) = (moved for moved in schedule.traffic.moved if moved.tensor == "state")
        columns = problem.shape.batch * problem.shape.kv_heads * problem.shape.head_dim_v
        return state_bounds(problem, memory, state.read_elements // columns, state.bits, gate_words(schedule))
    return ()


def own_floor_bytes(schedule: Schedule, memory: Memory, warm: bool = False) -> int | None:
    """Bytes that every kernel of the schedule's own function moves; None where it is softmax attention.

    Args:
        warm: the memory may hold operands before the call and outputs after it, so each side shrinks by it, as in L0.
    """
    kept = memory.kept_bits() // 8 if warm else 0
    bounds = [bound for bound in own_bounds(schedule, memory) if bound.counts != "total"]
    return sum(max(0, bound.value_bytes - kept) for bound in bounds) if bounds else None


def linear_bounds(
    problem: Attention, memory: Memory, inputs: tuple[Moved, ...] | None = None
) -> tuple[Bound, Bound, Bound]:
    """Floors of linear attention over a whole sequence.

    Args:
        problem: full or causal.
        memory: the near side of the boundary.
        inputs: what must be read; None: Q, K and V of linear attention without gates or a normaliser.
    """
    counts, shape, bits = problem.counts(), problem.shape, problem.types.bits
    inputs = inputs or operands(problem, counts.rows, counts.keys)
    outputs = (Moved("O", bits("O"), 0, counts.rows * shape.head_dim_v),)
    return (
        _moved("linear-reads", "reads", inputs, problem, memory, "linear"),
        _moved("linear-writes", "writes", outputs, problem, memory, "linear"),
        _through_a_state(problem, memory),
    )


def state_bounds(
    problem: Attention, memory: Memory, features: int, state_bits: int = 32, gate: int = 0
) -> tuple[Bound, Bound]:
    """Floors of decoding with a state of `features` x d_v words per key/value head, and `gate` words per token."""
    shape, bits = problem.shape, problem.types.bits
    heads, tokens = shape.batch * shape.kv_heads, problem.n_q
    state = heads * features * shape.head_dim_v
    rows = heads * shape.group * tokens
    inputs = (
        Moved("state", state_bits, state),
        Moved("Q", bits("Q"), rows * shape.head_dim),
        Moved("K", bits("K"), heads * tokens * shape.head_dim),
        Moved("V", bits("V"), heads * tokens * shape.head_dim_v),
        Moved("g", bits("g"), heads * tokens * gate),
    )
    outputs = (Moved("state", state_bits, 0, state), Moved("O", bits("O"), 0, rows * shape.head_dim_v))
    return (
        _moved("state-reads", "reads", inputs, problem, memory, "recurrent"),
        _moved("state-writes", "writes", outputs, problem, memory, "recurrent"),
    )


def summary_bounds(problem: Attention, memory: Memory, chunk: int) -> tuple[Bound, Bound]:
    """Floors of attention to recurrent summaries of chunks of so many tokens (RAT).

    Args:
        problem: causal, as many queries as keys.
        memory: the near side of the boundary.
        chunk: tokens per chunk.
    """
    if problem.phase == "decode":
        return _summary_step_bounds(problem, memory, chunk)
    shape, bits, n = problem.shape, problem.types.bits, problem.n_kv
    heads, kv_heads = shape.batch * shape.heads, shape.batch * shape.kv_heads
    inputs = (
        Moved("Q", bits("Q"), heads * max(0, n - chunk) * shape.head_dim),
        Moved("K", bits("K"), kv_heads * (n if n > chunk else 0) * shape.head_dim),
        Moved("V", bits("V"), kv_heads * n * shape.head_dim_v),
        Moved(
            "g", bits("g"), kv_heads * n * (most(shape.head_dim, shape.head_dim_v) if n > chunk else shape.head_dim_v)
        ),
    )
    outputs = (Moved("O", bits("O"), 0, heads * n * shape.head_dim_v),)
    return (
        _moved("summary-reads", "reads", inputs, problem, memory, "summaries"),
        _moved("summary-writes", "writes", outputs, problem, memory, "summaries"),
    )


def _summary_step_bounds(problem: Attention, memory: Memory, chunk: int) -> tuple[Bound, Bound]:
    """New tokens read the summaries of whole chunks before them and leave those, or states, that come after."""
    shape, bits, end, new = problem.shape, problem.types.bits, problem.n_kv, problem.n_q
    heads, kv_heads, first = shape.batch * shape.heads, shape.batch * shape.kv_heads, problem.n_kv - problem.n_q
    entered = first // chunk + (first % chunk != 0)  # summaries, and the states of a chunk begun before
    left = end // chunk - first // chunk + (end % chunk != 0)
    inputs = (
        Moved("Q", bits("Q"), heads * (end - max(first, min(chunk, end))) * shape.head_dim),
        Moved("K", bits("K"), kv_heads * (new + entered) * shape.head_dim),
        Moved("V", bits("V"), kv_heads * (new + entered) * shape.head_dim_v),
        Moved("g", bits("g"), kv_heads * new * most(shape.head_dim, shape.head_dim_v)),
    )
    outputs = (
        Moved("O", bits("O"), 0, heads * new * shape.head_dim_v),
        Moved("K", bits("K"), 0, kv_heads * left * shape.head_dim),
        Moved("V", bits("V"), 0, kv_heads * left * shape.head_dim_v),
    )
    return (
        _moved("summary-reads", "reads", inputs, problem, memory, "summaries"),
        _moved("summary-writes", "writes", outputs, problem, memory, "summaries"),
    )


def _moved(
    name: str, counted: str, tensors: tuple[Moved, ...], problem: Attention, memory: Memory, bound_class: str
) -> Bound:
    return Bound(
        id=name,
        value_elements=sum(m.read_elements + m.write_elements for m in tensors),
        value_bytes=sum(bits_to_bytes((m.read_elements + m.write_elements) * m.bits) for m in tensors),
        counts=counted,
        bound_class=bound_class,
        boundary=memory.boundary,
        memory_elements=memory.elements(narrowest_bits(problem)),
        applies=True,
        conditions=COMPULSORY,
        source="compulsory traffic; docs/explanation/floors, L0",
    )


def _through_a_state(problem: Attention, memory: Memory) -> Bound:
    """linear-state; with several memories side by side each does its share from its own 2 M."""
    shape, counts, width = problem.shape, problem.counts(), narrowest_bits(problem)
    heads = shape.batch * shape.heads
    held = memory.elements(width)
    applies = counts.pairs == heads * problem.n_q * problem.n_kv and not shape.latent
    multiply_adds = (counts.rows + counts.keys) * shape.head_dim * shape.head_dim_v
    states = shape.batch * shape.kv_heads * shape.head_dim * shape.head_dim_v
    value = isqrt(4 * multiply_adds**2 // held) - 2 * held * memory.processors - states * memory.processors
    elements = max(0, value) if applies else 0
    return Bound(
        id="linear-state",
        value_elements=elements,
        value_bytes=elements * width // 8,
        counts="total",
        bound_class="linear",
        boundary=memory.boundary,
        memory_elements=held,
        applies=applies,
        conditions=STATE,
        source="Loomis-Whitney as for L3; docs/explanation/floors, L3",
    )
