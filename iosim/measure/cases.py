"""One kernel on one shape, every choice made; and what is measured on a processor."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

#: runners that are no attention: they measure what the machine does with bytes
PROBES = ("fill", "copy", "chase")
#: of names of profiler ranges
PREFIX = "iosim/"
LABEL = re.compile(r"iosim/[\w/.=-]+")
WHOLE = frozenset(
    [
        "batch",
        "heads",
        "kv_heads",
        "head_dim",
        "seq_q",
        "seq_kv",
        "tile_q",
        "tile_kv",
        "per_core",
        "writes",
        "stagger",
        "stages",
        "warps",
    ]
)


@dataclass(frozen=True, slots=True)
class Case:
    """One kernel on one shape, every choice made."""

    kernel: str
    """runner: cpu-tiled, cpu-unfused, cpu-sdpa, sdpa-flash, sdpa-cudnn, sdpa-efficient, sdpa-math, unfused, flex, fa2,
    fa3, fa4, triton-tiled; fill, copy, chase"""
    batch: int
    """sequences"""
    heads: int
    """query heads"""
    kv_heads: int
    """key/value heads"""
    head_dim: int
    """elements of a head"""
    seq_q: int
    """queries; rows of `head_dim` elements written by fill and copy"""
    seq_kv: int
    """keys; rows of `head_dim` elements that chase walks over"""
    mask: str
    """full | causal | window:W"""
    tile_q: int = 0
    """rows of a tile; 0: the library's own"""
    tile_kv: int = 0
    """keys of a tile"""
    order: str = "cyclic"
    """direction of the walk over keys: cyclic | sawtooth"""
    grid: str = "head-major"
    """head-major: all row tiles of a head before the next | row-major: heads interleaved | longest-first: head-major, the
    last row tile first | sections:N of N heads, row tiles from the last, heads fastest | by-partition, by-parity: which
    cores a head runs on"""
    dtype: str = "bf16"
    """element type"""
    pick: str = "item"
    """item: a program per item | static: resident programs stride | atomic: they take the next | sides: a head per side"""
    per_core: int = 0
    """resident programs per core, where there are any"""
    loads: str = "plain"
    """plain | tma"""
    keep: str = ""
    """hint on loads of K and V: evict_first | evict_last"""
    writes: int = 1
    """times that the output is written, each to its own place"""
    stagger: int = 0
    """programs start evenly over this percentage of a sweep over the keys"""
    stages: int = 0
    """depth of the pipeline of loads"""
    warps: int = 0
    """warps of a program"""
    experiment: str = ""
    """which question it answers; not part of what the case is"""

    @property
    def phase(self) -> str:
        """One query is decode; probes have none."""
        if self.kernel in PROBES:
            return ""
        return "decode" if self.seq_q == 1 else "prefill"

    @property
    def key(self) -> str:
        """Names the case in a file, so that a run can go on where another stopped."""
        names = (name for name in self.__dataclass_fields__ if name != "experiment")
        return " ".join(str(getattr(self, name)) or "-" for name in names)

    @property
    def label(self) -> str:
        """What an NVTX range of the case is called."""
        return label_of(self.key)

    @property
    def pairs(self) -> int:
        """Unmasked pairs of one head of one sequence, masks aligned at the end."""
        if self.mask == "full":
            return self.seq_q * self.seq_kv
        window = int(self.mask.partition(":")[2] or self.seq_kv)
        first = self.seq_kv - self.seq_q + 1  # keys of the first query
        short = max(0, min(self.seq_q, window - first))
        return short * first + short * (short - 1) // 2 + (self.seq_q - short) * window

    @property
    def flop(self) -> int:
        """Useful FLOP; none of a probe."""
        return 0 if self.kernel in PROBES else 4 * self.batch * self.heads * self.head_dim * self.pairs


def label_of(key: str) -> str:
    """A case's key as one word without colons, which a profiler's lists of ranges are split at."""
    return PREFIX + key.replace(":", "=").replace(" ", "/")


def case_of(text: str) -> Case | None:
    """The case whose label stands in a text; None where none does.

    >>> case = Case("flex", 1, 32, 8, 128, 4096, 4096, "window:512")
    >>> case_of(f"<default domain>:{case.label}:none") == case
    True
    """
    names = [name for name in Case.__dataclass_fields__ if name != "experiment"]
    for found in LABEL.findall(text):
        words = found.removeprefix(PREFIX).replace("=", ":").split("/")
        if len(words) != len(names):
            continue
        values = dict(zip(names, words, strict=True))
        try:
            typed = {
                name: int(value) if name in WHOLE else value if value != "-" else "" for name, value in values.items()
            }
        except ValueError:
            continue
        return Case(**typed)  # type: ignore[arg-type]
    return None


def cpu_cases(pytorch: bool = False) -> Iterator[Case]:
    """Tiled against unfused around the sizes of a processor's caches, tiles, and a decode step; PyTorch's beside them."""
    for n in (256, 512, 1024, 2048, 4096):
        for mask in ("full", "causal"):
            for kernel in ("cpu-tiled", "cpu-unfused"):
                yield Case(kernel, 1, 4, 4, 64, n, n, mask, 64, 64, dtype="fp32")
            if pytorch:
                yield Case("cpu-sdpa", 1, 4, 4, 64, n, n, mask, dtype="fp32")
    tiled = Case("cpu-tiled", 1, 4, 4, 64, 2048, 2048, "full", 64, 64, dtype="fp32")
    for tile_q, tile_kv in ((16, 64), (64, 16), (32, 32), (128, 128), (64, 256)):
        yield replace(tiled, tile_q=tile_q, tile_kv=tile_kv)
    for n_kv in (4096, 32768):
        yield Case("cpu-tiled", 1, 8, 8, 128, 1, n_kv, "full", 1, 64, dtype="fp32")
    for order in ("cyclic", "sawtooth"):
        yield Case("cpu-tiled", 1, 1, 1, 64, 4096, 16384, "full", 64, 64, order, dtype="fp32")
