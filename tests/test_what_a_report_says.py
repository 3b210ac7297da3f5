"""What a report says of itself is so: why bytes are missing, which counts are exact, whose operands a note means."""

from __future__ import annotations

from dataclasses import replace

import pytest
from oracles.random_calls import problem

import iosim
from iosim.analysis import analyze
from iosim.attention import Attention
from iosim.cache.replay_options import ReplayOptions
from iosim.kernels import make_schedule
from iosim.render.report_text import report_text
from iosim.report import Options, Report
from iosim.validate.predicting import predict_rows

H100 = iosim.device("h100-sxm5")
DECODE = problem(1, 8192, 128, heads=1024, kv_heads=1024, phase="decode")
SCAN = problem(8192, 8192, 128, mask="causal", heads=64)


def notes_of(report: Report, word: str) -> list[str]:
    return [note for note in report.assumptions if word in note]


@pytest.mark.parametrize(("call", "kernel"), [(DECODE, "fixed-state"), (SCAN, "mamba1")])
def test_no_replay_is_the_reason_that_is_given(call: Attention, kernel: str) -> None:
    asked = Options(replay=ReplayOptions(closed_form=True))
    (note,) = notes_of(analyze(call, H100, [kernel], asked), "no bytes at hbm")
    assert note.endswith("it has no closed form, and --no-replay leaves its replay out")
    assert not notes_of(analyze(call, H100, [kernel]), "no bytes at hbm")


def test_a_replay_that_is_too_long_says_how_long() -> None:
    few = Options(replay=ReplayOptions(most_touches=10))
    (note,) = notes_of(analyze(SCAN, H100, ["mamba1"], few), "no bytes at hbm")
    assert note.endswith("its replay would take more than 10 touches (simulate allows more)")
    simulated = analyze(problem(1 << 30, 1 << 30, 64, mask="causal"), H100, ["gla"],
                              Options(replay=ReplayOptions(most_touches=10_000_000)))  # fmt: skip
    (note,) = notes_of(simulated, "no bytes at hbm")
    assert note.endswith("its replay would take more than 10,000,000 touches")


def test_a_cache_of_unknown_size_cannot_be_replayed() -> None:
    unknown = tuple(replace(level, capacity_bytes=None, effective_bytes=None) if level.name == "l2" else level
                    for level in H100.levels)  # fmt: skip
    (note,) = notes_of(analyze(SCAN, replace(H100, levels=unknown), ["mamba1"]), "no bytes at hbm")
    assert "does not tell" in note


@pytest.mark.parametrize(("phase", "kernel"), [("prefill", "unfused"), ("backward", "unfused-backward")])
def test_operands_counted_once_are_a_model_where_no_core_holds_them(phase: str, kernel: str) -> None:
    def counts(n: int, **settings: int) -> Report:
        return analyze(problem(n, n, 64, phase=phase), H100, [kernel],
                             Options(settings=settings, replay=ReplayOptions(closed_form=True)))  # fmt: skip

    once, tiled, small = counts(1024), counts(1024, gemm_tile=128), counts(64)
    exact = [[at.exact for at in report.kernels[0].boundaries if at.name != "hbm"] for report in (once, tiled, small)]
    assert exact == [[False, False], [True, True], [True, True]]
    assert f"core of {kernel}: ~ each operand" in report_text(once)
    (note,) = notes_of(once, "each operand")
    assert note.startswith(f"{kernel}: ")
    assert not notes_of(tiled, "each operand") + notes_of(small, "each operand")


def test_a_low_rank_bias_is_useful_work() -> None:
    asked = problem(256, 256, 64)
    work = make_schedule(asked, kernel="flash-bias", settings={"bias": "low-rank", "rank": 16}).work
    assert work.flop == work.flop_executed == 256 * 256 * (2 * (64 + 64) + 2 * 16)


def test_why_no_time_is_expected_is_said() -> None:
    asked = problem(1024, 1024, 128, mask="causal", heads=8)
    report = analyze(asked, iosim.device("a100-sxm-80gb"), ["flash3", "flash2"])
    (note,) = notes_of(report, "no expected time")
    assert note.startswith("flash3: no expected time: flash3 is calibrated on hopper only")
    assert report.kernels[0].to_dict()["time_expected_s"] is None
    closed = analyze(asked, H100, ["flash3"], Options(replay=ReplayOptions(closed_form=True)))
    assert notes_of(closed, "no expected time: --no-replay")


def test_the_bottleneck_is_the_largest_part_of_what_is_expected_and_else_the_longest_ceiling() -> None:
    asked = problem(2048, 2048, 128, mask="causal", heads=8)
    report = analyze(asked, iosim.device("a100-sxm-80gb"), ["unfused", "flash3"])
    rows = [kernel.to_dict() for kernel in report.kernels]
    parts = rows[0]["breakdown"]
    assert isinstance(parts, dict)
    assert rows[0]["bottleneck"] == max(parts, key=parts.__getitem__).removesuffix("_s")
    assert rows[1]["bottleneck"] == rows[1]["binding_ceiling"]
    words = {
        "device": "a100-sxm-80gb",
        "phase": "prefill",
        "dtype": "bf16",
        "kv_dtype": "",
        "mask": "causal",
        "batch": 1,
    }
    numbers = {"heads": 8, "kv_heads": 8, "head_dim": 128, "seq_q": 2048, "seq_kv": 2048}
    predicted = predict_rows([{"kernel": name, **words, **numbers} for name in ("unfused", "flash3")])
    assert [row["bottleneck"] for row in predicted] == [row["bottleneck"] for row in rows]
