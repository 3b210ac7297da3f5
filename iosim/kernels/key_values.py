"""What K and V cost when a kernel reads them tile by tile: latent slices, scales, page tables.

Words per key read: d of K and d_v of V, or d alone where V is a slice of K. A quantised cache adds
ceil(d / g) + ceil(d_v / g) scales of its own width, one per g elements of a row. A paged cache adds one
32-bit block-table word per page that a tile touches: the tile's keys over the page size, rounded up; a
page that holds several tiles is looked up once per tile.
Sources: Kwon et al. 2023 (arXiv 2309.06180) section 4.1 for block tables; OCP MX 1.0 and the KIVI paper
(arXiv 2402.02750) for groups of elements that share a scale.
"""

from __future__ import annotations

from dataclasses import replace

from iosim.errors import UsageError
from iosim.exact import ceil_div, choose, decide, most
from iosim.kernels.algorithm import Call, Parameter, total_sums
from iosim.masks import TileSums
from iosim.schedule import Moved, Touch

TABLE_BITS = 32

PAGE_SIZE = Parameter("page_size", 0, "tokens per page of the KV cache; by default K and V are contiguous", least=1)
SCALE_GROUP = Parameter("scale_group", 0, "elements of a K or V row that share one scale; by default none", least=1)
SCALE_BITS = Parameter("scale_bits", 16, "bits of one scale of a quantised cache", least=1, most=64)
KV_PARAMETERS = (PAGE_SIZE, SCALE_GROUP, SCALE_BITS)


def kv_moved(call: Call, sums: TileSums, key_rows: int | None = None) -> tuple[Moved, ...]:
    """K, V, their scales and the block table, read for every visited tile pair.

    Args:
        key_rows: keys read, where a kernel reads fewer than one tile per visited pair; never with pages.
    """
    bits, elements = call.problem.types.bits, kv_row_elements(call)
    rows = sums.key_rows if key_rows is None else key_rows
    moved = [Moved(name, bits(name), rows * elements.get(name, 0)) for name in ("K", "V")]
    for name in ("K_scale", "V_scale"):
        if name in elements:
            moved.append(Moved(name, call.number("scale_bits"), rows * elements[name]))
    if pages := page_size(call):
        moved.append(Moved("block_table", TABLE_BITS, _table_words(call, sums, pages)))
    return tuple(moved)


def check_scales(call: Call) -> None:
    """Refuses scales of what is not quantised, and a width of scales that are not there.

    Raises:
        UsageError: says what scales belong to.
    """
    group, kv = int(call.settings.get("scale_group", 0)), call.problem.types
    if group and kv.bits("K") >= 16:
        hint = "scales are a quantised cache's, for example --kv-dtype fp8 or int4"
        raise UsageError(f"{kv.kv} keys and values have no scales", "--set scale_group", hint)
    if not group and call.settings.get("scale_bits", SCALE_BITS.default) != SCALE_BITS.default:
        hint = "also give the elements that share a scale, for example --set scale_group=32"
        raise UsageError("there are no scales to have so many bits", "--set scale_bits", hint)


def kv_row_elements(call: Call) -> dict[str, int]:
    """Elements of one row of K, V, their scales and the block table."""
    shape, group = call.problem.shape, int(call.settings.get("scale_group", 0))
    elements = {"K": shape.head_dim} | ({} if shape.latent else {"V": shape.head_dim_v})
    if group:
        elements |= {f"{name}_scale": -(-size // group) for name, size in tuple(elements.items())}
    return elements | ({"block_table": 1} if page_size(call) else {})


def kv_touches(call: Call, kv_head: int, first: int, keys: int) -> tuple[Touch, ...]:
    """The touches of one KV tile: the pages' numbers first, then all rows."""
    pages = page_size(call)
    touches: list[Touch] = []
    for name in kv_row_elements(call):
        if name == "block_table":
            sequence = kv_head // call.problem.shape.kv_heads
            page = call.problem.mask.page_of(first, pages)
            touches.insert(0, Touch(name, sequence, page, -(-keys // pages), False))
        else:
            touches.append(Touch(name, kv_head, first, keys, False))
    return tuple(touches)


def key_row_bits(call: Call) -> int:
    """Bits of one key's K, V and scales, as a tile on chip holds them."""
    bits = call.problem.types.bits
    widths = {"K": bits("K"), "V": bits("V"), "block_table": 0}
    return sum(
        count * widths.get(name, int(call.settings.get("scale_bits", 0)))
        for name, count in kv_row_elements(call).items()
    )


def page_size(call: Call) -> int:
    """Tokens per page; 0 for a contiguous cache.

    Raises:
        UsageError: neither the page divides the key tile nor the key tile the page, or tiles are permuted.
    """
    pages, cols = int(call.settings.get("page_size", 0)), call.tiling.cols
    if pages and not call.tiling.flat:
        raise UsageError("a paged cache has row-major tokens", "--tile", "give the tile as AxB")
    if pages and decide((cols % pages != 0) & (pages % cols != 0)):
        raise UsageError(
            f"a page of {pages} tokens and a key tile of {cols} do not divide",
            "--set page_size",
            f"a divisor or a multiple of {cols}",
        )
    return pages


def _table_words(call: Call, sums: TileSums, pages: int) -> int:
    """Block-table words: ceil(keys / page) per visited pair, sequence by sequence where lengths are unequal."""
    parts = call.problem.mask.sequences()
    if parts[0][0] is call.problem.mask:
        return _entries(call.tiling.cols, call.problem.n_kv, sums, pages)
    alone = ((replace(call.problem, mask=part), times) for part, times in parts)
    return sum(
        times * _entries(call.tiling.cols, one.n_kv, total_sums(one, call.tiling), pages) for one, times in alone
    )


def _entries(cols: int, n_kv: int, sums: TileSums, pages: int) -> int:
    """Of one sequence: only its last KV tile is shorter than the others."""
    spare = ceil_div(n_kv, cols) * cols - n_kv  # keys that the last tile lacks
    short = (sums.tile_pairs * cols - sums.key_rows) // most(1, spare)
    whole = (sums.tile_pairs - short) * (cols // pages)
    return choose(pages % cols == 0, sums.tile_pairs, whole + short * ceil_div(cols - spare, pages))
