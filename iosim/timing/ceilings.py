"""How long each resource of a device would take for a kernel's own work, if it did nothing else.

Every rate is that of the highest clock. These are ceilings of one kernel, not floors of the problem: they charge masked entries, rescaling and the
kernel's own traffic, and they never enter `time_floor_s`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.schedule import Schedule, Work


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Seconds per resource; None where the device file cannot say, with the reason."""

    times_s: Mapping[str, float | None]
    """resource -> time"""
    unknown: Mapping[str, str]
    """resource -> why there is no time"""

    @property
    def bottleneck(self) -> str:
        """The resource with the longest time among the known ones."""
        known = {name: time for name, time in self.times_s.items() if time is not None}
        return max(known, key=known.__getitem__) if known else ""

    def to_dict(self) -> dict[str, float | None]:
        """Keys ending with the unit."""
        return {f"{name}_s": time for name, time in self.times_s.items()}


def kernel_ceilings(schedule: Schedule, device: Device, l2_bytes: int, hbm_bytes: int | None) -> Ceilings:
    """The ceilings of one kernel.

    Args:
        l2_bytes: requests at the last shared cache, both ways.
        hbm_bytes: bytes at the main memory, both ways; None where nobody can say.
    """
    work, types = schedule.work, schedule.problem.types
    terms: dict[str, Callable[[], float]] = {
        "matrix": lambda: work.flop_executed / device.sustained_flop_per_s(types.q),
        "exp": lambda: (work.exp - work.exp_software + work.exp_rescale) / device.exp_per_s(),
        "shared": lambda: _shared_time(device, work),
        "l2": lambda: l2_bytes / last_cache_bytes_per_s(device),
        "hbm": lambda: _hbm_time(device, hbm_bytes),
    }
    times: dict[str, float | None] = {}
    unknown: dict[str, str] = {}
    for name, term in terms.items():
        try:
            times[name] = term()
        except AbsentError as error:
            times[name], unknown[name] = None, str(error.faults[0])
    return Ceilings(times, unknown)


def last_cache_bytes_per_s(device: Device) -> float:
    """Rate of the L2 (L3 of a CPU): what was measured, since stated peaks are rarely reachable, else what is stated.

    Raises:
        AbsentError: neither is known.
    """
    shared = device.shared_cache()
    name = shared.name if shared else "l2"
    return device.attainable_bytes_per_s(name) or device.bandwidth_bytes_per_s(name)


def _shared_time(device: Device, work: Work) -> float:
    rate = device.shared_bytes_per_s()
    if work.flop_executed and not work.shared_bytes:
        raise AbsentError("bytes in shared memory are not counted for this kernel")
    return work.shared_bytes / rate


def _hbm_time(device: Device, hbm_bytes: int | None) -> float:
    if hbm_bytes is None:
        raise AbsentError("bytes at the main memory are not known for this kernel")
    return hbm_bytes / device.bandwidth_bytes_per_s("hbm")
