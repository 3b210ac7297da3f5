"""What passes a real device's last caches: a schedule's items in lockstep over its L2, and a memory-side cache.

Partitions that keep own copies (A100, H100) are caches of their own: a core looks up its near partition; a line
that lives in the far one is fetched from there and kept near too, so data that all cores read needs twice the room.
Eight private L2s (MI300X) serve their own cores and share the memory-side cache behind them. Evidence and limits:
docs/explanation/main-memory.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iosim.schedule import Moved, Program, Traffic
from iosim.trace.compiled import Atoms, CompiledLaunch, compile_call
from iosim.trace.concurrency import KV_ORDERS, Concurrency

#: for touches whose dirty victims go to main memory
NO_VICTIMS = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class L2:
    """The caches between cores and main memory."""

    capacity_bytes: int
    """of one instance, all its partitions together"""
    instances: int = 1
    """caches with cores of their own"""
    partitions: int = 1
    """parts of an instance that keep own copies; 1 where they do not"""
    behind_bytes: int = 0
    """a memory-side cache shared by all instances; 0: none"""


@dataclass(frozen=True, slots=True)
class L2Replay:
    """What a replay counted, by tensor in bytes."""

    requested_bytes: Mapping[str, int]
    """read requests at the L2"""
    missed_bytes: Mapping[str, int]
    """requests that missed the asking core's partition"""
    read_bytes: Mapping[str, int]
    """fetched from main memory"""
    evicted_bytes: Mapping[str, int]
    """written to main memory while the kernel ran"""
    dirty_bytes: Mapping[str, int]
    """still dirty at the end, written later; scratch dies and is left out"""

    def traffic(self, bits: Mapping[str, int]) -> Traffic:
        """Reads and all writes, those after the end included, as elements of the tensors' own widths."""
        return Traffic(
            tuple(
                Moved(
                    tensor,
                    bits[tensor],
                    8 * self.read_bytes[tensor] // bits[tensor],
                    8 * (self.evicted_bytes[tensor] + self.dirty_bytes[tensor]) // bits[tensor],
                )
                for tensor in self.read_bytes
            )
        )

    @property
    def hit_rate(self) -> float:
        """Share of requested bytes found in the asking core's partition."""
        asked = sum(self.requested_bytes.values())
        return 1 - sum(self.missed_bytes.values()) / asked if asked else 1.0


class _Caches:
    """Recency lists of every cache, in bits so that narrow types stay whole."""

    def __init__(self, l2: L2, atoms: Atoms) -> None:
        parts = l2.partitions
        whole = atoms.sizes_bits()
        self.atoms = len(whole)
        # partition h is home to its share of every atom's lines
        shares = [whole // parts + (whole % parts if home == 0 else 0) for home in range(parts)]
        self.size = np.concatenate(shares)
        self.tensor = np.tile(atoms.tensor_of(), parts)
        caches = l2.instances * parts + (1 if l2.behind_bytes else 0)
        self.behind = caches - 1 if l2.behind_bytes else -1
        self.capacity = np.full(caches, 8 * l2.capacity_bytes // parts, np.int64)
        if l2.behind_bytes:
            self.capacity[-1] = 8 * l2.behind_bytes
        end = len(self.size)
        self.links = np.zeros((caches, end + 1, 4), np.int32)
        self.links[:, end, :2] = end  # an empty ring
        self.used = np.zeros(caches, np.int64)


def replay_l2(
    programs: Sequence[Program],
    bits: Mapping[str, int],
    concurrency: Concurrency,
    l2: L2,
    warm: Sequence[str] = (),
    scratch: Collection[str] = (),
) -> L2Replay:
    """Run a call's launches one after another through the caches.

    Args:
        programs: the launches' programs.
        bits: tensor -> bits of one element.
        concurrency: cores, residency, orders.
        l2: the caches.
        warm: tensors read once before the call, so that the caches may hold them; not counted.
        scratch: tensors that die with the call: what is dirty of them at the end is never written.
    """
    atoms, launches = compile_call(programs, bits)
    caches = _Caches(l2, atoms)
    counters = np.zeros((4, len(atoms.tensors)), np.int64)
    _preload(caches, atoms, warm, l2)
    counters[:] = 0
    for launch in launches:
        _run(launch, atoms, caches, counters, concurrency, l2)
    return _result(atoms, caches, counters, scratch)


def _preload(caches: _Caches, atoms: Atoms, warm: Sequence[str], l2: L2) -> None:
    """Read the warm tensors once, in order, from the cores of every partition in turn."""
    from iosim.cache.l2_kernel import touch

    unused = np.zeros(len(atoms.tensors), np.int64)
    for name in warm:
        if name not in atoms.tensors:
            continue
        index = atoms.tensors.index(name)
        for atom in range(atoms.base[index], atoms.base[index + 1]):
            for home in range(l2.partitions):
                part = home * caches.atoms + atom
                for cache in range(len(caches.capacity)):
                    touch(cache, part, caches.size, False, caches.links, caches.used,
                          caches.capacity, caches.tensor, unused, NO_VICTIMS)  # fmt: skip


def _run(
    launch: CompiledLaunch, atoms: Atoms, caches: _Caches, counters: NDArray[np.int64], concurrency: Concurrency, l2: L2
) -> None:
    from iosim.cache.l2_kernel import lockstep

    slots = concurrency.slots
    asked, missed, fetched, written = counters
    # dirty victims are handed to the memory-side cache where there is one; the last entry counts them
    victims = np.zeros(len(caches.size) + 1 if caches.behind >= 0 else 1, np.int64)
    lockstep(
        concurrency.order(launch.heads, launch.tiles), slots, concurrency.cores, concurrency.static,
        KV_ORDERS.index(concurrency.kv_order), concurrency.stagger_steps, launch.tiles, launch.pattern, launch.item,
        launch.walk, launch.step, launch.tensor, launch.first, launch.count, launch.write, launch.tensor_head,
        atoms.base, atoms.per_head, l2.instances, l2.partitions, caches.behind, caches.size, caches.links,
        caches.used, caches.capacity, caches.tensor, asked, missed, fetched, written, victims, NO_VICTIMS,
        np.zeros(slots, np.int64), np.zeros(slots, np.int64),
        np.zeros(slots, np.bool_), np.zeros(slots, np.int64),
    )  # fmt: skip


def _result(atoms: Atoms, caches: _Caches, counters: NDArray[np.int64], scratch: Collection[str]) -> L2Replay:
    asked, missed, fetched, written = (counter // 8 for counter in counters)
    dirty = np.zeros(len(atoms.tensors), np.int64)
    left = (caches.links[:, :-1, 2] == 2).any(0)  # dirty in an L2 and again behind it is written once
    np.add.at(dirty, caches.tensor[left], caches.size[left])
    dirty //= 8
    names = atoms.tensors

    def by_tensor(values: NDArray[np.int64]) -> dict[str, int]:
        return {name: int(value) for name, value in zip(names, values, strict=True)}

    return L2Replay(
        requested_bytes=by_tensor(asked),
        missed_bytes=by_tensor(missed),
        read_bytes=by_tensor(fetched),
        evicted_bytes=by_tensor(written),
        dirty_bytes={name: 0 if name in scratch else int(value) for name, value in zip(names, dirty, strict=True)},
    )
