"""What linear-attention kernels share: chunks of a sequence, feature maps, gates, blocks of value columns.

A kernel keeps a state of f x d_v words per head, f the width of the feature map: d for the identity, 2 d for
Hedgehog's exp(x), exp(-x), 1 + d + d^2 for a Taylor series of second order. A normaliser adds one column.
FLOP are those of matrix products, not of maps, decays and quotients. Exponentials are those of the map and, as gates
lie as logarithms, one per gate word that an item reads.
Sources: Zhang et al. 2024, Hedgehog (arXiv 2402.04347); Arora et al. 2024, Based (arXiv 2402.18668).
"""

from __future__ import annotations

from dataclasses import dataclass

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import Call, Parameter
from iosim.kernels.blocks import Extent, Strips, column_block, strips
from iosim.kernels.kernel_file import mask_kind
from iosim.masks import Band
from iosim.schedule import Moved, Touch

FEATURES = ("identity", "hedgehog", "taylor")
GATES = ("none", "scalar", "vector")

FEATURE_MAP = Parameter("features", "identity", "map of queries and keys, applied on chip", choices=FEATURES)
GATE = Parameter("gate", "none", "decay per token: none, one word, or one per element of a key", choices=GATES)
VALUE_BLOCK = Parameter("value_block", 0, "value columns per work item; by default all of them", least=1)
NORMALISE = Parameter("normalise", False, "keep the sum of features beside the state, to divide by")


@dataclass(frozen=True, slots=True)
class Chunks:
    """One call cut into chunks of tokens and blocks of value columns."""

    problem: Attention
    """full or causal, as long in queries as in keys where causal"""
    causal: bool
    """each token sees those before it"""
    chunk: int
    """tokens per chunk"""
    blocks: Strips
    """(first value column, columns) of each block"""
    features: int
    """f: width of the feature map"""
    gate: int
    """words of decay per token"""
    extra: int
    """1 with a normaliser: one more column of the state"""

    @property
    def heads(self) -> int:
        """Query heads over the batch; each keeps a state of its own."""
        return self.problem.shape.batch * self.problem.shape.heads

    def chunks(self, tokens: int) -> Strips:
        """(first token, tokens) of each chunk."""
        return strips(tokens, self.chunk)

    def widths(self) -> dict[str, int]:
        """Elements of one row of each tensor; V and O lie in strips of value columns."""
        shape = self.problem.shape
        return {"Q": shape.head_dim, "K": shape.head_dim, "V": 1, "O": 1, "g": self.gate}

    def kv_head(self, head: int) -> int:
        """Key/value head of a query head."""
        return head // self.problem.shape.group

    def rows(self, tensor: str, head: int, at: Extent) -> tuple[Touch, ...]:
        """Reads of whole rows; no gate, no touch."""
        if tensor == "g" and not self.gate:
            return ()
        return (Touch(tensor, head if tensor == "Q" else self.kv_head(head), *at, False),)

    def values(self, tensor: str, head: int, at: Extent, block: Extent, write: bool = False) -> tuple[Touch, ...]:
        """Some rows of one block of value columns."""
        tokens = self.problem.n_q if tensor == "O" else self.problem.n_kv
        owner = head if tensor == "O" else self.kv_head(head)
        return (Touch(tensor, owner, *column_block(tokens, at, block), write),)

    def moved(self, tensor: str, read: int = 0, write: int = 0) -> Moved:
        """Elements over all heads; gates are fp32 as kernels keep their logarithms."""
        return Moved(tensor, self.problem.types.bits(tensor), read * self.heads, write * self.heads)


def is_causal(problem: Attention) -> bool:
    """Whether each query sees exactly the keys up to its own, the last query's being the last key."""
    return _ends_at_own(problem) and all(
        isinstance(mask, Band) and decide(mask.offset == mask.n_kv - mask.n_q) for mask, _ in problem.masks()
    )


def _ends_at_own(problem: Attention) -> bool:
    """Whether each query sees exactly the keys up to its own, whichever that is."""
    masks = [mask for mask, _ in problem.masks()]
    return mask_kind(problem) == "causal" and all(isinstance(mask, Band) and decide(mask.right == 0) for mask in masks)


def chunks_of(call: Call) -> Chunks:
    """The cut of a call: chunks of the tile's rows.

    Raises:
        UsageError: a mask other than full or causal, or a causal one with lengths that differ.
    """
    problem, causal = call.problem, is_causal(call.problem)
    if _ends_at_own(problem) and decide(problem.n_q != problem.n_kv):
        what = f"causal linear attention has one query per key, got {problem.n_q} queries and {problem.n_kv} keys"
        raise UsageError(what, "--seq-kv", "leave it out, or --mask full")
    if not (causal or mask_kind(problem) == "full"):
        what = f"linear attention keeps a state of all tokens before: it has no mask {problem.mask}"
        raise UsageError(what, "--mask", "full, or causal with as many queries as keys")
    if problem.shape.latent:
        raise UsageError("linear attention reads V apart from K", "--latent")
    shape = problem.shape
    d, words = shape.head_dim, {"none": 0, "scalar": 1, "vector": shape.head_dim}
    wide = {"identity": d, "hedgehog": 2 * d, "taylor": 1 + d + d * d}
    return Chunks(
        problem=problem,
        causal=causal,
        chunk=call.tiling.rows,
        blocks=strips(shape.head_dim_v, int(call.settings.get("value_block", 0)) or shape.head_dim_v),
        features=wide[str(call.settings.get("features", "identity"))],
        gate=words[str(call.settings.get("gate", "none"))],
        extra=int(call.settings.get("normalise", False)),
    )


def causal_chunks(call: Call, hint: str) -> Chunks:
    """The cut of a call whose state holds the tokens before.

    Raises:
        UsageError: not causal.
    """
    cut = chunks_of(call)
    if not cut.causal:
        raise UsageError("states of the tokens before serve causal attention only", "--mask", hint)
    return cut


def feature_exp(call: Call, tokens: int) -> int:
    """Exponentials that the feature map takes of so many rows."""
    return 2 * call.problem.shape.head_dim * tokens if call.settings.get("features") == "hedgehog" else 0


def item_exp(call: Call, cut: Chunks, rows: int, gated: int) -> int:
    """Exponentials of one item that maps so many rows and reads the gates of so many tokens."""
    return feature_exp(call, rows) + cut.gate * gated


def causal_pairs(extents: Strips) -> int:
    """Pairs of tokens of the same chunk, each with those before it and itself."""
    return extents.total(lambda size: size * (size + 1) // 2)


def square_pairs(extents: Strips) -> int:
    """All pairs of tokens of the same chunk."""
    return extents.total(lambda size: size * size)
