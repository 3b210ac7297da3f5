"""Slips of a unit: times that physics forbids, and times that are a thousand or a million expectations."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from iosim.errors import AbsentError, FileError
from iosim.timing.calls import Floats
from iosim.validate.expecting import expectation, floor_s
from iosim.validate.timings import Timings, joined

#: rows of a table that are looked at, spread over it: a median of more says the same
LOOKED_AT = 1000
#: median of time over floor below which a table cannot be in the unit that its column says; of few rows, which a
#: wrong device may explain, only far below
IMPOSSIBLE, FEW, FAR_BELOW = 0.5, 3, 0.02
#: factors between units that are taken for one another
SLIPS = {
    1e3: "a thousand times: seconds under a column of ms, or ms under one of us",
    1e6: "a million times: seconds under a column of us",
}
#: measured over expected of a column in another unit, for half of the rows within `NEAR` of it: single rows of the open
#: tables are off by 25 times, but no kernel's median by more than a third, so that 500 times and more is no kernel
FACTORS = (1e-9, 1e-6, 1e-3, 1e3, 1e6, 1e9)
NEAR = 2.0
#: seconds or FLOP/s of one
TIMES = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
RATES = {"TFLOP/s": 1e12, "GFLOP/s": 1e9, "MFLOP/s": 1e6}


def check_units(tables: Sequence[Timings]) -> None:
    """Look at each kernel of each source.

    Raises:
        FileError: its unit is wrong, with the one that it probably is.
    """
    by_source: dict[str, list[Timings]] = {}
    for table in tables:
        by_source.setdefault(table.source, []).append(table)
    for found in by_source.values():
        for table in joined(found):
            rows = table[np.arange(0, len(table), max(1, len(table) // LOOKED_AT))]
            if not len(rows):
                continue
            with suppress(AbsentError):  # a device whose floor is not known
                check_floor(rows, floor_s(rows), len(table))
            expected, _ = expectation(rows)
            if expected.size:
                check_scale(rows, expected)


def check_floor(timings: Timings, floor: Floats, of: int = 0) -> None:
    """Refuse times that physics forbids for most rows: a slip of the unit, or another device.

    Args:
        of: rows of the whole table; 0: these.
    Raises:
        FileError: with the slip that would explain it.
    """
    ratio = float(np.median(timings.time_s / floor))
    if ratio >= (IMPOSSIBLE if max(of, len(timings)) > FEW else FAR_BELOW):
        return
    factors = [factor for factor in SLIPS if 1 <= ratio * factor < 300]
    if timings.unit in RATES:
        slips = [f"{factor:,.0f}: {likely_unit(timings.unit, 1 / factor)}, not {timings.unit}" for factor in factors]
    else:
        slips = [SLIPS[factor] for factor in factors]
    raise FileError(
        f"times of {timings.kernel} on {timings.device.name} are {ratio:.2g} of the floor in the median", _where(timings),
        f"is the unit off by {' or by '.join(slips)}?" if slips else "is it another device, or another count of FLOP?",
    )  # fmt: skip


def check_scale(timings: Timings, expected: Floats) -> None:
    """Refuse times that agree with the expectation once another unit is read.

    Raises:
        FileError: with that unit.
    """
    ratio = timings.time_s / expected
    for factor in FACTORS:
        off = np.abs(np.log(ratio / factor))
        if np.median(off) < np.log(NEAR):
            unit = likely_unit(timings.unit, factor)
            raise FileError(
                f"times of {timings.kernel} on {timings.device.name} are {np.median(ratio):.4g} times the expected ones in "
                f"the median, and agree with them when divided by {factor:g}", _where(timings),
                f"the numbers are probably in {unit}, not {timings.unit}" if unit else "is the unit another one?",
            )  # fmt: skip


def likely_unit(taken: str, factor: float) -> str:
    """The unit that explains times `factor` times too long, or empty.

    >>> likely_unit("s", 1e3), likely_unit("GFLOP/s", 1e3), likely_unit("ns", 1e3)
    ('ms', 'TFLOP/s', '')
    """
    for sizes, power in ((TIMES, -1), (RATES, 1)):
        if taken in sizes:
            wanted = sizes[taken] * factor**power
            return next((name for name, size in sizes.items() if abs(size / wanted - 1) < 1e-6), "")
    return ""


def _where(timings: Timings) -> str:
    return f"rows {timings.row[0]} to {timings.row[-1]} of {timings.source}" if len(timings) > 1 else timings.source
