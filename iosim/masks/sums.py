"""Closed forms for sums of floors: how many tiles a band covers, without a loop over tiles.

Exact at any size over Python ints; the same functions take int64 arrays and intervals (`iosim.exact`).
"""

from __future__ import annotations

from typing import Any

from iosim.exact import ceil_div, least, most

__all__ = ["ceil_div", "clamped_floor_sum", "floor_sum", "ranged_floor_sum", "steps_below"]


def floor_sum(n: int, a: int, b: int, m: int) -> int:
    """Sum of floor((a i + b) / m) for i in 0..n-1, with n, a >= 0 and m >= 1, by Euclid's algorithm.

    Source: Graham, Knuth, Patashnik, Concrete Mathematics, section 3.5 (sums of floors);
    O(log m) steps.

    >>> floor_sum(5, 3, 1, 2) == sum((3 * i + 1) // 2 for i in range(5))
    True
    """
    if not (isinstance(n, int) and isinstance(a, int) and isinstance(b, int) and isinstance(m, int)):
        made: int = _many(n, a, b, m)
        return made
    total = 0
    while n > 0:
        total += n * (n - 1) // 2 * (a // m) + n * (b // m)
        a, b = a % m, b % m
        # what is left is a triangle of lattice points: count it along the other axis
        n, b = divmod(a * n + b, m)
        a, m = m, a
        if m == 0:
            break
    return total


def _many(*terms: Any) -> Any:
    """The sum on arrays: the same steps, on fewer and fewer rows; on intervals, its bounds.

    With b >= 0 every intermediate is at most n^2, a n + b + m, or n (floor((a n + b) / m) + 1): the terms of the
    total are not negative, and a step makes n, and the larger of a and m, no larger. Intervals record these.
    """
    for term in terms:
        if made := getattr(term, "floor_sum", None):
            return made(*terms)
    import numpy as np

    n, a, b, m = np.broadcast_arrays(*terms)
    n = np.maximum(n, 0)
    total = n * (n - 1) // 2 * (a // m) + n * (b // m)
    a, b = a % m, b % m
    n, b, a, m = (a * n + b) // m, (a * n + b) % m, m, a
    rows = np.flatnonzero((n > 0) & (m > 0))
    n, a, b, m = n[rows], a[rows], b[rows], m[rows]
    while len(rows):
        quotient, shift = a // m, b // m
        total[rows] += n * (n - 1) // 2 * quotient + n * shift
        a, b = a - quotient * m, b - shift * m
        reach = a * n + b
        n = reach // m
        b, a, m = reach - n * m, m, a
        left = (n > 0) & (m > 0)
        rows, n, a, b, m = rows[left], n[left], a[left], b[left], m[left]
    return total


def steps_below(n: int, a: int, b: int, limit: int) -> int:
    """How many i in 0..n-1 have a i + b < limit, for a >= 1."""
    return least(n, most(0, -((b - limit) // a)))


def clamped_floor_sum(n: int, a: int, b: int, m: int, top: int) -> int:
    """Sum of min(top, max(0, floor((a i + b) / m))) for i in 0..n-1, with a, m >= 1, top >= 0."""
    begin = steps_below(n, a, b, 0)
    end = most(begin, steps_below(n, a, b, top * m))
    return floor_sum(end - begin, a, b + a * begin, m) + (n - end) * top


def ranged_floor_sum(begin: int, end: int, a: int, b: int, m: int, top: int) -> int:
    """The same for i in begin..end-1; 0 if there are none."""
    return clamped_floor_sum(most(0, end - begin), a, b + a * begin, m, top)
