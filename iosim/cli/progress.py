"""One line on a terminal that says what happens now; nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import click

WIDTH = 100
ERASE = "\r\x1b[K"
#: seconds between two changes of a line that counts
PAUSE = 0.1


def progress_line() -> Callable[[str], None] | None:
    """A function that replaces the line, or None."""
    if not sys.stderr.isatty():
        return None
    return lambda line: click.echo(ERASE + line[:WIDTH], err=True, nl=False)


def end_line() -> None:
    """Erase the line before something is said to stay."""
    if sys.stderr.isatty():
        click.echo(ERASE, err=True, nl=False)


@contextmanager
def mask_progress() -> Iterator[None]:
    """A line while masks are evaluated entry by entry; it is gone when one is done, and at the end."""
    from iosim.masks.watching import watching

    line = progress_line()
    if line is None:
        yield
        return
    watcher = _Watcher(line)
    with watching(watcher):
        try:
            yield
        finally:
            watcher.end()


class _Watcher:
    """Shows how far the evaluation of a mask is, now and then."""

    def __init__(self, line: Callable[[str], None]) -> None:
        self.line, self.shown, self.last = line, False, -PAUSE

    def __call__(self, done: int, total: int) -> None:
        if done >= total:
            self.end()
        elif monotonic() - self.last >= PAUSE:
            self.line(f"mask: {done / total:.0%} of {total:,} entries evaluated")
            self.shown, self.last = True, monotonic()

    def end(self) -> None:
        if self.shown:
            end_line()
        self.shown = False
