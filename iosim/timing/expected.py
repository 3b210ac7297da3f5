"""The expected time of one call, with a breakdown that sums to it; or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Expected:
    """An expectation, which real kernels may miss either way; never a bound."""

    time_s: float
    """sum of the breakdown"""
    breakdown: Mapping[str, float]
    """named terms in seconds: launch, matrix, softmax, ...; terms that do not occur are left out"""

    @property
    def bottleneck(self) -> str:
        """The largest term."""
        return max(self.breakdown, key=self.breakdown.__getitem__).removesuffix("_s")


def expected_time(schedule: Schedule, device: Device, warm: bool = False, framework: str = "none") -> Expected:
    """The expected time of a schedule's kernel on a device.

    Args:
        warm: what the call touches may stay in the last cache from its repetition before.
        framework: whose call around the kernel: none | vllm | sglang | trtllm.
    Raises:
        AbsentError: no calibration speaks of it, with the reason.
    """
    from iosim.timing.calls import calls_of  # numpy and compiled loops only when a time is asked for
    from iosim.timing.families import expected_parts
    from iosim.timing.work import BACKWARD, FORWARD

    if device.kind == "cpu":
        return _on_processor(schedule, device, warm)
    work = BACKWARD if schedule.problem.phase == "backward" else FORWARD
    parts = expected_parts(calls_of(schedule.problem), device, schedule.kernel, framework, warm, work=work)
    breakdown = {name: float(value[0]) for name, value in parts.items() if value[0] != 0}
    return Expected(sum(breakdown.values()), breakdown)


def _on_processor(schedule: Schedule, device: Device, warm: bool) -> Expected:
    from iosim.timing.calls import calls_of
    from iosim.timing.processor import processor_parts

    if schedule.problem.phase == "backward":
        raise AbsentError("on a processor forward calls are timed")
    tile = (schedule.tiling.rows, schedule.tiling.cols)
    parts = processor_parts(calls_of(schedule.problem, 32), device, schedule.kernel, tile, warm)
    breakdown = {name: float(value[0]) for name, value in parts.items() if value[0] != 0}
    return Expected(sum(breakdown.values()), breakdown)


def expectation(
    schedule: Schedule, device: Device, warm: bool = False, framework: str = "none"
) -> tuple[Expected | None, str]:
    """(expectation, empty), or (None, why there is none)."""
    try:
        return expected_time(schedule, device, warm, framework), ""
    except AbsentError as error:
        return None, error.faults[0].what
