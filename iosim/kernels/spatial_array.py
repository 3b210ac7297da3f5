"""Attention on a spatial array behind one global buffer, as cascades of one, two or three passes over the keys.

A 2D array of processing elements forms products, a 1D array beside it works on rows; a block of queries rests in the
buffer while tiles of keys stream through. Passes are those of `iosim.passes` (FuseMax, section IV):
    1  running maximum and sum, numerators rescaled           FlashAttention-2, FuseMax
    2  exponentials by local maxima, corrected by the global  TileFlow, Choi et al.
    3  global maximum | exponentials and sum | division, PV   PyTorch, FLAT
A later pass needs what the first one made of every key. Words between main memory and the buffer per head, with the
sums A, K, R1 of docs/explanation/counts.md and n passes:
    all          R1 d + K (d + d_v) in, N_q d_v out
    `keep`       a block's scores stay: B_r x (keys it sees) words of buffer, nothing else moves
    `spill`      A written by the first pass, (n - 1) A read again
    recompute    (n - 1) K d read again: K is streamed once more per pass
Two passes also keep a maximum and a sum per row and key tile. Exponentials: A, twice where three passes spill or
any pass recomputes; corrections R in one pass, and of local maxima in two.
Sources: Nayak et al. 2024, FuseMax (arXiv 2406.10491) sections III to V; its artifact, src/accel/proposal.py (what
the buffer holds; 16-bit words throughout, hence `state_bits`). docs/explanation/passes.md has the three ways.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.kernels.algorithm import (
    Algorithm,
    Call,
    Parameter,
    longest_walk,
    moved,
    register,
    total_sums,
    visited_work,
)
from iosim.kernels.array_cycles import array_work, fused_cycles
from iosim.kernels.blocks import score_block
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.schedule import Launch, Program, Touch, Traffic, WorkingSet
from iosim.units import si


def passes(call: Call) -> int:
    """Passes over the keys."""
    return call.number("passes")


def way(call: Call) -> str:
    """keep | spill | recompute: what later passes live on; nothing for a single one."""
    return "" if passes(call) == 1 else str(call.settings.get("between", "recompute"))


def forward(call: Call) -> tuple[Launch, ...]:
    """The one launch."""
    problem, shape, between, more = call.problem, call.problem.shape, way(call), passes(call) - 1
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q
    again = more if between == "recompute" else 0
    tensors = [
        moved(problem, "Q", read=sums.active_query_rows * shape.head_dim),
        moved(problem, "K", read=(1 + again) * sums.key_rows * shape.head_dim),
        moved(problem, "V", read=0 if shape.latent else sums.key_rows * shape.head_dim_v),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if between == "spill":
        tensors.append(moved(problem, "S", read=more * sums.area, write=sums.area))
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    two_d, _ = array_work(call, sums, passes(call), again, exponentials(call))
    work = replace(
        visited_work(problem, sums, 1, ()),
        flop_executed=two_d.flop,
        exp=exponentials(call) * sums.area,
        exp_rescale=sums.query_rows if passes(call) < 3 else 0,
        exp_software=two_d.exp,
        shared_bytes=0,
    )
    return (Launch("forward", sums.q_tiles, Traffic(tuple(tensors)), work, _program(call)),)


def exponentials(call: Call) -> int:
    """Exponentials per visited score: again where a later pass starts from raw scores."""
    return 2 if way(call) == "recompute" or (passes(call) == 3 and way(call) == "spill") else 1


def _program(call: Call) -> Program:
    """One block of queries per item: Q, then each pass over the visited key tiles, V in the last, then the output."""
    problem, shape, plan, between = call.problem, call.problem.shape, head_tiles(call), way(call)
    last = passes(call)

    def visit(head: int, at: tuple[int, int], keys: tuple[int, int], number: int) -> Iterator[Touch]:
        scores = ("S", head, *score_block(problem.n_kv, at, keys))
        if number == 1 or between == "recompute":
            yield Touch("K", head // plan.kv_share, *keys, False)
        if between == "spill":
            yield Touch(*scores, number == 1)
        if number == last and not shape.latent:
            yield Touch("V", head // plan.kv_share, *keys, False)

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at, columns = plan.q_tile(head, tile), plan.visits(head).tiles_of(tile).tolist()
        if columns:
            yield (Touch("Q", head, *at, False),)
        for number in range(1, last + 1):
            for column in columns:
                if step := tuple(visit(head, at, plan.kv_tile(head, column), number)):
                    yield step
        done = (Touch("O", head, *at, True),)
        yield (*done, Touch("LSE", head, *at, True)) if call.flag("lse") else done

    elements = {"Q": shape.head_dim, "K": shape.head_dim, "V": shape.head_dim_v, "O": shape.head_dim_v}
    return Program(plan.heads, plan.tiles, elements | {"S": 1, "LSE": 1}, steps, pattern=shared_pattern(plan.visits))


def working_set(call: Call) -> WorkingSet:
    """Global buffer: a tile of K and V; per row Q, the output, two statistics, and what the passes leave between."""
    problem, shape, bits = call.problem, call.problem.shape, call.problem.types.bits
    rows, cols = min(call.tiling.rows, problem.n_q), min(call.tiling.cols, problem.n_kv)
    longest = longest_walk(problem, call.tiling) if passes(call) > 1 else 0
    values = 0 if shape.latent else shape.head_dim_v * bits("V")
    words = shape.head_dim_v + 2 + (2 * longest if passes(call) == 2 else 0)
    if way(call) == "keep":
        words += min(longest * cols, problem.n_kv)
    row_bits = shape.head_dim * bits("Q") + words * call.number("state_bits")
    return WorkingSet((cols * (shape.head_dim * bits("K") + values) + rows * row_bits) // 8, 0)


def limit(call: Call) -> tuple[int, int]:
    """Key tiles are no wider than the array."""
    return call.tiling.rows, min(call.tiling.cols, call.number("array"))


def notes(call: Call) -> tuple[str, ...]:
    """Who does what, and for how many cycles."""
    sums = total_sums(call.problem, call.tiling)
    again = passes(call) - 1 if way(call) == "recompute" else 0
    two_d, one_d = array_work(call, sums, passes(call), again, exponentials(call))
    shares = (
        f"{each.name} array {si(each.flop, 'FLOP')} and {each.exp} exponentials in {each.cycles} cycles"
        for each in (two_d, one_d)
    )
    if call.settings["softmax"] == "2d" and passes(call) == 1:
        return ("; ".join(shares) + f"; {fused_cycles(call, sums)} cycles in all as FuseMax binds them",)
    return ("; ".join(shares),)


PARAMETERS = (
    Parameter("lse", False, "write one fp32 log-sum-exp word per row"),
    Parameter("passes", 1, "passes over the keys: 1, 2 or 3", least=1, most=3),
    Parameter("array", 256, "rows and columns of the 2D array, and elements of the 1D array", least=1),
    Parameter("state_bits", 16, "bits of scores, statistics and outputs in the buffer", least=1, most=64),
    Parameter("softmax", "2d", "the array that exponentiates scores", choices=("2d", "1d")),
    Parameter("exp_cycles", 7, "cycles of one exponential and its subtraction: 6 multiply-adds and 1", least=1),
)

SPATIAL_ARRAY = register(
    Algorithm(
        name="spatial-array",
        title="Cascades of one, two or three passes on a spatial array",
        source="Nayak et al. 2024, FuseMax, arXiv 2406.10491",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            *PARAMETERS,
            Parameter("between", "keep", "scores between passes stay or are spilled", choices=("keep", "spill")),
        ),
        launches=forward,
        working_set=working_set,
        limit=limit,
        packs=False,
        notes=notes,
    )
)

SPATIAL_ARRAY_AGAIN = register(
    Algorithm(
        name="spatial-array-recompute",
        title="The same, where later passes form the scores again",
        source="Nayak et al. 2024, FuseMax, arXiv 2406.10491, section III",
        algorithm_class="standard",
        phases=("prefill", "decode"),
        parameters=PARAMETERS,
        launches=forward,
        working_set=working_set,
        limit=limit,
        packs=False,
        notes=notes,
    )
)
