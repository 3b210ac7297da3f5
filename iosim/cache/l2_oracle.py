"""The slow, readable form of `iosim.cache.shared_l2`: walk the programs, one dictionary per cache.

For tests and for readers: it does what the compiled engine does, touch by touch, on rows instead of atoms.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence

from iosim.cache.shared_l2 import L2
from iosim.schedule import Program, Touch
from iosim.trace.concurrency import Concurrency

Key = tuple[str, int, int, int]  # tensor, head, row, home partition


class OracleL2:
    """Caches whose entries are rows, least recent first."""

    def __init__(self, l2: L2, bits_of_row: Mapping[str, int]) -> None:
        self.l2, self.bits = l2, bits_of_row
        caches = l2.instances * l2.partitions
        self.caches: list[OrderedDict[Key, bool]] = [OrderedDict() for _ in range(caches)]
        self.used = [0] * caches
        self.read: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def size(self, key: Key) -> int:
        """Bits of a row's share at one home."""
        whole, parts = self.bits[key[0]], self.l2.partitions
        return whole // parts + (whole % parts if key[3] == 0 else 0)

    def touch(self, cache: int, key: Key, write: bool) -> bool:
        """Whether it was there; it is the most recent afterwards."""
        entries = self.caches[cache]
        found = key in entries
        dirty = entries.pop(key, False) or write
        if not found:
            while self.used[cache] + self.size(key) > 8 * self.l2.capacity_bytes // self.l2.partitions and entries:
                old, was_dirty = entries.popitem(last=False)
                self.used[cache] -= self.size(old)
                self.written[old[0]] += self.size(old) if was_dirty else 0
            self.used[cache] += self.size(key)
        entries[key] = dirty
        return found

    def access(self, core: int, touch: Touch) -> None:
        """One touch by one core, row by row."""
        instance = core % self.l2.instances
        near = instance * self.l2.partitions + (core // self.l2.instances) % self.l2.partitions
        for row in range(touch.row, touch.row + touch.rows):
            for home in range(self.l2.partitions):
                key, far = (touch.tensor, touch.head, row, home), instance * self.l2.partitions + home
                if touch.write:
                    self.touch(far, key, True)
                    if far != near:
                        self.touch(near, key, False)
                elif not self.touch(near, key, False):
                    self.missed[touch.tensor] += self.size(key)
                    if far == near or not self.touch(far, key, False):
                        self.read[touch.tensor] += self.size(key)

    def dirty(self) -> Counter[str]:
        """Bits still dirty, by tensor."""
        left: Counter[str] = Counter()
        for entries in self.caches:
            for key, dirty in entries.items():
                left[key[0]] += self.size(key) if dirty else 0
        return left


def ordered_steps(program: Program, item: int, turned: bool, walked: Sequence[str]) -> list[tuple[Touch, ...]]:
    """The steps of an item, its walk reversed when the key order turns it."""
    steps = list(program.steps(item))
    turning = [index for index, step in enumerate(steps) if all(touch.tensor in walked for touch in step)]
    if turned and turning:
        low, high = turning[0], turning[-1] + 1
        steps[low:high] = steps[low:high][::-1]
    return steps


def lockstep_touches(
    program: Program, concurrency: Concurrency, walked: Sequence[str] = ("K", "V")
) -> Iterator[tuple[int, Touch]]:
    """(slot, touch) in the order in which slots in lockstep make them."""
    order = [int(item) for item in concurrency.order(program.heads, program.tiles)]
    slots = range(concurrency.slots)
    left: list[list[tuple[Touch, ...]]] = [[] for _ in slots]
    rounds, taken, tick, waiting = [0] * len(slots), 0, 0, True
    while waiting or any(left):
        waiting = False
        for slot in slots:
            if tick < slot * concurrency.stagger_steps:
                waiting = True
                continue
            if not left[slot]:
                index = slot + rounds[slot] * len(slots) if concurrency.static else taken
                if index >= len(order) or order[index] < 0:
                    continue
                turned = {"cyclic": False, "reverse": True, "sawtooth": rounds[slot] % 2 == 1}[concurrency.kv_order]
                left[slot] = ordered_steps(program, order[index], turned, walked)
                rounds[slot], taken = rounds[slot] + 1, taken + 1
                waiting = True
            if left[slot]:
                yield from ((slot, touch) for touch in left[slot].pop(0))
                waiting = True
        tick += 1
