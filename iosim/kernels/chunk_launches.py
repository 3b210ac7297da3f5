"""Launches that released chunk kernels have beside states and outputs: sums of gates, scores in memory, states passed on.

Words per head, N tokens in n chunks of r <= c, blocks of s score rows, m = ceil(r / s) of them in a chunk, w gate words:
    cumsum          per key/value head: reads N w, writes N w: later launches read the sums within chunks
    scores: lower   for block i and each j < i reads r_i (d + w) + r_j (d + w) + w (the sums at i's first token), and for
                    its own reads r_i (2 d + 2 w); writes r_i r_j for j <= i, in fp32
    scores: whole   for all i and j reads (r_i + r_j) d, writes r_i r_j, in fp32; decays come with the outputs
    pass            per block of value columns and chunk: reads f d_v of the chunk's own state in fp32 and w, writes the
                    state before it; at the end the last state, in fp32
The outputs read whole rows of `lower` scores, N c words per block of value columns, what nobody wrote included. Of
`whole` scores a block of rows reads those of the blocks up to its own, with their values and gates. Padding of a short
last chunk is not counted. Exponentials of `lower` scores: (r_i + r_j) w for each j < i, r_i^2 w for its own.
Sources: fla-org/flash-linear-attention fla/ops/gla/chunk.py, fla/ops/common/chunk_h.py, fla/ops/utils/cumsum.py (lower,
blocks of 16); state-spaces/mamba mamba_ssm/ops/triton/ssd_combined.py and the files that it calls (whole, passed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from iosim.errors import UsageError
from iosim.exact import ceil_div, decide
from iosim.kernels.algorithm import Call, Parameter
from iosim.kernels.blocks import Extent, Strips, score_block, strips
from iosim.kernels.linear_parts import Chunks, causal_pairs, square_pairs
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work

CUMSUM = Parameter("cumsum", False, "a launch sums the gates within chunks before others read them")
SCORES = Parameter(
    "scores",
    "none",
    "scores of chunks go through memory: none, lower blocks, or whole",
    choices=("none", "lower", "whole"),
)
SCORE_BLOCK = Parameter("score_block", 16, "rows and columns of one block of scores in memory", least=1)
PASS_STATES = Parameter("pass_states", False, "each chunk writes its own state, and a launch adds up those before it")
PARAMETERS = (CUMSUM, SCORES, SCORE_BLOCK, PASS_STATES)


def gates_of(call: Call) -> str:
    """The tensor that holds decays for the launches after the first."""
    return "g_sum" if call.settings.get("cumsum") else "g"


def check(call: Call, cut: Chunks) -> None:
    """Whether the launches fit together.

    Raises:
        UsageError: scores of mapped rows, decays per element over whole scores, launches that need sums of gates without.
    """
    kind = call.settings["scores"]
    if kind != "none" and call.settings["features"] != "identity":
        raise UsageError("scores in memory are of rows without a map", "--set scores", "features=identity")
    if kind == "whole" and call.settings["gate"] == "vector":
        raise UsageError("scores without decays take one per token", "--set scores", "gate=scalar, or scores=lower")
    needs = call.flag("pass_states") or kind != "none"
    if needs and not call.flag("cumsum") and decide(cut.gate != 0):
        raise UsageError("scores in memory and states passed on need sums of gates", "--set cumsum", "cumsum=true")


def gate_touches(cut: Chunks, tensor: str, head: int, at: Extent) -> tuple[Touch, ...]:
    """Decays of some tokens, or their sums; no gate, no touch."""
    return (Touch(tensor, cut.kv_head(head), *at, False),) if decide(cut.gate != 0) else ()


def moved_gates(call: Call, cut: Chunks, tokens: int) -> list[Moved]:
    """Decays of so many tokens; no gate, nothing."""
    return [cut.moved(gates_of(call), tokens * cut.gate)] if decide(cut.gate != 0) else []


def values_of(cut: Chunks, tensor: str, head: int, at: Extent, block: Extent, write: bool) -> Touch:
    """Rows of V, which query heads of a group share, or of a head's own U or corrected values."""
    (touch,) = cut.values(tensor, head, at, block, write)
    return touch if tensor == "V" else touch._replace(head=head)


def cumsum(call: Call, cut: Chunks) -> tuple[Launch, ...]:
    """One chunk of one key/value head per item."""
    if not call.flag("cumsum") or not decide(cut.gate != 0):
        return ()
    shape, bits, n = call.problem.shape, call.problem.types.bits, call.problem.n_kv
    heads, extents = shape.batch * shape.kv_heads, cut.chunks(n)

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, extents.number)
        yield (Touch("g", head, *extents[index], False),)
        yield (Touch("g_sum", head, *extents[index], True),)

    words = heads * n * cut.gate
    traffic = Traffic((Moved("g", bits("g"), words), Moved("g_sum", bits("g_sum"), 0, words)))
    program = Program(heads, extents.number, {"g": cut.gate, "g_sum": cut.gate}, steps)
    return (Launch("cumsum", program.items, traffic, Work(), program),)


def scores(call: Call, cut: Chunks) -> tuple[Launch, ...]:
    """One chunk of one head per item, block by block."""
    if call.settings["scores"] == "none":
        return ()
    extents, lower = cut.chunks(call.problem.n_kv), call.settings["scores"] == "lower"
    program = Program(cut.heads, extents.number, widths(call, cut), _lower(call, cut) if lower else _whole(call, cut))
    tensors, work = (_lower_counts if lower else _whole_counts)(call, cut)
    return (Launch("scores", program.items, Traffic(tensors), work * cut.heads, program),)


def _lower_counts(call: Call, cut: Chunks) -> tuple[tuple[Moved, ...], Work]:
    d, size, n, chunks = call.problem.shape.head_dim, call.number("score_block"), call.problem.n_kv, _chunks(call, cut)
    rows, columns = n + chunks.total(lambda r: later_rows(r, size)), n + chunks.total(lambda r: size * pairs(r, size))
    own = chunks.total(lambda r: own_area(r, size))
    area = own + size * (rows - n)
    tensors = [cut.moved("Q", rows * d), cut.moved("K", columns * d), cut.moved("scores", 0, area)]
    if decide(cut.gate != 0):
        first = chunks.total(lambda r: pairs(r, size))
        tensors.append(cut.moved(gates_of(call), (rows + columns + first) * cut.gate))
    work = Work(0, 2 * d * causal_pairs(chunks), 2 * d * area, cut.gate * (rows + columns - 2 * n + own))
    return tuple(tensors), work


def _whole_counts(call: Call, cut: Chunks) -> tuple[tuple[Moved, ...], Work]:
    d, size, chunks = call.problem.shape.head_dim, call.number("score_block"), _chunks(call, cut)
    rows, area = chunks.total(lambda r: ceil_div(r, size) * r), square_pairs(chunks)
    tensors = (cut.moved("Q", rows * d), cut.moved("K", rows * d), cut.moved("scores", 0, area))
    return tensors, Work(0, 2 * d * causal_pairs(chunks), 2 * d * area)


def _lower(call: Call, cut: Chunks) -> Callable[[int], Iterator[Step]]:
    """Blocks below the diagonal, then the one on it, whose keys and gates come once more row by row."""
    size, extents, gates = call.number("score_block"), _chunks(call, cut), gates_of(call)

    def steps(item: int) -> Iterator[Step]:
        head, number = divmod(item, extents.number)
        first, count = extents[number]
        blocks = strips(count, size)
        for own in blocks:
            at = first + own[0], own[1]
            for other in blocks[: own[0] // size]:
                there = first + other[0], other[1]
                decays = (touch for part in (at, there, (at[0], 1)) for touch in gate_touches(cut, gates, head, part))
                yield (*cut.rows("Q", head, at), *cut.rows("K", head, there), *decays)
                yield (_block(cut, head, number, own, other),)
            decays = (touch for _ in range(2) for touch in gate_touches(cut, gates, head, at))
            yield (*cut.rows("Q", head, at), *cut.rows("K", head, at), *decays)
            yield (_block(cut, head, number, own, own),)

    return steps


def _whole(call: Call, cut: Chunks) -> Callable[[int], Iterator[Step]]:
    """All blocks, those above the diagonal too."""
    size, extents = call.number("score_block"), _chunks(call, cut)

    def steps(item: int) -> Iterator[Step]:
        head, number = divmod(item, extents.number)
        first, count = extents[number]
        for own in strips(count, size):
            for other in strips(count, size):
                rows = cut.rows("Q", head, (first + own[0], own[1]))
                yield (*rows, *cut.rows("K", head, (first + other[0], other[1])))
                yield (_block(cut, head, number, own, other),)

    return steps


def passed(call: Call, cut: Chunks) -> tuple[Launch, ...]:
    """One block of value columns of one head per item, chunk after chunk."""
    if not call.flag("pass_states"):
        return ()
    extents, times, gates = _chunks(call, cut), cut.blocks.number, gates_of(call)
    words = cut.features * call.problem.shape.head_dim_v
    tensors = [cut.moved("chunk_states", extents.number * words), cut.moved("state_out", 0, words)]
    tensors.append(as_wide(cut, "states", "K", 0, extents.number * words))
    if decide(cut.gate != 0):
        tensors.append(cut.moved(gates, times * extents.number * cut.gate))

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, times)
        block = cut.blocks[index]
        yield (state(cut, "states", head, 0, block, True),)
        for number, (first, count) in enumerate(extents):
            last = gate_touches(cut, gates, head, (first + count - 1, 1))
            yield (state(cut, "chunk_states", head, number, block, False), *last)
            at, tensor = (number + 1, "states") if number + 1 < extents.number else (0, "state_out")
            yield (state(cut, tensor, head, at, block, True),)

    program = Program(cut.heads, times, widths(call, cut), steps)
    work = Work(0, 0, 0, times * extents.number * cut.gate) * cut.heads
    return (Launch("pass", program.items, Traffic(tuple(tensors)), work, program),)


def widths(call: Call, cut: Chunks) -> dict[str, int]:
    """Elements of one row of every tensor of the chunk kernels."""
    single = dict.fromkeys(("U", "V_new", "states", "chunk_states", "state_out", "scores"), 1)
    return cut.widths() | single | {"W": call.problem.shape.head_dim, "g_sum": cut.gate}


def state(cut: Chunks, tensor: str, head: int, number: int, block: Extent, write: bool) -> Touch:
    """The slice of a chunk's state that belongs to a block of value columns."""
    left, width = block
    at = cut.features * (number * cut.problem.shape.head_dim_v + left)
    return Touch(tensor, head, at, cut.features * width, write)


def as_wide(cut: Chunks, tensor: str, like: str, read: int = 0, write: int = 0) -> Moved:
    """A tensor of the call's own, as wide as an operand."""
    return Moved(tensor, cut.problem.types.bits(like), read * cut.heads, write * cut.heads)


def pairs(rows: int, size: int) -> int:
    """Pairs of a block of rows and an earlier one, of so many rows in blocks of one size."""
    return ceil_div(rows, size) * (ceil_div(rows, size) - 1) // 2


def later_rows(rows: int, size: int) -> int:
    """Rows of the later block, summed over those pairs."""
    others = ceil_div(rows, size) - 1
    return size * (others * (others - 1) // 2) + others * (rows - others * size)


def own_area(rows: int, size: int) -> int:
    """Elements of the blocks on the diagonal."""
    others = ceil_div(rows, size) - 1
    return others * size * size + (rows - others * size) * (rows - others * size)


def _chunks(call: Call, cut: Chunks) -> Strips:
    return cut.chunks(call.problem.n_kv)


def _block(cut: Chunks, head: int, number: int, rows: Extent, columns: Extent) -> Touch:
    """One block of scores, each stored contiguously; a chunk has room for all of its own."""
    first, count = score_block(cut.chunk, rows, columns)
    return Touch("scores", head, number * cut.chunk**2 + first, count, True)
