"""From what a person names (a network or plain shapes, lengths, a mask, types) to a problem.

Every default that was used is reported, so that an answer can be repeated.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from iosim.attention import Attention, Shape, Types
from iosim.errors import UsageError
from iosim.masks import Grid, Mask, bind, parse_mask
from iosim.masks.sequences import batched
from iosim.networks import Geometry, load_network

DEFAULT_NETWORK = "llama-3-8b"
DEFAULT_SEQ = 8192
MAX_SEQUENCES = 1 << 16  # of unequal lengths; each is one mask of its own
MAX_EXTENT = 10**12  # beyond any sequence; keeps a slip of the finger from looking like an answer


@dataclass(frozen=True, slots=True)
class Asked:
    """A problem and how it was made."""

    problem: Attention
    """the call"""
    inputs: dict[str, object]
    """every choice, defaults included, under the names of the command line"""
    notes: tuple[str, ...] = ()
    """defaults that a model file left open and other remarks"""
    sha256: str = ""
    """of the network's file, if one was read"""


def parse_layout(text: str | int | tuple[int, ...], where: str) -> tuple[int, ...]:
    """A token layout: `8192`, `256x256`, `30x48x80`.

    Raises:
        UsageError: not whole numbers joined by x, zero or below, or absurdly large.
    """
    if isinstance(text, tuple):
        text = "x".join(map(str, text))
    if not re.fullmatch(r"\d+(x\d+)*", str(text)):
        raise UsageError(f"{text!r} is not a number of tokens", where, "write 8192, or a layout such as 30x48x80")
    extents = tuple(int(part) for part in str(text).split("x"))
    if min(extents) < 1:
        raise UsageError(f"must be at least 1, got {text}", where, "write 8192, or a layout such as 30x48x80")
    if math.prod(extents) > MAX_EXTENT:
        raise UsageError(f"{text} tokens is more than iosim takes ({MAX_EXTENT:,})", where)
    return extents


def parse_lengths(text: str | int | tuple[int, ...], where: str) -> tuple[tuple[int, ...], ...]:
    """One layout, or the lengths of several sequences: `100+200`, `64*100+2*3000`.

    Raises:
        UsageError: as `parse_layout`, or more sequences than iosim takes.
    """
    if not isinstance(text, str) or not ("+" in text or "*" in text):
        return (parse_layout(text, where),)
    made: list[tuple[int, ...]] = []
    for part in text.split("+"):
        found = re.fullmatch(r"(?:(\d{1,9})\*)?(\d{1,12})", part)
        if not found:
            raise UsageError(f"{text!r} is no list of lengths", where, "write 100+200, or 64*100 for 64 of 100 tokens")
        times = int(found[1] or 1)
        if not 1 <= times <= MAX_SEQUENCES - len(made):
            raise UsageError(f"{text} is no sequence, or more than {MAX_SEQUENCES:,}", where)
        made += [parse_layout(found[2], where)] * times
    return tuple(made)


def bind_lengths(
    mask: str, queries: str | tuple[tuple[int, ...], ...], keys: str | tuple[tuple[int, ...], ...]
) -> Mask:
    """The mask on one pair of layouts, or on each sequence of a batch of unequal lengths.

    Args:
        queries, keys: as typed, or as `parse_lengths` gives them; a single length serves every sequence.
    Raises:
        UsageError: two lists of different lengths, or a mask that does not fit.
    """
    every_q, every_kv = (
        parse_lengths(given, where) if isinstance(given, str) else given
        for given, where in ((queries, "--seq"), (keys, "--seq-kv"))
    )
    if len(every_q) == len(every_kv) == 1:
        return bind(parse_mask(mask), Grid(every_q[0], every_kv[0]))
    every_q, every_kv = (
        every_q * (len(every_kv) if len(every_q) == 1 else 1),
        every_kv * (len(every_q) if len(every_kv) == 1 else 1),
    )
    if len(every_q) != len(every_kv):
        raise UsageError(
            f"{len(every_q)} sequences of queries, {len(every_kv)} of keys", "--seq-kv", "one length for each"
        )
    if {len(layout) for layout in (*every_q, *every_kv)} != {1}:
        raise UsageError("sequences of unequal lengths have one axis", "--seq", "write 100+200")
    return batched(parse_mask(mask), [(q[0], kv[0]) for q, kv in zip(every_q, every_kv, strict=True)])


def ask(
    network: str | None = None,
    *,
    layer: str | int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    head_dim_v: int | None = None,
    latent: bool = False,
    batch: int = 1,
    phase: str = "prefill",
    seq: str | int | tuple[int, ...] | None = None,
    seq_kv: str | int | tuple[int, ...] | None = None,
    mask: str | None = None,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    shared_prefix: int = 0,
) -> Asked:
    """Make a problem.

    Args:
        network: catalogue name or path; `llama-3-8b` when neither it nor `heads` is given.
        layer: layer kind or index where layers differ; by default the first global one.
        heads, kv_heads, head_dim, head_dim_v, latent: plain shapes; they override a network's.
        seq, seq_kv: tokens, a layout, or one length per sequence (`100+2*3000`); keys count the new tokens.
        mask: in the command line's notation.
        shared_prefix: first keys that all sequences share, in tokens.
    Raises:
        UsageError: something typed is not possible. FileError: a network's file is broken.
    """
    if mask is not None and not mask.strip():
        raise UsageError("an empty mask", "--mask", "for example full, causal or window:4096")
    if network is None and heads is None:
        network = DEFAULT_NETWORK
    geometry, inputs, notes, sha256 = _geometry(network, layer, phase)
    shape = _shape(geometry, batch, heads, kv_heads, head_dim, head_dim_v, latent)
    queries, keys = _lengths(geometry, phase, seq, seq_kv)
    types = Types.of(dtype, kv_dtype)
    text = mask or (geometry.mask if geometry else "full")
    problem = Attention(shape, bind_lengths(text, queries, keys), types, phase, shared_prefix)
    if problem.unequal and batch != 1:
        raise UsageError("lengths of several sequences are the batch", "--batch", "leave it out, or write 2*100+2*200")
    lengths = problem.mask.lengths
    inputs |= {
        "heads": shape.heads,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "head_dim_v": shape.head_dim_v,
        "latent": shape.latent,
        "batch": batch,
        "phase": phase,
        "seq": lengths[0],
        "seq_kv": lengths[1],
        "mask": text,
        "shared_prefix": shared_prefix,
        "dtype": types.q,
        "kv_dtype": types.kv,
        "out_dtype": types.out,
    }
    return Asked(problem, inputs, notes, sha256)


def _geometry(
    network: str | None, layer: str | int | None, phase: str
) -> tuple[Geometry | None, dict[str, object], tuple[str, ...], str]:
    if network is None:
        if layer is not None:
            raise UsageError("a layer needs a network", "--layer", "give one with --network")
        return None, {"network": None}, (), ""
    loaded = load_network(network)
    kind = loaded.layer(layer)
    return kind.geometry(phase), {"network": loaded.key, "layer": kind.name}, loaded.notes, loaded.sha256


def _shape(
    geometry: Geometry | None,
    batch: int,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int | None,
    head_dim_v: int | None,
    latent: bool,
) -> Shape:
    if geometry is None:
        if heads is None or head_dim is None:
            missing = "--heads" if heads is None else "--head-dim"
            raise UsageError("plain shapes need --heads and --head-dim", missing, "or name a --network")
        value_dim = head_dim if head_dim_v is None else head_dim_v
        return Shape(batch, heads, heads if kv_heads is None else kv_heads, head_dim, value_dim, latent)
    heads_given = geometry.heads if heads is None else heads
    if kv_heads is None:
        kv_heads = geometry.kv_heads if heads is None else heads
    if head_dim_v is None:
        head_dim_v = geometry.head_dim_v if head_dim is None else head_dim
    head_dim = geometry.head_dim if head_dim is None else head_dim
    return Shape(batch, heads_given, kv_heads, head_dim, head_dim_v, latent or geometry.latent)


def _lengths(
    geometry: Geometry | None,
    phase: str,
    seq: str | int | tuple[int, ...] | None,
    seq_kv: str | int | tuple[int, ...] | None,
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Layouts of queries and keys, one per sequence where lengths are unequal."""
    if phase == "decode":
        if seq_kv is None:
            raise UsageError("decode needs the number of keys", "--seq-kv", "for example --seq-kv 8192")
        return parse_lengths(1 if seq is None else seq, "--seq"), parse_lengths(seq_kv, "--seq-kv")
    default = (geometry.layout if geometry else None) or (DEFAULT_SEQ,)
    keys = None if seq_kv is None else parse_lengths(seq_kv, "--seq-kv")
    if seq is None:
        return (keys if keys and len(keys) > 1 else (default,)), keys or (default,)
    queries = parse_lengths(seq, "--seq")
    return queries, keys or queries
