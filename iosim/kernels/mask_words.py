"""What a mask costs when it is data: a tensor of N_q x N_kv entries, or FastAttention's M-mask of 2 M x 2 M.

The causal mask of any block of scores is a shifted triangle. With d = (first query of the block, aligned) - (first
key), entry (i, j) is masked where j - i > d; in a triangle T with T(a + i, b + j) masked where b + j > a + i, the
window at a - b = d is that block. Blocks of up to M x M that are neither whole nor empty have |d| < M, so a triangle
of 2 M x 2 M entries holds them all: the B-mask of a block is its window at (max(d, 0), max(-d, 0)). Entries moved:
    tensor       rows x keys of every visited tile, its values being unknown before it is read
    tiling-mask  rows x keys of visited tiles with a masked entry; the others need none
    on-chip      none
Memory: N_q N_kv entries against (2 M)^2, for a sequence of 64 Ki at 16 bits 8 GiB (as the paper says) against 8 MiB at
M = 1024. The tensor is shared by heads and sequences. Rows of packed heads read the entries of their query.
Sources: Lin et al. 2024, FastAttention (arXiv 2410.16663) section 4.2 (recalled, not re-read); torch_npu's
npu_fusion_attention takes a compressed triangle of 2048 x 2048 in sparse modes 2 to 4, one byte per entry.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide, most
from iosim.kernels.algorithm import Call, Parameter, total_sums
from iosim.kernels.programs import HeadTiles
from iosim.masks import Band
from iosim.masks.band_walks import masked_area
from iosim.schedule import Moved, Touch
from iosim.units import binary_bytes

MASK = Parameter("mask", "on-chip", "where masked entries come from", choices=("on-chip", "tiling-mask", "tensor"))
MASK_BLOCK = Parameter("mask_block", 1024, "M: largest block that the M-mask of 2 M x 2 M entries serves", least=1)
MASK_BITS = Parameter("mask_bits", 8, "bits of one entry of a mask in memory", least=1, most=64)
MASK_PARAMETERS = (MASK, MASK_BLOCK, MASK_BITS)

TENSORS = {"tiling-mask": "M_mask", "tensor": "mask"}


def mask_moved(call: Call) -> tuple[Moved, ...]:
    """Mask entries read over batch and all heads.

    Raises:
        UsageError: a mask that no triangle gives, or a tile larger than M.
    """
    source = str(call.settings["mask"])
    if source == "on-chip":
        return ()
    if source == "tensor":
        return (Moved("mask", call.number("mask_bits"), total_sums(call.problem, call.tiling).area),)
    _check(call)
    batch, group = call.problem.shape.batch, call.tiling.group
    entries = sum(
        batch * (heads // group) * masked_area(mask, call.tiling)
        for mask, heads in call.problem.masks()
        if isinstance(mask, Band)
    )
    return (Moved("M_mask", call.number("mask_bits"), entries),)


def mask_entries(call: Call) -> int:
    """Entries of the mask in memory, shared by all heads and sequences."""
    source = str(call.settings["mask"])
    if source == "on-chip":
        return 0
    return call.problem.n_q * call.problem.n_kv if source == "tensor" else (2 * call.number("mask_block")) ** 2


def _check(call: Call) -> None:
    block, tiling = call.number("mask_block"), call.tiling
    for mask, _ in call.problem.masks():
        if not isinstance(mask, Band) or mask.left is not None:
            what = f"the M-mask is a triangle: it serves full and causal masks, not {mask}"
            raise UsageError(what, "--set mask", "mask=tensor reads any mask")
    largest = most(tiling.rows, tiling.cols)
    if not tiling.flat or decide(largest > block):
        what = f"an M-mask of 2 x {block} rows serves flat tiles of up to {block} x {block}, got {tiling}"
        raise UsageError(what, "--set mask_block", f"at least {largest}")


def mask_limit(call: Call) -> tuple[int, int]:
    """Most rows and keys of a tile that the mask serves."""
    rows, cols, block = call.tiling.rows, call.tiling.cols, call.number("mask_block")
    return (min(rows, block), min(cols, block)) if call.settings["mask"] == "tiling-mask" else (rows, cols)


def mask_touches(call: Call, plan: HeadTiles, head: int, tile: int) -> dict[int, tuple[Touch, ...]]:
    """First key of a visited tile -> the rows of mask entries that it reads; tiles that read none are left out."""
    source = str(call.settings["mask"])
    if source == "on-chip":
        return {}
    visits = plan.visits(head)
    columns = set(visits.tiles_of(tile).tolist())
    if source == "tiling-mask":
        columns -= set(_filled(plan, head, tile))
    made = {}
    for column in sorted(columns):
        keys = plan.kv_tile(head, column)
        made[keys[0]] = tuple(_rows(call, plan, head, tile, keys))
    return made


def _filled(plan: HeadTiles, head: int, tile: int) -> list[int]:
    import numpy as np

    found: list[int] = plan.visits(head).filled.take(np.array([tile])).columns()[1].tolist()
    return found


def _rows(call: Call, plan: HeadTiles, head: int, tile: int, keys: tuple[int, int]) -> Iterator[Touch]:
    """One touch per packed row: entries of its query for the keys of the tile."""
    start, rows = plan.q_tile(head, tile)
    group, name = call.tiling.group, TENSORS[str(call.settings["mask"])]
    queries = [row // group for row in range(start, start + rows)]
    if name == "mask":
        for query in queries:
            yield Touch(name, 0, query * call.problem.n_kv + keys[0], keys[1], False)
        return
    down, right = window(call, head, queries[0], keys[0])
    for query in queries:
        yield Touch(name, 0, (down + query - queries[0]) * 2 * call.number("mask_block") + right, keys[1], False)


def window(call: Call, head: int, query: int, key: int) -> tuple[int, int]:
    """(row, column) of the M-mask where the B-mask of a block begins, by its first query and key."""
    masks = [mask for mask, heads in call.problem.masks() for _ in range(heads // call.tiling.group)]
    mask = masks[head % len(masks)]
    assert isinstance(mask, Band)
    assert mask.right is not None
    shift, block = query + mask.offset + mask.right - key, call.number("mask_block")
    return min(max(shift, 0), block), min(max(-shift, 0), block)


def notes(call: Call) -> tuple[str, ...]:
    """Memory that the mask takes."""
    entries = mask_entries(call)
    if not entries:
        return ()
    taken = binary_bytes(-(-entries * call.number("mask_bits") // 8))
    tensor = binary_bytes(-(-call.problem.n_q * call.problem.n_kv * call.number("mask_bits") // 8))
    what = "mask in memory" if call.settings["mask"] == "tensor" else "M-mask in memory"
    return (f"{what}: {taken}" + ("" if what == "mask in memory" else f", the tensor would take {tensor}"),)
