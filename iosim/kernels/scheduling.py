"""Applies a named kernel to a problem on a device: tile, settings, fit, packing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.kernels.algorithm import ALGORITHMS, Call, Setting
from iosim.kernels.fitting import cluster_notes, fitted
from iosim.kernels.head_sizes import spelled
from iosim.kernels.kernel_file import KernelFile, TileRule
from iosim.kernels.kernel_room import load_kernel
from iosim.kernels.key_values import check_scales
from iosim.machine import Device
from iosim.masks import Tiling
from iosim.schedule import Schedule


def make_schedule(
    problem: Attention,
    device: Device | None = None,
    kernel: str | KernelFile = "flash2",
    tile: Tiling | None = None,
    settings: Mapping[str, object] | None = None,
    pack_gqa: bool | None = None,
) -> Schedule:
    """The schedule of a kernel for a problem.

    Args:
        problem: what to compute.
        device: where; None is one core with unlimited memory.
        kernel: catalogue name, path, or a loaded file.
        tile: overrides the kernel file's tile; refused when it does not fit.
        settings: overrides parameters, as --set does.
        pack_gqa: pack the query heads of a group into a tile's rows; None: in decode only.
    Raises:
        UsageError: a phase, head size, element type, tile, packing or parameter that the kernel does not have.
    """
    file = load_kernel(kernel) if isinstance(kernel, str) else kernel
    made, algorithm = prepare(problem, device, file, tile, settings or {}, pack_gqa), file.algorithm
    call = made.call
    own = (f"{file.name}: {file.note}",) if file.note else ()
    notes = (*made.notes, *_elsewhere(file, device), *own, *(f"{file.name}: {note}" for note in algorithm.notes(call)))
    if problem.unequal:
        notes = (*notes, UNEQUAL)
    if problem.shared_keys and algorithm.name != "cascade":
        notes = (*notes, f"{file.name}: K and V of the shared prefix lie, and are read, once per sequence")
    return Schedule(
        kernel=file.name,
        algorithm=algorithm.name,
        algorithm_class=algorithm.algorithm_class,
        problem=problem,
        tiling=call.tiling,
        launches=algorithm.launches(call),
        working_set=algorithm.working_set(call),
        parameters=call.settings,
        chosen=algorithm.chosen(call),
        multicast=1 if problem.unequal else int(call.settings.get("cluster", 1)),
        paired=int(call.settings.get("ctas", 1)),
        notes=notes,
        model=algorithm.model(call),
    )


#: what a reader of a batch of unequal lengths must know
UNEQUAL = (
    "sequences of unequal lengths lie end to end, tiles and pages begin anew at each; items are ordered head by head,"
    " sequence by sequence within a head; splits are cut and rules asked for the longest; no multicast"
)


def no_batch(file: KernelFile, problem: Attention) -> str:
    """Why a kernel cannot take sequences of unequal lengths; empty where it can, or where lengths are equal."""
    what = f"{file.name} is not counted for sequences of unequal lengths"
    return what if problem.unequal and not file.algorithm.varlen else ""


def names_of_batches() -> tuple[str, ...]:
    """Algorithms that take sequences of unequal lengths."""
    return tuple(sorted(name for name, algorithm in ALGORITHMS.items() if algorithm.varlen))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call with every choice made."""

    call: Call
    """what the algorithm is asked"""
    packed: bool
    """query heads of a group share the rows of a tile"""
    notes: tuple[str, ...]
    """assumptions a reader must know"""


def prepare(
    problem: Attention,
    device: Device | None,
    file: KernelFile,
    tile: Tiling | None,
    settings: Mapping[str, object],
    pack_gqa: bool | None,
    fit: bool = True,
) -> Prepared:
    """The tile, parameters and packing of a call; see `make_schedule`.

    Args:
        fit: compare the tile with the device's memory.
    Raises:
        UsageError: as `make_schedule`.
    """
    algorithm = file.algorithm
    if problem.phase not in algorithm.phases:
        raise UsageError(
            f"{file.name} does not compute {problem.phase}", "--kernel", f"it computes {' and '.join(algorithm.phases)}"
        )
    file.check_types(problem.types)
    if refused := no_batch(file, problem):
        raise UsageError(refused, "--seq-kv", f"{', '.join(names_of_batches())} take sequences of unequal lengths")
    rule = file.rule(problem, device) if tile is None else None
    own = None if rule else _own_rule(file, problem, device)
    tiling = tile or (rule.tiling if rule else None)
    assert tiling is not None
    if pack_gqa and not algorithm.packs:
        hint = "the tiles of flash2, flash3, flash4 and split-kv can"
        raise UsageError(f"{file.name} does not pack query heads into a tile", "--pack-gqa", hint)
    packed = algorithm.packs and (_packs(file, rule or own, problem) if pack_gqa is None else pack_gqa)
    if packed:
        tiling = replace(tiling, group=problem.shape.group)
    its_own = {**file.parameters, **(rule.settings if rule else _kept(own))}
    file.check_fixed(settings, its_own)
    chosen = algorithm.settings(its_own, settings)
    call = Call(problem, tiling, chosen, *_cores(device))
    check_scales(call)
    clusters = cluster_notes(file, call, device)
    call, notes = fitted(file, call, device if fit else None, rule, settings)
    padded = _padded(file, problem) if rule else []
    return Prepared(call, packed, (*notes, *padded, *clusters))


def packing_of(file: KernelFile, files: Iterable[KernelFile], pack_gqa: bool | None) -> bool | None:
    """What `pack_gqa` says to one of several kernels: packing is for those that can, and refused if none can."""
    left_to_others = pack_gqa and not file.algorithm.packs and any(other.algorithm.packs for other in files)
    return None if left_to_others else pack_gqa


def _cores(device: Device | None) -> tuple[int, tuple[tuple[str, int], ...], int]:
    """Cores, caches of one core, and how many cores share an instance of the last cache."""
    if device is None:
        return 1, (), 1
    last = device.cache_before("hbm") if device.has_level("hbm") else None
    return device.cores, private_caches(device), max(1, device.cores // (last.instances if last else 1))


def private_caches(device: Device) -> tuple[tuple[str, int], ...]:
    """(name, bytes) of each cache that a CPU's core has to itself, nearest first; elsewhere none."""
    if device.kind != "cpu":
        return ()
    own = (level for level in device.levels if level.scope == "core")
    return tuple((level.name, level.capacity_bytes) for level in own if level.capacity_bytes)


def _packs(file: KernelFile, rule: TileRule | None, problem: Attention) -> bool:
    """Whether a kernel packs query heads when nobody says: in decode unless, and in prefill where, its code does."""
    if problem.phase == "decode":
        return rule is None or not rule.unpacked
    wanted = rule.packs or (file.packs and not rule.unpacked) if rule else file.packs
    return wanted and all(heads % problem.shape.group == 0 for _, heads in problem.masks())


def _elsewhere(file: KernelFile, device: Device | None) -> tuple[str, ...]:
    """Says that the released code does not run on the device, and what does."""
    there = file.instead.get(device.architecture, ()) if device else ()
    if not there or device is None:
        return ()
    why = f" ({file.absent})" if file.absent else ""
    return (
        f"{file.name} does not exist for {device.name}{why}: counted as if it did; what exists: {', '.join(there)}",
    )


#: settings of a kernel's own tile that a typed tile keeps
KEPT = ("mma_rows", "tensor_memory", "rule", "value_block")


def _own_rule(file: KernelFile, problem: Attention, device: Device | None) -> TileRule | None:
    """The rule of the kernel's own tile, if it has one for the problem."""
    try:
        return file.rule(problem, device)
    except UsageError:
        return None


def _kept(own: TileRule | None) -> Mapping[str, Setting]:
    """Settings of the kernel's own tile that a typed tile keeps: how it works, not how much it holds."""
    return {name: value for name, value in own.settings.items() if name in KEPT} if own else {}


def _padded(file: KernelFile, problem: Attention) -> list[str]:
    """Says that the code runs a larger head size."""
    size = file.heads.padding(problem)
    given = spelled(problem.shape.head_dim, problem.shape.head_dim_v)
    return [f"{file.name}: head size {given} runs padded to {size}, counted without the padding"] if size else []
