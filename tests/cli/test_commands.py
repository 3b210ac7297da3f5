"""Each command's answer: envelope, keys, formats, files, and examples that run."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from iosim.catalog import entries
from iosim.catalog.rooms import shipped
from iosim.cli import COMMANDS, group

Run = Callable[..., object]


ROWS = """device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask
h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,4096,4096,causal
"""
#: examples that need another machine, another package, or minutes
ELSEWHERE = ("site-packages", "cuda", "iosim measure", "iosim calibrate")


def every_command() -> list[tuple[str, click.Command]]:
    context = click.Context(group)
    found = []
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", inner) for sub, inner in command.commands.items()]
    return found


def examples(command: click.Command) -> list[str]:
    return re.findall(r"^\s+(iosim .+)$", command.help or "", re.MULTILINE)


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, (_, line) in COMMANDS.items()])
def test_the_table_of_commands_agrees_with_each_commands_help(name: str, line: str) -> None:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    assert (command.help or "").splitlines()[0] == line


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_shows_examples_that_run(
    iosim: Run, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {"num_attention_heads": 8, "hidden_size": 512, "num_hidden_layers": 2, "model_type": "llama"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    np.save(tmp_path / "trace.npy", np.arange(4096) % 700)
    (tmp_path / "rows.csv").write_text(ROWS)
    sample = shipped("measurements") / "aiconfigurator-0.12.0-sample.csv"
    (tmp_path / "my-timings.csv").write_text(sample.read_text())
    for made in (Path(__file__).parents[1] / "validate" / "data").glob("*.csv"):
        (tmp_path / made.name.replace("ncu-details", "counters")).write_text(made.read_text())
    command = group.get_command(click.Context(group), name)
    assert command is not None
    shown = examples(command)
    assert shown, f"{name} shows no example"
    for example in shown:
        if any(word in example for word in ELSEWHERE):
            continue
        arguments = shlex.split(re.split(r" [|>] ", example)[0])[1:]
        assert iosim(*arguments).code == 0, example


@pytest.mark.parametrize(("name", "command"), every_command())
def test_every_option_has_help(name: str, command: click.Command) -> None:
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.name}"


@pytest.mark.parametrize(
    "arguments", [["report"], ["simulate"], ["bounds"], ["roofline"], ["explain", "L1"], ["doctor"]]
)
def test_the_envelope(iosim: Run, arguments: list[str]) -> None:
    envelope = iosim(*arguments, "--format", "json").json
    assert set(envelope) == {"schema", "inputs", "result", "assumptions", "provenance"}
    assert envelope["schema"] == f"iosim/{arguments[0]}/1"
    assert set(envelope["provenance"]) >= {"iosim", "device_sha256"}


def test_report_keys_and_types(iosim: Run) -> None:
    result = iosim("report", "--measured", "1.3ms", "--format", "json").json["result"]
    assert [kernel["kernel"] for kernel in result["kernels"]] == ["unfused", "flash1", "flash2", "flash3"]
    floors = {kernel["time_floor_s"] for kernel in result["kernels"]}
    assert len(floors) == 1
    assert result["speedup_upper_bound"] == pytest.approx(1.3e-3 / floors.pop())
    for kernel in result["kernels"]:
        for at in kernel["boundaries"]:
            assert isinstance(at["read_bytes"], int)
            assert at["gap_any"] >= at["gap_standard"] >= at["gap_once"] >= 1
            assert at["method"]
        assert max(v for v in kernel["ceilings"].values() if v) >= kernel["time_floor_s"]


def test_inputs_list_every_default(iosim: Run) -> None:
    inputs = iosim("report", "--no-replay", "--format", "json").json["inputs"]
    expected = {
        "network": "llama-3-8b", "heads": 32, "kv_heads": 8, "head_dim": 128, "batch": 1, "phase": "prefill",
        "seq": "8192", "seq_kv": "8192", "mask": "causal", "dtype": "bf16", "device": "h100-sxm5", "l2": "cold",
    }  # fmt: skip
    assert {name: inputs[name] for name in expected} == expected


def test_csv_and_markdown_have_one_row_per_kernel_and_boundary(iosim: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(iosim("report", "--no-replay", "--format", "csv").out)))
    assert [(row["kernel"], row["boundary"]) for row in rows][:4] == [
        ("unfused", "core"), ("unfused", "l2"), ("unfused", "hbm"), ("flash1", "core"),
    ]  # fmt: skip
    assert len(rows) == 12
    markdown = iosim("report", "--no-replay", "--format", "md").out.splitlines()
    assert len(markdown) == 2 + 12


def test_output_files_are_whole_and_follow_the_suffix(iosim: Run, tmp_path: Path) -> None:
    for suffix in ("json", "csv", "md", "txt"):
        path = tmp_path / f"answer.{suffix}"
        assert iosim("report", "--no-replay", "-o", path).code == 0
        assert path.stat().st_size > 500
    assert json.loads((tmp_path / "answer.json").read_text())["schema"] == "iosim/report/1"
    for picture in ("roofline.svg", "roofline.png"):
        assert iosim("roofline", "-o", tmp_path / picture).code == 0
    assert (tmp_path / "roofline.svg").read_text().startswith("<?xml")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_device_of_ones_own(iosim: Run, tmp_path: Path) -> None:
    """The template of `hardware new`, as it is, checks and reports."""
    mine = tmp_path / "mine.toml"
    assert iosim("hardware", "new", mine).code == 0
    assert iosim("hardware", "new", mine).code == 3
    assert iosim("hardware", "check", mine).code == 0
    assert iosim("report", "--no-replay", "--device", mine).code == 0


def test_check_finds_a_sparse_peak(iosim: Run, tmp_path: Path) -> None:
    from iosim.catalog import find

    text = find("hardware", "h100-sxm5").read_text()
    sparse = tmp_path / "sparse.toml"
    sparse.write_text(re.sub(r"989(\.4)? TFLOP/s", "1979 TFLOP/s", text))
    done = iosim("hardware", "check", sparse)
    assert done.code == 1
    assert "sparse" in done.err


def test_decode_gqa_and_mla(iosim: Run) -> None:
    gqa = iosim("report", "--phase", "decode", "--seq-kv", 8192, "--batch", 4, "--format", "json").json
    kernel = gqa["result"]["kernels"][0]
    assert kernel["kernel"] == "split-kv"
    core = kernel["boundaries"][0]
    cache = 2 * 4 * 8 * 8192 * 128 * 2  # K and V of four sequences and eight heads, bf16
    assert cache <= core["read_bytes"] < 1.05 * cache
    latent = ["--network", "deepseek-v3", "--phase", "decode", "--seq-kv", "8192", "--device", "none"]
    mla = iosim("simulate", *latent, "--kernel", "flash2", "--tile", "128x64", "--format", "json").json
    assert mla["result"]["counts"]["per_tensor"]["V"]["read_elements"] == 0
    assert mla["result"]["counts"]["per_tensor"]["K"]["read_elements"] == 8192 * 576


def test_completion_scripts(iosim: Run) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_IOSIM_COMPLETE" in iosim("completion", shell).out


def test_one_core_without_a_device(iosim: Run) -> None:
    result = iosim("report", "--device", "none", "--format", "json").json["result"]
    assert all(kernel["time_floor_s"] is None for kernel in result["kernels"])
    assert [at["name"] for at in result["kernels"][0]["boundaries"]] == ["core"]


def test_a_config_of_hugging_face(iosim: Run, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"num_attention_heads": 32, "hidden_size": 4096, "num_hidden_layers": 32,
                                "num_key_value_heads": 8, "model_type": "llama"}))  # fmt: skip
    envelope = iosim("report", "--no-replay", "--network", path, "--seq", 8192, "--format", "json").json
    default = iosim("report", "--no-replay", "--format", "json").json
    assert envelope["result"]["kernels"] == default["result"]["kernels"]
    assert any("head_dim" in note for note in envelope["assumptions"])


@pytest.mark.parametrize(
    "device", ["v100-sxm2-32gb", "a100-sxm-80gb", "b200-sxm", "mi300x", "ascend-910b2", "epyc-9654", "tpu-v5e"]
)
def test_reports_on_other_machines(iosim: Run, device: str) -> None:
    done = iosim("report", "--device", device, "--kernel", "flash2")
    assert done.code == 0, done.err
    assert "No kernel can take less than" in done.out


def test_curve_points_and_formats(iosim: Run, tmp_path: Path) -> None:
    asked = ["curve", "--heads", 1, "--head-dim", 128, "--seq", 4096, "--tile", "128x64", "--dtype", "fp16", "--no-lse"]
    points = iosim(*asked, "--format", "json").json["result"]["points"]
    assert [(p["policy"], p["capacity_bytes"]) for p in points] == [("lru", 128), ("lru", 16_896 * 128)]
    assert "K and V of one head" in iosim(*asked).out
    assert iosim(*asked, "-o", tmp_path / "curve.svg").code == 0


def test_cache_replays_published_sequences(iosim: Run, tmp_path: Path) -> None:
    """Belady's anomaly: FIFO misses more with four frames than with three."""
    path = tmp_path / "t.npy"
    np.save(path, np.array([1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5]))
    for policy, three, four in (("fifo", 9, 10), ("lru", 10, 8), ("opt", 7, 6)):
        for lines, misses in ((3, three), (4, four)):
            result = iosim("cache", path, "--policy", policy, "--capacity-lines", lines, "--format", "json").json[
                "result"
            ]
            assert result["misses"] == misses


def test_speedup_of_published_settings(iosim: Run, tmp_path: Path) -> None:
    hunyuan = ["speedup", "--network", "hunyuanvideo", "--tile", "4x8x8/2x8x8", "--device", "b200-sxm"]
    result = iosim(*hunyuan, "--mask", "gna:window=18x24x24,stride=16x8x8", "--format", "json").json["result"]
    assert result["block_sparse"] is True
    assert result["tile_speedup_worst"] == pytest.approx(11.111, abs=1e-3)
    done = iosim(*hunyuan, "--mask", "gna:window=18x24x24", "--stride", "auto", "--share", "0.607", "--steps", "0.7")
    assert done.out.startswith("At most ")
    export, picture = tmp_path / "blocks.npz", tmp_path / "mask.svg"
    small = ["speedup", "--heads", 1, "--head-dim", 64, "--seq", 1024, "--mask", "causal", "--tile", "128x128"]
    assert iosim(*small, "--export", "flex", export, "--picture", picture).code == 0
    assert {"kv_num_blocks", "kv_indices"} <= set(np.load(export).files)
    assert picture.stat().st_size > 1000


def test_simulate_orders_change_main_memory(iosim: Run) -> None:
    """Sawtooth keys save re-reads once K and V exceed the cache."""
    asked = [
        "simulate", "--heads", 1, "--head-dim", 64, "--seq", 16_384, "--capacity", "2MiB", "--device", "gb10",
        "--cores", 8, "--residency", 1,
    ]  # fmt: skip
    reads = {
        order: iosim(*asked, "--kv-order", order, "--format", "json").json["result"]["boundaries"][-1]["read_bytes"]
        for order in ("cyclic", "sawtooth")
    }
    assert reads["sawtooth"] < 0.8 * reads["cyclic"]


def test_kernels_are_taken_once_each_and_the_option_may_be_repeated(iosim: Run) -> None:
    small = ["report", "--heads", 2, "--head-dim", 64, "--seq", 256, "--no-replay", "--format", "json"]
    for typed in (["--kernel", "flash2,flash3"], ["--kernel", "flash2", "--kernel", "flash3"],
                  ["--kernel", "flash2,flash3,flash2"]):  # fmt: skip
        answer = iosim(*small, *typed).json
        assert [kernel["kernel"] for kernel in answer["result"]["kernels"]] == ["flash2", "flash3"]
        assert answer["inputs"]["kernel"] == "flash2,flash3"


@pytest.mark.parametrize(
    ("typed", "title"),
    [([], "llama-3-8b (global layers), one layer"),
     (["--heads", "4"], "llama-3-8b (global layers) with 4 heads, one layer"),
     (["--kv-heads", "4", "--head-dim", "64"], "llama-3-8b (global layers) with 4 key/value heads, head size 64, one layer")],
)  # fmt: skip
def test_the_title_says_what_is_not_the_networks(iosim: Run, typed: list[str], title: str) -> None:
    done = iosim("report", "--network", "llama-3-8b", "--no-replay", "--kernel", "flash2", *typed)
    assert done.out.splitlines()[0] == title


def test_lists_of_tiles_are_marked_among_the_kernels(iosim: Run) -> None:
    rows = {row["kernel"]: row for row in iosim("models", "kernels", "--format", "json").json["result"]["kernels"]}
    assert set(rows) == set(entries("models/kernels"))
    assert rows["natten"]["algorithm"] == "tile list of speedup"
    assert [name for name, row in rows.items() if row["class"] == "-"] == ["natten"]


@pytest.mark.parametrize(
    "word",
    ["any", "scores", "once", "core", "l2", "hbm", "expected", "binds", "bottleneck", "L0r", "L0w", "tau", "floors"],
)
def test_the_words_of_a_report_are_explained(iosim: Run, word: str) -> None:
    answer = iosim("explain", word, "--format", "json").json["result"]
    assert answer["statement"]
    said = f"{answer['title']} {answer['statement']} {answer['topic']}".lower()
    assert word.lower().rstrip("rw") in said or word in ("binds", "expected")
    assert word in iosim("explain").out


def test_a_mask_that_takes_long_says_how_far_it_is(iosim: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "near.py").write_text("def near(b, h, q, kv):\n    return abs(q - kv) < 100\n")
    asked = ["speedup", "--heads", 1, "--head-dim", 64, "--seq", 4096, "--tile", "128x128"]
    mask = ["--mask", f"py:{tmp_path / 'near.py'}:near"]
    assert iosim(*asked, *mask).err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    told = iosim(*asked, *mask).err
    assert "mask: 6% of 16,777,216 entries evaluated" in told
    assert told.endswith("\r\x1b[K")
    assert iosim(*asked).err == ""
