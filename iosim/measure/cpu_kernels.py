"""Attention on a processor, compiled: tiled with a running softmax, and unfused with its scores in memory.

One core, single precision. They are written for the same schedules that iosim counts, not for speed records.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True, fastmath=True)
def _scores(q, k, s, rows, first, keys, scale):  # type: ignore[no-untyped-def]
    """s[i, j] = scale q[i] . k[first + j]."""
    for i in range(rows):
        for j in range(keys):
            total = np.float32(0.0)
            for x in range(q.shape[1]):
                total += q[i, x] * k[first + j, x]
            s[i, j] = total * scale


@numba.njit(cache=True)
def _visible(query, n_q, n_kv, causal, window):  # type: ignore[no-untyped-def]
    """First and one-past-last key of a query, aligned at the end."""
    if not causal:
        return 0, n_kv
    stop = query + n_kv - n_q + 1
    return max(0, stop - window), stop


@numba.njit(cache=True, fastmath=True)
def tiled(q, k, v, group, tile_q, tile_kv, causal, window, sawtooth):  # type: ignore[no-untyped-def]
    """FlashAttention-2's loop: q (heads, n_q, d), k and v (heads / group, n_kv, d); returns (heads, n_q, d)."""
    heads, n_q, d = q.shape
    n_kv = k.shape[1]
    scale = np.float32(1.0 / np.sqrt(d))
    out = np.empty_like(q)
    s = np.empty((tile_q, tile_kv), np.float32)
    blocks = -(-n_q // tile_q)
    for head in range(heads):
        keys_of, values_of = k[head // group], v[head // group]
        for block in range(blocks):
            begin = block * tile_q
            rows = min(tile_q, n_q - begin)
            largest = np.full(rows, np.float32(-np.inf))
            total = np.zeros(rows, np.float32)
            acc = np.zeros((rows, d), np.float32)
            low, _ = _visible(begin, n_q, n_kv, causal, window)
            _, high = _visible(begin + rows - 1, n_q, n_kv, causal, window)
            first_tile, tiles = low // tile_kv, -(-high // tile_kv)
            for step in range(first_tile, tiles):
                tile = first_tile + tiles - 1 - step if sawtooth and (head * blocks + block) % 2 else step
                first = tile * tile_kv
                keys = min(tile_kv, n_kv - first)
                _scores(q[head, begin : begin + rows], keys_of, s, rows, first, keys, scale)
                for i in range(rows):
                    start, stop = _visible(begin + i, n_q, n_kv, causal, window)
                    a, b = max(0, start - first), min(keys, stop - first)
                    if b <= a:
                        continue
                    highest = largest[i]
                    for j in range(a, b):
                        highest = max(highest, s[i, j])
                    shrink = np.exp(largest[i] - highest)
                    largest[i] = highest
                    total[i] *= shrink
                    for x in range(d):
                        acc[i, x] *= shrink
                    for j in range(a, b):
                        p = np.exp(s[i, j] - highest)
                        total[i] += p
                        for x in range(d):
                            acc[i, x] += p * values_of[first + j, x]
            for i in range(rows):
                for x in range(d):
                    out[head, begin + i, x] = acc[i, x] / total[i]
    return out


@numba.njit(cache=True, fastmath=True)
def unfused(q, k, v, group, causal, window):  # type: ignore[no-untyped-def]
    """Three passes over scores that live in memory: products, softmax, products."""
    heads, n_q, d = q.shape
    n_kv = k.shape[1]
    scale = np.float32(1.0 / np.sqrt(d))
    out = np.zeros_like(q)
    scores = np.empty((n_q, n_kv), np.float32)
    for head in range(heads):
        keys_of, values_of = k[head // group], v[head // group]
        _scores(q[head], keys_of, scores, n_q, 0, n_kv, scale)
        for i in range(n_q):
            start, stop = _visible(i, n_q, n_kv, causal, window)
            highest = scores[i, start:stop].max()
            total = np.float32(0.0)
            for j in range(n_kv):
                if start <= j < stop:
                    scores[i, j] = np.exp(scores[i, j] - highest)
                    total += scores[i, j]
                else:
                    scores[i, j] = 0.0
            for j in range(start, stop):
                scores[i, j] /= total
        for i in range(n_q):
            for j in range(n_kv):
                weight = scores[i, j]
                for x in range(d):
                    out[head, i, x] += weight * values_of[j, x]
    return out
