"""Pairs of cores: each loads, holds and multiplies half of every K/V tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from oracles.random_calls import calls, make, per_tensor, problem, tile, without_idle
from test_programs import check

import iosim
from iosim.cache.closed_form import hbm_traffic
from iosim.certificate import certify
from iosim.errors import UsageError
from iosim.kernels import load_kernel, make_schedule
from iosim.report import Options
from iosim.trace.compiled import table_of_steps

B200 = iosim.device("b200-sxm")


def loops_of_pairs(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int) -> dict[str, tuple[int, int]]:
    """Core by core: each of a pair walks the keys that the pair sees, and loads its half of their tiles."""
    c = loop_counters.Counters()
    half = -(-cols // 2)
    for pair in loop_counters.tiles(len(allowed), 2 * rows):
        seen = [j for j in loop_counters.tiles(allowed.shape[1], cols) if allowed[pair, j].any()]
        for core in range(2):
            own = max(0, min(rows, pair.stop - pair.start - core * rows))
            c.load("Q", own * d if seen else 0)
            for j in seen:
                keys = max(0, min(half, j.stop - j.start - core * half))
                c.load("K", keys * d)
                c.load("V", keys * d_v)
            c.store("O", own * d_v)
            c.store("LSE", own)
    return {tensor: (c.read[tensor], c.written[tensor]) for tensor in ("Q", "K", "V", "O", "LSE")}


@given(calls(), st.booleans())
def test_pairs_equal_loops(call: dict[str, Any], pack: bool) -> None:
    schedule = make(call, "flash4", pack, ctas=2)
    group = call["group"] if pack else 1
    times = call["batch"] * call["kv_heads"] * call["group"] // group
    loops = loops_of_pairs(
        np.repeat(call["allowed"], group, axis=0), call["d"], call["d_v"], call["rows"], call["cols"]
    )
    wanted = {tensor: (times * read, times * written) for tensor, (read, written) in loops.items()}
    assert without_idle(per_tensor(schedule)) == without_idle(wanted)
    check(schedule)
    assert schedule.launches[0].items == times * 2 * -(-call["n_q"] * group // (2 * call["rows"]))


@given(calls(), st.booleans())
def test_the_table_of_a_pair_equals_walking(call: dict[str, Any], pack: bool) -> None:
    program = make(call, "flash4", pack, ctas=2).launches[0].program
    assert program is not None
    assert program.table is not None
    for head in range(program.heads):
        made, walked = program.table(head), table_of_steps(program, head)
        names = [[table.tensors[number] for number in table.tensor] for table in (made, walked)]
        assert names[0] == names[1]
        for column in ("item", "step", "row", "rows", "write"):
            assert np.array_equal(getattr(made, column), getattr(walked, column))


@given(calls(), st.integers(1, 9))
def test_an_operand_is_read_once_for_the_rows_of_both(call: dict[str, Any], mma_rows: int) -> None:
    pair = make(call, "flash4", ctas=2, mma_rows=mma_rows)
    joined = make(call | {"rows": 2 * call["rows"]}, "flash4", mma_rows=2 * mma_rows)
    assert pair.work == joined.work
    assert pair.traffic == joined.traffic
    assert pair.launches[0].items >= joined.launches[0].items


def test_every_core_reads_the_block_table() -> None:
    asked = problem(64, 96, 8)
    one, two = (
        per_tensor(make_schedule(asked, None, "flash4", tile(rows, 16), {"ctas": ctas, "page_size": 16}))["block_table"]
        for rows, ctas in ((32, 1), (16, 2))
    )
    assert (one, two) == ((2 * 6, 0), (2 * 2 * 6, 0))
    check(make_schedule(asked, None, "flash4", tile(16, 16), {"ctas": 2, "page_size": 16}))


def test_full_attention_on_blackwell_halves_what_a_core_loads() -> None:
    """B200, head size 128: 256 rows a core, 512 a pair: 8,192 queries read K and V 16 times, causal ones 32 times at most."""
    full = make_schedule(problem(8192, 8192, 128, heads=8), B200, "flash4")
    assert (full.parameters["ctas"], full.paired, full.multicast) == (2, 2, 1)
    assert per_tensor(full)["K"][0] == 8 * 16 * 8192 * 128
    alone = make_schedule(problem(8192, 8192, 128, heads=8), B200, "flash4", settings={"ctas": 1, "slots": 3})
    assert per_tensor(alone)["K"][0] == 2 * per_tensor(full)["K"][0]
    assert alone.working_set == full.working_set  # six halves instead of three tiles
    assert alone.launches[0].items == full.launches[0].items == 8 * 32
    report = iosim.analyze(problem(8192, 8192, 128, heads=8), B200, kernels=["flash4"])
    core, l2 = (report.kernels[0].boundary(name) for name in ("core", "l2"))
    assert core.traffic == l2.traffic == full.traffic
    assert core.floors is not None
    assert core.floors.memory.bits == 8 * 2 * B200.memory_above_bytes("core")
    assert core.floors.memory.processors == B200.cores // 2


@pytest.mark.parametrize(
    ("d", "d_v", "mask", "ctas", "shared"),
    [(128, 128, "full", 2, 64 + 96), (128, 128, "causal", 1, 64 + 96), (192, 128, "full", 2, 96 + 120),
     (192, 128, "causal", 1, 96 + 128), (256, 256, "causal", 2, 64 + 64), (64, 64, "full", 1, 32 + 160)],
)  # fmt: skip
def test_the_released_code_pairs_by_head_size_and_mask(d: int, d_v: int, mask: str, ctas: int, shared: int) -> None:
    """KiB of Q and of K/V stages by flash_fwd_sm100.py and sm100_hd256_2cta_fmha_forward.py."""
    schedule = make_schedule(problem(4096, 4096, d, d_v, mask, heads=4), B200, "flash4")
    assert schedule.parameters["ctas"] == ctas
    assert schedule.working_set.shared_bytes == shared * 1024


def test_pairs_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="ctas must be at most 2"):
        make_schedule(problem(64, 64, 8), None, "flash4", tile(16, 16), {"ctas": 3})
    asked = iosim.problem(heads=1, head_dim=8, seq="8x8", mask="full")
    with pytest.raises(UsageError, match="row-major"):
        make_schedule(asked, None, load_kernel("flash4"), iosim.masks.parse_tile("4x4/4x4"), {"ctas": 2})


@pytest.mark.parametrize("ctas", [1, 2])
def test_a_pair_is_held_against_the_memory_of_both(ctas: int) -> None:
    """Certified at the cores: the floor of a pair has twice the memory, and the claim holds when derived again."""
    asked = problem(4096, 4096, 128, heads=2)
    (claim,) = certify(asked, "flash4", B200, Options(settings={"ctas": ctas}), boundary="core").claims
    assert claim.memory_bits == 8 * ctas * B200.memory_above_bytes("core")
    assert claim.processors == B200.cores // ctas
    assert claim.total_bytes > claim.floor_bytes["standard-once"]


def test_a_pair_sweeps_as_often_as_its_cores_would_alone() -> None:
    """Main memory in closed form: rounds of items are as many, whether cores read keys alone or in pairs."""
    asked = problem(131_072, 131_072, 128, heads=8)
    one, two = (
        hbm_traffic(make_schedule(asked, B200, "flash4", settings={"ctas": ctas, "slots": 3 * ctas}), B200)
        for ctas in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert "sweeps K and V again" in two.method
    assert one.traffic == two.traffic
