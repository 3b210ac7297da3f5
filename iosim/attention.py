"""One attention call, the problem: shape, element types, mask and phase.

A problem is one layer's call over the whole batch and all heads. It says nothing about how a kernel
would compute it.
"""

from __future__ import annotations

from dataclasses import dataclass

from iosim.errors import UsageError, did_you_mean
from iosim.masks import Band, Mask, MaskCounts

PHASES = ("prefill", "decode", "backward")

#: bits of one element
BITS = {
    "fp64": 64, "fp32": 32, "tf32": 32, "bf16": 16, "fp16": 16, "fp8": 8, "int8": 8, "fp6": 6, "fp4": 4, "int4": 4,
}  # fmt: skip
_ALIASES = {
    "float64": "fp64", "float32": "fp32", "float": "fp32", "bfloat16": "bf16", "float16": "fp16", "half": "fp16",
    "f32": "fp32", "f16": "fp16", "e4m3": "fp8", "e5m2": "fp8", "fp8-e4m3": "fp8", "fp8-e5m2": "fp8",
    "nvfp4": "fp4", "mxfp4": "fp4", "i8": "int8",
}  # fmt: skip


def dtype(name: str, where: str = "--dtype") -> str:
    """The canonical name of an element type.

    Raises:
        UsageError: unknown, with the nearest name.

    >>> dtype("bfloat16")
    'bf16'
    """
    known = name.lower().replace("_", "-")
    known = _ALIASES.get(known, known)
    if known not in BITS:
        raise UsageError(f"unknown element type {name!r}", where, did_you_mean(known, [*BITS, *_ALIASES]))
    return known


@dataclass(frozen=True, slots=True)
class Types:
    """Element type of each tensor."""

    q: str = "bf16"
    """queries, scores and probabilities in memory"""
    kv: str = "bf16"
    """keys and values"""
    out: str = "bf16"
    """outputs"""
    stats: str = "fp32"
    """row statistics, partial outputs and accumulators"""

    @classmethod
    def of(cls, name: str = "bf16", kv: str | None = None) -> Types:
        """Types from the command line's two names: outputs of 8-bit problems are bf16, as real kernels write."""
        q = dtype(name)
        return cls(q, dtype(kv, "--kv-dtype") if kv else q, q if BITS[q] >= 16 else "bf16")

    @staticmethod
    def role(tensor: str) -> str:
        """Which of the types a tensor has: Q K V O dQ dK dV dO, S and P in memory, LSE and other statistics."""
        if tensor in ("K", "V"):
            return "kv"
        if tensor in ("O", "dO"):
            return "out"
        return "q" if tensor in ("Q", "dQ", "dK", "dV", "S", "P") else "stats"

    def bits(self, tensor: str) -> int:
        """Bits of one element of a tensor."""
        return BITS[getattr(self, self.role(tensor))]


#: beyond any call; keeps a slip of the finger from looking like an answer
MOST = {"batch": 10**9, "heads": 10**6, "kv_heads": 10**6, "head_dim": 10**6, "head_dim_v": 10**6}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of one call."""

    batch: int
    """sequences"""
    heads: int
    """query heads"""
    kv_heads: int
    """key/value heads; each serves heads / kv_heads query heads"""
    head_dim: int
    """d: elements of a query and a key"""
    head_dim_v: int
    """d_v: elements of a value and an output row"""
    latent: bool = False
    """V is a slice of K (absorbed multi-head latent attention): reading K reads V"""

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            value, option = getattr(self, name), "--" + name.replace("_", "-")
            if type(value) is not int:
                raise UsageError(f"must be a whole number, got {value!r}", option)
            if not 1 <= value <= most:
                what = f"must be at least 1, got {value}" if value < 1 else f"{value:,} is more than iosim takes"
                raise UsageError(what, option, f"a whole number from 1 to {most:,}")
        if self.heads % self.kv_heads:
            divisors = [k for k in range(1, self.heads + 1) if self.heads % k == 0]
            near = min(divisors, key=lambda k: abs(k - self.kv_heads))
            raise UsageError(
                f"{self.heads} query heads do not divide among {self.kv_heads} key/value heads",
                "--kv-heads",
                f"for example --kv-heads {near}",
            )
        if self.latent and self.head_dim_v > self.head_dim:
            raise UsageError(
                f"V of {self.head_dim_v} elements cannot be a slice of K of {self.head_dim}", "--head-dim-v"
            )

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads


def check_shared(mask: Mask, keys: int, phase: str) -> None:
    """Refuse keys that the sequences of a call cannot share.

    Raises:
        UsageError: another phase than decode, a window, or a query that does not see all of them and a key of its own.
    """
    where = "--shared-prefix"
    if phase != "decode" or keys < 1:
        raise UsageError(
            f"{keys} shared keys in {phase}", where, "sequences share a prefix of at least 1 key in decode"
        )
    for part, _ in mask.sequences():
        if not isinstance(part, Band) or part.left is not None:
            raise UsageError(f"mask {mask} does not show the whole prefix", where, "full or causal")
        if part.end_key(0) <= keys:
            raise UsageError(
                f"the first query sees {part.end_key(0)} keys, {keys} of them shared", where, "at least one is its own"
            )


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention call."""

    shape: Shape
    """sizes"""
    mask: Mask
    """which keys each query sees; it also holds the sequence lengths"""
    types: Types = Types()
    """element types"""
    phase: str = "prefill"
    """prefill | decode | backward"""
    shared_keys: int = 0
    """first keys that are the same for all sequences: their K and V are one tensor, which floors count once"""

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise UsageError(f"unknown phase {self.phase!r}", "--phase", did_you_mean(self.phase, PHASES))
        if self.shared_keys:
            check_shared(self.mask, self.shared_keys, self.phase)

    @property
    def n_q(self) -> int:
        """Queries of one sequence; of all of them where lengths are unequal."""
        return self.mask.n_q

    @property
    def n_kv(self) -> int:
        """Keys of one sequence, new tokens included; of all of them where lengths are unequal."""
        return self.mask.n_kv

    @property
    def sequences(self) -> int:
        """Sequences of the whole call, whether or not they have lengths of their own."""
        return self.shape.batch * sum(times for _, times in self.mask.sequences())

    @property
    def unequal(self) -> bool:
        """Whether sequences of lengths of their own are laid end to end, each tiled from its own start."""
        return self.mask.sequences()[0][0] is not self.mask

    @property
    def pair_elements(self) -> int:
        """Elements multiplied per pair, e = d + d_v."""
        return self.shape.head_dim + self.shape.head_dim_v

    def masks(self) -> tuple[tuple[Mask, int], ...]:
        """(mask, query heads of one sequence that have it)."""
        return self.mask.per_head(self.shape.heads)

    def counts(self) -> MaskCounts:
        """Mask counts summed over batch and heads; `keys` and `keys_ok` over key/value heads.

        Heads of one group share K and V, so the union of what they use counts once. Masks that differ within
        a group count as the largest of them, which can only lower a floor. Keys that sequences share count once.
        """
        counted = [(mask.counts(), heads) for mask, heads in self.masks()]
        batch, group = self.shape.batch, self.shape.group
        total = {
            name: batch * sum(heads * getattr(counts, name) for counts, heads in counted)
            for name in ("pairs", "pairs_ok", "rows", "rows_ok")
        }
        per_head = [counts for counts, heads in counted for _ in range(heads)] if len(counted) > 1 else []
        for name in ("keys", "keys_ok"):
            if per_head:
                groups = range(0, len(per_head), group)
                used = sum(max(getattr(c, name) for c in per_head[i : i + group]) for i in groups)
            else:
                used = self.shape.kv_heads * getattr(counted[0][0], name)
            total[name] = batch * used - (self.sequences - 1) * self.shape.kv_heads * self.shared_keys
        return MaskCounts(**total)

    def flop(self) -> int:
        """Useful FLOP: 2 (d + d_v) per unmasked pair forward; backward has five products, 6 d + 4 d_v."""
        pairs = self.counts().pairs
        if self.phase == "backward":  # S = QK, dP = dO V, dV = P dO, dQ = dS K, dK = dS Q
            return pairs * (6 * self.shape.head_dim + 4 * self.shape.head_dim_v)
        return pairs * 2 * self.pair_elements
