"""FlashAttention whose scores are changed before the softmax, or that has no softmax.

Beside FlashAttention-2's words per head:
    dense bias      reads sum over visited tiles of rows x keys: the bias of every visited score
    low-rank bias   reads N_q r with Q and, per key read, r words: B = U W^T as r further columns of Q and K,
                    and 2 r FLOP more per score (FlashBias)
    alibi, softcap  read nothing: they follow from positions and scores
    sigmoid         writes no log-sum-exp and rescales nothing: O = sigmoid(QK^T + b) V
Sources: Press, Smith, Lewis 2022 (arXiv 2108.12409) for ALiBi; Wu et al. 2025, FlashBias (arXiv 2505.12044);
Ramapuram et al. 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention (arXiv 2409.04431).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.errors import UsageError
from iosim.kernels import flash2
from iosim.kernels.algorithm import LSE, MMA_ROWS, STAGES, Algorithm, Call, Parameter, register, total_sums
from iosim.kernels.blocks import score_block
from iosim.kernels.key_values import KV_PARAMETERS
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

BIASES = ("none", "dense", "low-rank", "alibi", "softcap")


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


def _bias_moved(call: Call) -> tuple[Moved, ...]:
    sums = total_sums(call.problem, call.tiling)
    if call.settings["bias"] == "dense":
        return (_tensor(call, "B", sums.area),)
    if r := rank(call):
        return _tensor(call, "B_q", r * sums.active_query_rows), _tensor(call, "B_k", r * sums.key_rows)
    return ()


def _tensor(call: Call, name: str, read: int) -> Moved:
    """Biases have the queries' type."""
    return Moved(name, call.problem.types.bits("Q"), read)


def _biased_program(call: Call, base: Program) -> Program:
    """The base's steps, each with the bias that belongs to it; one bias per query head."""
    r, dense = rank(call), call.settings["bias"] == "dense"
    if not r and not dense:
        return base

    def steps(item: int) -> Iterator[Step]:
        q_tile = (0, 0)
        for step in base.steps(item):
            first = step[0]
            if first.tensor == "Q":
                q_tile = (first.row, first.rows)
                step += (Touch("B_q", first.head, *q_tile, False),) if r else ()
            if keys := [touch for touch in step if touch.tensor == "K"]:
                head, kv_tile = item // base.tiles, (keys[0].row, keys[0].rows)
                at = score_block(call.problem.n_kv, q_tile, kv_tile) if dense else kv_tile
                step += (Touch("B" if dense else "B_k", head, *at, False),)
            yield step

    return replace(base, row_elements={**base.row_elements, "B": 1, "B_q": r, "B_k": r}, steps=steps, table=None)


def working_set(call: Call) -> WorkingSet:
    """FlashAttention-2's, and the bias of one tile in shared memory."""
    base, tiling = flash2.working_set(call), call.tiling
    elements = tiling.rows * tiling.cols if call.settings["bias"] == "dense" else 0
    elements += rank(call) * (tiling.rows + call.number("stages") * tiling.cols)
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
