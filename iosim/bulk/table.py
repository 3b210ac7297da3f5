"""A table of problems: columns checked and put into numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iosim.attention import BITS, Attention, Shape, Types
from iosim.errors import UsageError, did_you_mean
from iosim.masks import Band, Grid, bind, parse_mask

Ints = NDArray[np.int64]

NUMBERS = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "seq_q", "seq_kv")
TILES = ("tile_rows", "tile_cols")
KNOWN = (*NUMBERS, "mask", "window", "sink", "dtype", "kv_dtype", *TILES, "splits")
#: no extent of a call comes near these; they keep a loop over one period of tiles short
LIMITS = {"seq_q": 10**12, "seq_kv": 10**12, "window": 10**12, "sink": 10**12, "tile_rows": 2**24, "tile_cols": 2**24}
MOST = 2**31
#: masks that are bands at any lengths
BANDS = ("full", "causal", "causal-top-left", "window", "band")
#: those whose last query is aligned with the last key
ALIGNED = ("causal", "window", "band")
#: no edge on a side
NONE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Problems as int64 columns."""

    numbers: Mapping[str, Ints]
    """`NUMBERS`, and group, left, right (`NONE` without an edge), sink, offset, q_bits, kv_bits, out_bits"""
    tiles: Mapping[str, Ints] | None
    """tile_rows and tile_cols where they are given"""
    splits: Ints | None
    """parts of the keys where they are given"""
    words: Mapping[str, Any]
    """the columns of words: dtype, kv_dtype"""
    types: Ints
    """a number for each pair of those words"""
    phase: str
    """of all rows"""
    latent: bool
    """V is a slice of K, in all rows"""

    def __len__(self) -> int:
        return len(self.numbers["batch"])

    @classmethod
    def of(cls, given: Mapping[str, object], phase: str, latent: bool) -> Table:
        """The columns of `count_many`.

        Raises:
            UsageError: an unknown column, lengths that differ, or a value that cannot be.
        """
        for name in given:
            if name not in KNOWN:
                raise UsageError(f"no column {name!r}", "problems", did_you_mean(name, KNOWN))
        if "seq_kv" not in given:
            raise UsageError("a column seq_kv is needed", "problems")
        sizes = {np.size(column) for column in given.values() if np.ndim(column)}  # type: ignore[arg-type]
        if len(sizes) > 1 or 0 in sizes:
            raise UsageError(f"columns have {', '.join(map(str, sorted(sizes)))} rows", "problems")
        rows = sizes.pop() if sizes else 1
        numbers = {name: _whole(name, given[name], rows) for name in (*NUMBERS, "window", "sink") if name in given}
        _defaults(numbers, phase, rows)
        _check(numbers, latent)
        tiles = {name: _whole(name, given[name], rows) for name in TILES if name in given}
        if len(tiles) == 1:
            raise UsageError(
                f"{next(iter(tiles))} without the other extent", "problems", "give tile_rows and tile_cols"
            )
        columns = {name: numbers[name] for name in NUMBERS} | {"group": numbers["heads"] // numbers["kv_heads"]}
        columns |= _edges(given.get("mask", "full"), numbers, rows)
        words = {"dtype": given.get("dtype", "bf16"), "kv_dtype": given.get("kv_dtype")}
        bits, types = _bits(words, rows)
        columns |= bits
        splits = _whole("splits", given["splits"], rows) if "splits" in given else None
        return cls(columns, tiles or None, splits, words, types, phase, latent)

    def problem(self, index: int) -> Attention:
        """One row as a problem."""
        at = {name: int(column[index]) for name, column in self.numbers.items()}
        sizes = {name: at[name] for name in ("batch", "heads", "kv_heads", "head_dim", "head_dim_v")}
        shape = Shape(**sizes, latent=self.latent)
        left, right = (None if at[side] == NONE else at[side] for side in ("left", "right"))
        mask = Band(Grid((at["seq_q"],), (at["seq_kv"],)), left, right, at["sink"], at["offset"])
        dtype, kv_dtype = (word if word is None or np.ndim(word) == 0 else str(np.asarray(word)[index])
                           for word in self.words.values())  # fmt: skip
        return Attention(shape, mask, Types.of(str(dtype), kv_dtype and str(kv_dtype)), self.phase)


def _whole(name: str, given: object, rows: int) -> Ints:
    """A column of whole numbers from 1 (0 for sinks) to its limit."""
    column = np.asarray(given)
    if column.dtype.kind not in "iu":
        raise UsageError(f"needs whole numbers, got {column.dtype}", name)
    least, most = 0 if name == "sink" else 1, LIMITS.get(name, MOST)
    wrong = (column < least) | (column > most)
    if wrong.any():
        row = int(np.flatnonzero(np.broadcast_to(wrong, rows))[0])
        raise UsageError(f"row {row}: {np.broadcast_to(column, rows)[row]} is not from {least} to {most:,}", name)
    return np.ascontiguousarray(np.broadcast_to(column, rows), np.int64)


def _defaults(numbers: dict[str, Ints], phase: str, rows: int) -> None:
    one = np.ones(rows, np.int64)
    numbers.setdefault("batch", one)
    numbers.setdefault("heads", numbers.get("kv_heads", one))
    numbers.setdefault("kv_heads", numbers["heads"])
    numbers.setdefault("head_dim", 128 * one)
    numbers.setdefault("head_dim_v", numbers["head_dim"])
    numbers.setdefault("seq_q", one if phase == "decode" else numbers["seq_kv"])
    numbers.setdefault("sink", 0 * one)


def _check(numbers: dict[str, Ints], latent: bool) -> None:
    uneven = np.flatnonzero(numbers["heads"] % numbers["kv_heads"])
    if len(uneven):
        row = int(uneven[0])
        heads, kv_heads = (int(numbers[name][row]) for name in ("heads", "kv_heads"))
        raise UsageError(f"row {row}: {heads} query heads do not divide among {kv_heads} key/value heads", "kv_heads")
    wide = np.flatnonzero(numbers["head_dim_v"] > numbers["head_dim"])
    if latent and len(wide):
        raise UsageError(f"row {int(wide[0])}: V cannot be a slice of a shorter K", "head_dim_v")


def _edges(given: object, numbers: Mapping[str, Ints], rows: int) -> dict[str, Ints]:
    """left, right, sink and offset of every row's band.

    Raises:
        UsageError: a mask that is no band, a window without its size, or an aligned mask with too few keys.
    """
    made = {name: np.full(rows, NONE, np.int64) for name in ("left", "right")}
    made |= {name: np.zeros(rows, np.int64) for name in ("sink", "offset")}
    for word, where in _by_word(given, rows):
        spec = parse_mask(word, "mask")
        if word == "window":
            if "window" not in numbers:
                raise UsageError("masks named window need a column window", "mask", "or write window:4096")
            made["left"][where], made["right"][where] = numbers["window"][where] - 1, 0
            made["sink"][where] = numbers["sink"][where]
        else:
            # what is no band may not fit one token: asked by name first
            mask = bind(spec, Grid((1,), (1,))) if spec.name in BANDS else None
            if not isinstance(mask, Band):
                raise UsageError(f"{word} is no band", "mask", "full, causal, causal-top-left, window or band")
            for side in ("left", "right"):
                edge = getattr(mask, side)
                made[side][where] = NONE if edge is None else edge
            made["sink"][where] = mask.sink
        if spec.name in ALIGNED:
            made["offset"][where] = (numbers["seq_kv"] - numbers["seq_q"])[where]
    short = np.flatnonzero(made["offset"] < 0)
    if len(short):
        queries, keys = (int(numbers[name][short[0]]) for name in ("seq_q", "seq_kv"))
        raise UsageError(
            f"row {int(short[0])}: a causal mask needs at least as many keys as queries, got {queries} and {keys}",
            "mask", "use causal-top-left",
        )  # fmt: skip
    return made


def _bits(words: Mapping[str, Any], rows: int) -> tuple[dict[str, Ints], Ints]:
    """(widths of queries, keys and outputs, as `Types.of` has them; a number for each pair of types)."""
    kinds = np.zeros(rows, np.int64)
    made = {name: np.zeros(rows, np.int64) for name in ("q_bits", "kv_bits", "out_bits")}
    for number, (word, where) in enumerate(_by_word(words["dtype"], rows)):
        types = Types.of(word)
        kinds[where] = number
        for name, own in (("q_bits", types.q), ("kv_bits", types.kv), ("out_bits", types.out)):
            made[name][where] = BITS[own]
    if words["kv_dtype"] is not None:
        several = int(kinds.max()) + 1
        for number, (word, where) in enumerate(_by_word(words["kv_dtype"], rows)):
            made["kv_bits"][where] = BITS[Types.of(word, word).kv]
            kinds[where] += several * number
    return made, kinds


def _by_word(given: object, rows: int) -> list[tuple[str, Any]]:
    """(word, its rows) of a column of words."""
    if isinstance(given, str):
        return [(given, slice(None))]
    column = np.asarray(given, dtype=np.str_)
    if column.ndim == 0:
        return [(str(column), slice(None))]
    made: list[tuple[str, Any]] = []
    left = np.ones(rows, np.bool_)
    while left.any():  # one comparison per word: there are few
        word = str(column[int(left.argmax())])
        made.append((word, column == word))
        left &= ~made[-1][1]
    return made
