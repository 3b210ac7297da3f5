"""Tokens shared out: messages against a simulation that computes attention with what each device receives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from oracles.devices import Links, causal, heads_of, moved, softmax_attention
from oracles.numpy_kernels import Rows, masked
from oracles.random_calls import problem

from iosim.errors import UsageError
from iosim.links import EXCHANGES, LinkAsked, Way, way_of
from iosim.masks import parse_tile


def exchange(call: object, devices: int, name: str) -> Way:
    return way_of(call, LinkAsked(exchange=name, devices=devices))  # type: ignore[arg-type]


def tokens(shard: tuple[tuple[int, int], ...]) -> np.ndarray:
    return np.concatenate([np.arange(first, first + count) for first, count in shard])


def without_zeros(counter: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in counter.items() if count}


@given(st.integers(1, 5), st.integers(10, 23), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["ring", "zigzag"]),
       st.sampled_from(["full", "causal"]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_a_ring_computes_attention_with_what_it_receives(
    devices: int, n: int, d: int, d_v: int, name: str, mask: str, seed: int
) -> None:
    """Blocks go round once; each device merges the parts and ends with its own rows."""
    made = exchange(problem(n, n, d, d_v, mask), devices, name)
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=(n, d_v))
    allowed = np.tril(np.ones((n, n), bool)) if mask == "causal" else np.ones((n, n), bool)
    mine = [tokens(shard) for shard in made.shards]
    assert sorted(np.concatenate(mine)) == list(range(n))
    links, states, pairs = Links(devices), [Rows(len(rows), d_v) for rows in mine], [0] * devices
    held = [(rows, k[rows], v[rows]) for rows in mine]
    slowest = []
    for turn in range(devices):
        met = []
        for device, (block, keys, values) in enumerate(held):
            seen = allowed[np.ix_(mine[device], block)]
            met.append(int(seen.sum()))
            pairs[device] += met[-1]
            states[device].add(masked(q[mine[device]] @ keys.T, seen), values)
        slowest.append(max(met))
        if turn < devices - 1:
            passed = [
                (block, links.send(device, (device + 1) % devices, "K", keys),
                 links.send(device, (device + 1) % devices, "V", values))
                for device, (block, keys, values) in enumerate(held)
            ]  # fmt: skip
            held = passed[-1:] + passed[:-1]
    wanted = softmax_attention(q, k, v, allowed)
    for device, rows in enumerate(mine):
        np.testing.assert_allclose(states[device].output(), wanted[rows], rtol=1e-10, atol=1e-12)
        assert moved(made.traffic[device]) == (without_zeros(links.received[device]), without_zeros(links.sent[device]))
    assert made.rounds == devices - 1
    assert made.pairs == tuple(pairs)
    busiest = pairs[made.device]
    assert [round(step.compute * busiest) for step in made.steps] == slowest
    assert made.share.call is not None
    assert made.share.call.counts().pairs == busiest


@given(st.integers(1, 5), st.integers(10, 40), st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_the_share_of_a_zigzag_visits_the_tiles_of_its_rows(
    devices: int, n: int, rows: int, cols: int, group: int
) -> None:
    """The mask of one device's rows, cut into tiles, against the rows of the whole causal matrix."""
    made = exchange(problem(n, n, 2, mask="causal", heads=group), devices, "zigzag")
    assert made.share.call is not None
    mask = made.share.call.mask
    mine = tokens(made.shards[made.device])
    seen = causal(n, n)[mine][:, : mask.n_kv]
    q, kv = np.ogrid[: mask.n_q, : mask.n_kv]
    assert (mask.allowed(q, kv) == seen).all()
    assert seen.sum() == causal(n, n)[mine].sum()
    sums = mask.sums(parse_tile(f"{rows}x{cols}"))
    visited = [
        (min(i + rows, len(mine)) - i, min(j + cols, mask.n_kv) - j)
        for i in range(0, len(mine), rows)
        for j in range(0, mask.n_kv, cols)
        if seen[i : i + rows, j : j + cols].any()
    ]
    assert sums.tile_pairs == len(visited)
    assert sums.key_rows == sum(width for _, width in visited)


def test_zigzag_evens_out_a_causal_mask() -> None:
    """Eight devices: contiguous shards leave the last with 15/8 of the mean, zigzag with exactly the mean."""
    asked = problem(8192, 8192, 128, mask="causal", heads=8, kv_heads=8)
    assert exchange(asked, 8, "ring").imbalance == pytest.approx(15 / 8, rel=1e-3)
    assert exchange(asked, 8, "zigzag").imbalance == 1
    assert exchange(asked, 8, "ring").traffic[0].write_bytes == 7 * 1024 * 8 * 256 * 2


def test_rings_hide_their_messages_from_a_block_size_on() -> None:
    """Ring Attention, section 3: a round hides its message when a block has at least FLOP/s over B/s tokens.

    Table 2 has the least sequence of six such blocks in thousands: A100 over NVLink and InfiniBand, TPU v3, v4, v5e.
    """
    for tflop_per_s, gigabytes_per_s, thousands in (
        (312, 300, 6.2), (312, 12.5, 149.5), (123, 112, 6.6), (275, 268, 6.2), (196, 186, 6.3),
    ):  # fmt: skip
        flop_per_s, bytes_per_s = 1e12 * tflop_per_s, 1e9 * gigabytes_per_s
        least = flop_per_s / bytes_per_s
        assert 6 * least / 1000 == pytest.approx(thousands, rel=0.01)
        for block, hidden in ((math.ceil(least) - 1, False), (math.ceil(least), True)):
            made = exchange(problem(4 * block, 4 * block, 64, heads=2, kv_heads=2), 4, "ring")
            assert made.share.call is not None
            compute_s = made.share.call.flop() / flop_per_s
            for step in made.steps[:-1]:
                assert (step.compute * compute_s >= step.link_bytes / bytes_per_s) is hidden


@given(st.sampled_from([1, 2, 4, 8]), st.integers(8, 20), st.sampled_from([2, 4]), st.sampled_from([2, 4]),
       st.integers(1, 3), st.sampled_from(["full", "causal"]), st.integers(0, 2**32 - 1))  # fmt: skip
def test_ulysses_computes_whole_heads_and_returns_rows(
    devices: int, n: int, group: int, kv_heads: int, d: int, mask: str, seed: int
) -> None:
    """Devices beyond the key/value heads share them, several to a head."""
    assume(group * kv_heads % devices == 0)
    d_v = d + 1
    heads = group * kv_heads
    made = exchange(problem(n, n, d, d_v, mask, heads, kv_heads), devices, "ulysses")
    rng = np.random.default_rng(seed)
    whole = {"Q": heads_of(rng, heads, n, d), "K": heads_of(rng, kv_heads, n, d), "V": heads_of(rng, kv_heads, n, d_v)}
    allowed = causal(n, n) if mask == "causal" else np.ones((n, n), bool)
    links, mine = Links(devices), [tokens(shard) for shard in made.shards]

    def own(tensor: str, device: int) -> slice:
        count = len(whole[tensor])
        first = device * count // devices
        return slice(first, first + max(1, count // devices))

    outputs = [np.full((heads, len(rows), d_v), np.nan) for rows in mine]
    pairs = 0
    for device in range(devices):
        got = {
            name: np.concatenate(
                [links.send(other, device, name, array[own(name, device)][:, mine[other]]) for other in range(devices)],
                axis=1,
            )
            for name, array in whole.items()
        }
        for index in range(heads // devices):
            key_head = (device * heads // devices + index) // group - device * kv_heads // devices
            done = softmax_attention(got["Q"][index], got["K"][key_head], got["V"][key_head], allowed)
            pairs += allowed.sum()
            for other, rows in enumerate(mine):
                outputs[other][device * heads // devices + index] = links.send(device, other, "O", done[rows])
    for device, rows in enumerate(mine):
        for head in range(heads):
            wanted = softmax_attention(whole["Q"][head], whole["K"][head // group], whole["V"][head // group], allowed)
            np.testing.assert_allclose(outputs[device][head], wanted[rows], rtol=1e-10, atol=1e-12)
        assert moved(made.traffic[device]) == (without_zeros(links.received[device]), without_zeros(links.sent[device]))
    assert sum(made.pairs) == pairs
    assert made.imbalance == 1


def test_ulysses_moves_as_much_per_device_when_tokens_and_devices_grow_together() -> None:
    """DeepSpeed-Ulysses, section 3.2: 4 N h / P words per link, constant while N / P is; short of it by one part in P."""
    for devices in (2, 4, 8, 16):
        n, hidden = 1024 * devices, 16 * 64
        made = exchange(problem(n, n, 64, heads=16, kv_heads=16), devices, "ulysses")
        sent = made.traffic[0].write_elements
        assert sent * devices == 4 * n * hidden // devices * (devices - 1)


@given(st.integers(2, 5), st.integers(6, 20), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_states_of_linear_attention_are_gathered_once(devices: int, n: int, d: int, d_v: int, seed: int) -> None:
    """LASP-2: each device adds the states of the shards before its own to causal attention inside it."""
    made = exchange(problem(n, n, d, d_v, "causal"), devices, "state-gather")
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(n, d)), rng.normal(size=(n, d)), rng.normal(size=(n, d_v))
    links, mine = Links(devices), [tokens(shard) for shard in made.shards]
    wanted = np.where(causal(n, n), q @ k.T, 0) @ v
    states = [k[rows].T @ v[rows] for rows in mine]
    for device, rows in enumerate(mine):
        gathered = [links.send(other, device, "state", states[other]) for other in range(devices)]
        inside = np.where(causal(len(rows), len(rows)), q[rows] @ k[rows].T, 0) @ v[rows]
        before = sum(gathered[:device], np.zeros((d, d_v)))
        np.testing.assert_allclose(inside + q[rows] @ before, wanted[rows], rtol=1e-9, atol=1e-9)
    for device in range(devices):
        assert moved(made.traffic[device]) == (links.received[device], links.sent[device])


def test_states_cost_the_same_at_any_length() -> None:
    """LASP-2: one all-gather of d x d_v words per head, B H d^2 in its terms."""
    for n in (1024, 1 << 20):
        made = exchange(problem(n, n, 128, mask="causal", heads=8, kv_heads=8), 16, "state-gather")
        assert made.traffic[0].write_elements == 15 * 8 * 128 * 128
        assert made.rounds == 1


def test_latent_keys_go_round_once() -> None:
    """V as a slice of K crosses with it."""
    made = exchange(problem(64, 64, 12, 8, "causal", heads=4, kv_heads=1, latent=True), 4, "ring")
    assert moved(made.traffic[0]) == ({"K": 48 * 12}, {"K": 48 * 12})


def test_what_cannot_be_shared_is_refused() -> None:
    asked = problem(64, 64, 8, heads=6, kv_heads=3)
    for name, devices, message in (
        ("ulysses", 2, "3 heads do not divide among 2"),
        ("zigzag", 64, "do not make 128 parts"),
        ("rign", 2, "no exchange 'rign'"),
        ("ring:blocks=2", 2, "ring has no parameter 'blocks'"),
        ("ring:blocks", 2, "'blocks' of ring is not key=value"),
        ("ring", 0, "must be 1 to 1024"),
    ):
        with pytest.raises(UsageError, match=message):
            exchange(asked, devices, name)
    for mask in ("window:4", "band:right=2", "heads(causal;full)"):
        with pytest.raises(UsageError, match="full or causal"):
            exchange(problem(64, 64, 8, mask=mask, heads=2), 2, "ring")
    with pytest.raises(UsageError, match="too few queries"):
        exchange(problem(1, 64, 8, mask="causal", phase="decode"), 2, "ring")
    with pytest.raises(UsageError, match="backward pass"):
        exchange(problem(64, 64, 8, phase="backward"), 2, "state-gather")
    assert list(EXCHANGES)[:2] == ["ring", "zigzag"]
