"""Compiled loops of the time model: visited tiles per row block, items placed on cores, and split rules.

All compiled code of the room lives in this file, because a compiled caller does not notice that a callee in
another file changed (numba's cache is keyed by file).
"""

from __future__ import annotations

from functools import partial

import numpy as np

from iosim.trace.compiling import jit

#: items placed one by one at the end of a launch, per slot; the ones before them are spread evenly. Three bound the
#: work per call to some ten microseconds; against twenty-four no median moves by more than 0.1 %, the 99th
#: percentile by 6 %, and the error against measurements by 0.1 points.
TAIL_PER_SLOT = 3
#: head start that breaks ties between slots by their number, so that rounding does not (0.3 ns over 296 slots)
TIE_S = 1e-12

#: launch orders: FlashAttention-3's sections of heads, or the plain grid
SECTIONS, GRID = 0, 1


@jit
def _walk(counts, rows, keys, group, n_q, n_kv, left, causal, shifted):  # type: ignore[no-untyped-def]
    """Fill `counts` with the KV tiles that each row block visits; returns (tiles, keys in them, longest).

    A row block sees keys from that of its first row, less the window, to that of its last row. The row after it
    advances by rows / group queries a block, so its query, and the tile that the query's key lies in, are carried
    along as quotients and remainders: a division per block would cost more than all the rest. `shifted`: the tiles of
    a block begin at the first key that its window reaches, instead of lying on one grid.
    """
    if not causal:
        full = -(-n_kv // keys)
        counts[:] = full
        return full * counts.size, n_kv * counts.size, full
    offset = n_kv - n_q
    step, rest = rows // group, rows % group
    low, row = 0, 0  # query of the block's first row, and its row within the query
    tile, key = offset // keys, offset % keys  # tile of the next block's first query, and the key within it
    total, walked, longest = 0, 0, 0
    for i in range(counts.size):
        first = offset + low - left
        low += step
        key += step
        row += rest
        if row >= group:
            row -= group
            low += 1
            key += 1
        while key >= keys:
            key -= keys
            tile += 1
        behind = tile + (1 if key > 0 or row > 0 else 0)
        if offset + low >= n_kv:
            behind = -(-n_kv // keys)
        if shifted and first > 0:
            real = min(offset + low + (1 if row > 0 else 0), n_kv) - first
            made = -(-real // keys)
            walked += real
        else:
            ahead = first // keys if first > 0 else 0
            made = max(0, behind - ahead)
            walked += max(0, min(behind * keys, n_kv) - ahead * keys)
        counts[i] = made
        total += made
        longest = max(longest, made)
    return total, walked, longest


@partial(jit, inline="always")
def _push_down(finish, slot, size, time):  # type: ignore[no-untyped-def]
    """Replace the heap's root, the slot that is free first, by the same slot free at `time`."""
    owner = slot[0]
    hole, child = 0, 1
    while child < size:
        if child + 1 < size and finish[child + 1] < finish[child]:
            child += 1
        if finish[child] >= time:
            break
        finish[hole], slot[hole] = finish[child], slot[child]
        hole = child
        child = 2 * hole + 1
    finish[hole], slot[hole] = time, owner


@jit
def _last_core(finish, slot, size, cores, lone):  # type: ignore[no-untyped-def]
    """When the last core is done: of two items on a core the longer one speeds up once it is alone."""
    if size <= cores:
        return finish[:size].max() * lone
    by_core = np.zeros((cores, 2))
    for k in range(size):
        by_core[slot[k] % cores, slot[k] // cores] = finish[k]
    latest = 0.0
    for core in range(cores):
        early, late = min(by_core[core, 0], by_core[core, 1]), max(by_core[core, 0], by_core[core, 1])
        latest = max(latest, early + (late - early) * lone)
    return latest


@partial(jit, inline="always")
def _waves(total, cores, per_core, cost, lone):  # type: ignore[no-untyped-def]
    """Makespan of equal items: full waves, and a last one that is faster when no core holds two of its items."""
    slots = cores * per_core
    full = total // slots
    rest = total - full * slots
    if rest == 0:
        return full * cost
    return full * cost + cost * (lone if rest <= cores else 1.0)


@jit
def _place(tiles, count, longest, batches, heads, section, order, splits, cores, per_core, item_s, tile_s, lone):  # type: ignore[no-untyped-def]
    """Makespan of one launch of batches x heads x splits x row blocks items of item_s + tile_s x tiles.

    SECTIONS: sequence after sequence; in it sections of heads, row blocks from the last to the first, head
    fastest; with splits head, split, row block. GRID: heads one after the other, row blocks ascending.
    The next free slot takes the next item. Whole lists, sections and heads before the tail are skipped at once.
    """
    blocks = tiles.size
    slots = cores * per_core
    total = batches * heads * splits * blocks
    size = min(slots, total)
    if total <= cores:
        return (item_s + tile_s * -(-longest // splits)) * lone
    if blocks == 1 and splits == 1:
        return _waves(total, cores, per_core, item_s + tile_s * longest, lone)
    load = blocks * splits * item_s + count * tile_s
    skip = max(0, total - TAIL_PER_SLOT * slots)
    if order == 1:
        per_list, lists, list_load = splits * blocks, batches * heads, load
    else:
        per_list, lists, list_load = heads * splits * blocks, batches, load * heads
    lead = min(skip // per_list, lists - 1)
    start = lead * list_load / slots
    skip -= lead * per_list
    slot = np.arange(size)
    finish = slot * TIE_S
    spread = 0.0
    for _ in range(lists - lead):
        if order == 1:
            for i in range(blocks):
                cost = item_s + tile_s * tiles[i]
                if skip > 0:
                    skip -= 1
                    spread += cost
                else:
                    _push_down(finish, slot, size, finish[0] + cost)
        elif splits > 1:
            ahead = min(skip // (splits * blocks), heads)
            spread += ahead * load
            skip -= ahead * splits * blocks
            for _head in range(heads - ahead):
                for s in range(splits):
                    for j in range(blocks):
                        share = -(-tiles[blocks - 1 - j] // splits)
                        mine = min(share, max(0, tiles[blocks - 1 - j] - s * share))
                        cost = item_s + tile_s * mine
                        if skip > 0:
                            skip -= 1
                            spread += cost
                        else:
                            _push_down(finish, slot, size, finish[0] + cost)
        else:
            done = min(skip // (section * blocks), heads // section) * section
            spread += done * load
            skip -= done * blocks
            while done < heads:
                width = min(section, heads - done)
                for j in range(blocks):
                    cost = item_s + tile_s * tiles[blocks - 1 - j]
                    early = min(skip, width)
                    skip -= early
                    spread += early * cost
                    for _h in range(width - early):
                        _push_down(finish, slot, size, finish[0] + cost)
                done += width
    return start + spread / slots + _last_core(finish, slot, size, cores, lone)


@jit
def makespans(  # type: ignore[no-untyped-def]
    rows, keys, group, n_q, n_kv, left, causal, shifted, batches, heads, section, order, splits, cores, per_core,
    item_s, tile_s, lone,
):  # fmt: skip
    """(makespan, tiles of one head of one sequence) of each call; all arguments but `order` and `cores`
    are arrays over calls. `lone`: time of an item alone on a core over its time when two
    share the core."""
    count = rows.size
    made = np.empty(count)
    load = np.empty(count, np.int64)
    for k in range(count):
        tiles = np.empty(-(-(n_q[k] * group[k]) // rows[k]), np.int64)
        load[k], _, longest = _walk(tiles, rows[k], keys[k], group[k], n_q[k], n_kv[k], left[k], causal[k], shifted[k])
        made[k] = _place(
            tiles, load[k], longest, batches[k], heads[k], section[k], order, splits[k], cores, per_core[k],
            item_s[k], tile_s[k], lone[k],
        )  # fmt: skip
    return made, load


@jit
def visited_keys(rows, keys, group, n_q, n_kv, left, causal, shifted):  # type: ignore[no-untyped-def]
    """Keys in the visited tiles of one head of one sequence, clipped to real keys."""
    made = np.empty(rows.size, np.int64)
    for k in range(rows.size):
        tiles = np.empty(-(-(n_q[k] * group[k]) // rows[k]), np.int64)
        made[k] = _walk(tiles, rows[k], keys[k], group[k], n_q[k], n_kv[k], left[k], causal[k], shifted[k])[1]
    return made


@jit
def wave_splits(items, tiles, slots, most, fewest_tiles, only_new):  # type: ignore[no-untyped-def]
    """Splits whose waves are filled at least 0.85 times as well as the best: FlashAttention's heuristic.

    One split when the items fill 0.8 of the slots or there are at most `fewest_tiles` tiles. `only_new` skips
    counts that leave the tiles per split unchanged (FlashAttention-2). Source: num_splits_heuristic in
    csrc/flash_attn/flash_api.cpp and hopper/heuristics.h.
    """
    made = np.ones(items.size, np.int64)
    for k in range(items.size):
        if items[k] >= 0.8 * slots or tiles[k] <= fewest_tiles:
            continue
        limit = min(most, slots, tiles[k])
        best = 0.0
        for s in range(1, limit + 1):
            if only_new and s > 1 and -(-tiles[k] // s) == -(-tiles[k] // (s - 1)):
                continue
            waves = items[k] * s / slots
            best = max(best, waves / np.ceil(waves))
        for s in range(1, limit + 1):
            if only_new and s > 1 and -(-tiles[k] // s) == -(-tiles[k] // (s - 1)):
                continue
            waves = items[k] * s / slots
            if waves / np.ceil(waves) >= 0.85 * best:
                made[k] = s
                break
    return made
