"""Readers of Nsight Compute's and Triton's CSV, and of one's own: numbers by hand, units, gaps, refusals."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from iosim.catalog.rooms import shipped
from iosim.cli import run
from iosim.errors import AbsentError, FileError, UsageError
from iosim.machine import load_device
from iosim.measure.experiments import Board, cuda_cases
from iosim.validate.aiconfigurator import usable_rows
from iosim.validate.prediction_file import predicted_rows
from iosim.validate.readers import read_table
from iosim.validate.validating import validate

DATA = Path(__file__).with_name("data")
TRITON = DATA / "fused-attention-batch4-head32-d64-fwd-causal=True.csv"
A100 = {"device": "a100-sxm-80gb"}
SHAPE = {"kernel": "flash2", "dtype": "fp16", "kv_dtype": "fp16", "phase": "prefill", "batch": "1", "heads": "16", "kv_heads": "16",
         "head_dim": "64", "seq_q": "1024", "seq_kv": "1024", "mask": "full"}  # fmt: skip
#: bytes of one of Q, K, V and O of 16 heads, 1,024 rows, 64 elements of 2 bytes
ONE = 16 * 1024 * 64 * 2


def test_one_call_per_range_and_kernels_of_a_range_add_up() -> None:
    table = read_table(DATA / "ncu-details.csv", A100)
    assert table.skipped == {}
    prefill, decode, flex = sorted(table.counted, key=lambda row: row.row)
    assert prefill.shape == (1, 16, 16, 64, 64, 1024, 1024)
    assert prefill.moved == {"hbm_read_bytes": 6.30e6, "hbm_write_bytes": 312.45e3, "l2_read_bytes": 1_114_112 * 32.0}
    assert decode.moved["hbm_read_bytes"] == pytest.approx(33.57e6 + 12.8e3)
    assert decode.moved["l2_read_bytes"] == (1_048_832 + 8_192) * 32
    assert flex.kind.mask == "window:1024"  # a colon inside a range's name
    assert "l2_read_bytes" not in flex.moved  # n/a is no zero
    times = sorted(float(seconds) for timings in table.timings for seconds in timings.time_s)
    assert times == pytest.approx([31.52e-6, (28_416 + 4_096) * 1e-9, 81.44e-6])


def test_bytes_of_a_call_that_fits_the_cache() -> None:
    """The counter's numbers in the file are this arithmetic: Q once and K, V for each of 8 row blocks at the L2."""
    found = validate([DATA / "ncu-details.csv"], fill=A100)
    ratio = {(g.kernel, g.phase, g.quantity): g.errors.median_ratio for g in found.groups if g.errors}
    assert ratio["flash2", "prefill", "l2_read_bytes"] == pytest.approx(
        (ONE + 8 * 2 * ONE) / (1_114_112 * 32), rel=1e-3
    )
    assert ratio["flash2", "prefill", "hbm_read_bytes"] == pytest.approx(3 * ONE / 6.30e6, rel=1e-9)
    assert {g.floors_beaten for g in found.groups} == {0}
    assert all(g.to_dict()["yardstick"] for g in found.groups)


def test_the_raw_page_has_a_line_of_units_and_no_shape() -> None:
    table = read_table(DATA / "ncu-raw.csv", {**A100, **SHAPE})
    (timings,) = table.timings
    assert timings.time_s.tolist() == pytest.approx([31.52e-6, 31.488e-6, 31.616e-6])
    assert [row.moved["hbm_read_bytes"] for row in table.counted] == [6_304_128, 6_299_392, 6_301_056]
    assert not timings.warm  # the profiler flushes caches
    assert read_table(DATA / "ncu-raw.csv", A100).skipped == {"batch is missing": 3}


def test_ranges_of_iosim_measure_name_their_cases(tmp_path: Path) -> None:
    """The label of a case of this board in place of the shape, inside another range."""
    device = load_device("a100-sxm-80gb")
    case = next(
        case for case in cuda_cases(Board(108, 40 << 20)) if case.kernel == "sdpa-flash" and case.phase == "decode"
    )
    text = (DATA / "ncu-details.csv").read_text()
    shape = re.search(r"kernel=flash2 phase=decode[^:]*", text)
    assert shape
    outer = '""<default domain>:step:none:none:none:none:none:none""  ""<default domain>:'
    labelled = tmp_path / "labelled.csv"
    labelled.write_text(text.replace(f'""<default domain>:{shape[0]}', f"{outer}{case.label}"))
    table = read_table(labelled, A100)
    (found,) = [row for row in table.counted if row.kind.phase == "decode"]
    assert found.kind.kernel == "flash2-decode"  # what a decode row of the family stands for
    assert found.shape == (case.batch, case.heads, case.kv_heads, case.head_dim, case.head_dim, 1, case.seq_kv)
    assert found.kind.device.key == device.key
    labelled.write_text(text.replace(shape[0], "iosim/sdpa-flash/1"))
    ((why, count),) = read_table(labelled, A100).skipped.items()
    assert "names neither columns nor a case" in why
    assert count == 1


def test_what_nsight_cannot_say_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="does not name the board"):
        read_table(DATA / "ncu-details.csv")
    with pytest.raises(FileError, match="compute capability 8"):
        read_table(DATA / "ncu-details.csv", {"device": "h100-sxm5"})
    with pytest.raises(AbsentError, match="permission"):
        read_table(DATA / "ncu-no-permission.txt")
    empty = tmp_path / "none.csv"
    empty.write_text("==PROF== Connected to process 1\n==WARNING== No kernels were profiled.\n")
    with pytest.raises(FileError, match="no table"):
        read_table(empty)
    other = tmp_path / "other.csv"
    other.write_text(re.sub(r"dram__|gpu__|lts__", "sm__", (DATA / "ncu-details.csv").read_text()))
    with pytest.raises(FileError, match="none of the counters"):
        read_table(other, A100)
    strange = tmp_path / "strange.csv"
    strange.write_text((DATA / "ncu-details.csv").read_text().replace('"usecond","31.52"', '"ysecond","31.52"'))
    with pytest.raises(FileError, match="unknown unit"):
        read_table(strange, A100)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    cut = tmp_path / "cut.csv"
    text = (DATA / "ncu-details.csv").read_text()
    cut.write_text(text[: text.index('"2","4242"') - 40])  # in the middle of the second kernel's last line
    with pytest.raises(FileError, match=r"cut short|columns"):
        read_table(cut, A100)


def test_triton_rates_become_times_and_names_say_the_shape() -> None:
    table = read_table(TRITON, {**A100, "unit": "TFLOPS", "dtype": "fp16"})
    by_kernel = {(t.kernel, t.dtype): t for t in table.timings}
    assert set(by_kernel) == {("triton", "fp16"), ("triton", "fp8"), ("flash2", "fp16")}
    flash = by_kernel["flash2", "fp16"]
    assert flash.calls.batch.tolist() == [4] * 5
    assert flash.calls.heads.tolist() == flash.calls.kv_heads.tolist() == [32] * 5
    assert flash.calls.causal.all()
    assert not flash.warm
    assert flash.time_s[0] == pytest.approx(2 * 4 * 32 * 64 * 1024**2 / 105.4e12)
    assert table.skipped == {"no time_s": 1, "the column 'Mystery' names no kernel of the catalogue": 5}


def test_triton_rates_under_another_prefix_are_refused(tmp_path: Path) -> None:
    """FlashAttention-2 at 105 to 190 TFLOP/s, called GFLOPS; and the same numbers in GFLOPS, called TFLOPS."""
    fill = {**A100, "dtype": "fp16"}
    with pytest.raises(FileError) as caught:
        validate([TRITON], fill={**fill, "unit": "GFLOPS"})
    assert "TFLOP/s, not GFLOP/s" in caught.value.faults[0].hint
    thousandfold = tmp_path / TRITON.name
    _, header, *rows = TRITON.read_text().splitlines()
    cells = [line.split(",") for line in rows]
    lines = [",".join([row[0], *(str(float(value) * 1e3) if value else "" for value in row[1:])]) for row in cells]
    thousandfold.write_text("\n".join([header, *lines]) + "\n")
    with pytest.raises(FileError) as caught:
        validate([thousandfold], fill={**fill, "unit": "TFLOPS"})
    assert "GFLOP/s, not TFLOP/s" in caught.value.faults[0].hint


def test_triton_units_and_types_are_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no unit"):
        read_table(TRITON, A100)
    with pytest.raises(UsageError, match="unknown unit"):
        read_table(TRITON, {**A100, "unit": "GB/s"})
    assert read_table(TRITON, {**A100, "unit": "TFLOPS"}).skipped["dtype is missing"] == 5
    milliseconds = tmp_path / "seq.csv"
    milliseconds.write_text("SEQ_LEN,Flash-3 [BF16] (ms)\n4096,0.9\n")
    fill = {"device": "h100-sxm5", "batch": "4", "heads": "16", "head_dim": "128", "mask": "full"}
    (timings,) = read_table(milliseconds, fill).timings
    assert (timings.kernel, timings.dtype, timings.time_s.tolist()) == ("flash3", "bf16", [pytest.approx(0.9e-3)])
    with pytest.raises(FileError, match="says head_dim"):
        read_table(milliseconds, {name: value for name, value in fill.items() if name != "head_dim"})
    backward = tmp_path / "x-batch4-head32-d64-bwd-causal=False.csv"
    backward.write_text("N_CTX,Flash-2 [FP16] (TFLOPS)\n1024,100\n")
    assert read_table(backward, A100).skipped == {"mask, phase or tile outside the time model": 1}


def test_a_thousand_times_too_fast_is_a_wrong_unit_whatever_the_number_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,time_us\n"
        "h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,4096,4096,causal,0.4\n"
    )
    with pytest.raises(FileError, match="of the floor") as caught:
        validate([path])
    assert "ms under one of us" in caught.value.faults[0].hint


def test_missing_columns_can_be_filled(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("seq_q,seq_kv,time_ms,hbm_read_bytes\n4096,4096,0.4,60e6\n8192,8192,1.4,\n")
    fill = {**SHAPE, "device": "h100-sxm5", "kernel": "flash3"}
    fill = {name: value for name, value in fill.items() if not name.startswith("seq")}
    table = read_table(path, fill)
    assert len(table.timings[0]) == 2
    assert [row.moved for row in table.counted] == [{"hbm_read_bytes": 60e6}]
    with pytest.raises(FileError, match="missing column"):
        read_table(path, {name: value for name, value in fill.items() if name != "heads"})
    with pytest.raises(UsageError, match="no reader knows") as caught:
        read_table(path, {**fill, "head_dims": "64"})
    assert "head_dim" in caught.value.faults[0].hint


def test_bytes_of_odd_choices_are_counted_and_not_compared(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "seq_q,seq_kv,time_ms,hbm_read_bytes,stagger,writes\n4096,4096,0.4,6e7,0,1\n4096,4096,0.4,6e7,25,1\n"
    )
    table = read_table(path, {**SHAPE, "device": "h100-sxm5", "kernel": "flash3"})
    assert len(table.counted) == 1
    assert table.skipped == {"bytes of a choice that the replay does not repeat": 1}


def test_bytes_that_predict_wrote_are_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("seq_q,seq_kv,time_ms,hbm_read_bytes,method\n4096,4096,0.4,60000000,closed form\n")
    fill = {**SHAPE, "device": "h100-sxm5", "kernel": "flash3"}
    assert read_table(path, fill).counted == ()


def test_the_command_exits_as_agreed(capsys: pytest.CaptureFixture[str]) -> None:
    details = str(DATA / "ncu-details.csv")
    for words, code, said in (
        ((details, "--device", "a100-sxm-80gb"), 0, "hbm read"),
        ((str(DATA / "ncu-raw.csv"), "--device", "a100-sxm-80gb"), 0, "no row can be compared"),
        ((details,), 3, "--device"),
        ((str(DATA / "ncu-no-permission.txt"),), 4, "permission"),
        ((details, "--fill", "device"), 2, "COLUMN=VALUE"),
        ((details, "--device", "a100-sxm-80gb", "--plot", "x.bmp"), 2, ".png"),
    ):
        assert run(["validate", *words]) == code, words
        captured = capsys.readouterr()
        assert said in captured.out + captured.err, words


def test_pictures_are_drawn(tmp_path: Path) -> None:
    own, beside, alone = tmp_path / "own.csv", tmp_path / "beside.png", tmp_path / "alone.svg"
    own.write_text("seq_q,seq_kv,time_ms\n4096,4096,0.4\n8192,8192,1.4\n")
    fill = {**SHAPE, "device": "h100-sxm5", "kernel": "flash3"}
    words = [f"--fill={name}={value}" for name, value in fill.items() if not name.startswith("seq")]
    assert run(["validate", str(own), *words, "--plot", str(beside)]) == 0
    assert beside.read_bytes()[:4] == b"\x89PNG"
    assert run(["validate", str(own), *words, "-o", str(alone)]) == 0
    assert alone.read_text().startswith("<?xml")
    assert run(["validate", str(DATA / "ncu-raw.csv"), "--device", "a100-sxm-80gb", "-o", str(alone)]) == 3


def test_pictures_need_matplotlib(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    details = [str(DATA / "ncu-details.csv"), "--device", "a100-sxm-80gb"]
    assert run(["validate", *details, "--plot", str(tmp_path / "x.png")]) == 4
    assert not (tmp_path / "x.png").exists()


def test_parquet_rows_with_missing_or_absurd_fields_are_counted() -> None:
    pandas = pytest.importorskip("pandas")
    good = {"batch_size": 1, "isl": 64, "num_heads": 8, "num_key_value_heads": 0, "head_dim": 64, "step": 0,
            "window_size": 0, "latency": 0.1}  # fmt: skip
    changes = [{}, {"num_heads": None}, {"head_dim": -64}, {"latency": None}, {"latency": 0}, {"num_key_value_heads": 3},
               {"isl": 10**12}, {"batch_size": float("nan")}, {"num_heads": None, "latency": None}]  # fmt: skip
    kept, why = usable_rows(pandas.DataFrame([{**good, **change} for change in changes]))
    assert kept.index.tolist() == [0]
    assert sum(why.values()) == len(changes) - 1
    assert why["num_heads is missing"] == 2
    assert set(why) == {
        "num_heads is missing", "head_dim cannot be", "latency is missing", "latency cannot be", "isl cannot be",
        "batch_size is missing", "heads do not divide among key/value heads",
    }  # fmt: skip


def test_a_device_file_is_looked_for_beside_the_rows_then_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away, here = tmp_path / "away", tmp_path / "here"
    for folder in (away, here):
        folder.mkdir()
    monkeypatch.chdir(here)
    kept = shipped("measurements") / "processor"
    rows = (kept / "epyc.csv").read_text().replace("epyc.device.toml", "core.toml")
    (away / "rows.csv").write_text(rows)
    ((why, count),) = read_table(away / "rows.csv").skipped.items()
    assert (count, "core.toml" in why, "iosim hardware new core.toml --probe" in why) == (29, True, True)
    device = (kept / "epyc.device.toml").read_text()
    (here / "core.toml").write_text(device)
    assert {table.device.name for table in read_table(away / "rows.csv").timings} == {load_device("core.toml").name}
    (away / "core.toml").write_text(device.replace('name = "', 'name = "away ', 1))
    assert all(table.device.name.startswith("away ") for table in read_table(away / "rows.csv").timings)
    _, outcome = predicted_rows(predictable(away))
    assert outcome.failed == 0


def predictable(folder: Path) -> Path:
    """One row that names `core.toml`."""
    path = folder / "ask.csv"
    path.write_text(
        "device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,tile\n"
        "core.toml,cpu-tiled,prefill,fp32,fp32,1,2,2,64,128,128,causal,16x16\n"
    )
    return path


def own_rows(path: Path, *ends: tuple[str, str]) -> Path:
    """One prefill per mask and time."""
    path.write_text(
        "device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,time_ms\n"
        + "".join(f"h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,8192,8192,{mask},{time}\n" for mask, time in ends)
    )
    return path


def test_a_time_that_cannot_be_and_a_mask_that_is_none_are_quoted(tmp_path: Path) -> None:
    times = [("causal", "-3"), ("causal", "nan"), ("causal", "0"), ("causal", "fast"), ("causal", ""), ("causal", " ")]
    table = read_table(own_rows(tmp_path / "own.csv", *times, ("cusal", "2.0"), ("window:0", "2.0")))
    assert table.skipped == {
        "time_ms cannot be '-3'": 1, "time_ms cannot be 'nan'": 1, "time_ms cannot be '0'": 1,
        "time_ms cannot be 'fast'": 1, "no time_ms": 2, "unknown mask 'cusal'": 1,
        "the window must hold at least one key, got 0": 1,
    }  # fmt: skip


def test_a_known_mask_outside_the_time_model_is_said_to_be_so(tmp_path: Path) -> None:
    (why,) = read_table(own_rows(tmp_path / "own.csv", ("dilated:2:8", "2.0"))).skipped
    assert "outside the time model" in why


def test_the_largest_errors_name_masks_that_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = own_rows(tmp_path / "own.csv", ("window:512", "0.4"), ("causal", "1.8"), ("full", "3.5"))
    assert run(["validate", str(rows)]) == 0
    said = capsys.readouterr().out.partition("largest errors:")[2]
    assert "8192 x 8192 window:512: measured 400.0 us" in said
    assert said.count("8192 x 8192: measured") == 2
    assert {row["mask"] for row in validate([rows]).worst} == {"window:512", "causal", "full"}
