"""A part of the call left on the far side of a link: host memory, a processor there, computational storage.

Elements per step, with n new tokens, T cached ones, and R = floor(F T) of them resident on the device:
    kv            received K and V of T - R tokens; sent K and V of the n new ones. The far side only stores
    attention     sent n Q, K, V; received n O (with R > 0: partial O and log-sum-exps, fp32, to be merged).
                  The far side computes with the keys it holds: T - R and the new ones
    activations   forward: sent Q, K, V, O and log-sum-exps of the N - floor(F N) tokens that do not stay;
                  backward: the same received
Sources: Sheng et al. 2023, FlexGen (arXiv 2303.06865), kv and attention on a CPU; Pan et al. 2024, InstInfer (arXiv
2409.04992), attention in computational storage; Jiang et al. 2024, NEO (arXiv 2411.01142), a part of it on the host;
Rhu et al. 2016, vDNN (arXiv 1602.08124), activations out and back; Dao 2023 for what attention saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from iosim.attention import BITS, Attention
from iosim.errors import UsageError
from iosim.floors import compulsory_bytes
from iosim.links.least import CONDITIONS, VALUES, answers_sent, message_bytes, told_bytes
from iosim.links.servers import cache_bytes, cached_tokens, kept_words, partial_outputs
from iosim.links.way import (
    IN_MEMORY,
    PLAIN,
    Least,
    Proven,
    Recompute,
    Share,
    Step,
    Told,
    Way,
    busier_bytes,
    crossing,
    plain_mask,
    resident_rows,
    words,
)
from iosim.masks import Grid, bind
from iosim.schedule import Traffic

WHERE = "--offload"
STORES = "the far side stores and does not compute; words without compression, as L0"
SPLIT = "the keys that do not stay start, and new ones end, on the far side; outputs end on the device; each side computes with its own keys"
SAVED = ("Q", "K", "V", "O", "LSE")
"""what FlashAttention keeps from the forward pass for the backward pass"""


def offload_kv(problem: Attention, resident: Fraction) -> Way:
    """K and V on the far side, fetched for the step that needs them; new ones go there.

    Raises:
        UsageError: a backward pass, or a mask other than full or causal.
    """
    if problem.phase == "backward":
        raise UsageError("a backward pass has no cache", WHERE, "--offload activations")
    if plain_mask(problem) not in PLAIN:
        raise UsageError("the mask must show every query the whole cache", "--mask", "full, or causal")
    cached = max(0, problem.n_kv - problem.n_q)
    kept = resident_rows(cached, resident)
    traffic = crossing(problem, dict.fromkeys("KV", cached - kept), dict.fromkeys("KV", problem.n_kv - cached))
    fetched = kept_words(problem, cached - kept) * problem.types.bits("K") // 8
    stored = message_bytes(problem, kept_words(problem, problem.n_kv - cached), copied=False)
    read, written = compulsory_bytes(problem)
    return Way(
        name="offload kv",
        boundary="host",
        traffic=(traffic,),
        pairs=(problem.counts().pairs,),
        steps=(Step(1.0, busier_bytes(traffic), fetched),),
        share=Share(problem),
        proven=Proven(
            problem.flop(),
            max(0, read - fetched),
            written,
            Least((fetched,), (stored,), (STORES, "new keys and values end on the far side")),
            fetched,
        ),
        told=Told(
            "Sheng et al. 2023, FlexGen, arXiv 2303.06865",
            f"{kept} of {cached} cached keys stay on the device, the others come once per call"
            if cached
            else "no keys are cached yet, the new ones go out",
            (IN_MEMORY,),
            {"resident_keys": kept, "cached_keys": cached},
        ),
        peers=False,
    )


def offload_attention(problem: Attention, resident: Fraction) -> Way:
    """Attention where the keys are: the device keeps the resident keys and merges.

    Raises:
        UsageError: no decode call, or a mask that does not show the whole cache.
    """
    cached = cached_tokens(problem, "offloaded attention", WHERE)
    kept, new = resident_rows(cached, resident), problem.n_q
    sent = crossing(problem, {}, dict.fromkeys("QKV", new))
    back = replace(sent, moved=partial_outputs(problem)) if kept else crossing(problem, {"O": new}, {})
    far = cache_bytes(problem, cached - kept)
    near = replace(problem, mask=bind("full", Grid((new,), (kept,)))) if kept else None
    return Way(
        name="offload attention",
        boundary="host",
        traffic=(sent + back,),
        pairs=(near.counts().pairs if near else 0,),
        steps=(Step(0.0, sent.write_bytes), Step(1.0, 0, far), Step(0.0, back.read_bytes)),
        share=Share(near),
        proven=Proven(
            near.flop() if near else 0,
            cache_bytes(problem, kept),
            0,
            Least(
                (answers_sent(problem, cached - kept),),
                (message_bytes(problem, kept_words(problem, new), copied=False),),
                (SPLIT, *CONDITIONS),
            ),
            far,
        ),
        told=Told(
            "Pan et al. 2024, InstInfer, arXiv 2409.04992; Sheng et al. 2023, FlexGen, arXiv 2303.06865",
            f"{kept} of {cached} cached keys stay on the device, the far side computes with the others and the new ones",
            settings={"resident_keys": kept, "cached_keys": cached},
        ),
        peers=False,
        far_computes=True,
    )


def offload_activations(problem: Attention, resident: Fraction) -> Way:
    """What the backward pass needs of the forward pass, kept on the far side in between.

    Raises:
        UsageError: a decode call.
    """
    if problem.phase == "decode":
        raise UsageError(
            "decoding keeps no activations", WHERE, "--offload kv, or --phase prefill (out) or backward (back)"
        )
    rows = {name: problem.n_kv if name in ("K", "V") else problem.n_q for name in SAVED}
    moved = {name: count - resident_rows(count, resident) for name, count in rows.items()}
    forward = problem.phase != "backward"
    traffic = crossing(problem, {}, moved) if forward else crossing(problem, moved, {})
    needed = _needed(problem, moved)
    if forward:
        total = told_bytes([(count, VALUES[name]) for count, name in needed])
        least = Least((0,), (total,), (STORES, "Q, K and V end there; O can be computed again"))
    else:
        total = sum(count * BITS[name] // 8 for count, name in needed)
        least = Least((total,), (0,), (STORES, "Q, K and V lie there; O and its log-sum-exp can be computed again"))
    read, written = compulsory_bytes(problem)
    part = f"of {moved['Q']} of {rows['Q']} rows " if moved["Q"] < rows["Q"] else ""
    return Way(
        name="offload activations",
        boundary="host",
        traffic=(traffic,),
        pairs=(problem.counts().pairs,),
        steps=(Step(1.0, busier_bytes(traffic), traffic.read_bytes),),
        share=Share(problem),
        proven=Proven(
            problem.flop(), read if forward else max(0, read - total), written, least, 0 if forward else total
        ),
        told=Told(
            "Rhu et al. 2016, vDNN, arXiv 1602.08124",
            f"Q, K, V, O and log-sum-exps {part}"
            + ("go out in this forward pass" if forward else "come back for this backward pass"),
            () if forward else (IN_MEMORY,),
            {"resident_rows": rows["Q"] - moved["Q"]},
        ),
        peers=False,
        again=None
        if not moved["Q"]
        else Recompute("O and its log-sum-exps", _outputs(traffic), _forward_flop(problem)),
    )


def _needed(problem: Attention, moved: dict[str, int]) -> list[tuple[int, str]]:
    """(words, type) of Q, K and V that the gradient depends on and that do not stay, wherever those that stay lie."""
    counts, heads = problem.counts(), problem.shape.batch * problem.shape.heads
    kv_heads = problem.shape.batch * problem.shape.kv_heads
    stay = {"Q": heads * (problem.n_q - moved["Q"]), "K": kv_heads * (problem.n_kv - moved["K"])}
    rows, keys = max(0, counts.rows_ok - stay["Q"]), max(0, counts.keys_ok - stay["K"])
    types = problem.types
    return [
        (rows * words(problem, "Q") // heads, types.q),
        (keys * (words(problem, "K") + words(problem, "V")) // kv_heads, types.kv),
    ]


def _outputs(traffic: Traffic) -> int:
    """Bytes of O and its log-sum-exps."""
    return sum(m.read_bytes + m.write_bytes for m in traffic.moved if m.tensor in ("O", "LSE"))


def _forward_flop(problem: Attention) -> int:
    """Useful FLOP of the forward pass, whatever the phase."""
    return replace(problem, phase="prefill").flop()


OFFLOADS: dict[str, Callable[[Attention, Fraction], Way]] = {
    "kv": offload_kv,
    "attention": offload_attention,
    "activations": offload_activations,
}
