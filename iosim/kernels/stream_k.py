"""Stream-K decoding (LeanAttention), and FlashMLA's cut: every core gets an equal run of KV tiles.

The KV tiles of all Q tiles stand in one line, T of them; worker w of g takes a stretch. A stretch that begins
inside a Q tile's walk is a cut: the rows of that Q tile are read again, and their partial output and log-sum-exp
go through slow memory once each way.
    share=whole     L = ceil(T / g) tiles per worker: boundaries at L, 2 L, ...          (LeanAttention)
    share=balanced  boundaries at floor(w T / g), so that stretches differ by one tile
    flashmla        for each Q tile of a sequence, a line of its own over the n sequences and g workers: a sequence
                    costs `overhead` tiles more, a worker may spend ceil((T + overhead n) / g) + overhead
Words per head, cuts c_i of Q tile i with b_i rows:
    reads   N_q d + sum c_i b_i (d + d_v + 1) + keys of visited tiles x (d + d_v)
    writes  sum c_i b_i (d_v + 1) + N_q d_v + N_q (log-sum-exp)
stream-k sums partials in the same launch: the worker that ends a Q tile reads those before it. flashmla writes
all c_i + 1 parts of a cut Q tile and sums them in a second launch, as its split-KV combine does.
Sources: Sanovar et al. 2024, LeanAttention (arXiv 2405.10480); Osama et al. 2023, Stream-K (arXiv 2301.03598);
deepseek-ai/FlashMLA, get_mla_metadata, April 2026.
"""

from __future__ import annotations

from iosim.exact import decide, most
from iosim.kernels import flash2
from iosim.kernels.algorithm import (
    LSE,
    MMA_ROWS,
    STAGES,
    Algorithm,
    Call,
    Parameter,
    head_sums,
    moved,
    register,
    total_sums,
    visited_work,
)
from iosim.kernels.key_values import KV_PARAMETERS, kv_moved
from iosim.kernels.stream_line import cut_tiles, line_heads, line_of, stretches_in, uniform, workers_of
from iosim.kernels.stream_programs import combine_program, walk_program
from iosim.kernels.stretches import UniformLine
from iosim.schedule import Launch, Traffic, Work

SHARES = ("whole", "balanced")


def fused(call: Call) -> tuple[Launch, ...]:
    """stream-k: one launch that also sums the partials."""
    heads = line_heads(call)
    if uniform(call):
        items, cut_rows = _uniform_cuts(call, heads)
    else:
        ends, cut_rows, _ = stretches_in(call, line_of(call))
        items = len(ends)
    traffic, work = _main(call, cut_rows, written=cut_rows, read=cut_rows)
    return (Launch("forward", items, traffic, work, walk_program(call, items, fixup=True)),)


def _uniform_cuts(call: Call, heads: int) -> tuple[int, int]:
    """(stretches, rows at cuts) of a line whose Q tiles all have as many KV tiles."""
    sums, rows = head_sums(call), call.tiling.rows
    tiles, size = sums.q_tiles, most(1, sums.longest)  # as much is visited
    line = UniformLine(size, tiles, heads)
    items, cuts, ragged_cuts = line.cuts(str(call.settings["share"]), workers_of(call))
    ragged = call.problem.n_q * call.tiling.group - (tiles - 1) * rows
    return items, (cuts - ragged_cuts) * rows + ragged_cuts * ragged


def combined(call: Call) -> tuple[Launch, ...]:
    """flashmla: parts of cut Q tiles, then their combine."""
    problem, heads = call.problem, line_heads(call)
    if uniform(call):
        line, tiles = UniformLine(most(1, head_sums(call).longest), 1, heads), head_sums(call).q_tiles
        rows = problem.n_q * call.tiling.group
        stretches, cuts, cut = line.budgets(workers_of(call), call.number("overhead"))
        items, cut_items, cut_rows, tile_rows = stretches * tiles, cut * tiles, cuts * rows, cut * rows
    else:
        ends, cut_rows, tile_rows = stretches_in(call, line_of(call))
        items, cut_items = len(ends), len(cut_tiles(line_of(call), ends))
    parts = cut_rows + tile_rows
    traffic, work = _main(call, cut_rows, written=parts, read=0, whole=-tile_rows)
    main = Launch("main", items, traffic, work, walk_program(call, items, fixup=False))
    if decide(tile_rows == 0):
        return (main,)
    width = problem.shape.head_dim_v
    tensors = [
        moved(problem, "O_partial", read=parts * width),
        moved(problem, "LSE_partial", read=parts),
        moved(problem, "O", write=tile_rows * width),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=tile_rows))
    program = combine_program(call, cut_items)
    return (main, Launch("combine", program.items, Traffic(tuple(tensors)), Work(exp_rescale=parts), program))


def _main(call: Call, cut_rows: int, written: int, read: int, whole: int = 0) -> tuple[Traffic, Work]:
    """Traffic and work of the walk: `whole` is added to the rows that it writes at once."""
    problem, shape = call.problem, call.problem.shape
    sums = total_sums(problem, call.tiling)
    rows = shape.batch * shape.heads * problem.n_q + whole
    tensors = [
        moved(problem, "Q", read=(sums.active_query_rows + cut_rows) * shape.head_dim),
        *kv_moved(call, sums),
        moved(problem, "O_partial", read * shape.head_dim_v, written * shape.head_dim_v),
        moved(problem, "LSE_partial", read, written),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    work = visited_work(problem, sums, call.number("mma_rows"), tensors)
    return Traffic(tuple(tensors)), work + Work(exp_rescale=read)


WORKERS = Parameter("workers", 0, "equal shares; by default one per core", least=1)

STREAM_K = register(
    Algorithm(
        name="stream-k",
        title="Stream-K decoding (LeanAttention)",
        source="Sanovar et al. 2024, arXiv 2405.10480",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            WORKERS,
            Parameter("share", "whole", "how the line of KV tiles is shared out", choices=SHARES),
        ),
        launches=fused,
        working_set=flash2.working_set,
        chosen=lambda call: {"workers": workers_of(call)},
    )
)

FLASHMLA = register(
    Algorithm(
        name="flashmla",
        title="FlashMLA: absorbed multi-head latent attention in decode",
        source="deepseek-ai/FlashMLA, April 2026",
        algorithm_class="standard-once",
        phases=("decode",),
        parameters=(
            LSE,
            STAGES,
            MMA_ROWS,
            *KV_PARAMETERS,
            WORKERS,
            Parameter("overhead", 5, "KV tiles that a sequence costs beside its own"),
        ),
        launches=combined,
        working_set=flash2.working_set,
        chosen=lambda call: {"workers": workers_of(call)},
    )
)
