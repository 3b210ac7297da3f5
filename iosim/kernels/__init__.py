"""Kernels as schedules: one file per algorithm, named kernels in `models/kernels`."""

from iosim.kernels import (
    agent,
    backward,
    chunk_states,
    fixed_state,
    flash1,
    flash2,
    lightning,
    recompute_values,
    scored,
    selective_scan,
    split_cores,
    split_kv,
    square_tiling,
    stream_k,
    synchronous,
    unfused,
    unfused_backward,
)
from iosim.kernels.algorithm import ALGORITHMS, Algorithm, Call, Parameter, register
from iosim.kernels.kernel_file import KernelFile, kernel_names, load_kernel
from iosim.kernels.scheduling import make_schedule

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Call",
    "KernelFile",
    "Parameter",
    "agent",
    "backward",
    "chunk_states",
    "fixed_state",
    "flash1",
    "flash2",
    "kernel_names",
    "lightning",
    "load_kernel",
    "make_schedule",
    "recompute_values",
    "register",
    "scored",
    "selective_scan",
    "split_cores",
    "split_kv",
    "square_tiling",
    "stream_k",
    "synchronous",
    "unfused",
    "unfused_backward",
]
