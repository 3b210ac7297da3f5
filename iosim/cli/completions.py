"""Names that the shell may complete."""

from __future__ import annotations

import click


def _starting(names: list[str], incomplete: str) -> list[str]:
    done, comma, last = incomplete.rpartition(",")
    return [f"{done}{comma}{name}" for name in names if name.startswith(last)]


def complete_device(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Device names."""
    from iosim.machine import device_names

    return _starting([*device_names(), "none"], incomplete)


def complete_network(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Network names."""
    from iosim.networks import network_names

    return _starting(network_names(), incomplete)


def complete_kernel(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Kernel names, after a comma too."""
    from iosim.kernels import kernel_names

    return _starting(kernel_names(), incomplete)


def complete_exchange(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Ways in which devices share a call."""
    from iosim.links import EXCHANGES

    return [name for name in EXCHANGES if name.startswith(incomplete)]


def complete_offload(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """What may be left on the host."""
    from iosim.links import OFFLOADS

    return [name for name in OFFLOADS if name.startswith(incomplete)]


def complete_link(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Links that device files name."""
    from iosim.links import NAMES

    return [name for name in NAMES if name.startswith(incomplete)]
