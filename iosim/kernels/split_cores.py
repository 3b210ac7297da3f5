"""FlashAttention on an NPU whose matrix and vector cores share no memory: two-level tiles, scores through L2.

The matrix (cube) core computes a first-level tile of scores from L1, B_r x B_c, in basic blocks that fit its L0
buffers; the vector core applies the softmax in its unified buffer. What one hands to the other crosses global
memory (its L2): scores in fp32, probabilities in the operands' type, products P V in fp32.
Words per head, areas and rows summed over visited first-level tiles:
    FlashAttention-2's: N_q d + keys (d + d_v) in, N_q d_v (and log-sum-exp) out
    handed over       area (S) + area (P) + rows d_v (P V), each written once and read once
    mask entries      of tiles with masked entries (`mask=tiling-mask`), or of all (`tensor`): `mask_words`
Larger first-level tiles mean fewer hand-overs of P V and fewer synchronisations, not fewer scores.
Sources: Lin et al. 2024, FastAttention (arXiv 2410.16663) sections 4.1 and 4.2; Huawei's descriptions of the split
AI core (910B and later); two buffers of each operand in L0: Dao-AILab/flash-attention csrc/flash_attn_npu (2026,
qk_matmul.hpp); what UB holds is assumed. On cores that share memory (`shared=true`) nothing is handed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.kernels import flash2
from iosim.kernels.algorithm import LSE, MMA_ROWS, Algorithm, Call, Parameter, register, total_sums
from iosim.kernels.key_values import KV_PARAMETERS, key_row_bits
from iosim.kernels.mask_words import MASK_PARAMETERS, mask_limit, mask_moved, mask_touches, notes
from iosim.kernels.programs import Step, head_tiles
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, WorkingSet

HANDED = ("S_handed", "P_handed", "O_handed")
#: slices of an operand in L0A or L0B at once
BUFFERS = 2


def forward(call: Call) -> tuple[Launch, ...]:
    """FlashAttention-2's launch with mask entries and what the two kinds of cores hand over."""
    (launch,) = flash2.forward(call)
    more = (*mask_moved(call), *_handed(call))
    if not more:
        return (launch,)
    assert launch.program is not None
    traffic = Traffic((*launch.traffic.moved, *more))
    return (replace(launch, traffic=traffic, program=_program(call, launch.program)),)


def _handed(call: Call) -> tuple[Moved, ...]:
    """Scores, probabilities and products, once each way."""
    if call.flag("shared"):
        return ()
    sums, bits = total_sums(call.problem, call.tiling), call.problem.types.bits
    words = (sums.area, sums.area, sums.query_rows * call.problem.shape.head_dim_v)
    widths = (bits("accumulator"), bits("P"), bits("accumulator"))
    return tuple(Moved(name, width, count, count) for name, width, count in zip(HANDED, widths, words, strict=True))


def _program(call: Call, base: Program) -> Program:
    """The base's steps; after each KV tile mask entries and hand-overs, in buffers that a core uses again and again."""
    tiling, d_v, plan = call.tiling, call.problem.shape.head_dim_v, head_tiles(call)
    sizes = (tiling.rows * tiling.cols, tiling.rows * tiling.cols, tiling.rows * d_v)
    names = () if call.flag("shared") else HANDED

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, base.tiles)
        rows, masks = 0, mask_touches(call, plan, head, tile)
        for step in base.steps(item):
            yield step
            rows = step[0].rows if step[0].tensor == "Q" else rows
            for key in (touch for touch in step if touch.tensor == "K"):
                if key.row in masks:
                    yield masks[key.row]
                words = (rows * key.rows, rows * key.rows, rows * d_v)
                for name, size, count in zip(names, sizes, words, strict=False):
                    at = tile % call.neighbours * size
                    yield (Touch(name, 0, at, count, True),)
                    yield (Touch(name, 0, at, count, False),)

    return replace(
        base,
        row_elements={**base.row_elements, **dict.fromkeys((*HANDED, "mask", "M_mask"), 1)},
        steps=steps,
        table=None,
    )


def working_set(call: Call) -> WorkingSet:
    """Q and `stages` K/V tiles in L1; what a basic block holds in the buffers beside it.

    L0A, L0B: the operands of a product, in slices of `block` of its depth, two of each: one is multiplied, the next
    one loaded. L0C: a block of scores and one of P V. UB, over a core's vector cores: the running output and two
    statistics of all rows; a block under softmax as scores, probabilities and mask entries, P V in its place.
    """
    shape, bits, tiling = call.problem.shape, call.problem.types.bits, call.tiling
    shared = tiling.rows * shape.head_dim * bits("Q") + call.number("stages") * tiling.cols * key_row_bits(call)
    rows, cols, d, d_v = (
        min(call.number("block"), n) for n in (tiling.rows, tiling.cols, shape.head_dim, shape.head_dim_v)
    )
    accumulator, p = bits("accumulator"), bits("P")
    entry = accumulator + p + (0 if call.settings["mask"] == "on-chip" else call.number("mask_bits"))
    output = tiling.rows * (shape.head_dim_v + 2) * accumulator
    held = {
        "l0a": BUFFERS * rows * max(d * bits("Q"), cols * p),
        "l0b": BUFFERS * cols * max(d * bits("K"), d_v * bits("V")),
        "l0c": rows * (cols + d_v) * accumulator,
        "ub": output + rows * max(cols * entry, d_v * accumulator),
    }
    return WorkingSet(shared // 8, 0, levels=tuple((name, size // 8) for name, size in held.items()))


FAST_ATTENTION = register(
    Algorithm(
        name="fast-attention",
        title="FastAttention: two-level tiles on split matrix and vector cores",
        source="Lin et al. 2024, arXiv 2410.16663",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            LSE,
            Parameter("stages", 2, "K/V tiles in L1 at once", least=1),
            MMA_ROWS,
            *KV_PARAMETERS,
            Parameter("block", 128, "rows and columns of a second-level block, in L0", least=16),
            Parameter("shared", False, "matrix and vector cores share a buffer: nothing is handed over"),
            *MASK_PARAMETERS,
        ),
        launches=forward,
        working_set=working_set,
        limit=mask_limit,
        notes=notes,
    )
)
