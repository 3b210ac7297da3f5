"""Every command answers in every format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from iosim.catalog.rooms import shipped
from iosim.cli import COMMANDS, group

Run = Callable[..., Any]

ROWS = """device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask
h100-sxm5,flash3,prefill,bf16,bf16,1,32,8,128,4096,4096,causal
h100-sxm5,flash4,prefill,bf16,bf16,0,32,8,128,4096,4096,causal
"""
SMALL = ["--heads", "2", "--head-dim", "64", "--seq", "256"]
#: command -> small arguments; `{folder}` holds the files of `inputs`
ASKED: dict[str, list[str]] = {
    "report": [*SMALL, "--kernel", "flash2,flash3"],
    "simulate": SMALL,
    "bounds": SMALL,
    "curve": SMALL,
    "cache": ["{folder}/trace.npy", "--capacity-lines", "64"],
    "speedup": [*SMALL, "--mask", "causal", "--tile", "64x64"],
    "passes": ["attention-3-pass"],
    "predict": ["{folder}/rows.csv"],
    "validate": ["{folder}/timings.csv"],
    "calibrate": ["{folder}/published.csv", "--family", "unfused", "--into", "{folder}/calibration"],
    "roofline": [*SMALL, "--kernel", "flash2"],
    "hardware list": [],
    "hardware show": ["h100-sxm5"],
    "hardware check": ["h100-sxm5"],
    "models list": [],
    "models show": ["gemma-3-27b"],
    "models kernels": [],
    "models workloads": [],
    "explain": ["L1", *SMALL],
    "doctor": [],
}
#: what writes a document of its own kind: TOML, a shell script, measured rows
OWN_DOCUMENT = {"hardware new", "models import", "completion", "measure"}
FORMATS = ("table", "json", "csv", "md")


def commands() -> dict[str, click.Command]:
    """Every command and subcommand that answers."""
    context, found = click.Context(group), {}
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {sub}".strip(): each for sub, each in inner.items()}
    return {name: command for name, command in found.items() if name not in OWN_DOCUMENT}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    np.save(tmp_path / "trace.npy", np.arange(4096) % 700)
    sample = shipped("measurements") / "aiconfigurator-0.12.0-sample.csv"
    (tmp_path / "timings.csv").write_text("\n".join(sample.read_text().splitlines()[:40]) + "\n")
    published = shipped("measurements") / "published-figures.csv"
    (tmp_path / "published.csv").write_text(published.read_text())
    (tmp_path / "rows.csv").write_text(ROWS)
    return tmp_path


def test_every_command_is_asked_below() -> None:
    assert set(ASKED) == set(commands())


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("name", list(ASKED))
def test_every_command_answers_in_every_format(iosim: Run, inputs: Path, name: str, fmt: str) -> None:
    asked = [word.format(folder=inputs) for word in ASKED[name]]
    done = iosim(*name.split(), *asked, "--format", fmt)
    assert done.code == 0, done.err
    if fmt == "json":
        answer = json.loads(done.out)
        assert answer["schema"] == f"iosim/{name.split()[0]}/1"
        assert answer["result"]
    elif fmt == "csv":
        header, *rows = csv.reader(io.StringIO(done.out))
        assert name == "hardware check" or rows  # no slips, no rows
        assert {len(row) for row in rows} <= {len(header)}
    elif fmt == "md" and name != "hardware check":
        lines = done.out.splitlines()
        assert len(lines) > 2
        assert all(line.startswith(("| ", "|---")) for line in lines)
    assert done.out.strip() or name == "hardware check"


def test_a_conflict_says_what_each_source_says(iosim: Run) -> None:
    answer = iosim("hardware", "show", "h100-sxm5", "--format", "json").json
    bandwidth = next(each for each in answer["result"]["conflicts"] if each["field"] == "hbm.bandwidth")
    assert {"value": 3.35e12, "unit": "bytes_per_s"}.items() <= bandwidth["values"][0].items()
    shown = iosim("hardware", "show", "h100-sxm5").out
    assert "hbm.bandwidth: 3.35 TB/s (" in shown
    assert "Fact(" not in shown


def test_predict_streams_csv_unless_told_otherwise(iosim: Run, inputs: Path) -> None:
    rows = inputs / "rows.csv"
    streamed = iosim("predict", rows)
    assert streamed.err.startswith("2 rows: 1 without an expected time, 1 refused")
    assert streamed.out == iosim("predict", rows, "--format", "csv").out
    for name in ("made.csv", "made.json", "made.md", "made.txt"):
        assert iosim("predict", rows, "-o", inputs / name).code == 0
    assert (inputs / "made.csv").read_text() == streamed.out
    answer = json.loads((inputs / "made.json").read_text())["result"]
    assert (answer["expected"], answer["failed"]) == (1, 1)
    written = list(csv.DictReader(io.StringIO(streamed.out)))
    assert [row["status"] for row in answer["rows"]] == [row["status"] for row in written]
    assert float(written[0]["time_floor_s"]) == answer["rows"][0]["time_floor_s"]
    assert iosim("predict", rows, "-o", "made.svg").code == 2


def test_a_report_as_a_page(iosim: Run, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert iosim("report", *SMALL, "--kernel", "flash2", "-o", page).code == 0
    text = page.read_text()
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<table>") == 2
    assert "http" not in text
    assert iosim("curve", *SMALL, "-o", page).code == 2


@pytest.mark.parametrize("name", list(ASKED))
def test_help_names_every_suffix_that_works(iosim: Run, inputs: Path, name: str) -> None:
    command = commands()[name]
    option = next(each for each in command.params if each.name == "output")
    told = {suffix for suffix in (".json", ".csv", ".md", ".txt", ".svg", ".png", ".pdf", ".html")
            if suffix in (getattr(option, "help", "") or "")}  # fmt: skip
    asked = [word.format(folder=inputs) for word in ASKED[name]] + ["--curve"] * (name == "bounds")
    for suffix in (".json", ".csv", ".md", ".txt", ".svg", ".png", ".pdf", ".html"):
        if suffix in (".svg", ".html") or suffix not in told:
            done = iosim(*name.split(), *asked, "-o", inputs / f"made{suffix}")
            assert done.code == (0 if suffix in told else 2), (suffix, done.err)
