"""Chunk kernels as released: sums of gates, scores through memory, states passed on compute the same recurrence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_chunks, numpy_linear
from oracles.arithmetic import Arithmetic
from oracles.random_calls import per_tensor, problem, tile
from test_linear import PLAIN, Data, cases, schedule_of
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import check

from iosim.errors import UsageError
from iosim.kernels import load_kernel, make_schedule


@given(cases(), st.sampled_from(["none", "lower", "whole"]), st.integers(1, 5), st.booleans(), st.booleans())
def test_every_way_computes_the_recurrence(case: dict, kind: str, size: int, cumsum: bool, passes: bool) -> None:
    gate = "scalar" if kind == "whole" and case["gate"] == "vector" else case["gate"]
    cumsum = cumsum or kind != "none" or passes  # scores and passed states read sums
    case = case | {"chunk": size * (1 + case["chunk"] % 3)} if kind == "whole" else case
    chosen = {"gate": gate, "cumsum": cumsum, "scores": kind, "score_block": size, "pass_states": passes}
    schedule = schedule_of(case, "gla", **chosen)
    check(schedule)
    data = Data(case, schedule)
    numpy_chunks.room_for_scores(data.memory, data.cut)
    for launch in schedule.launches:
        count = Arithmetic()
        numpy_chunks.run(launch, data.memory, data.cut, kind, size, count)
        count.check(launch.work)
    start = np.zeros((data.cut.features, case["d_v"]))
    for head, found in enumerate(data.output()):
        kv = head // case["group"]
        close(found, numpy_linear.recurrent(data.q[head], data.k[kv], data.v[kv], data.gate(head), True, start))
    counted_as_scheduled(data.memory, schedule)


def test_what_released_gated_linear_attention_moves() -> None:
    """fla's chunk_gla: four launches, and A of N x 64 words in fp32: its lower 16 x 16 blocks written, all of it read."""
    n, d = 4096, 128
    schedule = make_schedule(problem(n, n, d, mask="causal"), None, "gla")
    assert [launch.name for launch in schedule.launches] == ["cumsum", "states", "scores", "outputs"]
    assert schedule.parameters["score_block"] == 16
    cumsum, states, scores, outputs = schedule.launches
    assert cumsum.traffic.read_bytes == cumsum.traffic.write_bytes == 4 * n * d
    assert states.traffic.read_bytes == 2 * n * d * (2 + 4) + 2 * n * d
    blocks = n // 64 * 10  # of 16 x 16 in each chunk at or below the diagonal
    assert scores.traffic.write_bytes == 4 * blocks * 256
    per_chunk = 6 * (32 * d * 2 + 33 * d * 4) + 4 * (32 * d * 2 + 32 * d * 4)
    assert scores.traffic.read_bytes == n // 64 * per_chunk
    assert per_tensor(schedule)["scores"] == (2 * n * 64, blocks * 256)  # d_v = 128 is two blocks of value columns
    plain = make_schedule(problem(n, n, d, mask="causal"), None, "gla", None, PLAIN)
    assert "scores" not in per_tensor(plain)
    assert outputs.traffic.read_bytes - plain.launches[-1].traffic.read_bytes == 2 * n * (64 * 4 - 2 * d)


def test_what_released_mamba2_moves() -> None:
    """Chunks of 256: states of each in fp32, added up by a launch of their own, and C B^T of 256 x 256 in fp32."""
    n, d, d_v = 4096, 128, 64
    schedule = make_schedule(problem(n, n, d, d_v, mask="causal"), None, "mamba2")
    assert [launch.name for launch in schedule.launches] == ["cumsum", "states", "pass", "scores", "outputs"]
    assert str(schedule.tiling) == "256x256"
    chunks, state = n // 256, d * d_v
    moved = {launch.name: launch.traffic for launch in schedule.launches}
    assert moved["states"].write_bytes == moved["pass"].read_bytes - 4 * chunks == 4 * chunks * state
    assert moved["pass"].write_bytes == 2 * chunks * state + 4 * state
    assert moved["scores"].write_bytes == 4 * chunks * 256**2
    rows = int(str(schedule.parameters["score_block"]))
    seen = sum(range(rows, 257, rows)) * chunks  # keys that blocks of rows read
    assert moved["outputs"].read_bytes == (
        2 * n * d + 2 * (n // rows) * state + 2 * seen * d_v + 4 * (n + seen) + 4 * seen * rows
    )


def test_what_does_not_fit_together() -> None:
    asked = problem(64, 64, 16, mask="causal")
    for chosen, match in (
        ({"scores": "lower", "features": "hedgehog", "gate": "none"}, "without a map"),
        ({"scores": "whole", "gate": "vector"}, "take one per token"),
        ({"pass_states": True, "cumsum": False}, "sums of gates"),
        ({"scores": "lower", "cumsum": False}, "sums of gates"),
        ({"scores": "whole", "gate": "none", "score_block": 48}, "no whole blocks of 48"),
    ):
        with pytest.raises(UsageError, match=match):
            make_schedule(asked, None, "gla", tile(64, 64), PLAIN | chosen)


@pytest.mark.parametrize("kernel", ["gla", "mamba2", "delta-rule", "gated-delta"])
def test_a_report_says_how_far_the_account_goes(kernel: str) -> None:
    note = load_kernel(kernel).note
    assert note
    assert f"{kernel}: {note}" in make_schedule(problem(512, 512, 64, mask="causal"), None, kernel).notes
