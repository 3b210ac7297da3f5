"""Reports with a link: keys, formats, floors that hold, and errors that say what to do."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

import iosim
from iosim.cli import run
from iosim.links import link_of, way_of
from iosim.links.asked import EXCHANGES, LinkAsked
from iosim.links.rate import FACTS
from iosim.machine import device_names

DECODE = ("--phase", "decode", "--seq-kv", "4096", "--batch", "8")
WAYS = [
    *((way, ("--devices", "4", "--exchange", way)) for way in ("ring", "zigzag", "ulysses", "state-gather")),
    ("tiling-allreduce", ("--devices", "4", "--exchange", "tiling-allreduce:blocks=4,width=5120")),
    *((f"servers {split}", ("--devices", "4", "--exchange", f"attention-servers:split={split}", *DECODE))
      for split in ("heads", "batch", "keys")),
    ("kv", ("--offload", "kv", "--resident-fraction", "0.25", *DECODE)),
    ("attention", ("--offload", "attention", "--resident-fraction", "0.25", "--far", "200GB/s", *DECODE)),
    ("all attention", ("--offload", "attention", "--far", "xeon-8480", *DECODE)),
    ("activations out", ("--offload", "activations")),
    ("activations back", ("--offload", "activations", "--phase", "backward")),
]  # fmt: skip

Ask = Callable[..., Any]


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    def call(*options: str) -> tuple[int, str, str]:
        code = run(["report", "--no-replay", *options])
        captured = capsys.readouterr()
        return int(code), captured.out, captured.err

    return call


@pytest.mark.parametrize(("name", "options"), WAYS, ids=[name for name, _ in WAYS])
def test_every_way_answers_in_every_format(ask: Ask, name: str, options: tuple[str, ...]) -> None:
    code, out, err = ask(*options, "--format", "json")
    assert (code, err) == (0, "")
    answer = json.loads(out)
    result, link = answer["result"], answer["result"]["link"]
    assert answer["inputs"]["exchange" if "--exchange" in options else "offload"] in options
    for side in ("received", "sent"):
        assert link[f"{side}_bytes"] == sum(tensor[f"{side}_bytes"] for tensor in link["per_tensor"].values())
        assert link[f"{side}_s"] == link[f"{side}_bytes"] / link["link_bytes_per_s"]
        if link[f"least_{side}_bytes"] is not None:
            assert 0 <= link[f"least_{side}_bytes"] <= link[f"{side}_bytes"]
    for kernel in result["kernels"]:
        boundary = kernel["boundaries"][-1]
        assert boundary["name"] == link["boundary"]
        assert (boundary["read_bytes"], boundary["write_bytes"]) == (link["received_bytes"], link["sent_bytes"])
        assert boundary["exact"]
        least = (link["least_received_bytes"] or 0) + (link["least_sent_bytes"] or 0)
        assert boundary["gap_any"] == (
            pytest.approx(sum(link[f"{s}_bytes"] for s in ("received", "sent")) / least) if least else None
        )
        assert kernel["ceilings"]["link_s"] == max(link["received_s"], link["sent_s"])
        assert result["time_floor_s"] <= kernel["time_link_overlapped_s"] * (1 + 1e-9)
        assert kernel["time_link_overlapped_s"] <= kernel["time_link_serial_s"] * (1 + 1e-12)
    floor = result["time_floor"]
    assert result["time_floor_s"] == max(floor[term] or 0 for term in ("compute_s", "memory_s", "link_s", "far_s"))
    code, out, _ = ask(*options)
    assert code == 0
    assert "received" in out
    assert "least" in out
    for fmt, lines in (("csv", 1), ("md", 2)):
        code, out, _ = ask(*options, "--format", fmt)
        assert code == 0
        boundaries = sum(len(kernel["boundaries"]) for kernel in result["kernels"]) or 1
        assert len(out.strip().splitlines()) == boundaries + lines


def test_without_a_link_answers_keep_their_shape(ask: Ask) -> None:
    answer = json.loads(ask("--format", "json")[1])
    assert "link" not in answer["result"]
    assert set(answer["result"]["time_floor"]) == {
        "time_s", "compute_s", "memory_s", "flop", "read_bytes", "write_bytes", "peak_flop_per_s", "bandwidth_bytes_per_s",
    }  # fmt: skip
    for kernel in answer["result"]["kernels"]:
        assert not any(key.startswith("time_link") for key in kernel)
        assert set(kernel["ceilings"]) == {"matrix_s", "exp_s", "shared_s", "l2_s", "hbm_s"}


def test_one_device_alone_has_nothing_to_say(ask: Ask) -> None:
    """P = 1: the same call, no bytes at the link, the same floor."""
    alone = json.loads(ask("--kernel", "flash3", "--format", "json")[1])["result"]
    for way in ("ring", "ulysses", "tiling-allreduce"):
        shared = json.loads(ask("--kernel", "flash3", "--devices", "1", "--exchange", way, "--format", "json")[1])[
            "result"
        ]
        assert shared["link"]["received_bytes"] == shared["link"]["sent_bytes"] == 0
        assert shared["time_floor"]["compute_s"] == alone["time_floor"]["compute_s"]
        assert shared["kernels"][0]["boundaries"][:-1] == alone["kernels"][0]["boundaries"]


def test_the_library_answers_as_the_command_does(ask: Ask) -> None:
    call = iosim.problem("llama-3-8b", phase="decode", seq_kv=4096, batch=8)
    report = iosim.analyze(call, "h100-sxm5", offload="kv", resident_fraction=0.25, link=64e9, far="200GB/s")
    told = json.loads(
        ask("--offload", "kv", "--resident-fraction", "0.25", "--far", "200GB/s", *DECODE, "--format", "json")[1]
    )
    assert report.link is not None
    assert report.link.traffic.read_bytes == told["result"]["link"]["received_bytes"]
    assert report.link.received_s == told["result"]["link"]["received_s"]
    assert "<b>" in report._repr_html_()
    assert "received" in report._repr_html_()
    assert "host" in str(report)
    away = iosim.analyze(call, "h100-sxm5", offload="attention", far=307.2e9)
    assert away.kernels == ()
    assert "received" in away._repr_html_()
    assert away.floor is not None
    assert away.floor.binding == "far"
    pytest.importorskip("matplotlib")
    assert report.plot() is not None


def test_half_of_what_a_vendor_says_goes_each_way() -> None:
    """Device files state links both directions together, and the host's memory one direction."""
    h100, a100, gh200 = (iosim.device(name) for name in ("h100-sxm5", "a100-sxm-80gb", "gh200"))
    assert link_of(h100, "nvlink", "link").bytes_per_s == 450e9
    assert link_of(a100, None, "link").bytes_per_s == 300e9
    assert link_of(h100, "pcie", "link").bytes_per_s == link_of(h100, "host", "host").bytes_per_s == 64e9
    assert link_of(gh200, None, "host").bytes_per_s == link_of(gh200, "c2c", "host").bytes_per_s == 450e9
    assert link_of(None, "25 GB/s", "host").bytes_per_s == 25e9
    assert link_of(None, None, "host").bytes_per_s is None
    for name in device_names():
        device = iosim.device(name)
        if device.has_level("host") and "other.nvlink_c2c" in device.facts:
            assert device.level("host").bandwidth_bytes_per_s == device.facts[FACTS["c2c"]].value / 2


def test_a_link_that_the_file_lacks_leaves_bytes_without_a_time(ask: Ask) -> None:
    code, out, _ = ask("--device", "tpu-v5e", "--devices", "4", "--exchange", "ring", "--format", "json")
    assert code == 0
    answer = json.loads(out)
    assert answer["result"]["link"]["received_s"] is None
    assert answer["result"]["time_floor"]["link_s"] is None
    assert any("no time at the link" in text for text in answer["assumptions"])
    code, out, _ = ask("--device", "none", "--devices", "4", "--exchange", "ring", "--link", "50GB/s")
    assert code == 0
    assert "at 50 GB/s" in out


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--devices", "8"), 2, "nothing crosses a link (--devices)"),
        (("--link", "nvlink"), 2, "nothing crosses a link (--link)"),
        (("--link-latency", "5us"), 2, "nothing crosses a link (--link-latency)"),
        (("--exchange", "ring", "--devices", "8", "--link-latency", "5"), 2, "has no unit (--link-latency)"),
        (("--exchange", "ring", "--devices", "8", "--link-latency", "-5us"), 2, "must be at least 0"),
        (("--exchange", "ring"), 2, "needs to know how many devices (--devices)"),
        (("--exchange", "rign", "--devices", "2"), 2, "did you mean 'ring'?"),
        (("--exchange", "ring", "--devices", "8", "--link", "nvlnk"), 2, "did you mean 'nvlink'?"),
        (("--exchange", "ring", "--devices", "8", "--link", "400Gbps"), 2, "is in bits (--link)"),
        (("--exchange", "ring", "--devices", "8", "--link", "0"), 2, "must be above 0"),
        (("--exchange", "ring", "--devices", "8", "--device", "a10", "--link", "nvlink"), 4, "no link 'nvlink'"),
        (("--exchange", "ring", "--devices", "8", "--offload", "kv"), 2, "one report has one link"),
        (("--exchange", "ulysses", "--devices", "3"), 2, "do not divide among 3 devices"),
        (("--exchange", "ring", "--devices", "8", "--mask", "window:128"), 2, "full or causal self-attention"),
        (("--exchange", "ring", "--devices", "8", "--far", "1GB/s"), 2, "leaves nothing on a far side (--far)"),
        (("--exchange", "state-gather", "--devices", "8", "--kernel", "flash2"), 2, "is for linear attention"),
        (("--offload", "kv", "--devices", "2"), 2, "it belongs to --exchange"),
        (("--offload", "kv", "--resident-fraction", "1"), 2, "from 0 up to below 1"),
        (("--offload", "attention"), 2, "counted for decode"),
        (("--offload", "attention", "--far", "fast", *DECODE), 2, "neither a rate nor a device (--far)"),
        (("--offload", "attention", "--kernel", "flash2", *DECODE), 2, "no kernel runs there (--kernel)"),
        (("--offload", "activations", *DECODE), 2, "decoding keeps no activations"),
        (("--exchange", "ring", "--devices", "8", "--measured", "1us"), 1, "below the time floor"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(ask: Ask, options: tuple[str, ...], code: int, message: str) -> None:
    got, out, err = ask(*options)
    assert (got, out) == (code, "")
    assert message in err
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_the_floor_falls_no_faster_than_devices_are_added() -> None:
    """More devices cannot make the floor fall below a P-th of one device's, nor raise it."""
    call, h100 = iosim.problem("llama-3-8b", seq=4096), iosim.device("h100-sxm5")
    times = []
    for devices in (1, 2, 4, 8):
        report = iosim.analyze(call, h100, "flash2", exchange="ring", devices=devices)
        assert report.floor is not None
        times.append(report.floor.time_s)
    for slow, fast in pairwise(times):
        assert slow / 2 <= fast * (1 + 1e-9)
        assert fast <= slow * (1 + 1e-9)


def test_expected_times_of_a_zigzag_are_those_of_its_two_launches() -> None:
    """The last of 4 devices has tokens 1536 to 2047 and 2048 to 2559; the reported one as many pairs."""
    call = iosim.problem("llama-3-8b", seq=4096)
    report = iosim.analyze(call, "h100-sxm5", "flash3", exchange="zigzag", devices=4)
    assert report.link is not None
    way = report.link.way
    parts = [
        iosim.analyze(iosim.problem("llama-3-8b", seq=tokens, seq_kv=first + tokens), "h100-sxm5", "flash3")
        for first, tokens in way.shards[way.device]
    ]
    times = [part.kernels[0].expected.time_s for part in parts if part.kernels[0].expected]
    overlap = report.kernels[0].overlap
    assert len(times) == 2
    assert overlap is not None
    assert (overlap.basis, overlap.compute_s) == ("expected", pytest.approx(sum(times)))


def test_servers_answer_after_they_were_asked() -> None:
    call = iosim.problem("llama-3-8b", phase="decode", seq_kv=8192, batch=64)
    report = iosim.analyze(call, "h100-sxm5", exchange="attention-servers", devices=4)
    overlap, link = report.kernels[0].overlap, report.link
    assert overlap is not None
    assert link is not None
    assert link.received_s is not None
    assert link.sent_s is not None
    assert overlap.overlapped_s == pytest.approx(link.received_s + overlap.compute_s + link.sent_s)


def test_latency_is_expected_and_never_proven() -> None:
    """A message of nothing but latency: rings hide it behind compute, servers do not, floors do not know it."""
    call, step = iosim.problem("llama-3-8b", seq=4096), iosim.problem("llama-3-8b", phase="decode", seq_kv=4096)
    for problem, kernel, exchange, messages in (
        (call, "flash3", "ring", 7), (call, "flash3", "ulysses", 2), (call, "flash3", "tiling-allreduce:blocks=4", 4 * 14),
        (step, "split-kv", "attention-servers", 2),
    ):  # fmt: skip
        quick, slow = (
            iosim.analyze(problem, "h100-sxm5", kernel, exchange=exchange, devices=8, link=1e15, link_latency=latency)
            for latency in (None, 1e-3)
        )
        assert quick.floor == slow.floor
        assert slow.link is not None
        assert slow.link.way.rounds == messages
        before, after = quick.kernels[0].overlap, slow.kernels[0].overlap
        assert before is not None
        assert after is not None
        assert after.serial_s - before.serial_s == pytest.approx(messages * 1e-3, rel=1e-6)
    ring = iosim.analyze(call, "h100-sxm5", "flash3", exchange="ring", devices=8, link=1e15, link_latency="1ns")
    overlap = ring.kernels[0].overlap
    assert overlap is not None
    assert overlap.overlapped_s == pytest.approx(overlap.compute_s, rel=0.05)


def test_ways_are_the_same_however_they_are_spelled() -> None:
    call = iosim.problem(heads=8, head_dim=64, seq=256)
    plain = way_of(call, LinkAsked(exchange="tiling-allreduce", devices=4))
    spelled = way_of(call, LinkAsked(exchange="tiling-allreduce:width=512,blocks=8", devices=4))
    assert plain == spelled
    assert math.isclose(plain.imbalance, 1)
    assert set(EXCHANGES) == {"ring", "zigzag", "ulysses", "state-gather", "tiling-allreduce", "attention-servers"}


LINKED = [
    ("ring", {"exchange": "ring", "devices": 8}, {"seq": 4096}),
    ("ulysses", {"exchange": "ulysses", "devices": 8}, {"seq": 4096}),
    ("kv", {"offload": "kv", "link": "pcie"}, {"phase": "decode", "seq_kv": 32768}),
    ("servers", {"exchange": "attention-servers", "devices": 4}, {"phase": "decode", "seq_kv": 32768, "batch": 8}),
    ("attention", {"offload": "attention", "far": "200GB/s", "resident_fraction": 0.5}, {"phase": "decode", "seq_kv": 32768}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "asked", "call"), LINKED, ids=[name for name, _, _ in LINKED])
def test_the_expectation_is_the_whole_ways_and_not_below_its_floor(name: str, asked: Any, call: Any) -> None:
    problem = iosim.problem(heads=32, kv_heads=8, head_dim=128, mask="causal", **call)
    kernel = iosim.analyze(problem, "h100-sxm5", "split-kv" if "phase" in call else "flash3", **asked).kernels[0]
    row = kernel.to_dict()
    assert row["time_expected_s"] == row["time_link_overlapped_s"] >= row["time_floor_s"]
    assert sum(row["breakdown"].values()) == pytest.approx(row["time_expected_s"])
