"""Floors against memory: how much must move as a function of how much fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from iosim.errors import UsageError
from iosim.floors.all_bounds import floors_at
from iosim.floors.bound import Floors, Memory
from iosim.floors.demand import Demand
from iosim.floors.orders import ORDERS, crossover_elements, is_dense
from iosim.schedule import CLASSES, Schedule

#: sizes at which orders are counted under a mask, whose sums are not a formula of two factors
MASKED_POINTS = 24


@dataclass(frozen=True, slots=True)
class KernelPoint:
    """One kernel with its tile: a count, and the least memory that it is true for."""

    kernel: str
    """name and tile"""
    algorithm_class: str
    """of the kernel"""
    memory_elements: int
    """elements of the narrowest type that its working set takes"""
    value_elements: int
    """elements it moves into and out of a core, over batch and heads"""
    floor_elements: int | None
    """floor of its class with that memory; None for kernels that compute another function"""


@dataclass(frozen=True, slots=True)
class FloorCurve:
    """Floors, orders and kernels of one problem over many sizes of one memory."""

    demand: Demand
    """the problem, counted"""
    memory_elements: tuple[int, ...]
    """sizes, ascending, in elements of the narrowest type"""
    floors: tuple[Floors, ...]
    """one per size"""
    orders: dict[str, tuple[int | None, ...]]
    """order -> elements both ways per size; None where it does not fit or is not counted"""
    kernels: tuple[KernelPoint, ...]
    """kernels with their own tiles"""
    crossover_elements: int | None
    """where FlashAttention's order overtakes the small-cache order"""

    def best_order(self, index: int) -> tuple[str, int] | None:
        """(name, elements) of the order that moves least at a size."""
        known = [(words, name) for name, series in self.orders.items() if (words := series[index]) is not None]
        return min(known)[::-1] if known else None

    def bound_ids(self) -> tuple[str, ...]:
        """Ids of the single bounds, in order."""
        return tuple(bound.id for bound in self.floors[0].bounds)

    def series(self) -> dict[str, list[int]]:
        """Series name -> elements per size: the floor of each class, and each bound."""
        made = {
            "any": [at.any_elements for at in self.floors],
            "standard": [at.standard_elements for at in self.floors],
            "standard-once": [at.once_elements for at in self.floors],
        }
        for index, name in enumerate(self.bound_ids()):
            made[name] = [at.bounds[index].value_elements for at in self.floors]
        return made

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "memory_elements": list(self.memory_elements),
            "element_bits": self.demand.width,
            "floors_elements": self.series(),
            "orders_elements": {name: list(series) for name, series in self.orders.items()},
            "kernels": [{name: getattr(point, name) for name in KernelPoint.__dataclass_fields__}
                        for point in self.kernels],
            "crossover_elements": self.crossover_elements,
        }  # fmt: skip

    def rows(self) -> list[dict[str, object]]:
        """One flat row per series and size; kernels have one."""
        made: list[dict[str, object]] = []
        for kind, table in (("floor", self.series()), ("order", self.orders)):
            for name, values in table.items():
                made += [
                    {"kind": kind, "name": name, "memory_elements": memory, "value_elements": value}
                    for memory, value in zip(self.memory_elements, values, strict=True)
                    if value is not None
                ]
        made += [
            {"kind": "kernel", "name": point.kernel, "memory_elements": point.memory_elements,
             "value_elements": point.value_elements}
            for point in self.kernels
        ]  # fmt: skip
        return made


def log_sizes(low: int, high: int, count: int) -> tuple[int, ...]:
    """Up to `count` whole sizes from `low` to `high`, evenly spaced in their logarithm, ascending, no repeats."""
    ratio = (high / low) ** (1 / max(1, count - 1))
    return tuple(sorted({min(high, max(low, round(low * ratio**step))) for step in range(count)}))


def floor_curve(demand: Demand, memory_elements: Sequence[int], schedules: Sequence[Schedule] = ()) -> FloorCurve:
    """Floors, orders and kernels over sizes of one memory.

    Args:
        demand: the counted problem.
        memory_elements: sizes in elements of the narrowest type, ascending.
        schedules: kernels to place.
    """
    sizes = tuple(memory_elements)
    floors = tuple(floors_at(demand, Memory("given", size * demand.width)) for size in sizes)
    points = tuple(_point(schedule, demand) for schedule in schedules)
    forward = demand.problem.phase != "backward"
    orders = {name: _series(name, demand, sizes) for name in ORDERS} if forward else {}
    return FloorCurve(demand, sizes, floors, orders, points, crossover_elements(demand) if forward else None)


def _series(name: str, demand: Demand, sizes: tuple[int, ...]) -> tuple[int | None, ...]:
    step = 1 if is_dense(demand) else max(1, len(sizes) // MASKED_POINTS)
    order = ORDERS[name]
    last = len(sizes) - 1
    return tuple(
        order.elements(demand, size) if index % step == 0 or index == last else None for index, size in enumerate(sizes)
    )


def refuse_idealised(schedule: Schedule) -> None:
    """Refuse a count that no memory of the schedule's working set can keep.

    Raises:
        UsageError: the unfused kernel with matrix operands read once, however large.
    """
    if schedule.parameters.get("gemm_tile") == 0:
        raise UsageError(
            f"{schedule.kernel} is counted with each operand read once, which its working set cannot hold",
            "--set gemm_tile",
            "--set gemm_tile=128 counts what a tiled product reads",
        )


def _point(schedule: Schedule, demand: Demand) -> KernelPoint:
    traffic = schedule.traffic
    held = -(-8 * schedule.working_set.total_bytes * schedule.paired // demand.width)
    floors = floors_at(demand, Memory("given", held * demand.width))
    return KernelPoint(
        kernel=f"{schedule.kernel} {schedule.tiling}",
        algorithm_class=schedule.algorithm_class,
        memory_elements=held,
        value_elements=traffic.read_elements + traffic.write_elements,
        floor_elements=floors.elements_of(name) if (name := schedule.algorithm_class) in CLASSES else None,
    )
