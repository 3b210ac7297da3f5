"""Floors of other functions than softmax attention: they count the words that change an output, and a kernel that reads
each of them once has no gap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import test_flash_conv
import test_linear
import test_selective_scan
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_conv, numpy_linear, numpy_scan
from oracles.random_calls import problem, tile

from iosim import analysis, analyze, device
from iosim.cache.replay_options import ReplayOptions
from iosim.curve_analysis import miss_curve_of_call
from iosim.floors import Memory
from iosim.floors.linear import own_bounds, own_floor_bytes
from iosim.kernels import make_schedule
from iosim.report import Options
from iosim.schedule import Schedule

Array = np.ndarray
MEMORY = Memory("given", 1 << 20)


def mattering(compute: Callable[[], Array], arrays: list[Array]) -> int:
    """Words of the arrays that change some output when they alone are changed."""
    known, found = compute(), 0
    for array in arrays:
        for at in np.ndindex(*array.shape):
            array[at] += 0.25
            found += bool(np.abs(compute() - known).max() > 1e-12 * max(1, np.abs(known).max()))
            array[at] -= 0.25
    return found


def counted(schedule: Schedule) -> int:
    """Words that the floors say must be read; a kernel reads no fewer."""
    reads, writes, *_ = own_bounds(schedule, MEMORY)
    assert reads.value_elements <= schedule.traffic.read_elements
    assert writes.value_elements <= schedule.traffic.write_elements
    assert reads.value_bytes + writes.value_bytes == own_floor_bytes(schedule, MEMORY) <= schedule.traffic.total_bytes
    return reads.value_elements


@given(
    test_linear.cases(), st.sampled_from(["identity", "hedgehog", "taylor"]), st.sampled_from(["full", "causal"]),
    st.integers(0, 3), st.booleans(), st.sampled_from(["lightning2", "gla"]),
)  # fmt: skip
def test_sums_of_keys_and_values(
    case: dict, features: str, mask: str, prefix: int, normalise: bool, kernel: str
) -> None:
    case = case | {"n": 1 + case["n"] % 6, "group": 1 + case["group"] % 2}
    gate = case["gate"] if features == "identity" and mask == "causal" else "none"
    chosen: dict[str, object] = {"features": features, "gate": gate}
    if kernel == "gla":
        mask, prefix, normalise = "causal", 0, False
        chosen |= test_linear.PLAIN
    else:
        prefix = min(prefix, case["n"])
        chosen |= {"normalise": normalise} | ({"prefix": prefix} if prefix else {})
    schedule = test_linear.schedule_of(case, kernel, mask, **chosen)
    data = test_linear.Data(case, schedule)
    q, k, v = (np.abs(array) + 0.1 for array in (data.q, data.k, data.v))  # sums of weights stay away from zero
    k_prefix, v_prefix = (data.rng.uniform(0.1, 1, (len(k), prefix, case[size])) for size in ("d", "d_v"))
    phi = lambda x: numpy_linear.feature_map(x, features)  # noqa: E731
    ones = lambda x: np.concatenate([x, np.ones((len(x), 1))], axis=1)  # noqa: E731

    def compute() -> Array:
        made = []
        for head, rows in enumerate(q):
            kv = head // case["group"]
            start = phi(k_prefix[kv]).T @ ones(v_prefix[kv])
            out = numpy_linear.recurrent(phi(rows), phi(k[kv]), ones(v[kv]), data.gate(head), mask == "causal", start)
            made.append(out[:, :-1] / (out[:, -1:] if normalise else 1))
        return np.array(made)

    gates = [data.g] if data.g is not None else []
    assert counted(schedule) == mattering(compute, [q, k, v, k_prefix, v_prefix, *gates])


@given(test_linear.cases())
def test_the_delta_rule(case: dict) -> None:
    case = case | {"n": 1 + case["n"] % 6}
    schedule = test_linear.schedule_of(case, "delta-rule", gate="none" if case["gate"] == "vector" else case["gate"])
    data = test_linear.Data(case, schedule)
    beta = data.rng.uniform(0.1, 0.9, size=(len(data.k), case["n"], 1))

    def compute() -> Array:
        kv = [head // case["group"] for head in range(len(data.q))]
        each = zip(data.q, kv, strict=True)
        return np.array(
            [numpy_linear.delta_recurrent(q, data.k[j], data.v[j], data.gate(j * case["group"]), beta[j]) for q, j in each]
        )  # fmt: skip

    gates = [data.g] if data.g is not None else []
    assert counted(schedule) == mattering(compute, [data.q, data.k, data.v, beta, *gates])


@given(test_selective_scan.cases())
def test_the_selective_scan(case: dict) -> None:
    case = case | {"n": 1 + case["n"] % 5, "batch": case["batch"]}
    schedule, data = test_selective_scan.schedule_of(case), test_selective_scan.Data(case)
    flags = [case["flags"][name] for name in ("softplus", "skip", "z")]

    def compute() -> Array:
        return np.array([numpy_scan.recurrent(data.of_head(head), *flags) for head in range(data.heads)])

    assert counted(schedule) == mattering(compute, list(data.data.values()))


@given(test_flash_conv.cases())
def test_the_convolution_of_a_given_filter(case: dict) -> None:
    """Within one chunk the taps are all that is given of the filter."""
    case = case | {"n": 1 + case["n"] % 6, "chunk": 6}
    schedule, layer = test_flash_conv.schedule_of(case), case["group"] * case["kv_heads"]
    rng = np.random.default_rng(case["seed"])
    q, k, v = (
        rng.normal(size=(case["batch"] * heads, case["n"], size))
        for heads, size in ((layer, case["d"]), (case["kv_heads"], case["d"]), (case["kv_heads"], case["d_v"]))
    )
    taps, skip = rng.normal(size=(layer, case["n"])), rng.normal(size=(layer, 1))

    def compute() -> Array:
        kv = [head // case["group"] for head in range(len(q))]
        own = [head % layer for head in range(len(q))]
        return np.array([numpy_conv.direct(*at) for at in zip(q, k[kv], v[kv], taps[own], skip[own, 0], strict=True)])

    assert counted(schedule) == mattering(compute, [q, k, v, taps, skip])


OPTIMAL = [
    ("lightning2", {}, 0), ("lightning2", {"gate": "vector"}, 16 * 4), ("lightning2", {"gate": "scalar", "prefix": 70}, 0),
    ("based", {}, 16 * 2), ("mamba1", {"save": False}, 0),
]  # fmt: skip


@pytest.mark.parametrize(("kernel", "chosen", "first"), OPTIMAL, ids=str)
def test_a_kernel_that_reads_each_input_once_has_no_gap(kernel: str, chosen: dict[str, object], first: int) -> None:
    """But for words of the first token that its code reads and that no output depends on."""
    asked = problem(100, 100, 16, mask="causal")
    schedule = make_schedule(asked, None, kernel, tile(128, 128), {"value_block": 16, **chosen})
    assert schedule.traffic.total_bytes - own_floor_bytes(schedule, MEMORY) == first


@pytest.mark.parametrize("gate", ["none", "scalar", "vector"])
def test_a_token_with_its_gate_and_a_state(gate: str) -> None:
    """Every word that decoding reads matters: the state is not zero."""
    asked = problem(3, 64, 8, mask="causal", heads=4, kv_heads=2, phase="decode")
    schedule = make_schedule(asked, None, "fixed-state", None, {"gate": gate})
    assert own_floor_bytes(schedule, MEMORY) == schedule.traffic.total_bytes


def test_gaps_of_a_report_are_over_the_functions_own_floor() -> None:
    """Gated linear attention that reads Q, K, V and g once is within a thousandth of it."""
    asked, h100 = problem(8192, 8192, 128, mask="causal", heads=32, kv_heads=32), device("h100-sxm5")
    report = analyze(asked, h100, ["gla-fused"])
    hbm = report.kernels[0].boundary("hbm")
    assert hbm.gap("any") == pytest.approx(1, abs=1e-3)
    assert hbm.to_dict()["floor_any_bytes"] == 32 * (4 * 8192 * 128 * 2 + 8191 * 128 * 4)
    assert any(note.startswith("gla-fused: `any` is over the bytes of its own") for note in report.assumptions)
    warm = analyze(asked, h100, ["gla-fused"], l2="warm").kernels[0].boundary("hbm")
    assert warm.own_floor_bytes == hbm.own_floor_bytes - 2 * 50 * 2**20  # type: ignore[operator]


@pytest.mark.parametrize("kernel", ["rat-decode", "fixed-state"])
def test_what_decoding_leaves_reaches_main_memory(kernel: str) -> None:
    """New summaries and states are read by later calls: they do not die in a cache."""
    asked = problem(1, 8192, 64, mask="causal", heads=4, kv_heads=4, phase="decode")
    for closed in (False, True):
        options = Options(replay=ReplayOptions(closed_form=closed))
        (report,) = analysis.analyze(asked, device("h100-sxm5"), [kernel], options).kernels
        for at in report.boundaries:
            assert at.gap("any") == 1, at.name


@pytest.mark.parametrize(
    "kernel", ["lightning1", "lightning2", "hedgehog", "gla", "gla-fused", "mamba2", "gated-delta", "mamba1", "rat"]
)
@pytest.mark.parametrize("l2", ["cold", "warm"])
def test_no_boundary_of_a_report_is_below_it(kernel: str, l2: str) -> None:
    """Replayed main memory too, where what a cache keeps is not written and not read again."""
    asked = problem(2048, 2048, 64, mask="causal", heads=8, kv_heads=2, batch=2)
    (report,) = analyze(asked, device("a100-sxm-80gb"), [kernel], l2=l2).kernels
    gaps = [at.gap("any") for at in report.boundaries]
    assert all(gap is None or gap >= 1 for gap in gaps)
    assert gaps[0] is not None


def test_a_curve_has_the_floor_of_the_function_too() -> None:
    """FlashAttention's floors for memories of any size do not speak of a scan."""
    curve = miss_curve_of_call(problem(512, 512, 16, mask="causal", heads=2, kv_heads=2), None, "gla-fused")
    (floor,) = {own for _, *classes in curve.floors for own in classes}
    assert floor == own_floor_bytes(curve.schedule, MEMORY)
    assert floor <= min(point.total_bytes for point in curve.points)
