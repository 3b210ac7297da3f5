"""What is proven at a link, against exhaustive counts of outcomes, a general matching, and every way that is counted."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles.random_calls import problem

from iosim.attention import Attention, Types
from iosim.links import LinkAsked, way_of
from iosim.links.least import VALUES, matched, message_bytes, projected, singles_out, tokens_received, tokens_sent
from iosim.links.sharding import parts_of
from iosim.masks import Grid, bind


def token_shards(devices: int, n: int, zigzag: bool) -> list[tuple[tuple[int, int], ...]]:
    if not zigzag:
        return [(part,) for part in parts_of(n, devices)]
    halves = parts_of(n, 2 * devices)
    return [(halves[r], halves[-1 - r]) for r in range(devices)]


def tokens(shard: tuple[tuple[int, int], ...]) -> list[int]:
    return [token for first, count in shard for token in range(first, first + count)]


def best_matching(rows: list[int], keys: list[int], group: int, causal: bool) -> int:
    """Rows (each `group` times) and keys they may single out, by Hopcroft and Karp."""
    graph = nx.Graph()
    top = [(row, head) for row in rows for head in range(group)]
    graph.add_nodes_from(top)
    graph.add_edges_from(((row, head), key) for row, head in top for key in keys if key <= row or not causal)
    return len(nx.bipartite.hopcroft_karp_matching(graph, top)) // 2


@given(st.integers(1, 4), st.integers(8, 16), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2), st.booleans(),
       st.booleans())  # fmt: skip
def test_the_matching_is_the_largest(
    devices: int, n: int, group: int, kv_heads: int, batch: int, zigzag: bool, causal: bool
) -> None:
    d_v, shards = 3, token_shards(devices, n, zigzag)
    call = problem(n, n, 8, d_v, "causal" if causal else "full", group * kv_heads, kv_heads, batch)
    for device, shard in enumerate(shards):
        own = tokens(shard)
        other = [token for index, each in enumerate(shards) if index != device for token in tokens(each)]
        for rows, keys, found in ((own, other, tokens_received), (other, own, tokens_sent)):
            words = batch * kv_heads * d_v * best_matching(rows, keys, group, causal)
            assert found(call, shard, causal) == message_bytes(call, words)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=4))
def test_nested_parts_are_matched_best(parts: list[tuple[int, int]]) -> None:
    graph = nx.Graph()
    top = [(part, row) for part, (rows, _) in enumerate(parts) for row in range(rows)]
    graph.add_nodes_from(top)
    graph.add_edges_from(((part, row), key) for part, row in top for key in range(parts[part][1]))
    best = len(nx.bipartite.hopcroft_karp_matching(graph, top)) // 2
    assert matched([rows for rows, _ in parts], [keys for _, keys in parts]) == best


@pytest.mark.parametrize(
    ("devices", "n", "d_v", "causal"), [(2, 4, 1, True), (2, 4, 2, True), (3, 4, 1, False), (2, 3, 2, False)]
)
def test_outputs_take_as_many_values_as_the_words_that_are_counted(
    devices: int, n: int, d_v: int, causal: bool
) -> None:
    """Exhaustively: queries that single keys out, and every choice of the others' values from three."""
    alphabet = (-1.0, 0.5, 2.0)
    codes = np.array(list(itertools.product((-1.0, 1.0), repeat=3)))[:n]
    shards = token_shards(devices, n, False)
    call = problem(n, n, 3, d_v, "causal" if causal else "full")
    for shard in shards:
        own = tokens(shard)
        other = [token for token in range(n) if token not in own]
        best = best_matching(own, other, 1, causal)
        seen = max(
            len(
                {
                    tuple(outputs(codes, own, chosen, other, values, d_v, causal).round(6).reshape(-1))
                    for values in itertools.product(alphabet, repeat=len(other) * d_v)
                }
            )
            for chosen in itertools.product(range(n), repeat=len(own))
        )
        assert seen == len(alphabet) ** (best * d_v)
        assert tokens_received(call, shard, causal) == message_bytes(call, best * d_v)


def outputs(
    codes: np.ndarray, own: list[int], chosen: tuple[int, ...], other: list[int], values: tuple[float, ...], d_v: int,
    causal: bool,
) -> np.ndarray:  # fmt: skip
    """Softmax attention of the device's rows, query i along the code of key `chosen[i]`; its own values are 0."""
    v = np.zeros((len(codes), d_v))
    v[other] = np.array(values).reshape(len(other), d_v)
    scores = 30 * codes[list(chosen)] @ codes.T
    if causal:
        scores[np.arange(len(codes))[None, :] > np.array(own)[:, None]] = -np.inf
    p = np.exp(scores - scores.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True) @ v


@given(st.sampled_from(["ring", "zigzag", "ulysses"]), st.sampled_from([1, 2, 4, 8]), st.integers(16, 40), st.integers(1, 3),
       st.sampled_from(["bf16", "fp16", "fp8", "fp32", "fp4"]), st.sampled_from(["full", "causal"]), st.integers(1, 3))  # fmt: skip
def test_no_way_moves_less(name: str, devices: int, n: int, group: int, dtype: str, mask: str, d_v: int) -> None:
    assume(4 * group % devices == 0)
    shape = problem(n, n, 32, d_v, mask, 4 * group, 4).shape
    call = Attention(shape, bind(mask, Grid((n,), (n,))), Types.of(dtype))
    way = way_of(call, LinkAsked(exchange=name, devices=devices))
    assert way.proven.least is not None
    for traffic, received, sent in zip(way.traffic, way.proven.least.received, way.proven.least.sent, strict=True):
        assert received <= traffic.read_bytes
        assert sent <= traffic.write_bytes


@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 4), st.integers(1, 40)
)
def test_a_projection_copies_at_most_what_its_columns_hold(
    kv_heads: int, group: int, n: int, old: int, d_v: int, width: int
) -> None:
    """Greedy over rows and heads: outputs of different heads side by side in the columns, distinct keys in each head."""
    call = problem(n, n + old, 16, d_v, "causal", group * kv_heads, kv_heads)
    for others in range(kv_heads + 1):
        words = 0
        room = [width // d_v] * n  # heads whose outputs a row has columns for
        per_head = [0] * others
        for turn in range(group):
            for head in range(others):
                for row in range(n):
                    if room[row] > 0 and per_head[head] < n + old and per_head[head] < (turn + 1) * n:
                        room[row] -= 1
                        per_head[head] += 1
                        words += d_v
        assert projected(call, others, width) <= message_bytes(call, words)


def test_messages_tell_no_more_than_their_values() -> None:
    """A word of bf16 has 65,279 finite values, so n words of messages of 16 bits tell less than n words."""
    call = problem(8, 8, 16)
    assert message_bytes(call, 0) == 0
    assert message_bytes(call, 1000) < 2000
    assert message_bytes(call, 1000) >= 1999
    for dtype, bits in (("fp32", 32), ("bf16", 16), ("fp16", 16), ("fp8", 8), ("fp6", 6), ("fp4", 4), ("int4", 4)):
        assert VALUES[dtype] <= 2**bits


def test_keys_must_differ_to_be_singled_out() -> None:
    assert singles_out(problem(8, 8, 3))
    assert not singles_out(problem(9, 9, 3))
    assert not singles_out(problem(8, 8, 8, 6, latent=True))
    assert tokens_received(problem(16, 16, 3), ((0, 8),), False) == 0
    four_bits = Attention(problem(8, 8, 23).shape, bind("full", Grid((8,), (8,))), Types.of("fp4"))
    assert not singles_out(four_bits)
