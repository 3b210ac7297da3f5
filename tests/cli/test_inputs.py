"""`inputs` of an answer: every default that was used, so that the answer can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]

TYPED = {
    "tile": "--tile", "capacity": "--capacity", "cores": "--cores", "residency": "--residency",
    "grid_order": "--grid-order", "kv_order": "--kv-order", "device": "--device", "kernel": "--kernel",
}  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [
        ["--heads", "8", "--head-dim", "128", "--seq", "2048", "--mask", "causal", "--kernel", "flash3"],
        ["--phase", "decode", "--seq-kv", "8192"],
        ["--phase", "decode", "--seq-kv", "8192", "--kernel", "stream-k"],
        ["--heads", "2", "--head-dim", "64", "--seq", "1024", "--no-replay", "--device", "a100-sxm-80gb"],
    ],
    ids=" ".join,
)
def test_what_simulate_chose_can_be_typed(iosim: Run, asked: list[str]) -> None:
    made = iosim("simulate", *asked, "--format", "json").json
    inputs = made["inputs"]
    typed = [word for name, option in TYPED.items() if inputs[name] is not None for word in (option, inputs[name])]
    typed += ["--pack-gqa" if inputs["pack_gqa"] else "--no-pack-gqa"]
    for name, value in inputs["parameters"].items():
        if value != 0:  # 0 of pages and scale groups is none
            typed += ["--set", f"{name}={value}"]
    again = iosim("simulate", *asked, *typed, "--format", "json")
    assert again.code == 0, again.err
    assert again.json["result"] == made["result"]
    assert again.json["inputs"]["parameters"] == inputs["parameters"]


def test_choices_of_a_replay_are_resolved(iosim: Run) -> None:
    inputs = iosim("simulate", "--heads", 2, "--head-dim", 64, "--seq", 512, "--format", "json").json["inputs"]
    expected = {
        "capacity": 50 << 20, "cores": 132, "grid_order": "head-major", "kv_order": "cyclic", "pack_gqa": False,
        "line_bytes": 128, "policy": "lru",
    }  # fmt: skip
    assert {name: inputs[name] for name in expected} == expected
    assert inputs["residency"] >= 1
    own = iosim("simulate", "--heads", 2, "--head-dim", 64, "--seq", 512, "--capacity", "20MiB", "--format", "json")
    assert own.json["inputs"]["capacity"] == "20MiB"


def test_a_report_lists_choices_per_kernel_where_they_differ(iosim: Run) -> None:
    made = iosim("report", "--seq", 1024, "--kernel", "flash2,flash3", "--format", "json").json
    inputs, kernels = made["inputs"], made["result"]["kernels"]
    assert inputs["tile"] == {kernel["kernel"]: kernel["tile"] for kernel in kernels}
    assert inputs["grid_order"]["flash2"] == "head-major"
    assert inputs["grid_order"]["flash3"].startswith("sections:")
    assert inputs["cores"] == 132
    assert inputs["kv_order"] == "cyclic"


def test_splits_are_those_that_were_used(iosim: Run) -> None:
    made = iosim("report", "--phase", "decode", "--seq-kv", 8192, "--format", "json").json
    splits = made["result"]["kernels"][0]["parameters"]["splits"]
    assert splits > 1
    simulated = iosim("simulate", "--phase", "decode", "--seq-kv", 8192, "--format", "json").json
    assert simulated["inputs"]["parameters"]["splits"] == splits
    main, combine = simulated["result"]["launches"]
    assert main["items"] == splits * 8  # one Q tile per packed head
    assert combine["name"] == "combine"


@pytest.mark.parametrize(
    ("asked", "link"),
    [(["--devices", "8", "--exchange", "ring", "--kernel", "flash3"], "nvlink"),
     (["--phase", "decode", "--seq-kv", "8192", "--offload", "kv"], "host"),
     (["--devices", "2", "--exchange", "ring", "--kernel", "flash3", "--link", "50GB/s"], "50GB/s")],
)  # fmt: skip
def test_the_link_is_named(iosim: Run, asked: list[str], link: str) -> None:
    made = iosim("report", *asked, "--no-replay", "--format", "json").json
    assert made["inputs"]["link"] == link
    assert made["inputs"]["link_latency"] == "0s"
    again = iosim("report", *asked, "--no-replay", "--link", link, "--link-latency", "0s", "--format", "json").json
    assert again["result"] == made["result"]


def test_bounds_name_the_memories(iosim: Run) -> None:
    inputs = iosim("bounds", "--format", "json").json["inputs"]
    assert inputs["boundary"] == ["core", "l2", "hbm"]
    sizes = inputs["memory_elements"]
    assert list(sizes) == inputs["boundary"]
    one = iosim("bounds", "--boundary", "core", "--format", "json").json
    assert one["inputs"]["memory_elements"] == sizes["core"] == one["result"]["bounds"][0]["memory_elements"]
    given = iosim("bounds", "--memory-elements", 4096, "--format", "json").json["inputs"]
    assert (given["boundary"], given["memory_elements"]) == (None, 4096)
    certified = iosim("bounds", "--certify", "flash2", "--format", "json").json["inputs"]
    assert certified["boundary"]
    assert set(certified["memory_elements"]) == set(certified["boundary"])
    curve = iosim("bounds", "--curve", "--heads", 1, "--head-dim", 64, "--seq", 1024, "--format", "json").json
    assert curve["inputs"]["memory_elements"] == max(curve["result"]["curve"]["memory_elements"])


def test_a_curve_packs_as_it_is_told(iosim: Run) -> None:
    asked = ["curve", "--heads", 4, "--kv-heads", 1, "--head-dim", 64, "--seq", 512, "--mask", "causal"]
    apart, packed = (iosim(*asked, *flag, "--format", "json").json for flag in ([], ["--pack-gqa"]))
    assert (apart["inputs"]["pack_gqa"], packed["inputs"]["pack_gqa"]) == (False, True)
    assert apart["result"]["points"] != packed["result"]["points"]
