"""Fits the constants of a kernel family to measured calls, and says how well each is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iosim.machine import Device
from iosim.timing import processor
from iosim.timing.calls import Calls, Flags, Floats
from iosim.timing.constants import Calibration, Constant
from iosim.timing.families import FAMILIES, PUBLISHED, expected_parts
from iosim.timing.parts import Parts, total_s
from iosim.timing.rates import rates_of
from iosim.timing.work import FORWARD, Work
from iosim.validate.expecting import on_tiles

#: residual (log of predicted over measured) from which the loss grows linearly: single spikes do not pull
ROBUST = 0.05
#: constants that cannot exceed one: a unit does not run above its rate
AT_MOST_ONE = frozenset({"matrix", "matrix_backward", "hbm_efficiency", "l2_efficiency"})
#: most rows per table of a fit; 1,500 random ones give what all give (docs/explanation/time.md)
ROWS_PER_TABLE = 2000
#: standard deviation of the log of a constant that the data does not see: some e^10 either way
UNSEEN = 5.0
#: a direction counts as seen from this share of the largest on: differences leave noise of some 1e-8
RANK = 1e-6
#: share of a constant that lies in unseen directions, from which it counts as unseen
FREE = 1e-2


@dataclass(frozen=True, slots=True)
class Measured:
    """Calls of one table with their times."""

    device: Device
    """where"""
    framework: str
    """whose call"""
    calls: Calls
    """what ran"""
    time_s: Floats
    """measured"""
    kernel: str = ""
    """catalogue name, where a family has several"""
    work: Work = FORWARD
    """passes that were timed"""
    tiles: tuple[tuple[int, int], ...] = ()
    """rows and keys, one pair per call of a processor's kernel"""
    warm: bool = True
    """caches of such a call"""


def fitted_lengths(calls: Calls) -> Flags:
    """The half of published figures that fits may use: every other length, 512, 2,048, 8,192 and so on.

    A figure has some six lengths, each twice the one before: a hash would leave out its ends by chance.
    """
    made: Flags = np.floor(np.log2(calls.n_kv)).astype(np.int64) % 2 == 1
    return made


def fitted_half(calls: Calls) -> Flags:
    """The half of all shapes that fits may use: the lowest bit of a fixed 64-bit hash of the shape.

    The same for every device, so that a shape is either fitted or judged everywhere.
    """
    window = np.where(calls.left + 1 < (1 << 30), calls.left + 1, 0)
    columns = (calls.batch, calls.n_q, calls.n_kv, calls.heads, calls.kv_heads, calls.head_dim, window)
    mixed = np.zeros(len(calls), np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            mixed = (mixed * np.uint64(1099511628211)) ^ column.astype(np.uint64)
            mixed ^= mixed >> np.uint64(29)
            mixed *= np.uint64(0xBF58476D1CE4E5B9)
            mixed ^= mixed >> np.uint64(32)
    made: Flags = (mixed & np.uint64(1)).astype(bool)
    return made


def sample(data: Measured, rows: int = ROWS_PER_TABLE, seed: int = 0) -> Measured:
    """At most so many random rows of a table."""
    count = len(data.calls)
    chosen = np.random.default_rng(seed).permutation(count)[:rows] if count > rows else np.arange(count)
    return replace(data, calls=data.calls[chosen], time_s=data.time_s[chosen])


def fit(start: Calibration, tables: Sequence[Measured], source: str, base: Calibration | None = None) -> Calibration:
    """Refit every constant of a calibration.

    Least squares on the log error with a soft-L1 loss, in the logs of the constants; intervals are 1.96 standard
    deviations from the Jacobian at the solution, for independent rows. A first pass feels no raster of replayed
    graphs, whose steps would hold the fit where it starts.

    Args:
        base: the family of which `start` replaces some constants; the others stay. None: `start` is a family.
    """
    from scipy.optimize import least_squares

    names = [constant.name for constant in start.constants]
    models, even = ([_model((base or start).family, data, smooth) for data in tables] for smooth in (False, True))
    logs_measured = [np.log(data.time_s) for data in tables]

    kept = dict(base.values()) if base else {}

    def residuals(logs: Floats, smooth: bool) -> Floats:
        values: Mapping[str, float] = kept | dict(zip(names, np.exp(logs).tolist(), strict=True))
        pairs = zip(even if smooth else models, logs_measured, strict=True)
        return np.concatenate([np.log(total_s(model(values))) - measured for model, measured in pairs])

    top = np.array([0.0 if name in AT_MOST_ONE else np.inf for name in names])
    found_at = np.minimum(np.log([max(constant.value, 1e-9) for constant in start.constants]), top - 1e-6)
    for smooth, most in ((True, 15), (False, 40)):
        found = least_squares(
            residuals, found_at, args=(smooth,), bounds=(-np.inf, top), loss="soft_l1", f_scale=ROBUST, max_nfev=most
        )
        found_at = np.minimum(found.x, top - 1e-6)
    spread = _deviations(np.asarray(found.jac, np.float64), found.fun)
    constants = tuple(
        replace(c, value=_short(np.exp(x)), low=_short(np.exp(x - 1.96 * s)), high=_short(np.exp(min(x + 1.96 * s, t))))
        for c, x, s, t in zip(start.constants, found.x, spread, top, strict=True)
    )
    return replace(start, constants=constants, rows=sum(len(data.calls) for data in tables), data=source)


def _model(name: str, data: Measured, smooth: bool) -> Callable[[Mapping[str, float]], Parts]:
    """A family's parts of some calls as a function of its constants; plans do not depend on those.

    Args:
        smooth: no call feels the raster on which replayed graphs begin.
    """
    if name == processor.FAMILY:
        return lambda values: on_tiles(data.calls, data.device, data.kernel, data.tiles, data.warm, values)
    if name in PUBLISHED:
        return lambda values: expected_parts(data.calls, data.device, data.kernel, constants=values, work=data.work)
    family, rates = FAMILIES[name], rates_of(data.device)
    if smooth:
        rates = replace(rates, replay_spread=1.0)
    plan = family.plan(data.calls, rates, data.framework)
    return lambda values: family.parts(plan, data.calls, rates, values, data.framework)


def _deviations(jacobian: Floats, residuals: Floats) -> Floats:
    """Standard deviations of the fitted logs, capped where the data does not see a constant, alone or beside others."""
    freedom = max(1, len(residuals) - jacobian.shape[1])
    variance = np.minimum(np.abs(residuals), 3 * ROBUST) ** 2
    normal = jacobian.T @ jacobian + 1e-9 * np.eye(jacobian.shape[1])
    made = np.minimum(np.sqrt(np.diag(np.linalg.inv(normal)) * variance.sum() / freedom), UNSEEN)
    seen: Floats = np.where(_undetermined(jacobian), UNSEEN, made)
    return seen


def _undetermined(jacobian: Floats) -> Flags:
    """Constants that can change, some together, without any residual: errors met exactly say nothing of them."""
    _, sizes, directions = np.linalg.svd(jacobian, full_matrices=jacobian.shape[0] < jacobian.shape[1])
    known = np.zeros(len(directions), bool)
    known[: len(sizes)] = sizes > RANK * sizes.max(initial=0)
    made: Flags = np.sqrt((directions[~known] ** 2).sum(axis=0)) > FREE
    return made


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration as the TOML that `load_calibration` reads."""
    lines = [
        f"name = {_quoted(calibration.family)}",
        f"title = {_quoted(calibration.title)}",
        f"architectures = [{', '.join(map(_quoted, calibration.architectures))}]",
        f"kernels = [{', '.join(map(_quoted, calibration.kernels))}]",
        f"data = {_quoted(calibration.data)}",
        f"rows = {calibration.rows}",
    ]
    for constant in calibration.constants:
        lines += ["", "[[constants]]", *_constant_lines(constant)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _constant_lines(constant: Constant) -> list[str]:
    return [
        f"name = {_quoted(constant.name)}",
        f"value = {constant.value}",
        f"unit = {_quoted(constant.unit)}",
        f"low = {constant.low}",
        f"high = {constant.high}",
        f"meaning = {_quoted(constant.meaning)}",
    ]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
