"""Predicted against measured, a panel per device, kernel, phase and quantity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

from iosim.errors import FileError
from iosim.render.plots import COLOURS, figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iosim.validate.comparing import Points
    from iosim.validate.validating import Validation

#: rows drawn per panel; a picture of more is a blot, and an SVG of millions opens nowhere
MOST_POINTS = 2000
BAND = 0.1
PANEL_IN = 2.7
LEAST_SPAN = 20.0
UNITS = {"time": "s"}
GREY = {"marker": ".", "color": "0.7", "markersize": 2.5, "zorder": 1.5}
DOT = {"marker": ".", "color": COLOURS[0], "markersize": 3.5, "zorder": 3}
CROSS = {"marker": "x", "color": COLOURS[1], "markersize": 2.5, "markeredgewidth": 0.6, "zorder": 3}


def plot_accuracy(found: Validation) -> Figure:
    """Log-log, with the identity, a band of 10 % either way, and the yardstick on the same rows in grey.

    Raises:
        FileError: no row has a prediction. AbsentError: matplotlib is not installed.
    """
    panels: dict[tuple[str, str, str, str], list[Points]] = {}
    for points in map(_drawable, found.points):
        group = points.group
        if not len(points.measured):
            continue
        panels.setdefault((group.device, group.kernel, group.phase, group.quantity), []).append(points)
    if not panels:
        raise FileError("no row has a prediction: there is nothing to draw", hint="iosim validate says why")
    columns = min(len(panels), max(2, math.ceil(math.sqrt(2 * len(panels)))))
    rows = math.ceil(len(panels) / columns)
    made = figure(PANEL_IN * columns, (1.5 * PANEL_IN + 0.25) * rows + 0.5)
    grid = made.add_gridspec(2 * rows, columns, height_ratios=[3, 1.2] * rows)
    shown = []
    for index, (key, members) in enumerate(panels.items()):
        row, column = divmod(index, columns)
        above = made.add_subplot(grid[2 * row, column])
        below = made.add_subplot(grid[2 * row + 1, column], sharex=above)
        _panel(above, below, key, members)
        shown.append(above)
    handles, labels = _legend(shown)
    made.legend(handles, labels, loc="outside lower left", ncols=6 if columns > 2 else 2, fontsize=8, frameon=False)
    return made


def _drawable(points: Points) -> Points:
    """The rows that log axes can show: bytes that stay in the cache are none at main memory."""
    shown = (points.measured > 0) & (points.predicted > 0) & (points.yardstick > 0)
    return replace(
        points, measured=points.measured[shown], predicted=points.predicted[shown], yardstick=points.yardstick[shown]
    )


def _panel(above: Any, below: Any, key: tuple[str, str, str, str], members: Sequence[Points]) -> None:
    """Above: predicted against measured. Below: their ratio, in which 10 % can be seen."""
    device, kernel, phase, quantity = key
    low = min(min(p.measured.min(), p.predicted.min()) for p in members) / 1.5
    high = max(max(p.measured.max(), p.predicted.max()) for p in members) * 1.5
    wider = max(1.0, math.sqrt(LEAST_SPAN / (high / low)))  # a decade at least, or no tick is shown
    low, high = low / wider, high * wider
    above.fill_between([low, high], [low / (1 + BAND), high / (1 + BAND)], [low * (1 + BAND), high * (1 + BAND)],
                       color="black", alpha=0.2, linewidth=0, label="within 10 %")  # fmt: skip
    above.plot([low, high], [low, high], color="black", linewidth=0.7, label="predicted = measured")
    below.axhspan(1 / (1 + BAND), 1 + BAND, color="black", alpha=0.2, linewidth=0)
    below.axhline(1, color="black", linewidth=0.7)
    for points in members:
        _draw(above, below, points.measured, points.yardstick, GREY,
              "fitted pair" if quantity == "time" else "each tensor once")  # fmt: skip
    for points in members:
        _draw(
            above,
            below,
            points.measured,
            points.predicted,
            *((CROSS, "iosim, windows") if points.group.window else (DOT, "iosim")),
        )
    above.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    below.set(yscale="log", ylim=(0.5, 2.0), yticks=(0.5, 1, 2), yticklabels=("0.5", "1", "2"))
    what = "" if quantity == "time" else f", {quantity.removesuffix('_bytes').replace('_', ' ')}"
    above.set_title(f"{device} {kernel}\n{phase}{what}: {_figures(members)}", fontsize=7.5)
    unit = UNITS.get(quantity, "bytes")
    above.set_ylabel(f"predicted, {unit}", fontsize=7)
    below.set_xlabel(f"measured, {unit}", fontsize=7)
    below.set_ylabel("ratio", fontsize=7)
    above.tick_params(labelsize=7, labelbottom=False)
    below.tick_params(labelsize=7)
    above.minorticks_off()
    below.minorticks_off()


def _draw(above: Any, below: Any, measured: Any, predicted: Any, marks: dict[str, Any], label: str) -> None:
    """The same rows in both axes; what lies beyond the ratio's axis is drawn at its edge."""
    step = max(1, math.ceil(len(measured) / MOST_POINTS))
    x, y = measured[::step], predicted[::step]
    style = {"linestyle": "", "rasterized": len(x) > 500, **marks}
    above.plot(x, y, label=label, **style)
    below.plot(x, (y / x).clip(0.52, 1.92), **style)


def _figures(members: Sequence[Points]) -> str:
    """Rows and median errors of a panel, with windows and without."""
    shown = []
    for window, word in ((False, "median"), (True, "windows")):
        ratios = [points.predicted / points.measured for points in members if points.group.window is window]
        if ratios:
            shown.append(f"{word} {median(abs(ratio - 1) for part in ratios for ratio in part.tolist()):.1%}")
    total = sum(len(points.measured) for points in members)
    return "\n".join([f"n {total:,}", ", ".join(shown)])


def _legend(cells: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """One entry per label over all panels."""
    found: dict[str, Any] = {}
    for axes in cells:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
