"""The answer for one problem: per kernel, per boundary, beside the floors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iosim._version import __version__
from iosim.attention import Attention
from iosim.cache.replay_options import MainMemory, ReplayOptions
from iosim.floors import Floors, TimeFloor
from iosim.kernels.page_sectors import PageCost
from iosim.link_report import LinkReport, Overlap
from iosim.links import LinkAsked
from iosim.machine import Device
from iosim.masks import Tiling
from iosim.schedule import UNBOUNDED, Schedule, Traffic
from iosim.timing import Ceilings, Expected

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Options:
    """What a report may be asked beyond problem, device and kernels."""

    tile: Tiling | None = None
    """overrides every kernel's own tile"""
    settings: Mapping[str, object] | None = None
    """kernel parameters, as --set gives them"""
    pack_gqa: bool | None = None
    """pack query heads of a group into rows; None: in decode only"""
    warm: bool = False
    """operands may already be in the last cache, and outputs may stay there"""
    lse_output: bool = False
    """the log-sum-exp is an output: floors count it"""
    measured_s: float | None = None
    """time of the user's own kernel"""
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    """how the schedule runs, where the person knows better than the device file"""
    link: LinkAsked = field(default_factory=LinkAsked)
    """several devices, or a device and its host"""


@dataclass(frozen=True, slots=True)
class BoundaryReport:
    """What one kernel moves across one boundary, beside what nobody can avoid."""

    name: str
    """core | l2 | hbm | host | link: the slower side; core is what is delivered into cores, link what other devices send"""
    capacity_bytes: int | None
    """the memory on the near side (one core's at `core`)"""
    traffic: Traffic
    """by tensor, over batch and all heads"""
    method: str
    """how the bytes were found"""
    exact: bool
    """whether they are exact for the schedule"""
    floors: Floors | None
    """None where the device file does not give the memory"""
    algorithm_class: str
    """of the kernel"""
    memory: MainMemory | None = None
    """at main memory: what else the replay knows, and the closed form beside it"""
    complete: bool = True
    """whether the kernel writes every output that the floors count"""
    own_floor_bytes: int | None = None
    """of another function than softmax attention: what every kernel of that function moves"""

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.traffic.total_bytes

    def gap(self, floor_class: str) -> float | None:
        """Total over the floor of a class; None where that floor does not speak of the kernel.

        `any` is of the kernel's own function, where that is not softmax attention and its floor is known.
        """
        speaks = {
            "any": self.own_floor_bytes is not None or self.algorithm_class not in UNBOUNDED,
            "standard": self.algorithm_class in ("standard", "standard-once"),
        }
        speaks["standard-once"] = self.algorithm_class == "standard-once"
        floor = self._any_bytes if floor_class == "any" else self.floors.bytes_of(floor_class) if self.floors else 0
        return self.total_bytes / floor if floor and self.complete and speaks[floor_class] else None

    @property
    def _any_bytes(self) -> int | None:
        """The floor of every kernel of the same function."""
        if self.own_floor_bytes is not None:
            return self.own_floor_bytes
        return self.floors.any_bytes if self.floors else None

    def to_dict(self) -> dict[str, object]:
        """The contract's keys, and the floors themselves."""
        return {
            "name": self.name,
            "capacity_bytes": self.capacity_bytes,
            "read_bytes": self.traffic.read_bytes,
            "write_bytes": self.traffic.write_bytes,
            "read_elements": self.traffic.read_elements,
            "write_elements": self.traffic.write_elements,
            "method": self.method,
            "exact": self.exact,
            "floor_any_bytes": self._any_bytes,
            "floor_standard_bytes": self.floors.standard_bytes if self.floors else None,
            "floor_once_bytes": self.floors.once_bytes if self.floors else None,
            "gap_any": self.gap("any"),
            "gap_standard": self.gap("standard"),
            "gap_once": self.gap("standard-once"),
            **self._memory_keys(),
        }

    def _memory_keys(self) -> dict[str, object]:
        if self.memory is None:
            return {}
        closed = self.memory.closed
        return {
            "closed_form_read_bytes": closed.traffic.read_bytes if closed else None,
            "closed_form_write_bytes": closed.traffic.write_bytes if closed else None,
            "closed_form_method": closed.method if closed else None,
            "written_in_kernel_bytes": self.memory.written_in_kernel_bytes,
            "hit_rate": self.memory.hit_rate,
        }


@dataclass(frozen=True, slots=True)
class KernelReport:
    """One kernel of a report."""

    schedule: Schedule
    """what it does"""
    boundaries: tuple[BoundaryReport, ...]
    """from the core outward"""
    floor: TimeFloor | None
    """the same for every kernel of a call; None without a device"""
    ceilings: Ceilings
    """time per resource, labelled; never part of the floor"""
    measured_s: float | None = None
    """the user's own time"""
    expected: Expected | None = None
    """what the calibrated model expects, which real kernels may miss either way; never part of the floor"""
    overlap: Overlap | None = None
    """its time with the link's messages, where there are some; never part of the floor"""
    pages: tuple[PageCost, ...] = ()
    """what the pages of its KV cache cost in sectors; empty where it is not paged"""
    unexpected: str = ""
    """why no time is expected"""

    @property
    def name(self) -> str:
        """The kernel's name."""
        return self.schedule.kernel

    @property
    def bottleneck(self) -> str:
        """The largest part of the expected time; where none is expected, the resource with the longest ceiling."""
        return self.expected.bottleneck if self.expected else self.ceilings.bottleneck

    def boundary(self, name: str) -> BoundaryReport:
        """One boundary by name."""
        return next(boundary for boundary in self.boundaries if boundary.name == name)

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        work = self.schedule.work
        row: dict[str, object] = {
            "kernel": self.name,
            "class": self.schedule.algorithm_class,
            "tile": str(self.schedule.tiling),
            "parameters": self.schedule.settled,
            "flop": work.flop,
            "flop_executed": work.flop_executed,
            "exp": work.exp,
            "exp_rescale": work.exp_rescale,
            "boundaries": [boundary.to_dict() for boundary in self.boundaries],
            "time_floor_s": self.floor.time_s if self.floor else None,
            "ceilings": self.ceilings.to_dict(),
            "time_expected_s": self.expected.time_s if self.expected else None,
            "bottleneck": self.bottleneck,
            "binding_ceiling": self.ceilings.bottleneck,
            "breakdown": dict(self.expected.breakdown) if self.expected else {},
            **(self.overlap.to_dict() if self.overlap else {}),
            **({"pages": [cost.to_dict() for cost in self.pages]} if self.pages else {}),
        }
        if self.measured_s is not None and self.floor:
            row["speedup_upper_bound"] = self.measured_s / self.floor.time_s
        return row


@dataclass(frozen=True, slots=True)
class Report:
    """The answer for one problem: `print` it, show it in a notebook, or take it as data."""

    problem: Attention
    """what was asked"""
    device: Device | None
    """where"""
    kernels: tuple[KernelReport, ...]
    """one per kernel"""
    floor: TimeFloor | None
    """time no kernel can beat"""
    options: Options
    """how it was asked"""
    assumptions: tuple[str, ...]
    """what a reader must know"""
    link: LinkReport | None = None
    """what crosses to other devices or to the host"""

    def to_dict(self) -> dict[str, Any]:
        """`result` of the contract."""
        result: dict[str, Any] = {
            "kernels": [kernel.to_dict() for kernel in self.kernels],
            "flop": self.problem.flop(),
            "pairs": self.problem.counts().pairs,
            "time_floor_s": self.floor.time_s if self.floor else None,
        }
        if self.floor:
            result["time_floor"] = {name: getattr(self.floor, name) for name in self.floor.__dataclass_fields__}
        if self.link:
            result["link"] = self.link.to_dict()
        if self.options.measured_s is not None and self.floor:
            result["measured_s"] = self.options.measured_s
            result["speedup_upper_bound"] = self.options.measured_s / self.floor.time_s
        return result

    def provenance(self) -> dict[str, object]:
        """Version and the digest of the device file."""
        return {"iosim": __version__, "device_sha256": self.device.sha256 if self.device else None}

    def rows(self) -> list[dict[str, object]]:
        """One flat row per kernel and boundary."""
        rows = []
        for kernel in self.kernels:
            apart = ("boundaries", "parameters", "breakdown", "pages")
            whole = {k: v for k, v in kernel.to_dict().items() if k not in apart}
            ceilings = whole.pop("ceilings")
            assert isinstance(ceilings, dict)
            flat = whole | {f"ceiling_{name}": time for name, time in ceilings.items()}
            for boundary in kernel.boundaries:
                named = {("boundary" if key == "name" else key): v for key, v in boundary.to_dict().items()}
                rows.append({"kernel": kernel.name, **named, **flat})
        if self.link and not self.kernels:
            rows.append({"kernel": "", "boundary": self.link.way.boundary, **self.link.to_dict()})
        return rows

    def to_frame(self) -> pd.DataFrame:
        """The rows as a pandas DataFrame, or polars where only that is installed."""
        from iosim.render.frames import frame

        return frame(self.rows())

    def plot(self) -> Figure:
        """Bytes and ceilings per kernel as a matplotlib Figure."""
        from iosim.render.plots import plot_report

        return plot_report(self)

    def __str__(self) -> str:
        from iosim.render.report_text import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from iosim.render.report_html import report_html

        return report_html(self)
