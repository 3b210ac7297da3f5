"""Split counts against measured tables and hand-worked examples; paged and quantised caches against loops."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters
from oracles.random_calls import problem, tile

from iosim.attention import Attention, Types
from iosim.errors import UsageError
from iosim.kernels import make_schedule
from iosim.kernels.split_rules import RULES, Demand, _dynamic, ruled_splits
from iosim.machine import load_device

H100 = 132


def demand(items: int, tiles: int, cores: int = H100, **more: int) -> Demand:
    given = {"batch": 1, "kv_heads": 1, "keys": 128 * tiles, "tile_keys": 128, "most": 128, "pairs": items * tiles}
    given |= more
    return Demand(items, tiles, cores, **given)


@pytest.mark.parametrize(
    ("heads", "tokens", "static", "dynamic"),
    [
        (1, 1024, 7, 7), (1, 2048, 7, 6), (1, 4096, 4, 4), (1, 6144, 5, 3), (1, 8192, 2, 2), (1, 12288, 4, 2),
        (1, 16384, 1, 1), (2, 4096, 2, 2), (2, 6144, 4, 2), (2, 8192, 1, 1), (4, 2048, 2, 2), (4, 3072, 4, 2),
        (4, 4096, 1, 1),
    ],
)  # fmt: skip
def test_flash3_prefill_on_h100(heads: int, tokens: int, static: int, dynamic: int) -> None:
    """Static and dynamic counts beside the steps of the H100 table of aiconfigurator 0.12.0, tiles 128 x 128."""
    asked = demand(heads * tokens // 128, tokens // 128, kv_heads=heads)
    assert ruled_splits("flash3", asked) == static
    assert _dynamic(asked, static) == ruled_splits("flash3-varlen", asked) == dynamic


def test_decode_splits_on_h100() -> None:
    """8 heads: 13 and 15 splits where the table steps; one head of 131,071 keys: 109, and 32 under vLLM's cap."""
    assert [ruled_splits("vllm", demand(8, tiles, kv_heads=8)) for tiles in (64, 128)] == [13, 15]
    assert ruled_splits("flash3", demand(1, 1024)) == 109
    assert ruled_splits("vllm", demand(1, 1024)) == 32


def test_other_rules_by_hand() -> None:
    """Each from its code's formula, worked on paper."""
    # 216 slots, 8 items, 64 tiles: only 1, 2, ..., 16, 22, 32, 64 shorten a part; 22 parts fill 0.815 of one wave,
    # 32 fill 0.593 of two, 64 fill 0.79 of three, 16 fill 0.593 of one: 22 is best, and nothing smaller is near
    assert ruled_splits("flash2", demand(8, 64, 108)) == 22
    assert ruled_splits("flash2", demand(173, 64, 108)) == 1
    assert ruled_splits("flash4", demand(8, 64, 148)) == 18
    assert ruled_splits("flash4", demand(8, 4, 148)) == 1
    assert ruled_splits("flash4", demand(8, 5, 148)) == 5
    assert [ruled_splits("flash3", demand(8, tiles)) for tiles in (4, 5)] == [1, 5]  # 40 items fill one wave best
    assert ruled_splits("trtllm", demand(8, 64, 148, keys=8192)) == 18
    assert ruled_splits("trtllm", demand(8, 16, 148, keys=2048)) == 8
    assert ruled_splits("xqa", demand(8, 64, 148, kv_heads=8, keys=8192)) == 18
    assert ruled_splits("trtllm-xqa", demand(8, 64, 132, kv_heads=8, keys=8192)) == 23  # round(sqrt(512))
    assert ruled_splits("trtllm-xqa", demand(512, 64, 132, batch=64, kv_heads=8, keys=8192)) == 2
    # 33 slots per KV head: 64 tiles in chunks of 2
    assert ruled_splits("flashinfer", demand(8, 64, 132, kv_heads=8)) == 32
    assert ruled_splits("vllm-triton", demand(128, 64)) == 16
    assert ruled_splits("vllm-triton", demand(129, 64)) == 1
    assert ruled_splits("xformers", demand(8, 64, kv_heads=8, keys=8192)) == 64
    assert ruled_splits("xformers", demand(256, 64, batch=32, kv_heads=8, keys=8192)) == 32


@given(
    st.sampled_from(sorted(RULES)), st.integers(1, 300), st.integers(1, 600), st.integers(1, 200), st.integers(1, 256)
)
def test_every_rule_stays_between_one_and_the_tiles(rule: str, items: int, tiles: int, cores: int, most: int) -> None:
    assert 1 <= ruled_splits(rule, demand(items, tiles, cores, most=most)) <= min(tiles, most)


@given(
    st.integers(1, 70), st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.integers(1, 8), st.booleans(),
    st.integers(0, 5), st.integers(1, 5), st.integers(1, 5), st.sampled_from(["flashinfer", "split-kv"]),
)  # fmt: skip
def test_pages_and_scales_equal_loops(
    n_kv: int, rows: int, unit: int, pages_per_tile: int, n_q: int, wide: bool, group: int, d: int, d_v: int,
    kernel: str,
) -> None:  # fmt: skip
    """Block-table words per page that a tile touches, scales per group of elements."""
    n_q = min(n_q, n_kv)
    cols, page = (unit, unit * pages_per_tile) if wide else (unit * pages_per_tile, unit)
    asked = replace(problem(n_q, n_kv, d, d_v, "causal", phase="decode"), types=Types.of("bf16", "fp8"))
    chosen = {"page_size": page} | ({"scale_group": group} if group else {})
    schedule = make_schedule(asked, None, kernel, tile(rows, cols), chosen)
    allowed = loop_counters.mask_matrix(n_q, n_kv, "causal")
    read = {m.tensor: m.read_elements for m in schedule.traffic.moved}
    loops = loop_counters.paged(allowed, d, d_v, rows, cols, page, group)
    for tensor in ("K", "V", "K_scale", "V_scale", "block_table"):
        assert read.get(tensor, 0) == loops.read[tensor]


def test_a_page_that_does_not_divide_is_refused() -> None:
    asked = problem(1, 4096, 128, phase="decode")
    with pytest.raises(UsageError, match="page of 48"):
        make_schedule(asked, None, "split-kv", tile(64, 128), {"page_size": 48})


def test_an_int4_cache_with_scales_in_bytes() -> None:
    """KIVI-like: 4-bit K and V, one fp16 scale per 64 elements: 128 elements are 64 + 4 bytes."""
    asked = Attention(problem(1, 4096, 128).shape, problem(1, 4096, 128).mask, Types.of("bf16", "int4"), "decode")
    schedule = make_schedule(asked, None, "split-kv", tile(64, 128), {"splits": 1, "scale_group": 64})
    moved = {m.tensor: m.read_bytes for m in schedule.traffic.moved}
    assert moved["K"] + moved["K_scale"] == 4096 * 68
    assert moved["V"] + moved["V_scale"] == 4096 * 68


@pytest.mark.parametrize(
    ("kernel", "chosen", "what"),
    [
        ("split-kv", {"scale_bits": "8"}, "no scales to have so many bits"),
        ("split-kv", {"scale_group": 64}, "bf16 keys and values have no scales"),
        ("flash2", {"scale_group": "100000"}, "bf16 keys and values have no scales"),
    ],
)
def test_scales_belong_to_quantised_values(kernel: str, chosen: dict[str, object], what: str) -> None:
    asked = problem(1, 4096, 128, phase="decode")
    with pytest.raises(UsageError, match=what) as caught:
        make_schedule(asked, None, kernel, tile(64, 128), chosen)
    assert caught.value.faults[0].hint


def test_too_many_splits_are_refused() -> None:
    asked = problem(1, 512, 64, phase="decode")
    with pytest.raises(UsageError, match="5 splits of 4"):
        make_schedule(asked, None, "split-kv", tile(64, 128), {"splits": 5})
    with pytest.raises(UsageError, match="at least 1"):
        make_schedule(asked, None, "split-kv", tile(64, 128), {"splits": 0})
    assert make_schedule(asked, load_device("h100-sxm5"), "split-kv").launches
