"""One call over several devices that share the tokens: what crosses each one's link, and how even the work is.

Elements that one of P devices receives, for N tokens in shards of n tokens, per sequence:
    ring       K and V of the other N - n tokens: (N - n) H_kv (d + d_v), in P - 1 rounds; as many are sent
    zigzag     the same words from two half shards, r and 2 P - 1 - r, so that causal pairs are even
    ulysses    (N - n) rows of Q, K, V of its H / P heads, then n rows of O of the other heads: two all-to-alls
    state-gather (LASP-2)   H_kv d d_v from each of the P - 1 others, for linear attention, at any N
Every device ends with the outputs of its own rows. Partial outputs of a ring merge on chip.
Sources: Liu, Zaharia, Abbeel 2023, Ring Attention (arXiv 2310.01889); Zhu 2024, ring-flash-attention, for zigzag;
Jacobs et al. 2023, DeepSpeed-Ulysses (arXiv 2309.14509); Sun et al. 2025, LASP-2 (arXiv 2502.07563).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.floors import compulsory_bytes
from iosim.kernels.blocks import Extent
from iosim.links.least import CONDITIONS, TOKENS, tokens_received, tokens_sent
from iosim.links.way import (
    IN_MEMORY,
    PLAIN,
    Least,
    Proven,
    Share,
    Step,
    Told,
    Way,
    busier_bytes,
    crossing,
    only,
    plain_mask,
)
from iosim.masks import Grid, bind
from iosim.schedule import Moved, Traffic

WHERE = "--exchange"
RING = "Liu, Zaharia, Abbeel 2023, arXiv 2310.01889"
SOURCES = {
    "ring": RING,
    "zigzag": f"{RING}; Zhu 2024, ring-flash-attention",
    "ulysses": "Jacobs et al. 2023, arXiv 2309.14509",
    "state-gather": "Sun et al. 2025, LASP-2, arXiv 2502.07563",
}
STATES = (
    "the kernel is that of one device's own tokens; what the gathered states add to its outputs is not in it",
    "states cross in the statistics' type, fp32",
)
ON_CHIP = f"{IN_MEMORY}, and partial outputs to merge on chip"


def ring(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """K and V go round; the shards are consecutive tokens. Raises UsageError as `shared_tokens`."""
    only(settings, (), "ring", WHERE)
    return _pass_keys(problem, "ring", [(part,) for part in shared_tokens(problem, devices, devices)])


def zigzag(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """As a ring, with the shards of both ends paired. Raises UsageError as `shared_tokens`."""
    only(settings, (), "zigzag", WHERE)
    halves = shared_tokens(problem, devices, 2 * devices)
    return _pass_keys(problem, "zigzag", [(halves[r], halves[-1 - r]) for r in range(devices)])


def ulysses(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """All-to-alls turn shards of tokens into shards of heads and back.

    Raises:
        UsageError: as `shared_tokens`, or heads that do not divide.
    """
    only(settings, (), "ulysses", WHERE)
    shards = [(part,) for part in shared_tokens(problem, devices, devices)]
    share, n = heads_of_one(problem, devices), problem.n_q
    there, back = [], []
    for ((_, rows),) in shards:
        others = n - rows
        there.append(crossing(share, dict.fromkeys("QKV", others), dict.fromkeys("QKV", rows * (devices - 1))))
        back.append(crossing(share, {"O": rows * (devices - 1)}, {"O": others}))
    traffic = [first + second for first, second in zip(there, back, strict=True)]
    steps = (Step(0.0, max(map(busier_bytes, there))), Step(1.0), Step(0.0, max(map(busier_bytes, back))))
    pairs = (share.counts().pairs,) * devices
    return _way(problem, "ulysses", shards, traffic, pairs, steps, share)


def state_gather(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """Linear attention: one all-gather of states. Raises UsageError as `shared_tokens`."""
    only(settings, (), "state-gather", WHERE)
    shards = [(part,) for part in shared_tokens(problem, devices, devices)]
    shape, bits = problem.shape, problem.types.bits("state")
    state = shape.batch * shape.kv_heads * shape.head_dim * shape.head_dim_v * (devices - 1)
    traffic = [Traffic((Moved("state", bits, state, state),))] * devices
    calls = [_shifted(problem, tokens, tokens) for ((_, tokens),) in shards]
    pairs = tuple(call.counts().pairs for call in calls)
    way = _way(problem, "state-gather", shards, traffic, pairs, (Step(1.0, busier_bytes(traffic[0])),), None)
    # another function than softmax attention: neither its FLOP nor its outputs are those that the floors count
    return replace(
        way,
        share=Share(calls[way.device], kernels=("lightning2",), kernel_class="linear"),
        proven=replace(way.proven, flop=0, least=None),
        told=replace(way.told, notes=STATES),
    )


def shared_tokens(problem: Attention, devices: int, count: int) -> list[Extent]:
    """The tokens of self-attention in parts as even as whole tokens allow.

    Raises:
        UsageError: lengths that differ, a mask other than full or causal, a backward pass, fewer tokens than parts.
    """
    if problem.phase == "decode":
        hint = "--exchange attention-servers shares a cache out"
        raise UsageError("decode has too few queries to share out by tokens", WHERE, hint)
    if problem.phase == "backward":
        raise UsageError("the backward pass of a shared sequence is not counted", "--phase", "prefill")
    if plain_mask(problem) not in PLAIN or problem.n_q != problem.n_kv:
        raise UsageError("sharing needs full or causal self-attention", "--mask", "full, or causal")
    if problem.n_q < count:
        raise UsageError(f"{problem.n_q} tokens do not make {count} parts", "--devices")
    return parts_of(problem.n_q, count)


def parts_of(tokens: int, count: int) -> list[Extent]:
    """Parts as even as whole tokens allow."""
    edges = [tokens * index // count for index in range(count + 1)]
    return [(start, stop - start) for start, stop in pairwise(edges)]


def heads_of_one(problem: Attention, devices: int, hint: str = "ring has no such limit") -> Attention:
    """The call of one device when heads are shared out.

    Raises:
        UsageError: heads that do not divide, or masks that differ from head to head.
    """
    shape = problem.shape
    for heads in (shape.heads, shape.kv_heads):
        if heads % devices:
            raise UsageError(f"{heads} heads do not divide among {devices} devices", "--devices", hint)
    if len(problem.masks()) > 1:
        raise UsageError("heads with masks of their own are not shared out", "--mask", "one mask for all heads")
    return replace(problem, shape=replace(shape, heads=shape.heads // devices, kv_heads=shape.kv_heads // devices))


def _pass_keys(problem: Attention, name: str, shards: list[tuple[Extent, ...]]) -> Way:
    """Each device hands on every shard but the one that its neighbour began with."""
    count, sizes = len(shards), [sum(tokens for _, tokens in shard) for shard in shards]
    total = sum(sizes)
    traffic = []
    for device, own in enumerate(sizes):
        received, sent = total - own, total - sizes[(device + 1) % count]
        traffic.append(crossing(problem, dict.fromkeys("KV", received), dict.fromkeys("KV", sent)))
    pairs = tuple(_pairs(problem, shard) for shard in shards)
    way = _way(problem, name, shards, traffic, pairs, (), None)
    parts = shards[way.device]
    launches: tuple[Attention, ...] = ()
    if plain_mask(problem) == "full":
        share = _shifted(problem, sum(tokens for _, tokens in parts), problem.n_kv)
    elif len(parts) == 1:
        share = _shifted(problem, parts[0][1], sum(parts[0]))
    else:
        from iosim.masks.placed import placed

        share = replace(problem, mask=placed(parts))
        launches = tuple(_shifted(problem, part[1], sum(part)) for part in parts)
    block = crossing(problem, dict.fromkeys("KV", max(sizes)), {}).read_bytes
    return replace(way, share=Share(share, launches), steps=_rounds(problem, shards, pairs[way.device], block))


def _shifted(problem: Attention, rows: int, keys: int) -> Attention:
    """The last rows of a shorter sequence, under the same mask."""
    return replace(problem, mask=bind(plain_mask(problem), Grid((rows,), (keys,))))


def _pairs(problem: Attention, shard: tuple[Extent, ...]) -> int:
    """Pairs of the rows of a shard."""
    heads = problem.shape.batch * problem.shape.heads
    if plain_mask(problem) == "full":
        return heads * sum(tokens for _, tokens in shard) * problem.n_kv
    return heads * sum(tokens * (2 * first + tokens + 1) // 2 for first, tokens in shard)


def _rounds(problem: Attention, shards: list[tuple[Extent, ...]], pairs: int, block: int) -> tuple[Step, ...]:
    """Rounds in step: each lasts as long as its slowest device, while the next block is on its way."""
    import numpy as np

    count, heads = len(shards), problem.shape.batch * problem.shape.heads
    first = np.array([[part[0] for part in shard] for shard in shards], float)
    tokens = np.array([[part[1] for part in shard] for shard in shards], float)
    causal = plain_mask(problem) != "full"
    rounds = []
    for turn in range(count):
        block_of = (np.arange(count) - turn) % count
        met = np.zeros(count)
        for q in range(tokens.shape[1]):
            for kv in range(tokens.shape[1]):
                a, rows, b, keys = first[:, q], tokens[:, q], first[block_of, kv], tokens[block_of, kv]
                seen = np.where(a > b, rows * keys, np.where(a == b, rows * (rows + 1) / 2, 0.0))
                met += seen if causal else rows * keys
        rounds.append(Step(heads * float(met.max()) / pairs, block if turn < count - 1 else 0))
    return tuple(rounds)


def _way(
    problem: Attention,
    name: str,
    shards: Sequence[tuple[Extent, ...]],
    traffic: Sequence[Traffic],
    pairs: tuple[int, ...],
    steps: tuple[Step, ...],
    call: Attention | None,
) -> Way:
    """What all of them have in common: tokens shared out, floors by tokens."""
    causal = plain_mask(problem) == "causal"
    received = tuple(tokens_received(problem, shard, causal) for shard in shards)
    sent = tuple(tokens_sent(problem, shard, causal) for shard in shards)
    return Way(
        name=name,
        boundary="link",
        traffic=tuple(traffic),
        pairs=pairs,
        steps=steps,
        share=Share(call),
        proven=Proven(problem.flop(), *compulsory_bytes(problem), Least(received, sent, (TOKENS, *CONDITIONS))),
        told=Told(SOURCES[name], notes=(ON_CHIP,)),
        shards=tuple(shards),
    )
