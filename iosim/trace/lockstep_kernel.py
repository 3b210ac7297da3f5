"""The compiled engine of `iosim.trace.call_touches`: the order in which slots in lockstep touch.

Alone in its file with what it calls: numba's cache does not see changes in other files.
"""

from __future__ import annotations

from iosim.trace.compiling import jit


def _unroll(  # type: ignore[no-untyped-def]
    order, slots, static, kv_order, stagger, tiles, pattern, item, walk, step, holds, position, turned, round_of,
    touches, heads,
):  # fmt: skip
    """Write the touch numbers and heads of one launch in order. Returns how many."""
    made, taken, tick, running = 0, 0, 0, True
    for slot in range(slots):
        holds[slot] = -1
        round_of[slot] = 0
    while running:
        running = False
        for slot in range(slots):
            if tick < slot * stagger:
                running = True
                continue
            if holds[slot] < 0:
                index = slot + round_of[slot] * slots if static else taken
                if index >= order.shape[0] or order[index] < 0:
                    continue
                holds[slot] = order[index]
                taken += 1
                position[slot] = 0
                turned[slot] = kv_order == 1 or (kv_order == 2 and round_of[slot] % 2 == 1)
                round_of[slot] += 1
            running = True
            head, tile = divmod(holds[slot], tiles)
            shape = pattern[head]
            begin, end = item[shape, tile], item[shape, tile + 1]
            if begin == end:
                holds[slot] = -1
                continue
            now = begin + position[slot]
            if turned[slot] and walk[shape, tile, 0] <= now < walk[shape, tile, 1]:
                now = walk[shape, tile, 0] + walk[shape, tile, 1] - 1 - now
            for t in range(step[now], step[now + 1]):
                touches[made] = t
                heads[made] = head
                made += 1
            position[slot] += 1
            if begin + position[slot] == end:
                holds[slot] = -1
        tick += 1
    return made


unroll = jit(_unroll)
