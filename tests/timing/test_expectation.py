"""The expectation: parts that sum, constants that mean something, silence where nothing is calibrated."""

from __future__ import annotations

import math

import numpy as np
import pytest

from iosim.attention import Attention, Shape, Types
from iosim.errors import AbsentError, UsageError
from iosim.floors import time_floor
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.masks import Grid, bind, parse_mask
from iosim.timing import expectation, expected_time
from iosim.timing.calls import Calls
from iosim.timing.constants import load_calibration
from iosim.timing.families import FAMILIES, expected_parts
from iosim.timing.parts import total_s

BOARDS = [("a100-sxm-80gb", "flash2"), ("h100-sxm5", "flash3"), ("b200-sxm", "trtllm"), ("l40s", "flash2")]


def call(n_q: int = 4096, n_kv: int = 4096, batch: int = 1, heads: int = 32, kv_heads: int = 8, d: int = 128) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": d, "n_q": n_q, "n_kv": n_kv}
    return Calls.of({name: [number] for name, number in numbers.items()})


def problem(text: str = "causal", n: int = 4096, types: Types | None = None, phase: str = "prefill") -> Attention:
    n_q = 1 if phase == "decode" else n
    return Attention(
        Shape(1, 32, 8, 128, 128), bind(parse_mask(text), Grid((n_q,), (n,))), types or Types(), phase=phase
    )


@pytest.mark.parametrize("family", list(FAMILIES))
def test_constants_are_few_and_each_has_meaning_unit_and_interval(family: str) -> None:
    calibration = load_calibration(family)
    assert len(calibration.constants) <= 20
    assert calibration.rows > 1000
    for constant in calibration.constants:
        assert constant.meaning
        assert constant.unit
        assert 0 < constant.low <= constant.value <= constant.high, constant
        assert constant.high < 4 * constant.low, f"{constant.name} of {family} is not known from its data"


@pytest.mark.parametrize(("board", "kernel"), BOARDS)
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_breakdown_sums_to_the_expectation_above_the_floor(board: str, kernel: str, phase: str) -> None:
    device, what = load_device(board), problem(phase=phase)
    schedule = make_schedule(what, device, kernel if phase == "prefill" else "split-kv")
    for warm in (False, True):
        made = expected_time(schedule, device, warm)
        assert made.time_s == pytest.approx(sum(made.breakdown.values()))
        assert made.time_s > time_floor(what, device, warm).time_s
        assert f"{made.bottleneck}_s" in made.breakdown
    cold, warm_time = expected_time(schedule, device, False), expected_time(schedule, device, True)
    assert cold.time_s >= warm_time.time_s


@pytest.mark.parametrize(("board", "kernel"), BOARDS)
def test_more_work_takes_longer(board: str, kernel: str) -> None:
    device = load_device(board)

    def time(c: Calls, framework: str = "vllm") -> float:
        return float(total_s(expected_parts(c, device, kernel, framework))[0])

    assert time(call(batch=8)) > time(call(batch=1))
    assert time(call(n_q=16384, n_kv=16384)) > time(call())
    assert time(call(n_q=1, n_kv=131072, batch=16)) > time(call(n_q=1, n_kv=1024, batch=16))
    assert time(call()) > time(call(), "none")  # the framework writes the cache


def test_one_call_and_many_calls_are_the_same_formulas() -> None:
    device = load_device("h100-sxm5")
    shapes = [call(n, n) for n in (64, 700, 4096)] + [call(1, n) for n in (9, 5000)]
    columns = {name: np.concatenate([getattr(c, name) for c in shapes]) for name in Calls.__dataclass_fields__}
    together = total_s(expected_parts(Calls(**columns), device, "flash3", "vllm"))
    apart = [float(total_s(expected_parts(c, device, "flash3", "vllm"))[0]) for c in shapes]
    assert together.tolist() == pytest.approx(apart)


def test_the_published_steps_of_the_split_rule() -> None:
    """H100 under vLLM, one head: 12,288 tokens 110 us, 16,384 tokens 223 us, since the kernel stops splitting."""
    device = load_device("h100-sxm5")
    times = [
        float(total_s(expected_parts(call(n, n, heads=1, kv_heads=1), device, "flash3", "vllm"))[0]) * 1e6
        for n in (12288, 16384)
    ]
    assert times == pytest.approx([109.6, 222.5], rel=0.08)


def test_decode_knows_warm_and_cold() -> None:
    """H100, 8 heads of one sequence: 33 MB of keys and values stay in the cache, 67 MB do not (20 us, 41 us)."""
    device = load_device("h100-sxm5")
    times = [
        float(total_s(expected_parts(call(1, n, heads=8, kv_heads=8), device, "flash3", "vllm"))[0]) * 1e6
        for n in (8192, 16384)
    ]
    assert times == pytest.approx([20.0, 41.1], rel=0.15)  # just past the cache the model is 14 % too fast


@pytest.mark.parametrize(
    ("board", "kernel", "what", "why"),
    [
        ("b200-sxm", "flash2", problem(), "calibrated on"),
        ("h100-sxm5", "flex", problem(), "no calibration for the kernel"),
        ("v100-sxm2-32gb", "flash2", problem(), "calibrated on"),
        ("h100-sxm5", "flash3", problem("prefix:100"), "full, causal and window"),
        ("h100-sxm5", "flash3", problem(types=Types.of("fp8")), "16-bit"),
    ],
)
def test_nothing_is_guessed(board: str, kernel: str, what: Attention, why: str) -> None:
    device = load_device(board)
    made, reason = expectation(make_schedule(what, device, kernel), device)
    assert made is None
    assert why in reason


def test_frameworks_are_checked() -> None:
    device = load_device("a100-sxm-80gb")
    with pytest.raises(UsageError, match="unknown framework"):
        expected_parts(call(), device, "flash2", "pytorch")
    with pytest.raises(AbsentError, match="not modelled"):
        expected_parts(call(), device, "flash2", "trtllm")


def test_kernel_orders_on_h100_and_a100_are_those_published() -> None:
    """FlashAttention-3 runs 16k full attention of head size 128 at 640 to 660 TFLOP/s on H100 (its figure 5)."""
    device = load_device("h100-sxm5")
    flop = 4 * 16384**2 * 128 * 16
    seconds = expected_time(
        make_schedule(
            Attention(Shape(1, 16, 16, 128, 128), bind(parse_mask("full"), Grid((16384,), (16384,)))), device, "flash3"
        ),
        device,
    ).time_s
    assert math.isclose(flop / seconds / 1e12, 650, rel_tol=0.1)
