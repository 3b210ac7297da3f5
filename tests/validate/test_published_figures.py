"""Published figures beside predictions: the gate on accuracy and on the order of kernels, readers, the halves."""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iosim.cli import run
from iosim.errors import AbsentError
from iosim.machine import load_device
from iosim.masks import Grid, bind, parse_mask, parse_tile
from iosim.speedup.expected_time import makespan, neighborhood_parts
from iosim.timing.calls import Calls, Floats
from iosim.timing.constants import load_calibration
from iosim.timing.families import PUBLISHED, calibration_of, expected_parts
from iosim.timing.parts import total_s
from iosim.timing.work import FORWARD, Work
from iosim.validate.calibrating import PUBLISHED_ON, _lengths, _speaks_published
from iosim.validate.fitting import Measured, fit, fitted_lengths
from iosim.validate.neighborhoods import expected_s, work_of
from iosim.validate.ordering import Orders, orders_of
from iosim.validate.predicting import predict_rows
from iosim.validate.published import read_published
from iosim.validate.readers import read_table
from iosim.validate.timings import Timings, joined
from iosim.validate.validating import Validation, validate

FIGURES = Path(__file__).resolve().parents[2] / "measurements" / "published-figures.csv"

#: family -> largest median error allowed on the lengths it was not fitted on, of the boards it was fitted on: what it
#: reaches (docs/accuracy.md) and half as much again, at least two points
JUDGED = {
    "fa1": 0.045, "fa2-hopper": 0.04, "fa2-backward": 0.03, "xformers": 0.03, "triton": 0.07, "triton-2022": 0.1,
    "cudnn": 0.04, "unfused": 0.07,
}  # fmt: skip
#: (family, board, paper) never fitted on -> the same
ELSEWHERE = {
    ("fa1", "h100-sxm5", "FlashAttention-2"): 0.11, ("xformers", "h100-sxm5", "SageAttention"): 0.065,
    ("xformers", "a800-sxm-80gb", "SageAttention"): 0.1, ("xformers", "rtx-3090", "SageAttention"): 0.1,
    ("unfused", "h100-sxm5", "FlashAttention-2"): 0.11, ("unfused", "h100-sxm5", "FlashAttention-3"): 0.07,
    ("unfused", "a800-sxm-80gb", "SageAttention"): 0.07, ("unfused", "rtx-a6000", "SageAttention"): 0.13, ("cudnn", "h100-sxm5", "NATTEN"): 0.12,
    ("fa2-backward", "rtx-a5000", "ring-attention"): 0.06,
}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> list[Timings]:
    return joined(list(read_table(FIGURES).timings))


@pytest.fixture(scope="module")
def found() -> Validation:
    return validate([FIGURES])


def ratios(tables: list[Timings], family: str) -> Iterator[tuple[Timings, Floats]]:
    """Predicted over measured, of every table that a family speaks of."""
    calibration = load_calibration(family)
    for table in tables:
        backward = table.work.backward and f"{table.kernel}-backward" in calibration.kernels
        if table.device.architecture not in calibration.architectures or not (
            table.kernel in calibration.kernels or backward
        ):
            continue
        try:
            parts = expected_parts(table.calls, table.device, table.kernel, work=table.work)
        except AbsentError:
            continue
        yield table, total_s(parts) / table.time_s


@pytest.mark.parametrize("family", list(PUBLISHED))
def test_judged_lengths_have_not_drifted(tables: list[Timings], family: str) -> None:
    calibration = load_calibration(family)
    judged = [
        ratio[~fitted_lengths(table.calls)]
        for table, ratio in ratios(tables, family)
        if _speaks_published(table, calibration)
    ]
    error = np.median(np.abs(np.concatenate(judged) - 1))
    assert error < JUDGED[family]


@pytest.mark.parametrize(("family", "board", "paper"), list(ELSEWHERE))
def test_boards_never_fitted_on_have_not_drifted(tables: list[Timings], family: str, board: str, paper: str) -> None:
    assert board not in PUBLISHED_ON[family][0] or paper not in PUBLISHED_ON[family][1]
    rows = [ratio for table, ratio in ratios(tables, family) if (table.device.key, table.paper) == (board, paper)]
    assert np.median(np.abs(np.concatenate(rows) - 1)) < ELSEWHERE[family, board, paper]


def test_kernels_come_out_in_the_measured_order(found: Validation) -> None:
    """Wanted: Kendall's tau over 0.9. By paper the figures of FlashAttention-3 miss it, by near ties (docs/accuracy.md)."""
    clear = {paper: summary.clear_tau for paper, summary in found.order_by_paper().items()}
    assert min(tau for tau in clear.values() if tau is not None) > 0.9
    orders = found.order_by_paper()
    assert orders["all"].groups >= 150
    assert orders["all"].mean_tau > 0.93
    assert orders["all"].tau > 0.89
    assert orders["FlashAttention-2"].mean_tau > 0.88
    assert orders["SageAttention"].mean_tau > 0.97
    assert orders["FlashAttention-3"].mean_tau > 0.8


def test_no_published_figure_beats_the_floor(found: Validation) -> None:
    assert sum(group.rows for group in found.groups) > 600
    assert [group for group in found.groups if group.floors_beaten] == []


def test_every_row_is_compared_or_counted(found: Validation) -> None:
    with FIGURES.open(encoding="utf-8") as handle:
        rows = sum(1 for _ in csv.DictReader(line for line in handle if not line.startswith("#")))
    assert sum(group.rows for group in found.groups) + sum(found.skipped.values()) == rows


def test_judged_errors_leave_out_what_was_fitted(found: Validation, tables: list[Timings]) -> None:
    group = next(g for g in found.groups if (g.kernel, g.device, g.work) == ("cudnn", "h100-sxm5", "forward"))
    table = next(t for t in tables if (t.kernel, t.device.key, t.paper) == ("cudnn", "h100-sxm5", group.paper))
    error = np.abs(total_s(expected_parts(table.calls, table.device, "cudnn")) / table.time_s - 1)
    odd = np.isin(table.calls.n_kv, [1024, 4096, 16384])
    assert group.judged
    assert (group.judged.n, group.rows) == (odd.sum(), len(table))
    assert group.judged.median_abs_error == pytest.approx(float(np.median(error[odd])))
    never = [g for g in found.groups if g.errors and g.kernel in ("flash3", "natten")]
    assert never
    assert all(g.judged == g.errors for g in never)


HEADER = ("source", "hardware", "kernel", "pass", "dtype", "batch", "heads_q", "heads_kv", "head_dim_qk", "head_dim_v",
          "seqlen_q", "seqlen_kv", "causal", "mask", "dropout", "value", "unit")  # fmt: skip


def row(**changes: str) -> dict[str, str]:
    plain = ("FlashAttention-2 (x)", "A100-80GB-SXM4", "FA2", "fwd", "fp16", "2", "16", "16", "64", "64", "1024", "1024", "0",
             "none", "0.0", "100", "TFLOP/s")  # fmt: skip
    return {**dict(zip(HEADER, plain, strict=True)), **changes}


@pytest.mark.parametrize(
    ("changes", "flop"),
    [({}, 1.0), ({"causal": "1"}, 0.5), ({"pass": "bwd"}, 2.5), ({"pass": "fwd+bwd", "causal": "1"}, 1.75)],
)
def test_rates_become_times_as_papers_count_flop(changes: dict[str, str], flop: float) -> None:
    (table,) = read_published([row(**changes)], "x.csv").timings
    assert table.time_s[0] == pytest.approx(flop * 4 * 2 * 16 * 64 * 1024**2 / 100e12)
    assert (table.paper, table.calls.causal[0]) == ("FlashAttention-2", "causal" in changes)


def test_passes_and_releases_are_told_apart() -> None:
    first = row(source="FlashAttention (Dao et al. 2022)", kernel="FA1", unit="ms", dropout="0.1", mask="key-padding")
    rows = [first, row(kernel="FA1", **{"pass": "fwd+bwd"}), row(kernel="FA1"), row(kernel="FA-Triton")]
    tables = read_published(rows, "x.csv").timings
    assert [table.work for table in tables] == [
        Work(dropout=True, padding=True, whole_heads=True), Work(backward=True), Work(), Work(),
    ]  # fmt: skip
    assert str(tables[0].work) == "forward, dropout, padding"
    assert len({table.key for table in tables}) == 4


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kernel": "Megatron"}, "without a time model"),
        ({"kernel": "FA2", "pass": "decode"}, "without a time model"),
        ({"hardware": "TPU"}, "without a file"),
        ({"mask": "butterfly"}, "not described"),
        ({"unit": "GB/s"}, "neither a time nor a rate"),
        ({"dtype": "fp8"}, "not in 16 bits"),
        ({"batch": ""}, "a number is missing"),
        ({"pass": "step"}, "neither a forward nor a backward"),
    ],
)
def test_other_figures_are_counted(changes: dict[str, str], why: str) -> None:
    table = read_published([row(**changes)], "x.csv")
    assert table.timings == ()
    ((said, count),) = table.skipped.items()
    assert why in said
    assert count == 1


def timings(kernel: str, measured: list[float], work: Work = FORWARD) -> Timings:
    n = 1024 * np.arange(1, len(measured) + 1)
    one = np.ones(len(measured), np.int64)
    calls = Calls.of({"batch": one, "heads": one, "kv_heads": one, "head_dim": 64 * one, "n_q": n, "n_kv": n})
    time_s = np.array(measured)
    return Timings(
        load_device("h100-sxm5"), kernel, "none", "fp16", "fp16", True, calls, time_s, "x", one, "paper", work
    )


def test_kendalls_tau_by_hand() -> None:
    """Three kernels on two shapes: all in order, and one pair of three swapped."""
    tables = [
        (timings("a", [1.0, 1.0]), np.array([1.0, 2.0])),
        (timings("b", [2.0, 2.0]), np.array([2.0, 1.0])),
        (timings("c", [3.0, 3.0]), np.array([3.0, 3.0])),
        (timings("a", [9.0, 9.0], Work(backward=True)), np.array([9.0, 9.0])),  # no other kernel with it
    ]
    orders = orders_of(tables)
    assert [order.tau for order in orders] == pytest.approx([1.0, 1 / 3])
    summary = Orders.of(orders)
    assert (summary.groups, summary.pairs, summary.concordant, summary.perfect) == (2, 6, 5, 1)
    assert summary.mean_tau == pytest.approx(2 / 3)
    assert summary.tau == pytest.approx((5 - 1) / 6)
    assert (summary.discordant, summary.clear, summary.clear_agreement) == (1, 6, 4)
    near = [
        (timings("a", [1.0]), np.array([2.0])),
        (timings("b", [1.04]), np.array([1.0])),
        (timings("c", [2.0]), np.array([3.0])),
    ]
    (order,) = orders_of(near)
    assert (order.concordant, order.pairs, order.discordant, order.clear, order.clear_agreement) == (2, 3, 1, 2, 2)
    assert Orders.of([order]).clear_tau == 1.0
    (alike,) = orders_of([(timings("a", [1.0]), np.array([2.0])), (timings("b", [2.0]), np.array([2.0]))])
    assert (alike.concordant, alike.discordant, alike.pairs, alike.tau) == (0, 0, 1, 0.0)


def test_kendalls_tau_against_counting() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        measured, predicted = rng.permutation(5) + 1.0, rng.permutation(5) + 1.0
        tables = [
            (timings(str(k), [m]), np.array([p])) for k, (m, p) in enumerate(zip(measured, predicted, strict=True))
        ]
        (order,) = orders_of(tables)
        couples = list(itertools.combinations(range(5), 2))
        signs = [np.sign((measured[i] - measured[j]) * (predicted[i] - predicted[j])) for i, j in couples]
        assert order.tau == pytest.approx(sum(signs) / len(couples))
        assert order.kernels == tuple(str(k) for k in np.argsort(measured))


def test_kernels_that_take_the_same_time_have_no_order() -> None:
    assert orders_of([(timings("a", [1.0]), np.array([1.0])), (timings("b", [1.0]), np.array([2.0]))]) == []
    unnamed = [(replace(timings("a", [1.0]), paper=""), np.array([1.0])), (timings("b", [2.0]), np.array([2.0]))]
    assert orders_of(unnamed) == []


def test_half_of_each_figure_is_fitted(tables: list[Timings]) -> None:
    for table in tables:
        if len(table) >= 12:
            assert 0.35 < fitted_lengths(table.calls).mean() < 0.65
    calibration = load_calibration("fa2-hopper")
    parts = [part for table in tables if _speaks_published(table, calibration) for part in _lengths(table)]
    assert sum(len(part.calls) for part in parts) == calibration.rows
    assert all(fitted_lengths(part.calls).all() for part in parts)


def test_a_fit_recovers_the_constants_that_made_the_figures() -> None:
    truth = load_calibration("fa2-hopper")
    device = load_device("h100-sxm5")
    rng = np.random.default_rng(0)
    n = rng.choice([512, 2048, 8192], 120)
    d = rng.choice([64, 128], 120)
    numbers = {"batch": 16384 // n, "heads": 2048 // d, "kv_heads": 2048 // d, "head_dim": d, "n_q": n, "n_kv": n,
               "causal": rng.random(120) < 0.5}  # fmt: skip
    calls = Calls.of(numbers)
    data = []
    for work in (Work(), Work(forward=False, backward=True)):
        times = total_s(expected_parts(calls, device, "flash2", work=work)) * np.exp(rng.normal(0, 0.01, 120))
        data.append(Measured(device, "none", calls, times, "flash2", work))
    start = replace(truth, constants=tuple(replace(c, value=c.value * 0.8) for c in truth.constants))
    for made in fit(start, data, "made up").constants:
        assert made.value == pytest.approx(truth.values()[made.name], rel=0.15), made.name
        assert made.low < made.value < made.high


def test_calibrations_name_the_kernels_they_speak_of() -> None:
    for family in PUBLISHED:
        calibration = load_calibration(family)
        for kernel in calibration.kernels:
            for board in PUBLISHED_ON[family][0]:
                assert calibration_of(kernel, load_device(board)).family == family


# --- neighbourhood attention --------------------------------------------------------------------------


def natten(**changes: str) -> dict[str, str]:
    sample = row(source="NATTEN docs", hardware="H100", kernel="Hopper-FNA", dtype="16-bit", batch="1", heads_q="24",
                 heads_kv="24", head_dim_qk="128", head_dim_v="128", seqlen_q="65536", seqlen_kv="65536", dropout="", value="8",
                 unit="ms")  # fmt: skip
    words = {"window": "(80,80) stride (16,16)", "notes": "token layout (256, 256); kernel only"}
    return {**sample, **words, **changes}


def test_neighbourhood_attention_is_predicted_by_cudnns_tiles(tables: list[Timings]) -> None:
    """Nothing is fitted to these rows: 6.5 % in the median, 14 % at most."""
    (table,) = [table for table in tables if table.layouts]
    error = np.abs(expected_s(table) / table.time_s - 1)
    assert len(table) == 7
    assert np.median(error) < 0.1
    assert error.max() < 0.15


def test_strides_of_one_layout_come_out_in_order(found: Validation) -> None:
    assert found.order_by_paper()["NATTEN"].groups == 3
    assert found.order_by_paper()["NATTEN"].mean_tau > 0.9


def test_layouts_are_read_and_kept_with_their_rows() -> None:
    rows = [
        natten(),
        natten(window="(2048) stride 256", notes="token layout (65536,);"),
        natten(window="(80,80) stride 1"),
    ]
    (table,) = read_published(rows, "x.csv").timings
    masks = ["gna:window=80x80,stride=16x16", "gna:window=2048,stride=256", "gna:window=80x80,stride=1x1"]
    assert [layout.mask for layout in table.layouts] == masks
    assert table.layouts[1].tokens == (65536,)
    assert [layout.mask for layout in table[np.array([2, 0])].layouts] == [masks[2], masks[0]]
    assert [layout.mask for layout in table[table.row == 2].layouts] == [masks[1]]
    (together,) = joined([table, table])
    assert len(together.layouts) == 6


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"notes": "token layout (256, 256); with token permute"}, "permutation"),
        ({"notes": ""}, "cannot be read"),
        ({"window": "full"}, "cannot be read"),
        ({"window": "(80,80,80) stride 1"}, "cannot be read"),
        ({"window": "(80,80) stride (1,1,1)"}, "cannot be read"),
    ],
)
def test_layouts_that_cannot_be_read_are_counted(changes: dict[str, str], why: str) -> None:
    ((said, count),) = read_published([natten(**changes)], "x.csv").skipped.items()
    assert why in said
    assert count == 1


def test_flop_and_floor_of_a_neighbourhood_are_counted_pair_by_pair() -> None:
    """A window of 4 of 8 tokens in one axis, all of it inside: 8 x 4 pairs."""
    sample = natten(window="(4) stride 1", notes="token layout (8,);", seqlen_q="8", seqlen_kv="8")
    (table,) = read_published([sample], "x.csv").timings
    flop, moved, floor = work_of(table)
    assert flop[0] == 2 * 256 * 24 * 8 * 4
    assert moved[0] == 24 * 8 * 128 * 2 * 4  # Q, K, V read and O written
    assert floor[0] > 0


def test_a_neighbourhoods_items_are_placed_one_by_one() -> None:
    device, c = load_device("h100-sxm5"), load_calibration("cudnn").values()
    mask = bind(parse_mask("gna:window=2048,stride=2048"), Grid((32768,), (32768,)))
    parts = neighborhood_parts(mask, parse_tile("128/128"), device, 1)
    tile = 4 * 128**3 / 4096 + c["instructions"] * 128 * 128 / 128
    item = c["item"] * 372e-9 * 1.83e9
    assert sum(parts.values()) * 1.83e9 == pytest.approx(2 * (item + 16 * tile))  # 256 items on 132 cores: two rounds
    ragged = neighborhood_parts(
        bind(parse_mask("gna:window=2048"), Grid((32768,), (32768,))), parse_tile("128/128"), device, 1
    )
    assert sum(ragged.values()) > sum(parts.values()) + 16 * c["masked"] * 128 / 1.83e9  # every tile carries the mask
    with pytest.raises(AbsentError, match="hopper only"):
        neighborhood_parts(mask, parse_tile("128/128"), load_device("b200-sxm"), 1)


def test_items_beyond_those_placed_are_spread_evenly() -> None:
    visited = np.full(60_000, 3, np.int64)
    assert makespan(visited, 1.0, 2.0, 100) == pytest.approx(600 * 7.0)
    assert makespan(np.array([1, 5, 1, 1]), 0.0, 1.0, 2) == 5.0


def test_the_command_names_expected_times(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "speedup",
        "--heads",
        "24",
        "--head-dim",
        "128",
        "--seq",
        "64x64",
        "--mask",
        "gna:window=16x16,stride=16x16",
    ]
    assert run([*words, "--device", "h100-sxm5", "--format", "json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert 0 < result["time_expected_s"] < result["dense_time_expected_s"]
    assert run([*words, "--device", "b200-sxm", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["result"]["time_expected_s"] is None
    assert run([*words, "--device", "h100-sxm5"]) == 0
    assert "expected, all heads" in capsys.readouterr().out


def test_predict_times_what_only_papers_timed() -> None:
    plain = {"device": "h100-sxm5", "kernel": "cudnn", "phase": "prefill", "dtype": "bf16", "kv_dtype": "bf16", "batch": 4,
             "heads": 16, "kv_heads": 16, "head_dim": 128, "seq_q": 4096, "seq_kv": 4096, "mask": "causal"}  # fmt: skip
    backward = {**plain, "device": "a100-sxm-80gb", "kernel": "flash2-backward", "phase": "backward"}
    wide = {**plain, "head_dim": 256}
    found = predict_rows([plain, backward, wide, {**plain, "kernel": "flash2"}])
    assert [row["time_expected_s"] is not None for row in found] == [True, True, False, True]
    assert found[0]["status"] == found[3]["status"] == "ok"
    assert found[1]["status"] == "no main-memory formula for this kernel"
    assert "head sizes up to 128" in str(found[2]["status"])
