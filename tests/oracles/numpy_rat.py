"""RAT in float64 by following the touches of a schedule, and the same token by token."""

from __future__ import annotations

import numpy as np
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, steps_of

from iosim.kernels.rat import Recurrent
from iosim.schedule import Launch

Array = np.ndarray


def states(x: Array, g: Array, chunk: int) -> Array:
    """x~_t = g_t x~_{t-1} + (1 - g_t) x_t, from nothing in every chunk."""
    found = np.zeros_like(x)
    for t in range(len(x)):
        before = found[t - 1] if t % chunk else 0
        found[t] = g[t, : x.shape[1]] * before + (1 - g[t, : x.shape[1]]) * x[t]
    return found


def direct(q: Array, k: Array, v: Array, g: Array, chunk: int) -> Array:
    """Softmax over the last states of the chunks before a token's own and its own state."""
    keys, values = states(k, g, chunk), states(v, g, chunk)
    out = np.zeros((len(q), v.shape[1]))
    for t in range(len(q)):
        seen = [(c + 1) * chunk - 1 for c in range(t // chunk)] + [t]
        p = np.exp(keys[seen] @ q[t])
        out[t] = p @ values[seen] / p.sum()
    return out


def recurrence(launch: Launch, memory: Memory, made: Recurrent, count: Arithmetic) -> None:
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            g = loads["g"][0][1]
            kept = count.add(1.0, -g)
            found = {name: _run(loads[name][0][1], g, kept, count) for name in ("K", "V")}
        for touch in writes:
            memory.store(touch, found[touch.tensor[0]].shape[1], found[touch.tensor[0]])


def _run(x: Array, g: Array, kept: Array, count: Arithmetic) -> Array:
    width, last = x.shape[1], None
    rows = []
    for t in range(len(x)):
        new = count.mul(kept[t, :width], x[t])
        last = new if last is None else count.add(count.mul(g[t, :width], last), new)
        rows.append(last)
    return np.array(rows)


class Walk:
    """Running softmax of the rows of one Q tile."""

    def __init__(self, q: Array, d_v: int, count: Arithmetic) -> None:
        self.q, self.count = q, count
        self.m, self.l = np.full(len(q), -np.inf), np.zeros(len(q))
        self.acc = np.zeros((len(q), d_v))

    def add(self, scores: Array) -> Array:
        """Weights of new scores after all others were corrected; scores are -inf where nothing is seen."""
        top = np.maximum(self.m, scores.max(1))
        safe = np.where(np.isneginf(top), 0, top)
        old, p = self.count.rescales(self.m - safe), self.count.exps(scores - safe[:, None])
        self.l, self.acc, self.m = self.l * old + p.sum(1), self.acc * old[:, None], top
        return p

    def output(self) -> Array:
        return self.acc / np.where(self.l > 0, self.l, 1)[:, None]


def own_state(walk: Walk, k: Array, v: Array, count: Arithmetic) -> None:
    """Each row with its own key and value."""
    scores = np.zeros(len(k))
    for element in range(k.shape[1]):
        scores = count.add(scores, count.mul(walk.q[:, element], k[:, element]))
    p = walk.add(scores[:, None])
    walk.acc = count.add(walk.acc, count.mul(p, v))


def across(launch: Launch, memory: Memory, made: Recurrent, count: Arithmetic) -> None:
    """Tiles of single summary rows, then the rows' own states where the kernel is fused."""
    for item, loads, writes in steps_of(launch, memory):
        if "Q" in loads:
            at, q = loads["Q"][0]
            walk, first = Walk(q, made.cut.problem.shape.head_dim_v, count), 0
            left = len(made.visited(made.q_tiles[item % len(made.q_tiles)]))
        elif loads:
            k, v = (np.concatenate([rows for _, rows in loads[name]]) for name in ("K_state", "V_state"))
            if left:
                count.tiles += 1
                seen = (at.row + np.arange(at.rows))[:, None] // made.chunk > first + np.arange(len(k))
                p = walk.add(np.where(seen, count.product(q, k.T, seen), -np.inf))
                walk.acc = walk.acc + count.weighted(p, v, seen)
                first, left = first + len(k), left - 1
            else:
                own_state(walk, k, v, count)
        for touch in writes:
            with np.errstate(divide="ignore"):
                value = walk.m + np.log(walk.l) if touch.tensor == "LSE" else walk.output()
            memory.store(touch, 1 if touch.tensor == "LSE" else walk.acc.shape[1], value)


def merge(launch: Launch, memory: Memory, made: Recurrent, count: Arithmetic) -> None:
    """A token's own value and what it got from the chunks before, by their log-sum-exps."""
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            q, k, v, before, lse = (loads[name][0][1] for name in ("Q", "K_state", "V_state", "O_across", "LSE"))
            score = np.zeros(len(q))
            for element in range(q.shape[1]):
                score = count.add(score, count.mul(q[:, element], k[:, element]))
            top = np.maximum(score, lse[:, 0])
            own, old = count.exps(score - top), count.rescales(lse[:, 0] - top)
            total = own + old
            out = count.add(count.mul(before, (old / total)[:, None]), count.mul(v, (own / total)[:, None]))
        for touch in writes:
            memory.store(touch, out.shape[1], out)


#: what each launch computes, by its name
RUN = {"recurrence": recurrence, "across": across, "merge": merge}


def step(launch: Launch, memory: Memory, first: int, chunk: int, group: int, count: Arithmetic) -> None:
    """New tokens from `first` on: rows of all query heads walk the summaries in the cache, then the states on chip."""
    for _, loads, writes in steps_of(launch, memory):
        if "Q" in loads:
            q, g = loads["Q"][0][1], loads["g"][0][1]
            kept, made = count.add(1.0, -g), {}
            for name in ("K", "V"):
                x, last = loads[name][0][1], loads[f"{name}_state"][0][1][0] if f"{name}_state" in loads else None
                made[name] = []
                for t in range(len(x)):
                    new = count.mul(kept[t, : x.shape[1]], x[t])
                    inside = (first + t) % chunk != 0
                    last = count.add(count.mul(g[t, : x.shape[1]], last), new) if inside else new
                    made[name].append(last)
            walk = Walk(q, len(made["V"][0]), count)
        if "K_summary" in loads:
            k, v = loads["K_summary"][0][1], loads["V_summary"][0][1]
            count.tiles += 1
            p = walk.add(count.product(q, k.T))
            walk.acc = walk.acc + count.weighted(p, v)
        if not loads:
            tokens = first + np.arange(len(made["K"]))
            done = [t for t in range(len(tokens)) if (tokens[t] + 1) % chunk == 0]
            _on_chip(walk, made, tokens, done, chunk, group)
        for touch in writes:
            own = made[touch.tensor[0]] if touch.tensor != "O" else walk.output()
            rows = {"O": own, "summary": [own[t] for t in done], "out": own[-1:]}[touch.tensor.split("_")[-1]]
            memory.store(touch, len(rows[0]), np.array(rows))


def _on_chip(walk: Walk, made: dict, tokens: Array, done: list[int], chunk: int, group: int) -> None:
    """Each new token's own state, and the summaries that new tokens before it have completed."""
    count, rows = walk.count, len(walk.q)
    seen = [
        [*(t for t in done if tokens[t] // chunk < tokens[row // group] // chunk), row // group] for row in range(rows)
    ]
    scores = np.full((rows, max(map(len, seen))), -np.inf)
    for row, states in enumerate(seen):
        scores[row, : len(states)] = count.product(walk.q[row : row + 1], np.array([made["K"][t] for t in states]).T)[0]
    before = count.exp
    p = walk.add(scores)
    count.exp = before + sum(map(len, seen))  # padding is of this program, not of the kernel
    for row, states in enumerate(seen):
        values = np.array([made["V"][t] for t in states])
        walk.acc[row] += count.weighted(p[row : row + 1, : len(states)], values)[0]
