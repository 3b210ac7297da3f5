"""From what a person writes to a way: `ring` over 8 devices, `tiling-allreduce:blocks=4`, offloaded keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from iosim.attention import Attention
from iosim.errors import UsageError, did_you_mean
from iosim.links.all_reduce import tiling_all_reduce
from iosim.links.context_parallel import ring, state_gather, ulysses, zigzag
from iosim.links.offload import OFFLOADS
from iosim.links.servers import attention_servers
from iosim.links.way import Way

#: what says nothing without a way
FLAGS = {
    "devices": "--devices",
    "link": "--link",
    "latency": "--link-latency",
    "far": "--far",
    "resident": "--resident-fraction",
}
MOST_DEVICES = 1024  # rounds are counted device by device: beyond, a report would take seconds
EXCHANGES: dict[str, Callable[[Attention, int, dict[str, str]], Way]] = {
    "ring": ring,
    "zigzag": zigzag,
    "ulysses": ulysses,
    "state-gather": state_gather,
    "tiling-allreduce": tiling_all_reduce,
    "attention-servers": attention_servers,
}


@dataclass(frozen=True, slots=True)
class LinkAsked:
    """How a call uses more than one device, as a person asks for it."""

    exchange: str | None = None
    """a way of `EXCHANGES`, with parameters: `tiling-allreduce:blocks=4`"""
    devices: int | None = None
    """how many share the call"""
    offload: str | None = None
    """kv | attention | activations"""
    resident: str | float = 0
    """share of what is offloaded that stays on the device, in [0, 1)"""
    link: str | None = None
    """a link of the device's file, or a rate each way; None: the device's usual one"""
    latency: str | None = None
    """of one message, such as 5us; None: not counted"""
    far: str | None = None
    """the far side: a device or the rate of its memory; None: what the device file says of its host"""

    @property
    def asked(self) -> bool:
        """Whether anything was asked for."""
        return self != LinkAsked()


def way_of(problem: Attention, asked: LinkAsked) -> Way:
    """The way that was asked for, counted for a call.

    Raises:
        UsageError: something missing, unknown, out of range, or that the way cannot do.
    """
    if (asked.exchange is None) == (asked.offload is None):
        if asked.exchange is not None:
            raise UsageError("one report has one link", "--offload", "leave out --exchange or --offload")
        flag = next(flag for name, flag in FLAGS.items() if getattr(asked, name))
        raise UsageError(
            "nothing crosses a link", flag, f"--exchange {' | '.join(EXCHANGES)}, or --offload {' | '.join(OFFLOADS)}"
        )
    return _offload(problem, asked) if asked.offload is not None else _exchange(problem, asked)


def _exchange(problem: Attention, asked: LinkAsked) -> Way:
    text = asked.exchange or ""
    name, _, rest = text.partition(":")
    if name not in EXCHANGES:
        raise UsageError(f"no exchange {name!r}", "--exchange", did_you_mean(name, EXCHANGES))
    for option, given in (("--resident-fraction", asked.resident), ("--far", asked.far)):
        if given:
            raise UsageError(f"{name} leaves nothing on a far side", option, "it belongs to --offload")
    if asked.devices is None:
        raise UsageError(
            f"{name} needs to know how many devices", "--devices", f"for example --devices 8 --exchange {text}"
        )
    if not 1 <= asked.devices <= MOST_DEVICES:
        raise UsageError(f"must be 1 to {MOST_DEVICES}, got {asked.devices}", "--devices")
    return EXCHANGES[name](problem, asked.devices, _settings(name, rest))


def _settings(name: str, text: str) -> dict[str, str]:
    """`key=value` parts, joined by commas."""
    settings: dict[str, str] = {}
    for part in text.split(",") if text else ():
        key, equals, value = part.partition("=")
        if not (equals and value and re.fullmatch(r"[a-z][a-z_-]*", key)):
            raise UsageError(f"{part!r} of {name} is not key=value", "--exchange", f"for example {name}:blocks=4")
        settings[key] = value
    return settings


def _offload(problem: Attention, asked: LinkAsked) -> Way:
    name = asked.offload or ""
    if name not in OFFLOADS:
        raise UsageError(f"nothing called {name!r} to offload", "--offload", did_you_mean(name, OFFLOADS))
    if asked.devices is not None:
        raise UsageError("an offload has one device and its far side", "--devices", "it belongs to --exchange")
    return OFFLOADS[name](problem, fraction_of(asked.resident))


def fraction_of(text: str | float) -> Fraction:
    """A share from 0 up to, but not including, 1: exact, so that a tenth of 50 rows is 5.

    Raises:
        UsageError: no number, or out of range.
    """
    try:
        share = Fraction(str(text))
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"{text!r} is not a number", "--resident-fraction", "such as 0.25") from None
    if not 0 <= share < 1:
        hint = "with everything resident nothing is offloaded" if share == 1 else "such as 0.25"
        raise UsageError(f"must be from 0 up to below 1, got {text}", "--resident-fraction", hint)
    return share
