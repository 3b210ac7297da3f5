"""Whether what a kernel holds at once fits a core of a device, level by level, and what would fit.

A tile typed too large is refused with the largest that fits, or with the parameter that takes the room; a kernel's own
tile is shrunk, and a note says so. Working sets grow with both extents, so that a bisection finds the largest:
    for each key extent, a multiple of 16, the most rows that fit, a multiple of 16; of all these the largest area
Thread block clusters exist from compute capability 9.0 on, of 8 blocks anywhere and of 16 where a kernel opts in (CUDA
C++ Programming Guide, Thread Block Clusters).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import lcm

from iosim.errors import UsageError
from iosim.kernels.algorithm import Algorithm, Call, Parameter, Setting
from iosim.kernels.kernel_file import KernelFile, TileRule
from iosim.machine import Device
from iosim.masks import Tiling
from iosim.schedule import WorkingSet
from iosim.units import binary_bytes

#: extents that are proposed are multiples of this, as the matrix units' operands are
STEP = 16
#: so many key extents are all tried: two passes keep two words per key tile, and need more with narrow ones
FEW = 64
#: blocks of a cluster that every device with clusters runs
PORTABLE_CLUSTER = 8


def fitted(
    file: KernelFile, call: Call, device: Device | None, rule: TileRule | None, typed: Mapping[str, object]
) -> tuple[Call, tuple[str, ...]]:
    """The call with a tile that fits, and what to tell.

    Args:
        rule: the kernel's own tile, which may be shrunk; None: the tile was typed.
        typed: parameters that the caller gave.
    Raises:
        UsageError: a typed tile that does not fit, or no tile that does.
    """
    notes = [f"{file.name}: {rule.note or 'tile assumed'}, tile {rule.tiling} assumed"] if rule and rule.assumed else []
    short = lacks(file.algorithm.working_set(call), device) if device else None
    if device is None or short is None:
        return call, tuple(notes)
    smaller = largest_tile(file.algorithm, call, device)
    if rule is None or smaller is None:
        raise _refusal(file, call, device, short, smaller, typed)
    notes.append(f"{file.name}: tile {call.tiling} does not fit {device.name}; {smaller} assumed")
    return replace(call, tiling=smaller), tuple(notes)


def _refusal(
    file: KernelFile, call: Call, device: Device, short: str, smaller: Tiling | None, typed: Mapping[str, object]
) -> UsageError:
    """Names the parameter that takes the room, or the largest tile that fits."""
    what = f"tile {call.tiling} of {file.name} needs {short} on {device.name}"
    found = _culprit(file.algorithm, call, device, typed)
    if smaller:
        other = f"; or {found[0]}={_word(found[1])} with this one" if found else ""
        return UsageError(what, "--tile", f"the largest that fits is {smaller}{other}")
    if not found:
        least = replace(call, tiling=Tiling((1,), (1,), call.tiling.group))
        needs = lacks(file.algorithm.working_set(least), device)
        return UsageError(what, "--tile", f"no tile fits: {least.tiling} needs {needs or short}")
    name, value = found
    what = f"{file.name} with {name}={_word(call.settings[name])} needs {short} on {device.name}"
    whole = isinstance(value, int) and not isinstance(value, bool)
    return UsageError(what, f"--set {name}", f"at most {value} fits" if whole else f"{name}={_word(value)} fits")


def _word(value: Setting) -> str:
    """A setting as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _culprit(
    algorithm: Algorithm, call: Call, device: Device, typed: Mapping[str, object]
) -> tuple[str, Setting] | None:
    """The typed parameter that alone makes the call too large, and the most of it that fits."""

    def fits(name: str, value: Setting) -> bool:
        return _fits(algorithm, replace(call, settings={**call.settings, name: value}), device)

    for parameter in algorithm.parameters:
        if parameter.name in typed:
            values = _below(parameter, call.settings[parameter.name])
            count = bisect_left(values, True, key=lambda value: not fits(parameter.name, value))
            if count:
                return parameter.name, values[count - 1]
    return None


def _below(parameter: Parameter, value: Setting) -> Sequence[Setting]:
    """What a parameter could be instead: smaller numbers, the other truth value, one other word."""
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return range(parameter.least, value)
    return tuple(word for word in parameter.choices if word != value)[:1]


def _fits(algorithm: Algorithm, call: Call, device: Device) -> bool:
    return lacks(algorithm.working_set(call), device) is None


def lacks(held: WorkingSet, device: Device) -> str | None:
    """What a core of the device lacks for this working set, in words; None when it fits or only caches hold it."""
    if device.kind not in ("gpu", "npu", "tpu"):
        return None
    short = [
        f"{binary_bytes(size)} of " + (f"{binary_bytes(room)} {words}" if room else f"{words}, of which there is none,")
        for size, room, words in _levels(held, device)
        if room is not None and size > room
    ]
    if short:
        return " and ".join([", ".join(short[:-1]), short[-1]] if short[1:] else short)
    whole = None if device.kind == "tpu" else device.core_memory_bytes()
    if whole is not None and held.total_bytes > whole:
        return f"{binary_bytes(held.total_bytes)} of {binary_bytes(whole)} on-chip memory per core"
    return None


def _levels(held: WorkingSet, device: Device) -> Iterator[tuple[int, int | None, str]]:
    """(bytes held, room, its name) of each level of a core that the working set fills; no room known: None."""
    sizes = {level.name: level for level in device.levels if level.scope == "core"}

    def block(name: str) -> int | None:
        level = sizes.get(name)
        return (level.per_block_bytes or level.capacity_bytes) if level else None

    if device.kind == "tpu":
        yield held.total_bytes, block("vmem"), "vector memory"
        return
    if device.kind == "npu":
        yield held.shared_bytes, block("l1"), "L1 per core"
        for name, size in held.levels:
            yield size, sizes[name].total_bytes if name in sizes else None, name.upper()
        return
    yield held.shared_bytes, block("shared"), "shared memory per block"
    yield held.tensor_bytes, block("tensor-memory") or 0, "tensor memory"
    yield held.register_bytes, block("registers"), "registers"


@dataclass(frozen=True, slots=True)
class Extents(Sequence[int]):
    """Extents of a tile that may be proposed, ascending: never listed, as an extent has up to twelve digits."""

    extent: int
    """the largest, which is one of them"""
    page: int = 0
    """tokens of a page that each divides or is a multiple of; 0: any"""

    def __len__(self) -> int:
        return sum(map(len, self._parts()))

    def __getitem__(self, index: int) -> int:  # type: ignore[override]
        index += len(self) if index < 0 else 0
        for part in self._parts():
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def _parts(self) -> tuple[Sequence[int], ...]:
        """Powers of two below the step, multiples of the step, the extent itself."""
        step = lcm(STEP, self.page or 1)
        powers = [1 << shift for shift in range(min(step, self.extent).bit_length())]
        small = [power for power in powers if power < min(step, self.extent) and self._whole(power)]
        return small, range(step, self.extent, step), [self.extent] if self._whole(self.extent) else []

    def _whole(self, extent: int) -> bool:
        return not self.page or extent % self.page == 0 or self.page % extent == 0


def largest_tile(algorithm: Algorithm, call: Call, device: Device) -> Tiling | None:
    """The flat tile of largest area within the call's that fits; None: none does."""
    tiling = call.tiling

    def made(rows: int, cols: int) -> Tiling:
        return Tiling((rows,), (cols,), tiling.group)

    def fits(rows: int, cols: int) -> bool:
        return _fits(algorithm, replace(call, tiling=made(rows, cols)), device)

    high, across = algorithm.limit(call)
    if algorithm.square:
        side = _count(range(1, min(high, across) + 1), lambda size: fits(size, size))
        return made(side, side) if side else None
    rows, cols = Extents(high), Extents(across, int(call.settings.get("page_size", 0)))
    if not len(cols):
        return None
    tall = _reach(rows, cols, fits)
    wide = len(cols) if len(cols) <= FEW else _reach(cols, rows, lambda col, row: fits(row, col))
    if tall < wide:
        height, width = _best(rows, tall, cols, wide, fits)
    else:
        width, height = _best(cols, wide, rows, tall, lambda col, row: fits(row, col))
    return made(height, width) if height else None


def _reach(extents: Sequence[int], others: Sequence[int], fits: Callable[[int, int], bool]) -> int:
    """How many of the extents fit with the least or the largest of the others."""
    return max(_count(extents, lambda size: fits(size, other)) for other in {others[0], others[-1]})  # noqa: B023


def _best(
    outer: Sequence[int], outers: int, inner: Sequence[int], inners: int, fits: Callable[[int, int], bool]
) -> tuple[int, int]:
    """The pair of largest product: each outer extent, largest first, with the largest inner one that fits."""
    best = (0, 0)
    for at in reversed(range(outers)):
        if not inners or outer[at] * inner[inners - 1] <= best[0] * best[1]:
            break
        count = _count(inner, lambda size: fits(outer[at], size), inners)  # noqa: B023
        if count and outer[at] * inner[count - 1] > best[0] * best[1]:
            best = outer[at], inner[count - 1]
    return best


def _count(extents: Sequence[int], fits: Callable[[int], bool], most: int | None = None) -> int:
    """How many of the first extents fit, by bisection."""
    return bisect_left(extents, True, hi=most, key=lambda size: not fits(size))


def cluster_notes(file: KernelFile, call: Call, device: Device | None) -> tuple[str, ...]:
    """What to tell of a call's cluster of thread blocks.

    Raises:
        UsageError: the device has no clusters.
    """
    cluster = int(call.settings.get("cluster", 1))
    if device is None or cluster == 1 or not device.compute_capability:
        return ()
    if int(device.compute_capability.split(".")[0]) < 9:
        what = f"{device.name} has no clusters of thread blocks, got cluster={cluster}"
        raise UsageError(what, "--set cluster", "they exist from compute capability 9.0 on: leave out cluster")
    if cluster <= PORTABLE_CLUSTER:
        return ()
    return (f"{file.name}: a cluster of {cluster} is not portable: kernels opt in to more than {PORTABLE_CLUSTER}",)
