"""Loops that one resource of a processor bounds, compiled: arithmetic, exponentials, streams, chains of loads."""

from __future__ import annotations

import numba
import numpy as np

#: multiply-adds per element and round of `multiply_add`
CHAIN = 16
#: dependent instructions of one clock each per step of `dependent`
DEPENDENT = 2


@numba.njit(cache=True, nogil=True, fastmath={"contract"})
def multiply_add(values, factor, term, rounds):  # type: ignore[no-untyped-def]
    """`CHAIN` multiply-adds per element and round; nothing may be reassociated, or the chain would collapse."""
    for _ in range(rounds):
        for j in range(values.size):
            x = values[j]
            for _ in range(CHAIN):
                x = x * factor + term
            values[j] = x


@numba.njit(cache=True, nogil=True, fastmath=True)
def exponentials(values, out, rounds):  # type: ignore[no-untyped-def]
    """One exponential per element and round, as our kernels take them."""
    for _ in range(rounds):
        for j in range(values.size):
            out[j] = np.exp(values[j])


@numba.njit(cache=True, nogil=True, fastmath=True)
def stream(values, rounds):  # type: ignore[no-untyped-def]
    """Sum of an array, read `rounds` times, its quarters side by side: one sum alone waits for its additions."""
    quarter = values.size // 4
    one, two, three, four = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
    for _ in range(rounds):
        for j in range(quarter):
            one += values[j]
            two += values[quarter + j]
            three += values[2 * quarter + j]
            four += values[3 * quarter + j]
    return one + two + three + four


@numba.njit(cache=True, nogil=True)
def follow(following, place, steps):  # type: ignore[no-untyped-def]
    """A chain of loads, each of which says where the next is; where it stopped."""
    for _ in range(steps):
        place = following[place]
    return place


@numba.njit(cache=True, nogil=True)
def dependent(value, term, steps):  # type: ignore[no-untyped-def]
    """An addition beside a shift, then an exclusive or, each step waiting for the one before: `DEPENDENT` clocks.

    Additions and exclusive ors do not mix, so that no compiler makes two steps one.
    """
    for _ in range(steps):
        value = (value + term) ^ (value >> np.uint64(1))
    return value
