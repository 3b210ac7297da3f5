"""A report in which a link takes part: the reported device's own call, with the link as one more boundary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iosim.analysis import analyze
from iosim.attention import Attention
from iosim.errors import AbsentError, UsageError
from iosim.floors import Bound, Floors, Memory
from iosim.kernels import load_kernel, make_schedule
from iosim.link_report import LinkReport, Overlap
from iosim.links import (
    Far,
    Least,
    Link,
    LinkAsked,
    Recompute,
    SharedFloor,
    Way,
    far_of,
    gathered,
    link_of,
    shared_floor,
    way_of,
)
from iosim.machine import Cluster, Device
from iosim.report import BoundaryReport, KernelReport, Options, Report
from iosim.timing import Ceilings, Expected, expectation
from iosim.units import si

PAGE = "docs/explanation/links.md"


def analyze_shared(
    problem: Attention, device: Device | None, kernels: Sequence[str] | None, options: Options
) -> Report:
    """Analyse a call that several devices share, or a part of which lies elsewhere.

    Raises:
        UsageError: a way that cannot be, or kernels that it cannot run.
        AbsentError: the device file lacks a link that was asked for, or what the time floor needs.
    """
    _refuse_batches(problem)
    way = way_of(problem, options.link)
    link = link_of(device, options.link.link, way.boundary, options.link.latency)
    far = far_of(device, options.link.far) if way.boundary == "host" else Far("", None)
    made, notes = _kernels(way, device, kernels, options)
    way = gathered(way, [kernel.schedule for kernel, _ in made])
    joined = LinkReport(way, link, far)
    cluster = Cluster(device, way.devices, link.bytes_per_s) if device else None
    floor = shared_floor(problem, way, cluster, far, options.warm) if cluster else None
    reports = tuple(_with_link(kernel, time, joined, device, floor) for kernel, time in made)
    if way.again and device:
        notes.append(_computed_again(way.again, problem, device, link))
    if link.bytes_per_s is None:
        notes.append(f"no time at the link: {link.why_unknown}")
    if way.far_computes and far.bytes_per_s is None:
        notes.append("no time on the far side: its memory's rate is not known (--far 200GB/s, or a device)")
    return Report(problem, device, reports, floor, options, tuple(dict.fromkeys((*way.told.notes, *notes))), joined)


def _refuse_batches(problem: Attention) -> None:
    if problem.shared_keys:
        raise UsageError("links are not counted for keys that sequences share", "--shared-prefix", "leave it out")
    if problem.unequal:
        raise UsageError("links are not counted for sequences of unequal lengths", "--seq-kv", "give one length")


def _kernels(
    way: Way, device: Device | None, kernels: Sequence[str] | None, options: Options
) -> tuple[list[tuple[KernelReport, Expected | None]], list[str]]:
    """Each kernel on the reported device's own call with its expectation, and what their report assumes."""
    call, own = way.share.call, replace(options, link=LinkAsked())
    if call is None:
        if kernels:
            hint = "--resident-fraction 0.25 leaves some"
            raise UsageError("no key stays on the device, so no kernel runs there", "--kernel", hint)
        return [], ["no key stays on the device: the far side computes everything, and no kernel runs here"]
    inner = analyze(call, device, kernels or way.share.kernels or None, own)
    for kernel in inner.kernels:
        if way.share.kernel_class and kernel.schedule.algorithm_class != way.share.kernel_class:
            hint = f"for example {', '.join(way.share.kernels)}"
            raise UsageError(
                f"{way.name} is for {way.share.kernel_class} attention, {kernel.name} is not", "--kernel", hint
            )
    if not way.share.launches or device is None:
        times = [kernel.expected for kernel in inner.kernels]
    else:
        names = kernels or [kernel.name for kernel in inner.kernels]
        times = [_launch_by_launch(name, way, device, own) for name in names]
    return list(zip(inner.kernels, times, strict=True)), list(inner.assumptions)


def _launch_by_launch(name: str, way: Way, device: Device, options: Options) -> Expected | None:
    """Expectation of a share whose parts are launches of their own; None where no model is calibrated."""
    if options.replay.closed_form:
        return None
    file = load_kernel(name)
    known = {parameter.name for parameter in file.algorithm.parameters}
    settings = {key: value for key, value in (options.settings or {}).items() if key in known}
    pack_gqa = options.pack_gqa if file.algorithm.packs else None
    times: list[Expected] = []
    for part in way.share.launches:
        schedule = make_schedule(part, device, file, options.tile, settings, pack_gqa)
        time = expectation(schedule, device, options.warm)[0]
        if time is None:
            return None
        times.append(time)
    named = dict.fromkeys(name for time in times for name in time.breakdown)
    return Expected(
        sum(time.time_s for time in times),
        {name: sum(time.breakdown.get(name, 0.0) for time in times) for name in named},
    )


def _with_link(
    kernel: KernelReport,
    expected: Expected | None,
    joined: LinkReport,
    device: Device | None,
    floor: SharedFloor | None,
) -> KernelReport:
    """A kernel's report with the link beside its other boundaries, ceilings and times.

    Its expectation is the whole way's: the kernel, what the way computes beside it, and the messages that neither hides.
    """
    boundary = link_boundary(joined, device, kernel.schedule.algorithm_class)
    times = dict(kernel.ceilings.times_s)
    if device is not None:
        times["link"] = joined.time_s
        if joined.far_s is not None:
            times["far"] = joined.far_s
    overlap = _overlap(kernel, expected.time_s if expected else None, joined, device)
    return replace(
        kernel,
        boundaries=(*kernel.boundaries, boundary),
        floor=floor,
        ceilings=Ceilings(times, kernel.ceilings.unknown),
        overlap=overlap,
        expected=_whole(expected, overlap) if expected and overlap else None,
    )


def _whole(kernel: Expected, overlap: Overlap) -> Expected:
    """The expectation of a kernel with its messages."""
    more = {"beside_s": overlap.compute_s - kernel.time_s, "link_s": overlap.overlapped_s - overlap.compute_s}
    return Expected(overlap.overlapped_s, {**kernel.breakdown, **{name: time for name, time in more.items() if time}})


def _overlap(
    kernel: KernelReport, expected_s: float | None, joined: LinkReport, device: Device | None
) -> Overlap | None:
    """The kernel's time with its messages; from its slowest resource where no model is calibrated for it."""
    known = [time for time in kernel.ceilings.times_s.values() if time is not None]
    if device is None or not known:
        return None
    compute_s = max(known) if expected_s is None else expected_s
    if joined.way.share.beside_flop:
        compute_s += joined.way.share.beside_flop / device.sustained_flop_per_s(kernel.schedule.problem.types.q)
    return joined.overlap(compute_s, "ceiling" if expected_s is None else "expected")


def _computed_again(again: Recompute, problem: Attention, device: Device, link: Link) -> str:
    """What it takes to compute again in place of moving: bounds from below, both of them."""
    least_s = again.flop / device.peak_flop_per_s(problem.types.q)
    moved = f", moving them {si(again.moved_bytes / link.bytes_per_s, 's')}" if link.bytes_per_s else ""
    return f"{again.what} computed again in place of moved: at least {si(least_s, 's')} ({si(again.flop, 'FLOP')} at peak){moved}"


def link_boundary(joined: LinkReport, device: Device | None, algorithm_class: str) -> BoundaryReport:
    """The link as one more boundary: exact bytes of the reported device, beside what is proven for every way."""
    way = joined.way
    held = _held_bytes(device)
    floors = _floors(way.proven.least, joined, held) if way.proven.least else None
    method = (
        f"{way.name}, device {way.device} of {way.devices}: closed form"
        if way.devices > 1
        else f"{way.name}: closed form"
    )
    return BoundaryReport(way.boundary, held, joined.traffic, method, True, floors, algorithm_class)


def _held_bytes(device: Device | None) -> int | None:
    """All memory of a device, on the near side of its links."""
    try:
        return device.memory_above_bytes("host") if device else None
    except AbsentError:
        return None


def _floors(least: Least, joined: LinkReport, held: int | None) -> Floors:
    """What is proven at a link holds for every class of kernels alike."""
    way = joined.way
    width = max((moved.bits for moved in joined.traffic.moved), default=8)
    memory = Memory(way.boundary, 8 * (held or 0), contains="everything on the device")
    bounds = tuple(
        Bound(
            id=name,
            value_elements=8 * count // width,
            value_bytes=count,
            counts=counts,
            bound_class="any",
            boundary=way.boundary,
            memory_elements=memory.elements(width),
            applies=True,
            conditions=least.conditions,
            source=PAGE,
        )
        for name, count, counts in (
            ("LKr", least.received[way.device], "reads"),
            ("LKw", least.sent[way.device], "writes"),
        )
    )
    elements, total = sum(bound.value_elements for bound in bounds), sum(bound.value_bytes for bound in bounds)
    return Floors(memory, bounds, elements, elements, elements, total, total, total)
