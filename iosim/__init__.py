"""How far is this attention kernel from the best that any kernel could do on this hardware, and why?

    import iosim
    report = iosim.analyze(iosim.problem("llama-3-8b", seq=8192), iosim.device("h100-sxm5"))
    print(report)

Names resolve when they are used (PEP 562), so that importing iosim costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from iosim._version import __version__

if TYPE_CHECKING:
    from iosim.api import analyze, bounds, device, miss_curve, problem
    from iosim.attention import Attention
    from iosim.bulk import ManyCounts, count_many
    from iosim.cache.replaying import replay
    from iosim.curve_analysis import MissCurve
    from iosim.errors import IosimError
    from iosim.floors import Bound, Floors
    from iosim.machine import Device
    from iosim.report import Report

#: public name -> module that holds it
_PUBLIC = {
    "analyze": "iosim.api",
    "count_many": "iosim.bulk",
    "bounds": "iosim.api",
    "device": "iosim.api",
    "miss_curve": "iosim.api",
    "problem": "iosim.api",
    "Attention": "iosim.attention",
    "Bound": "iosim.floors",
    "Device": "iosim.machine",
    "Floors": "iosim.floors",
    "IosimError": "iosim.errors",
    "ManyCounts": "iosim.bulk",
    "MissCurve": "iosim.curve_analysis",
    "Report": "iosim.report",
    "replay": "iosim.cache.replaying",
}

__all__ = [
    "Attention",
    "Bound",
    "Device",
    "Floors",
    "IosimError",
    "ManyCounts",
    "MissCurve",
    "Report",
    "__version__",
    "analyze",
    "bounds",
    "count_many",
    "device",
    "miss_curve",
    "problem",
    "replay",
]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'iosim' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
