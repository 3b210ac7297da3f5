"""FlashConv: what it computes, moves and multiplies, against the sum that defines it and its released kernel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_conv
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, in_strips
from oracles.random_calls import per_tensor, problem, tile
from test_numpy_kernels import counted_as_scheduled
from test_programs import check

from iosim.errors import UsageError
from iosim.floors import Memory as FastMemory
from iosim.floors.linear import linear_bounds
from iosim.kernels import Call, make_schedule
from iosim.kernels.flash_conv import convolution_of, split, transform_flop
from iosim.machine import load_device
from iosim.schedule import Schedule


@st.composite
def cases(draw: st.DrawFn) -> dict:
    sizes = {"n": 24, "d": 3, "d_v": 3, "chunk": 20, "states": 3, "group": 2, "kv_heads": 2, "batch": 2}
    case = {name: draw(st.integers(1, most)) for name, most in sizes.items()}
    case["settings"] = {
        "states": case["states"],
        "radix": draw(st.sampled_from([0, 2, 4, 16])),
        "resident": draw(st.booleans()),
    }
    return case | {"seed": draw(st.integers(0, 2**32 - 1))}


def schedule_of(case: dict) -> Schedule:
    heads = case["group"] * case["kv_heads"]
    asked = problem(case["n"], case["n"], case["d"], case["d_v"], "causal", heads, case["kv_heads"], case["batch"])
    return make_schedule(asked, None, "flashconv", tile(case["chunk"], 1), case["settings"])


@given(cases())
def test_the_schedule_computes_the_convolution(case: dict) -> None:
    schedule = schedule_of(case)
    check(schedule)
    made = convolution_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    rng, n, layer = np.random.default_rng(case["seed"]), case["n"], case["group"] * case["kv_heads"]
    q, k, v = (
        rng.normal(size=(case["batch"] * heads, n, size))
        for heads, size in ((layer, case["d"]), (case["kv_heads"], case["d"]), (case["kv_heads"], case["d_v"]))
    )
    a, b, c = rng.uniform(0.3, 0.95, size=(layer, case["states"])), *rng.normal(size=(2, layer, case["states"]))
    skip = rng.normal(size=(layer, 1))
    filters = np.stack([c[h] * b[h] @ a[h][:, None] ** np.arange(n) for h in range(layer)])
    memory = Memory()
    for name, arrays in (("Q", q), ("K", k), ("V", v)):
        memory.put(name, np.array([in_strips(array, 1) for array in arrays]))
    memory.put("filter", filters[:, : made.taps])
    memory.put("ssm", np.stack([a, b, c], axis=1))
    memory.put("D", skip)
    for launch in schedule.launches:
        count = Arithmetic()
        run = numpy_conv.transform_filter if launch.name == "filter" else numpy_conv.convolve
        run(launch, memory, made, count)
        count.check(launch.work)
    for head, flat in enumerate(memory.get("O", len(q), (case["d_v"] * n,))):
        kv, own = head // case["group"], head % layer
        wanted = numpy_conv.direct(q[head], k[kv], v[kv], filters[own], skip[own, 0])
        np.testing.assert_allclose(flat.reshape(case["d_v"], n).T, wanted, rtol=1e-9, atol=1e-9)
    counted_as_scheduled(memory, schedule)


@given(cases())
def test_no_convolution_goes_under_the_floors_of_linear_attention(case: dict) -> None:
    schedule = schedule_of(case)
    reads, writes, _ = linear_bounds(schedule.problem, FastMemory("given", 1 << 20))
    assert reads.value_elements <= schedule.traffic.read_elements
    assert writes.value_elements <= schedule.traffic.write_elements
    assert reads.value_bytes + writes.value_bytes <= schedule.traffic.total_bytes


@given(cases())
def test_resident_states_save_their_traffic_and_the_filters(case: dict) -> None:
    apart, kept = (
        schedule_of(case | {"settings": case["settings"] | {"resident": choice}}).traffic for choice in (False, True)
    )
    chunks = -(-case["n"] // case["chunk"])
    items = case["batch"] * case["group"] * case["kv_heads"] * case["d_v"]
    points = max(16, 2 * next(1 << p for p in range(9) if 1 << p >= min(case["n"], case["chunk"])))
    states = case["states"] * case["d"]
    again = points + 3 + 3 * case["states"]
    assert apart.read_elements - kept.read_elements == items * (chunks - 1) * (again + states)
    assert apart.write_elements - kept.write_elements == items * (chunks - 1) * states


def test_the_released_kernels_words() -> None:
    """One block per (sequence, head, value channel): N + 1 complex words of filter, V, D, and every channel of K and Q."""
    n, d, heads, batch = 8192, 8, 4, 2
    schedule = make_schedule(
        problem(n, n, d, mask="causal", heads=heads, batch=batch, kv_heads=heads), load_device("a100-sxm-80gb"), "h3"
    )
    assert [launch.items for launch in schedule.launches] == [heads, batch * heads * d]
    items = batch * heads * d
    assert per_tensor(schedule) == {
        "filter": (heads * n, 0),
        "filter_fft": (items * 2 * (n + 1), heads * 2 * (n + 1)),
        "D": (items, 0),
        "V": (items * n, 0),
        "K": (items * n * d, 0),
        "Q": (items * n * d, 0),
        "O": (0, items * n),
    }


def test_sequences_of_8k_are_the_longest_that_fit_a_multiprocessor() -> None:
    """Section 4.1: fused up to 8K, state passing beyond; the released code ends at transforms of 16,384 points, too."""
    asked = problem(1 << 16, 1 << 16, 8, mask="causal")
    for device in map(load_device, ("a100-sxm-80gb", "h100-sxm5")):
        fits = make_schedule(asked, device, "flashconv")
        assert fits.tiling.rows == 8192
        assert fits.working_set.shared_bytes == 64 * 1024
        with pytest.raises(UsageError, match="needs 450 KiB of 256 KiB registers") as refused:
            make_schedule(asked, device, "flashconv", tile(16384, 1))
        assert refused.value.faults[0].hint == "the largest that fits is 8192x1"
        with pytest.raises(UsageError) as between:
            make_schedule(asked, device, "flashconv", tile(9000, 1))
        assert between.value.faults[0].hint == "the largest that fits is 8192x1"


def test_transforms_of_powers_of_two() -> None:
    assert transform_flop(8192, 0) == (5 * 8192 * 13, 5 * 8192 * 13)
    assert split(8192, 16) == [16, 16, 16, 2]
    assert transform_flop(8192, 16) == (5 * 8192 * 13, 8 * 8192 * 50 + 6 * 8192 * 3)


def test_what_a_convolution_refuses() -> None:
    asked = problem(64, 64, 8, mask="causal")
    with pytest.raises(UsageError, match="powers of two, got 12"):
        make_schedule(asked, None, "flashconv", None, {"radix": 12})
    with pytest.raises(UsageError, match="powers of two, got 1 "):
        make_schedule(asked, None, "flashconv", None, {"radix": 1})
    with pytest.raises(UsageError, match="causal attention only"):
        make_schedule(problem(64, 64, 8), None, "flashconv")
    with pytest.raises(UsageError, match="no tile for head size 64"):
        make_schedule(problem(64, 64, 64, mask="causal"), None, "flashconv")
    with pytest.raises(UsageError, match="at least 1"):
        make_schedule(asked, None, "flashconv", None, {"states": 0})
