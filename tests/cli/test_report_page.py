"""The page of a report says all that its text says."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

SIZES = ("--heads", "8", "--head-dim", "128", "--seq", "4096")
CALLS = {
    "measured": (*SIZES, "--mask", "causal", "--measured", "41ms"),
    "network": ("--network", "llama-4-scout", "--seq", "4096", "--kernel", "flash2,flash3", "--heads", "20"),
    "decode": ("--phase", "decode", "--seq-kv", "8192", "--batch", "4"),
    "ring": (*SIZES, "--devices", "8", "--exchange", "ring", "--kernel", "flash3", "--measured", "1s"),
    "offloaded": ("--phase", "decode", "--seq-kv", "8192", "--offload", "attention", "--far", "xeon-8480"),
    "cpu": (*SIZES, "--device", "xeon-8480", "--kernel", "flash2"),
    "no device": (*SIZES, "--device", "none", "--kernel", "flash2"),
}


def words_of(page: str) -> str:
    """What a reader sees, in one line: cells and blocks are apart, bold words are not."""
    body = page.partition("<body>")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", re.sub(r"</?b>", "", body))).split())


@pytest.fixture(scope="module", params=CALLS.values(), ids=CALLS)
def call(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return ("report", *request.param)


def page_of(iosim: Run, call: tuple[str, ...], folder: Path) -> str:
    made = iosim(*call, "-o", str(folder / "r.html"))
    assert made.code == 0, made.err
    return (folder / "r.html").read_text("utf-8")


def test_every_line_of_the_text_is_on_the_page(iosim: Run, call: tuple[str, ...], tmp_path: Path) -> None:
    shown = words_of(page_of(iosim, call, tmp_path))
    lines = [" ".join(line.split()).removeprefix("- ") for line in iosim(*call).out.splitlines()]
    missing = [line for line in lines if line.strip("\u2500") and line not in shown]
    assert len(lines) > 10
    assert not missing


def test_every_assumption_of_the_data_is_on_the_page(iosim: Run, call: tuple[str, ...], tmp_path: Path) -> None:
    said = iosim(*call, "--format", "json").json["assumptions"]
    shown = words_of(page_of(iosim, call, tmp_path))
    assert said
    assert not [text for text in said if " ".join(text.split()) not in shown]


def test_the_page_needs_nothing_else_and_is_small(iosim: Run, tmp_path: Path) -> None:
    page = page_of(iosim, ("report", *CALLS["network"]), tmp_path)
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", page)
    assert len(page) < 20_000
