"""What FlashAttention-2's grid moves from main memory: whole tiles, one sweep or several, and copies that pack heads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iosim.timing.calls import Calls, Floats, Ints
from iosim.timing.parts import bytes_s, held, kept_share, smooth_max
from iosim.timing.plan import Plan
from iosim.timing.rates import Rates

#: order of the smooth maximum of the copies' two resources, as everywhere in this family
OVERLAP = 6.0


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of calls, and what stays in the last cache."""

    kv_bytes: Floats
    """K and V that come from behind the last cache if it kept nothing from the call before"""
    kept: Floats
    """share that it kept"""

    @classmethod
    def of(cls, plan: Plan, calls: Calls, rates: Rates, per_core: Ints) -> Memory:
        """The memory side of calls."""
        loaded = loaded_bytes(plan, calls)
        sweeps = sweeps_of(plan, calls, loaded, rates, per_core)
        return cls(sweeps * loaded, kept_share(calls, rates, loaded - calls.kv_bytes))

    def exposed_s(self, makespan: Floats, calls: Calls, rates: Rates, c: Mapping[str, float]) -> Floats:
        """What memory adds to arithmetic: a smooth maximum, since some cores compute while others wait.

        In decode the tiles have already waited for K and V, but all bytes together take their time at least.
        """
        everything = calls.qo_bytes + self.kv_bytes
        moved = np.where(calls.decode, calls.qo_bytes, everything)
        bytes_time = bytes_s(moved, self.kept, rates) / c["hbm_efficiency"]
        least = bytes_s(everything, self.kept, rates) / c["hbm_efficiency"]
        overlapped = smooth_max(c["memory_overlap"], makespan, bytes_time)
        return np.asarray(np.maximum(overlapped, least) - makespan, np.float64)


def loaded_bytes(plan: Plan, calls: Calls) -> Floats:
    """Bytes of K and V in the visited tiles: a tile that a window's left edge cuts is loaded whole."""
    first = (calls.n_kv - calls.seen_keys) // plan.keys * plan.keys
    per_key = 2.0 * (calls.head_dim + calls.head_dim_v) * calls.kv_heads
    return calls.batch * per_key * (calls.n_kv - first)


def sweeps_of(plan: Plan, calls: Calls, loaded: Floats, rates: Rates, per_core: Ints) -> Floats:
    """How often keys and values pass the last cache.

    Heads are the grid's slowest dimension: the query heads of a group that run at the same time share a sweep; the
    next ones come when one head of all sequences has passed, and the cache still holds its keys or not.
    """
    between = (loaded / calls.kv_heads + calls.qo_bytes / calls.heads) / rates.l2_usable_bytes
    group = plan.heads / calls.kv_heads
    together = np.clip(rates.cores * per_core / (calls.batch * plan.blocks(calls)), 1, group)
    made: Floats = 1 + (group / together - 1) * (1 - held(between))
    return made


def copies_s(plan: Plan, calls: Calls, rates: Rates, c: Mapping[str, float]) -> Floats:
    """Packing the heads of one query: a transpose of Q and one of O, only where the layout really changes.

    Two launches, and every element read and written: strided, so far below the last cache's rate, and no faster than
    main memory where the footprint does not fit.
    """
    packs = plan.packed > 1
    moves = packs & (calls.kv_heads > 1) & (calls.batch > 1)
    moved = 2 * calls.qo_bytes
    cold = (1 - kept_share(calls, rates, calls.qo_bytes)) * moved / rates.hbm_bytes_per_s
    streamed = smooth_max(OVERLAP, moved / (c["copy_bandwidth"] * rates.l2_bytes_per_s), cold)
    launches = np.where(packs, c["pack"] + np.where(moves, c["copies"], 0), 0) * rates.launch_s
    return np.asarray(launches + np.where(moves, streamed, 0), np.float64)
