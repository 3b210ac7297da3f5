"""Attention on a matrix core and a vector core that share no memory, in float64, by a schedule's touches.

The matrix core has Q, K and V and forms products; the vector core sees scores, mask entries and products only as they
come through slow memory. A masked entry is 1 in what was loaded: nothing else tells the vector core of the mask.
"""

from __future__ import annotations

import numpy as np
from oracles.numpy_kernels import Memory, steps_of

from iosim.schedule import Launch

Array = np.ndarray


def triangle(block: int) -> Array:
    """The M-mask of 2 M x 2 M: 1 above the diagonal."""
    return np.triu(np.ones((2 * block, 2 * block)), 1)


class Vector:
    """The vector core's running softmax over one Q tile."""

    def __init__(self, rows: int, d_v: int) -> None:
        self.m, self.l, self.acc = np.full(rows, -np.inf), np.zeros(rows), np.zeros((rows, d_v))
        self.old = np.zeros(rows)

    def probabilities(self, scores: Array, entries: Array) -> Array:
        shown = np.where(entries == 1, -np.inf, scores)
        top = np.maximum(self.m, shown.max(1))
        safe = np.where(np.isneginf(top), 0, top)
        self.old, made = np.exp(self.m - safe), np.exp(shown - safe[:, None])
        self.l, self.m = self.l * self.old + made.sum(1), top
        return made

    def add(self, product: Array) -> None:
        self.acc = self.acc * self.old[:, None] + product


def split_cores(launch: Launch, memory: Memory, d_v: int) -> None:
    """Every item; with nothing handed over the two cores share a buffer."""
    assert launch.program is not None
    width = launch.program.row_elements
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            last, q, vector, pending = item, None, None, None
        if "Q" in loads:
            q = loads["Q"][0][1]
            vector = Vector(len(q), d_v)
        if pending is not None and ("K" in loads or any(touch.tensor in ("O", "LSE") for touch in writes)):
            scores, v, entries, handed = pending  # this tile handed nothing over
            if not handed:
                vector.add(vector.probabilities(scores, entries) @ v)
            pending = None
        if "K" in loads:
            k = loads["K"][0][1]
            pending = (q @ k.T, loads["V"][0][1], np.zeros((len(q), len(k))), False)
        for name in ("M_mask", "mask"):
            if name in loads:
                pending = (*pending[:2], np.stack([row[1].reshape(-1) for row in loads[name]]), False)
        if "S_handed" in loads:
            scores = loads["S_handed"][0][1].reshape(pending[0].shape)
            made = vector.probabilities(scores, pending[2])
        if "P_handed" in loads:
            product = loads["P_handed"][0][1].reshape(pending[0].shape) @ pending[1]
        if "O_handed" in loads:
            vector.add(loads["O_handed"][0][1].reshape(-1, d_v))
        for touch in writes:
            if touch.tensor == "S_handed":
                pending = (*pending[:3], True)
                memory.store(touch, 1, pending[0])
            elif touch.tensor == "P_handed":
                memory.store(touch, 1, made)
            elif touch.tensor == "O_handed":
                memory.store(touch, 1, product)
            else:
                done = Vector(touch.rows, d_v) if vector is None else vector
                with np.errstate(divide="ignore"):
                    lse = done.m + np.log(done.l)
                output = done.acc / np.where(done.l > 0, done.l, 1)[:, None]
                memory.store(touch, width[touch.tensor], output if touch.tensor == "O" else lse)
