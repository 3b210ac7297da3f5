"""A device file of what a probe found, every number with how it was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from iosim.measure.probing import Level, Probed, probe
from iosim.measure.system import System


def probed_text(system: System, cores: int | None = None, progress: Callable[[str], None] | None = None) -> str:
    """Probe this machine's processor; the file.

    Args:
        cores: at work at once; all that may be used by default.
    Raises:
        CheckError: rates that cannot be.
    """
    from iosim.measure.probe_tasks import Stopwatch

    return device_text(probe(system, Stopwatch(), cores, progress))


def device_text(probed: Probed) -> str:
    """The file: `iosim report --device FILE.toml` reads it as it is."""
    return "\n".join(_lines(probed)) + "\n"


def _lines(probed: Probed) -> Iterator[str]:
    system, day = probed.system, probed.day
    many = f"{probed.cores} core{'s' if probed.cores != 1 else ''}"
    yield f"name = {_quoted(f'{system.name}, {many}, probed {day}')}"
    yield f"vendor = {_quoted(system.vendor or 'unknown')}"
    yield 'architecture = "cpu"'
    yield 'kind = "cpu"'
    notes = [
        "Rates are what compiled loops reached in this probe: a floor of time on this device holds for such rates, and a part "
        "that was disturbed, or can do more, goes below it.",
        "Expected times are known of iosim's own compiled kernels on one core only (docs/explanation/processor.md).",
    ]
    notes += [f"Not readable here: {what}." for what in system.missing]
    yield f"notes = {json.dumps(notes, ensure_ascii=False)}"
    yield ""
    yield "[sources]"
    yield f"probe = {_quoted(f'measured by iosim probe on {day}, {many} at once, best of a few runs')}"
    yield f"system = {_quoted(f'read from the operating system on {day}')}"
    yield ""
    yield "[cores]"
    yield 'name = "core"'
    yield f"count = {_fact(str(probed.cores), 'measured', 'system', 'that the probe used')}"
    yield f"max_clock = {_fact(f'{probed.clock_hz / 1e9:.4g} GHz', 'measured', 'probe', _CLOCK)}"
    for level in probed.levels:
        yield from _level(level, probed)
    yield ""
    yield "[[units]]"
    yield 'name = "vector"'
    yield 'dtypes = ["fp32"]'
    yield f"peak = {_fact(f'{probed.flop_per_s / 1e9:.5g} GFLOP/s', 'measured', 'probe', 'chains of multiply-adds')}"
    yield ""
    yield "[[units]]"
    yield 'name = "exp"'
    yield 'dtypes = ["fp32"]'
    yield f"peak = {_fact(f'{probed.exp_per_s / 1e9:.4g} Gexp/s', 'measured', 'probe', 'the faster of two libraries')}"
    compiled = _fact(f"{probed.compiled_exp_per_s / 1e9:.4g} Gexp/s", "measured", "probe", "compiled loops")
    yield f"measured = [{compiled}]"


_CLOCK = "chain of dependent additions and exclusive ors, one clock each; one core busy"


def _level(level: Level, probed: Probed) -> Iterator[str]:
    each = f"sum of {level.size_bytes >> 10} KiB per core"
    clocks = level.load_s * probed.clock_hz
    rate = _fact(f"{level.read_bytes_per_s / 1e9:.4g} GB/s", "measured", "probe", each)
    yield ""
    yield "[[levels]]"
    yield f'name = "{level.name}"'
    if level.name in ("l1", "l2", "l3"):
        yield f'scope = "{"core" if level.private else "device"}"'
    if level.instances > 1:
        yield f"instances = {level.instances}"
    if level.capacity_bytes:
        size = f"{level.capacity_bytes >> 10} KiB"
        told = ("measured", "system", "") if level.told else ("derived", "probe", "where the latency of a load grows")
        yield f"capacity = {_fact(size, *told)}"
    if level.line_bytes:
        yield f"line = {_fact(f'{level.line_bytes} B', 'measured', 'system', '')}"
    yield f"bandwidth = {rate}"
    yield f"measured_bandwidth = [{rate}]"
    note = f"random chain through {level.size_bytes >> 10} KiB, pages and their tables included"
    yield f"latency = [{_fact(f'{clocks:.4g} clk', 'measured', 'probe', note)}]"


def _fact(value: str, kind: str, source: str, note: str) -> str:
    more = f", note = {_quoted(note)}" if note else ""
    return f'{{ value = "{value}", kind = "{kind}", source = "{source}"{more} }}'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
