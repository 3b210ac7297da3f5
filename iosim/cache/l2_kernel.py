"""The compiled engine of `iosim.cache.shared_l2`: slots in lockstep over least-recently-used caches of atoms.

All jitted code of this call tree is in this file: numba's cache does not see changes in other files. The functions
are plain Python, compiled at the end, so that they run without a compiler too.

An atom is touched whole and in one order, so it hits whole or misses whole in every LRU cache (the equal-distance
lemma of docs/explanation/cache.md); recency lists of atoms with sizes are therefore exact at line level, up to the
interleaving of items within one tick.
"""

from __future__ import annotations

from iosim.trace.compiling import jit

CLEAN, DIRTY = 1, 2
#: columns of a recency ring: one cache line of the host holds all that a touch needs of an atom
NEXT, PREVIOUS, STATE = 0, 1, 2


def _touch(cache, atom, size, write, links, used, capacity, tensor, written, victims):  # type: ignore[no-untyped-def]
    """Make `atom` the most recent of `cache`. Returns whether it was there.

    Evicted dirty atoms count as written, or are noted in `victims` (its last entry counts them) where there is room.
    """
    ring = links[cache]
    end = ring.shape[0] - 1
    found = ring[atom, STATE] != 0
    if found:
        before, after = ring[atom, PREVIOUS], ring[atom, NEXT]
        ring[before, NEXT] = after
        ring[after, PREVIOUS] = before
    else:
        while used[cache] + size[atom] > capacity[cache] and ring[end, PREVIOUS] != end:
            oldest = ring[end, PREVIOUS]
            before = ring[oldest, PREVIOUS]
            ring[end, PREVIOUS] = before
            ring[before, NEXT] = end
            used[cache] -= size[oldest]
            if ring[oldest, STATE] == DIRTY:
                if victims.shape[0] > 1:
                    victims[victims[-1]] = oldest
                    victims[-1] += 1
                else:
                    written[tensor[oldest]] += size[oldest]
            ring[oldest, STATE] = 0
        if size[atom] > capacity[cache]:
            if write and victims.shape[0] > 1:
                victims[victims[-1]] = atom
                victims[-1] += 1
            elif write:
                written[tensor[atom]] += size[atom]
            return False
        used[cache] += size[atom]
        ring[atom, STATE] = CLEAN
    if write:
        ring[atom, STATE] = DIRTY
    first = ring[end, NEXT]
    ring[atom, NEXT] = first
    ring[atom, PREVIOUS] = end
    ring[first, PREVIOUS] = atom
    ring[end, NEXT] = atom
    return found


def _fetch(atom, behind, size, links, used, capacity, tensor, written, fetched, none):  # type: ignore[no-untyped-def]
    """Read from beyond the L2: the memory-side cache where there is one (`behind` >= 0), else main memory."""
    if behind < 0 or not touch(behind, atom, size, False, links, used, capacity, tensor, written, none):
        fetched[tensor[atom]] += size[atom]


def _hand_on(behind, size, links, used, capacity, tensor, written, victims, none):  # type: ignore[no-untyped-def]
    """Write what the L2 evicted into the memory-side cache."""
    for index in range(victims[-1]):
        touch(behind, victims[index], size, True, links, used, capacity, tensor, written, none)
    victims[-1] = 0


def _lockstep(  # type: ignore[no-untyped-def]
    order, slots, cores, static, kv_order, stagger, tiles, pattern, item, walk, step, touch_tensor, touch_first,
    touch_count, touch_write, tensor_head, base, per_head, instances, partitions, behind, size, links, used,
    capacity, tensor, asked, missed, fetched, written, victims, none, holds, position, turned, round_of,
):  # fmt: skip
    """Run one launch to its end; the caches keep their contents."""
    atoms = tensor.shape[0] // partitions
    taken = 0
    running = True
    tick = 0
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
            core = slot % cores
            instance = core % instances
            near = instance * partitions + (core // instances) % partitions
            for t in range(step[now], step[now + 1]):
                which = touch_tensor[t]
                at = base[which] + tensor_head[which, head] * per_head[which] + touch_first[t]
                for atom in range(at, at + touch_count[t]):
                    for home in range(partitions):
                        part = home * atoms + atom
                        far = instance * partitions + home
                        if touch_write[t]:
                            touch(far, part, size, True, links, used, capacity, tensor, written, victims)
                            if far != near:  # the writer's partition keeps a copy as it does of what it reads
                                touch(near, part, size, False, links, used, capacity, tensor, written, victims)
                            continue
                        asked[which] += size[part]
                        if touch(near, part, size, False, links, used, capacity, tensor, written, victims):
                            continue
                        missed[which] += size[part]
                        if far != near and touch(
                            far, part, size, False, links, used, capacity, tensor, written, victims
                        ):
                            continue
                        fetch(part, behind, size, links, used, capacity, tensor, written, fetched, none)
                    if behind >= 0 and victims[-1] > 0:
                        hand_on(behind, size, links, used, capacity, tensor, written, victims, none)
            position[slot] += 1
            if begin + position[slot] == end:
                holds[slot] = -1
        tick += 1


touch = jit(_touch, inline="always")
fetch = jit(_fetch, inline="always")
hand_on = jit(_hand_on)
lockstep = jit(_lockstep)
