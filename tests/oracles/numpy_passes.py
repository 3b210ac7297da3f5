"""Attention as cascades of one, two and three passes, in float64 over a schedule's touches, a block of rows at a time.

Written from the cascades (FuseMax, section IV): what a pass needs of the one before comes back from the chip, from slow
memory or from K, whichever the touches bring. Shares no formula with iosim.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from oracles.numpy_kernels import Memory, Rows, masked, steps_of

from iosim.schedule import Launch

Array = np.ndarray


def shifted(scores: Array, top: Array) -> Array:
    """exp(scores - top); a maximum of nothing counts as zero."""
    return np.exp(scores - np.where(np.isneginf(top), 0, top)[..., None])


class Block:
    """What one block of queries holds: K's scores by key tile, or what the last pass made of them."""

    def __init__(self, q: Array, d_v: int, visited: int, passes: int) -> None:
        self.q, self.visited, self.passes = q, visited, passes
        self.seen = 0
        self.kept: dict[int, Array] = {}
        self.local: dict[int, Array] = {}
        self.top, self.total = np.full(len(q), -np.inf), np.zeros(len(q))
        self.acc = np.zeros((len(q), d_v))
        self.running = Rows(len(q), d_v)

    @property
    def number(self) -> int:
        """The pass that the next key tile belongs to."""
        return self.seen // self.visited + 1


def one_pass(block: Block, scores: Array, v: Array) -> None:
    block.running.add(scores, v)


def two_passes(block: Block, key: int, scores: Array | None, v: Array | None) -> Array | None:
    """First pass: local maxima, exponentials by them, local sums. Second: corrected by the global ones."""
    if block.number == 1:
        assert scores is not None
        local = scores.max(1)
        block.kept[key] = made = shifted(scores, local)
        block.local[key] = local
        top = np.maximum(block.top, local)
        safe = np.where(np.isneginf(top), 0, top)
        block.total = block.total * np.exp(block.top - safe) + made.sum(1) * np.exp(local - safe)
        block.top = top
        return made
    if scores is not None:  # formed again
        block.kept[key] = shifted(scores, block.local[key])
    safe = np.where(np.isneginf(block.top), 0, block.top)
    corrected = block.kept[key] * np.exp(block.local[key] - safe)[:, None]
    assert v is not None
    block.acc += corrected / np.where(block.total > 0, block.total, 1)[:, None] @ v
    return None


def three_passes(block: Block, key: int, scores: Array | None, v: Array | None) -> Array | None:
    """Global maximum; exponentials and their sum; division and the product with V."""
    if block.number == 1:
        assert scores is not None
        block.kept[key] = scores
        block.top = np.maximum(block.top, scores.max(1))
        return scores
    if scores is not None:
        block.kept[key] = scores
    if block.number == 2:
        block.total = block.total + shifted(block.kept[key], block.top).sum(1)
        return None
    assert v is not None
    weights = shifted(block.kept[key], block.top) / np.where(block.total > 0, block.total, 1)[:, None]
    block.acc += weights @ v
    return None


def cascade(
    launch: Launch, memory: Memory, allowed: Callable[[int], Array], d_v: int, passes: int, rows: int, cols: int,
    spills: bool,
) -> None:  # fmt: skip
    """Every item's passes. Scores that are spilled are forgotten on chip when written."""
    assert launch.program is not None
    width = launch.program.row_elements
    block: Block | None = None
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            block, last = None, item
        head, tile = divmod(item, launch.program.tiles)
        mask = allowed(head)[tile * rows : (tile + 1) * rows]
        columns = [key for key in range(0, mask.shape[1], cols) if mask[:, key : key + cols].any()]
        if "Q" in loads:
            block = Block(loads["Q"][0][1], d_v, len(columns), passes)
            continue
        results = [touch for touch in writes if touch.tensor in ("O", "LSE")]
        for touch in results:
            made = np.zeros((touch.rows, d_v)) if block is None else finished(block)
            assert touch.tensor == "O"
            memory.store(touch, width["O"], made)
        if results:
            continue
        assert block is not None
        if passes == 3 and block.number == 2 and "V" in loads:  # scores on chip: the second pass needs nothing else
            for key in columns:
                three_passes(block, key, None, None)
            block.seen += block.visited
        key = columns[block.seen % block.visited]
        seen = mask[:, key : key + cols]
        scores = masked(block.q @ loads["K"][0][1].T, seen) if "K" in loads else None
        v = loads["V"][0][1] if "V" in loads else None
        if "S" in loads:
            block.kept[key] = loads["S"][0][1].reshape(seen.shape)
        spilled = None
        if passes == 1:
            assert scores is not None
            assert v is not None
            one_pass(block, scores, v)
        else:
            spilled = (two_passes if passes == 2 else three_passes)(block, key, scores, v)
        for touch in writes:
            assert spilled is not None
            memory.store(touch, width["S"], spilled)
        if spills:
            block.kept.pop(key, None)
        block.seen += 1


def finished(block: Block) -> Array:
    return block.running.output() if block.passes == 1 else block.acc
