"""The backward pass: dV = P^T dO, dP = dO V^T, dS = P (dP - D), dQ = dS K, dK = dS^T Q, with P formed again.

Words per head, e = d + d_v, T_r and T_c row and key tiles; under a mask only visited tiles count.
    preprocess   reads 2 N_q d_v (O, dO)   writes N_q (D = rowsum(dO O))
  flash2-backward: K/V outer, dQ by atomics into an fp32 accumulator
    clear        writes N_q d, in the preprocess launch
    main         reads N_kv e + T_c N_q (e + 2) (K, V; Q, dO, LSE, D)   writes N_kv e (dK, dV)
                 adds T_c N_q d words to dQ: each is one read and one write where the atomic resolves
    convert      reads and writes N_q d
  backward-q-outer: Q outer, dK and dV by atomics
    main         reads N_q (e + 2) + T_r N_kv e   writes N_q d   adds T_r N_kv e words to dK and dV
    clear, convert of N_kv e words
  backward-two-kernels: no atomics, the scores formed twice
    main-dkdv    reads N_kv e + T_c N_q (e + 2)   writes N_kv e
    main-dq      reads N_q (e + 2) + T_r N_kv e   writes N_q d
With G > 1 query heads per key/value head, K/V outer writes dK and dV per query head; `reduce` reads G N_kv e
words per key/value head and writes N_kv e. Q outer adds the heads of a group into one accumulator.
`deterministic` gives dQ one accumulator per block that a (sequence, head) has on the device, ceil(cores /
(batch x heads)) of them: each is cleared, and all are summed in `convert`.
Sources: Dao et al. 2022 (arXiv 2205.14135) algorithm 4; Dao 2023 (arXiv 2307.08691) algorithm 2 and
flash_bwd_launch_template.h; shared memory per tile as FlashAttention-4 table 3 (416 KiB of a 128 x 128 tile).
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.exact import decide, most
from iosim.kernels.algorithm import MMA_ROWS, Algorithm, Call, Parameter, head_sums, moved, register, total_sums
from iosim.kernels.gradients import (
    accumulator,
    accumulator_rows,
    clear_keys,
    convert,
    expanded,
    key_gradients,
    preprocess,
    reduce_group,
    widths,
)
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.masks import TileSums
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

DETERMINISTIC = Parameter("deterministic", False, "sum dQ in one accumulator per block of a head, in a fixed order")
Q_STAGES = Parameter("stages", 2, "Q tiles in shared memory at once", least=1)
V_IN_REGISTERS = Parameter("v_in_registers", False, "keep the V tile in registers")
#: what a tile of queries brings beside Q and dO
STATISTICS = ("LSE", "D")


def kv_outer(call: Call) -> tuple[Launch, ...]:
    """flash2-backward."""
    buffers = accumulators(call)
    launches = (
        preprocess(call, clear=buffers),
        key_launch(call, "main", buffers),
        convert(call, "convert", ("dQ",), buffers, by_key=False),
    )
    return launches + reduce_group(call)


def q_outer(call: Call) -> tuple[Launch, ...]:
    """backward-q-outer."""
    gradients = tuple(name for name in ("dK", "dV") if name in widths(call.problem))
    return (
        preprocess(call, clear=0),
        clear_keys(call, gradients),
        row_launch(call, "main", gradients),
        convert(call, "convert", gradients, 1, by_key=True),
    )


def two_kernels(call: Call) -> tuple[Launch, ...]:
    """backward-two-kernels."""
    launches = (preprocess(call, clear=0), key_launch(call, "main-dkdv", 0), row_launch(call, "main-dq", ()))
    return launches + reduce_group(call)


def accumulators(call: Call) -> int:
    """Copies of the dQ accumulator."""
    shape = call.problem.shape
    return -(-call.cores // (shape.batch * shape.heads)) if call.flag("deterministic") else 1


def key_launch(call: Call, name: str, buffers: int) -> Launch:
    """K/V outer: an item keeps one KV tile and its gradients; `buffers` accumulators take dQ, or none does."""
    problem, plan, elements = call.problem, head_tiles(call), widths(call.problem)
    sums = total_sums(problem, call.tiling)
    keys = [name for name in ("K", "V") if name in elements]
    gradients = key_gradients(problem)
    rows = ("Q", "dO", *STATISTICS)
    all_keys = plan.heads * problem.n_kv
    tensors = [moved(problem, name, read=sums.active_key_rows * elements[name]) for name in keys]
    tensors += [moved(problem, name, read=sums.query_rows * elements[name]) for name in rows]
    tensors += [Moved(full, problem.types.bits(short), 0, all_keys * elements[short]) for full, short in gradients]
    if decide(buffers != 0):
        added = sums.query_rows * elements["dQ"]
        tensors.append(accumulator(problem, "dQ", added, added))
    columns = head_sums(call).kv_tiles

    def steps(item: int) -> Iterator[Step]:
        head, column = divmod(item, columns)
        at, tiles = plan.kv_tile(head, column), plan.q_tiles_of(head, column).tolist()
        if tiles:
            yield tuple(Touch(name, head // plan.kv_share, *at, False) for name in keys)
        for tile in tiles:
            q_at = plan.q_tile(head, tile)
            yield tuple(Touch(name, head, *q_at, False) for name in rows)
            if buffers:
                first = q_at[0] + column % buffers * accumulator_rows(plan)
                yield tuple(Touch("dQ_accum", head, first, q_at[1], write) for write in (False, True))
        yield tuple(Touch(full, *expanded(problem, head, at, full), True) for full, _ in gradients)

    named = elements | {"dQ_accum": elements["dQ"]} | {full: elements[short] for full, short in gradients}
    work = _work(call, sums, keys_outer=True, with_dq=decide(buffers != 0), with_dkdv=True)
    shared, group = shared_pattern(plan.visits), problem.shape.group  # a group's gradients lie one after another
    program = Program(plan.heads, columns, named, steps, pattern=lambda head: (shared(head), head % group))
    return Launch(name, program.items, Traffic(tuple(tensors)), work, program)


def row_launch(call: Call, name: str, added: tuple[str, ...]) -> Launch:
    """Q outer: an item keeps one Q tile and its dQ, and adds to the accumulators of `added`."""
    problem, plan, elements = call.problem, head_tiles(call), widths(call.problem)
    sums = total_sums(problem, call.tiling)
    keys = [name for name in ("K", "V") if name in elements]
    rows = ("Q", "dO", *STATISTICS)
    tensors = [moved(problem, name, read=sums.active_query_rows * elements[name]) for name in rows]
    tensors += [moved(problem, name, read=sums.key_rows * elements[name]) for name in keys]
    tensors.append(moved(problem, "dQ", write=plan.heads * problem.n_q * elements["dQ"]))
    tensors += [accumulator(problem, name, *(sums.key_rows * elements[name],) * 2) for name in added]

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at, columns = plan.q_tile(head, tile), plan.visits(head).tiles_of(tile).tolist()
        if columns:
            yield tuple(Touch(name, head, *at, False) for name in rows)
        for column in columns:
            kv_head, kv_at = head // plan.kv_share, plan.kv_tile(head, column)
            yield tuple(Touch(name, kv_head, *kv_at, False) for name in keys)
            if added:
                yield tuple(Touch(f"{name}_accum", kv_head, *kv_at, write) for name in added for write in (False, True))
        yield (Touch("dQ", head, *at, True),)

    named = elements | {f"{name}_accum": elements[name] for name in added}
    work = _work(call, sums, keys_outer=False, with_dq=True, with_dkdv=bool(added))
    program = Program(plan.heads, plan.tiles, named, steps, pattern=shared_pattern(plan.visits))
    return Launch(name, program.items, Traffic(tuple(tensors)), work, program)


def _work(call: Call, sums: TileSums, keys_outer: bool, with_dq: bool, with_dkdv: bool) -> Work:
    """Arithmetic of a main launch: S and dP always, then the products whose results it keeps or adds."""
    problem = call.problem
    shape, pairs = problem.shape, problem.counts().pairs
    d, d_v = shape.head_dim, shape.head_dim_v
    formed = 2 * (d + d_v)
    made = (2 * d if with_dq else 0) + (2 * (d + d_v) if with_dkdv else 0)
    first = with_dkdv  # of two launches, only this one's scores are not formed a second time
    return Work(
        tile_pairs=sums.tile_pairs,
        flop=pairs * (made + (formed if first else 0)),
        flop_executed=sums.area * (formed + made),
        exp=sums.area,
        shared_bytes=_shared_bits(call, sums, keys_outer, with_dq, with_dkdv) // 8,
    )


def _shared_bits(call: Call, sums: TileSums, keys_outer: bool, with_dq: bool, with_dkdv: bool) -> int:
    """Operand reads as in the forward pass; P and dS reach dV and dK from registers, dQ through shared memory."""
    shape, bits = call.problem.shape, call.problem.types.bits
    q, do, k, v = (shape.head_dim * bits("Q"), shape.head_dim_v * bits("dO"), shape.head_dim * bits("K"),
                   shape.head_dim_v * bits("V"))  # fmt: skip
    shares = -(-sums.area // call.number("mma_rows"))
    total = sums.query_rows * (q + do) + shares * (k + v)
    if with_dkdv:
        total = total + shares * (do + q)
    if with_dq:
        total = total + 2 * sums.area * bits("P") + shares * k
    if with_dq and keys_outer:  # the tile of dQ is staged for its atomic add
        total = total + 2 * sums.query_rows * shape.head_dim * bits("accumulator")
    resident = sums.query_rows * (q + do) + sums.active_key_rows * (k + v)
    return total + (resident if keys_outer else sums.active_query_rows * (q + do) + sums.key_rows * (k + v))


def working_set(call: Call) -> WorkingSet:
    """`stages` Q tiles, dO, K, V, P and dS in shared memory; gradients and scores in registers.

    V kept in registers leaves its place to P and dS.
    """
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    d, d_v = shape.head_dim, shape.head_dim_v
    rows = tiling.rows * (call.number("stages") * d * bits("Q") + d_v * bits("dO"))
    k, v = tiling.cols * d * bits("K"), 0 if shape.latent else tiling.cols * d_v * bits("V")
    scores = 2 * tiling.rows * tiling.cols * bits("P")
    kept = call.flag("v_in_registers")
    shared = rows + k + (most(v, scores) if kept else v + scores)
    words = tiling.cols * (d + d_v) + 2 * tiling.rows * tiling.cols
    return WorkingSet(shared // 8, (words * bits("accumulator") + kept * v) // 8)


FLASH2_BACKWARD = register(
    Algorithm(
        name="flash2-backward",
        title="FlashAttention-2 backward: K/V outer, dQ by atomics",
        source="Dao 2023, arXiv 2307.08691, algorithm 2",
        algorithm_class="standard-once",
        phases=("backward",),
        varlen=True,
        parameters=(MMA_ROWS, Q_STAGES, V_IN_REGISTERS, DETERMINISTIC),
        launches=kv_outer,
        working_set=working_set,
        packs=False,
    )
)

BACKWARD_Q_OUTER = register(
    Algorithm(
        name="backward-q-outer",
        title="Backward with Q outer, dK and dV by atomics",
        source="Dao et al. 2022, arXiv 2205.14135, algorithm 4 with its loops exchanged",
        algorithm_class="standard-once",
        phases=("backward",),
        varlen=True,
        parameters=(MMA_ROWS, Q_STAGES, V_IN_REGISTERS),
        launches=q_outer,
        working_set=working_set,
        packs=False,
    )
)

BACKWARD_TWO_KERNELS = register(
    Algorithm(
        name="backward-two-kernels",
        title="Backward as a dK/dV kernel and a dQ kernel",
        source="Triton tutorial 06, fused attention (_attn_bwd_dkdv, _attn_bwd_dq)",
        algorithm_class="standard",
        phases=("backward",),
        varlen=True,
        parameters=(MMA_ROWS, Q_STAGES, V_IN_REGISTERS),
        launches=two_kernels,
        working_set=working_set,
        packs=False,
    )
)
