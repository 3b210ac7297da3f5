"""Floors and main-memory bytes of many calls at once: the formulas of `iosim.floors` and `iosim.cache`, on arrays.

Float64 holds every count exactly below 2^53 (`COUNTS_EXACT`); of larger ones the caller rounds floors down and counts
bytes one by one. Tests hold these equal to `time_floor` and `hbm_traffic` call by call.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iosim.attention import BITS
from iosim.cache.closed_form import usable_bytes
from iosim.machine import Device
from iosim.timing.calls import Calls, Flags, Floats, Ints
from iosim.timing.kernels import visited_keys
from iosim.timing.plan import Plan, ceil_div

#: bytes of a row's log-sum-exp
LSE_BYTES = 4.0
#: counts below are exact in float64
COUNTS_EXACT = 1 << 53


@dataclass(frozen=True, slots=True)
class Needed:
    """What any kernel must do for calls."""

    pairs: Floats
    """unmasked pairs of one head of one sequence"""
    query_rows: Ints
    """queries that see at least two keys"""
    keys: Ints
    """keys that matter as keys: some query with two or more sees them"""
    values: Ints
    """keys that some query sees"""


def needed(calls: Calls) -> Needed:
    """Pairs and distinct rows of full, causal and windowed calls, aligned at the end.

    Query q sees min(q + 1 + offset, window) keys, offset = keys - queries.
    """
    n, m = calls.n_q.astype(float), calls.n_kv.astype(float)
    width = np.minimum(calls.left + 1, calls.n_kv).astype(float)
    offset = m - n
    rising = np.clip(width - offset, 0, n)  # queries whose band still touches key 0
    banded = rising * offset + rising * (rising + 1) / 2 + (n - rising) * width
    pairs = np.where(calls.causal, banded, n * m)
    alone = np.where(calls.causal, (calls.n_kv == calls.n_q) & (calls.n_q > 0), False)
    rows = np.where(calls.causal & (calls.left == 0), 0, np.where(calls.n_kv > 1, calls.n_q - alone, 0))
    first = alone.astype(np.int64) + calls.n_kv - calls.n_q  # aligned key of the first query with two keys
    seen = np.where(calls.causal, calls.n_kv - np.maximum(0, first - calls.left), calls.n_kv)
    return Needed(pairs, rows, np.where(rows > 0, seen, 0), calls.seen_keys)


def floors_s(calls: Calls, device: Device, dtype: str, kv_dtype: str, warm: bool) -> Floats:
    """`time_floor_s` of each call: useful FLOP at the highest peak, compulsory bytes at datasheet bandwidth.

    Args:
        warm: operands may already be in the last cache and outputs may stay there.
    """
    flop, read, written = useful_flop(calls), *compulsory_bytes(calls, dtype, kv_dtype)
    cache = device.cache_before("hbm")
    kept = (cache.total_bytes or 0) if warm and cache else 0
    peak = max(device.peak_flop_per_s(dtype), device.peak_flop_per_s(kv_dtype))
    moved = np.maximum(read - kept, 0) + np.maximum(written - kept, 0)
    made: Floats = np.maximum(flop / peak, moved / device.bandwidth_bytes_per_s("hbm"))
    return made


def useful_flop(calls: Calls) -> Floats:
    """2 (d + d_v) per unmasked pair."""
    made: Floats = 2.0 * needed(calls).pairs * calls.batch * calls.heads * (calls.head_dim + calls.head_dim_v)
    return made


def compulsory_bytes(calls: Calls, dtype: str, kv_dtype: str) -> tuple[Floats, Floats]:
    """(read, written): L0, the inputs that matter and the outputs."""
    need, q_bits, kv_bits = needed(calls), BITS[dtype], BITS[kv_dtype]
    out_bits = q_bits if q_bits >= 16 else 16
    batch = calls.batch.astype(float)
    queries = batch * calls.heads * need.query_rows * calls.head_dim * q_bits
    keys = batch * calls.kv_heads * need.keys * calls.head_dim * kv_bits
    values = batch * calls.kv_heads * need.values * calls.head_dim_v * kv_bits
    written = batch * calls.heads * calls.n_q * calls.head_dim_v * out_bits
    return (queries + keys + values) / 8, written / 8


@dataclass(frozen=True, slots=True)
class Moved:
    """Bytes between main memory and the last cache, and how they were found."""

    read_bytes: Floats
    """Q, K and V"""
    write_bytes: Floats
    """O"""
    once: Flags
    """everything fits the last cache"""
    again: Flags
    """each round of items sweeps K and V again"""


def main_memory(calls: Calls, plan: Plan, device: Device, dtype: str, kv_dtype: str, stages: int = 1) -> Moved:
    """The closed form of `iosim.cache.closed_form` for kernels that keep Q and sweep K and V.

    Everything once while all tensors fit the last cache, or while K and V of the heads in flight do; else each
    round of items fetches K and V again. One fp32 log-sum-exp word per row is written, as flash kernels do.

    Args:
        stages: K/V tiles that a core holds at once.
    """
    q, kv = BITS[dtype] / 8, BITS[kv_dtype] / 8
    out = q if q >= 2 else 2.0
    batch = calls.batch.astype(float)
    rows = batch * calls.heads * calls.n_q
    head_bytes = touched_keys(calls, plan) * (calls.head_dim + calls.head_dim_v) * kv
    all_kv = batch * calls.kv_heads * head_bytes
    cache = device.cache_before("hbm")
    capacity = float(usable_bytes(cache)) if cache else 0.0
    written = rows * (calls.head_dim_v * out + LSE_BYTES)
    pieces = np.where(plan.splits > 1, plan.splits * rows * (calls.head_dim_v * 4.0 + LSE_BYTES), 0.0)
    once = rows * calls.head_dim * q + written + all_kv + pieces <= capacity
    items = plan.blocks(calls) * plan.heads * plan.splits // calls.kv_heads
    flight = np.minimum(batch * calls.kv_heads, ceil_div(np.full(len(calls), device.cores), np.maximum(1, items)))
    fits = flight * head_bytes + device.cores * _held_bytes(calls, plan, q, kv * stages) <= capacity
    walked = visited_keys(
        plan.rows, plan.keys, plan.packed, calls.n_q, calls.n_kv, calls.left, calls.causal, plan.shifted
    )
    delivered = batch * plan.heads * walked * (calls.head_dim + calls.head_dim_v) * kv
    least = np.minimum(delivered, all_kv)
    share = np.clip(items, 1, device.cores)
    swept = np.where(once | fits, least, np.maximum(least, delivered / share))
    read = np.asarray(rows * calls.head_dim * q + swept, np.float64)
    return Moved(read, np.asarray(written, np.float64), once, ~(once | fits) & (swept > least))


def touched_keys(calls: Calls, plan: Plan) -> Ints:
    """Keys of a sequence that some tile covers: the tile that a window's left edge cuts is fetched whole."""
    first = calls.n_kv - calls.seen_keys
    made: Ints = calls.n_kv - np.where(plan.shifted, first, first // plan.keys * plan.keys)
    return made


def _held_bytes(calls: Calls, plan: Plan, q: float, kv: float) -> Floats:
    """Tiles of one core: Q and its K/V tiles, `kv` bytes per key element."""
    made: Floats = plan.rows * calls.head_dim * q + plan.keys * (calls.head_dim + calls.head_dim_v) * kv
    return made
