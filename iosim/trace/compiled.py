"""A call's programs as arrays: one head's steps, and where each head's tensors lie.

Heads of one mask differ only in which rows they touch, so the steps of one head stand for all of them. Rows are
cut into atoms at every boundary that any touch of the call has: an atom is always touched whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
from numpy.typing import NDArray

from iosim.schedule import Program, StepTable, Touch

Int64 = NDArray[np.int64]

#: rows per touch up to which a table over all rows is quicker than sorting the touches
DENSE = 16


@dataclass(frozen=True, slots=True, eq=False)
class Atoms:
    """The address space of a call: tensors, their heads, and the atoms of each head."""

    tensors: tuple[str, ...]
    """names, in order of first touch"""
    heads: tuple[int, ...]
    """heads of each tensor over the batch"""
    cuts: tuple[Int64, ...]
    """row boundaries of one head of each tensor, 0 and the last row included"""
    row_bits: tuple[int, ...]
    """bits of one row of each tensor"""

    @property
    def per_head(self) -> Int64:
        """Atoms of one head of each tensor."""
        return np.array([len(cut) - 1 for cut in self.cuts], np.int64)

    @property
    def base(self) -> Int64:
        """First atom of each tensor, and the number of atoms at the end."""
        return np.concatenate(([0], np.cumsum(self.per_head * np.array(self.heads, np.int64))))

    def sizes_bits(self) -> Int64:
        """Bits of every atom."""
        parts = [
            np.tile(np.diff(cut) * bits, heads)
            for cut, bits, heads in zip(self.cuts, self.row_bits, self.heads, strict=True)
        ]
        return np.concatenate(parts)

    def tensor_of(self) -> Int64:
        """Tensor number of every atom."""
        return np.repeat(np.arange(len(self.tensors)), np.diff(self.base))


@dataclass(frozen=True, slots=True, eq=False)
class CompiledLaunch:
    """One launch: items in canonical order, each a range of steps, each a range of touches."""

    heads: int
    """heads over the batch"""
    tiles: int
    """items per head"""
    pattern: Int64
    """(heads,) which pattern of steps a head follows"""
    item: Int64
    """(patterns, tiles + 1) step range of each item"""
    walk: Int64
    """(patterns, tiles, 2) the part of those steps whose direction the key order may turn"""
    step: Int64
    """(steps + 1,) touch range of each step"""
    tensor: Int64
    """(touches,) tensor number"""
    first: Int64
    """(touches,) first atom within the tensor's head"""
    count: Int64
    """(touches,) atoms"""
    write: NDArray[np.bool_]
    """(touches,) written"""
    tensor_head: Int64
    """(tensors, heads) which head of the tensor a head uses"""


@dataclass(frozen=True, slots=True, eq=False)
class _Walked:
    """A program's patterns before rows become atoms."""

    program: Program
    which: list[int]
    """pattern of each head"""
    tables: list[StepTable]
    """steps of each pattern"""
    tensor_head: dict[str, list[int]]
    """tensor -> its head for each head"""


def compile_call(
    programs: Sequence[Program], bits: Mapping[str, int], walked: Sequence[str] = ("K", "V")
) -> tuple[Atoms, list[CompiledLaunch]]:
    """Lay a call out.

    Args:
        programs: the launches' programs, in order.
        bits: tensor -> bits of one element.
        walked: tensors whose steps form the walk that a key order turns.
    """
    units = _units(programs)
    patterns = [_walk(program, units) for program in programs]
    atoms = _lay_out(patterns, units, bits)
    return atoms, [_compile(pattern, atoms, walked) for pattern in patterns]


def _units(programs: Sequence[Program]) -> dict[str, int]:
    """Elements of one row of each tensor that every launch can count in: launches may cut a tensor differently."""
    units: dict[str, int] = {}
    for program in programs:
        for tensor, elements in program.row_elements.items():
            units[tensor] = gcd(units.get(tensor, 0), elements)
    return units


def table_of_steps(program: Program, head: int) -> StepTable:
    """The steps of one head's items, walked one by one: the readable form of `Program.table`."""
    names: dict[str, int] = {}
    item, step, touches = [0], [0], []
    for tile in range(program.tiles):
        for touched in program.steps(head * program.tiles + tile):
            for touch in touched:
                number = names.setdefault(touch.tensor, len(names))
                touches.append((number, touch.row, touch.rows, touch.write))
            step.append(len(touches))
        item.append(len(step) - 1)
    columns = np.array(touches, np.int64).reshape(-1, 4)
    tensor, row, rows, write = (np.ascontiguousarray(column) for column in columns.T)
    return StepTable(tuple(names), np.array(item), np.array(step), tensor, row, rows, write.astype(np.bool_))


def _in_units(table: StepTable, program: Program, units: Mapping[str, int]) -> StepTable:
    """The table with rows counted in the call's units."""
    scale = np.array([program.row_elements[name] // units[name] for name in table.tensors], np.int64)
    if (scale == 1).all():
        return table
    factor = scale[table.tensor]
    return replace(table, row=table.row * factor, rows=table.rows * factor)


def _walk(program: Program, units: Mapping[str, int]) -> _Walked:
    which: list[int] = []
    seen: dict[object, int] = {}
    tables: list[StepTable] = []
    firsts: list[dict[int, set[str]]] = []
    heads: dict[str, list[int]] = {}
    for head in range(program.heads):
        mark = program.pattern(head) if program.pattern else 0
        if mark not in seen:
            seen[mark] = len(tables)
            table = program.table(head) if program.table else table_of_steps(program, head)
            tables.append(_in_units(table, program, units))
            firsts.append(_first_items(tables[-1]))
        which.append(seen[mark])
        for tile, tensors in firsts[seen[mark]].items():
            for touch in _first_touches(program, head * program.tiles + tile, tensors):
                heads.setdefault(touch.tensor, [0] * program.heads)[head] = touch.head
    return _Walked(program, which, tables, heads)


def _first_items(table: StepTable) -> dict[int, set[str]]:
    """Item -> the tensors that no item of its head before it touches: a mask may leave first items without keys."""
    numbers, touches = np.unique(table.tensor, return_index=True)
    steps = np.searchsorted(table.step, touches, side="right") - 1
    items = np.searchsorted(table.item, steps, side="right") - 1
    found: dict[int, set[str]] = {}
    for number, item in zip(numbers.tolist(), items.tolist(), strict=True):
        found.setdefault(item, set()).add(table.tensors[number])
    return found


def _first_touches(program: Program, item: int, tensors: set[str]) -> Iterator[Touch]:
    """The item's first touch of each of some tensors that it touches."""
    left = set(tensors)
    for step in program.steps(item):
        for touch in step:
            if touch.tensor in left:
                left.discard(touch.tensor)
                yield touch
        if not left:
            return


def _lay_out(patterns: Sequence[_Walked], units: Mapping[str, int], bits: Mapping[str, int]) -> Atoms:
    cuts: dict[str, Int64] = {}
    most: dict[str, int] = {}
    for walked in patterns:
        for tensor, used in walked.tensor_head.items():
            most[tensor] = max(most.get(tensor, 0), max(used) + 1)
        for table in walked.tables:
            for tensor, mine in _by_tensor(table):
                cuts[tensor] = _edges(cuts.get(tensor), table.row[mine], table.rows[mine])
    return Atoms(
        tensors=tuple(cuts),
        heads=tuple(most[tensor] for tensor in cuts),
        cuts=tuple(cuts.values()),
        row_bits=tuple(units[tensor] * bits[tensor] for tensor in cuts),
    )


def _by_tensor(table: StepTable) -> Iterator[tuple[str, Int64]]:
    """(name, touches of that tensor) for the tensors that a table touches."""
    order = np.argsort(table.tensor, kind="stable")
    edges = np.searchsorted(table.tensor[order], np.arange(len(table.tensors) + 1))
    for number, name in enumerate(table.tensors):
        if edges[number] < edges[number + 1]:
            yield name, order[edges[number] : edges[number + 1]]


def _edges(known: Int64 | None, row: Int64, rows: Int64) -> Int64:
    """Row boundaries of some touches, sorted, row 0 and those known already included."""
    before = np.zeros(1, np.int64) if known is None else known
    end = max(int((row + rows).max()), int(before[-1])) + 1
    if end > DENSE * len(row):
        return np.unique(np.concatenate((before, row, row + rows)))
    mark = np.zeros(end, np.bool_)
    for edge in (before, row, row + rows):
        mark[edge] = True
    return np.flatnonzero(mark)


def _atom_numbers(cut: Int64, edge: Int64) -> Int64:
    """Which boundary each edge is."""
    if cut[-1] + 1 > DENSE * len(edge):
        return np.searchsorted(cut, edge)
    number = np.zeros(cut[-1] + 1, np.int64)
    number[cut] = np.arange(len(cut))
    return number[edge]


def _compile(walked: _Walked, atoms: Atoms, turned: Sequence[str]) -> CompiledLaunch:
    number = {tensor: index for index, tensor in enumerate(atoms.tensors)}
    turning = np.array([tensor in turned for tensor in atoms.tensors])
    parts, walks, items, steps = [], [], [], [np.zeros(1, np.int64)]
    done_steps = done_touches = 0
    for table in walked.tables:
        part = _in_atoms(table, atoms, number)
        items.append(table.item + done_steps)
        walks.append(_walk_ranges(table, turning[part[0]]) + done_steps)
        steps.append(table.step[1:] + done_touches)
        parts.append(part)
        done_steps, done_touches = done_steps + len(table.step) - 1, done_touches + len(table.tensor)
    tensor, first, count, write = (np.concatenate([part[field] for part in parts]) for field in range(4))
    used = np.zeros((len(atoms.tensors), walked.program.heads), np.int64)
    for name, heads in walked.tensor_head.items():
        used[number[name]] = heads
    return CompiledLaunch(
        heads=walked.program.heads,
        tiles=walked.program.tiles,
        pattern=np.array(walked.which, np.int64),
        item=np.stack(items),
        walk=np.stack(walks),
        step=np.concatenate(steps),
        tensor=tensor,
        first=first,
        count=count,
        write=write.astype(np.bool_),
        tensor_head=used,
    )


def _in_atoms(table: StepTable, atoms: Atoms, number: Mapping[str, int]) -> tuple[Int64, Int64, Int64, Int64]:
    """(tensor, first atom, atoms, written) of every touch of a table."""
    tensor, first, count = (np.empty_like(table.tensor) for _ in range(3))
    for name, mine in _by_tensor(table):
        index = number[name]
        tensor[mine] = index
        first[mine] = _atom_numbers(atoms.cuts[index], table.row[mine])
        count[mine] = _atom_numbers(atoms.cuts[index], table.row[mine] + table.rows[mine]) - first[mine]
    return tensor, first, count, table.write.astype(np.int64)


def _walk_ranges(table: StepTable, turning: NDArray[np.bool_]) -> Int64:
    """(tiles, 2) the steps of each item that touch only turned tensors, which are consecutive."""
    bad = np.concatenate(([0], np.cumsum(~turning)))
    good = (bad[table.step[1:]] == bad[table.step[:-1]]) & (np.diff(table.step) > 0)
    marks = np.flatnonzero(good)
    low = np.searchsorted(marks, table.item[:-1])
    high = np.searchsorted(marks, table.item[1:])
    ranges = np.zeros((len(table.item) - 1, 2), np.int64)
    some = high > low
    ranges[some, 0] = marks[low[some]]
    ranges[some, 1] = marks[high[some] - 1] + 1
    return ranges
