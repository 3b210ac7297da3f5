"""What a released kernel does not compute is refused by name; the usual kernels of a report leave it out and say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_counts import problem, tile

import iosim
from iosim.attention import Attention, Types
from iosim.errors import FileError, UsageError
from iosim.kernels import kernel_names, load_kernel, make_schedule

H100 = iosim.device("h100-sxm5")


def typed(q: str, kv: str | None = None, d: int = 128, phase: str = "prefill") -> Attention:
    base = problem(1 if phase == "decode" else 512, 512, d, phase=phase)
    return Attention(base.shape, base.mask, Types.of(q, kv), phase)


@pytest.mark.parametrize(
    ("kernel", "q", "kv", "phase"),
    [
        ("flash2", "fp8", None, "prefill"),
        ("flash2", "fp32", None, "prefill"),
        ("flash4", "fp8", None, "prefill"),
        ("flash2-backward", "fp8", None, "backward"),
        ("flash2-decode", "bf16", "fp8", "decode"),
        ("flash3-decode", "bf16", "fp8", "decode"),
        ("trtllm-decode", "bf16", "fp16", "decode"),
        ("flash-v100", "bf16", None, "prefill"),
        ("flash-v100", "int4", None, "prefill"),
        ("fast-attention-volta", "fp8", None, "prefill"),
        ("fast-attention", "fp8", None, "prefill"),
        ("fusemax", "fp32", None, "prefill"),
        ("lightning2", "fp8", None, "prefill"),
        ("gla", "int8", None, "prefill"),
        ("delta-rule", "fp32", None, "prefill"),
        ("flash1", "fp8", None, "prefill"),
        ("flashmla", "bf16", "fp8", "decode"),
    ],
)
def test_a_type_that_the_code_does_not_have(kernel: str, q: str, kv: str | None, phase: str) -> None:
    with pytest.raises(UsageError, match="does not") as caught:
        make_schedule(typed(q, kv, phase=phase), H100, kernel)
    assert caught.value.faults[0].hint.startswith("it ")


@pytest.mark.parametrize(
    ("kernel", "q", "kv", "phase"),
    [
        ("flash3", "fp8", None, "prefill"),
        ("split-kv", "bf16", "int4", "decode"),
        ("flashinfer-decode", "bf16", "fp8", "decode"),
        ("unfused", "fp64", None, "prefill"),
    ],
)
def test_a_type_that_it_has(kernel: str, q: str, kv: str | None, phase: str) -> None:
    assert make_schedule(typed(q, kv, phase=phase), H100, kernel).traffic.total_bytes > 0


#: textbook schedules, and those of papers without code of their own: any type
UNTYPED = {"agent", "backward-q-outer", "fixed-state", "recompute-dv", "split-kv", "square-tiling", "unfused",
           "unfused-backward"}  # fmt: skip


def test_all_but_textbook_schedules_name_their_types() -> None:
    assert {name for name in kernel_names() if not load_kernel(name).types} == UNTYPED


def test_every_type_of_every_kernel_is_one_that_it_accepts() -> None:
    for name in kernel_names():
        for q in load_kernel(name).types:
            load_kernel(name).check_types(Types.of(q))


@pytest.mark.parametrize(
    ("kernel", "phase"), [("flash2", "prefill"), ("flash3", "prefill"), ("flash2-backward", "backward")]
)
def test_a_head_size_beyond_the_table_needs_a_tile(kernel: str, phase: str) -> None:
    with pytest.raises(UsageError, match="head size 512") as caught:
        make_schedule(typed("bf16", d=512, phase=phase), H100, kernel)
    assert "up to 256" in caught.value.faults[0].hint
    assert make_schedule(typed("bf16", d=512, phase=phase), None, kernel, tile(32, 32)).traffic.total_bytes > 0


@pytest.mark.parametrize(
    ("kernel", "d", "d_v", "dtype", "hint"),
    [
        ("flash2", 37, 37, "bf16", "multiples of 8;"),
        ("flash2", 64, 60, "bf16", "multiples of 8;"),
        ("flash3", 72, 72, "fp8", "multiples of 16;"),
        ("flash4", 100, 100, "fp16", "multiples of 8;"),
        ("triton", 96, 96, "bf16", "16, 32, 64, 128, 256;"),
        ("flashinfer", 80, 80, "bf16", "64, 128, 192/128, 192, 256;"),
        ("flash-v100", 48, 48, "fp16", "16, 32, 64, 128, 256;"),
        ("flex", 8, 8, "bf16", "start at 16;"),
        ("flash2", 384, 384, "bf16", "up to 256;"),
    ],
)
def test_a_head_size_that_the_code_does_not_have(kernel: str, d: int, d_v: int, dtype: str, hint: str) -> None:
    base = problem(512, 512, d, d_v)
    asked = Attention(base.shape, base.mask, Types.of(dtype))
    device = iosim.device("v100-sxm2-32gb") if kernel == "flash-v100" else H100
    with pytest.raises(UsageError, match=f"{kernel} has no tile for head size {d}") as caught:
        make_schedule(asked, device, kernel)
    assert hint in caught.value.faults[0].hint
    assert make_schedule(asked, device, kernel, tile(16, 16)).traffic.total_bytes > 0


def test_a_head_size_between_two_is_padded_and_says_so() -> None:
    for d, d_v, size in ((72, 72, "96"), (192, 128, "192"), (16, 16, "32")):
        (note,) = make_schedule(problem(512, 512, d, d_v), H100, "flash2").notes
        assert f"runs padded to {size}, counted without the padding" in note
    assert make_schedule(problem(512, 512, 128), H100, "flash2").notes == ()
    assert make_schedule(problem(512, 512, 192, 128), H100, "flash3").notes == ()


@pytest.mark.parametrize(
    ("d", "d_v", "mask"), [(160, 160, "full"), (192, 192, "causal"), (256, 256, "local"), (144, 128, "full")]
)
def test_blackwell_has_three_head_sizes_above_96(d: int, d_v: int, mask: str) -> None:
    """flash_attn/cute: up to 128, or 192/128, or 256 alone and without windows, on compute capability 10."""
    asked = problem(1024, 1024, d, d_v, {"local": "window:64"}.get(mask, mask))
    with pytest.raises(UsageError, match=f"no tile for head size {d}") as caught:
        make_schedule(asked, iosim.device("b200-sxm"), "flash4")
    assert "up to 128 and 192/128 and 256;" in caught.value.faults[0].hint
    assert make_schedule(asked, H100, "flash4").traffic.total_bytes > 0


def test_256_on_blackwell_does_not_pack() -> None:
    asked = problem(1024, 1024, 256, heads=8, kv_heads=2)
    assert make_schedule(asked, iosim.device("b200-sxm"), "flash4").tiling.group == 1
    assert make_schedule(asked, H100, "flash4").tiling.group == 4


@pytest.mark.parametrize(("d", "d_v"), [(128, 128), (64, 64), (576, 512)])
def test_flashmla_has_latents_only(d: int, d_v: int) -> None:
    asked = problem(1, 1024, d, d_v, heads=8, kv_heads=2, phase="decode")
    with pytest.raises(UsageError, match="V as a slice of K") as caught:
        make_schedule(asked, H100, "flashmla")
    assert "576/512" in caught.value.faults[0].hint


def test_flashmla_has_one_page_size() -> None:
    asked = problem(1, 1024, 576, 512, heads=16, kv_heads=1, phase="decode", latent=True)
    with pytest.raises(UsageError, match="flashmla has no page_size=16") as caught:
        make_schedule(asked, H100, "flashmla", settings={"page_size": 16})
    assert "page_size=64" in caught.value.faults[0].hint
    assert make_schedule(asked, H100, "flashmla", settings={"page_size": "64"}).parameters["page_size"] == 64
    assert make_schedule(asked, H100, "flashmla", tile(64, 32), {"page_size": 16}).parameters["page_size"] == 16


def test_a_kernel_file_with_a_head_size_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('algorithm = "flash2"\n[heads]\nsizes = ["64/"]\n[[tiles]]\ntile = "64x64"\n')
    with pytest.raises(FileError, match="no head size"):
        load_kernel(str(path))


def test_the_usual_kernels_leave_out_what_cannot_be() -> None:
    report = iosim.analyze(typed("fp8"), H100)
    assert [kernel.name for kernel in report.kernels] == ["unfused", "flash3"]
    assert "flash2 does not compute in fp8: left out" in report.assumptions
    with pytest.raises(UsageError, match="flash2 does not compute in fp8"):
        iosim.analyze(typed("fp8"), H100, kernels=["flash2"])


def test_no_usual_kernel_is_an_error() -> None:
    with pytest.raises(UsageError, match="flash2-backward has no tile for head size 512"):
        iosim.analyze(typed("bf16", d=512, phase="backward"), H100)


@pytest.mark.parametrize(
    ("kernel", "phase"),
    [("flash1", "prefill"), ("unfused", "prefill"), ("lightning2", "prefill"), ("flash2-backward", "backward")],
)
def test_packing_that_a_kernel_cannot_do(kernel: str, phase: str) -> None:
    asked = problem(512, 512, 64, heads=8, kv_heads=2, phase=phase)
    with pytest.raises(UsageError, match=f"{kernel} does not pack query heads") as caught:
        make_schedule(asked, None, kernel, tile(16, 16), pack_gqa=True)
    assert "flash2" in caught.value.faults[0].hint
    with pytest.raises(UsageError, match="does not pack"):
        iosim.analyze(asked, H100, kernels=[kernel], pack_gqa=True)
    assert make_schedule(asked, None, kernel, tile(16, 16), pack_gqa=False).tiling.group == 1


def test_of_several_kernels_those_pack_that_can() -> None:
    asked = problem(512, 512, 64, heads=8, kv_heads=2)
    report = iosim.analyze(asked, H100, kernels=["flash1", "flash2", "unfused"], pack_gqa=True)
    assert [kernel.schedule.tiling.group for kernel in report.kernels] == [1, 4, 1]
    assert "flash1, unfused: cannot pack query heads into a tile, and did not" in report.assumptions
    with pytest.raises(UsageError, match="flash1 does not pack"):
        iosim.analyze(asked, H100, kernels=["flash1", "unfused"], pack_gqa=True)


def test_a_kernel_file_with_an_unknown_type(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('algorithm = "flash2"\ntypes = ["bf17"]\n[[tiles]]\ntile = "64x64"\n')
    with pytest.raises(FileError, match="bf17"):
        load_kernel(str(path))
