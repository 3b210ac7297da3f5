"""The CSV of `iosim measure`: one row per case and state of the last cache, appended while it runs, counters filled in later."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from iosim.errors import FileError
from iosim.measure.cases import PROBES, Case
from iosim.measure.clock import Measured, Timing
from iosim.measure.nsight import QUANTITIES

#: columns that come from a case as they are
CHOICES = (
    "experiment", "batch", "heads", "kv_heads", "head_dim", "seq_q", "seq_kv", "mask", "order", "grid", "pick",
    "per_core", "loads", "keep", "writes", "stagger", "stages", "warps",
)  # fmt: skip
TIMES = ("time_s", "time_p20_s", "time_p80_s", "runs", "flop_per_s")
COUNTERS = (*QUANTITIES, "launches", "profiled_kernels", "profile_error")
COLUMNS = (
    "case", "device", "kernel", "phase", "dtype", "kv_dtype", "tile", "l2", *CHOICES, *TIMES, *COUNTERS, "runner", "steps",
    "registers", "shared_bytes", "error_of_result", "host_s", "spin_s", "board", "l2_bytes", "driver", "clock_mhz", "max_clock_mhz", "versions",
    "measured_at", "error",
)  # fmt: skip
#: runner -> the catalogue kernel whose schedule it has; probes are no attention, and PyTorch's math path has launches of its own
SCHEDULES = {
    "cpu-tiled": "cpu-tiled", "cpu-unfused": "cpu-unfused", "cpu-sdpa": "cpu-flash", "sdpa-flash": "flash2", "sdpa-cudnn": "cudnn",
    "sdpa-efficient": "xformers", "sdpa-math": "probe-sdpa-math", "unfused": "unfused", "flex": "flex", "triton-tiled": "triton", "fa2": "flash2",
    "fa3": "flash3", "fa4": "flash4", **{name: f"probe-{name}" for name in PROBES},
}  # fmt: skip

Row = dict[str, str]


def case_row(case: Case, device: str) -> Row:
    """The columns that say what a row is about."""
    own = case.kernel.endswith("-tiled")  # libraries walk in an order of their own
    orders = {} if own else {"order": "", "grid": ""}
    plain = case.writes == 1 and not case.stagger and case.pick != "sides"
    kernel = SCHEDULES[case.kernel] if plain else "probe-" + case.kernel  # no schedule of the catalogue
    return {
        "case": case.key, "device": device, "kernel": kernel, "runner": case.kernel, "phase": case.phase,
        "dtype": case.dtype, "kv_dtype": case.dtype, "tile": f"{case.tile_q}x{case.tile_kv}" if case.tile_q else "",
        **{name: str(getattr(case, name)) for name in CHOICES}, **orders,
    }  # fmt: skip


def measured_rows(case: Case, device: str, facts: Mapping[str, object], measured: Measured) -> list[Row]:
    """One row per state of the last cache."""
    fixed = {**case_row(case, device), **_text(facts), **_text(measured.about)}
    return [{**fixed, "l2": l2, **_times(case, timing)} for l2, timing in measured.times.items()]


def failed_row(case: Case, device: str, facts: Mapping[str, object], error: BaseException) -> Row:
    """The row of a case that could not run: why."""
    why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {**case_row(case, device), **_text(facts), "error": why}


def _text(values: Mapping[str, object]) -> Row:
    return {name: str(value) for name, value in values.items()}


def _times(case: Case, timing: Timing) -> Row:
    return {
        "time_s": f"{timing.median_s:.6g}",
        "time_p20_s": f"{timing.p20_s:.6g}",
        "time_p80_s": f"{timing.p80_s:.6g}",
        "runs": str(timing.runs),
        "flop_per_s": f"{case.flop / timing.median_s:.5g}" if case.flop else "",
    }


def read_rows(path: Path) -> list[Row]:
    """Rows of a file; none where it does not exist or is empty. A last line cut short, as a killed run leaves it, is left out.

    Raises:
        FileError: not such a file, or unreadable.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from None
    if not text:
        return []
    lines = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    if tuple(lines.fieldnames or ()) != COLUMNS:
        raise FileError("is not a file of this version of `iosim measure`", str(path), "name another file")
    return [{name: value or "" for name, value in row.items() if name} for row in lines]


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Replace a file at once, so that an interruption leaves the old one or the new one.

    Raises:
        FileError: it cannot be written.
    """
    whole = path.with_name(f".{path.name}.part")
    try:
        with whole.open("w", newline="", encoding="utf-8") as handle:
            writer = _writer(handle)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(whole, path)
    except OSError as error:
        raise FileError(f"cannot be written: {error.strerror}", str(path)) from None


def _writer(handle: IO[str]) -> csv.DictWriter[str]:
    return csv.DictWriter(handle, COLUMNS, restval="", extrasaction="ignore", lineterminator="\n")


class Appending:
    """A file whose rows are on disk before the next case starts."""

    def __init__(self, path: Path, keep: Callable[[Row], bool] = lambda row: True) -> None:
        """Open it, after its present rows.

        Args:
            keep: which of them stay.
        Raises:
            FileError: not such a file, or it cannot be written.
        """
        self.rows = [row for row in read_rows(path) if keep(row)]
        write_rows(path, self.rows)  # also drops a line cut short
        try:
            self.handle = path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise FileError(f"cannot be written: {error.strerror}", str(path)) from None
        self.writer = _writer(self.handle)

    def __enter__(self) -> Appending:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.handle.close()

    def add(self, rows: Sequence[Row]) -> None:
        """Append rows and put them on disk."""
        self.writer.writerows(rows)
        self.handle.flush()
        self.rows += rows
