"""Runs cases on a CUDA GPU with PyTorch and Triton: times by events, last cache warm and flushed; ranges for a profiler."""

from __future__ import annotations

import gc
import importlib.metadata
import importlib.util
import subprocess
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from iosim.errors import AbsentError, CheckError
from iosim.measure.cases import Case
from iosim.measure.checking import SMALL, check, small_of
from iosim.measure.clock import Measured, timing_of
from iosim.measure.cuda_calls import make_call
from iosim.measure.cuda_times import repeated
from iosim.measure.experiments import PACKAGES, Board

#: bytes read to push everything out of the last cache, at least; four times its size where that is more
FLUSH_BYTES = 256 << 20
#: calls before one that is profiled: libraries choose, load and allocate in the first
WARM_UP = 2
DISTRIBUTIONS = ("triton", "flash_attn", "flash_attn_3", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")


class Clock:
    """The current clock, asked for so seldom that asking takes a twentieth of the time at most."""

    SHARE = 20.0

    def __init__(self, ask: Callable[[str], str] | None = None) -> None:
        self.ask, self.value, self.after = ask or _smi, "", 0.0

    def now(self) -> str:
        """MHz, or empty; of a little ago where the driver answers slowly."""
        start = time.monotonic()
        if start >= self.after:
            self.value = self.ask("clocks.sm")
            end = time.monotonic()
            self.after = end + self.SHARE * (end - start)
        return self.value


@dataclass(frozen=True, slots=True)
class CudaMachine:
    """The first CUDA GPU."""

    torch: Any
    """the library"""
    scratch: Any
    """memory read between calls to flush the last cache: reads leave no lines behind that must be written back"""
    place: str = "cuda"
    """PyTorch's name of the device"""
    clock: Clock = field(default_factory=lambda: Clock())
    """of the multiprocessors while cases run"""
    tried: dict[Case, str] = field(default_factory=dict)
    """small cases whose results were compared: why a kernel is wrong, or empty"""

    @classmethod
    def find(cls) -> CudaMachine:
        """The GPU, ready.

        Raises:
            AbsentError: PyTorch or a GPU is missing.
        """
        try:
            import torch
        except ImportError:
            raise AbsentError(
                "PyTorch is not installed", "--device cuda", "pip install torch, or --device cpu"
            ) from None
        except OSError as error:  # a library that PyTorch loads is missing
            raise AbsentError(f"PyTorch cannot be loaded: {error}", "--device cuda") from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an old driver warns, and the answer says no more than this
            seen = torch.cuda.is_available()
        if not seen:
            raise AbsentError("PyTorch sees no CUDA GPU", "--device cuda", "--device cpu measures this processor")
        cache = getattr(torch.cuda.get_device_properties(0), "L2_cache_size", 0)
        try:
            scratch = torch.zeros(max(FLUSH_BYTES, 4 * cache) // 4, dtype=torch.float32, device="cuda")
        except RuntimeError as error:
            raise AbsentError(f"the GPU cannot be used: {_first_line(error)}", "--device cuda") from None
        return cls(torch, scratch)

    @property
    def cores(self) -> int:
        """Streaming multiprocessors."""
        return int(self.torch.cuda.get_device_properties(0).multi_processor_count)

    def board(self) -> Board:
        """What cases are sized for."""
        properties = self.torch.cuda.get_device_properties(0)
        cache = int(getattr(properties, "L2_cache_size", 0)) or Board().l2_bytes
        packages = frozenset(name for name, module in PACKAGES.items() if _installed(module))
        return Board(self.cores, cache, packages, int(getattr(properties, "major", 0)) >= 9)

    def facts(self) -> dict[str, str]:
        """What stands in each row."""
        board, torch = self.torch.cuda.get_device_properties(0), self.torch
        versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": _cudnn(torch)}
        versions |= {name: _version(name) for name in DISTRIBUTIONS}
        driver, _, most = _smi("driver_version,clocks.max.sm").partition(",")
        return {
            "board": f"{board.name}, {board.multi_processor_count} SM, {board.total_memory >> 20} MiB",
            "l2_bytes": str(getattr(board, "L2_cache_size", "")),
            "driver": driver.strip(),
            "max_clock_mhz": most.strip(),
            "versions": ", ".join(f"{name} {version}" for name, version in versions.items() if version),
        }

    def run(self, case: Case, limit_s: float) -> Measured:
        """Times with the last cache warm and flushed.

        Raises:
            CheckError: a wrong result. AbsentError: a library is missing. Whatever a kernel raises that refuses the shape.
        """
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                self._try(case)
                call = make_call(self, case)
                made = call.run()
            except RuntimeError as error:
                if not said:
                    raise
                why = "; ".join(_first_line(each.message) for each in said)  # which backend refused, and why
                raise RuntimeError(f"{_first_line(error)}; {why}") from error
        wrong = check(self, case, call, made)
        warm = repeated(self.torch, call.run, None, limit_s)
        cold = repeated(self.torch, call.run, self.scratch.sum, limit_s)
        about = {"error_of_result": f"{wrong:.1e}", "clock_mhz": self.clock.now()}
        slower = max(warm, cold, key=lambda made: made.host_s)
        about |= {"host_s": f"{slower.host_s:.3g}", "spin_s": f"{slower.spin_s:.3g}"}
        times = {"warm": timing_of(warm.times_s), "cold": timing_of(cold.times_s)}
        return Measured(times, {**call.about, **about})

    def _try(self, case: Case) -> None:
        """Compare all of a small case's result, once per kernel and its choices.

        Raises:
            CheckError: it is wrong, now or before.
        """
        small = small_of(case)
        if small is None:
            return
        if small not in self.tried:
            self.tried[small] = self._wrong(small)
        if why := self.tried[small]:
            raise CheckError(f"{why} on a small case, so it is not timed", small.key)

    def _wrong(self, small: Case) -> str:
        """How a result is wrong; empty where it is right, or where the kernel does not run: the case itself says why."""
        try:
            call = make_call(self, small)
            made = call.run()
        except Exception:  # kernels, compilers and drivers raise whatever they like
            return ""
        try:
            check(self, small, call, made, SMALL)
        except CheckError as error:
            return error.faults[0].what
        return ""

    def profile(self, case: Case, cold: bool = True) -> None:
        """One call inside the profiler's range, in an NVTX range named after the case.

        Args:
            cold: flush the last cache before it, as before a timed call.
        Raises:
            As `run`.
        """
        call = make_call(self, case)
        for _ in range(WARM_UP):
            call.run()
        if cold:
            self.scratch.sum()
        self.torch.cuda.synchronize()
        self.torch.cuda.nvtx.range_push(case.label)
        self.torch.cuda.profiler.start()
        try:
            call.run()
            self.torch.cuda.synchronize()
        finally:
            self.torch.cuda.profiler.stop()
            self.torch.cuda.nvtx.range_pop()

    def release(self) -> bool:
        """Give the memory of the last case back; whether the GPU still answers."""
        gc.collect(1)  # frames of a failed case; a whole collection costs more than a small case
        try:
            self.torch.cuda.synchronize()
            self.torch.cuda.empty_cache()
        except RuntimeError:
            return False
        return True


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0][:160]


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except Exception:  # a package that fails to import is not there for us
        return False


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _cudnn(torch: Any) -> str:
    try:
        return str(torch.backends.cudnn.version() or "")
    except (AttributeError, RuntimeError):
        return ""


def _smi(query: str) -> str:
    """One line of nvidia-smi, or empty."""
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.partition("\n")[0].strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
