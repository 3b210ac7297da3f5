"""Measured rows beside predictions: the accuracy gate on the shipped sample, readers, statistics, refits."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from iosim.cli import run
from iosim.errors import AbsentError, FileError
from iosim.machine import load_device
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import expected_parts
from iosim.timing.parts import total_s
from iosim.validate.comparing import Errors, compare, fitted_pair
from iosim.validate.fitting import Measured, fit, fitted_half, write_calibration
from iosim.validate.predicting import predict_rows
from iosim.validate.published import read_published
from iosim.validate.readers import read_table
from iosim.validate.timings import joined
from iosim.validate.validating import Validation, validate

SAMPLE = Path(__file__).resolve().parents[2] / "measurements" / "aiconfigurator-0.12.0-sample.csv"

#: (device, framework, phase, window) -> largest median error allowed on the 95 rows of the sample: what the model
#: reaches on the whole table (docs/accuracy.md), and half as much again for the scatter of so few rows; more where the
#: median row lies at a step of the raster on which replayed graphs begin (SGLang's decode on Blackwell)
GATE = {
    ("a100-sxm-80gb", "vllm", "prefill", False): 0.03, ("a100-sxm-80gb", "vllm", "decode", False): 0.042,
    ("h100-sxm5", "vllm", "prefill", False): 0.035, ("h100-sxm5", "vllm", "decode", False): 0.04,
    ("h100-sxm5", "vllm", "prefill", True): 0.045, ("h100-sxm5", "vllm", "decode", True): 0.06,
    ("h200-sxm", "vllm", "prefill", False): 0.035, ("h200-sxm", "vllm", "decode", False): 0.043,
    ("h200-sxm", "vllm", "prefill", True): 0.04, ("h200-sxm", "vllm", "decode", True): 0.055,
    ("b200-sxm", "vllm", "prefill", False): 0.04, ("b200-sxm", "vllm", "decode", False): 0.045,
    ("b200-sxm", "vllm", "prefill", True): 0.065, ("b200-sxm", "vllm", "decode", True): 0.05,
    ("b300-sxm", "vllm", "prefill", False): 0.065, ("b300-sxm", "vllm", "decode", False): 0.065,
    ("b300-sxm", "vllm", "prefill", True): 0.075, ("b300-sxm", "vllm", "decode", True): 0.04,
    ("gb200", "vllm", "prefill", False): 0.055, ("gb200", "vllm", "decode", False): 0.05,
    ("gb200", "vllm", "prefill", True): 0.07, ("gb200", "vllm", "decode", True): 0.085,
    ("gb300", "vllm", "prefill", False): 0.05, ("gb300", "vllm", "decode", False): 0.055,
    ("gb300", "vllm", "prefill", True): 0.07, ("gb300", "vllm", "decode", True): 0.065,
    ("l40s", "vllm", "prefill", False): 0.085, ("l40s", "vllm", "decode", False): 0.08,
    ("l40s", "vllm", "prefill", True): 0.085, ("l40s", "vllm", "decode", True): 0.095,
    ("rtx-pro-6000-blackwell-server", "vllm", "prefill", False): 0.075, ("rtx-pro-6000-blackwell-server", "vllm", "decode", False): 0.085,
    ("rtx-pro-6000-blackwell-server", "vllm", "prefill", True): 0.06, ("rtx-pro-6000-blackwell-server", "vllm", "decode", True): 0.06,
    ("h100-sxm5", "sglang", "prefill", False): 0.055, ("h100-sxm5", "sglang", "decode", False): 0.06,
    ("h100-sxm5", "sglang", "prefill", True): 0.085, ("h100-sxm5", "sglang", "decode", True): 0.095,
    ("h200-sxm", "sglang", "prefill", False): 0.06, ("h200-sxm", "sglang", "decode", False): 0.065,
    ("h200-sxm", "sglang", "prefill", True): 0.1, ("h200-sxm", "sglang", "decode", True): 0.095,
    ("b200-sxm", "sglang", "prefill", False): 0.055, ("b200-sxm", "sglang", "decode", False): 0.065,
    ("b200-sxm", "sglang", "prefill", True): 0.08, ("b200-sxm", "sglang", "decode", True): 0.02,
    ("b300-sxm", "sglang", "prefill", False): 0.075, ("b300-sxm", "sglang", "decode", False): 0.07,
    ("b300-sxm", "sglang", "prefill", True): 0.07, ("b300-sxm", "sglang", "decode", True): 0.02,
    ("gb200", "sglang", "prefill", False): 0.065, ("gb200", "sglang", "decode", False): 0.075,
    ("gb200", "sglang", "prefill", True): 0.085, ("gb200", "sglang", "decode", True): 0.03,
    ("gb300", "sglang", "prefill", False): 0.065, ("gb300", "sglang", "decode", False): 0.07,
    ("gb300", "sglang", "prefill", True): 0.075, ("gb300", "sglang", "decode", True): 0.04,
}  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> Validation:
    return validate([SAMPLE])


def test_accuracy_has_not_drifted(shipped: Validation) -> None:
    found = {(g.device, g.framework, g.phase, g.window): g.errors.median_abs_error for g in shipped.groups if g.errors}
    assert found.keys() == GATE.keys()
    missed = {key: (error, GATE[key]) for key, error in found.items() if error > GATE[key]}
    assert not missed


def test_no_measured_row_beats_the_floor(shipped: Validation) -> None:
    assert sum(group.rows for group in shipped.groups) == 95 * len(GATE)
    assert [group for group in shipped.groups if group.floors_beaten] == []


def test_prefill_without_windows_beats_the_fitted_pair(shipped: Validation) -> None:
    """The pair is fitted to these very rows, the model to none of them."""
    for group in shipped.groups:
        assert group.errors
        if group.phase == "prefill" and not group.window:
            assert group.errors.median_abs_error < group.yardstick.median_abs_error / 1.5, group
            assert group.errors.p90_abs_error < group.yardstick.p90_abs_error / 1.5, group


def test_the_accuracy_pages_tables_come_from_the_groups(shipped: Validation) -> None:
    script = runpy.run_path(str(SAMPLE.parents[1] / "benchmarks" / "accuracy_tables.py"))
    lines = list(script["tables"](shipped.rows()))
    titles = [line.strip("\n# ") for line in lines if line.startswith("\n###")]
    assert titles == [f"{phase}{windows}, {by}" for by in ("vLLM", "SGLang") for phase in ("Prefill", "Decode")
                      for windows in ("", ", windows that cut")]  # fmt: skip
    assert sum(line.count("| 95 |") for line in lines) == len(GATE)


def test_groups_have_the_contracts_keys(shipped: Validation) -> None:
    keys = {"device", "kernel", "phase", "n", "median_abs_error", "mean_abs_error", "p90_abs_error", "median_ratio",
            "yardstick", "floors_beaten"}  # fmt: skip
    result = shipped.to_dict()
    assert keys <= result["groups"][0].keys()  # type: ignore[index]
    assert len(shipped.worst) == 20


HEADER = "device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,l2,framework"


def rows_file(path: Path, column: str, factor: float) -> Path:
    calls = [(n, n) for n in (512, 1024, 2048, 4096, 8192)]
    device = load_device("h100-sxm5")
    lines = [f"{HEADER},{column}"]
    for n_q, n_kv in calls:
        one = Calls.of({"batch": [1], "heads": [32], "kv_heads": [8], "head_dim": [128], "n_q": [n_q], "n_kv": [n_kv]})
        seconds = float(total_s(expected_parts(one, device, "flash3", "vllm"))[0])
        lines.append(f"h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,{n_q},{n_kv},causal,warm,vllm,{seconds * factor}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(("column", "factor"), [("time_s", 1.0), ("time_ms", 1e3), ("time_us", 1e6)])
def test_time_columns_say_their_unit(tmp_path: Path, column: str, factor: float) -> None:
    found = validate([rows_file(tmp_path / "own.csv", column, factor)])
    assert found.groups[0].errors
    assert found.groups[0].errors.median_abs_error < 1e-9


def test_times_in_the_wrong_unit_are_caught_by_the_floor(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="floor in the median"):
        validate([rows_file(tmp_path / "own.csv", "time_us", 1e3)])  # milliseconds under a column of microseconds


@pytest.mark.parametrize(
    ("column", "factor", "unit"),
    [
        ("time_s", 1e3, "ms"),
        ("time_s", 1e6, "us"),
        ("time_ms", 1e3, "us"),
        ("time_us", 1e3, "ns"),
        ("time_s", 1e9, "ns"),
    ],
)
def test_times_far_above_the_expectation_are_in_another_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, factor: float, unit: str
) -> None:
    taken = {"time_s": 1.0, "time_ms": 1e3, "time_us": 1e6}[column]
    path = rows_file(tmp_path / "own.csv", column, taken * factor * 1.3)
    assert run(["validate", str(path)]) == 3
    said = capsys.readouterr().err
    assert f"probably in {unit}, not {column.removeprefix('time_')}" in said
    assert "own.csv" in said


def test_slow_times_that_no_unit_explains_are_compared(tmp_path: Path) -> None:
    found = validate([rows_file(tmp_path / "own.csv", "time_s", 60.0)])
    assert found.groups[0].errors
    assert found.groups[0].errors.median_ratio == pytest.approx(1 / 60)


def test_one_file_in_another_unit_is_named_among_others(tmp_path: Path) -> None:
    good = [rows_file(tmp_path / f"good{i}.csv", "time_s", 1.0) for i in range(3)]
    with pytest.raises(FileError, match=r"bad\.csv"):
        validate([*good, rows_file(tmp_path / "bad.csv", "time_s", 1e3)])


def test_causal_rows_with_more_queries_than_keys_are_left_out_as_predict_does(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "own.csv", "time_s", 1.0)
    good = path.read_text().splitlines()
    longer = [good[1].replace("512,512,causal", f"512,256,{mask}") for mask in ("causal", "window:64", "full")]
    path.write_text("\n".join([*good, *longer]) + "\n")
    found = validate([path])
    names = good[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in longer]
    refused = [str(row["status"]) for row in predict_rows(rows)]
    assert found.skipped == {refused[0]: 2}
    assert refused[1] == refused[0] != refused[2] == "ok"
    assert sum(group.rows for group in found.groups) == 6


def test_published_causal_figures_need_as_many_keys_as_queries() -> None:
    row = {"hardware": "H100", "kernel": "FA3", "pass": "fwd", "dtype": "fp16", "batch": "1", "heads_q": "16", "heads_kv": "16",
           "head_dim_qk": "128", "head_dim_v": "128", "seqlen_q": "4096", "seqlen_kv": "1024", "mask": "", "dropout": "",
           "causal": "1", "value": "1.0", "unit": "ms"}  # fmt: skip
    table = read_published([row, {**row, "causal": "0"}], "figures.csv")
    assert table.skipped == {"a causal mask needs at least as many keys as queries": 1}
    assert sum(map(len, table.timings)) == 1


def test_bad_rows_are_counted_and_left_out(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "own.csv", "time_s", 1.0)
    good = path.read_text().splitlines()
    bad = [
        good[1].replace("h100-sxm5", "nowhere"),
        good[1].rsplit(",", 1)[0] + ",-1",
        good[1].replace(",32,8,", ",32,7,"),
    ]
    path.write_text("\n".join(good + bad) + "\n")
    found = validate([path])
    assert found.groups[0].rows == 5
    assert sum(found.skipped.values()) == 3


def test_published_rates_become_times(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    path.write_text(
        "hardware,kernel,pass,dtype,batch,heads_q,heads_kv,head_dim_qk,head_dim_v,seqlen_q,seqlen_kv,causal,mask,dropout,"
        "value,unit\n"
        "H100-80GB-SXM5,FA3,fwd,fp16,1,16,16,128,128,16384,16384,0,,,650,TFLOP/s\n"
        "H100-80GB-SXM5,ThunderKittens,fwd,fp16,1,16,16,128,128,16384,16384,0,,,600,TFLOP/s\n"
    )
    table = read_table(path)
    assert table.timings[0].time_s[0] == pytest.approx(4 * 16384**2 * 128 * 16 / 650e12)
    assert sum(table.skipped.values()) == 1


def test_unreadable_data(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    folder = tmp_path / "h100_sxm" / "attention" / "vllm" / "0.24.0"
    folder.mkdir(parents=True)
    cut = folder / "context_attention_perf.parquet"
    cut.write_bytes(b"PAR1\x00\x00half")
    for path, errors in (
        (tmp_path / "absent.csv", FileError),
        (tmp_path / "other.csv", FileError),
        (tmp_path / "h100_sxm", (FileError, AbsentError)),  # without pyarrow: the library is absent
        (folder.parent.parent.parent / "empty", FileError),
    ):
        with pytest.raises(errors):
            read_table(path)


def test_joined_tables_keep_every_row() -> None:
    tables = read_table(SAMPLE).timings
    together = joined([*tables, *tables])
    assert sum(map(len, together)) == 2 * sum(map(len, tables))
    assert len(together) < len(tables)  # masks of one kernel come together


def test_errors_by_hand() -> None:
    made = Errors.of(np.array([1.0, 2.0, 0.5]), np.ones(3))
    assert (made.n, made.median_abs_error, made.mean_abs_error, made.median_ratio) == (3, 0.5, 0.5, 1.0)


def test_the_fitted_pair_finds_its_own_data() -> None:
    table = joined(list(read_table(SAMPLE).timings))[0]
    (efficiency, overhead), fitted = fitted_pair(replace(table, time_s=np.ones(len(table))))
    assert overhead > 0
    assert efficiency > 0
    assert len(fitted) == len(table)


def test_half_of_the_shapes_is_fixed() -> None:
    table = joined(list(read_table(SAMPLE).timings))
    assert not any(fitted_half(t.calls).any() for t in table)  # the sample holds judged shapes only
    n = np.arange(1, 5001)
    one = np.ones(5000, np.int64)
    calls = Calls.of({"batch": one, "heads": one, "kv_heads": one, "head_dim": 64 * one, "n_q": n, "n_kv": n})
    assert 0.45 < fitted_half(calls).mean() < 0.55
    assert fitted_half(calls[:5]).tolist() == fitted_half(calls).tolist()[:5]


def test_a_fit_recovers_the_constants_that_made_the_data(tmp_path: Path) -> None:
    """Times made by the model itself, from constants a third away, with 1 % noise."""
    truth = load_calibration("trtllm")
    device = load_device("b200-sxm")
    rng = np.random.default_rng(0)
    tables = []
    for decode in (False, True):
        n = rng.choice([64, 256, 1024, 4096, 8192], 120)
        numbers = {"batch": rng.choice([1, 4, 16, 64], 120), "heads": np.full(120, 32), "kv_heads": rng.choice([4, 8, 32], 120),
                   "head_dim": rng.choice([64, 128, 256], 120), "n_q": np.where(decode, 1, n), "n_kv": n}  # fmt: skip
        calls = Calls.of(numbers)
        times = total_s(expected_parts(calls, device, "trtllm", "vllm")) * np.exp(rng.normal(0, 0.01, 120))
        tables.append(Measured(device, "vllm", calls, times))
    start = replace(
        truth,
        constants=tuple(replace(c, value=c.value * (0.75 if i % 2 else 1.3)) for i, c in enumerate(truth.constants)),
    )
    made = fit(start, tables, "made up")
    by_name = {c.name: c for c in made.constants}
    for name in ("launch", "product", "exponential", "hbm_efficiency"):
        assert by_name[name].value == pytest.approx(truth.values()[name], rel=0.06), name
        assert by_name[name].low <= truth.values()[name] * 1.02
        assert by_name[name].high >= truth.values()[name] * 0.98
    write_calibration(made, tmp_path / "trtllm.toml")
    assert 'name = "trtllm"' in (tmp_path / "trtllm.toml").read_text()


def test_comparing_names_the_worst_rows() -> None:
    table = joined(list(read_table(SAMPLE).timings))[0]
    spoiled = table.time_s.copy()
    spoiled[7] *= 5
    worst = compare(replace(table, time_s=spoiled)).worst[0]
    assert worst["row"] == int(table.row[7])


def test_head_sizes_beyond_the_tables_are_counted_apart(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "own.csv", "time_s", 1.0)
    large = path.read_text().splitlines()[1].replace(",128,512,512,", ",512,512,512,")
    path.write_text(path.read_text() + large + "\n")
    found = validate([path]).groups
    assert [(group.rows, bool(group.errors)) for group in found] == [(5, True), (1, False)]
    assert "head sizes up to 256" in found[1].why


def test_a_broken_csv_of_a_folder_is_listed_beside_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows_file(tmp_path / "good.csv", "time_s", 1.0)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    assert run(["validate", str(tmp_path)]) == 3
    said = capsys.readouterr()
    assert "other.csv" in said.err
    assert "flash3" in said.out
