"""Finds what is likely wrong in a device file: sparse peaks, MACs for FLOPs, KB for KiB, a slipped prefix.

A stated peak should equal cores x operations per clock x clock, within the rounding of datasheets and
between the rated and the highest clock. Sizes, rates and their order are checked against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from iosim.errors import AbsentError, Fault
from iosim.machine import Device
from iosim.machine_parts import LEVELS, ComputeUnit, MemoryLevel
from iosim.units import si

TOLERANCE = 0.05  # datasheets round, and quote a clock that is a few percent off the rated one
#: dense 16-bit FLOP per clock and SM with fp32 accumulation, by NVIDIA compute capability; where two are
#: given the lower is that of GeForce or export parts (NVIDIA architecture whitepapers)
SIXTEEN_BIT_OPS = {
    "7.0": (1024.0,),
    "7.5": (512.0, 1024.0),
    "8.0": (2048.0,),
    "8.6": (512.0, 1024.0),
    "8.9": (512.0, 1024.0),
    "9.0": (4096.0,),
    "10.0": (8192.0,),
    "10.3": (8192.0,),
    "12.0": (512.0, 1024.0),
    "12.1": (512.0, 1024.0),
}
CLOCK_HZ = (1e8, 6e9)
DRAIN_S = (2e-3, 5.0)  # capacity / bandwidth of main memory: 8 ms (HBM2e) to 0.5 s (LPDDR5X) in known devices
PROCESSOR_DRAIN_S = (2e-3, 120.0)  # memories of processors are larger, and one core may have been probed
CACHE_SHARE = 1 / 16  # of main memory, far above any real cache


def check_device(device: Device) -> list[Fault]:
    """Everything that looks wrong, one fault each with file and dotted path; empty when nothing does."""
    return [fault for check in CHECKS for fault in check(device)]


def _fault(device: Device, path: str, what: str, hint: str = "") -> Fault:
    return Fault(what, f"{device.file}: {path}", hint)


def _clocks(device: Device) -> Iterator[Fault]:
    for path, clock in (("cores.clock", device.clock_hz), ("cores.max_clock", device.max_clock_hz)):
        if clock is not None and not CLOCK_HZ[0] <= clock <= CLOCK_HZ[1]:
            yield _fault(device, path, f"a clock of {si(clock, 'Hz')}", "MHz or GHz?")
    if device.clock_hz and device.max_clock_hz and device.max_clock_hz < device.clock_hz:
        yield _fault(device, "cores.max_clock", "below the rated clock")


def _peaks(device: Device) -> Iterator[Fault]:
    clock = device.clock_hz or device.max_clock_hz
    for unit in device.units:
        if unit.peak_op_per_s is None or unit.ops_per_clk_per_core is None or clock is None:
            continue
        per_hz = device.cores * unit.ops_per_clk_per_core
        low, high = per_hz * clock, per_hz * (device.max_clock_hz or clock)
        yield from _peak(device, unit, unit.peak_op_per_s, low, high)


def _peak(device: Device, unit: ComputeUnit, peak: float, low: float, high: float) -> Iterator[Fault]:
    word = "exp/s" if unit.name == "exp" else "FLOP/s"
    product = f"cores x operations x clock = {si(low, word)}"
    if peak > high * (1 + TOLERANCE):
        hint = "a sparse peak? dense ones only" if peak > 1.6 * high else "check cores, clock and operations per clock"
        yield _fault(device, f"{unit.path}.peak", f"{si(peak, word)} is above {product}", hint)
    below = peak < low * (1 - TOLERANCE)
    if below and not unit.capped:
        hint = "multiply-adds counted as one operation? say `capped` and why if the part is limited"
        yield _fault(device, f"{unit.path}.peak", f"{si(peak, word)} is below {product}", hint)
    if unit.capped and not below:
        yield _fault(device, f"{unit.path}.capped", f"marked as capped, but {si(peak, word)} reaches {product}")


def _operations(device: Device) -> Iterator[Fault]:
    """Operations per clock, stated or implied by the peak, against those of the architecture."""
    known = SIXTEEN_BIT_OPS.get(device.compute_capability, ())
    for unit in device.units:
        if not known or unit.name != "matrix" or unit.dtype not in ("bf16", "fp16") or unit.narrow or unit.capped:
            continue
        ops = unit.ops_per_clk_per_core or _implied_ops(device, unit)
        if ops is not None and not any(abs(ops / each - 1) < 4 * TOLERANCE for each in known):
            expected = " or ".join(f"{each:.0f}" for each in known)
            what = f"{ops:.0f} FLOP per clock and core, where compute capability {device.compute_capability} has"
            hint = "sparse above, multiply-adds for FLOPs below" if ops != min(known) else ""
            yield _fault(device, f"{unit.path}.ops_per_clk", f"{what} {expected}", hint)


def _implied_ops(device: Device, unit: ComputeUnit) -> float | None:
    if unit.peak_op_per_s is None or device.clock_hz is None:
        return None
    return unit.peak_op_per_s / (device.cores * device.clock_hz)


def _order(device: Device) -> Iterator[Fault]:
    ranks = [(level.scope == "device", LEVELS.index(level.name)) for level in device.levels]
    for level, rank, previous in zip(device.levels[1:], ranks[1:], ranks, strict=False):
        if rank < previous:
            yield _fault(device, level.name, "out of order", f"from the core outward: {', '.join(LEVELS)}")


def _sizes(device: Device) -> Iterator[Fault]:
    cache, main = _last_cache(device), _main(device)
    for level in device.levels:
        size, path = level.capacity_bytes, f"{level.name}.capacity"
        if size is None or level.name in ("hbm", "host"):
            continue
        if size % 1024:
            yield _fault(device, path, f"{size} bytes is no multiple of 1 KiB", "on-chip sizes are KiB and MiB")
        if level.scope == "core" and cache and size > cache:
            yield _fault(device, path, "one core's level is larger than the cache around it", "KiB or MiB?")
        if level.scope == "device" and main and size * level.instances > CACHE_SHARE * main:
            yield _fault(device, path, "a cache of more than 1/16 of main memory", "MiB or GiB?")
        if level.per_block_bytes and level.per_block_bytes > size:
            yield _fault(device, f"{level.name}.per_block", "more than the level holds")
        if level.unified_bytes and level.unified_bytes < size:
            yield _fault(device, f"{level.name}.unified_capacity", "less than the shared memory in it")
        if level.effective_bytes and level.effective_bytes > size:
            yield _fault(device, f"{level.name}.effective_capacity", "more than the nominal capacity")
        if level.replicates and level.partitions == 1:
            yield _fault(device, f"{level.name}.replicates", "one partition has nothing to replicate")


def _rates(device: Device) -> Iterator[Fault]:
    """Rates fall outward, and no measurement is above every stated peak."""
    last: tuple[str, float] | None = None
    for level in device.levels:
        rate, path = _rate(device, level), f"{level.name}.bandwidth"
        stated = [level.bandwidth_bytes_per_s or 0.0]
        stated += [fact.value for each in device.conflicts if each.field == path for fact in each.values]
        if level.bandwidth_bytes_per_s and (level.measured_bytes_per_s or 0) > 1.02 * max(stated):
            yield _fault(device, path, "a measurement is above the stated peak", "a [[conflicts]] entry keeps both")
        if rate is None or level.name in ("registers", "tensor-memory"):
            continue
        if last and rate > last[1]:
            what = f"{si(rate, 'B/s')}, faster than {last[0]} nearer to the core ({si(last[1], 'B/s')})"
            yield _fault(device, path, what, "GB/s or TB/s?")
        last = (level.name, rate)


def _drain(device: Device) -> Iterator[Fault]:
    main = next((level for level in device.levels if level.name == "hbm"), None)
    rate = _rate(device, main) if main else None
    if main is None or main.capacity_bytes is None or rate is None:
        return
    time_s = main.capacity_bytes / rate
    least, most = PROCESSOR_DRAIN_S if device.kind == "cpu" else DRAIN_S
    if not least <= time_s <= most:
        yield _fault(device, "hbm", f"reading all of it once would take {si(time_s, 's')}", "GB or TB, GB/s or TB/s?")


def _conflicts(device: Device) -> Iterator[Fault]:
    for index, conflict in enumerate(device.conflicts):
        path = f"conflicts[{index}]"
        if len(conflict.values) < 2:
            yield _fault(device, f"{path}.values", "a conflict needs two values")
        if conflict.used != device.facts[conflict.field].value:
            what = f"says {conflict.used:g} is used, {conflict.field} is {device.facts[conflict.field].value:g}"
            yield _fault(device, f"{path}.used", what)


def _rate(device: Device, level: MemoryLevel) -> float | None:
    try:
        return device.bandwidth_bytes_per_s(level.name)
    except AbsentError:
        return level.measured_bytes_per_s


def _last_cache(device: Device) -> int | None:
    sizes = [level.total_bytes for level in device.levels if level.scope == "device" and level.name in ("l2", "l3")]
    return min((size for size in sizes if size is not None), default=None)


def _main(device: Device) -> int | None:
    return next((level.capacity_bytes for level in device.levels if level.name == "hbm"), None)


CHECKS: tuple[Callable[[Device], Iterator[Fault]], ...] = (
    *(_clocks, _peaks, _operations, _order, _sizes, _rates, _drain, _conflicts),
)
