"""The time no kernel can beat: useful FLOP at the highest peak, compulsory bytes at datasheet bandwidth.

Nothing else enters, so that it is a true lower bound for every kernel of a call: exact unmasked pairs, the
highest clock and rate the device can reach, and L0 at the main memory's boundary.
"""

from __future__ import annotations

from dataclasses import dataclass

from iosim.attention import Attention
from iosim.floors.compulsory import compulsory_bytes
from iosim.machine import Device


@dataclass(frozen=True, slots=True)
class TimeFloor:
    """A lower bound on the time of one call on one device."""

    time_s: float
    """the larger of the two terms"""
    compute_s: float
    """useful FLOP at the highest dense peak"""
    memory_s: float
    """compulsory bytes at the main memory's datasheet bandwidth"""
    flop: int
    """useful FLOP"""
    read_bytes: int
    """compulsory reads (cold or warm as asked)"""
    write_bytes: int
    """compulsory writes"""
    peak_flop_per_s: float
    """highest dense peak for the operands' types"""
    bandwidth_bytes_per_s: float
    """datasheet bandwidth of the main memory"""

    @property
    def binding(self) -> str:
        """Which term it is: `matrix` or `hbm`."""
        return "matrix" if self.compute_s >= self.memory_s else "hbm"


def time_floor(problem: Attention, device: Device, warm: bool = False, lse_output: bool = False) -> TimeFloor:
    """The floor of a call on a device.

    Args:
        warm: operands may already be in the last cache and outputs may stay there.
    Raises:
        AbsentError: the device file lacks a peak or the main memory's bandwidth.
    """
    cache = device.cache_before("hbm")
    warm_bytes = (cache.total_bytes or 0) if warm and cache else 0
    read, written = compulsory_bytes(problem, warm_bytes, lse_output)
    peak = max(device.peak_flop_per_s(problem.types.q), device.peak_flop_per_s(problem.types.kv))
    bandwidth = device.bandwidth_bytes_per_s("hbm")
    flop = problem.flop()
    compute, memory = flop / peak, (read + written) / bandwidth
    return TimeFloor(max(compute, memory), compute, memory, flop, read, written, peak, bandwidth)
