"""Floors and expectations of measured rows, whatever their kind: bands, layouts, a processor's loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.timing.calls import Calls, Floats
from iosim.timing.families import beyond, expected_parts
from iosim.timing.parts import Parts, total_s
from iosim.timing.processor import processor_parts
from iosim.timing.traffic import floors_s, useful_flop
from iosim.validate.neighborhoods import expected_s, work_of
from iosim.validate.timings import Timings

#: FLOP of a backward pass over those of a forward one: five products for two, L6 of the floors
BACKWARD_FLOP = 2.5


def floor_s(timings: Timings) -> Floats:
    """`time_floor_s` of the passes that were timed; bytes of a forward pass, which any of them moves.

    Raises:
        AbsentError: a peak or a bandwidth of the device is not known.
    """
    if timings.layouts:
        return work_of(timings)[2]
    floor = floors_s(timings.calls, timings.device, timings.dtype, timings.kv_dtype, timings.warm)
    if not timings.work.backward:
        return floor
    peak = max(timings.device.peak_flop_per_s(timings.dtype), timings.device.peak_flop_per_s(timings.kv_dtype))
    made: Floats = (timings.work.forward + BACKWARD_FLOP) * useful_flop(timings.calls) / peak
    return made


def by_reach(timings: Timings) -> list[Timings]:
    """Rows that a family's time model speaks of, and those it does not, each on their own."""
    if timings.why or timings.tiles or timings.layouts or timings.paper:
        return [timings]
    reach = beyond(timings.calls)
    return [timings[reach == code] for code in np.unique(reach)]


def expectation(timings: Timings) -> tuple[Floats, str]:
    """(expected seconds of each row, empty), or (nothing, why)."""
    if timings.why:
        return np.empty(0), timings.why
    if timings.tiles:
        return _on_processor(timings)
    if timings.dtype not in ("bf16", "fp16") or timings.kv_dtype not in ("bf16", "fp16"):
        return np.empty(0), f"calibrated for 16-bit tensors, not {timings.dtype} with {timings.kv_dtype} keys"
    try:
        if timings.layouts:
            return expected_s(timings), ""
        parts = expected_parts(
            timings.calls, timings.device, timings.kernel, timings.framework, timings.warm, work=timings.work
        )
    except AbsentError as error:
        return np.empty(0), error.faults[0].what
    return total_s(parts), ""


def _on_processor(timings: Timings) -> tuple[Floats, str]:
    """As `expectation`, for compiled kernels whose tile is free."""
    if {timings.dtype, timings.kv_dtype} != {"fp32"}:
        return np.empty(0), "on a processor fp32 is timed"
    try:
        parts = on_tiles(timings.calls, timings.device, timings.kernel, timings.tiles, timings.warm)
    except AbsentError as error:
        return np.empty(0), error.faults[0].what
    return total_s(parts), ""


def on_tiles(
    calls: Calls, device: Device, kernel: str, tiles: Sequence[tuple[int, int]], warm: bool,
    constants: Mapping[str, float] | None = None,
) -> Parts:  # fmt: skip
    """`processor_parts` of calls that have a tile each."""
    made: dict[str, Floats] = {}
    for tile in dict.fromkeys(tiles):
        rows = np.array([each == tile for each in tiles])
        for name, part in processor_parts(calls[rows], device, kernel, tile, warm, constants).items():
            made.setdefault(name, np.zeros(len(calls)))[rows] = part
    return made
