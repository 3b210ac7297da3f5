"""Readers of measured data, chosen by what a file holds; each row is used or counted as skipped."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from iosim.errors import FileError
from iosim.validate.ncu import is_ncu, read_ncu
from iosim.validate.own_rows import TIME_COLUMNS, check_fill, filled, own_table
from iosim.validate.published import is_published, read_published
from iosim.validate.rows import REQUIRED, placed
from iosim.validate.timings import MOVED, Table, together
from iosim.validate.triton_csv import is_triton, read_triton

#: values that only one reader knows, beside the columns of `iosim predict`
MORE_FILL = ("unit", "order", "grid")


def read_table(path: Path, fill: Mapping[str, str] | None = None) -> Table:
    """Measured rows of a file or folder, by what it is; broken files among others of a folder are the table's faults.

    Args:
        fill: values for columns of `iosim predict` that the file lacks.
    Raises:
        FileError: missing, unreadable, or of no known kind. AbsentError: a library or a permission is absent.
        UsageError: a value for a column that no reader knows.
    """
    fill = dict(fill or {})
    check_fill(fill, MORE_FILL)
    if path.is_dir():
        return _folder(path, fill)
    if path.suffix == ".parquet":
        from iosim.validate.aiconfigurator import read_file

        return read_file(path)
    text = _text(path)
    if is_ncu(text):
        return read_ncu(text, path.name, fill)
    header, rows = _table(text, path)
    if is_published(header):
        return read_published(rows, path.name)
    if any(name in header for name in (*TIME_COLUMNS, *MOVED)) and ("kernel" in header or "kernel" in fill):
        return own_table(filled(_placed(rows, path.parent), fill), path.name)
    if is_triton(header):
        return read_triton(header, rows, path.name, fill)
    raise FileError(
        "no reader knows this table",
        str(path),
        f"needed: {', '.join(REQUIRED)} and time_s, time_ms or time_us; or output of ncu --csv; or of a Triton "
        "benchmark; or a folder of AIConfigurator tables",
    )


def _folder(path: Path, fill: Mapping[str, str]) -> Table:
    """AIConfigurator's tables below a folder, or the CSVs in it."""
    from iosim.validate.aiconfigurator import holds_tables, read_folder

    files = sorted(path.glob("*.csv"))
    if holds_tables(path) or not files:
        return read_folder(path)
    return together(files, lambda each: read_table(each, fill))


def _placed(rows: Sequence[Mapping[str, str]], folder: Path) -> list[dict[str, str]]:
    """Rows whose device files are found beside their own file."""
    devices = placed([row.get("device", "") for row in rows], folder)
    return [{**row, "device": device} for row, device in zip(rows, devices, strict=True)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FileError("no such file", str(path), "check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot be read: {error}", str(path)) from None


def _table(text: str, path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        reader = csv.DictReader(line for line in io.StringIO(text) if not line.startswith("#"))
        rows = [{name: value or "" for name, value in row.items() if name} for row in reader]
        return [name for name in reader.fieldnames or [] if name], rows
    except csv.Error as error:
        raise FileError(f"cannot be read: {error}", str(path)) from None
