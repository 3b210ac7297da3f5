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


def test_every_type_of_every_kernel_is_one_that_it_accepts() -> None:
    for name in kernel_names():
        for q in load_kernel(name).types:
            load_kernel(name).check_types(typed(q))


@pytest.mark.parametrize(
    ("kernel", "phase"), [("flash2", "prefill"), ("flash3", "prefill"), ("flash2-backward", "backward")]
)
def test_a_head_size_beyond_the_table_needs_a_tile(kernel: str, phase: str) -> None:
    with pytest.raises(UsageError, match="head size 512") as caught:
        make_schedule(typed("bf16", d=512, phase=phase), H100, kernel)
    assert "up to 256" in caught.value.faults[0].hint
    assert make_schedule(typed("bf16", d=512, phase=phase), None, kernel, tile(32, 32)).traffic.total_bytes > 0


def test_the_usual_kernels_leave_out_what_cannot_be() -> None:
    report = iosim.analyze(typed("fp8"), H100)
    assert [kernel.name for kernel in report.kernels] == ["unfused", "flash1", "flash3"]
    assert "flash2 does not compute in fp8: left out" in report.assumptions
    with pytest.raises(UsageError, match="flash2 does not compute in fp8"):
        iosim.analyze(typed("fp8"), H100, kernels=["flash2"])


def test_no_usual_kernel_is_an_error() -> None:
    with pytest.raises(UsageError, match="flash2-backward has no tile for head size 512"):
        iosim.analyze(typed("bf16", d=512, phase="backward"), H100)


def test_a_kernel_file_with_an_unknown_type(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('algorithm = "flash2"\ntypes = ["bf17"]\n[[tiles]]\ntile = "64x64"\n')
    with pytest.raises(FileError, match="bf17"):
        load_kernel(str(path))
