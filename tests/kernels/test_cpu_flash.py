"""Attention in a processor's caches: a kernel in float64 over a naive LRU cache, PyTorch's buffers, reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters, numpy_cpu
from oracles.random_calls import calls, make, per_tensor, problem, tile, without_idle
from test_counts import expected
from test_numpy_kernels import Case, close, seeds
from test_programs import check
from test_variants import times

from iosim import analyze
from iosim.attention import Attention, Types
from iosim.cache.device_replay import main_memory
from iosim.cache.replay_options import ReplayOptions
from iosim.errors import UsageError
from iosim.floors import Memory, attention_floors
from iosim.kernels import Call, make_schedule
from iosim.kernels.cache_sweeps import Sweep, meet
from iosim.kernels.cpu_flash import SCRATCH, array_bytes, cache_traffic, largest_product
from iosim.kernels.usual import default_kernels
from iosim.machine import Device, load_device
from iosim.schedule import Traffic
from iosim.trace.concurrency import Concurrency

EPYC, XEON = "epyc-9654", "xeon-8480"


def with_cache(capacity_bytes: int, cores: int = 3) -> Device:
    """A processor whose cores have one private cache."""
    device = load_device(EPYC)
    levels = tuple(
        replace(level, capacity_bytes=capacity_bytes) if level.name == "l2" else level
        for level in device.levels
        if level.name != "l1"
    )
    return replace(device, cores=cores, levels=levels)


def on_core(call: dict[str, Any], capacity_bytes: int, dtype: str = "bf16") -> Any:
    asked = problem(call["n_q"], call["n_kv"], call["d"], call["d_v"], call["mask"], call["group"] * call["kv_heads"],
                    call["kv_heads"], call["batch"])  # fmt: skip
    asked = Attention(asked.shape, asked.mask, Types.of(dtype))
    return make_schedule(asked, with_cache(capacity_bytes), "cpu-flash", tile(call["rows"], call["cols"]))


capacities = st.integers(2, 1200).map(lambda words: 2 * words)


@given(calls(), seeds, capacities, st.sampled_from(["bf16", "fp32"]))
def test_it_computes_attention_and_moves_no_more_than_counted(
    call: dict[str, Any], seed: int, capacity: int, dtype: str
) -> None:
    """A real LRU cache never moves more: ragged tiles and the ends of a walk only leave more room."""
    schedule = on_core(call, capacity, dtype)
    case = Case(call, schedule, seed)
    wanted, counted = case.output(), {m.tensor: (m.read_bytes, m.write_bytes) for m in schedule.traffic.moved}
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    for head in range(case.heads):
        k, v = case.k[head // case.group], case.v[head // case.group]
        out, more, gone = numpy_cpu.flash(case.q[head], k, v, case.mask, call["rows"], call["cols"], capacity,
                                          4 if dtype == "fp32" else 2)  # fmt: skip
        close(out, wanted[head])
        for name in ("Q", "K", "V", *SCRATCH):
            read[name] = read.get(name, 0) + more[name]
            written[name] = written.get(name, 0) + gone[name]
    for name in read:
        most = counted.get(name, (0, 0))
        assert read[name] <= most[0], name
        assert written[name] <= most[1], name
    assert (read["K"], read["V"]) == (counted["K"][0], counted["V"][0])
    check(schedule)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), capacities, st.booleans())
def test_a_tile_in_the_middle_of_a_walk_is_counted_exactly(
    d: int, d_v: int, rows: int, cols: int, capacity: int, wide: bool
) -> None:
    """One more whole tile costs the naive cache exactly what the closed form adds."""
    found, counted = [], []
    for tiles in (4, 5):
        rng = np.random.default_rng(tiles)
        q, k, v = rng.normal(size=(rows, d)), rng.normal(size=(tiles * cols, d)), rng.normal(size=(tiles * cols, d_v))
        everything = np.ones((rows, tiles * cols), bool)
        _, read, written = numpy_cpu.flash(q, k, v, everything, rows, cols, capacity, 4 if wide else 2)
        found.append((sum(read.values()), sum(written.values())))
        base = problem(rows, tiles * cols, d, d_v)
        asked = Attention(base.shape, base.mask, Types.of("fp32" if wide else "bf16"))
        made = make_schedule(asked, with_cache(capacity), "cpu-flash", tile(rows, cols), {"lse": False}).traffic
        counted.append((made.read_bytes, made.write_bytes))
    difference = [tuple(b - a for a, b in zip(*pair, strict=True)) for pair in (found, counted)]
    assert difference[0] == difference[1]


@given(calls())
def test_without_caches_it_moves_what_loops_move(call: dict[str, Any]) -> None:
    schedule = make(call, "cpu-flash")
    loops = loop_counters.flash2(call["allowed"], call["d"], call["d_v"], call["rows"], call["cols"], True)
    assert without_idle(per_tensor(schedule)) == without_idle(expected(loops, times(call)))
    work = schedule.work
    assert (work.tile_pairs, work.flop, work.flop_executed, work.exp, work.exp_rescale) == tuple(
        times(call) * n for n in (loops.tiles, loops.flop, loops.executed, loops.exp, loops.rescale)
    )
    check(schedule)


@given(calls(), st.lists(capacities, min_size=2, max_size=2).map(sorted))
def test_a_larger_cache_moves_no_more(call: dict[str, Any], sizes: list[int]) -> None:
    small, large = (on_core(call, size).traffic for size in sizes)
    assert large.read_elements <= small.read_elements
    assert large.write_elements <= small.write_elements


def test_sweeps_by_hand() -> None:
    """A B A over 3 bytes each: A's second sweep is 6 bytes away and B's next one too; all of it needs 6."""
    cycle = (Sweep("x", "A", False, True), Sweep("x", "B", True, False), Sweep("x", "A", True, False))
    sizes = {"A": 3, "B": 3}
    at_six, at_five, at_two = (meet(cycle, sizes, capacity) for capacity in (6, 5, 2))
    assert [(each.fetched, each.written_back) for each in at_six] == [(False, False)] * 3
    assert [(each.fetched, each.written_back) for each in at_five] == [(False, True), (True, False), (True, False)]
    assert at_two == (*meet(cycle, sizes, 5)[:2], at_two[2])
    assert all(not each.written_back for each in meet(cycle, sizes, None))


@pytest.mark.parametrize(
    ("queries", "extents"), [(1, "32x512"), (191, "32x512"), (192, "64x512"), (767, "64x512"), (768, "256x512")]
)
def test_pytorch_chooses_its_tile_by_queries(queries: int, extents: str) -> None:
    assert str(make_schedule(problem(queries, 4096, 64, heads=8, kv_heads=2), None, "cpu-flash").tiling) == extents


def test_buffers_are_those_that_pytorch_allocates() -> None:
    """size_per_thread: qk + qk_max + qk_sum + dst in fp32, and qk once more in the operands' type."""
    schedule = make_schedule(problem(4096, 4096, 128), None, "cpu-flash")
    call = Call(schedule.problem, schedule.tiling, schedule.parameters)
    sizes = array_bytes(call)
    per_thread = (256 * 512 + 256 + 256 + 256 * 128) * 4 + 256 * 512 * 2
    operands = (256 + 2 * 512) * 128 * 2
    assert sum(sizes[name] for name in SCRATCH) + 2 * 256 * 4 == per_thread == 919_552
    assert schedule.working_set.shared_bytes == per_thread + operands == 1_247_232


def test_caches_place_the_tile() -> None:
    """1.19 MiB rest in the Xeon's 2 MiB of L2 and not in the EPYC's 1 MiB; a quarter of the queries rest there too."""
    asked = problem(4096, 4096, 128, mask="causal", heads=32, kv_heads=8)
    xeon, epyc = (make_schedule(asked, load_device(name), "cpu-flash") for name in (XEON, EPYC))
    flash2 = make_schedule(asked, None, "flash2", tile(256, 512))
    assert xeon.traffic == flash2.traffic
    assert any("rest in l2 of a core" in note for note in xeon.notes)
    assert (xeon.model, epyc.model) == ("", "whole arrays of a tile over an LRU l2 of 1 MiB")
    area = 512 * 256 * sum(-(-(i + 1) // 2) for i in range(16)) * 32
    moved = per_tensor(epyc)
    # S (0.5 MiB) stays until the softmax; then scores, probabilities, output and operands no longer fit together
    assert moved["S_tile"] == (0, area)
    assert moved["P_tile"] == (0, area)
    assert any("do not fit l2 of a core (1 MiB)" in note for note in epyc.notes)
    smaller = make_schedule(asked, load_device(EPYC), "cpu-flash", tile(64, 512))
    assert not any(name in per_tensor(smaller) for name in SCRATCH)


def test_into_l1_everything_crosses_again() -> None:
    """32 KiB hold no array of the tile but nothing else: each sweep fetches or writes its own array."""
    asked = problem(4096, 4096, 128, heads=2)
    schedule = make_schedule(asked, load_device(EPYC), "cpu-flash")
    call = Call(asked, schedule.tiling, schedule.parameters, 96, (("l1", 32 * 1024),))
    moved: Traffic = cache_traffic(call, 32 * 1024)
    area, rows = 2 * 4096 * 4096, 2 * 4096
    found = {m.tensor: (m.read_elements, m.write_elements) for m in moved.moved}
    assert found["S_tile"] == (area, 2 * area)
    assert found["P_tile"] == (area, area)
    assert found["O_tile"] == (rows * 128 * (7 + 7 + 1), rows * 128 * (7 + 8))
    assert found["Q"] == (rows * 128 * 8, 0)


@given(calls(), st.integers(0, 600))
def test_it_stays_above_the_floors_of_its_class(call: dict[str, Any], more: int) -> None:
    """From the cache that holds one product at once; statistics of the rows beside it."""
    if not call["allowed"].any():
        return
    whole = make(call, "cpu-flash")
    least = largest_product(Call(whole.problem, whole.tiling, whole.parameters))
    schedule = on_core(call, least + more)
    memory = 8 * (least + more + 2 * 4 * call["rows"])
    floors = attention_floors(schedule.problem, Memory("given", memory), lse_output=True)
    moved = schedule.traffic
    assert schedule.algorithm_class == "standard-once"
    assert floors.any_elements <= floors.once_elements <= moved.read_elements + moved.write_elements


def test_a_product_larger_than_the_cache_is_said_to_be_counted_too_low() -> None:
    asked = problem(4096, 4096, 512)
    for name, low in ((EPYC, True), (XEON, False)):
        notes = make_schedule(asked, load_device(name), "cpu-flash").notes
        assert any("too low" in note for note in notes) == low


def test_a_report_on_a_processor_names_its_caches() -> None:
    device = load_device(EPYC)
    assert default_kernels("prefill", device) == ("unfused", "cpu-flash")
    report = analyze(problem(1024, 1024, 64, mask="causal", heads=16), device)
    text = str(report)
    assert "96 cores with 32 KiB L1 and 1 MiB L2 each, 12 x 32 MiB L3, 460.8 GB/s main memory" in text
    assert "core and l3: exact" in text
    spilt = analyze(problem(1024, 1024, 128, heads=16), device, ["cpu-flash"])
    assert [at.exact for at in spilt.kernels[0].boundaries] == [False, False, False]
    assert "l3 of cpu-flash: ~ whole arrays of a tile over an LRU l2 of 1 MiB" in str(spilt)
    assert [at.name for at in report.kernels[1].boundaries] == ["core", "l2", "hbm"]
    assert any("'l3.bandwidth' is not known" in note for note in report.assumptions)
    faster = replace(device, levels=tuple(
        replace(level, bandwidth_bytes_per_s=2e12) if level.name == "l3" else level for level in device.levels))  # fmt: skip
    kernel = analyze(problem(1024, 1024, 64, heads=16), faster, ["cpu-flash"]).kernels[0]
    assert kernel.ceilings.times_s["l2"] == kernel.boundary("l2").total_bytes / 2e12


def test_what_the_released_kernel_lacks_is_refused() -> None:
    base = problem(512, 512, 64)
    with pytest.raises(UsageError, match="does not compute in fp8"):
        make_schedule(Attention(base.shape, base.mask, Types.of("fp8")), None, "cpu-flash")


def test_threads_take_runs_of_items_and_neighbours_share_a_cache() -> None:
    """Ten items on four threads, two last caches: chunks of three, threads 0 and 1 on the first cache."""
    shared = Concurrency(4, grid_order="chunked", instances=2)
    assert shared.order(2, 5).tolist() == [0, 6, 3, 9, 1, 7, 4, -1, 2, 8, 5, -1]
    assert shared.static
    assert Concurrency(4, grid_order="chunked").order(1, 2).tolist() == [0, 1, -1, -1]


def test_heads_stay_in_one_l3() -> None:
    """Eight heads of eight Q tiles on 12 x 8 cores: a head's threads share an L3, so K and V come once each."""
    asked = problem(2048, 2048, 64, heads=8, kv_heads=8)
    device = load_device(EPYC)
    schedule = make_schedule(asked, device, "cpu-flash")
    together, spread = (
        main_memory(schedule, device, ReplayOptions(grid_order=order)).hbm for order in (None, "head-major")
    )
    assert together
    assert spread
    assert together.method == "replay: 96 items in step (chunked) over 12 x 32 MiB LRU"
    once = 8 * 2048 * 64 * 2
    assert (together.traffic.read_bytes, together.traffic.write_bytes) == (once * 3, once + 8 * 2048 * 4)
    assert spread.traffic.read_bytes > 5 * together.traffic.read_bytes
