"""Times of repeated calls on a CUDA GPU, by events on the GPU's own clock.

Before each timed call the GPU spins for longer than the processor needs to launch the call: so all of its launches wait in
the queue when the first event passes, and no gap between them is the processor's. Runs whose launches took longer all the
same, since the processor was busy elsewhere, are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: clocks of a second of spinning: no multiprocessor is faster, and a slower one only spins for longer
SPIN_HZ = 3e9
#: spin before the first calls, whose launches nobody has timed; least and most before others, as a multiple of the launches
FIRST_SPIN_S, LEAST_SPIN_S, MOST_SPIN_S, SPIN_MARGIN = 1e-3, 1e-4, 2e-2, 3.0
#: what a flush takes, about
FLUSH_S = 2e-4
FEWEST, MOST = 3, 100


@dataclass(frozen=True, slots=True)
class Repeated:
    """Calls of one kernel in one state of the last cache."""

    times_s: tuple[float, ...]
    """between events around each call"""
    host_s: float
    """that the processor took to launch a call, events included, when nothing held it up"""
    spin_s: float
    """that the GPU spun before each call, at least"""


def repeated(torch: Any, call: Callable[[], Any], flush: Callable[[], Any] | None, limit_s: float) -> Repeated:
    """Time a call over and over.

    Args:
        flush: empties the last cache before each call; runs before the spin, outside the events.
        limit_s: time that all of them may take.
    """
    first = [_timed(torch, call, flush, FIRST_SPIN_S, 1)[0] for _ in range(2)]
    host_s = min(host for _, host in first)
    spin_s = min(MOST_SPIN_S, max(LEAST_SPIN_S, SPIN_MARGIN * host_s))
    each = max(once for once, _ in first) + spin_s + (FLUSH_S if flush else 0.0)
    count = max(FEWEST, min(MOST, int(limit_s / each)))
    runs = _timed(torch, call, flush, spin_s, count)
    if all(host > spin_s for _, host in runs):  # the first two were lucky
        spin_s = min(MOST_SPIN_S, SPIN_MARGIN * max(host for _, host in runs))
        runs = _timed(torch, call, flush, spin_s, FEWEST)
    waiting = tuple(once for once, host in runs if host <= spin_s)
    return Repeated(waiting or tuple(once for once, _ in runs), host_s, spin_s)


def _timed(
    torch: Any, call: Callable[[], Any], flush: Callable[[], Any] | None, spin_s: float, runs: int
) -> list[tuple[float, float]]:
    """(seconds on the GPU, seconds that the processor took) of each run."""
    cuda, clock = torch.cuda, time.perf_counter
    events = []
    for _ in range(runs):
        if flush is not None:
            flush()
        start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        begin = clock()
        cuda._sleep(int(spin_s * SPIN_HZ))
        start.record()
        call()
        end.record()
        events.append((start, end, clock() - begin))
    cuda.synchronize()
    return [(start.elapsed_time(end) / 1e3, host) for start, end, host in events]
