"""iosim explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.problem_options import device_options, output_options, problem_options

if TYPE_CHECKING:
    from iosim.render.topics import Topic


@click.command("explain")
@click.argument("topic", required=False)
@problem_options
@device_options
@output_options
def command(topic: str | None, fmt: str | None, output: str | None, **options: Any) -> None:
    """What a number means: statement, formula with the numbers put in, conditions, source.

    \b
    Examples:
      iosim explain
      iosim explain L1 --network llama-3-8b --seq 32768
      iosim explain gap
      iosim explain scores
      iosim explain flash2
    """
    from iosim.cli.output import Answer, emit
    from iosim.errors import UsageError, did_you_mean
    from iosim.kernels import kernel_names
    from iosim.links import EXCHANGES
    from iosim.masks import MASKS
    from iosim.render.topics import TOPICS, WORDS

    known = {name.lower(): name for name in TOPICS} | dict.fromkeys(EXCHANGES, "exchange")
    known |= {word.lower(): name for word, name in WORDS.items()}
    if topic is None:
        result, text = _index(TOPICS, kernel_names(), list(MASKS))
    elif topic.lower() in known:
        result, text = _topic(known[topic.lower()], TOPICS[known[topic.lower()]], options)
    elif topic in kernel_names():
        result, text = _kernel(topic)
    elif topic in MASKS:
        result, text = _mask(topic)
    else:
        names = [*TOPICS, *EXCHANGES, *kernel_names(), *MASKS]
        hint = did_you_mean(topic, [*names, *WORDS], names, "iosim explain")
        raise UsageError(f"nothing is known about {topic!r}", "TOPIC", hint)
    emit(Answer("explain", {"topic": topic}, result, lambda: text, lambda: [result]), fmt, output)


def _index(topics: dict[str, Topic], kernels: list[str], masks: list[str]) -> tuple[dict[str, object], str]:
    from iosim.render.topics import WORDS

    lines = [f"  {name:12} {topic.title}" for name, topic in topics.items()]
    text = "topics\n" + "\n".join(lines) + "\n\nwords of a report\n  " + "  ".join(WORDS)
    text += "\n\nkernels\n  " + "  ".join(kernels) + "\n\nmasks\n  " + "  ".join(masks) + "  and(M;M)  or(M;M)  not(M)"
    result: dict[str, object] = {
        "topics": {name: topic.title for name, topic in topics.items()},
        "words": WORDS,
        "kernels": kernels,
        "masks": masks,
    }
    return result, text


def _topic(name: str, topic: Topic, options: dict[str, Any]) -> tuple[dict[str, object], str]:
    from iosim.render.text import wrapped
    from iosim.render.topics import SYMBOLS

    numbers = _numbers(name, options)
    parts = [f"{name}: {topic.title}", "", wrapped([topic.statement], "")]
    if topic.formula:
        parts += ["", f"  {topic.formula}"]
        if name.startswith("L") and name != "L0":
            parts.append(f"  {SYMBOLS}")
    if topic.conditions:
        parts += ["", "holds when", wrapped(topic.conditions, "  - ")]
    if numbers:
        parts += ["", "with numbers", *(f"  {line}" for line in numbers)]
    parts += ["", f"source: {topic.source}"]
    result: dict[str, object] = {
        "topic": name,
        "title": topic.title,
        "statement": topic.statement,
        "formula": topic.formula,
        "conditions": list(topic.conditions),
        "numbers": numbers,
        "source": topic.source,
    }
    return result, "\n".join(parts)


def _numbers(name: str, options: dict[str, Any]) -> list[str]:
    """The formula's values for the problem of the options, at every boundary of the device."""
    from iosim.analysis import boundaries_of, device_memory
    from iosim.cli.asking import asked_device, asked_problem
    from iosim.floors import attention_floors, time_floor
    from iosim.render.problem_text import problem_line
    from iosim.render.text import byte_count, seconds
    from iosim.units import si

    if not name.startswith("L") and name != "time_floor":
        return []
    if name in ("L6", "L7") and options["phase"] == "prefill":
        options = {**options, "phase": "backward"}
    problem, device = asked_problem(options).problem, asked_device(options["device"])
    if device is None:
        return []
    lines = [problem_line(problem) + f", {device.name}"]
    if name == "time_floor":
        floor = time_floor(problem, device, options["l2"] == "warm")
        return [
            *lines,
            f"{si(floor.flop, 'FLOP')} / {si(floor.peak_flop_per_s, 'FLOP/s')} = {seconds(floor.compute_s)}",
            f"{byte_count(floor.read_bytes + floor.write_bytes)} / {si(floor.bandwidth_bytes_per_s, 'B/s')}"
            f" = {seconds(floor.memory_s)}",
            f"time floor = {seconds(floor.time_s)}",
        ]
    counts, shape = problem.counts(), problem.shape
    lines.append(
        f"P = {counts.pairs_ok:,}, d = {shape.head_dim}, d_v = {shape.head_dim_v}, e = {problem.pair_elements}"
    )
    for boundary in boundaries_of(device):
        floors = attention_floors(
            problem, device_memory(device, boundary), options["l2"] == "warm" and boundary == "hbm"
        )
        for bound in floors.bounds:
            if bound.id.startswith(name):
                value = (
                    f"{bound.value_elements:,} elements, {byte_count(bound.value_bytes)}"
                    if bound.applies
                    else "does not apply"
                )
                lines.append(f"{boundary}: M = {bound.memory_elements:,} -> {bound.id} {bound.counts} >= {value}")
    return lines


def _kernel(name: str) -> tuple[dict[str, object], str]:
    import sys

    from iosim.kernels import load_kernel

    kernel = load_kernel(name)
    algorithm = kernel.algorithm
    formula = (sys.modules[algorithm.launches.__module__].__doc__ or "").strip()
    parameters = [f"  {p.name:11} default {p.default!s:8} {p.meaning}" for p in algorithm.parameters]
    tiles = [
        f"  {rule.tiling!s:10} head size {'up to ' + str(rule.head_dim) if rule.head_dim else 'any'}"
        + (f", of values up to {rule.head_dim_v}" if rule.head_dim_v else "")
        + (f", queries x group up to {rule.rows}" if rule.rows else "")
        + (f", elements up to {rule.bits} bits" if rule.bits else "")
        + (f", {'/'.join(rule.architectures)}" if rule.architectures else "")
        + (f", compute capability {'/'.join(rule.capabilities)}" if rule.capabilities else "")
        + (f", mask {'/'.join(rule.masks)}" if rule.masks else "")
        + (" (assumed)" if rule.assumed else "")
        for rule in kernel.rules
    ]
    text = "\n".join(
        [f"{name}: {kernel.title}", "", formula, "", f"class: {algorithm.algorithm_class}",
         f"phases: {', '.join(algorithm.phases)}", "parameters (--set)", *parameters,
         f"tiles, first match ({kernel.source})", *tiles]
    )  # fmt: skip
    result: dict[str, object] = {
        "kernel": name,
        "title": kernel.title,
        "algorithm": algorithm.name,
        "class": algorithm.algorithm_class,
        "formula": formula,
        "parameters": {p.name: {"default": p.default, "meaning": p.meaning} for p in algorithm.parameters},
        "tiles": [str(rule.tiling) for rule in kernel.rules],
        "source": kernel.source,
    }
    return result, text


def _mask(name: str) -> tuple[dict[str, object], str]:
    import inspect

    from iosim.masks import MASKS

    about = inspect.getdoc(MASKS[name]) or ""
    return {
        "mask": name,
        "about": about,
    }, f"{name}: {about}\n\nnotation: NAME[:value][,key=value...], and(M;M), or(M;M), not(M)"
