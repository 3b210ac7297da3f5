"""Measured neighbourhood attention beside predictions: work, floor and expected time of rows whose masks have a layout."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from iosim.attention import Attention, Shape, Types
from iosim.floors import time_floor
from iosim.floors.compulsory import compulsory_bytes
from iosim.masks import Grid, bind, parse_mask
from iosim.speedup import rank_tiles, tile_shapes
from iosim.speedup.expected_time import neighborhood_parts
from iosim.timing.calls import Floats
from iosim.validate.timings import Timings


def problems(timings: Timings) -> Iterator[Attention]:
    """The call of each row."""
    calls = timings.calls
    for i, layout in enumerate(timings.layouts):
        mask = bind(parse_mask(layout.mask, "mask"), Grid(layout.tokens, layout.tokens))
        batch, heads, kv_heads, d, dv = (
            int(size[i]) for size in (calls.batch, calls.heads, calls.kv_heads, calls.head_dim, calls.head_dim_v)
        )
        yield Attention(Shape(batch, heads, kv_heads, d, dv), mask, Types.of(timings.dtype, timings.kv_dtype))


def work_of(timings: Timings) -> tuple[Floats, Floats, Floats]:
    """(useful FLOP, compulsory bytes, `time_floor_s`) of each row."""
    made = []
    for problem in problems(timings):
        shape = problem.shape
        flop = 2.0 * problem.counts().pairs * (shape.head_dim + shape.head_dim_v)
        made.append((flop, sum(compulsory_bytes(problem)), time_floor(problem, timings.device, timings.warm).time_s))
    columns = np.array(made, np.float64)
    return columns[:, 0], columns[:, 1], columns[:, 2]


def expected_s(timings: Timings) -> Floats:
    """Expected time of each row, with the best tile of the kernel's list, as its own tuner finds it.

    Raises:
        AbsentError: no constants for the device.
    """
    made = []
    for problem, layout in zip(problems(timings), timings.layouts, strict=True):
        shape, mask = problem.shape, problem.mask
        shapes = tile_shapes(timings.device.architecture, len(layout.tokens), shape.head_dim, kernel=timings.kernel)
        best = rank_tiles(mask, shapes)[0]
        tiling = next(tile for tile in shapes if str(tile) == best.tiling)
        parts = neighborhood_parts(
            mask, tiling, timings.device, shape.batch * shape.heads, shape.head_dim, shape.head_dim_v
        )  # fmt: skip
        made.append(sum(parts.values()))
    return np.array(made)
