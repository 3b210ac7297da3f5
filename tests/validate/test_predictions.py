"""`predict`: rows in, rows out, nothing guessed, one path for one row and for a million."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from iosim.errors import FileError
from iosim.validate.predicted import ADDED
from iosim.validate.predicting import predict_rows
from iosim.validate.prediction_file import predict_file

HEADER = "device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,framework"
GOOD = "h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,4096,4096,causal,vllm"


def predict(tmp_path: Path, *lines: str, header: str = HEADER) -> list[dict[str, str]]:
    source = tmp_path / "rows.csv"
    source.write_text("\n".join([header, *lines]) + "\n")
    target = io.StringIO()
    predict_file(source, target)
    return list(csv.DictReader(io.StringIO(target.getvalue())))


def test_a_good_row_has_every_column(tmp_path: Path) -> None:
    (row,) = predict(tmp_path, GOOD)
    assert row["status"] == "ok"
    assert float(row["time_expected_s"]) > float(row["time_floor_s"]) > 0
    assert int(row["hbm_read_bytes"]) >= 2 * 4096 * 128 * (32 + 8 + 8)
    assert row["method"].startswith("closed form")
    assert row["bottleneck"] in ("matrix", "softmax")
    assert all(name in row for name in ADDED)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("h100-sxm5", "nowhere", "unknown device"),
        ("flash3", "flash33", "unknown kernel"),
        ("prefill", "training", "unknown phase"),
        (",bf16,bf16", ",bf17,bf16", "unknown element type"),
        (",1,32,", ",0,32,", "batch cannot be '0'"),
        (",1,32,", ",,32,", "batch is missing"),
        (",1,32,", ",1e3,32,", "batch cannot be '1e3'"),
        (",32,8,", ",32,7,", "do not divide"),
        ("4096,4096", "4096,4095", "at least as many keys"),
        ("causal", "windy:3", "unknown mask"),
        (",vllm", ",pytorch", "unknown framework"),
        ("4096,4096", "4096,99999999999", "seq_kv cannot be"),
    ],
)
def test_a_faulty_row_says_why_and_spares_the_others(tmp_path: Path, old: str, new: str, why: str) -> None:
    bad, good = predict(tmp_path, GOOD.replace(old, new, 1), GOOD)
    assert why in bad["status"]
    assert bad["time_expected_s"] == bad["time_floor_s"] == ""
    assert good["status"] == "ok"


def test_rows_without_an_expectation_keep_floor_and_bytes(tmp_path: Path) -> None:
    fp8, other, mask = predict(
        tmp_path,
        GOOD.replace("bf16,bf16", "fp8,fp8"),
        GOOD.replace("flash3", "unfused"),
        GOOD.replace("causal", '"gna:window=128,stride=64"'),
    )
    for row in (fp8, other, mask):
        assert row["status"].startswith("no expected time")
        assert row["time_expected_s"] == ""
        assert float(row["time_floor_s"]) > 0
        assert int(row["hbm_read_bytes"]) > 0


def test_one_row_and_many_rows_agree(tmp_path: Path) -> None:
    lines = [GOOD.replace("4096,4096", f"{n},{n}") for n in range(100, 1100, 10)]
    together = predict(tmp_path, *lines)
    apart = [predict(tmp_path, line)[0] for line in lines[::9]]
    assert together[::9] == apart
    as_rows = [dict(zip(HEADER.split(","), line.split(","), strict=True)) for line in lines]
    assert [str(row["time_expected_s"]) for row in predict_rows(as_rows)] == [
        row["time_expected_s"] for row in together
    ]


def test_a_decode_row_may_name_the_family(tmp_path: Path) -> None:
    flash2, split = predict(
        tmp_path,
        "a100-sxm-80gb,flash2,decode,bf16,bf16,8,32,8,128,1,8192,causal,",
        "a100-sxm-80gb,split-kv,decode,bf16,bf16,8,32,8,128,1,8192,causal,",
    )
    assert flash2["status"] == split["status"] == "ok"
    assert flash2["time_expected_s"] == split["time_expected_s"]


def test_order_is_kept_across_kinds(tmp_path: Path) -> None:
    lines = [GOOD, GOOD.replace("h100-sxm5", "h200-sxm"), GOOD.replace("causal", "full")] * 5
    rows = predict(tmp_path, *lines)
    assert [row["device"] for row in rows[:2]] == ["h100-sxm5", "h200-sxm"]
    assert rows[0]["time_expected_s"] == rows[3]["time_expected_s"] != rows[2]["time_expected_s"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("device,kernel\n", "missing columns phase"),
        (HEADER.replace("seq_kv", "seqkv") + "\n" + GOOD + "\n", "missing column seq_kv"),
        (HEADER + ",status\n", "already has the column"),
    ],
)
def test_a_broken_file_is_refused_whole(tmp_path: Path, text: str, why: str) -> None:
    source = tmp_path / "rows.csv"
    source.write_text(text)
    with pytest.raises(FileError, match=why):
        predict_file(source, io.StringIO())


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(FileError):
            predict_file(path, io.StringIO())


def test_types_that_a_kernel_does_not_have_are_refused_as_in_a_report(tmp_path: Path) -> None:
    rows = predict(tmp_path, GOOD.replace("bf16,bf16", "fp16,bf16"), GOOD.replace("bf16,bf16", "tf32,tf32"))
    assert [row["status"] for row in rows] == [
        "flash3 does not read bf16 keys and values", "flash3 does not compute in tf32"
    ]  # fmt: skip
    assert all(row["time_expected_s"] == "" for row in rows)
