"""Floors, curves and certificates for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from iosim.floors import Bound, Floors, Memory
from iosim.render.problem_text import problem_line
from iosim.render.text import byte_count, capacity, line, ratio, strong, table, wrapped

if TYPE_CHECKING:
    from iosim.certificate import Certificate
    from iosim.floors.curve import FloorCurve

CLASS_TITLES = {
    "any": "any correct kernel",
    "standard": "forms each score",
    "standard-once": "each score once",
    "algebraic": "any algebra for QK^T",
    "linear": "linear attention",
    "recurrent": "decoding with a state",
    "summaries": "attention to summaries",
}
PLACES = {
    "core": "into the cores",
    "l2": "from the last shared cache",
    "hbm": "from main memory",
    "host": "onto the device",
    "given": "into the memory",
}
READING = (
    "Reads, writes or both (total) that no kernel of the class avoids. 0 B: so much fits that the bound says nothing;",
    "a dash: it does not speak of this boundary. Proofs: docs/explanation/floors, or `iosim explain L2`.",
)
CURVE_ROWS = 14

At = tuple[Memory, tuple[Bound, ...]]


def floors_text(found: Sequence[Floors]) -> str:
    """Bounds as rows, boundaries as columns, the best of each class, and what each bound assumes."""
    at = [(floors.memory, floors.bounds) for floors in found]
    return "\n".join([_places(at), "", _table(at), *_reading(), "", _totals(found), "", _conditions(at)])


def linear_text(at: Sequence[At]) -> str:
    """The same for other functions than softmax attention, which have no classes to choose from."""
    return "\n".join([_places(at), "", _table(at), *_reading(), "", _conditions(at)])


def _places(at: Sequence[At]) -> str:
    return "\n".join(f"{PLACES[memory.boundary]}: {_memory(memory)}" for memory, _ in at)


def _reading() -> list[str]:
    return [wrapped(READING, "  ")]


def _memory(memory: Memory) -> str:
    size = capacity(memory.bits // 8)
    many = f"{memory.processors} memories of {size} each" if memory.processors > 1 else size
    return f"{many} ({memory.contains})"


def _value(bound: Bound) -> str:
    return byte_count(bound.value_bytes) if bound.applies else "-"


def _table(at: Sequence[At]) -> str:
    """One boundary with elements and bytes, or several side by side in bytes."""
    if len(at) == 1:
        columns = ["elements", "bytes"]
        cells = [[f"{bound.value_elements:,}" if bound.applies else "-", _value(bound)] for bound in at[0][1]]
    else:
        columns = [memory.boundary for memory, _ in at]
        cells = [[_value(bound) for bound in bounds] for bounds in zip(*(bounds for _, bounds in at), strict=True)]
    rows = [
        [bound.id, CLASS_TITLES[bound.bound_class], bound.counts, *values]
        for bound, values in zip(at[0][1], cells, strict=True)
    ]
    return table(["bound", "holds for", "counts", *columns], rows, left=3)


def _totals(found: Sequence[Floors]) -> str:
    rows = []
    for name in ("any", "standard", "standard-once"):
        cells = [f"{strong(byte_count(floors.bytes_of(name)))} ({floors.binding[name]})" for floors in found]
        rows.append([CLASS_TITLES[name], *cells])
    return table(["floor, reads and writes", *(floors.memory.boundary for floors in found)], rows)


def _conditions(at: Sequence[At]) -> str:
    """Each condition once, with the bounds that need it."""
    needed: dict[str, list[str]] = {}
    for bound in (bound for _, bounds in at for bound in bounds if bound.applies):
        name = "L0" if bound.bound_class == "any" else bound.id
        for condition in bound.conditions:
            ids = needed.setdefault(condition, [])
            if name not in ids:
                ids.append(name)
    width = max(len(" ".join(ids)) for ids in needed.values())
    held = [wrapped([text], f"  {' '.join(ids):{width}}  ") for text, ids in needed.items()]
    return "\n".join(["what must hold", *held])


def certificate_text(certificate: Certificate) -> str:
    """Every claim in words, then its numbers."""
    rows = []
    names = [name for name in CLASS_TITLES if any(name in claim.within for claim in certificate.claims)]
    for claim in certificate.claims:
        cells = [f"{claim.within[name]:g}x ({claim.binding[name]})" if name in claim.within else "-" for name in names]
        rows.append([claim.boundary, byte_count(claim.read_bytes), byte_count(claim.write_bytes), *cells,
                     "exact" if claim.exact else "modelled"])  # fmt: skip
    header = ["boundary", "read", "written", *(CLASS_TITLES[name] for name in names), "count"]
    said = [f"{line(strong('certified'))}: {statement}" for statement in certificate.statements()]
    return "\n".join([*said, "", table(header, rows), *certificate.notes])


def curve_text(curve: FloorCurve, places: Sequence[tuple[str, int]]) -> str:
    """A dozen sizes of the curve; the whole of it is in csv, json and the picture."""
    from iosim.floors.orders import ORDERS  # orders are made of kernels, which floors alone need not load

    width = curve.demand.width
    step = max(1, -(-len(curve.memory_elements) // CURVE_ROWS))
    rows = []
    for index in range(0, len(curve.memory_elements), step):
        memory, floors = curve.memory_elements[index], curve.floors[index]
        best = curve.best_order(index)
        known = [f"{best[1]:,}", ORDERS[best[0]].title, ratio(best[1] / floors.once_elements)] if best else ["-"] * 3
        rows.append([f"{memory:,}", capacity(memory * width // 8), f"{floors.any_elements:,}",
                     f"{floors.standard_elements:,}", f"{floors.once_elements:,}", floors.binding["standard-once"],
                     known[0], known[2], known[1]])  # fmt: skip
    header = ["memory", "bytes", "any kernel", "forms each score", "each score once", "by", "best order known", "over",
              "which"]  # fmt: skip
    parts = [problem_line(curve.demand.problem), f"elements of {width} bits, both ways", "", table(header, rows)]
    if curve.crossover_elements is not None:
        unit = curve.demand.elements.d * curve.demand.elements.d_v
        parts += ["", f"FlashAttention's order overtakes the small-cache order at {curve.crossover_elements:,} elements"
                  f" ({curve.crossover_elements / unit:.2f} d d_v)"]  # fmt: skip
    parts += [f"{name}: {elements:,} elements of memory" for name, elements in places]
    for point in curve.kernels:
        floor = point.floor_elements
        over = f", {ratio(point.value_elements / floor)} the floor of its class" if floor else ""
        held = f"{point.memory_elements:,} of memory"
        parts.append(f"{point.kernel}: {point.value_elements:,} elements with {held}{over}")
    return "\n".join(parts)
