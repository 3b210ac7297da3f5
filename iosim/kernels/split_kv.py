"""Split-KV decoding (FlashDecoding): the keys of one Q tile are shared among several work items.

Words per packed head, s splits that hold tiles, T_r Q tiles:
    main     reads s N_q d + T_r N_kv (d + d_v)    writes s N_q (d_v + 1)     partial outputs and LSE, fp32
    combine  reads s N_q (d_v + 1)                 writes N_q (d_v + 1)
With one split there is no combine and it is FlashAttention-2. Splits that would hold no tile are not launched.
Sequences of unequal lengths are cut into splits of one length, the longest's over s: a shorter one fills fewer, and
every row passes through the combine. So FlashAttention-2 (n_blocks_per_split of params.seqlen_k, the longest) and
FlashInfer (one chunk size per plan); FlashAttention-3 cuts each sequence evenly, which moves the same where each
fills as many splits.
Source: Dao, Haziza, Massa, Sizov 2023, Flash-Decoding; the rules that choose s: `split_rules`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.exact import ceil_div, decide, most
from iosim.kernels import flash2
from iosim.kernels.algorithm import (
    LSE,
    MMA_ROWS,
    STAGES,
    Algorithm,
    Call,
    Parameter,
    Setting,
    moved,
    register,
    total_sums,
    visited_work,
)
from iosim.kernels.key_values import KV_PARAMETERS, kv_moved, kv_row_elements, kv_touches
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.split_rules import RULES, Demand, ruled_splits
from iosim.kernels.step_tables import shared_pattern
from iosim.masks import Band, TileSums, Tiling
from iosim.masks.band_walks import split_rows
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: splits that the released kernels compile for
MOST_SPLITS = 128


def tiles_per_split(call: Call) -> tuple[int, int]:
    """(KV tiles of a whole split, KV tiles of the longest walk).

    Raises:
        UsageError: more splits than KV tiles.
    """
    sums = total_sums(call.problem, call.tiling)
    wanted = call.number("splits")
    if decide(wanted > most(1, sums.longest)):
        raise UsageError(
            f"{wanted} splits of {sums.longest} KV tiles", "--set splits", f"at most {sums.longest} hold a tile"
        )
    if decide(wanted != 0):
        return most(1, ceil_div(sums.longest, wanted)), sums.longest
    splits = ruled_splits(str(call.settings["rule"]), _demand(call, sums))
    return max(1, -(-sums.longest // splits)), sums.longest


def chosen_splits(call: Call) -> dict[str, Setting]:
    """Parts of the keys that hold tiles; as many typed cut the keys in the same places."""
    per_split, longest = tiles_per_split(call)
    return {"splits": max(1, -(-longest // per_split))}


def _demand(call: Call, sums: TileSums) -> Demand:
    """What a rule looks at; of unequal lengths the longest, as the code bases do with their padded key length."""
    problem, tiling = call.problem, call.tiling
    parts = problem.mask.sequences()
    alone = ((total_sums(replace(problem, mask=part), tiling), times) for part, times in parts)
    return Demand(
        sums.q_tiles, sums.longest, call.cores, problem.sequences, problem.shape.kv_heads,
        max(part.n_kv for part, _ in parts), tiling.cols, call.number("most_splits"),
        sum(times * one.q_tiles * one.longest for one, times in alone),
    )  # fmt: skip


def _split_rows(problem: Attention, tiling: Tiling, per_split: int) -> int:
    """Rows of all (Q tile, split) items that hold tiles, over batch and heads."""
    total = 0
    for mask, heads in problem.masks():
        sums = mask.sums(tiling)
        times = problem.shape.batch * heads // tiling.group
        if decide(sums.tile_pairs == sums.q_tiles * sums.longest):  # every Q tile walks as many tiles
            rows = problem.n_q * tiling.group
            total += times * rows * ceil_div(sums.longest, per_split)
        elif isinstance(mask, Band) and mask.left is None and tiling.flat:
            total += times * split_rows(mask, tiling, per_split)
        else:
            walks, rows_of, alike = mask.walk_counts(tiling)
            total += times * int((alike * rows_of * -(-walks // per_split)).sum())
    return total


def launches(call: Call) -> tuple[Launch, ...]:
    """The main launch and, with more than one split that holds tiles, the combine.

    Raises:
        UsageError: more splits than KV tiles.
    """
    per_split, longest = tiles_per_split(call)
    splits = most(1, ceil_div(longest, per_split))
    if decide(splits == 1):
        return flash2.forward(call)
    first = main(call)
    return first, _combine(call, first)


def main(call: Call, name: str = "main") -> Launch:
    """The launch that writes partial outputs, whatever the number of splits."""
    per_split, longest = tiles_per_split(call)
    splits = most(1, ceil_div(longest, per_split))
    split_rows = _split_rows(call.problem, call.tiling, per_split)
    problem, shape = call.problem, call.problem.shape
    sums = total_sums(problem, call.tiling)
    partial = (
        Moved("O_partial", problem.types.bits("O_partial"), 0, split_rows * shape.head_dim_v),
        Moved("LSE_partial", problem.types.bits("LSE_partial"), 0, split_rows),
    )
    traffic = Traffic(
        (
            moved(problem, "Q", read=split_rows * shape.head_dim),
            *kv_moved(call, sums),
            *partial,
        )
    )
    work = visited_work(problem, sums, call.number("mma_rows"), traffic.moved)
    return Launch(name, sums.q_tiles * splits, traffic, work, _main_program(call, splits))


def _main_program(call: Call, splits: int) -> Program:
    """Items of one head: Q tiles fastest, then splits. Rows of split s of a partial tensor follow those of s - 1."""
    shape, plan, (per_split, _) = call.problem.shape, head_tiles(call), tiles_per_split(call)

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, plan.tiles * splits)
        split, tile = divmod(index, plan.tiles)
        row, rows = plan.q_tile(head, tile)
        columns = plan.visits(head).tiles_of(tile)[split * per_split : (split + 1) * per_split]
        if not len(columns):
            return
        yield (Touch("Q", head, row, rows, False),)
        for column in columns.tolist():
            yield kv_touches(call, head // plan.kv_share, *plan.kv_tile(head, column))
        at = split * plan.tiles * plan.rows + row
        yield Touch("O_partial", head, at, rows, True), Touch("LSE_partial", head, at, rows, True)

    elements = {"Q": shape.head_dim, **kv_row_elements(call), "O_partial": shape.head_dim_v, "LSE_partial": 1}
    return Program(plan.heads, plan.tiles * splits, elements, steps, pattern=shared_pattern(plan.visits))


def _combine_program(call: Call) -> Program:
    """One row per item: its partial outputs, then the row itself."""
    shape, plan, (per_split, _) = call.problem.shape, head_tiles(call), tiles_per_split(call)

    def steps(item: int) -> Iterator[Step]:
        head, index = divmod(item, call.problem.n_q * call.tiling.group)
        tile, offset = tile_of(plan.visits(head).q_rows, index)
        row = plan.q_tile(head, tile)[0] + offset
        parts = -(-len(plan.visits(head).tiles_of(tile)) // per_split)
        for split in range(parts):
            at = split * plan.tiles * plan.rows + row
            yield Touch("O_partial", head, at, 1, False), Touch("LSE_partial", head, at, 1, False)
        done = (Touch("O", head, row, 1, True),)
        yield (*done, Touch("LSE", head, row, 1, True)) if call.flag("lse") else done

    elements = {"O_partial": shape.head_dim_v, "LSE_partial": 1, "O": shape.head_dim_v, "LSE": 1}
    rows = call.problem.n_q * call.tiling.group
    return Program(plan.heads, rows, elements, steps, pattern=shared_pattern(plan.visits))


def tile_of(q_rows: NDArray[np.int64], index: int) -> tuple[int, int]:
    """(Q tile, row within it) of a row; permuted tiles have padding between them."""
    import numpy as np

    ends = np.cumsum(q_rows)
    tile = int(np.searchsorted(ends, index, side="right"))
    return tile, index - int(ends[tile] - q_rows[tile])


def _combine(call: Call, first: Launch) -> Launch:
    problem, shape = call.problem, call.problem.shape
    rows = shape.batch * shape.heads * problem.n_q
    partial = [m for m in first.traffic.moved if m.tensor in ("O_partial", "LSE_partial")]
    split_rows = partial[1].write_elements
    read_back = tuple(Moved(m.tensor, m.bits, m.write_elements, 0) for m in partial)
    written = [moved(problem, "O", write=rows * shape.head_dim_v)]
    if call.flag("lse"):
        written.append(moved(problem, "LSE", write=rows))
    traffic = Traffic((*read_back, *written))
    return Launch("combine", rows, traffic, Work(exp_rescale=split_rows), _combine_program(call))


SPLIT_KV = register(
    Algorithm(
        name="split-kv",
        title="Split-KV decoding (FlashDecoding)",
        source="Dao, Haziza, Massa, Sizov 2023, Flash-Decoding for long-context inference",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        varlen=True,
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            Parameter("splits", 0, "parts of the keys per Q tile; by default what `rule` chooses", least=1),
            Parameter("rule", "flash3", "code base whose split heuristic decides", choices=tuple(RULES)),
            Parameter("most_splits", MOST_SPLITS, "limit on what the rule may choose", least=1),
        ),
        launches=launches,
        working_set=flash2.working_set,
        chosen=chosen_splits,
    )
)
