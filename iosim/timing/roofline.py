"""The hierarchical roofline: FLOP per byte at each boundary against the device's ceilings.

Source: Williams, Waterman, Patterson 2009 (roofline); Yang et al. 2020 (hierarchical form).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.timing.ceilings import last_cache_bytes_per_s


@dataclass(frozen=True, slots=True)
class RooflineCeiling:
    """A horizontal (FLOP/s) or slanted (bytes/s) line."""

    name: str
    """matrix bf16, hbm, ..."""
    flop_per_s: float | None = None
    """of a compute ceiling"""
    bytes_per_s: float | None = None
    """of a bandwidth ceiling"""
    boundary: str = ""
    """shared | l2 | hbm for a bandwidth ceiling"""

    def to_dict(self) -> dict[str, object]:
        """The one rate it has."""
        rate = {"flop_per_s": self.flop_per_s} if self.flop_per_s is not None else {"bytes_per_s": self.bytes_per_s}
        return {"name": self.name, **rate, **({"boundary": self.boundary} if self.boundary else {})}


@dataclass(frozen=True, slots=True)
class RooflinePoint:
    """A kernel at one boundary."""

    kernel: str
    """name"""
    boundary: str
    """shared (operand reads inside the cores) | core | l2 | hbm"""
    intensity_flop_per_byte: float
    """useful FLOP per byte that crosses the boundary"""
    attainable_flop_per_s: float | None
    """the lower of the compute ceiling and intensity x bandwidth"""

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Roofline:
    """Ceilings of a device and points of kernels."""

    ceilings: tuple[RooflineCeiling, ...]
    """compute first"""
    points: tuple[RooflinePoint, ...]
    """one per kernel and boundary"""


def device_ceilings(device: Device, dtype: str) -> tuple[RooflineCeiling, ...]:
    """The lines of one device for operands of one type; lines without a known rate are left out."""
    lines = [RooflineCeiling(f"matrix {dtype}", flop_per_s=device.sustained_flop_per_s(dtype))]
    rates = {
        "hbm": lambda: device.bandwidth_bytes_per_s("hbm"),
        "l2": lambda: last_cache_bytes_per_s(device),
        "shared": device.shared_bytes_per_s,
    }
    names = {"hbm": "main memory", "l2": "L2", "shared": "shared memory"}
    for boundary, rate in rates.items():
        try:
            lines.append(RooflineCeiling(names[boundary], bytes_per_s=rate(), boundary=boundary))
        except AbsentError:
            continue
    return tuple(lines)


def roofline_of(
    device: Device, dtype: str, flop: int | Mapping[str, int], bytes_at: Iterable[tuple[str, str, int]]
) -> Roofline:
    """The roofline of some kernels.

    Args:
        flop: useful FLOP of the problem, or kernel by kernel where they compute different functions.
        bytes_at: (kernel, boundary, bytes both ways).
    """
    ceilings = device_ceilings(device, dtype)
    peak = ceilings[0].flop_per_s or 0.0
    rates = {line.boundary: line.bytes_per_s for line in ceilings if line.boundary}
    rates["core"] = rates.get("l2")  # what is delivered into the cores comes from the L2
    points = []
    for kernel, boundary, moved in bytes_at:
        if not moved:
            continue
        useful = flop if isinstance(flop, int) else flop[kernel]
        intensity, rate = useful / moved, rates.get(boundary)
        points.append(RooflinePoint(kernel, boundary, intensity, min(peak, intensity * rate) if rate else None))
    return Roofline(ceilings, tuple(points))
