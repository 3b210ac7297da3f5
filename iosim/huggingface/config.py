"""From a `config.json` to a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from iosim.catalog import key, read_json, read_text
from iosim.catalog.reader import digest
from iosim.errors import FileError
from iosim.huggingface import families
from iosim.huggingface.fields import Fields
from iosim.huggingface.heads import HEADS, Heads, LayerHeads, check_given, on_layers, read_heads
from iosim.huggingface.layers import LAYER_LISTS, Place, read_layers
from iosim.huggingface.windows import POSITIONS
from iosim.networks.geometry import Geometry, LayerKind, Network

INNER = ("text_config", "language_config", "llm_config", "thinker_config")
DEPTH = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
MOST_LAYERS = 10_000
DEFAULT_SEQ = 8192  # tokens that a problem has when neither person nor network says


def read_config(path: Path) -> Network:
    """Read a Hugging Face (or diffusers, or Meta `params.json`) config as a network.

    Every value that the file leaves to its model class, and everything about attention that a
    geometry cannot hold, is said in the network's notes.

    Raises:
        FileError: missing, broken, without attention, or at odds with itself; every fault at once, each
            with file and field.
    """
    path = Path(path)
    outer = Fields(_object(path), str(path))
    fields = _innermost(outer)
    _refuse(fields)
    depth = _depth(fields)
    heads = read_heads(fields, depth) if depth else None
    if not depth:
        check_given(fields)
    places = read_layers(fields, depth, _causal(fields)) if depth else []
    layers = _kinds(fields, heads or [], places) if heads else ()
    positions = fields.count(*POSITIONS)
    _remark(fields)
    fields.finish()
    if not layers:
        raise FileError("no layer of this network has attention", str(path))
    name = _name(outer, path)
    return Network(
        name=name,
        key=key(name),
        family=_family(fields),
        layers=layers,
        notes=tuple(fields.notes),
        source=f"config.json of {name}",
        file=str(path),
        sha256=digest(read_text(path)),
        confidence="looked-up (the config itself; defaults that were filled in are in the notes)",
        typical_seq=(positions,) if positions else (),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except ValueError as error:  # json gives up on integers of thousands of digits
        raise FileError(f"not valid JSON: {error}", str(path)) from None


def _innermost(fields: Fields) -> Fields:
    """The object that describes the language network of a multi-modal config."""
    for _ in range(4):
        name = fields.spelling(*INNER)
        if name is None:
            break
        inner = fields.nested(name)
        if fields.spelling(*HEADS) and not inner.spelling(*HEADS):
            fields.note(f"{inner.path} gives no heads: read from the object around it")
            break
        inner.note(f"read from {inner.path}")
        fields = inner
    return fields


def _refuse(fields: Fields) -> None:
    """Fault whole families that one stack of like layers cannot describe."""
    kind = fields.model_type or fields.text("_class_name")
    if kind in families.ATTENTION_FREE:
        fields.fault(f"{kind} networks have no attention", "model_type")
    elif kind in families.REFUSED:
        what, hint = families.REFUSED[kind]
        fields.fault(f"{kind} networks {what}", "model_type", hint)
    elif fields.spelling("compress_ratios"):  # DeepSeek-V4
        fields.fault("layers see a window and compressed keys, which no mask expresses", "compress_ratios")
    elif fields.flag("is_encoder_decoder"):
        hint = "give the stack you mean as a plain shape"
        fields.fault("an encoder and a decoder are two networks", "is_encoder_decoder", hint)
    if not kind:
        fields.note("model_type missing: a causal decoder is assumed")
    fields.finish()


def _depth(fields: Fields) -> int:
    depth = fields.count(*DEPTH)
    if depth is None and fields.spelling(*DEPTH) is None:
        named = fields.value(*LAYER_LISTS)
        if isinstance(named, list) and named:
            fields.note(f"{DEPTH[0]} missing: {len(named)}, as many as there are {fields.spelling(*LAYER_LISTS)}")
            return len(named)
        fields.fault("the number of layers is missing", DEPTH[0])
    single = fields.count("num_single_layers")  # diffusers: FLUX, HunyuanVideo
    if depth and single:
        fields.note(f"num_single_layers {single}: one-stream layers after {depth} two-stream ones")
        depth += single
    if depth and depth > MOST_LAYERS:
        fields.fault(f"{depth} layers are out of range", DEPTH[0])
        return 0
    return depth or 0


def _causal(fields: Fields) -> bool:
    everyone = fields.value("use_bidirectional_attention")  # EmbeddingGemma: true; Gemma 4: "vision" or "all"
    if everyone == "vision":
        fields.note('use_bidirectional_attention "vision": tokens of an image see each other; the mask stays causal')
    if everyone in (True, "all") or not fields.flag("is_causal", default=True):
        return False
    if fields.text("_class_name"):
        fields.note("diffusion transformer: every token attends to every token; give the feature map with --seq")
        return False
    if fields.model_type in families.BIDIRECTIONAL and not fields.flag("is_decoder"):
        fields.note(f"{fields.model_type} is an encoder: attention looks both ways")
        return False
    return True


def _kinds(fields: Fields, heads: list[LayerHeads], places: list[Place | None]) -> tuple[LayerKind, ...]:
    """Layers of equal label, mask and heads together, in the order in which they first appear."""
    layout = _layout(fields)
    groups: dict[tuple[Place, LayerHeads], list[int]] = {}
    for index, (layer, place) in enumerate(zip(heads, places, strict=True)):
        if place is None:
            continue
        groups.setdefault((place, on_layers(fields, place.label, layer)), []).append(index)
    names = _names([place.label for place, _ in groups])
    return tuple(
        LayerKind(
            name=name,
            count=len(indices),
            indices=tuple(indices),
            prefill=_geometry(layer.prefill, place, layout),
            decode=_geometry(layer.decode, place, None),
        )
        for name, ((place, layer), indices) in zip(names, groups.items(), strict=True)
    )


def _geometry(heads: Heads, place: Place, layout: tuple[int, ...] | None) -> Geometry:
    return Geometry(*heads, mask=place.mask, layout=layout, extra_tokens=0)


def _names(labels: list[str]) -> list[str]:
    """Labels made distinct: global, or global-1 and global-2 where there are two such kinds."""
    return [
        label if labels.count(label) == 1 else f"{label}-{labels[: index + 1].count(label)}"
        for index, label in enumerate(labels)
    ]


def _layout(fields: Fields) -> tuple[int, ...] | None:
    """Tokens of an image; else the longest sequence, where it is shorter than the usual default."""
    if fields.model_type in families.VISION:
        return _patches(fields)
    longest = fields.count(*POSITIONS)
    return (longest,) if longest and longest < DEFAULT_SEQ else None


def _patches(fields: Fields) -> tuple[int, ...] | None:
    image, patch = fields.value("image_size"), fields.value("patch_size")
    sides = image if isinstance(image, list) else [image, image]
    steps = patch if isinstance(patch, list) else [patch, patch]
    for name, pair in (("image_size", sides), ("patch_size", steps)):
        if len(pair) != 2 or any(type(side) is not int or side < 1 for side in pair):
            fields.fault("one whole number is needed, or two", name)
            return None
    rows, columns = sides[0] // steps[0], sides[1] // steps[1]
    extra = families.VISION[fields.model_type] + (fields.count("num_register_tokens", least=0) or 0)
    fields.note(f"tokens: {rows} x {columns} patches + {extra} = {rows * columns + extra}")
    return (rows * columns + extra,)


def _family(fields: Fields) -> str:
    made_of = fields.text("_class_name")
    if made_of:
        return "video-dit" if "3D" in made_of else "image-dit"
    return "vision" if fields.model_type in families.VISION else "llm"


def _remark(fields: Fields) -> None:
    """Notes on fields that matter to attention and are in no geometry."""
    for name, remark in families.REMARKS.items():
        value = fields.value(name)
        if value not in (None, False, 0):
            fields.note(remark.format(value if isinstance(value, int | float) else "given"))
    if fields.model_type == "gpt_oss":
        fields.note("a learned sink per head joins each row's denominator; it is no key and is not counted")
    dtype = fields.text("torch_dtype") or fields.text("dtype")
    if dtype:
        fields.note(f"weights are {dtype}; a problem's --dtype is not taken from here")
    unread = sorted(
        name
        for name, value in fields.data.items()
        if value  # what is null, false, 0 or empty changes nothing
        and name.isprintable()
        and not name.startswith(("vision", "mtp_"))
        and "rope" not in name
        and name not in fields.asked | families.HARMLESS
        and any(part in name for part in families.TELLING)
    )
    if unread:
        fields.note(f"not read, and may matter: {', '.join(unread)[:300]}")


def _name(fields: Fields, path: Path) -> str:
    """The network's own name where the config has one, else the folder's or the file's."""
    own = fields.text("_name_or_path").rstrip("/").rsplit("/", 1)[-1]
    if key(own):
        return own
    return path.resolve().parent.name if path.stem == "config" else path.stem
