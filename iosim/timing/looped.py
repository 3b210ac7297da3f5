"""Kernels that are one loop over tiles and that only papers timed: forward and backward, a handful of constants each.

An item is a row block of queries (backward: of keys), its time

    item + masks + tiles x (matrix units + instructions)

since such kernels, without specialised warps, wait for one while they do the other. Matrix operations run at the
device's rate, on Hopper at that of `mma.sync` unless the kernel uses `wgmma`; every other instruction, whatever it
does, takes one of a core's 128 issue slots per clock, on any architecture: what carries constants from one to
another. The next free core takes the next item. Rates are those of the rated clock: benchmarks of papers run long.
Derivation and residuals: docs/explanation/time.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from iosim.attention import Attention, Shape
from iosim.errors import AbsentError
from iosim.kernels import load_kernel
from iosim.machine import Device
from iosim.masks import Grid, bind, parse_mask
from iosim.timing.calls import Calls, Flags, Floats, Ints
from iosim.timing.kernels import GRID
from iosim.timing.parts import Parts, smooth_max
from iosim.timing.plan import Plan, ceil_div, place
from iosim.timing.rates import Rates, rates_of
from iosim.timing.work import Work

#: instructions that the four schedulers of a core issue per clock, one per lane
ISSUE = 4 * 32.0
#: largest head size of the published figures; smaller tiles and spilled registers begin beyond it
MOST_HEAD_DIM = 128
#: rate of mma.sync over that of wgmma on Hopper: arXiv 2402.13499, dense 16-bit operands (recalled, not re-read; two
#: thirds by the authors of FlashAttention-3). From 0.6 to 0.7 the median errors carried to H100
#: go from 2.6 to 6.9 % (xFormers) and from 7.2 to 9.1 % (FlashAttention-1)
SYNC_SHARE = {"hopper": 0.629}
#: bytes per query row and element that the backward pass moves beside its tiles: O and dO read for their product
#: (2 + 2), the fp32 sums of dQ cleared, read again (4 + 4) and written in 16 bits (2)
BACKWARD_BYTES = 14.0
#: order of the smooth maximum of the items and of each tensor once through main memory, which matters for few tokens
OVERLAP = 8.0


@dataclass(frozen=True, slots=True)
class Looped:
    """How a family's tiles are chosen."""

    kernel: str
    """catalogue kernel whose tiles the forward pass has; the step of its key loop"""
    rows: int
    """rows of an item where the catalogue's tile is one step of several; 0: the tile's"""
    synchronous: bool
    """mma.sync, not wgmma"""
    backward: str = ""
    """catalogue kernel whose tiles the backward pass has; none named: the forward's, keys and queries swapped"""
    passes: tuple[str, ...] = ("forward", "backward")
    """passes that its constants speak of"""


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of calls: its items and their tiles."""

    rows: Ints
    """of an item"""
    step: Ints
    """tokens of the inner loop's step"""
    dims: Ints
    """elements that all products of one pair sum over or make: d + d_v, backward 3 d + 2 d_v"""
    suffix: str
    """of its constants: none, or _backward"""


def sustained(device: Device) -> Rates:
    """The rates of a device at its rated clock."""
    rates = rates_of(device)
    return replace(rates, clock_hz=device.clock_hz or rates.clock_hz)


def parts(looped: Looped, calls: Calls, device: Device, c: Mapping[str, float], work: Work) -> Parts:
    """Named terms of the expectation, in seconds.

    Raises:
        AbsentError: windows, unequal lengths, or a pass or dropout that the family was never fitted on.
    """
    _check(looped, calls, c, work)
    rates = sustained(device)
    made: Parts = {}
    host = 0.0
    for one in _passes(looped, calls, device, work):
        for name, value in _of_pass(looped, one, calls, device, rates, c, work).items():
            made[name] = made.get(name, 0.0) + value
        host += c.get("host" + one.suffix, 0.0) * 1e-6
    made["host_s"] = np.full(len(calls), host)  # one kernel: nothing runs while the host issues it
    return made


def _check(looped: Looped, calls: Calls, c: Mapping[str, float], work: Work) -> None:
    if calls.local.any():
        raise AbsentError("calibrated for full and causal masks only")
    if (calls.n_q != calls.n_kv).any():
        raise AbsentError("calibrated for self-attention only, as many queries as keys")
    if (np.maximum(calls.head_dim, calls.head_dim_v) > MOST_HEAD_DIM).any():
        raise AbsentError(f"calibrated for head sizes up to {MOST_HEAD_DIM} only")
    for name, wanted in (("forward", work.forward), ("backward", work.backward)):
        if wanted and name not in looped.passes:
            raise AbsentError(f"calibrated for the {looped.passes[0]} pass only")
    if work.dropout and "dropout" not in c:
        raise AbsentError("calibrated without dropout")


def _passes(looped: Looped, calls: Calls, device: Device, work: Work) -> list[Pass]:
    made = []
    rows, step = tiles(looped.kernel, calls, device)
    rows = np.full(len(calls), looped.rows) if looped.rows else rows
    if work.forward:
        whole = np.asarray(calls.n_q if work.whole_heads else rows)
        made.append(Pass(whole, step, calls.head_dim + calls.head_dim_v, ""))
    if work.backward:
        if looped.backward:
            step, rows = tiles(looped.backward, calls, device)
        whole = np.asarray(calls.n_q if work.whole_heads else rows)
        made.append(Pass(whole, step, 3 * calls.head_dim + 2 * calls.head_dim_v, "_backward"))
    return made


def tiles(kernel: str, calls: Calls, device: Device) -> tuple[Ints, Ints]:
    """(query rows, keys) of a catalogue kernel's tile for each call."""
    keys = np.stack([calls.head_dim, calls.head_dim_v, calls.causal.astype(np.int64)], axis=1)
    kinds, which = np.unique(keys, axis=0, return_inverse=True)
    found = np.array(
        [_tile(kernel, int(d), int(dv), bool(causal), device) for d, dv, causal in kinds.tolist()], np.int64
    )
    chosen = found[which.reshape(-1)]
    return chosen[:, 0], chosen[:, 1]


@lru_cache(maxsize=512)
def _tile(kernel: str, head_dim: int, head_dim_v: int, causal: bool, device: Device) -> tuple[int, int]:
    mask = bind(parse_mask("causal" if causal else "full"), Grid((2,), (2,)))
    rule = load_kernel(kernel).rule(Attention(Shape(1, 1, 1, head_dim, head_dim_v), mask), device)
    return rule.tiling.rows, rule.tiling.cols


def _of_pass(
    looped: Looped, one: Pass, calls: Calls, device: Device, rates: Rates, c: Mapping[str, float], work: Work
) -> Parts:
    """Named terms of one pass."""

    def constant(name: str) -> float:
        """A pass's own constant, or the one that both share."""
        return c.get(name + one.suffix, c.get(name, 0.0)) if name in SHARED else c.get(name + one.suffix, 0.0)

    sync = SYNC_SHARE.get(device.architecture, 1.0) if looped.synchronous else 1.0
    pairs = (one.rows * one.step).astype(float)
    matrix = 2.0 * pairs * one.dims / (rates.matrix_flop_per_clk * sync) / (constant("matrix") or 1.0)
    issued = (
        constant("instructions")
        + constant("operands") * one.dims / 256
        + (constant("dropout") if work.dropout else 0.0)
    )
    issue = (pairs * issued + constant("accumulate") * one.rows * calls.head_dim_v) / ISSUE
    crossed = np.where(calls.causal, ceil_div(np.asarray(one.rows), np.asarray(one.step)), 0)
    item = constant("item") * rates.hbm_latency_s * rates.clock_hz * calls.head_dim / 128
    item = item + constant("masked") * crossed * pairs / ISSUE
    none: Flags = np.zeros(len(calls), bool)
    ones = np.ones(len(calls), np.int64)
    plan = Plan(one.rows, one.step, ones, calls.heads, ones, none, none, ones, none)
    placed = place(plan, calls, rates, item / rates.clock_hz, (matrix + issue) / rates.clock_hz, order=GRID)
    each = placed.tiles / rates.cores / rates.clock_hz
    items_s: Floats = plan.items(calls) * item / rates.cores / rates.clock_hz
    beside = (BACKWARD_BYTES if one.suffix else 0.0) * calls.batch * calls.heads * calls.n_q * calls.head_dim
    tensors_s = (calls.qo_bytes + calls.kv_bytes) / rates.hbm_bytes_per_s
    longer_s = smooth_max(OVERLAP, placed.makespan_s, tensors_s) - placed.makespan_s
    return {
        "matrix_s": each * matrix,
        "instructions_s": each * issue,
        "items_s": items_s,
        "imbalance_s": placed.makespan_s - each * (matrix + issue) - items_s,
        "hbm_s": np.asarray(beside / rates.hbm_bytes_per_s + longer_s, np.float64),
    }


#: constants that both passes share where the data cannot tell them apart
SHARED = frozenset({"matrix", "operands", "accumulate", "item"})
