"""Kernel families the time model speaks of: which kernel on which architecture is which, and their formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from iosim.errors import AbsentError, UsageError, did_you_mean
from iosim.machine import Device
from iosim.timing import fa2, fa3, looped, trtllm, unfused
from iosim.timing.calls import Calls, Ints
from iosim.timing.constants import Calibration, load_calibration
from iosim.timing.parts import Parts
from iosim.timing.plan import FRAMEWORKS, Plan
from iosim.timing.rates import Rates, rates_of
from iosim.timing.work import FORWARD, Work

#: calls whose items are counted in one go: bounds the memory of a bulk prediction
CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Family:
    """Formulas of one kernel family, for prefill and decode under frameworks."""

    plan: Callable[[Calls, Rates, str], Plan]
    """tiles, packing and splits under a framework"""
    parts: Callable[[Plan, Calls, Rates, Mapping[str, float], str], Parts]
    """named terms in seconds"""
    frameworks: tuple[str, ...]
    """frameworks whose call it describes"""
    stages: int
    """K/V tiles in shared memory at once"""


@dataclass(frozen=True, slots=True)
class Published:
    """Formulas of a family that only published figures tell of: the kernel alone, forward or backward."""

    parts: Callable[[Calls, Device, Mapping[str, float], Work], Parts]
    """named terms in seconds"""


FAMILIES = {
    "fa2": Family(fa2.plan, fa2.parts, ("none", "vllm"), 1),
    "fa3": Family(fa3.plan, fa3.parts, ("none", "vllm", "sglang"), 2),
    "trtllm": Family(trtllm.plan, trtllm.parts, ("none", "vllm", "sglang"), 1),
}


def _looped(
    kernel: str, *, rows: int = 0, wgmma: bool = False, backward: str = "", passes: tuple[str, ...] = ("forward", "backward")
) -> Published:  # fmt: skip
    return Published(partial(looped.parts, looped.Looped(kernel, rows, not wgmma, backward, passes)))


#: FlashAttention-1 steps through 16 rows at a time; 128 of them are an item where a head is cut
PUBLISHED = {
    "fa1": _looped("flash1", rows=128),
    "fa2-hopper": _looped("flash2", backward="flash2-backward"),
    "fa2-backward": _looped("flash2", backward="flash2-backward", passes=("backward",)),
    "xformers": _looped("xformers"),
    "triton": _looped("triton", wgmma=True, passes=("forward",)),
    "triton-2022": _looped("triton"),
    "cudnn": _looped("cudnn", wgmma=True, passes=("forward",)),
    "unfused": Published(unfused.parts),
}
#: catalogue kernels that are the backward pass of another
BACKWARD_OF = {"flash2-backward": "flash2", "unfused-backward": "unfused"}
#: (family, framework) -> calibration of constants that the framework's call replaces by its own
OWN_CALLS = {("fa3", "sglang"): "fa3-sglang", ("trtllm", "sglang"): "trtllm-sglang"}
#: constants of vLLM's own kernel, which writes the cache, in version 0.24: its tables of Ada and consumer Blackwell take
#: them from H100's fit, since those of A100 are version 0.14's
CACHE_WRITE = ("write_wave", "write_threads", "write_bandwidth")
CACHE_WRITE_OF = {("fa2", "vllm", "ada"): "fa3", ("fa2", "vllm", "blackwell-consumer"): "fa3"}
#: largest head size of the tables: 64, 128, 256 fitted or judged, 192 judged; kernels for more are other kernels
MOST_HEAD_DIM = 256
#: query rows that every product of a call's numbers of items and tiles stays below 2^63 with
MOST_ROWS = float(1 << 53)
#: usable capacity of a cache that keeps nothing
COLD_BYTES = 1.0
#: decode kernels that stand for their architecture's family
BY_ARCHITECTURE = {
    "ampere": "fa2", "ada": "fa2", "blackwell-consumer": "fa2", "hopper": "fa3", "blackwell": "trtllm",
}  # fmt: skip
#: kernels that mean the family of the architecture
GENERIC = frozenset({"split-kv"})


def calibration_of(kernel: str, device: Device) -> Calibration:
    """The calibration that speaks of a kernel on a device.

    Raises:
        AbsentError: none does, with the reason.
    """
    if kernel in GENERIC and device.architecture in BY_ARCHITECTURE:
        return load_calibration(BY_ARCHITECTURE[device.architecture])
    known: list[str] = []
    for family in (*FAMILIES, *PUBLISHED):
        calibration = load_calibration(family)
        if kernel in calibration.kernels:
            if device.architecture in calibration.architectures:
                return calibration
            known += calibration.architectures
    if known:
        raise AbsentError(f"{kernel} is calibrated on {', '.join(known)} only, not on {device.architecture}")
    raise AbsentError(f"no calibration for the kernel {kernel}")


def values_of(calibration: Calibration, framework: str, architecture: str) -> Mapping[str, float]:
    """Constants of a family under a framework on an architecture, by name."""
    values = dict(calibration.values())
    if own := OWN_CALLS.get((calibration.family, framework)):
        values |= load_calibration(own).values()
    if other := CACHE_WRITE_OF.get((calibration.family, framework, architecture)):
        written = load_calibration(other).values()
        values |= {name: written[name] for name in CACHE_WRITE}
    return values


def check_framework(framework: str) -> str:
    """A framework's name, if it is one.

    Raises:
        UsageError: unknown.
    """
    if framework not in FRAMEWORKS:
        raise UsageError(f"unknown framework {framework!r}", "framework", did_you_mean(framework, FRAMEWORKS))
    return framework


#: why a family of the tables does not speak of a call, by the numbers of `beyond`
BEYOND = ("", f"calibrated for head sizes up to {MOST_HEAD_DIM} only", "more query rows than the time model counts")


def beyond(calls: Calls) -> Ints:
    """Why the families of the tables do not speak of calls: 0, they do; else the place of the reason in `BEYOND`."""
    large = np.maximum(calls.head_dim, calls.head_dim_v) > MOST_HEAD_DIM
    rows = calls.batch.astype(float) * calls.heads * calls.n_q
    return np.where(rows > MOST_ROWS, 2, np.where(large, 1, 0))


def expected_parts(
    calls: Calls,
    device: Device,
    kernel: str,
    framework: str = "none",
    warm: bool = True,
    constants: Mapping[str, float] | None = None,
    work: Work = FORWARD,
) -> Parts:
    """Named terms of the expected time of calls, in seconds; their sum is the expectation.

    Args:
        kernel: a catalogue name (`flash2`, `flash3`, `trtllm`, `split-kv`, `flash2-backward`, ...).
        framework: whose call: `none` is the attention kernel alone on contiguous tensors.
        warm: what the call touches may stay in the last cache from its repetition before; else it starts cold.
        constants: instead of the calibrated ones, as a fit needs.
        work: which passes; a backward kernel's name means its backward pass.
    Raises:
        AbsentError: no calibration speaks of this kernel, device, framework or work.
    """
    if kernel in BACKWARD_OF:
        kernel, work = BACKWARD_OF[kernel], replace(work, forward=False, backward=True)
    calibration = calibration_of(kernel, device)
    values = constants or values_of(calibration, framework, device.architecture)
    if calibration.family in PUBLISHED:
        if check_framework(framework) != "none":
            raise AbsentError(f"the call of {framework} around {kernel} is not modelled")
        return PUBLISHED[calibration.family].parts(calls, device, values, work)
    if work.backward:
        return _with_backward(calls, device, kernel, framework, warm, constants, work)
    if work != FORWARD:
        raise AbsentError(f"{kernel} is calibrated without {'dropout' if work.dropout else 'padding'}")
    family = FAMILIES[calibration.family]
    if check_framework(framework) not in family.frameworks:
        raise AbsentError(f"the call of {framework} around {kernel} is not modelled")
    if (why := beyond(calls)).any():
        raise AbsentError(BEYOND[int(why.max())])
    rates = rates_of(device) if warm else replace(rates_of(device), l2_warm_bytes=COLD_BYTES)
    made: list[Parts] = []
    for begin in range(0, len(calls), CHUNK):
        chunk = calls[begin : begin + CHUNK]
        made.append(family.parts(family.plan(chunk, rates, framework), chunk, rates, values, framework))
    return made[0] if len(made) == 1 else {name: np.concatenate([part[name] for part in made]) for name in made[0]}


def _with_backward(
    calls: Calls, device: Device, kernel: str, framework: str, warm: bool, constants: Mapping[str, float] | None, work: Work
) -> Parts:  # fmt: skip
    """A backward pass that has a calibration of its own, and the forward pass before it where both are timed."""
    calibration = calibration_of(f"{kernel}-backward", device)
    behind = replace(work, forward=False)
    parts = PUBLISHED[calibration.family].parts(calls, device, constants or calibration.values(), behind)
    if work.forward:
        ahead = expected_parts(calls, device, kernel, framework, warm, work=replace(work, backward=False))
        none = np.zeros(len(calls))
        parts = {name: parts.get(name, none) + ahead.get(name, none) for name in {**ahead, **parts}}
    return parts
