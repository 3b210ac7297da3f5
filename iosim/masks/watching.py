"""Who is told how far the evaluation of a mask is. Light to import: no arrays here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

#: called with (entries done, entries in all)
Progress = Callable[[int, int], None]

watcher: ContextVar[Progress | None] = ContextVar("watcher", default=None)


@contextmanager
def watching(progress: Progress) -> Iterator[None]:
    """Have `progress` called while masks are evaluated inside the `with` block, however deep in a model."""
    token = watcher.set(progress)
    try:
        yield
    finally:
        watcher.reset(token)
