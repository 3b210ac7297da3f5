"""iosim calibrate."""

from __future__ import annotations

import click

from iosim.cli.problem_options import output_options


@click.command("calibrate")
@click.argument("data", nargs=-1, required=True, metavar="DATA...")
@click.option(
    "--into", default="calibration", show_default=True, metavar="FOLDER", help="Where to write the TOML files."
)
@click.option(
    "--family",
    "families",
    multiple=True,
    metavar="NAME",
    help="fa2, fa3, trtllm, fa3-sglang, cudnn, processor, ...; default: all with rows.",
)
@output_options
def command(data: tuple[str, ...], into: str, families: tuple[str, ...], fmt: str | None, output: str | None) -> None:
    """Refit the time model's constants from measured tables, each with its interval.

    \b
    Examples:
      iosim calibrate site-packages/aiconfigurator_core/systems/data --into models/calibration
      iosim calibrate my-timings.csv --family fa3
      iosim calibrate measurements/published-figures.csv --into models/calibration
      iosim calibrate measurements/processor --family processor
    """
    from pathlib import Path

    from iosim.cli.output import Answer, emit
    from iosim.errors import UsageError, did_you_mean
    from iosim.validate.calibrating import NAMES, calibrate

    for name in families:
        if name not in NAMES:
            raise UsageError(f"unknown family {name!r}", "--family", did_you_mean(name, NAMES))
    made = calibrate([Path(name) for name in data], Path(into), families, note=lambda text: click.echo(text, err=True))
    rows = [
        {
            "family": refit.after.family, "constant": after.name, "unit": after.unit, "before": before.value,
            "value": after.value, "low": after.low, "high": after.high, "meaning": after.meaning,
        }
        for refit in made
        for before, after in zip(refit.before.constants, refit.after.constants, strict=True)
    ]  # fmt: skip
    files = [str(refit.file) for refit in made]
    text = "\n".join(
        f"{row['family']:7} {row['constant']:18} {row['value']:10.4g} ({row['low']:.4g} to {row['high']:.4g}) {row['unit']}"
        for row in rows
    )
    emit(
        Answer("calibrate", {"data": list(data), "into": into, "family": list(families)}, {"files": files, "constants": rows},
               lambda: f"{text}\nwritten: {', '.join(files) or 'nothing: no rows of a calibrated device'}\n", lambda: rows),
        fmt,
        output,
    )  # fmt: skip
