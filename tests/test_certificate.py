"""Certificates: true when written, derived again from their inputs, and refused where they do not hold."""

from __future__ import annotations

import copy
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.api import device, problem
from iosim.certificate import certify, within
from iosim.certificate_check import check_certificate, read_certificate
from iosim.errors import CheckError, FileError, UsageError
from iosim.masks import parse_tile
from iosim.report import Options

H100 = device("h100-sxm5")
SMALL = {"heads": 4, "kv_heads": 2, "head_dim": 64, "seq": 2048}


def made(**options: Any) -> dict[str, Any]:
    call = {**SMALL, **options.pop("call", {})}
    certificate = certify(problem(**call), options.pop("kernel", "flash2"), options.pop("device", H100), **options)
    return json.loads(json.dumps(certificate.to_dict()))


@given(st.integers(1, 10**12), st.integers(1, 10**9))
def test_ratios_are_rounded_up(count: int, floor: int) -> None:
    assert Fraction(within(count, floor)).limit_denominator(10**6) >= Fraction(count, floor) * (1 - Fraction(1, 10**9))
    assert within(count, floor) * floor >= count * (1 - 1e-15)
    assert within(count, floor) <= max(count / floor + 0.01, count / floor * 1.01) * (1 + 1e-12)


CALLS = [
    {},
    {"call": {"mask": "causal"}},
    {"call": {"mask": "window:256,sink=4", "dtype": "fp8"}, "kernel": "flash3"},
    {"call": {"mask": "or(window:64;grid:8)"}},
    {"call": {"seq": "32x64", "mask": "gna:window=8x8,stride=4x4"}},
    {"call": {"phase": "decode", "seq": None, "seq_kv": 8192, "batch": 3}, "kernel": "split-kv"},
    {"call": {"phase": "backward"}, "kernel": "flash2-backward"},
    {"call": {"head_dim": 192, "head_dim_v": 128, "dtype": "bf16", "kv_dtype": "fp8"}, "kernel": "flashinfer"},
    {"kernel": "flash3", "boundary": "core"},
    {"kernel": "flash1", "device": None, "memory_elements": 200_000},
    {"options": Options(tile=parse_tile("64x32"), settings={"lse": True}, warm=True, lse_output=True)},
    {"held": "fp8"},
]


@pytest.mark.parametrize("options", CALLS, ids=[str(index) for index in range(len(CALLS))])
def test_a_certificate_holds_when_derived_again(options: dict[str, Any]) -> None:
    document = made(**copy.deepcopy(options))
    assert document["claims"]
    derived, faults = check_certificate(document)
    assert faults == []
    assert json.loads(json.dumps(derived.to_dict())) == document
    for claim in document["claims"]:
        count = claim["read_bytes"] + claim["write_bytes"]
        for name, floor in claim["floor_bytes"].items():
            assert claim["within"][name] * floor >= count * (1 - 1e-12)


def test_the_words() -> None:
    core = made(call={"seq": 65_536}, boundary="core")["claims"][0]
    assert core["statement"].startswith("flash2 128x128 moves 34,427,895,808 bytes at the core boundary: within ")
    assert "x of every kernel that computes each score once, within " in core["statement"]
    assert core["statement"].endswith("with 132 memories of 512 KiB")
    hbm = made(boundary="hbm")["claims"][0]
    assert hbm["statement"].count("within") == 1  # the narrower classes say no more than compulsory traffic


TAMPERINGS: list[tuple[str, Any]] = [
    ("fewer bytes", lambda claim: claim.update(read_bytes=claim["read_bytes"] - 2)),
    ("a floor too high", lambda claim: claim["floor_bytes"].update(any=claim["floor_bytes"]["any"] + 1)),
    ("a ratio too small", lambda claim: claim["within"].update(any=1.0)),
    ("a smaller memory", lambda claim: claim.update(memory_bits=claim["memory_bits"] // 2)),
    ("fewer memories", lambda claim: claim.update(processors=1)),
    ("other words", lambda claim: claim.update(statement=claim["statement"].replace("within", "better than"))),
    ("a boundary of fancy", lambda claim: claim.update(boundary="l9")),
]


@pytest.mark.parametrize(("what", "tamper"), TAMPERINGS, ids=[name for name, _ in TAMPERINGS])
def test_what_does_not_hold_is_found(what: str, tamper: Any) -> None:
    document = made()
    tamper(document["claims"][0])
    assert check_certificate(document)[1], what


def test_a_changed_problem_is_found_by_its_counts() -> None:
    document = made()
    document["inputs"]["problem"]["mask"] = "causal"
    assert len(check_certificate(document)[1]) >= 3
    document = made()
    document["inputs"]["device"]["sha256"] = "0" * 64
    assert any("not the one certified" in fault.what for fault in check_certificate(document)[1])


def test_weaker_floors_still_hold() -> None:
    """An older iosim may have proven less: its certificate stays true."""
    document = made(call={"seq": 65_536}, boundary="core")
    claim = document["claims"][0]
    count = claim["read_bytes"] + claim["write_bytes"]
    before = claim["within"]["standard-once"]
    claim["floor_bytes"]["standard-once"] -= 10_000_000
    claim["within"]["standard-once"] = within(count, claim["floor_bytes"]["standard-once"])
    assert claim["within"]["standard-once"] > before
    claim["statement"] = claim["statement"].replace(f"{before:g}x", f"{claim['within']['standard-once']:g}x", 1)
    assert check_certificate(document)[1] == []


BROKEN: list[tuple[str, Any]] = [
    ("empty", ""),
    ("truncated", '{"schema": "iosim/certif'),
    ("a list", "[]"),
    ("a number", "3"),
    ("another schema", '{"schema": "iosim/report/1", "result": {}}'),
    ("no claims", '{"schema": "iosim/certificate/1", "inputs": {}, "claims": []}'),
    ("nan", '{"schema": "iosim/certificate/1", "inputs": NaN}'),
    ("deep", "[" * 100_000),
]


@pytest.mark.parametrize(("what", "content"), BROKEN, ids=[name for name, _ in BROKEN])
def test_a_broken_file_is_a_file_error(tmp_path: Path, what: str, content: str) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(content)
    with pytest.raises(FileError) as caught:
        read_certificate(path)
    assert str(path) in caught.value.faults[0].where


@pytest.mark.parametrize("path", [("inputs", "problem"), ("inputs", "kernel"), ("inputs", "warm"), ("claims",)])
def test_a_missing_part_is_a_file_error(tmp_path: Path, path: tuple[str, ...]) -> None:
    document = made()
    place = document
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps(document))
    with pytest.raises(FileError):
        read_certificate(file)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("problem", "heads", 3), ("problem", "mask", "causall"), ("problem", "seq", "0"), ("kernel", "name", "flash22"),
     ("kernel", "tile", "9999x9999"), ("kernel", "settings", {"lse": "perhaps"}), ("device", "name", "h1000"),
     ("problem", "types", {"q": "bf16", "kv": "bf16", "out": "bf61", "stats": "fp32"}),
     ("problem", "types", {"q": "bf16"}), ("device", "name", "/no/such/device.toml")],
)  # fmt: skip
def test_inputs_that_cannot_be_are_a_file_error(part: str, name: str, value: Any) -> None:
    document = made()
    document["inputs"][part][name] = value
    if name == "types" and len(value) == 1:  # the rest has defaults
        assert check_certificate(document)[1] == []
        return
    with pytest.raises(FileError):
        check_certificate(document)


def test_tiles_that_do_not_fit_the_memory_are_refused() -> None:
    with pytest.raises(UsageError, match="at once"):
        certify(problem(**SMALL), "flash2", None, memory_elements=10_000)
    with pytest.raises(UsageError, match="memory must be given"):
        certify(problem(**SMALL), "flash2", None)
    with pytest.raises(UsageError, match="no kernel is counted"):
        certify(problem(**SMALL), "flash2", H100, boundary="host")


def test_a_count_that_its_own_class_forbids_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The unfused kernel with operands read once is idealised; tiled, it is certified."""
    with pytest.raises(UsageError, match="read once"):
        certify(problem(**SMALL), "unfused", H100)
    tiled = certify(problem(**SMALL), "unfused", H100, Options(settings={"gemm_tile": 128}))
    assert tiled.claims[0].within["any"] > 1
    import iosim.certificate as room

    real = room.floors_at
    monkeypatch.setattr(room, "floors_at", lambda *given: real(*given).__class__(*_raised(real(*given))))
    with pytest.raises(CheckError, match="floor of its own class"):
        certify(problem(**SMALL), "flash2", H100)


def _raised(floors: Any) -> list[Any]:
    values = {name: getattr(floors, name) for name in floors.__dataclass_fields__}
    return list((values | {"once_bytes": 1 << 60}).values())


@pytest.mark.parametrize(
    ("d_v", "memory", "tile", "words"),
    [(256, 58_161, "443x1", 4_987_027_456), (512, 116_224, "886x1", 5_003_804_672)],
)
def test_a_recomputing_kernel_is_below_the_floor_of_those_that_do_not(
    d_v: int, memory: int, tile: str, words: int
) -> None:
    """Published counts: d_v in chunks of d, scores formed for each: less than L2 and L3 allow, never than L1, L4."""
    call = problem(heads=1, head_dim=64, head_dim_v=d_v, seq=65_536, dtype="fp32")
    options = Options(tile=parse_tile(tile), settings={"lse": False})
    claim = certify(call, "recompute-dv", None, options, memory_elements=memory).claims[0]
    assert claim.total_bytes == 4 * words
    assert claim.floor_bytes["standard"] <= claim.total_bytes < claim.floor_bytes["standard-once"]
    statement = claim.statement("recompute-dv")
    assert "less than every kernel that computes each score once must move" in statement
    assert claim.within["standard"] > 1
