"""A report as HTML, a fragment for notebooks or a page of its own: no scripts, no outside resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from iosim.render.link_text import share_line
from iosim.render.report_text import problem_line, resource_titles, slower_side
from iosim.render.text import byte_count, capacity, ratio, seconds

if TYPE_CHECKING:
    from iosim.link_report import LinkReport
    from iosim.report import Report

CELL = "padding:2px 10px;text-align:right;font-variant-numeric:tabular-nums"
BINDING = {
    "matrix": "matrix units",
    "hbm": "compulsory bytes",
    "link": "the link's proven bytes",
    "far": "the far side's bytes",
}
LEFT = "padding:2px 10px;text-align:left"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>body {{ font-family: sans-serif; margin: 2em; }} table {{ border-collapse: collapse; margin: 1em 0; }}</style>
</head>
<body>
{body}
</body>
</html>
"""


def report_page(report: Report) -> str:
    """A whole document around the fragment."""
    return PAGE.format(title=escape(f"iosim: {problem_line(report.problem)}"), body=report_html(report))


def report_html(report: Report) -> str:
    """The traffic and ceilings tables under one headline."""
    device = f" on {report.device.name}" if report.device else ""
    floor = ""
    if report.floor:
        floor = (
            f"<p>No kernel can take less than <b>{seconds(report.floor.time_s)}</b> "
            f"({BINDING[report.floor.binding]} bind).</p>"
        )
    share = f"<p>{escape(share_line(report.link))}</p>" if report.link else ""
    parts = [f"<div><p><b>{escape(problem_line(report.problem))}{escape(device)}</b></p>", share, floor]
    if report.link:
        parts.append(_link(report.link))
    if report.kernels:
        parts.append(_traffic(report))
    if report.device and report.kernels:
        parts.append(_ceilings(report))
    remarks = "".join(f"<li>{escape(text)}</li>" for text in report.assumptions)
    return "".join(parts) + f"<details><summary>assumptions</summary><ul>{remarks}</ul></details></div>"


def _traffic(report: Report) -> str:
    header = ("kernel", "tile", "into", "memory above", "read", "written", "any", "scores", "once", "how")
    rows = []
    for kernel in report.kernels:
        for at in kernel.boundaries:
            rows.append(
                (
                    kernel.name,
                    str(kernel.schedule.tiling),
                    slower_side(report.device, at.name),
                    capacity(at.capacity_bytes),
                    byte_count(at.traffic.read_bytes),
                    byte_count(at.traffic.write_bytes),
                    ratio(at.gap("any")),
                    ratio(at.gap("standard")),
                    ratio(at.gap("standard-once")),
                    ("" if at.exact else "~ ") + at.method,
                )
            )
    return _table(header, rows)


def _ceilings(report: Report) -> str:
    titles = resource_titles(report)
    rows = [
        (
            kernel.name,
            *(seconds(kernel.ceilings.times_s.get(name)) for name in titles),
            titles.get(kernel.ceilings.bottleneck, "-"),
        )
        for kernel in report.kernels
    ]
    return _table(("ceilings", *titles.values(), "binds"), rows)


def _link(joined: LinkReport) -> str:
    traffic = joined.traffic
    rows = [(moved.tensor, byte_count(moved.read_bytes), byte_count(moved.write_bytes)) for moved in traffic.moved]
    rows += [
        ("all", byte_count(traffic.read_bytes), byte_count(traffic.write_bytes)),
        (f"over {joined.link.name}", seconds(joined.received_s), seconds(joined.sent_s)),
        ("least", byte_count(joined.least_received_bytes), byte_count(joined.least_sent_bytes)),
    ]
    return _table((joined.way.boundary, "received", "sent"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{LEFT}">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{LEFT if i < 3 else CELL}">{escape(cell)}</td>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
