"""Which sizes and kernels a curve of floors shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iosim.analysis import boundaries_of, device_memory
from iosim.attention import Attention
from iosim.cli.asking import asked_kernels, asked_options
from iosim.errors import AbsentError, UsageError
from iosim.floors import demand_of
from iosim.floors.curve import FloorCurve, floor_curve, log_sizes
from iosim.kernels import load_kernel, make_schedule
from iosim.kernels.scheduling import packing_of
from iosim.kernels.usual import DEFAULT_KERNELS
from iosim.machine import Device

POINTS = 200
DRAWN: dict[str, tuple[str, ...]] = {
    "prefill": ("flash1", "flash2", "flash3")
}  # unfused counts its operands once, whatever the memory
PLACES = {"core": "one core", "l2": "all cores", "hbm": "all on chip", "host": "the device"}


def curve_of(
    problem: Attention, device: Device | None, options: dict[str, Any], largest: int | None, held: str | None
) -> tuple[list[tuple[str, int]], FloorCurve]:
    """The device's sizes and the curve.

    Args:
        largest: last size in elements; None: until one head's keys fit four times, or the device's largest.
    """
    demand = demand_of(problem, options["lse_output"], held)
    places = places_of(device, options["boundary"], demand.width) if device else []
    names = asked_kernels(options["kernel"])
    schedules, drawn = [], names or DRAWN.get(problem.phase) or DEFAULT_KERNELS.get(problem.phase, ())
    for name in drawn:
        chosen = asked_options(options, [name])
        try:
            settings = _own_settings(chosen.settings or {}, name, names or [name])
            pack_gqa = packing_of(load_kernel(name), map(load_kernel, drawn), chosen.pack_gqa)
            schedule = make_schedule(problem, device, name, chosen.tile, settings, pack_gqa)
        except UsageError:
            if names:  # a default that cannot be drawn is left out
                raise
            continue
        if schedule.parameters.get("gemm_tile") == 0:
            raise UsageError(
                f"{schedule.kernel} with operands read once fits no memory of a curve",
                "--kernel",
                "--set gemm_tile=128",
            )
        schedules.append(schedule)
    sizes = demand.elements
    least = sizes.d + sizes.d_v + max(sizes.d, sizes.d_v) + 5
    most = largest or max([4 * problem.n_kv * sizes.column, *(at for _, at in places)])
    return places, floor_curve(demand, log_sizes(least, max(least + 1, most), POINTS), schedules)


def _own_settings(settings: Mapping[str, object], name: str, names: Sequence[str]) -> dict[str, object]:
    """A kernel's share of the settings: those it has, and those that none of the kernels has, to be refused."""
    known = {each: {p.name for p in load_kernel(each).algorithm.parameters} for each in names}
    return {
        key: value for key, value in settings.items() if key in known[name] or not any(key in k for k in known.values())
    }


def places_of(device: Device, boundary: str | None, width: int) -> list[tuple[str, int]]:
    """(name, elements) of the memories on the near side of the device's boundaries, each of one processor."""
    found = []
    for name in [boundary] if boundary else boundaries_of(device):
        try:
            memory = device_memory(device, name)
        except AbsentError:
            continue
        found.append((PLACES[name], memory.elements(width)))
    return found
