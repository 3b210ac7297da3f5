"""What `ncu --csv` prints, in every form it comes: the same launches, in base units, and clear refusals."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iosim.errors import FileError
from iosim.measure.nsight import QUANTITIES, looks_like_nsight, number, parse_nsight, totals

RANGE = "thread Domain:Push/Pop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
OTHER = "Id:Domain:Start/Stop_Range:PL_Type:PL_Value:CLR_Type:Color:Msg_Type:Msg"
INSIDE = '1  "<default domain>:iosim.0123456789ab:none:none:none:none:none:none" '
READ, WRITE, TIME = "dram__bytes_read.sum", "dram__bytes_write.sum", "gpu__time_duration.sum"
SECTORS = "lts__t_sectors_srcunit_tex_op_read.sum"


def lines(rows: Sequence[Sequence[object]]) -> str:
    made = io.StringIO()
    csv.writer(made, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(rows)
    return made.getvalue()


def wide(values: Sequence[object], units: Sequence[str]) -> str:
    head = ["ID", "Process ID", "Kernel Name", RANGE, OTHER, "Block Size", "Grid Size", "Device", "CC"]
    names = [TIME, READ, WRITE, SECTORS]
    return lines(
        [
            [*head, *names],
            [*[""] * len(head), *units],
            ["0", "7", "flash_fwd<128, 64>(Params)", INSIDE, "", "(128, 1, 1)", "(64, 1, 1)", "0", "9.0", *values],
        ]
    )


def long(values: Sequence[object], units: Sequence[str]) -> str:
    head = [
        "ID",
        "Process ID",
        "Kernel Name",
        RANGE,
        OTHER,
        "Section Name",
        "Metric Name",
        "Metric Unit",
        "Metric Value",
    ]
    about = ["0", "7", "flash_fwd<128, 64>(Params)", INSIDE, "", "Command line profiler metrics"]
    names = [TIME, READ, WRITE, SECTORS]
    return lines([head, *([*about, *row] for row in zip(names, units, values, strict=True))])


@pytest.mark.parametrize("form", [wide, long])
def test_both_pages_give_the_same_launch(form: object) -> None:
    text = form(["310.5", "57.7", "21,000", "1,000"], ["usecond", "Mbyte", "Kbyte", "sector"])  # type: ignore[operator]
    (launch,) = parse_nsight(text)
    assert launch.kernel == "flash_fwd<128, 64>(Params)"
    assert "iosim.0123456789ab" in launch.ranges[0]
    assert len(launch.ranges) == 1
    assert launch.metrics[TIME] == pytest.approx(310.5e-6)
    assert totals([launch]) == pytest.approx(
        {"profiled_s": 310.5e-6, "hbm_read_bytes": 57.7e6, "hbm_write_bytes": 21e6, "l2_read_bytes": 32000}
    )


def test_lines_of_the_profiler_and_of_the_program_are_passed_over() -> None:
    table = wide(["1", "2", "3", "4"], ["ns", "byte", "byte", "sector"])
    noise = "==PROF== Connected to process 7 (python)\nstep 1, loss 0.5\n"
    text = noise + table + "12 cases, 0 failed\n==PROF== Disconnected from process 7\n" + table
    found = parse_nsight(text)
    assert len(found) == 2
    assert totals(found)["hbm_read_bytes"] == 4


@pytest.mark.parametrize("noise", ["12,hello\n", "0,1,2\n,7\n", "7\n", "3% done,"])
def test_a_program_may_print_numbers_and_commas(noise: str) -> None:
    table = wide(["1", "2", "3", "4"], ["ns", "byte", "byte", "sector"])
    found = parse_nsight(noise + table + (noise if noise.endswith("\n") else "") + table)
    assert [launch.quantity("hbm_read_bytes") for launch in found] == [2, 2]


def test_other_names_of_the_same_counters() -> None:
    text = wide(["1", "2", "3", "4"], ["ns", "byte", "sector", "sector"])
    text = text.replace(READ, "dram__bytes_op_read.sum").replace(WRITE, "dram__sectors_write.sum")
    (launch,) = parse_nsight(text)
    assert launch.quantity("hbm_read_bytes") == 2
    assert launch.quantity("hbm_write_bytes") == 96


def test_a_counter_that_one_launch_lacks_is_not_summed() -> None:
    whole = parse_nsight(wide(["1", "2", "3", "4"], ["ns", "byte", "byte", "sector"]))
    part = parse_nsight(wide(["1", "n/a", "3", "4"], ["ns", "byte", "byte", "sector"]))
    made = totals([*whole, *part])
    assert "hbm_read_bytes" not in made
    assert made["hbm_write_bytes"] == 6
    assert totals([]) == {}


@given(st.floats(0, 1e15, allow_nan=False), st.sampled_from(["", "K", "M", "G"]), st.sampled_from(["n", "u", "m", ""]))
def test_units_scale_by_thousands(value: float, size: str, time: str) -> None:
    power = {"": 0, "K": 3, "M": 6, "G": 9, "n": -9, "u": -6, "m": -3}
    text = long([value, value, value, 0], [f"{time}second", f"{size}byte", f"{size}byte/{time}s", "sector"])
    (launch,) = parse_nsight(text)
    assert launch.metrics[TIME] == pytest.approx(value * 10.0 ** power[time if time else ""])
    assert launch.metrics[READ] == pytest.approx(value * 10.0 ** power[size if size else ""])
    assert launch.metrics[WRITE] == pytest.approx(value * 10.0 ** (power[size] - power[time]))


@given(st.integers(0, 10**15))
def test_numbers_with_thousands_in_them(value: int) -> None:
    english = f"{value:,}"
    assert number(english) == value
    if value >= 10**6:
        assert number(english.replace(",", ".")) == value
    assert number(english.replace(",", ".") + ",5") == value + 0.5
    assert number("") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM\n", "no table"),
        ("", "no table"),
        (wide(["1", "2", "3", "4"], ["ns", "byte", "byte", "sector"])[:-8], "cut short|columns"),
        (wide(["1", "2", "3", "4"], ["ns", "furlongbyte", "byte", "sector"]), "unknown unit"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, why: str) -> None:
    with pytest.raises(FileError, match=why):
        parse_nsight(text, "ncu.csv")


def test_its_header_is_known() -> None:
    assert looks_like_nsight(["ID", "Kernel Name", "Metric Name"])
    assert looks_like_nsight(["ID", "Kernel Name", READ])
    assert not looks_like_nsight(["device", "kernel", "time_s"])
    assert {"hbm_read_bytes", "hbm_write_bytes", "l2_read_bytes"} <= QUANTITIES.keys()
