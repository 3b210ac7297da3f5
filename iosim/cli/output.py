"""Writes an answer: a table for people, the JSON envelope, or flat rows; to stdout or to a whole file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from iosim._version import __version__
from iosim.cli import writing
from iosim.cli.problem_options import PAGE, PICTURES, SUFFIXES
from iosim.errors import FileError, UsageError


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found."""

    command: str
    """its name, for the schema"""
    inputs: Mapping[str, object]
    """every choice, defaults included"""
    result: Mapping[str, object]
    """the contract's keys"""
    text: Callable[[], str]
    """for people"""
    rows: Callable[[], Sequence[Mapping[str, object]]]
    """flat rows for csv and md"""
    assumptions: Sequence[str] = ()
    """what a reader must know"""
    provenance: Mapping[str, object] = field(default_factory=dict)
    """digests of what was read"""
    picture: Callable[[], object] | None = None
    """a matplotlib Figure, for -o FILE.svg or .png"""
    page: Callable[[], str] | None = None
    """a self-contained HTML document, for -o FILE.html"""

    def envelope(self) -> dict[str, object]:
        """The JSON document."""
        return {
            "schema": f"iosim/{self.command}/1",
            "inputs": dict(self.inputs),
            "result": dict(self.result),
            "assumptions": list(self.assumptions),
            "provenance": {"iosim": __version__, "device_sha256": None, **self.provenance},
        }


def emit(answer: Answer, fmt: str | None, output: str | None) -> None:
    """Write the answer in the format asked for, by `--format`, by the file's suffix, or as a table.

    Raises:
        UsageError: a suffix that means no format. FileError: the file cannot be written.
    """
    output = None if output == "-" else output
    suffix = Path(output).suffix.lower() if output else ""
    if fmt is None and suffix in PICTURES:
        _save_picture(answer, Path(str(output)))
        return
    if fmt is None and suffix == PAGE and answer.page:
        write_whole(Path(str(output)), answer.page().encode())
        return
    text = _formatted(answer, fmt or SUFFIXES.get(suffix, "table"))
    if output:
        write_whole(Path(output), text.encode())
    else:
        with writing():
            click.echo(text, nl=False)


def check_output(fmt: str | None, output: str, suffixes: Sequence[str] = PICTURES) -> None:
    """Refuse a suffix that means no format, and a file that cannot be written.

    Args:
        suffixes: those that the command writes.
    Raises:
        UsageError, FileError: as said.
    """
    if output == "-":
        return
    path = Path(output)
    if path.is_dir():
        raise FileError("is a directory", output, "name a file")
    if fmt is None and path.suffix.lower() not in suffixes:
        kind = "picture" if path.suffix.lower() in PICTURES else "format"
        what = f"no {kind} is written" if kind == "picture" else "no format is known"
        raise UsageError(f"{what} by the suffix {path.suffix!r}", "-o", f"use {', '.join(suffixes)}, or --format")
    if not path.parent.is_dir():
        raise FileError("cannot be written: no such folder", output, "make the folder first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise FileError("cannot be written: no permission", output)


def _formatted(answer: Answer, fmt: str) -> str:
    from iosim.render.records import to_csv, to_json, to_markdown

    if fmt == "json":
        return to_json(answer.envelope())
    if fmt == "csv":
        return to_csv(answer.rows())
    if fmt == "md":
        return to_markdown(answer.rows())
    return answer.text().rstrip("\n") + "\n"


def _save_picture(answer: Answer, path: Path) -> None:
    if answer.picture is None:
        raise UsageError(f"{answer.command} draws no picture", "-o", "use .json, .csv, .md or .txt")
    save_figure(answer.picture(), path)


def check_picture(name: str, where: str) -> None:
    """Refuse a name that means no picture, and a file that cannot be written.

    Raises:
        UsageError, FileError: as said.
    """
    if Path(name).is_dir():
        raise FileError("is a directory", name, "name a file")
    if Path(name).suffix.lower() not in PICTURES:
        raise UsageError(f"no picture by the suffix {Path(name).suffix!r}", where, "use .svg, .png or .pdf")
    check_output(None, name)


def save_figure(figure: object, path: Path) -> None:
    """Write a matplotlib Figure completely or not at all, in the format of the suffix."""
    with _whole_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())  # type: ignore[attr-defined]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    with _whole_file(path) as temporary:
        temporary.write_bytes(data)


class _whole_file:  # noqa: N801 (used like a function)
    """A temporary file beside `path` that takes its place only when everything went well.

    Links are followed, an existing file keeps its mode, and what is no regular file (a device, a pipe) is written
    straight through: replacing it would destroy it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self.special = self.path.exists() and not self.path.is_file()

    def __enter__(self) -> Path:
        if self.path.is_dir():
            raise FileError("is a directory", str(self.path), "name a file")
        try:
            handle, name = tempfile.mkstemp(
                dir=None if self.special else self.path.parent, prefix=f".{self.path.name}."
            )
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}", str(self.path)) from None
        os.close(handle)
        self.temporary = Path(name)
        return self.temporary

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None and not self.special:
            self.temporary.chmod(self._mode())
            self.temporary.replace(self.path)
            return
        try:
            if kind is None:
                with self.path.open("wb") as through:
                    through.write(self.temporary.read_bytes())
        except OSError as failed:
            raise FileError(f"cannot be written: {failed.strerror}", str(self.path)) from None
        finally:
            self.temporary.unlink(missing_ok=True)

    def _mode(self) -> int:
        """The mode of the file that is replaced, else what the user's mask allows."""
        if self.path.exists():
            return self.path.stat().st_mode & 0o7777
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
