"""Counts of many problems, column by column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from iosim.errors import UsageError, did_you_mean

#: columns that every kernel has: totals of its traffic, and its arithmetic
TOTALS = ("read_elements", "write_elements", "read_bytes", "write_bytes")
WORK = ("tile_pairs", "flop", "flop_executed", "exp", "exp_rescale", "shared_bytes", "exp_software")


@dataclass(frozen=True, slots=True, eq=False)
class ManyCounts:
    """What crosses the core boundary, and the arithmetic, of every row."""

    kernel: str
    """the kernel's name"""
    columns: Mapping[str, NDArray[np.int64]]
    """name -> (rows,) int64; Python ints in an object array where a row passes 2^63 - 1"""
    beyond: NDArray[np.bool_]
    """(rows,) counted in Python ints: overflow was not ruled out, there is no closed form, or the tile is the row's own"""
    tensors: tuple[str, ...] = field(default=())
    """tensors that some row moves"""

    def __len__(self) -> int:
        return len(self.beyond)

    def __getitem__(self, name: str) -> NDArray[np.int64]:
        """A column: `read_bytes`, `flop`, or of one tensor `K.read_elements`; zeros where a tensor is not moved.

        Raises:
            UsageError: a tensor or a count that there is not.
        """
        if name in self.columns:
            return self.columns[name]
        tensor, _, count = name.rpartition(".")
        if (tensor in self.tensors and count in TOTALS) or (not tensor and count in (*TOTALS, *WORK)):
            return np.zeros(len(self), np.int64)
        raise UsageError(f"no column {name!r}", "counts", did_you_mean(name, [*self.columns, *TOTALS, *WORK]))
