"""The touches of a call on lines: its items one after another, or side by side in lockstep.

Every head of every tensor lies contiguous and starts at a line. A write that covers a part of a line only is
marked, since a miss must then fetch the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from iosim.schedule import Program
from iosim.trace.accesses import PARTIAL, READ, WRITE
from iosim.trace.compiled import Atoms, CompiledLaunch, compile_call
from iosim.trace.concurrency import KV_ORDERS, Concurrency
from iosim.trace.touches import Touches, join

Int64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class CallTouches:
    """A call's touches, and where each tensor lies."""

    touches: Touches
    """in program order; `copies` stand for groups of heads that share nothing"""
    ranges: Mapping[str, tuple[int, int]]
    """tensor -> (first line, lines) in one copy"""


def call_touches(
    programs: Sequence[Program], bits: Mapping[str, int], line_bytes: int, concurrency: Concurrency | None = None
) -> CallTouches:
    """The touches of a call.

    Args:
        programs: the launches' programs, in order.
        bits: tensor -> bits of one element.
        line_bytes: size of a line.
        concurrency: how items run side by side; None or one slot: one after another.
    """
    concurrency = concurrency or Concurrency(1)
    # heads repeat each other only one after another, and when no walk turns round from one to the next
    apart = concurrency.slots == 1 and concurrency.grid_order in ("head-major", "longest-first")
    copies = _copies(programs) if apart and concurrency.kv_order != "sawtooth" else 1
    part = [_fewer(program, copies) for program in programs]
    atoms, launches = compile_call(part, bits)
    layout = _Layout(atoms, line_bytes)
    parts = [layout.lines(*_unrolled(launch, atoms, concurrency)) for launch in launches]
    touches = join(parts)
    return CallTouches(Touches(touches.start, touches.length, touches.flags, copies), layout.ranges())


def _copies(programs: Sequence[Program]) -> int:
    """Groups of heads that share no row of any tensor and run the same steps, one after another."""
    if len(programs) != 1 or len({program.heads for program in programs}) != 1:
        return 1
    program = programs[0]
    marks = {program.pattern(head) if program.pattern else 0 for head in range(program.heads)}
    if len(marks) != 1:
        return 1
    last = program.steps((program.heads - 1) * program.tiles)
    shares = {touch.tensor: touch.head for step in last for touch in step}
    fewest = min(shares.values(), default=0) + 1
    return fewest if all((head + 1) % fewest == 0 for head in shares.values()) and program.heads % fewest == 0 else 1


def _fewer(program: Program, copies: int) -> Program:
    return program if copies == 1 else replace(program, heads=program.heads // copies)


class _Layout:
    """Where each head of each tensor begins, in lines."""

    def __init__(self, atoms: Atoms, line_bytes: int) -> None:
        self.atoms, self.line_bytes = atoms, line_bytes
        sizes = [int(cut[-1]) * bits for cut, bits in zip(atoms.cuts, atoms.row_bits, strict=True)]
        self.head_lines = np.array([-(-size // (8 * line_bytes)) for size in sizes], np.int64)
        self.first = np.concatenate(([0], np.cumsum(self.head_lines * np.array(atoms.heads, np.int64))))
        self.end = int(self.first[-1])

    def ranges(self) -> dict[str, tuple[int, int]]:
        """(first line, lines) of every tensor."""
        return {
            name: (int(self.first[index]), int(self.first[index + 1] - self.first[index]))
            for index, name in enumerate(self.atoms.tensors)
        }

    def lines(self, tensor: Int64, head: Int64, first: Int64, count: Int64, write: NDArray[np.bool_]) -> Touches:
        """Touches of atoms as touches of lines."""
        start, length = np.empty_like(tensor), np.empty_like(tensor)
        flags = np.where(write, WRITE, READ).astype(np.uint8)
        line_bits = 8 * self.line_bytes
        for index, cut in enumerate(self.atoms.cuts):
            mine = tensor == index
            low = cut[first[mine]] * self.atoms.row_bits[index]
            high = cut[first[mine] + count[mine]] * self.atoms.row_bits[index]
            base = self.first[index] + head[mine] * self.head_lines[index]
            start[mine] = base + low // line_bits
            length[mine] = -(-high // line_bits) - low // line_bits
            whole = int(cut[-1]) * self.atoms.row_bits[index]
            cut_short = (low % line_bits != 0) | ((high % line_bits != 0) & (high < whole))
            flags[mine] |= np.where(cut_short & write[mine], PARTIAL, 0).astype(np.uint8)
        return Touches(start, length, flags)


Unrolled = tuple[Int64, Int64, Int64, Int64, NDArray[np.bool_]]


def _unrolled(launch: CompiledLaunch, atoms: Atoms, concurrency: Concurrency) -> Unrolled:
    """(tensor, head, first atom, atoms, written) of every touch in the order in which they happen."""
    if concurrency.slots == 1 and concurrency.kv_order == "cyclic":
        order, head = _sequential(launch, concurrency)
    else:
        order, head = _lockstep(launch, concurrency)
    tensor = launch.tensor[order]
    return tensor, launch.tensor_head[tensor, head], launch.first[order], launch.count[order], launch.write[order]


def _sequential(launch: CompiledLaunch, concurrency: Concurrency) -> tuple[Int64, Int64]:
    """Touch numbers and heads of items one after another."""
    items = concurrency.order(launch.heads, launch.tiles)
    head, tile = np.divmod(items, launch.tiles)
    pattern = launch.pattern[head]
    low = launch.step[launch.item[pattern, tile]]
    high = launch.step[launch.item[pattern, tile + 1]]
    length = high - low
    ends = np.cumsum(length)
    order = np.repeat(low - (ends - length), length) + np.arange(ends[-1] if len(ends) else 0)
    return order, np.repeat(head, length)


def _lockstep(launch: CompiledLaunch, concurrency: Concurrency) -> tuple[Int64, Int64]:
    """Touch numbers and heads of items side by side, slot after slot within a tick."""
    from iosim.trace.lockstep_kernel import unroll

    total = int(sum((launch.step[launch.item[p, -1]] - launch.step[launch.item[p, 0]]) for p in launch.pattern))
    order, head = np.empty(total, np.int64), np.empty(total, np.int64)
    slots = concurrency.slots
    used = unroll(
        concurrency.order(launch.heads, launch.tiles), slots, concurrency.static,
        KV_ORDERS.index(concurrency.kv_order), concurrency.stagger_steps, launch.tiles, launch.pattern, launch.item,
        launch.walk, launch.step, np.zeros(slots, np.int64), np.zeros(slots, np.int64), np.zeros(slots, np.bool_),
        np.zeros(slots, np.int64), order, head,
    )  # fmt: skip
    return order[:used], head[:used]
