"""Attention servers: a model worker sends queries and new keys, servers keep the cache and answer."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.devices import Links, causal, moved, softmax_attention, with_lse
from oracles.numpy_kernels import Rows
from oracles.random_calls import problem

from iosim.errors import UsageError
from iosim.links import LinkAsked, Way, way_of
from iosim.links.least import message_bytes


def servers(call: object, devices: int, split: str) -> Way:
    return way_of(call, LinkAsked(exchange=f"attention-servers:split={split}", devices=devices))  # type: ignore[arg-type]


class Step:
    """One decode step of a whole batch, in float64, by servers that see nothing but their caches and messages."""

    def __init__(
        self, batch: int, kv_heads: int, group: int, new: int, cached: int, d: int, d_v: int, seed: int
    ) -> None:
        rng = np.random.default_rng(seed)
        self.q = rng.normal(size=(batch, kv_heads * group, new, d))
        self.k = rng.normal(size=(batch, kv_heads, cached + new, d))
        self.v = rng.normal(size=(batch, kv_heads, cached + new, d_v))
        self.batch, self.kv_heads, self.group, self.new, self.cached = batch, kv_heads, group, new, cached
        self.pairs: Counter[int] = Counter()

    def wanted(self, b: int, head: int) -> np.ndarray:
        keys = head // self.group
        return softmax_attention(
            self.q[b, head], self.k[b, keys], self.v[b, keys], causal(self.new, self.cached + self.new)
        )

    def new_keys(self, links: Links, worker: int, server: int, b: int, keys: int) -> tuple[np.ndarray, np.ndarray]:
        """The server's cache of one head with the new rows appended."""
        k = links.send(worker, server, "K", self.k[b, keys, self.cached :])
        v = links.send(worker, server, "V", self.v[b, keys, self.cached :])
        return np.concatenate([self.k[b, keys, : self.cached], k]), np.concatenate([self.v[b, keys, : self.cached], v])

    def whole(self, links: Links, worker: int, server: int, b: int, keys: int) -> None:
        """A server that has all keys of a head answers finally."""
        k, v = self.new_keys(links, worker, server, b, keys)
        for head in range(keys * self.group, (keys + 1) * self.group):
            q = links.send(worker, server, "Q", self.q[b, head])
            allowed = causal(self.new, self.cached + self.new)
            self.pairs[server] += int(allowed.sum())
            answer = links.send(server, worker, "O", softmax_attention(q, k, v, allowed))
            np.testing.assert_allclose(answer, self.wanted(b, head), rtol=1e-10, atol=1e-12)

    def parts(self, links: Links, count: int, b: int, keys: int) -> None:
        """Servers that have parts of the keys answer partially; the last one has the new keys."""
        worker, edges = count, [self.cached * index // count for index in range(count + 1)]
        k, v = self.new_keys(links, worker, count - 1, b, keys)
        for head in range(keys * self.group, (keys + 1) * self.group):
            merged = Rows(self.new, v.shape[1])
            for server in range(count):
                part = slice(edges[server], edges[server + 1] + (self.new if server == count - 1 else 0))
                q = links.send(worker, server, "Q", self.q[b, head])
                allowed = causal(self.new, self.cached + self.new)[:, part]
                self.pairs[server] += int(allowed.sum())
                output, lse = with_lse(q, k[part], v[part], allowed)
                merged.merge(links.send(server, worker, "O", output), links.send(server, worker, "LSE", lse))
            np.testing.assert_allclose(merged.output(), self.wanted(b, head), rtol=1e-10, atol=1e-12)


@given(st.sampled_from(["heads", "batch", "keys"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
       st.integers(3, 9), st.integers(1, 3), st.integers(0, 2**32 - 1))  # fmt: skip
def test_servers_answer_with_what_they_receive(
    split: str, devices: int, group: int, new: int, cached: int, d: int, seed: int
) -> None:
    batch, kv_heads, d_v = 4, 6, d + 1
    made = servers(
        problem(new, cached + new, d, d_v, "causal", group * kv_heads, kv_heads, batch, "decode"), devices, split
    )
    step, links = Step(batch, kv_heads, group, new, cached, d, d_v, seed), Links(devices + 1)
    owner = {"heads": lambda b, keys: keys * devices // kv_heads, "keys": None,
             "batch": lambda b, keys: next(s for s in range(devices) if b < batch * (s + 1) // devices)}[split]  # fmt: skip
    for b in range(batch):
        for keys in range(kv_heads):
            if owner is None:
                step.parts(links, devices, b, keys)
            else:
                step.whole(links, devices, owner(b, keys), b, keys)
    for server in range(devices):
        assert moved(made.traffic[server]) == (links.received[server], links.sent[server])
    assert made.crossing_bytes == sum(t.total_bytes for t in made.traffic)
    assert made.pairs == tuple(step.pairs[server] for server in range(devices))
    assert made.share.call is not None
    assert made.share.call.counts().pairs == made.pairs[made.device]
    assert made.least_crossing_bytes is not None
    assert made.least_crossing_bytes <= made.crossing_bytes


def test_a_step_moves_what_lamina_says_however_long_the_cache() -> None:
    """Lamina (arXiv 2405.01814): (2 + 2 / G) e d b bytes per layer, e bytes per word, d the hidden size, b the batch."""
    for n, batch, group in ((4096, 8, 1), (131_072, 8, 1), (131_072, 64, 4), (131_072, 64, 8)):
        made = servers(problem(1, n, 128, None, "causal", 64, 64 // group, batch, "decode"), 4, "heads")
        assert made.crossing_bytes * group == (2 * group + 2) * 2 * 8192 * batch


def test_answers_and_new_keys_are_proven() -> None:
    """By keys: what a server's cached keys can make of 2 heads' 3 rows each; the last one has new keys to keep."""
    made = servers(problem(3, 11 + 3, 16, 5, "causal", 8, 4, 2, "decode"), 3, "keys")
    call = problem(3, 14, 16, 5, "causal", 8, 4, 2, "decode")
    heads = 2 * 4
    assert made.proven.least is not None
    assert made.proven.least.sent == tuple(message_bytes(call, heads * min(2 * 3, keys) * 5) for keys in (3, 4, 4))
    assert made.proven.least.received == (0, 0, message_bytes(call, heads * 3 * 21))
    few = servers(problem(1, 14, 16, 5, "causal", 8, 4, 2, "decode"), 1, "heads").proven.least
    assert few is not None
    assert few.sent == (message_bytes(call, heads * 2 * 5),)


def test_what_servers_cannot_do_is_refused() -> None:
    call = problem(1, 64, 8, None, "causal", 8, 2, 2, "decode")
    for name, devices, message in (
        ("heads", 4, "2 heads do not divide among 4"),
        ("batch", 3, "2 sequences do not make 3 shares"),
        ("keys", 64, "63 cached keys do not make 64 shares"),
        ("hedas", 2, "unknown split 'hedas'"),
    ):
        with pytest.raises(UsageError, match=message):
            servers(call, devices, name)
    with pytest.raises(UsageError, match="counted for decode"):
        servers(problem(64, 64, 8, heads=2), 2, "heads")
    for mask in ("window:8", "causal-top-left"):
        with pytest.raises(UsageError, match="whole cache"):
            servers(problem(1, 64, 8, None, mask, 2, 2, 1, "decode"), 2, "heads")
    with pytest.raises(UsageError, match="no cache"):
        servers(problem(4, 4, 8, None, "causal", 2, 2, 1, "decode"), 2, "heads")
