"""Attention on one core of a processor in float64, with a naive cache: lines of two bytes, LRU, write-back.

Written from PyTorch's listing: a thread's buffers of scores, probabilities and output, three phases per key tile.
Every phase sweeps whole arrays. A write of whole lines fetches nothing. Shares no formula with iosim.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

import numpy as np

Array = np.ndarray
LINE = 2


class Core:
    """A private cache that counts the bytes it reads from and writes to the next one, by array."""

    def __init__(self, capacity_bytes: int) -> None:
        self.lines = capacity_bytes // LINE
        self.held: OrderedDict[tuple[object, int], bool] = OrderedDict()
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def sweep(self, name: str, which: object, size_bytes: int, reads: bool, writes: bool) -> None:
        self.forget((name, which), size_bytes // LINE)
        for line in range(size_bytes // LINE):
            key = ((name, which), line)
            dirty = self.held.pop(key, None)
            if dirty is None and reads:
                self.read[name] += LINE
            self.held[key] = bool(dirty) or writes
            if len(self.held) > self.lines:
                (gone, _), was_dirty = self.held.popitem(last=False)
                if was_dirty:
                    self.written[gone[0]] += LINE

    def forget(self, array: tuple[str, object], lines: int) -> None:
        """Drop what lies beyond the part of a buffer that is still used."""
        for key in [key for key in self.held if key[0] == array and key[1] >= lines]:
            del self.held[key]


def flash(
    q: Array, k: Array, v: Array, allowed: Array, rows: int, cols: int, capacity_bytes: int, width: int
) -> tuple[Array, Counter[str], Counter[str]]:
    """(output, bytes read, bytes written) of one head; `width` bytes per operand, 4 per accumulator.

    Q tiles start with an empty cache, and what is dirty after one is left, as is what a shorter last tile leaves of
    a buffer unused; results are not swept.
    """
    out = np.zeros((len(q), v.shape[1]))
    read: Counter[str] = Counter()
    written: Counter[str] = Counter()
    in_place = width == 4
    for start in range(0, len(q), rows):
        core = Core(capacity_bytes)
        tile = q[start : start + rows]
        m, total, acc = np.full(len(tile), -np.inf), np.zeros(len(tile)), np.zeros((len(tile), v.shape[1]))
        first = True
        for key in range(0, len(k), cols):
            seen = allowed[start : start + rows, key : key + cols]
            if not seen.any():
                continue
            keys, values = k[key : key + cols], v[key : key + cols]
            core.sweep("Q", 0, tile.size * width, True, False)
            core.sweep("K", key, keys.size * width, True, False)
            s = np.where(seen, tile @ keys.T, -np.inf)
            core.sweep("S_tile", 0, s.size * 4, False, True)
            core.sweep("S_tile", 0, s.size * 4, True, True)
            top = np.maximum(m, s.max(1))
            safe = np.where(np.isneginf(top), 0, top)
            p = np.exp(s - safe[:, None])
            old, m = np.exp(m - safe), top
            total = total * old + p.sum(1)
            if not in_place:
                core.sweep("P_tile", 0, p.size * width, False, True)
            if not first:
                acc *= old[:, None]
                core.sweep("O_tile", 0, acc.size * 4, True, True)
            if in_place:
                core.sweep("S_tile", 0, s.size * 4, True, False)
            else:
                core.sweep("P_tile", 0, p.size * width, True, False)
            core.sweep("V", key, values.size * width, True, False)
            acc = p @ values if first else acc + p @ values
            core.sweep("O_tile", 0, acc.size * 4, not first, True)
            first = False
        if not first:
            core.sweep("O_tile", 0, acc.size * 4, True, False)
        out[start : start + rows] = acc / np.where(total > 0, total, 1)[:, None]
        read.update(core.read)
        written.update(core.written)
    return out, read, written
