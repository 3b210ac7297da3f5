"""Where data files live and how a name finds one.

A room is a folder of TOML files: `hardware`, `models/networks`, ... The user's own folders come
first (`$IOSIM_PATH`, then `search` in `./iosim.toml`), then the copy inside an installed package,
else the checkout (docs/decisions/0001-data-rooms.md).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from iosim.catalog.reader import read_toml
from iosim.errors import FileError, UsageError, did_you_mean

PACKAGE = Path(__file__).resolve().parent.parent

#: room -> what shows its names
LISTED_BY = {
    "hardware": "iosim hardware list",
    "models/networks": "iosim models list",
    "models/kernels": "iosim models kernels",
    "models/workloads": "iosim models workloads",
    "models/cascades": "iosim passes",
}

_HEAD = re.compile(r"^(name|aliases)\s*=\s*(.+?)\s*$", re.MULTILINE)
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")


def key(name: str) -> str:
    """The catalogue form of a name: lower case, runs of other characters become one dash.

    >>> key("Hunyuan Video (v1.0)"), key("llama-3.1-8B")
    ('hunyuan-video-v1-0', 'llama-3-1-8b')
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def shipped(room: str) -> Path:
    """The room that came with iosim: inside the installed package, else beside it in the checkout.

    Raises:
        FileError: neither place has it (a broken installation).
    """
    places = (PACKAGE / "_data" / room, PACKAGE.parent / room)
    for place in places:
        if place.is_dir():
            return place
    raise FileError(f"the data room {room!r} is missing", " and ".join(map(str, places)), "reinstall iosim")


def room_folders(room: str) -> list[Path]:
    """Folders that hold `room`, the user's first."""
    own = [Path(folder) for folder in os.environ.get("IOSIM_PATH", "").split(os.pathsep) if folder]
    config = Path("iosim.toml")
    if config.is_file():
        table = read_toml(config)
        own += [Path(folder) for folder in table.texts("search", default=())]
        table.finish()
    return [folder / room for folder in own if (folder / room).is_dir()] + [shipped(room)]


def entries(room: str) -> dict[str, Path]:
    """Every file of a room by its catalogue name; a user's file hides a shipped one of the same name."""
    found: dict[str, Path] = {}
    for folder in room_folders(room):
        for name, path in _listed(folder.absolute(), folder.stat().st_mtime_ns):
            found.setdefault(name, path)
    return dict(sorted(found.items()))


@lru_cache(maxsize=64)
def _listed(folder: Path, stamp: int) -> tuple[tuple[str, Path], ...]:
    """(catalogue name, file) of a folder as it was at one time."""
    return tuple((key(path.stem), path) for path in sorted(folder.glob("*.toml")))


def find(room: str, name: str, where: str = "") -> Path:
    """The file that `name` means: a file's stem, else its `name`, else one of its `aliases`.

    Raises:
        UsageError: no such name; the hint has the nearest ones. FileError: a directory.
    """
    files = entries(room)
    wanted = key(name)
    if wanted in files:
        return files[wanted]
    spoken = {key(alias): path for path in files.values() for alias in _names(path)}
    if wanted in spoken:
        return spoken[wanted]
    if name and Path(name).is_dir():
        raise FileError("a file or a name is needed, this is a directory", name)
    kind = room.rsplit("/", 1)[-1].rstrip("s") if room != "hardware" else "device"
    hint = did_you_mean(wanted, [*files, *spoken], files, LISTED_BY.get(room, ""))
    raise UsageError(f"unknown {kind} {name!r}", where, hint)


def _names(path: Path) -> Iterator[str]:
    """`name` and `aliases` from the head of a file, without parsing the rest."""
    try:
        head = path.read_text(encoding="utf-8", errors="replace").split("\n[", 1)[0]
    except OSError:
        return
    for _, value in _HEAD.findall(head):
        for double, single in _QUOTED.findall(value):
            yield double or single
