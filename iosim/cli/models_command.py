"""iosim models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from iosim.cli.completions import complete_network
from iosim.cli.problem_options import output_options

if TYPE_CHECKING:
    from iosim.networks import LayerKind, Network


#: in place of an algorithm: what `iosim speedup` counts with
TILE_LIST = "tile list of speedup"


@click.group("models")
def command() -> None:
    """Networks, kernels and workloads: list, show, import a config.json.

    \b
    Examples:
      iosim models list
      iosim models show gemma-3-27b
      iosim models import config.json -o my-model.toml
      iosim models kernels
    """


@command.command("list")
@output_options
def list_networks(fmt: str | None, output: str | None) -> None:
    """Every network of the catalogue, a row per kind of layer."""
    from iosim.cli.output import Answer, emit
    from iosim.networks import load_network, network_names

    rows = [row for name in network_names() for row in _rows(load_network(name))]
    emit(Answer("models", {"action": "list"}, {"networks": rows}, lambda: _text(rows), lambda: rows), fmt, output)


def _rows(network: Network) -> list[dict[str, object]]:
    return [
        {
            "network": network.key,
            "family": network.family,
            "layers": kind.name,
            "count": kind.count,
            "missing": ", ".join(kind.missing),
            **_geometry(kind, "prefill"),
        }
        for kind in network.layers
    ]


def _geometry(kind: LayerKind, phase: str) -> dict[str, object]:
    geometry = kind.decode if phase == "decode" else kind.prefill
    return {name: getattr(geometry, name) for name in type(geometry).__dataclass_fields__}


def _text(rows: list[dict[str, object]]) -> str:
    from iosim.render.text import table

    cells = []
    previous = None
    for row in rows:
        layout = row["layout"]
        tokens = "x".join(map(str, layout)) if isinstance(layout, tuple) else "-"
        size = (
            str(row["head_dim"]) if row["head_dim"] == row["head_dim_v"] else f"{row['head_dim']}/{row['head_dim_v']}"
        )
        known = not row["missing"]
        cells.append(
            [str(row["network"]) if row["network"] != previous else "", str(row["family"]), str(row["layers"]),
             str(row["mask"]) if known else f"unknown: {row['missing']}", str(row["count"]),
             f"{row['heads']}/{row['kv_heads']}" if known else "-", size if known else "-", tokens]
        )  # fmt: skip
        previous = row["network"]
    return table(["network", "family", "layers", "mask", "count", "heads/kv", "head size", "tokens"], cells, left=4)


@command.command("show")
@click.argument("network", shell_complete=complete_network)
@output_options
def show(network: str, fmt: str | None, output: str | None) -> None:
    """One network: its layers in prefill and decode, its source, what was filled in."""
    from iosim.cli.output import Answer, emit
    from iosim.networks import load_network

    loaded = load_network(network)
    layers: list[dict[str, object]] = [
        {"layers": kind.name, "count": kind.count, "phase": phase, **_geometry(kind, phase)}
        for kind in loaded.layers
        for phase in ("prefill", "decode")
    ]
    result = {"network": loaded.key, "name": loaded.name, "family": loaded.family, "layers": layers,
              "notes": list(loaded.notes), "source": loaded.source}  # fmt: skip
    emit(
        Answer("models", {"action": "show", "network": loaded.key}, result, lambda: _show_text(loaded, layers),
               lambda: layers, provenance={"network_sha256": loaded.sha256}),
        fmt,
        output,
    )  # fmt: skip


def _show_text(network: Network, layers: list[dict[str, object]]) -> str:
    from iosim.render.text import table, wrapped

    rows = [
        [str(row["layers"]), str(row["phase"]), str(row["mask"]), str(row["count"]), f"{row['heads']}/{row['kv_heads']}",
         f"{row['head_dim']}/{row['head_dim_v']}", "yes" if row["latent"] else "no",
         "x".join(map(str, row["layout"])) if isinstance(row["layout"], tuple) else "-"]
        for row in layers
    ]  # fmt: skip
    header = ["layers", "phase", "mask", "count", "heads/kv", "d/d_v", "latent", "tokens"]
    parts = [
        f"{network.name} ({network.key}), {network.family}",
        "",
        table(header, rows, left=3),
        "",
        f"source: {network.source}",
    ]
    if network.notes:
        parts += ["notes", wrapped(network.notes, "  - ")]
    return "\n".join(parts)


@command.command("import")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the TOML here. Default: stdout."
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def import_config(config: Path, output: Path | None, force: bool) -> None:
    """Turn a Hugging Face config.json into a network file, naming each default that was filled in."""
    from iosim.cli import writing
    from iosim.cli.output import write_whole
    from iosim.errors import FileError
    from iosim.huggingface import read_config
    from iosim.networks import network_toml

    if output and output.is_dir():
        raise FileError("is a directory", str(output), "name a file")
    if output and output.exists() and not force:
        raise FileError("exists already", str(output), "use --force to overwrite it")
    network = read_config(config)
    text = network_toml(network)
    for note in network.notes:
        click.echo(f"note: {note}", err=True)
    if output:
        write_whole(output, text.encode())
        click.echo(f"wrote {output}; use it with --network {output}", err=True)
    else:
        with writing():
            click.echo(text, nl=False)


@command.command("kernels")
@output_options
def kernels(fmt: str | None, output: str | None) -> None:
    """Every named kernel with its algorithm, class and phases; and lists of tiles, which `iosim speedup` takes."""
    from iosim.cli.output import Answer, emit
    from iosim.kernels import kernel_names, load_kernel, tile_lists
    from iosim.render.text import table

    rows: list[dict[str, object]] = []
    for name in kernel_names():
        kernel = load_kernel(name)
        algorithm = kernel.algorithm
        rows.append(
            {"kernel": kernel.name, "title": kernel.title, "algorithm": algorithm.name,
             "class": algorithm.algorithm_class, "phases": "/".join(algorithm.phases), "source": kernel.source}
        )  # fmt: skip
    for name, title, source in tile_lists():
        rows.append({"kernel": name, "title": title, "algorithm": TILE_LIST, "class": "-", "phases": "-",
                     "source": source})  # fmt: skip
    header = ["kernel", "title", "algorithm", "class", "phases"]
    emit(
        Answer("models", {"action": "kernels"}, {"kernels": rows},
               lambda: table(header, [[str(row[name]) for name in header] for row in rows], left=5), lambda: rows),
        fmt,
        output,
    )  # fmt: skip


@command.command("workloads")
@output_options
def workloads(fmt: str | None, output: str | None) -> None:
    """Shapes worth studying, and why."""
    from iosim.cli.output import Answer, emit
    from iosim.networks import load_workload, workload_names
    from iosim.render.text import table

    loaded = [load_workload(name) for name in workload_names()]
    rows: list[dict[str, object]] = [
        {name: getattr(work, name) for name in type(work).__dataclass_fields__} for work in loaded
    ]
    names = [name for name in ("name", "phase", "why") if rows and name in rows[0]]
    emit(
        Answer("models", {"action": "workloads"}, {"workloads": rows},
               lambda: table(names, [[str(row[name]) for name in names] for row in rows], left=3), lambda: rows),
        fmt,
        output,
    )  # fmt: skip
