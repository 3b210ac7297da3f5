"""A report as an HTML fragment for notebooks: no scripts, no outside resources."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from iosim.render.report_text import problem_line, resource_titles, slower_side
from iosim.render.text import byte_count, capacity, ratio, seconds

if TYPE_CHECKING:
    from iosim.report import Report

CELL = "padding:2px 10px;text-align:right;font-variant-numeric:tabular-nums"
LEFT = "padding:2px 10px;text-align:left"


def report_html(report: Report) -> str:
    """The traffic and ceilings tables under one headline."""
    device = f" on {report.device.name}" if report.device else ""
    floor = ""
    if report.floor:
        floor = (
            f"<p>No kernel can take less than <b>{seconds(report.floor.time_s)}</b> "
            f"({'matrix units' if report.floor.binding == 'matrix' else 'compulsory bytes'} bind).</p>"
        )
    parts = [f"<div><p><b>{escape(problem_line(report.problem))}{escape(device)}</b></p>", floor, _traffic(report)]
    if report.device:
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
    rows = [
        (
            kernel.name,
            *(seconds(kernel.ceilings.times_s.get(name)) for name in resource_titles(report.device)),
            resource_titles(report.device).get(kernel.ceilings.bottleneck, "-"),
        )
        for kernel in report.kernels
    ]
    return _table(("ceilings", *resource_titles(report.device).values(), "binds"), rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th style="{LEFT}">{escape(name)}</th>' for name in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td style="{LEFT if i < 3 else CELL}">{escape(cell)}</td>' for i, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
