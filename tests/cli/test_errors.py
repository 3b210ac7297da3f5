"""What a person meets who types or writes something impossible: one line per fault, a hint, the right code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from iosim import analysis

Run = Callable[..., object]

USAGE = [
    (["reprot"], "report"),
    (["report", "--seqq", "3"], "--seq"),
    (["report", "--seq", "0"], "--seq"),
    (["report", "--seq", "-5"], "-5"),
    (["report", "--seq", "1e3"], "1e3"),
    (["report", "--seq", "abc"], "abc"),
    (["report", "--seq", "9" * 40], "tokens"),
    (["report", "--batch", "0"], "--batch"),
    (["report", "--device", "h1000"], "h100"),
    (["report", "--network", "llama-9-8b"], "llama"),
    (["simulate", "--kernel", "flash22"], "flash2"),
    (["simulate", "--kernel", "flash2,flash3"], "one kernel"),
    (["report", "--kernel", "flash2,"], "empty name"),
    (["report", "--heads", "30", "--kv-heads", "8", "--head-dim", "128"], "do not divide"),
    (["report", "--heads", "8"], "--head-dim"),
    (["report", "--phase", "decode"], "--seq-kv"),
    (["report", "--phase", "decod"], "decode"),
    (["report", "--mask", "window:-3"], "window"),
    (["report", "--mask", "causall"], "causal"),
    (["report", "--seq", "100", "--seq-kv", "50"], "at least as many keys"),
    (["report", "--dtype", "bf61"], "bf16"),
    (["report", "--tile", "1024x1024"], "largest that fits"),
    (["simulate", "--kernel", "unfused", "--set", "gemm_tile=1024"], "at most 256 fits"),
    (["simulate", "--kernel", "flash4", "--set", "software_exp=500"], "0 to 128"),
    (["simulate", "--kernel", "flash4", "--set", "tensor_memory=true"], "tensor_memory=false"),
    (["simulate", "--kernel", "flash3", "--device", "a100-sxm-80gb", "--set", "cluster=4"], "9.0"),
    (["report", "--tile", "128"], "tile"),
    (["report", "--tile", "0x64"], "below 1"),
    (["report", "--measured", "fast"], "1.3ms"),
    (["report", "--measured", "12 parsec"], "unit"),
    (["report", "--measured", "0ms"], "above 0"),
    (["report", "--measured", "1.3"], "no unit"),
    (["report", "--mask", "not(full)"], "no pair"),
    (["simulate", "--capacity", "10"], "smaller than a line"),
    (["report", "--set", "splits"], "name=value"),
    (["report", "--kernel", "flash2", "--set", "stagess=2"], "stages"),
    (["simulate", "--kernel", "split-kv", "--phase", "decode", "--seq-kv", "512", "--set", "splits=0"], "at least 1"),
    (["simulate", "--kernel", "split-kv", "--phase", "decode", "--seq-kv", "512", "--set", "splits=99"], "hold a tile"),
    (["simulate", "--kernel", "flash1", "--phase", "decode", "--seq-kv", "512"], "does not compute decode"),
    (["report", "--layer", "global", "--heads", "2", "--head-dim", "8"], "network"),
    (["report", "--network", "gemma-3-27b", "--layer", "locale"], "local"),
    (["bounds", "--memory-elements", "0"], "at least 1"),
    (["bounds", "--device", "none"], "--memory-elements"),
    (["roofline", "--device", "none"], "device"),
    (["report", "-o", "answer.xyz"], "suffix"),
    (["simulate", "-o", "answer.svg"], "no picture"),
    (["explain", "L11"], "L1"),
    (["hardware", "shwo"], "show"),
    (["curve", "--policy", "lruu"], "lru"),
    (["curve", "--line-bytes", "0"], "at least 1"),
    (["curve", "--heads", "1", "--head-dim", "64", "--seq", "256", "--kv-order", "zigzag"], "cyclic"),
    (["simulate", "--policy", "lruu"], "lru"),
    (["simulate", "--capacity", "50 parsec"], "unit"),
    (["simulate", "--capacity", "0"], "at least 1"),
    (["simulate", "--cores", "0"], "--cores"),
    (["simulate", "--grid-order", "head-mayor"], "head-major"),
    (["simulate", "--device", "none", "--capacity", "64"], "smaller than a line"),
    (["cache", "absent.npy"], "--capacity"),
    (["cache", "absent.npy", "--capacity-lines", "0"], "at least 1"),
    (["cache", "absent.npy", "--capacity", "64"], "smaller than a line"),
    (["cache", "absent.npy", "--capacity-lines", "6", "--policy", "set-assoc:4"], "ways"),
    (["speedup", "--network", "hunyuanvideo", "--mask", "gna:window=18x24", "--tile", "4x8x8/2x8x8"], "axes"),
    (["speedup", "--network", "hunyuanvideo", "--mask", "gna:window=0x24x24", "--tile", "4x8x8/2x8x8"], "window"),
    (["speedup", "--network", "hunyuanvideo", "--mask", "gna:window=31x24x24", "--tile", "4x8x8/2x8x8"], "axis 0"),
    (["speedup", "--seq", "1024", "--mask", "causal", "--stride", "auto", "--tile", "64x64"], "gna"),
    (["speedup", "--share", "1.5"], "--share"),
    (["speedup", "--seq", "1024", "--tile", "64x64", "--export", "torch", "x.npz"], "flex"),
    (["report", "--head-dim-v", "600", "--latent", "--heads", "1", "--head-dim", "576"], "slice"),
]


@pytest.mark.parametrize(
    ("arguments", "said"), USAGE, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_bad_value_is_exit_2(iosim: Run, arguments: list[str], said: str) -> None:
    done = iosim(*arguments)
    assert done.code == 2, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert said in done.err
    assert "Traceback" not in done.err
    assert all(line.startswith(("error: ", "hint: ")) for line in done.err.splitlines())


def files(folder: Path) -> dict[str, Path]:
    made = {
        "empty": (folder / "empty.toml", b""),
        "truncated": (folder / "truncated.toml", b'name = "x'),
        "binary": (folder / "binary.toml", bytes(range(256))),
        "deep": (folder / "deep.toml", b"a = " + b"[" * 5000 + b"]" * 5000),
        "wide": (folder / "wide.toml", b"#" * (9 << 20)),
        "misspelt": (folder / "misspelt.toml", b'nam = "x"\n'),
    }
    for path, content in made.values():
        path.write_bytes(content)
    directory = folder / "folder.toml"
    directory.mkdir()
    return {name: path for name, (path, _) in made.items()} | {"directory": directory, "absent": folder / "no.toml"}


@pytest.mark.parametrize("option", ["--device", "--network", "--kernel"])
@pytest.mark.parametrize("name", ["empty", "truncated", "binary", "deep", "wide", "misspelt", "directory", "absent"])
def test_a_bad_file_is_exit_3(iosim: Run, tmp_path: Path, option: str, name: str) -> None:
    path = files(tmp_path)[name]
    done = iosim("report", option, path)
    assert done.code == 3, done
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert path.name in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1, 2]", '{"num_attention_heads": "many"}', '{"num_attention_heads": 0}', "[" * 100_000, "\x00\x01"],
    ids=["empty", "truncated", "list", "text for a number", "zero", "deep", "binary"],
)
def test_a_bad_config_is_exit_3(iosim: Run, tmp_path: Path, content: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(content)
    done = iosim("report", "--network", path)
    assert (done.code, done.out) == (3, "")
    assert "config.json" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.npy", b""), ("cut.npy", b"\x93NUMPY\x01\x00v\x00{'descr'"), ("bad.csv", b"line,write\n1,0\nx,1\n"),
     ("bad.din", b"0 zz\n"), ("big.csv", b"line,write\n99999999999999999999,0\n"), ("absent.npy", None)],
)  # fmt: skip
def test_a_bad_trace_is_exit_3(iosim: Run, tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    done = iosim("cache", path, "--capacity-lines", "3")
    assert (done.code, done.out) == (3, "")
    assert name in done.err
    assert "Traceback" not in done.err


def test_all_faults_of_a_device_are_told_at_once(iosim: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "mine"\nvendor = "me"\narchitecture = "hopper"\nkind = "gpu"\n[cores]\ncount = "many"\nclok = "1 GHz"\n'
        '[[levels]]\nname = "hbm"\nscope = "device"\ncapacity = "-5 GB"\n'
    )
    done = iosim("report", "--device", path)
    assert done.code == 3
    faults = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(faults) >= 3
    assert "did you mean 'clock'" in done.err
    assert "-5 GB" in done.err


def test_an_output_that_cannot_be_written_leaves_nothing(iosim: Run, tmp_path: Path) -> None:
    assert iosim("report", "--format", "json", "-o", tmp_path).code == 3
    assert iosim("report", "-o", tmp_path / "no" / "such" / "folder.json").code == 3
    assert iosim("report", "--seq", "0", "-o", tmp_path / "never.json").code == 2
    assert list(tmp_path.iterdir()) == []


def test_output_goes_through_links_and_devices(iosim: Run, tmp_path: Path) -> None:
    """A link's target is written, a pipe or device is written and never replaced."""
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    assert iosim("bounds", "-o", link).code == 0
    assert link.is_symlink()
    assert real.read_text().startswith("{")
    assert real.stat().st_mode & 0o777 == 0o640
    assert iosim("bounds", "--format", "json", "-o", "/dev/null").code == 0
    assert Path("/dev/null").is_char_device()
    assert iosim("bounds", "--format", "json", "-o", "-").out.startswith("{")


def test_a_time_below_the_floor_is_exit_1(iosim: Run) -> None:
    done = iosim("report", "--no-replay", "--measured", "1us")
    assert (done.code, done.out) == (1, "")
    assert "below the time floor" in done.err


def test_a_full_disk_is_exit_3() -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "iosim", "bounds"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")


def test_a_crash_has_a_code_of_its_own(iosim: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis, "analyze", lambda *given: 1 // 0)
    done = iosim("report")
    assert done.code == 70
    assert "internal error: ZeroDivisionError" in done.err


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iosim", "report", "--seq", "0", "--debug"], capture_output=True, text=True
    )
    assert "Traceback" in done.stderr


def test_a_closed_pipe_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m iosim models list | head -n 1", shell=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "network" in done.stdout


def test_an_interrupt_is_exit_130() -> None:
    program = "import time, iosim.analysis\nfrom iosim.cli import main\niosim.analysis.analyze = lambda *a: time.sleep(30)\nprint('go', flush=True)\nmain(['report'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.5)
        os.kill(child.pid, signal.SIGINT)
        out, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert (out, err) == ("", "error: interrupted\n")
