"""Decode families on the catalogue's workloads, and FlashAttention's own figure of memory traffic."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_counts import problem, tile

from iosim.analysis import analyze
from iosim.attention import Attention, Shape, Types
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.masks import Grid, bind


def decode(heads: int, kv_heads: int, d: int, keys: int, batch: int = 1, queries: int = 1) -> Attention:
    return problem(queries, keys, d, mask="causal", heads=heads, kv_heads=kv_heads, batch=batch, phase="decode")


def reads(asked: Attention, kernel: str, **chosen: object) -> dict[str, int]:
    schedule = make_schedule(asked, load_device("h100-sxm5"), kernel, settings=chosen)
    return {m.tensor: m.read_elements for m in schedule.traffic.moved}


def test_factorised_attention_of_step_3_reads_one_head() -> None:
    """MFA: 64 query heads of 256 on one key/value head: one pass over the cache, packed into one Q tile."""
    moved = reads(decode(64, 1, 256, 32_768, 64), "split-kv", splits=1)
    assert moved["K"] == moved["V"] == 64 * 32_768 * 256


@pytest.mark.parametrize(("queries", "tiles"), [(1, 1), (8, 1), (9, 2), (17, 3)])
def test_speculative_queries_share_the_walk_until_a_tile_is_full(queries: int, tiles: int) -> None:
    """Groups of 8 packed into 64 rows: 8 draft tokens cost one pass over the keys, 9 cost two."""
    moved = reads(decode(32, 4, 128, 8192, 1, queries), "flash2-decode", splits=1)
    assert moved["K"] <= tiles * 4 * 8192 * 128
    assert moved["K"] > (tiles - 1) * 4 * 8192 * 128
    assert moved["Q"] == 32 * queries * 128


def test_an_fp8_cache_halves_its_bytes() -> None:
    base = decode(32, 8, 128, 8192)
    for dtype, share in (("fp8", 2), ("int4", 4)):
        asked = Attention(base.shape, base.mask, Types.of("bf16", dtype), "decode")
        narrow = make_schedule(asked, None, "split-kv").traffic
        wide = make_schedule(base, None, "split-kv").traffic
        assert {m.tensor: m.read_bytes for m in wide.moved}["K"] == share * {
            m.tensor: m.read_bytes for m in narrow.moved
        }["K"]


def test_a_shared_prefix_is_a_mask(tmp_path: Path) -> None:
    """Cascade: four queries in one tile see a prefix of 64 keys, and 32 keys each of their own: the prefix is read once."""
    queries, prefix, own = 4, 64, 32
    (tmp_path / "own.py").write_text("def allowed(b, h, q, kv):\n    return (kv - 64) // 32 == q\n")
    mask = bind(f"or(prefix:{prefix};py:{tmp_path}/own.py:allowed)", Grid((queries,), (prefix + queries * own,)))
    asked = Attention(Shape(1, 8, 8, 16, 16), mask)
    schedule = make_schedule(asked, None, "flash2", tile(queries, own))
    apart = make_schedule(
        problem(1, prefix + own, 16, heads=8, kv_heads=8, batch=queries, phase="decode"), None, "flash2", tile(1, own)
    )
    together = {m.tensor: m.read_elements for m in schedule.traffic.moved}["K"]
    alone = {m.tensor: m.read_elements for m in apart.traffic.moved}["K"]
    assert together == 8 * 16 * (prefix + queries * own)
    assert alone == 8 * 16 * queries * (prefix + own)


def gpt2_medium(phase: str) -> Attention:
    """The figure's setting: 1,024 tokens, 16 heads of 64, batch 64, fp16."""
    return problem(1024, 1024, 64, heads=16, kv_heads=16, batch=64, phase=phase)


def test_flash_attention_figure_2() -> None:
    """FlashAttention (arXiv 2205.14135) figure 2, A100: 4.4 GB of HBM traffic for flash, forward and backward.

    FlashAttention-1's forward and the K/V-outer backward, replayed over the A100's L2: 4.36 GB. The 40.3 GB of
    standard attention: docs/explanation/figure-2.md.
    """
    device = load_device("a100-sxm-40gb")
    flash = sum(
        analyze(gpt2_medium(phase), device, [kernel]).kernels[0].boundary("hbm").total_bytes
        for phase, kernel in (("prefill", "flash1"), ("backward", "flash2-backward"))
    )
    assert flash == pytest.approx(4.4e9, rel=0.05)
