"""Reads kernel files: an algorithm with the tiles and settings that real code chooses."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from iosim.attention import dtype
from iosim.catalog import Table, entries, find, key, read_toml
from iosim.errors import UsageError, did_you_mean
from iosim.kernels.algorithm import ALGORITHMS, Algorithm, Setting
from iosim.kernels.head_sizes import read_head_sizes
from iosim.kernels.kernel_file import KernelFile, TileRule
from iosim.masks import Tiling, parse_tile

ROOM = "models/kernels"


def load_kernel(name: str) -> KernelFile:
    """A kernel by catalogue name, or from a TOML file of the user's.

    Raises:
        UsageError: unknown name.
        FileError: a file that is broken.
    """
    path = Path(name) if "/" in name or name.endswith(".toml") else find(ROOM, name, "--kernel")
    try:
        found = path.stat()
    except OSError:
        return _load(path, path, (0, 0))  # which says what is wrong
    return _load(path, path.absolute(), (found.st_mtime_ns, found.st_size))


@lru_cache(maxsize=256)
def _load(path: Path, place: Path, version: tuple[int, int]) -> KernelFile:
    """A file at one place as it was at one time, of one size; messages name it as it was typed."""
    table = read_toml(path)
    if table.has("tiles") and not table.has("algorithm"):
        name = key(path.stem)
        hint = f"`iosim speedup --kernel {name}` counts with them; a kernel file names its algorithm"
        raise UsageError(f"{name} is a list of tile shapes, not a schedule", "--kernel", hint)
    kernel = _read(table, key(path.stem))
    table.finish()
    return kernel


def kernel_names() -> list[str]:
    """Catalogue names of the kernels."""
    return [name for name, path in entries(ROOM).items() if "algorithm" in path.read_text(encoding="utf-8")]


def tile_lists() -> list[tuple[str, str, str]]:
    """(name, title, source) of the files of the room that list tile shapes and are no schedules."""
    kernels = set(kernel_names())
    tables = [(name, read_toml(path)) for name, path in entries(ROOM).items() if name not in kernels]
    return [(name, table.text("title", name), table.text("source", "")) for name, table in tables]


def _read(table: Table, stem: str) -> KernelFile:
    name = table.text("name", stem)
    table.texts("aliases", default=())
    algorithm_name = table.text("algorithm")
    if algorithm_name not in ALGORITHMS:
        if table.has("algorithm"):
            table.fault(f"unknown algorithm {algorithm_name!r}", "algorithm", did_you_mean(algorithm_name, ALGORITHMS))
        table.finish()
    algorithm = ALGORITHMS[algorithm_name]
    return KernelFile(
        name=name,
        title=table.text("title", name),
        algorithm=algorithm,
        source=table.text("source", ""),
        rules=tuple(_read_rule(rule, algorithm) for rule in table.tables("tiles")),
        parameters=_settings(table.table("parameters"), algorithm),
        packs=table.flag("packs"),
        decode=table.text("decode", ""),
        types=_types(table, "types"),
        kv_types=_types(table, "kv_types"),
        heads=read_head_sizes(table.table("heads")),
        fixed=table.texts("fixed", default=()),
        instead=_instead(table.table("instead")),
        absent=table.text("absent", ""),
        device=table.text("device", ""),
        note=table.text("note", ""),
    )


def _types(table: Table, name: str) -> tuple[str, ...]:
    """Element types of a list in the file."""
    made = []
    for word in table.texts(name, default=()):
        try:
            made.append(dtype(word, name))
        except UsageError as error:
            table.fault(error.faults[0].what, name, error.faults[0].hint)
    return tuple(made)


def _instead(table: Table) -> dict[str, tuple[str, ...]]:
    return {architecture: table.texts(architecture) for architecture in table.keys()}  # noqa: SIM118


def _read_rule(table: Table, algorithm: Algorithm) -> TileRule:
    absent, text = table.flag("absent"), table.text("tile", "1x1" if table.has("absent") else None)
    try:
        tiling = parse_tile(text)
    except UsageError as error:
        table.fault(error.faults[0].what, "tile", error.faults[0].hint)
        tiling = Tiling((1,), (1,))
    return TileRule(
        tiling=tiling,
        settings=_settings(table.table("settings"), algorithm),
        head_dim=table.integer("head_dim", 0),
        head_dim_v=table.integer("head_dim_v", 0),
        exact=table.flag("exact"),
        architectures=table.texts("architectures", default=()),
        capabilities=table.texts("capabilities", default=()),
        masks=table.texts("masks", default=()),
        rows=table.integer("rows", 0),
        queries=table.integer("queries", 0),
        bits=table.integer("bits", 0),
        packs=table.flag("packs"),
        unpacked=table.flag("unpacked"),
        absent=absent,
        assumed=table.flag("assumed"),
        note=table.text("note", ""),
    )


def _settings(table: Table, algorithm: Algorithm) -> dict[str, Setting]:
    given = {name: table.data[name] for name in table.keys()}  # noqa: SIM118 (marks them as read)
    try:
        chosen = algorithm.settings(given)
    except UsageError as error:
        table.fault(error.faults[0].what, "", error.faults[0].hint)
        return {}
    return {name: chosen[name] for name in given}
