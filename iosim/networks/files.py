"""Reads networks: a catalogue name, a TOML file, or a Hugging Face config."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from iosim.catalog import Table, entries, find, key, read_toml
from iosim.errors import FileError, UsageError
from iosim.networks.geometry import Geometry, LayerKind, Network

ROOM = "models/networks"
FAMILIES = ("llm", "video-dit", "image-dit", "image-unet", "vision")
MISSABLE = ("heads", "kv_heads", "head_dim", "count", "mask")

#: the shape of a mask's text; `iosim.masks` knows which names exist
MASK_TEXT = re.compile(r"(and|or|not)\(.+\)|[a-z][a-z0-9-]*(:\S+)?")


def network_names() -> list[str]:
    """Names of the catalogue's networks, the user's own included."""
    return list(entries(ROOM))


def load_network(name_or_path: str) -> Network:
    """Read a network.

    Args:
        name_or_path: a catalogue name or alias ("llama-3-8b", "meta-llama/Llama-3.1-8B"), the path of
            a TOML file in the catalogue's form, of a Hugging Face `config.json`, or of a folder with one.
    Raises:
        UsageError: no such name; the hint has the nearest ones.
        FileError: the file is missing or broken; one fault per line.
    """
    path = _resolve(str(name_or_path))
    if path.suffix.lower() == ".toml":
        return read_network(path)
    from iosim.huggingface import read_config  # late: it builds this room's types

    return read_config(path)


def _resolve(text: str) -> Path:
    if text.lower().endswith((".toml", ".json")):
        return Path(text)
    try:
        return find(ROOM, text, "--network")
    except (UsageError, FileError):
        if "/" not in text and not (text and Path(text).is_dir()):
            raise
    path = Path(text)  # a Hugging Face id that the catalogue does not know reads as a path too
    return path / "config.json" if path.is_dir() else path


def read_network(path: Path) -> Network:
    """Read a file of the catalogue's form (its keys: `models/networks/README.md`).

    Raises:
        FileError: missing or broken; every fault at once.
    """
    table = read_toml(path)
    kinds = [_kind(layer) for layer in table.tables("layers")]
    network = Network(
        name=table.text("name"),
        key=key(path.stem),
        family=table.text("family", among=FAMILIES),
        layers=tuple(_placed(kinds, table)),
        notes=table.texts("notes", default=()),
        source=table.text("source"),
        file=str(path),
        sha256=table.sha256,
        aliases=table.texts("aliases", default=()),
        confidence=table.text("confidence", ""),
        typical_seq=table.integers("typical_seq", default=()),
    )
    if not kinds:
        table.fault("no layers", "layers", "add a [[layers]] table")
    table.finish()
    return network


def _kind(table: Table) -> LayerKind:
    missing = table.texts("missing", default=())
    for name in set(missing) - set(MISSABLE):
        table.fault(f"{name!r} cannot be missing", "missing", f"only {', '.join(MISSABLE)} can")
    blank = Geometry(0, 0, 0, 0, False, "", None, 0)
    prefill = _geometry(table, blank, missing)
    one_token = replace(prefill, layout=None, extra_tokens=0)
    decode = table.table("decode")
    return LayerKind(
        name=table.text("name"),
        count=_count(table, "count", missing),
        indices=table.integers("indices", default=()),
        prefill=prefill,
        decode=_geometry(decode, one_token) if table.has("decode") else one_token,
        missing=missing,
    )


def _geometry(table: Table, base: Geometry, missing: tuple[str, ...] = ()) -> Geometry:
    """A geometry from the keys of `table`; `base` has what a decode table leaves as it is in prefill."""
    heads = _count(table, "heads", missing, base.heads)
    head_dim = _count(table, "head_dim", missing, base.head_dim)
    geometry = Geometry(
        heads=heads,
        kv_heads=_count(table, "kv_heads", missing, base.kv_heads or heads),
        head_dim=head_dim,
        head_dim_v=_count(table, "head_dim_v", ("head_dim_v",) if missing else (), base.head_dim_v or head_dim),
        latent=table.flag("latent", base.latent),
        mask=table.text("mask", base.mask or ("" if "mask" in missing else None)),
        layout=table.integers("layout", default=base.layout or ()) or base.layout,
        extra_tokens=table.integer("extra_tokens", default=base.extra_tokens),
    )
    _check(table, geometry)
    return geometry


def _count(table: Table, name: str, missing: tuple[str, ...], default: int = 0) -> int:
    if not table.has(name) and (default or name in missing):
        return default
    return table.integer(name, least=1)


def _check(table: Table, geometry: Geometry) -> None:
    if geometry.kv_heads and geometry.heads % geometry.kv_heads:
        table.fault(f"{geometry.heads} heads do not divide over {geometry.kv_heads} KV heads", "kv_heads")
    if geometry.latent and geometry.head_dim_v > geometry.head_dim:
        table.fault("a latent V is a part of K: at most head_dim elements", "head_dim_v")
    if table.has("mask") and not MASK_TEXT.fullmatch(geometry.mask):
        table.fault(f"{geometry.mask!r} is not a mask", "mask", "write a mask like causal or window:4096")
    if any(extent < 1 for extent in geometry.layout or ()):
        table.fault(f"extents must be at least 1, got {list(geometry.layout or ())}", "layout")


def _placed(kinds: list[LayerKind], table: Table) -> list[LayerKind]:
    """The kinds with their indices: as given, else by `pattern`, else one kind after the other."""
    pattern = table.texts("pattern", default=())
    names = [kind.name for kind in kinds]
    if len(set(names)) < len(names):
        table.fault("two kinds of layers share a name", "layers", "give each [[layers]] its own name")
    for name in set(pattern) - set(names):
        table.fault(f"no kind of layers is called {name!r}", "pattern")
    if pattern:
        depth = sum(kind.count for kind in kinds)
        places = _by_pattern([pattern[index % len(pattern)] for index in range(min(depth, 100_000))])
    else:
        places = _in_turn(kinds)
    placed = [replace(kind, indices=kind.indices or places.get(kind.name, ())) for kind in kinds]
    _check_places(placed, table)
    return placed


def _by_pattern(order: list[str]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(i for i, other in enumerate(order) if other == name) for name in set(order)}


def _in_turn(kinds: list[LayerKind]) -> dict[str, tuple[int, ...]]:
    places, first = {}, 0
    for kind in kinds:
        places[kind.name] = tuple(range(first, first + min(kind.count, 100_000)))
        first += kind.count
    return places


def _check_places(kinds: list[LayerKind], table: Table) -> None:
    taken: set[int] = set()
    for number, kind in enumerate(kinds):
        where = f"layers[{number}]"
        if len(set(kind.indices)) != kind.count:
            table.fault(f"count is {kind.count}, but {len(set(kind.indices))} layers are {kind.name!r}", where)
        if taken & set(kind.indices) or min(kind.indices, default=0) < 0:
            table.fault("indices below 0 or already those of another kind", f"{where}.indices")
        taken.update(kind.indices)
