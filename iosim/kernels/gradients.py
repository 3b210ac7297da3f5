"""The launches around the main one of a backward pass: D, cleared accumulators, conversion, sums over a group.

Counts are in `backward`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from iosim.attention import Attention
from iosim.exact import decide
from iosim.kernels.algorithm import Call, head_sums, moved
from iosim.kernels.programs import HeadTiles, Step, head_tiles
from iosim.schedule import Launch, Moved, Program, Touch, Traffic


def widths(problem: Attention) -> dict[str, int]:
    """Elements of one row of each tensor; a latent V is a slice of K and has no gradient of its own."""
    shape = problem.shape
    value = {} if shape.latent else {"V": shape.head_dim_v, "dV": shape.head_dim_v}
    rows = {"Q": shape.head_dim, "dO": shape.head_dim_v, "O": shape.head_dim_v, "dQ": shape.head_dim}
    return {**rows, "LSE": 1, "D": 1, "K": shape.head_dim, "dK": shape.head_dim, **value}


def preprocess(call: Call, clear: int) -> Launch:
    """D = rowsum(dO O), and zeros into `clear` accumulators of dQ."""
    problem, plan, elements = call.problem, head_tiles(call), widths(call.problem)
    rows = plan.heads * problem.n_q
    written = [moved(problem, "D", write=rows)]
    if decide(clear != 0):
        written.append(accumulator(problem, "dQ", 0, rows * elements["dQ"] * clear))
    read = (moved(problem, name, read=rows * elements[name]) for name in ("O", "dO"))

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at = plan.q_tile(head, tile)
        yield tuple(Touch(name, head, *at, False) for name in ("O", "dO"))
        yield (Touch("D", head, *at, True), *_copies("dQ_accum", head, at, accumulator_rows(plan), clear, write=True))

    named = {name: elements[name] for name in ("O", "dO", "D")} | {"dQ_accum": elements["dQ"]}
    program = Program(plan.heads, plan.tiles, named, steps)
    return Launch("preprocess", program.items, Traffic((*read, *written)), program=program)


def clear_keys(call: Call, gradients: tuple[str, ...]) -> Launch:
    """Zeros into the accumulators of dK and dV."""
    return _by_kv_tile(call, "clear", lambda name: (), lambda name: (f"{name}_accum",), gradients)


def reduce_group(call: Call) -> tuple[Launch, ...]:
    """dK and dV per query head, summed over each group; nothing to do for groups of one."""
    problem = call.problem
    if decide(problem.shape.group == 1):
        return ()
    gradients = tuple(short for _, short in key_gradients(problem))
    return (_by_kv_tile(call, "reduce", lambda name: (f"{name}_expanded",), lambda name: (name,), gradients),)


def convert(call: Call, name: str, gradients: tuple[str, ...], buffers: int, by_key: bool) -> Launch:
    """fp32 accumulators to the output type, `buffers` of them summed."""
    if by_key:
        return _by_kv_tile(call, name, lambda name: (f"{name}_accum",), lambda name: (name,), gradients)
    problem, plan, elements = call.problem, head_tiles(call), widths(call.problem)
    words = plan.heads * problem.n_q * elements["dQ"]

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at = plan.q_tile(head, tile)
        yield _copies("dQ_accum", head, at, accumulator_rows(plan), buffers, write=False)
        yield (Touch("dQ", head, *at, True),)

    program = Program(plan.heads, plan.tiles, {"dQ": elements["dQ"], "dQ_accum": elements["dQ"]}, steps)
    traffic = Traffic((accumulator(problem, "dQ", words * buffers, 0), moved(problem, "dQ", write=words)))
    return Launch(name, program.items, traffic, program=program)


def _by_kv_tile(
    call: Call,
    name: str,
    read: Callable[[str], tuple[str, ...]],
    written: Callable[[str], tuple[str, ...]],
    gradients: tuple[str, ...],
) -> Launch:
    """One item per KV tile of a key/value head that reads and writes forms of dK and dV."""
    problem, plan, elements = call.problem, head_tiles(call), widths(call.problem)
    shape = problem.shape
    heads = shape.batch * shape.kv_heads
    columns = head_sums(call).kv_tiles
    tensors, named = [], {}
    for gradient in gradients:
        for tensor, write in [*((t, False) for t in read(gradient)), *((t, True) for t in written(gradient))]:
            copies = shape.group if tensor.endswith("_expanded") else 1
            words = heads * copies * problem.n_kv * elements[gradient]
            bits = problem.types.bits(tensor.removesuffix("_expanded"))
            tensors.append(Moved(tensor, bits, *((0, words) if write else (words, 0))))
            named[tensor] = elements[gradient]

    def steps(item: int) -> Iterator[Step]:
        head, column = divmod(item, columns)
        at = plan.kv_tile(head * shape.group, column)
        step = []
        for tensor in (t for gradient in gradients for t in read(gradient)):
            heads_read = (
                range(head * shape.group, (head + 1) * shape.group) if tensor.endswith("_expanded") else (head,)
            )
            step += [Touch(tensor, *expanded(problem, each, at, tensor), False) for each in heads_read]
        yield tuple(step)
        yield tuple(Touch(t, head, *at, True) for gradient in gradients for t in written(gradient))

    program = Program(heads, columns, named, steps)
    return Launch(name, program.items, Traffic(tuple(tensors)), program=program)


def expanded(problem: Attention, head: int, at: tuple[int, int], tensor: str) -> tuple[int, int, int]:
    """(head, first row, rows) of a KV tile's gradient; those of a group's query heads lie one after another."""
    if not tensor.endswith("_expanded"):
        return head, *at
    owner, copy = divmod(head, problem.shape.group)
    return owner, copy * problem.n_kv + at[0], at[1]


def key_gradients(problem: Attention) -> list[tuple[str, str]]:
    """(tensor that K/V outer writes, gradient that it is of)."""
    names, alone = [name for name in ("dK", "dV") if name in widths(problem)], decide(problem.shape.group == 1)
    return [(name if alone else f"{name}_expanded", name) for name in names]


def accumulator(problem: Attention, gradient: str, read: int, write: int) -> Moved:
    return moved(problem, f"{gradient}_accum", read, write)


def accumulator_rows(plan: HeadTiles) -> int:
    """Rows of one accumulator of a head."""
    return plan.tiles * plan.rows


def _copies(tensor: str, head: int, at: tuple[int, int], span: int, count: int, write: bool) -> Step:
    """The same rows of `count` accumulators that lie one after another."""
    return tuple(Touch(tensor, head, copy * span + at[0], at[1], write) for copy in range(count))
