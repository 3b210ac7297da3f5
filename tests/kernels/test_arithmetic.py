"""Every kernel's arithmetic, all five counts of it, against loops over tiles or whole-tensor programs."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from oracles.arithmetic import Arithmetic
from oracles.loop_counters import Counters
from oracles.random_calls import calls, make

from iosim.kernels import Call
from iosim.kernels.stream_line import line_of
from iosim.kernels.stretches import boundaries
from iosim.schedule import Work

Array = np.ndarray


def same(work: Work, loops: Counters, times: int) -> None:
    counted = (loops.tiles, loops.flop, loops.executed, loops.exp, loops.rescale)
    found = (work.tile_pairs, work.flop, work.flop_executed, work.exp, work.exp_rescale)
    assert found == tuple(times * count for count in counted)


def heads(call: dict[str, Any], pack: bool = False) -> int:
    return call["batch"] * call["kv_heads"] * (1 if pack else call["group"])


def packed(call: dict[str, Any], pack: bool = True) -> Array:
    return np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)


def sizes(call: dict[str, Any]) -> tuple[int, int, int, int]:
    return call["d"], call["d_v"], call["rows"], call["cols"]


@given(calls(), st.booleans(), st.integers(0, 128))
def test_flash4_takes_a_share_of_the_exponentials_in_software(call: dict[str, Any], pack: bool, share: int) -> None:
    work = make(call, "flash4", pack, software_exp=share).work
    loops = loop_counters.flash2(packed(call, pack), *sizes(call), True)
    same(work, loops, heads(call, pack))
    assert work.exp_software == heads(call, pack) * loops.exp * share // 128


@given(calls(), st.booleans(), st.sampled_from(["flash2", "flash3", "fast-attention"]))
def test_flash_kernels(call: dict[str, Any], pack: bool, kernel: str) -> None:
    same(make(call, kernel, pack).work, loop_counters.flash2(packed(call, pack), *sizes(call), True), heads(call, pack))


@given(calls(), st.booleans())
def test_flash1(call: dict[str, Any], init: bool) -> None:
    same(make(call, "flash1", init=init).work, loop_counters.flash1(call["allowed"], *sizes(call), init), heads(call))


@given(calls(), st.sampled_from(["none", "dense", "low-rank", "alibi", "softcap"]), st.integers(1, 4), st.booleans())
def test_biases(call: dict[str, Any], bias: str, rank: int, pack: bool) -> None:
    chosen: dict[str, object] = {"bias": bias} | ({"rank": rank} if bias == "low-rank" else {})
    loops = loop_counters.biased(packed(call, pack), *sizes(call), bias, rank)
    same(make(call, "flash-bias", pack, **chosen).work, loops, heads(call, pack))


@given(calls(), st.booleans())
def test_a_sigmoid_rescales_nothing(call: dict[str, Any], pack: bool) -> None:
    loops = loop_counters.flash2(packed(call, pack), *sizes(call), False)
    loops.rescale = 0
    same(make(call, "flash-sigmoid", pack).work, loops, heads(call, pack))


@given(calls(), st.integers(1, 6))
def test_recomputed_scores_are_useful_once(call: dict[str, Any], width: int) -> None:
    loops = loop_counters.recompute_values(call["allowed"], *sizes(call), width)
    same(make(call, "recompute-dv", value_block=width).work, loops, heads(call))


@given(calls(), st.integers(1, 9), st.booleans())
def test_square_tiling(call: dict[str, Any], block: int, safe: bool) -> None:
    schedule = make(call | {"rows": block, "cols": block}, "square-tiling", safe=safe)
    loops = loop_counters.square_tiling(call["allowed"], call["d"], call["d_v"], block, safe)
    same(schedule.work, loops, heads(call))


@given(calls(), st.integers(1, 6))
def test_split_kv(call: dict[str, Any], splits: int) -> None:
    rows = packed(call)
    columns = loop_counters.tiles(call["n_kv"], call["cols"])
    longest = max(sum(rows[i, j].any() for j in columns) for i in loop_counters.tiles(len(rows), call["rows"]))
    if longest:
        splits = min(splits, int(longest))
        loops = loop_counters.split_kv(rows, *sizes(call), splits, True)
        same(make(call, "split-kv", phase="decode", splits=splits).work, loops, heads(call, True))


@given(calls(), st.integers(1, 9), st.sampled_from(["whole", "balanced", "flashmla"]))
def test_stretches_of_one_line(call: dict[str, Any], workers: int, share: str) -> None:
    if not call["allowed"].any():
        return
    latent = share == "flashmla"
    chosen: dict[str, object] = {"workers": workers} | ({"overhead": 2} if latent else {"share": share})
    schedule = make(call, "flashmla" if latent else "stream-k", phase="decode" if latent else "prefill", **chosen)
    line = line_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    ends = boundaries(line, share, workers, 2) if latent else boundaries(line, share, workers)
    loops = loop_counters.stream_k(packed(call, latent), *sizes(call), heads(call, latent), ends, latent)
    same(schedule.work, loops, 1)


@given(calls(), st.integers(1, 3), st.integers(0, 6), st.integers(0, 2**32 - 1))
def test_unfused_passes(call: dict[str, Any], passes: int, gemm_tile: int, seed: int) -> None:
    """Three products over every cell forward, one exponential each; four backward, from saved probabilities, none."""
    rng, allowed = np.random.default_rng(seed), call["allowed"]
    q, k, v, do = (
        rng.normal(size=(call[n], call[d])) for n, d in (("n_q", "d"), ("n_kv", "d"), ("n_kv", "d_v"), ("n_q", "d_v"))
    )
    first, second = Arithmetic(), Arithmetic()
    p = np.where(allowed, first.exps(first.product(q, k.T, allowed)), 0)
    first.weighted(p, v, allowed)
    dp = second.product(do, v.T, allowed)
    second.weighted(p.T, do, allowed.T)
    second.weighted(p * dp, k, allowed)
    second.weighted((p * dp).T, q, allowed.T)
    chosen = {"passes": passes} | ({"gemm_tile": gemm_tile} if gemm_tile else {})
    for kernel, phase, count in (("unfused", "prefill", first), ("unfused-backward", "backward", second)):
        work = make(call, kernel, phase=phase, **chosen).work
        wanted = (count.flop, count.executed, count.exp, count.rescale)
        assert (work.flop, work.flop_executed, work.exp, work.exp_rescale) == tuple(heads(call) * c for c in wanted)


@given(calls(), st.sampled_from([("flash2-backward", "kv-outer"), ("backward-q-outer", "q-outer"), ("backward-two-kernels", "two-kernels")]))  # fmt: skip
def test_backward_rescales_nothing(call: dict[str, Any], kernel: tuple[str, str]) -> None:
    """Probabilities come from the log-sum-exp, whole."""
    work = make(call, kernel[0], phase="backward").work
    loops = loop_counters.backward(call["allowed"], *sizes(call), kernel[1], call["group"])
    found = (work.tile_pairs, work.flop_executed, work.exp, work.exp_rescale)
    assert found == (*(heads(call, True) * count for count in (loops.tiles, loops.executed, loops.exp)), 0)
    assert work.flop == heads(call) * int(call["allowed"].sum()) * (6 * call["d"] + 4 * call["d_v"])
