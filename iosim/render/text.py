"""Tables and lines for a terminal: the only text module that knows rich."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iosim.units import binary_bytes, si

WIDTH = 1000  # wider than any table: rich would shorten cells to fit, and a shortened number is a wrong one
LEAST_COLUMNS = 20  # a remark needs room for a word


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1, title: str = "") -> str:
    """A plain table; the first `left` columns are aligned left, numbers right. Cells may carry rich markup."""
    made = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return render(made)


def render(renderable: object) -> str:
    """Text of a rich renderable: coloured only on a terminal that wants it, never folded or shortened."""
    out = io.StringIO()
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    console = Console(file=out, force_terminal=colour, no_color=not colour, width=WIDTH, highlight=False)
    console.print(renderable, soft_wrap=isinstance(renderable, str))
    return "\n".join(line.rstrip() for line in out.getvalue().rstrip("\n").split("\n"))


def strong(text: str) -> str:
    """Markup for a cell or phrase that matters most."""
    return f"[bold]{escape(text)}[/bold]"


def line(text: str) -> str:
    """One line with markup rendered."""
    return render(text)


def byte_count(value: float | None) -> str:
    """134.2 MB; a dash for what is not known."""
    return "-" if value is None else si(value, "B")


def seconds(value: float | None) -> str:
    """278 us; a dash for what is not known."""
    return "-" if value is None else si(value, "s")


def ratio(value: float | None) -> str:
    """1.05x; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.3g}x" if value < 1000 else f"{value:,.0f}x"


def capacity(value: int | None) -> str:
    """228 KiB; a dash for what is not known."""
    return "-" if value is None else binary_bytes(value)


def wrapped(lines: Sequence[str], bullet: str = "- ") -> str:
    """A list of remarks, folded at words to the terminal's width; as they are where nothing says how wide it is."""
    columns = terminal_columns()
    if columns is None:
        return "\n".join(bullet + text for text in lines)
    folder = textwrap.TextWrapper(columns, initial_indent=bullet, subsequent_indent=" " * len(bullet),
                                  break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return "\n".join(folder.fill(text) for text in lines)


def terminal_columns() -> int | None:
    """Columns of the terminal that is written to, or $COLUMNS; None where there is neither."""
    said = os.environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said) > 0:
        return max(LEAST_COLUMNS, int(said))
    return max(LEAST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
