"""iosim validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from iosim.cli.problem_options import PICTURES, answer_options

if TYPE_CHECKING:
    from iosim.validate.validating import Validation

#: what is said of errors; empty where there are none
FIGURES = ("n", "median_abs_error", "mean_abs_error", "p90_abs_error", "median_ratio")


@click.command("validate")
@click.argument("data", nargs=-1, metavar="[DATA]...")
@click.option(
    "--device", metavar="NAME|PATH", help="Where it was measured, if the file does not say: --fill device=NAME."
)
@click.option(
    "--fill", "fills", multiple=True, metavar="COLUMN=VALUE", help="A column of `iosim predict` that the file lacks."
)
@click.option(
    "--plot", "picture", metavar="FILE", help="Predicted against measured as .svg, .png or .pdf, beside the table."
)
@answer_options(PICTURES)
def command(
    data: tuple[str, ...], device: str | None, fills: tuple[str, ...], picture: str | None, fmt: str | None,
    output: str | None,
) -> None:  # fmt: skip
    """Predictions beside measured kernels: error statistics, the fitted pair on the same rows, floors beaten.

    "judged" is the median error of rows that no constant was fitted on. A window cuts keys off, is idle (at least as
    long as the keys) or there is none; "one-query" are single queries that the data calls a prefill. Head sizes that
    constants are fitted on stand apart from others. Floors are compared without a time model too.
    DATA: CSVs with the columns of `iosim predict` and time_s, time_ms or time_us, and hbm_read_bytes, l2_read_bytes,
    ... where counted; output of `ncu --csv` (either page); CSVs of Triton's benchmarks; a folder of AIConfigurator
    tables (needs pandas and pyarrow); a CSV of published figures. Default: what came with iosim.

    \b
    Examples:
      iosim validate
      iosim validate my-timings.csv --format json
      iosim validate counters.csv --device a100-sxm-80gb
      iosim validate "fused-attention-batch4-head32-d64-fwd-causal=True.csv" --device a100-sxm-80gb --fill unit=TFLOPS --fill dtype=fp16
      iosim validate -o predicted-against-measured.svg
      iosim validate site-packages/aiconfigurator_core/systems/data -o accuracy.csv --plot accuracy.png
    """
    from pathlib import Path

    from iosim.cli.output import Answer, check_picture, emit, save_figure
    from iosim.errors import FileError
    from iosim.render.validation_text import validation_text
    from iosim.validate.validating import validate

    if picture:
        check_picture(picture, "--plot")
    fill = _pairs(fills) | ({"device": device} if device else {})
    found = validate([Path(name) for name in data], fill=fill)
    emit(
        Answer(
            command="validate",
            inputs={"data": list(data) or "shipped", "fill": fill},
            result=found.to_dict(),
            text=lambda: validation_text(found),
            rows=lambda: [_flat(row) for row in found.rows()],
            assumptions=["16-bit rows; each calibration says what it was fitted on (models/calibration)"],
            picture=lambda: _picture(found),
        ),
        fmt,
        output,
    )
    if picture:
        save_figure(_picture(found), Path(picture))
    if found.faults:
        raise FileError(faults=found.faults)


def _pairs(texts: tuple[str, ...]) -> dict[str, str]:
    from iosim.errors import UsageError

    made = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value.strip():
            raise UsageError(f"{text!r} is not COLUMN=VALUE", "--fill", "such as --fill head_dim=128")
        made[name.strip()] = value.strip()
    return made


def _picture(found: Validation) -> object:
    from iosim.render.accuracy_plot import plot_accuracy

    return plot_accuracy(found)


def _flat(row: dict[str, object]) -> dict[str, object]:
    """A group on one line: what is nested gets a prefix."""
    nested = ("yardstick", "judged", "judged_yardstick")
    made = {name: value for name, value in row.items() if name not in nested}
    for prefix in nested:
        inner = row[prefix] or dict.fromkeys(FIGURES)
        assert isinstance(inner, dict)
        made |= {f"{prefix}_{name}": value for name, value in inner.items()}
    return made
