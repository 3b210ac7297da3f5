"""Attention servers: the cache and its attention on devices of their own, the rest of the model elsewhere.

Each step a server receives the queries and the new tokens' K and V, and sends outputs; the cache stays. Elements of
one of P servers, for n new tokens of B sequences with T_r cached ones on server r:
    heads, batch   received n Q, K, V of its heads (or sequences), sent n O of them
    keys           received n Q of all heads; the last one K and V too; sent n partial O and log-sum-exps, fp32
However long the cache, a step moves H (d + d_v) + H_kv (d + d_v) words per token: (2 + 2 / G) H d with d = d_v.
Sources: Chen et al. 2024, Lamina, model-attention disaggregation (arXiv 2405.01814), whose volume of (2 + 2 / G)
e d b per layer this is; StepFun 2025, Step-3 (arXiv 2507.19427); for keys, tree and split-KV decoding.
"""

from __future__ import annotations

from dataclasses import replace

from iosim.attention import BITS, Attention
from iosim.errors import UsageError, did_you_mean
from iosim.links.least import CONDITIONS, answers_sent, message_bytes
from iosim.links.sharding import heads_of_one, parts_of
from iosim.links.way import IN_MEMORY, PLAIN, Least, Proven, Share, Step, Told, Way, crossing, only, plain_mask, words
from iosim.masks import Grid, bind
from iosim.schedule import Moved, Traffic, bits_to_bytes

WHERE = "--exchange"
SPLITS = ("heads", "batch", "keys")
SOURCE = "Chen et al. 2024, Lamina, arXiv 2405.01814; StepFun 2025, Step-3, arXiv 2507.19427"
START = (
    "the cache starts on the servers, queries and new keys elsewhere; outputs end elsewhere, new keys on the servers"
)


def attention_servers(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """Decoding with attention on servers.

    Args:
        settings: `split`: heads | batch | keys, what is shared out among the servers (heads).
    Raises:
        UsageError: no decode call, or what does not divide.
    """
    only(settings, ("split",), "attention-servers", WHERE)
    split = settings.get("split", "heads")
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}", WHERE, did_you_mean(split, SPLITS))
    cached_tokens(problem, "attention servers", WHERE)
    calls = {"heads": _heads, "batch": _batch, "keys": _keys}[split](problem, devices)
    traffic = tuple(_crossing(call, split, last=index == devices - 1) for index, call in enumerate(calls))
    fresh = tuple(call.n_q if split != "keys" or index == devices - 1 else 0 for index, call in enumerate(calls))
    least = Least(
        tuple(message_bytes(call, kept_words(call, new), copied=False) for call, new in zip(calls, fresh, strict=True)),
        tuple(answers_sent(call, call.n_kv - new) for call, new in zip(calls, fresh, strict=True)),
        (START, *CONDITIONS),
    )
    pairs = tuple(call.counts().pairs for call in calls)
    way = Way(
        name="attention-servers",
        boundary="link",
        traffic=traffic,
        pairs=pairs,
        steps=(
            Step(0.0, max(t.read_bytes for t in traffic)),
            Step(1.0),
            Step(0.0, max(t.write_bytes for t in traffic)),
        ),
        share=Share(None),
        proven=Proven(problem.flop(), cache_bytes(problem, problem.n_kv - problem.n_q), 0, least),
        told=Told(SOURCE, notes=(f"the device is one of the servers; {IN_MEMORY}",), settings={"split": split}),
        peers=False,
    )
    return replace(way, share=Share(calls[way.device]))


def cached_tokens(problem: Attention, what: str, where: str) -> int:
    """Tokens of the cache, the new ones left out.

    Raises:
        UsageError: no decode call, or a mask under which the cache is not seen whole.
    """
    if problem.phase != "decode":
        raise UsageError(f"{what}: counted for decode, where a cache is read", where, "--phase decode --seq-kv N")
    if plain_mask(problem) not in PLAIN:
        raise UsageError(f"{what}: the mask must show every query the whole cache", "--mask", "full, or causal")
    if problem.n_kv <= problem.n_q:
        raise UsageError("there is no cache: as many new tokens as keys", "--seq-kv", "keys count the new tokens")
    return problem.n_kv - problem.n_q


def kept_words(problem: Attention, tokens: int) -> int:
    """Words of K and V of so many tokens."""
    return tokens * (words(problem, "K") + words(problem, "V"))


def cache_bytes(problem: Attention, tokens: int) -> int:
    """Bytes of K and V of so many tokens, over batch and heads."""
    return bits_to_bytes(kept_words(problem, tokens) * problem.types.bits("K"))


def partial_outputs(problem: Attention) -> tuple[Moved, Moved]:
    """Partial outputs and their log-sum-exps as they are merged, in the statistics' type: elements as reads."""
    bits = BITS[problem.types.stats]
    return (
        Moved("O", bits, problem.n_q * words(problem, "O")),
        Moved("LSE", bits, problem.n_q * words(problem, "LSE")),
    )


def _heads(problem: Attention, devices: int) -> list[Attention]:
    return [heads_of_one(problem, devices, "attention-servers:split=keys has no such limit")] * devices


def _batch(problem: Attention, devices: int) -> list[Attention]:
    if problem.shape.batch < devices:
        raise UsageError(f"{problem.shape.batch} sequences do not make {devices} shares", "--devices", "raise --batch")
    counts = [count for _, count in parts_of(problem.shape.batch, devices)]
    return [replace(problem, shape=replace(problem.shape, batch=count)) for count in counts]


def _keys(problem: Attention, devices: int) -> list[Attention]:
    """The cache in parts, each seen whole; the last server has the new tokens too."""
    cached = problem.n_kv - problem.n_q
    if cached < devices:
        raise UsageError(f"{cached} cached keys do not make {devices} shares", "--devices")
    counts = [count for _, count in parts_of(cached, devices)]
    counts[-1] += problem.n_q
    kinds = ["full"] * (devices - 1) + [plain_mask(problem)]
    return [
        replace(problem, mask=bind(kind, Grid((problem.n_q,), (count,))))
        for kind, count in zip(kinds, counts, strict=True)
    ]


def _crossing(call: Attention, split: str, last: bool) -> Traffic:
    """What one server receives and sends."""
    new = call.n_q
    if split != "keys":
        return crossing(call, dict.fromkeys("QKV", new), {"O": new})
    received = crossing(call, dict.fromkeys("QKV" if last else "Q", new), {})
    answers = Traffic(tuple(Moved(m.tensor, m.bits, 0, m.read_elements) for m in partial_outputs(call)))
    return received + answers
