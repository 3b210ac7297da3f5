"""Scores formed again for each chunk of d_v: fewer words than any kernel that forms them once, where d_v > d.

An item keeps its Q tile, and for each of n = ceil(d_v / w) chunks of value columns walks the visited KV tiles
anew; only a chunk of the output is on chip, so the Q tile can be taller.
Words per head, T_r Q tiles:
    reads   N_q d + T_r N_kv (n d + d_v)
    writes  N_q d_v + N_q (log-sum-exp)
With all of M words used the leading term is (n d + d_v)^2 P / (n M): below (d + d_v)^2 P / M, that of
FlashAttention-2, as soon as d_v > sqrt(2) d with n = 2. L1 bounds it; L2 and L3 do not speak of it.
Source: derived; docs/explanation/floors.md, the review of L2.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.errors import UsageError
from iosim.kernels.algorithm import (
    LSE,
    MMA_ROWS,
    STAGES,
    Algorithm,
    Call,
    Parameter,
    moved,
    register,
    total_sums,
    visited_work,
)
from iosim.kernels.blocks import Strips, column_block, strips
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.schedule import Launch, Program, Touch, Traffic, WorkingSet


def chunks(call: Call) -> Strips:
    """(first column, columns) of each chunk of the values.

    Raises:
        UsageError: V is a slice of K, so that reading K reads all of it.
    """
    shape = call.problem.shape
    if shape.latent:
        raise UsageError("recompute-dv chunks V, which a latent cache does not keep apart", "--kernel")
    return strips(shape.head_dim_v, call.number("value_block") or shape.head_dim)


def forward(call: Call) -> tuple[Launch, ...]:
    """The one launch."""
    problem, shape = call.problem, call.problem.shape
    sums, times = total_sums(problem, call.tiling), chunks(call).number
    rows = shape.batch * shape.heads * problem.n_q
    tensors = [
        moved(problem, "Q", read=sums.active_query_rows * shape.head_dim),
        moved(problem, "K", read=times * sums.key_rows * shape.head_dim),
        moved(problem, "V", read=sums.key_rows * shape.head_dim_v),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    once = visited_work(problem, sums, call.number("mma_rows"), tensors)
    scores = 2 * shape.head_dim * sums.area
    again = sums.query_rows * shape.head_dim * problem.types.bits("Q")
    again = again + -(-sums.area // call.number("mma_rows")) * shape.head_dim * problem.types.bits("K")
    work = replace(
        once,
        tile_pairs=times * once.tile_pairs,
        flop_executed=once.flop_executed + (times - 1) * scores,
        exp=times * once.exp,
        exp_rescale=times * once.exp_rescale,
        shared_bytes=once.shared_bytes + (times - 1) * again // 8,
    )
    return (Launch("forward", sums.q_tiles, Traffic(tuple(tensors)), work, _program(call)),)


def _program(call: Call) -> Program:
    """Chunks of values outer, KV tiles inner; V and O lie in strips of columns."""
    problem, shape, plan = call.problem, call.problem.shape, head_tiles(call)
    parts, rows_all = chunks(call), plan.tiles * plan.rows

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at, columns = plan.q_tile(head, tile), plan.visits(head).tiles_of(tile).tolist()
        if columns:
            yield (Touch("Q", head, *at, False),)
        for part in parts:
            for column in columns:
                keys, kv_head = plan.kv_tile(head, column), head // plan.kv_share
                values = column_block(problem.n_kv, keys, part)
                yield Touch("K", kv_head, *keys, False), Touch("V", kv_head, *values, False)
            yield (Touch("O", head, *column_block(rows_all, at, part), True),)
        if call.flag("lse"):
            yield (Touch("LSE", head, *at, True),)

    elements = {"Q": shape.head_dim, "K": shape.head_dim, "V": 1, "O": 1, "LSE": 1}
    return Program(plan.heads, plan.tiles, elements, steps, pattern=shared_pattern(plan.visits))


def working_set(call: Call) -> WorkingSet:
    """Q tile, `stages` tiles of K and of one chunk of V; scores, one chunk of the output and two statistics."""
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    width = chunks(call).widest
    keys = tiling.cols * (shape.head_dim * bits("K") + width * bits("V"))
    shared = tiling.rows * shape.head_dim * bits("Q") + call.number("stages") * keys
    return WorkingSet(shared // 8, tiling.rows * (tiling.cols + width + 2) * bits("accumulator") // 8)


RECOMPUTE_DV = register(
    Algorithm(
        name="recompute-dv",
        title="Scores formed again for each chunk of value columns",
        source="derived; beats every kernel that forms scores once where d_v > sqrt(2) d and memory binds",
        algorithm_class="standard",
        phases=("prefill", "decode"),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            Parameter("value_block", 0, "value columns per chunk; by default the head size", least=1),
        ),
        launches=forward,
        working_set=working_set,
        chosen=lambda call: {"value_block": call.number("value_block") or call.problem.shape.head_dim},
    )
)
