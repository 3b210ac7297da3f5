"""FlashAttention-3's package: heads behind tokens, and the log-sum-exp beside the output."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.nn.functional import softmax


def flash_attn_func(q: Any, k: Any, v: Any, causal: bool = False, window_size: tuple[int, int] = (-1, -1)) -> Any:
    group = q.shape[2] // k.shape[2]
    q, k, v = (each.swapaxes(1, 2) for each in (q, np.repeat(k, group, 2), np.repeat(v, group, 2)))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    behind = np.arange(scores.shape[-2])[:, None] + scores.shape[-1] - scores.shape[-2] - np.arange(scores.shape[-1])
    left = window_size[0] if window_size[0] >= 0 else scores.shape[-1]
    if causal:
        scores = np.where((behind >= 0) & (behind <= left), scores, -np.inf)
    return (softmax(scores, -1) @ v).swapaxes(1, 2), scores.max(-1)
