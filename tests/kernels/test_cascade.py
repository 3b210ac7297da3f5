"""Cascade decoding against loops and against a direct softmax over every sequence's keys."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_kernels
from oracles.numpy_kernels import Memory
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import counted, one_head_of_each_tensor, touched

from iosim.analysis import analyze
from iosim.attention import Attention, Shape
from iosim.errors import UsageError
from iosim.floors import Memory as FastMemory
from iosim.floors import attention_floors
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.masks import Tiling
from iosim.problem_builder import ask, bind_lengths
from iosim.report import Options
from iosim.schedule import Schedule
from iosim.trace.accesses import WRITE
from iosim.trace.call_touches import call_touches

Array = np.ndarray


@st.composite
def cascades(draw: st.DrawFn) -> dict[str, Any]:
    queries, prefix = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    own = [draw(st.integers(queries, 12)) for _ in range(draw(st.integers(1, 4)))]
    if draw(st.booleans()):
        own = own[:1] * len(own)
    return {
        "queries": queries,
        "prefix": prefix,
        "own": own,
        "mask": draw(st.sampled_from(["full", "causal"])),
        "group": draw(st.integers(1, 3)),
        "kv_heads": draw(st.integers(1, 2)),
        "d": draw(st.integers(1, 4)),
        "d_v": draw(st.integers(1, 4)),
        "tile": Tiling((draw(st.integers(1, 7)),), (draw(st.integers(1, 7)),)),
        "prefix_splits": draw(st.integers(0, 3)),
        "splits": draw(st.integers(0, 3)),
        "pack": draw(st.booleans()),
    }


def schedule_of(call: dict[str, Any]) -> Schedule:
    keys = [call["prefix"] + n for n in call["own"]]
    equal = len(set(keys)) == 1
    lengths = str(keys[0]) if equal else "+".join(map(str, keys))
    mask = bind_lengths(call["mask"], str(call["queries"]), lengths)
    shape = Shape(len(keys) if equal else 1, call["group"] * call["kv_heads"], call["kv_heads"], call["d"], call["d_v"])
    asked = Attention(shape, mask, phase="decode", shared_keys=call["prefix"])
    tiles = -(-call["prefix"] // call["tile"].cols)
    settings = {"prefix_splits": min(call["prefix_splits"], tiles)} if call["prefix_splits"] else {}
    longest = -(-max(call["own"]) // call["tile"].cols)
    settings |= {"splits": min(call["splits"], longest)} if call["splits"] else {}
    return make_schedule(asked, None, "cascade", call["tile"], settings, call["pack"])


def visible(call: dict[str, Any], sequence: int) -> Array:
    """(queries, own keys) of one sequence; every query sees the whole prefix."""
    own = call["own"][sequence]
    q, k = np.arange(call["queries"])[:, None], np.arange(own)[None, :]
    return k <= q + own - call["queries"] if call["mask"] == "causal" else np.ones((call["queries"], own), bool)


def loops(call: dict[str, Any], prefix_splits: int, splits: int) -> tuple[Counter[str], Counter[str], int]:
    """Elements read and written per tensor, and scores computed, one key/value head's tiles after another."""
    read: Counter[str] = Counter()
    written: Counter[str] = Counter()
    scores = 0
    group, heads = (call["group"], call["kv_heads"]) if call["pack"] else (1, call["group"] * call["kv_heads"])
    rows, cols, d, d_v = call["tile"].rows, call["tile"].cols, call["d"], call["d_v"]

    def walk(truth: Array, chunk: int, names: tuple[str, ...]) -> None:
        nonlocal scores
        for top in range(0, len(truth), rows):
            mine = truth[top : top + rows]
            seen = [left for left in range(0, truth.shape[1], cols) if mine[:, left : left + cols].any()]
            for begin in range(0, len(seen), chunk):
                read["Q"] += len(mine) * d
                for left in seen[begin : begin + chunk]:
                    width = mine[:, left : left + cols].shape[1]
                    read[names[0]] += width * d
                    read[names[1]] += width * d_v
                    scores += len(mine) * width
                for name, size in ((names[2], len(mine) * d_v), (names[3], len(mine))):
                    written[name] += size
                    read[name] += size

    sequences = range(len(call["own"]))
    truths = [np.repeat(visible(call, index), group, axis=0) for index in sequences]
    longest = max(
        sum(truth[top : top + rows, left : left + cols].any() for left in range(0, truth.shape[1], cols))
        for truth in truths
        for top in range(0, len(truth), rows)
    )
    for _ in range(heads):
        together = np.ones((call["queries"] * group * len(sequences), call["prefix"]), bool)
        tiles = -(-call["prefix"] // cols)
        walk(together, -(-tiles // prefix_splits), ("K_prefix", "V_prefix", "O_prefix", "LSE_prefix"))
        for truth in truths:
            walk(truth, -(-longest // splits), ("K", "V", "O_partial", "LSE_partial"))
        written["O"] += len(together) * d_v
        written["LSE"] += len(together)
    return read, written, scores


@given(cascades())
def test_counts_are_those_of_the_loops(call: dict[str, Any]) -> None:
    call |= {"prefix_splits": max(1, call["prefix_splits"]), "splits": max(1, call["splits"])}
    made = schedule_of(call)
    chosen = made.parameters
    read, written, scores = loops(call, int(str(chosen["prefix_splits"])), int(str(chosen["splits"])))
    expected = {name: (read[name], written[name]) for name in {*read, *written}}
    assert {m.tensor: (m.read_elements, m.write_elements) for m in made.traffic.moved} == expected
    assert made.work.exp == scores
    assert made.work.flop_executed == 2 * (call["d"] + call["d_v"]) * scores
    assert made.work.flop == made.problem.flop()


@given(cascades())
def test_touches_are_the_counts(call: dict[str, Any]) -> None:
    made = schedule_of(call)
    for launch in made.launches:
        assert launch.program is not None
        assert launch.program.items == launch.items
        assert touched(launch) == counted(launch)
        one_head_of_each_tensor(launch.program)
    bits = {m.tensor: 8 for m in made.traffic.moved}
    touches = call_touches([one.program for one in made.launches if one.program], bits, 1).touches
    lines = [int(touches.length[touches.flags & WRITE == side].sum()) * touches.copies for side in (0, WRITE)]
    assert lines == [made.traffic.read_elements, made.traffic.write_elements]


@given(cascades(), st.integers(0, 2**32 - 1))
def test_attention_is_computed(call: dict[str, Any], seed: int) -> None:
    """Each launch sees what its touches bring; the merged rows are the softmax over prefix and own keys."""
    made = schedule_of(call)
    rng, batch, queries = np.random.default_rng(seed), len(call["own"]), call["queries"]
    heads, group = call["group"] * call["kv_heads"], call["group"] if call["pack"] else 1
    q = rng.normal(size=(heads, batch, queries, call["d"]))
    k, v = (rng.normal(size=(call["kv_heads"], call["prefix"], call[name])) for name in ("d", "d_v"))
    own_k, own_v = ([rng.normal(size=(call["kv_heads"], n, call[name])) for n in call["own"]] for name in ("d", "d_v"))

    def packed(rows: Array) -> Array:
        """(heads, batch, queries, width) -> (packed heads, rows, width): the heads of a group beside each other."""
        width = rows.shape[-1]
        return (
            rows.reshape(heads // group, group, batch * queries, width)
            .swapaxes(1, 2)
            .reshape(heads // group, -1, width)
        )

    memory = Memory()
    for name, rows in (("Q", packed(q)), ("K_prefix", k), ("V_prefix", v)):
        memory.put(name, rows)
    memory.put("K", np.concatenate(own_k, axis=1))
    memory.put("V", np.concatenate(own_v, axis=1))
    truth = np.zeros((batch * queries, sum(call["own"])), bool)
    column = 0
    for index, n in enumerate(call["own"]):
        truth[index * queries : (index + 1) * queries, column : column + n] = visible(call, index)
        column += n
    both = np.ones((batch * queries * group, call["prefix"]), bool)
    for launch, seen in zip(made.launches, (both, np.repeat(truth, group, axis=0), truth), strict=True):
        numpy_kernels.q_outer(launch, memory, lambda _, seen=seen: seen, call["d_v"], rename=short)
    wanted = np.zeros((heads, batch, queries, call["d_v"]))
    for head in range(heads):
        kv = head // call["group"]
        for index in range(batch):
            keys = np.concatenate([k[kv], own_k[index][kv]])
            values = np.concatenate([v[kv], own_v[index][kv]])
            allowed = np.concatenate([np.ones((queries, call["prefix"]), bool), visible(call, index)], axis=1)
            scores = np.where(allowed, q[head, index] @ keys.T, -np.inf)
            p = np.exp(scores - scores.max(1, keepdims=True))
            wanted[head, index] = p / p.sum(1, keepdims=True) @ values
    rows = packed(wanted)
    close(memory.get("O", len(rows), rows.shape[1:]), rows)
    counted_as_scheduled(memory, made)


def short(tensor: str) -> str:
    """The name that the numpy kernel knows a tensor by."""
    return {"O_prefix": "O_partial", "LSE_prefix": "LSE_partial"}.get(tensor, tensor.removesuffix("_prefix"))


@given(cascades())
def test_floors_count_the_prefix_once_and_hold(call: dict[str, Any]) -> None:
    made = schedule_of(call)
    counts, keys = made.problem.counts(), call["prefix"] + sum(call["own"])
    assert counts.keys == counts.keys_ok == call["kv_heads"] * keys
    for size in (1 << 10, 1 << 14):
        floors = attention_floors(made.problem, FastMemory("given", size + 8 * made.working_set.total_bytes))
        assert made.traffic.total_bytes >= floors.once_bytes >= floors.any_bytes


def test_what_a_shared_prefix_saves() -> None:
    """32 sequences of 8,192 shared and 256 own keys, Llama-3-8B: K and V of the prefix cross once per Q tile."""
    device = load_device("h100-sxm5")
    asked = ask("llama-3-8b", phase="decode", batch=32, seq_kv=8448, shared_prefix=8192).problem
    report = analyze(asked, device, None, Options())
    cascade, split = report.kernels
    assert (cascade.name, split.name) == ("cascade", "split-kv")
    prefix = {m.tensor: m.read_elements for m in cascade.schedule.traffic.moved}["K_prefix"]
    assert prefix == 8 * 2 * 8192 * 128  # 128 rows of a KV head in tiles of 64
    for kernel in report.kernels:
        for at in kernel.boundaries:
            assert at.gap("any") is not None
            assert at.gap("any") >= 1  # type: ignore[operator]
    saved = split.boundary("hbm").traffic.read_bytes / cascade.boundary("hbm").traffic.read_bytes
    assert 14 < saved < 16.5  # 32 x 8,448 keys against 8,192 + 32 x 256, and partial outputs that the L2 evicts
    assert cascade.boundary("hbm").gap("any") < 1.3  # type: ignore[operator]
    assert "once per sequence" in " ".join(report.assumptions)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"phase": "prefill", "seq": 64, "shared_prefix": 8}, "shared keys in prefill"),
        ({"phase": "decode", "seq_kv": 64, "shared_prefix": 64}, "64 of them shared"),
        ({"phase": "decode", "seq_kv": 64, "shared_prefix": -1}, "-1 shared keys"),
        ({"phase": "decode", "seq_kv": 64, "shared_prefix": 8, "mask": "window:16"}, "does not show the whole prefix"),
    ],
)
def test_what_cannot_be_shared(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ask(heads=1, head_dim=64, batch=2 if given_["phase"] == "decode" else 1, **given_)


def test_without_a_prefix_it_is_split_kv() -> None:
    asked = ask(heads=1, head_dim=64, phase="decode", seq_kv=640, batch=2).problem
    made = make_schedule(asked, None, "cascade", Tiling((16,), (16,)), {"splits": 3})
    assert made.traffic == make_schedule(asked, None, "split-kv", Tiling((16,), (16,)), {"splits": 3}).traffic
    assert any("no keys are shared" in note for note in made.notes)
