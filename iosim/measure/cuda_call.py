"""What is timed on a CUDA GPU: a call, its tensors, and what it is checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iosim.measure.cases import Case

if TYPE_CHECKING:
    from iosim.measure.cuda import CudaMachine

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(slots=True)
class Call:
    """What is timed, and what it is checked against."""

    run: Callable[[], Any]
    """one call"""
    tensors: tuple[Any, ...] = ()
    """Q, K, V as (batch, heads, tokens, head size)"""
    result: Callable[[Any], Any] = lambda made: made
    """what a call returned, in the layout of the tensors"""
    about: dict[str, object] = field(default_factory=dict)
    """columns that describe the compiled kernel, known after a call"""


def tensors(machine: CudaMachine, case: Case, heads_last: bool = False) -> tuple[Any, Any, Any]:
    """Random Q, K, V (zeros would run too fast), contiguous; tokens before heads where a library wants it."""
    dtype = getattr(machine.torch, DTYPES[case.dtype])

    def make(heads: int, length: int) -> Any:
        shape = (length, heads) if heads_last else (heads, length)
        return machine.torch.randn(case.batch, *shape, case.head_dim, device=machine.place, dtype=dtype)

    return make(case.heads, case.seq_q), make(case.kv_heads, case.seq_kv), make(case.kv_heads, case.seq_kv)
