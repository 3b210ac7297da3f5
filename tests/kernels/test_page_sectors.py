"""Sectors of a paged cache against loops that lay out every page and mark the sectors that each tile reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.random_calls import calls, make, problem, tile

from iosim.analysis import analyze
from iosim.attention import Attention, Shape, Types
from iosim.kernels import make_schedule
from iosim.kernels.page_sectors import page_costs, page_size_sectors
from iosim.machine import load_device
from iosim.problem_builder import bind_lengths
from iosim.report import Options


def sectors_read(allowed: Any, rows: int, cols: int, page: int, row_bits: int, sector_bits: int) -> int:
    """One head: every visited tile pair reads the sectors of its keys' pages, each page at a sector of its own."""
    total = 0
    for top in range(0, allowed.shape[0], rows):
        for left in range(0, allowed.shape[1], cols):
            keys = range(left, min(left + cols, allowed.shape[1]))
            if not allowed[top : top + rows, left : left + cols].any():
                continue
            total += len(
                {
                    (key // page, bit // sector_bits)
                    for key in keys
                    for bit in range(key % page * row_bits, (key % page + 1) * row_bits)
                }
            )
    return total


@given(
    calls(), st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2, 4]), st.sampled_from(["split-kv", "flash2"])
)
def test_sectors_against_loops(call: dict[str, Any], page: int, sector_bytes: int, kernel: str) -> None:
    call |= {"cols": {1: 3, 2: 4, 3: 6, 4: 4, 6: 3, 12: 4}[page]}  # pages below, at and above the tile
    made = make(call, kernel, False, page_size=page)
    found = {cost.tensor: cost for cost in page_costs(made, sector_bytes)}
    if not call["allowed"].any():
        assert not found
        return
    heads = call["batch"] * call["group"] * call["kv_heads"]
    for tensor, width in (("K", call["d"]), ("V", call["d_v"])):
        one = sectors_read(call["allowed"], call["rows"], call["cols"], page, 16 * width, 8 * sector_bytes)
        assert found[tensor].read_sectors == heads * one
        moved = next(m for m in made.traffic.moved if m.tensor == tensor)
        padded = found[tensor].padded(moved)
        assert padded.read_elements == moved.read_elements
        assert padded.read_bytes == heads * one * sector_bytes
        assert found[tensor].wasted_bits == 8 * (padded.read_bytes - moved.read_bytes)


def test_pages_of_unequal_sequences() -> None:
    """5 + 3 keys in pages of 4: 3 pages, the second and third partly filled; rows of 6 bytes, sectors of 8."""
    asked = Attention(Shape(1, 1, 1, 3, 3), bind_lengths("full", "1", "5+3"), phase="decode")
    cost = page_costs(make_schedule(asked, None, "split-kv", tile(16, 4), {"page_size": 4}), 8)[0]
    assert (cost.page_sectors, cost.page_unused_bits) == (3, 0)
    assert cost.read_sectors == 3 + 1 + 3


@pytest.mark.parametrize(
    ("page", "row_bits", "expected"),
    [(16, 128 * 16, (128, 0)), (1, 20 * 8, (1, 12 * 8)), (1, 36 * 4, (1, 14 * 8)), (64, 576 * 16, (2304, 0))],
)
def test_sectors_of_a_page(page: int, row_bits: int, expected: tuple[int, int]) -> None:
    """16 tokens of 128 bf16 elements fill 128 sectors; one token of 36 int4 elements leaves 14 of 32 bytes unused."""
    assert page_size_sectors(page, row_bits, 32) == expected


def test_bytes_of_whole_sectors_in_a_report() -> None:
    """An int4 cache of head size 36 in pages of one token: 18 bytes cost 32 at l2 and hbm, elements stay."""
    asked = problem(1, 4096, 36, heads=8, kv_heads=8, phase="decode")
    asked = Attention(asked.shape, asked.mask, Types.of("bf16", "int4"), "decode")
    report = analyze(
        asked, load_device("h100-sxm5"), ["split-kv"], Options(tile=tile(64, 128), settings={"page_size": 1})
    )
    kernel = report.kernels[0]
    keys = 8 * 4096
    assert [cost.read_sectors for cost in kernel.pages] == [keys, keys]
    for name, width in (("core", 18), ("l2", 32), ("hbm", 32)):
        moved = {m.tensor: m for m in kernel.boundary(name).traffic.moved}
        for tensor in "KV":
            assert (moved[tensor].read_elements, moved[tensor].read_bytes) == (36 * keys, width * keys)
    assert not kernel.boundary("hbm").exact
    assert "K 1 x 32 B sectors, 14 B unused" in " ".join(report.assumptions)
    assert report.to_dict()["kernels"][0]["pages"][0]["wasted_bytes"] == 14 * keys


def test_nothing_is_said_of_a_contiguous_cache() -> None:
    report = analyze(
        problem(1, 4096, 36, phase="decode"), load_device("h100-sxm5"), ["split-kv"], Options(tile=tile(64, 128))
    )
    assert report.kernels[0].pages == ()
    assert "pages" not in report.to_dict()["kernels"][0]
