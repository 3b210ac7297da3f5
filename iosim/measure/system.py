"""What an operating system says of its processor: cores that may be used, caches, memory, clock; each with where it stands.

Linux says it under /sys and /proc, which a container may hide; what is missing stays empty and is said.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass, field
from pathlib import Path

CACHES = "sys/devices/system/cpu/cpu0/cache"
FREQUENCY = "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"
QUOTA = "sys/fs/cgroup/cpu.max"
LIMIT = "sys/fs/cgroup/memory.max"


@dataclass(frozen=True, slots=True)
class Cache:
    """One data or unified cache of the first core."""

    level: int
    """1 is nearest to the core"""
    capacity_bytes: int
    """of one instance"""
    line_bytes: int | None
    """line"""
    sharers: int
    """processors that share an instance"""


@dataclass(frozen=True, slots=True)
class System:
    """This machine, as far as it tells."""

    name: str
    """of the processor"""
    vendor: str
    """or empty"""
    cores: int
    """processors that this program may use at once, a quota rounded up"""
    threads_per_core: int = 1
    """hardware threads of a core"""
    max_clock_hz: float | None = None
    """highest clock"""
    memory_bytes: int | None = None
    """that this program may use"""
    caches: tuple[Cache, ...] = ()
    """from the core outward; empty where hidden"""
    missing: tuple[str, ...] = field(default=())
    """what could not be read"""


def read_system(root: Path = Path("/")) -> System:
    """This machine.

    Args:
        root: where /sys and /proc lie; another folder in tests.
    """
    info = _pairs(root / "proc/cpuinfo")
    caches, clock, memory = _caches(root / CACHES), _number(root / FREQUENCY), _memory(root)
    found = {"caches (/sys)": caches, "highest clock (/sys)": clock, "memory (/proc/meminfo)": memory}
    return System(
        name=info.get("model name") or platform.processor() or platform.machine() or "processor",
        vendor=info.get("vendor_id", ""),
        cores=_cores(root),
        threads_per_core=_threads(info),
        max_clock_hz=clock * 1e3 if clock else None,
        memory_bytes=memory,
        caches=caches,
        missing=tuple(name for name, value in found.items() if not value),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() and int(text) > 0 else None


def _pairs(path: Path) -> dict[str, str]:
    """Of the first processor."""
    made: dict[str, str] = {}
    for line in _text(path).partition("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        made[name.strip()] = value.strip()
    return made


def _cores(root: Path) -> int:
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this operating system
        allowed = os.cpu_count() or 1
    quota, _, period = _text(root / QUOTA).partition(" ")
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        allowed = min(allowed, max(1, -(-int(quota) // int(period))))
    return max(1, allowed)


def _threads(info: dict[str, str]) -> int:
    siblings, cores = info.get("siblings", ""), info.get("cpu cores", "")
    if siblings.isdigit() and cores.isdigit() and int(cores) > 0:
        return max(1, int(siblings) // int(cores))
    return 1


def _memory(root: Path) -> int | None:
    total = re.search(r"^MemTotal:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    limit = _number(root / LIMIT)
    sizes = [size for size in (int(total[1]) << 10 if total else None, limit) if size]
    return min(sizes, default=None)


def _caches(folder: Path) -> tuple[Cache, ...]:
    found = []
    for entry in sorted(folder.glob("index*")):
        size = re.fullmatch(r"(\d+)([KM]?)", _text(entry / "size"))
        level = _number(entry / "level")
        if not size or not level or _text(entry / "type") not in ("Data", "Unified"):
            continue
        capacity = int(size[1]) << {"": 0, "K": 10, "M": 20}[size[2]]
        line = _number(entry / "coherency_line_size")
        found.append(Cache(level, capacity, line, _listed(_text(entry / "shared_cpu_list"))))
    return tuple(sorted(found, key=lambda cache: cache.level))


def _listed(text: str) -> int:
    """How many numbers a list such as 0-3,8 names; 1 where it is none."""
    count = 0
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match:
            count += int(match[2] or match[1]) - int(match[1]) + 1
    return max(1, count)
