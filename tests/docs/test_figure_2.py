"""The tables of docs/explanation/figure-2.md are what iosim counts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from iosim import analyze, device, problem
from iosim.attention import Attention
from iosim.cache.closed_form import hbm_traffic
from iosim.cli import run
from iosim.kernels import make_schedule
from iosim.schedule import Schedule

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "explanation" / "figure-2.md").read_text(encoding="utf-8")
SQUARE, ROWS = 64 * 16 * 1024 * 1024 * 2, 64 * 16 * 1024 * 64 * 2


def table(first_column: str) -> list[list[str]]:
    lines = PAGE[PAGE.index(f"| {first_column} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def schedules(options: dict[str, str]) -> list[Schedule]:
    made = []
    for phase, kernel in (("prefill", "unfused"), ("backward", "unfused-backward")):
        asked: Attention = problem(heads=16, head_dim=64, batch=64, seq=1024, mask="full", dtype="fp16", phase=phase)
        own = {name: value for name, value in options.items() if name != "mask_copy" or phase == "backward"}
        own = {n.removeprefix("forward."): v for n, v in own.items() if phase == "prefill" or "forward." not in n}
        made.append(make_schedule(asked, None, kernel, settings=own))
    return made


def test_every_launch_of_the_account_is_counted_so() -> None:
    *rows, together = table("launch")
    launches = [
        each for schedule in schedules({"copies": "true", "mask_kernel": "padding"}) for each in schedule.launches
    ]
    assert [row[0] for row in rows] == [launch.name for launch in launches]
    for (name, _, squares, operands, gigabytes), launch in zip(rows, launches, strict=True):
        counted = sum(m.read_bytes + m.write_bytes for m in launch.traffic.moved if m.tensor != "M")
        assert counted == int(squares) * SQUARE + int(operands) * ROWS, name
        assert float(gigabytes) == round(counted / 1e9, 2), name
    assert [int(cell) for cell in together[2:4]] == [sum(int(row[column]) for row in rows) for column in (2, 3)]


@pytest.mark.parametrize("row", table("operations"), ids=lambda row: row[0])
def test_every_reading_of_the_figure_is_counted_so(row: list[str]) -> None:
    _, text, gigabytes, *against = row
    options = dict(re.findall(r"([\w.]+)=(\w+)", text))
    found = [hbm_traffic(schedule, device("a100-sxm-40gb")) for schedule in schedules(options)]
    total = sum(each.traffic.total_bytes for each in found if each)
    assert float(gigabytes) == round(total / 1e9, 2)
    for printed, published in zip(against, (40.3e9, 35.3e9), strict=True):
        digits = 1 if "." in printed else 0
        assert float(printed.removesuffix("%").strip()) == round(100 * (total / published - 1), digits)


def test_every_term_of_flash_attention_is_counted_so() -> None:
    """Tensor by tensor at the cores and as replayed; the sums; and the 4.4 GB that are printed."""
    *rows, both = table("pass")
    whole = [0] * 4
    for name, phase, kernel in (("forward", "prefill", "flash1"), ("backward", "backward", "flash2-backward")):
        asked: Attention = problem(heads=16, head_dim=64, batch=64, seq=1024, mask="full", dtype="fp16", phase=phase)
        (report,) = analyze(asked, device("a100-sxm-40gb"), [kernel]).kernels
        core, memory = (report.boundary(at).traffic for at in ("core", "hbm"))
        found = {
            moved.tensor: [moved.read_bytes, moved.write_bytes, inside.read_bytes, inside.write_bytes]
            for moved in core.moved
            for inside in memory.moved
            if inside.tensor == moved.tensor
        }
        found["all"] = [core.read_bytes, core.write_bytes, memory.read_bytes, memory.write_bytes]
        told = {tensor: cells for at, tensor, *cells in rows if at == name}
        assert told == {tensor: [f"{count / 1e9:.3f}" for count in counts] for tensor, counts in found.items()}
        whole = [before + count for before, count in zip(whole, found["all"], strict=True)]
    assert both == ["both", "all", *(f"{count / 1e9:.3f}" for count in whole)]
    assert f"{sum(whole[2:]) / 1e9:.2f} GB in main" in PAGE
    assert f"{sum(whole[:2]) / 1e9:.1f} GB, nearly half of them dQ" in PAGE
    assert f"{sum(whole[2:]) / 1e9:.1f}" == "4.4"


def test_the_commands_of_the_page_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r"^    iosim (simulate .*)$", PAGE, re.MULTILINE)
    assert len(commands) == 2
    for command, sums in zip(commands, (("1.365 GB", "701.5 MB"), ("1.351 GB", "943.7 MB")), strict=True):
        assert run(command.split()) == 0
        (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("hbm")]
        assert all(text in line for text in sums)
