"""Devices: the memory levels, compute units and clocks of one accelerator, and what follows from them.

Peaks are dense and a multiply-add counts as two operations. A rate that no document states follows
from cores x operations per clock x clock where the file gives those; what is unknown raises
`AbsentError` by the name of the missing fact, so that no model runs on a guess.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from iosim.errors import AbsentError, UsageError, did_you_mean
from iosim.machine_parts import CARRIERS, TWIN, ComputeUnit, Conflict, MemoryLevel

if TYPE_CHECKING:
    from iosim.catalog import Fact
    from iosim.errors import Fault

__all__ = [
    "Cluster",
    "ComputeUnit",
    "Conflict",
    "Device",
    "MemoryLevel",
    "check_device",
    "device_names",
    "device_template",
    "load_device",
]

BOUNDARIES = ("core", "l2", "hbm", "host")


@dataclass(frozen=True, slots=True)
class Device:
    """One accelerator as its file describes it."""

    name: str
    """for people: NVIDIA H100 SXM5"""
    key: str
    """catalogue name: h100-sxm5"""
    vendor: str
    """for people"""
    architecture: str
    """volta | turing | ampere | ada | hopper | blackwell | ... decides tiles and kernels"""
    kind: str
    """gpu | npu | tpu | cpu"""
    cores: int
    """SM, CU, cube core, TensorCore: what runs one work item at a time"""
    clock_hz: float | None
    """rated clock, at which peaks are stated"""
    max_clock_hz: float | None
    """highest clock the device can reach: floors use it"""
    levels: tuple[MemoryLevel, ...]
    """from the core outward"""
    units: tuple[ComputeUnit, ...]
    """one per unit and operand type"""
    facts: Mapping[str, Fact] = field(hash=False)
    """every number of the file by dotted path"""
    conflicts: tuple[Conflict, ...]
    """where sources disagree"""
    notes: tuple[str, ...]
    """what a reader of a prediction should know"""
    sha256: str
    """of the file's text"""
    file: str
    """where it was read from"""
    compute_capability: str = ""
    """of NVIDIA's, such as 9.0; else empty"""

    def level(self, name: str) -> MemoryLevel:
        """The level called `name`.

        Raises:
            AbsentError: the device has no such level; names those it has.
        """
        for level in self.levels:
            if level.name == name:
                return level
        names = [level.name for level in self.levels]
        raise AbsentError(f"{self.name} has no level {name!r}", self.file, f"its levels: {', '.join(names)}")

    def has_level(self, name: str) -> bool:
        """Whether the device has a level called `name`."""
        return any(level.name == name for level in self.levels)

    def core_memory_bytes(self) -> int:
        """Words near one core: registers + shared memory and L1 + tensor memory, or L0 + L1 + UB.

        Raises:
            AbsentError: a size is unknown, or the file lists no level of a core.
        """
        levels = [level for level in self.levels if level.scope == "core"]
        if not levels:
            raise self._absent("a level of scope core")
        return self._capacity(levels)

    def memory_above_bytes(self, boundary: str) -> int:
        """All memory on the near side of a boundary: what a schedule may hold without crossing it.

        Args:
            boundary: "core": of one core; "l2": of all cores; "hbm": with the device's caches;
                "host": with its main memory.
        Raises:
            AbsentError: a size is unknown. UsageError: no such boundary.
        """
        if boundary not in BOUNDARIES:
            raise UsageError(f"unknown boundary {boundary!r}", "--boundary", did_you_mean(boundary, BOUNDARIES))
        total = self.core_memory_bytes() * (1 if boundary == "core" else self.cores)
        if boundary in ("hbm", "host"):
            total += self._capacity(self._caches())
        if boundary == "host":
            total += self._capacity([self.level("hbm")])
        return total

    def cache_before(self, level: str) -> MemoryLevel | None:
        """The device's last cache before `level`: the memory-side one where there is one, else L2."""
        self.level(level)
        names = [each.name for each in self.levels]
        caches = [each for each in self._caches() if names.index(each.name) < names.index(level)]
        return caches[-1] if caches else None

    def shared_cache(self) -> MemoryLevel | None:
        """The nearest cache that cores share, whose requests the boundary `l2` counts: L2 of a GPU, L3 of a CPU."""
        caches = self._caches()
        return caches[0] if caches else None

    def peak_flop_per_s(self, dtype: str) -> float:
        """Highest dense rate at which operands of `dtype` can be multiplied: what a time floor divides by.

        The fastest of the units that can do the job, each at max(stated peak, cores x operations x
        highest clock), or at its stated peak where it is capped. A device without a unit for the type
        runs it on a wider one (`peak_assumption` says so). Splitting one operand into several narrower
        ones (3xTF32, Ozaki) is not considered.

        Raises:
            AbsentError: no unit, or its rate cannot be known. UsageError: unknown type.
        """
        return max(rate for _, rate in self._rates(dtype))

    def peak_unit(self, dtype: str) -> ComputeUnit:
        """The unit that `peak_flop_per_s` speaks of. Raises as it does."""
        return max(self._rates(dtype), key=lambda pair: pair[1])[0]

    def peak_assumption(self, dtype: str) -> str:
        """One sentence where the peak is not that of a unit of `dtype` itself, else empty."""
        unit = self.peak_unit(dtype)
        if unit.dtype == dtype:
            return ""
        return f"{dtype} operands are multiplied at the rate of the {unit.dtype} {unit.name} units of {self.name}"

    def rated_flop_per_s(self, dtype: str) -> float:
        """Stated dense peak for `dtype` with wide accumulation, or cores x operations x rated clock.

        Raises:
            AbsentError, UsageError: as `peak_flop_per_s`.
        """
        units = [unit for unit, _ in self._rates(dtype)]
        wide = [unit for unit in units if not unit.narrow] or units
        return max(self._rated(unit) for unit in wide)

    def sustained_flop_per_s(self, dtype: str) -> float:
        """Dense rate for `dtype` with wide accumulation at the highest clock: what a kernel's own work divides by.

        Raises:
            AbsentError, UsageError: as `peak_flop_per_s`.
        """
        able = self._rates(dtype)
        wide = [(unit, rate) for unit, rate in able if not unit.narrow] or able
        return max(rate for _, rate in wide)

    def exp_per_s(self) -> float:
        """Exponentials per second at the highest clock.

        Raises:
            AbsentError: the file gives no `exp` unit with a rate.
        """
        rates = [rate for unit in self.units if unit.name == "exp" if (rate := self._fastest(unit)) is not None]
        if not rates:
            raise self._absent("exp.fp32.ops_per_clk")
        return max(rates)

    def shared_bytes_per_s(self) -> float:
        """Rate of all shared memories (L1 of an Ascend core) at the highest clock.

        Raises:
            AbsentError: no such level, or its rate is unknown.
        """
        return self.bandwidth_bytes_per_s("l1" if not self.has_level("shared") and self.has_level("l1") else "shared")

    def bandwidth_bytes_per_s(self, level: str) -> float:
        """Peak rate of a level: as stated, else cores x bytes per clock x highest clock.

        Raises:
            AbsentError: no such level, or its rate is unknown.
        """
        found = self.level(level)
        if found.bandwidth_bytes_per_s is not None:
            return found.bandwidth_bytes_per_s
        if found.bytes_per_clk_per_core is None:
            raise self._absent(f"{level}.bandwidth")
        return self.cores * found.bytes_per_clk_per_core * self._clock()

    def attainable_bytes_per_s(self, level: str) -> float | None:
        """Best measured rate of a level, or None where nobody measured it."""
        return self.level(level).measured_bytes_per_s

    def _caches(self) -> list[MemoryLevel]:
        return [level for level in self.levels if level.scope == "device" and level.name not in ("hbm", "host")]

    def _capacity(self, levels: Iterable[MemoryLevel]) -> int:
        total = 0
        for level in levels:
            if level.total_bytes is None:
                raise self._absent(f"{level.name}.capacity")
            total += level.total_bytes
        return total

    def _rates(self, dtype: str) -> list[tuple[ComputeUnit, float]]:
        if dtype not in CARRIERS:
            raise UsageError(f"unknown data type {dtype!r}", "", did_you_mean(dtype, CARRIERS))
        carriers = set(CARRIERS[dtype])
        if dtype in TWIN and not any(unit.dtype == dtype for unit in self.units):
            carriers.add(TWIN[dtype])
        able = [unit for unit in self.units if unit.name != "exp" and unit.dtype in carriers]
        rates = [(unit, rate) for unit in able if (rate := self._fastest(unit)) is not None]
        if not rates:
            raise self._absent(f"matrix.{dtype}.peak")
        return rates

    def _fastest(self, unit: ComputeUnit) -> float | None:
        clock = self.max_clock_hz or self.clock_hz
        if unit.capped or unit.ops_per_clk_per_core is None or clock is None:
            return unit.peak_op_per_s
        return max(unit.peak_op_per_s or 0.0, self.cores * unit.ops_per_clk_per_core * clock)

    def _rated(self, unit: ComputeUnit) -> float:
        if unit.peak_op_per_s is not None:
            return unit.peak_op_per_s
        return self.cores * (unit.ops_per_clk_per_core or 0.0) * (self.clock_hz or self._clock())

    def _clock(self) -> float:
        clock = self.max_clock_hz or self.clock_hz
        if clock is None:
            raise self._absent("cores.clock")
        return clock

    def _absent(self, fact: str) -> AbsentError:
        return AbsentError(
            f"{self.name}: {fact!r} is not known", self.file, "a copy of the file with that fact fills the gap"
        )


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal devices joined by links."""

    device: Device
    """one of them"""
    count: int
    """how many"""
    link_bytes_per_s: float | None
    """what one device sends to the others, or to its host, one direction; None where nobody says"""


def load_device(name_or_path: str) -> Device:
    """A device by catalogue name or alias, or from a file (a path has a slash or ends with .toml).

    Raises:
        UsageError: no such name. FileError: the file is missing, broken or says impossible things.
    """
    from iosim.catalog import find
    from iosim.machine_file import read_device

    is_path = "/" in name_or_path or "\\" in name_or_path or name_or_path.endswith(".toml")
    return read_device(Path(name_or_path) if is_path else find("hardware", name_or_path, "--device"))


def device_names() -> list[str]:
    """Catalogue names of every device, the user's own included."""
    from iosim.catalog import entries

    return list(entries("hardware"))


def check_device(device: Device) -> list[Fault]:
    """What looks wrong in a device file: see `iosim.machine_check`."""
    from iosim.machine_check import check_device as check

    return check(device)


def device_template(name: str) -> str:
    """A commented device file to start from: see `iosim.machine_file`."""
    from iosim.machine_file import template

    return template(name)
