"""FlashAttention-2 where copies are synchronous (Volta): K and V pass through registers on their way to shared memory.

Below compute capability 8.0 nothing copies from global to shared memory by itself: a thread loads 16 bytes into
registers and stores them, so that loads, products and softmax of one block take turns unless `prefetch` holds the
whole next tile in registers meanwhile. K and V may share one buffer in turn (`slots=1`). The accumulator of the
first product (m8n8k4) does not lie as the second product wants its operand: `scores=shared` sends scores,
probabilities and the output through shared memory, `scores=registers` supposes operands laid out so that they stay.
Words into the core are FlashAttention-2's. Shared memory delivers in addition, `scores=shared`, A cells and R rows
summed over visited tiles, accumulators of a bits and probabilities of p:
    A (2 a + 2 p)   scores written, read by the softmax; probabilities written, read by the second product
    4 R d_v a       the output read and written by the rescaling, and by the second product
Sources: ai-bond/flash-attention-v100 (include/forward.h, include/gemm_smem.h, 2026): one buffer for K and V, scores
and outputs in shared memory, 512 threads; Lin et al. 2024, FastAttention (arXiv 2410.16663): operands laid out anew.
"""

from __future__ import annotations

from dataclasses import replace

from iosim.kernels import flash2
from iosim.kernels.algorithm import LSE, MMA_ROWS, Algorithm, Call, Parameter, register, total_sums
from iosim.kernels.key_values import KV_PARAMETERS, key_row_bits
from iosim.schedule import Launch, WorkingSet

#: bytes that one thread loads and stores at once: a 128-bit word
STAGED_BYTES = 16
#: rows and columns of the accumulator that one warp holds while a product goes to shared memory (wmma 16x16x16)
FRAGMENT = 16


def forward(call: Call) -> tuple[Launch, ...]:
    """FlashAttention-2's launch with what scores and outputs move in shared memory."""
    (launch,) = flash2.forward(call)
    if call.settings["scores"] == "registers":
        return (launch,)
    sums, bits = total_sums(call.problem, call.tiling), call.problem.types.bits
    cells = sums.area * 2 * (bits("accumulator") + bits("P"))
    output = sums.query_rows * call.problem.shape.head_dim_v * 4 * bits("accumulator")
    work = replace(launch.work, shared_bytes=launch.work.shared_bytes + (cells + output) // 8)
    return (replace(launch, work=work),)


def working_set(call: Call) -> WorkingSet:
    """Shared: Q, `slots` tiles of K or V, and with `scores=shared` scores, output and statistics, rows padded.

    Registers: what the threads stage, and the accumulators that rest or pass there.
    """
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    padding, slots, accumulator = call.number("padding"), call.number("slots"), bits("accumulator")
    both = tiling.cols * (key_row_bits(call) + padding * (bits("K") + (0 if shape.latent else bits("V"))))
    key = tiling.cols * (shape.head_dim + padding) * bits("K")
    value = 0 if shape.latent else tiling.cols * (shape.head_dim_v + padding) * bits("V")
    last = slots % 2 * max(key, value)
    shared = tiling.rows * (shape.head_dim + padding) * bits("Q") + slots // 2 * both + last
    staged = max(key, value) // 8 if call.flag("prefetch") else call.number("threads") * STAGED_BYTES
    if call.settings["scores"] == "registers":
        held = tiling.rows * (tiling.cols + shape.head_dim_v + 2) * accumulator
        return WorkingSet(shared // 8, staged + held // 8)
    shared += tiling.rows * (tiling.cols + shape.head_dim_v + 2 * padding + 2) * accumulator
    passing = call.number("threads") // 32 * FRAGMENT * FRAGMENT * accumulator
    return WorkingSet(shared // 8, staged + passing // 8)


def notes(call: Call) -> tuple[str, ...]:
    """What a reader of its ceilings must know."""
    if call.flag("prefetch"):
        return ("copies through registers overlap products only as far as the next tile fits registers",)
    return ("copies through registers: loads, products and softmax of a block take turns, so its ceilings add up",)


SYNCHRONOUS = register(
    Algorithm(
        name="flash-synchronous",
        title="FlashAttention-2 without asynchronous copies",
        source="ai-bond/flash-attention-v100; Lin et al. 2024, arXiv 2410.16663",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(
            LSE,
            MMA_ROWS,
            *KV_PARAMETERS,
            Parameter("slots", 1, "K or V tiles in shared memory at once, in turn", least=1),
            Parameter("threads", 512, "threads of a block; each stages 16 bytes", least=32, most=1024),
            Parameter("prefetch", False, "the next tile waits in registers while products run"),
            Parameter("padding", 0, "elements added to each row in shared memory, against bank conflicts"),
            Parameter(
                "scores",
                "shared",
                "where scores, probabilities and the output rest between the two products",
                choices=("shared", "registers"),
            ),
        ),
        launches=forward,
        working_set=working_set,
        notes=notes,
    )
)
