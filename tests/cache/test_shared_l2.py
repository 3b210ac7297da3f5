"""The replay of a schedule over a device's L2: against the readable form, against counts, against counters of GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles.random_calls import calls, concurrencies, make, problem, tile

from iosim.cache.l2_oracle import OracleL2, lockstep_touches
from iosim.cache.shared_l2 import L2, L2Replay, replay_l2
from iosim.kernels import make_schedule
from iosim.schedule import Schedule
from iosim.trace.compiled import table_of_steps
from iosim.trace.concurrency import Concurrency

MIB = 1 << 20


def bits_of(schedule: Schedule) -> dict[str, int]:
    return {m.tensor: m.bits for m in schedule.traffic.moved}


def replay(schedule: Schedule, concurrency: Concurrency, l2: L2) -> L2Replay:
    programs = [launch.program for launch in schedule.launches]
    assert all(programs)
    return replay_l2([p for p in programs if p], bits_of(schedule), concurrency, l2)


@settings(max_examples=40)
@given(calls(), concurrencies, st.integers(0, 400), st.integers(1, 2), st.integers(1, 3))
def test_the_engine_equals_the_readable_form(
    call: dict[str, Any], concurrency: Concurrency, capacity: int, instances: int, partitions: int
) -> None:
    """Rows are as fine as a touch can be here, and no tile is larger than the cache in both."""
    call = call | {"rows": 1, "cols": 1, "batch": 1}
    schedule = make(call, "flash2")
    largest = 2 * max(call["d"], call["d_v"], 2)
    l2 = L2(capacity * partitions + largest * partitions, instances, partitions)
    made = replay(schedule, concurrency, l2)
    program = schedule.launches[0].program
    assert program is not None
    bits = {t: program.row_elements[t] * b for t, b in bits_of(schedule).items()}
    oracle = OracleL2(l2, bits)
    for slot, touch in lockstep_touches(program, concurrency):
        oracle.access(slot % concurrency.cores, touch)
    dirty = oracle.dirty()
    for tensor in made.read_bytes:
        assert made.read_bytes[tensor] == oracle.read[tensor] // 8
        assert made.missed_bytes[tensor] == oracle.missed[tensor] // 8
        assert made.evicted_bytes[tensor] == oracle.written[tensor] // 8
        assert made.dirty_bytes[tensor] == dirty[tensor] // 8


#: no query sees the keys of the first item
UNSEEN = {
    "mask": "window:3",
    "n_q": 4,
    "n_kv": 20,
    "d": 3,
    "d_v": 2,
    "group": 2,
    "kv_heads": 2,
    "batch": 1,
    "rows": 4,
    "cols": 4,
}


@example(UNSEEN, Concurrency(2), "flash2-backward")
@example(UNSEEN, Concurrency(2), "backward-two-kernels")
@given(calls(), concurrencies, st.sampled_from(["flash2-backward", "backward-two-kernels", "flash2"]))
def test_a_large_cache_fetches_each_row_of_an_input_once(
    call: dict[str, Any], concurrency: Concurrency, kernel: str
) -> None:
    """Whoever touches it: query heads share the keys of their group, though their first items may see none."""
    schedule = make(call, kernel, phase="backward" if "backward" in kernel else "prefill")
    made = replay(schedule, concurrency, L2(1 << 40))
    touched: dict[str, set[tuple[int, int]]] = {"Q": set(), "K": set(), "V": set()}
    for launch in schedule.launches:
        program = launch.program
        assert program is not None
        for touch in (touch for item in range(program.items) for step in program.steps(item) for touch in step):
            if touch.tensor in touched:
                touched[touch.tensor] |= {(touch.head, touch.row + i) for i in range(touch.rows)}
    width = {"Q": call["d"], "K": call["d"], "V": call["d_v"]}
    for tensor, rows in touched.items():
        assert made.read_bytes.get(tensor, 0) == len(rows) * width[tensor] * 2


@given(calls(), concurrencies, st.sampled_from(["flash1", "unfused", "split-kv"]))
def test_every_kernel_without_a_cache_moves_its_count(
    call: dict[str, Any], concurrency: Concurrency, kernel: str
) -> None:
    settings = {"splits": 1 + (-(-call["n_kv"] // call["cols"]) > 2)} if kernel == "split-kv" else {}
    phase = "decode" if kernel == "split-kv" else "prefill"
    schedule = make(call | {"mask": "full"}, kernel, phase=phase, **settings)
    made = replay(schedule, concurrency, L2(0))
    for m in schedule.traffic.moved:
        assert made.read_bytes.get(m.tensor, 0) * 8 == pytest.approx(m.read_elements * m.bits, abs=7)
        assert made.evicted_bytes.get(m.tensor, 0) * 8 == pytest.approx(m.write_elements * m.bits, abs=7)


@given(calls(), concurrencies)
def test_without_a_cache_the_replay_is_the_count(call: dict[str, Any], concurrency: Concurrency) -> None:
    """Every request reaches memory when nothing fits, in any order of items; every write leaves at once."""
    for pack in (False, True):
        schedule = make(call, "flash2", pack)
        made = replay(schedule, concurrency, L2(0))
        for m in schedule.traffic.moved:
            if m.read_elements or m.write_elements:
                assert made.read_bytes[m.tensor] * 8 == m.read_elements * m.bits
                assert made.evicted_bytes[m.tensor] * 8 == m.write_elements * m.bits


@given(calls(), concurrencies, st.integers(1, 3))
def test_with_room_for_all_each_tensor_moves_once(call: dict[str, Any], concurrency: Concurrency, parts: int) -> None:
    schedule = make(call, "flash2")
    made = replay(schedule, concurrency, L2(1 << 30, 1, parts))
    counts = schedule.problem.counts()
    assert made.read_bytes["K"] >= counts.keys * schedule.problem.shape.head_dim * 2
    assert made.read_bytes["K"] <= schedule.problem.n_kv * schedule.problem.shape.head_dim * 2 * (
        schedule.problem.shape.kv_heads * schedule.problem.shape.batch
    )
    assert sum(made.evicted_bytes.values()) == 0


@given(calls(), concurrencies, st.integers(0, 3000))
def test_bytes_are_conserved(call: dict[str, Any], concurrency: Concurrency, capacity: int) -> None:
    """What is written is evicted or still dirty; what memory gives never exceeds what was asked for."""
    schedule = make(call, "flash2")
    made = replay(schedule, concurrency, L2(capacity))
    for m in schedule.traffic.moved:
        if m.tensor in made.read_bytes:
            assert (made.evicted_bytes[m.tensor] + made.dirty_bytes[m.tensor]) * 8 == m.write_elements * m.bits
            assert made.read_bytes[m.tensor] <= made.missed_bytes[m.tensor] <= made.requested_bytes[m.tensor]


@given(calls(), st.booleans())
def test_tables_equal_walked_steps(call: dict[str, Any], init: bool) -> None:
    for schedule in (make(call, "flash2", False), make(call, "flash2", True), make(call, "flash1", init=init)):
        program = schedule.launches[0].program
        assert program is not None
        assert program.table is not None
        for head in range(program.heads):
            fast, slow = program.table(head), table_of_steps(program, head)
            names = np.array(fast.tensors)[fast.tensor]
            assert names.tolist() == np.array(slow.tensors)[slow.tensor].tolist()
            for field in ("item", "step", "row", "rows", "write"):
                assert getattr(fast, field).tolist() == getattr(slow, field).tolist()


@given(calls(), concurrencies, st.integers(0, 600), st.integers(0, 4000))
def test_a_memory_side_cache_takes_reads_and_writes(
    call: dict[str, Any], concurrency: Concurrency, near: int, behind: int
) -> None:
    """A cache behind two private L2s never adds traffic, and with room for all nothing is written in the kernel."""
    schedule = make(call, "flash2")
    alone, backed = (replay(schedule, concurrency, L2(near, 2, 1, size)) for size in (0, behind + 4096))
    for tensor in alone.read_bytes:
        assert backed.read_bytes[tensor] <= alone.read_bytes[tensor]
        assert backed.evicted_bytes[tensor] <= alone.evicted_bytes[tensor]
    roomy = replay(schedule, concurrency, L2(near, 2, 1, 1 << 30))
    assert sum(roomy.evicted_bytes.values()) == 0


# --- counters of real GPUs -----------------------------------------------------------------------


def prefill(kernel: str = "flash2", size: int = 128, **shape: Any) -> Schedule:
    return make_schedule(problem(**shape), None, kernel, tile(size, size), {"lse": False})


@pytest.mark.parametrize(("size", "order", "gib", "tolerance"), [
    (64, "row-major", 129.45, 0.01), (128, "row-major", 64.50, 0.01), (128, "head-major", 1.50, 0.01),
])  # fmt: skip
def test_h100_triton_reads_by_tile_and_grid_order(size: int, order: str, gib: float, tolerance: float) -> None:
    """A4: DRAM reads of Triton attention on H100, 256 heads of 8,192 tokens, head size 128: 43x by grid order."""
    schedule = prefill(n_q=8192, n_kv=8192, d=128, heads=256, kv_heads=256, size=size)
    made = replay(schedule, Concurrency(132, grid_order=order), L2(50 * MIB, 1, 2))
    assert sum(made.read_bytes.values()) / 2**30 == pytest.approx(gib, rel=tolerance)


def test_h200_persistent_gqa_reads_and_writes_in_the_kernel() -> None:
    """A5: 57.7 MB read (compulsory 50.3), 21.0 of 33.6 MB written before the kernel ends (20 %)."""
    schedule = prefill(n_q=4096, n_kv=4096, d=128, heads=32, kv_heads=8, mask="causal")
    concurrency = Concurrency(132, grid_order="longest-first", assignment="static")
    made = replay(schedule, concurrency, L2(56 * MIB, 1, 2))
    assert 50.3e6 <= sum(made.read_bytes.values()) <= 57.7e6
    assert sum(made.evicted_bytes.values()) == pytest.approx(21.0e6, rel=0.20)
    assert made.hit_rate == pytest.approx(0.924, abs=0.03)


@pytest.mark.slow
def test_gb10_sawtooth_cuts_misses_to_a_third() -> None:
    """A2: cyclic 370 M missed sectors, sawtooth 120 M, ratio 0.324; one head of 131,072 tokens per sequence, batch 8."""
    schedule = prefill(n_q=131_072, n_kv=131_072, d=64, size=64)
    missed = {}
    for order in ("cyclic", "sawtooth"):
        made = replay(schedule, Concurrency(48, kv_order=order), L2(23 * MIB))
        missed[order] = 8 * sum(made.missed_bytes.values()) // 32
    assert missed["cyclic"] == pytest.approx(370e6, rel=0.05)
    assert missed["sawtooth"] == pytest.approx(120e6, rel=0.05)
    assert missed["sawtooth"] / missed["cyclic"] == pytest.approx(0.324, abs=0.03)


def test_gb10_refetch_begins_when_keys_pass_the_cache() -> None:
    """A3: the first refetch at K+V of about 20 MiB (18 to 22) with 24 MiB nominal, 22 usable beside Q and O."""
    onset = []
    for mib in range(14, 27, 2):
        tokens = mib * MIB // (2 * 64 * 2)
        schedule = make_schedule(problem(tokens, tokens, 64), None, "flash2", tile(80, 80), {"lse": False})
        made = replay(schedule, Concurrency(48), L2(22 * MIB))
        if sum(made.read_bytes.values()) > 1.02 * 3 * tokens * 64 * 2:
            onset.append(mib)
    assert 18 <= onset[0] <= 22


@pytest.mark.parametrize(("name", "capacity", "partitions", "curve"), [
    ("A100", 40, 2, {16.2: 0.0, 19.0: 0.0, 26.0: 1.0, 30.4: 1.0, 41.7: 1.0, 66.7: 1.0}),
    ("H100", 50, 2, {19.0: 0.0, 22.2: 0.0, 30.4: 1.0, 35.6: 1.0, 48.7: 1.0}),
    ("V100", 6, 1, {5.41: 0.0, 7.41: 1.0, 10.1: 1.0, 26.0: 1.0}),
])  # fmt: skip
def test_shared_sweeps_refetch_beyond_half_of_a_replicating_cache(
    name: str, capacity: int, partitions: int, curve: dict[float, float]
) -> None:
    """A11: fetches per line and pass when every SM sweeps one buffer; one Q row per item, so K is the buffer."""
    cores, passes = {"A100": 108, "H100": 114, "V100": 80}[name], 4
    for mib, fetches in curve.items():
        tokens = int(mib * MIB / 256)
        asked = problem(cores * passes, tokens, 128, 128, latent=True)
        schedule = make_schedule(asked, None, "flash2", tile(1, 256), {"lse": False})
        made = replay(schedule, Concurrency(cores), L2(capacity * MIB, 1, partitions))
        again = made.read_bytes["K"] / (tokens * 256) - 1  # the first pass is compulsory
        assert again / (passes - 1) == pytest.approx(fetches, abs=0.05), (name, mib)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "stagger", "lines"), [("row-major", 1, 8.593e9), ("head-major", 0, 2.69e8)])
def test_mi355x_misses_by_grid_order(order: str, stagger: int, lines: float) -> None:
    """A7: with heads fastest every K/V look-up missed (8.593e9 lines), which takes items out of step; head by head,
    32 compute units of a die in perfect lockstep would miss 2.69e8 (measured 5.61e8: half as good)."""
    schedule = prefill(n_q=65_536, n_kv=65_536, d=128, heads=64, kv_heads=64)
    concurrency = Concurrency(256, grid_order=order, stagger_steps=stagger)
    made = replay(schedule, concurrency, L2(4 * MIB, 8, 1, 256 * MIB))
    assert (made.missed_bytes["K"] + made.missed_bytes["V"]) / 128 == pytest.approx(lines, rel=0.01)


def test_gb10_requests() -> None:
    """A1: 107,729,467 sectors asked of the L2 by one head of 32,768 tokens, head size 64, tiles 80 x 80 (0.1 %)."""
    schedule = make_schedule(problem(32_768, 32_768, 64), None, "flash2", tile(80, 80), {"lse": False})
    assert schedule.traffic.total_bytes / 32 == pytest.approx(107_729_467, rel=1e-3)


@pytest.mark.parametrize(("mask", "percent"), [("causal", 90.4), ("full", 94.7)])
def test_rtx_5090_hit_rates(mask: str, percent: float) -> None:
    """A6: L2 hit rates of an attention kernel on an RTX 5090, 32 heads of 4,096, 128 x 64 tiles (1.5 points)."""
    asked = problem(4096, 4096, 128, mask=mask, heads=32, kv_heads=32)
    schedule = make_schedule(asked, None, "flash2", tile(128, 64), {"lse": False})
    made = replay(schedule, Concurrency(170), L2(96 * MIB))
    assert 100 * made.hit_rate == pytest.approx(percent, abs=1.5)
