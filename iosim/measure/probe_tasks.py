"""Times the loops of a probe on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from iosim.measure import probe_kernels as kernels
from iosim.measure.aligned import aligned
from iosim.measure.clock import core_clock
from iosim.measure.probing import Task

#: elements of an array that lies in the nearest cache
NEAR = 2048
#: loads of a round
STEPS = 512
LINE_WORDS = 8  # indices of 8 bytes in the 64-byte line that a chain of loads steps over
Run = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Stopwatch:
    """Runs tasks; a meter."""

    each_s: float = 0.003
    """how long one run takes: shorter than what other programs are given at a time"""
    runs: int = 20
    """of which the best counts"""

    def __call__(self, task: Task) -> float:
        """What a task does per second."""
        parts = [_prepared(task) for _ in range(task.cores)]
        rounds = self._rounds(parts[0][0])
        best = min(self._together([run for run, _ in parts], rounds) for _ in range(self.runs))
        return sum(work for _, work in parts) * rounds / best

    def _rounds(self, run: Run) -> int:
        run(1)  # compiles, and brings the array near
        rounds = 1
        clock = core_clock()
        while True:
            start = clock()
            run(rounds)
            spent = clock() - start
            if spent >= self.each_s / 4 or rounds >= 1 << 40:
                return max(1, round(rounds * self.each_s / max(spent, 1e-9)))
            rounds *= 4

    def _together(self, runs: list[Run], rounds: int) -> float:
        """Seconds until the last core is done."""
        if len(runs) == 1:
            clock = core_clock()
            start = clock()
            runs[0](rounds)
            return clock() - start
        with ThreadPoolExecutor(len(runs)) as pool:
            list(pool.map(lambda run: run(1), runs))  # threads exist before the clock starts
            start = time.perf_counter()
            list(pool.map(lambda run: run(rounds), runs))
            return time.perf_counter() - start


def _prepared(task: Task) -> tuple[Run, float]:
    """(a loop of so many rounds, what one core does in a round)."""
    near = aligned(NEAR)
    near[:] = np.linspace(-1.0, 1.0, NEAR)
    if task.kind == "clock":
        seed, term, steps = np.uint64(0x9E3779B97F4A7C15), np.uint64(0x2545F4914F6CDD1D), 1000
        return lambda rounds: kernels.dependent(seed, term, rounds * steps), steps * kernels.DEPENDENT
    if task.kind == "fma":
        factor, addend = np.float32(0.999), np.float32(0.001)
        return lambda rounds: kernels.multiply_add(near, factor, addend, rounds), 2 * kernels.CHAIN * NEAR
    out = aligned(NEAR)
    if task.kind == "exp":
        return lambda rounds: kernels.exponentials(near, out, rounds), NEAR
    if task.kind == "exp-numpy":
        return lambda rounds: [np.exp(near, out) for _ in range(rounds)], NEAR
    each = max(1024, task.size_bytes // task.cores)
    if task.kind == "read":
        values = aligned(each // 256 * 64)  # whole lines in each quarter
        values[:] = 1.0
        return lambda rounds: kernels.stream(values, rounds), values.nbytes
    return _following(chained(max(2, each // 64))), STEPS


def _following(chain: np.ndarray) -> Run:
    """Goes on where it stopped, so that a long chain is not cut to the part that a cache holds."""
    place = 0

    def run(rounds: int) -> None:
        nonlocal place
        place = int(kernels.follow(chain, np.uint64(place), rounds * STEPS))

    return run


def chained(lines: int) -> np.ndarray:
    """Indices that lead through every line once, in random order, and back to the first."""
    order = np.random.default_rng(0).permutation(lines) * LINE_WORDS
    chain = np.zeros(lines * LINE_WORDS, np.uint64)  # an index that cannot be negative needs no test
    chain[order] = np.roll(order, -1)
    return chain
