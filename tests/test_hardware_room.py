"""The shipped devices: every collected fact is there, nothing looks wrong, and a floor's rates are the highest known."""

from __future__ import annotations

import csv
import re
from functools import cache
from pathlib import Path

import pytest

from iosim.errors import AbsentError
from iosim.machine import Device, check_device, device_names, load_device
from iosim.units import parse

GOLDEN = Path(__file__).parent / "golden" / "hardware_facts.csv"

#: field of the CSV -> pattern of dotted paths that may hold it
PATHS = {
    "sm_count": r"cores\.count|other\.vector_cores",
    "boost_clock": r"cores\.clock",
    "max_boost_clock": r"cores\.max_clock",
    "l1_shared_per_sm": r"(shared\.unified_capacity|l1\.capacity)",
    "shared_max_per_sm": r"shared\.capacity",
    "shared_max_per_block": r"shared\.per_block",
    "regfile_per_sm": r"registers\.capacity",
    "tmem_per_sm": r"tensor-memory\.capacity",
    "tmem_bw_per_sm": r"tensor-memory\.measured_bandwidth",
    "l0a": r"l0a\.capacity",
    "l0b": r"l0b\.capacity",
    "l0c": r"l0c\.capacity",
    "ub": r"ub\.capacity",
    "vmem": r"vmem\.capacity",
    "sram": r"l2\.capacity",
    "sram_bw": r"l2\.bandwidth",
    "l2_size": r"l2\.capacity",
    "l2_size_alt": r"l2\.capacity",
    "mall_l3": r"(mall|l3)\.capacity",
    "l2_bw_peak": r"l2\.bandwidth",
    "l2_bw_measured": r"l2\.(measured_)?bandwidth",
    "mall_bw_measured": r"mall\.measured_bandwidth",
    "l1_bw_measured_chip": r"shared\.measured_bandwidth",
    "shared_bw_per_sm_clk": r"shared\.bandwidth_per_clk",
    "gm_bw_per_core": r"hbm\.bandwidth_per_clk",
    "l2_read_bw_per_core": r"l2\.bandwidth_per_clk",
    "l2_write_bw_per_core": r"l2\.write_per_clk",
    "l1_to_l0a_bw": r"paths\.l1_to_l0a",
    "l1_to_l0b_bw": r"paths\.l1_to_l0b",
    "l1_to_ub_bw": r"paths\.l1_to_ub",
    "l0c_to_ub_bw": r"paths\.l0c_to_ub",
    "ub_to_gm_bw": r"paths\.ub_to_gm",
    "vector_width": r"paths\.vector",
    "hbm_capacity": r"hbm\.capacity",
    "hbm_stacks": r"other\.hbm_stacks",
    "latency_shared": r"shared\.latency",
    "latency_l2_near_far": r"l2\.latency",
    "latency_hbm": r"hbm\.latency",
    "tensor_fp16_fp32acc": r"matrix\.(bf16|fp16)\.peak",
    "tensor_fp16_practical": r"matrix\.(bf16|fp16)\.measured",
    "tensor_ops_per_sm_clk_bf16": r"matrix\.bf16\.ops_per_clk",
    "cube_mac_per_clk": r"matrix\.bf16\.ops_per_clk",
    "tensor_fp8": r"matrix\.fp8\.peak",
    "tensor_fp8_fp32acc": r"matrix\.fp8\.peak",
    "tensor_fp4": r"matrix\.fp4\.peak",
    "tensor_int8": r"matrix\.int8\.peak",
    "tensor_tf32": r"matrix\.tf32\.peak",
    "tensor_fp64": r"matrix\.fp64\.peak",
    "fp64": r"vector\.fp64\.peak",
    "fp32_cuda": r"vector\.fp32\.peak",
    "mufu_per_sm_clk": r"exp\.fp32\.ops_per_clk",
    "exp_per_s_derived": r"exp\.fp32\.peak",
    "ex2_spec": r"exp\.fp32\.peak",
    "ex2_measured": r"exp\.fp32\.measured",
    "ex2_measured_gb200": r"exp\.fp32\.peak",
    "special_function_rate": r"exp\.fp32\.peak",
    "nvlink_total": r"other\.nvlink",
    "nvlink_c2c": r"other\.nvlink_c2c",
    "host_mem_bw": r"other\.host_memory",
    "scaleup_total": r"other\.scale_up",
    "die_to_die_bw": r"other\.die_to_die",
    "pcie": r"other\.pcie",
    "tdp": r"other\.tdp",
    "hbm_bw_peak": r"hbm\.bandwidth",
    "hbm_bw_peak_alt": r"hbm\.bandwidth",
    "hbm_bw_peak_marketed": r"hbm\.bandwidth",
    "hbm_capacity_alt": r"hbm\.capacity",
    "hbm_bw_decode_kernel": r"hbm\.measured_bandwidth",
}

#: facts that the files hold in another form: the text to look for instead, and why
RESOLVED: dict[tuple[str, str], tuple[list[str], str]] = {
    ("GH200", "hbm_capacity"): (["96 GB", "144 GB"], "two variants"),
    ("GH200", "hbm_bw_peak"): (["4 TB/s", "4.9 TB/s"], "two variants"),
    ("GH200", "host_mem_bw"): (["512 GB/s"], "upper end of a range"),
    ("GH200", "tdp"): (["1000 W"], "upper end of a configurable range"),
    ("B300-SXM", "hbm_capacity"): (["270 GB", "288 GB"], "two documents"),
    ("B300-SXM", "hbm_bw_peak"): (["7.7 TB/s", "8 TB/s"], "two documents"),
    ("GB300", "hbm_capacity"): (["279 GB", "288 GB"], "two documents"),
    ("B200-SXM", "hbm_capacity_alt"): (["192 GB"], "the visible 178.3 GiB are no whole bytes: named in `why`"),
    ("B200-SXM", "hbm_bw_measured_low"): (["4.14 TB/s", "5.6 TB/s"], "two measurements"),
    ("B200-SXM", "l2_bw_measured"): (["21 TB/s", "16.8 TB/s"], "own and other die"),
    ("B200-SXM", "tmem_bw_per_sm"): (["16 TB/s", "8 TB/s"], "read and write"),
    ("MI250X", "l2_bw_measured"): (["10 TB/s"], "twice the MI210, which is one of its two dies"),
    ("MI250X", "hbm_bw_measured_triad"): (["2.6 TB/s"], "twice the MI210, which is one of its two dies"),
    ("Ascend-910B2C", "cube_mac_per_clk"): (["8192"], "a multiply-add is two operations"),
    ("Ascend-950PR", "hbm_capacity"): (["112 GiB"], "the unit is part of the CSV's unit column"),
    ("Ascend-910C", "sm_count"): (["48", "96"], "two dies of 24 cube and 48 vector cores"),
    **{
        (device, "latency_l2_near_far"): (["208", "357"], "near and far partition")
        for device in ("A100-SXM-40GB", "A100-SXM-80GB", "A800-SXM-80GB")
    },
}
TEXT_ONLY = {("B200-SXM", "pcie")}  # "Gen5 x16" is the technology of the host level
BINARY = {"KB": "KiB", "MB": "MiB", "MiB": "MiB"}
PER_INSTANCE = ("l2_size", "mall_l3")  # the CSV counts all instances of a device


@cache
def device(name: str) -> Device:
    return load_device(name)


@cache
def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(GOLDEN.read_text(encoding="utf-8").splitlines()))


def si_values(row: dict[str, str]) -> list[float]:
    """What the row says, in SI units."""
    fact = (row["device"], row["field"])
    if fact in RESOLVED:
        return [_si(text, row) for text in RESOLVED[fact][0]]
    if row["field"] == "sm_count":
        return [float(number) for number in re.findall(r"\d+", row["value"])]
    return [_si(row["value"], row)]


def _si(text: str, row: dict[str, str]) -> float:
    if re.search(r"[A-Za-z]", text):
        unit = "bytes" if text.endswith(("iB", "GB")) else "bytes_per_s" if "B/s" in text else "w"
        return parse(text, unit)
    word = row["unit"].split()[0] if row["unit"] else ""
    on_chip = word in BINARY and not row["field"].startswith("hbm")
    scale = {"KB": 1024, "MB": 1024**2, "MiB": 1024**2} if on_chip else {"GB": 1e9, "GB/s": 1e9}
    scale |= {"MHz": 1e6, "TFLOP/s": 1e12, "TOP/s": 1e12, "Texp/s": 1e12, "Tops/s": 1e12}
    return float(text) * scale.get(word, 1)


def pattern(field: str) -> str:
    default = r"hbm\.measured_bandwidth" if field.startswith("hbm_bw_measured") else None
    return PATHS.get(field, default) or pytest.fail(f"no path is known for {field}")


def held(found: Device, field: str) -> set[float]:
    """Values of the file under the paths that may hold `field`, conflicting ones included."""
    match = re.compile(rf"(?:{pattern(field)})(\[\d+\])?$").match
    values = {fact.value for path, fact in found.facts.items() if match(path)}
    values |= {fact.value for conflict in found.conflicts if match(conflict.field) for fact in conflict.values}
    if field in PER_INSTANCE:
        count = {level.name: level.instances for level in found.levels}
        many = count.get("l3", 1) * count.get("l2", 1) if field == "mall_l3" else count["l2"]
        per_core = found.level("l2").scope == "core" and field == "l2_size"
        values |= {value * (found.cores if per_core else many) for value in values}
    return values


@pytest.mark.parametrize("name", sorted({row["device"] for row in rows()}))
def test_every_collected_fact_is_in_the_file(name: str) -> None:
    found = device(name)
    for row in (row for row in rows() if row["device"] == name and (name, row["field"]) not in TEXT_ONLY):
        if row["value"] == "0":  # no such level
            assert not found.has_level("tensor-memory" if row["field"] == "tmem_per_sm" else "mall")
            continue
        values = held(found, row["field"])
        for value in si_values(row):
            assert any(abs(value - each) <= 1e-9 * value for each in values), (row["field"], row["value"], values)


def test_all_devices_of_the_table_and_six_more_are_there() -> None:
    keys = {device(row["device"]).key for row in rows()}
    assert len(keys) == 47
    others = {"gb10", "l20", "rtx-a5000", "arc-pro-b60", "rtx-pro-6000-blackwell-server", "fusemax-cloud"}
    assert set(device_names()) == keys | others


@pytest.mark.parametrize("name", device_names())
def test_nothing_looks_wrong(name: str) -> None:
    assert check_device(device(name)) == []


@pytest.mark.parametrize("name", device_names())
def test_every_number_has_a_source_and_a_kind(name: str) -> None:
    for path, fact in device(name).facts.items():
        assert fact.source, path
        assert " " in fact.source or fact.source.startswith(("flashinfer", "philipturner")), (path, fact.source)
    for conflict in device(name).conflicts:
        assert conflict.why
        assert all(fact.source for fact in conflict.values), conflict.field
        assert any(fact.value == conflict.used for fact in conflict.values), conflict.field


@pytest.mark.parametrize("name", device_names())
def test_the_floor_rate_is_never_under_the_stated_one(name: str) -> None:
    found = device(name)
    for dtype in ("bf16", "fp16", "fp8", "int8", "fp4", "fp32", "tf32"):
        try:
            peak = found.peak_flop_per_s(dtype)
        except AbsentError:
            continue
        assert peak >= found.rated_flop_per_s(dtype)
        assert peak >= max(
            (u.peak_op_per_s or 0 for u in found.units if u.dtype == dtype and u.name == "matrix"), default=0
        )


@pytest.mark.parametrize("name", device_names())
def test_no_measured_rate_is_above_the_rate_of_a_floor(name: str) -> None:
    found = device(name)
    if found.has_level("hbm") and found.attainable_bytes_per_s("hbm"):
        assert found.attainable_bytes_per_s("hbm") <= found.bandwidth_bytes_per_s("hbm")
    for unit in found.units:
        measured = [fact.value for path, fact in found.facts.items() if path.startswith(f"{unit.path}.measured")]
        rate = found.exp_per_s() if unit.name == "exp" else found.peak_flop_per_s(unit.dtype)
        assert max(measured, default=0) <= rate, unit.path


@pytest.mark.parametrize(
    ("name", "tflops"),
    [  # cores x FLOP per clock x highest clock, by hand
        ("v100-sxm2-32gb", 80 * 1024 * 1.53e-3),
        ("a100-sxm-80gb", 312),  # the datasheet's rounding is above 311.9
        ("h100-sxm5", 132 * 4096 * 1.98e-3),
        ("h200-sxm", 132 * 4096 * 1.98e-3),
        ("h100-pcie", 756),  # capped
        ("h20", 148),  # capped
        ("b200-sxm", 148 * 8192 * 1.965e-3),
        ("mi300x", 304 * 2048 * 2.1e-3),
        ("ascend-910b2", 24 * 8192 * 1.8e-3),
    ],
)
def test_bf16_peaks_of_known_parts(name: str, tflops: float) -> None:
    assert device(name).peak_flop_per_s("bf16") / 1e12 == pytest.approx(tflops, rel=1e-3)


def test_consumer_parts_have_a_faster_half_accumulating_unit() -> None:
    for name in ("rtx-3090", "rtx-4090", "rtx-5090"):
        found = device(name)
        assert found.peak_flop_per_s("fp16") == pytest.approx(2 * found.peak_flop_per_s("bf16"), rel=1e-2)
        assert found.rated_flop_per_s("fp16") < 0.55 * found.peak_flop_per_s("fp16")


def test_two_partition_parts_and_private_caches() -> None:
    halves = {name for name in device_names() if any(level.replicates for level in device(name).levels)}
    assert {"a100-sxm-80gb", "h100-sxm5", "h200-sxm", "b200-sxm"} <= halves
    assert not halves & {"l40s", "rtx-4090", "gb10", "v100-sxm2-32gb", "mi300x"}
    assert device("mi300x").level("l2").instances == 8
    cache = device("mi300x").cache_before("hbm")
    assert cache is not None
    assert cache.name == "mall"
    assert device("h200-sxm").level("l2").capacity_bytes == 62_914_560  # by the driver, not the 50 MB of papers


@pytest.mark.parametrize("name", ["h100-sxm5", "b300-sxm", "gb300", "rtx-pro-6000-blackwell"])
def test_unmeasured_l2_rates_are_marked_as_derived(name: str) -> None:
    found = device(name)
    assert found.facts["l2.bandwidth_per_clk"].kind == "derived"
    assert found.bandwidth_bytes_per_s("l2") > found.bandwidth_bytes_per_s("hbm")


def test_exponential_rates_agree_with_the_measured_ones() -> None:
    # NVIDIA's EX2 microbenchmark: 4.943 Texp/s on GB200, 10.024 on GB300
    assert device("gb200").exp_per_s() == pytest.approx(4.943e12, rel=0.02)
    assert device("gb300").exp_per_s() == pytest.approx(10.024e12, rel=0.02)
