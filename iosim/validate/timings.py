"""Measured calls of one table, kernel and framework: what readers make and comparisons take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from iosim.errors import Fault, FileError
from iosim.machine import Device
from iosim.timing.calls import Calls, Flags, Floats, Ints
from iosim.timing.work import FORWARD, Work
from iosim.validate.predicting import Kind

Key = tuple[str, str, str, str, str, bool, str, Work, bool, str, str]

#: columns of measured bytes -> (boundary, direction) as reports name them
MOVED = {
    "hbm_read_bytes": ("hbm", "read"), "hbm_write_bytes": ("hbm", "write"),
    "l2_read_bytes": ("l2", "read"), "l2_write_bytes": ("l2", "write"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Layout:
    """Tokens of a call that lie in two or three dimensions, and their mask."""

    mask: str
    """in the command line's notation"""
    tokens: tuple[int, ...]
    """extents"""


@dataclass(frozen=True, slots=True)
class Timings:
    """Calls with their measured times; one device, kernel, framework, types and cache state."""

    device: Device
    """where"""
    kernel: str
    """catalogue name"""
    framework: str
    """whose call: none | vllm | sglang | trtllm"""
    dtype: str
    """element type of queries"""
    kv_dtype: str
    """element type of keys and values"""
    warm: bool
    """the last cache kept what repetitions before left"""
    calls: Calls
    """what ran"""
    time_s: Floats
    """measured"""
    source: str
    """file or table"""
    row: Ints
    """row of each call in its source, from 1"""
    paper: str = ""
    """who published it, where rows are figures of several"""
    work: Work = FORWARD
    """passes that were timed"""
    layouts: tuple[Layout, ...] = ()
    """one per row where `calls` cannot hold the masks; `calls` then has the shape only"""
    tiles: tuple[tuple[int, int], ...] = ()
    """rows and keys, one pair per row where the model takes any tile: on processors"""
    phase: str = ""
    """prefill | decode, as the source calls its rows; empty: one query is decode"""
    why: str = ""
    """why there is no time model of the kernel, which then has its source's own name; empty: the model is asked"""
    unit: str = ""
    """of the numbers in the source as its reader took them: s | ms | us | ns | TFLOP/s | GFLOP/s; empty: row by row"""

    def __getitem__(self, which: Ints | Flags) -> Timings:
        chosen = np.arange(len(self))[which].tolist()
        kept = tuple(self.layouts[i] for i in chosen) if self.layouts else ()
        tiles = tuple(self.tiles[i] for i in chosen) if self.tiles else ()
        return replace(
            self, calls=self.calls[which], time_s=self.time_s[which], row=self.row[which], layouts=kept, tiles=tiles
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.time_s)

    @property
    def key(self) -> Key:
        """What must agree for two tables to be one."""
        types = (self.dtype, self.kv_dtype)
        return (
            self.device.key,
            self.kernel,
            self.framework,
            *types,
            self.warm,
            self.paper,
            self.work,
            bool(self.tiles),
            self.phase,
            self.why,
        )


@dataclass(frozen=True, slots=True)
class Counted:
    """One call and the bytes that a profiler's counters saw."""

    kind: Kind
    """device, kernel, phase, types, mask, last cache, tile"""
    shape: tuple[int, int, int, int, int, int, int]
    """batch, heads, kv_heads, head_dim, head_dim_v, queries, keys"""
    kv_order: str
    """direction of the walk over keys where the row names one, or empty"""
    grid_order: str
    """order of the grid where the row names one, or empty"""
    moved: Mapping[str, float]
    """the columns of `MOVED` that were measured"""
    source: str
    """file"""
    row: int
    """in it, from 1"""
    residency: int = 0
    """programs resident on a core where the row names them, or 0"""


@dataclass(frozen=True, slots=True)
class Table:
    """What a reader found in one source."""

    timings: tuple[Timings, ...]
    """rows that can be compared"""
    skipped: dict[str, int]
    """why rows were left out -> how many"""
    counted: tuple[Counted, ...] = ()
    """rows with measured bytes"""
    faults: tuple[Fault, ...] = ()
    """files that could not be read, beside others that could"""

    def __add__(self, other: Table) -> Table:
        merged = dict(self.skipped)
        for why, count in other.skipped.items():
            merged[why] = merged.get(why, 0) + count
        return Table(
            (*self.timings, *other.timings), merged, (*self.counted, *other.counted), (*self.faults, *other.faults)
        )


def together(paths: Sequence[Path], read: Callable[[Path], Table]) -> Table:
    """Several files as one table; those that cannot be read are its faults.

    Raises:
        FileError: none can.
    """
    total, broken = Table((), {}), 0
    for path in paths:
        try:
            total += read(path)
        except FileError as error:
            total += Table((), {}, faults=error.faults)
            broken += 1
    if paths and broken == len(paths):
        raise FileError(faults=total.faults)
    return total


def joined(tables: list[Timings]) -> list[Timings]:
    """Tables of the same device, kernel and framework as one, in first order of appearance."""
    by_key: dict[Key, list[Timings]] = {}
    for table in tables:
        by_key.setdefault(table.key, []).append(table)
    return [_concatenated(group) for group in by_key.values()]


def _concatenated(group: list[Timings]) -> Timings:
    if len(group) == 1:
        return group[0]
    columns = {f.name: np.concatenate([getattr(t.calls, f.name) for t in group]) for f in fields(Calls)}
    return replace(
        group[0],
        calls=Calls(**columns),
        time_s=np.concatenate([t.time_s for t in group]),
        row=np.concatenate([t.row for t in group]),
        layouts=tuple(layout for t in group for layout in t.layouts),
        tiles=tuple(tile for t in group for tile in t.tiles),
        source=", ".join(dict.fromkeys(t.source for t in group)),
    )
