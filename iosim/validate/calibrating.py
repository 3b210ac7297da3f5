"""`calibrate`: refits the constants of the kernel families from measured tables and writes them as TOML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from iosim.errors import AbsentError, Fault, FileError, UsageError
from iosim.timing import processor
from iosim.timing.calls import Flags
from iosim.timing.constants import Calibration, load_calibration
from iosim.timing.families import FAMILIES, OWN_CALLS, PUBLISHED
from iosim.validate.fitting import Measured, fit, fitted_half, fitted_lengths, sample, write_calibration
from iosim.validate.readers import read_table
from iosim.validate.timings import Timings, joined

#: devices whose fitted half of shapes a family's constants come from; all others are judged only
FITTED_ON = {
    "fa2": ("a100-sxm-80gb",), "fa3": ("h100-sxm5",), "trtllm": ("b200-sxm",), "fa3-sglang": ("h100-sxm5",),
    "trtllm-sglang": ("b200-sxm",),
}  # fmt: skip
#: whose calls a family is fitted on; constants of a framework's own call are fitted on its calls
FRAMEWORK = "vllm"
#: calibration of a framework's own constants -> (family, framework)
OWN = {name: key for key, name in OWN_CALLS.items()}
#: what can be refitted, families before the calls that replace some of their constants
NAMES = (*FAMILIES, *OWN, *PUBLISHED, processor.FAMILY)
#: the same for families of published figures: boards, and papers (none named: any that has the kernel)
PUBLISHED_ON: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fa1": (("a100-sxm-40gb", "a100-sxm-80gb"), ()),
    "fa2-hopper": (("h100-sxm5",), ()),
    "fa2-backward": (("a100-sxm-80gb",), ("FlashAttention-2",)),
    "xformers": (("a100-sxm-80gb",), ()),
    "triton": (("h100-sxm5",), ("FlashAttention-3",)),
    "triton-2022": (("a100-sxm-80gb",), ()),
    "cudnn": (("h100-sxm5",), ("FlashAttention-3",)),
    "unfused": (("a100-sxm-40gb", "a100-sxm-80gb"), ("FlashAttention", "FlashAttention-2")),
}
HEAD_DIMS = (64, 128, 256)
#: what is told when a family has too few
ROWS_NEEDED = "fits use half of all shapes, or every other length of published figures; give all rows of the source"
#: prefill weighs more: its shapes vary more
PREFILL_ROWS, DECODE_ROWS = 2200, 1300


@dataclass(frozen=True, slots=True)
class Refit:
    """One family refitted."""

    before: Calibration
    """constants in use"""
    after: Calibration
    """constants that the data gives"""
    file: Path
    """where they were written"""


def calibrate(
    paths: Sequence[Path], folder: Path, families: Sequence[str] = (), progress: Callable[[str], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> list[Refit]:  # fmt: skip
    """Refit families on the fitted half of their devices' rows.

    Args:
        paths: AIConfigurator folders, measured CSVs or folders of them.
        folder: where `<family>.toml` is written; put it at models/calibration below a folder of $IOSIM_PATH to use it.
        families: of `NAMES`; none: every one that the data holds enough rows for.
        note: called with why a family of the data's devices was left out.
    Raises:
        UsageError: a family that was named has too few rows. FileError: every family has; data that cannot be read.
        AbsentError: a library is missing.
    """
    tables = [table for path in paths for table in _tables(path)]
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Refit] = []
    short: list[str] = []
    for family in sorted(families, key=NAMES.index) or NAMES:
        before = load_calibration(family)
        speaks, halves, described = _sort(family)
        data = [table for table in tables if speaks(table, before)]
        if not data:
            if families:
                raise UsageError(f"no rows of {_where(family)} for {family}", "--family")
            continue
        rows = [part for table in data for part in halves(table)]
        if why := _too_few(before, rows):
            if families:
                raise UsageError(f"{family}: {why}", "--family", ROWS_NEEDED)
            short.append(f"{family}: {why}")
            continue
        if progress:
            progress(family)
        after = fit(before, rows, described(data), _base(family, made))
        write_calibration(after, folder / f"{family}.toml")
        made.append(Refit(before, after, folder / f"{family}.toml"))
    if short and not made:
        raise FileError(faults=[Fault(why, ", ".join(map(str, paths)), ROWS_NEEDED) for why in short])
    if note:
        for why in short:
            note(f"left out: {why}")
    return made


def _too_few(calibration: Calibration, rows: Sequence[Measured]) -> str:
    """Why rows cannot tell a family's constants, or empty: as many as there are constants leave no error to judge by."""
    count, constants = sum(len(part.calls) for part in rows), len(calibration.constants)
    if not count:
        return "no rows of the half of shapes that fits use"
    return "" if count > constants else f"a fit needs more rows than its {constants} constants, not {count}"


def _tables(path: Path) -> list[Timings]:
    """Rows of kernels that have a time model, single queries beside others whatever their source calls them."""
    read = read_table(path)
    if read.faults:  # constants of the rest alone would differ without a word
        raise FileError(faults=read.faults)
    return joined([replace(table, phase="") for table in read.timings if not table.why])


def _where(family: str) -> str:
    if family == processor.FAMILY:
        return "one probed core"
    return ", ".join(FITTED_ON[family] if family in FITTED_ON else PUBLISHED_ON[family][0])


def _base(name: str, refits: Sequence[Refit]) -> Calibration | None:
    """The family of a framework's own constants, as refitted before if it was."""
    if name not in OWN:
        return None
    family, _ = OWN[name]
    return next((refit.after for refit in refits if refit.after.family == family), load_calibration(family))


def fitted_rows(table: Timings) -> Flags:
    """Which rows of a table lie in the half that its family's constants were fitted on."""
    import numpy as np

    for name in (*FAMILIES, *OWN, *PUBLISHED):
        calibration = load_calibration(name)
        if name in PUBLISHED and _speaks_published(table, calibration) and not table.layouts:
            return fitted_lengths(table.calls)
        if name not in PUBLISHED and _speaks(table, calibration) and not table.paper:
            return _usable(table)
    return np.zeros(len(table), bool)


def _speaks(table: Timings, calibration: Calibration) -> bool:
    """Whether a table is one that a family is fitted on."""
    return (
        not table.why
        and table.device.key in FITTED_ON[calibration.family]
        and table.kernel in calibration.kernels
        and table.framework == OWN.get(calibration.family, ("", FRAMEWORK))[1]
        and table.dtype == table.kv_dtype == "bf16"
    )


def _usable(table: Timings) -> Flags:
    """The fitted half of shapes without a window."""
    import numpy as np

    made: Flags = fitted_half(table.calls) & ~table.calls.local & np.isin(table.calls.head_dim, HEAD_DIMS)
    return made


def _halves(table: Timings) -> list[Measured]:
    """Rows of the fitted half without a window, prefill and decode apart."""
    usable = _usable(table)
    made = []
    for decode, most in ((False, PREFILL_ROWS), (True, DECODE_ROWS)):
        chosen = table[usable & (table.calls.decode == decode)]
        if len(chosen):
            made.append(sample(Measured(chosen.device, chosen.framework, chosen.calls, chosen.time_s), most))
    return made


def _speaks_published(table: Timings, calibration: Calibration) -> bool:
    """Whether figures are ones that a family is fitted on; of a kernel with two families, the passes that are its."""
    boards, papers = PUBLISHED_ON[calibration.family]
    if not table.paper or table.device.key not in boards or (papers and table.paper not in papers):
        return False
    backward = f"{table.kernel}-backward" in calibration.kernels and table.work.backward
    if table.work.padding and calibration.family == "unfused":
        return False
    return table.kernel in calibration.kernels or backward


def _lengths(table: Timings) -> list[Measured]:
    """Figures of every other length."""
    chosen = table[fitted_lengths(table.calls)]
    if not len(chosen):
        return []
    return [Measured(chosen.device, "none", chosen.calls, chosen.time_s, table.kernel, table.work)]


def _described_published(data: Sequence[Timings]) -> str:
    boards = ", ".join(sorted({table.device.key for table in data}))
    papers = ", ".join(sorted({table.paper for table in data}))
    return f"published figures of {papers} on {boards}: every other length (512, 2,048, 8,192, ...)"


def _described(data: Sequence[Timings]) -> str:
    where = ", ".join(sorted({table.device.key for table in data}))
    return (
        f"{where} under {data[0].framework}: {', '.join(sorted({table.source for table in data}))[:160]}; 16-bit rows "
        f"without a window of the fitted half of shapes, at most {PREFILL_ROWS} prefill and {DECODE_ROWS} decode rows"
    )


def _speaks_core(table: Timings, calibration: Calibration) -> bool:
    """Whether a table is of compiled kernels on a core whose rates a probe wrote down."""
    if not table.tiles or table.kernel not in calibration.kernels or {table.dtype, table.kv_dtype} != {"fp32"}:
        return False
    try:
        return bool(processor.core_rates(table.device))
    except AbsentError:
        return False


def _every(table: Timings) -> list[Measured]:
    """Every row: another core's are few, and its constants are judged on other shapes."""
    return [
        Measured(table.device, "none", table.calls, table.time_s, table.kernel, tiles=table.tiles, warm=table.warm)
    ]  # fmt: skip


def _described_core(data: Sequence[Timings]) -> str:
    sources = ", ".join(sorted({table.source for table in data}))
    cores = ", ".join(sorted({table.device.name for table in data}))
    return f"{sources}: every row, on {cores}; rates as probed there"


_Sort = tuple[
    Callable[[Timings, Calibration], bool], Callable[[Timings], list[Measured]], Callable[[Sequence[Timings]], str]
]


def _sort(family: str) -> _Sort:
    """Whether a table is a family's, its rows to fit, and how they are described."""
    if family == processor.FAMILY:
        return _speaks_core, _every, _described_core
    if family in PUBLISHED:
        return _speaks_published, _lengths, _described_published
    return _speaks, _halves, _described
