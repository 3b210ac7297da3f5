"""Devices that hold arrays of their own and send copies to one another over links that count every element."""

from __future__ import annotations

from collections import Counter

import numpy as np

Array = np.ndarray


class Links:
    """Messages between devices, counted by tensor at both ends; what a device keeps costs nothing."""

    def __init__(self, devices: int) -> None:
        self.sent = [Counter() for _ in range(devices)]
        self.received = [Counter() for _ in range(devices)]

    def send(self, source: int, target: int, tensor: str, values: Array) -> Array:
        """A copy at the target."""
        if source != target:
            self.sent[source][tensor] += values.size
            self.received[target][tensor] += values.size
        return np.array(values, float)


def softmax_attention(q: Array, k: Array, v: Array, allowed: Array) -> Array:
    """(rows, keys) attention, directly."""
    scores = np.where(allowed, q @ k.T, -np.inf)
    p = np.exp(scores - scores.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True) @ v


def with_lse(q: Array, k: Array, v: Array, allowed: Array) -> tuple[Array, Array]:
    """Normalised output and log-sum-exp of each row."""
    scores = np.where(allowed, q @ k.T, -np.inf)
    top = scores.max(1)
    p = np.exp(scores - top[:, None])
    return p / p.sum(1, keepdims=True) @ v, top + np.log(p.sum(1))


def heads_of(rng: np.random.Generator, count: int, rows: int, width: int) -> Array:
    """(heads, rows, width) of random words."""
    return rng.normal(size=(count, rows, width))


def causal(n_q: int, n_kv: int) -> Array:
    """Bottom-right aligned."""
    return np.tril(np.ones((n_q, n_kv), bool), n_kv - n_q)


def moved(traffic: object) -> tuple[dict[str, int], dict[str, int]]:
    """Elements received and sent by tensor, zeros left out."""
    entries = traffic.moved  # type: ignore[attr-defined]
    return (
        {m.tensor: m.read_elements for m in entries if m.read_elements},
        {m.tensor: m.write_elements for m in entries if m.write_elements},
    )
