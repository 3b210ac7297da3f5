"""Attention kernels as naive loops that count every element they load and store, one head at a time.

Written from the papers' algorithm listings, with the mask as a dense matrix: shares no formula with iosim.
"""

from __future__ import annotations

from collections import Counter

import numpy as np


def mask_matrix(n_q: int, n_kv: int, kind: str, window: int = 0, sink: int = 0) -> np.ndarray:
    allowed = np.zeros((n_q, n_kv), bool)
    for q in range(n_q):
        aligned = q + (0 if kind == "causal-top-left" else n_kv - n_q)
        for k in range(n_kv):
            if kind == "full":
                allowed[q, k] = True
            elif kind in ("causal", "causal-top-left"):
                allowed[q, k] = k <= aligned
            else:
                allowed[q, k] = aligned - window < k <= aligned or (k < sink and k <= aligned)
    return allowed


class Counters:
    """Elements moved by tensor, FLOP and exponentials."""

    def __init__(self) -> None:
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self.flop = self.executed = self.exp = self.rescale = self.tiles = 0

    def load(self, tensor: str, elements: int) -> None:
        self.read[tensor] += elements

    def store(self, tensor: str, elements: int) -> None:
        self.written[tensor] += elements

    def score_tile(self, allowed: np.ndarray, d: int, d_v: int) -> None:
        rows, cols = allowed.shape
        self.tiles += 1
        self.flop += 2 * (d + d_v) * int(allowed.sum())
        self.executed += 2 * (d + d_v) * rows * cols
        self.exp += rows * cols
        self.rescale += rows


def tiles(n: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def length(part: slice) -> int:
    return part.stop - part.start


def flash2(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, lse: bool, latent: bool = False) -> Counters:
    """Q outer, K/V inner. `allowed` has one row per packed query row."""
    c = Counters()
    for i in tiles(allowed.shape[0], rows):
        visited = [j for j in tiles(allowed.shape[1], cols) if allowed[i, j].any()]
        if visited:
            c.load("Q", length(i) * d)
        for j in visited:
            c.load("K", length(j) * d)
            if not latent:
                c.load("V", length(j) * d_v)
            c.score_tile(allowed[i, j], d, d_v)
        c.store("O", length(i) * d_v)
        if lse:
            c.store("LSE", length(i))
    return c


def flash1(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, init: bool) -> Counters:
    """K/V outer, Q inner, O, l and m in slow memory."""
    c = Counters()
    if init:
        c.store("O", allowed.shape[0] * d_v)
        c.store("l", allowed.shape[0])
        c.store("m", allowed.shape[0])
    for j in tiles(allowed.shape[1], cols):
        loaded = False
        for i in tiles(allowed.shape[0], rows):
            if not allowed[i, j].any():
                continue
            if not loaded:
                c.load("K", length(j) * d)
                c.load("V", length(j) * d_v)
                loaded = True
            c.load("Q", length(i) * d)
            for tensor, width in (("O", d_v), ("l", 1), ("m", 1)):
                c.load(tensor, length(i) * width)
                c.store(tensor, length(i) * width)
            c.score_tile(allowed[i, j], d, d_v)
    return c


def unfused(n_q: int, n_kv: int, d: int, d_v: int, passes: int) -> Counters:
    """Three passes over dense matrices, each operand touched once."""
    c = Counters()
    c.load("Q", n_q * d)
    c.load("K", n_kv * d)
    c.store("S", n_q * n_kv)
    for _ in range(passes):
        c.load("S", n_q * n_kv)
    c.store("P", n_q * n_kv)
    c.load("P", n_q * n_kv)
    c.load("V", n_kv * d_v)
    c.store("O", n_q * d_v)
    return c


def split_kv(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, splits: int, lse: bool) -> Counters:
    """Each Q tile's visited tiles in chunks of ceil(longest / splits); one chunk at most means no combine."""
    q_tiles, kv_tiles = tiles(allowed.shape[0], rows), tiles(allowed.shape[1], cols)
    longest = max(sum(allowed[i, j].any() for j in kv_tiles) for i in q_tiles)
    return split_chunks(allowed, d, d_v, rows, cols, -(-longest // splits), longest, lse)


def split_chunks(
    allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, chunk: int, longest: int, lse: bool = True
) -> Counters:
    """As `split_kv` with chunks of so many tiles, beside sequences of which one walks `longest` tiles."""
    c = Counters()
    q_tiles = tiles(allowed.shape[0], rows)
    visited = {i.start: [j for j in tiles(allowed.shape[1], cols) if allowed[i, j].any()] for i in q_tiles}
    if longest <= chunk:
        return flash2(allowed, d, d_v, rows, cols, lse)
    for i in q_tiles:
        mine = visited[i.start]
        for start in range(0, len(mine), chunk):
            c.load("Q", length(i) * d)
            for j in mine[start : start + chunk]:
                c.load("K", length(j) * d)
                c.load("V", length(j) * d_v)
                c.score_tile(allowed[i, j], d, d_v)
            c.store("O_partial", length(i) * d_v)
            c.store("LSE_partial", length(i))
            c.load("O_partial", length(i) * d_v)
            c.load("LSE_partial", length(i))
            c.rescale += length(i)
        c.store("O", length(i) * d_v)
        if lse:
            c.store("LSE", length(i))
    return c


def paged(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, page: int, group: int) -> Counters:
    """What a walk over visited tiles reads of a paged, quantised cache: each page of a tile is looked up."""
    c = Counters()
    for i in tiles(allowed.shape[0], rows):
        for j in tiles(allowed.shape[1], cols):
            if not allowed[i, j].any():
                continue
            c.load("block_table", len({key // page for key in range(j.start, j.stop)}))
            for _ in range(length(j)):
                for name, width in (("K", d), ("V", d_v)):
                    c.load(name, width)
                    if group:
                        c.load(f"{name}_scale", len(range(0, width, group)))
    return c


def backward(
    allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, kind: str, group: int = 1, buffers: int = 1
) -> Counters:
    """One key/value head and its `group` query heads. kind: kv-outer, q-outer or two-kernels."""
    c = Counters()
    n_q, n_kv = allowed.shape
    q_tiles, k_tiles = tiles(n_q, rows), tiles(n_kv, cols)
    e = d + d_v
    for _ in range(group):
        for _ in range(n_q):  # preprocess
            c.load("O", d_v)
            c.load("dO", d_v)
            c.store("D", 1)
            if kind == "kv-outer":
                c.store("dQ_accum", d * buffers)

    def queries(i: slice) -> None:
        c.load("Q", length(i) * d)
        c.load("dO", length(i) * d_v)
        c.load("LSE", length(i))
        c.load("D", length(i))

    def keys(j: slice) -> None:
        c.load("K", length(j) * d)
        c.load("V", length(j) * d_v)

    def pair(i: slice, j: slice, products: int) -> None:
        c.tiles += 1
        c.executed += 2 * products * length(i) * length(j)
        c.exp += length(i) * length(j)

    suffix = "_expanded" if group > 1 else ""
    if kind in ("kv-outer", "two-kernels"):
        for _ in range(group):
            for j in k_tiles:
                visitors = [i for i in q_tiles if allowed[i, j].any()]
                if visitors:
                    keys(j)
                for i in visitors:
                    queries(i)
                    pair(i, j, e + e + (d if kind == "kv-outer" else 0))
                    if kind == "kv-outer":
                        c.load("dQ_accum", length(i) * d)
                        c.store("dQ_accum", length(i) * d)
                c.store("dK" + suffix, length(j) * d)
                c.store("dV" + suffix, length(j) * d_v)
        if group > 1:
            for name, width in (("dK", d), ("dV", d_v)):
                c.load(name + suffix, group * n_kv * width)
                c.store(name, n_kv * width)
    if kind in ("q-outer", "two-kernels"):
        for _ in range(group):
            for i in q_tiles:
                visited = [j for j in k_tiles if allowed[i, j].any()]
                if visited:
                    queries(i)
                for j in visited:
                    keys(j)
                    pair(i, j, e + d + (e if kind == "q-outer" else 0))
                    if kind == "q-outer":
                        for name, width in (("dK_accum", d), ("dV_accum", d_v)):
                            c.load(name, length(j) * width)
                            c.store(name, length(j) * width)
                c.store("dQ", length(i) * d)
    if kind == "kv-outer":
        c.load("dQ_accum", group * n_q * d * buffers)
        c.store("dQ", group * n_q * d)
    if kind == "q-outer":
        for name, width in (("dK", d), ("dV", d_v)):
            c.store(f"{name}_accum", n_kv * width)  # clear
            c.load(f"{name}_accum", n_kv * width)
            c.store(name, n_kv * width)
    return c


def biased(
    allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, bias: str, rank: int, group: int = 1,
    shared: bool = False,
) -> Counters:  # fmt: skip
    """FlashAttention-2 that also loads a tile of the bias, or rows of its two factors.

    Args:
        group: row r of `allowed` belongs to head r % group.
        shared: the heads share the bias.
    """
    c = flash2(allowed, d, d_v, rows, cols, True)
    for i in tiles(allowed.shape[0], rows):
        visited = [j for j in tiles(allowed.shape[1], cols) if allowed[i, j].any()]
        own = [(r // group, 0 if shared else r % group) for r in range(i.start, i.stop)]
        if visited and bias == "low-rank":
            c.load("B_q", len(set(own)) * rank)
        for j in visited:
            if bias == "dense":
                c.load("B", len(set(own)) * length(j))
            if bias == "low-rank":
                c.load("B_k", len({head for _, head in own}) * length(j) * rank)
                c.flop += 2 * rank * int(allowed[i, j].sum())
                c.executed += 2 * rank * length(i) * length(j)
    return c


def recompute_values(allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, width: int) -> Counters:
    """The KV walk again for each chunk of value columns."""
    c = Counters()
    for i in tiles(allowed.shape[0], rows):
        visited = [j for j in tiles(allowed.shape[1], cols) if allowed[i, j].any()]
        if visited:
            c.load("Q", length(i) * d)
        for part in tiles(d_v, width):
            for j in visited:
                c.load("K", length(j) * d)
                c.load("V", length(j) * length(part))
                c.score_tile(allowed[i, j], d if part.start == 0 else 0, length(part))  # scores are useful once
                c.executed += 0 if part.start == 0 else 2 * d * length(i) * length(j)
            c.store("O", length(i) * length(part))
        c.store("LSE", length(i))
    return c


def square_tiling(allowed: np.ndarray, d: int, d_v: int, block: int, safe: bool) -> Counters:
    """Saha and Ye's two phases over blocks of rows, keys, depth and value columns."""
    c = Counters()
    n_q, n_kv = allowed.shape
    kept = ("l", "m") if safe else ("l",)
    for i in tiles(n_q, block):
        for j in tiles(n_kv, block):
            if not allowed[i, j].any():
                continue
            for part in tiles(d, block):
                c.load("Q", length(i) * length(part))
                c.load("K", length(j) * length(part))
                c.executed += 2 * length(i) * length(j) * length(part)
                c.flop += 2 * int(allowed[i, j].sum()) * length(part)
            c.tiles += 1
            c.exp += length(i) * length(j)  # for the sum of the row
            c.rescale += safe * length(i)  # that sum, when the maximum moves
            c.store("S", length(i) * length(j))
        for name in kept:
            c.store(name, length(i))
    for i in tiles(n_q, block):
        for name in kept:
            c.load(name, length(i))
        for part in tiles(d_v, block):
            for j in tiles(n_kv, block):
                if allowed[i, j].any():
                    c.load("S", length(i) * length(j))
                    c.load("V", length(j) * length(part))
                    c.executed += 2 * length(i) * length(j) * length(part)
                    c.flop += 2 * int(allowed[i, j].sum()) * length(part)
                    c.exp += safe * length(i) * length(j)  # raw scores were stored
            c.store("O", length(i) * length(part))
    return c


def tiled_products(n_q: int, n_kv: int, d: int, d_v: int, passes: int, tile: int) -> Counters:
    """Unfused attention whose products read both operands for every output tile."""
    c = Counters()
    for i in tiles(n_q, tile):
        for j in tiles(n_kv, tile):
            c.load("Q", length(i) * d)
            c.load("K", length(j) * d)
            c.store("S", length(i) * length(j))
    c.load("S", passes * n_q * n_kv)
    c.store("P", n_q * n_kv)
    for i in tiles(n_q, tile):
        for part in tiles(d_v, tile):
            c.load("P", length(i) * n_kv)
            c.load("V", n_kv * length(part))
            c.store("O", length(i) * length(part))
    return c


def stream_k(
    allowed: np.ndarray, d: int, d_v: int, rows: int, cols: int, heads: int, ends: list[int], combine: bool
) -> Counters:
    """Workers that take KV tiles from one line until each of `ends`; parts of a Q tile are summed by whom it says."""
    c = Counters()
    q_tiles = tiles(allowed.shape[0], rows)
    walks = [(h, i) for i in q_tiles for h in range(heads)]
    if not combine:
        walks.sort(key=lambda walk: (walk[0], walk[1].start))
    line = [(h, i, j) for h, i in walks for j in tiles(allowed.shape[1], cols) if allowed[i, j].any()]
    parts: Counter[tuple[int, int]] = Counter()
    begin = 0
    for end in ends:
        held = None
        for h, i, j in line[begin:end]:
            if held != (h, i.start):
                held = (h, i.start)
                parts[held] += 1
                c.load("Q", length(i) * d)
            c.load("K", length(j) * d)
            c.load("V", length(j) * d_v)
            c.score_tile(allowed[i, j], d, d_v)
        begin = end
    for h in range(heads):
        for i in q_tiles:
            count = parts[h, i.start]
            exchanged = count if combine and count > 1 else max(0, count - 1)
            for name, width in (("O_partial", d_v), ("LSE_partial", 1)):
                c.store(name, exchanged * length(i) * width)
                c.load(name, exchanged * length(i) * width)
            c.rescale += exchanged * length(i)
            c.store("O", length(i) * d_v)
            c.store("LSE", length(i))
    return c
