"""The options that bring in other devices or the host, of `iosim report`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from iosim.cli.completions import complete_device, complete_exchange, complete_link, complete_offload

if TYPE_CHECKING:
    from iosim.links import LinkAsked

NAMES = ("exchange", "devices", "offload", "resident_fraction", "link", "link_latency", "far")


def link_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--exchange`, `--devices`, `--offload`, `--resident-fraction`, `--link`, `--link-latency`, `--far`."""
    options = [
        click.option(
            "--exchange",
            metavar="WAY",
            shell_complete=complete_exchange,
            help="How devices share the call: ring, zigzag, ulysses, state-gather, tiling-allreduce[:blocks=8,width=W] "
            "or attention-servers[:split=heads|batch|keys].",
        ),
        click.option("--devices", type=int, metavar="P", help="Equal devices that share it."),
        click.option(
            "--offload",
            metavar="WHAT",
            shell_complete=complete_offload,
            help="What lies on the host or in storage: kv (fetched each step), attention (computed there) or activations.",
        ),
        click.option(
            "--resident-fraction", metavar="F", default="0", help="Share of that which stays on the device. Default: 0."
        ),
        click.option(
            "--link",
            metavar="NAME|RATE",
            shell_complete=complete_link,
            help="nvlink, c2c, scale-up, pcie or host of the device file, or a rate each way such as 50GB/s. "
            "Default: the device's link to its peers, or to its host.",
        ),
        click.option(
            "--link-latency",
            metavar="TIME",
            help="Of one message, beside its bytes, such as 5us: part of the expected time. Default: not counted.",
        ),
        click.option(
            "--far",
            metavar="DEVICE|RATE",
            shell_complete=complete_device,
            help="What delivers offloaded keys: a device, or its memory's rate such as 200GB/s. Default: what the device "
            "file says of its host.",
        ),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def asked_link(options: dict[str, Any]) -> LinkAsked:
    """The link of the options."""
    from iosim.links import LinkAsked

    given = {name: options[name] for name in NAMES}
    resident, latency = given.pop("resident_fraction"), given.pop("link_latency")
    return LinkAsked(**given, latency=latency, resident=0 if resident == "0" else resident)
