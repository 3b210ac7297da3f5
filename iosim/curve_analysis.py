"""Traffic against capacity for one call: every LRU size in one pass, OPT at chosen sizes, floors beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from iosim.attention import Attention
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
    from iosim.trace.call_touches import CallTouches

POLICIES = ("lru", "opt", "opt-bypass", "fifo")
DEFAULT_LINE_BYTES = 128
#: sizes at which policies without a one-pass curve are replayed
SWEEP_SIZES = 24
#: a drop of this share of the largest traffic is a bend worth a word
BEND_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Traffic from one capacity up to the next point's."""

    policy: str
    """lru | opt | opt-bypass | fifo"""
    capacity_bytes: int
    """whole lines"""
    read_bytes: int
    """fetched; a write that covers a whole line fetches nothing"""
    write_bytes: int
    """written back, what is dirty at the end included"""

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.read_bytes + self.write_bytes

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        return {name: getattr(self, name) for name in CurvePoint.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Bend:
    """Where an LRU curve falls, and why."""

    from_bytes: int
    """capacity at which the fall begins"""
    to_bytes: int
    """capacity at which it is over"""
    saved_bytes: int
    """reads saved on the way"""
    why: str
    """what fits from there on"""


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
) -> MissCurve:
    """Traffic of a kernel against the capacity of one cache that all its items share.

    Args:
        device: its cores run items side by side, its line size and levels are used; None: one sequential stream.
        policies: lru in one pass; the others at chosen sizes.
        concurrency: overrides how items run.
    Raises:
        UsageError: an unknown policy, or a kernel without a program of touches.
    """
    for policy in policies:
        if policy not in POLICIES:
            raise UsageError(f"no curve of policy {policy!r}", "--policy", did_you_mean(policy, POLICIES))
    schedule = make_schedule(problem, device, kernel, tile, settings)
    lines = line_bytes or _device_line(device) or DEFAULT_LINE_BYTES
    concurrency = concurrency or Concurrency(device.cores if device else 1)
    touched = touches_of(schedule, lines, concurrency)
    lru = _lru(touched)
    points = [point for policy in policies for point in _points(policy, touched, lru, lines)]
    largest = max(point.capacity_bytes for point in points)
    return MissCurve(
        schedule=schedule,
        points=tuple(points),
        bends=_bends(_lru_points(lru, lines), schedule),
        floors=_floors(
            schedule, lines, 4 * max(largest, lines * 64), concurrency.slots * schedule.working_set.total_bytes
        ),
        levels=_levels(device),
        line_bytes=lines,
        method=lru.method,
    )


def touches_of(schedule: Schedule, line_bytes: int, concurrency: Concurrency) -> CallTouches:
    """The touches of a schedule's launches on lines.

    Raises:
        UsageError: the kernel has counts but no program of touches.
    """
    from iosim.trace.call_touches import call_touches

    programs = [launch.program for launch in schedule.launches if launch.program]
    if len(programs) < len(schedule.launches):
        raise UsageError(f"{schedule.kernel} has no program of touches to replay", "--kernel")
    bits = {m.tensor: m.bits for m in schedule.traffic.moved}
    return call_touches(programs, bits, line_bytes, concurrency)


def _device_line(device: Device | None) -> int | None:
    cache = device.cache_before("hbm") if device and device.has_level("hbm") else None
    return cache.line_bytes if cache else None


def _lru(touched: CallTouches) -> LruCurve:
    from iosim.cache.replaying import miss_curve_of

    return miss_curve_of(touched.touches)


def _points(policy: str, touched: CallTouches, lru: LruCurve, line_bytes: int) -> list[CurvePoint]:
    if policy == "lru":
        return _lru_points(lru, line_bytes)
    from iosim.cache.replaying import replay

    made = []
    for capacity in _sweep(lru):
        counts = replay(touched.touches, policy, capacity)
        made.append(
            CurvePoint(policy, capacity * line_bytes, counts.read_bytes(line_bytes), counts.write_bytes(line_bytes))
        )
    return made


def _lru_points(lru: LruCurve, line_bytes: int) -> list[CurvePoint]:
    capacities = lru.capacities()
    fills, writes = lru.fills(capacities), lru.write_backs_with_flush(capacities)
    points: list[CurvePoint] = []
    for capacity, read, written in zip(capacities.tolist(), fills.tolist(), writes.tolist(), strict=True):
        point = CurvePoint("lru", capacity * line_bytes, int(read) * line_bytes, int(written) * line_bytes)
        if not points or (point.read_bytes, point.write_bytes) != (points[-1].read_bytes, points[-1].write_bytes):
            points.append(point)
    return points


def _sweep(lru: LruCurve) -> list[int]:
    """Capacities for policies that are replayed size by size: evenly on a log scale up to the last bend."""
    top = max(2, int(lru.capacities()[-1]))
    sizes = {round(top ** (index / (SWEEP_SIZES - 1))) for index in range(SWEEP_SIZES)}
    return sorted(max(1, size) for size in sizes)


def _bends(points: Sequence[CurvePoint], schedule: Schedule) -> tuple[Bend, ...]:
    """Falls of at least a share of the largest traffic; neighbouring steps of one fall are joined."""
    worth = BEND_SHARE * points[0].read_bytes
    bends: list[Bend] = []
    for before, after in pairwise(points):
        saved = before.read_bytes - after.read_bytes
        if saved <= 0:
            continue
        near = bends and after.capacity_bytes <= 1.25 * bends[-1].to_bytes
        if near:
            last = bends.pop()
            bends.append(Bend(last.from_bytes, after.capacity_bytes, last.saved_bytes + saved, ""))
        else:
            bends.append(Bend(after.capacity_bytes, after.capacity_bytes, saved, ""))
    kept = [bend for bend in bends if bend.saved_bytes >= worth]
    return tuple(Bend(b.from_bytes, b.to_bytes, b.saved_bytes, _why(b, schedule)) for b in kept)


def _why(bend: Bend, schedule: Schedule) -> str:
    """What begins to fit: the tensors that are read again, and the size of one sweep over them."""
    problem, shape, bits = schedule.problem, schedule.problem.shape, schedule.problem.types.bits
    values = 0 if shape.latent else shape.head_dim_v * bits("V")
    sweep = problem.n_kv * (shape.head_dim * bits("K") + values) // 8
    if 0.9 * sweep <= bend.to_bytes <= 1.5 * sweep + 4 * schedule.working_set.shared_bytes:
        return f"K and V of one head ({sweep:,} bytes) with one Q and O tile fit: their re-reads hit"
    if bend.to_bytes < sweep and problem.mask.text != "full":
        return "the keys that a Q tile shares with the next one fit, for more and more of the mask"
    if bend.to_bytes > sweep:
        return "what several heads or launches share fits"
    return "a tile and what is touched between its uses fit"


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
