"""Predictions beside measurements: error statistics per group, the fitted pair on the same rows, the worst rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from iosim.errors import AbsentError
from iosim.timing.calls import UNBOUNDED, Calls, Flags, Floats
from iosim.timing.traffic import compulsory_bytes, useful_flop
from iosim.validate.calibrating import HEAD_DIMS, fitted_rows
from iosim.validate.expecting import BACKWARD_FLOP, expectation, floor_s
from iosim.validate.neighborhoods import work_of
from iosim.validate.timings import Timings

WORST = 20
#: what a row's window does: it names none; it names one at least as long as its keys; it cuts keys off
NO_WINDOW, IDLE, CUTS = "none", "idle", "cuts"
#: head sizes of a group: those that constants are fitted on, the rest, both
FITTED, OTHER, ALL = ", ".join(map(str, HEAD_DIMS)), "other", "all"


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
    """catalogue name; of kernels without a time model, their source's"""
    phase: str
    """prefill | one-query (single queries that their source calls a prefill) | decode"""
    framework: str
    """whose call"""
    window_kind: str
    """none | idle (at least as long as the keys) | cuts; all where there is no expectation"""
    errors: Errors | None
    """None where no calibration speaks of the rows"""
    yardstick: Errors | None
    """the fitted pair on the same rows; None for kernels without a time model"""
    pair: tuple[float, float] | None
    """(efficiency, overhead in seconds) of the fitted pair; None for bytes, whose yardstick is each tensor once"""
    rows: int
    """how many"""
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
    judged_yardstick: Errors | None = None
    """of a pair fitted to those rows"""
    head_dims: str = ALL
    """head sizes: those that constants are fitted on, other, or all"""
    types: tuple[str, str] = ("", "")
    """element types of queries and of keys"""
    floor_rows: int = 0
    """rows whose floor is known"""
    floor_ratio: float | None = None
    """largest floor over measured: above 1 where a row beats it"""

    @property
    def window(self) -> bool:
        """Whether a window really cuts."""
        return self.window_kind == CUTS

    def to_dict(self) -> dict[str, object]:
        """The contract's keys."""
        efficiency, overhead_s = self.pair or (None, None)
        return {
            "device": self.device,
            "kernel": self.kernel,
            "phase": self.phase,
            "quantity": self.quantity,
            "paper": self.paper,
            "work": self.work,
            "framework": self.framework,
            "dtype": self.types[0],
            "kv_dtype": self.types[1],
            "head_dims": self.head_dims,
            "window": self.window,
            "window_kind": self.window_kind,
            **_numbers(self.errors),
            "n": self.rows,
            "yardstick": {**_numbers(self.yardstick), "efficiency": efficiency, "overhead_s": overhead_s},
            "judged": self.judged.to_dict() if self.judged else None,
            "judged_yardstick": self.judged_yardstick.to_dict() if self.judged_yardstick else None,
            "floor_rows": self.floor_rows,
            "floors_beaten": self.floors_beaten,
            "floor_ratio": self.floor_ratio,
            "why": self.why,
        }


def _numbers(errors: Errors | None) -> dict[str, object]:
    return errors.to_dict() if errors else dict.fromkeys(Errors.__dataclass_fields__)


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
    """Compare one table."""
    floor = _floor(timings)
    predicted, why = expectation(timings)
    fitted = fitted_rows(timings)
    groups, points = [], []
    for phase, window, head_dims, members in _split(timings, bool(predicted.size)):
        rows, new = timings[members], members & ~fitted
        pair, by_pair = (None, np.empty(0)) if timings.why else fitted_pair(rows)
        known, ratio = np.isfinite(floor[members]), floor[members] / rows.time_s
        made = Group(
            timings.device.key, timings.kernel, "backward" if timings.work.backward else phase, timings.framework, window,
            Errors.of(predicted[members], rows.time_s) if predicted.size else None,
            Errors.of(by_pair, rows.time_s) if pair else None, pair, len(rows),
            int((rows.time_s < floor[members]).sum()), why, timings.paper, str(timings.work),
            head_dims=head_dims, types=(timings.dtype, timings.kv_dtype), floor_rows=int(known.sum()),
            floor_ratio=float(ratio.max()) if known.any() else None,
        )  # fmt: skip
        if predicted.size and new.any():
            apart = by_pair if len(rows) == new.sum() else fitted_pair(timings[new])[1]
            judged, beside = (Errors.of(each, timings.time_s[new]) for each in (predicted[new], apart))
            made = replace(made, judged=judged, judged_yardstick=beside)
        groups.append(made)
        if predicted.size:
            points.append(Points(made, rows.time_s, predicted[members], by_pair))
    worst = worst_rows(timings, predicted) if predicted.size else []
    return Compared(tuple(groups), tuple(worst), predicted, tuple(points))


def _floor(timings: Timings) -> Floats:
    """The floor of each row; not a number where the device's peak or bandwidth is not known."""
    try:
        return np.nextafter(floor_s(timings), 0)
    except AbsentError:
        return np.full(len(timings), np.nan)


def window_kinds(calls: Calls) -> dict[str, Flags]:
    """Rows by what their windows do."""
    named = calls.causal & (calls.left < UNBOUNDED)
    return {NO_WINDOW: ~named, IDLE: named & ~calls.local, CUTS: named & calls.local}


def _split(timings: Timings, apart: bool) -> Iterator[tuple[str, str, str, Flags]]:
    """(phase, window, head sizes, rows): one query counts as decode, unless its source calls it a prefill.

    Args:
        apart: windows and head sizes matter; without an expectation they do not.
    """
    calls = timings.calls
    one = "one-query" if timings.phase == "prefill" else "decode"
    every = np.ones(len(timings), bool)
    windows = window_kinds(calls) if apart else {ALL: every}
    fitted = np.isin(calls.head_dim, HEAD_DIMS)
    heads = {FITTED: fitted, OTHER: ~fitted} if apart and not (timings.paper or timings.tiles) else {ALL: every}
    for phase, rows in (("prefill", ~calls.decode), (one, calls.decode)):
        for window, cut in windows.items():
            for sizes, sized in heads.items():
                if (members := rows & cut & sized).any():
                    yield phase, window, sizes, members


def worst_rows(timings: Timings, predicted: Floats, count: int = WORST) -> list[dict[str, object]]:
    """The rows with the largest log error."""
    order = np.argsort(-np.abs(np.log(predicted / timings.time_s)))[:count]
    calls = timings.calls
    return [
        {
            "source": timings.source, "row": int(timings.row[i]), "quantity": "time", "device": timings.device.key,
            "kernel": timings.kernel, "paper": timings.paper, "work": str(timings.work), "batch": int(calls.batch[i]), "heads": int(calls.heads[i]),
            "kv_heads": int(calls.kv_heads[i]), "head_dim": int(calls.head_dim[i]), "seq_q": int(calls.n_q[i]),
            "seq_kv": int(calls.n_kv[i]), "mask": _mask(timings, i), "measured_s": float(timings.time_s[i]),
            "time_expected_s": float(predicted[i]), "ratio": float(predicted[i] / timings.time_s[i]),
        }
        for i in order.tolist()
    ]  # fmt: skip


def _mask(timings: Timings, i: int) -> str:
    """The mask of a row in the command line's notation."""
    if timings.layouts:
        return timings.layouts[i].mask
    if not timings.calls.causal[i]:
        return "full"
    left = int(timings.calls.left[i])
    return f"window:{left + 1}" if left < UNBOUNDED else "causal"


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
