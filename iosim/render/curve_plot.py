"""The miss curve as a picture: traffic against capacity, floors and the device's own sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iosim.render.axes import device_words, entitle, legend_beside, quantities
from iosim.render.plots import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iosim.curve_analysis import MissCurve

FLOOR_NAMES = ("floor: any kernel", "floor: forms each score", "floor: each multiply-add once")


def plot_curve(curve: MissCurve) -> Figure:
    """Log-log steps per policy, dashed floors, a dotted line per memory of the device."""
    made = figure(9.5, 4.5)
    axes = made.subplots()
    for index, policy in enumerate(dict.fromkeys(point.policy for point in curve.points)):
        points = curve.of(policy)
        sizes = [point.capacity_bytes for point in points]
        totals = [point.total_bytes for point in points]
        last = max([size for size, *_ in curve.floors] or sizes)
        axes.step([*sizes, last], [*totals, totals[-1]], where="post", color=COLOURS[index], label=policy.upper())
    for index, name in enumerate(FLOOR_NAMES):
        sizes = [floor[0] for floor in curve.floors]
        axes.plot(sizes, [floor[1 + index] for floor in curve.floors], "--", color="black", alpha=1 - 0.3 * index,
                  linewidth=1, label=name)  # fmt: skip
    for name, size in curve.levels:
        axes.axvline(size, color="grey", linestyle=":", linewidth=1)
        axes.annotate(name, (size, axes.get_ylim()[1]), rotation=90, fontsize=7, va="top", ha="right")
    for bend in curve.bends[:3]:
        axes.annotate(
            bend.why.split(":")[0],
            (bend.to_bytes, curve.at(bend.to_bytes).total_bytes),
            xytext=(-8, 14),
            textcoords="offset points",
            ha="right",
            fontsize=7,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5},
        )
    axes.set(xscale="log", yscale="log", xlabel="capacity", ylabel="bytes, both ways")
    quantities(axes.xaxis, "B")
    quantities(axes.yaxis, "B")
    legend_beside(axes)
    schedule = curve.schedule
    where = f"{device_words(curve.device)}, lines of {curve.line_bytes} bytes"
    entitle(made, schedule.problem, f"{schedule.kernel}, tile {schedule.tiling}; {where}")
    return made
