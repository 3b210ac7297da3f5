"""A stand-in for PyTorch on a GPU: NumPy arrays behind the calls that iosim makes, and a record of their order.

FAKE_TORCH is a comma-separated list of what is wrong with it: no-gpu, no-gqa, lost. More than `MOST` elements do not fit.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import nn

__version__ = "0.0+numpy"
MOST = 1 << 18
float32, bfloat16, float16, int32 = np.float32, np.float32, np.float32, np.int32
version = SimpleNamespace(cuda="0.0")
SINGLE = [True]  # whether the math path works in single precision
backends = SimpleNamespace(
    cudnn=SimpleNamespace(version=lambda: 90000),
    cuda=SimpleNamespace(allow_fp16_bf16_reduction_math_sdp=lambda allowed: SINGLE.__setitem__(0, not allowed)),
)
LOG: list[str] = []


def faults() -> list[str]:
    return os.environ.get("FAKE_TORCH", "").split(",")


class OutOfMemoryError(RuntimeError):
    pass


class Tensor(np.ndarray):
    device = "cuda"

    def float(self) -> Any:
        return self.astype(np.float32)

    def long(self) -> Any:
        return self.astype(np.int64)

    def norm(self) -> Any:
        return np.linalg.norm(self)

    def to(self, what: Any) -> Any:
        return self if isinstance(what, str) else self.astype(what)

    def masked_fill(self, where: Any, value: Any) -> Any:
        return tensor(np.where(where, value, self))

    def fill_(self, value: Any) -> Any:
        LOG.append("fill")
        self[...] = value
        return self

    def zero_(self) -> Any:
        return self.fill_(0)

    def transpose(self, first: int, second: int) -> Any:  # type: ignore[override]
        return self.swapaxes(first, second)


def tensor(values: Any) -> Any:
    return np.asarray(values).view(Tensor)


from_numpy = tensor


def _made(shape: tuple[Any, ...]) -> tuple[int, ...]:
    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple) else shape
    if np.prod(sizes) > MOST:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate\nmore")
    return sizes


def randn(*shape: Any, device: str, dtype: Any) -> Any:
    return tensor(np.random.default_rng(0).standard_normal(_made(shape), np.float32))


def zeros(*shape: Any, dtype: Any, device: str) -> Any:
    if shape[0] == 1 << 26:  # what flushes the last cache
        return _Scratch()
    return tensor(np.zeros(_made(shape), dtype))


empty = zeros


def full(shape: Any, value: float, dtype: Any, device: str) -> Any:
    return tensor(np.full(_made((shape,)), value, dtype))


def isfinite(values: Any) -> Any:
    return np.isfinite(values)


def bmm(one: Any, two: Any) -> Any:
    return one @ two


class _Scratch:
    def sum(self) -> None:
        LOG.append("flush")


def manual_seed(seed: int) -> None:
    pass


def linspace(first: float, last: float, count: int, device: str) -> Any:
    return tensor(np.linspace(first, last, count))


def arange(count: int, device: str, dtype: Any = np.int64) -> Any:
    return tensor(np.arange(count, dtype=dtype))


def softmax(scores: Any, axis: int) -> Any:
    return nn.functional.softmax(scores, axis)


def mul(one: Any, other: Any, out: Any) -> Any:
    return np.multiply(one, other, out=out)


def sort(values: Any) -> Any:
    return SimpleNamespace(values=np.sort(values))


def _compile(function: Any, dynamic: bool) -> Any:
    assert not dynamic
    LOG.append("compile")
    return function


globals()["compile"] = _compile
compiler = SimpleNamespace(reset=lambda: LOG.append("reset"))


class _Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        LOG.append("event")

    def elapsed_time(self, other: Any) -> float:
        return 0.25


def _synchronize() -> None:
    if "lost" in faults():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


def _start(name: str) -> None:
    if "FAKE_TORCH_RANGES" in os.environ and name.startswith("iosim/"):
        with open(os.environ["FAKE_TORCH_RANGES"], "a") as file:
            file.write(name + "\n")
    LOG.append(name)


cuda = SimpleNamespace(
    is_available=lambda: "no-gpu" not in faults(),
    get_device_properties=lambda index: SimpleNamespace(
        name="NVIDIA H200", multi_processor_count=2, total_memory=1 << 30, L2_cache_size=60 << 20, major=9
    ),
    Event=_Event,
    synchronize=_synchronize,
    empty_cache=lambda: None,
    _sleep=lambda clocks: LOG.append("spin"),
    nvtx=SimpleNamespace(range_push=_start, range_pop=lambda: LOG.append("pop")),
    profiler=SimpleNamespace(start=lambda: _start("start"), stop=lambda: _start("stop")),
)
