"""Plots with matplotlib's Figure, never pyplot: no global state, works without a display."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from iosim.errors import AbsentError, UsageError
from iosim.render.axes import device_words, entitle, legend_above, legend_beside, quantities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iosim.attention import Attention
    from iosim.machine import Device
    from iosim.report import Report
    from iosim.timing import Roofline

COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")  # Tol's bright scheme
BOUNDARY_COLOURS = {"core": COLOURS[0], "shared": COLOURS[0], "l2": COLOURS[2], "hbm": COLOURS[1]}
MARKERS = {"shared": "D", "core": "o", "l2": "s", "hbm": "^", "link": "v", "host": "v"}
LINKS = ("link", "host")  # boundaries with floors of their own


def figure(width_in: float = 8.0, height_in: float = 4.0) -> Figure:
    """An empty figure.

    Raises:
        AbsentError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure as Made
    except ImportError:
        raise AbsentError("plots need matplotlib", hint="pip install matplotlib") from None
    return Made(figsize=(width_in, height_in), layout="constrained")


def plot_report(report: Report) -> Figure:
    """Left: bytes per kernel and boundary with the floors; right: time per resource with the time floor.

    Raises:
        UsageError: no kernel runs on the device, so there is nothing to draw.
    """
    if not report.kernels:
        raise UsageError("no kernel runs on the device: there is nothing to draw", "-o", "use .json, .csv, .md or .txt")
    made = figure(10.0, 2.2 + 0.75 * len(report.kernels))
    left, right = made.subplots(1, 2)
    _bytes(left, report)
    _times(right, report)
    entitle(made, report.problem, device_words(report.device))
    return made


def _bytes(axes: Any, report: Report) -> None:
    labels = [kernel.name for kernel in report.kernels]
    names = list(dict.fromkeys(at.name for kernel in report.kernels for at in kernel.boundaries))
    height = 0.8 / len(names)
    for index, name in enumerate(names):
        places = [place + (index - (len(names) - 1) / 2) * height for place in range(len(labels))]
        totals = [
            sum(at.total_bytes for at in kernel.boundaries if at.name == name) or math.nan for kernel in report.kernels
        ]
        axes.plot(totals, places, MARKERS.get(name, "o"), label=name, color=BOUNDARY_COLOURS.get(name))
    hbm = [at.floors for at in report.kernels[0].boundaries if at.floors and at.name not in LINKS]
    if hbm:
        axes.axvline(hbm[-1].any_bytes, color="black", linestyle="--", linewidth=1, label="compulsory")
    axes.set(xscale="log", xlabel="bytes, both ways", yticks=range(len(labels)), yticklabels=labels)
    axes.invert_yaxis()
    quantities(axes.xaxis, "B")
    legend_above(axes, 4)


def _times(axes: Any, report: Report) -> None:
    labels = [kernel.name for kernel in report.kernels]
    resources = list(report.kernels[0].ceilings.times_s)
    height = 0.8 / max(1, len(resources))
    for index, name in enumerate(resources):
        places = [place + (index - (len(resources) - 1) / 2) * height for place in range(len(labels))]
        times = [kernel.ceilings.times_s.get(name) or math.nan for kernel in report.kernels]
        axes.plot(times, places, "o", label=name, color=COLOURS[index % len(COLOURS)])
    if report.floor:
        axes.axvline(report.floor.time_s, color="black", linestyle="--", linewidth=1, label="time floor")
    axes.set(xscale="log", xlabel="time per resource", yticks=range(len(labels)), yticklabels=labels)
    axes.invert_yaxis()
    quantities(axes.xaxis, "s")
    legend_above(axes, 6)


def plot_roofline(roofline: Roofline, problem: Attention, device: Device) -> Figure:
    """Log-log: ceilings as lines, one marker per kernel and boundary."""
    made = figure(8.5, 4.5)
    axes = made.subplots()
    peak = next(c.flop_per_s for c in roofline.ceilings if c.flop_per_s is not None)
    intensities = [point.intensity_flop_per_byte for point in roofline.points] or [1.0]
    low, high = min(*intensities, 1.0) / 2, max(*intensities, 1000.0) * 4
    axes.plot([low, high], [peak, peak], color="black", linewidth=1.5)
    axes.annotate(
        roofline.ceilings[0].name, (high, peak), xytext=(-6, 4), textcoords="offset points", ha="right", fontsize=8
    )
    for ceiling in roofline.ceilings:
        if ceiling.bytes_per_s:
            ridge = peak / ceiling.bytes_per_s
            colour = BOUNDARY_COLOURS.get(ceiling.boundary, "grey")
            axes.plot([low, ridge], [low * ceiling.bytes_per_s, peak], color=colour, linewidth=1)
            axes.annotate(
                ceiling.name,
                (low, low * ceiling.bytes_per_s),
                xytext=(12, -2),
                textcoords="offset points",
                fontsize=8,
                color=colour,
            )
    kernels = list(dict.fromkeys(point.kernel for point in roofline.points))
    for point in roofline.points:
        if point.attainable_flop_per_s is None:
            continue
        axes.plot(
            point.intensity_flop_per_byte,
            point.attainable_flop_per_s,
            MARKERS.get(point.boundary, "o"),
            color=COLOURS[kernels.index(point.kernel) % len(COLOURS)],
            label=f"{point.kernel} at {point.boundary}",
        )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="useful FLOP per byte",
        ylabel="FLOP/s",
        xlim=(low, high),
        ylim=(None, 2 * peak),
    )
    quantities(axes.yaxis, "FLOP/s")
    legend_beside(axes)
    entitle(made, problem, device_words(device))
    return made
