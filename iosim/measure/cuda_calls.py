"""The call of each runner on a CUDA GPU: PyTorch's own, FlexAttention, FlashAttention's packages, our Triton kernel, probes."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from iosim.errors import AbsentError, CheckError, UsageError
from iosim.measure.cases import Case
from iosim.measure.experiments import PACKAGES

if TYPE_CHECKING:
    from iosim.measure.cuda import CudaMachine

BACKENDS = {
    "sdpa-flash": "FLASH_ATTENTION",
    "sdpa-cudnn": "CUDNN_ATTENTION",
    "sdpa-efficient": "EFFICIENT_ATTENTION",
    "sdpa-math": "MATH",
}
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
#: how often the chain of loads passes through its lines in one call
CHASE_PASSES = 2
LINE_WORDS = 32  # 4-byte indices of a line of 128 bytes
#: smallest gap between the latencies of two sides of a last cache, as a share of the smaller
SIDE_GAP = 0.1
COUNTERS = 1024


@dataclass(slots=True)
class Call:
    """What is timed, and what it is checked against."""

    run: Callable[[], Any]
    """one call"""
    tensors: tuple[Any, ...] = ()
    """Q, K, V as (batch, heads, tokens, head size)"""
    result: Callable[[Any], Any] = lambda made: made
    """what a call returned, in the layout of the tensors"""
    about: dict[str, object] = field(default_factory=dict)
    """columns that describe the compiled kernel, known after a call"""


def make_call(machine: CudaMachine, case: Case) -> Call:
    """The call of a case, on random data (zeros would run too fast).

    Raises:
        AbsentError: a library or a part of it is missing. UsageError: the runner has no such mask.
    """
    machine.torch.manual_seed(0)
    if case.kernel in BACKENDS:
        return _library(machine, case)
    if case.kernel in PACKAGES:
        return _package(machine, case)
    return OTHERS[case.kernel](machine, case)


def _tensors(machine: CudaMachine, case: Case, heads_last: bool = False) -> tuple[Any, Any, Any]:
    dtype = getattr(machine.torch, DTYPES[case.dtype])

    def make(heads: int, length: int) -> Any:
        shape = (length, heads) if heads_last else (heads, length)
        return machine.torch.randn(case.batch, *shape, case.head_dim, device=machine.place, dtype=dtype)

    return make(case.heads, case.seq_q), make(case.kv_heads, case.seq_kv), make(case.kv_heads, case.seq_kv)


def _library(machine: CudaMachine, case: Case) -> Call:
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if case.mask not in ("full", "causal") or (case.mask == "causal" and case.seq_q != case.seq_kv):
        raise UsageError("PyTorch's mask is full, or causal with as many queries as keys", case.kernel)
    backend = getattr(SDPBackend, BACKENDS[case.kernel], None)
    if backend is None:
        raise AbsentError(f"this PyTorch has no {BACKENDS[case.kernel]}", case.kernel)
    q, k, v = _tensors(machine, case)
    options: dict[str, Any] = {"is_causal": case.mask == "causal"}
    if case.kv_heads != case.heads:
        options["enable_gqa"] = True

    def call() -> Any:
        with sdpa_kernel(backend):
            return machine.torch.nn.functional.scaled_dot_product_attention(q, k, v, **options)

    return Call(call, (q, k, v))


def _package(machine: CudaMachine, case: Case) -> Call:
    try:
        function = importlib.import_module(PACKAGES[case.kernel]).flash_attn_func
    except (ImportError, AttributeError) as error:
        raise AbsentError(f"{PACKAGES[case.kernel]}: {error}", case.kernel) from None
    q, k, v = _tensors(machine, case, heads_last=True)
    options: dict[str, Any] = {"causal": case.mask != "full"}
    if case.mask.startswith("window:"):
        options["window_size"] = (int(case.mask.partition(":")[2]) - 1, 0)

    def result(made: Any) -> Any:
        return (made[0] if isinstance(made, tuple) else made).transpose(1, 2)

    turned = tuple(each.transpose(1, 2) for each in (q, k, v))
    return Call(lambda: function(q, k, v, **options), turned, result)


def _flex(machine: CudaMachine, case: Case) -> Call:
    """FlexAttention with the blocks that iosim counts."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = _tensors(machine, case)
    mask = None if case.mask == "full" else _block_mask(machine, case)
    compiled = machine.torch.compile(flex_attention)
    options = {"enable_gqa": True} if case.kv_heads != case.heads else {}
    return Call(lambda: compiled(q, k, v, block_mask=mask, **options), (q, k, v))


def _block_mask(machine: CudaMachine, case: Case) -> Any:
    from torch.nn.attention.flex_attention import BlockMask

    from iosim.masks import Grid, bind, parse_mask
    from iosim.masks.flex_export import flex_blocks
    from iosim.masks.tiling import Tiling

    window, offset = int(case.mask.partition(":")[2] or case.seq_kv), case.seq_kv - case.seq_q

    def visible(b: Any, h: Any, query: Any, key: Any) -> Any:
        return (key <= query + offset) & (key > query + offset - window)

    bound = bind(parse_mask(case.mask), Grid((case.seq_q,), (case.seq_kv,)))
    blocks = flex_blocks(bound, Tiling((case.tile_q,), (case.tile_kv,)))
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    arrays = [machine.torch.from_numpy(blocks[name]).to(machine.place) for name in names]
    return BlockMask.from_kv_blocks(*arrays, BLOCK_SIZE=(case.tile_q, case.tile_kv), mask_mod=visible)


def _tiled(machine: CudaMachine, case: Case) -> Call:
    from iosim.measure.triton_tiled import launch_of, require, tiled_attention

    require()
    if case.mask not in ("full", "causal"):
        raise UsageError("our kernel's mask is full or causal", case.kernel)
    if case.loads == "tma":
        _lend_memory(machine)
    q, k, v = _tensors(machine, case)
    out = machine.torch.empty((case.writes, *q.shape), dtype=q.dtype, device=machine.place)
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
        sweep_s = min(machine.times(run, None, 0.0)) / rounds
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
    for _ in range(2):  # the first pass fetches the line
        for _ in range(cores):
            triton_tiled.atomic_latency[(cores,)](line, clocks, 8, num_warps=1)
    return split_in_two(torch, clocks[:cores])


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
    "flex": _flex,
    "triton-tiled": _tiled,
    "fill": _fill,
    "copy": _copy,
    "chase": _chase,
}
