"""A schedule on a device: how its items run at once, which caches they pass, and the bytes at main memory.

The replay stands for the device as far as its file knows it; beside it stays the closed form. A call whose replay
would take too long is replayed for some heads and extended, or falls back to the closed form; the method says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from iosim.cache.closed_form import HbmTraffic, hbm_traffic, inputs_of, scratch_of
from iosim.cache.replay_options import MainMemory, ReplayOptions
from iosim.errors import UsageError
from iosim.machine import Device
from iosim.masks import Band
from iosim.schedule import Moved, Program, Schedule, Traffic
from iosim.units import binary_bytes

if TYPE_CHECKING:  # numpy and the compiler are loaded when something is replayed
    from iosim.cache.shared_l2 import L2, L2Replay
    from iosim.trace.concurrency import Concurrency

#: size of a line where the device file does not say
LINE_BYTES = 128
#: K and V of the heads that FlashAttention-3's causal scheduler groups (hopper/tile_scheduler.hpp)
SECTION_BYTES = 32 << 20
#: registers of one core that a kernel cannot use for accumulators: operand fragments, addresses, loop state
REGISTER_SHARE = 0.8


def as_asked(device: Device, options: ReplayOptions) -> Device:
    """The device with the cores and the last cache (of all its instances together) that a person asked for."""
    cache = device.cache_before("hbm") if device.has_level("hbm") else None
    levels = device.levels
    if options.capacity_bytes is not None and cache:
        line = cache.line_bytes or LINE_BYTES
        if options.capacity_bytes // cache.instances < line:
            raise UsageError(f"{options.capacity_bytes} bytes are smaller than a line of {line}", "--capacity")
        one = replace(cache, capacity_bytes=options.capacity_bytes // cache.instances, effective_bytes=None)
        levels = tuple(one if level is cache else level for level in levels)
    return replace(device, cores=options.cores or device.cores, levels=levels)


def device_l2(device: Device) -> L2 | None:
    """The caches before main memory as the replay sees them; None where a size is unknown or there are none."""
    from iosim.cache.shared_l2 import L2

    last = device.cache_before("hbm")
    if last is None or last.capacity_bytes is None:
        return None
    near = device.level("l2") if device.has_level("l2") else last
    if near.scope == "device" and near.name != last.name and near.capacity_bytes:
        behind = last.capacity_bytes * last.instances
        return L2(near.effective_bytes or near.capacity_bytes, near.instances, 1, behind)
    size = last.effective_bytes or last.capacity_bytes
    return L2(size, last.instances, last.partitions if last.replicates else 1)


def concurrency_of(schedule: Schedule, device: Device | None, options: ReplayOptions) -> Concurrency:
    """How the kernel's items run: its own order and the device's room, but for what the options say.

    Threads of a CPU share a loop in runs of consecutive items, and neighbours share a last cache.
    """
    from iosim.trace.concurrency import Concurrency

    cores = options.cores or (device.cores if device else 1)
    fits = options.residency or (residency(schedule, device) if device else 1)
    order, assignment, section = "head-major", "dynamic", 1
    if schedule.algorithm == "flash3" and not schedule.problem.unequal:
        mask = schedule.problem.mask
        if isinstance(mask, Band) and mask.right is not None:
            order, section = "sections", _section_heads(schedule)
        else:
            assignment = "static"
    caches = 1
    if device and device.kind == "cpu":
        last = device.cache_before("hbm") if device.has_level("hbm") else None
        order, caches = "chunked", last.instances if last else 1
    asked, _, heads = (options.grid_order or order).partition(":")
    if heads:
        section = _whole(heads)
    return Concurrency(cores, fits, asked, options.kv_order or "cyclic", assignment, section, instances=caches)


def _whole(heads: str) -> int:
    """N of sections:N."""
    if not (heads.isascii() and heads.isdigit() and 0 < int(heads) < 1 << 31):
        raise UsageError(f"{heads[:20]!r} is no number of heads", "--grid-order", "write sections:8")
    return int(heads)


def residency(schedule: Schedule, device: Device) -> int:
    """Items that fit one core at once, by shared memory and by registers; at least one."""
    need, limits = schedule.working_set, []
    for name, size, share in (("shared", need.shared_bytes, 1.0), ("registers", need.register_bytes, REGISTER_SHARE)):
        if device.has_level(name) and size and (capacity := device.level(name).capacity_bytes):
            limits.append(int(capacity * share) // size)
    return max(1, min(limits, default=1))


def _section_heads(schedule: Schedule) -> int:
    """Query heads whose K and V fit a section, a power of two times the group."""
    shape, bits = schedule.problem.shape, schedule.problem.types.bits
    values = 0 if shape.latent else shape.head_dim_v * bits("V")
    head = max(1, schedule.problem.n_kv * (shape.head_dim * bits("K") + values) // 8)
    heads = max(1, SECTION_BYTES // head)
    return (1 << (heads.bit_length() - 1)) * (shape.group // schedule.tiling.group)


def main_memory(schedule: Schedule, device: Device, options: ReplayOptions | None = None) -> MainMemory:
    """Bytes at a device's main memory."""
    options = options or ReplayOptions()
    if options.policy != "lru":
        return MainMemory(
            _cold(single_cache(schedule, device, options), options), hbm_traffic(schedule, device, options.warm)
        )
    closed = hbm_traffic(schedule, device, options.warm)
    if options.closed_form:
        return MainMemory(closed, None)
    from iosim.cache.shared_l2 import replay_l2

    l2 = device_l2(device)
    programs = schedule.programs
    if l2 is None or not programs:
        return MainMemory(closed, None)
    concurrency = concurrency_of(schedule, device, options)
    bits = {m.tensor: m.bits for m in schedule.traffic.moved}
    warm = inputs_of(schedule) if options.warm else ()
    heads = _affordable_heads(programs, concurrency, schedule, l2.partitions, options.most_touches)
    if heads is None:
        return MainMemory(closed, None)
    caches = _in_words(l2, concurrency)
    whole = max(program.heads for program in programs)
    if heads == whole:
        made = replay_l2(programs, bits, concurrency, l2, warm, scratch_of(schedule))
        return _found(schedule, made.traffic(bits), f"replay: {caches}", closed, made)
    some, more = (
        replay_l2(_first(programs, n), bits, concurrency, l2, warm, scratch_of(schedule)) for n in (heads // 2, heads)
    )
    extended = _extend(some.traffic(bits), more.traffic(bits), heads // 2, heads, whole)
    return _found(schedule, extended, f"replay of {heads} of {whole} heads, extended: {caches}", closed, more)


def why_not_replayed(schedule: Schedule, device: Device, options: ReplayOptions) -> str:
    """Why `main_memory` did not replay a schedule, in words that follow "and"."""
    if options.closed_form:
        return "--no-replay leaves its replay out"
    if device_l2(device) is None:
        return f"a replay needs the size of the cache before the main memory, which {device.name} does not tell"
    if any(launch.program is None for launch in schedule.launches):
        return "it has no program of touches to replay"
    more = "" if options.most_touches > ReplayOptions().most_touches else " (simulate allows more)"
    return f"its replay would take more than {options.most_touches:,} touches{more}"


def _cold(found: HbmTraffic, options: ReplayOptions) -> HbmTraffic:
    """Only the replay of the device's own caches knows a warm start: say so of another cache's."""
    if not options.warm:
        return found
    return HbmTraffic(found.traffic, f"{found.method}; from a cold cache", False)


def single_cache(schedule: Schedule, device: Device | None, options: ReplayOptions) -> HbmTraffic:
    """Bytes that one cache shared by all items lets through, line by line and exactly, under any policy.

    Without a device the items run one after another. A device's cache counts as one of its whole capacity.

    Raises:
        UsageError: no capacity is known, it is below one line, or the kernel has no program of touches.
    """
    from iosim.cache.replaying import replay
    from iosim.trace.call_touches import call_touches

    cache = device.cache_before("hbm") if device else None
    own = cache.total_bytes if cache else None
    size = own or options.capacity_bytes
    if size is None:
        raise UsageError("the capacity of the cache is not known", "--capacity", "for example --capacity 50MiB")
    line = (cache.line_bytes if cache else None) or LINE_BYTES
    if size < line:
        raise UsageError(f"{size} bytes are smaller than a line of {line}", "--capacity")
    programs = schedule.programs
    if not programs:
        raise UsageError(f"{schedule.kernel} has no program of touches to replay", "--kernel")
    bits = {m.tensor: m.bits for m in schedule.traffic.moved}
    concurrency = concurrency_of(schedule, device, options)
    touched = call_touches(programs, bits, line, concurrency)
    dying = scratch_of(schedule) & touched.ranges.keys()
    scratch = [touched.ranges[name] for name in dying] if touched.touches.copies == 1 else []
    counts = replay(touched.touches, options.policy, size // line, scratch=scratch)
    moved = (
        Moved("reads", 8, counts.read_bytes(line), 0),
        Moved("writes", 8, 0, counts.write_bytes(line)),
    )
    items = "one item after another" if concurrency.slots == 1 else f"{concurrency.slots} items in step"
    method = f"replay: {items} ({concurrency.grid_order}) over {binary_bytes(size)} {options.policy.upper()}, {counts.method}"
    return HbmTraffic(Traffic(moved), method, True)


def _found(schedule: Schedule, traffic: Traffic, method: str, closed: HbmTraffic | None, made: L2Replay) -> MainMemory:
    early = sum(made.evicted_bytes.values()) if "extended" not in method else None
    known = {m.tensor: m for m in traffic.moved}
    complete = Traffic(tuple(known.get(m.tensor, Moved(m.tensor, m.bits)) for m in schedule.traffic.moved))
    return MainMemory(HbmTraffic(complete, method, False), closed, early, made.hit_rate)


def _affordable_heads(
    programs: Sequence[Program], concurrency: Concurrency, schedule: Schedule, partitions: int, most: int
) -> int | None:
    """Heads to replay: all, some when they run one after another, None when even a few are too many."""
    whole = max(program.heads for program in programs)
    touches = 2 * schedule.work.tile_pairs * partitions + 4 * sum(
        launch.items * launch.times for launch in schedule.launches
    )
    if touches <= most:
        return whole
    if len(schedule.problem.masks()) > 1 or concurrency.grid_order in ("row-major", "chunked"):
        return None
    at_once = -(-concurrency.slots // max(program.tiles for program in programs))
    group = schedule.problem.shape.group // schedule.tiling.group
    unit = max(group, concurrency.section_heads, *(whole // program.heads for program in programs))
    heads = 2 * unit * max(1, -(-2 * at_once // unit))
    divides = all(program.heads * heads % (2 * whole) == 0 for program in programs)
    return heads if divides and heads < whole and touches * heads // whole <= most else None


def _first(programs: Sequence[Program], heads: int) -> list[Program]:
    """The first heads of each launch; launches over key/value heads have fewer."""
    whole = max(program.heads for program in programs)
    return [replace(program, heads=program.heads * heads // whole) for program in programs]


def _extend(some: Traffic, more: Traffic, fewer: int, heads: int, whole: int) -> Traffic:
    """Each further head moves what the later of the replayed heads moved on average."""
    before: Mapping[str, Moved] = {m.tensor: m for m in some.moved}
    moved = []
    for m in more.moved:
        less = before[m.tensor]
        reads = (m.read_elements - less.read_elements) * (whole - heads) // (heads - fewer)
        writes = (m.write_elements - less.write_elements) * (whole - heads) // (heads - fewer)
        moved.append(Moved(m.tensor, m.bits, m.read_elements + reads, m.write_elements + writes))
    return Traffic(tuple(moved))


def _in_words(l2: L2, concurrency: Concurrency) -> str:
    parts = f"{l2.instances * l2.partitions} x " if l2.instances * l2.partitions > 1 else ""
    size = binary_bytes(l2.capacity_bytes // l2.partitions)
    behind = f" and {binary_bytes(l2.behind_bytes)} behind" if l2.behind_bytes else ""
    order = f"{concurrency.grid_order}" + ("" if concurrency.kv_order == "cyclic" else f", {concurrency.kv_order} keys")
    return f"{concurrency.slots} items in step ({order}) over {parts}{size} LRU{behind}"
