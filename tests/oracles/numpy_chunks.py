"""Launches of released chunk kernels in float64 by following their touches: sums of gates, scores, states passed on."""

from __future__ import annotations

import numpy as np
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, steps_of
from oracles.numpy_linear import Items, outputs, states

from iosim.kernels.blocks import strips
from iosim.kernels.linear_parts import Chunks
from iosim.schedule import Launch

Array = np.ndarray


def run(launch: Launch, memory: Memory, cut: Chunks, kind: str, size: int, count: Arithmetic) -> None:
    """One launch by its name; `kind` and `size` of scores in memory."""
    if launch.name == "cumsum":
        cumsum(launch, memory, cut)
    elif launch.name == "states":
        states(launch, memory, cut, "identity", count)
    elif launch.name == "pass":
        passed(launch, memory, cut, count)
    elif launch.name == "scores":
        (lower if kind == "lower" else whole)(launch, memory, cut, count)
    elif kind == "none":
        outputs(launch, memory, cut, "identity", "V", count)
    else:
        (applied if kind == "lower" else scanned)(launch, memory, cut, size, count)


def room_for_scores(memory: Memory, cut: Chunks) -> None:
    """Memory that nobody has written: NaN."""
    words = -(-cut.problem.n_kv // cut.chunk) * cut.chunk**2
    memory.put("scores", np.full((cut.heads, words), np.nan))


def cumsum(launch: Launch, memory: Memory, cut: Chunks) -> None:
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            summed = np.cumsum(loads["g"][0][1], axis=0)
        for touch in writes:
            memory.store(touch, cut.gate, summed)


def passed(launch: Launch, memory: Memory, cut: Chunks, count: Arithmetic) -> None:
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        width = cut.blocks[item % len(cut.blocks)][1]
        if item != last:
            last, kept = item, np.zeros((cut.features, width))
        if "chunk_states" in loads:
            decay = count.exps(loads["g_sum"][0][1]).T if "g_sum" in loads else 1
            kept = decay * kept + loads["chunk_states"][0][1].reshape(cut.features, width)
        for touch in writes:
            memory.store(touch, 1, kept)


def lower(launch: Launch, memory: Memory, cut: Chunks, count: Arithmetic) -> None:
    """Blocks below the diagonal relative to the decay at their first row; those on it element by element."""
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            (own, q), (other, k) = loads["Q"][0], loads["K"][0]
            sums = [values for _, values in loads.get("g_sum", loads.get("g", []))]
            made = _diagonal(q, k, sums, count) if own.row == other.row else _below(q, k, sums, count)
        for touch in writes:
            memory.store(touch, 1, made)


def _below(q: Array, k: Array, sums: list[Array], count: Arithmetic) -> Array:
    if sums:
        rows, keys, first = sums
        q, k = q * count.exps(rows - first), k * count.exps(first - keys)
    return count.product(q, k.T)


def _diagonal(q: Array, k: Array, sums: list[Array], count: Arithmetic) -> Array:
    seen = np.tri(len(q), dtype=bool)
    if not sums:
        return np.where(seen, count.product(q, k.T, seen), 0)
    made = np.zeros((len(q), len(k)))
    for j in range(len(k)):
        column = q * count.exps(sums[0] - sums[1][j])
        made[:, j] = count.product(column, k[j][:, None], seen[:, j : j + 1])[:, 0]
    return np.where(seen, made, 0)


def whole(launch: Launch, memory: Memory, cut: Chunks, count: Arithmetic) -> None:
    """Without decays; useful are those at or below the diagonal."""
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            (own, q), (other, k) = loads["Q"][0], loads["K"][0]
            seen = own.row + np.arange(len(q))[:, None] >= other.row + np.arange(len(k))
            made = count.product(q, k.T, seen)
        for touch in writes:
            memory.store(touch, 1, made)


def _scores(flat: Array, rows: int, columns: int, size: int, stride: int) -> Array:
    """Blocks of scores back in their places; `stride` columns of room in each strip of rows."""
    made = np.full((rows, columns), np.nan)
    for first, height in strips(rows, size):
        for left, width in strips(columns, size):
            at = first * stride + height * left
            made[first : first + height, left : left + width] = flat[at : at + height * width].reshape(height, width)
    return made


def applied(launch: Launch, memory: Memory, cut: Chunks, size: int, count: Arithmetic) -> None:
    at = Items(launch, memory, cut, "identity", count)
    for loads, writes in at:
        if "Q" in loads:
            q, gates = loads["Q"][0][1], loads.get("g_sum", loads.get("g"))
            q = q * count.exps(gates[0][1]) if gates else q
            out = count.product(q, loads["states"][0][1].reshape(cut.features, at.width))
        if "scores" in loads:
            count.tiles += 1
            seen = np.tri(len(q), dtype=bool)
            formed = _scores(loads["scores"][0][1].reshape(-1), len(q), len(q), size, cut.chunk)
            out = out + count.weighted(np.where(seen, formed, 0), loads["V"][0][1].reshape(-1, at.width), seen)
        for touch in writes:
            memory.store(touch, 1, out)


def scanned(launch: Launch, memory: Memory, cut: Chunks, size: int, count: Arithmetic) -> None:
    at = Items(launch, memory, cut, "identity", count)
    for loads, writes in at:
        if "Q" in loads:
            q, own = loads["Q"][0][1], loads.get("g_sum")
            out = count.product(q, loads["states"][0][1].reshape(cut.features, at.width))
            out = out * count.exps(own[0][1]) if own else out
        if "scores" in loads:
            count.tiles += 1
            v = loads["V"][0][1].reshape(-1, at.width)
            formed = np.full((len(q), len(v)), np.nan)
            for left, width in strips(len(v), size):
                block = loads["scores"][0][1].reshape(-1)[len(q) * left : len(q) * (left + width)]
                formed[:, left : left + width] = block.reshape(len(q), width)
            if own:
                formed = formed * count.exps(own[0][1] - loads["g_sum"][0][1].T)
            seen = len(v) - len(q) + np.arange(len(q))[:, None] >= np.arange(len(v))
            out = out + count.weighted(np.where(seen, formed, 0), v, seen)
        for touch in writes:
            memory.store(touch, 1, out)
