"""Cascade decoding: the prefix that all sequences share is read once per Q tile of the whole batch.

The queries of all B sequences and of a group of G heads are the rows of one product with the shared keys; what each
sequence has of its own is split-KV decoding; a last launch merges the partial outputs of both by their log-sum-exp.
Words per key/value head, R = B n_q G rows, prefix N_p in s_p splits, suffix N - N_p in s splits, T = ceil(R / B_r):
    prefix  reads s_p R d + T N_p (d + d_v)                                    writes s_p R (d_v + 1)
    suffix  reads sum over sequences: s n_q G d + T_r (N - N_p) (d + d_v)      writes s R (d_v + 1)
    merge   reads (s_p + s) R (d_v + 1)                                        writes R (d_v + 1)
The shared keys are the problem's (`shared_keys`), not the kernel's: they are one tensor whatever kernel reads it, so
every floor counts them once, and a kernel that reads them per sequence is that much above it. The floors of classes
L1 to L7 count pairs and sizes only, and hold as they are. KV tiles of the suffix begin at its own first key.
Partial outputs are fp32, as in split-KV decoding (assumed: FlashInfer merges states in the output's type).
Sources: Ye et al. 2024, Cascade Inference (flashinfer.ai) and FlashInfer, arXiv 2501.01005; Juravsky et al. 2024,
Hydragen, arXiv 2402.05099, section 3; Zhu et al. 2024, RelayAttention, arXiv 2402.14808.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from iosim.attention import Attention
from iosim.kernels import flash2, split_kv
from iosim.kernels.algorithm import Algorithm, Call, Parameter, moved, register
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.masks import Band, Grid, Mask
from iosim.masks.sequences import Sequences
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work

#: tensors of the prefix launch by the names that split-KV decoding gives them
NAMES = {name: f"{name}_prefix" for name in ("K", "V", "K_scale", "V_scale", "block_table")}
NAMES |= {"O_partial": "O_prefix", "LSE_partial": "LSE_prefix"}


def parts_of(call: Call) -> tuple[Call, Call]:
    """The call on the shared keys, and the call on each sequence's own."""
    problem, shared = call.problem, call.problem.shared_keys
    masks = [_own(mask, shared) for mask in _masks(problem)]
    queries = sum(mask.n_q for mask in masks)
    together = Band(Grid((queries,), (shared,)))
    own = Sequences(Grid((queries,), (sum(mask.n_kv for mask in masks),)), tuple(masks), str(problem.mask))
    made = []
    for mask, splits in ((together, "prefix_splits"), (own, "splits")):
        one = Attention(replace(problem.shape, batch=1), mask, problem.types, problem.phase)
        made.append(replace(call, problem=one, settings={**call.settings, "splits": call.settings[splits]}))
    return made[0], made[1]


def _masks(problem: Attention) -> tuple[Mask, ...]:
    """The mask of each sequence."""
    mask = problem.mask
    return mask.parts if isinstance(mask, Sequences) else (mask,) * problem.shape.batch


@lru_cache(maxsize=256)
def _own(mask: Mask, shared: int) -> Mask:
    """The mask without its first keys; one object for each, whose counts are remembered."""
    assert isinstance(mask, Band)  # what may share keys is checked where a problem is made
    return replace(mask, grid=Grid((mask.n_q,), (mask.n_kv - shared,)), offset=mask.offset - shared)


def launches(call: Call) -> tuple[Launch, ...]:
    """Prefix, suffix and merge; split-KV decoding alone where no keys are shared.

    Raises:
        UsageError: more splits than KV tiles.
    """
    if not call.problem.shared_keys:
        return split_kv.launches(call)
    prefix, own = parts_of(call)
    first, second = _renamed(split_kv.main(prefix, "prefix")), split_kv.main(own, "suffix")
    return first, second, _merge(prefix, own, first, second)


def notes(call: Call) -> tuple[str, ...]:
    """Says so where there is no prefix."""
    return () if call.problem.shared_keys else ("no keys are shared (--shared-prefix): split-KV decoding alone",)


def _renamed(launch: Launch) -> Launch:
    """The prefix launch: its keys and partial results are tensors of their own."""
    program = launch.program
    assert program is not None
    walk = program.steps

    def steps(item: int) -> Iterator[Step]:
        for step in walk(item):
            yield tuple(touch._replace(tensor=NAMES.get(touch.tensor, touch.tensor)) for touch in step)

    traffic = Traffic(tuple(replace(m, tensor=NAMES.get(m.tensor, m.tensor)) for m in launch.traffic.moved))
    elements = {NAMES.get(name, name): count for name, count in program.row_elements.items()}
    return replace(launch, traffic=traffic, program=replace(program, row_elements=elements, steps=steps))


def _merge(prefix: Call, own: Call, *parts: Launch) -> Launch:
    """Every row reads its partial outputs, those of the prefix first, and is written."""
    problem, shape = own.problem, own.problem.shape
    rows = shape.heads * problem.n_q
    partial = [m for part in parts for m in part.traffic.moved if m.write_elements]
    written = [moved(problem, "O", write=rows * shape.head_dim_v)]
    if own.flag("lse"):
        written.append(moved(problem, "LSE", write=rows))
    read = [Moved(m.tensor, m.bits, m.write_elements) for m in partial]
    rescaled = sum(m.write_elements for m in partial if m.tensor.startswith("LSE"))
    return Launch("merge", rows, Traffic((*read, *written)), Work(exp_rescale=rescaled), _merge_program(prefix, own))


def _merge_program(prefix: Call, own: Call) -> Program:
    """One row per item."""
    sources = [
        (head_tiles(part), split_kv.tiles_per_split(part)[0], names)
        for part, names in ((prefix, ("O_prefix", "LSE_prefix")), (own, ("O_partial", "LSE_partial")))
    ]
    shape, rows = own.problem.shape, own.problem.n_q * own.tiling.group

    def steps(item: int) -> Iterator[Step]:
        head, row = divmod(item, rows)
        for plan, per_split, names in sources:
            tile, _ = split_kv.tile_of(plan.visits(head).q_rows, row)
            for split in range(-(-len(plan.visits(head).tiles_of(tile)) // per_split)):
                at = split * plan.tiles * plan.rows + row
                yield tuple(Touch(name, head, at, 1, False) for name in names)
        done = (Touch("O", head, row, 1, True),)
        yield (*done, Touch("LSE", head, row, 1, True)) if own.flag("lse") else done

    elements = {
        name: width for _, _, names in sources for name, width in zip(names, (shape.head_dim_v, 1), strict=True)
    }
    plan = sources[1][0]
    return Program(
        plan.heads, rows, elements | {"O": shape.head_dim_v, "LSE": 1}, steps, pattern=shared_pattern(plan.visits)
    )


CASCADE = register(
    Algorithm(
        name="cascade",
        title="Cascade decoding with a shared prefix",
        source="Ye et al. 2024, Cascade Inference; Juravsky et al. 2024, Hydragen, arXiv 2402.05099",
        algorithm_class="standard-once",
        phases=("decode",),
        varlen=True,
        parameters=(
            *split_kv.SPLIT_KV.parameters,
            Parameter(
                "prefix_splits", 0, "parts of the shared keys per Q tile; by default what `rule` chooses", least=1
            ),
        ),
        launches=launches,
        working_set=flash2.working_set,
        notes=notes,
    )
)
