"""The vocabulary of links: what crosses them in one way of using several devices, or a device and its host.

A link is one more boundary. Its near side is one device; `read` elements come into that device over the link and
`write` elements leave it, tensor by tensor, exact. Links carry both directions at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.kernels.blocks import Extent
from iosim.masks import Band
from iosim.schedule import Moved, Traffic

IN_MEMORY = "what comes over the link is taken to lie in main memory when the kernel reads it"
PLAIN = ("full", "causal")
"""masks under which rows and keys can be shared out"""


@dataclass(frozen=True, slots=True)
class Step:
    """What happens side by side; steps follow one another. A model of overlap, never part of a floor."""

    compute: float
    """share of the reported device's own compute"""
    link_bytes: int = 0
    """bytes that cross the link meanwhile, in the busier direction"""
    far_bytes: int = 0
    """bytes that the far side's memory delivers meanwhile"""
    messages: int = 1
    """messages, one after another, that carry the link's bytes"""


@dataclass(frozen=True, slots=True)
class Least:
    """What is proven for every way of computing the call, given where the data start and end."""

    received: tuple[int, ...]
    """device -> bytes that it must receive at least"""
    sent: tuple[int, ...]
    """device -> bytes that it must send at least"""
    conditions: tuple[str, ...]
    """what must hold"""

    @property
    def most_bytes(self) -> int:
        """The largest of them: no link is done sooner."""
        return max(*self.received, *self.sent)


@dataclass(frozen=True, slots=True)
class Proven:
    """What a floor may count: true of every way of computing the call from where its data start."""

    flop: int
    """useful FLOP of all devices together"""
    read_bytes: int
    """compulsory inputs that lie in the devices' own main memories, all devices together"""
    write_bytes: int
    """compulsory outputs that end there"""
    least: Least | None
    """at the links; None where nothing is proven"""
    far_bytes: int = 0
    """bytes that must be read from the far side's memory"""


@dataclass(frozen=True, slots=True)
class Share:
    """What the reported device computes."""

    call: Attention | None
    """its own attention call; None: it computes nothing"""
    launches: tuple[Attention, ...] = ()
    """the call in parts that a time model knows, where it is several launches; empty: it is one"""
    beside_flop: int = 0
    """FLOP beside attention that take part in the overlap"""
    kernels: tuple[str, ...] = ()
    """kernels to show when none is named; empty: the phase's usual ones"""
    kernel_class: str = ""
    """the class that kernels must have; empty: any"""


@dataclass(frozen=True, slots=True)
class Recompute:
    """What need not cross, since it can be computed again."""

    what: str
    """tensors"""
    moved_bytes: int
    """bytes that would not cross"""
    flop: int
    """useful FLOP of computing them again"""


@dataclass(frozen=True, slots=True)
class Told:
    """What a reader is told."""

    source: str
    """papers"""
    summary: str = ""
    """what lies where, in a few words"""
    notes: tuple[str, ...] = ()
    """assumptions"""
    settings: Mapping[str, object] = field(default_factory=dict)
    """every parameter, defaults included"""


@dataclass(frozen=True, slots=True)
class Way:
    """One way of sharing a call among devices, or of leaving a part of it elsewhere."""

    name: str
    """ring, ulysses, attention-servers, offload kv, ..."""
    boundary: str
    """link (other devices) | host (host memory, storage)"""
    traffic: tuple[Traffic, ...]
    """device -> elements received (reads) and sent (writes)"""
    pairs: tuple[int, ...]
    """device -> unmasked (query, key) pairs over batch and heads that it computes"""
    steps: tuple[Step, ...]
    """how compute and link lie side by side"""
    share: Share
    """of the reported device"""
    proven: Proven
    """what a floor may count"""
    told: Told
    """for people"""
    shards: tuple[tuple[Extent, ...], ...] = ()
    """device -> its parts of the sequence, (first token, tokens), where tokens are shared out"""
    peers: bool = True
    """whether messages go from device to device; else to something outside, the model or the host"""
    far_computes: bool = False
    """whether the far side computes with its keys, so that its memory's time is one of the steps"""
    again: Recompute | None = None
    """what could be computed again instead of crossing"""

    @property
    def devices(self) -> int:
        """Devices that share the call."""
        return len(self.traffic)

    @property
    def rounds(self) -> int:
        """Messages that follow one another."""
        return sum(step.messages for step in self.steps if step.link_bytes)

    @property
    def device(self) -> int:
        """The device that a report speaks of: the one with the most pairs, then bytes, then bytes that are proven."""
        least = self.proven.least

        def load(r: int) -> tuple[int, int, int]:
            proven = least.received[r] + least.sent[r] if least else 0
            return self.pairs[r], self.traffic[r].total_bytes, proven

        return max(range(self.devices), key=load)

    @property
    def imbalance(self) -> float:
        """Pairs of the busiest device over the mean: 1 when all work alike."""
        return max(self.pairs) * len(self.pairs) / sum(self.pairs) if sum(self.pairs) else 1.0

    @property
    def crossing_bytes(self) -> int:
        """Bytes on all links, each counted once: what peers receive is what they send."""
        sent = sum(traffic.write_bytes for traffic in self.traffic)
        return sent if self.peers else sent + sum(traffic.read_bytes for traffic in self.traffic)

    @property
    def least_crossing_bytes(self) -> int | None:
        """What is proven of them; None where nothing is."""
        least = self.proven.least
        if least is None:
            return None
        received, sent = sum(least.received), sum(least.sent)
        return max(received, sent) if self.peers else received + sent


def plain_mask(problem: Attention) -> str:
    """full | causal (the last query aligned with the last key) | other."""
    masks = problem.masks()
    mask = masks[0][0]
    if len(masks) > 1 or not isinstance(mask, Band) or mask.left is not None:
        return "other"
    if mask.right is None:
        return "full"
    return "causal" if mask.right == 0 and mask.offset == problem.n_kv - problem.n_q else "other"


def crossing(problem: Attention, received: dict[str, int], sent: dict[str, int]) -> Traffic:
    """Rows of one head of one sequence, tensor by tensor, as elements over batch and heads.

    K and V have the key/value heads, everything else the query heads; V of latent attention is a slice of K.
    """
    moved = []
    for name in dict.fromkeys((*received, *sent)):
        if width := words(problem, name):
            sides = (side.get(name, 0) * width for side in (received, sent))
            moved.append(Moved(name, problem.types.bits(name), *sides))
    return Traffic(tuple(moved))


def words(problem: Attention, tensor: str) -> int:
    """Elements of one token of a tensor, over batch and heads."""
    shape = problem.shape
    name = tensor.removeprefix("d")  # gradients are as large as what they belong to
    heads = shape.kv_heads if name in ("K", "V") else shape.heads
    width = {"Q": shape.head_dim, "K": shape.head_dim, "V": 0 if shape.latent else shape.head_dim_v, "LSE": 1}
    return shape.batch * heads * width.get(name, shape.head_dim_v)


def busier_bytes(traffic: Traffic) -> int:
    """Bytes of the busier direction: a link carries both at once."""
    return max(traffic.read_bytes, traffic.write_bytes)


def resident_rows(rows: int, fraction: Fraction) -> int:
    """Whole rows of a share that stays."""
    return int(rows * fraction)


def only(settings: dict[str, str], known: Sequence[str], way: str, where: str) -> None:
    """Refuse parameters that a way does not have.

    Raises:
        UsageError: names the one.
    """
    for name in settings:
        if name not in known:
            hint = f"it has {', '.join(known)}" if known else f"{way} has no parameters"
            raise UsageError(f"{way} has no parameter {name!r}", where, hint)


def whole(settings: dict[str, str], name: str, default: int, where: str) -> int:
    """A parameter that is a whole number of at least one.

    Raises:
        UsageError: it is not.
    """
    text = settings.get(name, str(default))
    if not (text.isdecimal() and 0 < int(text) < 10**9):
        raise UsageError(f"{name} must be a whole number of at least 1, got {text!r}", where)
    return int(text)
