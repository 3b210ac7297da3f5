"""Batches of unequal lengths: every count is the sum of single-sequence calls, and tiles begin anew at each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters, numpy_kernels
from oracles.random_calls import of_kernel
from test_numpy_kernels import Case, close, counted_as_scheduled
from test_programs import check, counted, touched

from iosim.analysis import analyze
from iosim.attention import Attention, Shape
from iosim.certificate import certify
from iosim.certificate_check import check_certificate
from iosim.errors import UsageError
from iosim.kernels import make_schedule
from iosim.links import LinkAsked
from iosim.machine import load_device
from iosim.masks import Grid, Tiling, bind
from iosim.problem_builder import ask, bind_lengths
from iosim.report import Options
from iosim.schedule import Schedule, Traffic, Work
from iosim.speedup import speedup
from iosim.trace.accesses import WRITE
from iosim.trace.call_touches import call_touches
from iosim.trace.compiled import table_of_steps

FORWARD = ("flash1", "flash2", "flash3", "flash4", "flash-sigmoid", "fast-attention-volta")
BACKWARD = ("flash2-backward", "backward-q-outer", "backward-two-kernels")


def typed(lengths: list[int]) -> str:
    return "+".join(map(str, lengths)) if len(lengths) > 1 else f"1*{lengths[0]}"


@st.composite
def batches(draw: st.DrawFn) -> dict[str, Any]:
    sequences = draw(st.integers(2, 4))
    keys = [draw(st.integers(1, 20)) for _ in range(sequences)]
    return {
        "keys": keys,
        "queries": [draw(st.integers(1, n)) for n in keys],
        "mask": draw(st.sampled_from(["full", "causal", "window:5,sink=2"])),
        "shape": Shape(1, 4, 2, draw(st.integers(1, 5)), draw(st.integers(1, 5))),
        "tile": Tiling((draw(st.integers(1, 9)),), (draw(st.integers(1, 9)),)),
    }


def together(call: dict[str, Any], phase: str = "prefill") -> Attention:
    mask = bind_lengths(call["mask"], typed(call["queries"]), typed(call["keys"]))
    return Attention(call["shape"], mask, phase=phase)


def alone(call: dict[str, Any], phase: str = "prefill") -> list[Attention]:
    grids = (Grid((q,), (kv,)) for q, kv in zip(call["queries"], call["keys"], strict=True))
    return [Attention(call["shape"], bind(call["mask"], grid), phase=phase) for grid in grids]


def summed(schedules: list[Schedule]) -> tuple[Traffic, Work, list[int]]:
    traffic, work = Traffic(), Work()
    for schedule in schedules:
        traffic, work = traffic + schedule.traffic, work + schedule.work
    return (
        traffic,
        work,
        [sum(items) for items in zip(*([one.items for one in s.launches] for s in schedules), strict=True)],
    )


def per_tensor(traffic: Traffic) -> dict[str, tuple[int, int]]:
    return {m.tensor: (m.read_elements, m.write_elements) for m in traffic.moved}


@pytest.mark.parametrize("kernel", [*FORWARD, *BACKWARD])
@given(call=batches(), pack=st.booleans())
def test_counts_are_those_of_the_sequences(kernel: str, call: dict[str, Any], pack: bool) -> None:
    phase = "backward" if kernel in BACKWARD else "prefill"
    pack = pack and kernel in ("flash2", "flash3", "flash4")
    made, *each = (
        make_schedule(of_kernel(one, kernel), None, kernel, call["tile"], pack_gqa=pack)
        for one in (together(call, phase), *alone(call, phase))
    )
    traffic, work, items = summed(each)
    assert per_tensor(made.traffic) == per_tensor(traffic)
    rounded = {"shared_bytes": work.shared_bytes, "exp_software": work.exp_software}
    assert replace(made.work, **rounded) == work
    if kernel != "flash1":  # its one item per head walks every sequence
        assert [launch.items for launch in made.launches] == items
    check(made)


@given(call=batches(), page=st.sampled_from([1, 2, 4, 8]))
def test_pages_begin_anew_at_each_sequence(call: dict[str, Any], page: int) -> None:
    call |= {"tile": Tiling(call["tile"].q_tile, (4,))}
    made = make_schedule(together(call), None, "flash2", call["tile"], {"page_size": page})
    each = [make_schedule(one, None, "flash2", call["tile"], {"page_size": page}) for one in alone(call)]
    assert per_tensor(made.traffic) == per_tensor(summed(each)[0])
    check(made)
    program = made.launches[0].program
    assert program is not None
    rows = {
        (touch.row, touch.row + touch.rows)
        for item in range(program.items) for step in program.steps(item) for touch in step
        if touch.tensor == "block_table"
    }  # fmt: skip
    every = {page for begin, end in rows for page in range(begin, end)}
    assert max(every) < sum(-(-n // page) for n in call["keys"])


@given(call=batches(), splits=st.integers(1, 5), pack=st.booleans())
def test_splits_of_unequal_lengths_against_loops(call: dict[str, Any], splits: int, pack: bool) -> None:
    """Each sequence in splits as long as the longest's: the loops walk sequence after sequence."""
    shape, tile = call["shape"], call["tile"]
    longest = max(one.mask.sums(replace(tile, group=2 if pack else 1)).longest for one in alone(call))
    splits = min(splits, longest)
    made = make_schedule(together(call, "decode"), None, "split-kv", tile, {"splits": splits}, pack)
    group, heads = (shape.group, shape.kv_heads) if pack else (1, shape.heads)
    chunk = -(-longest // splits)
    read: dict[str, int] = {}
    written: dict[str, int] = {}
    for one in alone(call):
        q, kv = np.arange(one.n_q)[:, None], np.arange(one.n_kv)[None, :]
        allowed = np.repeat(one.mask.allowed(q, kv), group, axis=0)
        mine = loop_counters.split_chunks(
            allowed, shape.head_dim, shape.head_dim_v, tile.rows, tile.cols, chunk, longest
        )
        for total, moved in ((read, mine.read), (written, mine.written)):
            for tensor, elements in moved.items():
                total[tensor] = total.get(tensor, 0) + heads * elements
    expected = {name: (read.get(name, 0), written.get(name, 0)) for name in {*read, *written}}
    assert {name: both for name, both in per_tensor(made.traffic).items() if both != (0, 0)} == expected
    for launch in made.launches:
        assert touched(launch) == counted(launch)


@given(batches())
def test_truth_and_floors_are_those_of_the_sequences(call: dict[str, Any]) -> None:
    mask, each = together(call).mask, alone(call)
    truth = mask.allowed(np.arange(mask.n_q)[:, None], np.arange(mask.n_kv)[None, :])
    assert truth.sum() == mask.counts().pairs == sum(one.mask.counts().pairs for one in each)
    row = key = 0
    for one in each:
        block = truth[row : row + one.n_q, key : key + one.n_kv]
        assert (block == one.mask.allowed(np.arange(one.n_q)[:, None], np.arange(one.n_kv)[None, :])).all()
        row, key = row + one.n_q, key + one.n_kv
    for name in ("rows", "rows_ok", "keys", "keys_ok", "pairs_ok"):
        assert getattr(mask.counts(), name) == sum(getattr(one.mask.counts(), name) for one in each)


def test_sixty_four_sequences_of_a_hundred_tokens() -> None:
    """FlashAttention-2's blocks begin at cu_seqlens: 64 tiles and 409,600 elements of K; packed documents straddle."""
    wanted = {"heads": 1, "head_dim": 64, "kv_heads": 1}
    apart = make_schedule(ask(seq="64*100", **wanted).problem, None, "flash2", Tiling((128,), (128,)))
    packed = make_schedule(
        ask(seq=6400, mask="document:" + "+".join(["100"] * 64), **wanted).problem,
        None,
        "flash2",
        Tiling((128,), (128,)),
    )
    assert (apart.work.tile_pairs, per_tensor(apart.traffic)["K"]) == (64, (409_600, 0))
    assert (packed.work.tile_pairs, per_tensor(packed.traffic)["K"]) == (146, (1_196_032, 0))


def test_equal_lengths_are_the_batch() -> None:
    wanted: dict[str, Any] = {"heads": 4, "head_dim": 8, "kv_heads": 2, "phase": "decode", "mask": "causal"}
    listed = make_schedule(ask(seq_kv="3*50", **wanted).problem, None, "flash2-decode", Tiling((16,), (16,)))
    usual = make_schedule(ask(seq_kv=50, batch=3, **wanted).problem, None, "flash2-decode", Tiling((16,), (16,)))
    assert per_tensor(listed.traffic) == per_tensor(usual.traffic)
    assert listed.work == usual.work


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"seq": "3+4", "batch": 2}, "are the batch"),
        ({"seq": "3+4", "seq_kv": "3+4+5"}, "2 sequences of queries, 3 of keys"),
        ({"seq": "3+x"}, "no list of lengths"),
        ({"seq": "3+0"}, "at least 1"),
        ({"seq": "9999999*4"}, "more than 65,536"),
    ],
)
def test_what_is_refused(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ask(heads=1, head_dim=8, **given_)


def test_kernels_that_take_one_length_say_so() -> None:
    with pytest.raises(UsageError, match="stream-k is not counted for sequences of unequal lengths"):
        make_schedule(ask(heads=1, head_dim=64, seq="30+40").problem, None, "stream-k", Tiling((16,), (16,)))


@given(call=batches())
def test_speedups_are_of_the_sequences_together(call: dict[str, Any]) -> None:
    made = speedup(together(call).mask, call["tile"])
    each = [speedup(one.mask, call["tile"]) for one in alone(call)]
    for name in ("qk_pairs", "dense_pairs", "q_tiles_launched", "dense_tile_pairs_1d", "whole_tile_pairs"):
        assert getattr(made, name) == sum(getattr(one, name) for one in each)
    for name in ("q_tiles", "dense_tile_pairs", "visited_sum"):
        assert getattr(made.tiles, name) == sum(getattr(one.tiles, name) for one in each)
    assert made.tiles.kv_tiles_dense == max(one.tiles.kv_tiles_dense for one in each)
    assert made.flop_speedup <= max(one.flop_speedup for one in each) * (1 + 1e-12)
    assert made.tiles.speedup_mean <= max(one.tiles.speedup_mean for one in each) * (1 + 1e-12)


@given(batches(), st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(["flash1", "flash2", "split-kv"]))
def test_attention_of_every_sequence_is_computed(call: dict[str, Any], seed: int, pack: bool, kernel: str) -> None:
    """In float64 from what the touches bring, against the softmax of each sequence on its own rows."""
    problem = together(call)
    schedule = make_schedule(problem, None, kernel, call["tile"], pack_gqa=pack and kernel != "flash1")
    truth = problem.mask.allowed(np.arange(problem.n_q)[:, None], np.arange(problem.n_kv)[None, :])
    case = Case({"n_q": problem.n_q, "n_kv": problem.n_kv, "allowed": truth}, schedule, seed)
    memory = case.memory()
    run = numpy_kernels.flash1 if kernel == "flash1" else numpy_kernels.q_outer
    for launch in schedule.launches:
        run(launch, memory, case.allowed, call["shape"].head_dim_v)
    packed = case.pack(case.output())
    close(memory.get("O", len(packed), packed.shape[1:]), packed)
    counted_as_scheduled(memory, schedule)


@given(batches(), st.booleans())
def test_tables_are_the_steps(call: dict[str, Any], pack: bool) -> None:
    for kernel in ("flash1", "flash2"):
        made = make_schedule(together(call), None, kernel, call["tile"], pack_gqa=pack and kernel == "flash2")
        program = made.launches[0].program
        assert program is not None
        assert program.table is not None
        for head in range(program.heads):
            fast, slow = program.table(head), table_of_steps(program, head)
            for field in ("item", "step", "row", "rows", "write"):
                assert getattr(fast, field).tolist() == getattr(slow, field).tolist()


@given(batches())
def test_lines_replayed_without_a_cache_are_the_counts(call: dict[str, Any]) -> None:
    """One element per line: every touch of a line crosses, so lines read and written are the elements counted."""
    schedule = make_schedule(together(call), None, "flash2", call["tile"])
    bits = {m.tensor: 8 for m in schedule.traffic.moved}
    touches = call_touches([launch.program for launch in schedule.launches if launch.program], bits, 1).touches
    lines = np.array([touches.length[touches.flags & WRITE == side].sum() for side in (0, WRITE)]) * touches.copies
    assert tuple(lines) == (schedule.traffic.read_elements, schedule.traffic.write_elements)


def test_certificates_hold_when_derived_again() -> None:
    options = Options(tile=Tiling((64,), (64,)))
    asked = ask(heads=2, head_dim=64, mask="causal", seq="100+2*300").problem
    document = certify(asked, "flash2", None, options, memory_elements=1 << 20).to_dict()
    assert document["inputs"]["problem"]["seq"] == "100+2*300"
    assert check_certificate(document)[1] == []


@pytest.mark.parametrize(("name", "value"), [("seq", "100+300"), ("phase", "decode")])
def test_links_say_that_they_take_one_length(name: str, value: str) -> None:
    more = {"seq_kv": "100+300"} if name == "phase" else {}
    asked = ask(heads=2, head_dim=64, mask="causal", **{name: value}, **more).problem
    with pytest.raises(UsageError, match="links are not counted for sequences of unequal lengths"):
        analyze(asked, load_device("h100-sxm5"), None, Options(link=LinkAsked(exchange="ring", devices=2)))


def test_dynamic_splits_look_at_all_sequences() -> None:
    """64 sequences of one tile and one of 100: P = ceil(1.1 x 8 x 164 / 132) = 11 tiles, ceil(100 / 11) = 10 splits."""
    asked = ask(heads=32, kv_heads=8, head_dim=128, phase="decode", seq_kv="64*128+12800").problem
    settings = {"rule": "flash3-varlen"}
    made = make_schedule(asked, load_device("h100-sxm5"), "split-kv", Tiling((64,), (128,)), settings)
    assert made.launches[0].items == 8 * 65 * 10
    partial = {m.tensor: m.write_elements for m in made.launches[0].traffic.moved}["LSE_partial"]
    assert partial == 32 * (64 * 1 + 10)
