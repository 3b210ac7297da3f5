"""Named kernels: every tile fits where it is used, released shared-memory sizes, conditions of a table, refusals."""

from __future__ import annotations

import time

import pytest
from oracles.random_calls import of_kernel
from test_counts import problem, tile
from test_programs import check

from iosim.attention import Attention, Types
from iosim.errors import UsageError
from iosim.kernels import ALGORITHMS, kernel_names, load_kernel, make_schedule
from iosim.kernels.algorithm import total_sums
from iosim.machine import load_device
from iosim.masks import Grid, bind
from iosim.schedule import CLASSES, OTHER_CLASSES
from iosim.speedup.tile_shapes import tile_shapes

#: kernels that compute only some masks, have only small heads, or need a long sequence
ONLY = {
    "agent": ("full",),
    "chunk-states": ("causal",),
    "delta-rule": ("causal",),
    "selective-scan": ("causal",),
    "flash-conv": ("causal",),
    "rat": ("causal",),
    "rat-decode": ("causal",),
}
OWN = {
    "flash4-decode": "b200-sxm",
    "fast-attention": "ascend-910b2",
    "fast-attention-tiling-mask": "ascend-910b2",
    "cpu-flash": "epyc-9654",
    **dict.fromkeys(("fusemax", "two-pass-array", "three-pass-array", "recompute-array"), "fusemax-cloud"),
    "flash-v100": "v100-sxm2-32gb",
    "fast-attention-volta": "v100-sxm2-32gb",
}
HEAD = {"based": 16, "prefix-linear": 16, "flashconv": 8, "flashmla": 576}

DEVICES = ("a100-sxm-80gb", "h100-sxm5", "b200-sxm", "b300-sxm", "l40s", "rtx-pro-6000-blackwell", "ascend-910b2")


@pytest.mark.parametrize("name", kernel_names())
def test_a_kernels_own_tiles_fit_every_device_they_name(name: str) -> None:
    """Only a tile that its file calls assumed may be shrunk."""
    kernel = load_kernel(name)
    for device in map(load_device, DEVICES):
        for d, d_v in ((64, 64), (96, 96), (128, 128), (192, 128), (256, 256)):
            for phase in kernel.algorithm.phases:
                for mask in ONLY.get(kernel.algorithm.name, ("full", "causal")):
                    asked = of_kernel(
                        problem(1 if phase == "decode" else 512, 512, d, d_v, mask, 8, 2, phase=phase), name
                    )
                    try:
                        rule = kernel.rule(asked, device)
                    except UsageError:
                        continue
                    own = f"{kernel.name}: {kernel.note}"
                    told = make_schedule(asked, device, kernel).notes
                    notes = [note for note in told if note != own and "padded" not in note]
                    assert rule.assumed or rule.note or not notes, (device.key, d, phase, mask, notes)


@pytest.mark.parametrize("name", kernel_names())
def test_every_kernel_has_a_class_a_source_and_a_decode_kernel_that_exists(name: str) -> None:
    kernel = load_kernel(name)
    assert kernel.algorithm.algorithm_class in (*CLASSES, *OTHER_CLASSES)
    assert kernel.source
    assert kernel.algorithm.source
    assert kernel.title
    if kernel.decode:
        assert "decode" in load_kernel(kernel.decode).algorithm.phases


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_algorithm_has_a_named_kernel(name: str) -> None:
    assert any(load_kernel(kernel).algorithm.name == name for kernel in kernel_names())


@pytest.mark.parametrize("name", kernel_names())
def test_every_kernel_counts_one_problem_within_a_millisecond(name: str) -> None:
    """Best of several, after files and masks are read; three times the budget, for a busy machine."""
    kernel, device = load_kernel(name), load_device(OWN.get(name, "h100-sxm5"))
    phase = "decode" if kernel.algorithm.name == "split-kv" else kernel.algorithm.phases[0]
    mask = ONLY.get(kernel.algorithm.name, ("causal",))[0]
    n_q, d = 1 if phase == "decode" else 8192, HEAD.get(name, 64)
    latent = kernel.heads.latent
    asked = of_kernel(problem(n_q, 8192, d, 512 if latent else d, mask, 8, 8, phase=phase, latent=latent), name)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        total_sums.cache_clear()
        make_schedule(asked, device, kernel)
        times.append(time.perf_counter() - start)
    assert min(times) < 3e-3


@pytest.mark.parametrize("name", kernel_names())
def test_every_kernel_touches_what_it_counts(name: str) -> None:
    kernel = load_kernel(name)
    for phase in kernel.algorithm.phases:
        mask = ONLY.get(kernel.algorithm.name, ("causal",))[0]
        n = 1030 if name == "prefix-linear" else 40
        asked = of_kernel(problem(3 if phase == "decode" else n, n, 16, 16, mask, 4, 2, 2, phase), name)
        check(make_schedule(asked, None, kernel, None if name == "fixed-state" else tile(16, 16)))


def test_flash4_uses_all_of_tensor_memory() -> None:
    """Two 128-row tiles: 2 x 128 columns of scores and 2 x 128 of output are the 512 columns of 256 KiB."""
    schedule = make_schedule(problem(8192, 8192, 128, mask="causal", heads=8), load_device("b200-sxm"), "flash4")
    assert str(schedule.tiling) == "256x128"
    assert schedule.working_set.tensor_bytes == 256 * 1024
    assert schedule.work.exp_software == schedule.work.exp // 8
    faster = make_schedule(problem(8192, 8192, 128, mask="causal", heads=8), load_device("b300-sxm"), "flash4")
    assert faster.work.exp_software == 0
    one = make_schedule(problem(100, 8192, 128, heads=8, kv_heads=8), load_device("b200-sxm"), "flash4")
    assert one.tiling.rows == 128
    hopper = make_schedule(problem(8192, 8192, 128, heads=8), load_device("h100-sxm5"), "flash4")
    assert (str(hopper.tiling), hopper.working_set.tensor_bytes) == ("128x128", 0)


def test_tensor_memory_is_refused_where_there_is_none() -> None:
    asked = problem(1024, 1024, 128)
    with pytest.raises(UsageError, match="tensor memory"):
        make_schedule(asked, load_device("h100-sxm5"), "flash4", tile(128, 64), {"tensor_memory": True})
    with pytest.raises(UsageError, match=r"512 KiB of 256 KiB tensor memory"):
        make_schedule(asked, load_device("b200-sxm"), "flash4", tile(256, 384), {"tensor_memory": True, "slots": 1})


def test_hopper_tiles_take_the_shared_memory_of_the_released_kernels() -> None:
    """FlashAttention-3: 160 KiB causal and 208 KiB full at head size 128; FlashAttention-2: 64 KiB."""
    device = load_device("h100-sxm5")
    for mask, kibibytes in (("causal", 160), ("full", 208)):
        assert (
            make_schedule(problem(1024, 1024, 128, mask=mask), device, "flash3").working_set.shared_bytes
            == kibibytes * 1024
        )
    assert make_schedule(problem(1024, 1024, 128), device, "flash2").working_set.shared_bytes == 64 * 1024


def test_a_head_size_that_a_kernel_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="xformers has no tile for head size 256"):
        make_schedule(problem(64, 64, 256), None, "xformers")


def test_packing_is_the_kernels_own_choice() -> None:
    asked = problem(512, 512, 64, heads=8, kv_heads=2)
    assert make_schedule(asked, None, "flash2").tiling.group == 1
    assert make_schedule(asked, None, "flash4").tiling.group == 4
    assert make_schedule(asked, None, "flash4", pack_gqa=False).tiling.group == 1
    for device, group in (("h100-sxm5", 1), ("a100-sxm-80gb", 4)):  # FlashInfer's Hopper kernels do not pack
        assert make_schedule(asked, load_device(device), "flashinfer").tiling.group == group
    mixed = bind("heads(causal;full;causal;full;causal;full;causal;full)", Grid((64,), (64,)))
    assert make_schedule(Attention(asked.shape, mask=mixed), None, "flash4").tiling.group == 1


def test_narrow_types_choose_their_own_tile() -> None:
    base = problem(512, 512, 128)
    fp8 = Attention(base.shape, base.mask, Types.of("fp8"))
    device = load_device("rtx-pro-6000-blackwell")
    assert str(make_schedule(base, device, "trtllm").tiling) == "64x64"
    assert str(make_schedule(fp8, device, "trtllm").tiling) == "64x32"


@pytest.mark.parametrize(("queries", "rows"), [(1, 16), (2, 16), (3, 64), (8, 64), (9, 128)])
def test_packed_rows_choose_the_tile(queries: int, rows: int) -> None:
    """FlashInfer: 16, 64 or 128 rows by queries times the group, here of eight heads."""
    asked = problem(queries, 1024, 128, heads=8, kv_heads=1, phase="decode")
    assert make_schedule(asked, None, "flashinfer-decode").tiling.rows == rows


def test_a_typed_tile_keeps_the_kernels_own_rule() -> None:
    asked = problem(1, 8192, 128, heads=8, kv_heads=1, phase="decode")
    assert make_schedule(asked, load_device("b200-sxm"), "trtllm-decode", tile(16, 64)).parameters["rule"] == "trtllm"


def test_lists_of_tiles_and_schedules_are_told_apart() -> None:
    """`models/kernels` holds both; taking one for the other is a mistake of the person's, not a broken file."""
    with pytest.raises(UsageError, match="a list of tile shapes"):
        load_kernel("natten")
    with pytest.raises(UsageError, match="ships no list of tiles"):
        tile_shapes("hopper", 1, kernel="flash2")


def test_without_a_device_the_tile_is_one_for_any_where_there_is_one() -> None:
    """FlashAttention-2's 128 x 64, not what small parts of compute capability 8.6 and 8.9 have; FlashAttention-3's own."""
    for mask in ("full", "causal"):
        asked = problem(4096, 4096, 128, mask=mask)
        assert str(make_schedule(asked, None, "flash2").tiling) == "128x64"
    assert str(make_schedule(problem(4096, 4096, 128), None, "flash3").tiling) == "128x176"
