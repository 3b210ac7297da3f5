"""A kernel written for one machine runs there unless told otherwise, and says where it runs when told wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from iosim.kernels import kernel_names, load_kernel
from iosim.machine import load_device

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("command", "kernel", "device"),
    [("report", "flash-v100", "v100-sxm2-32gb"), ("simulate", "cpu-flash", "epyc-9654"),
     ("roofline", "fusemax", "fusemax-cloud"), ("report", "tiling-mask", "ascend-910b2"),
     ("report", "fusemax,three-pass-array", "fusemax-cloud"), ("report", "flash2", "h100-sxm5"),
     ("report", "flash2,unfused", "h100-sxm5")],
)  # fmt: skip
def test_the_device_is_the_kernels_own(iosim: Run, command: str, kernel: str, device: str) -> None:
    done = iosim(command, "--kernel", kernel, "--seq", "256", "--heads", "2", "--head-dim", "64", "--format", "json")
    assert done.code == 0, done.err
    answer = done.json
    assert answer["inputs"]["device"] == device
    assert answer["provenance"]["device_sha256"] == load_device(device).sha256


@pytest.mark.parametrize(
    ("kernel", "typed", "dtype"),
    [("flash-v100", (), "fp16"), ("flash-v100", ("--dtype", "fp16"), "fp16"), ("flash2", (), "bf16"),
     ("flash2,unfused", (), "bf16")],
)  # fmt: skip
def test_the_type_is_the_kernels_own(iosim: Run, kernel: str, typed: tuple[str, ...], dtype: str) -> None:
    done = iosim("report", "--kernel", kernel, "--seq", "256", *typed, "--format", "json")
    assert done.code == 0, done.err
    assert done.json["inputs"]["dtype"] == dtype


def test_a_typed_type_stays(iosim: Run) -> None:
    done = iosim("simulate", "--kernel", "flash-v100", "--seq", "256", "--dtype", "bf16")
    assert done.code == 2
    assert "flash-v100 does not compute in bf16" in done.err


def test_a_typed_device_stays(iosim: Run) -> None:
    done = iosim("report", "--kernel", "flash-v100", "--seq", "256", "--device", "h100-sxm5")
    assert done.code == 2
    assert "no tile for head size 128 on NVIDIA H100 SXM5" in done.err
    assert "its tiles are for volta, for example --device v100-sxm2-32gb" in done.err


def test_kernels_of_two_machines_run_on_the_default(iosim: Run) -> None:
    done = iosim("report", "--kernel", "flash-v100,cpu-flash", "--seq", "256", "--dtype", "fp16")
    assert done.code == 2
    assert "H100" in done.err


@pytest.mark.parametrize("name", kernel_names())
def test_a_kernels_own_device_has_a_tile_for_it(name: str) -> None:
    kernel = load_kernel(name)
    if kernel.device:
        architectures = {each for rule in kernel.rules for each in rule.architectures}
        assert load_device(kernel.device).architecture in architectures
