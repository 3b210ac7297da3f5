"""Cascades on a spatial array: in float64 by their touches, against loops, counted passes and FuseMax's own numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters, numpy_passes
from oracles.random_calls import calls, make, per_tensor, problem, tile, without_idle
from test_counts import expected
from test_numpy_kernels import Case, close, counted_as_scheduled, seeds
from test_programs import check
from test_variants import times

from iosim import analyze
from iosim.errors import UsageError
from iosim.floors import Memory, attention_floors
from iosim.kernels import Call, make_schedule
from iosim.kernels.algorithm import total_sums
from iosim.kernels.array_cycles import array_work, fused_cycles
from iosim.kernels.usual import default_kernels
from iosim.machine import load_device
from iosim.machine_check import check_device
from iosim.passes import analyze_passes, read_cascade
from iosim.schedule import Schedule

WAYS = [(1, "keep"), (2, "keep"), (2, "spill"), (2, "recompute"), (3, "keep"), (3, "spill"), (3, "recompute")]
DEVICE = "fusemax-cloud"


def cascade(call: dict[str, Any], passes: int, way: str, **more: object) -> Schedule:
    if way == "recompute":
        return make(call, "recompute-array", passes=passes, **more)
    return make(call, "fusemax", passes=passes, between=way, **more)


def loops(call: dict[str, Any], passes: int, way: str) -> loop_counters.Counters:
    """One head, in plain loops: a block of queries, then the passes over the key tiles that it sees."""
    c, d, d_v = loop_counters.Counters(), call["d"], call["d_v"]
    allowed = call["allowed"]
    for i in loop_counters.tiles(call["n_q"], call["rows"]):
        visited = [j for j in loop_counters.tiles(call["n_kv"], call["cols"]) if allowed[i, j].any()]
        c.store("O", loop_counters.length(i) * d_v)
        if not visited:
            continue
        c.load("Q", loop_counters.length(i) * d)
        for number in range(1, passes + 1):
            for j in visited:
                rows, keys = allowed[i, j].shape
                forms = number == 1 or way == "recompute"
                if forms:
                    c.load("K", keys * d)
                    c.executed += 2 * d * rows * keys
                elif way == "spill":
                    c.load("S", rows * keys)
                if number == 1 and passes > 1 and way == "spill":
                    c.store("S", rows * keys)
                if number == passes:
                    c.load("V", keys * d_v)
                    c.executed += 2 * d_v * rows * keys
                    c.tiles += 1
                    c.flop += 2 * (d + d_v) * int(allowed[i, j].sum())
                    c.rescale += rows if passes < 3 else 0
                exponentiates = {1: number == 1, 2: forms, 3: number == 2 or (number == 3 and way != "keep")}[passes]
                c.exp += rows * keys * exponentiates
    return c


@given(calls(), seeds, st.sampled_from(WAYS))
def test_every_cascade_computes_attention(call: dict[str, Any], seed: int, chosen: tuple[int, str]) -> None:
    schedule = cascade(call, *chosen)
    case = Case(call, schedule, seed)
    memory = case.memory()
    numpy_passes.cascade(schedule.launches[0], memory, case.allowed, call["d_v"], chosen[0], call["rows"],
                         call["cols"], chosen[1] == "spill")  # fmt: skip
    wanted = case.output()
    close(memory.get("O", len(wanted), wanted.shape[1:]), wanted)
    counted_as_scheduled(memory, schedule)


@given(calls(), st.sampled_from(WAYS), st.booleans())
def test_counts_equal_loops(call: dict[str, Any], chosen: tuple[int, str], lse: bool) -> None:
    schedule = cascade(call, *chosen, lse=lse)
    counted = loops(call, *chosen)
    if lse:
        counted.store("LSE", call["n_q"])
    assert without_idle(per_tensor(schedule)) == without_idle(expected(counted, times(call)))
    work = schedule.work
    assert (work.tile_pairs, work.flop, work.flop_executed, work.exp, work.exp_rescale) == tuple(
        times(call) * n for n in (counted.tiles, counted.flop, counted.executed, counted.exp, counted.rescale)
    )
    check(schedule)


def sweeps_of(schedule: Schedule, key_tiles: int) -> int:
    """How often an item starts over at the first key: its steps that bring keys, values or scores, per key tile."""
    program = schedule.launches[0].program
    assert program is not None
    visits = [sum(any(touch.tensor in ("K", "V", "S") for touch in step) for step in program.steps(item))
              for item in range(program.items)]  # fmt: skip
    assert len(set(visits)) == 1
    assert visits[0] % key_tiles == 0
    return visits[0] // key_tiles


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_passes_are_those_of_the_counted_cascade(passes: int) -> None:
    """Spilled words per pass and keys streamed again are what `iosim passes` says of the cascade as written."""
    counted = analyze_passes(read_cascade(f"attention-{passes}-pass"))
    assert counted.passes == passes
    n_q, n_kv, d, rows = 60, 84, 8, 20
    asked = problem(n_q, n_kv, d)
    whole = make_schedule(asked, None, "fusemax", tile(rows, 12)).traffic
    extents, blocks = {"m": n_kv, "p": n_q, "e": d, "f": d, "m0": 12, "m1": 7}, {"p": rows}
    for way in counted.choices.get("m", ()):
        if way.name == "recompute":
            made = make_schedule(asked, None, "recompute-array", tile(rows, 12), {"passes": passes})
        else:
            made = make_schedule(asked, None, "fusemax", tile(rows, 12), {"passes": passes, "between": way.name})
        more = made.traffic.read_elements - whole.read_elements, made.traffic.write_elements - whole.write_elements
        assert more == (way.read.elements(extents, blocks), way.write.elements(extents, blocks)), way.name
        # what stays on chip needs slow memory in the first pass and for V in the last only
        assert sweeps_of(made, 7) == (min(passes, 2) if way.name == "keep" else passes), way.name
    assert sweeps_of(make_schedule(asked, None, "fusemax", tile(rows, 12)), 7) == 1
    if passes > 1:
        kept = make_schedule(asked, None, "fusemax", tile(rows, 12), {"passes": passes, "between": "keep"})
        spilt = make_schedule(asked, None, "fusemax", tile(rows, 12), {"passes": passes, "between": "spill"})
        fibre = (kept.working_set.total_bytes - spilt.working_set.total_bytes) // 2
        keep = next(way for way in counted.choices["m"] if way.name == "keep")
        assert fibre == rows * n_kv
        assert keep.live.elements(extents, blocks) >= fibre


#: FuseMax's simulations (attn-proposal.csv of its artifact): heads, d, length, bytes at main memory, seconds
FUSEMAX = [
    (12, 64, 1, 402653184, 0.002013140425531915), (12, 64, 4, 1610612736, 0.02970035744680851),
    (12, 64, 16, 6442450944, 0.46516616170212766), (12, 64, 64, 38654705664, 7.402500357446808),
    (12, 64, 256, 463856467968, 118.2793728), (12, 64, 1024, 6803228196864, 1891.8274331234043),
    (16, 64, 64, 51539607552, 9.870000476595745), (8, 64, 256, 309237645312, 78.8529152),
    (16, 128, 1, 1073741824, 0.005194076595744681), (16, 128, 16, 17179869184, 1.1958228425531914),
    (16, 128, 64, 171798691840, 19.026076868085106), (16, 128, 1024, 35734127902720, 4862.10858920851),
]  # fmt: skip


@pytest.mark.parametrize(("heads", "d", "thousands", "traffic", "seconds"), FUSEMAX)
def test_fusemax_as_published(heads: int, d: int, thousands: int, traffic: int, seconds: float) -> None:
    """BERT, TrXL, T5 and XLM at batch 64: every byte, and the compute-bound time at 940 MHz."""
    n = thousands * 1024
    asked = problem(n, n, d, heads=heads, kv_heads=heads, batch=64)
    schedule = make_schedule(asked, load_device(DEVICE), "fusemax")
    assert schedule.traffic.total_bytes == traffic
    call = Call(asked, schedule.tiling, schedule.parameters)
    assert fused_cycles(call, total_sums(asked, schedule.tiling)) / 940e6 == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("kernel", "heads", "d", "thousands", "seconds"),
    [("three-pass-array", 12, 64, 1, 0.013386076595744681), ("three-pass-array", 12, 64, 64, 54.829369736170214),
     ("three-pass-array", 16, 128, 4, 0.2855696340425532), ("one-pass", 12, 64, 1, 0.015333855319148937),
     ("one-pass", 16, 128, 64, 91.77494114042554)],
)  # fmt: skip
def test_softmax_on_the_1d_array_as_published(kernel: str, heads: int, d: int, thousands: int, seconds: float) -> None:
    """FLAT (attn-flat.csv) and FuseMax's cascade on FLAT's array (attn-cascade.csv): the 1D array binds."""
    n = thousands * 1024
    asked = problem(n, n, d, heads=heads, kv_heads=heads, batch=64)
    chosen = {} if kernel == "three-pass-array" else {"softmax": "1d", "exp_cycles": 2}
    name = kernel if kernel == "three-pass-array" else "fusemax"
    schedule = make_schedule(asked, None, name, tile(256, 256), chosen)
    call = Call(asked, schedule.tiling, schedule.parameters)
    passes = call.number("passes")
    two_d, one_d = array_work(call, total_sums(asked, schedule.tiling), passes, 0, 1)
    assert one_d.cycles / 940e6 == pytest.approx(seconds, rel=1e-9)
    assert two_d.cycles < one_d.cycles
    assert (two_d.exp, one_d.exp) == (0, schedule.work.exp + schedule.work.exp_rescale)


def test_the_cascade_on_a_smaller_block_as_published() -> None:
    """attn-cascade.csv: blocks of 8,192 queries."""
    asked = problem(65536, 65536, 64, heads=12, kv_heads=12, batch=64)
    assert make_schedule(asked, None, "fusemax", tile(8192, 256)).traffic.total_bytes == 115964116992


@given(calls(), st.sampled_from(WAYS), st.integers(1, 9))
def test_cycles_of_ragged_tiles_equal_loops(call: dict[str, Any], chosen: tuple[int, str], size: int) -> None:
    call = call | {"cols": min(call["cols"], size)}
    schedule = cascade(call, *chosen, array=size)
    asked, settings = schedule.problem, schedule.parameters
    tiles = blocks = 0
    for i in loop_counters.tiles(call["n_q"], call["rows"]):
        inner = len(loop_counters.tiles(loop_counters.length(i), size))
        blocks += inner
        tiles += inner * sum(call["allowed"][i, j].any() for j in loop_counters.tiles(call["n_kv"], call["cols"]))
    passes, way = chosen
    again, twice = (passes - 1) * (way == "recompute"), 1 + (way == "recompute" or chosen == (3, "spill"))
    twice = 1 if passes == 1 else twice
    two_d, one_d = array_work(
        Call(asked, schedule.tiling, settings), total_sums(asked, schedule.tiling), passes, again, twice
    )
    d, d_v = call["d"], call["d_v"]
    scores = {1: 2, 2: 4, 3: 3}[passes] + twice * 7
    rows = {1: 3 + 7 + 2 * d_v, 2: 3 + 7, 3: 0}[passes]
    if settings["softmax"] == "2d":
        assert two_d.cycles == times(call) * tiles * ((1 + again) * d + d_v + scores)
        assert one_d.cycles == times(call) * (tiles * rows + (blocks * d_v if passes == 1 else 0))
    else:
        rows = {2: 3 + 2, 3: 0}[passes]
        scores = {2: 4, 3: 3}[passes] + twice * 2
        assert one_d.cycles == times(call) * tiles * (size * scores + rows)


def test_the_buffer_holds_what_the_artifact_computes() -> None:
    """16 MiB, two tiles of 256 x 64 and rows of 130 words of 16 bits: 251 blocks of 256 queries, not 252."""
    asked, device = problem(1 << 20, 1 << 20, 64), load_device(DEVICE)
    held = make_schedule(asked, device, "fusemax", tile(251 * 256, 256)).working_set.total_bytes
    assert held == 256 * 128 * 2 + 251 * 256 * 130 * 2
    with pytest.raises(UsageError, match=r"vector memory on FuseMax") as refused:
        make_schedule(asked, device, "fusemax", tile(252 * 256, 256))
    assert "the largest that fits" in refused.value.faults[0].hint


def test_a_kept_fibre_shortens_the_block_or_is_refused() -> None:
    """64 Ki keys of 16 bits are 128 KiB a row: 256 rows need 32 MiB, the buffer holds 112."""
    asked, device = problem(65536, 65536, 64), load_device(DEVICE)
    schedule = make_schedule(asked, device, "three-pass-array")
    assert str(schedule.tiling) == "112x256"
    with pytest.raises(UsageError, match=r"32.13 MiB of 16 MiB") as refused:
        make_schedule(asked, device, "three-pass-array", tile(256, 256))
    assert refused.value.faults[0].hint == "the largest that fits is 112x256"
    spilt = make_schedule(asked, device, "three-pass-array", tile(256, 256), {"between": "spill"})
    assert per_tensor(spilt)["S"] == (2 * 65536**2, 65536**2)


@given(calls(), st.sampled_from(WAYS))
def test_every_way_stays_above_the_floors_of_its_class(call: dict[str, Any], chosen: tuple[int, str]) -> None:
    if not call["allowed"].any():
        return
    schedule = cascade(call, *chosen)
    floors = attention_floors(schedule.problem, Memory("given", 8 * 2 * schedule.working_set.total_bytes))
    again = chosen[1] == "recompute"
    assert schedule.algorithm_class == ("standard" if again else "standard-once")
    own = floors.standard_elements if again else floors.once_elements
    assert floors.any_elements <= own <= schedule.traffic.read_elements + schedule.traffic.write_elements


def test_what_no_array_does_is_refused() -> None:
    asked = problem(64, 64, 8)
    with pytest.raises(UsageError, match="passes must be at most 3, got 4"):
        make_schedule(asked, None, "fusemax", tile(16, 16), {"passes": 4})
    with pytest.raises(UsageError, match="at most 256 keys"):
        make_schedule(asked, None, "fusemax", tile(16, 512))


def test_the_device_and_its_report() -> None:
    device = load_device(DEVICE)
    assert not check_device(device)
    assert device.peak_flop_per_s("fp16") == pytest.approx(256 * 256 * 2 * 940e6)
    assert default_kernels("prefill", device) == ("unfused", "fusemax")
    report = analyze(problem(1024, 1024, 64, heads=12, kv_heads=12, batch=64), device)
    fusemax = report.kernels[1]
    assert fusemax.boundary("hbm").traffic == fusemax.boundary("core").traffic == fusemax.schedule.traffic
    assert fusemax.boundary("hbm").exact
    assert any("1892352 cycles in all" in note for note in report.assumptions)
    assert np.isclose(fusemax.ceilings.times_s["hbm"] or 0, 402653184 / (400 * 2**30))
