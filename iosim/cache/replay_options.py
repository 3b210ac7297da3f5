"""How a person may change a schedule's replay, and what it tells. Light to import: no arrays here."""

from __future__ import annotations

from dataclasses import dataclass

from iosim.cache.closed_form import HbmTraffic


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a person may change of how a schedule runs."""

    capacity_bytes: int | None = None
    """replaces the last cache before main memory"""
    cores: int | None = None
    """cores that run items"""
    residency: int | None = None
    """items resident on one core"""
    grid_order: str | None = None
    """see `iosim.trace.concurrency`; sections:N: of N heads"""
    kv_order: str | None = None
    """cyclic | reverse | sawtooth"""
    warm: bool = False
    """inputs may already be in the caches"""
    policy: str = "lru"
    """replacement policy of the last cache"""
    closed_form: bool = False
    """skip the replay"""
    most_touches: int = 8_000_000
    """touches that a replay may take, about 0.1 us each; beyond them some heads stand for all, or the closed form"""


@dataclass(frozen=True, slots=True)
class MainMemory:
    """Bytes at main memory, and what else the replay knows."""

    hbm: HbmTraffic | None
    """traffic, method, exact; None where neither a replay nor a closed form can say"""
    closed: HbmTraffic | None
    """the closed form beside it, for the same caches"""
    written_in_kernel_bytes: int | None = None
    """of the writes, those that leave the cache before the kernel ends"""
    hit_rate: float | None = None
    """share of read requests that the near cache serves"""
