"""The link in a report for people: the device it speaks of, what crosses, what is proven, how it overlaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iosim.links import SharedFloor
from iosim.render.text import byte_count, ratio, seconds, strong, table
from iosim.units import si

if TYPE_CHECKING:
    from iosim.link_report import LinkReport
    from iosim.report import Report


def share_line(joined: LinkReport) -> str:
    """Which device the tables speak of, and what its share is."""
    way = joined.way
    if way.told.summary:
        return f"{way.name}: {way.told.summary}"
    parameters = ", ".join(f"{name} {value}" for name, value in way.told.settings.items())
    named = way.name + (f" ({parameters})" if parameters else "")
    text = f"{named} over {way.devices} devices; below: device {way.device}"
    if way.shards:
        text += ", tokens " + " and ".join(f"{first} to {first + count - 1}" for first, count in way.shards[way.device])
    return text + (f", {ratio(way.imbalance)} the mean pairs" if way.imbalance >= 1.005 else "")


def shared_floor_lines(floor: SharedFloor, joined: LinkReport) -> list[str]:
    """What nothing can beat, term by term, and which terms are unknown; with markup."""
    start = f"No way of using {floor.devices} devices can" if floor.devices > 1 else "No kernel can"
    terms = []
    if floor.flop:
        compute = f"{si(floor.flop, 'FLOP')} at {si(floor.peak_flop_per_s, 'FLOP/s')} take {seconds(floor.compute_s)}"
        terms.append(f"unmasked {compute}")
    moved = floor.read_bytes + floor.write_bytes
    memory = f"{byte_count(moved)} at {si(floor.bandwidth_bytes_per_s, 'B/s')} take {seconds(floor.memory_s)}"
    terms.append(f"compulsory {memory}" if moved else "")
    if floor.link_bytes and floor.link_bytes_per_s:
        rate = si(floor.link_bytes_per_s, "B/s")
        terms.append(f"over a link at least {byte_count(floor.link_bytes)} at {rate} take {seconds(floor.link_s)}")
    if floor.far_s is not None and joined.far.bytes_per_s:
        rate = si(joined.far.bytes_per_s, "B/s")
        terms.append(f"from {joined.far.name} {byte_count(floor.far_bytes)} at {rate} take {seconds(floor.far_s)}")
    said = [term for term in terms if term]
    head = f"{start} take less than {strong(seconds(floor.time_s))}: "
    return [head + said[0] + (";" if said[1:] else ".")] + [
        term + (";" if index < len(said) - 1 else ".") for index, term in enumerate(said[1:], 1)
    ]


def link_table(report: Report) -> str:
    """Bytes per tensor each way, their time, the least that any way needs, and what these are given."""
    assert report.link is not None
    return "\n".join([table(*link_rows(report.link)), *(f"  {text}" for text in link_notes(report, report.link))])


def link_rows(joined: LinkReport) -> tuple[list[str], list[list[str]]]:
    """(header, rows) of the bytes per tensor each way."""
    rate = joined.link.bytes_per_s
    rows = [
        [moved.tensor, byte_count(moved.read_bytes), byte_count(moved.write_bytes)] for moved in joined.traffic.moved
    ]
    if len(rows) > 1:
        rows.append(["all", byte_count(joined.traffic.read_bytes), byte_count(joined.traffic.write_bytes)])
    if rate:
        rows.append([f"at {si(rate, 'B/s')}", seconds(joined.received_s), seconds(joined.sent_s)])
    rows.append(["least", byte_count(joined.least_received_bytes), byte_count(joined.least_sent_bytes)])
    return [joined.way.boundary, "received", "sent"], rows


def link_notes(report: Report, joined: LinkReport) -> list[str]:
    """What the link is, what must cross and given what, and the time of kernels with it."""
    technology = f" ({joined.link.technology})" if joined.link.technology else ""
    named = f"{joined.link.name}{technology}" if joined.link.bytes_per_s else "rate not known"
    notes = [f"link: {named}, both directions at once; exact, by formula; {_messages(joined)}"]
    if joined.way.devices > 1:
        notes.append(_together(joined))
    if joined.way.proven.least:
        notes.append("least: proven whatever is sent (`iosim explain link`), given that")
        notes += [f"  {text}" for text in joined.way.proven.least.conditions]
    else:
        notes.append("least: nothing is proven for this way")
    return notes + _overlaps(report)


def _together(joined: LinkReport) -> str:
    """What crosses over all devices, beside what must."""
    way, least = joined.way, joined.way.least_crossing_bytes
    gap = f", at least {byte_count(least)} must cross ({ratio(way.crossing_bytes / least)})" if least else ""
    return f"over all {way.devices} links {byte_count(way.crossing_bytes)}{gap}"


def _messages(joined: LinkReport) -> str:
    rounds = joined.way.rounds
    if not rounds:
        return "no message"
    latency = joined.link.latency_s
    each = f"of {seconds(latency)} latency" if latency else "(no latency: --link-latency)"
    return f"{rounds} messages after one another {each}" if rounds > 1 else f"1 message {each}"


def _overlaps(report: Report) -> list[str]:
    """Times with the link: expectations."""
    words = {"expected": "from the expected time", "ceiling": "from its slowest ceiling"}
    joined = report.link
    if joined and not report.kernels and (alone := joined.overlap(0.0, "")):
        return [f"messages and the far side's memory one after the other: {seconds(alone.serial_s)} (no floor)"]
    return [
        f"{kernel.name} with the link: {seconds(kernel.overlap.overlapped_s)} overlapped, "
        f"{seconds(kernel.overlap.serial_s)} one after the other ({words[kernel.overlap.basis]}; no floor)"
        for kernel in report.kernels
        if kernel.overlap and report.link
    ]
