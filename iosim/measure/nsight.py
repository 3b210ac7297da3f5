"""Reads what `ncu --csv` prints: launches with their counters in base units, whatever page and units it was asked for.

Long form (`--page details`, one line per counter) and wide form (`--page raw`, one line per launch, units in the second
line), with the profiler's own lines and the program's output between them (Nsight Compute CLI, "Output pages").
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from iosim.errors import FileError

#: bytes of a sector, what the L2 counts (Nsight Compute documentation, memory tables)
SECTOR_BYTES = 32
#: column -> counters that tell it, the first that is there counts, and base units of one
QUANTITIES: Mapping[str, tuple[tuple[str, float], ...]] = {
    "profiled_s": (("gpu__time_duration.sum", 1.0), ("gpu__time_duration.avg", 1.0), ("Duration", 1.0)),
    "hbm_read_bytes": (
        ("dram__bytes_read.sum", 1.0), ("dram__bytes_op_read.sum", 1.0), ("dram__sectors_read.sum", SECTOR_BYTES),
        ("dram__sectors_op_read.sum", SECTOR_BYTES),
    ),
    "hbm_write_bytes": (
        ("dram__bytes_write.sum", 1.0), ("dram__bytes_op_write.sum", 1.0), ("dram__sectors_write.sum", SECTOR_BYTES),
        ("dram__sectors_op_write.sum", SECTOR_BYTES),
    ),
    "l2_read_bytes": (
        ("lts__t_sectors_srcunit_tex_op_read.sum", SECTOR_BYTES), ("lts__t_bytes_srcunit_tex_op_read.sum", 1.0),
        ("lts__t_sectors_op_read.sum", SECTOR_BYTES), ("lts__t_bytes_op_read.sum", 1.0),
    ),
    "l2_read_hit_bytes": (("lts__t_sectors_srcunit_tex_op_read_lookup_hit.sum", SECTOR_BYTES),),
    "l2_write_bytes": (
        ("lts__t_sectors_srcunit_tex_op_write.sum", SECTOR_BYTES), ("lts__t_bytes_srcunit_tex_op_write.sum", 1.0),
        ("lts__t_sectors_op_write.sum", SECTOR_BYTES), ("lts__t_bytes_op_write.sum", 1.0),
    ),
    "l2_fabric_bytes": (("lts__t_sectors_srcunit_ltcfabric.sum", SECTOR_BYTES),),
}  # fmt: skip
#: columns of a launch that are no counters
ABOUT = frozenset({
    "ID", "Process ID", "Process Name", "Host Name", "Kernel Name", "Kernel Time", "Context", "Stream", "Block Size",
    "Grid Size", "Device", "CC", "Section Name",
})  # fmt: skip
_BASES = {
    "byte": 1.0, "second": 1.0, "s": 1.0, "hz": 1.0, "cycle": 1.0, "sector": 1.0, "inst": 1.0, "request": 1.0,
    "warp": 1.0, "block": 1.0, "thread": 1.0, "": 1.0,
}  # fmt: skip
_PREFIXES = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}


@dataclass(frozen=True, slots=True)
class Launch:
    """One profiled launch."""

    number: int
    """the profiler's ID"""
    kernel: str
    """name of the function"""
    ranges: tuple[str, ...]
    """NVTX ranges that were open, as the profiler writes them"""
    about: Mapping[str, str]
    """columns that are no counters: Grid Size, Block Size, Device, CC, ..."""
    metrics: Mapping[str, float]
    """counter -> value in base units: bytes, seconds, hertz, sectors; percentages stay percentages"""

    def quantity(self, name: str) -> float | None:
        """One of `QUANTITIES`, or None where no counter tells it."""
        for metric, scale in QUANTITIES[name]:
            if metric in self.metrics:
                return self.metrics[metric] * scale
        return None


def totals(launches: Iterable[Launch]) -> dict[str, float]:
    """Sums of `QUANTITIES` over the launches of one call; a quantity that any launch lacks is left out."""
    rows = list(launches)
    made: dict[str, float] = {}
    for name in QUANTITIES:
        values = [row.quantity(name) for row in rows]
        known = [value for value in values if value is not None]
        if rows and len(known) == len(rows):
            made[name] = sum(known)
    return made


def looks_like_nsight(header: Sequence[str]) -> bool:
    """Whether a CSV's column names are those of Nsight Compute."""
    names = set(header)
    return {"ID", "Kernel Name"} <= names and ("Metric Name" in names or any("__" in name for name in names))


def parse_nsight(text: str, where: str = "") -> tuple[Launch, ...]:
    """Launches in the order they ran.

    Args:
        text: what `ncu --csv` printed, lines of the profiler and of the program included; several such outputs may follow
            one another.
        where: file, for messages.
    Raises:
        FileError: no table in it, a line cut short, or a unit nobody knows on a time or a size.
    """
    header: list[str] = []
    units: dict[str, str] = {}
    found: list[_Gathered] = []
    for line, quoted, cells in _records(text):
        if "ID" in cells and "Kernel Name" in cells:
            header, units = cells, {}
            continue
        if not header or not (cells[0].isdigit() or cells[0] == ""):
            continue  # the program's own output
        if len(cells) != len(header):
            if not quoted:
                continue  # the program's too: each cell of the profiler's stands in quotes
            raise FileError(
                f"a line of {len(cells)} columns, the header has {len(header)}", f"{where} line {line}", _CUT
            )
        row = dict(zip(header, cells, strict=True))
        if not row["ID"]:
            units = row
        else:
            _gather(found, row, header, units, f"{where} line {line}")
    if not header:
        raise FileError("no table of Nsight Compute", where, "made by `ncu --csv --page raw`")
    return tuple(each.launch() for each in found)


_CUT = "was the file cut short?"
#: how a table starts
HEADER = '"ID","'


class _Gathered:
    """A launch while its lines come in."""

    def __init__(self, row: Mapping[str, str]) -> None:
        self.identity = (row["ID"], row["Kernel Name"], row.get("Process ID", ""))
        self.about = {name: row[name] for name in row if name in ABOUT}
        self.ranges = tuple(cell for name, cell in row.items() if "_Range:" in name and cell.strip())
        self.metrics: dict[str, float] = {}

    def launch(self) -> Launch:
        return Launch(int(self.identity[0]), self.identity[1], self.ranges, self.about, self.metrics)


def _gather(
    found: list[_Gathered], row: Mapping[str, str], header: Sequence[str], units: Mapping[str, str], where: str
) -> None:
    identity = (row["ID"], row["Kernel Name"], row.get("Process ID", ""))
    if "Metric Name" in header:
        if not found or found[-1].identity != identity:
            found.append(_Gathered(row))
        _keep(found[-1].metrics, row["Metric Name"], row["Metric Value"], row.get("Metric Unit", ""), where)
        return
    found.append(_Gathered(row))
    for name in header:
        if name not in ABOUT and "_Range:" not in name:
            _keep(found[-1].metrics, name, row[name], units.get(name, ""), where)


def _keep(metrics: dict[str, float], name: str, text: str, unit: str, where: str) -> None:
    value = number(text)
    if name and value is not None:
        metrics[name] = value * _factor(unit.strip(), where)


def _records(text: str) -> Iterator[tuple[int, bool, list[str]]]:
    """Line number, whether it starts with a quote, and cells of each line that is not the profiler's own."""
    for count, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        if line.strip() and not line.startswith("=="):
            line = line[max(0, line.find(HEADER)) :]  # a program's last line may lack its end
            try:
                yield count, line.startswith('"'), next(csv.reader([line], strict=True))
            except csv.Error:
                if re.match(r'"\d+",', line):
                    raise FileError("a line cut short", f"line {count}", _CUT) from None


def number(text: str) -> float | None:
    """A value as any locale prints it: 1234567, 1,234,567.8, 1.234.567,8, 9,25; None where there is none.

    >>> [number(text) for text in ("12,345", "9,25", "1.234.567,5", "0.5", "n/a")]
    [12345.0, 9.25, 1234567.5, 0.5, None]
    """
    plain = text.strip().replace("\u202f", "").replace("\xa0", "").replace("'", "")
    if re.fullmatch(r"-?\d{1,3}(\.\d{3}){2,}(,\d+)?|-?\d{1,3}(\.\d{3})+,\d+", plain):
        plain = plain.replace(".", "").replace(",", ".")
    elif re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    elif re.fullmatch(r"-?\d+,\d+", plain):
        plain = plain.replace(",", ".")
    try:
        return float(plain)
    except ValueError:
        return None


def _factor(unit: str, where: str) -> float:
    """Base units of one: Kbyte 1000, usecond 1e-6, Gbyte/s 1e9, cycle/nsecond 1e9; 1 for what is no size, time or rate."""
    top, _, bottom = unit.partition("/")
    above, below = _scale(top), _scale(bottom)
    if above is None or below is None:
        if re.search(r"byte|second|hz$|\bs$", unit, re.IGNORECASE):
            raise FileError(f"an unknown unit {unit!r}", where, "run ncu with --print-units base")
        return 1.0
    return above / below


def _scale(word: str) -> float | None:
    lower = word.lower()
    if lower in _BASES:
        return _BASES[lower]
    if lower[1:] in _BASES and word[0] in _PREFIXES and lower[1:]:
        return _PREFIXES[word[0]]
    return None
