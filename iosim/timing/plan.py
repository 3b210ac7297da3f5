"""How a kernel family cuts calls into work items: tiles, packed heads, splits. Arrays over calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from iosim.timing.calls import Calls, Flags, Floats, Ints
from iosim.timing.kernels import makespans
from iosim.timing.rates import Rates

FRAMEWORKS = ("none", "vllm", "sglang", "trtllm")


@dataclass(frozen=True, slots=True)
class Plan:
    """Work items of calls: batch x heads x splits x row blocks each."""

    rows: Ints
    """rows of a tile: queries, or queries x packed heads"""
    keys: Ints
    """keys of a tile"""
    packed: Ints
    """query heads packed into the rows of one item; 1: none"""
    heads: Ints
    """items' heads per sequence: key/value heads where packed, else query heads"""
    splits: Ints
    """pieces that the keys of a row block are cut into"""
    combines: Flags
    """whether the kernel that splits runs, with its combine, whatever the number of pieces"""
    by_tma: Flags
    """whether Q and O move by the tensor memory accelerator and not row by row"""
    section: Ints
    """heads that run side by side, longest row block first"""
    shifted: Flags
    """whether a row block's tiles begin at the first key of its window, and not on one grid"""

    def __getitem__(self, which: slice | Ints | Flags) -> Plan:
        return Plan(*(getattr(self, f.name)[which] for f in fields(self)))

    def blocks(self, calls: Calls) -> Ints:
        """Row blocks of one head of one sequence."""
        return ceil_div(calls.n_q * self.packed, self.rows)

    def valid_rows(self, calls: Calls) -> Ints:
        """Rows of a tile that hold queries."""
        made: Ints = np.minimum(self.rows, calls.n_q * self.packed)
        return made

    def items(self, calls: Calls) -> Ints:
        """Work items of the whole call, splits included."""
        made: Ints = calls.batch * self.heads * self.blocks(calls) * self.splits
        return made


@dataclass(frozen=True, slots=True)
class Placed:
    """Items of calls on the cores."""

    makespan_s: Floats
    """from the first start to the last end"""
    tiles: Ints
    """visited tiles of the whole call"""


def place(
    plan: Plan, calls: Calls, rates: Rates, item_s: Floats, tile_s: Floats, *, order: int,
    per_core: Ints | None = None, lone: Floats | None = None,
) -> Placed:  # fmt: skip
    """Each next free slot takes the next item in the kernel's order (Graham's list scheduling)."""
    one = np.ones(len(calls), np.int64)
    makespan, tiles = makespans(
        plan.rows, plan.keys, plan.packed, calls.n_q, calls.n_kv, calls.left, calls.causal, plan.shifted,
        calls.batch, plan.heads, plan.section, order, plan.splits, rates.cores,
        one if per_core is None else per_core, item_s, tile_s, one.astype(float) if lone is None else lone,
    )  # fmt: skip
    return Placed(makespan, tiles * calls.batch * plan.heads)


def ceil_div(a: Ints, b: Ints | int) -> Ints:
    """a / b rounded up."""
    made: Ints = -(-a // b)
    return made


def pick(head_dim: Ints, table: dict[int, int], beyond: int) -> Ints:
    """The value of the first head size in `table` that is at least as large, else `beyond`."""
    return np.select([head_dim <= size for size in table], list(table.values()), beyond).astype(np.int64)


def decode_waves(items: Ints, slots: Ints, wave_s: Callable[[Ints], Floats]) -> Floats:
    """Time of equal items: full waves at full occupancy, and the last, partly filled wave at its own rate.

    Args:
        wave_s: time of one wave when so many items run at once.
    """
    full = items // slots
    rest = items - full * slots
    return full * wave_s(slots) + np.where(rest > 0, wave_s(np.maximum(rest, 1)), 0.0)
