"""Runs cases on this machine's processor: one core, single precision, time that the core spends on the call."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from iosim.errors import AbsentError, CheckError, UsageError
from iosim.measure.aligned import aligned
from iosim.measure.cases import Case
from iosim.measure.clock import Measured, core_clock, timing_of

Array = NDArray[np.float32]
#: relative error against a double-precision softmax beyond which a kernel is wrong
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class CpuMachine:
    """This machine."""

    def facts(self) -> dict[str, str]:
        """What stands in each row."""
        import numba

        return {
            "board": platform.processor() or platform.machine(),
            "versions": f"python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}",
        }

    def run(self, case: Case, limit_s: float) -> Measured:
        """Times; caches are warm.

        Raises:
            CheckError: the kernel's result is wrong. AbsentError: a library is missing.
        """
        q, k, v = tensors(case)
        call = runner(case, q, k, v)
        made = call()
        wrong = error_of(case, q, k, v, made)
        if not wrong < TOLERANCE:
            raise CheckError(f"{case.kernel} is wrong by {wrong:.1e}", case.key)
        return Measured({"warm": timing_of(_repeated(call, limit_s))}, {"error_of_result": f"{wrong:.1e}"})

    def release(self) -> bool:
        """Nothing to give back."""
        return True


def _repeated(call: Callable[[], Array], limit_s: float) -> list[float]:
    times: list[float] = []
    begin, clock = time.perf_counter(), core_clock()
    while len(times) < 3 or (len(times) < 50 and time.perf_counter() - begin < limit_s):
        start = clock()
        call()
        times.append(clock() - start)
    return times


def tensors(case: Case, seed: int = 0) -> tuple[Array, Array, Array]:
    """Random Q, K, V; heads of all sequences in a row."""
    draw = np.random.default_rng(seed)

    def make(heads: int, length: int) -> Array:
        made = aligned(case.batch * heads, length, case.head_dim)
        made[:] = draw.standard_normal(made.shape, np.float32)
        return made

    return make(case.heads, case.seq_q), make(case.kv_heads, case.seq_kv), make(case.kv_heads, case.seq_kv)


def runner(case: Case, q: Array, k: Array, v: Array) -> Callable[[], Array]:
    """The call to time."""
    from iosim.measure.cpu_kernels import tiled, unfused

    group, causal = case.heads // case.kv_heads, case.mask != "full"
    window = int(case.mask.partition(":")[2] or case.seq_kv)
    if case.kernel == "cpu-unfused":
        return lambda: unfused(q, k, v, group, causal, window)
    if case.kernel == "cpu-sdpa":
        return _pytorch(case, q, k, v)
    sawtooth = case.order == "sawtooth"
    return lambda: tiled(q, k, v, group, case.tile_q, case.tile_kv, causal, window, sawtooth)


def has_pytorch() -> bool:
    """Whether PyTorch is installed; it is not loaded for the answer."""
    return importlib.util.find_spec("torch") is not None


def _pytorch(case: Case, q: Array, k: Array, v: Array) -> Callable[[], Array]:
    """PyTorch's attention on one core.

    Raises:
        AbsentError: it is not installed. UsageError: a mask that it lacks.
    """
    try:
        import torch
    except ImportError:
        raise AbsentError("PyTorch is not installed", case.kernel, "pip install torch") from None
    if case.mask not in ("full", "causal") or case.kv_heads != case.heads:
        raise UsageError("measured with a full or causal mask and as many key/value heads as heads", case.kernel)
    torch.set_num_threads(1)
    tensors = [torch.from_numpy(each).reshape(case.batch, -1, *each.shape[1:]) for each in (q, k, v)]

    def call() -> Array:
        made = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=case.mask == "causal")
        flat: Array = made.reshape(q.shape).numpy()
        return flat

    return call


def error_of(case: Case, q: Array, k: Array, v: Array, made: Array) -> float:
    """Relative error of some rows of the first head against double precision."""
    rows = np.unique(np.linspace(0, case.seq_q - 1, 32).astype(int))
    scores = q[0, rows].astype(float) @ k[0].astype(float).T / np.sqrt(case.head_dim)
    if case.mask != "full":
        aligned = rows[:, None] + case.seq_kv - case.seq_q
        keys = np.arange(case.seq_kv)[None, :]
        window = int(case.mask.partition(":")[2] or case.seq_kv)
        scores[(keys > aligned) | (keys <= aligned - window)] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    exact = weights / weights.sum(1, keepdims=True) @ v[0].astype(float)
    return float(np.linalg.norm(made[0, rows] - exact) / np.linalg.norm(exact))
