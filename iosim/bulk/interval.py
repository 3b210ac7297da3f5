"""Integer intervals that know how far their formula went: the proof that int64 arrays do not overflow.

A formula is evaluated on one interval per column, which holds that column's value in every row. **Claim**: if the
magnitude that all intervals of an evaluation stayed below is `Reach.magnitude` <= 2^63 - 1, then the same
formula on int64 arrays of these rows computes every intermediate exactly. **Proof** by induction over the operations:
let the arrays' operands be exact and lie in their intervals. Endpoints are Python ints, so the interval of an operation
contains its exact result for all rows: sums and products are monotone in each operand, or take their extremes at
corners; a // b with b >= 1 is monotone in a and, for a of one sign, in b, so its extremes are at corners too; a % b
with b >= 1 lies in 0 .. b - 1; powers of two and their exponents are monotone; `choose` gives one of its branches. Every endpoint is recorded; so the exact result is
below 2^63, int64 does not wrap, and the array holds the exact result. Where the formula branches, the
intervals take the branch that the rows took. Sums of floors are bounded as `floor_sum` states,
and a formula may say that a result lies below another (`bounded`: tiles below all tiles), which intervals forget. ∎
A divisor that may be zero or negative has no bound: `Unbounded` counts as a failed proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Union

Operand = Union[int, "Interval"]


class UnboundedError(Exception):
    """Nothing can be proven: a divisor that the interval does not keep above zero."""


class Reach:
    """The largest magnitude of an evaluation."""

    def __init__(self) -> None:
        self.magnitude = 0


@dataclass(frozen=True, slots=True)
class Undecided:
    """A comparison that holds for some values of its intervals."""

    reach: Reach
    """of the evaluation"""

    def __and__(self, other: object) -> Undecided:
        return self

    __rand__ = __or__ = __ror__ = __and__

    def __bool__(self) -> bool:
        raise TypeError("a formula branches on a comparison without decide or choose")

    def choose(self, condition: object, yes: Operand, no: Operand) -> Interval:
        """What holds both branches."""
        return _hull(self.reach, yes, no)


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """All integers from `low` to `high`."""

    reach: Reach
    """of the evaluation"""
    low: int
    """smallest"""
    high: int
    """largest"""

    def __post_init__(self) -> None:
        self.reach.magnitude = max(self.reach.magnitude, -self.low, self.high)

    def _made(self, *values: int) -> Interval:
        return Interval(self.reach, min(values), max(values))

    # --- arithmetic ---------------------------------------------------------------------------

    def __add__(self, other: Operand) -> Interval:
        low, high = _ends(other)
        return Interval(self.reach, self.low + low, self.high + high)

    __radd__ = __add__

    def __neg__(self) -> Interval:
        return Interval(self.reach, -self.high, -self.low)

    def __sub__(self, other: Operand) -> Interval:
        low, high = _ends(other)
        return Interval(self.reach, self.low - high, self.high - low)

    def __rsub__(self, other: Operand) -> Interval:
        return -self + other

    def __mul__(self, other: Operand) -> Interval:
        low, high = _ends(other)
        return self._made(self.low * low, self.low * high, self.high * low, self.high * high)

    __rmul__ = __mul__

    def __floordiv__(self, other: Operand) -> Interval:
        return _quotient(self.reach, self, other)

    def __rfloordiv__(self, other: Operand) -> Interval:
        return _quotient(self.reach, other, self)

    def __mod__(self, other: Operand) -> Interval:
        return _remainder(self.reach, other)

    def __rmod__(self, other: Operand) -> Interval:
        return _remainder(self.reach, self)

    def __abs__(self) -> Interval:
        spans = self.low < 0 < self.high
        return self._made(0 if spans else abs(self.low), abs(self.low), abs(self.high))

    def __rlshift__(self, other: int) -> Interval:
        return self._made(other << self.low, other << self.high)

    def ceil_log2(self) -> Interval:
        """Exponents of the powers of two at or above."""
        return Interval(self.reach, max(0, self.low - 1).bit_length(), max(0, self.high - 1).bit_length())

    # --- what formulas say instead of min, max and if ------------------------------------------

    def minimum(self, other: Operand) -> Interval:
        """The smaller."""
        low, high = _ends(other)
        return Interval(self.reach, min(self.low, low), min(self.high, high))

    def maximum(self, other: Operand) -> Interval:
        """The larger."""
        low, high = _ends(other)
        return Interval(self.reach, max(self.low, low), max(self.high, high))

    def choose(self, condition: object, yes: Operand, no: Operand) -> Interval:
        """What holds both branches."""
        return _hull(self.reach, yes, no)

    def bounded(self, top: Operand) -> Interval:
        """The part from 0 to `top`."""
        return Interval(self.reach, max(0, self.low), max(0, min(self.high, _ends(top)[1])))

    def most_over(self, value: Callable[[Any], Any]) -> Operand:
        """What holds value(0) .. value(count - 1)."""
        made: Operand = value(Interval(self.reach, 0, max(0, self.high - 1)))
        return made

    def period(self, tile: Operand, wrap: Operand) -> Interval:
        """What holds wrap / gcd(tile, wrap)."""
        return Interval(self.reach, 1, _ends(wrap)[1])

    def floor_sum(self, n: Operand, a: Operand, b: Operand, m: Operand) -> Interval:
        """What holds the sum of floor((a i + b) / m) for i < n, and all intermediates of its computation on arrays.

        With b >= 0 those are at most n^2, a n + b + m and n ((a n + b) // m + 1) (`iosim.masks.sums`). A b below
        zero, which the correlation of its terms excludes, adds at most n (|b| // m + 1) to each.
        """
        count, least_m = max(0, _ends(n)[1]), _ends(m)[0]
        if least_m < 1:
            raise UnboundedError
        shift = max(map(abs, _ends(b)))
        reach = _ends(a)[1] * count + shift + _ends(m)[1]
        total = count * ((reach // least_m) + 1)
        Interval(self.reach, 0, max(count * count, reach, 2 * total))
        return Interval(self.reach, 0 if _ends(b)[0] >= 0 else -total, total)

    # --- comparisons ----------------------------------------------------------------------------

    def __lt__(self, other: Operand) -> bool | Undecided:
        low, high = _ends(other)
        return True if self.high < low else False if self.low >= high else Undecided(self.reach)

    def __le__(self, other: Operand) -> bool | Undecided:
        low, high = _ends(other)
        return True if self.high <= low else False if self.low > high else Undecided(self.reach)

    def __gt__(self, other: Operand) -> bool | Undecided:
        low, high = _ends(other)
        return True if self.low > high else False if self.high <= low else Undecided(self.reach)

    def __ge__(self, other: Operand) -> bool | Undecided:
        low, high = _ends(other)
        return True if self.low >= high else False if self.high < low else Undecided(self.reach)

    def __eq__(self, other: object) -> bool | Undecided:  # type: ignore[override]
        low, high = _ends(other)  # type: ignore[arg-type]
        if self.high < low or self.low > high:
            return False
        return True if self.low == self.high == low == high else Undecided(self.reach)

    def __ne__(self, other: object) -> bool | Undecided:  # type: ignore[override]
        same = self == other
        return same if isinstance(same, Undecided) else not same

    __hash__ = None  # type: ignore[assignment]


def _ends(value: Operand) -> tuple[int, int]:
    return (value.low, value.high) if isinstance(value, Interval) else (value, value)


def _hull(reach: Reach, a: Operand, b: Operand) -> Interval:
    (low_a, high_a), (low_b, high_b) = _ends(a), _ends(b)
    return Interval(reach, min(low_a, low_b), max(high_a, high_b))


def _quotient(reach: Reach, a: Operand, b: Operand) -> Interval:
    (low, high), (least, largest) = _ends(a), _ends(b)
    if least < 1:
        raise UnboundedError
    corners = (low // least, low // largest, high // least, high // largest)
    return Interval(reach, min(corners), max(corners))


def _remainder(reach: Reach, divisor: Operand) -> Interval:
    least, largest = _ends(divisor)
    if least < 1:
        raise UnboundedError
    return Interval(reach, 0, largest - 1)
