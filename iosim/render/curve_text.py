"""The miss curve in a terminal: a small log-log plot and the bends in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from iosim.render.problem_text import problem_line
from iosim.render.text import byte_count, capacity, table

if TYPE_CHECKING:
    from iosim.curve_analysis import MissCurve

WIDTH, HEIGHT = 72, 16
MARKS = {"lru": "█", "fifo": "▒", "opt": "o", "opt-bypass": "·"}


def curve_text(curve: MissCurve) -> str:
    """The plot, its key, the bends."""
    schedule = curve.schedule
    parts = [
        problem_line(schedule.problem),
        f"{schedule.kernel}, tile {schedule.tiling}, lines of {curve.line_bytes} bytes, replayed by {curve.method}",
        "",
        *_plot(curve),
        "",
    ]
    rows = [
        [capacity(bend.from_bytes), capacity(bend.to_bytes), byte_count(bend.saved_bytes), bend.why]
        for bend in curve.bends
    ]
    if rows:
        parts.append(table(["falls from", "to", "reads saved", "because"], rows))
    else:
        parts.append("no capacity saves reads: nothing is read twice")
    for name, size in curve.levels:
        at = curve.at(size)
        parts.append(
            f"at {name} ({capacity(size)}): {byte_count(at.read_bytes)} read, {byte_count(at.write_bytes)} written"
        )
    return "\n".join(parts)


def _plot(curve: MissCurve) -> list[str]:
    """Traffic in rows (log), capacity in columns (log); `-` is the best floor, `|` a memory of the device."""
    sizes = [point.capacity_bytes for point in curve.points]
    low, high = min(sizes), max([*sizes, *(floor[0] for floor in curve.floors)])
    policies = list(dict.fromkeys(point.policy for point in curve.points))
    columns = [round(low * (high / low) ** (i / (WIDTH - 1))) for i in range(WIDTH)]
    series = {policy: [_at(curve, policy, size) for size in columns] for policy in policies}
    floors = [_floor_at(curve, size) for size in columns]
    values = [v for s in [*series.values(), floors] for v in s if v > 0]
    bottom, top = math.log(min(values)), math.log(max(values))
    grid = [[" "] * WIDTH for _ in range(HEIGHT)]
    for _, size in curve.levels:
        if low <= size <= high:
            column = round((WIDTH - 1) * math.log(size / low) / math.log(high / low))
            for row in grid:
                row[column] = "|"
    _draw(grid, floors, "-", bottom, top)
    for policy in reversed(policies):
        _draw(grid, series[policy], MARKS[policy], bottom, top)
    lines = []
    for index, row in enumerate(grid):
        value = math.exp(top - (top - bottom) * index / (HEIGHT - 1))
        label = byte_count(value) if index % 5 == 0 else ""
        lines.append(f"{label:>10} {''.join(row)}".rstrip())
    axis = f"{'':10} {capacity(low):<{WIDTH // 2}}{capacity(high):>{WIDTH - WIDTH // 2}}"
    key = ", ".join(f"{MARKS[policy]} {policy}" for policy in policies) + ", - best floor"
    if curve.levels:
        key += ", | the device's own sizes"
    return [*lines, axis, f"{'':10} bytes both ways against capacity: {key}"]


def _at(curve: MissCurve, policy: str, size: int) -> int:
    below = [point for point in curve.of(policy) if point.capacity_bytes <= size]
    return below[-1].total_bytes if below else 0


def _floor_at(curve: MissCurve, size: int) -> int:
    """The floor of kernels that do each multiply-add once, at the next larger size computed: safe for `size`."""
    above = [floor[3] for floor in curve.floors if floor[0] >= size]
    return above[0] if above else 0


def _draw(grid: list[list[str]], values: Sequence[int], mark: str, bottom: float, top: float) -> None:
    for column, value in enumerate(values):
        if value > 0:
            place = 0.0 if top == bottom else (top - math.log(value)) / (top - bottom)
            grid[round(place * (HEIGHT - 1))][column] = mark
