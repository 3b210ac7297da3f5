"""Rows of calls, as `predict` and `validate` read them: columns of text to arrays, and why a row is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iosim.errors import FileError, UsageError, did_you_mean
from iosim.timing.calls import UNBOUNDED, Ints

REQUIRED = (
    "device", "kernel", "phase", "dtype", "kv_dtype", "batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv",
    "mask",
)  # fmt: skip
OPTIONAL = ("head_dim_v", "l2", "tile", "framework")
COUNTS = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "seq_q", "seq_kv")
KEYS = ("device", "kernel", "phase", "dtype", "kv_dtype", "mask", "l2", "tile", "framework")
DEFAULTS = {"l2": "cold", "tile": "", "framework": "none"}
#: beyond any call; keeps products of a row inside float64 and a slip of the finger from looking like an answer
LARGEST = 10**9

#: why a row is refused whose mask is aligned at the end
LONGER = "a causal mask needs at least as many keys as queries"

Columns = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one chunk."""

    count: int
    """how many"""
    numbers: Mapping[str, Ints]
    """the columns of `COUNTS`; 0 where a row is refused"""
    kinds: tuple[tuple[str, ...], ...]
    """distinct combinations of the columns of `KEYS`"""
    kind: Ints
    """which combination each row has"""
    refused: dict[int, str]
    """row -> why it cannot be computed"""


def check_header(header: Sequence[str], where: str) -> None:
    """Refuse a file without the columns.

    Raises:
        FileError: with one fault, naming what is missing and the nearest name.
    """
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        unknown = [name for name in header if name not in (*REQUIRED, *OPTIONAL)]
        near = did_you_mean(missing[0], unknown) if unknown else f"columns needed: {', '.join(REQUIRED)}"
        raise FileError(f"missing column{'s' if len(missing) > 1 else ''} {', '.join(missing)}", where, near)


def read_rows(columns: Columns) -> Rows:
    """Numbers and kinds of a chunk; faulty rows are listed, never guessed."""
    count = len(columns["device"])
    refused: dict[int, str] = {}
    numbers: dict[str, Ints] = {}
    for name in COUNTS:
        if name == "head_dim_v":
            given = columns.get(name)
            numbers[name] = _optional(given, numbers["head_dim"], refused) if given else numbers["head_dim"]
        else:
            numbers[name] = _whole(columns[name], name, refused)
    uneven = np.flatnonzero(numbers["heads"] % np.maximum(numbers["kv_heads"], 1) != 0)
    for row in uneven.tolist():
        refused.setdefault(row, f"{numbers['heads'][row]} heads do not divide among {numbers['kv_heads'][row]}")
    kinds: dict[tuple[str, ...], int] = {}
    texts = [columns[name] if name in columns else [DEFAULTS[name]] * count for name in KEYS]
    kind = np.fromiter((kinds.setdefault(key, len(kinds)) for key in zip(*texts, strict=True)), np.int64, count)
    cleaned = tuple(
        tuple(value.strip() or DEFAULTS.get(name, "") for name, value in zip(KEYS, key, strict=True)) for key in kinds
    )
    return Rows(count, numbers, cleaned, kind, refused)


def placed(devices: Sequence[str], folder: Path) -> Sequence[str]:
    """Devices of a file's rows, those that name a device file beside it by its path from here; others as they are.

    Args:
        folder: where the file of rows lies; a device file that is not there is left to the working directory.
    """
    found = {
        name: str(folder / name.strip())
        for name in set(devices)
        if ("/" in name or name.strip().endswith(".toml")) and os.path.isfile(folder / name.strip())
    }
    return [found.get(name, name) for name in devices] if found else devices


def _whole(texts: Sequence[str], name: str, refused: dict[int, str]) -> Ints:
    """A column of positive whole numbers."""
    try:
        made: Ints = np.array(list(map(int, texts)), np.int64)
    except (ValueError, OverflowError):
        made = np.array([_number(text) for text in texts], np.int64)
    for row in np.flatnonzero((made < 1) | (made > LARGEST)).tolist():
        shown = texts[row].strip()
        refused.setdefault(row, f"{name} is missing" if not shown else f"{name} cannot be {shown[:20]!r}")
        made[row] = 1
    return made


def _number(text: str) -> int:
    stripped = text.strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 18 else 0


def _optional(texts: Sequence[str], instead: Ints, refused: dict[int, str]) -> Ints:
    """A column that may be empty."""
    if not any(texts):
        return instead
    filled = [text if text.strip() else str(value) for text, value in zip(texts, instead.tolist(), strict=True)]
    return _whole(filled, "head_dim_v", refused)


def band(mask: str) -> tuple[int, bool] | None:
    """(left, causal) of a mask that arrays can hold: full, causal, window:W; None for any other.

    Raises:
        UsageError: not a mask.
    """
    if mask == "full":
        return UNBOUNDED, False
    if mask == "causal":
        return UNBOUNDED, True
    name, _, value = mask.partition(":")
    if name == "window" and value.isdigit():
        if int(value) < 1:
            raise UsageError(f"the window must hold at least one key, got {value}", "mask")
        return min(int(value) - 1, UNBOUNDED), True
    return None
