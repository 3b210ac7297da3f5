"""Calls of libraries on a CUDA GPU: PyTorch's own attention, its products and softmax, FlexAttention, FlashAttention's packages."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from iosim.errors import AbsentError, UsageError
from iosim.measure.cases import Case
from iosim.measure.cuda_call import Call, tensors
from iosim.measure.experiments import PACKAGES

if TYPE_CHECKING:
    from iosim.measure.cuda import CudaMachine

BACKENDS = {
    "sdpa-flash": "FLASH_ATTENTION",
    "sdpa-cudnn": "CUDNN_ATTENTION",
    "sdpa-efficient": "EFFICIENT_ATTENTION",
    "sdpa-math": "MATH",
}


def library(machine: CudaMachine, case: Case) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if case.mask not in ("full", "causal") or (case.mask == "causal" and case.seq_q != case.seq_kv):
        raise UsageError("PyTorch's mask is full, or causal with as many queries as keys", case.kernel)
    if case.kernel == "sdpa-math":
        _keep_types(machine.torch)
    backend = getattr(SDPBackend, BACKENDS[case.kernel], None)
    if backend is None:
        raise AbsentError(f"this PyTorch has no {BACKENDS[case.kernel]}", case.kernel)
    q, k, v = tensors(machine, case)
    options: dict[str, Any] = {"is_causal": case.mask == "causal"}
    if case.kv_heads != case.heads:
        options["enable_gqa"] = True

    def call() -> Any:
        with sdpa_kernel(backend):
            return machine.torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return Call(call, (q, k, v))


def _keep_types(torch: Any) -> None:
    """Without this the math path works on single-precision copies of 16-bit tensors (PyTorch 2.5 and later)."""
    allow = getattr(torch.backends.cuda, "allow_fp16_bf16_reduction_math_sdp", None)
    if allow is not None:
        allow(True)


def unfused(machine: CudaMachine, case: Case) -> Call:
    """Two products and a softmax between them, of queries that were scaled before: the three launches that iosim counts.

    PyTorch's own math path runs more: products of Q and of K with the scale's root, and a softmax that looks for rows
    without a score (`_scaled_dot_product_attention_math`, `_safe_softmax` in ATen/native/transformers/attention.cpp).
    """
    torch = machine.torch
    if case.mask != "full" or case.kv_heads != case.heads:
        raise UsageError("a full mask, and as many key/value heads as heads", case.kernel)
    q, k, v = made = tensors(machine, case)
    flat_q, flat_k, flat_v = (
        each.reshape(-1, each.shape[2], case.head_dim) for each in (q * case.head_dim**-0.5, k, v)
    )

    def call() -> Any:
        scores = torch.bmm(flat_q, flat_k.transpose(1, 2))
        return torch.bmm(torch.softmax(scores, -1), flat_v).reshape(q.shape)

    return Call(call, made)


def package(machine: CudaMachine, case: Case) -> Call:
    try:
        function = importlib.import_module(PACKAGES[case.kernel]).flash_attn_func
    except (ImportError, AttributeError) as error:
        raise AbsentError(f"{PACKAGES[case.kernel]}: {error}", case.kernel) from None
    q, k, v = tensors(machine, case, heads_last=True)
    options: dict[str, Any] = {"causal": case.mask != "full"}
    if case.mask.startswith("window:"):
        options["window_size"] = (int(case.mask.partition(":")[2]) - 1, 0)

    def result(made: Any) -> Any:
        return (made[0] if isinstance(made, tuple) else made).transpose(1, 2)

    turned = tuple(each.transpose(1, 2) for each in (q, k, v))
    return Call(lambda: function(q, k, v, **options), turned, result)


def flex(machine: CudaMachine, case: Case) -> Call:
    """FlexAttention with the blocks that iosim counts, compiled for this case's lengths alone.

    A second length in one process would make lengths symbols otherwise, that is another kernel.
    """
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = tensors(machine, case)
    mask = None if case.mask == "full" else _block_mask(machine, case)
    machine.torch.compiler.reset()
    compiled = machine.torch.compile(flex_attention, dynamic=False)
    options = {"enable_gqa": True} if case.kv_heads != case.heads else {}
    return Call(lambda: compiled(q, k, v, block_mask=mask, **options), (q, k, v))


def _block_mask(machine: CudaMachine, case: Case) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    from iosim.masks import Grid, bind, parse_mask
    from iosim.masks.flex_export import flex_blocks
    from iosim.masks.tiling import Tiling

    window, offset = int(case.mask.partition(":")[2] or case.seq_kv), case.seq_kv - case.seq_q

    def visible(b: Any, h: Any, query: Any, key: Any) -> Any:
        return (key <= query + offset) & (key > query + offset - window)

    bound = bind(parse_mask(case.mask), Grid((case.seq_q,), (case.seq_kv,)))
    blocks = flex_blocks(bound, Tiling((case.tile_q,), (case.tile_kv,)))
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    arrays = [machine.torch.from_numpy(blocks[name]).to(machine.place) for name in names]
    return BlockMask.from_kv_blocks(*arrays, BLOCK_SIZE=(case.tile_q, case.tile_kv), mask_mod=visible)
