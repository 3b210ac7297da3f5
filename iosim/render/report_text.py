"""A report for people: what no kernel can beat, what each kernel moves, what binds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iosim.floors import TimeFloor
from iosim.links import SharedFloor
from iosim.render.link_text import link_table, share_line, shared_floor_lines
from iosim.render.problem_text import problem_line
from iosim.render.text import byte_count, capacity, line, ratio, seconds, strong, table, wrapped
from iosim.units import si

if TYPE_CHECKING:
    from iosim.machine import Device
    from iosim.report import Report
    from iosim.timing import Expected

#: smaller parts of an expected time are left out of the text, not of the data
SHOWN_SHARE = 1e-6
RESOURCE_TITLES = {"matrix": "matrix", "exp": "exp", "shared": "shared", "l2": "L2", "hbm": "HBM"}
CACHE_NAMES = {"l2": "L2", "l3": "L3", "mall": "memory-side cache"}
LINK_TITLES = {"link": "link", "far": "far"}
LEGEND = (
    "any: over the bytes that every correct kernel must move (L0). ~ marks a model.",
    "scores: over the floor of kernels that form each score as its own sum, recomputing or not (L1, L4; backward L6).",
    "once: over the floor of kernels that do each multiply-add once (L2, L3; backward L7). `iosim explain gap` says more.",
)
LINK_LEGEND = (
    "link, host: read is received, written is sent, by one device; all three over the link's own floor, `least` above."
)


def report_text(report: Report) -> str:
    """The whole report."""
    parts = [line(strong(problem_line(report.problem)))]
    parts += [device_line(report)] + ([share_line(report.link)] if report.link else [])
    parts += ["", *map(line, floor_lines(report)), ""]
    if report.link:
        parts += [link_table(report), ""]
    if report.kernels:
        parts += [table(*traffic_table(report), left=3), wrapped(traffic_notes(report), "  "), ""]
        parts += [wrapped(legend(report), "  "), ""]
    if report.device and report.kernels:
        parts += [table(*ceiling_table(report)), wrapped(ceiling_notes(report), "  "), ""]
    parts += ["assumptions", wrapped(report.assumptions, "  - ")]
    return "\n".join(parts)


def legend(report: Report) -> tuple[str, ...]:
    """What the gaps of the traffic table are over."""
    return (*LEGEND, LINK_LEGEND) if report.link else LEGEND


def device_line(report: Report) -> str:
    """One line that names the device."""
    device = report.device
    if device is None:
        return "one core, one sequential stream: traffic into the core only"
    own = [level for level in device.levels if device.kind == "cpu" and level.scope == "core"]
    cache = device.cache_before("hbm") if device.has_level("hbm") else None
    sizes = [f"{capacity(level.capacity_bytes)} {level.name.upper()}" for level in own]
    each = f" with {' and '.join(sizes)} each" if sizes else ""
    times = f"{cache.instances} x " if cache and cache.instances > 1 else ""
    last = f", {times}{capacity(cache.capacity_bytes)} {CACHE_NAMES.get(cache.name, cache.name)}" if cache else ""
    memory = f"{si(device.bandwidth_bytes_per_s('hbm'), 'B/s')} main memory"
    return f"on {device.name}: {device.cores} core{'s' * (device.cores > 1)}{each}{last}, {memory}"


def slower_side(device: Device | None, boundary: str) -> str:
    """What a boundary is called for people: the cache that cores share is a CPU's L3."""
    shared = device.shared_cache() if device and boundary == "l2" else None
    return shared.name if shared else boundary


def floor_lines(report: Report) -> list[str]:
    """The time floor, why it is one, and how much faster the user's kernel can get; with markup."""
    floor = report.floor
    if floor is None:
        return ["no device: no time floor"]
    if isinstance(floor, SharedFloor) and report.link:
        return shared_floor_lines(floor, report.link) + _faster(report, floor)
    compute = f"{si(floor.flop, 'FLOP')} at {si(floor.peak_flop_per_s, 'FLOP/s')} take {seconds(floor.compute_s)}"
    moved = floor.read_bytes + floor.write_bytes
    memory = f"{byte_count(moved)} at {si(floor.bandwidth_bytes_per_s, 'B/s')} take {seconds(floor.memory_s)}"
    lines = [
        f"No kernel can take less than {strong(seconds(floor.time_s))}: unmasked {compute};",
        f"compulsory {memory}.",
    ]
    return lines + _faster(report, floor)


def _faster(report: Report, floor: TimeFloor) -> list[str]:
    """How much faster the user's own kernel can get."""
    measured = report.options.measured_s
    if measured is None:
        return []
    most = strong(ratio(measured / floor.time_s))
    return [f"Your kernel takes {seconds(measured)}: at most {most} faster is possible."]


def resource_titles(report: Report) -> dict[str, str]:
    """Resources of the ceilings, the link among them where there is one."""
    shown = {name for kernel in report.kernels for name in kernel.ceilings.times_s}
    titles = RESOURCE_TITLES | {"l2": slower_side(report.device, "l2").upper()}
    return titles | {name: title for name, title in LINK_TITLES.items() if name in shown}


def traffic_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """(header, rows with markup) of the bytes at each boundary."""
    rows = []
    for kernel in report.kernels:
        for index, at in enumerate(kernel.boundaries):
            first = index == 0
            rows.append(
                [
                    strong(kernel.name) if first else "",
                    str(kernel.schedule.tiling) if first else "",
                    slower_side(report.device, at.name),
                    capacity(at.capacity_bytes),
                    byte_count(at.traffic.read_bytes),
                    byte_count(at.traffic.write_bytes),
                    ratio(at.gap("any")),
                    ratio(at.gap("standard")),
                    ratio(at.gap("standard-once")),
                ]
            )
    return ["kernel", "tile", "into", "memory", "read", "written", "any", "scores", "once"], rows


def traffic_notes(report: Report) -> list[str]:
    """How the bytes of each boundary were found."""
    kernels, device = report.kernels, report.device
    how = [
        f"{slower_side(device, at.name)} of {kernel.name}: {'' if at.exact else '~ '}{at.method}"
        for kernel in kernels
        for at in kernel.boundaries
        if at.name == "hbm" or not at.exact
    ]
    both = f"core and {slower_side(device, 'l2')}"
    but = "" if all(at.exact for kernel in kernels for at in kernel.boundaries if at.name != "hbm") else " but for ~"
    return [f"{both}: exact{but}, in closed form over the visited tiles; memory: what lies on the near side", *how]


def ceiling_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """(header, rows with markup) of the time each resource needs, and the expected time."""
    rows, titles = [], resource_titles(report)
    for kernel in report.kernels:
        times = kernel.ceilings.times_s
        cells = [
            strong(seconds(times[name])) if name == kernel.ceilings.bottleneck else seconds(times.get(name))
            for name in titles
        ]
        expected = seconds(kernel.expected.time_s if kernel.expected else None)
        rows.append([kernel.name, *cells, titles.get(kernel.ceilings.bottleneck, "-"), expected])
    return ["ceilings", *titles.values(), "binds", "expected"], rows


def ceiling_notes(report: Report) -> list[str]:
    """What the ceilings are, and the terms of each expected time."""
    terms = [
        f"{kernel.name} expected {seconds(kernel.expected.time_s)} = {_sum(kernel.expected)}"
        for kernel in report.kernels
        if kernel.expected
    ]
    return ["time each resource needs for the kernel's own work; they overlap in part, and none is a floor", *terms]


def _sum(expected: Expected) -> str:
    """The parts of an expectation but for those that round to nothing beside the others."""
    parts = {name: time for name, time in expected.breakdown.items() if abs(time) >= SHOWN_SHARE * expected.time_s}
    return " + ".join(f"{name.removesuffix('_s')} {seconds(time)}" for name, time in parts.items())
