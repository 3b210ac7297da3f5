"""Linear attention in float64 by following the touches of a schedule, and the same by its recurrence.

Only products of matrices count as FLOP: not maps of features, decays, or what divides an output. Scores that several
blocks of value columns form again are useful once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, steps_of
from oracles.numpy_rat import Walk

from iosim.kernels.linear_parts import Chunks
from iosim.schedule import Launch

Array = np.ndarray


def feature_map(x: Array, name: str, count: Arithmetic | None = None) -> Array:
    """Rows to features."""
    if name == "hedgehog":
        exps = (count or Arithmetic()).exps
        return np.concatenate([exps(x), exps(-x)], axis=-1)
    if name == "taylor":
        square = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], x.shape[-1] ** 2) / np.sqrt(2)
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x, square], axis=-1)
    return x


def decays(g: Array | None, tokens: int, width: int, count: Arithmetic | None = None) -> Array:
    """(tokens, width) factors per token and feature from their logarithms."""
    return np.ones((tokens, width)) if g is None else np.broadcast_to((count or Arithmetic()).exps(g), (tokens, width))


def recurrent(q: Array, k: Array, v: Array, g: Array | None, causal: bool, start: Array) -> Array:
    """S_t = diag(a_t) S_{t-1} + k_t^T v_t, o_t = q_t S_t, token by token; not causal: one state for all."""
    a, state, out = decays(g, len(k), k.shape[1]), start.copy(), np.zeros((len(q), v.shape[1]))
    if not causal:
        return q @ (start + k.T @ v)
    for t in range(len(q)):
        state = a[t][:, None] * state + np.outer(k[t], v[t])
        out[t] = q[t] @ state
    return out


def delta_recurrent(q: Array, k: Array, v: Array, g: Array | None, beta: Array) -> Array:
    """S_t = a_t (I - beta_t k_t^T k_t) S_{t-1} + beta_t k_t^T v_t."""
    a, state, out = decays(g, len(k), 1), np.zeros((k.shape[1], v.shape[1])), np.zeros((len(q), v.shape[1]))
    for t in range(len(q)):
        state = a[t] * (state - beta[t] * np.outer(k[t], k[t] @ state)) + beta[t] * np.outer(k[t], v[t])
        out[t] = q[t] @ state
    return out


def _chunk_outputs(q: Array, k: Array, v: Array, a: Array, state: Array, count: Arithmetic, again: bool) -> Array:
    """Outputs of one chunk: what lies before through the state, the rest by scores, which another block has had `again`."""
    total, seen = np.cumprod(a, axis=0), np.tri(len(q), dtype=bool)
    count.tiles += 1
    before = count.product(q * total, state)
    scores = count.product(q * total, (k / total).T, np.zeros_like(seen) if again else seen)
    return before + count.weighted(np.where(seen, scores, 0), v, seen)


def _state_after(k: Array, v: Array, a: Array, state: Array, count: Arithmetic) -> Array:
    total = np.cumprod(a, axis=0)
    return total[-1][:, None] * state + count.product((k * (total[-1] / total)).T, v)


class Items:
    """The items of a launch in turn: the block of value columns and the state that each works on."""

    def __init__(self, launch: Launch, memory: Memory, cut: Chunks, name: str, count: Arithmetic) -> None:
        self.launch, self.memory, self.cut, self.name, self.count = launch, memory, cut, name, count

    def __iter__(self) -> Iterator[tuple[dict, list]]:
        last = -1
        for item, loads, writes in steps_of(self.launch, self.memory):
            self.block = item % len(self.cut.blocks)
            self.width = self.cut.blocks[self.block][1]
            if item != last:
                last, self.state = item, np.zeros((self.cut.features, self.width + self.cut.extra))
            yield loads, writes

    def features(self, loads: dict, tensor: str) -> Array:
        return feature_map(loads[tensor][0][1], self.name, self.count)

    def values(self, loads: dict, tensor: str, tokens: int) -> Array:
        """Value columns of a block, and a column of ones where sums of features are kept."""
        v = loads[tensor][0][1].reshape(tokens, self.width)
        return np.concatenate([v, np.ones((tokens, self.cut.extra))], axis=1)

    def decays(self, loads: dict, tokens: int, width: int) -> Array:
        if "g_sum" in loads:  # of one chunk
            return decays(np.diff(loads["g_sum"][0][1], axis=0, prepend=0.0), tokens, width, self.count)
        return decays(loads["g"][0][1] if "g" in loads else None, tokens, width, self.count)

    def divided(self, out: Array) -> Array:
        return out[:, : self.width] / out[:, self.width :] if self.cut.extra else out


def one_pass(launch: Launch, memory: Memory, cut: Chunks, name: str, count: Arithmetic) -> None:
    """Lightning Attention 2: the state of each item is its own."""
    at = Items(launch, memory, cut, name, count)
    for loads, writes in at:
        if "K_prefix" in loads:
            k = at.features(loads, "K_prefix")
            at.state = at.state + count.product(k.T, at.values(loads, "V_prefix", len(k)))
        if "K" in loads:
            k = at.features(loads, "K")
            v = at.values(loads, "V", len(k))
            a = at.decays(loads, len(k), cut.features)
            if "Q" in loads:
                out = _chunk_outputs(at.features(loads, "Q"), k, v, a, at.state, count, at.block > 0)
            at.state = _state_after(k, v, a, at.state, count)
        elif "Q" in loads:
            out = count.product(at.features(loads, "Q"), at.state)
        for touch in writes:
            memory.store(touch, 1, at.divided(out))


def states(launch: Launch, memory: Memory, cut: Chunks, name: str, count: Arithmetic) -> None:
    """States chunk by chunk, from K and V, or from K, W and U with corrected values written."""
    at = Items(launch, memory, cut, name, count)
    for loads, writes in at:
        if "K" in loads:
            k = at.features(loads, "K")
            v = at.values(loads, "U" if "W" in loads else "V", len(k))
            if "W" in loads:
                v = v - count.product(loads["W"][0][1], at.state)
            after = _state_after(k, v, at.decays(loads, len(k), cut.features), at.state, count)
        for touch in writes:
            memory.store(touch, 1, at.state if touch.tensor in ("states", "chunk_states") else v)
        if "K" in loads:
            at.state = after


def outputs(launch: Launch, memory: Memory, cut: Chunks, name: str, values: str, count: Arithmetic) -> None:
    """Each chunk from its own rows and the state before it."""
    at = Items(launch, memory, cut, name, count)
    for loads, writes in at:
        if loads:
            q, k = (at.features(loads, tensor) for tensor in ("Q", "K"))
            state = loads["states"][0][1].reshape(cut.features, at.width)
            a, v = at.decays(loads, len(k), cut.features), at.values(loads, values, len(k))
            out = _chunk_outputs(q, k, v, a, state, count, at.block > 0)
        for touch in writes:
            memory.store(touch, 1, out)


def prepare(launch: Launch, memory: Memory, count: Arithmetic) -> None:
    """W and U of the delta rule: T = (I + tril(diag(beta) (K K^T * decay), -1))^-1 diag(beta), on [K * total, V]."""
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            k, beta = loads["K"][0][1], loads["beta"][0][1]
            v = np.concatenate([values.reshape(len(k), -1) for _, values in loads["V"]], axis=1)
            total = np.cumprod(decays(loads["g"][0][1] if "g" in loads else None, len(k), 1, count), axis=0)
            below = np.tri(len(k), k=-1, dtype=bool)
            scores = count.product(k, k.T, below)
            t = _inverse(np.where(below, beta * scores * (total / total.T), 0), count) * beta.T
            seen = np.tri(len(k), dtype=bool)
            w, u = count.weighted(t, k * total, seen), count.weighted(t, v, seen)
        left = 0
        for touch in writes:
            if touch.tensor == "W":
                memory.store(touch, k.shape[1], w)
            else:
                width = touch.rows // len(k)
                memory.store(touch, 1, u[:, left : left + width])
                left += width


def _inverse(below: Array, count: Arithmetic) -> Array:
    """(I + A)^-1 of a strictly lower triangle A, by forward substitution."""
    found = np.eye(len(below))
    for i in range(len(below)):
        for j in range(i):
            value = -below[i, j]
            for between in range(j + 1, i):
                value -= below[i, between] * found[between, j]
                count.flop += 2
                count.executed += 2
            found[i, j] = value
    return found


def fixed_state(launch: Launch, memory: Memory, d_v: int, group: int, features: str, count: Arithmetic) -> None:
    """Decoding: the state in, token by token, the state out."""
    for _, loads, writes in steps_of(launch, memory):
        if "state" in loads:
            state = loads["state"][0][1]
        if "K" in loads:
            k = feature_map(loads["K"][0][1], features, count)
            a = decays(loads["g"][0][1] if "g" in loads else None, 1, len(state), count)
            state = a.T * state + count.product(k.T, loads["V"][0][1])
            out = count.product(feature_map(loads["Q"][0][1], features, count), state)
            assert out.shape == (group, d_v)
        for touch in writes:
            memory.store(touch, d_v, out if touch.tensor == "O" else state)


def left_product(launch: Launch, memory: Memory, allowed: Callable[[int], Array], d_v: int, count: Arithmetic) -> None:
    """Lightning Attention 1: (Q K^T, masked) V, tile by tile."""
    for _, loads, writes in steps_of(launch, memory):
        if "Q" in loads:
            at, q = loads["Q"][0]
            acc = np.zeros((at.rows, d_v))
        if "K" in loads:
            key, k = loads["K"][0]
            seen = allowed(at.head)[at.row : at.row + at.rows, key.row : key.row + key.rows]
            count.tiles += 1
            acc = acc + count.weighted(np.where(seen, count.product(q, k.T, seen), 0), loads["V"][0][1], seen)
        for touch in writes:
            memory.store(touch, d_v, acc)


def two_softmaxes(launch: Launch, memory: Memory, d_v: int, count: Arithmetic) -> None:
    """Agent attention's passes: the first tensor loaded asks, the next two are its keys and values."""
    walk = None
    for _, loads, writes in steps_of(launch, memory):
        if len(loads) == 1:
            ((_, q),) = next(iter(loads.values()))
            walk = Walk(q, d_v, count)
        elif loads:
            (_, k), (_, v) = (tensor[0] for tensor in loads.values())
            count.tiles += 1
            p = walk.add(count.product(q, k.T))
            walk.acc = walk.acc + count.weighted(p, v)
        for touch in writes:
            memory.store(touch, d_v, walk.output())
