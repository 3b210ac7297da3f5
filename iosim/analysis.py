"""Joins the rooms: one call on one device, every kernel's traffic, floors, gaps, ceilings: a Report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from iosim.attention import Attention
from iosim.cache.closed_form import HbmTraffic
from iosim.cache.device_replay import as_asked, main_memory, single_cache, why_not_replayed
from iosim.cache.replay_options import MainMemory
from iosim.errors import AbsentError, UsageError
from iosim.floors import Floors, Memory, TimeFloor, attention_floors, time_floor
from iosim.floors.linear import own_floor_bytes
from iosim.kernels import KernelFile, load_kernel, make_schedule
from iosim.kernels.page_sectors import in_sectors, page_costs, page_note, sector_bytes_of
from iosim.kernels.scheduling import packing_of
from iosim.kernels.usual import usual_kernels
from iosim.machine import Device
from iosim.report import BoundaryReport, KernelReport, Options, Report
from iosim.schedule import OTHER_FUNCTIONS, Moved, Schedule, Traffic
from iosim.timing import Ceilings, expectation, kernel_ceilings

FORMULA = "closed form over the visited tiles"
CONTAINS = {
    "core": "registers, shared memory and tensor memory of one core",
    "l2": "the same of all cores",
    "hbm": "all cores and every cache before the main memory",
    "host": "everything on the device",
}


def analyze(
    problem: Attention,
    device: Device | None = None,
    kernels: Sequence[str] | None = None,
    options: Options | None = None,
) -> Report:
    """Analyse a call.

    Args:
        problem: the call.
        device: where; None is one core with one sequential stream.
        kernels: names or paths; None: the phase's usual ones.
        options: tile, settings, warm cache, measured time, link.
    Raises:
        UsageError: a kernel, tile or setting that cannot be.
        AbsentError: the device file lacks what the time floor needs.
    """
    options = options or Options()
    if not problem.counts().pairs:
        raise UsageError(f"{problem.mask} allows no pair at all: there is nothing to compute", "--mask")
    if options.link.asked:
        from iosim.link_analysis import analyze_shared

        return analyze_shared(problem, device, kernels, options)
    asked = as_asked(device, options.replay) if device else None
    names, left_out = (tuple(kernels), ()) if kernels else usual_kernels(problem, device, options.tile is not None)
    floor = time_floor(problem, device, options.warm, options.lse_output) if device else None
    floors = _floors(problem, asked, options)
    files = [load_kernel(name) for name in names]
    settings = _settings_by_kernel(files, options.settings or {})
    packing = {file.name: packing_of(file, files, options.pack_gqa) for file in files}
    reports = tuple(
        _kernel_report(
            problem, asked, file, settings[file.name], replace(options, pack_gqa=packing[file.name]), floor, floors
        )
        for file in files
    )
    left = [name for name, pack in packing.items() if pack != options.pack_gqa]
    left_out += (f"{', '.join(left)}: cannot pack query heads into a tile, and did not",) if left else ()
    notes = (*_assumptions(problem, device, options, reports, floors), *left_out)
    return Report(problem, device, reports, floor, options, notes)


def _settings_by_kernel(files: Sequence[KernelFile], settings: Mapping[str, object]) -> dict[str, dict[str, object]]:
    """Each kernel's share of the settings: those it has. One that no kernel has is refused."""
    known = {file.name: {parameter.name for parameter in file.algorithm.parameters} for file in files}
    for name in settings:
        if not any(name in names for names in known.values()):
            files[0].algorithm.settings({name: settings[name]})
    return {file.name: {name: value for name, value in settings.items() if name in known[file.name]} for file in files}


def boundaries_of(device: Device) -> tuple[str, ...]:
    """The boundaries a report speaks of, from the core outward."""
    return tuple(name for name in ("core", "l2", "hbm") if name == "core" or device.has_level(name))


def device_memory(device: Device, boundary: str, together: int = 1) -> Memory:
    """The near side of a device's boundary, for floors.

    Args:
        together: cores that compute out of each other's memories, which is one processor with the memory of all.
    Raises:
        AbsentError: a capacity is not known.
    """
    size = device.memory_above_bytes(boundary)
    cache = device.cache_before("hbm") if boundary == "hbm" else None
    kept = 8 * cache.total_bytes if cache and cache.total_bytes else None
    if boundary != "core":
        return Memory(boundary, 8 * size, 1, CONTAINS[boundary], kept)
    contains = CONTAINS["core"] if together == 1 else CONTAINS["core"].replace("one core", f"{together} cores together")
    return Memory(boundary, 8 * size * together, -(-device.cores // together), contains, kept)


def _floors(problem: Attention, device: Device | None, options: Options) -> dict[str, Floors | str]:
    """Floors per boundary, or why there are none."""
    made: dict[str, Floors | str] = {}
    for name in boundaries_of(device) if device else ():
        assert device is not None
        try:
            memory = device_memory(device, name)
        except AbsentError as error:
            made[name] = str(error.faults[0])
            continue
        made[name] = attention_floors(problem, memory, options.warm and name == "hbm", options.lse_output)
    return made


def _kernel_report(
    problem: Attention,
    device: Device | None,
    file: KernelFile,
    settings: Mapping[str, object],
    options: Options,
    floor: TimeFloor | None,
    floors: Mapping[str, Floors | str],
) -> KernelReport:
    schedule = make_schedule(problem, device, file, options.tile, settings, options.pack_gqa)
    core = schedule.traffic
    if device is None:
        return KernelReport(
            schedule,
            _one_core(schedule, options),
            None,
            Ceilings({}, {}),
            options.measured_s,
            pages=page_costs(schedule),
        )
    memory = _main_memory(schedule, device, options)
    hbm: HbmTraffic | None = memory.hbm if memory else None
    pages = page_costs(schedule, sector_bytes_of(device))
    requests = in_sectors(multicast(schedule), pages)
    shared = "" if schedule.multicast == 1 else f", K and V shared by {schedule.multicast} cores"
    how, sure = schedule.model or FORMULA, not schedule.model
    how += "" if schedule.paired == 1 else f", K and V held by {schedule.paired} cores together"
    found = {"core": (core, how, sure), "l2": (requests, how + shared, sure)}
    if hbm:
        found["hbm"] = (
            in_sectors(hbm.traffic, pages),
            hbm.method,
            hbm.exact and not any(cost.wasted_bits for cost in pages),
        )
    complete = _complete(schedule, options)
    made = []
    for boundary_name in boundaries_of(device):
        if boundary_name not in found:
            continue
        at = floors[boundary_name]
        if boundary_name == "core" and schedule.paired > 1 and not isinstance(at, str):
            at = attention_floors(problem, device_memory(device, "core", schedule.paired), False, options.lse_output)
        traffic, method, exact = found[boundary_name]
        known = None if isinstance(at, str) else at
        capacity = known.memory.bits // 8 if known else None
        made.append(
            BoundaryReport(
                boundary_name,
                capacity,
                traffic,
                method,
                exact,
                known,
                schedule.algorithm_class,
                memory if boundary_name == "hbm" else None,
                complete,
                own_floor_bytes(schedule, known.memory, options.warm and boundary_name == "hbm") if known else None,
            )
        )
    ceilings = kernel_ceilings(schedule, device, requests.total_bytes, found["hbm"][0].total_bytes if hbm else None)
    expected, why = (
        (None, "--no-replay leaves it out")
        if options.replay.closed_form
        else expectation(schedule, device, options.warm)
    )
    return KernelReport(
        schedule, tuple(made), floor, ceilings, options.measured_s, expected, unexpected=why, pages=pages
    )


def _one_core(schedule: Schedule, options: Options) -> tuple[BoundaryReport, ...]:
    """Without a device: what the one core asks for, and what a cache of the given capacity lets through."""
    named = schedule.algorithm_class
    boundaries = [BoundaryReport("core", None, schedule.traffic, FORMULA, True, None, named)]
    if options.replay.capacity_bytes is not None:
        passed = single_cache(schedule, None, options.replay)
        size = options.replay.capacity_bytes + schedule.working_set.total_bytes
        memory, whole = Memory("hbm", 8 * size), _complete(schedule, options)
        floors = attention_floors(schedule.problem, memory, options.warm, options.lse_output)
        own = own_floor_bytes(schedule, memory, options.warm)
        boundaries.append(
            BoundaryReport(
                "hbm", size, passed.traffic, passed.method, True, floors, named, complete=whole, own_floor_bytes=own
            )
        )
    return tuple(boundaries)


def _complete(schedule: Schedule, options: Options) -> bool:
    """Whether every output that floors count is written; backward has no log-sum-exp to write."""
    return not options.lse_output or schedule.problem.phase == "backward" or schedule.writes_lse


def _main_memory(schedule: Schedule, device: Device, options: Options) -> MainMemory | None:
    if not device.has_level("hbm"):
        return None
    return main_memory(schedule, device, replace(options.replay, warm=options.warm))


def multicast(schedule: Schedule) -> Traffic:
    """Requests at the last shared cache when one read of K or V serves a cluster of items along Q.

    T items of a head form ceil(T / c) clusters, the last one short; items of a cluster walk the same keys.
    """
    core, cores = schedule.traffic, schedule.multicast
    if cores == 1:
        return core
    heads = schedule.problem.shape.batch * schedule.problem.shape.heads // schedule.tiling.group
    items = max(1, schedule.launches[0].items // heads)
    clusters = -(-items // cores)
    return Traffic(
        tuple(
            Moved(m.tensor, m.bits, -(-m.read_elements * clusters // items), m.write_elements)
            if m.tensor in ("K", "V")
            else m
            for m in core.moved
        )
    )


def _absent(device: Device | None, options: Options, kernels: Sequence[KernelReport]) -> list[str]:
    """What the report cannot say of which kernels, one line per reason."""
    reasons: dict[str, list[str]] = {}
    for kernel in kernels:
        if kernel.unexpected:
            reasons.setdefault(f"no expected time: {kernel.unexpected}", []).append(kernel.name)
        for name, why in kernel.ceilings.unknown.items():
            reasons.setdefault(f"no {name} ceiling: {why}", []).append(kernel.name)
        if device and device.has_level("hbm") and not any(at.name == "hbm" for at in kernel.boundaries):
            why = why_not_replayed(kernel.schedule, device, options.replay)
            reasons.setdefault(f"no bytes at hbm: it has no closed form, and {why}", []).append(kernel.name)
    return [f"{', '.join(names)}: {why}" for why, names in reasons.items()]


def _assumptions(
    problem: Attention,
    device: Device | None,
    options: Options,
    kernels: Sequence[KernelReport],
    floors: Mapping[str, Floors | str],
) -> tuple[str, ...]:
    notes = [f"last cache {'warm' if options.warm else 'cold'}: compulsory traffic "
             + ("shrinks by its capacity" if options.warm else "is counted in full")]  # fmt: skip
    notes += [note for kernel in kernels for note in (*kernel.schedule.notes, *page_note(kernel.name, kernel.pages))]
    others = [kernel.name for kernel in kernels if kernel.schedule.algorithm_class in OTHER_FUNCTIONS]
    if others and device:
        notes.append(
            f"{', '.join(others)}: another function than softmax attention, whose time floor does not bound it"
        )
    own = [kernel.name for kernel in kernels if any(at.own_floor_bytes is not None for at in kernel.boundaries)]
    if own:
        notes.append(
            f"{', '.join(own)}: `any` is over the bytes of its own function's inputs and outputs"
            " (bounds --linear --kernel)"
        )
    once = [k.name for k in kernels if k.schedule.model and k.schedule.parameters.get("gemm_tile") == 0]
    if once:
        notes.append(
            f"{', '.join(once)}: each operand of a product is counted once, more than one core can hold; --set"
            " gemm_tile=128 counts the re-reads of real tiles"
        )
    notes += [f"no floors at {name}: {why}" for name, why in floors.items() if isinstance(why, str)]
    notes += _absent(device, options, kernels)
    without = [kernel.name for kernel in kernels if not _complete(kernel.schedule, options)]
    if without:
        notes.append(f"{', '.join(without)}: no gap, for the floors count a log-sum-exp that is not written")
    if device:
        notes += [text for text in {device.peak_assumption(problem.types.q)} if text]
    return tuple(dict.fromkeys(notes))
