"""Arithmetic that counts itself: every product, sum and exponential adds what its arrays' shapes say."""

from __future__ import annotations

import numpy as np

from iosim.schedule import Work

Array = np.ndarray


class Arithmetic:
    """FLOP and exponentials of what was computed; useful FLOP leave masked entries out."""

    def __init__(self) -> None:
        self.flop = self.executed = self.exp = self.rescale = self.tiles = 0

    def mul(self, a: Array, b: Array) -> Array:
        return self._one_each(a * b)

    def add(self, a: Array, b: Array) -> Array:
        return self._one_each(a + b)

    def _one_each(self, made: Array) -> Array:
        size = int(np.size(made)) * (2 if np.iscomplexobj(made) else 1)
        self.flop += size
        self.executed += size
        return made

    def complex_mul(self, a: Array, b: Array) -> Array:
        """Four real products and two sums per element."""
        made = a * b
        self.flop += 6 * made.size
        self.executed += 6 * made.size
        return made

    def exps(self, x: Array) -> Array:
        self.exp += x.size
        return np.exp(x)

    def rescales(self, x: Array) -> Array:
        self.rescale += x.size
        return np.exp(x)

    def product(self, a: Array, b: Array, seen: Array | None = None) -> Array:
        """Matrix product, entry by entry of the result: those not `seen` are executed in vain."""
        made = a @ b
        each = 2 * a.shape[1]
        self.executed += each * made.size
        self.flop += each * (made.size if seen is None else int(np.count_nonzero(seen)))
        return made

    def weighted(self, p: Array, v: Array, seen: Array | None = None) -> Array:
        """Matrix product that sums over entries of the left operand: those not `seen` are zeros."""
        made = p @ v
        each = 2 * v.shape[1]
        self.executed += each * p.size
        self.flop += each * (p.size if seen is None else int(np.count_nonzero(seen)))
        return made

    def check(self, work: Work) -> None:
        """The same as a launch's or a schedule's work says."""
        counted = (self.tiles, self.flop, self.executed, self.exp, self.rescale)
        assert counted == (work.tile_pairs, work.flop, work.flop_executed, work.exp, work.exp_rescale)
