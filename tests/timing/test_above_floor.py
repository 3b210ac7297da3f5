"""No expectation is below the floor of its call, on thousands of random calls per family, cold and warm.

Few queries on many keys, or few tokens of many sequences, are bound by bytes: no table holds them, and a model of
arithmetic alone goes below what memory allows.
"""

from __future__ import annotations

import numpy as np
import pytest

from iosim.machine import load_device
from iosim.timing.calls import Calls
from iosim.timing.families import expected_parts
from iosim.timing.parts import total_s
from iosim.timing.traffic import floors_s

TABLED = [
    ("h100-sxm5", "flash3"), ("h200-sxm", "flash3"), ("a100-sxm-80gb", "flash2"), ("l40s", "flash2"),
    ("rtx-pro-6000-blackwell", "flash2"),    ("b200-sxm", "trtllm"), ("gb300", "trtllm"),
]  # fmt: skip
#: full and causal self-attention with head sizes up to 128 only
PUBLISHED = [
    ("h100-sxm5", "flash2"), ("h100-sxm5", "cudnn"), ("h100-sxm5", "triton"), ("a100-sxm-80gb", "xformers"),
    ("a100-sxm-80gb", "flash1"), ("a100-sxm-80gb", "unfused"),
]  # fmt: skip


def random_calls(count: int, published: bool, seed: int = 7) -> Calls:
    draw = np.random.default_rng(seed)
    n_kv = np.exp(draw.uniform(0, np.log(200_000), count)).astype(np.int64) + 1
    n_q = n_kv if published else np.minimum(n_kv, np.exp(draw.uniform(0, np.log(200_000), count)).astype(np.int64) + 1)
    kv_heads = draw.choice([1, 2, 4, 8, 16, 32], count)
    columns = {
        "batch": draw.choice([1, 2, 3, 8, 17, 64, 256], count),
        "heads": kv_heads * draw.choice([1, 2, 4, 8], count),
        "kv_heads": kv_heads,
        "head_dim": draw.choice([64, 128] if published else [64, 128, 256], count),
        "n_q": n_q,
        "n_kv": n_kv,
    }
    if not published:
        columns["n_q"] = np.where(draw.random(count) < 0.3, 1, n_q)
        columns["batch"] = np.where(draw.random(count) < 0.1, 2048, columns["batch"])
        columns["left"] = np.where(draw.random(count) < 0.3, 127, n_kv)
    return Calls.of(columns)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize(("board", "kernel"), [*TABLED, *PUBLISHED])
def test_no_expectation_is_below_its_floor(board: str, kernel: str, warm: bool) -> None:
    device, calls = load_device(board), random_calls(4000, (board, kernel) in PUBLISHED)
    floor = floors_s(calls, device, "bf16", "bf16", warm)
    for framework in ("none", "vllm") if (board, kernel) in TABLED else ("none",):
        expected = total_s(expected_parts(calls, device, kernel, framework, warm))
        assert (expected >= floor).all()


@pytest.mark.parametrize(("board", "kernel"), TABLED)
def test_short_caches_of_many_sequences_take_their_bytes(board: str, kernel: str) -> None:
    """Queries and outputs weigh as much as the keys: 2,048 sequences of 64 keys, 64 heads over one."""
    device = load_device(board)
    grid = [(b, h, n) for b in (64, 512, 2048) for h in (8, 64) for n in (1, 16, 64, 256)]
    batch, heads, n_kv = (np.array(column) for column in zip(*grid, strict=True))
    one = np.ones(len(grid), np.int64)
    columns = {"batch": batch, "heads": heads, "kv_heads": one, "head_dim": 128 * one, "n_q": one, "n_kv": n_kv}
    for framework in ("none", "vllm"):
        expected = total_s(expected_parts(Calls.of(columns), device, kernel, framework, False))
        assert (expected >= floors_s(Calls.of(columns), device, "bf16", "bf16", False)).all()
