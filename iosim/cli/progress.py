"""One line on a terminal that says what happens now; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

WIDTH = 100
ERASE = "\r\x1b[K"


def progress_line() -> Callable[[str], None] | None:
    """A function that replaces the line, or None."""
    if not sys.stderr.isatty():
        return None
    return lambda line: click.echo(ERASE + line[:WIDTH], err=True, nl=False)


def end_line() -> None:
    """Erase the line before something is said to stay."""
    if sys.stderr.isatty():
        click.echo(ERASE, err=True, nl=False)
