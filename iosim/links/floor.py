"""The time no kernel can beat when a link takes part: the floor of one device, with the link's proven bytes beside it."""

from __future__ import annotations

from dataclasses import dataclass

from iosim.attention import Attention
from iosim.floors import TimeFloor
from iosim.links.rate import Far
from iosim.links.way import Way
from iosim.machine import Cluster


@dataclass(frozen=True, slots=True)
class SharedFloor(TimeFloor):
    """A lower bound on the time of one call over several devices, or over a device and its host.

    FLOP, bytes, peak and bandwidth are those of all devices together: with the work spread evenly none is done sooner.
    """

    devices: int = 1
    """that share the call"""
    link_s: float | None = None
    """proven bytes of the link that has most to carry, at its rate; None where either is unknown"""
    link_bytes: int | None = None
    """those bytes"""
    link_bytes_per_s: float | None = None
    """rate of one direction"""
    far_s: float | None = None
    """bytes that the far side's memory must deliver, at its rate; None where that is unknown or nothing"""
    far_bytes: int = 0
    """those bytes"""

    @property
    def binding(self) -> str:
        """Which term it is: `matrix`, `hbm`, `link` or `far`."""
        terms = {"matrix": self.compute_s, "hbm": self.memory_s, "link": self.link_s or 0.0, "far": self.far_s or 0.0}
        return max(terms, key=terms.__getitem__)


def shared_floor(problem: Attention, way: Way, cluster: Cluster, far: Far, warm: bool = False) -> SharedFloor:
    """The floor of a way's call, whatever the kernel and however the work is spread.

    Args:
        cluster: the way's devices and the rate of each one's link.
        warm: operands may already be in the last caches and outputs may stay there.
    Raises:
        AbsentError: the device file lacks a peak or the main memory's bandwidth.
    """
    device, rate = cluster.device, cluster.link_bytes_per_s
    cache = device.cache_before("hbm")
    kept = (cache.total_bytes or 0) * cluster.count if warm and cache else 0
    read, written = max(0, way.proven.read_bytes - kept), max(0, way.proven.write_bytes - kept)
    peak = max(device.peak_flop_per_s(problem.types.q), device.peak_flop_per_s(problem.types.kv)) * cluster.count
    bandwidth = device.bandwidth_bytes_per_s("hbm") * cluster.count
    crossing = way.proven.least.most_bytes if way.proven.least else None
    link_s = crossing / rate if crossing is not None and rate else None
    far_s = way.proven.far_bytes / far.bytes_per_s if far.bytes_per_s and way.proven.far_bytes else None
    compute, memory = way.proven.flop / peak, (read + written) / bandwidth
    return SharedFloor(
        max(compute, memory, link_s or 0.0, far_s or 0.0), compute, memory, way.proven.flop, read, written, peak, bandwidth,
        cluster.count, link_s, crossing, rate, far_s, way.proven.far_bytes,
    )  # fmt: skip
