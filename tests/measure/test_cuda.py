"""The CUDA path without a GPU: calls in the right order, right results demanded, refusals written down and passed over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iosim.errors import AbsentError, CheckError, UsageError
from iosim.measure.boards import NAMES, device_of
from iosim.measure.cases import PROBES, Case
from iosim.measure.checking import check, error_of
from iosim.measure.cuda import Clock, CudaMachine
from iosim.measure.cuda_calls import BACKENDS, OTHERS, make_call, split_in_two
from iosim.measure.cuda_times import FLUSH_S, LEAST_SPIN_S, SPIN_HZ, SPIN_MARGIN, repeated
from iosim.measure.experiments import MIB, PACKAGES, Board, cuda_cases, selected
from iosim.measure.measuring import measure
from iosim.measure.result_file import SCHEDULES, case_row, read_rows

SMALL = Case("sdpa-flash", 2, 4, 2, 16, 48, 48, "causal")


@pytest.fixture
def machine(fake_torch: Any) -> CudaMachine:
    return CudaMachine.find()


@pytest.mark.parametrize("mask", ["full", "causal", "window:9"])
@pytest.mark.parametrize("kernel", ["sdpa-flash", "sdpa-math", "flex", "fa3"])
def test_every_library_gives_attention(machine: CudaMachine, kernel: str, mask: str) -> None:
    case = replace(SMALL, kernel=kernel, mask=mask, tile_q=16, tile_kv=16)
    if kernel.startswith("sdpa") and mask == "window:9":
        with pytest.raises(UsageError, match="full, or causal"):
            machine.run(case, 0.0)
        return
    measured = machine.run(case, 0.0)
    assert set(measured.times) == {"warm", "cold"}
    assert float(str(measured.about["error_of_result"])) < 1e-5
    wrong = replace(case, mask="causal" if mask == "full" else "full")
    call = make_call(machine, case)
    assert error_of(machine, wrong, call, call.result(call.run())) > 0.01


def test_every_head_and_element_is_checked(machine: CudaMachine) -> None:
    call = make_call(machine, SMALL)
    for place in ((1, 3), (0, 2)):
        made = call.run().copy()
        made[place] = 0
        with pytest.raises(CheckError, match="wrong by"):
            check(machine, SMALL, call, made)
    made[0, 2, 17, 3] = np.nan
    with pytest.raises(CheckError, match="no numbers"):
        check(machine, SMALL, call, made)


def test_a_kernel_that_is_wrong_on_a_small_case_is_not_timed(
    machine: CudaMachine, fake_torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the check of a large case passes over; tried once for all sizes."""
    plain = fake_torch.nn.functional.scaled_dot_product_attention

    def wrong(q: Any, k: Any, v: Any, **options: Any) -> Any:
        made = plain(q, k, v, **options)
        made[..., 1, :] *= 1.5
        return made

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", wrong)
    for n in (300, 310):
        large = replace(SMALL, batch=1, heads=1, kv_heads=1, seq_q=n, seq_kv=n)
        with pytest.raises(CheckError, match="small case"):
            machine.run(large, 0.0)
    assert fake_torch.LOG.count("call") == 1


def test_the_math_path_keeps_16_bit_types(machine: CudaMachine, fake_torch: Any) -> None:
    make_call(machine, SMALL)
    assert fake_torch.SINGLE == [True]
    make_call(machine, replace(SMALL, kernel="sdpa-math"))
    assert fake_torch.SINGLE == [False]
    del fake_torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp  # before PyTorch 2.5
    make_call(machine, replace(SMALL, kernel="sdpa-math"))


def test_each_length_of_flex_attention_is_compiled_afresh(machine: CudaMachine, fake_torch: Any) -> None:
    for n in (48, 32):
        make_call(machine, replace(SMALL, kernel="flex", seq_q=n, seq_kv=n, tile_q=16, tile_kv=16))
    assert fake_torch.LOG == ["reset", "compile"] * 2


def test_unfused_attention_is_two_products_and_a_softmax(machine: CudaMachine) -> None:
    case = replace(SMALL, kernel="unfused", kv_heads=4, mask="full")
    assert float(str(machine.run(case, 0.0).about["error_of_result"])) < 1e-5
    with pytest.raises(UsageError, match="full mask"):
        machine.run(replace(case, mask="causal"), 0.0)
    assert case_row(case, "h200-sxm")["kernel"] == "unfused"
    assert case_row(replace(case, kernel="sdpa-math"), "h200-sxm")["kernel"] == "probe-sdpa-math"


def test_flushes_and_spins_stay_outside_the_events(machine: CudaMachine, fake_torch: Any) -> None:
    machine.run(SMALL, 0.0)
    text = " ".join(fake_torch.LOG)
    timed = "spin event call event"
    assert text == f"call call {' '.join([timed] * 5)} {' '.join(['flush ' + timed] * 5)}"


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The processor's clock, moved by hand."""
    now = [0.0]
    monkeypatch.setattr("iosim.measure.cuda_times.time.perf_counter", lambda: now[0])
    return now


def launching(hand: list[float], seconds: list[float]) -> Callable[[], None]:
    """Calls that take so long to launch."""
    waits = iter(seconds)

    def call() -> None:
        hand[0] += next(waits)

    return call


def test_the_gpu_waits_for_longer_than_a_launch_takes(
    fake_torch: Any, monkeypatch: pytest.MonkeyPatch, hand: list[float]
) -> None:
    spins: list[int] = []
    monkeypatch.setattr(fake_torch.cuda, "_sleep", spins.append)
    made = repeated(fake_torch, launching(hand, [2e-3, 1e-3, 1e-3, 1e-3, 1e-3]), None, 0.0)
    assert made.host_s == pytest.approx(1e-3)
    assert made.spin_s == SPIN_MARGIN * made.host_s
    assert spins[2:] == [int(made.spin_s * SPIN_HZ)] * 3
    assert repeated(fake_torch, launching(hand, [1e-5] * 5), None, 0.0).spin_s == LEAST_SPIN_S


def test_runs_whose_launch_was_late_are_left_out(fake_torch: Any, hand: list[float]) -> None:
    made = repeated(fake_torch, launching(hand, [1e-3, 1e-3, 1e-3, 1e-2, 1e-3]), None, 0.0)
    assert len(made.times_s) == 2
    made = repeated(fake_torch, launching(hand, [1e-3] * 2 + [4e-3] * 6), None, 0.0)  # all were: spun for longer
    assert (len(made.times_s), made.spin_s) == (3, pytest.approx(12e-3))


def test_repetitions_follow_the_limit(machine: CudaMachine, hand: list[float]) -> None:
    timing = machine.run(SMALL, 0.01).times
    assert timing["warm"].runs == int(0.01 / (0.25e-3 + LEAST_SPIN_S))
    assert timing["cold"].runs == int(0.01 / (0.25e-3 + LEAST_SPIN_S + FLUSH_S))
    assert machine.run(SMALL, 1e9).times["cold"].runs == 100
    assert timing["warm"].median_s == 0.25e-3


def test_a_profiled_call_is_alone_in_its_range(machine: CudaMachine, fake_torch: Any) -> None:
    alone = [SMALL.label, "start", "call", "stop", "pop"]
    machine.profile(SMALL, cold=False)
    assert ["call", "call", *alone] == fake_torch.LOG
    fake_torch.LOG.clear()
    machine.profile(SMALL, cold=True)
    assert ["call", "call", "flush", *alone] == fake_torch.LOG  # as before a timed call
    assert ":" not in SMALL.label
    assert " " not in SMALL.label


def test_a_slow_driver_is_seldom_asked_for_its_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], []

    def ask(query: str) -> str:
        now[0] += 2.0
        asked.append(query)
        return str(1980 - len(asked))

    monkeypatch.setattr("iosim.measure.cuda.time.monotonic", lambda: now[0])
    clock, seen = Clock(ask), []
    for _ in range(10):
        now[0] += 10.0
        seen.append(clock.now())
    assert len(asked) == 3  # 2 of every 42 seconds
    assert seen == ["1979"] * 4 + ["1978"] * 4 + ["1977"] * 2


def test_probes_move_what_they_say(machine: CudaMachine) -> None:
    fill = replace(SMALL, kernel="fill", batch=1, heads=1, mask="full")
    assert machine.run(fill, 0.0).times["warm"].runs == 3
    call = make_call(machine, fill)
    assert (call.run() == 1).all()
    assert make_call(machine, replace(fill, kernel="copy")).run().shape == (1, 1, 48, 16)


def test_a_wrong_result_is_no_time(machine: CudaMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v, **options: q * 0 + 1)
    with pytest.raises(CheckError, match=r"wrong by .* small case"):
        machine.run(SMALL, 0.0)


def test_what_a_version_lacks_is_written_and_passed_over(
    machine: CudaMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_TORCH", "no-gqa")
    monkeypatch.setattr("iosim.measure.triton_tiled.triton", None)
    plain = replace(SMALL, kv_heads=4)
    cases = [
        SMALL,
        replace(plain, kernel="sdpa-cudnn"),
        replace(plain, kernel="sdpa-efficient"),
        replace(plain, kernel="fa2"),
        replace(plain, kernel="triton-tiled"),
        replace(plain, kernel="chase"),
        replace(plain, seq_q=1 << 20, seq_kv=1 << 20),
        plain,
    ]
    outcome = measure(machine, cases, tmp_path / "out.csv", "h200-sxm", 60)
    assert (outcome.measured, outcome.failed, outcome.left) == (1, 7, 0)
    rows = read_rows(tmp_path / "out.csv")
    for row, what in zip(
        rows,
        ["unexpected keyword argument 'enable_gqa'", "runtime disabled", "no EFFICIENT_ATTENTION", "flash_attn",
         "Triton is not installed", "Triton is not installed", "out of memory", ""],
        strict=False,
    ):  # fmt: skip
        assert what in row["error"]
        assert row["board"].startswith("NVIDIA H200, 2 SM")
    assert [row["l2"] for row in rows[7:]] == ["warm", "cold"]
    assert rows[7]["versions"].startswith("torch 0.0+numpy, cuda 0.0, cudnn 90000")
    assert "\n" not in "".join("".join(row.values()) for row in rows)


def test_a_lost_gpu_ends_the_run_and_keeps_the_rows(
    machine: CudaMachine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = replace(SMALL, kv_heads=4)
    monkeypatch.setenv("FAKE_TORCH", "lost")
    outcome = measure(machine, [plain, replace(plain, batch=1)], tmp_path / "out.csv", "h200-sxm", 60)
    assert (outcome.stopped, outcome.failed, outcome.left) == ("lost", 1, 1)
    assert "illegal memory access" in read_rows(tmp_path / "out.csv")[0]["error"]


def test_without_a_gpu(fake_torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_TORCH", "no-gpu")
    with pytest.raises(AbsentError, match="no CUDA GPU"):
        CudaMachine.find()


def test_the_board_sizes_the_cases(machine: CudaMachine) -> None:
    board = machine.board()
    assert (board.cores, board.l2_bytes, board.hopper) == (2, 60 * MIB, True)
    assert board.packages == {"fa3"}


def test_two_sides_of_a_cache_are_told_apart(fake_torch: Any) -> None:
    clocks = fake_torch.tensor(np.array([700, 420, 705, 430, 425, 690], np.int32))
    assert split_in_two(fake_torch, clocks).tolist() == [1, 0, 1, 0, 0, 1]
    for one_sided in ([400, 410, 405], [0, 0, 500], [400]):
        with pytest.raises(CheckError, match="no two sides"):
            split_in_two(fake_torch, fake_torch.tensor(np.array(one_sided, np.int32)))


def test_every_case_can_be_built_and_answers_a_question() -> None:
    for board in (Board(), Board(108, 40 * MIB, frozenset(PACKAGES), False), Board(1, 1, frozenset(), False)):
        cases = list(cuda_cases(board))
        assert len({case.key for case in cases}) == len({case.label for case in cases}) == len(cases)
        for case in cases:
            assert case.experiment
            assert case.kernel in (*BACKENDS, *PACKAGES, *OTHERS)
            assert case.heads % case.kv_heads == 0
            assert case.kernel in SCHEDULES
            assert (case.phase == "") == (case.kernel in PROBES)
    found = {case.experiment for case in cuda_cases(Board(packages=frozenset(PACKAGES)))}
    assert {f"E{number}" for number in range(1, 11)} <= found
    assert not any(case.loads == "tma" for case in cuda_cases(Board(hopper=False)))


def test_sweeps_are_sized_by_the_last_cache() -> None:
    sizes = {case.seq_kv * 512 / MIB for case in selected(cuda_cases(Board(132, 60 * MIB)), ["E1"])}
    assert min(sizes) == 16
    assert max(sizes) == 64
    assert {case.seq_q for case in selected(cuda_cases(), ["e1"])} == {8 * 132 * 128}
    assert selected(cuda_cases(), ["flex"])
    assert len(selected(cuda_cases(), [])) == len(list(cuda_cases()))


def test_boards_are_devices_of_the_catalogue() -> None:
    from iosim.machine import device_names

    assert {name for _, name in NAMES if name} <= set(device_names())
    for board, name in (
        ("NVIDIA H100 80GB HBM3, 132 SM, 81089 MiB", "h100-sxm5"), ("NVIDIA H200 NVL", ""), ("NVIDIA H20", "h20"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", ""), ("NVIDIA A100-SXM4-80GB", "a100-sxm-80gb"), ("NVIDIA A10G", ""),
    ):  # fmt: skip
        assert device_of(board) == name
