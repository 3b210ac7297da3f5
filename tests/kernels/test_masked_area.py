"""Rows x keys of visited tiles that hold a masked entry, in closed form: against tiles one by one, and at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import loop_counters

from iosim.bulk import count_many
from iosim.errors import UsageError
from iosim.kernels import make_schedule
from iosim.masks import Band, Grid, Tiling
from iosim.masks.band_walks import masked_area
from iosim.problem_builder import ask

NAME = "fast-attention-tiling-mask"


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3),
       st.integers(-15, 15), st.integers(-15, 70) | st.none())  # fmt: skip
def test_it_equals_tiles_one_by_one(
    n_q: int, n_kv: int, rows: int, cols: int, group: int, offset: int, right: int | None
) -> None:
    band = Band(Grid((n_q,), (n_kv,)), None, right, 0, offset)
    end = n_kv if right is None else right + 1
    q, k = np.arange(n_q)[:, None], np.arange(n_kv)[None, :]
    allowed = (k < q + offset + end) if right is not None else np.ones((n_q, n_kv), bool)
    allowed = np.repeat(allowed, group, axis=0)
    area = 0
    for i in loop_counters.tiles(n_q * group, rows):
        for j in loop_counters.tiles(n_kv, cols):
            seen = allowed[i, j]
            area += seen.size if seen.any() and not seen.all() else 0
    assert masked_area(band, Tiling((rows,), (cols,), group)) == area


def test_columns_of_tiles_and_lengths() -> None:
    columns = {"seq_kv": [1024, 2048, 1000, 77], "tile_rows": [128, 64, 48, 128], "tile_cols": [128, 64, 256, 32],
               "mask": ["causal", "causal", "full", "causal"]}  # fmt: skip
    counts = count_many(NAME, columns)
    assert not counts.beyond.any()
    for index, (n, rows, cols, mask) in enumerate(zip(*columns.values(), strict=True)):
        call = ask(heads=1, head_dim=128, seq=n, mask=mask).problem
        alone = make_schedule(call, None, NAME, Tiling((rows,), (cols,)))
        assert counts["read_bytes"][index] == alone.traffic.read_bytes
        if mask == "causal":
            moved = next(moved for moved in alone.traffic.moved if moved.tensor == "M_mask")
            assert counts["M_mask.read_elements"][index] == moved.read_elements > 0


def test_a_tile_larger_than_the_triangle_is_refused_by_row() -> None:
    with pytest.raises(UsageError, match="row 1: an M-mask of 2 x 1024 rows"):
        count_many(NAME, {"seq_kv": [4096, 8192], "tile_rows": [128, 2048], "tile_cols": 128, "mask": "causal"})


def test_lengths_of_any_size_need_no_loop() -> None:
    counts = count_many(NAME, {"seq_kv": [10**7, 10**12], "tile_rows": 128, "tile_cols": 256, "mask": "causal"})
    tiles = [-(-n // 128) for n in (10**7, 10**12)]  # every Q tile cuts one key tile of 256 keys, the last one fewer
    for got, n, q_tiles in zip(counts["M_mask.read_elements"].tolist(), (10**7, 10**12), tiles, strict=True):
        whole = n - n % 256
        assert got == 128 * 256 * (whole // 128) + (q_tiles * 128 > whole) * _ragged(n - whole)


def _ragged(rest: int) -> int:
    """Rows x keys behind the last whole pair of Q tiles: all Q tiles there cut the ragged key tile."""
    return rest * rest
