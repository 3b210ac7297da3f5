"""A batch of sequences of unequal lengths, laid end to end: each has its own mask and is tiled from its own start.

What a kernel of variable lengths (cu_seqlens) or with a cache length per sequence computes. Every count is the sum
over sequences of the count of one, and Q and KV tiles begin anew at each sequence. A `document` mask is the other
thing: one row of packed documents whose tiles lie where they fall.
Source: FlashAttention, flash_attn_varlen_func and flash_attn_with_kvcache(cache_seqlens=...), whose blocks start at
the row that cu_seqlens gives.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import TYPE_CHECKING

from iosim.errors import UsageError
from iosim.masks.mask import Mask, MaskCounts
from iosim.masks.spec import MaskSpec, bind
from iosim.masks.tiling import Grid, Tiling
from iosim.masks.visits import TileSums, TileVisits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from iosim.masks.runs import Runs


@dataclass(frozen=True, eq=False)
class Sequences(Mask):
    """The masks of several sequences, none of which sees another."""

    grid: Grid
    """tokens of all sequences together, one axis"""
    parts: tuple[Mask, ...]
    """one mask per sequence, in order; sequences of equal lengths share one object"""
    text: str
    """the mask of each in the command line's notation"""

    @cached_property
    def _often(self) -> tuple[tuple[Mask, int], ...]:
        return tuple(Counter(self.parts).items())

    def sequences(self) -> tuple[tuple[Mask, int], ...]:
        return self._often

    @property
    def lengths(self) -> tuple[str, str]:
        """Queries and keys of each sequence as typed, such as `64*100+2*3000`."""
        queries, keys = ([getattr(part, name) for part in self.parts] for name in ("n_q", "n_kv"))
        return _joined(queries), _joined(keys)

    @cached_property
    def _starts(self) -> tuple[list[int], list[int]]:
        """First query and first key of each sequence."""
        queries, keys = [0], [0]
        for part in self.parts:
            queries.append(queries[-1] + part.n_q)
            keys.append(keys[-1] + part.n_kv)
        return queries[:-1], keys[:-1]

    @cached_property
    def _pages(self) -> dict[int, list[int]]:
        return {}

    def page_of(self, key: int, page_size: int) -> int:
        """Pages begin anew at each sequence, those of one after those of the one before."""
        if page_size not in self._pages:
            before = [0]
            for part in self.parts:
                before.append(before[-1] - (-part.n_kv // page_size))
            self._pages[page_size] = before
        sequence = bisect_right(self._starts[1], key) - 1
        return self._pages[page_size][sequence] + (key - self._starts[1][sequence]) // page_size

    def allowed(self, q: NDArray[np.int64], kv: NDArray[np.int64]) -> NDArray[np.bool_]:
        import numpy as np

        queries, keys = np.broadcast_arrays(q, kv)
        starts_q, starts_kv = (np.array(starts, np.int64) for starts in self._starts)
        own, other = (
            np.searchsorted(starts, tokens, side="right") - 1
            for starts, tokens in ((starts_q, queries), (starts_kv, keys))
        )
        truth = np.zeros(queries.shape, np.bool_)
        for index in np.unique(own):
            inside = (own == index) & (other == index)
            truth[inside] = self.parts[index].allowed(
                queries[inside] - starts_q[index], keys[inside] - starts_kv[index]
            )
        return truth

    def head(self, index: int, heads: int) -> Mask:
        made = {part: part.head(index, heads) for part, _ in self._often}
        if all(made[part] is part for part in made):
            return self
        parts = tuple(made[part] for part in self.parts)
        return replace(self, parts=parts, text=parts[0].text)

    def _count(self) -> MaskCounts:
        total, *others = (part.counts().repeated(times) for part, times in self._often)
        for other in others:
            total = total.plus(other)
        return total

    def _sum(self, tiling: Tiling) -> TileSums:
        _flat(tiling)
        total, *others = (part.sums(tiling).repeated(times) for part, times in self._often)
        for other in others:
            total = total.plus(other)
        return total

    def visits(self, tiling: Tiling) -> TileVisits:
        import numpy as np

        _flat(tiling)
        made = {part: part.visits(tiling) for part, _ in self._often}
        each = [made[part] for part in self.parts]
        q_rows = np.concatenate([visits.q_rows for visits in each])
        kv_cols = np.concatenate([visits.kv_cols for visits in each])
        return TileVisits(
            q_rows,
            kv_cols,
            visited=_end_to_end([visits.visited for visits in each]),
            filled=_end_to_end([visits.filled for visits in each]),
            dynamic=np.concatenate([visits.dynamic for visits in each]),
            q_first=np.cumsum(q_rows) - q_rows,
            kv_first=np.cumsum(kv_cols) - kv_cols,
        )

    def notes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(note for part, _ in self._often for note in part.notes()))


def batched(spec: MaskSpec, lengths: Sequence[tuple[int, int]]) -> Sequences:
    """One mask bound to each of several sequences.

    Args:
        spec: the mask of every sequence.
        lengths: (queries, keys) of each, in tokens.
    Raises:
        UsageError: the mask does not fit one of them.
    """
    made = {size: bind(spec, Grid((size[0],), (size[1],))) for size in dict.fromkeys(lengths)}
    grid = Grid((sum(size[0] for size in lengths),), (sum(size[1] for size in lengths),))
    return Sequences(grid, tuple(made[size] for size in lengths), str(spec))


def _flat(tiling: Tiling) -> None:
    if not tiling.flat:
        raise UsageError("sequences of different lengths have row-major tokens", "--tile", "give the tile as AxB")


def _joined(lengths: Sequence[int]) -> str:
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    return "+".join(f"{times}*{length}" if times > 1 else str(length) for length, times in runs)


def _end_to_end(parts: Sequence[Runs]) -> Runs:
    """Rows below each other, the columns of each after those of the one before."""
    import numpy as np

    from iosim.masks.runs import Runs, stacked

    base = np.cumsum([0, *(part.width for part in parts)])
    moved = (Runs(p.ptr, p.start + shift, p.stop + shift, p.width) for p, shift in zip(parts, base, strict=False))
    rows = stacked(list(moved))
    return Runs(rows.ptr, rows.start, rows.stop, int(base[-1]))
