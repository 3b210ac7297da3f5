"""What an eager framework runs around the two products of attention, each operation a launch of its own.

Words per head beside `unfused`, N_q x N_kv scores; a mask is a byte per key (`padding`) or per pair (`matrix`),
what dropout kept is a byte per pair:
  forward    scale    reads and writes N_q N_kv
             mask     reads and writes N_q N_kv, in place, and the mask
             dropout  reads N_q N_kv   writes 2 N_q N_kv (Z is the second, a byte each)
             copies   Q, V: read and written once; K: twice, scaled and then copied
  backward   the same again for the gradients; mask: a copy, then a fill in place (or one pass), and of the copies
             K's scale, and dQ, dK, dV gathered into one tensor
Sources: PyTorch 1.11: masked_fill is a clone and masked_fill_ (TensorAdvancedIndexing.cpp), its gradient
masked_fill again (derivatives.yaml); fused_dropout keeps a byte per element (Dropout.cu); einsum permutes,
copies what bmm cannot stride over, and calls bmm (Linear.cpp).
"""

from __future__ import annotations

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import Call, Parameter
from iosim.kernels.elementwise import Strip, elementwise
from iosim.kernels.products import products
from iosim.schedule import Launch

MASKS = ("none", "padding", "matrix")

SCALE = Parameter("scale_kernel", False, "scale the scores in a launch of their own")
MASK = Parameter(
    "mask_kernel", "none", "mask the scores in a launch of their own: by key, or by pair, alike for all heads",
    choices=MASKS,
)  # fmt: skip
DROPOUT = Parameter("dropout", False, "drop probabilities in a launch of its own, which keeps a byte per pair")
COPIES = Parameter("copies", False, "Q, K, V lie token by token in one tensor: scale K and copy all three per head")
FORWARD_PARAMETERS = (SCALE, MASK, DROPOUT, COPIES)


def operand(call: Call, tensor: str) -> str:
    """The name under which a product reads Q, K or V."""
    return f"{tensor}_copy" if call.flag("copies") else tensor


def weights(call: Call) -> str:
    """The name of the probabilities that multiply V."""
    return "P_dropped" if call.flag("dropout") else "P"


def copies(call: Call) -> tuple[Launch, ...]:
    """K scaled, and Q, K, V copied head by head.

    Raises:
        UsageError: key/value heads that several query heads share, or a latent V: they lie in no one tensor with Q.
    """
    shape, n_q, n_kv = call.problem.shape, call.problem.n_q, call.problem.n_kv
    if not call.flag("copies"):
        return ()
    if shape.latent or decide(shape.group > 1):
        raise UsageError(
            "copies are of Q, K and V in one tensor, which has as many key/value heads as query heads",
            "--set copies",
            "leave it out, or give --kv-heads as many as --heads",
        )
    heads, d, d_v = shape.batch * shape.heads, shape.head_dim, shape.head_dim_v
    steps = (("Q", "Q_copy", n_q, d), ("K", "K_scaled", n_kv, d), ("K_scaled", "K_copy", n_kv, d),
             ("V", "V_copy", n_kv, d_v))  # fmt: skip
    return tuple(
        elementwise(
            call, f"copy-{made}", heads, rows, call.tiling.rows, (Strip(source, width), Strip(made, width, True))
        )
        for source, made, rows, width in steps
    )


def scale(call: Call, tensor: str) -> tuple[Launch, ...]:
    """Scores or their gradient, scaled in place."""
    return (_scores(call, "scale", tensor, tensor),) if call.flag("scale_kernel") else ()


def mask(call: Call, tensor: str, made: str) -> tuple[Launch, ...]:
    """`made`: the masked `tensor`, which may be itself."""
    if call.settings["mask_kernel"] == "none":
        return ()
    return (_scores(call, "mask", tensor, made, *_mask_strip(call)),)


def _mask_strip(call: Call) -> tuple[Strip, ...]:
    shape, n_kv = call.problem.shape, call.problem.n_kv
    if call.settings["mask_kernel"] == "padding":
        return (Strip("M", n_kv, share=shape.heads, one_row=True),)
    return (Strip("M", n_kv, share=shape.batch * shape.heads),)


def dropout(call: Call) -> tuple[Launch, ...]:
    """P_dropped and Z from P."""
    if not call.flag("dropout"):
        return ()
    kept = Strip("Z", call.problem.n_kv, write=True)
    return (_scores(call, "dropout", "P", "P_dropped", kept),)


def dropout_gradient(call: Call) -> tuple[Launch, ...]:
    """dP from dP_dropped and Z."""
    if not call.flag("dropout"):
        return ()
    return (_scores(call, "dropout", "dP_dropped", "dP", Strip("Z", call.problem.n_kv)),)


def copy_of_scores(call: Call, name: str, source: str, made: str) -> Launch:
    """One N x N tensor into another."""
    return _scores(call, name, source, made)


def gather_gradients(call: Call) -> tuple[Launch, ...]:
    """dK from the gradient of the scaled K, then dQ, dK and dV into one tensor, token by token."""
    if not call.flag("copies"):
        return ()
    shape, n_q, n_kv = call.problem.shape, call.problem.n_q, call.problem.n_kv
    heads, d, d_v, size = shape.batch * shape.heads, shape.head_dim, shape.head_dim_v, call.tiling.rows
    scaled = elementwise(call, "scale-dK", heads, n_kv, size, (Strip("dK_scaled", d), Strip("dK", d, True)))
    parts = (("dQ", n_q, d), ("dK", n_kv, d), ("dV", n_kv, d_v))
    gathered = tuple(
        elementwise(call, f"gather-{part}", heads, rows, size, (Strip(part, width), Strip(f"dQKV_{part}", width, True)))
        for part, rows, width in parts
    )
    return (scaled, *gathered)


def _scores(call: Call, name: str, source: str, made: str, *more: Strip) -> Launch:
    shape, n_kv = call.problem.shape, call.problem.n_kv
    strips = (Strip(source, n_kv), *more, Strip(made, n_kv, write=True))
    return elementwise(call, name, shape.batch * shape.heads, call.problem.n_q, products(call).rows, strips)
