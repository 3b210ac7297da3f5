"""What every picture shares: a title that says the call, quantities at the ticks, a legend that covers nothing."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, Any

from iosim.render.problem_text import problem_line
from iosim.units import si

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from iosim.attention import Attention
    from iosim.machine import Device

#: letters of the title's size per inch of width
LETTERS_PER_INCH = 13


def entitle(figure: Figure, problem: Attention, where: str) -> None:
    """The call and the machine above the picture."""
    width = int(figure.get_figwidth() * LETTERS_PER_INCH)
    figure.suptitle(textwrap.fill(f"{problem_line(problem)}; {where}", width), fontsize=9)


def device_words(device: Device | None) -> str:
    """The machine in a title."""
    return device.name if device else "one core"


def quantities(axis: Any, unit: str) -> None:
    """Ticks of a log axis as quantities with their unit: whole decades, or some between where there are few.

    Called when everything is drawn: the view decides.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    steps = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.3 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps, numticks=8) if decades > 0.5 else MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: si(value, unit)))
    axis.set_minor_formatter(NullFormatter())


def legend_above(axes: Any, columns: int) -> None:
    """A legend over the axes."""
    axes.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns,
                columnspacing=1, handletextpad=0.4, handlelength=1.4)  # fmt: skip


def legend_beside(axes: Any) -> None:
    """A legend to the right of the axes."""
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
