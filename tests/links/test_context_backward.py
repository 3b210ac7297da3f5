"""Backward passes of shared sequences: gradients computed with what each device receives, against the dense ones."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles.devices import Links, causal, heads_of, moved, softmax_attention, with_lse
from oracles.random_calls import problem

from iosim.links import LinkAsked, Way, way_of
from iosim.links.least import message_bytes

Array = np.ndarray


def exchange(call: object, devices: int, name: str) -> Way:
    return way_of(call, LinkAsked(exchange=name, devices=devices))  # type: ignore[arg-type]


def tokens(shard: tuple[tuple[int, int], ...]) -> Array:
    return np.concatenate([np.arange(first, first + count) for first, count in shard])


def gradients(
    q: Array, k: Array, v: Array, out: tuple[Array, Array, Array], allowed: Array
) -> tuple[Array, Array, Array]:
    """dQ, dK, dV of some rows and keys from O, its log-sum-exp and dO of those rows."""
    o, lse, d_o = out
    p = np.where(allowed, np.exp(q @ k.T - lse[:, None]), 0)
    d_s = p * (d_o @ v.T - (d_o * o).sum(1, keepdims=True))
    return d_s @ k, d_s.T @ q, p.T @ d_o


def test_the_dense_gradients_are_those_of_differences() -> None:
    rng = np.random.default_rng(3)
    q, k, v, d_o = (rng.normal(size=(5, 3)) for _ in range(4))
    found = gradients(q, k, v, (*with_lse(q, k, v, causal(5, 5)), d_o), causal(5, 5))
    for index, gradient in enumerate(found):
        step = 1e-6 * rng.normal(size=(5, 3))
        ends = []
        for sign in (1, -1):
            inputs = [q, k, v]
            inputs[index] = inputs[index] + sign * step
            ends.append((softmax_attention(*inputs, causal(5, 5)) * d_o).sum())
        assert (ends[0] - ends[1]) / 2 == pytest.approx((gradient * step).sum(), rel=1e-4)


@given(st.integers(1, 5), st.integers(10, 20), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["ring", "zigzag"]),
       st.sampled_from(["full", "causal"]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_gradients_of_keys_come_home(devices: int, n: int, d: int, group: int, name: str, mask: str, seed: int) -> None:
    """K and V go round with the gradients so far, which end where the keys began."""
    d_v = d + 1
    made = exchange(problem(n, n, d, d_v, mask, group, 1, 1, "backward"), devices, name)
    rng, allowed = np.random.default_rng(seed), causal(n, n) if mask == "causal" else np.ones((n, n), bool)
    k, v = rng.normal(size=(n, d)), rng.normal(size=(n, d_v))
    q, d_o = heads_of(rng, group, n, d), heads_of(rng, group, n, d_v)
    out = [(*with_lse(q[h], k, v, allowed), d_o[h]) for h in range(group)]
    wanted = [gradients(q[h], k, v, out[h], allowed) for h in range(group)]
    mine, links = [tokens(shard) for shard in made.shards], Links(devices)
    d_q = [np.zeros((group, len(rows), d)) for rows in mine]
    held = [(r, k[rows], v[rows], np.zeros((len(rows), d)), np.zeros((len(rows), d_v))) for r, rows in enumerate(mine)]
    slowest = []
    for turn in range(devices):
        met = []
        for device, (block, keys, values, d_k, d_values) in enumerate(held):
            rows, seen = mine[device], allowed[np.ix_(mine[device], mine[block])]
            met.append(group * int(seen.sum()))
            for h in range(group):
                local = (out[h][0][rows], out[h][1][rows], out[h][2][rows])
                parts = gradients(q[h][rows], keys, values, local, seen)
                d_q[device][h] += parts[0]
                d_k += parts[1]
                d_values += parts[2]
        slowest.append(max(met))
        last = turn == devices - 1
        passed = []
        for device, (block, keys, values, d_k, d_values) in enumerate(held):
            target = (device + 1) % devices
            if not last:  # who gets the gradients home has the keys already
                keys, values = links.send(device, target, "K", keys), links.send(device, target, "V", values)
            grads = links.send(device, target, "dK", d_k), links.send(device, target, "dV", d_values)
            passed.append((block, keys, values, *grads))
        held = passed[-1:] + passed[:-1]
    for device, (block, _, _, d_k, d_values) in enumerate(held):
        assert block == device
        rows = mine[device]
        np.testing.assert_allclose(d_k, sum(w[1] for w in wanted)[rows], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(d_values, sum(w[2] for w in wanted)[rows], rtol=1e-8, atol=1e-10)
        for h in range(group):
            np.testing.assert_allclose(d_q[device][h], wanted[h][0][rows], rtol=1e-8, atol=1e-10)
        assert moved(made.traffic[device]) == (dict(+links.received[device]), dict(+links.sent[device]))
    assert {m.tensor: m.bits for m in made.traffic[0].moved if m.write_elements} == (
        {"K": 16, "V": 16, "dK": 32, "dV": 32} if devices > 1 else {}
    )
    busiest = made.pairs[made.device]
    assert [round(step.compute * busiest) for step in made.steps[:devices]] == slowest
    assert made.rounds == (devices + 1 if devices > 1 else 0)  # gradients are one turn behind the keys
    sizes = [len(rows) for rows in mine]
    assert sum(step.link_bytes for step in made.steps) == (
        max(sizes) * (d + d_v) * (2 * (devices - 1) + 4 * devices) if devices > 1 else 0
    )


@given(st.sampled_from([1, 2, 4, 8]), st.integers(8, 14), st.sampled_from([2, 4]), st.sampled_from([2, 4]),
       st.integers(1, 3), st.integers(0, 2**32 - 1))  # fmt: skip
def test_ulysses_returns_gradients_of_rows(devices: int, n: int, group: int, kv_heads: int, d: int, seed: int) -> None:
    """Q, K, V, O of a device's heads are there from the forward pass; dO comes, dQ, dK and dV leave.

    Devices that share a key/value head send their summands of its gradients.
    """
    heads, d_v = group * kv_heads, d + 1
    assume(heads % devices == 0)
    made = exchange(problem(n, n, d, d_v, "causal", heads, kv_heads, 1, "backward"), devices, "ulysses")
    rng, allowed = np.random.default_rng(seed), causal(n, n)
    q, k, v = heads_of(rng, heads, n, d), heads_of(rng, kv_heads, n, d), heads_of(rng, kv_heads, n, d_v)
    d_o = heads_of(rng, heads, n, d_v)
    mine, links = [tokens(shard) for shard in made.shards], Links(devices)
    sizes = {"dQ": (heads, d), "dK": (kv_heads, d), "dV": (kv_heads, d_v)}
    home = [{name: np.zeros((count, len(rows), width)) for name, (count, width) in sizes.items()} for rows in mine]
    wanted = {name: np.zeros((count, n, width)) for name, (count, width) in sizes.items()}
    for device in range(devices):
        own = range(device * heads // devices, (device + 1) * heads // devices)
        sums: dict[tuple[str, int], Array] = {}
        for head in own:
            key_head = head // group
            got = np.concatenate([links.send(s, device, "dO", d_o[head][rows]) for s, rows in enumerate(mine)])
            out = (*with_lse(q[head], k[key_head], v[key_head], allowed), got)
            parts = gradients(q[head], k[key_head], v[key_head], out, allowed)
            for name, index, part in zip(("dQ", "dK", "dV"), (head, key_head, key_head), parts, strict=True):
                sums[name, index] = sums.get((name, index), 0) + part
                wanted[name][index] += part
        for (name, index), part in sums.items():
            for target, rows in enumerate(mine):
                home[target][name][index] += links.send(device, target, name, part[rows])
    for device, rows in enumerate(mine):
        for name, array in home[device].items():
            np.testing.assert_allclose(array, wanted[name][:, rows], rtol=1e-8, atol=1e-10)
        assert moved(made.traffic[device]) == (dict(+links.received[device]), dict(+links.sent[device]))
    assert made.rounds == (2 if devices > 1 else 0)


@given(st.sampled_from(["ring", "zigzag", "ulysses"]), st.sampled_from([1, 2, 4]), st.integers(8, 30), st.integers(1, 3),
       st.sampled_from(["full", "causal"]))  # fmt: skip
def test_what_is_proven_backward_mirrors_the_forward_pass(
    name: str, devices: int, n: int, group: int, mask: str
) -> None:
    """A key that one row singles out has that row's gradient of O as its gradient of V."""
    ways = [
        exchange(problem(n, n, 16, 4, mask, 4 * group, 4, 1, phase), devices, name) for phase in ("prefill", "backward")
    ]
    forward, backward = (way.proven.least for way in ways)
    assert forward is not None
    assert backward is not None
    assert (backward.received, backward.sent) == (forward.sent, forward.received)
    for traffic, received, sent in zip(ways[1].traffic, backward.received, backward.sent, strict=True):
        assert received <= traffic.read_bytes
        assert sent <= traffic.write_bytes


def test_a_gradient_is_copied_word_for_word() -> None:
    """Three keys of a device singled out by rows elsewhere, the other rows pointing anywhere with no gradient."""
    n, codes = 8, np.array([[1 - 2 * (j >> b & 1) for b in range(3)] for j in range(8)], float)
    chosen = np.array([0, 1, 2, 3, 0, 1, 2, 3])  # rows 4 to 6 single out keys 0 to 2 of the first half
    rng = np.random.default_rng(1)
    d_o = np.zeros((n, 2))
    d_o[4:7] = rng.normal(size=(3, 2))
    q, k, v = 30 * codes[chosen], codes, rng.normal(size=(n, 2))
    allowed = causal(n, n)
    d_v = gradients(q, k, v, (*with_lse(q, k, v, allowed), d_o), allowed)[2]
    np.testing.assert_allclose(d_v[:3], d_o[4:7], rtol=1e-12)
    call = problem(n, n, 16, 2, "causal", 1, 1, 1, "backward")
    least = exchange(call, 2, "ring").proven.least
    assert least is not None
    assert least.received == (message_bytes(call, 4 * 2), 0)
