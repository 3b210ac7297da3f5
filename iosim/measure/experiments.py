"""What is measured on a CUDA GPU, the most informative first, so that a short budget still gives a useful file.

The experiments separate one account of the last cache from another: shared sweeps of K and V of growing size (E1), two
heads on two sides (E2), alternating direction (E3), a chain of loads (E4), the shape of arXiv 2601.16032 (E5), waves and
staggered starts (E6), sections of heads (E7), writes (E8), hints (E9), the library's own split (E10). Time, decode and
waves of what people use come beside them (use, tiles, decode, shapes, waves, masks, old). docs/how-to/measure-on-a-gpu.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from iosim.measure.cases import Case

MIB = 1 << 20
#: shares of the last cache that K and V take in E1: below half of it, around half, between, around all of it, above
SHARES = (0.53, 0.87, 0.33, 0.4, 0.47, 0.6, 0.67, 0.27, 0.73, 0.8, 1.07)
#: what a run of the library kernels of people's machines asks for, where they are installed
PACKAGES = {"fa2": "flash_attn", "fa3": "flash_attn_interface", "fa4": "flash_attn.cute"}


@dataclass(frozen=True, slots=True)
class Board:
    """What cases are sized for."""

    cores: int = 132
    """streaming multiprocessors"""
    l2_bytes: int = 50 * MIB
    """last cache"""
    packages: frozenset[str] = frozenset()
    """which of `PACKAGES` are installed"""
    hopper: bool = True
    """whether it has tensor copies (compute capability 9.0 and later)"""


def cuda_cases(board: Board | None = None) -> Iterator[Case]:
    """Every case once, in the order in which they run."""
    seen = set()
    for case in _all(board or Board()):
        if case.key not in seen:
            seen.add(case.key)
            yield case


def selected(cases: Iterable[Case], words: Iterable[str]) -> list[Case]:
    """Cases of the named experiments or runners; all of them without names."""
    names = {word.strip().lower() for word in words if word.strip()}
    return [case for case in cases if not names or case.experiment.lower() in names or case.kernel in names]


def _all(board: Board) -> Iterator[Case]:
    sweep = _sweep(board)
    e1 = [replace(sweep, seq_kv=rows, experiment="E1") for rows in _sizes(board)]
    yield from _use(board, 8192, 1)
    yield from e1[:2]
    yield from _sections(board, 8192, (32, 16, 1))
    yield from e1[2:]
    yield from (replace(case, order="sawtooth", experiment="E3") for case in e1[:7])
    yield from _own_split(board)
    yield from (replace(case, experiment="E7") for case in _use(board, 16384, 1))
    if board.hopper:
        yield from (replace(case, loads="tma") for case in e1[:5])
    yield from _waves_and_starts(board, e1[1])
    yield from _tiles()
    yield from _decode()
    yield from _use(board, 2048, 4)
    yield from _published(board)
    yield from _long_causal()
    yield from _hints(board, e1[0])
    yield from _probes(board)
    yield from _shapes()
    yield from _few_items()
    yield from _masks()
    yield from _sides(board, e1)


def _sweep(board: Board) -> Case:
    """Eight sweeps of every core over the keys of one head: resident programs, one per core."""
    return Case(
        "triton-tiled", 1, 1, 1, 128, 8 * board.cores * 128, 128, "full", 128, 64, pick="static", per_core=1, stages=2,
        warps=8,
    )  # fmt: skip


def _sizes(board: Board) -> list[int]:
    """Keys of one head of 128 in 16 bits, 512 bytes each, whose size is a share of the last cache in whole MiB."""
    return [max(1, round(share * board.l2_bytes / MIB)) * MIB // 512 for share in SHARES]


def _use(board: Board, n: int, batch: int) -> Iterator[Case]:
    """The library kernels that people use, on a layer of 32 heads over 8 and over 32."""
    kernels = [*(name for name in ("fa3", "fa2", "fa4") if name in board.packages), "sdpa-flash", "sdpa-cudnn"]
    for kv_heads in (8, 32):
        for mask in ("causal", "full"):
            for kernel in kernels:
                yield Case(kernel, batch, 32, kv_heads, 128, n, n, mask, experiment="use")


def _sections(board: Board, n: int, sizes: Iterable[int]) -> Iterator[Case]:
    """FlashAttention-3's order of items by our own kernel: heads in sections of so many MiB of keys and values."""
    for kv_heads in (8, 32):
        group, kv_mib = 32 // kv_heads, n * 512 // MIB
        for mib in sizes:
            heads = max(1, mib // kv_mib) * group
            for mask in ("causal", "full"):
                yield Case(
                    "triton-tiled", 1, 32, kv_heads, 128, n, n, mask, 128, 64, grid=f"sections:{heads}",
                    pick="atomic", per_core=1, stages=2, warps=8, experiment="E7",
                )  # fmt: skip


def _own_split(board: Board) -> Iterator[Case]:
    """FlashAttention-3 splits the keys of long full attention above 50 MiB: one size below, one above."""
    if "fa3" in board.packages:
        for mib in (48, 56):
            yield Case("fa3", 1, 1, 1, 128, 8 * board.cores * 128, mib * 2048, "full", experiment="E10")


def _waves_and_starts(board: Board, case: Case) -> Iterator[Case]:
    for waves in (1, 2, 4):
        yield replace(case, seq_q=waves * board.cores * 128, experiment="E6")
    for percent in (5, 25, 50, 100):
        yield replace(case, stagger=percent, experiment="E6")


def _published(board: Board) -> Iterator[Case]:
    """arXiv 2601.16032: eight sequences of one head of 64, 131,072 tokens, tiles of 64 x 64."""
    for per_core in (1, 2):
        for order in ("cyclic", "sawtooth"):
            yield Case(
                "triton-tiled", 8, 1, 1, 64, 131072, 131072, "full", 64, 64, order, dtype="fp16", pick="static",
                per_core=per_core, stages=2, warps=4, experiment="E5",
            )  # fmt: skip


def _long_causal() -> Iterator[Case]:
    for n, heads in ((16384, 32), (65536, 1), (131072, 1), (65536, 4)):
        for grid, pick in (("head-major", "static"), ("longest-first", "static"), ("longest-first", "atomic")):
            yield Case(
                "triton-tiled", 1, heads, heads, 128, n, n, "causal", 128, 64, grid=grid, pick=pick, per_core=1,
                stages=2, warps=8, experiment="E7",
            )  # fmt: skip
    for n, heads in ((16384, 4), (65536, 4)):
        for grid in ("head-major", "row-major"):
            for order in ("cyclic", "sawtooth"):
                yield Case(
                    "triton-tiled", 1, heads, heads, 128, n, n, "full", 128, 64, order, grid, pick="static",
                    per_core=1, stages=2, warps=8, experiment="E3",
                )  # fmt: skip


def _hints(board: Board, case: Case) -> Iterator[Case]:
    for keep in ("", "evict_last", "evict_first"):
        yield replace(case, keep=keep, writes=4, seq_q=4 * board.cores * 128, experiment="E9")


def _probes(board: Board) -> Iterator[Case]:
    """Rows of 256 bytes: written, copied, walked over by one core."""
    for mib in (8, 32, 64, 128):
        for kernel in ("fill", "copy"):
            yield Case(kernel, 1, 1, 1, 128, mib * MIB // 256, 1, "full", experiment="E8")
    for share in (0.4, 0.6, 0.75, 0.9):
        yield Case("chase", 1, 1, 1, 128, 1, round(share * board.l2_bytes / MIB) * MIB // 256, "full", experiment="E4")


def _tiles() -> Iterator[Case]:
    """Bytes between the last cache and the cores follow the tile."""
    for tile_q, tile_kv in ((64, 32), (64, 64), (128, 32), (128, 64), (128, 128)):
        for mask in ("causal", "full"):
            yield Case(
                "triton-tiled", 1, 16, 16, 128, 8192, 8192, mask, tile_q, tile_kv, stages=2,
                warps=8 if tile_q == 128 else 4, experiment="tiles",
            )  # fmt: skip


def _decode() -> Iterator[Case]:
    for batch, n_kv in ((1, 8192), (1, 131072), (16, 8192), (64, 4096)):
        for kv_heads in (8, 32):
            yield Case("sdpa-flash", batch, 32, kv_heads, 128, 1, n_kv, "full", experiment="decode")


def _shapes() -> Iterator[Case]:
    for head_dim in (64, 128, 256):
        for n in (512, 1024, 4096, 32768):
            for mask in ("causal", "full"):
                heads = 2048 // head_dim
                batch = max(1, 16384 // n)
                yield Case("sdpa-flash", batch, heads, heads, head_dim, n, n, mask, experiment="shapes")


def _few_items() -> Iterator[Case]:
    for n in (128, 1024, 4096, 12288, 16384):
        for heads in (1, 2, 8):
            yield Case("sdpa-flash", 1, heads, heads, 128, n, n, "causal", experiment="waves")


def _masks() -> Iterator[Case]:
    for window in (1024, 4096):
        yield Case("flex", 1, 32, 32, 128, 16384, 16384, f"window:{window}", 128, 128, experiment="masks")
    for mask in ("causal", "full"):
        yield Case("flex", 1, 32, 32, 128, 8192, 8192, mask, 128, 128, experiment="masks")
    for n in (1024, 4096):
        for kernel in ("unfused", "sdpa-math", "sdpa-efficient"):
            yield Case(kernel, 4, 16, 16, 64, n, n, "full", experiment="old")


def _sides(board: Board, e1: list[Case]) -> Iterator[Case]:
    """Two heads at once, each half of the cache's share: cores of one partition, against cores by their number's parity."""
    for case in e1[:2]:
        for grid in ("by-partition", "by-parity"):
            yield replace(
                case, heads=2, kv_heads=2, seq_q=4 * board.cores * 128, seq_kv=case.seq_kv // 2, pick="sides", grid=grid,
                experiment="E2",
            )  # fmt: skip
