"""Attention, projection and a ring all-reduce over simulated devices, word for word."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.devices import Links, causal, heads_of, moved, softmax_attention
from oracles.random_calls import problem

from iosim.errors import UsageError
from iosim.link_report import LinkReport
from iosim.links import Far, Link, LinkAsked, Way, way_of


def tiled(call: object, devices: int, **settings: int) -> Way:
    written = ",".join(f"{name}={value}" for name, value in settings.items())
    return way_of(call, LinkAsked(exchange=f"tiling-allreduce:{written}".rstrip(":"), devices=devices))  # type: ignore[arg-type]


def ring_all_reduce(links: Links, summands: list[np.ndarray]) -> list[np.ndarray]:
    """Reduce-scatter, then all-gather, chunk by chunk of a flat block; every device ends with the sum."""
    count = len(summands)
    edges = [len(summands[0]) * index // count for index in range(count + 1)]
    held = [[values[a:b].copy() for a, b in pairwise(edges)] for values in summands]
    for gather in (False, True):
        for turn in range(count - 1):
            arriving = []
            for device in range(count):
                chunk = (device - turn + gather) % count
                arriving.append((chunk, links.send(device, (device + 1) % count, "sums", held[device][chunk])))
            for device in range(count):
                chunk, values = arriving[(device - 1) % count]
                held[device][chunk] = values if gather else held[device][chunk] + values
    return [np.concatenate(chunks) for chunks in held]


@given(st.sampled_from([1, 2, 3, 6, 12]), st.integers(1, 9), st.sampled_from([2, 4]), st.integers(1, 2), st.integers(1, 7),
       st.integers(1, 4), st.integers(0, 2**32 - 1))  # fmt: skip
def test_every_device_ends_with_the_projected_outputs(
    devices: int, n: int, group: int, batch: int, width: int, blocks: int, seed: int
) -> None:
    d, d_v, kv_heads = 3, 2, 6
    blocks = min(blocks, batch * n)
    heads = group * kv_heads
    made = tiled(problem(n, n, d, d_v, "causal", heads, kv_heads, batch), devices, blocks=blocks, width=width)
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(batch, heads, n, d))
    k, v = rng.normal(size=(batch, kv_heads, n, d)), rng.normal(size=(batch, kv_heads, n, d_v))
    w = heads_of(rng, heads, d_v, width)
    summands, pairs = [np.zeros((batch, n, width)) for _ in range(devices)], [0] * devices
    projected = [0] * devices
    for b in range(batch):
        for head in range(heads):
            owner = head * devices // heads
            done = softmax_attention(q[b, head], k[b, head // group], v[b, head // group], causal(n, n))
            summands[owner][b] += done @ w[head]
            pairs[owner] += int(causal(n, n).sum())
            projected[owner] += 2 * done.shape[0] * w[head].size
    wanted = sum(summands).reshape(-1, width)
    links, rows = Links(devices), batch * n
    for block in range(blocks):
        part = slice(rows * block // blocks, rows * (block + 1) // blocks)
        sums = ring_all_reduce(links, [values.reshape(-1, width)[part].reshape(-1) for values in summands])
        for values in sums:
            np.testing.assert_allclose(values.reshape(-1, width), wanted[part], rtol=1e-10, atol=1e-12)
    for device in range(devices):
        found = tuple(
            {name: count for name, count in side[device].items() if count} for side in (links.received, links.sent)
        )
        assert moved(made.traffic[device]) == found
    assert made.pairs == tuple(pairs)
    assert {made.share.beside_flop} == set(projected)
    assert made.crossing_bytes == 2 * sum(counter["sums"] for counter in links.sent)
    assert made.least_crossing_bytes is not None
    assert made.least_crossing_bytes <= made.crossing_bytes


def test_a_ring_sends_what_is_proven_best_for_adding_whole_words() -> None:
    """Patarasu and Yuan 2009: 2 (P - 1) / P S words per device; blocks change nothing."""
    call = problem(1024, 1024, 128, mask="causal", heads=32, kv_heads=8)
    for blocks in (1, 8, 64):
        made = tiled(call, 8, blocks=blocks)
        assert {t.write_elements for t in made.traffic} == {2 * 7 * 1024 * 4096 // 8}
    assert tiled(call, 8, width=1000).traffic[0].write_elements == 2 * 7 * 1024 * 1000 // 8


@given(st.integers(1, 32), st.floats(1e-6, 1), st.floats(1e-6, 1))
def test_overlap_is_that_of_a_pipeline(blocks: int, compute_s: float, link_s: float) -> None:
    """FastAttention, tiling-AllReduce: all but the first block's compute and the last block's sum run side by side."""
    made = tiled(problem(16 * blocks, 16 * blocks, 64, heads=8, kv_heads=2), 2, blocks=blocks)
    rate = made.traffic[0].write_bytes / link_s
    taken = LinkReport(made, Link("given", rate), Far("", None)).overlap(compute_s, "expected")
    assert taken is not None
    ends = [0.0, 0.0]  # of the compute and of the link, block by block
    for _ in range(blocks):
        ends[0] += compute_s / blocks
        ends[1] = max(ends) + link_s / blocks
    assert taken.overlapped_s == pytest.approx(ends[1])
    assert taken.serial_s == pytest.approx(compute_s + link_s)
    assert taken.overlapped_s >= max(compute_s, link_s) * (1 - 1e-12)


def test_what_cannot_be_tiled_is_refused() -> None:
    call = problem(16, 16, 8, heads=6, kv_heads=3)
    for devices, settings, message in (
        (2, {}, "3 heads do not divide among 2"),
        (3, {"blocks": 17}, "16 rows do not make 17 blocks"),
        (3, {"blocks": 0}, "blocks must be a whole number of at least 1"),
        (3, {"block": 2}, "has no parameter 'block'"),
    ):
        with pytest.raises(UsageError, match=message):
            tiled(call, devices, **settings)
    with pytest.raises(UsageError, match="backward"):
        tiled(problem(16, 16, 8, heads=2, kv_heads=2, phase="backward"), 2)
    with pytest.raises(UsageError, match="masks of their own"):
        tiled(problem(16, 16, 8, heads=2, kv_heads=2, mask="heads(causal;full)"), 2)
