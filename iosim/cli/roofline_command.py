"""iosim roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.problem_options import (
    PICTURES,
    answer_options,
    device_options,
    kernel_options,
    no_replay_option,
    problem_options,
)

if TYPE_CHECKING:
    from iosim.machine import Device
    from iosim.timing import Roofline


@click.command("roofline")
@problem_options
@device_options
@kernel_options
@no_replay_option
@answer_options(PICTURES)
def command(fmt: str | None, output: str | None, **options: Any) -> None:
    """Intensity of each kernel at each boundary against the device's ceilings.

    \b
    Examples:
      iosim roofline
      iosim roofline --kernel flash2,flash3 --seq 16384 -o roofline.svg
      iosim roofline --phase decode --seq-kv 32768 --batch 8 --format csv
    """
    from iosim.analysis import analyze
    from iosim.cli.asking import asked_call, asked_options, option_inputs
    from iosim.cli.output import Answer, emit
    from iosim.cli.settled import settled_inputs
    from iosim.errors import UsageError
    from iosim.kernels.usual import usual_kernels
    from iosim.render.plots import plot_roofline
    from iosim.schedule import OTHER_FUNCTIONS
    from iosim.timing import roofline_of

    asked, device, named = asked_call(options)
    if device is None:
        raise UsageError("a roofline needs a device", "--device", "`iosim hardware list` shows them")
    kernels = named or usual_kernels(asked.problem, device, options["tile"] is not None)[0]
    report = analyze(asked.problem, device, named, asked_options(options, kernels))
    crossings = [
        (kernel.name, name, size)
        for kernel in report.kernels
        for name, size in [
            ("shared", kernel.schedule.work.shared_bytes),
            *((at.name, at.total_bytes) for at in kernel.boundaries),
        ]
    ]
    flop = {
        kernel.name: kernel.schedule.work.flop
        if kernel.schedule.algorithm_class in OTHER_FUNCTIONS
        else asked.problem.flop()
        for kernel in report.kernels
    }
    roofline = roofline_of(device, asked.problem.types.q, flop, crossings)
    emit(
        Answer(
            command="roofline",
            inputs=settled_inputs(report, {**asked.inputs, **option_inputs(options), "kernel": ",".join(kernels)}),
            result={
                "ceilings": [ceiling.to_dict() for ceiling in roofline.ceilings],
                "points": [point.to_dict() for point in roofline.points],
            },
            text=lambda: _text(device, roofline),
            rows=lambda: [point.to_dict() for point in roofline.points],
            assumptions=[*report.assumptions, *asked.notes],
            provenance=report.provenance(),
            picture=lambda: plot_roofline(roofline, asked.problem, device),
        ),
        fmt,
        output,
    )


def _text(device: Device, roofline: Roofline) -> str:
    from iosim.render.report_text import slower_side
    from iosim.render.text import table
    from iosim.units import si

    ceilings = [
        [c.name, si(c.flop_per_s, "FLOP/s") if c.flop_per_s else si(c.bytes_per_s or 0.0, "B/s")]
        for c in roofline.ceilings
    ]
    points = [
        [p.kernel, slower_side(device, p.boundary), f"{p.intensity_flop_per_byte:,.1f}",
         si(p.attainable_flop_per_s, "FLOP/s") if p.attainable_flop_per_s else "-"]
        for p in roofline.points
    ]  # fmt: skip
    return (
        f"{device.name}\n\n{table(['ceiling', 'rate'], ceilings)}\n\n"
        + table(["kernel", "into", "FLOP per byte", "attainable"], points, left=2)
        + "\n\n  useful FLOP over the bytes that cross the boundary; attainable is the lower of both ceilings"
    )
