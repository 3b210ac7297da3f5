"""FlashAttention-1: K/V outer, Q inner; output, running maximum and sum live in slow memory.

Words per head, T_c = ceil(N_kv / B_c):
    reads   N_kv (d + d_v) + T_c N_q (d + d_v + 2)
    writes  T_c N_q (d_v + 2), and N_q (d_v + 2) to initialise O, l and m unless `init` is false
Under a mask only visited tiles count. l and m together are the log-sum-exp, so no further word is written.
Source: Dao et al. 2022 (arXiv 2205.14135) algorithm 1, lines 3 to 15.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.kernels.algorithm import MMA_ROWS, Algorithm, Call, Parameter, moved, register, total_sums, visited_work
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import kv_outer_table, shared_pattern
from iosim.schedule import Launch, Program, StepTable, Touch, Traffic, WorkingSet


def forward(call: Call) -> tuple[Launch, ...]:
    """One launch per call; an item is one head, since the rows of a head are updated in turn."""
    problem = call.problem
    shape = problem.shape
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q
    start = rows if call.flag("init") else 0
    output = moved(problem, "O", sums.query_rows * shape.head_dim_v, (sums.query_rows + start) * shape.head_dim_v)
    tensors = (
        moved(problem, "Q", read=sums.query_rows * shape.head_dim),
        moved(problem, "K", read=sums.active_key_rows * shape.head_dim),
        moved(problem, "V", read=0 if shape.latent else sums.active_key_rows * shape.head_dim_v),
        output,
        moved(problem, "l", sums.query_rows, sums.query_rows + start),
        moved(problem, "m", sums.query_rows, sums.query_rows + start),
    )
    work = visited_work(problem, sums, call.number("mma_rows"), tensors)
    return (Launch("forward", shape.batch * shape.heads, Traffic(tensors), work, _program(call)),)


def _program(call: Call) -> Program:
    """K/V tiles in order, and under each the Q tiles that see it; the first step initialises."""
    shape, plan, n_q = call.problem.shape, head_tiles(call), call.problem.n_q
    kv = ("K",) if shape.latent else ("K", "V")
    state = ("O", "l", "m")

    def steps(head: int) -> Iterator[Step]:
        if call.flag("init"):
            yield tuple(Touch(name, head, 0, n_q, True) for name in state)
        for column in range(len(plan.visits(head).kv_cols)):
            q_tiles = plan.q_tiles_of(head, column)
            if len(q_tiles):
                yield tuple(Touch(name, head // shape.group, *plan.kv_tile(head, column), False) for name in kv)
            for tile in q_tiles.tolist():
                rows = plan.q_tile(head, tile)
                yield tuple(Touch(name, head, *rows, False) for name in ("Q", *state))
                yield tuple(Touch(name, head, *rows, True) for name in state)

    def table(head: int) -> StepTable:
        initial_rows = n_q if call.flag("init") else 0
        return kv_outer_table(plan.visits(head), call.tiling.rows, call.tiling.cols, kv, state, initial_rows)

    elements = {"Q": shape.head_dim, "K": shape.head_dim, "V": shape.head_dim_v, "O": shape.head_dim_v, "l": 1, "m": 1}
    return Program(plan.heads, 1, elements, steps, table, shared_pattern(plan.visits))


def working_set(call: Call) -> WorkingSet:
    """A K/V tile and a Q tile in shared memory; scores, the output tile and statistics in registers."""
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    value_bits = 0 if shape.latent else shape.head_dim_v * bits("V")
    key_tile = tiling.cols * (shape.head_dim * bits("K") + value_bits)
    shared = tiling.rows * shape.head_dim * bits("Q") + key_tile
    registers = tiling.rows * (tiling.cols + shape.head_dim_v + 2) * bits("accumulator")
    return WorkingSet(shared // 8, registers // 8)


FLASH1 = register(
    Algorithm(
        name="flash1",
        title="FlashAttention-1",
        source="Dao et al. 2022, arXiv 2205.14135, algorithm 1",
        algorithm_class="standard-once",
        phases=("prefill",),
        varlen=True,
        parameters=(Parameter("init", True, "count the initialisation of O, l and m as writes"), MMA_ROWS),
        launches=forward,
        working_set=working_set,
        packs=False,
    )
)
