"""Every schedule computes attention: float64 kernels that see only what their touches bring, against a softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_kernels
from oracles.numpy_kernels import Memory, from_strips, in_strips
from oracles.random_calls import cached_calls
from test_counts import calls, make
from test_programs import counted

from iosim.kernels import Call
from iosim.kernels.recompute_values import chunks
from iosim.kernels.unfused import products
from iosim.schedule import Schedule

Array = np.ndarray


class Case:
    """Random operands of a call and what attention gives on them."""

    def __init__(self, call: dict[str, Any], schedule: Schedule, seed: int) -> None:
        shape, n_q, n_kv = schedule.problem.shape, call["n_q"], call["n_kv"]
        rng = np.random.default_rng(seed)
        self.heads, self.kv_heads = shape.batch * shape.heads, shape.batch * shape.kv_heads
        self.batch, self.group, self.packed = shape.batch, shape.group, schedule.tiling.group
        self.q = rng.normal(size=(self.heads, n_q, shape.head_dim))
        self.k = rng.normal(size=(self.kv_heads, n_kv, shape.head_dim))
        self.v = rng.normal(size=(self.kv_heads, n_kv, shape.head_dim_v))
        self.mask = call["allowed"]
        self.bias = np.zeros((self.heads, n_q, n_kv))

    def pack(self, rows: Array) -> Array:
        """(heads, n, d) -> (packed heads, n x group, d): row r is query r // group of head r % group."""
        heads, n, d = rows.shape
        return rows.reshape(heads // self.packed, self.packed, n, d).swapaxes(1, 2).reshape(-1, n * self.packed, d)

    def allowed(self, head: int) -> Array:
        return np.repeat(self.mask, self.packed, axis=0)

    def in_line(self, span: int) -> Array:
        """The masks of all packed heads as blocks of one matrix."""
        mask, n_kv = self.allowed(0), self.mask.shape[1]
        packed = self.heads // self.packed
        line = np.zeros((packed * span, self.kv_heads * n_kv), bool)
        for head in range(packed):
            kv_head = head * self.packed // self.group
            line[head * span : head * span + len(mask), kv_head * n_kv : (kv_head + 1) * n_kv] = mask
        return line

    def probabilities(self) -> tuple[Array, Array]:
        """(P, log-sum-exp), zero and -inf for rows that see no key."""
        scores = self.q @ np.repeat(self.k, self.group, axis=0).swapaxes(1, 2) + self.bias
        scores = np.where(self.mask, scores, -np.inf)
        top = np.where(self.mask.any(1), scores.max(2), 0)
        p = np.exp(scores - top[..., None])
        total = p.sum(2)
        with np.errstate(divide="ignore"):
            return p / np.where(total > 0, total, 1)[..., None], top + np.log(total)

    def output(self) -> Array:
        return self.probabilities()[0] @ np.repeat(self.v, self.group, axis=0)

    def memory(self) -> Memory:
        memory = Memory()
        memory.put("Q", self.pack(self.q))
        memory.put("K", self.k)
        memory.put("V", self.v)
        return memory

    def cached(self, page_size: int, scale_group: int) -> Memory:
        """K and V in pages, each head's by the table of its sequence, and with scales."""
        memory, rng = Memory(page_size, scale_group), np.random.default_rng(1)
        memory.put("Q", self.pack(self.q))
        n_kv, each = self.k.shape[1], len(self.k) // self.batch
        tables = rng.normal(size=(self.batch, -(-n_kv // page_size) if page_size else 1))
        if page_size:
            memory.put("block_table", tables)
        for name, heads in (("K", self.k), ("V", self.v)):
            groups = -(-heads.shape[2] // scale_group) if scale_group else 1
            scales = rng.uniform(0.5, 2, size=(len(heads), n_kv, groups)) if scale_group else None
            if scales is not None:
                memory.put(f"{name}_scale", scales)
            of_head = np.repeat(tables, each, axis=0)
            memory.put(name, numpy_kernels.as_cached(heads, of_head, page_size, scales, scale_group))
        return memory


def counted_as_scheduled(memory: Memory, schedule: Schedule) -> None:
    total: dict[str, tuple[int, int]] = {}
    for launch in schedule.runs:
        for tensor, (read, written) in counted(launch).items():
            before = total.get(tensor, (0, 0))
            total[tensor] = (before[0] + read, before[1] + written)
    assert {t: (memory.read[t], memory.written[t]) for t in {*memory.read, *memory.written}} == total


def close(found: Array, wanted: Array) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def check_rows(case: Case, memory: Memory, schedule: Schedule) -> None:
    packed = case.pack(case.output())
    close(memory.get("O", len(packed), packed.shape[1:]), packed)
    if schedule.parameters.get("lse"):
        lse = case.pack(case.probabilities()[1][..., None])
        close(memory.get("LSE", len(lse), lse.shape[1:]), lse)
    counted_as_scheduled(memory, schedule)


seeds = st.integers(0, 2**32 - 1)


@given(calls(), seeds, st.booleans(), st.sampled_from(["flash2", "flash3", "flash4"]), st.booleans())
def test_flash_computes_attention(call: dict[str, Any], seed: int, pack: bool, kernel: str, again: bool) -> None:
    schedule = make(call, kernel, pack, **({"q_again": again} if kernel == "flash2" else {}))
    case = Case(call, schedule, seed)
    memory = case.memory()
    numpy_kernels.q_outer(schedule.launches[0], memory, case.allowed, call["d_v"])
    check_rows(case, memory, schedule)


@given(cached_calls(), seeds, st.booleans(), st.sampled_from(["flash2", "flash3", "flash4", "split-kv"]))
def test_pages_and_scales_give_back_the_keys_and_values(
    drawn: tuple[dict[str, Any], dict[str, Any]], seed: int, pack: bool, kernel: str
) -> None:
    call, layout = drawn
    schedule = make(call, kernel, pack, **layout)
    case = Case(call, schedule, seed)
    memory = case.cached(layout.get("page_size", 0), layout.get("scale_group", 0))
    for launch in schedule.launches:
        numpy_kernels.q_outer(launch, memory, case.allowed, call["d_v"])
    check_rows(case, memory, schedule)


@given(calls(), seeds, st.sampled_from(["split-kv", "stream-k", "flashmla"]), st.integers(1, 6), st.booleans())
def test_decode_computes_attention(call: dict[str, Any], seed: int, kernel: str, parts: int, balanced: bool) -> None:
    if kernel != "split-kv" and not call["allowed"].any():
        return
    rows = np.repeat(call["allowed"], call["group"], axis=0)
    columns = range(0, call["n_kv"], call["cols"])
    longest = max(
        sum(rows[i : i + call["rows"], j : j + call["cols"]].any() for j in columns)
        for i in range(0, len(rows), call["rows"])
    )
    chosen: dict[str, object] = {"splits": min(parts, longest)} if kernel == "split-kv" else {"workers": parts}
    if kernel == "split-kv" and not longest:
        chosen = {}
    if kernel == "stream-k" and balanced:
        chosen["share"] = "balanced"
    schedule = make(call, kernel, None, "decode", **chosen)
    case = Case(call, schedule, seed)
    memory = case.memory()
    if kernel == "split-kv":
        for launch in schedule.launches:
            numpy_kernels.q_outer(launch, memory, case.allowed, call["d_v"])
        check_rows(case, memory, schedule)
        return
    span = -(-len(rows) // call["rows"]) * call["rows"]  # all heads end to end, each padded to whole tiles
    end_to_end(case, memory, span)
    line = case.in_line(span)
    for launch in schedule.launches:
        numpy_kernels.q_outer(launch, memory, lambda _: line, call["d_v"])
    packed = case.pack(case.output())
    found = memory.get("O", 1, (len(packed), span, call["d_v"]))[0]
    close(found[:, : len(rows)], packed)
    counted_as_scheduled(memory, schedule)


def end_to_end(case: Case, memory: Memory, span: int) -> None:
    """Operands of stream-K: one tensor over all heads."""
    q = case.pack(case.q)
    padded = np.zeros((len(q), span, q.shape[2]))
    padded[:, : q.shape[1]] = q
    for name, array in (("Q", padded), ("K", case.k), ("V", case.v)):
        memory.put(name, array.reshape(1, -1))
    memory.put("O", np.full((1, len(q) * span * case.v.shape[2]), np.nan))


@given(calls(), seeds, st.booleans())
def test_flash1_computes_attention(call: dict[str, Any], seed: int, init: bool) -> None:
    schedule = make(call, "flash1", init=init)
    case = Case(call, schedule, seed)
    memory = case.memory()
    if not init:  # someone else has placed the initial values
        memory.put("O", np.zeros((case.heads, call["n_q"], call["d_v"])))
        memory.put("l", np.zeros((case.heads, call["n_q"])))
        memory.put("m", np.full((case.heads, call["n_q"]), -np.inf))
    numpy_kernels.flash1(schedule.launches[0], memory, case.allowed, call["d_v"])
    check_rows(case, memory, schedule)


@given(calls(), seeds, st.sampled_from(["dense", "low-rank"]), st.integers(1, 3))
def test_bias_is_added_to_every_score(call: dict[str, Any], seed: int, bias: str, rank: int) -> None:
    schedule = make(call, "flash-bias", bias=bias, **({"rank": rank} if bias == "low-rank" else {}))
    case = Case(call, schedule, seed)
    memory = case.memory()
    rng = np.random.default_rng(seed + 1)
    if bias == "dense":
        case.bias = rng.normal(size=case.bias.shape)
        rows, cols = call["rows"], call["cols"]
        strips = [[in_strips(b[i : i + rows], cols) for i in range(0, call["n_q"], rows)] for b in case.bias]
        memory.put("B", np.array([np.concatenate(s) for s in strips]))
    else:
        u, w = (rng.normal(size=(case.heads, n, rank)) for n in (call["n_q"], call["n_kv"]))
        case.bias = u @ w.swapaxes(1, 2)
        memory.put("B_q", u)
        memory.put("B_k", w)
    numpy_kernels.q_outer(schedule.launches[0], memory, case.allowed, call["d_v"])
    check_rows(case, memory, schedule)


@given(calls(), seeds)
def test_sigmoid_attention(call: dict[str, Any], seed: int) -> None:
    schedule = make(call, "flash-sigmoid")
    case = Case(call, schedule, seed)
    memory = case.memory()
    numpy_kernels.q_outer(schedule.launches[0], memory, case.allowed, call["d_v"], "sigmoid")
    scores = case.q @ np.repeat(case.k, case.group, axis=0).swapaxes(1, 2)
    wanted = np.where(case.mask, 1 / (1 + np.exp(-scores)), 0) @ np.repeat(case.v, case.group, axis=0)
    close(memory.get("O", case.heads, wanted.shape[1:]), wanted)
    counted_as_scheduled(memory, schedule)


@given(calls(), seeds, st.integers(1, 3), st.integers(0, 8))
def test_unfused_computes_attention(call: dict[str, Any], seed: int, passes: int, gemm_tile: int) -> None:
    schedule = make(call, "unfused", passes=passes, **({"gemm_tile": gemm_tile} if gemm_tile else {}))
    case = Case(call, schedule, seed)
    memory = case.memory()
    cut = products(Call(schedule.problem, schedule.tiling, schedule.parameters))
    memory.put("V", np.array([in_strips(v, cut.width) for v in case.v]))
    numpy_kernels.unfused(schedule.launches, memory, case.allowed, cut, case.group)
    o = memory.get("O", case.heads, (call["n_q"] * call["d_v"],))
    close(np.stack([from_strips(flat, call["n_q"], call["d_v"], cut.width) for flat in o]), case.output())
    counted_as_scheduled(memory, schedule)


@given(calls(), seeds, st.integers(1, 6))
def test_recomputed_scores_give_the_same_output(call: dict[str, Any], seed: int, width: int) -> None:
    schedule = make(call, "recompute-dv", value_block=width)
    case = Case(call, schedule, seed)
    memory = case.memory()
    memory.put("V", np.array([in_strips(v, width) for v in case.v]))
    parts = chunks(Call(schedule.problem, schedule.tiling, schedule.parameters))
    numpy_kernels.recompute_values(schedule.launches[0], memory, case.allowed, parts)
    rows = -(-call["n_q"] // call["rows"]) * call["rows"]
    for head, wanted in enumerate(case.output()):
        flat = memory.data["O", head]
        for left, columns in parts:
            found = flat[left * rows : left * rows + call["n_q"] * columns].reshape(-1, columns)
            close(found, wanted[:, left : left + columns])
    counted_as_scheduled(memory, schedule)


@given(calls(), seeds, st.integers(1, 9), st.booleans())
def test_square_tiling_computes_attention(call: dict[str, Any], seed: int, block: int, safe: bool) -> None:
    call = call | {"rows": block, "cols": block}
    schedule = make(call, "square-tiling", safe=safe)
    case = Case(call, schedule, seed)
    memory = case.memory()
    rows = -(-call["n_q"] // block) * block
    padded = np.zeros((case.heads, rows, call["d"]))
    padded[:, : call["n_q"]] = case.q
    memory.put("Q", np.array([in_strips(q, block) for q in padded]))
    memory.put("K", np.array([in_strips(k, block) for k in case.k]))
    memory.put("V", np.array([in_strips(v, block) for v in case.v]))
    numpy_kernels.square_tiling(schedule.launches, memory, case.allowed, call["d"], call["d_v"], block, safe)
    for head, wanted in enumerate(case.output()):
        for left in range(0, call["d_v"], block):
            columns = min(block, call["d_v"] - left)
            found = memory.data["O", head][left * rows : left * rows + call["n_q"] * columns]
            close(found.reshape(-1, columns), wanted[:, left : left + columns])
    counted_as_scheduled(memory, schedule)


@given(calls(), seeds, st.sampled_from(["flash2-backward", "backward-q-outer", "backward-two-kernels"]))
def test_backward_computes_the_gradients(call: dict[str, Any], seed: int, kernel: str) -> None:
    schedule = make(call, kernel, phase="backward")
    case = Case(call, schedule, seed)
    memory = case.memory()
    p, lse = case.probabilities()
    k, v = (np.repeat(t, case.group, axis=0) for t in (case.k, case.v))
    do = np.random.default_rng(seed + 1).normal(size=(case.heads, call["n_q"], call["d_v"]))
    memory.put("O", case.output())
    memory.put("dO", do)
    memory.put("LSE", lse)
    numpy_kernels.backward(schedule.launches, memory, case.allowed)
    dp = do @ v.swapaxes(1, 2)
    ds = p * dp - p * (p * dp).sum(2, keepdims=True)  # the softmax's whole Jacobian
    wanted = {"dQ": ds @ k, "dK": ds.swapaxes(1, 2) @ case.q, "dV": p.swapaxes(1, 2) @ do}
    for name in ("dK", "dV"):
        wanted[name] = wanted[name].reshape(case.kv_heads, case.group, *wanted[name].shape[1:]).sum(1)
    for name, gradient in wanted.items():
        close(memory.get(name, len(gradient), gradient.shape[1:]), gradient)
    counted_as_scheduled(memory, schedule)
