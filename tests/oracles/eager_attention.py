"""Attention as an eager framework runs it, forward and backward: two programs that share nothing with iosim's counts.

`Eager` calls whole-tensor operations, each of which counts all of its inputs as read and its output as written.
`follow` computes the same from the touches of schedules: it sees only the rows that they bring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from oracles.numpy_kernels import Memory, from_strips, in_strips, steps_of

from iosim.kernels.products import Products
from iosim.schedule import Launch

Array = np.ndarray
SCALE, KEEP = 0.5, 0.75


@dataclass
class Choices:
    """What runs as an operation of its own."""

    scale: bool
    mask: str
    dropout: bool
    copies: bool
    mask_copy: bool


class Eager:
    """Tensors of one head and the elements that operations moved."""

    def __init__(self, tensors: dict[str, Array]) -> None:
        self.at = dict(tensors)
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def run(self, made: str, operation: Callable[..., Array], *sources: str, passes: int = 1) -> None:
        for source in sources:
            self.read[source] += passes * self.at[source].size
        self.at[made] = operation(*(self.at[source] for source in sources))
        self.written[made] += self.at[made].size

    def mask_reads(self, choices: Choices, n_kv: int, strips: int) -> None:
        """A strip of rows reads each byte that it needs once."""
        self.read["M"] += strips * n_kv if choices.mask == "padding" else self.at["M"].size


def softmax(scores: Array) -> Array:
    top = scores.max(-1, keepdims=True)
    p = np.exp(scores - np.where(np.isneginf(top), 0, top))
    total = p.sum(-1, keepdims=True)
    return p / np.where(total > 0, total, 1)


def softmax_gradient(p: Array, dp: Array) -> Array:
    return p * (dp - (p * dp).sum(-1, keepdims=True))


def hide(scores: Array, allowed: Array) -> Array:
    return np.where(allowed, scores, -np.inf)


def forward(e: Eager, choices: Choices, allowed: Array, z: Array, passes: int, strips: int) -> None:
    """Reads Q, K, V, M; leaves O and what the gradients need. `allowed`: the mask inside softmax."""
    q, k, v = ("Q", "K", "V")
    if choices.copies:
        e.run("K_scaled", lambda k: SCALE * k, "K")
        for source, made in (("Q", "Q_copy"), ("K_scaled", "K_copy"), ("V", "V_copy")):
            e.run(made, np.copy, source)
        q, k, v = "Q_copy", "K_copy", "V_copy"
    e.run("S", lambda q, k: q @ k.T, q, k)
    if choices.scale:
        e.run("S", lambda s: SCALE * s, "S")
    if choices.mask != "none":
        e.run("S", lambda s: hide(s, e.at["M"]), "S")
        e.mask_reads(choices, e.at["S"].shape[1], strips)
    e.run("P", lambda s: softmax(hide(s, allowed)), "S", passes=passes)
    weights = "P"
    if choices.dropout:
        e.run("P_dropped", lambda p: p * z / KEEP, "P")
        e.at["Z"], weights = z, "P_dropped"
        e.written["Z"] += z.size
    e.run("O", lambda p, v: p @ v, weights, v)


def backward(e: Eager, choices: Choices, passes: int, strips: int, shared: bool) -> None:
    """Reads dO and what `forward` left; `shared`: key/value gradients are summed over query heads later."""
    q, k, v = ("Q_copy", "K_copy", "V_copy") if choices.copies else ("Q", "K", "V")
    first = "dP_dropped" if choices.dropout else "dP"
    suffix = "_expanded" if shared else ""
    e.run(first, lambda do, v: do @ v.T, "dO", v)
    e.run("dV" + suffix, lambda p, do: p.T @ do, "P_dropped" if choices.dropout else "P", "dO")
    if choices.dropout:
        e.run("dP", lambda dp, z: dp * z / KEEP, "dP_dropped", "Z")
    e.run("dS", softmax_gradient, "P", "dP", passes=passes)
    ds = "dS"
    if choices.mask != "none":
        ds = "dS_masked"
        if choices.mask_copy:
            e.run(ds, np.copy, "dS")
        e.run(ds, lambda s: np.where(e.at["M"], s, 0), ds if choices.mask_copy else "dS")
        e.mask_reads(choices, e.at[ds].shape[1], strips)
    if choices.scale:
        e.run(ds, lambda s: SCALE * s, ds)
    e.run("dQ", lambda s, k: s @ k, ds, k)
    made = "dK_scaled" if choices.copies else "dK" + suffix
    e.run(made, lambda s, q: s.T @ q, ds, q)
    if choices.copies:
        e.run("dK", lambda dk: SCALE * dk, "dK_scaled")
        for part in ("dQ", "dK", "dV"):
            e.run(f"dQKV_{part}", np.copy, part)


# --- by touches ---------------------------------------------------------------------------------


def follow(launches: tuple[Launch, ...], memory: Memory, cut: Products, allowed: Array, z: Array, passes: int) -> None:
    """Every launch of a schedule, by its name."""
    for launch in launches:
        if launch.name in ("scores", "product-dP"):
            _scores(launch, memory, cut)
        elif launch.name in ("outputs", "product-dQ"):
            _walk(launch, memory, cut, by_key=False)
        elif launch.name in ("product-dV", "product-dK"):
            _walk(launch, memory, cut, by_key=True)
        else:
            _rows(launch, memory, cut, allowed, z, passes)


def _scores(launch: Launch, memory: Memory, cut: Products) -> None:
    held: dict[tuple[bool, int, int], Array] = {}
    for item, loads, writes in steps_of(launch, memory):
        head, tile = divmod(item, cut.q_tiles * cut.kv_tiles)
        i, j = divmod(tile, cut.kv_tiles)
        for tensor, ((_, values),) in loads.items():
            by_key = tensor[0] in "KV"
            held[by_key, head, j if by_key else i] = values
        for touch in writes:
            memory.store(touch, 1, held[False, head, i] @ held[True, head, j].T)


def _walk(launch: Launch, memory: Memory, cut: Products, by_key: bool) -> None:
    """Rows of scores times a key operand, or the transpose times a row operand, one tile of the result per item."""
    assert launch.program is not None
    per_head = launch.program.items // launch.program.heads
    held: dict[tuple[int, int, int], Array] = {}
    last = -1
    for item, loads, writes in steps_of(launch, memory):
        head, index = divmod(item, per_head)
        strips = per_head // (cut.kv_tiles if by_key else cut.q_tiles)
        tile, strip = divmod(index, strips)
        if item != last:
            last, step, total = item, 0, None
        for touch in writes:
            memory.store(touch, launch.program.row_elements[touch.tensor], total)
        if not loads:
            continue
        i, j = (step, tile) if by_key else (tile, step)
        (scores,) = (tensor for tensor in loads if tensor[0] == "P" or tensor.startswith("dS"))
        block = loads.pop(scores)[0][1].reshape(cut.q_tile(i)[1], cut.kv_tile(j)[1])
        block = block.T if by_key else block
        for ((_, values),) in loads.values():
            held[head, step, strip] = values.reshape(block.shape[1], -1)
        product = block @ held[head, step, strip]
        total = product if total is None else total + product
        step += 1


def _rows(launch: Launch, memory: Memory, cut: Products, allowed: Array, z: Array, passes: int) -> None:
    assert launch.program is not None
    width = launch.program.row_elements
    seen: dict[str, Array] = {}
    last, loaded = -1, 0
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            last, loaded = item, 0
        loaded += bool(loads)
        for tensor, arrays in loads.items():
            seen[tensor] = sum((values for _, values in arrays[1:]), start=arrays[0][1])  # a group's gradients add
        if writes:
            assert loaded == (passes if launch.name == "softmax" else 1)
            square = {t: from_strips(v.reshape(-1), len(v), cut.n_kv, cut.cols) for t, v in seen.items() if _square(t)}
        for touch in writes:
            rows = slice(touch.row, touch.row + touch.rows)
            value = _result(launch.name, touch.tensor, seen | square, allowed[rows], z[touch.head % len(z), rows])
            memory.store(touch, width[touch.tensor], in_strips(value, cut.cols) if _square(touch.tensor) else value)


def _result(launch: str, tensor: str, seen: dict[str, Array], allowed: Array, z: Array) -> Array:
    """Rows of `tensor` from the rows that the item has loaded."""
    (source,) = [name for name in seen if name not in ("M", "Z")][:1]
    operations: dict[tuple[str, str], Callable[[], Array]] = {
        ("softmax", "P"): lambda: softmax(hide(seen["S"], allowed)),
        ("softmax", "dS"): lambda: softmax_gradient(seen["P"], seen["dP"]),
        ("dropout", "Z"): lambda: z,
        ("dropout", "P_dropped"): lambda: seen["P"] * z / KEEP,
        ("dropout", "dP"): lambda: seen["dP_dropped"] * seen["Z"] / KEEP,
        ("mask", "S"): lambda: hide(seen["S"], seen["M"] != 0),
        ("mask", "dS_masked"): lambda: np.where(seen["M"] != 0, seen[source], 0),
        ("scale", tensor): lambda: SCALE * seen[tensor],
        ("copy-K_scaled", "K_scaled"): lambda: SCALE * seen["K"],
        ("scale-dK", "dK"): lambda: SCALE * seen["dK_scaled"],
        ("reduce", tensor): lambda: seen[f"{tensor}_expanded"],
    }
    return operations.get((launch, tensor), lambda: seen[source])()


def _square(tensor: str) -> bool:
    return tensor.split("_")[0] in ("S", "P", "Z", "dP", "dS")
