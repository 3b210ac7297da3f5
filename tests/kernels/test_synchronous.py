"""FlashAttention-2 without asynchronous copies: a kernel in float64 with a counted shared memory, released sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters, numpy_shared
from oracles.random_calls import of_kernel
from test_counts import calls, make, problem, tile
from test_numpy_kernels import Case, check_rows, seeds
from test_variants import compare, times

from iosim import analyze
from iosim.attention import Attention, Types
from iosim.errors import UsageError
from iosim.floors import Memory as Near
from iosim.floors import attention_floors
from iosim.kernels import kernel_names, load_kernel, make_schedule
from iosim.kernels.usual import default_kernels
from iosim.machine import load_device

V100 = "v100-sxm2-32gb"


@given(calls(), seeds, st.booleans())
def test_it_computes_attention_through_a_counted_shared_memory(call: dict[str, Any], seed: int, pack: bool) -> None:
    """What scores and outputs move in shared memory is what `scores=registers` saves, word by word."""
    schedule, without = (make(call, "flash-v100", pack, scores=where) for where in ("shared", "registers"))
    case = Case(call, schedule, seed)
    memory = case.memory()
    shared = numpy_shared.synchronous(schedule.launches[0], memory, case.allowed, call["d_v"])
    check_rows(case, memory, schedule)
    wide = sum(side[name] for side in (shared.read, shared.written) for name in ("S", "O"))
    narrow = shared.read["P"] + shared.written["P"]
    bits = schedule.problem.types.bits
    saved = (wide * bits("accumulator") + narrow * bits("P")) // 8
    assert schedule.work.shared_bytes - without.work.shared_bytes == saved
    copied = (shared.written["Q"], shared.written["KV"])
    assert copied == (memory.read["Q"], memory.read["K"] + memory.read["V"])


@given(calls(), st.booleans())
def test_counts_equal_loops(call: dict[str, Any], pack: bool) -> None:
    schedule = make(call, "flash-v100", pack)
    rows = np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)
    loops = loop_counters.flash2(rows, call["d"], call["d_v"], call["rows"], call["cols"], True)
    compare(schedule, loops, times(call, pack))
    work, copies = schedule.work, times(call, pack)
    assert (work.tile_pairs, work.flop, work.flop_executed, work.exp, work.exp_rescale) == tuple(
        copies * n for n in (loops.tiles, loops.flop, loops.executed, loops.exp, loops.rescale)
    )


@given(calls())
def test_the_working_set_holds_what_the_kernel_keeps(call: dict[str, Any]) -> None:
    """The most words in shared memory at once, for whole tiles: never more than the working set says."""
    whole = call | {"n_q": call["rows"], "n_kv": call["cols"], "mask": "full"}
    whole["allowed"] = np.ones((call["rows"], call["cols"]), bool)
    schedule = make(whole, "flash-v100", False)
    case = Case(whole, schedule, 0)
    kept = numpy_shared.synchronous(schedule.launches[0], case.memory(), case.allowed, call["d_v"]).largest
    bits = schedule.problem.types.bits
    words = call["rows"] * call["d"] * bits("Q") + call["cols"] * max(call["d"], call["d_v"]) * bits("K")
    words += call["rows"] * (call["cols"] + call["d_v"] + 2) * bits("accumulator")
    assert schedule.working_set.shared_bytes == words // 8
    assert kept <= words // 16


@pytest.mark.parametrize(
    ("d", "extents", "padding", "shared"),
    [(16, "16x512", 0, 50_816), (32, "32x256", 0, 55_552), (64, "64x128", 0, 74_240), (128, "32x160", 0, 86_272),
     (256, "32x64", 0, 90_368), (128, "32x176", 8, 97_792), (64, "64x128", 8, 81_408), (256, "32x64", 8, 93_952)],
)  # fmt: skip
def test_released_tiles_fill_96_kib(d: int, extents: str, padding: int, shared: int) -> None:
    """Sums of the released struct's arrays: 2026's tiles, and the older ones whose rows are padded by 8 elements."""
    asked, device = of_kernel(problem(4096, 4096, d, heads=8), "flash-v100"), load_device(V100)
    rows, cols = map(int, extents.split("x"))
    chosen = tile(rows, cols) if padding else None
    schedule = make_schedule(asked, device, "flash-v100", chosen, {"padding": padding})
    assert str(schedule.tiling) == extents
    assert schedule.working_set.shared_bytes == shared <= 96 * 1024
    assert schedule.working_set.register_bytes <= 256 * 1024


def test_a_tile_too_large_is_refused_with_one_that_fits() -> None:
    asked, device = of_kernel(problem(4096, 4096, 128), "flash-v100"), load_device(V100)
    with pytest.raises(UsageError, match=r"176.5 KiB of 96 KiB shared memory") as refused:
        make_schedule(asked, device, "flash-v100", tile(64, 256))
    assert refused.value.faults[0].hint == "the largest that fits is 48x128"
    make_schedule(asked, device, "flash-v100", tile(48, 128))
    staged = {"scores": "registers", "prefetch": True}
    held = make_schedule(asked, device, "flash-v100", tile(128, 64), staged).working_set
    assert held.register_bytes == 128 * (64 + 128 + 2) * 4 + 64 * 128 * 2  # scores, output, a whole tile in flight
    assert held.shared_bytes == 128 * 128 * 2 + 64 * 128 * 2


@given(calls())
def test_it_stays_above_the_floors_of_its_class(call: dict[str, Any]) -> None:
    if not call["allowed"].any():
        return
    schedule = make(call, "flash-v100")
    memory = schedule.working_set.total_bytes * 8
    floors = attention_floors(schedule.problem, Near("given", memory), lse_output=True)
    moved = schedule.traffic
    assert schedule.algorithm_class == "standard-once"
    assert floors.any_elements <= floors.once_elements <= moved.read_elements + moved.write_elements


def test_a_v100_is_given_what_exists_there() -> None:
    """Reports without a kernel take the one for Volta, and FlashAttention-2 on a V100 names it."""
    device = load_device(V100)
    assert default_kernels("prefill", device) == ("unfused", "flash-v100")
    assert default_kernels("prefill", load_device("h100-sxm5")) == ("unfused", "flash1", "flash2", "flash3")
    assert default_kernels("decode", device) == ("split-kv",)
    asked = problem(512, 512, 64, heads=4)
    report = analyze(Attention(asked.shape, asked.mask, Types.of("fp16")), device)
    assert [kernel.name for kernel in report.kernels] == ["unfused", "flash-v100"]
    assert report.kernels[1].boundary("core").total_bytes == report.kernels[1].schedule.traffic.total_bytes
    named = analyze(asked, device, ["flash2"]).assumptions
    assert any("flash2 does not exist for NVIDIA Tesla V100" in text and "flash-v100" in text for text in named)


@pytest.mark.parametrize("name", kernel_names())
def test_what_exists_instead_is_a_kernel_with_a_tile_there(name: str) -> None:
    devices = {"volta": V100, "turing": "t4", "cpu": "epyc-9654", "spatial-array": "fusemax-cloud"}
    for architecture, others in load_kernel(name).instead.items():
        for other in others:
            load_kernel(other).rule(problem(64, 64, 64), load_device(devices[architecture]))
