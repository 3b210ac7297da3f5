"""Pairs of cores that compute on one K/V tile together: 2-CTA matrix instructions of data-centre Blackwell.

The Q tiles of a head form pairs, ceil(T / 2) of T. The cores of a pair walk the keys that some row of the pair sees;
each loads and holds half of every K tile (half of its keys) and of every V tile (half of its columns, here half of its
keys: as many words), and the matrix units read these operands out of both memories. With c = 2 cores:
    reads of K, V    at the cores and at the last shared cache: what one core with a Q tile of c rows would read,
                     sum over visited (pair, KV tile) of its keys x (d + d_v)  [full: ceil(T / c) N_kv (d + d_v)]
    block table      by each core of the pair
    operands         K and V are read from shared memory once per c x `mma_rows` rows
    working set      a Q tile, and 1 / c of each slot; a slot holds the larger of a K and a V tile
    items            c ceil(T / c): the idle core of an odd last pair loads its half too
Executed FLOP, exponentials and visited tiles are those of the pair's tile.
Source: flash_attn/cute/flash_fwd_sm100.py (cta_group_size, mma_tiler, kv_stage), August 2026.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from iosim.errors import UsageError
from iosim.kernels.algorithm import Call, Parameter
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, StepTable, Touch, Traffic

if TYPE_CHECKING:
    from numpy.typing import NDArray

CTAS = Parameter("ctas", 1, "cores that load, hold and multiply each K/V tile together: 1 or 2", least=1, most=2)


def of_pair(call: Call) -> Call:
    """The same call as if a pair were one core: its Q tiles joined, one operand read for the rows of both.

    Raises:
        UsageError: tiles of permuted tokens.
    """
    cores = call.number("ctas")
    if cores == 1:
        return call
    if not call.tiling.flat:
        raise UsageError("pairs of cores take tiles of row-major tokens", "--set ctas", "give the tile as AxB")
    settings = {**call.settings, "mma_rows": cores * call.number("mma_rows")}
    return replace(call, tiling=call.tiling.joined(cores), settings=settings)


def in_pairs(call: Call, whole: Launch) -> Launch:
    """The launch of `of_pair`'s call as its cores run it."""
    cores = call.number("ctas")
    if cores == 1:
        return whole
    traffic = Traffic(tuple(_by_each(m, cores) if m.tensor == "block_table" else m for m in whole.traffic.moved))
    assert whole.program is not None
    return replace(whole, items=cores * whole.items, traffic=traffic, program=_shared_out(call, whole.program))


def _by_each(moved: Moved, cores: int) -> Moved:
    return replace(moved, read_elements=cores * moved.read_elements)


def _shared_out(call: Call, base: Program) -> Program:
    """The steps of pairs, shared out: items 2 p and 2 p + 1 are the cores of pair p."""
    cores, rows, keys = call.number("ctas"), call.tiling.rows, -(-call.tiling.cols // call.number("ctas"))
    sizes = {"Q": rows, "O": rows, "LSE": rows}

    def steps(item: int) -> Iterator[Step]:
        pair, core = divmod(item, cores)
        for step in base.steps(pair):
            part = (_part(touch, core, sizes.get(touch.tensor, keys)) for touch in step)
            if kept := tuple(touch for touch in part if touch.rows > 0):
                yield kept

    table = None
    if whole := base.table:
        table = lambda head: _table_in_pairs(whole(head), cores, sizes, keys)  # noqa: E731
    return replace(base, tiles=cores * base.tiles, steps=steps, table=table)


def _part(touch: Touch, core: int, size: int) -> Touch:
    """A core's part of what its pair touches; every core reads the block table itself."""
    if touch.tensor == "block_table":
        return touch
    return touch._replace(row=touch.row + core * size, rows=min(size, touch.rows - core * size))


def _table_in_pairs(base: StepTable, cores: int, sizes: Mapping[str, int], keys: int) -> StepTable:
    """The same of a table of steps; equal to walking."""
    import numpy as np

    size = np.array([sizes.get(tensor, keys) for tensor in base.tensors], np.int64)[base.tensor]
    step_of = np.repeat(np.arange(len(base.step) - 1), np.diff(base.step))
    pair_of = np.repeat(np.arange(len(base.item) - 1), np.diff(base.item))[step_of]
    core = np.arange(cores)[:, None]
    rows = np.minimum(size, base.rows - core * size)
    item = (pair_of * cores + core)[rows > 0]
    order = np.argsort(item, kind="stable")

    def parts(column: NDArray[Any]) -> NDArray[Any]:
        made: NDArray[Any] = np.broadcast_to(column, rows.shape)[rows > 0][order]
        return made

    item, step = item[order], parts(step_of)
    opens = np.flatnonzero((np.diff(item, prepend=-1) != 0) | (np.diff(step, prepend=-1) != 0))
    return StepTable(
        base.tensors,
        np.searchsorted(item[opens], np.arange(cores * (len(base.item) - 1) + 1)),
        np.append(opens, len(item)),
        parts(base.tensor),
        parts(base.row + core * size),
        rows[rows > 0][order],
        parts(base.write),
    )
