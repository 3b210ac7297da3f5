"""What splitting keys costs FlashAttention-3 beside the pieces: its scheduler's walk and the kernel that adds pieces.

Source: hopper/tile_scheduler.hpp, hopper/flash_fwd_combine_kernel.h.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iosim.timing.calls import Calls, Floats, Ints
from iosim.timing.plan import Plan, ceil_div
from iosim.timing.rates import Rates

#: sequences that a warp of the scheduler looks through at a time, and one of the combine
SCHEDULER_STEP, COMBINE_STEP = 31, 32
#: blocks of the combine that a core holds: 256 threads of 2,048
COMBINE_RESIDENT = 8
#: columns of a block of the combine
CHUNK = 128


def sequences_s(plan: Plan, calls: Calls, rates: Rates) -> Floats:
    """The scheduler's walk over the batch: a dependent load per step, two where the number of pieces is loaded too."""
    loads = ceil_div(calls.batch, SCHEDULER_STEP) * np.where(plan.combines, 2, 1)
    return np.asarray(loads * rates.l2_latency_s, np.float64)


def combine_s(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float]) -> Floats:
    """The combine: its blocks add pieces, or find none and leave; and a launch, where it has to wait for pieces.

    Where less than half of the grid would hold rows, blocks are numbered over all sequences: each then looks for its
    sequence from the first one on, and one block more per sequence looks in vain.
    """
    rows = np.where(calls.head_dim_v <= 64, 16, 8)
    sparse = 2 * ceil_div(calls.batch * calls.n_q, rows) < calls.batch * ceil_div(calls.n_q, rows)
    dense = calls.batch * ceil_div(calls.n_q * calls.heads, rows)
    real = np.where(sparse, ceil_div(calls.batch * calls.n_q * calls.heads, rows), dense)
    vain = np.where(sparse, calls.batch, 0)
    chunks = ceil_div(calls.head_dim_v, CHUNK)
    groups = ceil_div(calls.batch, COMBINE_STEP)
    steps = np.where(sparse, real * (groups + 1) / 2 + vain * groups, 0.0)
    adds = plan.splits > 1
    each = np.where(adds, c["combine_block"], c["combine_leave"]) / rates.clock_hz
    blocks_s = chunks * ((real + vain) * each + steps * rates.l2_latency_s / COMBINE_RESIDENT) / rates.cores
    pieces_s = _held(plan, calls) * c["combine_split"] / rates.clock_hz + c["second_launch"] * rates.hbm_latency_s
    return np.where(plan.combines, blocks_s + np.where(adds, pieces_s, 0.0), 0.0)


def _held(plan: Plan, calls: Calls) -> Ints:
    """Pieces that hold tiles: a window's lie in one or two."""
    tiles = ceil_div(calls.seen_keys, plan.keys)
    made: Ints = ceil_div(tiles, np.maximum(ceil_div(tiles, plan.splits), 1))
    return made
