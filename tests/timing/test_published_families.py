"""Families that only published figures tell of: formulas against loops, meaning, silence beyond the data."""

from __future__ import annotations

import heapq
import math

import numpy as np
import pytest

from iosim.attention import Attention, Shape, Types
from iosim.errors import AbsentError
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.masks import Grid, bind, parse_mask
from iosim.timing import expected_time, unfused
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import PUBLISHED, calibration_of, expected_parts
from iosim.timing.looped import ISSUE, SYNC_SHARE
from iosim.timing.parts import total_s
from iosim.timing.rates import LATENCY_NS
from iosim.timing.work import BACKWARD, FORWARD, Work

BOTH = Work(backward=True)


def call(n: int, batch: int = 1, heads: int = 16, d: int = 128, causal: bool = False, n_kv: int = 0) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": heads, "head_dim": d, "n_q": n, "n_kv": n_kv or n,
               "causal": causal}  # fmt: skip
    return Calls.of({name: [number] for name, number in numbers.items()})


def total(calls: Calls, device: str, kernel: str, work: Work = FORWARD, **constants: float) -> float:
    parts = expected_parts(calls, load_device(device), kernel, constants=constants or None, work=work)
    return float(total_s(parts)[0])


def placed(costs: list[float], cores: int) -> float:
    """When the last core ends, each next free core taking the next item."""
    free = [0.0] * cores
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


@pytest.mark.parametrize("family", list(PUBLISHED))
def test_constants_are_few_and_each_has_meaning_unit_and_interval(family: str) -> None:
    calibration = load_calibration(family)
    assert len(calibration.constants) <= 20
    assert calibration.rows >= 10
    assert "every other length" in calibration.data
    for constant in calibration.constants:
        assert constant.meaning
        assert constant.unit
        assert 0 < constant.low <= constant.value <= constant.high, constant
        assert constant.high < 10 * constant.low, f"{constant.name} of {family} is not known from its data"


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("n", "heads"), [(512, 3), (1000, 5), (2048, 20)])
def test_a_forward_pass_is_its_items_placed_one_by_one(n: int, heads: int, causal: bool) -> None:
    """cuDNN on H100: 128 x 128 tiles, an item per row block, wgmma at the full rate of the rated clock."""
    device, c = load_device("h100-sxm5"), load_calibration("cudnn").values()
    clock = device.clock_hz
    assert clock
    tile = 4 * 128 * 128 * 128 / 4096 + c["instructions"] * 128 * 128 / ISSUE
    costs = []
    for _ in range(heads):
        for first in range(0, n, 128):
            last = min(n, first + 128)
            visited = sum(1 for key in range(0, n, 128) if not causal or key < last)
            item = c["item"] * LATENCY_NS["hopper"][1] * 1e-9 * clock
            item += c["masked"] * 128 * 128 / ISSUE if causal else 0
            costs.append((item + tile * visited) / clock)
    made = total(call(n, heads=heads, causal=causal), "h100-sxm5", "cudnn")
    assert made == pytest.approx(placed(costs, 132), rel=1e-5)  # ties are broken by picoseconds


def test_a_backward_pass_is_its_key_blocks_placed_one_by_one() -> None:
    """FlashAttention-2 on A100, head size 64: items of 128 keys walk query tiles of 128, five products a tile."""
    c = load_calibration("fa2-backward").values()
    clock = 1.41e9
    tile = 5 * 2 * 128 * 128 * 64 / 2048 / c["matrix_backward"] + c["instructions_backward"] * 128 * 128 / ISSUE
    item = c["item_backward"] * LATENCY_NS["ampere"][1] * 1e-9 * clock * 64 / 128
    costs = [(item + tile * (2048 // 128)) / clock] * (2048 // 128 * 9)
    streamed = 9 * 2048 * 64 * 14 / load_device("a100-sxm-80gb").bandwidth_bytes_per_s("hbm")
    made = total(call(2048, heads=9, d=64), "a100-sxm-80gb", "flash2-backward")
    assert made == pytest.approx(placed(costs, 108) + streamed, rel=1e-5)


def test_flashattention_1_as_first_released_leaves_cores_idle() -> None:
    """128 heads on 108 cores are two rounds, the second nearly empty: why the paper's table shows 65 TFLOP/s."""
    whole = Work(whole_heads=True)
    by_heads = [
        total(call(8192, 1, heads, 64), "a100-sxm-80gb", "flash1", whole) for heads in (108, 109, 128, 216, 217)
    ]
    host = load_calibration("fa1").values()["host"] * 1e-6
    rounds = [(time - host) / (by_heads[0] - host) for time in by_heads]
    assert rounds == pytest.approx([1, 2, 2, 2, 3])
    assert total(call(8192, 1, 128, 64), "a100-sxm-80gb", "flash1") < 0.65 * by_heads[2]  # heads cut over the cores


def test_both_passes_are_the_sum() -> None:
    for device, kernel in (("a100-sxm-80gb", "flash2"), ("h100-sxm5", "flash2"), ("a100-sxm-80gb", "xformers")):
        calls = call(4096, 4, 16, 128, causal=True)
        apart = total(calls, device, kernel) + total(calls, device, kernel, BACKWARD)
        assert total(calls, device, kernel, BOTH) == pytest.approx(apart)


def test_synchronous_matrix_instructions_are_slower_on_hopper() -> None:
    """The same constants: only the matrix part shrinks from A100 to H100, by rate, cores and clock."""
    bare = {"matrix": 1.0, "operands": 1e-12, "instructions": 1e-12, "item": 1e-12}
    calls = call(16384, 1, 16, 128)
    a100, h100 = (total(calls, device, "xformers", **bare) for device in ("a100-sxm-80gb", "h100-sxm5"))
    faster = (132 * 1.83e9 * 4096 * SYNC_SHARE["hopper"]) / (108 * 1.41e9 * 2048)
    assert a100 / h100 == pytest.approx(faster, rel=0.02)  # waves differ a little


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dropout", [False, True])
def test_bytes_per_pair_are_those_of_the_eager_schedule(causal: bool, dropout: bool) -> None:
    """The scores' bytes that the formula charges are what the catalogue's launches move."""
    shape = Shape(2, 3, 3, 64, 64)
    settings = {"dropout": dropout, "mask_kernel": "matrix" if causal else "none"}
    for phase, kernel in (("prefill", "unfused"), ("backward", "unfused-backward")):
        problem = Attention(shape, bind(parse_mask("full"), Grid((512,), (512,))), Types(), phase=phase)
        kept = settings if phase == "prefill" else {"dropout": dropout}
        schedule = make_schedule(problem, None, kernel, settings=kept)
        scores = sum(
            (m.read_elements + m.write_elements) * m.bits // 8
            for m in schedule.traffic.moved
            if m.tensor.split("_")[0] in ("S", "P", "dP", "dS", "Z")
        )
        products = unfused.PRODUCTS if phase == "prefill" else unfused.PRODUCTS_BACKWARD
        softmax = unfused.SOFTMAX if phase == "prefill" else unfused.SOFTMAX_BACKWARD
        charged = products + softmax + unfused.DROPOUT * dropout
        charged += unfused.MASK * (causal and phase == "prefill")
        assert scores == charged * 6 * 512 * 512, (phase, settings)


def test_breakdown_sums_and_stays_above_the_floor() -> None:
    mask = bind(parse_mask("causal"), Grid((4096,), (4096,)))
    for device, kernel in (("h100-sxm5", "cudnn"), ("h100-sxm5", "flash2"), ("h100-sxm5", "triton"),
                           ("a100-sxm-80gb", "xformers"), ("a100-sxm-80gb", "unfused"), ("a100-sxm-40gb", "flash1")):  # fmt: skip
        for phase in ("prefill", "backward"):
            problem = Attention(Shape(4, 16, 16, 128, 128), mask, Types(), phase=phase)
            name = kernel if phase == "prefill" else f"{kernel}-backward"
            if phase == "backward" and kernel not in ("flash2", "unfused"):
                continue
            made = expected_time(make_schedule(problem, load_device(device), name), load_device(device))
            flop = problem.counts().pairs * 4 * 128 * (2.5 if phase == "backward" else 1)
            assert made.time_s == pytest.approx(sum(made.breakdown.values()))
            assert made.time_s > flop / load_device(device).peak_flop_per_s("bf16")


@pytest.mark.parametrize(
    ("calls", "kernel", "device", "work", "why"),
    [
        (call(1, n_kv=4096), "cudnn", "h100-sxm5", FORWARD, "self-attention"),
        (call(1, n_kv=4096), "unfused", "h100-sxm5", FORWARD, "self-attention"),
        (call(4096, d=256), "cudnn", "h100-sxm5", FORWARD, "head sizes up to 128"),
        (call(4096), "cudnn", "h100-sxm5", BACKWARD, "forward pass only"),
        (call(4096), "cudnn", "a100-sxm-80gb", FORWARD, "hopper only"),
        (call(4096), "cudnn", "h100-sxm5", Work(dropout=True), "without dropout"),
        (call(4096), "flash2", "a100-sxm-80gb", Work(dropout=True), "without dropout"),
        (call(4096), "unfused", "a100-sxm-80gb", Work(padding=True), "without padding"),
        (call(4096), "flash3", "h100-sxm5", BACKWARD, "no calibration"),
        (call(4096), "flex", "h100-sxm5", FORWARD, "no calibration"),
    ],
)
def test_nothing_is_said_beyond_the_data(calls: Calls, kernel: str, device: str, work: Work, why: str) -> None:
    with pytest.raises(AbsentError, match=why):
        expected_parts(calls, load_device(device), kernel, work=work)


def test_windows_and_frameworks_are_refused() -> None:
    device = load_device("h100-sxm5")
    wide = Calls.of(
        {"batch": [1], "heads": [1], "kv_heads": [1], "head_dim": [64], "n_q": [512], "n_kv": [512], "left": [63]}
    )
    with pytest.raises(AbsentError, match="full and causal"):
        expected_parts(wide, device, "cudnn")
    assert math.isfinite(float(total_s(expected_parts(call(512), device, "cudnn"))[0]))
    assert call(512).left[0] == UNBOUNDED
    with pytest.raises(AbsentError, match="vllm"):
        expected_parts(call(512), device, "cudnn", "vllm")


def test_flash2_has_a_family_per_architecture() -> None:
    families = {
        name: calibration_of("flash2", load_device(name)).family for name in ("a100-sxm-80gb", "h100-sxm5", "l40s")
    }
    assert families == {"a100-sxm-80gb": "fa2", "h100-sxm5": "fa2-hopper", "l40s": "fa2"}


def test_many_calls_are_one_by_one() -> None:
    device = load_device("h100-sxm5")
    apart = [call(n, 1, 16, d, causal) for n in (512, 777, 4096) for d in (64, 128) for causal in (False, True)]
    joined = Calls(**{name: np.concatenate([getattr(c, name) for c in apart]) for name in Calls.__dataclass_fields__})
    for kernel, work in (("flash2", BOTH), ("cudnn", FORWARD), ("unfused", BOTH)):
        together = total_s(expected_parts(joined, device, kernel, work=work))
        alone = [float(total_s(expected_parts(c, device, kernel, work=work))[0]) for c in apart]
        assert together.tolist() == pytest.approx(alone)
