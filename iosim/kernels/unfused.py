"""Unfused attention: S = QK^T, P = softmax(S), O = PV as three launches with S and P in slow memory.

Words per head, each matrix operand touched once:
    reads   N_q d + N_kv (d + d_v) + 2 N_q N_kv, and N_q N_kv per further softmax pass
    writes  2 N_q N_kv + N_q d_v
Softmax takes 3 passes over a row when maximum, sum and division are apart, 2 when maximum and sum run
together, 1 when the row fits on chip. The mask is applied inside softmax, or in a launch of its own: every score
is formed, as the library paths do. `gemm_tile` t charges the re-reads of t x t products instead:
N_q d ceil(N_kv / t) + N_kv d ceil(N_q / t), and N_q N_kv ceil(d_v / t) + N_kv d_v ceil(N_q / t) for PV.
S and P lie tile by tile, so a strip of query rows is contiguous; V and O lie in strips of t columns.
What an eager framework runs besides (scale, mask, dropout, copies of the operands): `eager`.
Source: Dao et al. 2022 (arXiv 2205.14135) algorithm 0 and theorem 2; softmax passes: FuseMax (arXiv 2406.10491).
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import MMA_ROWS, Algorithm, Call, Parameter, register
from iosim.kernels.blocks import column_block
from iosim.kernels.eager import FORWARD_PARAMETERS, copies, dropout, mask, operand, scale, weights
from iosim.kernels.elementwise import Strip, elementwise, tensor_bits
from iosim.kernels.products import Products, product_work, products, score_product
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, WorkingSet

__all__ = ["GEMM_TILE", "PASSES", "UNFUSED", "Products", "forward", "model", "products", "working_set"]


def forward(call: Call) -> tuple[Launch, ...]:
    """The three launches, and those of an eager framework between them.

    Raises:
        UsageError: tiles of products that cut V into strips, where V is copied whole.
    """
    if call.flag("copies") and call.number("gemm_tile"):
        raise UsageError("copies are counted with each operand read once", "--set copies", "leave out gemm_tile")
    scores = score_product(call, "scores", operand(call, "Q"), operand(call, "K"), "S", call.problem.shape.head_dim)
    return (
        *copies(call),
        scores,
        *scale(call, "S"),
        *mask(call, "S", "S"),
        _softmax(call),
        *dropout(call),
        _outputs(call),
    )


def _softmax(call: Call) -> Launch:
    """One strip of rows per item."""
    shape, n_q, n_kv = call.problem.shape, call.problem.n_q, call.problem.n_kv
    heads = shape.batch * shape.heads
    strips = (Strip("S", n_kv, times=call.number("passes")), Strip("P", n_kv, write=True))
    return elementwise(call, "softmax", heads, n_q, products(call).rows, strips, exp=heads * n_q * n_kv)


def _outputs(call: Call) -> Launch:
    """One output tile per item, strips of V's columns fastest; the depth of the product in key tiles."""
    problem, shape, cut = call.problem, call.problem.shape, products(call)
    heads, d_v = shape.batch * shape.heads, shape.head_dim_v
    strips, p, v = -(-d_v // cut.width), weights(call), operand(call, "V")
    counts = {
        p: (heads * cut.n_q * cut.n_kv * (strips if cut.again else 1), 0),
        v: (heads * cut.n_kv * d_v * cut.k_times, 0),
        "O": (0, heads * cut.n_q * d_v),
    }

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, cut.q_tiles * strips)
        row_tile, strip = divmod(tile, strips)
        columns = strip * cut.width, min(cut.width, d_v - strip * cut.width)
        for kv_tile in range(cut.kv_tiles):
            step = [Touch(p, head, *cut.score_tile(row_tile, kv_tile), False)]
            if cut.again or row_tile == 0:
                values = column_block(cut.n_kv, cut.kv_tile(kv_tile), columns)
                step.append(Touch(v, head // shape.group, *values, False))
            yield tuple(step)
        yield (Touch("O", head, *column_block(cut.n_q, cut.q_tile(row_tile), columns), True),)

    program = Program(heads, cut.q_tiles * strips, {p: 1, v: 1, "O": 1}, steps)
    traffic = Traffic(tuple(Moved(t, tensor_bits(problem, t), *count) for t, count in counts.items()))
    return Launch("outputs", program.items, traffic, product_work(call, d_v), program)


def working_set(call: Call) -> WorkingSet:
    """Two operand tiles of depth 64 in shared memory and one fp32 output tile, as tiled products keep them."""
    bits, cut = call.problem.types.bits, products(call)
    return WorkingSet((cut.rows + cut.cols) * 64 * bits("Q") // 8, cut.rows * cut.cols * bits("accumulator") // 8)


def model(call: Call) -> str:
    """Empty with `gemm_tile`, or where one tile holds all rows and keys: else no core could read operands only once."""
    cut = products(call)
    one = decide(cut.q_tiles <= 1) and decide(cut.kv_tiles <= 1)
    return "" if cut.again or one else "each operand of a product counted once, more than one core can hold"


PASSES = Parameter("passes", 1, "times the softmax kernel reads a row of scores: 1, 2 or 3", least=1, most=3)
GEMM_TILE = Parameter(
    "gemm_tile", 0, "square tile of the products, in rows; by default each operand is touched once", least=1
)

UNFUSED = register(
    Algorithm(
        name="unfused",
        title="Unfused attention (three kernels)",
        source="Dao et al. 2022, arXiv 2205.14135, algorithm 0",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            PASSES,
            GEMM_TILE,
            MMA_ROWS,
            *FORWARD_PARAMETERS,
        ),
        launches=forward,
        working_set=working_set,
        model=model,
        packs=False,
    )
)
