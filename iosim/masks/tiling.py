"""Token layouts, and how a kernel cuts them into tiles."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from iosim.errors import UsageError


@dataclass(frozen=True, slots=True)
class Grid:
    """The token layouts that a mask is bound to."""

    layout_q: tuple[int, ...]
    """query tokens per axis, row-major (one axis for text)"""
    layout_kv: tuple[int, ...]
    """key tokens per axis"""

    @property
    def n_q(self) -> int:
        """Query tokens of one head."""
        return math.prod(self.layout_q)

    @property
    def n_kv(self) -> int:
        """Key tokens of one head."""
        return math.prod(self.layout_kv)

    @property
    def rank(self) -> int:
        """Axes of the layouts."""
        return len(self.layout_q)

    def axis(self, index: int) -> Grid:
        """The layouts along one axis."""
        return Grid((self.layout_q[index],), (self.layout_kv[index],))


@dataclass(frozen=True, slots=True)
class Tiling:
    """How a kernel cuts the score matrix: one extent on row-major tokens, or one per axis.

    With one extent per axis the tokens are permuted so that each tile is contiguous, every axis padded
    to whole tiles, and each dilation group of a dilated mask tiled apart.
    """

    q_tile: tuple[int, ...]
    """query rows per tile (per axis); rows of `group` packed heads count separately"""
    kv_tile: tuple[int, ...]
    """keys per tile (per axis)"""
    group: int = 1
    """query heads packed into a tile's rows: row r of the last axis is query r // group"""
    permuted: bool = False
    """tokens permuted although there is one extent: a dilated sequence, dilation groups apart"""

    @property
    def rows(self) -> int:
        """Rows of a whole Q tile."""
        return math.prod(self.q_tile)

    @property
    def cols(self) -> int:
        """Keys of a whole KV tile."""
        return math.prod(self.kv_tile)

    @property
    def flat(self) -> bool:
        """True when tiles cut row-major tokens."""
        return len(self.q_tile) == 1 and not self.permuted

    def flattened(self) -> Tiling:
        """Tiles of as many tokens on row-major tokens."""
        return Tiling((self.rows,), (self.cols,), self.group)

    def joined(self, number: int) -> Tiling:
        """Tiles of the rows of so many consecutive Q tiles on row-major tokens."""
        return Tiling((number * self.rows,), (self.cols,), self.group)

    def axis(self, index: int) -> Tiling:
        """The tiling along one axis of the permuted tokens; packed heads lie along the last axis."""
        group = self.group if index == len(self.q_tile) - 1 else 1
        return Tiling((self.q_tile[index],), (self.kv_tile[index],), group, permuted=True)

    def check(self, grid: Grid, where: str = "--tile") -> None:
        """Refuse a permuted tiling whose rank is not that of the layouts.

        Raises:
            UsageError: the ranks differ.
        """
        for layout in (grid.layout_q, grid.layout_kv):
            if not self.flat and len(layout) != len(self.q_tile):
                raise UsageError(
                    f"tile {self} has {len(self.q_tile)} axes, the layout {'x'.join(map(str, layout))} has {len(layout)}",
                    where,
                    "write AxB for row-major tokens, or Q/KV with one extent per axis of the layout",
                )

    def __str__(self) -> str:
        if self.flat:
            return f"{self.rows}x{self.cols}"
        return "x".join(map(str, self.q_tile)) + "/" + "x".join(map(str, self.kv_tile))


def parse_tile(text: str, where: str = "--tile") -> Tiling:
    """Read `AxB` (A query rows, B keys, row-major) or `Q/KV` with one extent per axis.

    Raises:
        UsageError: not of that form, an extent below 1, or ranks that differ.

    >>> parse_tile("128x64").rows, parse_tile("16x16/16x8").kv_tile
    (128, (16, 8))
    """
    hint = "write 128x64, or 16x16/16x8 with one extent per axis of the layout"
    if not re.fullmatch(r"\d{1,12}(x\d{1,12})*(/\d{1,12}(x\d{1,12})*)?", text):
        raise UsageError(f"{text!r} is not a tile shape", where, hint)
    halves = [tuple(int(extent) for extent in half.split("x")) for half in text.split("/")]
    permuted = len(halves) == 2
    if not permuted:
        if len(halves[0]) != 2:
            raise UsageError(f"{text!r} needs a query and a key extent", where, hint)
        halves = [halves[0][:1], halves[0][1:]]
    if len(halves[0]) != len(halves[1]):
        raise UsageError(f"the two halves of {text!r} have different ranks", where, hint)
    if min(*halves[0], *halves[1]) < 1:
        raise UsageError(f"an extent of {text!r} is below 1", where, hint)
    return Tiling(halves[0], halves[1], permuted=permuted)
