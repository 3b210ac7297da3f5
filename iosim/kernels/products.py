"""The matrix products of attention that is not fused: how they are cut, and the one that makes N x N scores.

Words per head of a product of N_q x D and N_kv x D operands into scores, each operand touched once or, with
square output tiles of t, once per tile that needs it:
    reads   N_q D [ceil(N_kv / t)] + N_kv D [ceil(N_q / t)]   writes N_q N_kv
Scores lie tile by tile, so that a strip of query rows is contiguous.
Source: Dao et al. 2022 (arXiv 2205.14135) algorithms 0 and 3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from iosim.kernels.algorithm import Call
from iosim.kernels.blocks import score_block
from iosim.kernels.elementwise import tensor_bits
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work


@dataclass(frozen=True, slots=True)
class Products:
    """How the products are cut: extents of their output tiles, and whether operands are re-read."""

    n_q: int
    """query rows"""
    n_kv: int
    """keys"""
    rows: int
    """query rows of an output tile"""
    cols: int
    """keys of an output tile of QK^T"""
    width: int
    """columns of an output tile of PV"""
    again: bool
    """every tile reads its own operands; else the first that needs one stands for all"""

    @property
    def q_tiles(self) -> int:
        """Row tiles."""
        return -(-self.n_q // self.rows)

    @property
    def kv_tiles(self) -> int:
        """Key tiles."""
        return -(-self.n_kv // self.cols)

    @property
    def q_times(self) -> int:
        """How often a row operand is read while scores are formed."""
        return self.kv_tiles if self.again else 1

    @property
    def k_times(self) -> int:
        """How often a key operand is read while scores are formed."""
        return self.q_tiles if self.again else 1

    def q_tile(self, tile: int) -> tuple[int, int]:
        """(first row, rows)."""
        return tile * self.rows, min(self.rows, self.n_q - tile * self.rows)

    def kv_tile(self, tile: int) -> tuple[int, int]:
        """(first key, keys)."""
        return tile * self.cols, min(self.cols, self.n_kv - tile * self.cols)

    def score_tile(self, row_tile: int, kv_tile: int) -> tuple[int, int]:
        """(first element, elements) of a tile of S or P."""
        return score_block(self.n_kv, self.q_tile(row_tile), self.kv_tile(kv_tile))


def products(call: Call) -> Products:
    """The cut of a call: square tiles of `gemm_tile`, or the tiling's with operands touched once."""
    problem, tile = call.problem, call.number("gemm_tile")
    rows, cols = (tile, tile) if tile else (call.tiling.rows, call.tiling.cols)
    return Products(problem.n_q, problem.n_kv, rows, cols, tile or problem.shape.head_dim_v, bool(tile))


def score_product(call: Call, name: str, left: str, right: str, result: str, depth: int) -> Launch:
    """`result` = `left` `right`^T: one output tile per item, key tiles fastest."""
    problem, cut, shape = call.problem, products(call), call.problem.shape
    heads = shape.batch * shape.heads
    counts = {
        left: (heads * cut.n_q * depth * cut.q_times, 0),
        right: (heads * cut.n_kv * depth * cut.k_times, 0),
        result: (0, heads * cut.n_q * cut.n_kv),
    }

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, cut.q_tiles * cut.kv_tiles)
        row_tile, kv_tile = divmod(tile, cut.kv_tiles)
        operands = []
        if cut.again or kv_tile == 0:
            operands.append(Touch(left, head, *cut.q_tile(row_tile), False))
        if cut.again or row_tile == 0:
            operands.append(Touch(right, head // shape.group, *cut.kv_tile(kv_tile), False))
        yield tuple(operands)
        yield (Touch(result, head, *cut.score_tile(row_tile, kv_tile), True),)

    program = Program(heads, cut.q_tiles * cut.kv_tiles, {left: depth, right: depth, result: 1}, steps)
    traffic = Traffic(tuple(Moved(t, tensor_bits(problem, t), *count) for t, count in counts.items()))
    work = product_work(call, depth, heads * cut.q_tiles * cut.kv_tiles)
    return Launch(name, program.items, traffic, work, program)


def product_work(call: Call, depth: int, pairs: int = 0) -> Work:
    """One product of depth or width `depth` over all cells of the scores; useful are the unmasked ones.

    Args:
        pairs: (Q tile, KV tile) pairs that it counts, of all products of a pass only one does.
    """
    problem, cut = call.problem, products(call)
    cells = problem.shape.batch * problem.shape.heads * cut.n_q * cut.n_kv
    operand_bits = depth * problem.types.bits("Q")
    shared = -(-cells // call.number("mma_rows")) * operand_bits + -(-cells // call.tiling.cols) * operand_bits
    return Work(pairs, 2 * depth * problem.counts().pairs, 2 * cells * depth, shared_bytes=shared // 8)
