"""How many parts real decode kernels cut the keys of one Q tile into: one named rule per code base.

Each rule takes what its code looks at and gives a number that `split_kv` clamps to the tiles there are.
Sources, all read in July and August 2026: Dao-AILab/flash-attention (csrc/flash_attn/flash_api.cpp,
hopper/heuristics.h, flash_attn/cute/interface.py), vllm-project/flash-attention and vllm's Triton unified
attention, flashinfer-ai/flashinfer (scheduler.cuh, trtllm/fmha, csrc/xqa), NVIDIA/TensorRT-LLM
(common/attentionOp.cpp) and xformers' Triton split-K.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt, sqrt

#: rules that search for full waves give up a split count below this share of the best fill
EFFICIENCY = 0.85


@dataclass(frozen=True, slots=True)
class Demand:
    """What a rule looks at."""

    items: int
    """Q tiles over batch and KV heads"""
    tiles: int
    """KV tiles of the longest walk"""
    cores: int
    """cores of the device"""
    batch: int
    """sequences"""
    kv_heads: int
    """key/value heads"""
    keys: int
    """keys of one sequence"""
    tile_keys: int
    """keys of one tile"""
    most: int
    """the caller's limit"""
    pairs: int
    """Q tiles x KV tiles of each sequence, added over batch and KV heads"""


def _fullest(items: int, slots: int, candidates: range) -> int:
    """The fewest splits whose last wave is filled at least 0.85 times as well as the best."""

    def fill(splits: int) -> float:
        waves = items * splits / slots
        return waves / -(-items * splits // slots)

    best = max(map(fill, candidates))
    return next(splits for splits in candidates if fill(splits) >= EFFICIENCY * best)


def _flash2(demand: Demand) -> int:
    """FlashAttention-2: two blocks per core; only counts that shorten the longest part are candidates."""
    slots, tiles = 2 * demand.cores, demand.tiles
    if demand.items >= 0.8 * slots:
        return 1
    top = min(demand.most, slots, tiles)
    fills = {}
    for splits in range(1, top + 1):
        if splits == 1 or -(-tiles // splits) != -(-tiles // (splits - 1)):
            waves = demand.items * splits / slots
            fills[splits] = waves / -(-demand.items * splits // slots)
    return next(splits for splits, fill in fills.items() if fill >= EFFICIENCY * max(fills.values()))


def _flash3(demand: Demand) -> int:
    """FlashAttention-3: one split when items fill 0.8 of the cores or there are at most four tiles."""
    if demand.items >= 0.8 * demand.cores or demand.tiles <= 4:
        return 1
    return _fullest(demand.items, demand.cores, range(1, min(demand.most, demand.cores, demand.tiles) + 1))


def _dynamic(demand: Demand, static: int) -> int:
    """The count that FlashAttention-3 recomputes per sequence for variable lengths: 1.1 of an even share.

    In integers, as 11/10, of all tile pairs over the cores.
    """
    even = -(-11 * demand.pairs // (10 * demand.cores))
    return max(1, min(-(-demand.tiles // even), static))


def _flash3_varlen(demand: Demand) -> int:
    """As any paged or variable-length call: an upper bound as if for one sequence, then `_dynamic`."""
    one = Demand(-(-demand.items // demand.batch), demand.tiles, demand.cores, 1, *_rest(demand))
    return _dynamic(demand, _flash3(one))


def _rest(demand: Demand) -> tuple[int, int, int, int, int]:
    return demand.kv_heads, demand.keys, demand.tile_keys, demand.most, demand.pairs


def _vllm(demand: Demand) -> int:
    """vLLM under full CUDA graphs: the bound is 32 whatever the shape, then `_dynamic`."""
    return _dynamic(demand, min(32, demand.most))


def _flash4(demand: Demand) -> int:
    """FlashAttention-4: as many as fit one wave."""
    return 1 if demand.tiles <= 4 else max(1, min(demand.cores // demand.items, demand.most, demand.tiles))


def _trtllm(demand: Demand) -> int:
    """The generation kernels of trtllm-gen: two 128-key tiles per step, one wave."""
    return min(-(-demand.keys // 256), max(1, demand.cores // demand.items))


def _xqa(demand: Demand) -> int:
    """FlashInfer's XQA: one wave, at least 256 keys per split."""
    return min(max(1, demand.cores // (demand.batch * demand.kv_heads)), -(-demand.keys // 256))


def _trtllm_xqa(demand: Demand) -> int:
    """TensorRT-LLM's XQA: the root of sixteenths of the keys, at most eight waves and 6,000 parts per sequence."""
    blocks = demand.keys // 128
    splits = min(blocks, round(sqrt(8 * blocks)))
    sequences = demand.batch * demand.kv_heads
    if sequences * splits > 8 * demand.cores:
        splits = 8 * demand.cores // sequences
    return max(1, min(splits, 6000 // demand.batch))


def _flashinfer(demand: Demand) -> int:
    """FlashInfer's planner: the smallest chunk of at least 128 keys whose chunks fit two blocks per core."""
    slots = 2 * demand.cores // demand.kv_heads
    q_tiles = max(1, demand.items // demand.kv_heads)
    low, high = 1, demand.tiles
    while low < high:
        chunk = (low + high) // 2
        low, high = (low, chunk) if q_tiles * -(-demand.tiles // chunk) <= slots else (chunk + 1, high)
    chunk = max(low, -(-128 // demand.tile_keys))
    return -(-demand.tiles // chunk)


def _vllm_triton(demand: Demand) -> int:
    """vLLM's Triton kernel: sixteen segments while Q blocks times KV heads stay within 128."""
    return 16 if demand.items <= 128 else 1


def _xformers(demand: Demand) -> int:
    """xformers' split-K: 1,024 keys over the heads, halved until a part has 128 keys (64 for small calls)."""
    sequences = demand.batch * demand.kv_heads
    splits = max(demand.keys, 1024) // sequences
    least = 64 if demand.keys <= 512 and sequences <= 64 else 128
    while splits > 0 and demand.keys / splits < least:
        splits //= 2
    return max(1, min(splits, 64))


def _square_root(demand: Demand) -> int:
    """As many splits as tiles per split, which balances the walk against the combine."""
    return max(1, isqrt(demand.tiles))


RULES: dict[str, Callable[[Demand], int]] = {
    "flash2": _flash2,
    "flash3": _flash3,
    "flash3-varlen": _flash3_varlen,
    "vllm": _vllm,
    "flash4": _flash4,
    "trtllm": _trtllm,
    "xqa": _xqa,
    "trtllm-xqa": _trtllm_xqa,
    "flashinfer": _flashinfer,
    "vllm-triton": _vllm_triton,
    "xformers": _xformers,
    "square-root": _square_root,
}


def ruled_splits(rule: str, demand: Demand) -> int:
    """What a rule chooses, from 1 to the number of tiles and the caller's limit."""
    return max(1, min(RULES[rule](demand), demand.most, max(1, demand.tiles)))
