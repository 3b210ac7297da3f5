"""A mask as FlexAttention's block indices, so that a user can run what was counted.

The arrays are those of `torch.nn.attention.flex_attention.BlockMask.from_kv_blocks`: per Q block, the
KV blocks that need the mask function and those that do not. Blocks past the number given are zeros.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from iosim.errors import FileError, UsageError
from iosim.masks.cut import Cut, cuts
from iosim.masks.mask import Mask
from iosim.masks.runs import Runs, steps
from iosim.masks.tiling import Tiling

MOST_ENTRIES = 1 << 28  # of one index array: 1 GiB

Indices: TypeAlias = NDArray[np.int32]


def flex_blocks(mask: Mask, tiling: Tiling, heads: int = 1) -> dict[str, Indices]:
    """The block indices of one sequence; masks that differ between heads get an entry per head, others one.

    Returns:
        `kv_num_blocks` and `full_kv_num_blocks` of shape (1, H, Q blocks), `kv_indices` and
        `full_kv_indices` of shape (1, H, Q blocks, KV blocks), `block_size` (Q, KV). On permuted tokens
        also `q_order` and `kv_order`: row-major token at each permuted place, -1 where a tile is padded.
    Raises:
        UsageError: more blocks than an array of indices should hold.
    """
    if mask.sequences()[0][0] is not mask:
        raise UsageError(
            "blocks of FlexAttention do not begin anew at each sequence", "--export", "pack them: --mask document:L1+L2"
        )
    q_cut, kv_cut = cuts(mask.grid, tiling)
    masks = [part for part, times in mask.per_head(heads) for _ in range(times)]
    if all(part is masks[0] for part in masks):
        masks = masks[:1]
    if len(masks) * q_cut.count * kv_cut.count > MOST_ENTRIES:
        raise UsageError(f"{q_cut.count} x {kv_cut.count} blocks are too many to export", "--tile", "use larger tiles")
    visits = [part.visits(tiling) for part in masks]
    partial = [part.visited.intersection(part.filled.complement()) for part in visits]
    arrays = _indices("kv", partial) | _indices("full_kv", [part.filled for part in visits])
    arrays["block_size"] = np.array([tiling.rows, tiling.cols], np.int32)
    if not tiling.flat:
        arrays |= {"q_order": _order(q_cut, tiling.rows), "kv_order": _order(kv_cut, tiling.cols)}
    return arrays


def save_flex(mask: Mask, tiling: Tiling, path: Path, heads: int = 1) -> None:
    """Write the block indices to an npz file.

    Raises:
        FileError: the file cannot be written.
    """
    arrays: dict[str, Any] = {**flex_blocks(mask, tiling, heads)}
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)
    except OSError as error:
        raise FileError(f"cannot be written: {error}", str(path)) from None


def _indices(name: str, heads: list[Runs]) -> dict[str, Indices]:
    count = np.stack([runs.lengths() for runs in heads]).astype(np.int32)
    index = np.zeros((1, len(heads), heads[0].rows, heads[0].width), np.int32)
    for head, runs in enumerate(heads):
        row, column = runs.columns()
        index[0, head, row, steps(runs.lengths())] = column
    return {f"{name}_num_blocks": count[None], f"{name}_indices": index}


def _order(cut: Cut, rows: int) -> Indices:
    """Row-major token at each place of the permuted sequence, whole tiles, real tokens first in each."""
    order = np.full((cut.count, rows), -1, np.int32)
    owner, first, last = cut.ranges(0, cut.count)
    count = last - first + 1
    tile = np.repeat(owner, count)
    order[tile, steps(np.bincount(tile))] = np.repeat(first, count) + steps(count)
    return order.reshape(-1)
