"""trtllm-gen on data-centre Blackwell: persistent, matrix units and softmax overlap nearly fully.

The kernel is closed: its selection code is public, its tiles' inside is not; the row tile and the order of items
in prefill are those that fit best. Softmax has two resources, exponentials and fp32 instructions, so that a
device with a faster exponential unit (B300) is predicted and not fitted. Derivation: docs/explanation/time.md.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iosim.timing.calls import Calls, Floats, Ints
from iosim.timing.kernels import GRID
from iosim.timing.parts import SCORE_INSTRUCTIONS, Parts, bytes_s, cache_write_s, kept_share, smooth_max
from iosim.timing.plan import Plan, ceil_div, decode_waves, place
from iosim.timing.rates import Rates

#: order of the smooth maximum of matrix units and softmax, and of arithmetic and streams
OVERLAP = 6.0


def plan(calls: Calls, rates: Rates, framework: str) -> Plan:
    """Prefill: tiles of 256 rows (128 beyond head size 128). Decode: the group as rows, keys split over idle cores.

    Source: flashinfer trtllm/fmha/fmhaKernels.cuh.
    """
    del framework  # the same kernel in each
    group, decode = calls.group, calls.decode
    narrow = np.select([group <= 8, group <= 16, group <= 32, group <= 64], [8, 16, 32, 64], 128)
    rows = np.where(decode, narrow, np.where(calls.head_dim > 128, 128, 256))
    keys = np.full(len(calls), 128)
    packed = np.where(decode, group, 1)
    heads = np.where(decode, calls.kv_heads, calls.heads)
    blocks = ceil_div(calls.n_q * packed, rows)
    idle = np.maximum(1, rates.cores // (calls.batch * heads * blocks))
    splits = np.where(decode, np.minimum(ceil_div(calls.seen_keys, 256), idle), 1)
    none = np.zeros(len(calls), bool)
    return Plan(rows, keys, packed, heads, splits, splits > 1, none, np.ones(len(calls), np.int64), none)


def parts(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Parts:
    """Named terms of the expectation, in seconds."""
    clock, dims = rates.clock_hz, calls.head_dim + calls.head_dim_v
    kept = kept_share(calls, rates)
    rows = np.maximum(plan.rows, 64)
    matrix = 2.0 * rows * plan.keys * dims / rates.matrix_flop_per_clk / c["matrix"]
    scores = (plan.rows * plan.keys).astype(float)
    softmax = c["exponential"] * scores / rates.exp_per_clk + SCORE_INSTRUCTIONS * scores / rates.lanes
    tile = smooth_max(OVERLAP, matrix, softmax)
    item = c["item"] + c["item_bytes"] * plan.rows * calls.head_dim / 16384
    item = item + c["masked_tile"] * _masked(plan, calls) * scores / 32768
    item = np.where(calls.decode, c["item_decode"] + c["item_decode_bytes"] * plan.rows * calls.head_dim / 128, item)
    makespan, tiles = _makespan(plan, calls, rates, c, item, tile, kept)
    items = plan.items(calls)
    busy = np.minimum(items, rates.cores)
    each = tiles / busy / clock
    items_s = items * item / busy / clock
    moved = np.where(calls.decode, calls.qo_bytes, calls.qo_bytes + calls.kv_bytes)
    launch = np.full(len(calls), c["launch"] * rates.hbm_latency_s)
    made = {
        "launch_s": launch if framework != "none" else launch / 2,
        "matrix_s": each * matrix,
        "softmax_s": each * (tile - matrix),
        "items_s": items_s,
        "imbalance_s": np.where(calls.decode, 0.0, makespan - each * tile - items_s),
        "kv_stream_s": np.where(calls.decode, makespan - each * tile - items_s, 0.0),
        "hbm_s": c["exposed_bytes"] * bytes_s(moved, kept, rates),
        "combine_s": np.where(plan.splits > 1, c["reduce"] + c["reduce_split"] * plan.splits, 0.0)
        * rates.hbm_latency_s,
    }
    if framework != "none":
        made["cache_write_s"] = cache_write_s(calls, rates, c)
    return made


def _masked(plan: Plan, calls: Calls) -> Ints:
    """KV tiles of a row block that an edge of the mask crosses: the diagonal's, and a window's left ones."""
    crossed = ceil_div(plan.valid_rows(calls), plan.keys)
    edges = np.where(calls.causal, crossed, 0) + np.where(calls.local, crossed, 0)
    visible = np.minimum(calls.n_kv, calls.left + plan.valid_rows(calls))
    made: Ints = np.minimum(edges, ceil_div(visible, plan.keys))
    return made


def _makespan(
    plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], item: Floats, tile: Floats, kept: Floats
) -> tuple[Floats, Ints]:
    """(seconds, visited tiles): prefill placed item by item, decode in waves of equal items."""
    clock = rates.clock_hz
    made, tiles = np.zeros(len(calls)), np.zeros(len(calls), np.int64)
    many = ~calls.decode
    if many.any():
        placed = place(plan[many], calls[many], rates, item[many] / clock, tile[many] / clock, order=GRID)
        made[many], tiles[many] = placed.makespan_s, placed.tiles
    if calls.decode.any():
        walked = ceil_div(calls.seen_keys, plan.keys)
        longest = ceil_div(walked, plan.splits)
        dims = calls.head_dim + calls.head_dim_v
        alone = smooth_max(OVERLAP, tile, 2.0 * plan.keys * dims / c["core_stream"])
        cold = (1 - kept) / (c["hbm_efficiency"] * rates.hbm_bytes_per_s)
        warm = kept / (c["l2_efficiency"] * rates.l2_bytes_per_s)
        shared = 2.0 * calls.seen_keys / walked * dims * (cold + warm) * clock

        def wave(running: Ints) -> Floats:
            return (item + longest * smooth_max(OVERLAP, alone, running * shared)) / clock

        waves = decode_waves(plan.items(calls), np.full(len(calls), rates.cores), wave)
        made = np.where(calls.decode, waves, made)
        tiles = np.where(calls.decode, calls.batch * plan.heads * plan.blocks(calls) * walked, tiles)
    return made, tiles
