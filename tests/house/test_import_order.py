"""The house: rooms import only rooms before them, and presentation libraries stay in presentation rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "iosim"

#: stages of the pipeline; a room may import its own stage and earlier ones
STAGES = (
    ("_version", "errors", "exact", "units"),
    ("catalog",),
    ("machine", "machine_parts", "machine_file", "machine_check", "networks", "huggingface", "masks"),
    ("attention",),
    ("program", "schedule"),
    ("kernels",),
    ("bulk",),
    ("trace",),
    ("cache", "floors", "pebbling", "passes"),
    ("links",),
    ("timing",),
    ("speedup",),
    ("problem_builder", "curve_points", "link_report", "report", "analysis", "link_analysis", "curve_analysis"),
    ("certificate", "certificate_check"),
    ("measure", "validate"),
    ("api", "__init__"),
    ("render",),
    ("cli", "__main__"),
)
STAGE = {room: number for number, rooms in enumerate(STAGES) for room in rooms}

#: libraries that only some rooms may import, and never while their module is imported elsewhere
RESERVED = {
    "rich": {"render", "cli"},
    "matplotlib": {"render", "cli", "pebbling"},
    "click": {"cli"},
    "numba": {"cache", "trace", "pebbling", "measure", "timing"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)


def room_of(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def imports(tree: ast.AST) -> Iterator[tuple[ast.stmt, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module == "iosim":
                yield from ((node, f"iosim.{alias.name}") for alias in node.names)
            else:
                yield node, node.module


def presentation(tree: ast.AST) -> set[ast.stmt]:
    """Imports inside a result's presentation methods: the one exception to the order."""
    allowed = {"__str__", "_repr_html_", "plot", "to_frame"}
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in allowed
        for inner in ast.walk(node)
        if isinstance(inner, ast.stmt)
    }


def type_checking(tree: ast.AST) -> set[ast.stmt]:
    return {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
        if isinstance(inner, ast.stmt)
    }


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_rooms_import_only_rooms_before_them(path: Path) -> None:
    room = room_of(path)
    assert room in STAGE, f"{room} has no place in the pipeline"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    excused = presentation(tree) | type_checking(tree)
    for node, name in imports(tree):
        parts = name.split(".")
        if parts[0] != "iosim" or len(parts) < 2 or parts[1] == "_version" or node in excused:
            continue
        target = parts[1]
        if target not in STAGE:  # `from iosim import name`: a public name
            continue
        assert STAGE[target] <= STAGE[room], f"{path.name} line {node.lineno}: {room} may not import {target}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_presentation_and_compilers_stay_in_their_rooms(path: Path) -> None:
    room = room_of(path)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    excused = type_checking(tree)
    for node, name in imports(tree):
        library = name.split(".")[0]
        if library in RESERVED and node not in excused:
            assert room in RESERVED[library], f"{path.name} line {node.lineno}: {library} in {room}"


def test_modules_stay_readable() -> None:
    """Modules of at most 300 lines."""
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in modules()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    assert not long
