"""torch.nn.functional of the stand-in."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from . import attention


def softmax(scores: Any, axis: int) -> Any:
    weights = np.exp(scores - scores.max(axis, keepdims=True))
    return weights / weights.sum(axis, keepdims=True)


def scaled_dot_product_attention(q: Any, k: Any, v: Any, is_causal: bool = False, **options: Any) -> Any:
    import torch

    torch.LOG.append("call")
    if "enable_gqa" in options and "no-gqa" in torch.faults():
        raise TypeError("scaled_dot_product_attention() got an unexpected keyword argument 'enable_gqa'")
    if attention.CHOSEN == ["cudnn"]:
        warnings.warn("cuDNN attention has been runtime disabled.", UserWarning, stacklevel=1)
        raise RuntimeError("No available kernel. Aborting execution.\nmore")
    if q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2] > torch.MOST * 2:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate scores")
    group = q.shape[1] // k.shape[1]
    keys, values = np.repeat(k, group, 1), np.repeat(v, group, 1)
    scores = q @ keys.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    if is_causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    return softmax(scores, -1) @ values
