"""Equal stretches of a line of KV tiles, and where they cut the walk of a Q tile; `stream_k` has the counts."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from iosim.exact import bounded, ceil_div, choose, least, most, up_to
from iosim.masks.sums import floor_sum


@dataclass(frozen=True, slots=True)
class Line:
    """The KV tiles of one head's Q tiles in a line, and how many equal heads follow each other."""

    heads: int
    """equal heads"""
    ends: tuple[int, ...]
    """one past the last KV tile of each Q tile"""
    rows: tuple[int, ...]
    """rows of each Q tile"""
    tile_major: bool = False
    """the same Q tile of every head before the next Q tile"""

    @property
    def period(self) -> int:
        """KV tiles of one head."""
        return self.ends[-1]

    @property
    def length(self) -> int:
        """KV tiles in all, T."""
        return self.period * self.heads

    def size(self, tile: int) -> int:
        """KV tiles of a Q tile."""
        return self.ends[tile] - (self.ends[tile - 1] if tile else 0)

    def start(self, head: int, tile: int) -> int:
        """Place of the first KV tile of a Q tile."""
        before = self.ends[tile - 1] if tile else 0
        return before * self.heads + head * self.size(tile) if self.tile_major else head * self.period + before

    def place(self, at: int) -> tuple[int, int, int]:
        """(head, Q tile, KV tiles of it before) of the tile at a place in the line."""
        tile = bisect_right(self.ends, at // self.heads if self.tile_major else at % self.period)
        head = (at - self.start(0, tile)) // self.size(tile) if self.tile_major else at // self.period
        return head, tile, at - self.start(head, tile)


@dataclass(frozen=True, slots=True)
class UniformLine:
    """A line of Q tiles that all have as many KV tiles: where stretches cut it, in closed form."""

    size: int
    """KV tiles of a Q tile, s"""
    tiles: int
    """Q tiles of a head, t"""
    heads: int
    """equal heads"""

    def cuts(self, share: str, workers: int) -> tuple[int, int, int]:
        """(stretches, boundaries within a Q tile's walk, those of them within a head's last Q tile).

        `whole`: boundary k of K is k L; it is no cut where s divides it, and in the last Q tile of a head where
        k L mod t s > (t - 1) s. `balanced`: boundary w is floor(w T / g), which reaches y once w >= y g / T; with
        g >= T every place is a boundary.
        """
        total = self.size * self.tiles * self.heads
        used, cuts, late = self._whole(total, workers) if share == "whole" else self._balanced(total, workers)
        return used, bounded(cuts, lambda: workers), bounded(late, lambda: workers)

    def budgets(self, workers: int, overhead: int) -> tuple[int, int, int]:
        """(stretches, boundaries within a sequence, sequences that these cut) of FlashMLA's workers on a line of one Q tile.

        A worker finishes the sequence that it finds begun, takes whole ones, and begins another with what its budget
        leaves; each sequence that it touches costs `overhead` KV tiles. Their number suffices: a worker wastes at
        most `overhead`, or begins a sequence and makes the next one pay it again.
        """
        cost = self.size + overhead
        budget = ceil_div(self.heads * cost, workers) + overhead
        rest, left = self.size, self.heads  # KV tiles of the first sequence, and sequences, not taken yet
        stretches = cuts = cut = 0
        for _ in up_to(workers):
            if isinstance(left, int) and left == 0:
                break
            spare = budget - rest - overhead
            whole, busy = spare >= 0, left > 0
            after = most(0, left - 1 - spare // cost)
            over = spare - (left - 1 - after) * cost - overhead
            enters = choose(after > 0, choose(over > 0, 1, 0), 0)
            cuts = cuts + choose(busy, choose(whole, enters, 1), 0)
            cut = cut + choose(busy, choose(whole, enters, choose(rest == self.size, 1, 0)), 0)
            stretches = stretches + choose(busy, 1, 0)
            begun = choose(enters == 1, self.size - over, self.size)
            rest = least(self.size, most(1, choose(whole, begun, rest - budget + overhead)))
            left = choose(busy, choose(whole, after, left), 0)
        return tuple(bounded(count, lambda: workers) for count in (stretches, cuts, cut))  # type: ignore[return-value]

    def _whole(self, total: int, workers: int) -> tuple[int, int, int]:
        step, period = ceil_div(total, workers), self.size * self.tiles
        inner = bounded(ceil_div(total, step) - 1, lambda: workers)
        none = floor_sum(inner + 1, step, 0, self.size) - floor_sum(inner + 1, step, self.size - 1, self.size) + inner
        late = floor_sum(inner + 1, step, self.size - 1, period) - floor_sum(inner + 1, step, 0, period)
        return inner + 1, inner - none, late

    def _balanced(self, total: int, workers: int) -> tuple[int, int, int]:
        used, period = least(total, workers), self.size * self.tiles

        def below(count: int, first: int, step: int) -> int:
            """Sum over i < count of how many boundaries w >= 1 lie below first + i step."""
            return floor_sum(count, step * used, first * used + total - 1, total) - count

        walks = self.tiles * self.heads  # the places within Q tile i are i s + 1 .. i s + s - 1
        every = below(walks, self.size, self.size) - below(walks, 1, self.size)
        last = period - self.size
        late = below(self.heads, period, period) - below(self.heads, last + 1, period)
        return used, every, late


def boundaries(line: Line, share: str, workers: int, overhead: int = 0) -> list[int]:
    """Where stretches end, ascending; the last is the end of the line. At most one per worker.

    >>> boundaries(Line(3, (8,), (1,)), "whole", 5)
    [5, 10, 15, 20, 24]
    """
    total = line.length
    if share == "whole":
        step = -(-total // workers)
        return [*range(step, total, step), total]
    if share == "balanced":
        return sorted({total * (worker + 1) // workers for worker in range(workers)} - {0})
    tiles = range(len(line.ends))
    return [line.start(0, tile) + end for tile in tiles for end in _budgets(line, tile, workers, overhead)]


def _budgets(line: Line, tile: int, workers: int, overhead: int) -> list[int]:
    """Where FlashMLA's workers end among the sequences of one Q tile."""
    size, total = line.size(tile), line.size(tile) * line.heads
    budget = -(-line.heads * (size + overhead) // workers) + overhead
    ends: list[int] = []
    at = 0
    while at < total:
        left = budget
        while at < total and left >= size - at % size + overhead:
            left -= size - at % size + overhead
            at += size - at % size
        if at < total and left > overhead:
            at += left - overhead
        ends.append(at)
    return ends
