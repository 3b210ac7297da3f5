"""A report as HTML, a fragment for notebooks or a page of its own: no scripts, no outside resources.

Tables and remarks are those of the text: whoever passes the page on passes on all that the report says.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from iosim.render.link_text import link_notes, link_rows, share_line
from iosim.render.problem_text import problem_line
from iosim.render.report_text import (
    ceiling_notes,
    ceiling_table,
    device_line,
    floor_lines,
    legend,
    traffic_notes,
    traffic_table,
)

if TYPE_CHECKING:
    from iosim.report import Report

# styles stand in the tags: notebooks show the fragment without the page's head
LEFT = "padding:2px 10px;text-align:left"
RIGHT = "padding:2px 10px;text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
SMALL = "font-size:85%;max-width:60em"

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em; }}
table {{ border-collapse: collapse; margin: 1em 0; }}
thead {{ border-bottom: 1px solid; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def report_page(report: Report, title: str = "", notes: Sequence[str] = ()) -> str:
    """A whole document around the fragment, with a title above and remarks on the problem below."""
    head = f"<h1>{escape(title)}</h1>\n" if title else ""
    named = escape(f"iosim: {title or problem_line(report.problem)}")
    return PAGE.format(title=named, body=head + report_html(report, notes))


def report_html(report: Report, notes: Sequence[str] = ()) -> str:
    """All that the text says: problem, device, floor, tables, how their numbers were found, assumptions."""
    device = [device_line(report)] + ([share_line(report.link)] if report.link else [])
    parts = [f"<p><b>{escape(problem_line(report.problem))}</b><br>{'<br>'.join(map(escape, device))}</p>"]
    parts.append(f"<p>{'<br>'.join(map(_marked, floor_lines(report)))}</p>")
    if report.link:
        parts += [_table(*link_rows(report.link)), _remarks(link_notes(report, report.link))]
    if report.kernels:
        parts += [_table(*traffic_table(report), left=3), _remarks([*traffic_notes(report), *legend(report)])]
    if report.device and report.kernels:
        parts += [_table(*ceiling_table(report)), _remarks(ceiling_notes(report))]
    parts += ["<p><b>assumptions</b></p>", _remarks([*report.assumptions, *notes])]
    return "<div>\n" + "\n".join(parts) + "\n</div>"


def _remarks(texts: Sequence[str]) -> str:
    return f'<ul style="{SMALL}">' + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """The first `left` columns are aligned left, as in the text."""
    styles = [LEFT if index < left else RIGHT for index in range(len(header))]
    head = "".join(f'<th style="{style}">{escape(name)}</th>' for name, style in zip(header, styles, strict=True))
    body = "\n".join(
        "<tr>"
        + "".join(f'<td style="{style}">{_marked(cell)}</td>' for cell, style in zip(row, styles, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _marked(text: str) -> str:
    """HTML of a text whose only markup is `strong`'s."""
    return escape(text).replace("[bold]", "<b>").replace("[/bold]", "</b>")
