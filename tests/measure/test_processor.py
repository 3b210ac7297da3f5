"""Expected times of our own loops on a processor: every term against loop counters, and measured rows beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_probe import SYSTEM, meter

from iosim.cli import run
from iosim.errors import AbsentError
from iosim.machine import Device, load_device
from iosim.measure.cases import Case
from iosim.measure.clock import Measured, Timing
from iosim.measure.probe_file import device_text
from iosim.measure.probing import probe
from iosim.measure.result_file import measured_rows, write_rows
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.constants import load_calibration
from iosim.timing.processor import processor_parts
from iosim.validate.validating import validate

NAMES = [constant.name for constant in load_calibration("processor").constants]
NOTHING = dict.fromkeys(NAMES, 0.0) | {"near_share": 1.0}


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Device:
    path = tmp_path_factory.mktemp("probed") / "core.toml"
    path.write_text(device_text(probe(SYSTEM, meter, 1)), encoding="utf-8")
    return load_device(str(path))


def calls(batch: int, heads: int, d: int, n_q: int, n_kv: int, causal: bool, left: int = UNBOUNDED) -> Calls:
    numbers = {"batch": batch, "heads": heads, "kv_heads": heads, "head_dim": d, "n_q": n_q, "n_kv": n_kv, "left": left}
    return Calls.of({**{name: [value] for name, value in numbers.items()}, "causal": [causal]})


@given(
    st.integers(1, 40),
    st.integers(0, 40),
    st.integers(1, 17),
    st.integers(1, 17),
    st.sampled_from(["full", "causal", 5]),
)
def test_terms_are_the_loops_own(n_q: int, more: int, tile_q: int, tile_kv: int, mask: str | int) -> None:
    """Scores formed, exponentials and renewals of the compiled kernel, one by one."""
    core = load_device("epyc-9654")
    n_kv, causal = n_q + more, mask != "full"
    left = mask - 1 if isinstance(mask, int) else UNBOUNDED
    scored = visible = renewed = 0
    for begin in range(0, n_q, tile_q):
        queries = range(begin, min(begin + tile_q, n_q))
        seen = {q: range(max(0, q + more - left), q + more + 1) if causal else range(n_kv) for q in queries}
        first = min(seen[q][0] for q in queries) // tile_kv
        last = max(seen[q][-1] for q in queries) // tile_kv
        for tile in range(first, last + 1):
            keys = min(tile_kv, n_kv - tile * tile_kv)
            scored += len(queries) * keys
            renewed += len(queries)
        visible += sum(len(keys) for keys in seen.values())
    one = replace(core, cores=1)
    made = _parts(one, calls(2, 3, 8, n_q, n_kv, causal, left), (tile_q, tile_kv))
    assert made == (6 * scored, 6 * visible, 6 * renewed)


def _parts(core: Device, call: Calls, tile: tuple[int, int]) -> tuple[int, int, int]:
    from iosim.timing.processor import _tiled

    work = _tiled(call, *tile)
    return int(work.scored[0]), int(work.visible[0]), int(work.row_tiles[0])


def test_each_constant_scales_its_own_term(core: Device) -> None:
    call = calls(1, 4, 64, 512, 512, True)
    bare = processor_parts(call, core, "cpu-tiled", (64, 64), True, NOTHING)
    scored, visible, renewed = _parts(core, call, (64, 64))
    assert bare["products_s"][0] == pytest.approx(scored * 64 * 2 * 4 / 200e9)
    assert bare["values_s"][0] == pytest.approx(visible * 64 * 2 * 4 / 200e9)
    assert bare["softmax_s"][0] == pytest.approx(visible / 0.5e9)
    for name, term, more in (("score", "softmax_s", scored / 3e9), ("row", "softmax_s", renewed / 3e9)):
        made = processor_parts(call, core, "cpu-tiled", (64, 64), True, {**NOTHING, name: 1.0})
        assert made[term][0] - bare[term][0] == pytest.approx(more)


def test_what_fits_a_cache_costs_nothing_behind_it(core: Device) -> None:
    ones = {**NOTHING, "exposed_cache": 1.0, "exposed_memory": 1.0}

    def far(n_kv: int, kernel: str = "cpu-tiled", warm: bool = True, n_q: int = 64) -> tuple[float, float]:
        made = processor_parts(calls(1, 1, 64, n_q, n_kv, False), core, kernel, (64, 64), warm, ones)
        return float(made["shared_cache_s"][0]) * 50e9, float(made["memory_s"][0]) * 20e9

    row = 2 * 64 * 4
    assert far(1024) == (0.0, 0.0)
    assert far(1024, warm=False) == pytest.approx((0.0, (1024 + 64) * row))
    assert far(16384) == pytest.approx(((16384 + 64) * row, 0.0))
    assert far(16384, n_q=128) == pytest.approx((2 * 16384 * row, 0.0))
    assert far(1 << 20) == pytest.approx((0.0, ((1 << 20) + 64) * row))
    assert far(1024, "cpu-unfused", n_q=1024)[0] == pytest.approx(2048 * row + 5 * 4 * 1024 * 1024)


def test_processors_that_were_not_probed_have_no_time(core: Device) -> None:
    call = calls(1, 1, 64, 64, 64, False)
    for device, why in ((load_device("epyc-9654"), "one core"), (replace(load_device("epyc-9654"), cores=1), "probe")):
        with pytest.raises(AbsentError, match=why):
            processor_parts(call, device, "cpu-tiled", (64, 64))
    with pytest.raises(AbsentError, match="not flash2"):
        processor_parts(call, core, "flash2", (64, 64))


def test_measured_rows_stand_beside_their_expectation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    device = tmp_path / "core.toml"
    device.write_text(device_text(probe(SYSTEM, meter, 1)), encoding="utf-8")
    core = load_device(str(device))
    rows = []
    for kernel, tile in (("cpu-tiled", (64, 64)), ("cpu-tiled", (32, 16)), ("cpu-unfused", (64, 64))):
        case = Case(kernel, 1, 4, 4, 64, 1024, 1024, "causal", *tile, dtype="fp32")
        parts = processor_parts(calls(1, 4, 64, 1024, 1024, True), core, kernel, tile)
        time = 1.25 * float(sum(part[0] for part in parts.values()))
        rows += measured_rows(case, str(device), {}, Measured({"warm": Timing(time, time, time, 3)}))
    path = tmp_path / "cpu.csv"
    write_rows(path, rows)
    found = validate([path])
    assert found.skipped == {}
    assert {(group.kernel, group.rows) for group in found.groups} == {("cpu-tiled", 2), ("cpu-unfused", 1)}
    for group in found.groups:
        assert group.errors is not None
        assert group.errors.median_ratio == pytest.approx(0.8, rel=1e-4)
        assert group.floors_beaten == 0
    assert run(["validate", str(path)]) == 0
    assert "cpu-tiled" in capsys.readouterr().out


def test_the_report_expects_the_same(core: Device) -> None:
    from iosim.attention import Attention, Shape, Types
    from iosim.kernels import make_schedule
    from iosim.masks import Grid, bind, parse_mask
    from iosim.timing.expected import expected_time

    mask = bind(parse_mask("causal"), Grid((512,), (512,)))
    schedule = make_schedule(
        Attention(Shape(1, 4, 4, 64, 64), mask, Types.of("fp32"), phase="prefill"), core, "cpu-tiled", None
    )
    parts = processor_parts(calls(1, 4, 64, 512, 512, True), core, "cpu-tiled", (64, 64))
    assert expected_time(schedule, core, True).time_s == pytest.approx(float(np.sum(list(parts.values()))))
    assert len(NAMES) <= 20


def test_the_accuracy_on_a_real_processor_does_not_drift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """29 calls of shapes that no constant was fitted on; docs/explanation/processor.md has the figures."""
    root = Path(__file__).parents[2]
    monkeypatch.chdir(tmp_path)  # rows name the device file beside them
    found = validate([root / "measurements" / "processor" / "epyc.csv"])
    errors = {(group.kernel, group.phase): group for group in found.groups}
    assert sum(group.rows for group in found.groups) == 29
    assert all(group.floors_beaten == 0 and group.errors for group in found.groups)
    for (kernel, phase), most in {
        ("cpu-tiled", "prefill"): 0.025,
        ("cpu-tiled", "decode"): 0.05,
        ("cpu-unfused", "prefill"): 0.04,
    }.items():
        found_errors = errors[kernel, phase].errors
        assert found_errors is not None
        assert found_errors.median_abs_error < most
