"""Decoding with a state, Lightning Attention 1 and agent attention: computed by their touches, counted as they run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_linear
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory
from oracles.random_calls import problem, tile
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import check

from iosim.kernels import load_kernel, make_schedule
from iosim.schedule import Schedule

Array = np.ndarray
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    sizes = {"n": 20, "d": 4, "d_v": 5, "group": 3, "kv_heads": 2, "batch": 2, "rows": 7, "cols": 6}
    return {name: draw(st.integers(1, most)) for name, most in sizes.items()}


def made(shape: dict[str, Any], kernel: str, n_q: int, n_kv: int, mask: str, phase: str, **chosen: object) -> Schedule:
    rows, cols = (1, 1) if kernel == "fixed-state" else (shape["rows"], shape["cols"])
    heads = shape["group"] * shape["kv_heads"]
    asked = problem(n_q, n_kv, shape["d"], shape["d_v"], mask, heads, shape["kv_heads"], shape["batch"], phase)
    schedule = make_schedule(asked, None, kernel, tile(rows, cols), chosen)
    check(schedule)
    return schedule


def place(shape: dict[str, Any], n_q: int, n_kv: int, seed: int) -> tuple[Memory, dict[str, Array]]:
    rng, kv = np.random.default_rng(seed), shape["batch"] * shape["kv_heads"]
    heads = {"Q": kv * shape["group"], "K": kv, "V": kv}
    sizes = {"Q": (n_q, shape["d"]), "K": (n_kv, shape["d"]), "V": (n_kv, shape["d_v"])}
    data = {name: rng.normal(size=(heads[name], *size)) for name, size in sizes.items()}
    memory = Memory()
    for name, arrays in data.items():
        memory.put(name, arrays)
    return memory, data


@given(
    shapes(), SEEDS, st.sampled_from(["identity", "hedgehog", "taylor"]), st.sampled_from(["none", "scalar", "vector"])
)
def test_decoding_with_a_state_continues_its_recurrence(
    shape: dict[str, Any], seed: int, features: str, gate: str
) -> None:
    """New tokens go on from the state that the tokens before them left."""
    gate = gate if features == "identity" else "none"
    tokens, before, group = 1 + shape["n"] % 4, shape["n"], shape["group"]
    schedule = made(shape, "fixed-state", tokens, before + tokens, "causal", "decode", features=features, gate=gate)
    memory, data = place(shape, before + tokens, before + tokens, seed)
    words, kv_heads = {"none": 0, "scalar": 1, "vector": shape["d"]}[gate], len(data["K"])
    g = -np.random.default_rng(seed + 1).uniform(0.01, 0.5, size=(kv_heads, before + tokens, max(words, 1)))
    phi = lambda x: numpy_linear.feature_map(x, features)  # noqa: E731
    state = np.zeros((kv_heads, phi(data["K"][:, :1]).shape[-1], shape["d_v"]))
    for head in range(kv_heads):
        for t in range(before):
            a = np.exp(g[head, t])[:, None] if words else 1
            state[head] = a * state[head] + np.outer(phi(data["K"][head, t]), data["V"][head, t])
    packed = data["Q"].reshape(kv_heads, group, -1, shape["d"]).swapaxes(1, 2)[:, before:]
    memory.put("Q", packed.reshape(kv_heads, tokens * group, shape["d"]))
    memory.put("K", data["K"][:, before:])
    memory.put("V", data["V"][:, before:])
    memory.put("state", state)
    if words:
        memory.put("g", g[:, before:])
    count = Arithmetic()
    numpy_linear.fixed_state(schedule.launches[0], memory, shape["d_v"], group, features, count)
    count.check(schedule.work)
    found = memory.get("O", kv_heads, (tokens, group, shape["d_v"]))
    for head, rows in enumerate(data["Q"]):
        kv = head // group
        start = np.zeros(state.shape[1:])
        wanted = numpy_linear.recurrent(
            phi(rows), phi(data["K"][kv]), data["V"][kv], g[kv] if words else None, True, start
        )
        close(found[kv, :, head % group], wanted[before:])
    counted_as_scheduled(memory, schedule)


@given(shapes(), SEEDS, st.sampled_from(["full", "causal"]))
def test_the_left_product_is_attention_without_a_softmax(shape: dict[str, Any], seed: int, mask: str) -> None:
    n = shape["n"]
    schedule = made(shape, "lightning1", n, n, mask, "prefill")
    memory, data = place(shape, n, n, seed)
    allowed = np.tri(n, dtype=bool) if mask == "causal" else np.ones((n, n), bool)
    count = Arithmetic()
    numpy_linear.left_product(schedule.launches[0], memory, lambda _: allowed, shape["d_v"], count)
    count.check(schedule.work)
    k, v = (np.repeat(data[name], shape["group"], axis=0) for name in ("K", "V"))
    wanted = np.where(allowed, data["Q"] @ k.swapaxes(1, 2), 0) @ v
    close(memory.get("O", len(wanted), wanted.shape[1:]), wanted)
    counted_as_scheduled(memory, schedule)


@given(shapes(), SEEDS, st.integers(2, 9))
def test_agents_gather_and_queries_read_the_agents(shape: dict[str, Any], seed: int, agents: int) -> None:
    """Equation 5: softmax(Q A^T) softmax(A K^T) V."""
    n_q, n_kv = shape["n"], 1 + seed % 17
    schedule = made(shape, "agent", n_q, n_kv, "full", "prefill", agents=agents)
    memory, data = place(shape, n_q, n_kv, seed)
    a = np.random.default_rng(seed + 2).normal(size=(len(data["Q"]), agents, shape["d"]))
    memory.put("A", a)
    for launch in schedule.launches:
        count = Arithmetic()
        numpy_linear.two_softmaxes(launch, memory, shape["d_v"], count)
        count.check(launch.work)
    k, v = (np.repeat(data[name], shape["group"], axis=0) for name in ("K", "V"))
    wanted = _softmax(data["Q"] @ a.swapaxes(1, 2)) @ _softmax(a @ k.swapaxes(1, 2)) @ v
    close(memory.get("O", len(wanted), wanted.shape[1:]), wanted)
    counted_as_scheduled(memory, schedule)


def _softmax(scores: Array) -> Array:
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize(
    ("kernel", "algorithm"),
    [("based", "lightning2"), ("hedgehog", "lightning2"), ("prefix-linear", "lightning2"), ("gla-fused", "lightning2"),
     ("gla", "chunk-states"), ("mamba2", "chunk-states"), ("gated-delta", "delta-rule")],
)  # fmt: skip
def test_named_kernels_are_settings_that_other_tests_draw(kernel: str, algorithm: str) -> None:
    """Their arithmetic is that of an algorithm whose every setting is drawn at random where it is run and counted."""
    file = load_kernel(kernel)
    assert file.algorithm.name == algorithm
    drawn = {"features", "gate", "normalise", "prefix", "value_block"}
    drawn |= {"cumsum", "scores", "score_block", "pass_states"}
    assert set(file.parameters) | {name for rule in file.rules for name in rule.settings} <= drawn
