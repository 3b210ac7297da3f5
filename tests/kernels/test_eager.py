"""Unfused attention as frameworks run it, forward and backward, against whole-tensor programs and by its touches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.eager_attention import Choices, Eager, backward, follow, forward
from oracles.numpy_kernels import Memory
from oracles.random_calls import calls, make, per_tensor, without_idle
from test_numpy_kernels import counted_as_scheduled
from test_programs import check

from iosim import device, problem
from iosim.cache.closed_form import hbm_traffic
from iosim.errors import UsageError
from iosim.kernels import Call, make_schedule
from iosim.kernels.products import products
from iosim.report import BoundaryReport
from iosim.schedule import Schedule

choices = st.builds(
    Choices, st.booleans(), st.sampled_from(["none", "padding", "matrix"]), st.booleans(), st.booleans(), st.booleans()
)


def both(call: dict[str, Any], picked: Choices, passes: int, gemm_tile: int = 0) -> tuple[Schedule, Schedule]:
    chosen: dict[str, object] = {
        "scale_kernel": picked.scale, "mask_kernel": picked.mask, "dropout": picked.dropout, "copies": picked.copies,
        "passes": passes,
    }  # fmt: skip
    chosen |= {"gemm_tile": gemm_tile} if gemm_tile else {}
    return (
        make(call, "unfused", **chosen),
        make(call, "unfused-backward", phase="backward", mask_copy=picked.mask_copy, **chosen),
    )


def operands(call: dict[str, Any], picked: Choices, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Tensors by head, and what dropout keeps."""
    rng, kv_heads = np.random.default_rng(seed), call["batch"] * call["kv_heads"]
    heads, n_q, n_kv = kv_heads * call["group"], call["n_q"], call["n_kv"]
    made = {name: rng.normal(size=(count, n, call[d]))
            for name, count, n, d in (("Q", heads, n_q, "d"), ("K", kv_heads, n_kv, "d"), ("V", kv_heads, n_kv, "d_v"),
                                      ("dO", heads, n_q, "d_v"))}  # fmt: skip
    rows, sequences = (1, call["batch"]) if picked.mask == "padding" else (n_q, 1)
    made["M"] = rng.random((sequences, rows, n_kv)) < 0.8
    return made, (rng.random((heads, n_q, n_kv)) < 0.75).astype(float)


def one_by_one(call: dict[str, Any], picked: Choices, passes: int, strips: int, seed: int) -> list[tuple[Eager, Eager]]:
    """Both programs on every head, counted apart."""
    tensors, z = operands(call, picked, seed)
    per_sequence = call["kv_heads"] * call["group"]
    made = []
    for head in range(len(z)):
        own = {name: tensors[name][head] for name in ("Q", "dO")}
        own |= {name: tensors[name][head // call["group"]] for name in ("K", "V")}
        own["M"] = tensors["M"][head // per_sequence if picked.mask == "padding" else 0]
        first = Eager(own)
        forward(first, picked, call["allowed"], z[head], passes, strips)
        second = Eager(first.at)
        backward(second, picked, passes, strips, call["group"] > 1)
        made.append((first, second))
    return made


@given(calls(), choices, st.integers(1, 2), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_counts_equal_whole_tensor_programs(call: dict[str, Any], picked: Choices, passes: int, seed: int) -> None:
    call |= {"group": 1} if picked.copies else {}
    strips = -(-call["n_q"] // call["rows"])
    heads = one_by_one(call, picked, passes, strips, seed)
    for index, schedule in enumerate(both(call, picked, passes)):
        programs = [pair[index] for pair in heads]
        tensors = {tensor for e in programs for tensor in (*e.read, *e.written)}
        counted = {t: (sum(e.read[t] for e in programs), sum(e.written[t] for e in programs)) for t in tensors}
        if index and call["group"] > 1:  # the sums over groups, one key/value head at a time
            for name, width in (("dK", call["d"]), ("dV", call["d_v"])):
                words = call["batch"] * call["kv_heads"] * call["n_kv"] * width
                counted[f"{name}_expanded"] = (call["group"] * words, counted[f"{name}_expanded"][1])
                counted[name] = (0, words)
        assert without_idle(per_tensor(schedule)) == without_idle(counted)
        check(schedule)


@given(calls(), choices, st.integers(1, 2), st.integers(0, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_touches_compute_attention_and_its_gradients(
    call: dict[str, Any], picked: Choices, passes: int, gemm_tile: int, seed: int
) -> None:
    call |= {"group": 1} if picked.copies else {}
    picked.copies &= not gemm_tile
    # output tiles of the backward pass span the head: V in strips is the forward pass's own test
    forward_tile = gemm_tile if gemm_tile >= call["d_v"] else 0
    first, _ = both(call, picked, passes, forward_tile)
    _, second = both(call, picked, passes, forward_tile)
    tensors, z = operands(call, picked, seed)
    memory = Memory()
    for name, heads in tensors.items():
        memory.put(name, heads)
    for schedule in (first, second):
        cut = products(Call(schedule.problem, schedule.tiling, schedule.parameters))
        memory.read.clear()
        memory.written.clear()
        follow(schedule.launches, memory, cut, call["allowed"], z, passes)
        counted_as_scheduled(memory, schedule)
    wanted = one_by_one(call, picked, passes, 1, seed)
    results = [
        ("O", call["n_q"], "d_v"),
        ("dQ", call["n_q"], "d"),
        ("dK", call["n_kv"], "d"),
        ("dV", call["n_kv"], "d_v"),
    ]
    for name, rows, width in results:
        shared = name in ("dK", "dV") and call["group"] > 1
        per_head = np.stack([e.at[f"{name}_expanded" if shared else name] for _, e in wanted])
        per_head = per_head.reshape(-1, call["group"], *per_head.shape[1:]).sum(1) if shared else per_head
        prefix = "dQKV_" if picked.copies and name != "O" else ""
        found = memory.get(prefix + name, len(per_head), (rows, call[width]))
        np.testing.assert_allclose(found, per_head, rtol=1e-9, atol=1e-11)


@given(calls(), st.integers(1, 9))
@settings(deadline=None)
def test_tiled_products_read_operands_for_every_tile(call: dict[str, Any], size: int) -> None:
    chosen = {"gemm_tile": size}
    schedule = make(call, "unfused-backward", phase="backward", **chosen)
    check(schedule)
    moved = per_tensor(schedule)
    heads = call["batch"] * call["kv_heads"] * call["group"]
    q_tiles, kv_tiles = -(-call["n_q"] // size), -(-call["n_kv"] // size)
    assert moved["dO"][0] == heads * call["n_q"] * call["d_v"] * 2 * kv_tiles  # in dP and in dV
    assert moved["V"][0] == heads * call["n_kv"] * call["d_v"] * q_tiles
    assert moved["K"][0] == heads * call["n_kv"] * call["d"] * q_tiles
    assert moved["Q"][0] == heads * call["n_q"] * call["d"] * kv_tiles


def test_arithmetic_is_four_products_of_all_scores() -> None:
    asked = problem(heads=2, head_dim=8, head_dim_v=4, seq=40, mask="causal", phase="backward")
    work = make_schedule(asked, None, "unfused-backward").work
    assert work.flop_executed == 2 * 40 * 40 * 2 * (2 * 8 + 2 * 4)
    assert work.flop == 2 * (40 * 41 // 2) * 2 * (2 * 8 + 2 * 4)
    assert work.tile_pairs == 2
    same = problem(heads=1, head_dim=8, seq=300, mask="causal")
    assert make_schedule(same, None, "unfused").work.tile_pairs == 9  # and not once more for the second product


def test_no_floor_speaks_of_a_pass_that_is_given_the_probabilities() -> None:
    asked = problem(heads=2, head_dim=64, seq=256, phase="backward")
    schedule = make_schedule(asked, None, "unfused-backward")
    report = BoundaryReport("hbm", None, schedule.traffic, "formula", True, None, schedule.algorithm_class)
    assert [report.gap(name) for name in ("any", "standard", "standard-once")] == [None] * 3


def test_what_cannot_be_is_refused() -> None:
    shared = problem(heads=4, kv_heads=2, head_dim=64, seq=256)
    with pytest.raises(UsageError, match="as many key/value heads"):
        make_schedule(shared, None, "unfused", settings={"copies": True})
    alone = problem(heads=4, head_dim=64, seq=256)
    with pytest.raises(UsageError, match="each operand read once"):
        make_schedule(alone, None, "unfused", settings={"copies": True, "gemm_tile": 16})
    latent = problem(heads=4, kv_heads=1, head_dim=64, head_dim_v=32, latent=True, seq=256, phase="backward")
    with pytest.raises(UsageError, match="apart from K"):
        make_schedule(latent, None, "unfused-backward")


def test_main_memory_sees_every_launch_once_the_scores_exceed_the_cache() -> None:
    """Tiles that read an operand again find it cached; N x N tensors do not fit and cross on every use."""
    a100 = device("a100-sxm-40gb")
    asked = problem(heads=16, head_dim=64, batch=64, seq=1024, dtype="fp16", phase="backward")
    plain = make_schedule(asked, None, "unfused-backward")
    tiled = make_schedule(asked, None, "unfused-backward", settings={"gemm_tile": 128})
    assert tiled.traffic.total_bytes > plain.traffic.total_bytes
    for schedule in (plain, tiled):
        found = hbm_traffic(schedule, a100)
        assert found is not None
        assert found.traffic.total_bytes == plain.traffic.total_bytes
    small = make_schedule(problem(heads=1, head_dim=64, seq=512, phase="backward"), None, "unfused-backward")
    found = hbm_traffic(small, a100)
    assert found is not None
    assert found.exact
    assert found.traffic.read_bytes == 2 * (512 * 512 + 4 * 512 * 64)  # P, which the forward pass left, Q, K, V and dO
    assert found.traffic.write_bytes == 2 * 3 * 512 * 64
