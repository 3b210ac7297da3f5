"""iosim cache."""

from __future__ import annotations

from pathlib import Path

import click

from iosim.cli.problem_options import output_options


@click.command("cache")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--policy", default="lru", metavar="P", help="lru, fifo, opt, opt-bypass or set-assoc:W. Default: lru.")
@click.option("--capacity", metavar="SIZE", help="Capacity such as 50MiB, rounded down to whole lines.")
@click.option("--capacity-lines", type=int, metavar="N", help="Capacity in lines.")
@click.option("--line-bytes", type=int, default=128, metavar="N", help="Size of a line. Default: 128.")
@click.option("--hash", "hashed", is_flag=True, help="Hash the set index instead of line modulo sets.")
@click.option(
    "--trace-format", metavar="F", help="npy, din, lackey, csv or oracleGeneral. Default: by the file's name."
)
@output_options
def command(
    file: Path,
    policy: str,
    capacity: str | None,
    capacity_lines: int | None,
    line_bytes: int,
    hashed: bool,
    trace_format: str | None,
    fmt: str | None,
    output: str | None,
) -> None:
    """Replay a recorded trace through a cache: exact misses and write-backs.

    Formats: npy (line ids; line, write; or start, length, write), din, valgrind lackey, csv, oracleGeneral.

    \b
    Examples:
      iosim cache trace.npy --capacity-lines 8192
      iosim cache trace.npy --policy opt --capacity 50MiB
      iosim cache trace.npy --policy set-assoc:16 --capacity-lines 4096 --hash
    """
    from iosim.cache.replaying import replay_file
    from iosim.cli.output import Answer, emit
    from iosim.errors import FileError, UsageError
    from iosim.units import parse

    if line_bytes < 1:
        raise UsageError(f"must be at least 1, got {line_bytes}", "--line-bytes")
    if (capacity is None) == (capacity_lines is None):
        raise UsageError(
            "give --capacity or --capacity-lines, one of them", "--capacity", "for example --capacity 50MiB"
        )
    lines = (
        capacity_lines if capacity_lines is not None else int(parse(capacity or 0, "bytes", "--capacity")) // line_bytes
    )
    if lines < 1:
        shown = f"{capacity} is smaller than a line" if capacity is not None else f"must be at least 1, got {lines}"
        raise UsageError(shown, *(("--capacity", "such as 50MiB") if capacity is not None else ("--capacity-lines",)))
    if file.is_dir():
        raise FileError("a file is needed, this is a directory", str(file))
    counts = replay_file(file, policy, lines, file_format=trace_format, line_bytes=line_bytes, hashed=hashed)
    inputs = {
        "file": str(file), "policy": policy, "capacity_lines": lines, "line_bytes": line_bytes, "hash": hashed,
        "trace_format": trace_format,
    }  # fmt: skip
    result = counts.to_dict()
    emit(Answer("cache", inputs, result, lambda: _text(result), lambda: [result]), fmt, output)


def _text(result: dict[str, object]) -> str:
    from iosim.render.text import table

    return table(
        ["counter", "value"], [[name, f"{v:,}" if isinstance(v, int) else str(v)] for name, v in result.items()]
    )
