"""From parsed options to the library's objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from iosim.errors import IosimError, UsageError
from iosim.machine import Device, load_device
from iosim.masks import parse_tile
from iosim.problem_builder import Asked, ask

if TYPE_CHECKING:  # kernels and reports are loaded by the commands that need them
    from iosim.cache.replay_options import ReplayOptions
    from iosim.report import Options

#: `simulate` looks at one kernel and may take ten seconds; a report compares several at once
SIMULATED_TOUCHES = 100_000_000

PROBLEM_KEYS = (
    "network", "heads", "kv_heads", "head_dim", "head_dim_v", "latent", "batch", "phase", "seq", "seq_kv", "mask",
    "dtype", "kv_dtype", "shared_prefix",
)  # fmt: skip


def asked_call(options: dict[str, Any]) -> tuple[Asked, Device | None, list[str] | None]:
    """The problem, the device and the kernels that are named.

    `options` then says which `--dtype` and `--device` the kernels chose: the answer's inputs show them.
    """
    options |= {"dtype": _own_dtype(options), "device": _own_device(options)}
    return asked_problem(options), asked_device(options["device"]), asked_kernels(options["kernel"])


def asked_problem(options: dict[str, Any]) -> Asked:
    """The problem of the shared options; until the command ends, masks that take long say how far they are."""
    import click

    from iosim.cli.progress import mask_progress

    click.get_current_context().with_resource(mask_progress())
    layer = options.get("layer")
    which = int(layer) if layer is not None and layer.lstrip("-").isdigit() else layer
    return ask(layer=which, **{key: options[key] for key in PROBLEM_KEYS})


def asked_device(name: str) -> Device | None:
    """The device of `--device`; None for `none`."""
    return None if name == "none" else load_device(name)


def _own_device(options: dict[str, Any]) -> str:
    """`--device` as typed; else the device that all the named kernels are written for; else the default."""
    from iosim.kernels import load_kernel

    given: str = options["device"]
    names = asked_kernels(options["kernel"])
    if not names or _typed("device"):
        return given
    homes = {load_kernel(name).device for name in names}
    return (homes.pop() if len(homes) == 1 else "") or given


def _own_dtype(options: dict[str, Any]) -> str:
    """`--dtype` as typed; else the one type of all the named kernels where none computes in the default; else that."""
    from iosim.kernels import load_kernel

    given: str = options["dtype"]
    names = asked_kernels(options["kernel"])
    if not names or _typed("dtype"):
        return given
    types = {load_kernel(name).types for name in names}
    (first, *others) = types.pop() or (given,)
    return given if types or others else first


def _typed(name: str) -> bool:
    """Whether an option is on the command line."""
    import click
    from click.core import ParameterSource

    return click.get_current_context().get_parameter_source(name) is not ParameterSource.DEFAULT


def asked_kernels(text: str | None) -> list[str] | None:
    """Names of `--kernel`, each once.

    Raises:
        UsageError: an empty or unknown name. FileError: a broken file.
    """
    if text is None:
        return None
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise UsageError(f"{text!r} has an empty name", "--kernel", "names joined by commas")
    names = list(dict.fromkeys(names))
    _check_kernels(names)
    return names


def _check_kernels(names: Sequence[str]) -> None:
    """Every name that is none, and every broken file, at once."""
    from iosim.kernels import load_kernel

    errors: list[IosimError] = []
    for name in names:
        try:
            load_kernel(name)
        except IosimError as error:
            errors.append(error)
    if errors:
        raise type(errors[0])(faults=[fault for error in errors for fault in error.faults])


def asked_settings(options: dict[str, Any], kernels: Sequence[str]) -> dict[str, object]:
    """`--set`, `--no-lse` and `--no-init` as parameters; the two flags only where a kernel knows them."""
    from iosim.kernels import load_kernel

    settings: dict[str, object] = {}
    for text in options["settings"]:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(f"{text!r} is not name=value", "--set", "for example --set splits=8")
        settings[name] = value
    known = {parameter.name for name in kernels for parameter in load_kernel(name).algorithm.parameters}
    for flag, name in (("no_lse", "lse"), ("no_init", "init")):
        if options[flag] and name in known:
            settings[name] = False
    return settings


def asked_options(options: dict[str, Any], kernels: Sequence[str]) -> Options:
    """Everything else."""
    from iosim.report import Options
    from iosim.units import parse

    settings = asked_settings(options, kernels)
    measured = options.get("measured")
    if measured is not None and measured.strip()[-1:].isdigit():
        raise UsageError(f"{measured!r} has no unit", "--measured", "write a time like 1.3ms")
    seconds = parse(measured, "s", "--measured") if measured is not None else None
    if seconds is not None and seconds <= 0:
        raise UsageError(f"must be above 0, got {measured}", "--measured")
    return Options(
        tile=parse_tile(options["tile"]) if options["tile"] else None,
        settings=settings,
        pack_gqa=options["pack_gqa"],
        warm=options["l2"] == "warm",
        lse_output=options["lse_output"],
        measured_s=seconds,
        replay=asked_replay(options),
    )


def asked_replay(options: dict[str, Any]) -> ReplayOptions:
    """How the schedule runs."""
    from iosim.cache.replay_options import ReplayOptions
    from iosim.units import parse

    capacity = options.get("capacity")
    size = int(parse(capacity, "bytes", "--capacity")) if capacity is not None else None
    if size is not None and size < 1:
        raise UsageError(f"must be at least 1 byte, got {capacity}", "--capacity", "such as 50MiB")
    for name in ("cores", "residency"):
        if options.get(name) is not None:
            _check_slots(options[name], f"--{name}")
    return ReplayOptions(
        capacity_bytes=size,
        cores=options.get("cores"),
        residency=options.get("residency"),
        grid_order=options.get("grid_order"),
        kv_order=options.get("kv_order"),
        policy=asked_policy(options.get("policy") or "lru"),
        closed_form=bool(options.get("no_replay")),
        most_touches=SIMULATED_TOUCHES if "policy" in options else ReplayOptions().most_touches,
    )


def _check_slots(count: int, option: str) -> None:
    from iosim.trace.concurrency import MOST_SLOTS  # late: it loads numpy

    if not 1 <= count <= MOST_SLOTS:
        raise UsageError(f"must be 1 to {MOST_SLOTS:,}, got {count:,}", option)


def asked_policy(text: str) -> str:
    """A replacement policy by name; anything but lru is checked by the cache room itself.

    Raises:
        UsageError: unknown, with the nearest name.
    """
    if text != "lru":
        from iosim.cache.policies import policy

        policy(text)
    return text


def option_inputs(options: dict[str, Any]) -> dict[str, object]:
    """The other choices, for the envelope."""
    names = (
        "device", "l2", "kernel", "tile", "pack_gqa", "no_lse", "no_init", "lse_output", "measured", "capacity", "cores",
        "residency", "grid_order", "kv_order", "policy", "no_replay", "exchange", "devices", "offload",
        "resident_fraction", "link", "link_latency", "far",
    )  # fmt: skip
    made = {name: options[name] for name in names if name in options}
    if "settings" in options:
        made["set"] = list(options["settings"])
    return made
