"""What the speedup bounds are: counts of one head of one sequence against the unmasked problem.

The dense baseline is unmasked attention for causal masks too. Definitions follow the neighborhood
attention literature (arXiv 2504.16922, appendix B.1): `tile_speedup_worst` is what its simulator reports.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class TileBound:
    """Tiles of one way to cut the problem."""

    q_tiles: int
    """Q tiles that hold a real token"""
    kv_tiles_dense: int
    """KV tiles that a Q tile of the dense problem visits"""
    dense_tile_pairs: int
    """tile pairs of the dense problem"""
    visited_sum: int
    """KV tiles visited, summed over Q tiles"""
    visited_min: int
    """fewest KV tiles that one Q tile visits"""
    visited_max: int
    """most KV tiles that one Q tile visits"""

    @property
    def speedup_worst(self) -> float:
        """Bound when the slowest Q tile decides: all tiles run at once."""
        return self.kv_tiles_dense / self.visited_max

    @property
    def speedup_mean(self) -> float:
        """Bound when the work decides: many tiles per core, perfectly balanced."""
        return self.dense_tile_pairs / self.visited_sum


@dataclass(frozen=True, slots=True)
class MachineBound:
    """Time floors of the dense and the masked call on a device."""

    dense_time_s: float
    """time floor of the dense call"""
    sparse_time_s: float
    """time floor of the masked call"""
    permute_time_s: float = 0.0
    """time floor of permuting tokens apart from the kernel; 0: fused, or not permuted"""

    @property
    def speedup(self) -> float:
        """Bound on the device, permutation charged."""
        return self.dense_time_s / (self.sparse_time_s + self.permute_time_s)


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """A whole workload of which attention is a part: 1 / (1 - f r + f r / S)."""

    attention_share: float
    """f: attention's share of the dense workload's time"""
    step_share: float = 1.0
    """r: share of the steps that use the mask"""

    def of(self, speedup: float) -> float:
        """The workload's speedup when attention's is `speedup` (Amdahl)."""
        part = self.attention_share * self.step_share
        return 1.0 / (1.0 - part + part / speedup)


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The lowest of the bounds that hold for any kernel with these tiles."""

    speedup: float
    """upper bound on the speedup"""
    binds: str
    """mask | tiles | padding | selection | machine: the step that costs most of what the mask promises"""
    chain: tuple[tuple[str, float], ...]
    """each step with the bound after it, never rising: mask, tiles, padding, ..."""


@dataclass(frozen=True, slots=True)
class Speedup:
    """Upper bounds on the speedup of one call's mask."""

    mask: str
    """the mask in the command line's notation"""
    tiling: str
    """Q and KV tile"""
    heads: int
    """heads counted: 1, or all of them where heads have different masks"""
    qk_pairs: int
    """allowed (query, key) pairs"""
    dense_pairs: int
    """pairs of the unmasked problem"""
    q_tiles_launched: int
    """Q tiles when every dilation group is padded to the largest"""
    dense_tile_pairs_1d: int
    """tile pairs of the dense problem on row-major tokens: no padding per axis"""
    tiles: TileBound
    """KV tiles fixed in advance (static), as the tiling says"""
    dynamic: TileBound
    """KV tiles laid out from each Q tile's first key on"""
    flat: TileBound
    """tiles of as many tokens on row-major tokens, not permuted"""
    whole_tile_pairs: int
    """visited pairs that need no masking"""
    permute_bytes: int
    """traffic of permuting Q, K, V and O apart from the kernel: each read and written once; 0 if not needed"""
    selection: float = 0.0
    """time of choosing the blocks as a share of the dense time"""
    machine: MachineBound | None = None
    """the device's bound, where one was asked for"""
    end_to_end: EndToEnd | None = None
    """the workload that attention is part of, where one was given"""
    reasons: tuple[str, ...] = ()
    """why the setting is not block-sparse"""
    notes: tuple[str, ...] = ()
    """what to know before trusting the numbers"""

    @property
    def flop_speedup(self) -> float:
        """Bound by FLOP: no kernel skips more than the masked pairs."""
        return self.dense_pairs / self.qk_pairs

    @property
    def partial_tile_pairs(self) -> int:
        """Visited pairs with a masked entry."""
        return self.tiles.visited_sum - self.whole_tile_pairs

    @property
    def block_sparse(self) -> bool:
        """True when every visited pair is whole: tiles waste nothing and need no masking."""
        return self.partial_tile_pairs == 0

    @property
    def tile_speedup_vs_1d_dense(self) -> float:
        """Bound by work against a dense kernel without padding per axis: charges the padding of both tiles."""
        return self.dense_tile_pairs_1d / self.tiles.visited_sum

    @property
    def ceiling(self) -> Ceiling:
        """The lowest bound that holds for any schedule of these tiles, and what binds it."""
        steps = [("mask", self.flop_speedup), ("tiles", self.tiles.speedup_mean)]
        steps.append(("padding", self.tile_speedup_vs_1d_dense))
        chain = _falling(steps)
        if self.selection:
            chain.append(("selection", 1.0 / (1.0 / chain[-1][1] + self.selection)))
        if self.machine:
            chain = _falling([*chain, ("machine", self.machine.speedup)])
        losses = [(before[1] / after[1], after[0]) for before, after in itertools.pairwise(chain)]
        most, binds = max(losses, key=lambda loss: loss[0])
        return Ceiling(chain[-1][1], binds if most > 1.0 else "mask", tuple(chain))

    def to_dict(self) -> dict[str, Any]:
        """The keys of `iosim speedup`."""
        return {
            "mask": self.mask,
            "tile": self.tiling,
            "heads": self.heads,
            "qk_pairs": self.qk_pairs,
            "dense_pairs": self.dense_pairs,
            "flop_speedup": self.flop_speedup,
            "q_tiles": self.tiles.q_tiles,
            "q_tiles_launched": self.q_tiles_launched,
            "kv_tiles_dense": self.tiles.kv_tiles_dense,
            "dense_tile_pairs": self.tiles.dense_tile_pairs,
            "dense_tile_pairs_1d": self.dense_tile_pairs_1d,
            "visited_sum": self.tiles.visited_sum,
            "visited_min": self.tiles.visited_min,
            "visited_max": self.tiles.visited_max,
            "whole_tile_pairs": self.whole_tile_pairs,
            "partial_tile_pairs": self.partial_tile_pairs,
            "block_sparse": self.block_sparse,
            "tile_speedup_worst": self.tiles.speedup_worst,
            "tile_speedup_mean": self.tiles.speedup_mean,
            "tile_speedup_vs_1d_dense": self.tile_speedup_vs_1d_dense,
            "dynamic": {
                "visited_sum": self.dynamic.visited_sum,
                "visited_max": self.dynamic.visited_max,
                "speedup_worst": self.dynamic.speedup_worst,
            },
            "flat": {
                "visited_sum": self.flat.visited_sum,
                "visited_max": self.flat.visited_max,
                "speedup_worst": self.flat.speedup_worst,
                "speedup_mean": self.flat.speedup_mean,
            },
            "permute_bytes": self.permute_bytes,
            "selection_share": self.selection,
            "machine_speedup": self.machine.speedup if self.machine else None,
            "end_to_end": self._end_to_end(),
            "ceiling": {
                "speedup": self.ceiling.speedup,
                "binds": self.ceiling.binds,
                "chain": [{"step": step, "speedup": bound} for step, bound in self.ceiling.chain],
            },
            "reasons": list(self.reasons),
            "notes": list(self.notes),
        }

    def _end_to_end(self) -> dict[str, float] | None:
        if self.end_to_end is None:
            return None
        bounds = {
            "flop": self.flop_speedup,
            "worst": self.tiles.speedup_worst,
            "mean": self.tiles.speedup_mean,
            "ceiling": self.ceiling.speedup,
        }
        shares = {"attention_share": self.end_to_end.attention_share, "step_share": self.end_to_end.step_share}
        return shares | {name: self.end_to_end.of(bound) for name, bound in bounds.items()}


def _falling(steps: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """Each step's bound, or the lowest before it where it does not bind."""
    chain: list[tuple[str, float]] = []
    for step, bound in steps:
        chain.append((step, min(bound, chain[-1][1]) if chain else bound))
    return chain
