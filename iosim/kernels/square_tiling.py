"""Square tiling (Saha and Ye): for memories below d^2 words; scores go through slow memory once.

Words per head, blocks of B x B, n_q = ceil(N_q / B), n_k = ceil(N_kv / B), n_v = ceil(d_v / B):
    phase 1   reads N_q d n_k + N_kv d n_q           writes N_q N_kv + N_q (scores, row sums)
    phase 2   reads N_q N_kv n_v + N_kv d_v n_q + N_q   writes N_q d_v
which is about 4 N^2 d / B + N^2; under a mask only visited blocks count. The paper keeps three blocks and a
vector, B = floor(sqrt(M / 4)); `stationary=outer-product` keeps one block and a column and a row of its
operands, b^2 + 2 b + 1 <= M: the same words with B twice as large. Extents of the tile are B; the two must
be equal. As printed the paper exponentiates without a maximum; `safe` stores raw scores and the row maximum
beside the row sum (N_q more words each way), corrects that sum block by block as the maximum moves, and
exponentiates again in phase 2, as often as it reads a score.
Source: Saha, Ye 2024, The I/O complexity of attention (arXiv 2402.07443), algorithm 1 and theorem 3.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import Algorithm, Call, Parameter, moved, register, total_sums
from iosim.kernels.blocks import column_block, score_block, strips
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.schedule import Launch, Program, Touch, Traffic, Work, WorkingSet

STATISTICS = ("l", "m")


def launches(call: Call) -> tuple[Launch, ...]:
    """The two phases.

    Raises:
        UsageError: a tile that is not square, or a latent V, whose strips are not stored apart.
    """
    problem, shape = call.problem, call.problem.shape
    _check(call)
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q
    times = -(-shape.head_dim_v // call.tiling.cols)
    kept = STATISTICS[: 1 + call.flag("safe")]
    first = (
        moved(problem, "Q", read=sums.query_rows * shape.head_dim),
        moved(problem, "K", read=sums.key_rows * shape.head_dim),
        moved(problem, "S", write=sums.area),
        *(moved(problem, name, write=rows) for name in kept),
    )
    second = (
        moved(problem, "S", read=times * sums.area),
        moved(problem, "V", read=sums.key_rows * shape.head_dim_v),
        *(moved(problem, name, read=rows) for name in kept),
        moved(problem, "O", write=rows * shape.head_dim_v),
    )
    d, d_v, pairs = shape.head_dim, shape.head_dim_v, problem.counts().pairs
    safe = int(call.flag("safe"))
    scored = Work(sums.tile_pairs, 2 * d * pairs, 2 * d * sums.area, sums.area, safe * sums.query_rows)
    summed = Work(0, 2 * d_v * pairs, 2 * d_v * sums.area, safe * times * sums.area)
    return (
        Launch("scores", sums.q_tiles, Traffic(first), scored, _scores_program(call, kept)),
        Launch("outputs", sums.q_tiles, Traffic(second), summed, _outputs_program(call, kept)),
    )


def _check(call: Call) -> None:
    if not call.tiling.flat or decide(call.tiling.rows != call.tiling.cols):
        raise UsageError(f"square tiling needs a square tile, got {call.tiling}", "--tile", "for example 64x64")
    if call.problem.shape.latent:
        raise UsageError("square tiling reads strips of V, which a latent cache does not keep apart", "--kernel")


def _scores_program(call: Call, kept: tuple[str, ...]) -> Program:
    """One strip of score blocks per item; operands come in blocks of depth B."""
    problem, shape, plan = call.problem, call.problem.shape, head_tiles(call)
    depths = strips(shape.head_dim, call.tiling.cols)
    rows_all = plan.tiles * plan.rows

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at = plan.q_tile(head, tile)
        for column in plan.visits(head).tiles_of(tile).tolist():
            keys = plan.kv_tile(head, column)
            for depth in depths:
                q, k = column_block(rows_all, at, depth), column_block(problem.n_kv, keys, depth)
                yield Touch("Q", head, *q, False), Touch("K", head // plan.kv_share, *k, False)
            yield (Touch("S", head, *score_block(problem.n_kv, at, keys), True),)
        yield tuple(Touch(name, head, *at, True) for name in kept)

    elements = {"Q": 1, "K": 1, "S": 1, "l": 1, "m": 1}
    return Program(plan.heads, plan.tiles, elements, steps, pattern=shared_pattern(plan.visits))


def _outputs_program(call: Call, kept: tuple[str, ...]) -> Program:
    """One strip of rows per item, blocks of d_v outer, keys inner."""
    problem, shape, plan = call.problem, call.problem.shape, head_tiles(call)
    rows_all = plan.tiles * plan.rows

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at, columns = plan.q_tile(head, tile), plan.visits(head).tiles_of(tile).tolist()
        yield tuple(Touch(name, head, *at, False) for name in kept)
        for part in strips(shape.head_dim_v, call.tiling.cols):
            for column in columns:
                keys = plan.kv_tile(head, column)
                scores, values = score_block(problem.n_kv, at, keys), column_block(problem.n_kv, keys, part)
                yield Touch("S", head, *scores, False), Touch("V", head // plan.kv_share, *values, False)
            yield (Touch("O", head, *column_block(rows_all, at, part), True),)

    elements = {"S": 1, "V": 1, "O": 1, "l": 1, "m": 1}
    return Program(plan.heads, plan.tiles, elements, steps, pattern=shared_pattern(plan.visits))


def working_set(call: Call) -> WorkingSet:
    """Three blocks and a vector (the paper), or one block, a column and a row."""
    bits, block = call.problem.types.bits, call.tiling.rows
    if call.settings["stationary"] == "blocks":
        return WorkingSet(2 * block * block * bits("Q") // 8, (block * block + block) * bits("accumulator") // 8)
    return WorkingSet(2 * block * bits("Q") // 8, (block * block + 1) * bits("accumulator") // 8)


SQUARE_TILING = register(
    Algorithm(
        name="square-tiling",
        title="Square tiling for small memories",
        source="Saha, Ye 2024, arXiv 2402.07443, algorithm 1",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            Parameter(
                "stationary", "outer-product", "what stays on chip: one block, or the paper's three",
                choices=("outer-product", "blocks"),
            ),
            Parameter("safe", False, "keep the row maximum, so that no exponential overflows"),
        ),
        launches=launches,
        working_set=working_set,
        square=True,
    )
)  # fmt: skip
