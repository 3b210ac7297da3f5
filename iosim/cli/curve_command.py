"""iosim curve."""

from __future__ import annotations

from typing import Any

import click

from iosim.cli.problem_options import PICTURES, answer_options, kernel_options, problem_options


@click.command("curve")
@problem_options
@click.option(
    "--device",
    default="none",
    metavar="NAME|PATH|none",
    help="Its cores run items side by side. Default: none, one stream.",
)
@kernel_options
@click.option("--policy", default="lru", metavar="P[,P]", help="lru, opt, opt-bypass, fifo. Default: lru.")
@click.option("--line-bytes", type=int, metavar="N", help="Size of a line. Default: the device's, or 128.")
@click.option("--cores", type=int, metavar="N", help="Cores that run items. Default: the device's, or 1.")
@click.option(
    "--grid-order",
    default="head-major",
    metavar="ORDER",
    help="head-major, row-major, longest-first, sections or chunked.",
)
@click.option("--kv-order", default="cyclic", metavar="ORDER", help="cyclic, reverse or sawtooth.")
@answer_options(PICTURES)
def command(fmt: str | None, output: str | None, **options: Any) -> None:
    """Traffic against cache capacity, every size in one pass, with the floors beside it.

    \b
    Examples:
      iosim curve --kernel flash2 --heads 1 --head-dim 128 --seq 4096 --tile 128x64
      iosim curve --heads 1 --head-dim 64 --seq 2048 --mask causal --policy lru,opt
      iosim curve --heads 4 --head-dim 128 --seq 4096 --device h100-sxm5 -o curve.svg
    """
    from iosim.cli.asking import asked_device, asked_kernels, asked_problem, asked_settings, option_inputs
    from iosim.cli.output import Answer, emit
    from iosim.curve_analysis import miss_curve_of_call
    from iosim.errors import UsageError
    from iosim.masks import parse_tile
    from iosim.trace.concurrency import Concurrency

    asked = asked_problem(options)
    device = asked_device(options["device"])
    kernels = asked_kernels(options["kernel"]) or ["split-kv" if asked.problem.phase == "decode" else "flash2"]
    if len(kernels) > 1:
        raise UsageError("curve takes one kernel", "--kernel")
    for name in ("line_bytes", "cores"):
        if options[name] is not None and options[name] < 1:
            raise UsageError(f"must be at least 1, got {options[name]}", "--" + name.replace("_", "-"))
    cores = options["cores"] or (device.cores if device else 1)
    curve = miss_curve_of_call(
        asked.problem,
        device,
        kernels[0],
        parse_tile(options["tile"]) if options["tile"] else None,
        asked_settings(options, kernels),
        options["policy"].split(","),
        options["line_bytes"],
        Concurrency(cores, 1, options["grid_order"], options["kv_order"]),
        options["pack_gqa"],
    )
    inputs = {**asked.inputs, **option_inputs(options), "kernel": kernels[0], "tile": str(curve.schedule.tiling)}
    packed = curve.schedule.tiling.group > 1
    emit(
        Answer(
            command="curve",
            inputs={
                **inputs,
                "policy": options["policy"],
                "line_bytes": curve.line_bytes,
                "cores": cores,
                "pack_gqa": packed,
            },
            result=curve.to_dict(),
            text=lambda: str(curve),
            rows=lambda: [point.to_dict() for point in curve.points],
            assumptions=[f"replayed by {curve.method}", *curve.schedule.notes, *asked.notes],
            provenance={"device_sha256": device.sha256 if device else None},
            picture=curve.plot,
        ),
        fmt,
        output,
    )
