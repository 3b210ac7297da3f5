"""RAT: a gated recurrence inside chunks of L tokens, softmax attention across the chunks' last states.

With gates g_t, and starting again in every chunk,
    k~_t = g_t k~_{t-1} + (1 - g_t) k_t,    v~_t = g_t v~_{t-1} + (1 - g_t) v_t
and token t attends to the last k~, v~ of each chunk before its own and to its own k~_t, v~_t.
Words, N tokens in n = ceil(N / L) chunks, w = max(d, d_v) gate words per token and key/value head, e = d + d_v;
a Q tile of B_r rows whose last row lies in chunk c reads the tiles of B_c summaries that begin before c, R words of
rows x d and S summaries in all (clipped to the n - 1 that any token sees):
  recurrence  per key/value head   reads N (e + w)            writes N e
  across      per head             reads N d + S e            writes N d_v + N (log-sum-exp)
  merge       per head             reads N (2 d + 2 d_v + 1)  writes N d_v
The layer reads summaries where they lie among the states, one row in L. `fused` merges where the tile of Q is: across
reads N d + S e + N e and writes N d_v, and there is no merge launch. The output gate is a later product, not counted.
FLOP: recurrence e (3 N - 2 n) + N w; across 2 e per pair of token and summary before its chunk, executed on whole
tiles; merge 2 d + 3 d_v per token, fused 2 e. Exponentials: one per score of a visited tile and one per own score;
corrections: rows per visited tile and one per token.
The function is not linear attention, and L0 of softmax attention does not hold: with one key to see, the first
chunk's queries do not matter (`floors.linear.summary_bounds`).
Sources: Wei et al. 2025, RAT (arXiv 2507.04416) section 3; CLAIRE-Labo/RAT src/model/backbone/rat/rat.py: a scan,
FlexAttention with its log-sum-exp, and a merge. There keys of two groups are repeated to all heads before the gates,
so key/value heads are as many as heads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iosim.exact import ceil_div, most
from iosim.kernels.algorithm import STAGES, Algorithm, Call, Parameter, register
from iosim.kernels.blocks import Extent, Strips, strips
from iosim.kernels.linear_parts import Chunks, causal_chunks
from iosim.kernels.programs import Step
from iosim.masks.sums import floor_sum, steps_below
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

#: tensors as wide as an operand; gates and the log-sum-exp are fp32, as the released layer keeps them
LIKE = {"K_state": "K", "V_state": "V", "O_across": "O", "g": "LSE"}


@dataclass(frozen=True, slots=True)
class Recurrent:
    """One call: chunks of the recurrence, tiles of queries, tiles of summaries."""

    cut: Chunks
    """sizes, and which heads share keys"""
    chunk: int
    """L"""
    q_tiles: Strips
    """(first row, rows) of each Q tile"""
    summary_tiles: Strips
    """(first chunk, chunks) of each tile of summaries that some token sees"""

    @property
    def tokens(self) -> int:
        """N."""
        return self.cut.problem.n_kv

    @property
    def gate(self) -> int:
        """w: gate words per token, which keys and values share."""
        return most(self.cut.problem.shape.head_dim, self.cut.problem.shape.head_dim_v)

    @property
    def pair_elements(self) -> int:
        """e = d + d_v."""
        return self.cut.problem.pair_elements

    def visited(self, tile: Extent) -> Sequence[Extent]:
        """Tiles of summaries that the last row of a Q tile sees a part of."""
        return self.summary_tiles[: ceil_div((tile[0] + tile[1] - 1) // self.chunk, self.summary_tiles.width)]

    def walks(self) -> Walks:
        """Sums over the visited tiles of all Q tiles: floors of a line in the tile's number, all but the last tile's."""
        rows, cols, seen = self.q_tiles.width, self.summary_tiles.width, self.summary_tiles.extent
        others, span = self.q_tiles.number - 1, self.chunk * cols
        start, most_tiles = rows - 1 + self.chunk * (cols - 1), self.summary_tiles.number
        tiles = floor_sum(others, rows, start, span)
        clipped = others - steps_below(others, rows, start, most_tiles * span)  # those that reach the short last tile
        summaries = cols * tiles - clipped * (most_tiles * cols - seen)
        last = self.tokens - others * rows
        return Walks(
            tiles=tiles + most_tiles,
            tile_rows=tiles * rows + most_tiles * last,
            summaries=summaries + seen,
            area=summaries * rows + seen * last,
        )

    def moved(self, tensor: str, heads: int, read: int = 0, write: int = 0) -> Moved:
        """Elements over so many heads."""
        return Moved(tensor, self.cut.problem.types.bits(LIKE.get(tensor, tensor)), heads * read, heads * write)


@dataclass(frozen=True, slots=True)
class Walks:
    """Sums over pairs of a Q tile and a tile of summaries that it visits."""

    tiles: int
    """pairs"""
    tile_rows: int
    """rows of the Q tile"""
    summaries: int
    """summaries of the tile"""
    area: int
    """rows x summaries"""


def recurrent_of(call: Call) -> Recurrent:
    """What a call computes.

    Raises:
        UsageError: not causal, lengths that differ, or V within K.
    """
    cut, chunk = causal_chunks(call, "summaries are of the chunks before"), call.number("chunk")
    seen = (call.problem.n_kv - 1) // chunk
    return Recurrent(cut, chunk, strips(call.problem.n_q, call.tiling.rows), strips(seen, call.tiling.cols))


def launches(call: Call) -> tuple[Launch, ...]:
    """The recurrence, attention across chunks, and what joins it with a token's own state."""
    made, fused = recurrent_of(call), call.flag("fused")
    return (_recurrence(made), _across(made, fused), *(() if fused else (_merge(made),)))


def _recurrence(made: Recurrent) -> Launch:
    """One chunk of one key/value head per item."""
    shape, n = made.cut.problem.shape, made.tokens
    heads, chunks = shape.batch * shape.kv_heads, strips(n, made.chunk)
    widths = {"K": shape.head_dim, "V": shape.head_dim_v, "g": made.gate}
    written = {"K_state": shape.head_dim, "V_state": shape.head_dim_v}

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, chunks.number)
        yield tuple(Touch(tensor, head, *chunks[index], False) for tensor in widths)
        yield tuple(Touch(tensor, head, *chunks[index], True) for tensor in written)

    moved = [made.moved(tensor, heads, n * width) for tensor, width in widths.items()]
    moved += [made.moved(tensor, heads, 0, n * width) for tensor, width in written.items()]
    flop = heads * (made.pair_elements * (3 * n - 2 * chunks.number) + n * made.gate)
    program = Program(heads, chunks.number, widths | written, steps)
    return Launch("recurrence", program.items, Traffic(tuple(moved)), Work(0, flop, flop), program)


def _across(made: Recurrent, fused: bool) -> Launch:
    """One Q tile per item walks the summaries before it; `fused`: and its own states."""
    shape, n, heads = made.cut.problem.shape, made.tokens, made.cut.heads
    widths = {"Q": shape.head_dim, "K_state": shape.head_dim, "V_state": shape.head_dim_v}
    written = {"O": shape.head_dim_v} if fused else {"O_across": shape.head_dim_v, "LSE": 1}
    walks, own = made.walks(), n * fused

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, made.q_tiles.number)
        at, owner = made.q_tiles[index], made.cut.kv_head(head)
        yield (Touch("Q", head, *at, False),)
        for first, size in made.visited(at):
            ends = [(chunk + 1) * made.chunk - 1 for chunk in range(first, first + size)]
            yield tuple(Touch(tensor, owner, end, 1, False) for tensor in ("K_state", "V_state") for end in ends)
        if fused:
            yield tuple(Touch(tensor, owner, *at, False) for tensor in ("K_state", "V_state"))
        yield tuple(Touch(tensor, head, *at, True) for tensor in written)

    moved = [made.moved("Q", heads, n * shape.head_dim)]
    moved += [made.moved(t, heads, (walks.summaries + own) * widths[t]) for t in ("K_state", "V_state")]
    moved += [made.moved(tensor, heads, 0, n * width) for tensor, width in written.items()]
    each = 2 * made.pair_elements
    work = Work(
        tile_pairs=walks.tiles,
        flop=each * (chunks_before(n, made.chunk) + own),
        flop_executed=each * (walks.area + own),
        exp=walks.area + own,
        exp_rescale=walks.tile_rows + own,
    )
    program = Program(heads, made.q_tiles.number, widths | written, steps)
    return Launch("across", program.items, Traffic(tuple(moved)), work * heads, program)


def chunks_before(tokens: int, chunk: int) -> int:
    """Pairs of one of the first tokens and a chunk before its own."""
    whole, rest = tokens // chunk, tokens % chunk
    return chunk * whole * (whole - 1) // 2 + rest * whole


def _merge(made: Recurrent) -> Launch:
    """Each token's own score and value joined with what it got from the chunks before, by their log-sum-exps."""
    shape, n, heads = made.cut.problem.shape, made.tokens, made.cut.heads
    d, d_v = shape.head_dim, shape.head_dim_v
    widths = {"Q": d, "K_state": d, "V_state": d_v, "O_across": d_v, "LSE": 1, "O": d_v}

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, made.q_tiles.number)
        at, owner = made.q_tiles[index], {"K_state": made.cut.kv_head(head), "V_state": made.cut.kv_head(head)}
        yield tuple(Touch(tensor, owner.get(tensor, head), *at, False) for tensor in widths if tensor != "O")
        yield (Touch("O", head, *at, True),)

    moved = [made.moved(tensor, heads, n * width) for tensor, width in widths.items() if tensor != "O"]
    work = Work(0, n * (2 * d + 3 * d_v), n * (2 * d + 3 * d_v), n, n) * heads
    program = Program(heads, made.q_tiles.number, widths, steps)
    return Launch("merge", program.items, Traffic((*moved, made.moved("O", heads, 0, n * d_v))), work, program)


def working_set(call: Call) -> WorkingSet:
    """Of the attention across: FlashAttention-2's tiles of Q and of summaries, and the fused kernel's own states."""
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    row = shape.head_dim * bits("K") + shape.head_dim_v * bits("V")
    shared = tiling.rows * (shape.head_dim * bits("Q") + call.flag("fused") * row)
    shared += call.number("stages") * tiling.cols * row
    registers = tiling.rows * (tiling.cols + shape.head_dim_v + 2) * bits("accumulator")
    return WorkingSet(shared // 8, registers // 8)


CHUNK = Parameter("chunk", 16, "tokens of a chunk, which end in one summary of keys and one of values", least=1)

RAT = register(
    Algorithm(
        name="rat",
        title="RAT: recurrence inside chunks, attention across them",
        source="Wei et al. 2025, arXiv 2507.04416",
        algorithm_class="summaries",
        phases=("prefill",),
        parameters=(
            STAGES,
            CHUNK,
            Parameter("fused", False, "attention across chunks joins a token's own state itself"),
        ),
        launches=launches,
        working_set=working_set,
        packs=False,
    )
)
