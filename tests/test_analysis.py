"""The report as a whole: what must hold for every call on every device."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iosim
from iosim.analysis import analyze, device_memory, multicast
from iosim.cache.replay_options import ReplayOptions
from iosim.errors import UsageError
from iosim.kernels import make_schedule
from iosim.machine import device_names, load_device
from iosim.masks import Tiling
from iosim.report import Options
from iosim.timing import roofline_of

H100 = iosim.device("h100-sxm5")
QUICK = Options(replay=ReplayOptions(closed_form=True))

shapes = st.fixed_dictionaries(
    {
        "group": st.sampled_from([1, 2, 8]),
        "kv_heads": st.integers(1, 4),
        "head_dim": st.sampled_from([32, 64, 96, 128]),
        "batch": st.integers(1, 3),
        "seq_kv": st.integers(1, 3000),
        "ahead": st.integers(0, 500),
        "mask": st.sampled_from(["full", "causal", "window:128", "window:500,sink=4"]),
        "dtype": st.sampled_from(["bf16", "fp16", "fp8"]),
    }
)


def call(shape: dict) -> iosim.Attention:
    return iosim.problem(
        heads=shape["group"] * shape["kv_heads"], kv_heads=shape["kv_heads"], head_dim=shape["head_dim"],
        batch=shape["batch"], seq=max(1, shape["seq_kv"] - shape["ahead"]), seq_kv=shape["seq_kv"],
        mask=shape["mask"], dtype=shape["dtype"],
    )  # fmt: skip


@pytest.mark.parametrize(("rows", "clusters"), [(64, 1), (128, 1), (192, 2), (250, 2), (256, 2), (320, 3)])
def test_items_of_a_cluster_share_their_reads(rows: int, clusters: int) -> None:
    """Pairs of Q tiles of 64 rows, the last one alone where they are odd: K and V once per pair, Q and O per tile."""
    asked = iosim.problem(heads=3, head_dim=64, batch=2, seq=rows, seq_kv=1000)
    schedule = make_schedule(asked, H100, "flash3", Tiling((64,), (128,)), {"cluster": 2})
    moved = {m.tensor: (m.read_elements, m.write_elements) for m in multicast(schedule).moved}
    heads = 2 * 3
    assert moved == {
        "Q": (heads * rows * 64, 0), "K": (heads * clusters * 1000 * 64, 0), "V": (heads * clusters * 1000 * 64, 0),
        "O": (0, heads * rows * 64), "LSE": (0, heads * rows),
    }  # fmt: skip


@settings(max_examples=30)
@given(shapes, st.booleans())
def test_no_kernel_is_below_a_floor_of_its_class(shape: dict, replayed: bool) -> None:
    report = analyze(call(shape), H100, options=Options() if replayed else QUICK)
    for kernel in report.kernels:
        for at in kernel.boundaries:
            assert at.gap("any") >= at.gap("standard") >= at.gap("standard-once") >= 1
        core, l2, hbm = (kernel.boundary(name).total_bytes for name in ("core", "l2", "hbm"))
        assert hbm <= 1.001 * l2 <= 1.001 * core
        longest = max(time for time in kernel.ceilings.times_s.values() if time is not None)
        assert report.floor is not None
        assert longest >= report.floor.time_s * (1 - 1e-9)


@settings(max_examples=20)
@given(shapes)
def test_the_floor_is_the_same_for_every_kernel_and_falls_when_warm(shape: dict) -> None:
    cold, warm = (
        analyze(call(shape), H100, options=QUICK),
        analyze(call(shape), H100, options=dataclasses.replace(QUICK, warm=True)),
    )
    assert len({kernel.floor for kernel in cold.kernels}) == 1
    assert cold.floor is not None
    assert warm.floor is not None
    assert warm.floor.time_s <= cold.floor.time_s
    for before, after in zip(cold.kernels, warm.kernels, strict=True):
        assert after.boundary("hbm").floors.any_bytes <= before.boundary("hbm").floors.any_bytes


@settings(max_examples=20)
@given(shapes, st.integers(2, 5))
def test_twice_the_rates_take_half_the_time(shape: dict, factor: int) -> None:
    """Dimensional check: multiply every rate by k and every time falls by k."""

    def faster(rate: float | None) -> float | None:
        return None if rate is None else rate * factor

    quick = dataclasses.replace(
        H100,
        max_clock_hz=faster(H100.max_clock_hz),
        clock_hz=faster(H100.clock_hz),
        levels=tuple(
            dataclasses.replace(
                level,
                bandwidth_bytes_per_s=faster(level.bandwidth_bytes_per_s),
                measured_bytes_per_s=faster(level.measured_bytes_per_s),
            )
            for level in H100.levels
        ),
        units=tuple(dataclasses.replace(unit, peak_op_per_s=faster(unit.peak_op_per_s)) for unit in H100.units),
    )
    slow_report, quick_report = (analyze(call(shape), device, options=QUICK) for device in (H100, quick))
    assert quick_report.floor.time_s * factor == pytest.approx(slow_report.floor.time_s)
    for slow, fast in zip(slow_report.kernels, quick_report.kernels, strict=True):
        for name, time in slow.ceilings.times_s.items():
            assert fast.ceilings.times_s[name] * factor == pytest.approx(time)


@pytest.mark.parametrize("name", device_names())
def test_every_device_answers_or_says_what_is_missing(name: str) -> None:
    """A device file may lack facts; the report then says so instead of failing, as far as a floor exists."""
    device = load_device(name)
    missing: list[str] = []
    try:
        report = analyze(iosim.problem(seq=1024), device, ["flash2"], QUICK)
    except iosim.IosimError as error:
        told = error.faults[0].hint
    else:
        told = str(report)
        kernel = report.kernels[0]
        missing = [at.name for at in kernel.boundaries if at.floors is None]
    assert told
    assert all(f"no floors at {boundary}" in told for boundary in missing)


def test_a_kernel_without_a_log_sum_exp_has_no_gap_where_it_is_an_output() -> None:
    """Its bytes would lie under the floor, which counts an output it never writes."""
    report = analyze(iosim.problem(seq=512), H100, ["unfused", "flash2"], dataclasses.replace(QUICK, lse_output=True))
    unfused, flash = report.kernels
    assert all(at.gap("any") is None for at in unfused.boundaries)
    assert all(at.gap("any") >= 1 for at in flash.boundaries)
    assert any(note.startswith("unfused: no gap") for note in report.assumptions)


def test_the_time_floor_by_hand() -> None:
    """Llama-3-8B prefill of 8,192 on an H100: pairs n (n + 1) / 2, 32 heads, 4 d FLOP each; 132 SMs at 1.98 GHz."""
    floor = analyze(iosim.problem("llama-3-8b", seq=8192), H100, ["flash2"], QUICK).floor
    flop = 32 * 4 * 128 * (8192 * 8193 // 2)
    peak = 132 * 4096 * 1.98e9
    read = 2 * 128 * (32 * 8191 + 8 * 8192 + 8 * 8192)  # the first query sees one key, so its Q is not needed
    assert (floor.flop, floor.read_bytes, floor.write_bytes) == (flop, read, 2 * 128 * 32 * 8192)
    assert floor.time_s == pytest.approx(flop / peak)
    assert floor.memory_s == pytest.approx((floor.read_bytes + floor.write_bytes) / 3.35e12)


def test_a_result_is_the_report() -> None:
    report = iosim.analyze(iosim.problem(seq=1024), H100, kernels=["flash2", "flash3"], measured="1.3ms")
    assert "No kernel can take less than" in str(report)
    assert "at most" in str(report)
    assert report._repr_html_().startswith("<div>")
    frame = report.to_frame()
    assert list(frame["boundary"]) == ["core", "l2", "hbm"] * 2
    assert report.plot().axes
    assert report.to_dict()["speedup_upper_bound"] == pytest.approx(1.3e-3 / report.floor.time_s)


def test_a_setting_that_no_kernel_has_is_refused() -> None:
    with pytest.raises(UsageError, match="no parameter"):
        iosim.analyze(iosim.problem(seq=256), H100, kernels=["flash2"], settings={"splitz": 2})


def test_roofline_is_the_lower_of_its_ceilings() -> None:
    flop = 10**12
    roofline = roofline_of(H100, "bf16", flop, [("k", "hbm", 10**9), ("k", "hbm", 10**11), ("k", "core", 10**10)])
    peak = H100.sustained_flop_per_s("bf16")
    rate = H100.bandwidth_bytes_per_s("hbm")
    assert [point.intensity_flop_per_byte for point in roofline.points] == [1000, 10, 100]
    assert roofline.points[0].attainable_flop_per_s == peak
    assert roofline.points[1].attainable_flop_per_s == pytest.approx(10 * rate)
    for boundary in ("core", "l2", "hbm"):
        memory = device_memory(H100, boundary)
        assert memory.bits > 0
