"""The probe on machines that are made up, where every rate is known; what the operating system says and hides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.cli import run
from iosim.errors import CheckError, UsageError
from iosim.machine import check_device, load_device
from iosim.measure.aligned import aligned
from iosim.measure.probe_file import device_text
from iosim.measure.probe_tasks import LINE_WORDS, Stopwatch, chained
from iosim.measure.probing import SWEEP, Probed, Task, knees, probe
from iosim.measure.system import Cache, System, read_system

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
CACHES = (Cache(1, 48 * KIB, 64, 1), Cache(2, 2 * MIB, 64, 1), Cache(3, 32 * MIB, 64, 8))
SYSTEM = System("Made up 9000", "Nobody", 8, 1, 4e9, 64 * GIB, CACHES)
#: size of a level of one core -> bytes per second of one core, seconds per load
RATES = {48 * KIB: (200e9, 1e-9), 2 * MIB: (100e9, 4e-9), 32 * MIB: (50e9, 20e-9), 1 << 60: (20e9, 100e-9)}


def meter(task: Task) -> float:
    """A machine of 3 GHz, 96 FLOP per clock and the levels of `RATES`."""
    each = task.size_bytes / task.cores
    read, load = next(rates for size, rates in RATES.items() if each <= size)
    known = {"clock": 3e9, "fma": 96 * 3e9 * task.cores, "exp": 0.5e9 * task.cores, "exp-numpy": 2e9 * task.cores}
    return known.get(task.kind) or (read * task.cores if task.kind == "read" else 1 / load)


def written(probed: Probed, folder: Path) -> Path:
    path = folder / "made-up.toml"
    path.write_text(device_text(probed), encoding="utf-8")
    return path


def test_a_made_up_machine_is_found_and_its_file_is_one(tmp_path: Path) -> None:
    device = load_device(str(written(probe(SYSTEM, meter), tmp_path)))
    assert (device.cores, device.kind, device.max_clock_hz) == (8, "cpu", 3e9)
    assert device.peak_flop_per_s("fp32") == pytest.approx(8 * 96 * 3e9)
    assert device.exp_per_s() == pytest.approx(16e9)
    assert [level.name for level in device.levels] == ["l1", "l2", "l3", "hbm"]
    assert [level.scope for level in device.levels] == ["core", "core", "device", "device"]
    assert [level.capacity_bytes for level in device.levels] == [48 * KIB, 2 * MIB, 32 * MIB, 64 * GIB]
    assert [device.bandwidth_bytes_per_s(level.name) for level in device.levels] == pytest.approx(
        [8 * 200e9, 8 * 100e9, 8 * 50e9, 8 * 20e9]
    )
    assert device.facts["l2.latency[0]"].value == pytest.approx(12)
    assert check_device(device) == []
    assert all("probe" in fact.source or "operating system" in fact.source for fact in device.facts.values())
    assert all(fact.kind == "measured" for fact in device.facts.values())


def test_one_core(tmp_path: Path) -> None:
    device = load_device(str(written(probe(SYSTEM, meter, 1), tmp_path)))
    assert device.cores == 1
    assert device.bandwidth_bytes_per_s("hbm") == pytest.approx(20e9)
    assert device.facts["exp.fp32.measured[0]"].value == pytest.approx(0.5e9)
    with pytest.raises(UsageError, match="8 cores, not 99"):
        probe(SYSTEM, meter, 99)


def test_hidden_caches_are_found_by_their_latency(tmp_path: Path) -> None:
    hidden = replace(SYSTEM, caches=(), missing=("caches (/sys)",))
    probed = probe(hidden, meter, 1)
    assert [level.capacity_bytes for level in probed.levels] == [32 * KIB, 2 * MIB, 32 * MIB, 64 * GIB]
    text = written(probed, tmp_path).read_text()
    assert "where the latency of a load grows" in text
    assert "Not readable here: caches (/sys)." in text
    assert load_device(str(tmp_path / "made-up.toml")).facts["l1.capacity"].kind == "derived"


def test_a_machine_that_tells_nothing_still_has_a_file(tmp_path: Path) -> None:
    bare = System("x", "", 2)
    flat: Callable[[Task], float] = lambda task: 1e9  # noqa: E731
    device = load_device(str(written(probe(bare, flat), tmp_path)))
    assert [level.name for level in device.levels] == ["hbm"]
    assert device.level("hbm").capacity_bytes is None


def test_a_disturbed_level_is_as_fast_as_what_passes_through_it() -> None:
    slow = probe(SYSTEM, lambda task: meter(task) / (10 if task.size_bytes < 64 * KIB else 1), 1)
    rates = [level.read_bytes_per_s for level in slow.levels]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] == 100e9


def test_nothing_is_no_rate() -> None:
    with pytest.raises((CheckError, ZeroDivisionError)):
        probe(SYSTEM, lambda task: 0.0 if task.kind == "fma" else meter(task), 1)


@given(st.lists(st.sampled_from([2, 4, 8, 32]), min_size=1, max_size=3), st.integers(1, 4), st.data())
def test_knees_of_stairs(factors: list[int], first: int, data: st.DataObject) -> None:
    """Each stair of two sizes or more is a level; one size between two jumps is their edge."""
    latency, stairs, ends, at = 1.0, [1.0] * first, [first - 1], first
    for factor in factors:
        latency *= factor
        length = data.draw(st.integers(2, 4))
        stairs += [latency] * length
        at += length
        ends.append(at - 1)
    sizes = [1 << step for step in range(len(stairs))]
    assert knees(sizes, stairs) == [sizes[end] for end in ends[:-1]]


def test_the_operating_system_of_a_folder(tmp_path: Path) -> None:
    cpu = tmp_path / "sys/devices/system/cpu/cpu0"
    for number, (level, kind, size, shared) in enumerate(
        [
            (1, "Data", "48K", "0"),
            (1, "Instruction", "32K", "0"),
            (2, "Unified", "2M", "0-1"),
            (3, "Unified", "32768K", "0-7,16-23"),
        ]
    ):
        entry = cpu / f"cache/index{number}"
        entry.mkdir(parents=True)
        for name, text in (("level", str(level)), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
            (entry / name).write_text(text + "\n")
        (entry / "coherency_line_size").write_text("64\n")
    (cpu / "cpufreq").mkdir()
    (cpu / "cpufreq/cpuinfo_max_freq").write_text("3700000\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(
        "model name\t: Made up\nsiblings\t: 16\ncpu cores\t: 8\n\nmodel name\t: Other\n"
    )
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16384 kB\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("50000 100000\n")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("8388608\n")
    found = read_system(tmp_path)
    assert (found.name, found.cores, found.threads_per_core, found.max_clock_hz) == ("Made up", 1, 2, 3.7e9)
    assert found.memory_bytes == 8388608
    assert found.caches == (Cache(1, 48 * KIB, 64, 1), Cache(2, 2 * MIB, 64, 2), Cache(3, 32 * MIB, 64, 16))
    assert found.missing == ()


def test_a_hidden_system_says_what_is_missing(tmp_path: Path) -> None:
    found = read_system(tmp_path)
    assert found.cores >= 1
    assert found.name
    assert found.missing == ("caches (/sys)", "highest clock (/sys)", "memory (/proc/meminfo)")


def test_real_loops_count_their_work() -> None:
    """Not how fast they are, but that twice the rounds are twice the work: chains visit every line, arrays begin at lines."""
    chain = chained(37)
    place, seen = 0, set()
    for _ in range(37):
        place = int(chain[place])
        seen.add(place // LINE_WORDS)
    assert seen == set(range(37))
    assert aligned(3, 5).ctypes.data % 64 == 0
    assert aligned(3, 5).shape == (3, 5)
    quick = Stopwatch(each_s=1e-4, runs=1)
    for kind in ("clock", "fma", "exp", "exp-numpy", "read", "chase"):
        assert np.isfinite(quick(Task(kind, 1 << 16)))
    assert quick(Task("read", 1 << 16, 2)) > 0
    assert SWEEP[0] == 8 * KIB


def test_the_command_writes_a_file_that_report_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("iosim.measure.probe_tasks.Stopwatch", lambda: meter)
    monkeypatch.setattr("iosim.measure.system.read_system", lambda: SYSTEM)
    path = tmp_path / "here.toml"
    assert run(["hardware", "new", str(path), "--probe", "--cores", "1"]) == 0
    assert run(["hardware", "check", str(path)]) == 0
    shape = ["--heads", "4", "--head-dim", "64", "--seq", "512", "--dtype", "fp32", "--no-replay"]
    assert run(["report", "--device", str(path), "--kernel", "cpu-tiled,cpu-unfused", *shape]) == 0
    assert "Made up 9000, 1 core" in capsys.readouterr().out
    assert run(["hardware", "new", str(path), "--probe"]) == 3
    assert run(["hardware", "new", str(tmp_path / "b.toml"), "--cores", "2"]) == 2
