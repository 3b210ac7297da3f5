"""Reads a device file (TOML) into a `Device`; hardware/README.md describes the keys.

Every number is bare text (`"3.35 TB/s"`) or a table with kind, source and note. A `source` may be a
key of the file's `[sources]` table, which keeps lines short where many facts share a document.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from iosim.catalog import Fact, Table, key, read_toml
from iosim.errors import did_you_mean
from iosim.machine import Device
from iosim.machine_parts import CORE_LEVELS, DTYPES, LEVELS, UNITS, ComputeUnit, Conflict, MemoryLevel

ARCHITECTURES = (
    *("volta", "turing", "ampere", "ada", "hopper", "blackwell", "blackwell-consumer"),
    *("cdna2", "cdna3", "cdna4", "xe2", "ascend", "tpu", "gaudi", "spatial-array", "apple", "cpu", "other"),
)
SIZES = ("capacity", "unified_capacity", "per_block", "line", "sector", "effective_capacity")
OTHER = {
    "tdp": "w",
    "nvlink": "bytes_per_s",
    "nvlink_c2c": "bytes_per_s",
    "scale_up": "bytes_per_s",
    "die_to_die": "bytes_per_s",
    "pcie": "bytes_per_s",
    "host_memory": "bytes_per_s",
    "vector_cores": "count",
    "hbm_stacks": "count",
    "gemm_burst": "flop_per_s",
    "gemm_sustained": "flop_per_s",
}
#: last word of a fact's path -> unit
FIELDS = {
    **dict.fromkeys(SIZES, "bytes"),
    **OTHER,
    "count": "count",
    "clock": "hz",
    "max_clock": "hz",
    "bandwidth": "bytes_per_s",
    "measured_bandwidth": "bytes_per_s",
    "bandwidth_per_clk": "bytes_per_clk",
    "write_per_clk": "bytes_per_clk",
    "latency": "clk",
    "peak": "flop_per_s",
    "measured": "flop_per_s",
    "ops_per_clk": "flop_per_clk",
}
EXP_FIELDS = {"peak": "op_per_s", "measured": "op_per_s", "ops_per_clk": "op_per_clk"}


def read_device(path: Path) -> Device:
    """The device that a file describes.

    Raises:
        FileError: missing, unreadable, or with faults; all of them at once, each with its dotted path.
    """
    table = read_toml(path)
    facts = _Facts(table.table("sources"))
    cores = table.table("cores")
    count = facts.one(cores, "count", "cores")
    if count is None and not cores.has("count"):
        cores.fault("'count' is missing", "count", "a GPU's SMs, an accelerator's matrix cores")
    cores.text("name", "core")
    clock, max_clock = facts.one(cores, "clock", "cores"), facts.one(cores, "max_clock", "cores")
    levels = _levels(table, facts)
    units = _units(table, facts)
    facts.named(table.table("other"), "other", OTHER)
    facts.named(table.table("paths"), "paths", None)
    table.texts("aliases", ())
    device = Device(
        name=table.text("name"),
        key=key(path.stem),
        vendor=table.text("vendor", ""),
        architecture=table.text("architecture", among=ARCHITECTURES),
        kind=table.text("kind", among=("gpu", "npu", "tpu", "cpu")),
        cores=int(count.value) if count else 1,
        clock_hz=_value(clock),
        max_clock_hz=_value(max_clock),
        levels=levels,
        units=units,
        facts=facts.found,
        conflicts=_conflicts(table, facts),
        notes=table.texts("notes", ()),
        sha256=table.sha256,
        file=str(path),
        compute_capability=table.text("compute_capability", ""),
    )
    table.finish()
    return device


class _Facts:
    """Collects every number of a file under its dotted path, with the source's full text."""

    def __init__(self, sources: Table) -> None:
        names = sources.keys()  # a Table is no dict: this also counts them as asked for
        self.sources = {name: sources.text(name) for name in names}
        self.found: dict[str, Fact] = {}

    def one(self, table: Table, field: str, path: str, unit: str = "") -> Fact | None:
        fact = table.fact(field, unit or FIELDS[field])
        return self._keep(table, fact, f"{path}.{field}") if fact else None

    def many(self, table: Table, field: str, path: str, unit: str = "") -> list[Fact]:
        facts = table.facts(field, unit or FIELDS[field])
        return [self._keep(table, fact, f"{path}.{field}[{index}]") for index, fact in enumerate(facts)]

    def named(self, table: Table, path: str, units: dict[str, str] | None) -> None:
        """A table whose keys are names: those of `units`, or any in bytes per clock."""
        for name in units or table.keys():
            self.one(table, name, path, (units or {}).get(name, "bytes_per_clk"))

    def _keep(self, table: Table, fact: Fact, path: str) -> Fact:
        fact = self.resolve(table, fact)
        self.found[path] = fact
        return fact

    def resolve(self, table: Table, fact: Fact) -> Fact:
        """The fact with its source spelled out; a key that `[sources]` lacks is a fault."""
        if self.sources and re.fullmatch(r"[a-z0-9-]+", fact.source) and fact.source not in self.sources:
            table.fault(f"source {fact.source!r} is not in [sources]", hint=did_you_mean(fact.source, self.sources))
        return replace(fact, source=self.sources.get(fact.source, fact.source))


def _levels(table: Table, facts: _Facts) -> tuple[MemoryLevel, ...]:
    levels: list[MemoryLevel] = []
    for row in table.tables("levels"):
        level = _level(row, facts)
        if any(level.name == other.name for other in levels):
            row.fault(f"a second level {level.name!r}", "name")
        levels.append(level)
    return tuple(levels)


def _level(row: Table, facts: _Facts) -> MemoryLevel:
    name = row.text("name", among=LEVELS)
    size = {field: _bytes(facts.one(row, field, name)) for field in SIZES}
    measured = facts.many(row, "measured_bandwidth", name)
    facts.many(row, "latency", name)
    facts.one(row, "write_per_clk", name)
    return MemoryLevel(
        name=name,
        scope=row.text("scope", "core" if name in CORE_LEVELS else "device", among=("core", "device")),
        capacity_bytes=size["capacity"],
        instances=row.integer("instances", 1, least=1),
        partitions=row.integer("partitions", 1, least=1),
        replicates=row.flag("replicates"),
        line_bytes=size["line"],
        sector_bytes=size["sector"],
        per_block_bytes=size["per_block"],
        bandwidth_bytes_per_s=_value(facts.one(row, "bandwidth", name)),
        measured_bytes_per_s=max((fact.value for fact in measured), default=None),
        bytes_per_clk_per_core=_value(facts.one(row, "bandwidth_per_clk", name)),
        effective_bytes=size["effective_capacity"],
        unified_bytes=size["unified_capacity"],
        technology=row.text("technology", ""),
    )


def _units(table: Table, facts: _Facts) -> tuple[ComputeUnit, ...]:
    units: list[ComputeUnit] = []
    for row in table.tables("units"):
        for unit in _unit(row, facts):
            if any(unit.path == other.path for other in units):
                row.fault(f"a second unit {unit.path!r}", "dtypes")
            units.append(unit)
    return tuple(units)


def _unit(row: Table, facts: _Facts) -> list[ComputeUnit]:
    """One unit per operand type that shares the rates."""
    name = row.text("name", among=UNITS)
    accumulate = row.text("accumulate", "")
    capped = row.text("capped", "") != ""
    unit_of = EXP_FIELDS if name == "exp" else FIELDS
    units = []
    for dtype in _dtypes(row):
        unit = ComputeUnit(name, dtype, accumulate, None, None, capped)
        peak = facts.one(row, "peak", unit.path, unit_of["peak"])
        ops = facts.one(row, "ops_per_clk", unit.path, unit_of["ops_per_clk"])
        facts.many(row, "measured", unit.path, unit_of["measured"])
        units.append(replace(unit, peak_op_per_s=_value(peak), ops_per_clk_per_core=_value(ops)))
    return units


def _dtypes(row: Table) -> tuple[str, ...]:
    dtypes = row.texts("dtypes")
    for dtype in dtypes:
        if dtype not in DTYPES:
            row.fault(f"{dtype!r} is not one of {', '.join(DTYPES)}", "dtypes", did_you_mean(dtype, DTYPES))
    return dtypes or ("fp32",)


def _conflicts(table: Table, facts: _Facts) -> tuple[Conflict, ...]:
    return tuple(conflict for row in table.tables("conflicts") if (conflict := _conflict(row, facts)))


def _conflict(row: Table, facts: _Facts) -> Conflict | None:
    path, why = row.text("field"), row.text("why")
    last = re.sub(r"\[\d+\]$", "", path).rsplit(".", 1)[-1]
    if last not in FIELDS:
        row.fault(f"{path!r} names no fact", "field", did_you_mean(path, facts.found))
        return None
    unit = (EXP_FIELDS if path.startswith("exp.") else FIELDS).get(last, FIELDS[last])
    values = tuple(facts.resolve(row, fact) for fact in row.facts("values", unit))
    used = row.fact("used", unit)
    if used is None or path not in facts.found:
        if not row.faults:
            row.fault(f"{path!r} is not in this file", "field", did_you_mean(path, facts.found))
        return None
    return Conflict(path, values, used.value, why)


def _value(fact: Fact | None) -> float | None:
    return fact.value if fact else None


def _bytes(fact: Fact | None) -> int | None:
    return int(fact.value) if fact else None


def template(name: str) -> str:
    """A device file to start from: valid as it is, with example numbers to replace."""
    return TEMPLATE.replace("NAME", name.replace("\\", "").replace('"', ""))


TEMPLATE = """\
# A device for iosim. The numbers are examples: replace them, delete what you do not know.
# A number is text with its unit, or a table that also says where it comes from:
#   capacity = { value = "80 GB", kind = "datasheet", source = "document, page", note = "conditions" }
# kind: datasheet | measured | derived | assumed (what a bare number counts as).
# kB, MB, GB are powers of 1000; KiB, MiB, GiB powers of 1024. Peaks are dense, a multiply-add is two.
name = "NAME"
aliases = []
vendor = "me"
architecture = "other"  # ARCHITECTURES
kind = "gpu"  # gpu | npu | tpu | cpu

[cores]  # SMs, compute units, matrix cores: what runs one work item at a time
count = 100
clock = "1.5 GHz"      # at which peaks are stated
max_clock = "1.8 GHz"  # the highest it can reach: floors use it

# Levels from the core outward: LEVELS.
[[levels]]
name = "registers"
capacity = "256 KiB"

[[levels]]
name = "shared"
capacity = "164 KiB"
unified_capacity = "192 KiB"  # with the L1 cache, where they are one array
per_block = "163 KiB"
bandwidth_per_clk = "128 B/clk"  # of one core

[[levels]]
name = "l2"
capacity = "40 MiB"  # of one instance; instances = 8 where there are several private ones
partitions = 2
replicates = true    # does each partition keep its own copy?
line = "128 B"
sector = "32 B"
bandwidth_per_clk = "40 B/clk"

[[levels]]
name = "hbm"  # the main memory, whatever its technology
technology = "HBM3"
capacity = "80 GB"
bandwidth = "2 TB/s"
measured_bandwidth = [{ value = "1.8 TB/s", kind = "measured", source = "my benchmark" }]

# Units: matrix | vector | exp. Types: DTYPES.
[[units]]
name = "matrix"
dtypes = ["bf16", "fp16"]
peak = "307.2 TFLOP/s"       # dense
ops_per_clk = "2048 FLOP/clk"  # of one core; cores x this x clock should give the peak
# capped = "why the stated peak is below that"

[[units]]
name = "vector"
dtypes = ["fp32"]
ops_per_clk = "256 FLOP/clk"

[[units]]
name = "exp"
dtypes = ["fp32"]
ops_per_clk = "16 exp/clk"
"""
for _word, _names in (("ARCHITECTURES", ARCHITECTURES), ("LEVELS", LEVELS), ("DTYPES", DTYPES)):
    TEMPLATE = TEMPLATE.replace(_word, ", ".join(_names))
