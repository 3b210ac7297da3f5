"""What a kernel is made of: launches of work items, what each moves across the core boundary, its arithmetic.

Counts are exact Python ints over batch and all heads. Elements are words of any width; bytes use each
tensor's own width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from iosim.attention import Attention
from iosim.masks import Tiling
from iosim.program import Program, StepTable, Touch

__all__ = [
    "CLASSES", "OTHER_CLASSES", "OTHER_FUNCTIONS", "UNBOUNDED", "Launch", "Moved", "Program", "Schedule", "StepTable", "Touch",
    "Traffic", "Work", "WorkingSet", "add_all", "bits_to_bytes",
]  # fmt: skip

#: classes of algorithms, from the widest to the narrowest: a floor of a class holds for it and those after it
CLASSES = ("any", "standard", "standard-once")
#: no floor of attention speaks of `recurrent`, whose input is a state instead of keys, of `saved`, a backward pass
#: that is given the probabilities, and of `summaries`, where a query that sees one summary of keys need not be read
UNBOUNDED = ("recurrent", "saved", "summaries")
#: what computes another function than softmax attention, from less state: only `any` speaks of `linear` and
#: `approximate`
OTHER_CLASSES = ("linear", "approximate", *UNBOUNDED)
#: what does not compute softmax attention at all
OTHER_FUNCTIONS = ("linear", "approximate", "recurrent", "summaries")


def bits_to_bytes(bits: int) -> int:
    """Whole bytes that hold so many bits."""
    return -(-bits // 8)


@dataclass(frozen=True, slots=True)
class Moved:
    """What one tensor moves across one boundary."""

    tensor: str
    """Q, K, V, O, S, P, LSE, ..."""
    bits: int
    """bits of one element"""
    read_elements: int = 0
    """elements read, slow side to fast side"""
    write_elements: int = 0
    """elements written, fast side to slow side"""
    padding_bytes: int = 0
    """bytes read beyond the elements: what whole sectors of a paged cache bring along"""

    @property
    def read_bytes(self) -> int:
        """Bytes read."""
        return bits_to_bytes(self.read_elements * self.bits) + self.padding_bytes

    @property
    def write_bytes(self) -> int:
        """Bytes written."""
        return bits_to_bytes(self.write_elements * self.bits)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What crosses one boundary, tensor by tensor. Traffics add; `*` repeats one."""

    moved: tuple[Moved, ...] = ()
    """one entry per tensor"""

    @property
    def read_elements(self) -> int:
        """Elements read."""
        return sum(m.read_elements for m in self.moved)

    @property
    def write_elements(self) -> int:
        """Elements written."""
        return sum(m.write_elements for m in self.moved)

    @property
    def read_bytes(self) -> int:
        """Bytes read."""
        return sum(m.read_bytes for m in self.moved)

    @property
    def write_bytes(self) -> int:
        """Bytes written."""
        return sum(m.write_bytes for m in self.moved)

    @property
    def total_bytes(self) -> int:
        """Bytes both ways."""
        return self.read_bytes + self.write_bytes

    def __add__(self, other: Traffic) -> Traffic:
        merged: dict[str, Moved] = {}
        for m in (*self.moved, *other.moved):
            seen = merged.get(m.tensor, Moved(m.tensor, m.bits))
            merged[m.tensor] = Moved(
                m.tensor, m.bits, seen.read_elements + m.read_elements, seen.write_elements + m.write_elements,
                seen.padding_bytes + m.padding_bytes,
            )  # fmt: skip
        return Traffic(tuple(merged.values()))

    def __mul__(self, times: int) -> Traffic:
        counts = ((m, m.read_elements * times, m.write_elements * times, m.padding_bytes * times) for m in self.moved)
        return Traffic(tuple(Moved(m.tensor, m.bits, *times_each) for m, *times_each in counts))

    def per_tensor(self) -> dict[str, dict[str, int]]:
        """Elements and bytes by tensor, for people and JSON."""
        return {
            m.tensor: {
                "read_elements": m.read_elements,
                "write_elements": m.write_elements,
                "read_bytes": m.read_bytes,
                "write_bytes": m.write_bytes,
            }
            for m in self.moved
        }


@dataclass(frozen=True, slots=True)
class Work:
    """Arithmetic of a launch, exact. Works add."""

    tile_pairs: int = 0
    """visited (Q tile, KV tile) pairs"""
    flop: int = 0
    """useful FLOP: 2 (d + d_v) per unmasked pair"""
    flop_executed: int = 0
    """FLOP on visited tiles clipped to real rows and keys, masked entries included"""
    exp: int = 0
    """exponentials of scores, masked entries of visited tiles included"""
    exp_rescale: int = 0
    """exponentials of the running maximum's corrections"""
    shared_bytes: int = 0
    """bytes that the matrix units read from, and copies write to, shared memory"""
    exp_software: int = 0
    """those of `exp` that run as polynomials on the multiply-add units instead"""

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, name) + getattr(other, name) for name in Work.__dataclass_fields__))

    def __mul__(self, times: int) -> Work:
        return Work(*(getattr(self, name) * times for name in Work.__dataclass_fields__))


@dataclass(frozen=True, slots=True)
class Launch:
    """One grid launch of a kernel."""

    name: str
    """what it does: forward, combine, ..."""
    items: int
    """work items (thread blocks), over batch and heads"""
    traffic: Traffic
    """delivered across the core boundary, all items"""
    work: Work = Work()
    """arithmetic, all items"""
    program: Program | None = None
    """its touches; their element counts are `traffic`"""
    times: int = 1
    """launches in a row with these counts each"""
    later: Callable[[int], Program] | None = None
    """number from 1 -> the program of a later one of them"""

    @property
    def all_traffic(self) -> Traffic:
        """Of all its times."""
        return self.traffic if isinstance(self.times, int) and self.times == 1 else self.traffic * self.times

    @property
    def all_work(self) -> Work:
        """Of all its times."""
        return self.work if isinstance(self.times, int) and self.times == 1 else self.work * self.times

    def one_by_one(self) -> tuple[Launch, ...]:
        """Its times as launches of their own."""
        if self.later is None:
            return (self,) * self.times
        programs = (self.program, *map(self.later, range(1, self.times)))
        return tuple(replace(self, program=program, times=1, later=None) for program in programs)


@dataclass(frozen=True, slots=True)
class WorkingSet:
    """Fast memory that one work item holds at once."""

    shared_bytes: int
    """tiles in shared memory (L1 of an NPU, the cache of a CPU core)"""
    register_bytes: int
    """accumulators in registers"""
    tensor_bytes: int = 0
    """accumulators in tensor memory (Blackwell)"""
    levels: tuple[tuple[str, int], ...] = ()
    """further levels of a core (an NPU's l0a, l0b, l0c, ub): name and bytes"""

    @property
    def total_bytes(self) -> int:
        """All of it."""
        named = sum(size for _, size in self.levels)
        return self.shared_bytes + self.register_bytes + self.tensor_bytes + named


@dataclass(frozen=True, slots=True)
class Schedule:
    """A kernel applied to a problem: its launches in order."""

    kernel: str
    """the kernel's name"""
    algorithm: str
    """the algorithm's name in `iosim.kernels`"""
    algorithm_class: str
    """the narrowest of `CLASSES` that it belongs to"""
    problem: Attention
    """what it computes"""
    tiling: Tiling
    """how it cuts the scores"""
    launches: tuple[Launch, ...]
    """in order of execution"""
    working_set: WorkingSet
    """of one work item of the main launch"""
    parameters: Mapping[str, object] = field(default_factory=dict)
    """every parameter used, defaults included"""
    chosen: Mapping[str, object] = field(default_factory=dict)
    """of those that leave the choice to the algorithm, what it chose"""
    multicast: int = 1
    """cores that receive one read from the last shared level (TMA multicast)"""
    paired: int = 1
    """cores that load and hold each K/V tile together, each its part"""
    notes: tuple[str, ...] = ()
    """assumptions a reader must know"""
    model: str = ""
    """the model behind the counts at the cores where caches decide them; empty: they are exact"""

    @property
    def settled(self) -> dict[str, object]:
        """Every parameter as it was used: the algorithm's own choices in place of the marks that ask for them."""
        return {**self.parameters, **self.chosen}

    @property
    def traffic(self) -> Traffic:
        """Delivered across the core boundary, all launches."""
        return add_all(launch.all_traffic for launch in self.launches)

    @property
    def runs(self) -> tuple[Launch, ...]:
        """Every launch as often as it runs, each with its own program."""
        return tuple(run for launch in self.launches for run in launch.one_by_one())

    @property
    def programs(self) -> tuple[Program, ...]:
        """The touches of all launches in order; none where a launch has none."""
        runs = self.runs
        programs = tuple(run.program for run in runs if run.program)
        return programs if len(programs) == len(runs) else ()

    @property
    def writes_lse(self) -> bool:
        """Whether the log-sum-exp of each row is an output."""
        return any(moved.tensor == "LSE" and moved.write_elements for moved in self.traffic.moved)

    @property
    def work(self) -> Work:
        """Arithmetic of all launches."""
        total = Work()
        for launch in self.launches:
            total = total + launch.all_work
        return total


def add_all(traffics: Iterable[Traffic]) -> Traffic:
    """Sum of traffics."""
    total = Traffic()
    for traffic in traffics:
        total = total + traffic
    return total
