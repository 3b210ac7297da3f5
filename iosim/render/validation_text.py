"""Measured beside predicted for people: groups of tables, of published figures and of bytes, and the worst rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from iosim.validate.comparing import Errors, Group
    from iosim.validate.validating import Validation

FIGURES = "n   median   mean    p90    bias"
#: rows shown of those with the largest errors
WORST = 8


def validation_text(found: Validation) -> str:
    """Groups, orders of kernels, what was left out, the largest errors."""
    tables = [group for group in found.groups if not group.paper and group.quantity == "time"]
    papers = [group for group in found.groups if group.paper]
    moved = [group for group in found.groups if group.quantity != "time"]
    parts = [_tables(tables), _unexpected(tables), _papers(papers, found), _moved(moved), _left_out(found, papers)]
    if not found.groups:
        return "\n".join([part for part in parts if part] + ["no row can be compared"]) + "\n"
    parts.append(_floors(found))
    parts.append("\n".join(["", "largest errors:", *_worst(found)]))
    return "\n".join(part for part in parts if part) + "\n"


def _tables(groups: Sequence[Group]) -> str:
    shown = [group for group in groups if group.errors]
    if not shown:
        return ""
    width = max(len(group.device) for group in shown)
    by = max(len(group.framework) for group in shown)
    sizes = max(4, *(len(group.head_dims) for group in shown))
    lines = [
        f"{'device':{width}} {'by':{by}} {'kernel':11} {'phase':9} {'head':{sizes}} window   {FIGURES} | judged | fitted pair"
    ]
    for group in shown:
        head = (
            f"{group.device:{width}} {group.framework:{by}} {group.kernel:11} {group.phase:9} {group.head_dims:{sizes}}"
        )
        lines.append(f"{head} {group.window_kind:5} {group.rows:6}  {_figures(group)}")
    return "\n".join(lines)


def _unexpected(groups: Sequence[Group]) -> str:
    """Rows that only a floor speaks of, by kernel and reason; the other formats have them by device, types and phase."""
    rows: dict[str, int] = {}
    devices: dict[str, dict[str, None]] = {}
    for group in groups:
        if not group.errors:
            what = group.why if group.kernel in group.why else f"{group.kernel}: {group.why}"
            rows[what] = rows.get(what, 0) + group.rows
            devices.setdefault(what, {})[group.device] = None
    return "\n".join(f"no expectation: {rows[what]:,} rows: {what} ({', '.join(devices[what])})" for what in rows)


def _named(group: Group) -> str:
    types = "/".join(dict.fromkeys(group.types))
    words = (group.device, group.framework, group.kernel, types, group.phase, group.paper)
    return " ".join(word for word in words if word and word != "none")


def _floors(found: Validation) -> str:
    """Rows faster than their floor, in all and by group."""
    floors = found.floors()
    beaten = [group for group in found.groups if group.quantity == "time" and group.floors_beaten]
    if not floors["rows"]:
        return ""
    return "\n".join(
        [
            f"floors beaten: {floors['beaten']:,} of {floors['rows']:,} rows",
            *(
                f"  {group.floors_beaten:,} of {group.floor_rows:,}: {_named(group)}, up to {group.floor_ratio:.2f} times"
                for group in beaten
            ),
        ]
    )


def _papers(groups: Sequence[Group], found: Validation) -> str:
    """Figures with an expectation, and whether kernels come out in order."""
    shown = [group for group in groups if group.errors]
    if not shown:
        return ""
    width = max(len(group.work) for group in shown)
    lines = [f"{'device':15} {'kernel':12} {'passes':{width}}    {FIGURES} | judged | fitted pair  paper"]
    for group in shown:
        head = f"{group.device:15} {group.kernel:12} {group.work:{width}} {group.rows:4}"
        lines.append(f"{head}  {_figures(group)}        {group.paper}")
    lines += [
        f"Kendall's tau of the kernels' order, {paper}: {orders.mean_tau:.3f} mean of {orders.groups} groups, "
        f"{orders.tau:.3f} over {orders.pairs} pairs"
        + (
            f", {orders.clear_tau:.3f} over the {orders.clear} more than 5 % apart"
            if orders.clear_tau is not None
            else ""
        )
        for paper, orders in found.order_by_paper().items()
    ]
    return "\n".join(lines)


def _moved(groups: Sequence[Group]) -> str:
    if not groups:
        return ""
    lines = [f"{'device':23} {'kernel':8} {'phase':8} bytes            {FIGURES} | tensors once floors beaten"]
    for group in groups:
        head = f"{group.device:23} {group.kernel:8} {group.phase:8} {_words(group.quantity):12} {group.rows:5}"
        lines.append(f"{head}  {_figures(group, False)}   {group.floors_beaten:13}")
    return "\n".join(lines)


def _left_out(found: Validation, papers: Sequence[Group]) -> str:
    counts = dict(found.skipped)
    for group in papers:
        if group.errors is None:
            why = f"{group.kernel}: {group.why}"
            counts[why] = counts.get(why, 0) + group.rows
    return "\n".join(f"left out: {count:,} rows: {why}" for why, count in counts.items())


def _figures(group: Group, halves: bool = True) -> str:
    errors = group.errors
    assert errors is not None
    judged = f" | {_judged(group.judged)}" if halves else ""
    return (
        f"{errors.median_abs_error:6.1%} {errors.mean_abs_error:6.1%} {errors.p90_abs_error:6.1%} "
        f"{errors.median_ratio - 1:+7.1%}{judged} | {_judged(group.yardstick)}"
    )


def _judged(errors: Errors | None) -> str:
    """Median error of the rows that no constant was fitted on, or of the yardstick."""
    return "      " if errors is None else f"{errors.median_abs_error:6.1%}"


def _worst(found: Validation) -> list[str]:
    lines: list[str] = []
    for time in (True, False):
        lines += [_row(row) for row in found.worst if (row["quantity"] == "time") is time][:WORST]
    return lines


def _row(row: dict[str, object]) -> str:
    mask = "" if row["mask"] in ("full", "causal") else f" {row['mask']}"
    shape = (
        f"  {row['device']} {row['kernel']} batch {row['batch']} heads {row['heads']}/{row['kv_heads']} head size "
        f"{row['head_dim']} {row['seq_q']} x {row['seq_kv']}{mask}: "
    )
    where = f"({row['source']} row {row['row']})"
    if row["quantity"] == "time":
        measured, expected = float(str(row["measured_s"])) * 1e6, float(str(row["time_expected_s"])) * 1e6
        return f"{shape}measured {measured:.1f} us, expected {expected:.1f} us {where}"
    measured, expected = float(str(row["measured"])) / 1e6, float(str(row["predicted"])) / 1e6
    what = _words(str(row["quantity"]))
    return f"{shape}{what} measured {measured:.1f} MB, predicted {expected:.1f} MB by {row['method']} {where}"


def _words(quantity: str) -> str:
    return quantity.removesuffix("_bytes").replace("_", " ")
