"""`predict` on files: reads and writes CSV chunk by chunk; finished rows survive an interruption."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TextIO

from iosim.errors import FileError
from iosim.validate.predicted import ADDED, Predicted
from iosim.validate.predicting import CHUNK_ROWS, predict_columns
from iosim.validate.rows import check_header, placed

Progress = Callable[[int], None]
Chunk = tuple[list[str], dict[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did."""

    rows: int = 0
    """rows read"""
    expected: int = 0
    """rows with an expected time"""
    failed: int = 0
    """rows without a floor: `status` says why"""

    def and_of(self, made: Predicted) -> Outcome:
        """With one more chunk."""
        times = made.columns["time_expected_s"]
        return Outcome(
            self.rows + len(times), self.expected + len(times) - times.count(None), self.failed + made.failed
        )


class Target(Protocol):
    """What takes text."""

    def write(self, text: str, /) -> object:
        """Take some more."""


def predict_file(source: Path, target: Target, progress: Progress | None = None) -> Outcome:
    """Predict every row of a CSV.

    Args:
        target: open for writing with newline="".
        progress: called with the rows done after each chunk.
    Raises:
        FileError: the file is missing, empty, not CSV, or lacks a column.
    """
    outcome = Outcome()
    with open_rows(source) as (header, chunks):
        target.write(",".join([*header, *ADDED]) + "\n")
        for lines, columns in chunks:
            made = predict_columns({**columns, "device": placed(columns["device"], source.parent)})
            target.write("".join(_lines(lines, made)))
            outcome = outcome.and_of(made)
            if progress:
                progress(outcome.rows)
    return outcome


def predicted_rows(source: Path, progress: Progress | None = None) -> tuple[list[dict[str, object]], Outcome]:
    """Every row of a CSV with its added columns, all in memory.

    Args:
        progress: called with the rows done after each chunk.
    Raises:
        FileError: as `predict_file`.
    """
    rows: list[dict[str, object]] = []
    outcome = Outcome()
    with open_rows(source) as (_, chunks):
        for _, columns in chunks:
            made = predict_columns({**columns, "device": placed(columns["device"], source.parent)})
            both: dict[str, Sequence[object]] = {**columns, **made.columns}
            rows += [dict(zip(both, values, strict=True)) for values in zip(*both.values(), strict=True)]
            outcome = outcome.and_of(made)
            if progress:
                progress(outcome.rows)
    return rows, outcome


def _lines(lines: list[str], made: Predicted) -> Iterator[str]:
    """Each line as it was read, with the added columns; numbers as short as they can be without loss."""
    columns = made.columns
    words = {word: _cell(word) for name in ("method", "bottleneck", "status") for word in set(columns[name])}
    numbers = (columns[name] for name in ADDED[:4])
    texts = (map(words.__getitem__, columns[name]) for name in ADDED[4:])
    for line, expected, floor, read, written, method, bottleneck, status in zip(lines, *numbers, *texts, strict=True):
        yield (
            f"{line},{'' if expected is None else repr(expected)},{'' if floor is None else repr(floor)},"
            f"{'' if read is None else read},{'' if written is None else written},{method},{bottleneck},{status}\n"
        )


def _cell(word: object) -> str:
    """A word as a CSV cell."""
    text = "" if word is None else str(word)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\n') else text


@contextmanager
def open_rows(source: Path) -> Iterator[tuple[list[str], Iterator[Chunk]]]:
    """The header of a CSV, and its chunks: lines, and their cells as columns of text.

    Raises:
        FileError: missing, a directory, empty, not text, or without the columns.
    """
    if source.is_dir():
        raise FileError("a file is needed, this is a directory", str(source))
    try:
        handle = source.open(newline="", encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileError("no such file", str(source), "check the path") from None
    except OSError as error:
        raise FileError(f"cannot be read: {error.strerror}", str(source)) from None
    with handle:
        try:
            header = _header(handle.readline(), str(source))
            yield header, _chunks(handle, header, str(source))
        except UnicodeDecodeError as error:
            raise FileError(f"not CSV text: {error}", str(source)) from None


def _header(line: str, where: str) -> list[str]:
    header = [name.strip() for name in next(csv.reader([line]), [])]
    if not any(header):
        raise FileError("empty", where, "the first line names the columns")
    check_header(header, where)
    clash = [name for name in header if name in ADDED]
    if clash:
        raise FileError(f"already has the column {clash[0]}", where, "predict a file without its results")
    return header


def _chunks(handle: TextIO, header: list[str], where: str) -> Iterator[Chunk]:
    while text := "".join(islice(handle, CHUNK_ROWS)).replace("\r\n", "\n"):
        lines = [line for line in text.split("\n") if line]
        if lines:
            yield lines, dict(zip(header, _cells(lines, len(header), where), strict=True))


def _cells(lines: list[str], width: int, where: str) -> list[list[str]]:
    """Columns of lines: one split where no cell is quoted, the csv module where one is."""
    joined = ",".join(lines)
    if '"' not in joined and all(line.count(",") == width - 1 for line in lines):
        flat = joined.split(",")
        return [flat[column::width] for column in range(width)]
    try:
        rows = [(row + [""] * width)[:width] for row in csv.reader(lines)]
    except csv.Error as error:
        raise FileError(f"not CSV text: {error}", where) from None
    if len(rows) != len(lines):
        raise FileError("a quoted cell spans lines", where, "one row per line")
    return [list(column) for column in zip(*rows, strict=True)]
