"""Pictures can be read: nothing printed over something else, nothing covered, and a title that says what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import iosim
from iosim.cache.replay_options import ReplayOptions
from iosim.render.plots import plot_roofline
from iosim.report import Options
from iosim.timing import roofline_of

PROBLEM = iosim.problem("llama-3-8b", seq=8192)
SMALL = iosim.problem(heads=2, head_dim=64, seq=1024)
DEVICE = iosim.device("h100-sxm5")


def report(*kernels: str) -> Any:
    from iosim.analysis import analyze

    return analyze(PROBLEM, DEVICE, list(kernels), Options(replay=ReplayOptions(closed_form=True))).plot()


def roofline() -> Any:
    points = [("flash2", "core", 10**10), ("flash2", "hbm", 10**8)]
    return plot_roofline(roofline_of(DEVICE, "bf16", {"flash2": PROBLEM.flop()}, points), PROBLEM, DEVICE)


PICTURES: dict[str, Callable[[], Any]] = {
    "two kernels": lambda: report("flash2", "flash3"),
    "four kernels": lambda: report("unfused", "flash1", "flash2", "flash3"),
    "one kernel": lambda: report("flash3"),
    "curve": lambda: iosim.miss_curve(SMALL, kernel="flash2", device=DEVICE).plot(),
    "curve without a device": lambda: iosim.miss_curve(SMALL, kernel="flash2", tile="64x64").plot(),
    "roofline": roofline,
}


@pytest.fixture(params=list(PICTURES))
def drawn(request: pytest.FixtureRequest) -> Any:
    figure = PICTURES[request.param]()
    FigureCanvasAgg(figure).draw()
    return figure


def boxes(texts: Any) -> list[Any]:
    return [text.get_window_extent() for text in texts if text.get_text() and text.get_visible()]


def test_tick_labels_do_not_touch(drawn: Any) -> None:
    for axes in drawn.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            made = boxes(shown)
            assert made
            assert not any(a.overlaps(b) for index, a in enumerate(made) for b in made[:index])
            assert not any(label.get_text() for label in axis.get_minorticklabels())


def test_the_legend_covers_nothing(drawn: Any) -> None:
    for axes in drawn.axes:
        frame, legend = axes.get_window_extent(), axes.get_legend().get_window_extent()
        assert legend.x0 >= frame.x1 - 1 or legend.y0 >= frame.y1 - 1
        assert not any(legend.overlaps(other.get_window_extent()) for other in drawn.axes)
        assert legend.x1 <= drawn.bbox.x1 + 1


def test_the_title_says_the_call_and_the_device(drawn: Any, request: pytest.FixtureRequest) -> None:
    title = drawn.get_suptitle().replace("\n", " ")
    where = "one core" if "without a device" in request.node.name else DEVICE.name
    assert title.startswith("prefill: batch 1, ")
    assert where in title
    (box,) = boxes([drawn._suptitle])
    assert drawn.bbox.x0 <= box.x0
    assert box.x1 <= drawn.bbox.x1
