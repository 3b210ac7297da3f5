"""How a call is cut among devices: tokens in parts, heads in shares, and the pairs that each device meets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.kernels.blocks import Extent
from iosim.links.way import PLAIN, Share, plain_mask
from iosim.masks import Grid, bind


def shared_tokens(problem: Attention, devices: int, count: int) -> list[Extent]:
    """The tokens of self-attention in parts as even as whole tokens allow.

    Raises:
        UsageError: lengths that differ, a mask other than full or causal, decode, fewer tokens than parts.
    """
    if problem.phase == "decode":
        hint = "--exchange attention-servers shares a cache out"
        raise UsageError("decode has too few queries to share out by tokens", "--exchange", hint)
    if plain_mask(problem) not in PLAIN or problem.n_q != problem.n_kv:
        raise UsageError("sharing needs full or causal self-attention", "--mask", "full, or causal")
    if problem.n_q < count:
        raise UsageError(f"{problem.n_q} tokens do not make {count} parts", "--devices")
    return parts_of(problem.n_q, count)


def parts_of(tokens: int, count: int) -> list[Extent]:
    """Parts as even as whole tokens allow."""
    edges = [tokens * index // count for index in range(count + 1)]
    return [(start, stop - start) for start, stop in pairwise(edges)]


def heads_of_one(
    problem: Attention, devices: int, hint: str = "ring has no such limit", replicate: bool = False
) -> Attention:
    """The call of one device when heads are shared out.

    Args:
        replicate: with more devices than key/value heads, several devices may have the same one.
    Raises:
        UsageError: heads that do not divide, or masks that differ from head to head.
    """
    shape = problem.shape
    shared = replicate and devices > shape.kv_heads and devices % shape.kv_heads == 0
    for heads in (shape.heads,) if shared else (shape.heads, shape.kv_heads):
        if heads % devices:
            raise UsageError(f"{heads} heads do not divide among {devices} devices", "--devices", hint)
    if len(problem.masks()) > 1:
        raise UsageError("heads with masks of their own are not shared out", "--mask", "one mask for all heads")
    kv_heads = 1 if shared else shape.kv_heads // devices
    return replace(problem, shape=replace(shape, heads=shape.heads // devices, kv_heads=kv_heads))


def share_of(problem: Attention, parts: Sequence[Extent]) -> Share:
    """The call of the device that has these tokens, and its launches where a causal mask makes several of them."""
    if plain_mask(problem) == "full":
        return Share(last_rows(problem, sum(tokens for _, tokens in parts), problem.n_kv))
    if len(parts) == 1:
        return Share(last_rows(problem, parts[0][1], sum(parts[0])))
    from iosim.masks.placed import placed

    launches = tuple(last_rows(problem, part[1], sum(part)) for part in parts)
    return Share(replace(problem, mask=placed(tuple(parts))), launches)


def last_rows(problem: Attention, rows: int, keys: int) -> Attention:
    """The last rows of a shorter sequence, under the same mask."""
    return replace(problem, mask=bind(plain_mask(problem), Grid((rows,), (keys,))))


def pairs_of(problem: Attention, shard: tuple[Extent, ...]) -> int:
    """Pairs of the rows of a shard."""
    heads = problem.shape.batch * problem.shape.heads
    if plain_mask(problem) == "full":
        return heads * sum(tokens for _, tokens in shard) * problem.n_kv
    return heads * sum(tokens * (2 * first + tokens + 1) // 2 for first, tokens in shard)


def met_by_turn(problem: Attention, shards: Sequence[Sequence[Extent]]) -> list[int]:
    """Turn of a ring -> pairs of the device that meets most in it: rounds go in step."""
    import numpy as np

    count, heads = len(shards), problem.shape.batch * problem.shape.heads
    first = np.array([[part[0] for part in shard] for shard in shards], float)
    tokens = np.array([[part[1] for part in shard] for shard in shards], float)
    causal = plain_mask(problem) != "full"
    turns = []
    for turn in range(count):
        block_of = (np.arange(count) - turn) % count
        met = np.zeros(count)
        for q in range(tokens.shape[1]):
            for kv in range(tokens.shape[1]):
                a, rows, b, keys = first[:, q], tokens[:, q], first[block_of, kv], tokens[block_of, kv]
                seen = np.where(a > b, rows * keys, np.where(a == b, rows * (rows + 1) / 2, 0.0))
                met += seen if causal else rows * keys
        turns.append(heads * int(met.max()))
    return turns
