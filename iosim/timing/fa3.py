"""FlashAttention-3 on Hopper: one block per core, persistent, the next free core takes the next item.

A tile's time is the larger (smooth) of arithmetic and of its own K/V stream: matrix cycles at full rate plus
the share of the softmax that two warp groups in ping-pong cannot hide, and bytes at what one core can fetch.
Derivation, evidence per term and what fails: docs/explanation/time.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iosim.timing.calls import Calls, Flags, Floats, Ints
from iosim.timing.kernels import SECTIONS, wave_splits
from iosim.timing.parts import (
    SCORE_INSTRUCTIONS,
    Parts,
    bytes_s,
    cache_write_s,
    cold_start_s,
    copy_s,
    kept_share,
    slowed,
    smooth_max,
    total_s,
)
from iosim.timing.plan import Plan, ceil_div, pick, place
from iosim.timing.rates import Rates
from iosim.timing.splitting import combine_s, sequences_s

#: order of the smooth maximum of arithmetic and memory streams of one item; 4 to 16 fit alike
OVERLAP = 8.0
#: sequences beyond which the kernel never splits
MOST_SPLIT_SEQUENCES = 992
#: vLLM captures decode batches up to so many tokens as one graph and then caps the splits
GRAPH_TOKENS, GRAPH_SPLITS = 512, 32
#: the same for blocks and bytes of the cache write: blocks wait for their bytes in part
WRITE_OVERLAP = 2.0
#: rows up to which vLLM's fork uses one math warp group (hopper/heuristics.h, use_one_mma_wg). SGLang 0.5.14 runs a
#: newer kernel than its public fork: that it does the same, with windows too, is read from the tables.
SMALL_ROWS = 64
#: group sizes whose packed Q and O still go through the TMA in vLLM's fork (flash_fwd_launch_template.h, kBlockH)
TMA_GROUPS = (4, 8, 16)
#: K+V of the heads that run side by side fit in this (hopper/tile_scheduler.hpp)
SECTION_BYTES = 32 << 20


def plan(calls: Calls, rates: Rates, framework: str) -> Plan:
    """Tiles and splits as the code chooses them: `vllm` and `sglang` page the cache, `none` is contiguous."""
    paged = framework != "none"
    group, local = calls.group, calls.local
    small = paged & np.isin(calls.head_dim, (64, 128)) & (calls.n_q * group <= SMALL_ROWS)
    small &= ~local | (framework == "sglang")
    rows = np.where(small, SMALL_ROWS, pick(calls.head_dim, {96: 192}, 128))
    keys = _keys(calls, framework, small)
    packs = np.ones(len(calls), bool) if paged else _packs(calls, rows)
    packed = np.where(packs, group, 1)
    heads = np.where(packs, calls.kv_heads, calls.heads)
    blocks = ceil_div(calls.n_q * packed, rows)
    bound = _bound(calls, rates, framework, heads * blocks, rows, keys)
    return Plan(
        rows=rows,
        keys=keys,
        packed=packed,
        heads=heads,
        splits=_dynamic(calls, rates, heads * blocks, keys, bound) if paged else bound,
        combines=bound > 1,
        by_tma=~small
        & (bound <= 1)
        & ((np.isin(packed, TMA_GROUPS) & (framework == "vllm")) | (~packs & (framework == "none"))),
        section=_section(calls, group if paged else packed, packs),
        shifted=calls.local & (framework == "vllm"),
    )


def _keys(calls: Calls, framework: str, small: Flags) -> Ints:
    """Source: hopper/tile_size.h; the paged variants without TMA, and vLLM's tile for few rows."""
    d, local, causal = calls.head_dim, calls.local, calls.causal & (calls.n_q > 1)
    if framework == "none":
        full = pick(d, {64: 192, 96: 144, 128: 176, 192: 112}, 80)
        banded = pick(d, {64: 128, 96: 144, 128: 128, 192: 112}, 80)
        return np.where(local, pick(d, {64: 128, 128: 128, 192: 96}, 64), np.where(causal, banded, full))
    one = np.where(calls.n_q == 1, 160, 128) if framework == "vllm" else np.full(len(calls), 128)
    narrow = np.where(small, 192, one)
    d64 = np.where(local & (framework == "vllm"), 160, narrow)
    return np.where(d <= 64, d64, np.where(local & (d > 192), 64, pick(d, {128: 128, 192: 96}, 80)))


def _packs(calls: Calls, rows: Ints) -> Flags:
    """Contiguous tensors: heads are packed when that fills the rows of tiles better (hopper/heuristics.h)."""
    group = calls.group
    alone = calls.n_q / (ceil_div(calls.n_q, rows) * rows)
    together = calls.n_q * group / (ceil_div(calls.n_q * group, rows) * rows)
    return (group > 1) & (alone < 0.9 * together)


def _bound(calls: Calls, rates: Rates, framework: str, items: Ints, rows: Ints, keys: Ints) -> Ints:
    """Most splits: chosen for one sequence when lengths vary (paged), for the batch when they do not.

    Contiguous tensors are split in decode only: flash_attn_func leaves num_splits at 1 (hopper/flash_attn_interface.py).
    """
    loaded = np.where(calls.local, np.minimum(calls.n_kv, calls.left + 1 + rows), calls.n_kv)
    wanted = items if framework != "none" else items * calls.batch
    bound = wave_splits(wanted, ceil_div(loaded, keys), rates.cores, 128, 4, False)
    if framework == "none":
        bound = np.where(calls.decode, bound, 1)
    if framework == "vllm":
        bound = np.where(calls.decode & (calls.batch <= GRAPH_TOKENS), GRAPH_SPLITS, bound)
    return np.where(calls.batch > MOST_SPLIT_SEQUENCES, 1, bound)


def _dynamic(calls: Calls, rates: Rates, items: Ints, keys: Ints, bound: Ints) -> Ints:
    """Splits that the kernel's preparation chooses per sequence: tiles shared evenly, causality ignored."""
    tiles = ceil_div(calls.n_kv, keys)
    share = np.ceil(1.1 * calls.batch * items * tiles / rates.cores).astype(np.int64)
    return np.clip(ceil_div(tiles, np.maximum(share, 1)), 1, bound)


def _section(calls: Calls, group: Ints, packs: Flags) -> Ints:
    """Heads side by side: 16, 8, 4, 2 or 1, as many as fit the section."""
    rounded = 1 << np.ceil(np.log2(np.maximum(group, 1))).astype(np.int64)
    fit = SECTION_BYTES // rounded // (2 * calls.n_kv * (calls.head_dim + calls.head_dim_v))
    width = np.select([fit >= 16, fit >= 8, fit >= 4, fit >= 2], [16, 8, 4, 2], 1)
    return np.where(packs, width, width * np.maximum(group, 1)).astype(np.int64)


def parts(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Parts:
    """Named terms of the expectation, in seconds."""
    clock, dims = rates.clock_hz, calls.head_dim + calls.head_dim_v
    kept = kept_share(calls, rates)
    matrix = 2.0 * plan.rows * plan.keys * dims / rates.matrix_flop_per_clk
    softmax = _softmax(plan, calls, rates, c, framework)
    stream = 2.0 * plan.keys * dims / c["core_stream"]
    tile = smooth_max(OVERLAP, matrix + softmax, stream)
    item = _item(plan, calls, c)
    placed = place(plan, calls, rates, item / clock, tile / clock, order=SECTIONS)
    span = _streamed(placed.makespan_s, item / clock, plan, calls, rates, c, kept)
    per_core = placed.tiles / rates.cores / clock
    items_s = plan.items(calls) * item / rates.cores / clock
    moved = np.where(calls.decode, calls.qo_bytes, calls.qo_bytes + calls.kv_bytes)
    made = {
        "launch_s": _launch(plan, calls, c, framework) * rates.hbm_latency_s,
        "cold_start_s": cold_start_s(calls, rates, c, framework),
        "matrix_s": per_core * matrix,
        "softmax_s": per_core * softmax,
        "kv_stream_s": per_core * (tile - matrix - softmax) + span - placed.makespan_s,
        "items_s": items_s,
        "imbalance_s": placed.makespan_s - per_core * tile - items_s,
        "hbm_s": _exposed(framework, c) * bytes_s(moved, kept, rates),
        "combine_s": combine_s(plan, calls, rates, c),
    }
    if framework != "none":
        made["sequences_s"] = sequences_s(plan, calls, rates)
        made["cache_write_s"] = (
            copy_s(calls, rates, c) if framework == "sglang" else cache_write_s(calls, rates, c, WRITE_OVERLAP)
        )
    made["power_s"] = span * slowed(total_s(made), matrix / tile, c, framework)
    return made


def _exposed(framework: str, c: Mapping[str, float]) -> float:
    """Share of each tensor's bytes that arithmetic does not hide: none where tensors are contiguous.

    The TMA brings and takes them while the warp groups compute; pages come by copies that those issue themselves.
    """
    return 0.0 if framework == "none" else c["exposed_bytes"]


def _launch(plan: Plan, calls: Calls, c: Mapping[str, float], framework: str) -> Floats:
    """Memory latencies of launches; unsplit calls end with one that resets the scheduler's counter."""
    if framework == "none":
        return np.full(len(calls), c["launch"] / 2)
    one_query = calls.decode & ~calls.local & (calls.head_dim > 64) & (calls.head_dim <= 128) & (framework == "vllm")
    made: Floats = c["launch"] + np.where(plan.combines, 0, c["second_launch"]) + one_query * c["causal_query"]
    return made


def _softmax(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Floats:
    """Cycles of a tile's softmax beside its matrix products.

    vLLM's window tiles of head size 64 run without overlap inside a warp group (hopper/tile_size.h; SGLang's too, by
    the tables): all exponentials and all other instructions of a score are then exposed, which takes no constant.
    """
    scores = (plan.rows * plan.keys).astype(float)
    bare = scores / rates.exp_per_clk
    apart = calls.local & (calls.head_dim <= 64) & (framework != "none")
    return np.where(apart, bare + SCORE_INSTRUCTIONS * scores / rates.lanes, c["softmax"] * bare)


def _streamed(
    placed_s: Floats, item_s: Floats, plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], kept: Floats
) -> Floats:
    """Seconds of a launch whose cores share the memory: decode reads each key once, so it is bandwidth-bound.

    After the first item's start, the larger (smooth) of the cores' own chain and of all keys and values from memory.
    Prefill is bound so where few queries see many keys; its chain hides each tensor's bytes otherwise.
    Cores start in step, so for `in_step` items all of them leave the memory idle together between two items; later
    they have drifted apart, and some stream while others start.
    """
    cold = (1 - kept) / (c["hbm_efficiency"] * rates.hbm_bytes_per_s)
    warm = kept / (c["l2_efficiency"] * rates.l2_bytes_per_s)
    more = np.maximum(plan.items(calls) / rates.cores - 1, 0)
    idle_s = np.minimum(more, c["in_step"]) * item_s
    streamed = item_s + smooth_max(OVERLAP, placed_s - item_s, calls.kv_bytes * (cold + warm) + idle_s)
    once_s = (calls.kv_bytes + calls.qo_bytes) * (cold + warm)
    return np.where(calls.decode, streamed, smooth_max(OVERLAP, placed_s, once_s))


def _item(plan: Plan, calls: Calls, c: Mapping[str, float]) -> Floats:
    """Cycles of an item beyond its tiles: prologue, masks, epilogue, scheduler.

    Rows of the tile cost whether they hold queries or not, twice where Q and O avoid the TMA (fitted apart: 10.4 and
    11.0 cycles); only the bytes of Q and O are those of real rows, at what a core can fetch.
    """
    per_row = c["tile_row"] * np.where(plan.by_tma, 1, 2)
    moved = 2.0 * plan.valid_rows(calls) * (calls.head_dim + calls.head_dim_v)
    made: Floats = c["item"] + plan.rows * per_row + moved / c["core_stream"]
    return made
