"""FlashAttention-2 on Ampere, Ada and consumer Blackwell: blocks of four warps, one or two to a core, plain grid.

One block alone on a core is serial: Q K^T waits for V's load, softmax and P V wait for the next K. Two blocks
share the core's units, so that tiles take longer in company, but what a block waits for before and after its tiles the
other one hides. Constants are counted in what the device does by itself (the time of a launch in a
graph, latencies of its last cache, its clocks), so that those of one device hold on another. Derivation: docs/explanation/time.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iosim.timing.calls import UNBOUNDED, Calls, Flags, Floats, Ints
from iosim.timing.fa2_memory import Memory, copies_s
from iosim.timing.kernels import GRID, wave_splits
from iosim.timing.parts import SCORE_INSTRUCTIONS, Parts, cache_write_s, cold_start_s, slowdown, smooth_max
from iosim.timing.plan import Plan, ceil_div, decode_waves, pick, place
from iosim.timing.rates import Rates

#: order of the smooth maxima of arithmetic and loads; 4 to 8 fit alike
OVERLAP = 6.0
#: rate of mma.sync in a stream of them over the rated one. Assumed: tables of one head size cannot tell it from
#: the softmax and the tile's latency, which is therefore the one of the three that is fitted
MATRIX_SHARE = 0.97
#: integer instructions per score of a tile that tests scores against the mask, counted, not fitted: the key's index, a
#: comparison with each edge, the selection
MASK_INSTRUCTIONS = 4.0
#: parts with 100 KiB of shared memory for which FlashAttention-2 has tiles of its own (is_sm8x in its source)
SMALL_PARTS = ("8.6", "8.9")
#: registers allow two blocks of four warps with 255 registers a thread
MOST_BLOCKS = 2
#: order of the smooth maximum of blocks and bytes of the cache write, as on Hopper: one kernel of the framework's
WRITE_OVERLAP = 2.0


def plan(calls: Calls, rates: Rates, framework: str) -> Plan:
    """Tiles as the code chooses them; with a page table always the split kernel's, else the ordinary forward's.

    Heads are packed, and keys split, only for one query of grouped heads without a window.
    """
    paged = framework != "none"
    split_kernel = calls.decode | paged
    packs = calls.decode & (calls.group > 1) & ~_window(calls)
    packed = np.where(packs, calls.group, 1)
    heads = np.where(packs, calls.kv_heads, calls.heads)
    rows, keys = _forward_tiles(calls, rates)
    keys = np.where(split_kernel, pick(calls.head_dim, {64: 256, 128: 128}, 64), keys)
    rows = np.where(split_kernel, 64, rows)
    blocks = ceil_div(calls.n_q * packed, rows)
    tiles = ceil_div(calls.n_kv, keys)
    split = wave_splits(calls.batch * heads * blocks, tiles, 2 * rates.cores, 128, 0, True)
    may_split = packs if paged else calls.decode
    splits = np.where(may_split, split, 1)
    none = np.zeros(len(calls), bool)
    return Plan(rows, keys, packed, heads, splits, splits > 1, none, np.ones(len(calls), np.int64), none)


def _forward_tiles(calls: Calls, rates: Rates) -> tuple[Ints, Ints]:
    """(rows, keys) of the ordinary forward: `flash2` in models/kernels, for arrays.

    Small parts of compute capability 8.x have squares under a causal mask and flat tiles else, from head size 96 and
    128 on.
    """
    d, small = calls.head_dim, np.full(len(calls), rates.capability in SMALL_PARTS)
    square = small & calls.causal & ~calls.local & (d > 64) & (d <= 128)
    flat = small & ~square & (d > 96) & (d <= 128)
    short = square | ((d > 192) & (rates.shared_bytes < 160 << 10))
    return np.where(short, 64, 128), np.where(flat, 32, pick(d, {64: 128}, 64))


def _window(calls: Calls) -> Flags:
    """Whether the call names a window at all: FlashAttention-2 tests for one before it looks at its length."""
    made: Flags = calls.causal & (calls.left < UNBOUNDED)
    return made


def blocks_per_core(plan: Plan, calls: Calls, rates: Rates) -> Ints:
    """Blocks that fit a core at once, by shared memory (Q, K and V tiles) and registers."""
    held = 2 * calls.head_dim * (plan.rows + 2 * plan.keys) + 1024
    made: Ints = np.clip(rates.shared_bytes // held, 1, MOST_BLOCKS)
    return made


@dataclass(frozen=True, slots=True)
class Cycles:
    """A block alone on its core, in cycles."""

    product: Floats
    """one of the two matrix products of a tile"""
    softmax: Floats
    """exponentials and fp32 instructions of a tile"""
    tile: Floats
    """a tile: both halves, each with the load behind it"""
    item: Floats
    """a block's waits beyond its tiles: start, page table, first loads, epilogue"""
    masks: Floats
    """what a block's tests of scores against the mask take beyond its tiles"""


def _cycles(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float]) -> Cycles:
    dims, scores = calls.head_dim + calls.head_dim_v, (plan.rows * plan.keys).astype(float)
    product = scores * dims / rates.matrix_flop_per_clk / MATRIX_SHARE
    softmax = scores / rates.exp_per_clk + SCORE_INSTRUCTIONS * scores / rates.lanes
    latency = rates.l2_latency_s * rates.clock_hz
    load = plan.keys * dims / rates.l2_bytes_per_clk + c["tile_latency"] * latency
    mask = MASK_INSTRUCTIONS * scores / rates.integer_lanes
    return Cycles(
        product=product,
        softmax=softmax,
        tile=smooth_max(OVERLAP, product, load)
        + smooth_max(OVERLAP, product + softmax, load)
        + np.where(calls.local, mask, 0.0),
        item=c["item"] * latency + _first_loads(plan, calls) / rates.l2_bytes_per_clk,
        masks=np.where(calls.local, 0.0, masked_tiles(plan, calls) * mask),
    )


def parts(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Parts:
    """Named terms of the expectation, in seconds."""
    cycles = _cycles(plan, calls, rates, c)
    per_core = blocks_per_core(plan, calls, rates)
    share = np.where(per_core > 1, c["lone_share"], 1.0)
    memory = Memory.of(plan, calls, rates, per_core)
    makespan, tiles = _makespan(plan, calls, rates, c, cycles, share, per_core, memory)
    slots = np.minimum(plan.items(calls), rates.cores * per_core)
    cycle = 1 / slots / rates.clock_hz / np.where(slots > rates.cores, share, 1.0)
    shared = np.where(slots > rates.cores, share, 1.0)
    each, items_s = tiles * cycle, plan.items(calls) * (cycles.item * shared + cycles.masks) * cycle
    busy = 2 * cycles.product * MATRIX_SHARE * per_core * np.where(per_core > 1, share, 1.0) / cycles.tile
    launch = np.full(len(calls), c["launch"] * rates.launch_s)
    pieces = c["combine"] * rates.launch_s + c["combine_split"] * plan.splits * rates.hbm_latency_s
    made = {
        "launch_s": launch if framework != "none" else launch / 2,
        "cold_start_s": cold_start_s(calls, rates, c, framework),
        "matrix_s": each * 2 * cycles.product,
        "softmax_s": each * cycles.softmax,
        "kv_stream_s": each * (cycles.tile - 2 * cycles.product - cycles.softmax),
        "items_s": items_s,
        "imbalance_s": makespan - each * cycles.tile - items_s,
        "power_s": np.where(calls.decode, 0, makespan * slowdown(makespan, busy, c["power"], rates)),
        "hbm_s": memory.exposed_s(makespan, calls, rates, c),
        "combine_s": np.where(plan.splits > 1, pieces, 0.0),
    }
    if framework != "none":
        made["layout_copies_s"] = copies_s(plan, calls, rates, c)
        made["cache_write_s"] = cache_write_s(calls, rates, c, WRITE_OVERLAP)
    return made


def masked_tiles(plan: Plan, calls: Calls) -> Floats:
    """Tiles of an item that test every score against the mask: two of a causal row block, if it has two; else one."""
    ragged = np.minimum(plan.keys, calls.n_kv) / calls.n_kv
    return np.asarray(np.where(calls.causal & ~calls.decode, 2.0 - ragged, 1.0), np.float64)


def _first_loads(plan: Plan, calls: Calls) -> Floats:
    """Bytes of Q and of the first K tile, behind whose loads nothing can hide."""
    keys = np.minimum(plan.keys, calls.seen_keys)
    return np.asarray(2.0 * calls.head_dim * (plan.valid_rows(calls) + keys), np.float64)


def _makespan(
    plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float], cycles: Cycles, share: Floats, per_core: Ints,
    memory: Memory,
) -> tuple[Floats, Ints]:  # fmt: skip
    """(seconds, visited tiles): prefill placed item by item, decode in waves of equal items."""
    made, tiles = np.zeros(len(calls)), np.zeros(len(calls), np.int64)
    many = ~calls.decode
    if many.any():
        pair = (1 / share / rates.clock_hz)[many]
        item = (cycles.item * share + cycles.masks)[many] * pair
        placed = place(
            plan[many], calls[many], rates, item, cycles.tile[many] * pair, order=GRID,
            per_core=per_core[many], lone=share[many],
        )  # fmt: skip
        alone = np.where(plan.items(calls) <= rates.cores, (1 - share) * cycles.item / rates.clock_hz, 0.0)
        made[many], tiles[many] = placed.makespan_s + alone[many], placed.tiles
    if calls.decode.any():
        first = (calls.n_kv - calls.seen_keys) // plan.keys
        walked = ceil_div(calls.n_kv, plan.keys) - first
        longest = ceil_div(walked, plan.splits)
        cold = (1 - memory.kept) / (c["hbm_efficiency"] * rates.hbm_bytes_per_s) * rates.clock_hz
        stream = memory.kv_bytes / (calls.batch * plan.heads * walked) * cold

        def wave(running: Ints) -> Floats:
            slower = np.where(running > rates.cores, share, 1.0)
            tile = smooth_max(OVERLAP, cycles.tile / slower, running * stream)
            return (cycles.item + cycles.masks / slower + longest * tile) / rates.clock_hz

        waves = decode_waves(plan.items(calls), rates.cores * per_core, wave)
        made = np.where(calls.decode, waves, made)
        tiles = np.where(calls.decode, calls.batch * plan.heads * plan.blocks(calls) * walked, tiles)
    return made, tiles
