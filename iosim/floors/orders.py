"""Loop orders counted word by word: the least that known schedules move with a memory of M words.

Every value is one word, a row is one query of one head (rows of heads that share K and V stand in one block),
B the rows of a block, sums over the visited (block, key) pairs when there is a mask:
    flash    B (d + d_v + 3) + max(d, d_v) + 2 <= M     R = N_q d + ceil(N_q / B) N_kv (d + d_v),  W = N_q d_v
    square   b x b scores on chip, then written and read back; n_v = ceil(d_v / b)
             R = d (N_q n_k + N_kv n_q) + N_q + N_q N_kv n_v + d_v N_kv n_q,  W = N_q N_kv + N_q + N_q d_v
             paper: three blocks and a vector, 3 b^2 + b <= 4 b^2 <= M;  improved: one block, one column and
             one row of operands, b^2 + 2 b + 1 <= M
    resident keys and values of one head stay on chip: nothing moves twice
Sources: Dao 2023 (arXiv 2307.08691) for flash; Saha and Ye 2024 (arXiv 2402.07443), algorithm 1, for square;
docs/explanation/curve.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

from iosim.floors.demand import Demand
from iosim.kernels.algorithm import total_sums
from iosim.masks import Tiling

#: under a mask, blocks of fewer rows, or more blocks than this per head, are not summed: it takes too long
LEAST_MASKED_ROWS, MOST_MASKED_BLOCKS = 8, 1024


@dataclass(frozen=True, slots=True)
class Order:
    """One loop order."""

    name: str
    """flash | square-paper | square | resident"""
    title: str
    """for a legend"""
    elements: Callable[[Demand, int], int | None]
    """words both ways with a memory of so many words; None where it does not fit or is not summed"""


@dataclass(frozen=True, slots=True)
class Visits:
    """Sums over visited (block of rows, block of keys) pairs, over batch and all heads."""

    keys: int
    """keys over visited pairs"""
    rows: int
    """rows over visited pairs"""
    area: int
    """rows x keys over visited pairs"""
    active: int
    """rows with a visit"""


def is_dense(demand: Demand) -> bool:
    """Whether every query sees every key."""
    shape, problem = demand.problem.shape, demand.problem
    return demand.counts.pairs == shape.batch * shape.heads * problem.n_q * problem.n_kv


def visits(demand: Demand, rows: int, keys: int) -> Visits | None:
    """Visits of blocks of `rows` x `keys`; None for a masked problem in blocks too small to sum quickly."""
    problem, shape = demand.problem, demand.problem.shape
    if is_dense(demand):
        per_head, heads = shape.group * problem.n_q, shape.batch * shape.kv_heads
        blocks, key_blocks = -(-per_head // rows), -(-problem.n_kv // keys)
        total = heads * per_head
        return Visits(heads * blocks * problem.n_kv, total * key_blocks, demand.counts.pairs, total)
    if rows < max(LEAST_MASKED_ROWS, problem.n_q // MOST_MASKED_BLOCKS):
        return None
    pack = shape.group if problem.n_q < rows and len(problem.masks()) == 1 else 1
    sums = total_sums(problem, Tiling((rows,), (keys,), pack))
    return Visits(sums.key_rows, sums.query_rows, sums.area, sums.active_query_rows)


def flash(demand: Demand, memory: int) -> int | None:
    """FlashAttention's order: a block of queries and outputs resident, keys and values streamed one by one."""
    sizes = demand.elements
    rows = (memory - max(sizes.d, sizes.d_v) - 2) // (sizes.d + sizes.d_v + 3)
    seen = visits(demand, rows, 1) if rows >= 1 else None
    if seen is None:
        return None
    return seen.active * (sizes.d + sizes.d_v) + seen.keys * sizes.column


def square(demand: Demand, block: int) -> int | None:
    """The small-cache order with b x b blocks of scores that are written and read back."""
    seen = visits(demand, block, block) if block >= 1 else None
    if seen is None:
        return None
    sizes, slices = demand.elements, -(-demand.elements.d_v // block)
    scores = sizes.d * (seen.rows + seen.keys) + seen.area + seen.active
    outputs = seen.active + seen.area * slices + sizes.d_v * seen.keys + seen.active * sizes.d_v
    return scores + outputs


def resident(demand: Demand, memory: int) -> int | None:
    """All keys and values of one head on chip with one row: compulsory traffic, and no more."""
    sizes, problem = demand.elements, demand.problem
    longest = max(part.n_kv for part, _ in problem.mask.sequences())
    if longest * (sizes.column + 1) + sizes.d + sizes.d_v + 2 > memory:
        return None
    keys = problem.shape.batch * problem.shape.kv_heads * problem.n_kv
    return demand.counts.rows * (sizes.d + sizes.d_v) + keys * sizes.column


ORDERS = {
    order.name: order
    for order in (
        Order("flash", "FlashAttention's order", flash),
        Order("square-paper", "small cache, Saha and Ye", lambda demand, memory: square(demand, isqrt(memory // 4))),
        Order("square", "small cache, one block", lambda demand, memory: square(demand, isqrt(memory) - 1)),
        Order("resident", "keys of a head resident", resident),
    )
}


def crossover_elements(demand: Demand) -> int | None:
    """Memory from which on FlashAttention's order moves no more than the small-cache order (one block).

    None where that is no size up to 4 d d_v, or under a mask too long to sum. Between (b + 1)^2 and (b + 2)^2
    words the block is b, so only flash changes, and one bisection finds where it overtakes. Blocks are tried
    from the largest down; under a mask, whose sums take longer, by bisection too.
    """
    if not is_dense(demand) and demand.problem.n_q > LEAST_MASKED_ROWS * MOST_MASKED_BLOCKS:
        return None
    largest = 2 * isqrt(demand.elements.d * demand.elements.d_v)

    def square_wins(block: int) -> bool:
        words = square(demand, block)
        return words is not None and _flash_loses(demand, (block + 1) ** 2, words)

    block = next(filter(square_wins, range(largest, 0, -1)), 0) if is_dense(demand) else _last(square_wins, largest)
    words = square(demand, block)
    if words is None or block == largest:
        return None
    start, size = (block + 1) ** 2, 2 * block + 3
    return start + _last(lambda more: _flash_loses(demand, start + more, words), size) + 1


def _last(holds: Callable[[int], bool], top: int) -> int:
    """Largest number up to `top` for which a falling condition holds; 0 when none does."""
    low, high = 0, top + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _flash_loses(demand: Demand, memory: int, words: int) -> bool:
    moved = flash(demand, memory)
    return moved is None or moved > words
