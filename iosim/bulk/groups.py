"""Rows that a kernel computes with one tile rule and one set of parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from iosim.bulk.table import NONE, Ints, Table
from iosim.bulk.views import Column, Rows
from iosim.errors import UsageError
from iosim.kernels import Algorithm, Call, KernelFile
from iosim.kernels.fitting import too_large
from iosim.kernels.scheduling import prepare
from iosim.machine import Device
from iosim.masks import Tiling
from iosim.schedule import Launch


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Some rows of a table."""

    rows: Ints
    """their numbers"""
    file: KernelFile
    """the kernel"""
    device: Device | None
    """where"""
    asked: Mapping[str, object]
    """parameters that the caller gave"""
    pack_gqa: bool | None
    """as the caller gave it"""
    tiling: Tiling | None
    """the kernel's own tile, on GPUs as it fits the first row; None: the table's columns"""
    whole: Tiling | None
    """that tile before it was made to fit"""
    call: Call
    """of its first row: parameters and cores"""
    packed: bool
    """query heads of a group share the rows of a tile"""

    @property
    def algorithm(self) -> Algorithm:
        """The kernel's."""
        return self.file.algorithm

    def columns(self, table: Table, where: Ints) -> Rows:
        """Some of the rows as columns; those in which all agree as ints."""

        def column(values: Ints) -> Column:
            part = values[where]
            return int(part[0]) if (part == part[0]).all() else part

        found: dict[str, Column] = {name: column(values) for name, values in table.numbers.items()}
        for side in ("left", "right"):  # a group's rows all have an edge on a side, or none has
            if isinstance(found[side], int) and found[side] == NONE:
                found[side] = None
        if self.tiling:
            found |= {"tile_rows": self.tiling.rows, "tile_cols": self.tiling.cols}
        else:
            assert table.tiles
            found |= {name: column(values) for name, values in table.tiles.items()}
        return Rows(**found, splits=None if table.splits is None else column(table.splits))

    def launches(self, table: Table, index: int) -> tuple[Launch, ...]:
        """One row, counted as one problem."""
        asked = dict(self.asked) | ({} if table.splits is None else {"splits": int(table.splits[index])})
        tile = typed_tile(table, index)
        call = prepare(table.problem(index), self.device, self.file, tile, asked, self.pack_gqa, fit=tile is None).call
        return self.algorithm.launches(call)

    def fits(self, call_of: Callable[[Tiling], Call]) -> bool:
        """Whether some rows, of which `call_of` makes a call with a tile, have the tile of the group."""
        if self.tiling is None or self.whole is None or self.device is None:
            return True

        def short(tile: Tiling) -> bool:
            assert self.device
            return too_large(self.algorithm.working_set(call_of(tile)), self.device)

        if self.tiling == self.whole:
            return not short(self.whole)
        return short(self.whole) and not short(self.tiling)


def typed_tile(table: Table, index: int) -> Tiling | None:
    """The tile that a row gives."""
    if table.tiles is None:
        return None
    return Tiling((int(table.tiles["tile_rows"][index]),), (int(table.tiles["tile_cols"][index]),))


def grouped(
    table: Table, file: KernelFile, device: Device | None, asked: Mapping[str, object], pack_gqa: bool | None
) -> Iterator[Group]:
    """The groups of a table: what a kernel's tile rules look at is the same within each.

    Raises:
        UsageError: a phase or parameter that the kernel does not have, or a row without a tile.
    """
    numbers = table.numbers
    limits = np.array(sorted({rule.rows for rule in file.rules if rule.rows}), np.int64)
    queries = np.array(sorted({rule.queries for rule in file.rules if rule.queries}), np.int64)
    packed_rows = numbers["seq_q"] * numbers["group"]
    looked_at = [numbers[name] for name in ("head_dim", "head_dim_v")] + [table.types]
    looked_at += [numbers[side] == NONE for side in ("left", "right")]
    looked_at += [np.searchsorted(limits, packed_rows)] if len(limits) else []
    looked_at += [np.searchsorted(queries, numbers["seq_q"])] if len(queries) else []
    for rows in _alike(looked_at, len(table)):
        first = int(rows[0])
        settings = dict(asked) | ({} if table.splits is None else {"splits": int(table.splits[first])})
        tile = typed_tile(table, first)
        try:
            problem = table.problem(first)
            made, whole = (
                prepare(problem, device, file, tile, settings, pack_gqa, fit and tile is None) for fit in (True, False)
            )
        except UsageError as error:
            fault = error.faults[0]
            raise UsageError(f"row {first}: {fault.what}", fault.where, fault.hint) from None
        # a spatial array's buffer holds what depends on the row, and the next row's smaller tile is another
        own = None if table.tiles else (whole if device and device.kind == "tpu" else made).call.tiling
        if own and not own.flat:
            raise UsageError(f"{file.name} has tiles per axis, which are counted one at a time", "kernel")
        yield Group(rows, file, device, asked, pack_gqa, own, own and whole.call.tiling, made.call, made.packed)


def _alike(columns: list[Ints], rows: int) -> Iterator[Ints]:
    """Row numbers of each combination of values."""
    label = np.zeros(rows, np.int64)
    for column in columns:
        if (column == column[0]).all():
            continue
        number = _numbered(column.astype(np.int64))
        label = _numbered(label * (int(number.max()) + 1) + number)
    if not label.any():
        yield np.arange(rows)
        return
    # numpy sorts 16 bits by counting
    order = np.argsort(label.astype(np.uint16) if label.max() < 1 << 16 else label, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _numbered(values: Ints) -> Ints:
    """Each value's rank among those that occur."""
    top = int(values.max())
    if top > 1 << 20:
        made: Ints = np.unique(values, return_inverse=True)[1]
        return made
    occurs = np.zeros(top + 1, np.int64)
    occurs[values] = 1
    rank = occurs.cumsum() - 1
    return rank[values]
