"""What a report says of the link: bytes per tensor, times, what is proven, and how rounds overlap with compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from iosim.links import Far, Link, Way
from iosim.schedule import Traffic


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a kernel and its messages take together: a model, never part of a floor."""

    basis: str
    """expected (the calibrated time of the kernel) | ceiling (its slowest resource, where nothing is calibrated)"""
    compute_s: float
    """the kernel's time on its own, with what the way computes beside it"""
    overlapped_s: float
    """steps follow one another; within a step compute, link and far side run at once"""
    serial_s: float
    """nothing overlaps"""

    def to_dict(self) -> dict[str, object]:
        """Keys of a kernel in JSON."""
        return {
            "time_link_basis": self.basis,
            "time_link_compute_s": self.compute_s,
            "time_link_overlapped_s": self.overlapped_s,
            "time_link_serial_s": self.serial_s,
        }


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One way, counted, over one kind of link."""

    way: Way
    """what crosses"""
    link: Link
    """how fast"""
    far: Far
    """what is on the other side of an offload"""

    @property
    def traffic(self) -> Traffic:
        """Of the reported device: reads are received, writes are sent."""
        return self.way.traffic[self.way.device]

    @property
    def received_s(self) -> float | None:
        """Bytes received at the link's rate."""
        return self._time(self.traffic.read_bytes)

    @property
    def sent_s(self) -> float | None:
        """Bytes sent at the link's rate."""
        return self._time(self.traffic.write_bytes)

    @property
    def time_s(self) -> float | None:
        """The longer of the two: a link carries both directions at once."""
        return self._time(max(self.traffic.read_bytes, self.traffic.write_bytes))

    @property
    def far_s(self) -> float | None:
        """Bytes that the far side's memory delivers, at its rate; None where that is unknown or nothing."""
        count, rate = self.way.proven.far_bytes, self.far.bytes_per_s
        return count / rate if count and rate else None

    @property
    def least_received_bytes(self) -> int | None:
        """What the reported device must receive whatever is sent; None where nothing is proven."""
        least = self.way.proven.least
        return least.received[self.way.device] if least else None

    @property
    def least_sent_bytes(self) -> int | None:
        """What it must send."""
        least = self.way.proven.least
        return least.sent[self.way.device] if least else None

    def _time(self, moved: int) -> float | None:
        return moved / self.link.bytes_per_s if self.link.bytes_per_s else None

    def overlap(self, compute_s: float, basis: str) -> Overlap | None:
        """Steps beside a kernel that takes `compute_s` on its own; None where a rate is unknown that decides."""
        rate = self.link.bytes_per_s
        if rate is None or (self.way.far_computes and self.far.bytes_per_s is None):
            return None
        far, latency = self.far.bytes_per_s or float("inf"), self.link.latency_s
        steps = [
            (
                step.compute * compute_s,
                step.messages * latency + step.link_bytes / rate if step.link_bytes else 0.0,
                step.far_bytes / far,
            )
            for step in self.way.steps
        ]
        return Overlap(basis, compute_s, sum(map(max, steps)), sum(map(sum, steps)))

    def to_dict(self) -> dict[str, object]:
        """`link` of a report's result."""
        way, traffic = self.way, self.traffic
        least = way.proven.least
        return {
            "way": way.name,
            "parameters": dict(way.told.settings),
            "boundary": way.boundary,
            "devices": way.devices,
            "device": way.device,
            "shard": [list(part) for part in way.shards[way.device]] if way.shards else None,
            "pairs": way.pairs[way.device],
            "imbalance": way.imbalance,
            "rounds": way.rounds,
            "link": self.link.name,
            "link_bytes_per_s": self.link.bytes_per_s,
            "link_latency_s": self.link.latency_s,
            "per_tensor": per_tensor(traffic),
            "received_bytes": traffic.read_bytes,
            "sent_bytes": traffic.write_bytes,
            "all_devices_bytes": way.crossing_bytes,
            "least_all_devices_bytes": way.least_crossing_bytes,
            "received_s": self.received_s,
            "sent_s": self.sent_s,
            "least_received_bytes": self.least_received_bytes,
            "least_sent_bytes": self.least_sent_bytes,
            "least_conditions": list(least.conditions) if least else [],
            "far": self.far.name if way.boundary == "host" else None,
            "far_bytes": way.proven.far_bytes,
            "far_bytes_per_s": self.far.bytes_per_s,
            "far_s": self.far_s,
            "recompute_flop": way.again.flop if way.again else None,
            "recompute_saves_bytes": way.again.moved_bytes if way.again else None,
            "source": way.told.source,
        }


def per_tensor(traffic: Traffic) -> Mapping[str, Mapping[str, int]]:
    """Elements and bytes received and sent, by tensor."""
    return {
        moved.tensor: {
            "received_elements": moved.read_elements,
            "sent_elements": moved.write_elements,
            "received_bytes": moved.read_bytes,
            "sent_bytes": moved.write_bytes,
        }
        for moved in traffic.moved
    }
