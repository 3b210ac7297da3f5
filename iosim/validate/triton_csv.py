"""Reads the CSV that Triton's benchmarks write (`triton.testing.perf_report` with a save path).

The first column is the x axis (`N_CTX`, ...), then one column per provider ("Triton [FP16]", "Flash-2"), since
Triton 3.2 with the y label behind it ("(TFLOPS)", "(ms)"). What the table does not hold stands in the file's name, as the
fused-attention tutorial writes it: fused-attention-batch4-head32-d64-fwd-causal=True.csv. FLOP are counted as that
tutorial does: halves for causal masks, 2.5 times for the backward pass. `do_bench` flushes the last cache.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from iosim.errors import FileError, IosimError, UsageError, did_you_mean
from iosim.kernels import load_kernel
from iosim.validate.own_rows import filled, own_table
from iosim.validate.slips import RATES, TIMES
from iosim.validate.timings import Table

#: x axes, lower case -> the columns of `iosim predict` that they are
AXES = {
    "n_ctx": ("seq_q", "seq_kv"), "seq_len": ("seq_q", "seq_kv"), "seqlen": ("seq_q", "seq_kv"), "n_ctx_q": ("seq_q",),
    "n_ctx_k": ("seq_kv",), "batch": ("batch",), "n_heads": ("heads",), "head_dim": ("head_dim",), "d_head": ("head_dim",),
}  # fmt: skip
#: what providers are called -> catalogue kernels, beside the catalogue's own names
PROVIDERS = {
    "triton": "triton", "flash-1": "flash1", "flash-2": "flash2", "flash-3": "flash3", "flash": "flash2", "fa2": "flash2",
    "fa3": "flash3", "cudnn": "cudnn", "xformers": "xformers", "pytorch": "unfused", "torch": "unfused", "flex": "flex",
}  # fmt: skip
TYPES = {"FP16": "fp16", "BF16": "bf16", "FP8": "fp8", "FP32": "fp32"}
#: y labels, lower case -> ("rate", FLOP/s of one) or ("time", seconds of one)
UNITS = {
    "tflops": ("rate", 1e12), "tflop/s": ("rate", 1e12), "tflops/s": ("rate", 1e12), "gflops": ("rate", 1e9),
    "s": ("time", 1.0), "ms": ("time", 1e-3), "us": ("time", 1e-6), "ns": ("time", 1e-9),
}  # fmt: skip
PARTS = {
    "batch": re.compile(r"(?:^|[-_ ])batch(?:_size)?[-=]?(\d+)", re.I),
    "heads": re.compile(r"(?:^|[-_ ])heads?[-=]?(\d+)", re.I),
    "head_dim": re.compile(r"(?:^|[-_ ])(?:d|head_?dim|d_head)[-=]?(\d+)", re.I),
}
CAUSAL = re.compile(r"causal[-=]?(true|false|1|0)", re.I)
BACKWARD = re.compile(r"(?:^|[-_ ])(fwd|bwd|forward|backward)(?:[-_ .]|$)", re.I)
COLUMN = re.compile(r"^(?P<name>.*?)\s*(?:\[(?P<type>\w+)\])?\s*(?:\((?P<unit>[^)]*)\))?$")
#: `bwd` of the tutorial: two forward passes' worth, and half a one recomputed
BACKWARD_FLOP = 2.5


def is_triton(header: Sequence[str]) -> bool:
    """Whether a header is such a table's."""
    return len(header) > 1 and header[0].strip().lower() in AXES


def read_triton(
    header: Sequence[str], rows: Sequence[Mapping[str, str]], source: str, fill: Mapping[str, str]
) -> Table:
    """One row per x and provider.

    Args:
        fill: columns of `iosim predict` that neither table nor name say: device, perhaps dtype; and `unit`.
    Raises:
        FileError: a unit or a column is missing. UsageError: a unit that is none.
    """
    named = {**_named(source), **fill}
    unit = named.pop("unit", "")
    skipped: dict[str, int] = {}
    made, numbers, units = [], [], []
    for column in header[1:]:
        parts = COLUMN.match(column.strip())
        assert parts is not None  # every text matches
        kernel, why = _kernel(parts["name"])
        if kernel is None or parts["name"].endswith(("-min", "-max")):
            skipped[why] = skipped.get(why, 0) + len(rows)
            continue
        kind, size = _unit(parts["unit"] or unit, column, source)
        units += [unit_name(kind, size)] * len(rows)
        words = {"kernel": kernel, "dtype": TYPES.get((parts["type"] or "").upper(), "")}
        for number, row in enumerate(rows, 1):
            cells = {
                **words,
                **{name: row[header[0]].strip().removesuffix(".0") for name in AXES[header[0].strip().lower()]},
            }
            made.append({**cells, "value": row[column], "kind": kind, "size": repr(size)})
            numbers.append(number)
    if not made:
        return Table((), skipped)
    complete = filled(made, {"l2": "cold", **named})
    for row in complete:
        row.setdefault("kv_heads", row.get("heads", ""))
        row.setdefault("kv_dtype", row.get("dtype", ""))
        row.setdefault("phase", "prefill")
        row.setdefault("seq_kv", row.get("seq_q", ""))
        row["time_s"] = _seconds(row)
    for name in ("device", "dtype", "batch", "heads", "head_dim", "mask"):
        if not any(row.get(name) for row in complete):
            raise FileError(f"neither the table nor its name says {name}", source, f"--fill {name}=VALUE")
    return Table((), skipped) + own_table(complete, source, numbers, units)


def _named(source: str) -> dict[str, str]:
    """What the file's name says."""
    stem = source.rsplit("/", 1)[-1].removesuffix(".csv")
    made = {column: found[1] for column, pattern in PARTS.items() if (found := pattern.search(stem))}
    if causal := CAUSAL.search(stem):
        made["mask"] = "causal" if causal[1].lower() in ("true", "1") else "full"
    if way := BACKWARD.search(stem):
        made["phase"] = "backward" if way[1].lower() in ("bwd", "backward") else "prefill"
    return made


def _kernel(provider: str) -> tuple[str | None, str]:
    """(catalogue kernel, empty), or (None, why)."""
    name = provider.strip().lower()
    try:
        return load_kernel(PROVIDERS.get(name, name)).name, ""
    except IosimError:
        return None, f"the column {provider!r} names no kernel of the catalogue"


def _unit(text: str, column: str, source: str) -> tuple[str, float]:
    if not text:
        raise FileError(f"the column {column!r} has no unit", source, "--fill unit=TFLOPS, or ms, us, s")
    if text.strip().lower() not in UNITS:
        raise UsageError(f"unknown unit {text!r} of the column {column!r}", source, did_you_mean(text, UNITS))
    return UNITS[text.strip().lower()]


def unit_name(kind: str, size: float) -> str:
    """One name for each size of a unit, as messages use it."""
    return next(name for name, each in (RATES if kind == "rate" else TIMES).items() if each == size)


def _seconds(row: Mapping[str, str]) -> str:
    """The time of one row, or empty where it cannot be made."""
    try:
        value, size = float(row["value"]), float(row["size"])
        if value != value:  # a provider that could not run
            return ""
        if row["kind"] == "time":
            return repr(value * size)
        sizes = [int(row[name]) for name in ("batch", "heads", "head_dim", "seq_q", "seq_kv")]
        batch, heads, head_dim, n_q, n_kv = sizes
        flop = 4 * batch * heads * head_dim * n_q * n_kv * (0.5 if row["mask"] == "causal" else 1)
        flop *= BACKWARD_FLOP if row["phase"] == "backward" else 1
        return repr(flop / (value * size))
    except (ValueError, KeyError, ZeroDivisionError):
        return ""
