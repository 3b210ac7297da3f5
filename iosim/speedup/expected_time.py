"""The expected time of a neighbourhood kernel on Hopper: cuDNN's tile, as often as the mask visits one.

Nothing is fitted to neighbourhood attention: a visited tile pair costs what cuDNN's dense kernel pays for one, and where the
setting is not block-sparse every tile carries the mask, as a causal edge's do. NATTEN's published samples, three layouts,
are 1 to 13 % off (docs/accuracy.md); permuting tokens comes apart.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping

import numpy as np

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.masks import Mask, Tiling
from iosim.timing.calls import Ints
from iosim.timing.constants import load_calibration
from iosim.timing.looped import ISSUE, sustained

#: the family whose constants a tile has
FAMILY = "cudnn"
#: items placed one by one; those before them are spread evenly
PLACED = 20_000


def neighborhood_parts(
    mask: Mask, tiling: Tiling, device: Device, heads: int, head_dim: int = 128, head_dim_v: int | None = None
) -> Mapping[str, float]:
    """Named terms of the expected time, in seconds; their sum is the expectation.

    Args:
        mask: of one head. heads: heads times sequences.
        tiling: Q and KV tile of the kernel.
    Raises:
        AbsentError: no such constants for the device's architecture.
    """
    calibration = load_calibration(FAMILY)
    if device.architecture not in calibration.architectures:
        known = ", ".join(calibration.architectures)
        raise AbsentError(f"a neighbourhood kernel's tile is known on {known} only, not on {device.architecture}")
    rates, c = sustained(device), calibration.values()
    work = mask.work(tiling)
    pairs = float(tiling.rows * tiling.cols)
    matrix = 2.0 * pairs * (head_dim + (head_dim_v or head_dim)) / rates.matrix_flop_per_clk
    masked = 0.0 if np.array_equal(work.visited, work.whole) else c["masked"]
    issue = pairs * (c["instructions"] + masked) / ISSUE
    item = c["item"] * rates.hbm_latency_s * rates.clock_hz * head_dim / 128
    cycles = makespan(np.tile(work.visited, heads), item, matrix + issue, rates.cores)
    tiles = float(work.visited.sum()) * heads / rates.cores
    items = len(work.visited) * heads * item / rates.cores
    return {
        "matrix_s": tiles * matrix / rates.clock_hz,
        "instructions_s": tiles * issue / rates.clock_hz,
        "items_s": items / rates.clock_hz,
        "imbalance_s": (cycles - tiles * (matrix + issue) - items) / rates.clock_hz,
    }


def makespan(visited: Ints, item: float, tile: float, cores: int) -> float:
    """When the last core ends, each next free core taking the next item.

    Args:
        visited: KV tiles of each item, in launch order.
        item, tile: cost of an item, and of each of its tiles.
    """
    costs = item + tile * visited.astype(float)
    first, rest = costs[:-PLACED], costs[-PLACED:]
    free = [float(first.sum()) / cores] * cores
    for cost in rest.tolist():
        heapq.heapreplace(free, free[0] + cost)
    return max(free)
