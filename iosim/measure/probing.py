"""Rates of this machine's processor: what each level of memory streams and how long a load takes, arithmetic, exponentials.

Every number is the best of a few runs: other work on the machine only makes loops slower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from iosim.errors import CheckError, UsageError
from iosim.measure.system import System

KIB = 1 << 10
#: sizes over which knees of the latency are looked for where caches are hidden: 8 KiB to 256 MiB
SWEEP = tuple(8 * KIB << step for step in range(16))
#: a level is probed with arrays of this share of it, so that nothing else in it matters
SHARE = 0.5
#: of a shared cache where many cores with large caches of their own share it
MOST_OF_CACHE = 0.9
#: main memory is probed with so many times the last cache, and no more than this share of what may be used
BEYOND, MOST_OF_MEMORY = 4, 1 / 8
LEAST_BEYOND = 64 << 20
#: growth of the latency of a load that ends a level, and below which the next has begun
KNEE, LEVELLED = 1.6, 1.2
NAMES = ("l1", "l2", "l3")


@dataclass(frozen=True, slots=True)
class Task:
    """One loop to time."""

    kind: str
    """clock (steps) | fma (FLOP) | exp, exp-numpy (exponentials) | read (bytes) | chase (loads)"""
    size_bytes: int = 0
    """working set of all cores together"""
    cores: int = 1
    """that run it at once"""


#: what a task does per second, all cores together: FLOP, exponentials, bytes, loads or clocks
Meter = Callable[[Task], float]


@dataclass(frozen=True, slots=True)
class Level:
    """One level of memory."""

    name: str
    """l1 | l2 | l3 | hbm, the main memory"""
    capacity_bytes: int | None
    """of one instance"""
    told: bool
    """by the operating system; else from where the latency grows"""
    line_bytes: int | None
    """line"""
    private: bool
    """each core has its own"""
    instances: int
    """on the device, of a shared one"""
    read_bytes_per_s: float
    """all cores together"""
    load_s: float
    """one load that waits for the one before"""
    size_bytes: int
    """working set of one core that was probed"""


@dataclass(frozen=True, slots=True)
class Probed:
    """A processor's rates."""

    system: System
    """what the operating system says"""
    cores: int
    """that were probed together"""
    clock_hz: float
    """while one core works"""
    flop_per_s: float
    """fp32 multiply-adds, two each, all cores"""
    exp_per_s: float
    """fp32 exponentials of NumPy's own loops, all cores"""
    compiled_exp_per_s: float
    """fp32 exponentials of compiled loops as our kernels have them, all cores"""
    levels: tuple[Level, ...]
    """from the core outward, main memory last"""
    day: str
    """of the probe"""


def probe(
    system: System, meter: Meter, cores: int | None = None, progress: Callable[[str], None] | None = None
) -> Probed:
    """Probe this processor.

    Args:
        cores: how many work at once; all that may be used by default.
        meter: times tasks; `iosim.measure.probe_tasks.Stopwatch` here, a made-up machine in tests.
    Raises:
        CheckError: a rate of nothing. UsageError: more cores than this program may use.
    """
    count = cores or system.cores
    if count > system.cores:
        raise UsageError(f"this program may use {system.cores} cores, not {count}", "--cores")
    say = progress or (lambda line: None)
    say("clock and arithmetic")

    def together(kind: str, each: int = 0) -> float:
        """All cores at once, and no less than one of them alone, which others on this machine disturb less."""
        rates = [meter(Task(kind, each * cores, cores)) for cores in sorted({1, count})]
        return max(rates)

    rates = {kind: together(kind) for kind in ("fma", "exp", "exp-numpy")}
    clock = meter(Task("clock"))
    outlines = _told(system, count) or _found(system, meter, say)
    levels = []
    for outline in outlines:
        say(f"{outline.name}: {outline.size_bytes >> 10} KiB per core")
        each = outline.size_bytes
        read = together("read", each)
        load = 1 / meter(Task("chase", each))
        levels.append(
            Level(
                outline.name, outline.capacity_bytes, outline.told, outline.line_bytes, outline.private,
                outline.instances, read, load, each,
            )
        )  # fmt: skip
    for number in reversed(range(len(levels) - 1)):  # what a level delivers passed through those nearer to the core
        behind = levels[number + 1].read_bytes_per_s
        levels[number] = replace(levels[number], read_bytes_per_s=max(levels[number].read_bytes_per_s, behind))
    day = datetime.now(UTC).date().isoformat()
    made = Probed(
        system, count, clock, rates["fma"], max(rates["exp"], rates["exp-numpy"]), rates["exp"], tuple(levels), day
    )
    _check(made)
    return made


@dataclass(frozen=True, slots=True)
class _Outline:
    """A level before it is probed."""

    name: str
    capacity_bytes: int | None
    told: bool
    line_bytes: int | None
    private: bool
    instances: int
    size_bytes: int


def _told(system: System, cores: int) -> list[_Outline]:
    """The levels that the operating system names; none where it hides them."""
    made: list[_Outline] = []
    nearer = 0
    for name, cache in zip(NAMES, system.caches, strict=False):
        private = cache.sharers <= system.threads_per_core
        users = 1 if private else min(cores, cache.sharers)
        instances = 1 if private else -(-cores // max(1, min(cores, cache.sharers)))
        wide = min(2 * nearer, int(MOST_OF_CACHE * cache.capacity_bytes) // users)
        each = max(int(SHARE * cache.capacity_bytes) // users, wide)  # no part may lie in the core's own caches
        nearer = cache.capacity_bytes
        made.append(_Outline(name, cache.capacity_bytes, True, cache.line_bytes, private, instances, each))
    return [*made, _memory(system, max(cache.capacity_bytes for cache in system.caches))] if made else []


def _found(system: System, meter: Meter, say: Callable[[str], None]) -> list[_Outline]:
    """The levels that the latency of a load tells, where the operating system hides them; the last may be shared."""
    most = MOST_OF_MEMORY * system.memory_bytes if system.memory_bytes else SWEEP[-1]
    sizes = [size for size in SWEEP if size <= most]
    latencies = []
    for size in sizes:
        say(f"looking for caches: {size >> 10} KiB")
        latencies.append(1 / meter(Task("chase", size)))
    ends = knees(sizes, latencies)[: len(NAMES)]
    made = [
        _Outline(name, end, False, None, number < 2, 1, int(SHARE * end))
        for number, (name, end) in enumerate(zip(NAMES, ends, strict=False))
    ]
    return [*made, _memory(system, ends[-1] if ends else LEAST_BEYOND // BEYOND)]


def knees(sizes: Sequence[int], latencies_s: Sequence[float]) -> list[int]:
    """The last size of each level but the last: from the next on a load takes longer than `KNEE` times as long.

    >>> knees([1, 2, 4, 8, 16, 32, 64], [1, 1, 3, 4, 4, 20, 21])
    [2, 16]
    """
    found, start, index = [], 0, 1
    while index < len(sizes):
        if latencies_s[index] <= KNEE * latencies_s[start]:
            index += 1
            continue
        found.append(sizes[index - 1])
        while index + 1 < len(sizes) and latencies_s[index + 1] > LEVELLED * latencies_s[index]:
            index += 1
        start, index = index, index + 1
    return found


def _memory(system: System, last_cache_bytes: int) -> _Outline:
    size = max(LEAST_BEYOND, BEYOND * last_cache_bytes)
    if system.memory_bytes:
        size = min(size, int(MOST_OF_MEMORY * system.memory_bytes))
    return _Outline("hbm", system.memory_bytes, True, None, False, 1, size)


def _check(made: Probed) -> None:
    rates = [made.clock_hz, made.flop_per_s, made.exp_per_s, *(level.read_bytes_per_s for level in made.levels)]
    if min(rates) <= 0:
        raise CheckError("a rate of nothing was measured", "--probe", "is the machine suspended?")
