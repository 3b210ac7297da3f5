"""FlashAttention-2, -3 and -4: Q outer, K/V inner, running softmax on chip.

Each work item keeps one Q tile and walks the KV tiles that its mask lets it see. FlashAttention-3 changes
pipelining, not these counts; with TMA multicast over a cluster of c items one read of K/V from the last
shared level serves c cores. FlashAttention-4 walks two Q tiles per item, keeps scores and outputs in tensor memory
and computes a share of the exponentials in software; a Q tile here is both of them; `core_pairs` has its pairs of cores.

Words per head, T_r = ceil(N_q / B_r), causal sums over the tiles visited:
    reads   N_q d + sum over visited tiles of its keys x (d + d_v)     [full: N_q d + T_r N_kv (d + d_v)]
            and what `key_values` adds for a quantised or paged cache; xFormers' first product streams both operands,
            so that Q comes with every tile (`q_again`): d x sum over visited tiles of its rows
    writes  N_q d_v + N_q (log-sum-exp)
Sources: Dao 2023 (arXiv 2307.08691) algorithm 1; Shah et al. 2024 (arXiv 2407.08608);
xFormers: kernel_forward.h of its CUTLASS attention, whose loop over keys builds an iterator over Q each time;
FlashAttention-4 (arXiv 2603.05451; shares of software exponentials from flash_attn/cute/flash_fwd_sm100.py).
"""

from __future__ import annotations

from dataclasses import replace

from iosim.exact import most
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
from iosim.kernels.core_pairs import CTAS, in_pairs, of_pair
from iosim.kernels.key_values import KV_PARAMETERS, key_row_bits, kv_moved
from iosim.kernels.programs import q_outer_program
from iosim.schedule import Launch, Traffic, WorkingSet


def forward(call: Call) -> tuple[Launch, ...]:
    """The one launch of a forward pass. Rows of Q tiles that see no key are not read; every row is written."""
    problem = call.problem
    shape = problem.shape
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q
    queries = sums.query_rows if call.settings.get("q_again") else sums.active_query_rows
    tensors = [
        moved(problem, "Q", read=queries * shape.head_dim),
        *kv_moved(call, sums),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if call.settings.get("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    work = visited_work(problem, sums, call.number("mma_rows"), tensors)
    work = replace(work, exp_software=work.exp * int(call.settings.get("software_exp", 0)) // 128)
    return (Launch("forward", sums.q_tiles, Traffic(tuple(tensors)), work, q_outer_program(call)),)


def in_core_pairs(call: Call) -> tuple[Launch, ...]:
    """FlashAttention-4's launch, whose cores may work in pairs."""
    (whole,) = forward(of_pair(call))
    return (in_pairs(call, whole),)


def working_set(call: Call) -> WorkingSet:
    """Q tile and `stages` K/V tiles, or `slots` of either, in shared memory; scores, output and two statistics in
    registers."""
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    slots = int(call.settings.get("slots", 0))
    wider = max(shape.head_dim * bits("K"), shape.head_dim_v * bits("V"))
    keys = tiling.cols * (slots * wider if slots else call.number("stages") * key_row_bits(call))
    shared = tiling.rows * shape.head_dim * bits("Q") + keys
    registers = tiling.rows * (tiling.cols + shape.head_dim_v + 2) * bits("accumulator")
    return WorkingSet(shared // 8, registers // 8)


def slotted_working_set(call: Call) -> WorkingSet:
    """Q tiles and `slots` tiles in shared memory, K and V in turn; the output leaves through Q's place.

    A core of a pair holds half of each slot, and its slots are of the larger of a K and a V tile. Scores and outputs accumulate in tensor memory, where there is one; registers hold the scores under softmax.
    """
    shape, bits, tiling, slots = call.problem.shape, call.problem.types.bits, call.tiling, call.number("slots")
    both = tiling.cols * key_row_bits(call)
    key = tiling.cols * shape.head_dim * bits("K")
    held = slots // 2 * both + slots % 2 * key
    if (cores := call.number("ctas")) > 1:
        held = slots * most(key, both - key) // cores
    shared = tiling.rows * shape.head_dim * bits("Q") + held
    scores, output = (tiling.rows * width * bits("accumulator") for width in (tiling.cols, shape.head_dim_v))
    statistics = 2 * tiling.rows * bits("accumulator")
    if call.flag("tensor_memory"):
        return WorkingSet(shared // 8, (scores + statistics) // 8, (scores + output) // 8)
    return WorkingSet(shared // 8, (scores + statistics + output) // 8)


CLUSTER = Parameter("cluster", 1, "work items along Q that share one multicast read of K and V", least=1, most=16)

FLASH2 = register(
    Algorithm(
        name="flash2",
        title="FlashAttention-2",
        source="Dao 2023, arXiv 2307.08691, algorithm 1",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            Parameter("slots", 0, "K or V tiles in turn in shared memory; by default `stages` of both", least=1),
            Parameter(
                "q_again", False, "the Q tile is read again with every K/V tile, as products do that keep neither"
            ),
        ),
        launches=forward,
        working_set=working_set,
    )
)

FLASH3 = register(
    Algorithm(
        name="flash3",
        title="FlashAttention-3",
        source="Shah et al. 2024, arXiv 2407.08608",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            CLUSTER,
        ),
        launches=forward,
        working_set=working_set,
    )
)

FLASH4 = register(
    Algorithm(
        name="flash4",
        title="FlashAttention-4",
        source="FlashAttention-4, 2026, arXiv 2603.05451",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(
            LSE,
            MMA_ROWS,
            *KV_PARAMETERS,
            CTAS,
            Parameter("slots", 2, "K or V tiles in shared memory at once, K first", least=1),
            Parameter("tensor_memory", False, "scores and outputs accumulate in tensor memory"),
            Parameter("software_exp", 0, "of 128 exponentials, how many run on the multiply-add units", most=128),
        ),
        launches=in_core_pairs,
        working_set=slotted_working_set,
    )
)
