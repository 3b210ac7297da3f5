"""Attention computed in float64 by following the touches of a schedule, with counting loads and stores.

A kernel here sees nothing but what its program's touches bring: `Memory` hands out those rows and no others, so a
result equal to a direct softmax proves that the schedule moves what its kernel needs. Slow memory starts with NaN:
a read of what nobody wrote spoils the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np

from iosim.kernels.unfused import Products
from iosim.schedule import Launch, Touch

Array = np.ndarray


class Memory:
    """Slow memory: one flat array per tensor and head, that counts the elements of each load and store."""

    def __init__(self, page_size: int = 0, scale_group: int = 0) -> None:
        self.page_size, self.scale_group = page_size, scale_group
        self.data: dict[tuple[str, int], Array] = {}
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def put(self, tensor: str, heads: Array) -> None:
        """Place one array per head, row-major, uncounted."""
        for head, array in enumerate(heads):
            self.data[tensor, head] = np.array(array, float).reshape(-1)

    def get(self, tensor: str, heads: int, shape: tuple[int, ...]) -> Array:
        """The first elements of each head, uncounted."""
        size = int(np.prod(shape))
        return np.stack([self.data[tensor, head][:size].reshape(shape) for head in range(heads)])

    def load(self, touch: Touch, width: int) -> Array:
        found = self.data[touch.tensor, touch.head][touch.row * width : (touch.row + touch.rows) * width]
        assert found.size == touch.rows * width, f"{touch} reads past its tensor"
        self.read[touch.tensor] += found.size
        return found.reshape(touch.rows, width).copy()

    def store(self, touch: Touch, width: int, values: Array) -> None:
        key, end = (touch.tensor, touch.head), (touch.row + touch.rows) * width
        array = self.data.get(key, np.empty(0))
        if array.size < end:
            array = np.concatenate([array, np.full(end - array.size, np.nan)])
        array[touch.row * width : end] = np.asarray(values, float).reshape(-1)
        self.data[key] = array
        self.written[touch.tensor] += touch.rows * width


class Rows:
    """Running softmax over the rows of one tile."""

    def __init__(self, rows: int, width: int) -> None:
        self.m, self.l = np.full(rows, -np.inf), np.zeros(rows)
        self.acc = np.zeros((rows, width))

    def add(self, scores: Array, values: Array) -> None:
        """Scores are -inf where the mask forbids."""
        top = np.maximum(self.m, scores.max(1))
        safe = np.where(np.isneginf(top), 0, top)
        old, p = np.exp(self.m - safe), np.exp(scores - safe[:, None])
        self.l = self.l * old + p.sum(1)
        self.acc = self.acc * old[:, None] + p @ values
        self.m = top

    def merge(self, output: Array, lse: Array) -> None:
        """Another part's normalised output, by its log-sum-exp."""
        top = np.maximum(self.m, lse)
        safe = np.where(np.isneginf(top), 0, top)
        old, new = np.exp(self.m - safe), np.exp(lse - safe)
        self.l = self.l * old + new
        self.acc = self.acc * old[:, None] + new[:, None] * output
        self.m = top

    def output(self) -> Array:
        return self.acc / np.where(self.l > 0, self.l, 1)[:, None]

    def lse(self) -> Array:
        with np.errstate(divide="ignore"):
            return self.m + np.log(self.l)


def masked(scores: Array, allowed: Array) -> Array:
    return np.where(allowed, scores, -np.inf)


def steps_of(
    launch: Launch, memory: Memory, rename: Callable[[str], str] = str
) -> Iterator[tuple[int, dict[str, list[tuple[Touch, Array]]], list[Touch]]]:
    """(item, loads by tensor, or what `rename` calls it, writes) of every step."""
    program = launch.program
    assert program is not None
    for item in range(program.items):
        for step in program.steps(item):
            loads: dict[str, list[tuple[Touch, Array]]] = {}
            for touch in step:
                if not touch.write:
                    loads.setdefault(rename(touch.tensor), []).append(
                        (touch, memory.load(touch, program.row_elements[touch.tensor]))
                    )
            yield item, loads, [touch for touch in step if touch.write]


def as_cached(heads: Array, tables: Array, page_size: int, scales: Array | None, scale_group: int) -> Array:
    """K or V as a cache holds it: each group of elements over its scale, each page shifted by its entry of the table."""
    made = heads.copy()
    if page_size:
        made += np.repeat(tables, page_size, axis=1)[:, : heads.shape[1], None]
    if scales is not None:
        made /= np.repeat(scales, scale_group, axis=2)[:, :, : heads.shape[2]]
    return made


def restored(memory: Memory, loads: dict[str, list[tuple[Touch, Array]]], name: str) -> Array:
    """A tile of K or V from its cached form, by the scales and the page table that were loaded with it."""
    at, rows = loads[name][0]
    if f"{name}_scale" in loads:
        rows = rows * np.repeat(loads[f"{name}_scale"][0][1], memory.scale_group, axis=1)[:, : rows.shape[1]]
    if "block_table" in loads:
        first, entries = loads["block_table"][0]
        pages = (at.row + np.arange(at.rows)) // memory.page_size - first.row
        rows = rows - entries[pages]
    return rows


def q_outer(
    launch: Launch,
    memory: Memory,
    allowed: Callable[[int], Array],
    d_v: int,
    kind: str = "softmax",
    rename: Callable[[str], str] = str,
) -> None:
    """FlashAttention-2, split-KV, stream-K and their combines, with biases or a sigmoid: all by their touches."""
    assert launch.program is not None
    width = launch.program.row_elements
    state: Rows | None = None
    tile: Touch | None = None
    last = -1
    for item, loads, writes in steps_of(launch, memory, rename):
        if item != last:
            state, last, q, q_factor = None, item, None, None
        if "Q" in loads:
            at, q = loads["Q"][0]
            if state is None or at != tile:  # the same tile may come again with every K/V tile
                state, tile = Rows(at.rows, d_v), at
        if "B_q" in loads:
            q_factor = loads["B_q"][0][1]
        if "K" in loads:
            assert state is not None
            key, k = loads["K"][0][0], restored(memory, loads, "K")
            v = restored(memory, loads, "V") if "V" in loads else k[:, :d_v]
            scores = q @ k.T
            if "B" in loads:
                scores = scores + loads["B"][0][1].reshape(scores.shape)
            if "B_k" in loads:
                scores = scores + q_factor @ loads["B_k"][0][1].T
            seen = allowed(at.head)[at.row : at.row + at.rows, key.row : key.row + key.rows]
            if kind == "sigmoid":
                state.acc += np.where(seen, 1 / (1 + np.exp(-scores)), 0) @ v
                state.l[:] = 1
            else:
                state.add(masked(scores, seen), v)
        if "O_partial" in loads:
            part = loads["O_partial"][0][1]
            state = Rows(len(part), d_v) if state is None else state
            state.merge(part, loads["LSE_partial"][0][1][:, 0])
        for touch in writes:
            made = Rows(touch.rows, d_v) if state is None else state  # rows that see no key
            memory.store(touch, width[touch.tensor], made.output() if touch.tensor[0] == "O" else made.lse())


def flash1(launch: Launch, memory: Memory, allowed: Callable[[int], Array], d_v: int) -> None:
    """K/V outer; O, l and m come back from slow memory for every tile."""
    state: Rows | None = None
    for _, loads, writes in steps_of(launch, memory):
        if "K" in loads:
            (key, k), (_, v) = loads["K"][0], loads["V"][0]
        if "Q" in loads:
            at, q = loads["Q"][0]
            state = Rows(at.rows, d_v)
            state.m, state.l = loads["m"][0][1][:, 0], loads["l"][0][1][:, 0]
            state.acc = loads["O"][0][1] * np.where(state.l > 0, state.l, 1)[:, None]
            seen = allowed(at.head)[at.row : at.row + at.rows, key.row : key.row + key.rows]
            state.add(masked(q @ k.T, seen), v)
        for touch in writes:
            made = Rows(touch.rows, d_v) if state is None else state  # the initialisation
            value = {"O": made.output(), "l": made.l, "m": made.m}[touch.tensor]
            memory.store(touch, d_v if touch.tensor == "O" else 1, value)
        state = None if writes else state


def in_strips(matrix: Array, width: int) -> Array:
    """Columns in strips of `width`, one strip after another, flat."""
    return np.concatenate([matrix[:, left : left + width].reshape(-1) for left in range(0, matrix.shape[1], width)])


def from_strips(flat: Array, rows: int, columns: int, width: int) -> Array:
    parts, at = [], 0
    for left in range(0, columns, width):
        size = rows * min(width, columns - left)
        parts.append(flat[at : at + size].reshape(rows, -1))
        at += size
    return np.concatenate(parts, axis=1)


def unfused(
    launches: tuple[Launch, ...], memory: Memory, allowed: Callable[[int], Array], cut: Products, group: int
) -> None:
    """Three launches over tiles stored one by one. An operand that an item does not load is one that was loaded."""
    scores, softmax, outputs = launches
    held: dict[tuple[str, int, int, int], Array] = {}
    for item, loads, writes in steps_of(scores, memory):
        head, tile = divmod(item, cut.q_tiles * cut.kv_tiles)
        i, j = divmod(tile, cut.kv_tiles)
        if "Q" in loads:
            held["Q", head, i, 0] = loads["Q"][0][1]
        if "K" in loads:
            held["K", head, j, 0] = loads["K"][0][1]
        for touch in writes:
            memory.store(touch, 1, held["Q", head, i, 0] @ held["K", head, j, 0].T)
    for _, loads, writes in steps_of(softmax, memory):
        if loads:
            at, strip = loads["S"][0]
            tiles = [strip.reshape(-1)[at.rows * key : at.rows * (key + keys)].reshape(at.rows, keys)
                     for key, keys in map(cut.kv_tile, range(cut.kv_tiles))]  # fmt: skip
            rows = masked(np.concatenate(tiles, axis=1), allowed(at.head)[at.row : at.row + at.rows])
            p = np.exp(rows - np.where(np.isneginf(rows.max(1)), 0, rows.max(1))[:, None])
            p = p / np.where(p.sum(1) > 0, p.sum(1), 1)[:, None]
        for touch in writes:
            memory.store(touch, cut.n_kv, in_strips(p, cut.cols))
    strips = -(-memory.data["V", 0].size // (cut.n_kv * cut.width))
    acc = np.empty(0)
    for item, loads, writes in steps_of(outputs, memory):
        head, tile = divmod(item, cut.q_tiles * strips)
        i, strip = divmod(tile, strips)
        for touch in writes:
            memory.store(touch, 1, acc)
        if loads:
            block = loads["P"][0][1].reshape(cut.q_tile(i)[1], -1)
            j = 0 if loads["P"][0][0].row == cut.q_tile(i)[0] * cut.n_kv else j + 1
            if "V" in loads:
                held["V", head, j, strip] = loads["V"][0][1].reshape(block.shape[1], -1)
            product = block @ held["V", head, j, strip]
            acc = product if j == 0 else acc + product


def recompute_values(
    launch: Launch, memory: Memory, allowed: Callable[[int], Array], parts: list[tuple[int, int]]
) -> None:
    """The walk over keys once per chunk of value columns."""
    chunk = 0
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            chunk, last, state = 0, item, None
        if "Q" in loads:
            at, q = loads["Q"][0]
        if "K" in loads:
            (key, k), (_, v) = loads["K"][0], loads["V"][0]
            state = Rows(at.rows, parts[chunk][1]) if state is None else state
            seen = allowed(at.head)[at.row : at.row + at.rows, key.row : key.row + key.rows]
            state.add(masked(q @ k.T, seen), v.reshape(key.rows, -1))
        for touch in writes:
            if touch.tensor == "O":
                width = parts[chunk][1]
                done = Rows(touch.rows // width, width) if state is None else state
                memory.store(touch, 1, done.output())
                chunk, state = chunk + 1, None
            else:
                memory.store(touch, 1, done.lse())


def square_tiling(
    launches: tuple[Launch, ...], memory: Memory, allowed: Callable[[int], Array], d: int, d_v: int, block: int,
    safe: bool,
) -> None:  # fmt: skip
    """Scores block by block through slow memory; phase 2 multiplies them with blocks of V."""
    first, second = launches
    widths = [min(block, d - left) for left in range(0, d, block)]
    assert first.program is not None
    assert second.program is not None
    state: Rows | None = None
    depth, first_key, scores = 0, 0, np.empty(0)
    for item, loads, writes in steps_of(first, memory):
        head, tile = divmod(item, first.program.tiles)
        row = tile * block
        if "Q" in loads:
            q = loads["Q"][0][1].reshape(-1, widths[depth])
            key, k = loads["K"][0][0], loads["K"][0][1].reshape(-1, widths[depth])
            scores = q @ k.T if depth == 0 else scores + q @ k.T
            first_key = key.row // widths[0] if depth == 0 else first_key
            depth = (depth + 1) % len(widths)
        for touch in writes:
            if touch.tensor == "S":
                seen = allowed(head)[row : row + scores.shape[0], first_key : first_key + scores.shape[1]]
                state = Rows(len(scores), 1) if state is None else state
                shown = masked(scores, seen)
                state.add(shown if safe else np.where(seen, scores, -np.inf), np.zeros((scores.shape[1], 1)))
                memory.store(touch, 1, shown if safe else np.exp(shown))
            else:
                done = Rows(touch.rows, 1) if state is None else state
                unshifted = done.l * np.exp(np.where(np.isneginf(done.m), 0, done.m))
                memory.store(touch, 1, {"l": done.l if safe else unshifted, "m": done.m}[touch.tensor])
        state = None if writes and writes[0].tensor != "S" else state
    last, part = -1, 0
    for item, loads, writes in steps_of(second, memory):
        if item != last:
            last, part, acc = item, 0, None
        if "l" in loads:
            total = loads["l"][0][1][:, 0]
            top = loads["m"][0][1][:, 0] if safe else np.zeros(len(total))
        if "S" in loads:
            width = min(block, d_v - part * block)
            v = loads["V"][0][1].reshape(-1, width)
            p = loads["S"][0][1].reshape(-1, len(v))
            p = np.exp(p - np.where(np.isneginf(top), 0, top)[:, None]) if safe else p
            acc = p @ v if acc is None else acc + p @ v
        for touch in writes:
            width = min(block, d_v - part * block)
            made = np.zeros((touch.rows // width, width)) if acc is None else acc
            memory.store(touch, 1, made / np.where(total > 0, total, 1)[:, None])
            part, acc = part + 1, None


def backward(launches: tuple[Launch, ...], memory: Memory, allowed: Callable[[int], Array]) -> None:
    """Any of the backward kernels: main launches by what they load, the others by what they write."""
    for launch in launches:
        assert launch.program is not None
        width = launch.program.row_elements
        last = -1
        for item, loads, writes in steps_of(launch, memory):
            if item != last:
                last, kept = item, {}
            if launch.name in ("preprocess", "clear", "convert", "reduce"):
                for name, arrays in loads.items():
                    kept[name.split("_")[0]] = sum(values for _, values in arrays)
                if "dO" in loads:
                    kept["D"] = (loads["O"][0][1] * loads["dO"][0][1]).sum(1)
                for touch in writes:
                    value = kept.get(touch.tensor, np.zeros((touch.rows, width[touch.tensor])))
                    memory.store(touch, width[touch.tensor], value)
                continue
            for name in ("K", "V", "Q", "dO", "LSE", "D"):
                if name in loads:
                    kept[name] = loads[name][0]
                    kept.pop("made", None)
            if "made" not in kept and "Q" in kept and "K" in kept and "V" in kept:
                (q_at, q), (k_at, k) = kept["Q"], kept["K"]
                seen = allowed(q_at.head)[q_at.row : q_at.row + q_at.rows, k_at.row : k_at.row + k_at.rows]
                lse = np.where(np.isneginf(kept["LSE"][1]), 0, kept["LSE"][1])
                p = np.where(seen, np.exp(q @ k.T - lse), 0)
                do, v = kept["dO"][1], kept["V"][1]
                ds = p * (do @ v.T - kept["D"][1])
                kept["made"] = {"dQ": ds @ k, "dK": ds.T @ q, "dV": p.T @ do}
                for name, value in kept["made"].items():
                    kept[name] = kept[name] + value if _same(kept, name, launch) else value
            for touch in writes:
                name = touch.tensor.split("_")[0]
                if touch.tensor.endswith("_accum"):
                    old = loads[touch.tensor][0][1]
                    memory.store(touch, width[touch.tensor], old + kept["made"][name])
                else:
                    memory.store(
                        touch, width[touch.tensor], kept.get(name, np.zeros((touch.rows, width[touch.tensor])))
                    )


def _same(kept: dict, name: str, launch: Launch) -> bool:
    """Whether a gradient's rows stay with the item: dK and dV of a K/V-outer launch, dQ of a Q-outer one."""
    by_key = any(m.tensor in ("dK", "dK_expanded") and m.write_elements for m in launch.traffic.moved)
    return name in kept and (name != "dQ") == by_key
