"""Reads figures that papers and repositories published: one printed time or rate per row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from iosim.machine import load_device
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.validate.timings import Table, Timings

#: names of boards in published figures -> device files
BOARDS = {
    "A100": "a100-sxm-80gb", "A100-SXM4-80GB": "a100-sxm-80gb", "A100-80GB": "a100-sxm-80gb",
    "A100-80GB-SXM4": "a100-sxm-80gb", "A100-40GB": "a100-sxm-40gb", "A800": "a800-sxm-80gb", "H100": "h100-sxm5",
    "H100-80GB-SXM5": "h100-sxm5", "RTX 3090": "rtx-3090", "RTX 4090": "rtx-4090", "RTX A6000": "rtx-a6000",
    "RTX A5000": "rtx-a5000", "L40S": "l40s",
}  # fmt: skip
#: kernels in published figures -> catalogue kernels
KERNELS = {"FA2": "flash2", "FA2 v2.0.9": "flash2", "FA3": "flash3"}


def read_published(rows: Sequence[Mapping[str, str]], source: str) -> Table:
    """Forward passes of FlashAttention-2 and -3 in 16 bits, from printed times or TFLOP/s."""
    skipped: dict[str, int] = {}
    groups: dict[tuple[str, str], list[tuple[int, list[int], float]]] = {}
    for number, row in enumerate(rows, 1):
        why = _unusable(row)
        numbers = _numbers(row) if not why else None
        if why or numbers is None:
            why = why or "a number is missing"
            skipped[why] = skipped.get(why, 0) + 1
            continue
        shape, seconds = numbers
        groups.setdefault((BOARDS[row["hardware"]], KERNELS[row["kernel"]]), []).append((number, shape, seconds))
    made = []
    for (board, kernel), found in groups.items():
        columns = np.array([shape for _, shape, _ in found]).T
        causal = columns[7] == 1
        names = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "n_q", "n_kv")
        calls = Calls(**dict(zip(names, columns[:7], strict=True)), left=np.full(len(found), UNBOUNDED), causal=causal)
        times = np.array([time for _, _, time in found])
        made.append(
            Timings(
                load_device(board),
                kernel,
                "none",
                "fp16",
                "fp16",
                True,
                calls,
                times,
                source,
                np.array([number for number, _, _ in found]),
            )
        )
    return Table(tuple(made), skipped)


def _unusable(row: Mapping[str, str]) -> str:
    if row["kernel"] not in KERNELS:
        return "a kernel without a time model"
    if row["hardware"] not in BOARDS:
        return "a device without a file"
    if row["pass"] != "fwd" or row["mask"] not in ("", "none") or row["dropout"] not in ("", "0", "0.0"):
        return "not a plain forward pass"
    if row["unit"] not in ("TFLOP/s", "ms", "us"):
        return "neither a time nor a rate"
    return "" if row["dtype"] in ("fp16", "bf16", "fp16/bf16") else "not in 16 bits"


def _numbers(row: Mapping[str, str]) -> tuple[list[int], float] | None:
    names = ("batch", "heads_q", "heads_kv", "head_dim_qk", "head_dim_v", "seqlen_q", "seqlen_kv", "causal")
    try:
        shape = [int(row[name]) for name in names]
        value = float(row["value"])
    except ValueError:
        return None
    if row["unit"] != "TFLOP/s":
        return shape, value * (1e-3 if row["unit"] == "ms" else 1e-6)
    batch, heads, _, d, dv, n_q, n_kv, causal = shape
    flop = 2 * batch * heads * n_q * n_kv * (d + dv) / (2 if causal else 1)  # how the papers count
    return shape, flop / value / 1e12


def is_published(header: Sequence[str]) -> bool:
    """Whether a header is that of collected figures."""
    return {"hardware", "kernel", "pass", "value", "unit"} <= set(header)
