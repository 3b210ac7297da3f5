"""FlashAttention whose scores are changed before the softmax, or that has no softmax.

Beside FlashAttention-2's words per head:
    dense bias      reads sum over visited tiles of rows x keys: the bias of every visited score
    low-rank bias   reads N_q r with Q and, per key read, r words: B = U W^T as r further columns of Q and K,
                    and 2 r FLOP more per score (FlashBias). A tile of g packed heads and R rows reads the
                    factors W of min(g, R) heads: min(g, R) r words per key
    shared bias     one for all heads (T5's, relative positions): packed heads of a query read its row once; one
                    for all heads, or all sequences, is one tensor, which every head's or sequence's items read
    alibi, softcap  read nothing: they follow from positions and scores
    sigmoid         writes no log-sum-exp and rescales nothing: O = sigmoid(QK^T + b) V
Sources: Press, Smith, Lewis 2022 (arXiv 2108.12409) for ALiBi; Wu et al. 2025, FlashBias (arXiv 2505.12044);
Ramapuram et al. 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention (arXiv 2409.04431).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.errors import UsageError
from iosim.exact import ceil_div, decide, least, most
from iosim.kernels import flash2
from iosim.kernels.algorithm import LSE, MMA_ROWS, STAGES, Algorithm, Call, Parameter, register, total_sums
from iosim.kernels.blocks import Extent, score_block
from iosim.kernels.key_values import KV_PARAMETERS
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

BIASES = ("none", "dense", "low-rank", "alibi", "softcap")
SHARED = ("none", "heads", "batch", "all")


def biased(call: Call) -> tuple[Launch, ...]:
    """FlashAttention-2 with a bias."""
    (launch,) = flash2.forward(call)
    traffic = Traffic((*launch.traffic.moved, *_bias_moved(call)))
    area, flop = total_sums(call.problem, call.tiling).area, 2 * rank(call)
    work = launch.work + Work(flop=flop * call.problem.counts().pairs, flop_executed=flop * area)
    assert launch.program is not None
    return (replace(launch, traffic=traffic, work=work, program=_biased_program(call, launch.program)),)


def sigmoid(call: Call) -> tuple[Launch, ...]:
    """FlashAttention-2 with an elementwise sigmoid in place of the softmax."""
    (launch,) = flash2.forward(call)
    return (replace(launch, work=replace(launch.work, exp_rescale=0)),)


def rank(call: Call) -> int:
    """r of a low-rank bias, else 0.

    Raises:
        UsageError: a low-rank bias of no rank, or a rank of another bias.
    """
    value, low = call.number("rank"), call.settings["bias"] == "low-rank"
    if low != bool(value):
        raise UsageError(
            f"rank {value} of a bias that is {call.settings['bias']}", "--set rank", "bias=low-rank takes a rank"
        )
    return value


def rows_per_query(call: Call) -> int:
    """Packed rows that share a row of the bias: the group where heads share a bias, else 1.

    Raises:
        UsageError: a tile cuts a group in two.
    """
    group = call.tiling.group
    if call.settings["shared"] not in ("heads", "all"):
        return 1
    if decide(call.tiling.rows % group != 0):
        what = f"tiles of {call.tiling.rows} rows cut a group of {group} packed heads that share a bias"
        raise UsageError(what, "--tile", f"a multiple of {group} rows, or --no-pack-gqa")
    return group


def _bias_moved(call: Call) -> tuple[Moved, ...]:
    sums, alike = total_sums(call.problem, call.tiling), rows_per_query(call)
    if call.settings["bias"] == "dense":
        return (_tensor(call, "B", sums.area // alike),)
    if r := rank(call):
        return _tensor(call, "B_q", r * sums.active_query_rows // alike), _tensor(call, "B_k", r * _factor_rows(call))
    return ()


def _factor_rows(call: Call) -> int:
    """Rows of W read: per visited tile its keys, once for each head among the rows of its Q tile.

    R rows of consecutive packed rows belong to min(g, R) heads. Only the last Q tile is shorter; with s rows too few,
    R x keys of all visited tiles exceeds their area by s x its own keys.
    """
    sums, tiling, group = total_sums(call.problem, call.tiling), call.tiling, heads_in_tile(call, call.tiling.rows)
    if decide(group == 1):
        return sums.key_rows
    if not tiling.flat:
        raise UsageError("a low-rank bias of packed heads has row-major tokens", "--tile", "give the tile as AxB")
    rows = call.problem.n_q * tiling.group
    missing = ceil_div(rows, tiling.rows) * tiling.rows - rows
    last_keys = (tiling.rows * sums.key_rows - sums.area) // most(1, missing)
    last_group = heads_in_tile(call, tiling.rows - missing)
    return group * (sums.key_rows - last_keys) + last_group * last_keys


def heads_in_tile(call: Call, rows: int) -> int:
    """Heads whose factors so many packed rows need."""
    return 1 if call.settings["shared"] in ("heads", "all") else least(call.tiling.group, rows)


def _tensor(call: Call, name: str, read: int) -> Moved:
    """Biases have the queries' type."""
    return Moved(name, call.problem.types.bits("Q"), read)


def _biased_program(call: Call, base: Program) -> Program:
    """The base's steps, each with the bias that belongs to it."""
    r, dense, alike, n_kv = rank(call), call.settings["bias"] == "dense", rows_per_query(call), call.problem.n_kv
    if not r and not dense:
        return base

    def factors(head: int, q_tile: Extent, key: int, keys: int) -> Step:
        """W's rows for the heads of a Q tile; those of packed heads lie one head after the other."""
        heads = heads_in_tile(call, q_tile[1])
        which = sorted((q_tile[0] + i) % call.tiling.group for i in range(heads)) if heads > 1 else [0]
        return tuple(Touch("B_k", head, each * n_kv + key, keys, False) for each in which)

    def steps(item: int) -> Iterator[Step]:
        q_tile, head = (0, 0), _bias_head(call, item // base.tiles)
        for step in base.steps(item):
            first = step[0]
            if first.tensor == "Q":
                q_tile = (first.row, first.rows)
                step += (Touch("B_q", head, first.row // alike, first.rows // alike, False),) if r else ()
            if keys := [touch for touch in step if touch.tensor == "K"]:
                kv_tile = (keys[0].row, keys[0].rows)
                block = score_block(n_kv, (q_tile[0] // alike, q_tile[1] // alike), kv_tile)
                step += (Touch("B", head, *block, False),) if dense else factors(head, q_tile, *kv_tile)
            yield step

    return replace(base, row_elements={**base.row_elements, "B": 1, "B_q": r, "B_k": r}, steps=steps, table=None)


def _bias_head(call: Call, head: int) -> int:
    """Which bias a head (or packed group) of the call adds, counted over the batch."""
    sequence, within = divmod(head, call.problem.shape.heads // call.tiling.group)
    shared = call.settings["shared"]
    return {"none": head, "heads": sequence, "batch": within, "all": 0}[str(shared)]


def working_set(call: Call) -> WorkingSet:
    """FlashAttention-2's, and the bias of one tile in shared memory."""
    base, tiling = flash2.working_set(call), call.tiling
    rows, heads = tiling.rows // rows_per_query(call), heads_in_tile(call, tiling.rows)
    elements = rows * tiling.cols if call.settings["bias"] == "dense" else 0
    elements += rank(call) * (rows + call.number("stages") * heads * tiling.cols)
    return replace(base, shared_bytes=base.shared_bytes + elements * call.problem.types.bits("Q") // 8)


FLASH_BIAS = register(
    Algorithm(
        name="flash-bias",
        title="FlashAttention with a bias on the scores",
        source="Wu et al. 2025, arXiv 2505.12044",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            Parameter("bias", "dense", "what is added to the scores", choices=BIASES),
            Parameter("shared", "none", "which calls' heads add one and the same bias", choices=SHARED),
            Parameter("rank", 0, "columns of a low-rank bias's factors", least=1),
        ),
        launches=biased,
        working_set=working_set,
    )
)

FLASH_SIGMOID = register(
    Algorithm(
        name="flash-sigmoid",
        title="FlashAttention with sigmoid in place of softmax",
        source="Ramapuram et al. 2024, arXiv 2409.04431",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(STAGES, MMA_ROWS, *KV_PARAMETERS),
        launches=sigmoid,
        working_set=flash2.working_set,
    )
)
