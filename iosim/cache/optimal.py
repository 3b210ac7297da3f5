"""Optimal replacement: Belady's MIN, which must insert, and its variant that may bypass. Two names, two numbers.

`opt`: every access leaves its line in the cache (Belady, IBM Systems Journal 5(2), 1966).
`opt-bypass`: an access may leave the cache as it is, the least traffic any policy can have. For reads,
bypass(C) <= MIN(C) <= bypass(C - 1).

Both minimise misses. Write-backs are those of the schedule found, which evicts the line used next the latest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iosim.cache.counts import CacheCounts
from iosim.cache.future import Future
from iosim.cache.histogram import Counts, DistanceHistogram
from iosim.cache.replays import checked_capacity
from iosim.cache.timeline import Timeline
from iosim.errors import UsageError
from iosim.trace.accesses import Accesses
from iosim.trace.dense import DIRECT_LIMIT
from iosim.trace.touches import Int64

#: levels of the set of next uses: 64^6 accesses
LEVELS = 6


class OptReplay:
    """Optimal replacement at one capacity.

    The future must be known, so the trace is spooled (`iosim.cache.future`) and replayed by `finish`.

    Args:
        capacity_lines: lines that the cache holds, at least 1.
        bypass: an access need not leave its line in the cache.
        direct_limit: see `DenseIds`.
    Raises:
        UsageError: a capacity below one line.
    """

    def __init__(self, capacity_lines: int, bypass: bool = False, direct_limit: int = DIRECT_LIMIT) -> None:
        self._capacity = checked_capacity(capacity_lines)
        self._bypass = bypass
        self._future = Future(direct_limit)
        self._counts: CacheCounts | None = None

    def feed(self, chunk: Accesses) -> None:
        """Take in the next accesses.

        Raises:
            UsageError: `finish` was called already.
        """
        if self._counts is not None:
            raise UsageError("the trace was replayed already", "opt", "feed everything before finishing")
        self._future.feed(chunk)

    def finish(self) -> CacheCounts:
        """Replay everything, give the counts and drop the trace."""
        if self._counts is None:
            self._counts = opt_counts(self._future, self._capacity, self._bypass)
            self._future.close()
        return self._counts


def opt_counts(future: Future, capacity_lines: int, bypass: bool = False) -> CacheCounts:
    """Counts of optimal replacement at one capacity, for a trace that was collected."""
    from iosim.cache.kernels.optimal import opt

    state = np.zeros(10, np.int64)
    uses, dirty = Timeline(future.accesses), Timeline(future.accesses)
    levels = (uses.words, *_summaries(uses.words.size))
    used = 1 + sum(level.size > 1 for level in levels)
    for gaps, flags in future.gaps_and_flags():
        opt(gaps, flags, levels, used, dirty.words, state, min(capacity_lines, 1 << 62), bypass)
        for timeline in (uses, dirty):
            timeline.forget_before(int(state[0]))
    misses, unfetched, write_backs = (int(value) for value in state[4:7])
    return CacheCounts(
        policy="opt-bypass" if bypass else "opt",
        capacity_lines=capacity_lines,
        accesses=future.accesses,
        misses=misses,
        fills=misses - unfetched,
        write_backs=write_backs,
        dirty_at_end=int(state[3]),
        distinct_lines=future.distinct_lines,
    )


def opt_sweep(future: Future, capacities: Iterable[int], bypass: bool = False) -> tuple[CacheCounts, ...]:
    """Counts at several capacities; the next uses are worked out once.

    Quicker than `opt_curve` below some ten capacities on tiled traces, some two hundred on irregular ones.
    """
    return tuple(opt_counts(future, checked_capacity(capacity), bypass) for capacity in capacities)


@dataclass(frozen=True, eq=False)
class OptCurve:
    """Exact counts of MIN (which must insert) at every capacity."""

    accesses: int
    """line accesses"""
    distinct_lines: int
    """different lines: the cold misses"""
    cold_unfetched: int
    """cold misses that fetch nothing: writes of whole lines"""
    ending_dirty: int
    """lines that end dirty, in the cache or written back"""
    reuses: DistanceHistogram
    """places on the priority stack of all accesses but cold ones"""
    unfetched: DistanceHistogram
    """those of accesses that fetch nothing on a miss"""
    evictions: DistanceHistogram
    """deepest place after a write and up to the next write of the line, or its last use"""
    copies: int = 1
    """how many such traces ran one after another, on lines of their own"""
    method: str = "lines, one pass"
    """how it was found"""

    def misses(self, capacities: NDArray[np.int64]) -> Counts:
        """Misses at each capacity in lines, as exact ints."""
        return (self.distinct_lines + self.reuses.at_least(capacities)) * self.copies

    def fills(self, capacities: NDArray[np.int64]) -> Counts:
        """Lines fetched from below at each capacity."""
        unfetched: Counts = self.cold_unfetched + self.unfetched.at_least(capacities)
        fills: Counts = self.misses(capacities) - unfetched * self.copies
        return fills

    def write_backs_with_flush(self, capacities: NDArray[np.int64]) -> Counts:
        """Lines written below when the cache is flushed at the end, at each capacity."""
        return (self.evictions.at_least(capacities) + self.ending_dirty) * self.copies

    def capacities(self) -> Int64:
        """The capacities at which traffic changes, from 1 up: each value holds until the next."""
        steps = np.concatenate([h.steps() for h in (self.reuses, self.unfetched, self.evictions)])
        return np.unique(np.append(steps[steps > 1], 1))


def opt_curve(future: Future) -> OptCurve:
    """MIN at every capacity in one pass over a trace that was collected.

    The work per access grows with the maxima among the next uses above it on the stack: 2 on tiled
    attention, 10 on a naive matrix product, 100 on Zipf, more where the items of many cores take turns.
    """
    from iosim.cache.kernels.optimal import opt_stack

    size = future.ids
    depth, largest = np.zeros(size, np.int64), np.zeros(size, np.int64)
    stack = np.zeros(size + 1, np.int64)
    tree = np.full(2 << size.bit_length(), -1, np.int64)
    reuses, unfetched, evictions = (np.zeros(size + 1, np.int64) for _ in range(3))
    state = np.zeros(3, np.int64)
    for ids, gaps, flags in future.chunks():
        opt_stack(ids, gaps, flags, depth, largest, stack, tree, reuses, unfetched, evictions, state)
    return OptCurve(
        accesses=future.accesses,
        distinct_lines=int(state[1]),
        cold_unfetched=int(state[2]),
        ending_dirty=int(np.count_nonzero((depth > 0) & (largest > -2))),
        reuses=DistanceHistogram.dense(reuses),
        unfetched=DistanceHistogram.dense(unfetched),
        evictions=DistanceHistogram.dense(evictions),
    )


def _summaries(words: int) -> tuple[NDArray[np.uint64], ...]:
    """Empty summary levels over so many words; the last one in use is a single word."""
    levels = []
    for _ in range(LEVELS - 1):
        words = (words + 63) // 64
        levels.append(np.zeros(words, np.uint64))
    return tuple(levels)
