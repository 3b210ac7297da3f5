"""Linear attention: schedules compute their recurrences, move what the theory note says, and no less than the floors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_linear
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, from_strips, in_strips
from test_counts import per_tensor, problem, tile
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import check

from iosim.errors import UsageError
from iosim.floors import Memory as FastMemory
from iosim.floors.linear import linear_bounds, state_bounds
from iosim.kernels import Call, make_schedule
from iosim.kernels.linear_parts import Chunks, chunks_of
from iosim.masks import Band, Grid
from iosim.schedule import Schedule

Array = np.ndarray
#: the paper's two launches; test_chunk_launches has those of released code
PLAIN: dict[str, object] = {"cumsum": False, "scores": "none", "pass_states": False}


@st.composite
def cases(draw: st.DrawFn) -> dict:
    return {
        "n": draw(st.integers(1, 20)),
        "d": draw(st.integers(1, 4)),
        "d_v": draw(st.integers(1, 5)),
        "chunk": draw(st.integers(1, 8)),
        "block": draw(st.integers(1, 5)),
        "group": draw(st.integers(1, 2)),
        "kv_heads": draw(st.integers(1, 2)),
        "gate": draw(st.sampled_from(["none", "scalar", "vector"])),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def schedule_of(case: dict, kernel: str, mask: str = "causal", **chosen: object) -> Schedule:
    asked = problem(
        case["n"], case["n"], case["d"], case["d_v"], mask, case["group"] * case["kv_heads"], case["kv_heads"]
    )
    given = {"value_block": case["block"]} | chosen
    return make_schedule(asked, None, kernel, tile(case["chunk"], case["chunk"]), given)


class Data:
    """Operands of a call in slow memory."""

    def __init__(self, case: dict, schedule: Schedule) -> None:
        self.cut: Chunks = chunks_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
        self.rng, self.width = np.random.default_rng(case["seed"]), case["block"]
        heads, kv_heads, self.group = self.cut.heads, case["kv_heads"], case["group"]
        self.q, self.k, self.v = (
            self.rng.normal(size=(count, case["n"], size)) * 0.5
            for count, size in ((heads, case["d"]), (kv_heads, case["d"]), (kv_heads, case["d_v"]))
        )
        self.g = -self.rng.uniform(0.01, 0.5, size=(kv_heads, case["n"], self.cut.gate)) if self.cut.gate else None
        self.memory = Memory()
        self.memory.put("Q", self.q)
        self.memory.put("K", self.k)
        self.memory.put("V", np.array([in_strips(v, self.width) for v in self.v]))
        if self.g is not None:
            self.memory.put("g", self.g)

    def gate(self, head: int) -> Array | None:
        return None if self.g is None else self.g[head // self.group]

    def output(self) -> Array:
        n, d_v = self.v.shape[1:]
        flat = self.memory.get("O", self.cut.heads, (n * d_v,))
        return np.stack([from_strips(head, n, d_v, self.width) for head in flat])


@given(
    cases(), st.sampled_from(["identity", "hedgehog", "taylor"]), st.sampled_from(["full", "causal"]), st.integers(0, 6),
    st.booleans(),
)  # fmt: skip
def test_lightning2_computes_its_recurrence(case: dict, features: str, mask: str, prefix: int, normalise: bool) -> None:
    prefix = min(prefix, case["n"])
    gate = "none" if mask == "full" else case["gate"] if features == "identity" else "none"
    normalise = normalise and features != "identity"  # whose sums may vanish
    chosen = {"features": features, "gate": gate, "normalise": normalise} | ({"prefix": prefix} if prefix else {})
    schedule = schedule_of(case, "lightning2", mask, **chosen)
    check(schedule)
    data = Data(case, schedule)
    k_prefix, v_prefix = (data.rng.normal(size=(len(data.k), prefix, size)) for size in (case["d"], case["d_v"]))
    if prefix:
        data.memory.put("K_prefix", k_prefix)
        data.memory.put("V_prefix", np.array([in_strips(v, case["block"]) for v in v_prefix]))
    count = Arithmetic()
    numpy_linear.one_pass(schedule.launches[0], data.memory, data.cut, features, count)
    count.check(schedule.work)
    phi = lambda x: numpy_linear.feature_map(x, features)  # noqa: E731
    for head, found in enumerate(data.output()):
        kv = head // case["group"]
        ones = lambda v: np.concatenate([v, np.ones((len(v), 1))], axis=1)  # noqa: E731
        start = phi(k_prefix[kv]).T @ ones(v_prefix[kv])
        wanted = numpy_linear.recurrent(
            phi(data.q[head]), phi(data.k[kv]), ones(data.v[kv]), data.gate(head), mask == "causal", start
        )
        close(found, wanted[:, :-1] / (wanted[:, -1:] if normalise else 1))
    counted_as_scheduled(data.memory, schedule)


@given(cases(), st.sampled_from(["identity", "hedgehog", "taylor"]))
def test_materialised_states_compute_the_same(case: dict, features: str) -> None:
    gate = case["gate"] if features == "identity" else "none"
    schedule = schedule_of(case, "gla", gate=gate, features=features, **PLAIN)
    check(schedule)
    data = Data(case, schedule)
    before, after = Arithmetic(), Arithmetic()
    numpy_linear.states(schedule.launches[0], data.memory, data.cut, features, before)
    numpy_linear.outputs(schedule.launches[1], data.memory, data.cut, features, "V", after)
    before.check(schedule.launches[0].work)
    after.check(schedule.launches[1].work)
    start = np.zeros((data.cut.features, case["d_v"]))
    phi = lambda x: numpy_linear.feature_map(x, features)  # noqa: E731
    for head, found in enumerate(data.output()):
        kv = head // case["group"]
        wanted = numpy_linear.recurrent(phi(data.q[head]), phi(data.k[kv]), data.v[kv], data.gate(head), True, start)
        close(found, wanted)
    counted_as_scheduled(data.memory, schedule)


@given(cases())
def test_chunkwise_delta_rule_computes_its_recurrence(case: dict) -> None:
    gate = "none" if case["gate"] == "vector" else case["gate"]
    schedule = schedule_of(case, "delta-rule", gate=gate)
    check(schedule)
    data = Data(case, schedule)
    beta = data.rng.uniform(0.1, 0.9, size=(len(data.k), case["n"], 1))
    data.memory.put("beta", beta)
    before, between, after = schedule.launches
    counts = [Arithmetic() for _ in schedule.launches]
    numpy_linear.prepare(before, data.memory, counts[0])
    numpy_linear.states(between, data.memory, data.cut, "identity", counts[1])
    numpy_linear.outputs(after, data.memory, data.cut, "identity", "V_new", counts[2])
    for count, launch in zip(counts, schedule.launches, strict=True):
        count.check(launch.work)
    for head, found in enumerate(data.output()):
        kv = head // case["group"]
        wanted = numpy_linear.delta_recurrent(data.q[head], data.k[kv], data.v[kv], data.gate(head), beta[kv])
        np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-10)
    counted_as_scheduled(data.memory, schedule)


def test_counts_of_the_theory_note() -> None:
    """Section 2.7: fused N (2 d_k + d_v), materialised with 2 n_c d_k d_v of states, on N = 4,096, chunks of 64."""
    n, d, d_v, chunk = 4096, 128, 256, 64
    asked = problem(n, n, d, d_v, "causal")
    fused = make_schedule(asked, None, "lightning2", tile(chunk, chunk), {"value_block": d_v}).traffic
    assert (fused.read_elements, fused.write_elements) == (n * (2 * d + d_v), n * d_v)
    halves = make_schedule(asked, None, "lightning2", tile(chunk, chunk), {"value_block": 128}).traffic
    assert halves.read_elements == n * (4 * d + d_v)
    ungated = {"value_block": d_v, "gate": "none"} | PLAIN
    first, second = make_schedule(asked, None, "gla", tile(chunk, chunk), ungated).launches
    states = n // chunk * d * d_v
    assert (first.traffic.read_elements, first.traffic.write_elements) == (n * (d + d_v), states)
    assert (second.traffic.read_elements, second.traffic.write_elements) == (n * (2 * d + d_v) + states, n * d_v)
    gated = make_schedule(asked, None, "gla", tile(chunk, chunk), {"value_block": d_v} | PLAIN).traffic
    assert gated.read_elements - first.traffic.read_elements - second.traffic.read_elements == 2 * n * d


@given(cases(), st.integers(1, 4), st.sampled_from(["identity", "hedgehog", "taylor"]))
def test_a_fixed_state_costs_the_same_at_any_context(case: dict, tokens: int, features: str) -> None:
    heads = case["group"] * case["kv_heads"]
    made = [
        make_schedule(
            problem(tokens, context, case["d"], case["d_v"], "causal", heads, case["kv_heads"], phase="decode"), None,
            "fixed-state", None, {"features": features, "gate": case["gate"]},
        )
        for context in (64, 1 << 20)
    ]  # fmt: skip
    assert made[0].traffic == made[1].traffic
    check(made[0])
    d, d_v = case["d"], case["d_v"]
    f = {"identity": d, "hedgehog": 2 * d, "taylor": 1 + d + d * d}[features]
    gate = {"none": 0, "scalar": 1, "vector": d}[case["gate"]]
    per_head = f * d_v + tokens * (case["group"] * d + d + d_v + gate)
    assert made[0].traffic.read_elements == case["kv_heads"] * per_head
    assert made[0].traffic.write_elements == case["kv_heads"] * (f * d_v + tokens * case["group"] * d_v)
    floor = state_bounds(made[0].problem, FastMemory("given", 1 << 40), f)
    moved = made[0].traffic
    assert sum(bound.value_elements for bound in floor) <= moved.read_elements + moved.write_elements


@pytest.mark.parametrize("agents", [2, 49, 130])
def test_agent_attention(agents: int) -> None:
    n_q, n_kv, d, rows, cols = 300, 200, 32, 64, 48
    schedule = make_schedule(
        problem(n_q, n_kv, d, heads=4, kv_heads=2), None, "agent", tile(rows, cols), {"agents": agents}
    )
    check(schedule)
    moved = per_tensor(schedule)
    agent_tiles, q_tiles = -(-agents // rows), -(-n_q // rows)
    assert moved["A"] == (4 * (agents * d + q_tiles * agents * d), 0)
    assert moved["K"] == (4 * agent_tiles * n_kv * d, 0)
    assert moved["V_agent"] == (4 * q_tiles * agents * d, 4 * agents * d)
    assert moved["O"] == (0, 4 * n_q * d)
    work = schedule.work
    assert work.flop == work.flop_executed == 4 * 4 * d * agents * (n_q + n_kv)
    assert work.exp == 4 * agents * (n_q + n_kv)  # a softmax over the keys, and one over the agents


@given(cases(), st.sampled_from(["lightning2", "gla", "delta-rule", "lightning1"]), st.integers(1, 400))
def test_no_linear_kernel_goes_under_its_floors(case: dict, kernel: str, extra: int) -> None:
    chosen = {} if kernel == "lightning1" else {"value_block": case["block"]}
    asked = problem(case["n"], case["n"], case["d"], case["d_v"], "causal")
    schedule = make_schedule(asked, None, kernel, tile(case["chunk"], case["chunk"]), chosen)
    moved = schedule.traffic
    d, d_v, c = case["d"], case["d_v"], case["chunk"]
    memory = d * d_v + c * (2 * d + 2 * d_v + c) + extra
    for bound in linear_bounds(asked, FastMemory("given", memory * 16)):
        side = {"reads": moved.read_elements, "writes": moved.write_elements}
        assert bound.value_elements <= side.get(bound.counts, moved.read_elements + moved.write_elements)


def test_the_state_floor_binds_only_in_small_memories() -> None:
    """4 N d_k d_v / sqrt(M) - 2 M - d_k d_v of full attention by a state (theory note, section 2.7)."""
    n, d, memory = 1 << 16, 128, 1024
    asked = problem(n, n, d)
    by_id = {bound.id: bound for bound in linear_bounds(asked, FastMemory("given", memory * 16))}
    assert by_id["linear-state"].value_elements == 4 * n * d * d // 32 - 2 * memory - d * d
    assert by_id["linear-reads"].value_elements == 3 * n * d
    large = {b.id: b for b in linear_bounds(asked, FastMemory("given", (1 << 22) * 16))}
    assert large["linear-state"].value_elements == 0
    assert not {b.id: b for b in linear_bounds(problem(64, 64, d, mask="causal"), FastMemory("given", memory * 16))}[
        "linear-state"
    ].applies


def test_linear_kernels_refuse_what_they_do_not_compute() -> None:
    with pytest.raises(UsageError, match="window"):
        make_schedule(problem(64, 64, 16, mask="window:8"), None, "lightning2")
    with pytest.raises(UsageError, match="no mask"):
        make_schedule(problem(64, 64, 16, mask="band:right=2"), None, "lightning2")
    with pytest.raises(UsageError, match="causal attention only"):
        make_schedule(problem(64, 64, 16), None, "gla")
    with pytest.raises(UsageError, match="no mask"):
        make_schedule(problem(64, 64, 16, mask="causal"), None, "agent")
    with pytest.raises(UsageError, match="prefix of 1024"):
        make_schedule(problem(64, 64, 16, mask="causal"), None, "prefix-linear")
    with pytest.raises(UsageError, match="does not compute decode"):
        make_schedule(problem(1, 64, 16, phase="decode"), None, "lightning2")


@pytest.mark.parametrize("mask", ["causal", "causal-top-left"])
@pytest.mark.parametrize("kernel", ["lightning2", "gla", "based"])
def test_lengths_that_differ_are_the_reason_that_is_given(kernel: str, mask: str) -> None:
    with pytest.raises(UsageError, match="one query per key, got 100 queries and 200 keys") as refused:
        make_schedule(problem(100, 200, 16, mask=mask), None, kernel)
    assert refused.value.faults[0].where == "--seq-kv"
    assert make_schedule(problem(200, 200, 16, mask=mask), None, kernel)


def test_causal_that_is_shifted_is_another_mask() -> None:
    shifted = replace(problem(64, 64, 16, mask="causal"), mask=Band(Grid((64,), (64,)), right=0, offset=-1))
    with pytest.raises(UsageError, match="no mask"):
        make_schedule(shifted, None, "lightning2")


def test_a_fixed_state_refuses_what_a_state_cannot_hold() -> None:
    """A state is the sum of all keys before: no window of them, no slice, and no order of tiles."""
    for tokens, mask in ((1, "window:10"), (4, "full"), (1, "prefix:8"), (1, "causal-top-left"), (2, "band:right=1")):
        with pytest.raises(UsageError, match="no mask"):
            make_schedule(problem(tokens, 64, 16, mask=mask, phase="decode"), None, "fixed-state")
    assert make_schedule(problem(1, 64, 16, mask="full", phase="decode"), None, "fixed-state")
    with pytest.raises(UsageError, match="V apart from K"):
        make_schedule(problem(1, 64, 16, 8, "causal", phase="decode", latent=True), None, "fixed-state")
    with pytest.raises(UsageError, match="token by token") as refused:
        make_schedule(problem(1, 64, 16, mask="causal", phase="decode"), None, "fixed-state", tile(16, 64))
    assert refused.value.faults[0].where == "--tile"
