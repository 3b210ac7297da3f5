"""Rows with the columns of `iosim predict`, a measured time and measured bytes: what every CSV reader ends in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iosim.errors import FileError, IosimError, UsageError, did_you_mean
from iosim.masks import parse_mask, parse_tile
from iosim.timing.calls import Calls, Floats, Ints
from iosim.validate.predicting import Kind, read_kind
from iosim.validate.rows import COUNTS, LONGER, OPTIONAL, REQUIRED, Rows, check_header, read_rows
from iosim.validate.timings import MOVED, Counted, Table, Timings

#: time columns and their unit in seconds
TIME_COLUMNS = {"time_s": 1.0, "time_ms": 1e-3, "time_us": 1e-6}
#: columns that only `predict` writes: bytes beside them are iosim's own and not measured
PREDICTED = "method"
OUTSIDE = "mask, phase or tile outside the time model"
#: choices of iosim's own Triton kernel that the replay does not repeat, and the values that it does
PLAIN = {"pick": ("", "item", "static", "atomic"), "keep": ("",), "writes": ("", "1"), "stagger": ("", "0")}
ODD = "bytes of a choice that the replay does not repeat"


def check_fill(fill: Mapping[str, str], more: Sequence[str] = ()) -> None:
    """Refuse values for columns that no reader knows.

    Raises:
        UsageError: with the nearest name.
    """
    known = (*REQUIRED, *OPTIONAL, *more)
    for name in fill:
        if name not in known:
            raise UsageError(f"no reader knows the column {name!r}", "--fill", did_you_mean(name, known))


def filled(rows: Sequence[Mapping[str, str]], fill: Mapping[str, str]) -> list[dict[str, str]]:
    """Rows whose absent or empty cells take the values given for their columns."""
    return [{**row, **{name: value for name, value in fill.items() if not row.get(name, "").strip()}} for row in rows]


def own_table(
    rows: Sequence[Mapping[str, str]], source: str, number: Sequence[int] = (), units: Sequence[str] = ()
) -> Table:
    """Rows as a table; each one is used or counted with the reason.

    Args:
        rows: cells by column, all with the same columns.
        source: file, for messages.
        number: row of each in its file; default: from 1.
        units: what each time was made from; default: the time column's.
    Raises:
        FileError: no rows, or columns that are missing altogether.
    """
    if not rows:
        raise FileError("no rows", source)
    header = list(rows[0])
    check_header(header, source)
    columns = {name: [row[name] for row in rows] for name in header}
    read = read_rows(columns)
    where = np.array(number or range(1, len(rows) + 1), np.int64)
    times, column = _times(columns)
    moved = {} if PREDICTED in header else {name: _numbers(columns[name]) for name in MOVED if name in header}
    seen = np.any([values >= 0 for values in moved.values()], axis=0) if moved else np.zeros(len(rows), bool)
    refused = dict(read.refused)
    for row in np.flatnonzero((times <= 0) & ~seen).tolist():
        refused.setdefault(row, _untimed(rows[row], column))
    total = Table((), _counted(refused.values()))
    usable = np.array([row not in refused for row in range(len(rows))])
    for index, words in enumerate(read.kinds):
        members = np.flatnonzero((read.kind == index) & usable)
        if not members.size:
            continue
        try:
            kind = read_kind(words)
            if kind.band is None:
                parse_mask(kind.mask, "mask")
        except IosimError as error:
            total += Table((), {_refusal(error): len(members)})
            continue
        longer = read.numbers["seq_q"][members] > read.numbers["seq_kv"][members]
        if kind.band is not None and kind.band[1] and longer.any():
            total += Table((), {LONGER: int(longer.sum())})
            members = members[~longer]
        named = {units[row] for row in members.tolist()} if units else {column.removeprefix("time_")}
        total += _of_kind(kind, members, read, times, source, where, named.pop() if len(named) == 1 else "")
        total += _bytes_of_kind(kind, members[seen[members]], read, moved, columns, source, where)
    return total


def _refusal(error: IosimError) -> str:
    """Why a kind of row cannot be read; of files, which one, and how a missing device file is made."""
    fault = error.faults[0]
    if not isinstance(error, FileError):
        return fault.what
    return f"{fault}; iosim hardware new {fault.where} --probe makes it" if fault.what == "no such file" else str(fault)


def _counted(reasons: object) -> dict[str, int]:
    made: dict[str, int] = {}
    for why in reasons:  # type: ignore[attr-defined]
        made[why] = made.get(why, 0) + 1
    return made


def _untimed(row: Mapping[str, str], column: str) -> str:
    """Why a row has no time: what failed when it was measured, an empty cell, or what stands there instead."""
    given = row.get(column, "").strip()
    return row.get("error", "") or (f"{column} cannot be {given[:20]!r}" if given else f"no {column}")


def _times(columns: Mapping[str, Sequence[str]]) -> tuple[Floats, str]:
    """(seconds, the column); 0 where there is none."""
    for name, unit in TIME_COLUMNS.items():
        if name in columns:
            return np.maximum(_numbers(columns[name]), 0) * unit, name
    return np.zeros(len(columns["device"])), "time"


def _numbers(texts: Sequence[str]) -> Floats:
    """A column of numbers; -1 where a cell holds none, or an absurd one."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            return -1.0
        return value if 0 <= value < 1e18 else -1.0

    return np.array([number(text) for text in texts], np.float64)


def _of_kind(
    kind: Kind, members: Ints, read: Rows, times: Floats, source: str, where: Ints, unit: str
) -> Table:  # fmt: skip
    """The timed rows of a kind."""
    members = members[times[members] > 0]
    if not members.size:
        return Table((), {})
    tiles = (_tile(kind.tile),) * members.size if kind.tile and kind.device.kind == "cpu" else ()
    if kind.band is None or kind.phase == "backward" or (kind.tile and not tiles):
        return Table((), {OUTSIDE: len(members)})
    left, causal = kind.band
    shape = {name: read.numbers[name][members] for name in COUNTS}
    calls = Calls(
        shape["batch"], shape["heads"], shape["kv_heads"], shape["head_dim"], shape["head_dim_v"], shape["seq_q"],
        shape["seq_kv"], np.full(members.size, left), np.full(members.size, causal),
    )  # fmt: skip
    timings = Timings(
        kind.device, kind.kernel, kind.framework, kind.types.q, kind.types.kv, kind.warm, calls, times[members],
        source, where[members], tiles=tiles, phase=kind.phase, unit=unit,
    )  # fmt: skip
    return Table((timings,), {})


def _tile(text: str) -> tuple[int, int]:
    """Rows and keys of a tile on row-major tokens."""
    tile = parse_tile(text)
    return tile.rows, tile.cols


def _bytes_of_kind(
    kind: Kind, members: Ints, read: Rows, moved: Mapping[str, Floats],
    columns: Mapping[str, Sequence[str]], source: str, where: Ints,
) -> Table:  # fmt: skip
    """The rows with measured bytes of a kind."""

    def word(name: str, row: int) -> str:
        return columns[name][row].strip() if name in columns else ""

    plain = [all(word(name, row) in known for name, known in PLAIN.items()) for row in members.tolist()]
    odd = plain.count(False)
    members = members[np.array(plain, bool)]
    return Table(
        (), {ODD: odd} if odd else {},
        tuple(
            Counted(
                kind, tuple(int(read.numbers[name][row]) for name in COUNTS),  # type: ignore[arg-type]
                word("order", row), word("grid", row),
                {name: float(values[row]) for name, values in moved.items() if values[row] >= 0}, source, int(where[row]),
                int(word("per_core", row) or 0) if word("per_core", row).isdigit() else 0,
            )
            for row in members.tolist()
        ),
    )  # fmt: skip
