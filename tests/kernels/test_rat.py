"""RAT: what it computes, moves and multiplies, its own floors, and attention and recurrence as its extremes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_rat
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory
from oracles.random_calls import per_tensor, problem, tile
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import check

from iosim.errors import UsageError
from iosim.floors import Memory as FastMemory
from iosim.floors.linear import own_bounds, summary_bounds
from iosim.kernels import Call, make_schedule
from iosim.kernels.rat import recurrent_of
from iosim.machine import load_device
from iosim.schedule import Schedule

Array = np.ndarray


@st.composite
def cases(draw: st.DrawFn) -> dict:
    sizes = {
        "n": 30, "d": 4, "d_v": 4, "rows": 9, "cols": 4, "chunk": 7, "group": 2, "kv_heads": 2, "batch": 2,
    }  # fmt: skip
    case = {name: draw(st.integers(1, most)) for name, most in sizes.items()}
    return case | {"fused": draw(st.booleans()), "seed": draw(st.integers(0, 2**32 - 1))}


def schedule_of(case: dict) -> Schedule:
    heads = case["group"] * case["kv_heads"]
    asked = problem(case["n"], case["n"], case["d"], case["d_v"], "causal", heads, case["kv_heads"], case["batch"])
    chosen = {"chunk": case["chunk"], "fused": case["fused"]}
    return make_schedule(asked, None, "rat", tile(case["rows"], case["cols"]), chosen)


def operands(case: dict) -> tuple[Array, Array, Array, Array]:
    rng, kv = np.random.default_rng(case["seed"]), case["batch"] * case["kv_heads"]
    q, k, v = (
        rng.normal(size=(heads, case["n"], size))
        for heads, size in ((kv * case["group"], case["d"]), (kv, case["d"]), (kv, case["d_v"]))
    )
    return q, k, v, rng.uniform(0.4, 0.9, size=(kv, case["n"], max(case["d"], case["d_v"])))


@given(cases())
def test_the_schedule_computes_its_function(case: dict) -> None:
    schedule = schedule_of(case)
    check(schedule)
    made = recurrent_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    q, k, v, g = operands(case)
    memory = Memory()
    for name, arrays in (("Q", q), ("K", k), ("V", v), ("g", g)):
        memory.put(name, arrays)
    for launch in schedule.launches:
        count = Arithmetic()
        numpy_rat.RUN[launch.name](launch, memory, made, count)
        count.check(launch.work)
    for head, found in enumerate(memory.get("O", len(q), (case["n"], case["d_v"]))):
        kv = head // case["group"]
        close(found, numpy_rat.direct(q[head], k[kv], v[kv], g[kv], case["chunk"]))
    counted_as_scheduled(memory, schedule)
    visited = sum(len(made.visited(at)) for at in made.q_tiles)
    assert schedule.work.tile_pairs == len(q) * visited


@given(cases())
def test_words_as_loops_over_tokens_count_them(case: dict) -> None:
    n, chunk, rows, cols = case["n"], case["chunk"], case["rows"], case["cols"]
    summaries = 0
    ends = [t for t in range(chunk - 1, n, chunk) if t + 1 < n]  # of chunks that some later token sees
    for first in range(0, n, rows):
        last = min(first + rows, n) - 1
        for left in range(0, len(ends), cols):
            if any(end // chunk < last // chunk for end in ends[left : left + cols]):
                summaries += len(ends[left : left + cols])
    kv = case["batch"] * case["kv_heads"]
    heads, d, d_v = kv * case["group"], case["d"], case["d_v"]
    own, gate = n, max(d, d_v)
    wanted = {
        "K": (kv * n * d, 0),
        "V": (kv * n * d_v, 0),
        "g": (kv * n * gate, 0),
        "K_state": (heads * (summaries + own) * d, kv * n * d),
        "V_state": (heads * (summaries + own) * d_v, kv * n * d_v),
        "Q": (heads * n * d * (1 if case["fused"] else 2), 0),
        "O": (0, heads * n * d_v),
    }
    if not case["fused"]:
        wanted |= {"O_across": (heads * n * d_v, heads * n * d_v), "LSE": (heads * n, heads * n)}
    assert per_tensor(schedule_of(case)) == wanted


@given(cases())
def test_its_floor_counts_what_changes_an_output_and_nothing_else(case: dict) -> None:
    """Every word of a counted row is changed in turn; rows that the floor leaves out change nothing."""
    case = case | {"n": 1 + case["n"] % 12}
    schedule = schedule_of(case)
    n, chunk = case["n"], case["chunk"]
    q, k, v, g = (array[0] for array in operands(case))
    before = numpy_rat.direct(q, k, v, g, chunk)
    matter = []
    for array in (q, k, v, g):
        found = 0
        for t, column in np.ndindex(*array.shape):
            array[t, column] += 0.25
            found += bool(np.abs(before - numpy_rat.direct(q, k, v, g, chunk)).max() > 1e-12)
            array[t, column] -= 0.25
        matter.append(found)
    kv = case["batch"] * case["kv_heads"]
    reads, writes = summary_bounds(schedule.problem, FastMemory("given", 1 << 20), chunk)
    assert (reads, writes) == own_bounds(schedule, FastMemory("given", 1 << 20))
    assert reads.value_elements == kv * (case["group"] * matter[0] + sum(matter[1:]))
    assert writes.value_elements == kv * case["group"] * n * case["d_v"]
    assert reads.value_elements <= schedule.traffic.read_elements
    assert reads.value_bytes + writes.value_bytes <= schedule.traffic.total_bytes


def test_chunks_of_one_token_are_attention_and_a_chunk_of_all_a_recurrence() -> None:
    """Section 3: RAT lies between the two. With g = 0 a state is its token."""
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 12, 4))
    g = rng.uniform(0.1, 0.9, size=(12, 4))
    scores = np.where(np.tri(12, dtype=bool), q @ k.T, -np.inf)
    p = np.exp(scores)
    close(numpy_rat.direct(q, k, v, np.zeros((12, 4)), 1), p @ v / p.sum(1, keepdims=True))
    close(numpy_rat.direct(q, k, v, g, 12), numpy_rat.states(v, g, 12))


def test_the_cache_and_the_pairs_shrink_by_the_chunk() -> None:
    """The paper's O(C D) per token against O(T D): a sixteenth of the pairs, and of the keys and values kept."""
    n, d = 1 << 16, 128
    asked = problem(n, n, d, mask="causal")
    across = make_schedule(asked, None, "rat").launches[1]
    whole = make_schedule(asked, None, "flash2")
    assert whole.work.flop / across.work.flop == pytest.approx(16, rel=1e-3)
    device = load_device("h100-sxm5")
    assert str(make_schedule(asked, device, "rat").tiling) == "128x64"
    keys = per_tensor(make_schedule(asked, device, "flash2", tile(128, 64)))["K"][0]
    summaries = across.traffic.per_tensor()["K_state"]["read_elements"]
    assert keys / summaries == pytest.approx(16, rel=0.02)


def test_what_it_refuses() -> None:
    with pytest.raises(UsageError, match="causal attention only"):
        make_schedule(problem(64, 64, 16), None, "rat")
    with pytest.raises(UsageError, match="chunk must be at least 1"):
        make_schedule(problem(64, 64, 16, mask="causal"), None, "rat", None, {"chunk": 0})
    with pytest.raises(UsageError, match="no tile for head size 512"):
        make_schedule(problem(64, 64, 512, mask="causal"), None, "rat")
    device, asked = load_device("h100-sxm5"), problem(8192, 8192, 128, mask="causal")
    with pytest.raises(UsageError, match="shared memory per block") as refused:
        make_schedule(asked, device, "rat", tile(1024, 64))
    assert refused.value.faults[0].hint == "the largest that fits is 336x64"
