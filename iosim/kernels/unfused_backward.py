"""The backward pass of unfused attention, from the probabilities that its forward pass saved.

Words per head, each matrix operand touched once, N x N standing for N_q N_kv:
    product-dP   reads N_q d_v + N_kv d_v (dO, V)     writes N x N (dP)
    product-dV   reads N x N + N_q d_v (P, dO)        writes N_kv d_v
    softmax      reads 2 N x N (P, dP) per pass       writes N x N (dS = P (dP - rowsum(P dP)))
    product-dQ   reads N x N + N_kv d (dS, K)         writes N_q d
    product-dK   reads N x N + N_q d (dS, Q)          writes N_kv d
7 N x N in all; `eager` has what a framework runs besides: dropout's gradient behind product-dP, the mask's and the
scale's behind softmax. Gradients of key/value heads that several query heads share are written per query head and
summed by `reduce`, as in `backward`. `gemm_tile` t reads an operand again for each t rows (keys) of a product;
output tiles span the head.
Scores are not formed again, so this is not the problem that floors of the backward pass speak of: P is an input.
Source: Dao et al. 2022 (arXiv 2205.14135) algorithm 3; PyTorch's gradients of bmm, softmax and dropout.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import MMA_ROWS, Algorithm, Call, Parameter, register
from iosim.kernels.eager import (
    FORWARD_PARAMETERS,
    copy_of_scores,
    dropout_gradient,
    gather_gradients,
    mask,
    operand,
    scale,
    weights,
)
from iosim.kernels.elementwise import Strip, elementwise, tensor_bits
from iosim.kernels.gradients import expanded, reduce_group
from iosim.kernels.products import product_work, products, score_product
from iosim.kernels.programs import Step
from iosim.kernels.unfused import GEMM_TILE, PASSES, model, working_set
from iosim.schedule import Launch, Moved, Program, Touch, Traffic


def backward(call: Call) -> tuple[Launch, ...]:
    """The five launches, and those of an eager framework between them.

    Raises:
        UsageError: a latent V, whose gradient is a part of K's.
    """
    shape = call.problem.shape
    if shape.latent:
        raise UsageError("unfused-backward reads V apart from K", "--latent")
    dp = "dP_dropped" if call.flag("dropout") else "dP"
    masked, steps = _mask(call)
    return (
        score_product(call, "product-dP", "dO", operand(call, "V"), dp, shape.head_dim_v),
        _key_product(call, "product-dV", weights(call), "dO", "dV", shape.head_dim_v),
        *dropout_gradient(call),
        _softmax(call),
        *steps,
        *scale(call, masked),
        _row_product(call, masked),
        _key_product(call, "product-dK", masked, operand(call, "Q"), "dK", shape.head_dim),
        *reduce_group(call),
        *gather_gradients(call),
    )


def _mask(call: Call) -> tuple[str, tuple[Launch, ...]]:
    """(name of the masked gradient of the scores, the launches that make it)."""
    if call.settings["mask_kernel"] == "none":
        return "dS", ()
    if not call.flag("mask_copy"):
        return "dS_masked", mask(call, "dS", "dS_masked")
    return "dS_masked", (copy_of_scores(call, "copy-dS", "dS", "dS_masked"), *mask(call, "dS_masked", "dS_masked"))


def _softmax(call: Call) -> Launch:
    shape, n_q, n_kv = call.problem.shape, call.problem.n_q, call.problem.n_kv
    passes = call.number("passes")
    strips = (Strip("P", n_kv, times=passes), Strip("dP", n_kv, times=passes), Strip("dS", n_kv, write=True))
    return elementwise(call, "softmax", shape.batch * shape.heads, n_q, products(call).rows, strips)


def _row_product(call: Call, scores: str) -> Launch:
    """dQ = dS K: one row tile per item."""
    shape, cut, k, d = call.problem.shape, products(call), operand(call, "K"), call.problem.shape.head_dim

    def steps(item: int) -> Iterator[Step]:
        head, row_tile = divmod(item, cut.q_tiles)
        for kv_tile in range(cut.kv_tiles):
            step = [Touch(scores, head, *cut.score_tile(row_tile, kv_tile), False)]
            if cut.again or row_tile == 0:
                step.append(Touch(k, head // shape.group, *cut.kv_tile(kv_tile), False))
            yield tuple(step)
        yield (Touch("dQ", head, *cut.q_tile(row_tile), True),)

    program = Program(shape.batch * shape.heads, cut.q_tiles, {scores: 1, k: d, "dQ": d}, steps)
    return _launch(call, "product-dQ", program, {k: cut.n_kv * cut.k_times}, ("dQ", cut.n_q), scores)


def _key_product(call: Call, name: str, scores: str, rows: str, gradient: str, width: int) -> Launch:
    """dV = P^T dO or dK = dS^T Q: one key tile per item."""
    shape, cut, made = call.problem.shape, products(call), gradient
    if decide(shape.group > 1):
        made = f"{gradient}_expanded"
    elif call.flag("copies") and gradient == "dK":
        made = "dK_scaled"

    def steps(item: int) -> Iterator[Step]:
        head, kv_tile = divmod(item, cut.kv_tiles)
        for row_tile in range(cut.q_tiles):
            step = [Touch(scores, head, *cut.score_tile(row_tile, kv_tile), False)]
            if cut.again or kv_tile == 0:
                step.append(Touch(rows, head, *cut.q_tile(row_tile), False))
            yield tuple(step)
        yield (Touch(made, *expanded(call.problem, head, cut.kv_tile(kv_tile), made), True),)

    group = shape.group  # the gradients of a group lie one after another
    program = Program(shape.batch * shape.heads, cut.kv_tiles, {scores: 1, rows: width, made: width}, steps,
                      pattern=lambda head: head % group)  # fmt: skip
    return _launch(call, name, program, {rows: cut.n_q * cut.q_times}, (made, cut.n_kv), scores)


def _launch(
    call: Call, name: str, program: Program, read: dict[str, int], written: tuple[str, int], scores: str
) -> Launch:
    """A product's launch; rows read and written are given per head."""
    width, (made, rows) = program.row_elements, written
    counts = {scores: (call.problem.n_q * call.problem.n_kv, 0), made: (0, rows * width[made])}
    counts |= {tensor: (count * width[tensor], 0) for tensor, count in read.items()}
    moved = (Moved(t, tensor_bits(call.problem, t), *(program.heads * c for c in count)) for t, count in counts.items())
    return Launch(name, program.items, Traffic(tuple(moved)), product_work(call, width[made]), program)


UNFUSED_BACKWARD = register(
    Algorithm(
        name="unfused-backward",
        title="Backward of unfused attention, from saved probabilities",
        source="Dao et al. 2022, arXiv 2205.14135, algorithm 3",
        algorithm_class="saved",
        phases=("backward",),
        parameters=(
            PASSES,
            GEMM_TILE,
            MMA_ROWS,
            *FORWARD_PARAMETERS,
            Parameter("mask_copy", True, "the mask's gradient is a copy and a fill in place, as PyTorch's masked_fill"),
        ),
        launches=backward,
        working_set=working_set,
        model=model,
        packs=False,
    )
)
