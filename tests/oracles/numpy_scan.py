"""Mamba-1's scan in float64 by following the touches of a schedule, and the same token by token."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, steps_of

from iosim.kernels.selective_scan import Scan
from iosim.schedule import Launch

Array = np.ndarray


def recurrent(data: dict[str, Array], softplus: bool, skip: bool, gated: bool) -> Array:
    """(L, P) outputs of one head, each channel and state element on its own; arrays lie (tokens, columns), A (P, N)."""
    x, c, b = data["V"], data["Q"], data["K"]
    out = np.zeros_like(x)
    for p in range(x.shape[1]):
        h = np.zeros(b.shape[1])
        for t in range(len(x)):
            step = data["delta"][t, p]
            if softplus:
                step = np.log1p(np.exp(step + data["bias"][p]))
            h = np.exp(step * data["A"][p]) * h + step * b[t] * x[t, p]
            out[t, p] = c[t] @ h + (data["D"][p] * x[t, p] if skip else 0)
            if gated:
                z = data["z"][t, p]
                out[t, p] *= z / (1 + np.exp(-z))
    return out


class Block:
    """One block of channels of one item, and what its touches have brought."""

    def __init__(self, count: Arithmetic, scan: Scan, width: int, loads: dict) -> None:
        self.count, self.scan, self.width = count, scan, width
        self.bias, self.skip = (loads[name][0][1].reshape(-1) if name in loads else None for name in ("bias", "D"))
        self.h = np.zeros((scan.states, width))

    def columns(self, loads: dict, name: str) -> Array:
        return loads[name][0][1].reshape(-1, self.width)

    def chunk(self, loads: dict) -> None:
        """Delta, Delta x and A of a chunk."""
        self.x, delta = (self.columns(loads, name) for name in ("V", "delta"))
        self.step = delta
        if self.bias is not None:
            self.step = np.log1p(self.count.exps(self.count.add(delta, self.bias)))
        self.fed = self.count.mul(self.step, self.x)
        self.a = loads["A"][0][1].reshape(self.width, self.scan.states)

    def element(self, state: int, b: Array) -> tuple[Array, Array]:
        """Decays and updates of one state element."""
        return self.count.exps(self.count.mul(self.step, self.a[:, state])), self.count.mul(b, self.fed)

    def advance(self, states: int | slice, decay: Array, update: Array) -> Array:
        self.h[states] = self.count.add(self.count.mul(decay, self.h[states]), update)
        return self.h[states]

    def finish(self, y: Array, x: Array | None) -> Array:
        return y if self.skip is None else self.count.add(y, self.count.mul(self.skip, x))

    def store(self, memory: Memory, y: Array, loads: dict, writes: list) -> None:
        """Outputs of a chunk, times SiLU(z) where there is one."""
        for touch in writes:
            memory.store(touch, 1, self.gate(y, self.z) if self.scan.gated and touch.tensor == "O" else y)

    def gate(self, y: Array, z: Array) -> Array:
        sigmoid = 1 / (1 + self.count.exps(-z))
        return self.count.mul(self.count.mul(y, z), sigmoid)


def blocks(launch: Launch, memory: Memory, scan: Scan, count: Arithmetic) -> Iterator[tuple[Block, dict, list]]:
    """(block, loads by tensor, writes) of every step; a new item has a new block."""
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            last = item
            block = Block(count, scan, scan.cut.blocks[item % len(scan.cut.blocks)][1], loads)
        if "z" in loads:
            block.z = block.columns(loads, "z")
        yield block, loads, writes


def fused(launch: Launch, memory: Memory, scan: Scan, count: Arithmetic) -> None:
    """One state element after another through the chunk, none of them in slow memory."""
    for block, loads, writes in blocks(launch, memory, scan, count):
        if "delta" in loads:
            block.chunk(loads)
            y, total, state = np.zeros_like(block.x), np.ones((scan.states, block.width)), 0
        if "K" in loads:
            decay, update = block.element(state, loads["K"][0][1])
            for t in range(len(y)):
                h = block.advance(state, decay[t], update[t])
                y[t] = count.add(y[t], count.mul(loads["Q"][0][1][t], h))
            total[state] = decay.prod(0)
            state += 1
            y = block.finish(y, block.x) if state == scan.states else y
        if writes and writes[0].tensor == "states":
            memory.store(writes[0], 1, np.stack([total.T, block.h.T], axis=-1))  # decay and state of each channel
        elif writes:
            block.store(memory, y, loads, writes)


def discretise(launch: Launch, memory: Memory, scan: Scan, count: Arithmetic) -> None:
    for block, loads, writes in blocks(launch, memory, scan, count):
        if "delta" in loads:
            block.chunk(loads)
            made = [block.element(state, b) for state, (_, b) in enumerate(loads["K"])]
        for touch in writes:
            memory.store(touch, 1, np.stack([pair[touch.tensor == "update"] for pair in made], axis=1))


def scan_states(launch: Launch, memory: Memory, scan: Scan, count: Arithmetic) -> None:
    for block, loads, writes in blocks(launch, memory, scan, count):
        if "decay" in loads:
            parts = (loads[name][0][1].reshape(-1, scan.states, block.width) for name in ("decay", "update"))
            kept = np.array(
                [block.advance(slice(None), decay, update).copy() for decay, update in zip(*parts, strict=True)]
            )
        for touch in writes:
            memory.store(touch, 1, kept)


def outputs(launch: Launch, memory: Memory, scan: Scan, count: Arithmetic) -> None:
    for block, loads, writes in blocks(launch, memory, scan, count):
        if "states" in loads:
            kept = loads["states"][0][1].reshape(-1, scan.states, block.width)
            y = np.zeros((len(kept), block.width))
            for state, (_, c) in enumerate(loads["Q"]):
                y = count.add(y, count.mul(c, kept[:, state]))
            y = block.finish(y, block.columns(loads, "V") if scan.skip else None)
        if writes:
            block.store(memory, y, loads, writes)


#: what each launch computes, by its name
RUN = {"forward": fused, "discretise": discretise, "scan": scan_states, "outputs": outputs}
