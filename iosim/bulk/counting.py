"""`count_many`: a kernel's counts for a table of problems."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iosim.bulk.groups import Group, grouped
from iosim.bulk.interval import Reach, UnboundedError
from iosim.bulk.result import TOTALS, WORK, ManyCounts
from iosim.bulk.table import Table
from iosim.bulk.views import ManyProblems, ManyTilings, Rows
from iosim.errors import UsageError
from iosim.exact import MixedError, OneByOneError, Script, recording
from iosim.kernels import Call, load_kernel
from iosim.kernels.algorithm import total_sums
from iosim.machine import Device, load_device
from iosim.schedule import Launch, Work, add_all

#: algorithms whose launches are formulas
CLOSED = frozenset({
    "agent", "backward-q-outer", "backward-two-kernels", "chunk-states", "cpu-flash", "delta-rule", "fast-attention",
    "fixed-state", "flash-bias", "flash-conv", "flash-sigmoid", "flash-synchronous", "flash1", "flash2", "flash2-backward",
    "flash3", "flash4", "flashmla", "lightning1", "lightning2", "rat", "rat-decode", "recompute-dv", "selective-scan", "spatial-array", "spatial-array-recompute", "split-kv", "square-tiling",
    "stream-k", "unfused", "unfused-backward",
})  # fmt: skip
#: rows that go through a formula together: their columns fit a core's L2
CHUNK = 1 << 14
#: rows of which overflow is not ruled out together are halved down to so many, and then counted one by one
FEW = 16
LARGEST = 2**63 - 1


def count_many(
    kernel: str,
    problems: Mapping[str, object],
    *,
    phase: str = "prefill",
    device: Device | str | None = None,
    settings: Mapping[str, object] | None = None,
    pack_gqa: bool | None = None,
    latent: bool = False,
) -> ManyCounts:
    """Elements and bytes into and out of the cores, tile pairs, FLOP and exponentials of many problems.

    The formulas are the kernels' own (`make_schedule`), over int64 arrays. For every chunk of rows the same formulas
    on intervals prove that no intermediate passes 2^63 - 1 (`iosim.bulk.interval`); rows of which that is not proven,
    rows without a closed form, and rows whose length makes the kernel's own tile too large for the device are counted
    one by one in Python ints and marked in `beyond`.

    Args:
        kernel: catalogue name or path; its algorithm is one of `CLOSED`.
        problems: columns of equal length, or one value for all rows: `seq_kv`, and optional `batch` (1), `heads` (= kv_heads, or 1),
            `kv_heads` (= heads), `head_dim` (128), `head_dim_v` (= head_dim), `seq_q` (= seq_kv; 1 in decode),
            `mask` (full, causal, causal-top-left, window, or any band in the command line's notation), `window` and
            `sink` of masks named `window`, `dtype` (bf16), `kv_dtype` (= dtype), `tile_rows` and `tile_cols` (the
            kernel's own tile; given ones are not compared with the device's memory), `splits` (split-kv needs it).
        phase: prefill, decode or backward, of all rows.
        device: whose tiles and cores; None: one core.
        settings: kernel parameters, as `--set` has them.
        pack_gqa: as for one problem.
        latent: V is a slice of K, in every row.
    Raises:
        UsageError: a column, a value or a problem that cannot be; of a problem, the first such row is named.

    >>> counts = count_many("flash2", {"seq_kv": [1024, 2048], "mask": "causal", "head_dim": 64})
    >>> counts["K.read_elements"].tolist()
    [294912, 1114112]
    """
    file = load_kernel(kernel)
    if file.algorithm.name not in CLOSED:
        hint = f"make_schedule counts one problem; in bulk there are {', '.join(sorted(CLOSED))}"
        raise UsageError(f"{file.name} has no closed form over many problems", "kernel", hint)
    where = load_device(device) if isinstance(device, str) else device
    table = Table.of(problems, phase, latent)
    if file.algorithm.name == "split-kv" and table.splits is None:
        raise UsageError("split-kv needs a column of splits: its rules choose for one problem", "splits")
    result = _Columns(len(table))
    for group in grouped(table, file, where, settings or {}, pack_gqa):
        _Counter(group, table, result).run()
    total_sums.cache_clear()  # it would keep the last chunks' columns
    return result.finished(file.name)


class _Columns:
    """Columns under construction."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.small: dict[str, NDArray[np.int64]] = {}
        self.large: dict[str, dict[int, int]] = {}
        self.beyond = np.zeros(rows, np.bool_)

    def put(self, where: NDArray[np.int64], values: Mapping[str, Any]) -> None:
        """Values of some rows, arrays or one int for all."""
        first, last = int(where[0]), int(where[-1])
        at = slice(first, last + 1) if last - first + 1 == len(where) and (np.diff(where) == 1).all() else where
        for name, value in values.items():
            if isinstance(value, int) and value > LARGEST:
                self.large.setdefault(name, {}).update(dict.fromkeys(where.tolist(), value))
                value = 0
            if name not in self.small:
                if isinstance(value, int) and value == 0:
                    continue
                self.small[name] = np.zeros(self.rows, np.int64)
            self.small[name][at] = value

    def finished(self, kernel: str) -> ManyCounts:
        """The result."""
        columns: dict[str, Any] = dict(self.small)
        for name, rows in self.large.items():
            columns[name] = columns.get(name, np.zeros(self.rows, np.int64)).astype(object)
            for row, value in rows.items():
                columns[name][row] = value
        tensors = dict.fromkeys(name.rpartition(".")[0] for name in columns if "." in name)
        return ManyCounts(kernel, columns, self.beyond, tuple(tensors))


class _Counter:
    """Counts the rows of one group: one algorithm, one set of parameters."""

    def __init__(self, group: Group, table: Table, result: _Columns) -> None:
        self.group, self.table, self.result = group, table, result

    def run(self) -> None:
        """All rows, chunk by chunk."""
        for begin in range(0, len(self.group.rows), CHUNK):
            self.count(self.group.rows[begin : begin + CHUNK])

    def count(self, where: NDArray[np.int64]) -> None:
        """Some rows: together where their formula goes one way and provably fits int64, else in parts."""
        rows = self.group.columns(self.table, where)
        try:
            values = self._proven(rows)
        except MixedError as mixed:
            for part in (where[mixed.rows], where[~mixed.rows]):
                self.count(part)
            return
        except OneByOneError:  # all of these rows: where only some go that way, a decision was mixed
            self._one_by_one(where)
            return
        except UsageError as error:
            raise self._of_first_row(where, error) from None
        if values is not None:
            self.result.put(where, values)
        elif len(where) <= FEW:
            self._one_by_one(where)
        else:
            self._halves(where, rows)

    def _halves(self, where: NDArray[np.int64], rows: Rows) -> None:
        """The smaller and the larger half of the problems."""
        size = np.ones(len(where))
        for column in (rows.batch, rows.heads, rows.seq_q, rows.seq_kv, rows.head_dim + rows.head_dim_v):
            size *= column
        order = np.argsort(size, kind="stable")
        for part in (order[: len(order) // 2], order[len(order) // 2 :]):
            self.count(where[part])

    def _proven(self, rows: Rows) -> dict[str, Any] | None:
        """The values of rows together; None where overflow is not ruled out."""
        script, reach = Script(), Reach()
        try:
            with np.errstate(all="ignore"), recording(script):
                values = self._evaluate(rows)
        except OverflowError:  # a number that all rows share is beyond int64
            return None
        if not any(isinstance(value, np.ndarray) for value in values.values()):
            return values  # all rows alike: Python ints
        try:
            with recording(script, replay=True):
                self._evaluate(rows.intervals(reach))
        except UnboundedError:
            return None
        return values if reach.magnitude <= LARGEST else None

    def _evaluate(self, rows: Rows) -> dict[str, Any]:
        if not self.group.fits(lambda tile: self._call(replace(rows, tile_rows=tile.rows, tile_cols=tile.cols))):
            raise OneByOneError
        return _values(self.group.algorithm.launches(self._call(rows)))

    def _call(self, rows: Rows) -> Call:
        problem: Any = ManyProblems(rows, self.table.phase, self.table.latent)
        tiling: Any = ManyTilings(rows, rows.group if self.group.packed else 1)
        chosen = dict(self.group.call.settings) | ({} if rows.splits is None else {"splits": rows.splits})
        return replace(self.group.call, problem=problem, tiling=tiling, settings=chosen)

    def _one_by_one(self, where: NDArray[np.int64]) -> None:
        for index in where.tolist():
            self.result.put(np.array([index]), self._scalar(index))
            self.result.beyond[index] = True

    def _scalar(self, index: int) -> dict[str, int]:
        """One row by the room for one problem."""
        return _values(self.group.launches(self.table, index))

    def _of_first_row(self, where: NDArray[np.int64], error: UsageError) -> UsageError:
        """What is wrong with the first row that is refused."""
        for index in where.tolist():
            try:
                self._scalar(index)
            except UsageError as own:
                fault = own.faults[0]
                return UsageError(f"row {index}: {fault.what}", fault.where, fault.hint)
        return error


def _values(launches: tuple[Launch, ...]) -> dict[str, Any]:
    """Columns of a schedule's launches."""
    moved = list(_moved(launches))
    made: dict[str, Any] = {f"{tensor}.{name}": value for tensor, name, value in moved}
    for name in TOTALS:
        made[name] = sum((value for _, each, value in moved if each == name), start=0)
    work = sum((launch.all_work for launch in launches), start=Work())
    return made | {name: getattr(work, name) for name in WORK}


def _moved(launches: tuple[Launch, ...]) -> Iterator[tuple[str, str, Any]]:
    for m in add_all(launch.all_traffic for launch in launches).moved:
        for name in TOTALS:
            value = getattr(m, name)
            if not (isinstance(value, int) and value == 0):
                yield m.tensor, name, value
