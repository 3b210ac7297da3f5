"""Masks that are data on split cores: windows of the M-mask, whole tensors, in float64 and by loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters, numpy_split_cores
from oracles.random_calls import calls, make, per_tensor, problem, tile
from test_numpy_kernels import Case, check_rows, seeds
from test_programs import check
from test_variants import times

from iosim.bulk import count_many
from iosim.errors import UsageError
from iosim.floors import Memory, attention_floors
from iosim.kernels import Call, make_schedule
from iosim.kernels.mask_words import mask_entries, window
from iosim.machine import load_device
from iosim.schedule import Schedule

ASCEND = "ascend-910b2"
triangular = calls().filter(lambda call: "window" not in call["mask"])


def tiling_mask(call: dict[str, Any], pack: bool, block: int = 9, **more: object) -> Schedule:
    return make(call, "fast-attention", pack, mask="tiling-mask", mask_block=block, **more)


@given(triangular, seeds, st.booleans(), st.booleans(), st.integers(9, 12))
def test_windows_of_the_triangle_are_the_mask(
    call: dict[str, Any], seed: int, pack: bool, shared: bool, block: int
) -> None:
    """The vector core learns what is masked from the M-mask alone, and computes attention."""
    schedule = tiling_mask(call, pack, block, shared=shared)
    case = Case(call, schedule, seed)
    memory = case.memory()
    memory.put("M_mask", numpy_split_cores.triangle(block)[None])
    numpy_split_cores.split_cores(schedule.launches[0], memory, call["d_v"])
    check_rows(case, memory, schedule)


@given(calls(), seeds, st.booleans(), st.booleans())
def test_a_tensor_serves_any_mask(call: dict[str, Any], seed: int, pack: bool, shared: bool) -> None:
    schedule = make(call, "fast-attention", pack, mask="tensor", shared=shared)
    case = Case(call, schedule, seed)
    memory = case.memory()
    memory.put("mask", (~call["allowed"]).astype(float)[None])
    numpy_split_cores.split_cores(schedule.launches[0], memory, call["d_v"])
    check_rows(case, memory, schedule)


@given(calls(), st.booleans(), st.sampled_from(["tiling-mask", "tensor"]))
def test_entries_equal_loops(call: dict[str, Any], pack: bool, source: str) -> None:
    if source == "tiling-mask" and "window" in call["mask"]:
        return
    schedule = make(call, "fast-attention", pack, mask=source, mask_block=16)
    rows = np.repeat(call["allowed"], call["group"] if pack else 1, axis=0)
    entries = 0
    for i in loop_counters.tiles(len(rows), call["rows"]):
        for j in loop_counters.tiles(call["n_kv"], call["cols"]):
            seen = rows[i, j]
            if seen.any() and (source == "tensor" or not seen.all()):
                entries += seen.size
    name = "M_mask" if source == "tiling-mask" else "mask"
    assert per_tensor(schedule)[name] == (entries * times(call, pack), 0)
    check(schedule)
    plain = make(call, "fast-attention", pack)
    assert schedule.traffic.read_elements - plain.traffic.read_elements == entries * times(call, pack)
    assert schedule.work == plain.work


@pytest.mark.parametrize("block", [1, 3, 5])
def test_a_triangle_of_twice_the_block_holds_every_block(block: int) -> None:
    """All blocks up to M x M at every place of a causal mask that are neither whole nor empty, one by one."""
    n, found = 14, 0
    allowed = loop_counters.mask_matrix(n, n, "causal")
    masked = numpy_split_cores.triangle(block)
    schedule = make_schedule(problem(n, n, 2, mask="causal"), None, "fast-attention", tile(block, block),
                             {"mask": "tiling-mask", "mask_block": block})  # fmt: skip
    call = Call(schedule.problem, schedule.tiling, schedule.parameters)
    for q in range(n):
        for k in range(n):
            for rows in range(1, min(block, n - q) + 1):
                for cols in range(1, min(block, n - k) + 1):
                    seen = allowed[q : q + rows, k : k + cols]
                    if seen.all() or not seen.any():
                        continue
                    down, right = window(call, 0, q, k)
                    cut = masked[down : down + rows, right : right + cols]
                    assert cut.shape == seen.shape
                    assert ((cut == 1) == ~seen).all()
                    found += 1
    assert found or block == 1


def test_memory_as_published() -> None:
    """64 Ki tokens: 8 GiB of 16-bit entries in the paper; the released operator's triangle is 2048 x 2048 bytes."""
    asked = problem(65536, 65536, 128, mask="causal", heads=8)
    for source, bits, taken in (("tensor", 16, 8 << 30), ("tiling-mask", 8, 4 << 20), ("on-chip", 8, 0)):
        schedule = make_schedule(asked, None, "fast-attention", tile(128, 256), {"mask": source, "mask_bits": bits})
        call = Call(asked, schedule.tiling, schedule.parameters)
        assert mask_entries(call) * bits // 8 == taken
    notes = make_schedule(asked, load_device(ASCEND), "fast-attention-tiling-mask", settings={"mask_bits": 16}).notes
    assert any("M-mask in memory: 8 MiB, the tensor would take 8 GiB" in note for note in notes)


def test_a_causal_mask_reads_only_the_diagonal() -> None:
    """8,192 tokens in tiles of 128 x 256: 64 Q tiles each cut one key tile; a tensor is read for all 1,056."""
    asked = problem(8192, 8192, 128, mask="causal", heads=32, kv_heads=8)
    words = {
        source: make_schedule(asked, None, "fast-attention", tile(128, 256), {"mask": source}).traffic
        for source in ("tiling-mask", "tensor")
    }
    moved = {source: next(m for m in traffic.moved if "mask" in m.tensor) for source, traffic in words.items()}
    assert moved["tiling-mask"].read_bytes == 32 * 64 * 128 * 256
    assert moved["tensor"].read_bytes == 32 * 1056 * 128 * 256
    full = problem(8192, 8192, 128, heads=32, kv_heads=8)
    none = make_schedule(full, None, "fast-attention", tile(128, 256), {"mask": "tiling-mask"})
    assert per_tensor(none)["M_mask"] == (0, 0)


def test_what_a_triangle_cannot_give_is_refused() -> None:
    for asked, extents, chosen, words in (
        (problem(64, 64, 8, mask="window:9"), (16, 16), {}, "serves full and causal masks"),
        (problem(64, 64, 8, mask="causal"), (16, 32), {"mask_block": 31}, "up to 31 x 31, got 16x32"),
    ):
        with pytest.raises(UsageError, match=words):
            make_schedule(asked, None, "fast-attention", tile(*extents), {"mask": "tiling-mask", **chosen})
    make_schedule(problem(64, 64, 8, mask="causal"), None, "fast-attention", tile(16, 32),
                  {"mask": "tiling-mask", "mask_block": 32})  # fmt: skip


def test_mask_entries_take_room_beside_the_scores() -> None:
    device = load_device(ASCEND)
    asked = problem(8192, 8192, 128, mask="causal", heads=8)
    plain, cut = (make_schedule(asked, device, name).working_set for name in ("fast-attention", "tiling-mask"))
    assert dict(cut.levels)["ub"] - dict(plain.levels)["ub"] == 128 * 128
    assert cut.total_bytes <= device.core_memory_bytes()


@given(triangular, st.booleans())
def test_it_stays_above_the_floors_of_its_class(call: dict[str, Any], pack: bool) -> None:
    if not call["allowed"].any():
        return
    schedule = tiling_mask(call, pack)
    d, d_v, rows, cols = call["d"], call["d_v"], call["rows"], call["cols"]
    memory = 32 * (rows * (d + d_v + 2) + cols * (d + d_v) + 2 * rows * cols)
    floors = attention_floors(schedule.problem, Memory("given", memory), lse_output=True)
    moved = schedule.traffic
    assert schedule.algorithm_class == "standard-once"
    assert floors.any_elements <= floors.once_elements <= moved.read_elements + moved.write_elements


def test_many_problems_are_counted_as_one_by_one() -> None:
    lengths = [512, 1000, 4096]
    counts = count_many("tiling-mask", {"seq_kv": lengths, "mask": "causal", "head_dim": 64}, device=ASCEND)
    for index, n in enumerate(lengths):
        alone = make_schedule(problem(n, n, 64, mask="causal"), load_device(ASCEND), "tiling-mask")
        assert counts["M_mask.read_elements"][index] == per_tensor(alone)["M_mask"][0]
