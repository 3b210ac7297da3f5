"""The choices that nobody typed, as they were made: for the `inputs` of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from iosim.cache.device_replay import LINE_BYTES, as_asked, concurrency_of

if TYPE_CHECKING:
    from iosim.attention import Attention
    from iosim.cache.replay_options import ReplayOptions
    from iosim.machine import Device
    from iosim.report import Report
    from iosim.schedule import Schedule


def settled_inputs(report: Report, inputs: Mapping[str, object]) -> dict[str, object]:
    """The inputs with what was chosen where they say nothing: one value, or one per kernel where kernels differ."""
    options = report.options.replay
    device = as_asked(report.device, options) if report.device else None
    each = {kernel.name: _of_kernel(kernel.schedule, device, options) for kernel in report.kernels}
    chosen = {name: _joined({kernel: made[name] for kernel, made in each.items()}) for name in _names(each)}
    chosen |= _memory(device) | _link(report)
    return {**chosen, **{name: value for name, value in inputs.items() if value is not None or name not in chosen}}


def _of_kernel(schedule: Schedule, device: Device | None, options: ReplayOptions) -> dict[str, object]:
    made: dict[str, object] = {"tile": str(schedule.tiling), "pack_gqa": schedule.tiling.group > 1}
    if options.closed_form:  # no items are placed
        return made | {"cores": options.cores or (device.cores if device else 1)}
    runs = concurrency_of(schedule, device, options)
    order = f"sections:{runs.section_heads}" if runs.grid_order == "sections" else runs.grid_order
    return made | {
        "cores": runs.cores, "residency": runs.residency, "grid_order": order, "kv_order": runs.kv_order,
    }  # fmt: skip


def _names(each: Mapping[str, Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(name for made in each.values() for name in made))


def _joined(values: Mapping[str, object]) -> object:
    first = next(iter(values.values()))
    return first if all(value == first for value in values.values()) else dict(values)


def _memory(device: Device | None) -> dict[str, object]:
    """The last cache before main memory: all its instances, in bytes, and its line."""
    cache = device.cache_before("hbm") if device and device.has_level("hbm") else None
    size = cache.capacity_bytes * cache.instances if cache and cache.capacity_bytes else None
    return {"capacity": size, "line_bytes": (cache.line_bytes if cache else None) or LINE_BYTES}


def _link(report: Report) -> dict[str, object]:
    """The link that was taken, and what was not counted beside its bytes."""
    if report.link is None:
        return {}
    joined = report.link
    known = joined.link.name if joined.link.bytes_per_s else None
    far = f"{joined.far.bytes_per_s:.0f}B/s" if joined.far.bytes_per_s else None
    return {"link": known, "link_latency": f"{joined.link.latency_s:g}s", "far": far}


def settled_memory(
    problem: Attention, memory_elements: int | None, boundary: str | None, memories: Iterable[tuple[str, int]]
) -> dict[str, object]:
    """`memory_elements` as typed, else of each boundary that was looked at, of (boundary, bits) `memories`."""
    from iosim.floors.bound import narrowest_bits

    if memory_elements is not None:
        return {"memory_elements": memory_elements, "boundary": boundary}
    sizes = {name: bits // narrowest_bits(problem) for name, bits in memories}
    if boundary in sizes:
        return {"memory_elements": sizes[boundary], "boundary": boundary}
    return {"memory_elements": sizes, "boundary": list(sizes)}
