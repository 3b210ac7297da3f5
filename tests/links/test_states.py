"""States gathered once: devices that hold their own tokens and these words compute what the kernel computes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_linear
from oracles.devices import Links, moved
from oracles.random_calls import problem, tile

import iosim
from iosim.errors import UsageError
from iosim.kernels import make_schedule
from iosim.links import LinkAsked, Way, gathered, way_of

Array = np.ndarray
CASES = [
    ("lightning2", {}), ("lightning2", {"gate": "vector", "normalise": True}), ("lightning2", {"gate": "scalar"}),
    ("lightning1", {}), ("gla", {}), ("gla", {"gate": "scalar"}), ("gla", {"gate": "none", "features": "hedgehog"}),
    ("based", {}), ("hedgehog", {}), ("delta-rule", {}), ("gated-delta", {}), ("delta-rule", {"gate": "vector"}),
]  # fmt: skip


def way_for(call: iosim.attention.Attention, devices: int, kernel: str, chosen: dict[str, object]) -> Way:
    way = way_of(call, LinkAsked(exchange="state-gather", devices=devices))
    assert way.share.call is not None
    return gathered(way, [make_schedule(way.share.call, None, kernel, tile(2, 2), setting(kernel, chosen))])


def setting(kernel: str, chosen: dict[str, object]) -> dict[str, object]:
    """Settings of a kernel, the scores of chunks being of no interest here."""
    cut: dict[str, object] = {} if kernel == "lightning1" else {"value_block": 2}
    return cut | ({"cumsum": False, "scores": "none"} if kernel == "gla" else {}) | chosen


def everyone(links: Links, sent: list[dict[str, Array]]) -> list[list[dict[str, Array]]]:
    """Device -> what each of the others, and itself, sent to all."""
    return [
        [{name: links.send(other, device, name, words) for name, words in sent[other].items()} for other in range(len(sent))]
        for device in range(len(sent))
    ]  # fmt: skip


def before(got: list[dict[str, Array]], follow: Callable[[dict[str, Array], Array], Array]) -> Array:
    """The state that the shards of others, one after another, leave."""
    state = np.zeros_like(got[0]["state"]) if got else None
    for words in got:
        state = follow(words, state)
    return state


@pytest.mark.parametrize(("kernel", "chosen"), CASES, ids=str)
@given(st.integers(2, 5), st.integers(6, 16), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_one_gather_is_enough(
    kernel: str, chosen: dict[str, object], devices: int, n: int, d: int, d_v: int, seed: int
) -> None:
    """Each device goes on from what the shards before its own sent, and ends with the rows of the whole sequence."""
    made = way_for(problem(n, n, d, d_v, "causal", 3, 1), devices, kernel, chosen)
    assert made.share.call is not None
    settings = make_schedule(made.share.call, None, kernel, tile(2, 2), setting(kernel, chosen)).parameters
    rng = np.random.default_rng(seed)
    phi = lambda x: numpy_linear.feature_map(x, str(settings.get("features", "identity")))  # noqa: E731
    q, k, v = (rng.normal(size=(n, size)) for size in (d, d, d_v))
    words = {"none": 0, "scalar": 1, "vector": d}[str(settings.get("gate", "none"))]
    g = -rng.uniform(0.01, 0.5, size=(n, words)) if words else None
    beta = rng.uniform(0.1, 0.9, size=(n, 1))
    delta = kernel in ("delta-rule", "gated-delta")
    if settings.get("normalise"):
        v = np.concatenate([v, np.ones((n, 1))], axis=1)

    def walk(rows: slice, start: Array, tokens: Array | None = None) -> tuple[Array, Array]:
        """(outputs, state after) of some tokens by the recurrence."""
        state, out = start, []
        a = numpy_linear.decays(g[rows] if g is not None else None, len(k[rows]), start.shape[0])
        for t, values in enumerate(v[rows] if tokens is None else tokens):
            key = phi(k[rows][t])
            state = a[t][:, None] * (state - beta[rows][t] * np.outer(key, key @ state) if delta else state)
            state = state + (beta[rows][t] if delta else 1) * np.outer(key, values)
            out.append(phi(q[rows][t]) @ state)
        return np.array(out), state

    mine = [slice(first, first + count) for ((first, count),) in made.shards]
    zeros = np.zeros((phi(k[:1]).shape[1], v.shape[1]))
    sent = []
    for rows in mine:
        words_sent = {"state": walk(rows, zeros)[1]}
        if delta:
            words_sent["transition"] = walk(rows, np.eye(d), np.zeros((len(k[rows]), d)))[1]
        elif g is not None:
            words_sent["decay"] = g[rows].sum(0)
        sent.append(words_sent)

    def follow(got: dict[str, Array], state: Array) -> Array:
        if "transition" in got:
            return got["transition"] @ state + got["state"]
        return (np.exp(got["decay"])[:, None] if "decay" in got else 1) * state + got["state"]

    links = Links(devices)
    for device, got in enumerate(everyone(links, sent)):
        wanted = walk(slice(0, n), zeros)[0][mine[device]]
        start = before(got[:device], follow) if device else zeros
        np.testing.assert_allclose(walk(mine[device], start)[0], wanted, rtol=1e-8, atol=1e-9)
    for device in range(devices):
        assert moved(made.traffic[device]) == (links.received[device], links.sent[device])
    assert made.rounds == 1


@given(st.integers(2, 5), st.integers(6, 16), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_scan_needs_one_sum_of_steps_per_channel(devices: int, n: int, states: int, channels: int, seed: int) -> None:
    """Every device has A, so the decays of all state elements of a channel follow from one sum of its Delta."""
    made = way_for(problem(n, n, states, channels, "causal"), devices, "mamba1", {})
    rng = np.random.default_rng(seed)
    a = -rng.uniform(0.1, 1, size=(states, channels))
    step, x, b = rng.uniform(0.1, 1, (n, channels)), rng.normal(size=(n, channels)), rng.normal(size=(n, states))

    def walk(rows: slice, h: Array) -> list[Array]:
        after = []
        for t in range(rows.start, rows.stop):
            h = np.exp(step[t] * a) * h + np.outer(b[t], step[t] * x[t])
            after.append(h)
        return after

    mine = [slice(first, first + count) for ((first, count),) in made.shards]
    sent = [{"state": walk(rows, np.zeros_like(a))[-1], "decay": step[rows].sum(0)} for rows in mine]
    links = Links(devices)
    for device, got in enumerate(everyone(links, sent)):
        start = before(got[:device], lambda words, h: np.exp(words["decay"] * a) * h + words["state"])
        found = walk(mine[device], start if device else np.zeros_like(a))
        np.testing.assert_allclose(found, walk(slice(0, n), np.zeros_like(a))[mine[device]], rtol=1e-9, atol=1e-9)
    for device in range(devices):
        assert moved(made.traffic[device]) == (links.received[device], links.sent[device])


def test_what_based_hands_on() -> None:
    """273 features of head size 16, and a column for the normaliser, in fp32, to seven others."""
    call = iosim.problem(heads=8, head_dim=16, head_dim_v=64, seq=8192, mask="causal")
    report = iosim.analyze(call, "h100-sxm5", "based", exchange="state-gather", devices=8)
    assert report.link is not None
    assert report.link.traffic.read_bytes == report.link.traffic.write_bytes == 7 * 8 * 273 * 65 * 4
    assert report.kernels[0].boundary("link").total_bytes == 2 * 7 * 8 * 273 * 65 * 4


def test_states_that_are_not_handed_on_so_are_refused() -> None:
    call = iosim.problem(heads=8, head_dim=8, seq=8192, mask="causal")
    for kernels, match in (
        ("flashconv", "one gather"),
        ("gla,lightning2", "states of different sizes"),
        ("rat", "is for linear"),
    ):
        with pytest.raises(UsageError, match=match):
            iosim.analyze(call, "h100-sxm5", kernels.split(","), exchange="state-gather", devices=8)
    full = iosim.problem(heads=8, head_dim=8, seq=8192, mask="full")
    with pytest.raises(UsageError, match="need an order"):
        iosim.analyze(full, "h100-sxm5", "gla-fused", exchange="state-gather", devices=8)
    same = iosim.analyze(call, "h100-sxm5", ["lightning1", "lightning2"], exchange="state-gather", devices=8)
    assert same.link is not None
    assert same.link.traffic.read_elements == 7 * 8 * 64
    notes = iosim.analyze(call, "h100-sxm5", "prefix-linear", exchange="state-gather", devices=8).assumptions
    assert any("every device has the keys and values of the prefix" in note for note in notes)
