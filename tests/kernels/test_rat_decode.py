"""RAT's decoding: it goes on from a cache, moves an L-th of attention's, and no less than its own floor."""

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
from iosim.floors.linear import own_bounds
from iosim.kernels import make_schedule
from iosim.schedule import Schedule

Array = np.ndarray


@st.composite
def cases(draw: st.DrawFn) -> dict:
    sizes = {"before": 25, "new": 9, "d": 4, "d_v": 4, "cols": 3, "chunk": 7, "group": 2, "kv_heads": 2, "batch": 2}
    case = {name: draw(st.integers(0 if name == "before" else 1, most)) for name, most in sizes.items()}
    return case | {"seed": draw(st.integers(0, 2**32 - 1))}


def schedule_of(case: dict) -> Schedule:
    heads, end = case["group"] * case["kv_heads"], case["before"] + case["new"]
    asked = problem(
        case["new"], end, case["d"], case["d_v"], "causal", heads, case["kv_heads"], case["batch"], "decode"
    )
    return make_schedule(asked, None, "rat-decode", tile(1, case["cols"]), {"chunk": case["chunk"]})


def sequence(case: dict) -> tuple[Array, Array, Array, Array]:
    rng, kv, n = np.random.default_rng(case["seed"]), case["batch"] * case["kv_heads"], case["before"] + case["new"]
    q, k, v = (
        rng.normal(size=(heads, n, size))
        for heads, size in ((kv * case["group"], case["d"]), (kv, case["d"]), (kv, case["d_v"]))
    )
    return q, k, v, rng.uniform(0.4, 0.9, size=(kv, n, max(case["d"], case["d_v"])))


def place(case: dict, q: Array, k: Array, v: Array, g: Array) -> Memory:
    """What earlier calls have left, and the new tokens."""
    memory, first, chunk = Memory(), case["before"], case["chunk"]
    for name, x in (("K", k), ("V", v)):
        made = [numpy_rat.states(head, gates, chunk) for head, gates in zip(x, g, strict=True)]
        ends = slice(chunk - 1, first, chunk)
        memory.put(f"{name}_summary", np.array([states[ends] for states in made]))
        if first % chunk:
            memory.put(f"{name}_state", np.array([states[first - 1 : first] for states in made]))
        memory.put(name, x[:, first:])
    rows = q[:, first:].reshape(len(k), case["group"], case["new"], -1).swapaxes(1, 2)
    memory.put("Q", rows.reshape(len(k), case["group"] * case["new"], -1))
    memory.put("g", g[:, first:])
    return memory


@given(cases())
def test_it_goes_on_from_the_cache(case: dict) -> None:
    schedule = schedule_of(case)
    check(schedule)
    q, k, v, g = sequence(case)
    memory, count, first, chunk = place(case, q, k, v, g), Arithmetic(), case["before"], case["chunk"]
    numpy_rat.step(schedule.launches[0], memory, first, chunk, case["group"], count)
    count.check(schedule.work)
    found = memory.get("O", len(k), (case["new"], case["group"], case["d_v"]))
    end = first + case["new"]
    for head in range(len(q)):
        kv = head // case["group"]
        close(found[kv, :, head % case["group"]], numpy_rat.direct(q[head], k[kv], v[kv], g[kv], chunk)[first:])
    for name, x in (("K", k), ("V", v)):  # what the next call finds
        for kv, head in enumerate(x):
            states = numpy_rat.states(head, g[kv], chunk)
            close(memory.data[f"{name}_summary", kv].reshape(-1, x.shape[2]), states[chunk - 1 : end : chunk])
            if end % chunk:
                close(memory.data[f"{name}_state_out", kv], states[-1])
    counted_as_scheduled(memory, schedule)


@given(cases())
def test_its_floor_counts_what_changes_what_it_leaves(case: dict) -> None:
    """Words of queries, of what is new and of what is kept, changed in turn: outputs, summaries and states all count."""
    case = case | {"before": case["before"] % 9, "new": 1 + case["new"] % 4, "batch": 1, "kv_heads": 1, "group": 1}
    schedule = schedule_of(case)
    q, k, v, g = sequence(case)

    cached = case["before"] // case["chunk"]
    old = {"K_summary": cached * case["d"], "V_summary": cached * case["d_v"]}  # what was there is no output
    written = [moved.tensor for moved in schedule.traffic.moved if moved.write_elements]

    def left(memory: Memory) -> Array:
        numpy_rat.step(schedule.launches[0], memory, case["before"], case["chunk"], 1, Arithmetic())
        return np.concatenate([memory.data[tensor, 0][old.get(tensor, 0) :] for tensor in written])

    known, matter = left(place(case, q, k, v, g)), 0
    for tensor, (read, _) in per_tensor(schedule).items():
        for word in range(read):
            memory = place(case, q, k, v, g)
            memory.data[tensor, 0][word] += 0.25
            matter += bool(np.abs(left(memory) - known).max() > 1e-12)
    reads, writes = own_bounds(schedule, FastMemory("given", 1 << 20))
    assert reads.value_elements == matter
    assert writes.value_elements == schedule.traffic.write_elements
    assert reads.value_elements <= schedule.traffic.read_elements


def test_the_cache_is_a_sixteenth() -> None:
    """The paper's factor L: at 4,096 tokens and chunks of 16, 256 summaries against 4,096 keys and values."""
    n, d = 4096, 128
    asked = problem(1, n, d, heads=16, kv_heads=16, phase="decode", mask="causal")
    moved = per_tensor(make_schedule(asked, None, "rat-decode"))
    whole = per_tensor(make_schedule(asked, None, "split-kv"))
    assert moved["K_summary"] == (16 * 255 * d, 16 * d)  # the last token completes the 256th
    assert moved["K_state"] == (16 * d, 0)
    assert whole["K"][0] / (moved["K_summary"][0] + moved["K_state"][0]) == 16


def test_what_decoding_refuses() -> None:
    with pytest.raises(UsageError, match="decodes causally"):
        make_schedule(problem(4, 64, 16, mask="full", phase="decode"), None, "rat-decode")
    with pytest.raises(UsageError, match="decodes causally"):
        make_schedule(problem(1, 64, 16, mask="causal-top-left", phase="decode"), None, "rat-decode")
    assert make_schedule(problem(1, 64, 16, mask="full", phase="decode"), None, "rat-decode")
    with pytest.raises(UsageError, match="V apart from K"):
        make_schedule(problem(1, 64, 16, 8, "causal", phase="decode", latent=True), None, "rat-decode")
    with pytest.raises(UsageError, match="does not compute prefill"):
        make_schedule(problem(64, 64, 16, mask="causal"), None, "rat-decode")
