"""Many problems at once: every count equals that of one problem, and what overflows int64 is counted in Python ints."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import iosim
from iosim.bulk import CLOSED, count_many
from iosim.bulk.counting import _values
from iosim.bulk.interval import Interval, Reach
from iosim.bulk.table import Table
from iosim.errors import UsageError
from iosim.exact import ceil_log2, choose, least, most
from iosim.kernels import ALGORITHMS, kernel_names, load_kernel, make_schedule
from iosim.masks import Band, Grid, Tiling, bind
from iosim.masks.sums import clamped_floor_sum, floor_sum

#: settings to try, beside the defaults
SETTINGS: dict[str, list[dict[str, object]]] = {
    "flash1": [{"init": False}],
    "flash2": [{"page_size": 16}, {"lse": False}],
    "split-kv": [{"scale_group": 32, "lse": False}],
    "flash2-backward": [{"deterministic": True}],
    "flash4": [{"software_exp": 10}, {"ctas": 2}],
    "flash-conv": [{"resident": True, "radix": 16}, {"states": 3, "radix": 32}],
    "flash-bias": [{"bias": "low-rank", "rank": 8}, {"shared": "batch"}],
    "lightning2": [{"features": "taylor", "gate": "vector", "value_block": 16, "normalise": True}],
    "chunk-states": [
        {"gate": "scalar", "value_block": 24, "features": "hedgehog", "scores": "none", "pass_states": False},
        {"gate": "vector", "value_block": 24, "scores": "lower", "score_block": 16, "pass_states": False},
        {"gate": "none", "cumsum": False, "score_block": 4 * 64},
    ],
    "delta-rule": [{"gate": "scalar", "value_block": 24}],
    "fixed-state": [{"gate": "vector", "features": "taylor"}],
    "rat": [{"fused": True, "chunk": 5}],
    "rat-decode": [{"chunk": 3}],
    "selective-scan": [{"materialise": True, "save": True}, {"skip": False, "z": False}],
    "spatial-array": [{"passes": 2, "lse": True}, {"passes": 3, "between": "spill", "softmax": "1d", "array": 176}],
    "spatial-array-recompute": [{"passes": 2}, {"passes": 3, "array": 180}],
    "square-tiling": [{"safe": True}],
    "flashmla": [{"workers": 9}, {"workers": 40, "overhead": 2, "page_size": 16}],
    "stream-k": [{"workers": 7}, {"workers": 24, "share": "balanced"}],
    "unfused": [{"passes": 3, "gemm_tile": 128}, {"mask_kernel": "padding", "dropout": True, "scale_kernel": True}],
    "unfused-backward": [{"gemm_tile": 64}, {"mask_kernel": "matrix", "dropout": True}],
}
LINEAR = {"lightning1": ("full", "causal"), "lightning2": ("full", "causal"), "chunk-states": ("causal",),
          "delta-rule": ("causal",), "selective-scan": ("causal",), "agent": ("full",), "rat": ("causal",),
          "rat-decode": ("causal",), "fixed-state": ("causal",), "flash-conv": ("causal",)}  # fmt: skip
MASKS = ("full", "causal", "causal-top-left", "window")


def table(draw: random.Random, algorithm: str, phase: str, rows: int, tiles: bool) -> dict[str, Any]:
    """Random problems that the algorithm computes."""
    number, made = draw.randint, {}
    made["batch"] = [number(1, 9) for _ in range(rows)]
    made["kv_heads"] = [number(1, 4) for _ in range(rows)]
    alone = algorithm in ("unfused-backward",) and draw.random() < 0.5
    made["heads"] = [kv * (1 if alone else draw.choice([1, 1, 2, 5])) for kv in made["kv_heads"]]
    made["head_dim"] = [draw.choice([16, 64, 96, 128]) for _ in range(rows)]
    made["head_dim_v"] = [draw.choice([d, d, 64]) for d in made["head_dim"]]
    longest = draw.choice([40, 700, 100_000])
    made["seq_kv"] = [number(1, longest) for _ in range(rows)]
    square = algorithm in (
        "lightning2",
        "chunk-states",
        "delta-rule",
        "lightning1",
        "selective-scan",
        "rat",
        "flash-conv",
    )
    made["seq_q"] = [number(1, 4) if phase == "decode" else n if square or draw.random() < 0.7 else number(1, n)
                     for n in made["seq_kv"]]  # fmt: skip
    made["seq_q"] = [min(q, n) for q, n in zip(made["seq_q"], made["seq_kv"], strict=True)]
    made["mask"] = [draw.choice(LINEAR.get(algorithm, MASKS)) for _ in range(rows)]
    made["window"] = [number(1, draw.choice([9, 500, longest])) for _ in range(rows)]
    made["sink"] = [draw.choice([0, 0, 4, 130]) for _ in range(rows)]
    own = load_kernel(NAMED[algorithm])
    made["dtype"] = [draw.choice(own.types or ("bf16", "fp16", "fp32")) for _ in range(rows)]
    made["kv_dtype"] = made["dtype"] if own.types else [draw.choice(["bf16", "fp8", "int4"]) for _ in range(rows)]
    if tiles and algorithm != "fixed-state":  # which goes token by token
        made["tile_rows"] = [draw.choice([1, 16, 64, 128, 100]) for _ in range(rows)]
        made["tile_cols"] = (
            made["tile_rows"] if algorithm == "square-tiling" else [draw.choice([16, 64, 176]) for _ in range(rows)]
        )
    if algorithm == "split-kv":
        made["splits"] = [1 + number(0, 2) * (n > 3000) for n in made["seq_kv"]]
        made["mask"] = [
            "full" if splits > 1 else mask for mask, splits in zip(made["mask"], made["splits"], strict=True)
        ]
    return made


load = cache(load_kernel)


def one_by_one(
    kernel: str, columns: dict[str, Any], phase: str, index: int, chosen: dict[str, object], device: Any
) -> dict[str, int]:
    """A row of the table through the front door for one problem."""
    at = {name: column[index] for name, column in columns.items()}
    mask = at["mask"] if at["mask"] != "window" else f"window:{at['window']},sink={at['sink']}"
    asked = iosim.problem(
        heads=at["heads"], kv_heads=at["kv_heads"], head_dim=at["head_dim"], head_dim_v=at["head_dim_v"], batch=at["batch"],
        phase=phase, seq=at["seq_q"], seq_kv=at["seq_kv"], mask=mask, dtype=at["dtype"], kv_dtype=at["kv_dtype"],
    )  # fmt: skip
    tile = Tiling((at["tile_rows"],), (at["tile_cols"],)) if "tile_rows" in at else None
    chosen = chosen | ({"splits": at["splits"]} if "splits" in at else {})
    return _values(make_schedule(asked, device, load(kernel), tile, chosen).launches)


def compare(kernel: str, phase: str, seed: int, rows: int, tiles: bool, chosen: dict[str, object], device: Any) -> int:
    """How many rows were counted in Python ints."""
    draw = random.Random(seed)
    columns = table(draw, load_kernel(kernel).algorithm.name, phase, rows, tiles)
    if "page_size" in chosen and tiles:
        columns["tile_cols"] = [16 * draw.randint(1, 9) for _ in range(rows)]
    if "scale_group" in chosen:  # of quantised keys and values
        columns["kv_dtype"] = [draw.choice(["fp8", "int4"]) for _ in range(rows)]
    if chosen.get("deterministic"):  # an accumulator per core
        device, columns["tile_cols"] = iosim.device("h100-sxm5"), [16] * rows
    counts = count_many(kernel, columns, phase=phase, settings=chosen, device=device)
    for index in range(rows):
        alone = one_by_one(kernel, columns, phase, index, chosen, None if tiles and not device else device)
        named = {*alone, *counts.columns}
        assert {name: int(counts[name][index]) for name in named} == {name: alone.get(name, 0) for name in named}, index
    return int(counts.beyond.sum())


#: a kernel of each algorithm
NAMED = {load_kernel(name).algorithm.name: name for name in kernel_names()} | {name: name for name in kernel_names()}
CASES = [
    (NAMED[name], phase, chosen)
    for name in sorted(CLOSED)
    for phase in ALGORITHMS[name].phases
    for chosen in [{}, *SETTINGS.get(name, [])]
]


@pytest.mark.parametrize(("kernel", "phase", "chosen"), CASES, ids=str)
def test_every_row_equals_its_problem(kernel: str, phase: str, chosen: dict[str, object]) -> None:
    beyond = compare(kernel, phase, 1, 20, kernel not in ("unfused",), chosen, None)
    beyond += compare(kernel, phase, 2, 20, True, chosen, None)
    if kernel not in ("split-kv", "stream-k", "flashmla"):  # whose walks may differ from tile to tile
        assert beyond == 0


@pytest.mark.parametrize("chosen", [{"workers": 132}, {"workers": 132, "share": "balanced"}, {}], ids=str)
def test_walks_that_are_alike_are_counted_together(chosen: dict[str, object]) -> None:
    draw = np.random.default_rng(1)
    columns = {"seq_kv": (2 ** draw.uniform(7, 17, 3000)).astype(int), "batch": draw.integers(1, 65, 3000), "heads": 8}
    assert not count_many("stream-k", columns, settings=chosen).beyond.any()
    columns["heads"] = 8 * draw.choice([1, 4, 8], 3000)
    columns["kv_heads"] = draw.choice([1, 2, 8], 3000)
    assert not count_many("stream-k", columns, phase="decode", settings=chosen).beyond.any()
    columns |= {"splits": 4, "tile_rows": 64, "tile_cols": 32}  # type: ignore[dict-item]
    assert not count_many("split-kv", columns, phase="decode").beyond.any()


def test_latent_attention_in_decode() -> None:
    """FlashMLA on an H100 with the catalogue's tile: DeepSeek-V3's heads, a paged latent cache."""
    draw, rows = random.Random(7), 40
    columns = {"seq_kv": [draw.randint(1, 20_000) for _ in range(rows)], "batch": [draw.randint(1, 200) for _ in range(rows)],
               "heads": 128, "kv_heads": 1, "head_dim": 576, "head_dim_v": 512, "seq_q": [draw.randint(1, 3) for _ in range(rows)]}  # fmt: skip
    columns["seq_kv"] = [max(pair) for pair in zip(columns["seq_kv"], columns["seq_q"], strict=True)]  # type: ignore[arg-type]
    counts = count_many("flashmla", columns, phase="decode", latent=True, device="h100-sxm5")
    assert not counts.beyond.any()
    for index in range(rows):
        at = {name: column[index] if isinstance(column, list) else column for name, column in columns.items()}
        asked = iosim.problem(
            heads=128, kv_heads=1, head_dim=576, head_dim_v=512, latent=True, batch=at["batch"], seq=at["seq_q"],
            seq_kv=at["seq_kv"], phase="decode", mask="full",
        )  # fmt: skip
        alone = _values(make_schedule(asked, iosim.device("h100-sxm5"), load("flashmla")).launches)
        assert {name: int(counts[name][index]) for name in counts.columns} == {
            name: alone.get(name, 0) for name in counts.columns
        }


@pytest.mark.parametrize(
    ("kernel", "board", "chosen"),
    [
        ("cpu-flash", "epyc-9654", {}),
        ("cpu-flash", "xeon-8480", {"lse": False}),
        ("fusemax", "fusemax-cloud", {}),
        ("two-pass-array", "fusemax-cloud", {}),
        ("three-pass-array", "fusemax-cloud", {}),
        ("recompute-array", "fusemax-cloud", {"passes": 3}),
        ("mamba1", "h100-sxm5", {}),
    ],
    ids=str,
)
def test_tiles_that_depend_on_a_rows_lengths(kernel: str, board: str, chosen: dict[str, object]) -> None:
    """Tiles by queries, caches that hold some rows' arrays, and buffers that not every row's tile fits."""
    draw, rows, device = random.Random(11), 40, iosim.device(board)
    columns = table(draw, load(kernel).algorithm.name, "prefill", rows, False)
    square = kernel == "mamba1"
    columns["seq_kv"] = [int(2 ** draw.uniform(3, 17)) for _ in range(rows)]
    columns["seq_q"] = [n if square or draw.random() < 0.6 else draw.randint(1, n) for n in columns["seq_kv"]]
    columns["head_dim"] = [16 if square else draw.choice([64, 128, 256]) for _ in range(rows)]
    columns["head_dim_v"] = [1536] * rows if square else columns["head_dim"]
    counts = count_many(kernel, columns, device=device, settings=chosen)
    for index in range(rows):
        alone = one_by_one(kernel, columns, "prefill", index, chosen, device)
        assert {name: int(counts[name][index]) for name in {*alone, *counts.columns}} == {
            name: alone.get(name, 0) for name in {*alone, *counts.columns}
        }, index
    assert counts.beyond.any() == (kernel in ("two-pass-array", "three-pass-array"))


@pytest.mark.parametrize("turn", [1, -1])
def test_every_row_has_the_tile_that_fits_it(turn: int) -> None:
    """Kept scores of 131,072, 65,536 and 40,000 keys leave room for other blocks of queries; those of 1,000 for all."""
    lengths, board = [131_072, 65_536, 40_000, 1000][::turn], iosim.device("fusemax-cloud")
    counts = count_many("three-pass-array", {"seq_kv": lengths, "head_dim": 64}, device=board)
    tiles = set()
    for index, n in enumerate(lengths):
        schedule = make_schedule(
            iosim.problem(heads=1, head_dim=64, seq=n, mask="full"), board, load("three-pass-array")
        )
        tiles.add(str(schedule.tiling))
        assert counts["K.read_elements"][index] == _values(schedule.launches)["K.read_elements"]
        assert counts["tile_pairs"][index] == schedule.work.tile_pairs
    assert len(tiles) == 4
    assert counts.beyond.tolist() == [True, True, True, False][::turn]


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "phase", "chosen"), CASES, ids=str)
def test_thousands_of_rows_equal_their_problems(kernel: str, phase: str, chosen: dict[str, object]) -> None:
    for seed in range(10, 20):
        compare(kernel, phase, seed, 250, True, chosen, None)


def test_what_is_not_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every algorithm of the package is, but for keys that sequences share, which columns do not hold."""
    assert {load_kernel(name).algorithm.name for name in kernel_names()} - {"cascade"} <= CLOSED <= set(ALGORITHMS)
    monkeypatch.setattr("iosim.bulk.counting.CLOSED", CLOSED - {"flash1"})
    with pytest.raises(UsageError, match="flash1 has no closed form over many problems"):
        count_many("flash1", {"seq_kv": [64]})
    closed = [name for name in kernel_names() if load_kernel(name).algorithm.name in CLOSED]
    assert {"flash3", "flash4", "cudnn", "triton", "flex", "xformers", "trtllm", "gla", "based"} <= set(closed)


@pytest.mark.parametrize("board", ["h100-sxm5", "a100-sxm-80gb"])
@pytest.mark.parametrize(
    "kernel", ["flash2", "flash3", "cudnn", "triton", "flex", "xformers", "trtllm", "flash2-backward"]
)
def test_the_kernels_own_tiles_are_chosen_row_by_row(kernel: str, board: str) -> None:
    phase = "backward" if "backward" in kernel else "prefill"
    draw, rows = random.Random(5), 25
    columns = table(draw, "flash2", phase, rows, False)
    columns |= {
        "head_dim": [draw.choice([64, 128]) for _ in range(rows)],
        "dtype": ["bf16"] * rows,
        "kv_dtype": ["bf16"] * rows,
    }
    columns["head_dim_v"] = columns["head_dim"]
    counts = count_many(kernel, columns, phase=phase, device=board)
    for index in range(rows):
        alone = one_by_one(kernel, columns, phase, index, {}, iosim.device(board))
        assert int(counts["tile_pairs"][index]) == alone["tile_pairs"]
        assert int(counts["read_bytes"][index]) == alone["read_bytes"]


@pytest.mark.parametrize("kernel", ["flash2", "unfused", "flash2-backward", "flash1", "square-tiling", "delta-rule"])
def test_counts_beyond_64_bits_are_python_ints(kernel: str) -> None:
    phase = "backward" if "backward" in kernel else "prefill"
    draw = random.Random(3)
    lengths = [int(2 ** draw.uniform(10, 39)) for _ in range(60)]
    columns: dict[str, Any] = {"seq_kv": lengths, "heads": [draw.choice([1, 8, 128]) for _ in lengths], "mask": "causal",
                               "batch": [draw.choice([1, 64, 10**9]) for _ in lengths]}  # fmt: skip
    counts = count_many(kernel, columns, phase=phase)
    large = 0
    for index, n in enumerate(lengths):
        asked = iosim.problem(
            heads=columns["heads"][index],
            head_dim=128,
            seq=n,
            batch=columns["batch"][index],
            mask="causal",
            phase=phase,
        )
        alone = _values(make_schedule(asked, None, load(kernel)).launches)
        assert {name: counts[name][index] for name in counts.columns} == {
            name: alone.get(name, 0) for name in counts.columns
        }
        large += max(alone.values()) > 2**63 - 1
        assert counts.beyond[index] or max(alone.values()) <= 2**63 - 1
    assert 5 < large < 55
    if kernel != "delta-rule":  # cubes of chunks: sixteen such rows together prove little
        assert counts.beyond.sum() <= large + 24
    assert any(column.dtype == object for column in counts.columns.values())


def test_a_row_as_large_as_int64_holds_is_not_refused_for_its_neighbours() -> None:
    """4,096 rows, one of which overflows: the others are proven without it."""
    lengths = np.full(4096, 8192)
    lengths[100] = 10**12
    counts = count_many("flash2", {"seq_kv": lengths, "batch": 1024, "heads": np.tile([8, 16], 2048)})
    assert counts.beyond[100]
    assert counts.beyond.sum() <= 16


# --- the proof ------------------------------------------------------------------------------------


class Watched(int):
    """An int that remembers the largest magnitude of all results of arithmetic."""

    largest = 0

    @classmethod
    def made(cls, value: int) -> Any:
        Watched.largest = max(Watched.largest, abs(value))
        return cls(value)


def _watch(name: str) -> None:
    plain = getattr(int, name)
    setattr(Watched, name, lambda self, *others: Watched.made(plain(int(self), *map(int, others))))


for operation in ("add", "radd", "sub", "rsub", "mul", "rmul", "floordiv", "rfloordiv", "mod", "rmod", "neg", "abs"):
    _watch(f"__{operation}__")

spans = st.tuples(st.integers(-50, 10**6), st.integers(0, 10**5)).map(lambda t: (t[0], t[0] + t[1]))
positive = st.tuples(st.integers(1, 10**6), st.integers(0, 10**5)).map(lambda t: (t[0], t[0] + t[1]))


@given(spans, spans, positive, st.data())
@settings(max_examples=80, deadline=None)
def test_intervals_hold_every_result(
    a: tuple[int, int], b: tuple[int, int], c: tuple[int, int], data: st.DataObject
) -> None:
    reach = Reach()
    x, y, z = (Interval(reach, *span) for span in (a, b, c))
    p, q, r = (data.draw(st.integers(*span)) for span in (a, b, c))
    pairs: list[tuple[Any, Any]] = [
        (1 << x % 7, 1 << p % 7), (ceil_log2(z), (r - 1).bit_length()), (x + y, p + q), (x - y, p - q), (x * y, p * q), (x // z, p // r), (x % z, p % r), (-x, -p), (abs(x), abs(p)),
        (7 - x, 7 - p), (7 * x, 7 * p), (10**6 // z, 10**6 // r), (10**6 % z, 10**6 % r), (least(x, y), min(p, q)),
        (most(x, 5), max(p, 5)), (choose(x < y, x, z), p if p < q else r), (choose(x == y, x, 3), p if p == q else 3),
    ]  # fmt: skip
    exponents: Any = ceil_log2(np.array([r, 1 << 40, (1 << 40) + 1]))  # type: ignore[arg-type]
    assert exponents.tolist() == [(r - 1).bit_length(), 40, 41]
    for interval, value in pairs:
        if isinstance(interval, int):  # decided
            assert interval == value
            continue
        assert interval.low <= value <= interval.high
        assert reach.magnitude >= abs(value)
    for found, value in (
        (x < y, p < q),
        (x <= y, p <= q),
        (x > y, p > q),
        (x >= y, p >= q),
        (x == y, p == q),
        (x != y, p != q),
    ):
        assert found is value or not isinstance(found, bool)


@given(st.integers(0, 400), st.integers(1, 300), st.integers(-300, 4000), st.integers(1, 300), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_floor_sums_on_arrays_and_intervals(n: int, a: int, b: int, m: int, top: int) -> None:
    wanted = sum((a * i + b) // m for i in range(n))
    clamped = sum(min(top, max(0, (a * i + b) // m)) for i in range(n))
    rows: Any = np.array([n, n, 3])
    assert np.asarray(floor_sum(rows, a, b, m))[:2].tolist() == [wanted] * 2
    assert np.asarray(clamped_floor_sum(rows, a, b, m, top))[:2].tolist() == [clamped] * 2
    Watched.largest = 0
    floor_sum(*(Watched.made(v) for v in (n, a, b, m)))
    reach = Reach()
    interval: Any = floor_sum(Interval(reach, 0, n), a, b, m)  # type: ignore[arg-type]
    assert interval.low <= wanted <= interval.high
    assert reach.magnitude >= Watched.largest or n == 0


@pytest.mark.parametrize("kernel", sorted(NAMED[name] for name in CLOSED))
def test_no_intermediate_passes_what_the_intervals_bound(kernel: str) -> None:
    """The formulas on ints that watch every result: none is larger than what one interval per column predicted."""
    algorithm = load_kernel(kernel).algorithm
    phase, draw = algorithm.phases[0], random.Random(4)
    columns = table(draw, algorithm.name, phase, 30, kernel != "unfused")
    uniform = algorithm.name in ("stream-k", "split-kv")
    columns["mask"] = ["full" if uniform else LINEAR.get(algorithm.name, ("causal",))[0]] * 30
    seen: list[tuple[int, Any]] = []
    from iosim.bulk import counting

    plain = counting._Counter._proven

    def spying(self: Any, rows: Any) -> Any:
        reach = Reach()
        made = plain(self, rows)
        if any(isinstance(value, np.ndarray) for value in (made or {}).values()):
            script = counting.Script()
            with counting.recording(script):
                self._evaluate(rows)
            with counting.recording(script, replay=True):
                self._evaluate(rows.intervals(reach))
            size = max(len(c) for c in vars_of(rows) if isinstance(c, np.ndarray))
            for index in range(size):
                Watched.largest = 0
                with counting.recording(counting.Script()):
                    self._evaluate(rows.map(lambda column, index=index: Watched.made(int(column[index]))))
                seen.append((Watched.largest, reach.magnitude))
        return made

    counting._Counter._proven = spying  # type: ignore[method-assign]
    try:
        count_many(kernel, columns, phase=phase)
    finally:
        counting._Counter._proven = plain  # type: ignore[method-assign]
    assert seen
    assert all(watched <= bound for watched, bound in seen)


def vars_of(rows: Any) -> list[Any]:
    return [getattr(rows, name) for name in type(rows).__slots__]


# --- the table --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "what"),
    [
        ({"seq_kv": [64], "head": [3]}, "no column 'head'"),
        ({"heads": [3]}, "seq_kv is needed"),
        ({"seq_kv": [64, 65], "heads": [1, 2, 3]}, "2, 3 rows"),
        ({"seq_kv": [64.0]}, "whole numbers"),
        ({"seq_kv": [64, 0]}, "row 1: 0 is not from 1"),
        ({"seq_kv": [64, 64], "heads": [4, 6], "kv_heads": 4}, "row 1: 6 query heads do not divide"),
        ({"seq_kv": [64, 64], "seq_q": [64, 65], "mask": "causal"}, "row 1: a causal mask"),
        ({"seq_kv": [64], "mask": "window"}, "need a column window"),
        ({"seq_kv": [64], "mask": "prefix:1"}, "is no band"),
        ({"seq_kv": [157], "mask": ["prefix:50"]}, "prefix:50 is no band"),
        ({"seq_kv": [157], "mask": ["document:100+57"]}, "document:100[+]57 is no band"),
        ({"seq_kv": [157], "mask": "or(causal;prefix:50)"}, "is no band"),
        ({"seq_kv": [157], "mask": "not(causal)"}, "is no band"),
        ({"seq_kv": [157], "mask": "prefx:50"}, "unknown mask"),
        ({"seq_kv": [64], "dtype": ["bf17"]}, "unknown element type"),
        ({"seq_kv": [64], "tile_rows": 64}, "without the other extent"),
        ({"seq_kv": [64, 64], "head_dim": [64, 300]}, "row 1: xformers has no tile"),
    ],
)
def test_a_broken_table_is_refused_with_its_row(columns: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        count_many("xformers", columns)


def test_refusals_of_a_formula_name_the_first_row() -> None:
    with pytest.raises(UsageError, match="row 2: 9 splits of 8 KV tiles"):
        count_many(
            "split-kv",
            {"seq_kv": [4096, 4096, 512], "splits": [4, 8, 9], "tile_rows": 64, "tile_cols": 64},
            phase="decode",
        )
    with pytest.raises(UsageError, match="needs a column of splits"):
        count_many("split-kv", {"seq_kv": [4096]}, phase="decode")
    with pytest.raises(UsageError, match="row 1: agent attention has no mask"):
        count_many("agent", {"seq_kv": [64, 64], "mask": ["full", "causal"]})
    with pytest.raises(UsageError, match="no column 'rd_bytes'"):
        count_many("flash2", {"seq_kv": [64, 65]})["rd_bytes"]


def test_spaces_around_a_mask_do_not_shift_it() -> None:
    columns = {"seq_kv": [90], "seq_q": 40}
    spaced, plain = (Table.of(columns | {"mask": word}, "prefill", False) for word in (" causal ", "causal"))
    assert spaced.numbers["offset"].tolist() == plain.numbers["offset"].tolist() == [50]


def test_words_are_bands_and_widths() -> None:
    made = Table.of({"seq_kv": [90, 90, 90], "seq_q": 40, "mask": ["band:left=3", "window:7,sink=2", "causal-top-left"],
                     "dtype": "fp8", "kv_dtype": ["int4", "fp8", "bf16"]}, "prefill", False)  # fmt: skip
    for index, word in enumerate(["band:left=3", "window:7,sink=2", "causal-top-left"]):
        found, wanted = made.problem(index).mask, bind(word, Grid((40,), (90,)))
        assert isinstance(found, Band)
        assert isinstance(wanted, Band)
        assert (found.left, found.right, found.sink, found.offset) == (
            wanted.left,
            wanted.right,
            wanted.sink,
            wanted.offset,
        )
    assert [made.problem(index).types.kv for index in range(3)] == ["int4", "fp8", "bf16"]
    assert made.numbers["out_bits"].tolist() == [16] * 3
