"""Times of repeated calls as three numbers, and what else a run says of a case."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Timing:
    """Repeated calls of one kernel."""

    median_s: float
    """median"""
    p20_s: float
    """20th percentile"""
    p80_s: float
    """80th percentile"""
    runs: int
    """how many"""


@dataclass(frozen=True, slots=True)
class Measured:
    """One case."""

    times: Mapping[str, Timing]
    """by state of the last cache: warm | cold"""
    about: Mapping[str, object] = field(default_factory=dict)
    """further columns: clock, registers, error of the result"""


def timing_of(times_s: Sequence[float]) -> Timing:
    """The three numbers of some times."""
    ordered = sorted(times_s)
    last = len(ordered) - 1
    return Timing(ordered[last // 2], ordered[round(0.2 * last)], ordered[round(0.8 * last)], len(ordered))


def core_clock() -> Callable[[], float]:
    """Seconds that the calling thread has spent on a core, so that other programs' turns do not count; else seconds."""
    precise = time.get_clock_info("thread_time").resolution <= 1e-6
    return time.thread_time if precise else time.perf_counter
