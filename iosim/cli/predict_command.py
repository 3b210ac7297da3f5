"""iosim predict."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import click

from iosim.cli.problem_options import SUFFIXES, answer_options

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from iosim.cli.output import Answer
    from iosim.validate.prediction_file import Outcome


@click.command("predict")
@click.argument("rows", metavar="ROWS.csv")
@answer_options(default="csv")
def command(rows: str, fmt: str | None, output: str | None) -> None:
    """Expected time, time floor and main-memory bytes of many calls, one per row of a CSV.

    Columns: device, kernel, phase, dtype, kv_dtype, batch, heads, kv_heads, head_dim, seq_q, seq_kv, mask; optional
    head_dim_v, l2 (cold, warm), tile, framework (none, vllm, sglang, trtllm). A row that cannot be predicted says
    why in `status`. CSV is written while it is computed, and finished rows are kept on Ctrl-C.

    \b
    Examples:
      iosim predict rows.csv -o predicted.csv
      iosim predict rows.csv --format table
      iosim predict rows.csv | column -s, -t
    """
    from pathlib import Path

    from iosim.cli.output import emit
    from iosim.cli.progress import end_line

    source = Path(rows)
    target = None if output in (None, "-") else Path(str(output))
    _refuse(source, target)
    chosen = fmt or (SUFFIXES[target.suffix.lower()] if target else "csv")
    if chosen == "csv":
        outcome = _streamed(source, target)
        end_line()
    else:
        answer, outcome = _answer(source)
        end_line()
        emit(answer, chosen, output)
    if outcome.failed or outcome.expected < outcome.rows:
        unknown = outcome.rows - outcome.expected
        click.echo(
            f"{outcome.rows:,} rows: {unknown:,} without an expected time, {outcome.failed:,} refused; "
            "`status` says why",
            err=True,
        )


def _refuse(source: Path, target: Path | None) -> None:
    """Before anything is overwritten."""
    from iosim.errors import FileError

    if target is None:
        return
    if target.exists() and source.exists() and target.samefile(source):
        raise FileError("is the file to read", str(target), "write to another file")
    if not source.exists():
        raise FileError("no such file", str(source), "check the path")


class _Text:
    """Text whose failure to be written is told as the output's."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self.stream, self.name = stream, name

    def write(self, text: str) -> None:
        from iosim.cli import writing

        with writing(self.name):
            self.stream.write(text)


def _streamed(source: Path, target: Path | None) -> Outcome:
    """CSV, chunk by chunk."""
    from iosim.cli import writing
    from iosim.validate.prediction_file import predict_file

    if target is None:
        return predict_file(source, _Text(sys.stdout, ""))
    with writing(str(target)):
        handle = target.open("w", newline="", encoding="utf-8")
    try:
        return predict_file(source, _Text(handle, str(target)), _progress())
    finally:
        with writing(str(target)):
            handle.close()


def _progress() -> Callable[[int], None] | None:
    from iosim.cli.progress import progress_line

    line = progress_line()
    return (lambda done: line(f"{done:,} rows")) if line else None


def _answer(source: Path) -> tuple[Answer, Outcome]:
    """The other formats, which are no stream."""
    from iosim.cli.output import Answer
    from iosim.validate.prediction_file import predicted_rows

    rows, outcome = predicted_rows(source, _progress())
    result = {"rows": rows, "expected": outcome.expected, "failed": outcome.failed}
    return Answer("predict", {"rows": str(source)}, result, lambda: _text(rows), lambda: rows), outcome


def _text(rows: list[dict[str, object]]) -> str:
    from rich.markup import escape

    from iosim.render.text import table

    names = list(rows[0]) if rows else []
    cells = [["-" if row[name] is None else escape(str(row[name])) for name in names] for row in rows]
    return table(names, cells, left=len(names))
