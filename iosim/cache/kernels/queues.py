"""LRU and FIFO over dense line ids.

LRU keeps no linked list. Time is the position of an access; `stamp[line]` is the line's last one, and the
accesses themselves, kept in a ring, are the recency queue. A line is resident when its stamp is not before
`tail`. To evict, `tail` walks forward past stale entries (lines accessed again later) to the first live one.
That is one random touch of memory per access, against four to six for a list.
"""

# mypy: disable-error-code="assignment, no-any-return, arg-type"
# (numba decides the types of local names; numpy scalars and ints take turns in them)

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from iosim.trace.compiling import jit

ZERO, ONE, TWO, FOUR = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(4)

# what a replay carries from chunk to chunk, in a vector of six:
# head, tail, resident lines, misses, misses of writes that cover their line, write-backs

RESIDENT_BIT, SEEN_BIT = 1, 4  # of FIFO's status; bit 2 is that of a dirty line, a write's flag shifted


def _lru(
    ids: NDArray[np.uint32],
    flags: NDArray[np.uint8],
    ring: NDArray[np.uint32],
    stamp: NDArray[np.uint32],
    state: NDArray[np.int64],
    capacity: int,
) -> None:
    """Replay a chunk. `ring` has a power of two of places, enough for `head - tail` plus the chunk.

    `stamp[line]` is 2 (position + 1) + dirty, 0 for a line never seen; positions start at 0 and stay below
    2^31 - 1.
    """
    head, tail = np.uint64(state[0]), np.uint64(state[1])
    resident, limit = np.uint64(state[2]), np.uint64(capacity)
    misses, unfetched, write_backs = ZERO, ZERO, ZERO
    mask = np.uint64(ring.size - 1)
    oldest = (tail + ONE) * TWO  # stamps from here on belong to resident lines
    for i in range(np.uint64(ids.size)):
        line = ids[i]
        flag = np.uint64(flags[i])
        write = whole = flag & ONE
        position = head + i
        ring[position & mask] = line
        old = np.uint64(stamp[line])
        if flag > ONE:  # rare: one test in the common case
            if flag & TWO:
                whole = ZERO
            if flag & FOUR:  # LAST: the value is dead, so the line ends clean
                write = ZERO
                old = old >> ONE << ONE
        new = (position + ONE) * TWO | write
        if old >= oldest:
            stamp[line] = new | (old & ONE)
        else:
            misses += ONE
            unfetched += whole
            stamp[line] = new
            if resident < limit:
                resident += ONE
            else:
                while True:
                    found = np.uint64(stamp[ring[tail & mask]])
                    tail += ONE
                    oldest += TWO
                    if (found | ONE) == oldest - ONE:
                        break
                write_backs += found & ONE
    state[0], state[1], state[2] = head + np.uint64(ids.size), tail, resident
    state[3] += np.int64(misses)
    state[4] += np.int64(unfetched)
    state[5] += np.int64(write_backs)


def _compact(ring: NDArray[np.uint32], stamp: NDArray[np.uint32], state: NDArray[np.int64]) -> None:
    """Drop stale entries of the LRU ring: live ones move towards the head, in order."""
    head, tail = state[0], state[1]
    mask = ring.size - 1
    place = head
    position = head - 1
    while position >= tail:
        line = ring[position & mask]
        old = np.int64(stamp[line])
        if old >> 1 == position + 1:
            place -= 1
            ring[place & mask] = line
            stamp[line] = 2 * (place + 1) + (old & 1)
        position -= 1
    state[1] = place


def _fifo(
    ids: NDArray[np.uint32],
    flags: NDArray[np.uint8],
    ring: NDArray[np.uint32],
    status: NDArray[np.uint8],
    state: NDArray[np.int64],
    capacity: int,
) -> None:
    """Replay a chunk. The ring holds the resident lines in order of arrival; `status` bits are in this file."""
    head, tail = np.uint64(state[0]), np.uint64(state[1])
    limit = np.uint64(capacity)
    misses, unfetched, write_backs = ZERO, ZERO, ZERO
    mask = np.uint64(ring.size - 1)
    for i in range(np.uint64(ids.size)):
        line = ids[i]
        flag = np.uint64(flags[i])
        old = np.uint64(status[line])
        dirty = (flag & ONE) << ONE
        if old & ONE:
            new = old | dirty
        else:
            misses += ONE
            unfetched += np.uint64((flag & np.uint64(3)) == ONE)
            if head - tail == limit:
                victim = ring[tail & mask]
                tail += ONE
                write_backs += (np.uint64(status[victim]) >> ONE) & ONE
                status[victim] = SEEN_BIT
            ring[head & mask] = line
            head += ONE
            new = np.uint64(RESIDENT_BIT | SEEN_BIT) | dirty
        if flag & FOUR:
            new = np.uint64(RESIDENT_BIT | SEEN_BIT)
        status[line] = new
    state[0], state[1], state[2] = head, tail, head - tail
    state[3] += np.int64(misses)
    state[4] += np.int64(unfetched)
    state[5] += np.int64(write_backs)


lru = jit(_lru)
compact = jit(_compact)
fifo = jit(_fifo)
