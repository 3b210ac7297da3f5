"""What fits a core, level by level, and hints that work: the largest tile, the parameter that is too large."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import pytest
from test_counts import problem, tile
from test_named_kernels import HEAD, ONLY, OWN

from iosim.errors import UsageError
from iosim.kernels import ALGORITHMS, kernel_names, load_kernel, make_schedule
from iosim.kernels.algorithm import Parameter, total_sums
from iosim.kernels.fitting import lacks
from iosim.kernels.scheduling import prepare
from iosim.machine import load_device
from iosim.masks import Tiling, parse_tile
from iosim.schedule import Schedule

H100 = "h100-sxm5"
ASCEND = "ascend-910b2"
ARRAY = "fusemax-cloud"


def refused(call: tuple[object, ...]) -> tuple[str, str, str]:
    """(what, where, hint) of a call that is refused."""
    with pytest.raises(UsageError) as caught:
        make_schedule(*call)  # type: ignore[arg-type]
    fault = caught.value.faults[0]
    return fault.what, fault.where, fault.hint


def proposed(hint: str) -> Tiling:
    found = re.search(r"the largest that fits is (\d+x\d+)", hint)
    assert found, hint
    return parse_tile(found[1])


# --- parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "name", "most"),
    [("flash4", "software_exp", 128), ("unfused", "passes", 3), ("unfused-backward", "passes", 3),
     ("three-pass-array", "passes", 3), ("flash3", "cluster", 16), ("flash-v100", "threads", 1024),
     ("split-kv", "scale_bits", 64), ("fast-attention", "mask_bits", 64), ("fixed-state", "state_bits", 64)],
)  # fmt: skip
def test_a_parameter_has_a_natural_maximum(kernel: str, name: str, most: int) -> None:
    algorithm = load_kernel(kernel).algorithm
    assert algorithm.settings({name: most})[name] == most
    with pytest.raises(UsageError, match=f"{name} must be at most {most}, got {most + 1}") as caught:
        algorithm.settings({name: str(most + 1)})
    assert "to" in caught.value.faults[0].hint


def test_no_share_of_exponentials_makes_a_ceiling_negative() -> None:
    asked = problem(512, 512, 128)
    work = make_schedule(asked, None, "flash4", settings={"software_exp": 128}).work
    assert 0 <= work.exp_software <= work.exp


def every_parameter() -> list[tuple[str, Parameter]]:
    return [(name, parameter) for name, made in sorted(ALGORITHMS.items()) for parameter in made.parameters]


def test_defaults_lie_within_the_limits_of_their_parameters() -> None:
    for name, parameter in every_parameter():
        if isinstance(parameter.default, int) and not isinstance(parameter.default, bool):
            assert parameter.most is None or parameter.least <= parameter.most, name
            assert parameter.most is None or parameter.default <= parameter.most, name


# --- levels of a core ---------------------------------------------------------------------------


def test_accumulators_are_compared_with_the_register_file() -> None:
    """448 x (64 + 128 + 2) words of 4 bytes are 339.5 KiB: less than 512 KiB in all, more than 256 KiB of registers."""
    asked, device = problem(4096, 4096, 128, heads=8), load_device(H100)
    what, where, hint = refused((asked, device, "flash2", tile(448, 64)))
    assert "339.5 KiB of 256 KiB registers" in what
    assert where == "--tile"
    assert str(proposed(hint)) == "336x64"
    fits = make_schedule(asked, device, "flash2", tile(336, 64)).working_set.register_bytes
    assert fits <= 256 * 1024 < fits + 16 * (64 + 128 + 2) * 4


def test_second_level_blocks_are_compared_with_the_buffers_that_hold_them() -> None:
    """910B2: 64 KiB of L0A and L0B, 128 KiB of L0C, 192 KiB of UB in each of two vector cores."""
    asked, device = problem(4096, 4096, 128, heads=4), load_device(ASCEND)
    held = dict(make_schedule(asked, device, "fast-attention").working_set.levels)
    kib = 1024
    assert held == {
        "l0a": 2 * 128 * 128 * 2,
        "l0b": 2 * 128 * 128 * 2,
        "l0c": 128 * (128 + 128) * 4,
        "ub": 128 * (128 + 2) * 4 + 128 * 128 * (4 + 2),
    }
    assert held["l0c"] == 128 * kib
    what, _, hint = refused((asked, device, "fast-attention", tile(256, 256), {"block": 256}))
    assert "384 KiB of 128 KiB L0C" in what
    assert "block=128" in hint
    make_schedule(asked, device, "fast-attention", tile(256, 256), {"block": 128})
    make_schedule(asked, device, "fast-attention", proposed(hint), {"block": 256})


@pytest.mark.parametrize(
    ("extents", "settings", "d", "words"),
    [((16, 256), {"block": 256}, 128, r"128 KiB of 64 KiB L0B"),
     ((128, 16), {"block": 256, "stages": 1}, 256, r"128 KiB of 64 KiB L0A"),
     ((128, 512), {}, 128, r"544 KiB of 512 KiB L1"),
     ((672, 16), {"block": 128}, 128, r"of 384 KiB UB")],
)  # fmt: skip
def test_each_buffer_of_an_npu_can_be_what_binds(
    extents: tuple[int, int], settings: dict[str, object], d: int, words: str
) -> None:
    asked, device = problem(4096, 4096, d, heads=4), load_device(ASCEND)
    with pytest.raises(UsageError, match=words):
        make_schedule(asked, device, "fast-attention", tile(*extents), settings)


DEVICES = (
    "v100-sxm2-32gb", "t4", "a100-sxm-80gb", "l40s", H100, "b200-sxm", "b300-sxm", "rtx-pro-6000-blackwell", ASCEND,
    "ascend-910a", "ascend-950pr", ARRAY, "mi300x",
)  # fmt: skip
HEADS = ((16, 16), (64, 64), (96, 96), (128, 128), (192, 128), (192, 192), (256, 256), (576, 512))


@pytest.mark.parametrize("name", kernel_names())
def test_a_kernels_own_tiles_fit_every_level_of_the_devices_they_name(name: str) -> None:
    """A rule that names devices, from the kernel's own table, is never shrunk: the working set would be wrong."""
    kernel = load_kernel(name)
    for device in map(load_device, DEVICES):
        for d, d_v in HEADS:
            for phase in kernel.algorithm.phases:
                n_q, mask = 1 if phase == "decode" else 512, ONLY.get(kernel.algorithm.name, ("causal",))[0]
                n_kv, latent = 4096 if phase == "decode" else 512, d == 576
                asked = problem(n_q, n_kv, d, d_v, mask, 64, 2, phase=phase, latent=latent)
                try:
                    rule = kernel.rule(asked, device)
                except UsageError:
                    continue
                if rule.assumed or not (rule.architectures or rule.capabilities):
                    continue
                made = make_schedule(asked, device, kernel)
                assert str(made.tiling) == str(rule.tiling), (device.key, d, phase)
                assert lacks(made.working_set, device) is None


# --- hints --------------------------------------------------------------------------------------


def test_square_tiling_is_offered_a_square_tile() -> None:
    """One block of B^2 + 1 words in 256 KiB of registers: B = 255."""
    asked, device = problem(4096, 4096, 64), load_device(H100)
    _, _, hint = refused((asked, device, "square-tiling", tile(1024, 1024)))
    assert str(proposed(hint)) == "255x255"
    make_schedule(asked, device, "square-tiling", proposed(hint))
    _, _, hint = refused((asked, device, "square-tiling", tile(2048, 1024)))
    assert str(proposed(hint)) == "255x255"


def test_a_parameter_that_no_tile_makes_up_for_is_named() -> None:
    asked, device = problem(4096, 4096, 128), load_device(H100)
    what, where, hint = refused((asked, device, "unfused", None, {"gemm_tile": 1024}))
    assert "gemm_tile=1024" in what
    assert "4 MiB of 256 KiB registers" in what
    assert (where, hint) == ("--set gemm_tile", "at most 256 fits")
    make_schedule(asked, device, "unfused", None, {"gemm_tile": 256})


def test_tensor_memory_that_a_device_lacks_is_named() -> None:
    asked = problem(4096, 4096, 128)
    what, where, hint = refused((asked, load_device(H100), "flash4", None, {"tensor_memory": True}))
    assert "tensor_memory=true" in what
    assert "128 KiB of tensor memory, of which there is none, on NVIDIA H100" in what
    assert (where, hint) == ("--set tensor_memory", "tensor_memory=false fits")


def test_what_no_tile_fits_says_what_the_least_one_needs() -> None:
    asked = problem(1, 4096, 576, 512, phase="decode")
    what, _, hint = refused((asked, load_device(H100), "fixed-state"))
    assert "1.125 MiB of 256 KiB registers" in what
    assert hint == "no tile fits: 1x1 needs 1.125 MiB of 256 KiB registers"


@pytest.mark.parametrize(("extents", "largest"), [("65536x256", "64272x256"), ("1000000x256", "64272x256")])
def test_the_largest_tile_of_an_array_fills_its_buffer(extents: str, largest: str) -> None:
    """16 MiB, two tiles of 256 x 64 and rows of 130 words, all of 16 bits: 64,274 rows, a multiple of 16 below."""
    asked, device = problem(200_000, 200_000, 64, heads=4), load_device(ARRAY)
    _, _, hint = refused((asked, device, "fusemax", parse_tile(extents)))
    rows = proposed(hint).rows
    assert (16 << 20) - 260 * 16 < 256 * 128 * 2 + rows * 260 <= 16 << 20
    assert str(proposed(hint)) == largest


@pytest.mark.parametrize("name", [name for name in kernel_names() if name != "fixed-state"])  # which has no tile
def test_a_hint_is_a_tile_that_works_and_none_beside_it_does(name: str) -> None:
    """Of the multiples of 16 within the typed tile; tiles of an algorithm that ignores an extent keep it."""
    kernel, device = load_kernel(name), load_device(OWN.get(name, H100))
    phase = "decode" if kernel.algorithm.name == "split-kv" else kernel.algorithm.phases[0]
    mask, d = ONLY.get(kernel.algorithm.name, ("full",))[0], HEAD.get(name, 64)
    asked = problem(1 if phase == "decode" else 4096, 4096, d, mask=mask, heads=8, kv_heads=8, phase=phase)
    typed = tile(1 << 14, 256 if OWN.get(name) == ARRAY else 1 << 14)
    try:
        make_schedule(asked, device, kernel, typed)
    except UsageError as error:
        hint = error.faults[0].hint
    else:
        return
    found = proposed(hint)
    make_schedule(asked, device, kernel, found)
    step = 1 if kernel.algorithm.square else 16
    rows, cols = found.rows + step, found.cols + step
    for larger in (tile(rows, cols),) if kernel.algorithm.square else (tile(rows, found.cols), tile(found.rows, cols)):
        if larger.rows <= typed.rows and larger.cols <= typed.cols:
            with pytest.raises(UsageError):
                make_schedule(asked, device, kernel, larger)


@pytest.mark.parametrize(
    ("kernel", "device", "phase"),
    [("flash2", H100, "prefill"), ("flash2", "t4", "prefill"), ("flash4", "b200-sxm", "prefill"),
     ("flash2-backward", H100, "backward"), ("fast-attention", ASCEND, "prefill"), ("flash-v100", "v100-sxm2-32gb", "prefill"),
     ("two-pass-array", ARRAY, "prefill"), ("three-pass-array", ARRAY, "prefill")],
)  # fmt: skip
def test_no_multiple_of_16_makes_a_larger_tile(kernel: str, device: str, phase: str) -> None:
    """Every pair of extents up to 1024 x 256, tried one by one."""
    asked, on = problem(16384, 16384, 128, mask="causal", heads=2, kv_heads=2, phase=phase), load_device(device)
    settings = {"tensor_memory": True} if device == "b200-sxm" else {}
    made = prepare(asked, on, load_kernel(kernel), tile(1024, 256), settings, None, fit=False).call
    algorithm = load_kernel(kernel).algorithm
    best = max(
        (rows * cols)
        for rows in range(16, 1025, 16)
        for cols in range(16, 257, 16)
        if lacks(algorithm.working_set(replace(made, tiling=tile(rows, cols))), on) is None
    )
    _, _, hint = refused((asked, on, kernel, tile(1024, 256), settings))
    assert proposed(hint).rows * proposed(hint).cols == best


@pytest.mark.parametrize(
    ("heads", "extents"), [(8, "8x128"), (16, "16x128"), (32, "16x128"), (64, "64x128"), (128, "64x128")]
)
def test_latents_on_blackwell_take_the_tiles_of_the_released_selection(heads: int, extents: str) -> None:
    """flashinfer's fmhaKernels.cuh, selectMlaGenerationKernel: 8, 16 or 64 heads, never 128."""
    asked = problem(1, 4096, 576, 512, heads=heads, kv_heads=1, phase="decode", latent=True)
    made = make_schedule(asked, load_device("b200-sxm"), "trtllm-decode")
    assert str(made.tiling) == extents
    assert lacks(made.working_set, load_device("b200-sxm")) is None


def test_pages_and_the_key_tile_of_a_hint_divide() -> None:
    asked = problem(1, 8192, 128, heads=8, kv_heads=8, phase="decode")
    _, _, hint = refused((asked, load_device(H100), "split-kv", tile(64, 4096), {"page_size": 64}))
    make_schedule(asked, load_device(H100), "split-kv", proposed(hint), {"page_size": 64})


def test_an_enormous_tile_is_refused_at_once() -> None:
    start = time.perf_counter()
    refused((problem(4096, 4096, 128), load_device(H100), "flash2", tile(10**12 - 1, 10**12 - 1)))
    refused((problem(4096, 4096, 64), load_device(ARRAY), "fusemax", tile(10**12 - 1, 10**12 - 1)))
    assert time.perf_counter() - start < 1


# --- clusters -----------------------------------------------------------------------------------


def clustered(device: str | None, cluster: int) -> Schedule:
    asked = problem(4096, 4096, 128, heads=8)
    return make_schedule(asked, load_device(device) if device else None, "flash3", tile(128, 64), {"cluster": cluster})


def test_clusters_need_a_device_that_has_them() -> None:
    """CUDA's programming guide: thread block clusters from compute capability 9.0, of 8, or 16 where allowed."""
    for device in ("a100-sxm-80gb", "l40s", "v100-sxm2-32gb"):
        with pytest.raises(UsageError, match="has no clusters") as caught:
            clustered(device, 4)
        assert caught.value.faults[0].where == "--set cluster"
        assert "9.0" in caught.value.faults[0].hint
        assert clustered(device, 1).multicast == 1
    assert clustered(H100, 4).multicast == clustered("mi300x", 4).multicast == clustered(None, 4).multicast == 4
    with pytest.raises(UsageError, match="at most 16, got 64"):
        clustered(H100, 64)


def test_a_cluster_above_eight_is_told() -> None:
    assert not any("portable" in note for note in clustered(H100, 8).notes)
    assert any("cluster of 16" in note and "portable" in note for note in clustered(H100, 16).notes)


# --- speed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["two-pass-array", "three-pass-array"])
def test_a_long_call_is_fitted_without_counting_it_for_each_tile(name: str) -> None:
    """131,072 causal tokens; three times a budget of one millisecond, for a busy machine."""
    kernel, device = load_kernel(name), load_device(ARRAY)
    asked = problem(131_072, 131_072, 64, mask="causal", heads=8, kv_heads=8)
    times = []
    for _ in range(9):
        total_sums.cache_clear()
        start = time.perf_counter()
        make_schedule(asked, device, kernel)
        times.append(time.perf_counter() - start)
    assert min(times) < 3e-3
