"""Which arrays of a repeated cycle of sweeps stay in an LRU cache: reuse distances array by array.

A cycle sweeps whole arrays, each from its first word to its last, in a fixed order, and repeats. The reuse distance
of every line of an array is then one number: the bytes of the distinct arrays swept since the array was, itself
included. Under LRU a sweep finds its array exactly when that number is at most the capacity (Mattson et al. 1970,
Evaluation techniques for storage hierarchies; "layer conditions" of stencil codes are the same argument).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from iosim.exact import decide


@dataclass(frozen=True, slots=True)
class Sweep:
    """One sweep over a whole array."""

    phase: str
    """what it belongs to"""
    array: str
    """which array"""
    reads: bool
    """reads it"""
    writes: bool
    """leaves it dirty"""


@dataclass(frozen=True, slots=True)
class Met:
    """How a cache meets one sweep of the repeated cycle."""

    sweep: Sweep
    """which"""
    fetched: bool
    """its array did not stay and is read from below"""
    written_back: bool
    """it leaves dirty lines that are gone before their next use"""


def meet(
    cycle: tuple[Sweep, ...], sizes: Mapping[str, int], capacity_bytes: int | None, fresh: Collection[str] = ()
) -> tuple[Met, ...]:
    """How an LRU cache meets every sweep of a cycle that repeats.

    Args:
        sizes: array -> bytes.
        capacity_bytes: of the cache; None: it holds everything.
        fresh: arrays that are others in every cycle, so that each of their sweeps is a first one.
    """
    ends = range(len(cycle))
    stays = [capacity_bytes is None or decide(_distance(cycle, at, sizes) <= capacity_bytes) for at in ends]
    return tuple(
        Met(
            sweep,
            sweep.reads and (sweep.array in fresh or not stays[at]),
            not stays[_beside(cycle, at, 1)] and _dirty(cycle, at, stays),
        )
        for at, sweep in enumerate(cycle)
    )


def _beside(cycle: tuple[Sweep, ...], at: int, step: int) -> int:
    """The next (1) or previous (-1) sweep of the same array, around the cycle."""
    other = (at + step) % len(cycle)
    while cycle[other].array != cycle[at].array:
        other = (other + step) % len(cycle)
    return other


def _distance(cycle: tuple[Sweep, ...], at: int, sizes: Mapping[str, int]) -> int:
    """Bytes of the distinct arrays swept since the sweep's array was, itself included."""
    between, other = {cycle[at].array}, (at - 1) % len(cycle)
    while cycle[other].array != cycle[at].array:
        between.add(cycle[other].array)
        other = (other - 1) % len(cycle)
    return sum(sizes[name] for name in between)


def _dirty(cycle: tuple[Sweep, ...], at: int, stays: list[bool]) -> bool:
    """Whether the array holds unwritten words after a sweep: its own, or earlier ones that it still found."""
    for _ in cycle:
        if cycle[at].writes:
            return True
        if not stays[at]:
            return False
        at = _beside(cycle, at, -1)
    return False
