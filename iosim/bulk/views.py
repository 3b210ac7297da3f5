"""Many problems in the place of one: what kernels' formulas ask a call for, with columns for numbers.

The classes have the attributes of `Attention`, `Shape`, `Types`, `Tiling` and `Band` that formulas read. A column is an
int where all rows agree, else an int64 array, or an interval while overflow is ruled out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from iosim.attention import Attention, Types
from iosim.bulk.interval import Interval, Reach
from iosim.exact import OneByOneError
from iosim.masks import Band
from iosim.masks.band_tiles import BandTiles

Column = Any  # int | NDArray[np.int64] | Interval


@dataclass(frozen=True, slots=True)
class Rows:
    """Columns of problems that go through one formula together."""

    batch: Column
    """sequences"""
    heads: Column
    """query heads"""
    kv_heads: Column
    """key/value heads"""
    group: Column
    """query heads per key/value head"""
    head_dim: Column
    """d"""
    head_dim_v: Column
    """d_v"""
    seq_q: Column
    """queries"""
    seq_kv: Column
    """keys"""
    left: Column
    """keys before the aligned one; None without a left edge"""
    right: Column
    """keys after the aligned one; None without a right edge"""
    sink: Column
    """first keys that stay visible"""
    offset: Column
    """key that query 0 is aligned with"""
    q_bits: Column
    """bits of queries, scores and gradients"""
    kv_bits: Column
    """bits of keys and values"""
    out_bits: Column
    """bits of outputs"""
    tile_rows: Column
    """rows of a tile"""
    tile_cols: Column
    """keys of a tile"""
    splits: Column
    """parts of the keys; None: the kernel has none"""

    def map(self, change: Callable[[Any], Any]) -> Rows:
        """Every column that is an array, changed."""
        found = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: change(c) for n, c in found.items() if isinstance(c, np.ndarray)})

    def intervals(self, reach: Reach) -> Rows:
        """From the smallest to the largest value of every column."""
        return self.map(lambda column: Interval(reach, int(column.min()), int(column.max())))


class ManyBands(Band):
    """Bands of many problems."""

    def __init__(self, rows: Rows) -> None:
        for name in ("left", "right", "sink", "offset"):
            object.__setattr__(self, name, getattr(rows, name))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "tiles", None)

    @property
    def n_q(self) -> int:
        return self.rows.seq_q  # type: ignore[attr-defined, no-any-return]

    @property
    def n_kv(self) -> int:
        return self.rows.seq_kv  # type: ignore[attr-defined, no-any-return]

    def sums(self, tiling: Any) -> Any:
        """The sums, each computed when a formula asks for it."""
        if self.tiles is None or self.tiles.tiling is not tiling:  # type: ignore[attr-defined]
            object.__setattr__(self, "tiles", BandTiles(self, tiling))
        return self.tiles  # type: ignore[attr-defined]

    def walks(self, tiling: Any) -> Any:
        """Q tile by Q tile: no closed form knows what is asked for."""
        raise OneByOneError

    walk_counts = walks

    def __str__(self) -> str:
        return "of many problems"


class ManyTypes(Types):
    """Widths of many problems' elements."""

    __slots__ = ("widths",)
    widths: dict[str, Column]

    def __init__(self, rows: Rows) -> None:
        object.__setattr__(self, "widths", {"q": rows.q_bits, "kv": rows.kv_bits, "out": rows.out_bits, "stats": 32})

    def bits(self, tensor: str) -> Any:
        """Bits of one element of a tensor."""
        return self.widths[Types.role(tensor)]


class ManyTilings:
    """Tiles of many problems, on row-major tokens."""

    flat, permuted = True, False

    def __init__(self, rows: Rows, group: Column) -> None:
        self.rows, self.cols, self.group = rows.tile_rows, rows.tile_cols, group
        self.q_tile, self.kv_tile = (rows.tile_rows,), (rows.tile_cols,)
        self.columns = rows

    def joined(self, number: int) -> ManyTilings:
        """Tiles of the rows of so many consecutive Q tiles."""
        return ManyTilings(replace(self.columns, tile_rows=number * self.rows), self.group)

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}"


class ManyProblems:
    """Calls of one phase."""

    def __init__(self, rows: Rows, phase: str, latent: bool) -> None:
        self.phase, self.mask, self.types = phase, ManyBands(rows), ManyTypes(rows)
        self.n_q, self.n_kv = rows.seq_q, rows.seq_kv
        self.shape = SimpleNamespace(
            batch=rows.batch, heads=rows.heads, kv_heads=rows.kv_heads, head_dim=rows.head_dim,
            head_dim_v=rows.head_dim_v, latent=latent, group=rows.group,
        )  # fmt: skip

    @property
    def pair_elements(self) -> Column:
        """e = d + d_v."""
        return self.shape.head_dim + self.shape.head_dim_v

    def masks(self) -> tuple[tuple[ManyBands, Column], ...]:
        """(masks, query heads of one sequence)."""
        return ((self.mask, self.shape.heads),)

    def counts(self) -> SimpleNamespace:
        """Pairs over batch and heads."""
        return SimpleNamespace(pairs=self.shape.batch * self.shape.heads * self.mask.pairs())

    def flop(self) -> Column:
        """Useful FLOP, by the formula of one problem."""
        return Attention.flop(self)  # type: ignore[arg-type]
