"""Heads and head sizes of each layer, in prefill and in decode."""

from __future__ import annotations

from typing import NamedTuple

from iosim.huggingface import blocks
from iosim.huggingface.fields import Fields

HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_query_heads")
HIDDEN = ("hidden_size", "n_embd", "d_model", "dim", "n_embed", "model_dim")
KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_head_kv",
    "n_kv_heads",
    "multi_query_group_num",  # ChatGLM
    "num_attention_groups",  # Step-3
    "num_query_groups",  # Megatron
)
NO_SIZE = "neither head_dim nor hidden_size is given"
HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "d_kv")


class Heads(NamedTuple):
    """Query and KV heads of one layer and their sizes in elements."""

    heads: int
    kv_heads: int
    head_dim: int
    head_dim_v: int
    latent: bool = False


class LayerHeads(NamedTuple):
    """One layer's heads in both phases; they differ for MLA alone."""

    prefill: Heads
    decode: Heads


def read_heads(fields: Fields, depth: int) -> list[LayerHeads] | None:
    """Heads of every layer, or None where a fault keeps them unknown."""
    heads = fields.counts(depth, *HEADS)
    if heads is None:
        check_given(fields)
        return None
    if fields.spelling("kv_lora_rank"):
        return _latent(fields, heads)
    kv_heads = _kv_heads(fields, heads)
    head_dims = _head_dims(fields, heads)
    if kv_heads is None or head_dims is None:
        return None
    head_dims_v = fields.counts(depth, "v_head_dim") or head_dims
    _check_groups(fields, heads, kv_heads)
    layers = zip(heads, kv_heads, head_dims, head_dims_v, strict=True)
    return [LayerHeads(one, one) for one in (Heads(*layer) for layer in layers)]


def check_given(fields: Fields) -> None:
    """Fault what no head can be made without, all of it at once."""
    if fields.value(*HEADS) is None:
        fields.fault("the number of attention heads is missing", HEADS[0])
    if all(fields.value(*names) is None for names in (HEAD_DIM, HIDDEN, ("kv_lora_rank",))):
        fields.fault(NO_SIZE, HEAD_DIM[0])


def on_layers(fields: Fields, label: str, layer: LayerHeads) -> LayerHeads:
    """The heads of a layer of this label, where a config gives global or sliding layers their own."""
    if label == "global":
        return _on_global(fields, layer)
    return _on_local(fields, layer) if label == "local" else layer


def _on_local(fields: Fields, layer: LayerHeads) -> LayerHeads:
    """MiMo-V2 (`swa_*`) and Step-3.5 (`attention_other_setting`) give sliding layers other heads."""
    other, base = fields.nested("attention_other_setting"), layer.prefill
    heads = fields.count("swa_num_attention_heads") or other.count("num_attention_heads")
    kv_heads = fields.count("swa_num_key_value_heads") or other.count("num_attention_groups")
    head_dim = fields.count("swa_head_dim") or other.count("head_dim")
    head_dim_v = fields.count("swa_v_head_dim") or head_dim or base.head_dim_v
    if not (heads or kv_heads or head_dim):
        return layer
    changed = Heads(heads or base.heads, kv_heads or base.kv_heads, head_dim or base.head_dim, head_dim_v)
    _check_groups(fields, (changed.heads,), (changed.kv_heads,), "swa_num_key_value_heads")
    return LayerHeads(changed, changed)


def _on_global(fields: Fields, layer: LayerHeads) -> LayerHeads:
    """Gemma 4 gives full-attention layers another head size, and other KV heads where K and V are tied."""
    head_dim = fields.count("global_head_dim")
    kv_heads = None
    if fields.flag("attention_k_eq_v", default=not fields.model_type.startswith("gemma4")):
        kv_heads = fields.count("num_global_key_value_heads")
    if head_dim is None and kv_heads is None:
        return layer
    heads = layer.prefill
    head_dim, head_dim_v = (head_dim, head_dim) if head_dim else (heads.head_dim, heads.head_dim_v)
    changed = Heads(heads.heads, kv_heads or heads.kv_heads, head_dim, head_dim_v)
    _check_groups(fields, (changed.heads,), (changed.kv_heads,), "num_global_key_value_heads")
    return LayerHeads(changed, changed)


def _latent(fields: Fields, heads: tuple[int, ...]) -> list[LayerHeads] | None:
    """MLA: whole heads in prefill; in decode the up-projections are absorbed and one latent is K and V.

    DeepSeek-V2 (arXiv 2405.04434), section 2.1: the cache of a token is c_KV of `kv_lora_rank`
    elements and the rotated key of `qk_rope_head_dim`.
    """
    rank, nope = fields.count("kv_lora_rank"), fields.count("qk_nope_head_dim")
    rope, head_dim_v = fields.count("qk_rope_head_dim", least=0), fields.count("v_head_dim")
    for name in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"):
        if fields.spelling(name) is None:
            fields.fault("missing, and kv_lora_rank says that this is MLA", name)
    if rank is None or nope is None or rope is None or head_dim_v is None:
        return None
    fields.asked.update((*KV_HEADS, *HEAD_DIM, *HIDDEN))
    fields.note(
        f"MLA: prefill {nope + rope}/{head_dim_v} with a K and V head per query head;"
        f" decode absorbed, one latent of {rank + rope} of which {rank} are V"
    )
    return [
        LayerHeads(Heads(h, h, nope + rope, head_dim_v), Heads(h, 1, rank + rope, rank, latent=True)) for h in heads
    ]


def _kv_heads(fields: Fields, heads: tuple[int, ...]) -> tuple[int, ...] | None:
    depth = len(heads)
    if fields.spelling(blocks.FIELD):
        groups = blocks.groups(fields, depth) or [None] * depth
        return tuple(_shared(fields, h, group or 1) for h, group in zip(heads, groups, strict=True))
    if fields.spelling("multi_query") or fields.model_type in ("falcon", "gpt_bigcode"):
        return _multi_query(fields, heads)
    if fields.spelling("multi_query_attention") and not fields.flag("multi_query_attention"):
        return heads  # ChatGLM writes a group count beside a flag that is off
    kv_heads = fields.counts(depth, *KV_HEADS)
    if kv_heads is None and isinstance(fields.data.get("attn_config"), dict):  # MPT, DBRX
        kv_heads = fields.nested("attn_config").counts(depth, "kv_n_heads")
    return kv_heads or _as_many(fields, heads)


def _shared(fields: Fields, heads: int, group: int) -> int:
    if heads % group:
        fields.fault(f"{heads} heads do not divide into groups of {group}", blocks.FIELD)
    return max(1, heads // group)


def _multi_query(fields: Fields, heads: tuple[int, ...]) -> tuple[int, ...] | None:
    """Falcon's flags outrank its counts: falcon-7b writes num_kv_heads 71 and has one KV head."""
    depth = len(heads)
    shared = fields.flag("multi_query", default=True)
    if not fields.spelling("multi_query"):
        fields.note(f"multi_query missing: true, the default of {fields.model_type} configs")
    if shared and not fields.flag("new_decoder_architecture"):
        name = fields.spelling(*KV_HEADS)
        if name and fields.data[name] != 1:
            fields.note(f"{name} {fields.data[name]} is not used: multi_query means one K and V head")
        return (1,) * depth
    return fields.counts(depth, *KV_HEADS) or _as_many(fields, heads)


def _as_many(fields: Fields, heads: tuple[int, ...]) -> tuple[int, ...] | None:
    if fields.spelling(*KV_HEADS):
        return None  # given, and faulty
    heads_name = fields.spelling(*HEADS) or HEADS[0]
    shown = heads[0] if len(set(heads)) == 1 else "those"
    fields.note(f"{KV_HEADS[0]} {fields.absent(KV_HEADS[0])}: {heads_name} = {shown}")
    return heads


def _head_dims(fields: Fields, heads: tuple[int, ...]) -> tuple[int, ...] | None:
    given = fields.counts(len(heads), *HEAD_DIM)
    if given is None and fields.spelling(*HEAD_DIM):
        return None
    hidden = fields.count(*HIDDEN)
    hidden_name, heads_name = fields.spelling(*HIDDEN) or HIDDEN[0], fields.spelling(*HEADS) or HEADS[0]
    quotient = f"{hidden_name} / {heads_name}"
    if given is not None:
        if hidden and len(set(given)) == 1 and hidden != given[0] * heads[0]:
            fields.note(f"head_dim {given[0]} is taken; {quotient} would be {hidden / heads[0]:g}")
        return given
    if hidden is None:
        if fields.spelling(*HIDDEN) is None:
            fields.fault(NO_SIZE, HEAD_DIM[0])
        return None
    if any(hidden % h for h in heads):
        fields.fault(f"{quotient} = {hidden} / {max(heads)} is not whole, and head_dim is missing", HEAD_DIM[0])
        return None
    dims = tuple(hidden // h for h in heads)
    fields.note(f"head_dim {fields.absent('head_dim')}: {quotient} = {dims[0]}")
    return dims


def _check_groups(fields: Fields, heads: tuple[int, ...], kv_heads: tuple[int, ...], name: str = "") -> None:
    for h, k in sorted({(h, k) for h, k in zip(heads, kv_heads, strict=True) if h % k}):
        name = name or fields.spelling(*KV_HEADS) or KV_HEADS[0]
        fields.fault(f"{h} heads do not divide over {k} KV heads", name)
