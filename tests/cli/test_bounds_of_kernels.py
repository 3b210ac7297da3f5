"""`bounds --linear --kernel`, certificates and reports of kernels that compute another function than softmax attention."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_bounds import Run

CALL = ("--heads", 2, "--head-dim", 8, "--seq", 4096, "--mask", "causal")


def bounds_of(iosim: Run, kernel: str, *more: object) -> dict[str, int]:
    done = iosim("bounds", "--linear", "--kernel", kernel, *CALL, "--boundary", "hbm", "--format", "json", *more)
    return {bound["id"]: bound["value_elements"] for bound in done.json["result"]["bounds"]}


@pytest.mark.parametrize(
    ("kernel", "beside"),
    [("mamba1", 2 * (2 * 4096 * 8 + 8 * 8 + 2 * 8)), ("flashconv", 2 * (4096 + 1)), ("lightning2", 0),
     ("gla", 2 * 4095 * 8), ("mamba2", 2 * 4095), ("gated-delta", 2 * (4095 + 4096))],
)  # fmt: skip
def test_floors_of_relatives_of_linear_attention(iosim: Run, kernel: str, beside: int) -> None:
    """Steps, gates, a layer's parameters, taps: what each function has beside its rows."""
    found = bounds_of(iosim, kernel)
    assert (found["linear-reads"], found["linear-writes"]) == (2 * 3 * 4096 * 8 + beside, 2 * 4096 * 8)


def test_floors_of_attention_to_summaries(iosim: Run) -> None:
    assert bounds_of(iosim, "rat") == {
        "summary-reads": 2 * 8 * (4096 - 16 + 3 * 4096), "summary-writes": 2 * 8 * 4096,
    }  # fmt: skip
    assert bounds_of(iosim, "rat", "--set", "chunk=4096")["summary-reads"] == 2 * 8 * 2 * 4096
    assert "what rat computes" in iosim("bounds", "--linear", "--kernel", "rat", *CALL).out


def test_floors_of_a_kernels_own_state(iosim: Run) -> None:
    decode = ("--phase", "decode", "--heads", 2, "--head-dim", 8, "--seq-kv", 4096, "--boundary", "hbm")
    wide = iosim(
        "bounds", "--linear", "--kernel", "fixed-state", *decode, "--set", "features=hedgehog", "--format", "json"
    )
    values = {bound["id"]: bound["value_elements"] for bound in wide.json["result"]["bounds"]}
    assert values == {"state-reads": 2 * (16 * 8 + 3 * 8), "state-writes": 2 * (16 * 8 + 8)}


def test_kernels_without_floors_of_their_own_say_so(iosim: Run) -> None:
    done = iosim("bounds", "--linear", "--kernel", "flash2", *CALL)
    assert (done.code, done.out) == (2, "")
    assert "flash2 computes softmax attention" in done.err
    assert "agent approximates" in iosim("bounds", "--linear", "--kernel", "agent", *CALL[:-1], "full").err
    assert "name no kernel" in iosim("bounds", "--kernel", "rat", *CALL).err


@pytest.mark.parametrize(("kernel", "what"), [
    ("mamba1", "linear attention"), ("flashconv", "linear attention"), ("rat", "attention to such summaries"),
])  # fmt: skip
def test_certificates_of_other_functions(iosim: Run, kernel: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    assert iosim("bounds", "--certify", kernel, *CALL, "-o", path).code == 0
    done = iosim("bounds", "--check", path)
    assert done.code == 0
    assert f"every kernel of {what}" in done.out
    assert "every correct kernel" not in done.out


def test_a_warm_memory_has_no_floor_of_another_function(iosim: Run) -> None:
    """Its operands may be there already, and its outputs may stay: those floors are of a cold memory."""
    done = iosim("bounds", "--certify", "lightning2", *CALL, "--l2", "warm", "--format", "json")
    claims = {claim["boundary"]: claim for claim in done.json["result"]["certificate"]["claims"]}
    assert claims["hbm"]["floor_bytes"] == {}
    assert set(claims["core"]["floor_bytes"]) == {"linear"}


def test_a_report_says_which_kernels_its_time_floor_does_not_bound(iosim: Run) -> None:
    done = iosim("report", *CALL, "--kernel", "rat,gla,flash2", "--no-replay", "--format", "json")
    assert any(note.startswith("rat, gla: another function") for note in done.json["assumptions"])
    gaps = {row["kernel"]: row["boundaries"][0]["gap_any"] for row in done.json["result"]["kernels"]}
    assert gaps["rat"] > 1
    assert gaps["gla"] > 1
