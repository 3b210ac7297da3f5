"""The time model's compiled walk and the bulk formulas count the same tiles: `predict` and `count_many` cannot drift apart."""

from __future__ import annotations

import numpy as np
import pytest

from iosim.bulk import count_many
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.kernels import visited_keys
from iosim.timing.traffic import useful_flop

ROWS = 1500


@pytest.mark.parametrize("mask", ["full", "causal", "window"])
def test_visited_keys_and_flop(mask: str) -> None:
    draw = np.random.default_rng(1)
    n_kv = draw.integers(1, 20_000, ROWS)
    n_q = np.minimum(n_kv, draw.integers(1, 20_000, ROWS))
    window = draw.integers(1, 5000, ROWS)
    rows, cols = draw.choice([16, 64, 128], ROWS), draw.choice([32, 80, 128], ROWS)
    heads, batch = draw.integers(1, 9, ROWS), draw.integers(1, 5, ROWS)
    counts = count_many(
        "flash2",
        {"seq_q": n_q, "seq_kv": n_kv, "mask": mask, "window": window, "heads": heads, "batch": batch, "head_dim": 64,
         "tile_rows": rows, "tile_cols": cols},
    )  # fmt: skip
    left = window - 1 if mask == "window" else np.full(ROWS, UNBOUNDED)
    causal = np.full(ROWS, mask != "full")
    walked = visited_keys(rows, cols, np.ones(ROWS, np.int64), n_q, n_kv, left, causal, np.zeros(ROWS, bool))
    np.testing.assert_array_equal(counts["K.read_elements"], walked.astype(np.int64) * heads * batch * 64)
    calls = Calls.of(
        {"batch": batch, "heads": heads, "kv_heads": heads, "head_dim": np.full(ROWS, 64), "n_q": n_q, "n_kv": n_kv,
         "left": left, "causal": causal}
    )  # fmt: skip
    np.testing.assert_array_equal(counts["flop"], useful_flop(calls).astype(np.int64))
