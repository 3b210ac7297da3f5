"""The options that name a problem, shared by every command that takes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from iosim.cli.completions import complete_device, complete_kernel, complete_network

Command = Callable[..., Any]

#: suffix of -o -> format
SUFFIXES = {".json": "json", ".csv": "csv", ".md": "md", ".txt": "table"}
PICTURES = (".svg", ".png", ".pdf")
PAGE = ".html"


def problem_options(function: Command) -> Command:
    """`--network`, plain shapes, lengths, mask and types."""
    options = [
        click.option(
            "--network",
            metavar="NAME|config.json",
            shell_complete=complete_network,
            help="A network of the catalogue, or a Hugging Face config. Default: llama-3-8b.",
        ),
        click.option(
            "--layer", metavar="KIND|INDEX", help="Which layers, where they differ. Default: the first global one."
        ),
        click.option("--heads", type=int, metavar="H", help="Query heads (plain shapes instead of a network)."),
        click.option("--kv-heads", type=int, metavar="K", help="Key/value heads. Default: as --heads."),
        click.option("--head-dim", type=int, metavar="D", help="Elements of a query and key."),
        click.option("--head-dim-v", type=int, metavar="DV", help="Elements of a value. Default: as --head-dim."),
        click.option("--latent", is_flag=True, help="V is a slice of K (absorbed MLA)."),
        click.option("--batch", type=int, default=1, metavar="B", help="Sequences. Default: 1."),
        click.option(
            "--phase", default="prefill", metavar="PHASE", help="prefill, decode or backward. Default: prefill."
        ),
        click.option(
            "--seq",
            metavar="N|AxB|N+N",
            help="Queries, a layout such as 30x48x80, or one length per sequence such as 100+2*3000. Default: the"
            " network's, or 8192; decode: 1.",
        ),
        click.option(
            "--seq-kv",
            metavar="N|AxB|N+N",
            help="Keys, new tokens included; also one length per sequence. Default: as --seq; needed in decode.",
        ),
        click.option(
            "--mask",
            metavar="MASK",
            help="causal, window:4096,sink=4, gna:..., and(M;M)... Default: the network's, or full.",
        ),
        click.option("--dtype", default="bf16", metavar="TYPE", help="fp32, bf16, fp16, fp8, ... Default: bf16."),
        click.option("--kv-dtype", metavar="TYPE", help="Type of K and V. Default: as --dtype."),
        click.option(
            "--shared-prefix",
            type=int,
            default=0,
            metavar="N",
            help="First keys that all sequences of a decode share; floors count them once. Default: 0.",
        ),
    ]
    return _apply(function, options)


def device_options(function: Command) -> Command:
    """`--device` and the state of its last cache."""
    options = [
        click.option(
            "--device",
            default="h100-sxm5",
            metavar="NAME|PATH|none",
            shell_complete=complete_device,
            help="A device of the catalogue, a TOML file, or none. Default: h100-sxm5, or the named kernels' own.",
        ),
        click.option(
            "--l2",
            type=click.Choice(["cold", "warm"]),
            default="cold",
            help="warm: operands may already be in the last cache. Default: cold.",
        ),
    ]
    return _apply(function, options)


def kernel_options(function: Command) -> Command:
    """`--kernel`, `--tile` and kernel parameters."""
    options = [
        click.option(
            "--kernel",
            multiple=True,
            callback=lambda ctx, parameter, names: ",".join(names) if names else None,
            metavar="NAME[,NAME]|PATH.toml",
            shell_complete=complete_kernel,
            help="Kernels, joined by commas; may be repeated.",
        ),
        click.option(
            "--set", "settings", multiple=True, metavar="name=value", help="A kernel parameter; may be repeated."
        ),
        click.option(
            "--tile", metavar="AxB|Q/KV", help="Query rows x keys, or 16x16/16x8 per axis. Default: the kernel's own."
        ),
        click.option(
            "--pack-gqa/--no-pack-gqa",
            default=None,
            help="Pack query heads of a group into a tile's rows. Default: in decode only.",
        ),
        click.option("--no-lse", is_flag=True, help="Do not count the log-sum-exp that flash kernels write."),
        click.option("--no-init", is_flag=True, help="Do not count FlashAttention-1's initialisation writes."),
        click.option("--lse-output", is_flag=True, help="The log-sum-exp is an output: floors count it."),
    ]
    return _apply(function, options)


def replay_options(function: Command) -> Command:
    """How the schedule runs, and over which last cache."""
    options = [
        click.option(
            "--capacity",
            metavar="SIZE",
            help="Replaces the last cache before main memory (one core: the only one), such as 50MiB.",
        ),
        click.option(
            "--policy",
            default="lru",
            metavar="P",
            help="lru (the device's partitions kept), fifo, opt, opt-bypass or set-assoc:W (one cache). Default: lru.",
        ),
        click.option("--cores", type=int, metavar="N", help="Cores that run items. Default: the device's, or 1."),
        click.option(
            "--residency", type=int, metavar="N", help="Items resident on one core. Default: what its memory holds."
        ),
        click.option(
            "--grid-order",
            metavar="ORDER",
            help="head-major, row-major (heads interleaved), longest-first, sections, sections:N (of N heads) or chunked"
            " (a run of items per core). Default: the kernel's own.",
        ),
        click.option("--kv-order", metavar="ORDER", help="cyclic, reverse or sawtooth. Default: the kernel's own."),
        no_replay_option,
    ]
    return _apply(function, options)


no_replay_option = click.option(
    "--no-replay", is_flag=True, help="Main memory by closed form only: at once, without a compiler."
)


def answer_options(more: Sequence[str] = (), default: str = "table") -> Callable[[Command], Command]:
    """`--format` and `-o` of a command.

    Args:
        more: suffixes that it writes beside those of `SUFFIXES`.
        default: the format where nobody says.
    """
    suffixes = (*SUFFIXES, *more)

    def writable(ctx: click.Context, parameter: click.Parameter, output: str | None) -> str | None:
        """Refuse a file that cannot be written before anything is computed."""
        if output is not None:
            from iosim.cli.output import check_output

            check_output(ctx.params.get("fmt"), output, suffixes)
        return output

    options = [
        click.option(
            "--format",
            "fmt",
            type=click.Choice(["table", "json", "csv", "md"]),
            is_eager=True,
            help=f"Default: by the suffix of -o, or {default}.",
        ),
        click.option(
            "-o",
            "--output",
            type=click.Path(dir_okay=True),
            callback=writable,
            metavar="FILE",
            help=f"Write to a file ({', '.join(suffixes)}).",
        ),
    ]
    return lambda function: _apply(function, options)


output_options = answer_options()


def _apply(function: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        function = option(function)
    return function
