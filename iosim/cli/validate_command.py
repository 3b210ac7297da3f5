"""iosim validate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from iosim.cli.problem_options import output_options

if TYPE_CHECKING:
    from iosim.validate.comparing import Group
    from iosim.validate.validating import Validation


HEAD = "device                  kernel   phase    "


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
@output_options
def command(
    data: tuple[str, ...], device: str | None, fills: tuple[str, ...], picture: str | None, fmt: str | None,
    output: str | None,
) -> None:  # fmt: skip
    """Predictions beside measured kernels: error statistics, the fitted pair on the same rows, floors beaten.

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
            text=lambda: _text(found),
            rows=lambda: [_flat(row) for row in found.rows()],
            assumptions=["16-bit rows; each calibration says what it was fitted on (models/calibration)"],
            picture=lambda: _picture(found),
        ),
        fmt,
        output,
    )
    if picture:
        save_figure(_picture(found), Path(picture))


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
    yardstick = row.pop("yardstick")
    assert isinstance(yardstick, dict)
    return {**row, **{f"yardstick_{name}": value for name, value in yardstick.items()}}


def _text(found: Validation) -> str:
    lines: list[str] = []
    for title, kind, chosen in (
        (f"{'window':6}     n", lambda group: "yes" if group.window else "no", lambda group: not group.paper),
        ("bytes            n", _bytes, lambda group: group.quantity != "time"),
    ):
        groups = [
            group for group in found.groups if chosen(group) and (group.quantity == "time") == ("bytes" not in title)
        ]
        if groups:
            yardstick = "fitted pair " if "bytes" not in title else "tensors once"
            lines.append(f"{HEAD}{title}   median   mean    p90    bias | {yardstick} floors beaten")
            lines += [_line(group, kind(group), len(title) - 6) for group in groups]
    published = [group for group in found.groups if group.paper]
    if published:
        lines.append(
            "device          kernel       passes                              n   median   mean    p90    bias | fitted pair  paper"
        )
        lines += [_published(group) for group in published if group.errors]
        lines += [
            f"Kendall's tau of the kernels' order, {paper}: {orders.mean_tau:.3f} mean of {orders.groups} groups, "
            f"{orders.tau:.3f} over {orders.pairs} pairs"
            for paper, orders in found.order_by_paper().items()
        ]
    left_out = dict(found.skipped)
    for group in published:
        if group.errors is None:
            left_out[f"{group.kernel}: {group.why}"] = left_out.get(f"{group.kernel}: {group.why}", 0) + group.rows
    lines += [f"left out: {count:,} rows: {why}" for why, count in left_out.items()]
    if not found.groups:
        return "\n".join([*lines, "no row can be compared"]) + "\n"
    lines += ["", "largest errors:"]
    for quantity in (True, False):
        lines += [_worst(row) for row in found.worst if (row["quantity"] == "time") is quantity][:8]
    return "\n".join(lines) + "\n"


def _bytes(group: Group) -> str:
    return group.quantity.removesuffix("_bytes").replace("_", " ")


def _published(group: Group) -> str:
    errors, pair = group.errors, group.yardstick
    assert errors is not None
    return (
        f"{group.device:15} {group.kernel:12} {group.work:32} {group.rows:4}  {errors.median_abs_error:6.1%} "
        f"{errors.mean_abs_error:6.1%} {errors.p90_abs_error:6.1%} {errors.median_ratio - 1:+7.1%} | "
        f"{pair.median_abs_error:6.1%}       {group.paper}"
    )


def _line(group: Group, kind: str, width: int) -> str:
    head = f"{group.device:23} {group.kernel:8} {group.phase:8} {kind:{width}} {group.rows:5}"
    errors, pair = group.errors, group.yardstick
    if errors is None:
        return f"{head}   {group.why}"
    return (
        f"{head}  {errors.median_abs_error:6.1%} {errors.mean_abs_error:6.1%} {errors.p90_abs_error:6.1%} "
        f"{errors.median_ratio - 1:+7.1%} | {pair.median_abs_error:6.1%}       {group.floors_beaten}"
    )


def _worst(row: dict[str, object]) -> str:
    shape = (
        f"  {row['device']} {row['kernel']} batch {row['batch']} heads {row['heads']}/{row['kv_heads']} head size "
        f"{row['head_dim']} {row['seq_q']} x {row['seq_kv']}: "
    )
    where = f"({row['source']} row {row['row']})"
    if row["quantity"] == "time":
        measured, expected = float(str(row["measured_s"])) * 1e6, float(str(row["time_expected_s"])) * 1e6
        return f"{shape}measured {measured:.1f} us, expected {expected:.1f} us {where}"
    name = str(row["quantity"]).removesuffix("_bytes").replace("_", " ")
    measured, expected = float(str(row["measured"])) / 1e6, float(str(row["predicted"])) / 1e6
    return f"{shape}{name} measured {measured:.1f} MB, predicted {expected:.1f} MB by {row['method']} {where}"
