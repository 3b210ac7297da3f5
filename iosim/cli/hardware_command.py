"""iosim hardware."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from iosim.cli.completions import complete_device
from iosim.cli.problem_options import output_options

if TYPE_CHECKING:
    from iosim.errors import Fault
    from iosim.machine import Device
    from iosim.machine_parts import Conflict


@click.group("hardware")
def command() -> None:
    """Devices: list, show, start a new one, check the numbers.

    \b
    Examples:
      iosim hardware list
      iosim hardware show h100-sxm5
      iosim hardware new my-chip.toml
      iosim hardware check
    """


@command.command("list")
@output_options
def list_devices(fmt: str | None, output: str | None) -> None:
    """Every device with its main numbers."""
    from iosim.cli.output import Answer, emit
    from iosim.machine import device_names, load_device

    rows = [_summary(load_device(name)) for name in device_names()]
    emit(Answer("hardware", {"action": "list"}, {"devices": rows}, lambda: _list_text(rows), lambda: rows), fmt, output)


def _summary(device: Device) -> dict[str, object]:
    from iosim.errors import AbsentError

    def known(rate: object) -> object:
        try:
            return rate()  # type: ignore[operator]
        except AbsentError:
            return None

    cache = known(lambda: device.cache_before("hbm"))
    return {
        "device": device.key,
        "name": device.name,
        "architecture": device.architecture,
        "cores": device.cores,
        "peak_bf16_flop_per_s": known(lambda: device.rated_flop_per_s("bf16")),
        "cache_bytes": getattr(cache, "capacity_bytes", None),
        "hbm_bytes": known(lambda: device.level("hbm").capacity_bytes),
        "hbm_bytes_per_s": known(lambda: device.bandwidth_bytes_per_s("hbm")),
    }


def _list_text(rows: list[dict[str, object]]) -> str:
    from iosim.render.text import capacity, table
    from iosim.units import si

    def rate(value: object, unit: str) -> str:
        return si(float(value), unit) if isinstance(value, int | float) else "-"

    cells = [
        [str(row["device"]), str(row["architecture"]), str(row["cores"]), rate(row["peak_bf16_flop_per_s"], "FLOP/s"),
         capacity(row["cache_bytes"] if isinstance(row["cache_bytes"], int) else None), rate(row["hbm_bytes"], "B"),
         rate(row["hbm_bytes_per_s"], "B/s")]
        for row in rows
    ]  # fmt: skip
    return table(["device", "architecture", "cores", "bf16 dense", "last cache", "memory", "bandwidth"], cells, left=2)


@command.command("show")
@click.argument("device", shell_complete=complete_device)
@output_options
def show(device: str, fmt: str | None, output: str | None) -> None:
    """One device: every number with its source."""
    from iosim.cli.output import Answer, emit
    from iosim.machine import load_device

    loaded = load_device(device)
    rows = [{"fact": path, **_fields(fact)} for path, fact in loaded.facts.items()]
    result = {"device": _summary(loaded), "facts": rows, "conflicts": [_conflict(c) for c in loaded.conflicts],
              "notes": list(loaded.notes)}  # fmt: skip
    emit(
        Answer("hardware", {"action": "show", "device": loaded.key}, result, lambda: _show_text(loaded), lambda: rows,
               provenance={"device_sha256": loaded.sha256}),
        fmt,
        output,
    )  # fmt: skip


def _fields(row: object) -> dict[str, object]:
    return {name: getattr(row, name) for name in type(row).__dataclass_fields__}  # type: ignore[attr-defined]


def _conflict(conflict: Conflict) -> dict[str, object]:
    return {**_fields(conflict), "values": [_fields(fact) for fact in conflict.values]}


UNITS = {"bytes": "B", "bytes_per_s": "B/s", "flop_per_s": "FLOP/s", "hz": "Hz", "s": "s", "op_per_s": "op/s", "w": "W"}


def _quantity(number: float, unit: str) -> str:
    from iosim.units import binary_bytes, si

    if unit == "bytes" and number < 1 << 30:
        return binary_bytes(int(number))
    if unit in UNITS:
        return si(number, UNITS[unit])
    return f"{number:g} {unit.replace('_per_', '/')}".replace(" count", "")


def _conflict_text(conflict: Conflict) -> str:
    """What each source says, what is used, and why."""
    said = [f"{_quantity(fact.value, fact.unit)} ({fact.source})" for fact in conflict.values]
    used = _quantity(conflict.used, conflict.values[0].unit) if conflict.values else f"{conflict.used:g}"
    return f"{conflict.field}: {', '.join(said)}; used: {used}. {conflict.why}"


def _show_text(device: Device) -> str:
    from iosim.render.text import table, wrapped

    head = f"{device.name} ({device.key}): {device.vendor}, {device.architecture}, {device.cores} cores"
    rows = [[path, _quantity(fact.value, fact.unit), fact.kind, fact.source] for path, fact in device.facts.items()]
    parts = [head, "", table(["fact", "value", "kind", "source"], rows, left=4)]
    if device.conflicts:
        parts += ["", "conflicts"]
        parts += [wrapped([_conflict_text(conflict) for conflict in device.conflicts], "  - ")]
    if device.notes:
        parts += ["", "notes", wrapped(device.notes, "  - ")]
    return "\n".join(parts)


@command.command("new")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@click.option("--probe", "probing", is_flag=True, help="Measure this machine's processor and write what was found.")
@click.option("--cores", type=click.IntRange(min=1), metavar="N", help="With --probe: cores at work. Default: all.")
def new(file: Path, force: bool, probing: bool, cores: int | None) -> None:
    """Start a device file of your own; then `iosim report --device FILE`.

    A commented template, or with --probe what this machine's processor has and does: caches, bandwidths, arithmetic.

    \b
    Examples:
      iosim hardware new my-chip.toml
      iosim hardware new this-machine.toml --probe
    """
    from iosim.cli.output import write_whole
    from iosim.errors import FileError, UsageError
    from iosim.machine import device_template

    if file.is_dir():
        raise FileError("is a directory", str(file), "name a file")
    if file.suffix != ".toml":
        raise UsageError(f"a device file ends with .toml, got {file.name!r}", "FILE")
    if cores and not probing:
        raise UsageError("cores are counted with --probe only", "--cores")
    if file.exists() and not force:
        raise FileError("exists already", str(file), "use --force to overwrite it")
    if probing:
        write_whole(file, _probed(cores).encode())
        click.echo(f"wrote {file}; iosim report --device {file} --dtype fp32", err=True)
        return
    write_whole(file, device_template(file.stem).encode())
    click.echo(f"wrote {file}; fill it in, then: iosim hardware check {file}", err=True)


def _probed(cores: int | None) -> str:
    from iosim.cli.progress import end_line, progress_line
    from iosim.measure.probe_file import probed_text
    from iosim.measure.system import read_system

    system = read_system()
    for what in system.missing:
        click.echo(f"not readable here: {what}", err=True)
    text = probed_text(system, cores, progress_line())
    end_line()
    return text


@command.command("check")
@click.argument("devices", nargs=-1, shell_complete=complete_device)
@output_options
def check(devices: tuple[str, ...], fmt: str | None, output: str | None) -> None:
    """Find dense/sparse and MAC/FLOP slips and levels out of order. Exit 1 when there are any.

    Without names it checks every device.
    """
    from iosim.cli.output import Answer, emit
    from iosim.errors import CheckError
    from iosim.machine import check_device, device_names, load_device

    names = devices or tuple(device_names())
    found: dict[str, list[Fault]] = {name: check_device(load_device(name)) for name in names}
    faults = [fault for each in found.values() for fault in each]
    rows: list[dict[str, object]] = [
        {"device": name, "what": fault.what, "where": fault.where} for name, each in found.items() for fault in each
    ]
    if faults:
        raise CheckError(faults=faults)
    emit(
        Answer("hardware", {"action": "check", "devices": list(names)}, {"checked": len(names), "faults": rows},
               lambda: f"{len(names)} device{'s' if len(names) != 1 else ''} checked, no slips found", lambda: rows),
        fmt,
        output,
    )  # fmt: skip
