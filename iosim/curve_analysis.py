"""Traffic against capacity for one call: every LRU size in one pass, OPT at chosen sizes, floors beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from iosim.attention import Attention
from iosim.curve_points import Bend, CurvePoint, bends_of
from iosim.errors import UsageError, did_you_mean
from iosim.floors import Memory, attention_floors
from iosim.floors.linear import own_floor_bytes
from iosim.kernels import make_schedule
from iosim.machine import Device
from iosim.masks import Tiling
from iosim.schedule import Schedule
from iosim.trace.concurrency import Concurrency

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from iosim.cache.curve import LruCurve
    from iosim.cache.optimal import OptCurve
    from iosim.trace.call_touches import CallTouches

POLICIES = ("lru", "opt", "opt-bypass", "fifo")
DEFAULT_LINE_BYTES = 128
#: sizes at which policies without a one-pass curve are replayed
SWEEP_SIZES = 24


@dataclass(frozen=True, slots=True)
class MissCurve:
    """The curve of one call: `print` it, `plot` it, or take it as data."""

    schedule: Schedule
    """what was replayed"""
    points: tuple[CurvePoint, ...]
    """by policy, then by capacity from one line upward"""
    bends: tuple[Bend, ...]
    """of the LRU curve"""
    floors: tuple[tuple[int, int, int, int], ...]
    """(capacity, floor of any kernel, of standard, of standard-once) in bytes at some capacities; the memory counted
    is the cache and what the items that run at once hold themselves"""
    levels: tuple[tuple[str, int], ...]
    """(name, capacity) of the device's own memories"""
    line_bytes: int
    """size of a line"""
    method: str
    """the level at which the replay was exact"""
    device: Device | None = None
    """whose cores ran the items; None: one stream"""

    def of(self, policy: str) -> tuple[CurvePoint, ...]:
        """Points of one policy."""
        return tuple(point for point in self.points if point.policy == policy)

    def at(self, capacity_bytes: int, policy: str = "lru") -> CurvePoint:
        """Traffic at one capacity.

        Raises:
            UsageError: a capacity below one line, or no curve of that policy.
        """
        below = [point for point in self.of(policy) if point.capacity_bytes <= capacity_bytes]
        if not below:
            raise UsageError(f"no {policy} point at {capacity_bytes} bytes", "capacity_bytes", "at least one line")
        return below[-1]

    def to_dict(self) -> dict[str, Any]:
        """`result` of the contract."""
        return {
            "points": [point.to_dict() for point in self.points],
            "bends": [{name: getattr(bend, name) for name in Bend.__dataclass_fields__} for bend in self.bends],
            "floors": [
                dict(zip(("capacity_bytes", "any_bytes", "standard_bytes", "once_bytes"), floor, strict=True))
                for floor in self.floors
            ],
            "levels": [{"name": name, "capacity_bytes": size} for name, size in self.levels],
            "line_bytes": self.line_bytes,
            "method": self.method,
        }

    def to_frame(self) -> pd.DataFrame:
        """The points as a pandas DataFrame, or polars where only that is installed."""
        from iosim.render.frames import frame

        return frame([point.to_dict() for point in self.points])

    def plot(self) -> Figure:
        """Traffic against capacity, log-log, as a matplotlib Figure."""
        from iosim.render.curve_plot import plot_curve

        return plot_curve(self)

    def __str__(self) -> str:
        from iosim.render.curve_text import curve_text

        return curve_text(self)


def miss_curve_of_call(
    problem: Attention,
    device: Device | None = None,
    kernel: str = "flash2",
    tile: Tiling | None = None,
    settings: dict[str, object] | None = None,
    policies: Sequence[str] = ("lru",),
    line_bytes: int | None = None,
    concurrency: Concurrency | None = None,
    pack_gqa: bool | None = None,
) -> MissCurve:
    """Traffic of a kernel against the capacity of one cache that all its items share.

    Args:
        device: its cores run items side by side, its line size and levels are used; None: one sequential stream.
        policies: lru in one pass, and opt where items run one after another; the others at chosen sizes.
        concurrency: overrides how items run.
        pack_gqa: pack the query heads of a group into rows; None: as the kernel does.
    Raises:
        UsageError: an unknown policy, or a kernel without a program of touches.
    """
    for policy in policies:
        if policy not in POLICIES:
            raise UsageError(f"no curve of policy {policy!r}", "--policy", did_you_mean(policy, POLICIES))
    schedule = make_schedule(problem, device, kernel, tile, settings, pack_gqa)
    lines = line_bytes or _device_line(device) or DEFAULT_LINE_BYTES
    concurrency = concurrency or Concurrency(device.cores if device else 1)
    touched = touches_of(schedule, lines, concurrency)
    lru = _lru(touched)
    points = [point for policy in policies for point in _points(policy, touched, lru, lines, concurrency.slots == 1)]
    largest = max(point.capacity_bytes for point in points)
    return MissCurve(
        schedule=schedule,
        points=tuple(points),
        bends=bends_of(_steps("lru", lru, lines), schedule),
        floors=_floors(
            schedule, lines, 4 * max(largest, lines * 64), concurrency.slots * schedule.working_set.total_bytes
        ),
        levels=_levels(device),
        line_bytes=lines,
        method=lru.method,
        device=device,
    )


def touches_of(schedule: Schedule, line_bytes: int, concurrency: Concurrency) -> CallTouches:
    """The touches of a schedule's launches on lines.

    Raises:
        UsageError: the kernel has counts but no program of touches.
    """
    from iosim.trace.call_touches import call_touches

    programs = schedule.programs
    if not programs:
        raise UsageError(f"{schedule.kernel} has no program of touches to replay", "--kernel")
    bits = {m.tensor: m.bits for m in schedule.traffic.moved}
    return call_touches(programs, bits, line_bytes, concurrency)


def _device_line(device: Device | None) -> int | None:
    cache = device.cache_before("hbm") if device and device.has_level("hbm") else None
    return cache.line_bytes if cache else None


def _lru(touched: CallTouches) -> LruCurve:
    from iosim.cache.replaying import miss_curve_of

    return miss_curve_of(touched.touches)


def _points(policy: str, touched: CallTouches, lru: LruCurve, line_bytes: int, in_turn: bool) -> list[CurvePoint]:
    if policy == "lru":
        return _steps(policy, lru, line_bytes)
    from iosim.cache.levels import opt_touches_curve
    from iosim.cache.replaying import replay

    if policy == "opt" and in_turn:  # where cores take turns, one pass can take longer than all the sizes
        return _steps(policy, opt_touches_curve(touched.touches), line_bytes)
    swept = [(capacity, replay(touched.touches, policy, capacity)) for capacity in _sweep(lru)]
    return [
        CurvePoint(policy, capacity * line_bytes, counts.read_bytes(line_bytes), counts.write_bytes(line_bytes))
        for capacity, counts in swept
    ]


def _steps(policy: str, curve: LruCurve | OptCurve, line_bytes: int) -> list[CurvePoint]:
    capacities = curve.capacities()
    fills, writes = curve.fills(capacities), curve.write_backs_with_flush(capacities)
    points: list[CurvePoint] = []
    for capacity, read, written in zip(capacities.tolist(), fills.tolist(), writes.tolist(), strict=True):
        point = CurvePoint(policy, capacity * line_bytes, int(read) * line_bytes, int(written) * line_bytes)
        if not points or (point.read_bytes, point.write_bytes) != (points[-1].read_bytes, points[-1].write_bytes):
            points.append(point)
    return points


def _sweep(lru: LruCurve) -> list[int]:
    """Capacities for policies that are replayed size by size: evenly on a log scale up to the last bend."""
    top = max(2, int(lru.capacities()[-1]))
    sizes = {round(top ** (index / (SWEEP_SIZES - 1))) for index in range(SWEEP_SIZES)}
    return sorted(max(1, size) for size in sizes)


def _floors(schedule: Schedule, least: int, most: int, own: int) -> tuple[tuple[int, int, int, int], ...]:
    """Floors for a cache of each size beside the items' own memory of `own` bytes: both hold operands.

    Of another function than softmax attention every class has that function's floor, where it is known.
    """
    made = []
    size = max(least, 64)
    while size <= most:
        memory = Memory("given", 8 * (size + own))
        floors, function = attention_floors(schedule.problem, memory), own_floor_bytes(schedule, memory)
        classes = (floors.any_bytes, floors.standard_bytes, floors.once_bytes) if function is None else (function,) * 3
        made.append((size, *classes))
        size = size * 5 // 4 + 1
    return tuple(made)


def _levels(device: Device | None) -> tuple[tuple[str, int], ...]:
    """The device's shared caches, and one partition where partitions keep own copies."""
    if device is None:
        return ()
    named = []
    for level in device.levels:
        if level.scope == "device" and level.name not in ("hbm", "host") and level.capacity_bytes:
            size = level.capacity_bytes * level.instances
            if level.replicates and level.partitions > 1:
                named.append((f"{level.name}, one of {level.partitions} partitions", size // level.partitions))
            named.append((level.name, size))
    return tuple(named)
