"""Keys, attention or activations on the far side: a device that works with what comes over the link and no more."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles.devices import Links, causal, moved, softmax_attention, with_lse
from oracles.numpy_kernels import Rows
from oracles.random_calls import problem

from iosim import problem as asked_problem
from iosim.errors import UsageError
from iosim.links import LinkAsked, Way, way_of
from iosim.links.least import message_bytes

DEVICE, FAR = 0, 1


def offloaded(call: object, what: str, resident: str | float = 0) -> Way:
    return way_of(call, LinkAsked(offload=what, resident=resident))  # type: ignore[arg-type]


def without_zeros(counter: Counter[str]) -> dict[str, int]:
    return {name: count for name, count in counter.items() if count}


SIZES = (st.integers(1, 3), st.integers(1, 3), st.integers(0, 9), st.integers(1, 3), st.integers(0, 7),
         st.integers(0, 2**32 - 1))  # fmt: skip


@given(*SIZES, st.sampled_from(["full", "causal"]))
def test_keys_come_over_the_link_for_each_step(
    group: int, new: int, cached: int, d: int, eighths: int, seed: int, mask: str
) -> None:
    """Resident keys stay; the far side stores the others and the new ones."""
    kv_heads, batch, d_v = 2, 2, d + 1
    phase = "decode" if cached else "prefill"
    call = problem(new, cached + new, d, d_v, mask, group * kv_heads, kv_heads, batch, phase)
    made = offloaded(call, "kv", f"{eighths}/8")
    rng, links = np.random.default_rng(seed), Links(2)
    kept = cached * eighths // 8
    allowed = causal(new, cached + new) if mask == "causal" else np.ones((new, cached + new), bool)
    for _ in range(batch * kv_heads):
        k, v = rng.normal(size=(cached + new, d)), rng.normal(size=(cached + new, d_v))
        fetched = [links.send(FAR, DEVICE, name, array[kept:cached]) for name, array in (("K", k), ("V", v))]
        for name, array in (("K", k), ("V", v)):
            links.send(DEVICE, FAR, name, array[cached:])
        mine = [
            np.concatenate([array[:kept], part, array[cached:]]) for array, part in zip((k, v), fetched, strict=True)
        ]
        for _ in range(group):
            q = rng.normal(size=(new, d))
            done = softmax_attention(q, *mine, allowed)
            np.testing.assert_allclose(done, softmax_attention(q, k, v, allowed), rtol=1e-10, atol=1e-12)
    assert moved(made.traffic[0]) == (without_zeros(links.received[DEVICE]), without_zeros(links.sent[DEVICE]))
    assert made.proven.least is not None
    assert made.proven.least.received[0] == made.traffic[0].read_bytes  # the far side only stores: every word is needed
    assert made.proven.least.sent[0] <= made.traffic[0].write_bytes


@given(*SIZES)
def test_attention_is_merged_from_both_sides(
    group: int, new: int, cached: int, d: int, eighths: int, seed: int
) -> None:
    kv_heads, batch, d_v, cached = 2, 2, d + 1, cached + 1
    made = offloaded(
        problem(new, cached + new, d, d_v, "causal", group * kv_heads, kv_heads, batch, "decode"),
        "attention",
        eighths / 8,
    )
    rng, links = np.random.default_rng(seed), Links(2)
    kept, allowed = cached * eighths // 8, causal(new, cached + new)
    pairs = 0
    for _ in range(batch * kv_heads):
        k, v = rng.normal(size=(cached + new, d)), rng.normal(size=(cached + new, d_v))
        theirs = [
            np.concatenate([array[kept:cached], links.send(DEVICE, FAR, name, array[cached:])])
            for name, array in (("K", k), ("V", v))
        ]
        for _ in range(group):
            q = rng.normal(size=(new, d))
            asked = links.send(DEVICE, FAR, "Q", q)
            merged, seen = Rows(new, d_v), allowed[:, kept:]
            if kept:
                near, lse = with_lse(q, k[:kept], v[:kept], allowed[:, :kept])
                merged.merge(near, lse)
                pairs += new * kept
                far, lse = with_lse(asked, *theirs, seen)
                merged.merge(links.send(FAR, DEVICE, "O", far), links.send(FAR, DEVICE, "LSE", lse))
                done = merged.output()
            else:
                done = links.send(FAR, DEVICE, "O", softmax_attention(asked, *theirs, seen))
            np.testing.assert_allclose(done, softmax_attention(q, k, v, allowed), rtol=1e-10, atol=1e-12)
    assert moved(made.traffic[0]) == (links.received[DEVICE], links.sent[DEVICE])
    assert made.pairs == (pairs,)
    assert (made.share.call is None) == (kept == 0)
    assert made.proven.far_bytes == 2 * batch * kv_heads * (cached - kept) * (d + d_v)
    assert made.least_crossing_bytes is not None
    assert made.least_crossing_bytes <= made.crossing_bytes


@given(st.integers(1, 3), st.integers(1, 8), st.integers(1, 3), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_gradients_need_what_went_out(group: int, n: int, d: int, eighths: int, seed: int) -> None:
    """Forward: saved rows that do not stay go out; backward: they come back, and gradients are those of autograd."""
    kv_heads, d_v = 2, d + 1
    calls = {
        phase: problem(n, n, d, d_v, "causal", group * kv_heads, kv_heads, 1, phase)
        for phase in ("prefill", "backward")
    }
    out, back = (offloaded(calls[phase], "activations", f"{eighths}/8") for phase in ("prefill", "backward"))
    rng, links, kept = np.random.default_rng(seed), Links(2), n * eighths // 8

    def swapped(name: str, array: np.ndarray) -> np.ndarray:
        """Out, and back: what the backward pass sees."""
        far = links.send(DEVICE, FAR, name, array[kept:])
        return np.concatenate([array[:kept], links.send(FAR, DEVICE, name, far)])

    for _ in range(kv_heads):
        k, v = rng.normal(size=(n, d)), rng.normal(size=(n, d_v))
        seen_k, seen_v = swapped("K", k), swapped("V", v)
        for _ in range(group):
            q, d_out = rng.normal(size=(n, d)), rng.normal(size=(n, d_v))
            o, lse = with_lse(q, k, v, causal(n, n))
            saved = {"Q": swapped("Q", q), "O": swapped("O", o), "LSE": swapped("LSE", lse)}
            p = np.where(causal(n, n), np.exp(saved["Q"] @ seen_k.T - saved["LSE"][:, None]), 0)
            d_s = p * (d_out @ seen_v.T - (d_out * saved["O"]).sum(1, keepdims=True))
            step = 1e-6 * rng.normal(size=(n, d))
            up, down = (softmax_attention(q + sign * step, k, v, causal(n, n)) for sign in (1, -1))
            assert ((up - down) / 2 * d_out).sum() == pytest.approx((d_s @ seen_k * step).sum(), rel=1e-4, abs=1e-12)
    assert moved(out.traffic[0]) == ({}, without_zeros(links.sent[DEVICE]))
    assert moved(back.traffic[0]) == (without_zeros(links.received[DEVICE]), {})
    assert out.again == back.again
    if out.again:
        assert out.again.flop == group * kv_heads * 2 * (d + d_v) * causal(n, n).sum()
        assert out.again.moved_bytes == 2 * links.sent[DEVICE]["O"] + 4 * links.sent[DEVICE]["LSE"]
    for made in (out, back):
        assert made.least_crossing_bytes is not None
        assert made.least_crossing_bytes <= made.crossing_bytes


def test_a_cache_of_26_gb() -> None:
    """InstInfer's example: a 13B model (40 layers, 40 heads of 128), 16 sequences of 2,048 tokens, some 26 GB in fp16."""
    made = offloaded(problem(1, 2048, 128, None, "causal", 40, 40, 16, "decode"), "kv")
    cache = 40 * (made.traffic[0].read_bytes + made.traffic[0].write_bytes)
    assert cache == 26_843_545_600
    near = offloaded(problem(1, 2048, 128, None, "causal", 40, 40, 16, "decode"), "attention")
    assert near.crossing_bytes == 16 * 4 * 40 * 128 * 2  # Q, K, V and O of one token: a 512th


def test_what_is_proven_of_offloads() -> None:
    """What few keys elsewhere can tell, and main-memory bytes without what comes over the link."""
    call = problem(2, 9, 16, 5, "causal", 8, 2, 3, "decode")  # 7 cached keys, 4 x 2 rows per key/value head
    away = offloaded(call, "attention", "3/7").proven
    assert away.least is not None
    assert away.least.received == (message_bytes(call, 3 * 2 * min(4 * 2, 4) * 5),)
    assert away.least.sent == (message_bytes(call, 3 * 2 * 2 * 21),)
    assert (away.read_bytes, away.far_bytes) == (2 * 3 * 2 * 3 * 21, 2 * 3 * 2 * 4 * 21)
    fetched = offloaded(call, "kv", "3/7").proven
    queries, keys, outputs = 3 * 8 * 2 * 16, 3 * 2 * 9 * 21, 3 * 8 * 2 * 5
    assert (fetched.read_bytes, fetched.write_bytes) == (2 * (queries + keys) - fetched.far_bytes, 2 * outputs)
    assert fetched.far_bytes == away.far_bytes


def test_what_cannot_be_left_elsewhere_is_refused() -> None:
    decode = asked_problem(heads=2, head_dim=8, phase="decode", seq_kv=64, mask="causal")
    for call, what, resident, message in (
        (decode, "activations", 0, "decoding keeps no activations"),
        (decode, "keys", 0, "nothing called 'keys' to offload"),
        (decode, "kv", 1, "from 0 up to below 1"),
        (decode, "kv", "-0.1", "from 0 up to below 1"),
        (decode, "kv", "half", "'half' is not a number"),
        (decode, "kv", "1/0", "is not a number"),
        (asked_problem(heads=2, head_dim=8, seq=64), "attention", 0, "counted for decode"),
        (asked_problem(heads=2, head_dim=8, seq=64, phase="backward"), "kv", 0, "a backward pass has no cache"),
        (asked_problem(heads=2, head_dim=8, seq=64, mask="window:4"), "kv", 0, "see the whole cache|show every query"),
    ):
        with pytest.raises(UsageError, match=message):
            offloaded(call, what, resident)
