"""Points of a curve of traffic against capacity, and where an LRU curve falls and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from iosim.schedule import Schedule

#: a drop of this share of the largest traffic is a bend worth a word
BEND_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """Traffic from one capacity up to the next point's."""

    policy: str
    """lru | opt | opt-bypass | fifo"""
    capacity_bytes: int
    """whole lines"""
    read_bytes: int
    """fetched; a write that covers a whole line fetches nothing"""
    write_bytes: int
    """written back, what is dirty at the end included"""

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.read_bytes + self.write_bytes

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        return {name: getattr(self, name) for name in CurvePoint.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Bend:
    """Where an LRU curve falls, and why."""

    from_bytes: int
    """capacity at which the fall begins"""
    to_bytes: int
    """capacity at which it is over"""
    saved_bytes: int
    """reads saved on the way"""
    why: str
    """what fits from there on"""


def bends_of(points: Sequence[CurvePoint], schedule: Schedule) -> tuple[Bend, ...]:
    """Falls of at least a share of the largest traffic; neighbouring steps of one fall are joined."""
    worth = BEND_SHARE * points[0].read_bytes
    bends: list[Bend] = []
    for before, after in pairwise(points):
        saved = before.read_bytes - after.read_bytes
        if saved <= 0:
            continue
        near = bends and after.capacity_bytes <= 1.25 * bends[-1].to_bytes
        if near:
            last = bends.pop()
            bends.append(Bend(last.from_bytes, after.capacity_bytes, last.saved_bytes + saved, ""))
        else:
            bends.append(Bend(after.capacity_bytes, after.capacity_bytes, saved, ""))
    kept = [bend for bend in bends if bend.saved_bytes >= worth]
    return tuple(Bend(b.from_bytes, b.to_bytes, b.saved_bytes, _why(b, schedule)) for b in kept)


def _why(bend: Bend, schedule: Schedule) -> str:
    """What begins to fit: the tensors that are read again, and the size of one sweep over them."""
    problem, shape, bits = schedule.problem, schedule.problem.shape, schedule.problem.types.bits
    values = 0 if shape.latent else shape.head_dim_v * bits("V")
    sweep = problem.n_kv * (shape.head_dim * bits("K") + values) // 8
    if 0.9 * sweep <= bend.to_bytes <= 1.5 * sweep + 4 * schedule.working_set.shared_bytes:
        return f"K and V of one head ({sweep:,} bytes) with one Q and O tile fit: their re-reads hit"
    if bend.to_bytes < sweep and problem.mask.text != "full":
        return "the keys that a Q tile shares with the next one fit, for more and more of the mask"
    if bend.to_bytes > sweep:
        return "what several heads or launches share fits"
    return "a tile and what is touched between its uses fit"
