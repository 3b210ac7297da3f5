"""A block of a GPU without asynchronous copies, in float64: every word passes registers, shared memory is counted.

Written from the listing of a public kernel for Volta (load K, scores, softmax, load V into the same buffer, product),
with scores, probabilities and the output in shared memory. Shares no formula with iosim.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
from oracles.numpy_kernels import Memory, steps_of

from iosim.schedule import Launch

Array = np.ndarray


class Shared:
    """Shared memory of one block: named arrays, with the elements of each load and store."""

    def __init__(self) -> None:
        self.data: dict[str, Array] = {}
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.largest = 0

    def store(self, name: str, values: Array) -> None:
        self.data[name] = np.array(values, float)
        self.written[name] += self.data[name].size
        self.largest = max(self.largest, sum(array.size for array in self.data.values()))

    def load(self, name: str) -> Array:
        self.read[name] += self.data[name].size
        return self.data[name].copy()


def synchronous(launch: Launch, memory: Memory, allowed: Callable[[int], Array], d_v: int) -> Shared:
    """The forward kernel over all items; one buffer `KV` holds K, then V. Words that threads stage are not counted."""
    assert launch.program is not None
    width = launch.program.row_elements
    shared = Shared()
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            last, m, total = item, np.empty(0), np.empty(0)
            shared.data = {}
        if "Q" in loads:
            at, staged = loads["Q"][0]
            shared.store("Q", staged)
            m, total = np.full(at.rows, -np.inf), np.zeros(at.rows)
            shared.data["O"] = np.zeros((at.rows, d_v))  # cleared, not counted
        if "K" in loads:
            (key, k), (_, v) = loads["K"][0], loads["V"][0]
            shared.store("KV", k)
            seen = allowed(at.head)[at.row : at.row + at.rows, key.row : key.row + key.rows]
            shared.store("S", shared.data["Q"] @ shared.data["KV"].T)
            scores = np.where(seen, shared.load("S"), -np.inf)
            top = np.maximum(m, scores.max(1))
            safe = np.where(np.isneginf(top), 0, top)
            p, old = np.exp(scores - safe[:, None]), np.exp(m - safe)
            del shared.data["S"]  # probabilities take the place of the scores
            shared.store("P", p)
            total, m = total * old + p.sum(1), top
            shared.store("O", shared.load("O") * old[:, None])
            shared.store("KV", v)
            shared.store("O", shared.load("O") + shared.load("P") @ shared.data["KV"])
            del shared.data["P"]
        for touch in writes:
            rows = shared.data.get("O", np.zeros((touch.rows, d_v)))
            sums = total if len(total) else np.zeros(touch.rows)
            with np.errstate(divide="ignore"):
                lse = (m if len(m) else np.zeros(touch.rows)) + np.log(sums)
            made = rows / np.where(sums > 0, sums, 1)[:, None] if touch.tensor == "O" else lse
            memory.store(touch, width[touch.tensor], made)
    return shared
