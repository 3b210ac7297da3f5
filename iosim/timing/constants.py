"""Fitted constants of the time model, read from `models/calibration`: each with meaning, unit and interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from iosim.catalog import Table, find, read_toml

ROOM = "models/calibration"


@dataclass(frozen=True, slots=True)
class Constant:
    """One fitted number."""

    name: str
    """as formulas call it"""
    value: float
    """in `unit`"""
    unit: str
    """cycles, us, a share, ..."""
    meaning: str
    """what it is in the hardware or the kernel"""
    low: float
    """lower end of its 95 % interval"""
    high: float
    """upper end"""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The constants of one kernel family, and what they were fitted on."""

    family: str
    """of `iosim.timing.families`: fa2, fa3, trtllm, fa1, cudnn, ..."""
    title: str
    """for people"""
    architectures: tuple[str, ...]
    """device architectures on which it speaks"""
    kernels: tuple[str, ...]
    """catalogue kernels it stands for"""
    data: str
    """tables, versions and rule of the half it was fitted on"""
    rows: int
    """rows of the fit"""
    constants: tuple[Constant, ...]
    """at most twenty"""

    def values(self) -> Mapping[str, float]:
        """Name to value."""
        return {constant.name: constant.value for constant in self.constants}


@lru_cache(maxsize=32)
def load_calibration(family: str) -> Calibration:
    """The calibration of a kernel family.

    Raises:
        UsageError: no such family. FileError: a broken file.
    """
    table = read_toml(find(ROOM, family, "calibration"))
    made = Calibration(
        family=table.text("name"),
        title=table.text("title"),
        architectures=tuple(table.texts("architectures")),
        kernels=tuple(table.texts("kernels")),
        data=table.text("data"),
        rows=table.integer("rows", 0),
        constants=tuple(
            Constant(
                name=entry.text("name"),
                value=_number(entry, "value"),
                unit=entry.text("unit"),
                meaning=entry.text("meaning"),
                low=_number(entry, "low"),
                high=_number(entry, "high"),
            )
            for entry in table.tables("constants")
        ),
    )
    table.finish()
    return made


def _number(table: Table, key: str) -> float:
    """A positive plain number."""
    table.keys()
    value = table.data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        table.fault(f"expected a number of at least 0, found {value!r}", key)
        return 0.0
    return float(value)
