"""iosim simulate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.problem_options import (
    device_options,
    kernel_options,
    output_options,
    problem_options,
    replay_options,
)

if TYPE_CHECKING:
    from iosim.report import KernelReport, Report


@click.command("simulate")
@problem_options
@device_options
@kernel_options
@replay_options
@output_options
def command(fmt: str | None, output: str | None, **options: Any) -> None:
    """One kernel's schedule: exact counts and the bytes at each boundary.

    \b
    Examples:
      iosim simulate --kernel flash2 --heads 1 --head-dim 64 --seq 1024 --tile 128x128
      iosim simulate --kernel split-kv --phase decode --seq-kv 65536 --set splits=16
      iosim simulate --kernel flash2 --seq 65536 --heads 1 --head-dim 128 --capacity 20MiB --kv-order sawtooth
      iosim simulate --kernel unfused --set passes=3 --device none --format json
    """
    from iosim.analysis import analyze
    from iosim.cli.asking import asked_call, asked_options, option_inputs
    from iosim.cli.output import Answer, emit
    from iosim.cli.settled import settled_inputs
    from iosim.errors import UsageError

    asked, device, named = asked_call(options)
    kernels = named or ["split-kv" if asked.problem.phase == "decode" else "flash2"]
    if len(kernels) > 1:
        raise UsageError("simulate takes one kernel", "--kernel", "`iosim report` compares several")
    report = analyze(asked.problem, device, kernels, asked_options(options, kernels))
    kernel = report.kernels[0]
    inputs = settled_inputs(report, {**asked.inputs, **option_inputs(options), "kernel": kernels[0]})
    emit(
        Answer(
            command="simulate",
            inputs=inputs | {"parameters": kernel.schedule.settled},
            result={"counts": counts(kernel), "boundaries": [at.to_dict() for at in kernel.boundaries],
                    "launches": [_launch(launch) for launch in kernel.schedule.launches],
                    **({"pages": [cost.to_dict() for cost in kernel.pages]} if kernel.pages else {})},
            text=lambda: _text(report),
            rows=report.rows,
            assumptions=[*report.assumptions, *asked.notes],
            provenance=report.provenance(),
        ),
        fmt,
        output,
    )  # fmt: skip


def counts(kernel: KernelReport) -> dict[str, object]:
    """The contract's `counts`: what crosses into the cores, and the arithmetic."""
    traffic, work = kernel.schedule.traffic, kernel.schedule.work
    return {
        "read_elements": traffic.read_elements,
        "write_elements": traffic.write_elements,
        "tile_pairs": work.tile_pairs,
        "flop": work.flop,
        "flop_executed": work.flop_executed,
        "exp": work.exp,
        "exp_rescale": work.exp_rescale,
        "per_tensor": traffic.per_tensor(),
    }


def _launch(launch: Any) -> dict[str, object]:
    return {
        "name": launch.name,
        "items": launch.items,
        "times": launch.times,
        "read_elements": launch.traffic.read_elements,
        "write_elements": launch.traffic.write_elements,
    }


def _in_words(launch: Any) -> str:
    times = f"{launch.times:,} times " if launch.times > 1 else ""
    return f"{launch.name} ({times}{launch.items:,} items)"


def _text(report: Report) -> str:
    from iosim.render.problem_text import problem_line
    from iosim.render.report_text import slower_side
    from iosim.render.text import byte_count, capacity, ratio, table, wrapped

    kernel = report.kernels[0]
    schedule = kernel.schedule
    where = f" on {report.device.name}" if report.device else ", one core"
    lines = [problem_line(report.problem), f"{schedule.kernel}, tile {schedule.tiling}{where}", ""]
    rows = [
        [m.tensor, f"{m.read_elements:,}", f"{m.write_elements:,}", byte_count(m.read_bytes), byte_count(m.write_bytes)]
        for m in schedule.traffic.moved
    ]
    total = schedule.traffic
    rows.append(["all", f"{total.read_elements:,}", f"{total.write_elements:,}", byte_count(total.read_bytes),
                 byte_count(total.write_bytes)])  # fmt: skip
    lines += [table(["into the cores", "read elements", "written elements", "read", "written"], rows), ""]
    work = schedule.work
    lines += [
        f"tile pairs {work.tile_pairs:,}, FLOP {work.flop:,} useful and {work.flop_executed:,} executed,",
        f"exponentials {work.exp:,} of scores and {work.exp_rescale:,} of running maxima",
        "launches: " + ", ".join(map(_in_words, schedule.launches)),
        "",
    ]
    bounds = [
        [slower_side(report.device, at.name), capacity(at.capacity_bytes), byte_count(at.traffic.read_bytes), byte_count(at.traffic.write_bytes),
         ratio(at.gap("any")), ("" if at.exact else "~ ") + at.method]
        for at in kernel.boundaries
    ]  # fmt: skip
    lines.append(table(["boundary", "memory above", "read", "written", "x compulsory", "how"], bounds))
    lines += ["", "assumptions", wrapped(report.assumptions, "  - ")]
    return "\n".join(lines)
