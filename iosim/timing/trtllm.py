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
from iosim.timing.parts import (
    SCORE_INSTRUCTIONS,
    Parts,
    bytes_s,
    cache_write_s,
    cold_start_s,
    copy_s,
    kept_share,
    replay_s,
    slowdown,
    smooth_max,
)
from iosim.timing.plan import Plan, ceil_div, place
from iosim.timing.rates import Rates

#: order of the smooth maximum of matrix units and softmax, and of arithmetic and streams: larger ones fit as well
OVERLAP = 6.0
#: keys below which a decode item is not split further: two steps of 256
SPLIT_KEYS = 512
#: pieces of an item that are reduced inside a cluster of cores; more go through global memory and counters
CLUSTER, CLUSTER_ROWS = 16, 32
#: main-memory latencies of a reduction inside a cluster. Assumed: steps of 2 us hide it
CLUSTER_REDUCE = 2.0


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
    splits = np.where(decode, np.minimum(ceil_div(calls.seen_keys, SPLIT_KEYS), idle), 1)
    none = np.zeros(len(calls), bool)
    return Plan(rows, keys, packed, heads, splits, splits > 1, none, np.ones(len(calls), np.int64), none)


def parts(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Parts:
    """Named terms of the expectation, in seconds."""
    clock, dims = rates.clock_hz, calls.head_dim + calls.head_dim_v
    kept = kept_share(calls, rates)
    matrix = 2.0 * plan.rows * plan.keys * dims / rates.matrix_flop_per_clk / (c["product"] * rates.matrix_burst)
    scores = (plan.rows * plan.keys).astype(float)
    softmax = c["exponential"] * scores / rates.exp_per_clk + SCORE_INSTRUCTIONS * scores / rates.lanes
    tile = smooth_max(OVERLAP, matrix, softmax)
    item = c["item"] + c["item_bytes"] * plan.valid_rows(calls) * calls.head_dim / 16384
    item = item + c["masked_tile"] * _masked(plan, calls) * scores / 32768
    item = np.where(calls.decode, c["item_decode"] + c["item_decode_bytes"] * plan.rows * calls.head_dim / 128, item)
    makespan, tiles = _makespan(plan, calls, rates, c, item, tile, kept)
    items = plan.items(calls)
    busy = np.minimum(items, rates.cores)
    each = tiles / busy / clock
    items_s = items * item / busy / clock
    moved = np.where(calls.decode, 0.0, calls.qo_bytes + calls.kv_bytes)  # decode's are in the stream of its cores
    launch = np.full(len(calls), c["launch"] * rates.hbm_latency_s + rates.host_launch_s)
    made = {
        "launch_s": launch if framework != "none" else launch / 2,
        "matrix_s": each * matrix,
        "softmax_s": each * (tile - matrix),
        "items_s": items_s,
        "imbalance_s": np.where(calls.decode, 0.0, makespan - each * tile - items_s),
        "kv_stream_s": np.where(calls.decode, makespan - each * tile - items_s, 0.0),
        "power_s": np.where(calls.decode, 0, makespan * slowdown(makespan, matrix / tile, c["power"], rates)),
        "hbm_s": smooth_max(OVERLAP, makespan, bytes_s(moved, kept, rates) / c["hbm_efficiency"]) - makespan,
        "cold_start_s": cold_start_s(calls, rates, c, framework),
        "combine_s": _reduce(plan, c) * rates.hbm_latency_s,
    }
    if framework != "none":
        made["cache_write_s"] = copy_s(calls, rates, c) if framework == "sglang" else cache_write_s(calls, rates, c)
        made["replay_s"] = replay_s(np.asarray(sum(made.values())), framework, rates)
    return made


def _reduce(plan: Plan, c: Mapping[str, float]) -> Floats:
    """Adding the pieces of split keys, in main-memory latencies.

    Up to 16 pieces of tiles of up to 32 rows meet in a cluster's shared memory, others go through global memory.
    Source: flashinfer trtllm/fmha/fmhaKernels.cuh.
    """
    cluster = (plan.splits <= CLUSTER) & (plan.rows <= CLUSTER_ROWS)
    far = CLUSTER_REDUCE + c["reduce_split"] * plan.splits
    return np.select([plan.splits == 1, cluster], [0.0, CLUSTER_REDUCE], far)


def _masked(plan: Plan, calls: Calls) -> Ints:
    """128-row tiles of an item that test scores against the mask: the diagonal's, and with a window the left edge's."""
    crossed = ceil_div(plan.valid_rows(calls), plan.keys)
    made: Ints = np.where(calls.causal, crossed, 0) + np.where(calls.local, crossed, 0)
    return made


def _makespan(
    plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], item: Floats, tile: Floats, kept: Floats
) -> tuple[Floats, Ints]:
    """(seconds, visited tiles): prefill placed item by item, decode the larger of waves and the stream of all cores."""
    clock = rates.clock_hz
    made, tiles = np.zeros(len(calls)), np.zeros(len(calls), np.int64)
    many = ~calls.decode
    if many.any():
        placed = place(plan[many], calls[many], rates, item[many] / clock, tile[many] / clock, order=GRID)
        made[many], tiles[many] = placed.makespan_s, placed.tiles
    if calls.decode.any():
        walked = ceil_div(calls.seen_keys, plan.keys)
        dims = calls.head_dim + calls.head_dim_v
        alone = smooth_max(OVERLAP, tile, 2.0 * plan.keys * dims / c["core_stream"])
        one = item + ceil_div(walked, plan.splits) * alone
        cold = (1 - kept) / (c["hbm_efficiency"] * rates.hbm_bytes_per_s)
        warm = kept / (c["l2_efficiency"] * rates.l2_bytes_per_s)
        streamed = (calls.kv_bytes + calls.qo_bytes) * (cold + warm)
        waves = smooth_max(OVERLAP, ceil_div(plan.items(calls), rates.cores) * one / clock, streamed)
        made = np.where(calls.decode, waves, made)
        tiles = np.where(calls.decode, calls.batch * plan.heads * plan.blocks(calls) * walked, tiles)
    return made, tiles
