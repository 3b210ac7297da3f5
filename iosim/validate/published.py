"""Reads figures that papers and repositories published: one printed time or rate per row.

Rates count FLOP as the papers do: 4 per pair and element, half of them under a causal mask, 2.5 times for a backward pass,
3.5 times for both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from iosim.machine import load_device
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.work import Work
from iosim.validate.rows import LONGER
from iosim.validate.timings import Layout, Table, Timings

#: names of boards in published figures -> device files
BOARDS = {
    "A100": "a100-sxm-80gb", "A100-SXM4-80GB": "a100-sxm-80gb", "A100-80GB": "a100-sxm-80gb",
    "A100-80GB-SXM4": "a100-sxm-80gb", "A100-40GB": "a100-sxm-40gb", "A800": "a800-sxm-80gb", "H100": "h100-sxm5",
    "H100-80GB-SXM5": "h100-sxm5", "RTX 3090": "rtx-3090", "RTX 4090": "rtx-4090", "RTX A6000": "rtx-a6000",
    "RTX A5000": "rtx-a5000", "L40S": "l40s",
}  # fmt: skip
#: kernels in published figures -> kernels of the time model; FA-Triton is the one of flash-attention's repository
KERNELS = {
    "FA1": "flash1", "FA2": "flash2", "FA3": "flash3", "PyTorch": "unfused", "xFormers": "xformers", "Triton": "triton",
    "Triton tutorial FA2": "triton", "FA-Triton": "triton-2022", "cuDNN": "cudnn", "Hopper-FNA": "natten",
}  # fmt: skip
#: kernels whose masks have a layout, in columns of their own
NEIGHBORHOOD = frozenset({"natten"})
#: decode kernels, by the same names; those that do not split keys have no time model
DECODE = {"FlashDecoding": "flash2"}
#: beginnings of `source` -> short names
PAPERS = {
    "FlashAttention (": "FlashAttention", "FlashAttention-2": "FlashAttention-2", "FlashAttention-3": "FlashAttention-3",
    "SageAttention": "SageAttention", "PyTorch blog Flash-Decoding": "Flash-Decoding", "NATTEN": "NATTEN",
    "pytorch/benchmark": "tritonbench", "gpu-mode": "ring-attention",
}  # fmt: skip
PASSES = {
    "fwd": (True, False, 1.0), "decode": (True, False, 1.0), "bwd": (False, True, 2.5), "fwd+bwd": (True, True, 3.5),
}  # fmt: skip
SIXTEEN_BITS = ("fp16", "bf16", "fp16/bf16", "16-bit")
NUMBERS = ("batch", "heads_q", "heads_kv", "head_dim_qk", "head_dim_v", "seqlen_q", "seqlen_kv", "causal")


#: a layout and a window as NATTEN's samples are noted: "token layout (256, 256)", "(80,80) stride 1"
TOKENS = re.compile(r"token layout \(([\d, ]+)\)")
WINDOW = re.compile(r"\((?P<window>[\d, ]+)\) stride \(?(?P<stride>[\d, ]+)\)?")

_Figure = tuple[int, list[int], float, Layout | None]


def is_published(header: Sequence[str]) -> bool:
    """Whether a header is that of collected figures."""
    return {"hardware", "kernel", "pass", "value", "unit"} <= set(header)


def read_published(rows: Sequence[Mapping[str, str]], source: str) -> Table:
    """Printed times and rates of kernels in 16 bits, by paper, board, kernel and passes."""
    skipped: dict[str, int] = {}
    groups: dict[tuple[str, str, str, Work], list[_Figure]] = {}
    for number, row in enumerate(rows, 1):
        why = _unusable(row)
        numbers = _numbers(row) if not why else None
        if numbers and numbers[0][-1] == 1 and numbers[0][5] > numbers[0][6]:
            why = LONGER
        if why or numbers is None:
            why = why or "a number is missing"
            skipped[why] = skipped.get(why, 0) + 1
            continue
        kernel = (DECODE if row["pass"] == "decode" else KERNELS)[row["kernel"]]
        key = (_paper(row), BOARDS[row["hardware"]], kernel, _work(row))
        layout = _layout(row) if kernel in NEIGHBORHOOD else None
        groups.setdefault(key, []).append((number, *numbers, layout))
    return Table(tuple(_timings(key, found, source) for key, found in groups.items()), skipped)


def _layout(row: Mapping[str, str]) -> Layout | None:
    """The mask and the tokens' extents that a row's words give, or nothing."""
    tokens = TOKENS.search(row.get("notes", ""))
    window = WINDOW.fullmatch(row.get("window", "").strip())
    if not tokens or not window:
        return None
    extents = [int(part) for part in re.findall(r"\d+", tokens[1])]
    sizes, strides = (re.findall(r"\d+", window[name]) for name in ("window", "stride"))
    strides = strides if len(strides) == len(extents) else strides * len(extents)
    if len(sizes) != len(extents) or len(strides) != len(extents):
        return None
    return Layout(f"gna:window={'x'.join(sizes)},stride={'x'.join(strides)}", tuple(extents))


def _timings(key: tuple[str, str, str, Work], found: Sequence[_Figure], source: str) -> Timings:
    paper, board, kernel, work = key
    columns = np.array([shape for _, shape, _, _ in found]).T
    names = ("batch", "heads", "kv_heads", "head_dim", "head_dim_v", "n_q", "n_kv")
    left = np.full(len(found), UNBOUNDED)
    calls = Calls(**dict(zip(names, columns[:7], strict=True)), left=left, causal=columns[7] == 1)
    times = np.array([seconds for _, _, seconds, _ in found])
    where = np.array([number for number, _, _, _ in found])
    layouts = tuple(layout for _, _, _, layout in found if layout)
    return Timings(
        load_device(board), kernel, "none", "fp16", "fp16", True, calls, times, source, where, paper, work, layouts
    )  # fmt: skip


def _paper(row: Mapping[str, str]) -> str:
    named = row.get("source", "")
    return next((short for begin, short in PAPERS.items() if named.startswith(begin)), named or "unnamed")


def _work(row: Mapping[str, str]) -> Work:
    forward, backward, _ = PASSES[row["pass"]]
    first = row["kernel"] == "FA1" and _paper(row) == "FlashAttention"  # the paper timed its first release
    return Work(
        forward, backward, row["dropout"] not in ("", "0", "0.0"), row["mask"] == "key-padding", whole_heads=first
    )  # fmt: skip


def _unusable(row: Mapping[str, str]) -> str:
    if row["pass"] not in PASSES:
        return "neither a forward nor a backward pass"
    if row["kernel"] not in (DECODE if row["pass"] == "decode" else KERNELS):
        return "a kernel without a time model"
    if row["hardware"] not in BOARDS:
        return "a device without a file"
    if row["mask"] not in ("", "none", "key-padding"):
        return "a mask that is not described"
    if row["unit"] not in ("TFLOP/s", "ms", "us"):
        return "neither a time nor a rate"
    if KERNELS.get(row["kernel"]) in NEIGHBORHOOD:
        if "with token permute" in row.get("notes", ""):
            return "the permutation of tokens is timed too"
        if _layout(row) is None:
            return "a window or layout that cannot be read"
    return "" if row["dtype"] in SIXTEEN_BITS else "not in 16 bits"


def _numbers(row: Mapping[str, str]) -> tuple[list[int], float] | None:
    """(shape, seconds), or nothing where a number is missing."""
    try:
        shape = [int(row[name]) for name in NUMBERS]
        value = float(row["value"])
    except ValueError:
        return None
    if row["unit"] != "TFLOP/s":
        return shape, value * (1e-3 if row["unit"] == "ms" else 1e-6)
    batch, heads, _, d, dv, n_q, n_kv, causal = shape
    flop = 2 * batch * heads * n_q * n_kv * (d + dv) / (2 if causal else 1) * PASSES[row["pass"]][2]
    return shape, flop / value / 1e12
