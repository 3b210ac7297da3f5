"""The columns that a prediction adds to a chunk of rows, filled group by group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iosim.timing.calls import Ints

ADDED = ("time_expected_s", "time_floor_s", "hbm_read_bytes", "hbm_write_bytes", "method", "bottleneck", "status")


@dataclass(slots=True)
class Predicted:
    """Added columns of one chunk."""

    columns: dict[str, list[object]]
    """the columns of `ADDED`; None where there is no number"""
    failed: int = 0
    """rows without a floor"""

    @classmethod
    def of(cls, count: int) -> Predicted:
        """Of so many rows, nothing known yet."""
        return cls({name: [None] * count for name in ADDED})

    def fill(self, name: str, members: Ints, value: object) -> None:
        """The same value for some rows."""
        column = self.columns[name]
        for row in members.tolist():
            column[row] = value

    def put(self, name: str, members: Ints, values: NDArray[Any]) -> None:
        """Values of some rows."""
        column = self.columns[name]
        if members.size == len(column):
            column[:] = _ordered(values, members)
            return
        for row, value in zip(members.tolist(), values.tolist(), strict=True):
            column[row] = value


def _ordered(values: NDArray[Any], members: Ints) -> list[object]:
    """Values in row order, when the members are all rows."""
    back = np.empty_like(values)
    back[members] = values
    listed: list[object] = back.tolist()
    return listed
