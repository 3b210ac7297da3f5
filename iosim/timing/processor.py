"""Expected time of iosim's own compiled kernels (`iosim measure --device cpu`) on one core of a probed processor.

Tiled and unfused attention in single precision, as `iosim/measure/cpu_kernels.py` has them: dot products with a
horizontal sum per score, an exponential per visible score, and sums of weighted values. Rates of the nearest cache, of
exponentials and of the levels behind come from the device file that a probe wrote; the constants say how the loops use
them (docs/explanation/processor.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.timing.calls import Calls, Floats
from iosim.timing.constants import load_calibration
from iosim.timing.parts import Parts

FAMILY = "processor"
KERNELS = ("cpu-tiled", "cpu-unfused")
ELEMENT = 4.0  # bytes
LOADS = 2.0  # per element: of q and k; of a sum and of v, whose stores run beside them
#: transfers of a score that leaves the private caches: fetched for writing, written, read, written, read
SCORE_TRANSFERS = 5.0


@dataclass(frozen=True, slots=True)
class CoreRates:
    """One core, from its device file."""

    clock_hz: float
    """while it works"""
    near_bytes_per_s: float
    """nearest cache"""
    exp_per_s: float
    """exponentials of compiled loops"""
    private_bytes: int
    """caches of its own"""
    shared_bytes: int
    """shared caches"""
    shared_bytes_per_s: float
    """of them"""
    memory_bytes_per_s: float
    """main memory"""


def core_rates(device: Device) -> CoreRates:
    """One core's share of a device file.

    Raises:
        AbsentError: no processor of one core, or a rate that only a probe knows.
    """
    if device.cores != 1:
        raise AbsentError("expected times are known of one core: `iosim hardware new FILE.toml --probe --cores 1`")
    own = [level for level in device.levels if level.scope == "core"]
    shared = [level for level in device.levels if level.scope == "device" and level.name not in ("hbm", "host")]
    memory = device.bandwidth_bytes_per_s("hbm")
    compiled = device.facts.get("exp.fp32.measured[0]")
    if not own or compiled is None or device.max_clock_hz is None:
        raise AbsentError(
            "caches, clock and exponentials of a core are not all known: `iosim hardware new FILE.toml --probe`"
        )
    last = shared[-1] if shared else None
    return CoreRates(
        device.max_clock_hz, device.bandwidth_bytes_per_s(own[0].name), compiled.value,
        max(level.capacity_bytes or 0 for level in own), (last.capacity_bytes or 0) if last else 0,
        device.bandwidth_bytes_per_s(last.name) if last else memory, memory,
    )  # fmt: skip


def processor_parts(
    calls: Calls, device: Device, kernel: str, tile: tuple[int, int], warm: bool = True,
    constants: Mapping[str, float] | None = None,
) -> Parts:  # fmt: skip
    """Named terms in seconds, one value per call.

    Args:
        tile: query rows and keys; the unfused kernel has none.
        warm: the call is repeated, and what fits the caches stays.
    Raises:
        AbsentError: another kernel, or a device that was not probed.
    """
    if kernel not in KERNELS:
        raise AbsentError(f"on a processor {' and '.join(KERNELS)} are timed, not {kernel}")
    rates = core_rates(device)
    given = constants or load_calibration(FAMILY).values()
    work = _unfused(calls) if kernel == "cpu-unfused" else _tiled(calls, *tile)
    near, clock = rates.near_bytes_per_s, rates.clock_hz
    access = ELEMENT / near / given["near_share"]
    shared, memory = _far(calls, rates, work, warm)
    return {
        "products_s": work.scored * calls.head_dim * LOADS * access,
        "softmax_s": work.visible / rates.exp_per_s
        + (work.scored * given["score"] + work.row_tiles * given["row"] + work.passed * given["pass"]) / clock,
        "values_s": work.weighted * calls.head_dim_v * LOADS * access,
        "shared_cache_s": given["exposed_cache"] * shared / rates.shared_bytes_per_s,
        "memory_s": given["exposed_memory"] * memory / rates.memory_bytes_per_s,
    }


@dataclass(frozen=True, slots=True)
class _Work:
    """What a kernel does for each call, over all heads."""

    scored: Floats
    """scores formed"""
    visible: Floats
    """scores that the mask lets through"""
    weighted: Floats
    """scores whose value row is added"""
    row_tiles: Floats
    """rows times tiles: running maxima and sums renewed"""
    passed: Floats
    """scores that the passes over a whole matrix touch"""
    swept: Floats
    """bytes of K and V that rows or row tiles walk over"""
    kept: Floats
    """bytes of scores that lie in memory; of one head"""


def _visible(calls: Calls, query: int, index: int) -> tuple[int, int]:
    """First and one-past-last key of a query of one call."""
    if not calls.causal[index]:
        return 0, int(calls.n_kv[index])
    stop = query + int(calls.n_kv[index] - calls.n_q[index]) + 1
    return max(0, stop - int(calls.left[index]) - 1), stop


def _pairs(calls: Calls) -> Floats:
    from iosim.timing.traffic import needed

    made: Floats = needed(calls).pairs * calls.batch * calls.heads
    return made


def _tiled(calls: Calls, tile_q: int, tile_kv: int) -> _Work:
    scored, row_tiles, swept = (np.zeros(len(calls)) for _ in range(3))
    for index in range(len(calls)):
        n_q, n_kv = int(calls.n_q[index]), int(calls.n_kv[index])
        for begin in range(0, n_q, tile_q):
            rows = min(tile_q, n_q - begin)
            low = _visible(calls, begin, index)[0] // tile_kv
            high = -(-_visible(calls, begin + rows - 1, index)[1] // tile_kv)
            keys = min(n_kv, high * tile_kv) - low * tile_kv
            scored[index] += rows * keys
            row_tiles[index] += rows * (high - low)
            swept[index] += keys
    heads = calls.batch * calls.heads
    wide = ELEMENT * (calls.head_dim + calls.head_dim_v)
    visible = _pairs(calls)
    nothing = np.zeros(len(calls))
    return _Work(scored * heads, visible, visible, row_tiles * heads, nothing, swept * wide * heads, nothing)


def _unfused(calls: Calls) -> _Work:
    heads = calls.batch * calls.heads
    every = (calls.n_q * calls.n_kv * heads).astype(float)
    swept = every * ELEMENT * (calls.head_dim + calls.head_dim_v)
    kept = (calls.n_q * calls.n_kv).astype(float) * ELEMENT
    return _Work(every, _pairs(calls), every, np.zeros(len(calls)), every, swept, kept)


def _far(calls: Calls, rates: CoreRates, work: _Work, warm: bool) -> tuple[Floats, Floats]:
    """(bytes from shared caches, bytes from main memory): what is swept does not stay in a cache that it does not fit."""
    heads = calls.batch * calls.heads
    keys = ELEMENT * calls.n_kv * (calls.head_dim + calls.head_dim_v)
    rows = ELEMENT * calls.n_q * (calls.head_dim + calls.head_dim_v)
    once = rows * heads + keys * calls.batch * calls.kv_heads
    scores = np.where(work.kept > 0, SCORE_TRANSFERS * work.kept * heads, 0.0)
    matters = 2.0 if work.kept.any() else 1.0  # unfused sweeps K in one pass and V in another

    def beyond(capacity: int, first: bool) -> Floats:
        again = np.where(keys / matters > capacity, work.swept, 0.0)
        touched = np.where((once + work.kept > capacity) | first, once, 0.0)
        made: Floats = np.maximum(again, touched) + np.where(work.kept > capacity, scores, 0.0)
        return made

    memory = beyond(rates.shared_bytes or rates.private_bytes, not warm)
    shared = (
        np.maximum(beyond(rates.private_bytes, False) - memory, 0.0) if rates.shared_bytes else np.zeros(len(calls))
    )
    return shared, memory
