"""iosim report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.link_options import link_options
from iosim.cli.problem_options import (
    PAGE,
    PICTURES,
    answer_options,
    device_options,
    kernel_options,
    no_replay_option,
    problem_options,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from iosim.problem_builder import Asked
    from iosim.report import Report


@click.command("report")
@problem_options
@device_options
@kernel_options
@no_replay_option
@link_options
@click.option("--measured", metavar="TIME", help="Time of your own kernel, such as 1.3ms: how much faster can it get?")
@answer_options((*PICTURES, PAGE))
def command(fmt: str | None, output: str | None, **options: Any) -> None:
    """The whole answer for one attention call: traffic, floors, gaps, time.

    \b
    Examples:
      iosim report
      iosim report --network llama-3-8b --seq 32768 --device a100-sxm-80gb --measured 41ms
      iosim report --heads 16 --head-dim 64 --seq 1024 --batch 64 --mask full --kernel flash2,unfused
      iosim report --network deepseek-v3 --phase decode --seq-kv 32768 --batch 16
      iosim report --devices 8 --exchange ring --seq 65536 --kernel flash3
      iosim report --phase decode --seq-kv 131072 --offload kv --resident-fraction 0.25 --link pcie
      iosim report --phase decode --seq-kv 131072 --batch 16 --offload attention --far xeon-8480
      iosim report -o report.json
      iosim report --kernel flash2,flash3 -o report.html
    """
    from dataclasses import replace

    from iosim.analysis import analyze
    from iosim.cli.asking import asked_call, asked_options, option_inputs
    from iosim.cli.link_options import asked_link
    from iosim.cli.output import Answer, emit
    from iosim.cli.settled import settled_inputs
    from iosim.kernels.usual import usual_kernels

    asked, device, named = asked_call(options)
    link = asked_link(options)
    usual = named or usual_kernels(asked.problem, device, options["tile"] is not None)[0]
    asked_for = replace(asked_options(options, list(usual)), link=link)
    report = analyze(asked.problem, device, named, asked_for)
    refuse_impossible(report)
    shown = ",".join(kernel.name for kernel in report.kernels) if link.asked else ",".join(usual)
    inputs = settled_inputs(report, {**asked.inputs, **option_inputs(options), "kernel": shown})
    emit(
        Answer(
            command="report",
            inputs=inputs,
            result=report.to_dict(),
            text=lambda: _titled(_title(asked, options), report),
            rows=report.rows,
            assumptions=[*report.assumptions, *asked.notes],
            provenance={**report.provenance(), **({"network_sha256": asked.sha256} if asked.sha256 else {})},
            picture=report.plot,
            page=lambda: _page(report, asked, options),
        ),
        fmt,
        output,
    )


def refuse_impossible(report: Report) -> None:
    """A measured time below the floor means that one of the two is not what it seems.

    Raises:
        CheckError: the floor is violated.
    """
    from iosim.errors import CheckError
    from iosim.render.text import seconds

    measured, floor = report.options.measured_s, report.floor
    if measured is not None and floor is not None and measured < floor.time_s:
        raise CheckError(
            f"{seconds(measured)} is below the time floor of {seconds(floor.time_s)}",
            "--measured",
            "another shape, mask or type, a warm cache (--l2 warm), sparse units, or a clock above the device file's",
        )


def _page(report: Report, asked: Asked, options: Mapping[str, Any]) -> str:
    from iosim.render.report_html import report_page

    return report_page(report, _title(asked, options), asked.notes)


#: option -> what it changes of a network's layer, for the title
CHANGES = {
    "heads": "{} heads",
    "kv_heads": "{} key/value heads",
    "head_dim": "head size {}",
    "head_dim_v": "value size {}",
}


def _titled(title: str, report: Report) -> str:
    return f"{title}\n{report}" if title else str(report)


def _title(asked: Asked, options: Mapping[str, Any]) -> str:
    """The layer of a network; nothing where no network is asked for."""
    name, layer = asked.inputs.get("network"), asked.inputs.get("layer")
    changed = [words.format(options[key]) for key, words in CHANGES.items() if options[key] is not None]
    own = f" with {', '.join(changed)}" if changed else ""
    return f"{name} ({layer} layers){own}, one layer" if name else ""
