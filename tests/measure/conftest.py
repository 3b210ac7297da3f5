"""Stand-ins for a GPU's libraries and profiler, so that every line of the CUDA path runs on any machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DOUBLES = Path(__file__).parent / "gpu_doubles"
NAMES = ("torch", "flash_attn_interface", "triton")


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in as `torch`, here and in programs started from here; the real one comes back afterwards."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in NAMES}
    monkeypatch.syspath_prepend(str(DOUBLES))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOUBLES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("FAKE_TORCH", raising=False)
    monkeypatch.setattr("iosim.measure.measuring.PER_CASE_S", 0.0)
    import torch

    torch.LOG.clear()  # type: ignore[attr-defined]
    yield torch
    for name in [name for name in sys.modules if name.split(".")[0] in NAMES]:
        del sys.modules[name]
    sys.modules.update(kept)


@pytest.fixture
def fake_ncu(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in as `ncu`."""
    monkeypatch.setenv("PATH", os.pathsep.join([str(DOUBLES), os.environ["PATH"]]))
    monkeypatch.delenv("FAKE_NCU", raising=False)
    return DOUBLES / "ncu"
