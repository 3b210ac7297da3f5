"""The call of each runner on a CUDA GPU: libraries, our Triton kernel, probes of memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from iosim.errors import CheckError, UsageError
from iosim.measure.cases import Case
from iosim.measure.cuda_call import DTYPES, Call, tensors
from iosim.measure.cuda_libraries import BACKENDS, flex, library, package, unfused
from iosim.measure.cuda_times import repeated
from iosim.measure.experiments import PACKAGES

if TYPE_CHECKING:
    from iosim.measure.cuda import CudaMachine

#: how often the chain of loads passes through its lines in one call
CHASE_PASSES = 2
LINE_WORDS = 32  # 4-byte indices of a line of 128 bytes
#: smallest gap between the latencies of two sides of a last cache, as a share of the smaller
SIDE_GAP = 0.1
SIDE_TRIES = 200
COUNTERS = 1024


def make_call(machine: CudaMachine, case: Case) -> Call:
    """The call of a case, on random data (zeros would run too fast).

    Raises:
        AbsentError: a library or a part of it is missing. UsageError: the runner has no such mask.
    """
    machine.torch.manual_seed(0)
    if case.kernel in BACKENDS:
        return library(machine, case)
    if case.kernel in PACKAGES:
        return package(machine, case)
    return OTHERS[case.kernel](machine, case)


def _tiled(machine: CudaMachine, case: Case) -> Call:
    from iosim.measure.triton_tiled import launch_of, require, tiled_attention

    require()
    if case.mask not in ("full", "causal"):
        raise UsageError("our kernel's mask is full or causal", case.kernel)
    if case.loads == "tma":
        _lend_memory(machine)
    q, k, v = tensors(machine, case)
    unwritten = float("nan")  # found by the check of the result
    out = machine.torch.full((case.writes, *q.shape), unwritten, dtype=q.dtype, device=machine.place)
    counters = machine.torch.zeros((COUNTERS, 4), dtype=machine.torch.int32, device=machine.place)
    turn = itertools.count()
    sides = _sides(machine, case) if case.pick == "sides" else None
    about: dict[str, object] = {}
    sweep_s = 0.0

    def run() -> Any:
        number = next(turn) % COUNTERS
        if number == 0:
            counters.zero_()
        kernel = tiled_attention(q, k, v, out, case, machine.cores, counters[number], sides, sweep_s)
        shared = getattr(getattr(kernel, "metadata", None), "shared", "")
        about.update(registers=getattr(kernel, "n_regs", ""), shared_bytes=shared)
        return out

    if case.stagger:
        run()
        programs, arguments, _ = launch_of(case, machine.cores)
        rounds = -(-arguments["items"] // programs)
        sweep_s = min(repeated(machine.torch, run, None, 0.0).times_s) / rounds
    return Call(run, (q, k, v), lambda made: made[0], about)


def _lend_memory(machine: CudaMachine) -> None:
    """Descriptors of tensor copies made on the GPU lie in memory that Triton asks its user for."""
    import triton

    def lend(size: int, alignment: int, stream: Any) -> Any:
        return machine.torch.empty(size, dtype=machine.torch.int8, device=machine.place)

    triton.set_allocator(lend)


def _sides(machine: CudaMachine, case: Case) -> Any:
    """Which of two heads each core works on, by its number's parity or by the half of the last cache that it is near.

    Raises:
        CheckError: latencies of atomics on one line do not fall into two groups.
    """
    torch, cores = machine.torch, machine.cores
    if case.grid == "by-parity":
        return torch.arange(cores, device=machine.place, dtype=torch.int32) % 2
    from iosim.measure import triton_tiled

    line = torch.zeros(LINE_WORDS, dtype=torch.int32, device=machine.place)
    clocks = torch.zeros(2 * cores, dtype=torch.int32, device=machine.place)
    triton_tiled.atomic_latency[(cores,)](line, clocks, 8, num_warps=1)  # fetches the line
    fewest = clocks.clone()
    for _ in range(SIDE_TRIES):  # cores disturb one another; the fewest clocks are the latency
        triton_tiled.atomic_latency[(cores,)](line, clocks, 8, num_warps=1)
        fewest = torch.minimum(fewest, clocks)
    return split_in_two(torch, fewest[:cores])


def split_in_two(torch: Any, clocks: Any) -> Any:
    """0 and 1 on the two sides of the widest gap between latencies; int32 like them.

    Raises:
        CheckError: no gap is wide enough, or one side is empty.
    """
    ordered = torch.sort(clocks).values.tolist()
    gaps = [(after - before, before) for before, after in itertools.pairwise(ordered)]
    gap, low = max(gaps, default=(0, 1))
    if low <= 0 or gap < SIDE_GAP * low:
        raise CheckError(f"no two sides: widest gap of {gap} clocks above {low}", "by-partition")
    return (clocks > low).to(torch.int32)


def _fill(machine: CudaMachine, case: Case) -> Call:
    out = _rows(machine, case, case.seq_q)
    return Call(lambda: out.fill_(1.0))


def _copy(machine: CudaMachine, case: Case) -> Call:
    """A kernel that reads and writes: a copy proper may go to the copy engine, which no profiler counts."""
    source, out = _rows(machine, case, case.seq_q), _rows(machine, case, case.seq_q)
    return Call(lambda: machine.torch.mul(source, 2.0, out=out))


def _rows(machine: CudaMachine, case: Case, rows: int) -> Any:
    dtype = getattr(machine.torch, DTYPES[case.dtype])
    return machine.torch.randn(case.batch, case.heads, rows, case.head_dim, device=machine.place, dtype=dtype)


def _chase(machine: CudaMachine, case: Case) -> Call:
    from iosim.measure import triton_tiled

    triton_tiled.require()
    torch = machine.torch
    lines = case.seq_kv * case.head_dim * 2 // (4 * LINE_WORDS)
    order = torch.randperm(lines, device=machine.place)
    chain = torch.zeros(lines * LINE_WORDS, dtype=torch.int32, device=machine.place)
    chain[order * LINE_WORDS] = (torch.roll(order, -1) * LINE_WORDS).to(torch.int32)
    end = torch.zeros(1, dtype=torch.int32, device=machine.place)
    steps = CHASE_PASSES * lines
    return Call(lambda: triton_tiled.follow[(1,)](chain, end, steps, num_warps=1), about={"steps": steps})


OTHERS: dict[str, Callable[[CudaMachine, Case], Call]] = {
    "flex": flex,
    "unfused": unfused,
    "triton-tiled": _tiled,
    "fill": _fill,
    "copy": _copy,
    "chase": _chase,
}
