"""`validate`: any measured data beside the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from iosim.catalog.rooms import shipped
from iosim.errors import Fault, FileError
from iosim.timing.calls import Floats
from iosim.validate.comparing import Group, Points, compare
from iosim.validate.expecting import by_reach
from iosim.validate.moving import compare_bytes
from iosim.validate.ordering import Order, Orders, orders_of
from iosim.validate.readers import read_table
from iosim.validate.slips import check_units
from iosim.validate.timings import Table, Timings, joined, together

WORST = 20


@dataclass(frozen=True, slots=True)
class Validation:
    """What a validation found."""

    groups: tuple[Group, ...]
    """per device, framework, kernel, element types, phase, window and head sizes"""
    worst: tuple[dict[str, object], ...]
    """rows with the largest errors"""
    skipped: dict[str, int]
    """why rows were left out -> how many"""
    points: tuple[Points, ...] = ()
    """what a picture shows"""
    orders: tuple[Order, ...] = ()
    """kernels of published figures in their measured and predicted order"""
    faults: tuple[Fault, ...] = ()
    """files that could not be read, beside others that could"""

    def to_dict(self) -> dict[str, object]:
        """`result` of the contract."""
        orders = {name: summary.to_dict() for name, summary in self.order_by_paper().items()}
        return {
            "groups": self.rows(), "worst": list(self.worst), "skipped": self.skipped, "floors": self.floors(),
            "orders": orders,
        }  # fmt: skip

    def floors(self) -> dict[str, int]:
        """Times whose floor is known, and how many of them are faster."""
        timed = [group for group in self.groups if group.quantity == "time"]
        return {
            "rows": sum(group.floor_rows for group in timed),
            "beaten": sum(group.floors_beaten for group in timed),
        }

    def order_by_paper(self) -> dict[str, Orders]:
        """Kendall's tau per paper, and over all of them under `all`."""
        papers = dict.fromkeys(order.paper for order in self.orders)
        made = {paper: Orders.of([order for order in self.orders if order.paper == paper]) for paper in papers}
        return {**made, "all": Orders.of(self.orders)} if made else {}

    def rows(self) -> list[dict[str, object]]:
        """One row per group."""
        return [group.to_dict() for group in self.groups]


def validate(
    paths: Sequence[Path] = (),
    progress: Callable[[str], None] | None = None,
    fill: Mapping[str, str] | None = None,
) -> Validation:
    """Compare measured data with predictions.

    Args:
        paths: CSV files, Parquet tables or folders of them; none: every CSV that came with iosim.
        progress: called with the name of each table.
        fill: values for columns of `iosim predict` that the files lack.
    Raises:
        FileError: data none of which can be read, or times in another unit than the data says. AbsentError: a library is missing.
    """
    files = list(paths) or sorted(shipped("measurements").glob("*.csv"))
    if not files:
        raise FileError("no measurements", str(shipped("measurements")), "name a CSV or a folder")
    tables: list[Table] = []  # apart: two files of one name may have two units

    def kept(path: Path) -> Table:
        tables.append(read_table(path, fill))
        return tables[-1]

    total = together(files, kept)
    for table in tables:
        check_units(table.timings)
    groups: list[Group] = []
    worst: list[dict[str, object]] = []
    points: list[Points] = []
    ranked: list[tuple[Timings, Floats]] = []
    for timings in (part for whole in joined(list(total.timings)) for part in by_reach(whole)):
        if progress:
            progress(f"{timings.device.key} {timings.kernel}")
        if not len(timings):
            continue
        compared = compare(timings)
        groups += compared.groups
        worst += compared.worst
        points += compared.points
        ranked.append((timings, compared.predicted))
    skipped = dict(total.skipped)
    if total.counted:
        moved, left_out = compare_bytes(total.counted)
        groups += moved.groups
        points += moved.points
        skipped |= {why: count + skipped.get(why, 0) for why, count in left_out.items()}
        worst = [*_largest(worst), *_largest(list(moved.worst))]
    else:
        worst = _largest(worst)
    return Validation(tuple(groups), tuple(worst), skipped, tuple(points), tuple(orders_of(ranked)), total.faults)


def _largest(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows with the largest errors."""
    return sorted(rows, key=lambda row: -abs(float(str(row["ratio"])) - 1))[:WORST]
