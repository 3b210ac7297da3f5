"""Work and busy cycles of the two arrays of a spatial accelerator: what each does to a tile of scores.

The 2D array of a x a elements takes a tile of a queries x a keys: d cycles for Q K^T, d_v for P V, one per further
operation on every score. The 1D array of a elements takes a rows at once, so one operation on every score of the
tile costs it a cycles. Operations on scores and rows, e cycles an exponential with its subtraction:
    1 pass    maximum, e, sum                          rows per tile: maximum, e, 1, d_v, 1, d_v; at the end d_v
    2 passes  maximum, e, sum, correction, division    rows per tile: maximum, e, 2
    3 passes  maximum, e, sum, division
FuseMax lets the 2D array do the former and the 1D array the latter, side by side but for dependences:
    max(Q K^T and maximum, sums and outputs of rows) + row maximum + max(exponentials, corrections) + max(P V, R d_v)
which is 138 cycles per tile of 256 x 256 at d = d_v = 64, and with the final division the published latencies.
Source: Nayak et al. 2024, FuseMax (arXiv 2406.10491) section V; costs of its artifact, src/accel/proposal.py and
stable_softmax.py; the split of two passes follows the same costs and was not published.
"""

from __future__ import annotations

from dataclasses import dataclass

from iosim.errors import UsageError
from iosim.exact import ceil_div, decide, most
from iosim.kernels.algorithm import Call
from iosim.masks import TileSums

#: operations on every score beside the exponential
SCORE_OPERATIONS = {1: 2, 2: 4, 3: 3}


@dataclass(frozen=True, slots=True)
class ArrayWork:
    """What one array does."""

    name: str
    """2D | 1D"""
    flop: int
    """multiplications and additions of products and of corrections to numerators, clipped to real rows and keys"""
    exp: int
    """exponentials"""
    cycles: int
    """busy cycles, whole tiles of the array"""


def array_work(call: Call, sums: TileSums, passes: int, again: int, exponentials: int) -> tuple[ArrayWork, ArrayWork]:
    """(2D array, 1D array) over batch and all heads.

    Args:
        again: passes that form the scores once more.
        exponentials: per visited score.
    """
    shape, size, exp_cycles = call.problem.shape, call.number("array"), call.number("exp_cycles")
    tiles, blocks = array_tiles(call, sums)
    on_scores = SCORE_OPERATIONS[passes] + exponentials * exp_cycles
    products = (1 + again) * shape.head_dim + shape.head_dim_v
    on_rows = {1: 3 + exp_cycles + 2 * shape.head_dim_v, 2: 3 + exp_cycles, 3: 0}[passes]
    divided = blocks * shape.head_dim_v if passes == 1 else 0
    flop = 2 * sums.area * products
    corrected = 2 * sums.query_rows * shape.head_dim_v if passes == 1 else 0
    exp, rescale = exponentials * sums.area, sums.query_rows if passes < 3 else 0
    if call.settings["softmax"] == "2d":
        two_d = ArrayWork("2D", flop, exp, tiles * (products + on_scores))
        return two_d, ArrayWork("1D", corrected, rescale, tiles * on_rows + divided)
    return (
        ArrayWork("2D", flop, 0, tiles * products),
        ArrayWork("1D", corrected, exp + rescale, tiles * (size * on_scores + on_rows) + divided),
    )


def fused_cycles(call: Call, sums: TileSums) -> int:
    """Cycles of the one-pass cascade with its exponentials on the 2D array, both arrays bound as FuseMax binds them."""
    shape, exp_cycles = call.problem.shape, call.number("exp_cycles")
    tiles, blocks = array_tiles(call, sums)
    numerators = tiles * (1 + shape.head_dim_v) + blocks * shape.head_dim_v
    products = max(tiles * (shape.head_dim + 1), numerators)
    return products + tiles * (1 + (exp_cycles + 1) + shape.head_dim_v)


def array_tiles(call: Call, sums: TileSums) -> tuple[int, int]:
    """(tiles of the 2D array in all visited tiles, blocks of its rows in all queries), over batch and heads.

    Raises:
        UsageError: key tiles wider than the array, or tiles of a layout, of which more than the last can be short.
    """
    rows, size, n_q = call.tiling.rows, call.number("array"), call.problem.n_q
    if not call.tiling.flat or decide(call.tiling.cols > size):
        what = f"a spatial array takes flat tiles of at most {size} keys, got {call.tiling}"
        raise UsageError(what, "--tile", f"for example {rows}x{size}, or --set array")
    heads, last = sums.q_tiles // ceil_div(n_q, rows), (n_q - 1) % rows + 1
    short = (sums.tile_pairs * rows - sums.query_rows) // most(1, rows - last)  # none where the last is whole
    tiles = (sums.tile_pairs - short) * ceil_div(rows, size) + short * ceil_div(last, size)
    return tiles, heads * ((ceil_div(n_q, rows) - 1) * ceil_div(rows, size) + ceil_div(last, size))
