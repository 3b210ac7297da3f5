"""FlexAttention of the stand-in: visits the blocks it is given, and asks the mask function in those of the first list."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from torch.nn.functional import softmax


class BlockMask:
    @staticmethod
    def from_kv_blocks(
        count: Any, index: Any, full_count: Any, full_index: Any, BLOCK_SIZE: Any, mask_mod: Any
    ) -> Any:  # fmt: skip
        return SimpleNamespace(
            lists=((count, index, True), (full_count, full_index, False)), size=BLOCK_SIZE, ask=mask_mod
        )


def flex_attention(q: Any, k: Any, v: Any, block_mask: Any = None, enable_gqa: bool = False) -> Any:
    n_q, n_kv = q.shape[2], k.shape[2]
    seen = np.full((n_q, n_kv), block_mask is None)
    rows, cols = block_mask.size if block_mask else (1, 1)
    for count, index, ask in block_mask.lists if block_mask else ():
        for block in range(count.shape[2]):
            for at in range(count[0, 0, block]):
                query = np.arange(block * rows, min(n_q, (block + 1) * rows))[:, None]
                first = int(index[0, 0, block, at]) * cols
                key = np.arange(first, min(n_kv, first + cols))[None, :]
                seen[query, key] |= block_mask.ask(0, 0, query, key) if ask else True
    group = q.shape[1] // k.shape[1]
    assert enable_gqa == (group > 1)
    scores = q @ np.repeat(k, group, 1).swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    return softmax(np.where(seen, scores, -np.inf), -1) @ np.repeat(v, group, 1)
