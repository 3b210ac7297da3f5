"""Which items run at once: grid order, cores, residency, and the direction of the key walk.

Slots (cores x resident items) proceed in lockstep, one step each per tick; a free slot takes the next item of the
grid's order. Measured counters support lockstep: 80 to 114 unsynchronised blocks that sweep one buffer fetch each
line once per pass (docs/explanation/main-memory.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iosim.errors import UsageError, did_you_mean

GRID_ORDERS = ("head-major", "row-major", "longest-first", "sections", "chunked")
KV_ORDERS = ("cyclic", "reverse", "sawtooth")
ASSIGNMENTS = ("dynamic", "static")
#: slots that a replay keeps track of, some 100 bytes each; the largest devices have thousands
MOST_SLOTS = 10_000_000


@dataclass(frozen=True, slots=True)
class Concurrency:
    """How items are placed and ordered."""

    cores: int
    """cores that run items"""
    residency: int = 1
    """items resident on one core at once"""
    grid_order: str = "head-major"
    """head-major: all row tiles of a head before the next; row-major: heads interleaved; longest-first: head-major,
    last row tiles first; sections: groups of heads that fit a section, rows from last to first, heads fastest; chunked: a run of consecutive items
    per slot, as threads share a loop, whatever the assignment"""
    kv_order: str = "cyclic"
    """cyclic: first key tile to last; reverse; sawtooth: a slot turns round with each item"""
    assignment: str = "dynamic"
    """dynamic: the next free slot takes the next item; static: item k runs on slot k mod slots"""
    section_heads: int = 1
    """heads of one section"""
    stagger_steps: int = 0
    """ticks that each slot starts after the one before it: 0 is perfect lockstep"""
    instances: int = 1
    """last caches, each shared by consecutive threads (chunked only: elsewhere slots go round the caches)"""

    def __post_init__(self) -> None:
        for name, among in (("grid_order", GRID_ORDERS), ("kv_order", KV_ORDERS), ("assignment", ASSIGNMENTS)):
            if getattr(self, name) not in among:
                option = "--" + name.replace("_", "-")
                raise UsageError(f"unknown {name.replace('_', ' ')} {getattr(self, name)!r}", option,
                                 did_you_mean(getattr(self, name), among))  # fmt: skip
        for name in ("cores", "residency", "section_heads", "instances"):
            if getattr(self, name) < 1:
                raise UsageError(f"must be at least 1, got {getattr(self, name)}", f"--{name.replace('_', '-')}")
        if self.slots > MOST_SLOTS:
            option = "--cores" if self.cores > MOST_SLOTS or self.residency == 1 else "--residency"
            raise UsageError(f"{self.slots:,} items at once, more than iosim replays ({MOST_SLOTS:,})", option)

    @property
    def slots(self) -> int:
        """Items that run at once."""
        return self.cores * self.residency

    @property
    def static(self) -> bool:
        """Whether the k-th entry of the order belongs to slot k mod slots."""
        return self.assignment == "static" or self.grid_order == "chunked"

    def order(self, heads: int, tiles: int) -> NDArray[np.int64]:
        """(heads * tiles,) items, numbered head * tiles + tile, in the order they are handed out.

        Chunked orders have a row of entries for every round of slots, -1 where a slot has run out of items.
        """
        if self.grid_order == "chunked":
            return self._chunks(heads * tiles)
        head, tile = np.divmod(np.arange(heads * tiles, dtype=np.int64), tiles)
        if self.grid_order == "row-major":
            return np.lexsort((head, tile))
        if self.grid_order == "longest-first":
            return np.lexsort((-tile, head))
        if self.grid_order == "sections":
            return np.lexsort((head, -tile, head // self.section_heads))
        return np.arange(heads * tiles, dtype=np.int64)

    def _chunks(self, items: int) -> NDArray[np.int64]:
        """ceil(items / slots) consecutive items per thread; threads fill one last cache after the other."""
        slots, caches = self.slots, self.instances if self.slots % self.instances == 0 else 1
        slot, chunk = np.arange(slots, dtype=np.int64), -(-items // slots)
        first = (slot % caches * (slots // caches) + slot // caches) * chunk
        table = first + np.arange(chunk, dtype=np.int64)[:, None]
        return np.where(table < items, table, -1).reshape(-1)
