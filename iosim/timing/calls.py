"""Many attention calls as equal-length arrays: what the time model computes on, one call or a million alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from iosim.attention import BITS, Attention
from iosim.errors import AbsentError
from iosim.masks import Band

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: keys to the left that a mask without a left edge lets through; more than any sequence, and no overflow in sums
UNBOUNDED = 1 << 40


@dataclass(frozen=True, slots=True)
class Calls:
    """Attention calls whose masks are bands: full, causal (aligned at the end), or causal windows."""

    batch: Ints
    """sequences"""
    heads: Ints
    """query heads"""
    kv_heads: Ints
    """key/value heads"""
    head_dim: Ints
    """elements of a query and a key"""
    head_dim_v: Ints
    """elements of a value"""
    n_q: Ints
    """queries of a sequence"""
    n_kv: Ints
    """keys of a sequence, new tokens included"""
    left: Ints
    """keys before a query's own that it sees; `UNBOUNDED` without a window"""
    causal: Flags
    """False: every query sees every key"""

    def __len__(self) -> int:
        return len(self.batch)

    def __getitem__(self, which: slice | Ints | Flags) -> Calls:
        return Calls(*(getattr(self, f.name)[which] for f in fields(self)))

    @classmethod
    def of(cls, columns: Mapping[str, object]) -> Calls:
        """Calls from columns by field name; missing `head_dim_v`, `left`, `causal` get their usual values."""
        given = {name: np.asarray(column) for name, column in columns.items()}
        count = len(given["batch"])
        given.setdefault("head_dim_v", given["head_dim"])
        given.setdefault("left", np.full(count, UNBOUNDED))
        given.setdefault("causal", np.ones(count, bool))
        whole = {f.name: np.ascontiguousarray(given[f.name], np.int64) for f in fields(cls) if f.name != "causal"}
        return cls(**whole, causal=np.ascontiguousarray(given["causal"], bool))

    @property
    def group(self) -> Ints:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    @property
    def local(self) -> Flags:
        """Whether a window really cuts keys off, as kernels decide it: windows longer than the keys are dropped."""
        cuts: Flags = self.causal & (self.left + 1 < self.n_kv)
        return cuts

    @property
    def decode(self) -> Flags:
        """One query per sequence."""
        one: Flags = self.n_q == 1
        return one

    @property
    def seen_keys(self) -> Ints:
        """Distinct keys that some query of a sequence sees."""
        return np.where(self.causal, np.minimum(self.n_kv, self.left + self.n_q), self.n_kv)

    @property
    def kv_bytes(self) -> Floats:
        """Bytes of the 16-bit keys and values that the call must see."""
        per_key = 2.0 * (self.head_dim + self.head_dim_v) * self.kv_heads
        return self.batch * per_key * self.seen_keys

    @property
    def qo_bytes(self) -> Floats:
        """Bytes of the 16-bit queries and outputs."""
        return 2.0 * self.batch * self.n_q * self.heads * (self.head_dim + self.head_dim_v)


def calls_of(problem: Attention, bits: int = 16) -> Calls:
    """One problem as calls of length one.

    Args:
        bits: of the element types that the model speaks of.
    Raises:
        AbsentError: a mask, element type or phase that the time model does not speak of.
    """
    mask, types = problem.mask, problem.types
    if BITS[types.q] != bits or BITS[types.kv] != bits:
        raise AbsentError(f"the time model is calibrated for {bits}-bit tensors, not {types.q} with {types.kv} keys")
    if problem.shape.latent:
        raise AbsentError("the time model is not calibrated for latent attention")
    left, causal = _band(mask)
    shape = problem.shape
    numbers = {
        "batch": shape.batch, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "head_dim_v": shape.head_dim_v, "n_q": problem.n_q, "n_kv": problem.n_kv, "left": left, "causal": causal,
    }  # fmt: skip
    return Calls.of({name: [number] for name, number in numbers.items()})


def _band(mask: object) -> tuple[int, bool]:
    if isinstance(mask, Band) and not mask.sink:
        aligned = mask.offset == mask.n_kv - mask.n_q
        if mask.left is None and mask.right is None:
            return UNBOUNDED, False
        if mask.right == 0 and aligned:
            return UNBOUNDED if mask.left is None else mask.left, True
    raise AbsentError("the time model is calibrated for full, causal and window masks only")
