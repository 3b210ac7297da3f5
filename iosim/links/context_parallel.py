"""One call over several devices that share the tokens: what crosses each one's link, and how even the work is.

Elements that one of P devices receives, for N tokens in shards of n tokens, per sequence:
    ring       K and V of the other N - n tokens: (N - n) H_kv (d + d_v), in P - 1 rounds; as many are sent.
               Backward: these, and the gradients of all N keys so far, which end at home after P rounds, in fp32
    zigzag     the same words from two half shards, r and 2 P - 1 - r, so that causal pairs are even
    ulysses    (N - n) rows of Q, K, V of its H / P heads, then n rows of O of the other heads: two all-to-alls.
               Backward: (N - n) rows of dO, then n rows of dQ, dK, dV; Q, K, V stay from the forward pass.
               With more devices than key/value heads each has one of them, and gradients of it are summed at home
    state-gather (LASP-2)   H_kv d d_v from each of the P - 1 others, for plain linear attention, at any N; what other
               kernels keep is in `links.states`
Every device ends with the outputs of its own rows. Partial outputs of a ring merge on chip.
Sources: Liu, Zaharia, Abbeel 2023, Ring Attention (arXiv 2310.01889); Zhu 2024, ring-flash-attention, for zigzag and
for gradients; Jacobs et al. 2023, DeepSpeed-Ulysses (arXiv 2309.14509); Sun et al. 2025, LASP-2 (arXiv 2502.07563).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.floors import compulsory_bytes
from iosim.kernels.blocks import Extent
from iosim.links.least import CONDITIONS, tokens_received, tokens_sent
from iosim.links.sharding import heads_of_one, last_rows, met_by_turn, pairs_of, share_of, shared_tokens
from iosim.links.way import IN_MEMORY, Least, Proven, Share, Step, Told, Way, busier_bytes, crossing, only, plain_mask
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
GRADIENTS = "gradients of keys and values go round in the statistics' type, fp32, until they are home"
STARTS = {
    True: "each device starts with Q, K, V, dO and ends with dQ, dK, dV of its own tokens",
    False: "each device starts with Q, K, V and ends with O of its own tokens",
}


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
    share, n = heads_of_one(problem, devices, replicate=True), problem.n_q
    inward, outward = (("dO",), ("dQ", "dK", "dV")) if problem.phase == "backward" else (("Q", "K", "V"), ("O",))
    there, back = [], []
    for ((_, rows),) in shards:
        others, own = n - rows, rows * (devices - 1)
        there.append(crossing(share, dict.fromkeys(inward, others), dict.fromkeys(inward, own)))
        back.append(crossing(share, dict.fromkeys(outward, own), dict.fromkeys(outward, others)))
    traffic = [first + second for first, second in zip(there, back, strict=True)]
    steps = (Step(0.0, max(map(busier_bytes, there))), Step(1.0), Step(0.0, max(map(busier_bytes, back))))
    pairs = (share.counts().pairs,) * devices
    return _way(problem, "ulysses", shards, traffic, pairs, steps, Share(share))


def state_gather(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """Linear attention: one all-gather of states, here those of sums of keys and values without map, gate or normaliser.

    Raises:
        UsageError: as `shared_tokens`, or a backward pass.
    """
    only(settings, (), "state-gather", WHERE)
    if problem.phase == "backward":
        raise UsageError("the backward pass of gathered states is not counted", "--phase", "prefill")
    shards = [(part,) for part in shared_tokens(problem, devices, devices)]
    shape, bits = problem.shape, problem.types.bits("state")
    state = shape.batch * shape.kv_heads * shape.head_dim * shape.head_dim_v * (devices - 1)
    traffic = [Traffic((Moved("state", bits, state, state),))] * devices
    calls = [last_rows(problem, tokens, tokens) for ((_, tokens),) in shards]
    pairs = tuple(call.counts().pairs for call in calls)
    way = _way(problem, "state-gather", shards, traffic, pairs, (Step(1.0, busier_bytes(traffic[0])),), Share(None))
    # another function than softmax attention: neither its FLOP nor its outputs are those that the floors count
    return replace(
        way,
        share=Share(calls[way.device], kernels=("lightning2",), kernel_class="linear"),
        proven=replace(way.proven, flop=0, least=None),
        told=replace(way.told, notes=STATES),
    )


def _pass_keys(problem: Attention, name: str, shards: list[tuple[Extent, ...]]) -> Way:
    """Each device hands on every shard but the one that its neighbour began with; backward, all gradients too."""
    count, sizes = len(shards), [sum(tokens for _, tokens in shard) for shard in shards]
    total = sum(sizes)
    home = _gradients(problem, total if count > 1 else 0)
    traffic = []
    for device, own in enumerate(sizes):
        received, sent = total - own, total - sizes[(device + 1) % count]
        traffic.append(crossing(problem, dict.fromkeys("KV", received), dict.fromkeys("KV", sent)) + home)
    pairs = tuple(pairs_of(problem, shard) for shard in shards)
    way = _way(problem, name, shards, traffic, pairs, (), Share(None))
    keys = crossing(problem, dict.fromkeys("KV", max(sizes)), {}).read_bytes
    grads = _gradients(problem, max(sizes)).read_bytes
    turns = [pairs_met / pairs[way.device] for pairs_met in met_by_turn(problem, shards)]
    return replace(way, share=share_of(problem, shards[way.device]), steps=_rounds(turns, keys, grads))


def _gradients(problem: Attention, tokens: int) -> Traffic:
    """dK and dV of so many tokens as they are added up, received and sent; nothing in a forward pass."""
    if problem.phase != "backward":
        return Traffic()
    rows = dict.fromkeys(("dK", "dV"), tokens)
    bits = problem.types.bits("accumulator")
    return Traffic(tuple(replace(moved, bits=bits) for moved in crossing(problem, rows, rows).moved))


def _rounds(turns: list[float], keys: int, grads: int) -> tuple[Step, ...]:
    """Turn by turn: the next keys come while these are used, and the gradients of the turn before go on."""
    steps = []
    for turn, compute in enumerate(turns):
        ahead, behind = keys if turn < len(turns) - 1 else 0, grads if turn else 0
        steps.append(Step(compute, ahead + behind))
    return (*steps, Step(0.0, grads)) if grads and len(turns) > 1 else tuple(steps)


def _way(
    problem: Attention,
    name: str,
    shards: Sequence[tuple[Extent, ...]],
    traffic: Sequence[Traffic],
    pairs: tuple[int, ...],
    steps: tuple[Step, ...],
    share: Share,
) -> Way:
    """What all of them have in common: tokens shared out, floors by tokens."""
    causal, backward = plain_mask(problem) == "causal", problem.phase == "backward"
    received = tuple(tokens_received(problem, shard, causal) for shard in shards)
    sent = tuple(tokens_sent(problem, shard, causal) for shard in shards)
    notes = (
        (IN_MEMORY, GRADIENTS) if backward and name != "ulysses" else (IN_MEMORY,) if name == "ulysses" else (ON_CHIP,)
    )
    return Way(
        name=name,
        boundary="link",
        traffic=tuple(traffic),
        pairs=pairs,
        steps=steps,
        share=share,
        proven=Proven(
            problem.flop(), *compulsory_bytes(problem), Least(received, sent, (STARTS[backward], *CONDITIONS))
        ),
        told=Told(SOURCES[name], notes=notes),
        shards=tuple(shards),
    )
