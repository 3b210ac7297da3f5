"""Predictions beside measurements: error statistics per group, the fitted pair on the same rows, the worst rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iosim.errors import AbsentError, FileError
from iosim.timing.calls import Flags, Floats
from iosim.timing.families import expected_parts
from iosim.timing.parts import total_s
from iosim.timing.processor import processor_parts
from iosim.timing.traffic import compulsory_bytes, floors_s, useful_flop
from iosim.validate.calibrating import fitted_rows
from iosim.validate.neighborhoods import expected_s, work_of
from iosim.validate.timings import Timings

WORST = 20
#: median of time over floor below which a table cannot be in the unit that its column says; of few rows, which a
#: wrong device may explain, only far below
IMPOSSIBLE, FEW, FAR_BELOW = 0.5, 3, 0.02
#: factors between units that are taken for one another
SLIPS = {
    1e3: "a thousand times: seconds under a column of ms, or ms under one of us",
    1e6: "a million times: seconds under a column of us",
}


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute relative errors |predicted / measured - 1| of rows."""

    n: int
    """rows"""
    median_abs_error: float
    """median"""
    mean_abs_error: float
    """mean"""
    p90_abs_error: float
    """90th percentile"""
    median_ratio: float
    """median of predicted over measured: the bias"""

    @classmethod
    def of(cls, predicted: Floats, measured: Floats) -> Errors:
        """The statistics of some rows."""
        ratio = predicted / measured
        error = np.abs(ratio - 1)
        return cls(
            len(ratio), float(np.median(error)), float(error.mean()), float(np.percentile(error, 90)),
            float(np.median(ratio)),
        )  # fmt: skip

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of one device, kernel and phase."""

    device: str
    """catalogue name"""
    kernel: str
    """catalogue name"""
    phase: str
    """prefill | decode"""
    framework: str
    """whose call"""
    window: bool
    """whether a window really cuts"""
    errors: Errors | None
    """None where no calibration speaks of the rows"""
    yardstick: Errors
    """the fitted pair on the same rows"""
    pair: tuple[float, float] | None
    """(efficiency, overhead in seconds) of the fitted pair; None for bytes, whose yardstick is each tensor once"""
    rows: int
    """rows compared with the floor"""
    floors_beaten: int
    """rows faster than `time_floor_s`, or with fewer bytes than no kernel avoids"""
    why: str = ""
    """why there is no expectation"""
    paper: str = ""
    """who published it, where rows are figures of several"""
    work: str = "forward"
    """passes timed, and whether with dropout or padding"""
    quantity: str = "time"
    """time, or a column of bytes: hbm_read_bytes, ..."""
    judged: Errors | None = None
    """of the rows that no constant was fitted on; None where all were, or where there is no expectation"""

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        errors = self.errors.to_dict() if self.errors else dict.fromkeys(Errors.__dataclass_fields__)
        efficiency, overhead_s = self.pair or (None, None)
        return {
            "device": self.device,
            "kernel": self.kernel,
            "phase": self.phase,
            "quantity": self.quantity,
            "paper": self.paper,
            "work": self.work,
            "framework": self.framework,
            "window": self.window,
            **errors,
            "n": self.rows,
            "yardstick": {**self.yardstick.to_dict(), "efficiency": efficiency, "overhead_s": overhead_s},
            "judged": self.judged.to_dict() if self.judged else None,
            "floors_beaten": self.floors_beaten,
            "why": self.why,
        }


@dataclass(frozen=True, slots=True)
class Points:
    """Rows of one group, as pictures show them."""

    group: Group
    """whose"""
    measured: Floats
    """seconds or bytes"""
    predicted: Floats
    """in the same unit"""
    yardstick: Floats
    """the fitted pair's, or each tensor once"""


@dataclass(frozen=True, slots=True)
class Compared:
    """One table's rows beside their predictions."""

    groups: tuple[Group, ...]
    """per phase and window"""
    worst: tuple[dict[str, object], ...]
    """rows with the largest error"""
    predicted: Floats
    """expectation of each row in seconds; empty where there is none"""
    points: tuple[Points, ...] = ()
    """of the groups that have an expectation"""


def compare(timings: Timings) -> Compared:
    """Compare one table.

    Raises:
        FileError: times that physics forbids: the column's unit is wrong. AbsentError: the floor is not known.
    """
    floor = _floor_s(timings)
    check_unit(timings, floor)
    predicted, why = _predicted(timings)
    fitted = fitted_rows(timings)
    groups, points = [], []
    for phase, window, members in _split(timings):
        rows = timings[members]
        pair, by_pair = fitted_pair(rows)
        errors = Errors.of(predicted[members], rows.time_s) if predicted.size else None
        beaten = int((rows.time_s < np.nextafter(floor[members], 0)).sum())
        passes = "backward" if timings.work.backward else phase
        key = (timings.device.key, timings.kernel, passes, timings.framework, window)
        yardstick = Errors.of(by_pair, rows.time_s)
        paper, work = timings.paper, str(timings.work)
        new = members & ~fitted
        judged = Errors.of(predicted[new], timings.time_s[new]) if predicted.size and new.any() else None
        groups.append(
            Group(*key, errors, yardstick, pair, len(rows), beaten, why, paper, work, judged=judged)
        )  # fmt: skip
        if predicted.size:
            points.append(Points(groups[-1], rows.time_s, predicted[members], by_pair))
    worst = worst_rows(timings, predicted) if predicted.size else []
    return Compared(tuple(groups), tuple(worst), predicted, tuple(points))


#: FLOP of a backward pass over those of a forward one: five products for two, L6 of the floors
BACKWARD_FLOP = 2.5


def _floor_s(timings: Timings) -> Floats:
    """`time_floor_s` of the passes that were timed; bytes of a forward pass, which any of them moves."""
    if timings.layouts:
        return work_of(timings)[2]
    floor = floors_s(timings.calls, timings.device, timings.dtype, timings.kv_dtype, timings.warm)
    if not timings.work.backward:
        return floor
    peak = max(timings.device.peak_flop_per_s(timings.dtype), timings.device.peak_flop_per_s(timings.kv_dtype))
    made: Floats = (timings.work.forward + BACKWARD_FLOP) * useful_flop(timings.calls) / peak
    return made


def check_unit(timings: Timings, floor_s: Floats) -> None:
    """Refuse times that physics forbids for most rows: a slip of the unit, or another device.

    Raises:
        FileError: with the slip that would explain it.
    """
    ratio = float(np.median(timings.time_s / floor_s))
    if ratio >= (IMPOSSIBLE if len(timings) > FEW else FAR_BELOW):
        return
    slips = [text for factor, text in SLIPS.items() if 1 <= ratio * factor < 300]
    where = f"rows {timings.row[0]} to {timings.row[-1]} of {timings.source}" if len(timings) > 1 else timings.source
    raise FileError(
        f"times of {timings.kernel} on {timings.device.name} are {ratio:.2g} of the floor in the median", where,
        f"is the unit off by {' or by '.join(slips)}?" if slips else "is it another device, or another count of FLOP?",
    )  # fmt: skip


def _predicted(timings: Timings) -> tuple[Floats, str]:
    """(expectation per row, empty), or (nothing, why)."""
    if timings.tiles:
        return _on_processor(timings)
    if timings.dtype not in ("bf16", "fp16") or timings.kv_dtype not in ("bf16", "fp16"):
        return np.empty(0), f"calibrated for 16-bit tensors, not {timings.dtype} with {timings.kv_dtype} keys"
    try:
        if timings.layouts:
            return expected_s(timings), ""
        parts = expected_parts(
            timings.calls, timings.device, timings.kernel, timings.framework, timings.warm, work=timings.work
        )
    except AbsentError as error:
        return np.empty(0), error.faults[0].what
    return total_s(parts), ""


def _on_processor(timings: Timings) -> tuple[Floats, str]:
    """As `_predicted`, for compiled kernels whose tile is free."""
    if {timings.dtype, timings.kv_dtype} != {"fp32"}:
        return np.empty(0), "on a processor fp32 is timed"
    made = np.empty(len(timings))
    try:
        for tile in dict.fromkeys(timings.tiles):
            rows = np.array([each == tile for each in timings.tiles])
            parts = processor_parts(timings.calls[rows], timings.device, timings.kernel, tile, timings.warm)
            made[rows] = total_s(parts)
    except AbsentError as error:
        return np.empty(0), error.faults[0].what
    return made, ""


def _split(timings: Timings) -> Sequence[tuple[str, bool, Flags]]:
    """(phase, window, rows): one query counts as decode whatever table it stands in."""
    decode, local = timings.calls.decode, timings.calls.local
    found = [
        (phase, window, (decode == (phase == "decode")) & (local == window))
        for phase in ("prefill", "decode")
        for window in (False, True)
    ]
    return [(phase, window, members) for phase, window, members in found if members.any()]


def worst_rows(timings: Timings, predicted: Floats, count: int = WORST) -> list[dict[str, object]]:
    """The rows with the largest log error."""
    order = np.argsort(-np.abs(np.log(predicted / timings.time_s)))[:count]
    calls = timings.calls
    return [
        {
            "source": timings.source, "row": int(timings.row[i]), "quantity": "time", "device": timings.device.key,
            "kernel": timings.kernel, "paper": timings.paper, "work": str(timings.work), "batch": int(calls.batch[i]), "heads": int(calls.heads[i]),
            "kv_heads": int(calls.kv_heads[i]), "head_dim": int(calls.head_dim[i]), "seq_q": int(calls.n_q[i]),
            "seq_kv": int(calls.n_kv[i]), "measured_s": float(timings.time_s[i]),
            "time_expected_s": float(predicted[i]), "ratio": float(predicted[i] / timings.time_s[i]),
        }
        for i in order.tolist()
    ]  # fmt: skip


def fitted_pair(timings: Timings) -> tuple[tuple[float, float], Floats]:
    """The yardstick: max(FLOP / peak, bytes / bandwidth) / efficiency + overhead, both fitted to these rows."""
    from scipy.optimize import least_squares

    if timings.layouts:
        flop, moved, _ = work_of(timings)
    else:
        flop = useful_flop(timings.calls)
        moved = np.add(*compulsory_bytes(timings.calls, timings.dtype, timings.kv_dtype))
    peak = timings.device.rated_flop_per_s(timings.dtype)
    bandwidth = timings.device.bandwidth_bytes_per_s("hbm")
    scale = timings.work.forward + BACKWARD_FLOP * timings.work.backward
    base = scale * np.maximum(flop / peak, moved / bandwidth)
    log_time = np.log(timings.time_s)

    def residuals(logs: Floats) -> Floats:
        made: Floats = np.log(base / np.exp(logs[0]) + np.exp(logs[1])) - log_time
        return made

    found = least_squares(residuals, np.log([0.5, 1e-5]), loss="soft_l1", f_scale=0.1)
    efficiency, overhead = np.exp(found.x).tolist()
    return (efficiency, overhead), base / efficiency + overhead
