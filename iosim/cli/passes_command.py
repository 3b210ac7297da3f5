"""iosim passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.output import Answer, emit
from iosim.cli.problem_options import output_options

if TYPE_CHECKING:
    from iosim.passes import PassReport


@click.command("passes")
@click.argument("file", required=False, metavar="FILE|NAME")
@click.option("--extent", "extents", multiple=True, metavar="RANK=N", help="Length of a rank; may be repeated.")
@click.option("--block", "blocks", multiple=True, metavar="RANK=N", help="Rows of a block of a rank. Default: 1.")
@output_options
def command(
    file: str | None, extents: tuple[str, ...], blocks: tuple[str, ...], fmt: str | None, output: str | None
) -> None:
    """How often an Einsum cascade must visit each rank, why, and what that costs.

    \b
    Examples:
      iosim passes
      iosim passes attention-3-pass
      iosim passes attention-3-pass --extent m=65536 --extent p=4096 --extent e=128 --extent f=128 --block p=128
      iosim passes attention-1-pass --format json
    """
    if file is None:
        emit(_index(), fmt, output)
        return
    from iosim.passes import analyze_passes, read_cascade
    from iosim.passes.report import ASSUMPTIONS

    lengths, rows = _sizes(extents, "--extent"), _sizes(blocks, "--block")
    cascade = read_cascade(file)
    report = analyze_passes(cascade)
    result = report.to_dict()
    if lengths:
        result["choices"] = _with_numbers(report, result["choices"], lengths, rows)
    emit(
        Answer(
            command="passes",
            inputs={"cascade": file, "extents": lengths, "blocks": rows},
            result=result,
            text=lambda: _text(report, result),
            rows=lambda: result["ranks"],
            assumptions=ASSUMPTIONS,
        ),
        fmt,
        output,
    )


def _index() -> Answer:
    from iosim.catalog import entries
    from iosim.passes import analyze_passes, read_cascade
    from iosim.passes.report import ROOM
    from iosim.render.text import table

    reports = {name: analyze_passes(read_cascade(name)) for name in entries(ROOM)}
    rows: list[dict[str, Any]] = [
        {"name": name, "passes": report.passes, "title": report.cascade.title} for name, report in reports.items()
    ]
    return Answer(
        command="passes",
        inputs={"cascade": None},
        result={"cascades": rows},
        text=lambda: table(["cascade", "passes", "what"], [[r["name"], str(r["passes"]), r["title"]] for r in rows]),
        rows=lambda: rows,
    )


def _sizes(given: tuple[str, ...], option: str) -> dict[str, int]:
    """`m=4096` as a mapping.

    Raises:
        UsageError: not RANK=N, or N below 1.
    """
    from iosim.errors import UsageError

    made = {}
    for text in given:
        rank, equals, number = text.partition("=")
        if not (rank and equals and number.isdigit() and len(number) <= 15):
            raise UsageError(f"{text!r} is not RANK=N", option, f"for example {option} m=4096")
        if int(number) < 1:
            raise UsageError(f"must be at least 1, got {number}", option)
        made[rank] = int(number)
    return made


def _with_numbers(
    report: PassReport, named: dict[str, list[dict[str, Any]]], extents: dict[str, int], rows: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    """The choices with elements beside each formula.

    Raises:
        UsageError: an extent that a formula needs is missing.
    """
    from iosim.errors import Fault, UsageError

    try:
        return _counted(report, named, extents, rows)
    except UsageError as error:
        raise UsageError(faults=[Fault(fault.what, "--extent", fault.hint) for fault in error.faults]) from None


def _counted(
    report: PassReport, named: dict[str, list[dict[str, Any]]], extents: dict[str, int], rows: dict[str, int]
) -> dict[str, list[dict[str, Any]]]:
    return {
        rank: [
            {
                **row,
                "live": way.live.elements(extents, rows),
                "read": way.read.elements(extents, rows),
                "write": way.write.elements(extents, rows),
            }
            for way, row in zip(report.choices[rank], ways, strict=True)
        ]
        for rank, ways in named.items()
    }


def _text(report: PassReport, result: dict[str, Any]) -> str:
    from iosim.render.text import table, wrapped

    cascade = report.cascade
    parts = [f"{cascade.name}: {report.passes} pass{'es' if report.passes != 1 else ''}"
             + (f", {cascade.title}" if cascade.title else "")]  # fmt: skip
    parts += ["", table(["rank", "passes"], [[rank.rank, str(rank.passes)] for rank in report.ranks])]
    for rank in report.ranks:
        if rank.passes > 1:
            parts += [
                "",
                f"rank {rank.rank} is visited {rank.passes} times because",
                wrapped(rank.because, "  - "),
            ]
    for rank_name, ways in result["choices"].items():
        cells = [[way["name"], *(_amount(way, key) for key in ("live", "read", "write"))] for way in ways]
        parts += [
            "",
            table([f"passes over {rank_name}", "alive on chip, per block", "read in addition", "written"], cells),
        ]
    parts += [f"source: {cascade.source}"] if cascade.source else []
    return "\n".join(parts)


def _amount(way: dict[str, Any], key: str) -> str:
    formula = str(way[f"{key}_elements"])
    return f"{formula} = {way[key]:,}" if key in way and formula != "0" else formula
