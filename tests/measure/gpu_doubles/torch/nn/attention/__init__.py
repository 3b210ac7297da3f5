"""torch.nn.attention of the stand-in: a version without the memory-efficient backend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

SDPBackend = SimpleNamespace(FLASH_ATTENTION="flash", CUDNN_ATTENTION="cudnn", MATH="math")
CHOSEN: list[str] = []


@contextmanager
def sdpa_kernel(backend: str) -> Iterator[None]:
    CHOSEN[:] = [backend]
    yield
