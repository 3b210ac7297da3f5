"""Mamba-1's scan: what it computes, moves and multiplies, against its recurrence and its paper."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import numpy_scan
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, from_strips, in_strips
from oracles.random_calls import per_tensor, problem, tile
from test_numpy_kernels import close, counted_as_scheduled
from test_programs import check

from iosim.errors import UsageError
from iosim.floors import Memory as FastMemory
from iosim.floors.linear import linear_bounds
from iosim.kernels import Call, make_schedule
from iosim.kernels.selective_scan import Scan, scan_of
from iosim.machine import load_device
from iosim.schedule import Schedule

Array = np.ndarray
FLAGS = ("softplus", "skip", "z", "save", "materialise")


@st.composite
def cases(draw: st.DrawFn) -> dict:
    sizes = {"n": 14, "states": 4, "channels": 5, "chunk": 6, "block": 5, "group": 2, "kv_heads": 2, "batch": 2}
    case = {name: draw(st.integers(1, most)) for name, most in sizes.items()}
    return case | {"flags": {name: draw(st.booleans()) for name in FLAGS}, "seed": draw(st.integers(0, 2**32 - 1))}


def schedule_of(case: dict) -> Schedule:
    asked = problem(
        case["n"], case["n"], case["states"], case["channels"], "causal", case["group"] * case["kv_heads"],
        case["kv_heads"], case["batch"],
    )  # fmt: skip
    return make_schedule(asked, None, "mamba1", tile(case["chunk"], 1), {"value_block": case["block"], **case["flags"]})


class Data:
    """Operands of a call, by head, and slow memory that holds them as the schedule lays them out."""

    def __init__(self, case: dict) -> None:
        rng = np.random.default_rng(case["seed"])
        kv, n, states, channels = case["batch"] * case["kv_heads"], case["n"], case["states"], case["channels"]
        self.case, layer = case, case["kv_heads"]
        self.heads = kv * case["group"]
        self.data = {
            "Q": rng.normal(size=(self.heads, n, states)),
            "K": rng.normal(size=(kv, n, states)),
            "V": rng.normal(size=(kv, n, channels)),
            "delta": rng.uniform(0.1, 1.0, size=(kv, n, channels)),
            "z": rng.normal(size=(self.heads, n, channels)),
            "A": -rng.uniform(0.1, 2.0, size=(layer, channels, states)),
            "D": rng.normal(size=(layer, channels)),
            "bias": rng.normal(size=(layer, channels)),
        }
        self.memory = Memory()
        for name, arrays in self.data.items():
            width = {"Q": 1, "K": 1}.get(name, case["block"])
            rows = name not in ("A", "D", "bias")
            self.memory.put(name, np.array([in_strips(array, width) if rows else array for array in arrays]))

    def of_head(self, head: int) -> dict[str, Array]:
        kv = head // self.case["group"]
        index = {"Q": head, "z": head, "K": kv, "V": kv, "delta": kv}
        return {name: arrays[index.get(name, kv % self.case["kv_heads"])] for name, arrays in self.data.items()}

    def wanted(self, head: int, gated: bool) -> Array:
        flags = self.case["flags"]
        return numpy_scan.recurrent(self.of_head(head), flags["softplus"], flags["skip"], gated)

    def written(self, tensor: str) -> list[Array]:
        n, channels = self.case["n"], self.case["channels"]
        flat = self.memory.get(tensor, self.heads, (n * channels,))
        return [from_strips(head, n, channels, self.case["block"]) for head in flat]


@given(cases())
def test_the_schedule_computes_the_recurrence(case: dict) -> None:
    schedule = schedule_of(case)
    check(schedule)
    data, scan = Data(case), scan_of(Call(schedule.problem, schedule.tiling, schedule.parameters))
    for launch in schedule.launches:
        count = Arithmetic()
        numpy_scan.RUN[launch.name](launch, data.memory, scan, count)
        count.check(launch.work)
    flags = case["flags"]
    for head, found in enumerate(data.written("O")):
        close(found, data.wanted(head, flags["z"]))
    if flags["save"] and flags["z"]:
        for head, found in enumerate(data.written("O_ungated")):
            close(found, data.wanted(head, False))
    if flags["save"] and not flags["materialise"]:
        check_saved(case, data, scan)
    counted_as_scheduled(data.memory, schedule)


def check_saved(case: dict, data: Data, scan: Scan) -> None:
    """The state that each chunk ends with and its decay over the chunk, from the recurrence of one channel."""
    chunks, states = len(scan.extents), case["states"]
    flat = data.memory.get("states", data.heads, (2 * chunks * states * case["channels"],))
    for head in range(data.heads):
        known = data.of_head(head)
        step = known["delta"]
        if case["flags"]["softplus"]:
            step = np.log1p(np.exp(step + known["bias"]))
        for left, width in scan.cut.blocks:
            at = 2 * states * chunks * left
            found = flat[head][at : at + 2 * states * chunks * width].reshape(chunks, width, states, 2)
            for p in range(left, left + width):
                h = np.zeros(states)
                for number, (first, size) in enumerate(scan.extents):
                    rows = slice(first, first + size)
                    for t in range(first, first + size):
                        h = np.exp(step[t, p] * known["A"][p]) * h + step[t, p] * known["V"][t, p] * known["K"][t]
                    close(found[number, p - left, :, 1], h)
                    close(found[number, p - left, :, 0], np.exp(step[rows, p].sum() * known["A"][p]))


@given(cases(), st.integers(1, 200))
def test_no_scan_goes_under_the_floors_of_linear_attention(case: dict, memory: int) -> None:
    schedule = schedule_of(case)
    reads, writes, _ = linear_bounds(schedule.problem, FastMemory("given", memory * 16))
    assert reads.value_elements <= schedule.traffic.read_elements
    assert writes.value_elements <= schedule.traffic.write_elements
    assert reads.value_bytes + writes.value_bytes <= schedule.traffic.total_bytes


def test_fusing_moves_as_much_less_as_the_paper_says() -> None:
    """Section 3.3.2 and appendix D: by a factor of N, the state's size; its fused kernel ran 20 to 40 times faster."""
    n, states, channels = 2048, 16, 1536
    asked = problem(n, n, states, channels, "causal", batch=8)
    plain: dict[str, object] = {"value_block": channels, "z": False, "save": False, "skip": False, "softplus": False}
    fused, apart = (
        make_schedule(asked, None, "mamba1", tile(2048, 1), plain | {"materialise": choice}).traffic
        for choice in (False, True)
    )
    moved = [t.read_elements + t.write_elements for t in (fused, apart)]
    assert moved[0] == 8 * (3 * n * channels + 2 * n * states + channels * states)
    assert moved[1] == moved[0] + 8 * 6 * n * channels * states
    assert 20 < moved[1] / moved[0] < 40
    assert states < moved[1] / moved[0]


@pytest.mark.parametrize(("n", "chunk"), [(100, 128), (129, 256), (512, 512), (1000, 1024), (4096, 2048)])
def test_released_chunks_and_words(n: int, chunk: int) -> None:
    """selective_scan_fwd_cuda's choice by length; every channel reads B and C, two words of state leave per chunk."""
    states, channels = 16, 32
    schedule = make_schedule(problem(n, n, states, channels, "causal"), load_device("h100-sxm5"), "mamba1")
    chunks = -(-n // chunk)
    assert schedule.tiling.rows == chunk
    assert schedule.launches[0].items == channels
    assert per_tensor(schedule) == {
        "V": (n * channels, 0),
        "delta": (n * channels, 0),
        "A": (chunks * channels * states, 0),
        "K": (channels * n * states, 0),
        "Q": (channels * n * states, 0),
        "bias": (channels, 0),
        "D": (channels, 0),
        "z": (n * channels, 0),
        "O": (0, n * channels),
        "states": (0, 2 * chunks * channels * states),
        "O_ungated": (0, n * channels),
    }
    work = schedule.work
    assert work.exp == n * channels * (states + 2)
    assert work.flop == work.flop_executed == n * channels * (6 * states + 6)


def test_what_a_scan_refuses() -> None:
    with pytest.raises(UsageError, match="causal attention only"):
        make_schedule(problem(64, 64, 16), None, "mamba1")
    with pytest.raises(UsageError, match="no mask"):
        make_schedule(problem(64, 64, 16, mask="window:8"), None, "mamba1")
    with pytest.raises(UsageError, match="no tile for head size 300"):
        make_schedule(problem(64, 64, 300, mask="causal"), None, "mamba1")
    with pytest.raises(UsageError, match="does not compute decode"):
        make_schedule(problem(1, 64, 16, phase="decode"), None, "mamba1")
    device, asked = load_device("h100-sxm5"), problem(8192, 8192, 16, 64, "causal")
    with pytest.raises(UsageError, match="256 KiB registers") as refused:
        make_schedule(asked, device, "mamba1", tile(2048, 1), {"value_block": 64})
    assert refused.value.faults[0].hint == "the largest that fits is 192x1; or value_block=6 with this one"
    held = make_schedule(asked, device, "mamba1", tile(192, 1), {"value_block": 64}).working_set
    assert held.register_bytes == 192 * (5 * 64 + 2) * 4  # Delta, Delta x, y, decay, state; B and C
    with pytest.raises(UsageError):
        make_schedule(asked, device, "mamba1", tile(400, 1), {"value_block": 64})
