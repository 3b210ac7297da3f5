"""A certificate: how near a kernel's count is to the floors, with everything needed to derive it again.

A claim is a count and the floors at one boundary with one memory; its ratios are rounded up, so that "within
1.05x" is true. `iosim.certificate_check` derives every claim again from the document's inputs alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from iosim.analysis import analyze, boundaries_of, device_memory
from iosim.attention import Attention
from iosim.errors import AbsentError, CheckError, UsageError
from iosim.floors import Memory, demand_of, floors_at
from iosim.floors.curve import refuse_idealised
from iosim.floors.linear import own_bounds
from iosim.kernels import Parameter, load_kernel, make_schedule
from iosim.machine import Device, device_names
from iosim.report import BoundaryReport, Options
from iosim.schedule import OTHER_FUNCTIONS, Schedule
from iosim.units import binary_bytes

SCHEMA = "iosim/certificate/1"
CLASSES = ("standard-once", "standard", "any", "linear", "recurrent", "summaries")
SPOKEN = {
    "standard-once": "every kernel that computes each score once",
    "standard": "every kernel that forms the scores",
    "any": "every correct kernel",
    "linear": "every kernel of linear attention",
    "recurrent": "every kernel that decodes with such a state",
    "summaries": "every kernel of attention to such summaries",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """One boundary: what the kernel moves, and how far that is from each floor."""

    boundary: str
    """core | l2 | hbm, or `given`"""
    memory_bits: int
    """fast memory of one processor in bits"""
    processors: int
    """memories of that size side by side"""
    read_bytes: int
    """what the kernel reads across the boundary"""
    write_bytes: int
    """what it writes"""
    exact: bool
    """whether the count is exact for the schedule"""
    method: str
    """how it was counted"""
    floor_bytes: Mapping[str, int]
    """class -> floor, both ways; only classes that speak of this kernel's computation"""
    binding: Mapping[str, str]
    """class -> id of the bound that gives its floor"""
    within: Mapping[str, float]
    """class -> count over floor, rounded up"""

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.read_bytes + self.write_bytes

    def statement(self, kernel: str) -> str:
        """The claim in words that are true."""
        moves = "moves" if self.exact else "moves, by a model of the cache,"
        size = binary_bytes(self.memory_bits // 8)
        fast = f"{self.processors} memories of {size}" if self.processors > 1 else f"a memory of {size}"
        where = "" if self.boundary == "given" else f" at the {self.boundary} boundary"
        compared = ", ".join(self._comparisons()) or "no floor speaks of it"
        return f"{kernel} {moves} {self.total_bytes:,} bytes{where}: {compared}, with {fast}"

    def _comparisons(self) -> Iterator[str]:
        """From the narrowest class to the widest; one that says no more than a wider one is left out."""
        for index, name in enumerate(self.within):
            if self.total_bytes < self.floor_bytes[name]:  # it recomputes, so that class's floor does not bind it
                yield f"less than {SPOKEN[name]} must move"
            elif all(self.within[wider] > self.within[name] for wider in list(self.within)[index + 1 :]):
                yield f"within {self.within[name]:g}x of {SPOKEN[name]}"


def within(count: int, floor: int) -> float:
    """count / floor rounded up to hundredths, above 100 to whole numbers."""
    exact = Fraction(count, floor)
    return float(ceil(exact)) if exact > 100 else ceil(exact * 100) / 100


@dataclass(frozen=True, slots=True)
class Certificate:
    """Claims about one kernel on one problem, and what they were derived from."""

    inputs: Mapping[str, Any]
    """problem, kernel, device or memory, options: enough to derive every claim again"""
    claims: tuple[Claim, ...]
    """one per boundary"""
    notes: tuple[str, ...] = ()
    """boundaries left out, and why"""

    @property
    def kernel(self) -> str:
        """The kernel's name and tile."""
        return f"{self.inputs['kernel']['name']} {self.inputs['kernel']['tile']}"

    def statements(self) -> list[str]:
        """Every claim in words."""
        return [claim.statement(self.kernel) for claim in self.claims]

    def to_dict(self) -> dict[str, Any]:
        """The document that `check_certificate` reads."""
        claims = [{**asdict(claim), "statement": claim.statement(self.kernel)} for claim in self.claims]
        return {"schema": SCHEMA, "inputs": dict(self.inputs), "claims": claims, "notes": list(self.notes)}


def certify(
    problem: Attention,
    kernel: str,
    device: Device | None = None,
    options: Options | None = None,
    *,
    memory_elements: int | None = None,
    boundary: str | None = None,
    held: str | None = None,
) -> Certificate:
    """Certify a kernel's count against the floors.

    Args:
        problem: the call.
        kernel: catalogue name or path.
        device: whose boundaries; None with `memory_elements`.
        options: tile, settings, warm cache.
        memory_elements: one memory of so many elements of the narrowest operand instead of a device.
        boundary: one boundary of the device; None: all of them.
        held: narrowest type that values are converted to on chip.
    Raises:
        UsageError: a kernel or tile that cannot be, or whose tiles do not fit the memory.
        AbsentError: the device file does not give the memory asked for.
        CheckError: a count below a floor of the kernel's own class, so one of the two is wrong.
    """
    options = options or Options()
    if problem.shared_keys:
        raise UsageError("no certificate speaks of keys that sequences share", "--shared-prefix", "leave it out")
    schedule = make_schedule(problem, device, load_kernel(kernel), options.tile, options.settings, options.pack_gqa)
    refuse_idealised(schedule)
    if options.lse_output and problem.phase != "backward" and not schedule.writes_lse:
        raise UsageError(f"{kernel} writes no log-sum-exp, which the floors would count", "--lse-output")
    inputs = _inputs(schedule, kernel, device, options, memory_elements, boundary, held)
    if memory_elements is not None:
        return Certificate(inputs, (_given(schedule, memory_elements, options, held),))
    if device is None:
        raise UsageError("without a device the memory must be given", "--memory-elements", "for example 65536")
    return Certificate(inputs, *_on_device(problem, kernel, device, options, boundary, held))


def _given(schedule: Schedule, memory_elements: int, options: Options, held: str | None) -> Claim:
    demand = demand_of(schedule.problem, options.lse_output, held)
    width = demand_of(schedule.problem).width
    needed = 8 * schedule.working_set.total_bytes * schedule.paired
    if needed > memory_elements * width:
        raise UsageError(
            f"{schedule.kernel} with tile {schedule.tiling} holds {-(-needed // width):,} elements at once, the memory"
            f" {memory_elements:,}",
            "--memory-elements",
            "give a smaller --tile or more memory",
        )
    memory = Memory("given", memory_elements * width)
    traffic = schedule.traffic
    at = BoundaryReport(
        "given", memory.bits // 8, traffic, "closed form over the visited tiles", True,
        floors_at(demand, memory, options.warm), schedule.algorithm_class,
    )  # fmt: skip
    return _claim(at, memory, schedule, options.warm)


def _on_device(
    problem: Attention, kernel: str, device: Device, options: Options, boundary: str | None, held: str | None
) -> tuple[tuple[Claim, ...], tuple[str, ...]]:
    names = (boundary,) if boundary else boundaries_of(device)
    if boundary and boundary not in boundaries_of(device):
        raise UsageError(
            f"no kernel is counted at {boundary}", "--boundary", f"counted: {', '.join(boundaries_of(device))}"
        )
    report = analyze(problem, device, [kernel], options).kernels[0]
    demand = demand_of(problem, options.lse_output, held)
    claims, notes = [], []
    for name in names:
        try:
            memory = device_memory(device, name, report.schedule.paired)
        except AbsentError as error:
            if boundary:
                raise
            notes.append(f"no claim at {name}: {error.faults[0]}")
            continue
        at = report.boundary(name)
        floors = floors_at(demand, memory, options.warm and name == "hbm")
        known = BoundaryReport(name, at.capacity_bytes, at.traffic, at.method, at.exact, floors, at.algorithm_class)
        claims.append(_claim(known, memory, report.schedule, options.warm and name == "hbm"))
    return tuple(claims), tuple(notes)


def _floors_of(
    at: BoundaryReport, memory: Memory, schedule: Schedule, warm: bool
) -> tuple[dict[str, int], dict[str, str]]:
    """(class -> floor in bytes, class -> bound) of the classes that speak of the kernel's computation.

    Floors of other functions than softmax attention are of a cold memory: none where it may be `warm`.
    """
    if warm and at.algorithm_class in OTHER_FUNCTIONS:
        return {}, {}
    if own := [bound for bound in own_bounds(schedule, memory) if bound.counts != "total"]:  # of full attention only
        name = at.algorithm_class
        return {name: sum(bound.value_bytes for bound in own)}, {name: ", ".join(bound.id for bound in own)}
    if at.floors is None or at.algorithm_class not in ("standard", "standard-once"):
        return {}, {}
    floors = {name: at.floors.bytes_of(name) for name in ("standard-once", "standard", "any")}
    floors = {name: floor for name, floor in floors.items() if floor > 0}
    return floors, {name: at.floors.binding[name] for name in floors}


def _claim(at: BoundaryReport, memory: Memory, schedule: Schedule, warm: bool) -> Claim:
    floors, binding = _floors_of(at, memory, schedule, warm)
    if at.total_bytes < floors.get(at.algorithm_class, 0):
        raise CheckError(
            f"a count of {at.total_bytes:,} bytes is below the floor of its own class, {floors[at.algorithm_class]:,}",
            at.name,
            "the schedule cannot run in that memory as it is counted: an idealised one cannot be certified",
        )
    return Claim(
        boundary=at.name,
        memory_bits=memory.bits,
        processors=memory.processors,
        read_bytes=at.traffic.read_bytes,
        write_bytes=at.traffic.write_bytes,
        exact=at.exact,
        method=at.method,
        floor_bytes=floors,
        binding=binding,
        within={name: within(at.total_bytes, floor) for name, floor in floors.items()},
    )


def _inputs(
    schedule: Schedule, kernel: str, device: Device | None, options: Options, memory_elements: int | None,
    boundary: str | None, held: str | None,
) -> dict[str, Any]:  # fmt: skip
    problem, known = schedule.problem, {p.name: p for p in load_kernel(kernel).algorithm.parameters}
    return {
        "problem": {
            **asdict(problem.shape),
            "phase": problem.phase,
            "seq": problem.mask.lengths[0],
            "seq_kv": problem.mask.lengths[1],
            "mask": str(problem.mask),
            "types": asdict(problem.types),
        },
        "kernel": {
            "name": kernel,
            "tile": str(schedule.tiling),
            "pack_gqa": schedule.tiling.group > 1,
            "settings": {
                name: value for name, value in schedule.parameters.items() if not _own_choice(known[name], value)
            },
        },
        "device": {"name": _name(device), "sha256": device.sha256} if device else None,
        "memory_elements": memory_elements,
        "boundary": boundary,
        "warm": options.warm,
        "lse_output": options.lse_output,
        "held_dtype": held,
    }


def _own_choice(parameter: Parameter, value: object) -> bool:
    """A number below the least stands for the algorithm's own choice, which is made again."""
    return isinstance(value, int) and not isinstance(value, bool) and value < parameter.least


def _name(device: Device) -> str:
    """What finds the device again: its catalogue name, or its path."""
    stem = Path(device.file).stem
    return stem if stem in device_names() else device.file
