"""iosim bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from iosim.cli.problem_options import PICTURES, answer_options, device_options, kernel_options, problem_options

if TYPE_CHECKING:
    from iosim.attention import Attention
    from iosim.cli.output import Answer
    from iosim.floors import Bound, Floors, Memory
    from iosim.machine import Device
    from iosim.problem_builder import Asked

MODES = ("curve", "certify", "check", "graph", "linear")


@click.command("bounds")
@problem_options
@device_options
@kernel_options
@click.option("--memory-elements", type=int, metavar="M", help="Fast memory in elements of the narrowest operand.")
@click.option(
    "--boundary",
    type=click.Choice(["core", "l2", "hbm", "host"]),
    help="A boundary of the device. Default: all but host.",
)
@click.option("--held-dtype", metavar="TYPE", help="Narrowest type that values are converted to on chip.")
@click.option("--curve", is_flag=True, help="Floors against memory, with known orders and --kernel's counts.")
@click.option("--certify", metavar="KERNEL", help="How near a kernel is to the floors, as a document to check.")
@click.option("--check", metavar="FILE", help="Derive a certificate again; exit 1 where it does not hold.")
@click.option(
    "--linear", is_flag=True, help="Floors of linear attention, of decoding with a state, or of --kernel's own."
)
@click.option("--graph", metavar="FILE", help="Any computation: an edge list `u v` per line, or GraphML.")
@click.option("--exact", is_flag=True, help="With --graph: an optimal schedule too, for small graphs.")
@click.option("--no-recompute", is_flag=True, help="With --graph: each value is computed at most once.")
@answer_options(PICTURES)
def command(
    memory_elements: int | None,
    fmt: str | None,
    output: str | None,
    **options: Any,
) -> None:
    """Proven lower bounds on what any kernel must move, with class, conditions and source.

    \b
    Examples:
      iosim bounds
      iosim bounds --heads 1 --head-dim 64 --seq 4096 --mask full --memory-elements 65536
      iosim bounds --network llama-3-8b --boundary hbm --l2 warm --format json
      iosim bounds --certify flash2 -o certificate.json
      iosim bounds --check certificate.json
      iosim bounds --curve --heads 1 --head-dim 64 --seq 16384 -o curve.svg
    """
    from iosim.cli.output import emit
    from iosim.errors import UsageError

    chosen = [mode for mode in MODES if options[mode]]
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} exclude each other", f"--{chosen[1]}")
    if memory_elements is not None and memory_elements < 1:
        raise UsageError(f"must be at least 1, got {memory_elements}", "--memory-elements")
    if not options["graph"] and (options["exact"] or options["no_recompute"]):
        raise UsageError("speaks of a graph", "--exact" if options["exact"] else "--no-recompute", "give --graph FILE")
    if options["kernel"] and not (options["curve"] or options["linear"]):
        hint = "--curve draws them, --certify names one, --linear takes the function of one"
        raise UsageError("bounds of softmax attention name no kernel", "--kernel", hint)
    answers = {"curve": _curve, "certify": _certify, "check": _check, "graph": _graph, "linear": _linear}
    answer = answers[chosen[0]] if chosen else _floors
    emit(answer(memory_elements, options), fmt, output)


def _held(options: dict[str, Any]) -> str | None:
    from iosim.attention import dtype

    return dtype(options["held_dtype"], "--held-dtype") if options["held_dtype"] else None


def _inputs(
    asked: Asked, options: dict[str, Any], memory_elements: int | None, memories: list[tuple[str, int]]
) -> dict[str, object]:
    """Every choice; of (boundary, bits of its memory) those of the device where nobody typed a memory."""
    from iosim.cli.asking import option_inputs
    from iosim.cli.settled import settled_memory

    chosen = settled_memory(asked.problem, memory_elements, options["boundary"], memories)
    return {**asked.inputs, **option_inputs(options), **chosen, "held_dtype": _held(options)}


def _memories(asked: Asked, options: dict[str, Any], memory_elements: int | None) -> tuple[Device | None, list[Memory]]:
    """The memories asked for: one as given, or the device's."""
    from iosim.errors import UsageError
    from iosim.floors import Memory
    from iosim.floors.bound import narrowest_bits

    if memory_elements is not None:
        if options["boundary"]:
            raise UsageError("give a boundary or a memory, not both", "--boundary")
        return None, [Memory("given", memory_elements * narrowest_bits(asked.problem))]
    from iosim.analysis import boundaries_of, device_memory
    from iosim.cli.asking import asked_device

    device = asked_device(options["device"])
    if device is None:
        raise UsageError("without a device the memory must be given", "--memory-elements", "for example 65536")
    names = [options["boundary"]] if options["boundary"] else boundaries_of(device)
    return device, [device_memory(device, name) for name in names]


def _floors(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from iosim.cli.asking import asked_problem
    from iosim.cli.output import Answer
    from iosim.floors import demand_of, floors_at
    from iosim.render.bounds_text import floors_text
    from iosim.render.problem_text import problem_line

    asked = asked_problem(options)
    device, memories = _memories(asked, options, memory_elements)
    demand = demand_of(asked.problem, options["lse_output"], _held(options))
    warm = options["l2"] == "warm"
    found = [floors_at(demand, memory, warm and memory.boundary in ("hbm", "given")) for memory in memories]
    outermost = found[-1]
    rows = [bound.to_dict() for floors in found for bound in floors.bounds]
    return Answer(
        command="bounds",
        inputs=_inputs(asked, options, memory_elements, [(m.boundary, m.bits) for m in memories]),
        result={
            "bounds": rows,
            "floor_any_elements": outermost.any_elements,
            "floor_standard_elements": outermost.standard_elements,
            "floor_once_elements": outermost.once_elements,
            "floors": [_totals(floors) for floors in found],
        },
        text=lambda: f"{problem_line(asked.problem)}\n{floors_text(found)}",
        rows=lambda: rows,
        assumptions=[
            *(f"memory at {floors.memory.boundary}: {floors.memory.contains}" for floors in found),
            *asked.notes,
        ],
        provenance={"device_sha256": device.sha256 if device else None},
    )


def _totals(floors: Floors) -> dict[str, object]:
    return {
        "boundary": floors.memory.boundary,
        "memory_bytes": floors.memory.bits // 8,
        "processors": floors.memory.processors,
        "floor_any_bytes": floors.any_bytes,
        "floor_standard_bytes": floors.standard_bytes,
        "floor_once_bytes": floors.once_bytes,
        "floor_any_elements": floors.any_elements,
        "floor_standard_elements": floors.standard_elements,
        "floor_once_elements": floors.once_elements,
        "binding": dict(floors.binding),
    }


def _linear(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from iosim.cli.asking import asked_problem
    from iosim.cli.output import Answer
    from iosim.errors import UsageError
    from iosim.render.bounds_text import linear_text
    from iosim.render.problem_text import problem_line

    asked = asked_problem(options)
    problem = asked.problem
    if problem.phase == "backward":
        raise UsageError("no floors of linear attention's backward pass are known", "--phase", "prefill or decode")
    device, memories = _memories(asked, options, memory_elements)
    at = _other_functions(problem, device, memories, options)
    computed = f"what {options['kernel']} computes" if options["kernel"] else "linear attention"
    rows = [bound.to_dict() for _, bounds in at for bound in bounds]
    return Answer(
        command="bounds",
        inputs=_inputs(asked, options, memory_elements, [(m.boundary, m.bits) for m in memories]) | {"linear": True},
        result={"bounds": rows},
        text=lambda: f"{problem_line(problem)}, {computed}\n{linear_text(at)}",
        rows=lambda: rows,
        assumptions=[f"memory at {memory.boundary}: {memory.contains}" for memory, _ in at],
        provenance={"device_sha256": device.sha256 if device else None},
    )


def _other_functions(
    problem: Attention, device: Device | None, memories: list[Memory], options: dict[str, Any]
) -> list[tuple[Memory, tuple[Bound, ...]]]:
    """Floors of a kernel's own function, else of linear attention, or of a state of d x d_v in decode."""
    from iosim.cli.asking import asked_options
    from iosim.errors import UsageError
    from iosim.floors.linear import linear_bounds, own_bounds, state_bounds
    from iosim.kernels import load_kernel, make_schedule

    if kernel := options["kernel"]:
        chosen = asked_options(options, [kernel])
        schedule = make_schedule(problem, device, load_kernel(kernel), chosen.tile, chosen.settings, chosen.pack_gqa)
        found = [(memory, own_bounds(schedule, memory)) for memory in memories]
        if not all(bounds for _, bounds in found):
            what = (
                "approximates attention" if schedule.algorithm_class == "approximate" else "computes softmax attention"
            )
            raise UsageError(f"no floors of its own: {kernel} {what}", "--kernel", "leave --linear out")
        return found
    if problem.phase == "decode":
        return [(memory, state_bounds(problem, memory, problem.shape.head_dim)) for memory in memories]
    return [(memory, linear_bounds(problem, memory)) for memory in memories]


def _certify(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from iosim.certificate import certify
    from iosim.cli.asking import asked_device, asked_options, asked_problem
    from iosim.cli.output import Answer
    from iosim.errors import UsageError
    from iosim.render.bounds_text import certificate_text
    from iosim.render.problem_text import problem_line

    if memory_elements is not None and options["boundary"]:
        raise UsageError("give a boundary or a memory, not both", "--boundary")
    asked = asked_problem(options)
    device = asked_device(options["device"]) if memory_elements is None else None
    kernel = options["certify"]
    certificate = certify(
        asked.problem, kernel, device, asked_options(options, [kernel]),
        memory_elements=memory_elements, boundary=options["boundary"], held=_held(options),
    )  # fmt: skip
    document = certificate.to_dict()
    return Answer(
        command="bounds",
        inputs=_inputs(asked, options, memory_elements, [(c.boundary, c.memory_bits) for c in certificate.claims])
        | {"certify": kernel},
        result={"certificate": document},
        text=lambda: f"{problem_line(asked.problem)}\n{certificate_text(certificate)}",
        rows=lambda: document["claims"],
        assumptions=asked.notes,
        provenance={"device_sha256": device.sha256 if device else None},
    )


def _check(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from pathlib import Path

    from iosim.certificate_check import check_certificate, read_certificate
    from iosim.cli.output import Answer
    from iosim.errors import CheckError
    from iosim.render.bounds_text import certificate_text

    path = Path(options["check"])
    derived, faults = check_certificate(read_certificate(path), str(path))
    if faults:
        raise CheckError(faults=faults)
    claims = derived.to_dict()["claims"]
    return Answer(
        command="bounds",
        inputs={"check": str(path)},
        result={"holds": True, "claims": claims},
        text=lambda: f"{path} holds; derived again\n{certificate_text(derived)}",
        rows=lambda: claims,
    )


def _curve(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from iosim.cli.asking import asked_device, asked_problem
    from iosim.cli.bounds_curve import curve_of
    from iosim.cli.output import Answer
    from iosim.render.bounds_text import curve_text

    asked = asked_problem(options)
    device = asked_device(options["device"])
    places, curve = curve_of(asked.problem, device, options, memory_elements, _held(options))

    def picture() -> object:
        from iosim.render.bounds_plot import plot_curve

        return plot_curve(curve, places)

    return Answer(
        command="bounds",
        inputs=_inputs(asked, options, curve.memory_elements[-1], []) | {"curve": True},
        result={"curve": curve.to_dict(), "places": [{"name": name, "memory_elements": at} for name, at in places]},
        text=lambda: curve_text(curve, places),
        rows=curve.rows,
        assumptions=[
            "one memory; every value is one word of the narrowest type; orders and kernels hold what they use"
        ],
        provenance={"device_sha256": device.sha256 if device else None},
        picture=picture,
    )


def _graph(memory_elements: int | None, options: dict[str, Any]) -> Answer:
    from iosim.cli.bounds_graph import graph_answer
    from iosim.errors import UsageError

    if memory_elements is None:
        raise UsageError("a graph needs the size of its fast memory", "--memory-elements", "for example 8")
    return graph_answer(options["graph"], memory_elements, options["exact"], not options["no_recompute"])
