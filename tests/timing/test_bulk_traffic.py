"""Array formulas against the scalar rooms they repeat: floors, compulsory bytes, main-memory bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iosim.attention import Attention, Shape, Types
from iosim.cache.closed_form import hbm_traffic
from iosim.floors import time_floor
from iosim.floors.compulsory import compulsory_bytes as scalar_bytes
from iosim.kernels import make_schedule
from iosim.machine import load_device
from iosim.masks import Grid, bind, parse_mask
from iosim.timing.calls import Calls, calls_of
from iosim.timing.families import FAMILIES, calibration_of
from iosim.timing.rates import rates_of
from iosim.timing.traffic import compulsory_bytes, floors_s, useful_flop
from iosim.validate.predicting import predict_rows
from iosim.validate.rows import KEYS


@st.composite
def problems(draw: st.DrawFn) -> Attention:
    kv_heads = draw(st.integers(1, 4))
    shape = Shape(
        draw(st.integers(1, 9)), kv_heads * draw(st.integers(1, 4)), kv_heads, draw(st.sampled_from([64, 128])),
        draw(st.sampled_from([64, 128])),
    )  # fmt: skip
    n_q = draw(st.integers(1, 300))
    n_kv = n_q + draw(st.sampled_from([0, 0, 1, 7, 400]))
    text = draw(st.sampled_from(["full", "causal", "window:1", "window:2", "window:17", "window:256", "window:9999"]))
    mask = bind(parse_mask(text), Grid((n_q,), (n_kv,)))
    kv = draw(st.sampled_from(["bf16", "fp8"]))
    return Attention(shape, mask, Types.of("bf16", kv), phase="prefill")


def calls(problem: Attention) -> Calls:
    return calls_of(Attention(problem.shape, problem.mask, Types(), phase="prefill"))


@given(problems(), st.booleans())
@settings(deadline=None, max_examples=200)
def test_floors_equal_the_scalar_ones(problem: Attention, warm: bool) -> None:
    device = load_device("h100-sxm5")
    one = calls(problem)
    assert useful_flop(one)[0] == problem.flop()
    read, written = compulsory_bytes(one, problem.types.q, problem.types.kv)
    assert (read[0], written[0]) == scalar_bytes(problem)
    floor = time_floor(problem, device, warm).time_s
    assert floors_s(one, device, problem.types.q, problem.types.kv, warm)[0] == pytest.approx(floor, rel=1e-14)


BOARDS = {
    "flash3": ("h100-sxm5",),
    "flash2": ("a100-sxm-80gb", "l40s", "rtx-pro-6000-blackwell"),
    "flash2-decode": ("a100-sxm-80gb", "l40s"),
    "trtllm": ("b200-sxm",),
    "trtllm-decode": ("b200-sxm",),
}


@st.composite
def modelled(draw: st.DrawFn) -> tuple[str, str, Attention]:
    """A kernel with a time model, a board, a call; FlashAttention-3 packs some heads that a schedule is told to."""
    kernel = draw(st.sampled_from(sorted(BOARDS)))
    decode = kernel.endswith("decode")
    kv_heads, group = draw(st.sampled_from([1, 2, 8])), 1 if kernel == "flash3" else draw(st.sampled_from([1, 2, 8]))
    n_kv = draw(st.sampled_from([100, 512, 1000, 5000, 16384, 65536]))
    n_q = 1 if decode else draw(st.sampled_from([n_kv, n_kv // 3 + 1]))
    text = draw(st.sampled_from(["full", "causal", "window:100", "window:1024", "window:4096"]))
    shape = Shape(
        draw(st.sampled_from([1, 2, 7, 32])), kv_heads * group, kv_heads, *[draw(st.sampled_from([64, 128]))] * 2
    )
    mask = bind(parse_mask(text), Grid((n_q,), (n_kv,)))
    board = draw(st.sampled_from(BOARDS[kernel]))
    return kernel, board, Attention(shape, mask, phase="decode" if decode else "prefill")


@given(modelled(), st.booleans())
@settings(deadline=None, max_examples=120)
def test_main_memory_equals_the_closed_form(call: tuple[str, str, Attention], warm: bool) -> None:
    kernel, name, problem = call
    board = load_device(name)
    schedule = make_schedule(problem, board, kernel)
    expected = hbm_traffic(schedule, board, warm)
    assert expected is not None
    words = (name, kernel, problem.phase, "bf16", "", str(problem.mask), "warm" if warm else "cold", "", "")
    shape = problem.shape
    numbers = {
        "batch": shape.batch, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "seq_q": problem.n_q, "seq_kv": problem.n_kv,
    }  # fmt: skip
    row = predict_rows([dict(zip(KEYS, words, strict=True)) | numbers])[0]
    assert row["status"] == "ok"
    assert row["hbm_read_bytes"] == pytest.approx(expected.traffic.read_bytes, rel=1e-6)
    assert row["hbm_write_bytes"] == pytest.approx(expected.traffic.write_bytes, rel=1e-6)
    assert str(row["method"]).partition(",")[0].replace("last cache", "l2") in expected.method or not expected.exact


@pytest.mark.parametrize("kernel", sorted(BOARDS))
def test_tiles_without_a_framework_are_the_kernel_files_own(kernel: str) -> None:
    """The time model and the schedules must not drift apart: same tile and packing for the same call."""
    decode = kernel.endswith("decode")
    for name in BOARDS[kernel]:
        device = load_device(name)
        family = FAMILIES[calibration_of(kernel, device).family]
        for head_dim in (64, 96, 128, 192, 256):
            for text in ("full", "causal", "window:1024"):
                n_q = 1 if decode else 4096
                mask = bind(parse_mask(text), Grid((n_q,), (4096,)))
                problem = Attention(Shape(4, 16, 8, head_dim, head_dim), mask, phase="decode" if decode else "prefill")
                tile = make_schedule(problem, device, kernel).tiling
                made = family.plan(calls_of(problem), rates_of(device), "none")
                own = (tile.rows, tile.cols, tile.group)
                assert (made.rows[0], made.keys[0], made.packed[0]) == own, (kernel, name, head_dim, text)


def test_bytes_beyond_64_bits_are_counted_one_by_one() -> None:
    big = {"batch": 10**9, "heads": 10**5, "kv_heads": 10**5, "head_dim": 128, "seq_q": 10**6, "seq_kv": 10**6}
    words = ("h100-sxm5", "flash3", "prefill", "bf16", "", "causal", "cold", "", "")
    row = predict_rows([dict(zip(KEYS, words, strict=True)) | big])[0]
    problem = Attention(Shape(10**9, 10**5, 10**5, 128, 128), bind(parse_mask("causal"), Grid((10**6,), (10**6,))))
    device = load_device("h100-sxm5")
    expected = hbm_traffic(make_schedule(problem, device, "flash3"), device)
    assert expected is not None
    assert expected.traffic.write_bytes == 10**20 * (256 + 4) > 2**63
    assert (row["hbm_read_bytes"], row["hbm_write_bytes"]) == (
        expected.traffic.read_bytes,
        expected.traffic.write_bytes,
    )


def test_counts_beyond_64_bits_stay_finite() -> None:
    big = Calls.of({name: [10**9] for name in ("batch", "heads", "kv_heads", "head_dim", "n_q", "n_kv")})
    assert np.isfinite(floors_s(big, load_device("h100-sxm5"), "bf16", "bf16", False)).all()
