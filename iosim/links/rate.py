"""Links by name: how fast one device's link carries bytes, each way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from iosim.errors import AbsentError, UsageError, did_you_mean
from iosim.machine import Device
from iosim.units import parse

#: name -> the fact of a device file that gives it, both directions together
FACTS = {"nvlink": "other.nvlink", "c2c": "other.nvlink_c2c", "scale-up": "other.scale_up", "pcie": "other.pcie"}
#: also `host`: the link to the host's memory, whatever it is, which files state for one direction
NAMES = (*FACTS, "host")
BITS = ("bit/s", "bps", "b/s")


@dataclass(frozen=True, slots=True)
class Link:
    """One device's link."""

    name: str
    """nvlink, host, ... or `given`"""
    bytes_per_s: float | None
    """of one direction; both run at once. None where nobody says"""
    technology: str = ""
    """for people: PCIe 5.0 x16"""
    why_unknown: str = ""
    """what is missing"""
    latency_s: float = 0.0
    """of one message, beside its bytes: part of expectations, never of a floor"""


def link_of(device: Device | None, asked: str | None, boundary: str, latency: str | None = None) -> Link:
    """The link that was asked for, or the device's usual one.

    Args:
        asked: a name of `NAMES`, a rate of one direction such as "50 GB/s", or None.
        boundary: link (to other devices) | host.
        latency: of one message, such as "5us"; None: not counted.
    Raises:
        UsageError: no such name, or no rate. AbsentError: the device file does not give the link asked for.
    """
    found = _found(device, asked, boundary)
    return replace(found, latency_s=_latency(latency)) if latency is not None else found


def _found(device: Device | None, asked: str | None, boundary: str) -> Link:
    """The link without its latency."""
    if asked is not None and (asked[:1].isdigit() or asked[:1] in ("+", "-", ".")):
        return Link("given", _rate(asked, "--link"))
    if asked is not None:
        if asked not in NAMES:
            raise UsageError(
                f"unknown link {asked!r}", "--link", f"{did_you_mean(asked, NAMES)} or a rate such as 50GB/s"
            )
        if device is None:
            raise UsageError(f"no device that has a link {asked!r}", "--link", "a rate such as 50GB/s")
        return named(device, asked)
    if device is None:
        return Link("none", None, why_unknown="no device, and no --link RATE")
    for name in ("nvlink", "scale-up", "pcie") if boundary == "link" else ("host", "pcie"):
        try:
            return named(device, name)
        except AbsentError:
            continue
    return Link("unknown", None, why_unknown=f"the file of {device.name} gives no link; --link RATE does")


def _latency(text: str) -> float:
    """Seconds, not below 0, with a unit."""
    if text.strip()[-1:].isdigit():
        raise UsageError(f"{text!r} has no unit", "--link-latency", "write a time like 5us")
    seconds = parse(text, "s", "--link-latency")
    if seconds < 0:
        raise UsageError(f"must be at least 0, got {text}", "--link-latency")
    return seconds


def _rate(text: str, where: str) -> float:
    """Bytes per second, above 0. Networks are sold in bits: those are refused, not guessed at."""
    if text.endswith(BITS):
        raise UsageError(f"{text!r} is in bits", where, "in bytes, an eighth: 400 Gbit/s is 50GB/s")
    rate = parse(text, "bytes_per_s", where)
    if rate <= 0:
        raise UsageError(f"must be above 0, got {text}", where)
    return rate


def named(device: Device, name: str) -> Link:
    """A link of the device's file.

    Raises:
        AbsentError: it is not in the file.
    """
    host = device.level("host") if device.has_level("host") else None
    if host and (name == "host" or (name == "pcie" and host.technology.startswith("PCIe"))):
        return Link(name, device.bandwidth_bytes_per_s("host"), host.technology)
    if fact := device.facts.get(FACTS.get(name, "")):
        return Link(name, fact.value / 2)
    raise AbsentError(f"{device.name}: no link {name!r} in its file", device.file, "--link RATE, such as 50GB/s")


@dataclass(frozen=True, slots=True)
class Far:
    """The far side's memory, and its arithmetic where it has some."""

    name: str
    """a device's name, host memory, or `given`"""
    bytes_per_s: float | None
    """rate at which its memory delivers; None where nobody says"""


def far_of(device: Device | None, asked: str | None) -> Far:
    """The far side that was asked for, or what the device file says of its host.

    Args:
        asked: a rate such as "200 GB/s", a device's name or file, or None.
    Raises:
        UsageError: no rate and no such device. AbsentError: that device's memory has no rate.
    """
    if asked is None:
        fact = device.facts.get("other.host_memory") if device else None
        return Far("host memory", fact.value if fact else None)
    if asked[:1].isdigit() and any(asked.endswith(mark) for mark in ("B/s", "Bps", "byte/s", *BITS)):
        return Far("given", _rate(asked, "--far"))
    from iosim.machine import load_device

    try:
        far = load_device(asked)
    except UsageError:
        hint = "a rate such as 200GB/s, or a name that `iosim hardware list` shows"
        raise UsageError(f"{asked!r} is neither a rate nor a device", "--far", hint) from None
    return Far(far.name, far.bandwidth_bytes_per_s("hbm"))
