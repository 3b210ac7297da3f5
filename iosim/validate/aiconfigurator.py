"""Reads AIConfigurator's Parquet tables of attention (package aiconfigurator-core, Apache-2.0; NVIDIA).

They time a framework's call, repeated in a CUDA graph with a warm last cache; latency in milliseconds. One row is
one shape: `isl` queries of a prefill (causal), or one query on `step` + 1 keys. Rows of kernels without a time model
are kept, under the collector's own name: a floor speaks of them too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iosim.errors import AbsentError, FileError, UsageError
from iosim.machine import Device, load_device
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.validate.rows import LARGEST
from iosim.validate.timings import Table, Timings, together

if TYPE_CHECKING:
    import pandas as pd

#: systems whose device files have other names
SYSTEMS = {
    "a100_sxm": "a100-sxm-80gb", "h100_sxm": "h100-sxm5", "h200_sxm": "h200-sxm", "b200_sxm": "b200-sxm",
    "b300_sxm": "b300-sxm", "gb200": "gb200", "gb300": "gb300", "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000-blackwell-server", "b60": "arc-pro-b60",
}  # fmt: skip
#: (framework, kernel_source) -> the catalogue kernel that it is
KERNELS = {
    ("vllm", "vllm_flash_attn"): "flash2",
    ("vllm", "vllm_flash_attn_fa2"): "flash2",
    ("vllm", "vllm_flash_attn_fa3"): "flash3",
    ("vllm", "vllm_flashinfer_trtllmprefill"): "trtllm",
    ("vllm", "vllm_flashinfer_trtllmdecode"): "trtllm",
    ("sglang", "fa3"): "flash3",
    ("sglang", "trtllm_mha"): "trtllm",
}
TYPES = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8"}
FILES = {"context_attention_perf.parquet": "prefill", "generation_attention_perf.parquet": "decode"}
#: columns of words; a row without one is listed
WORDS = ("kernel_source", "attn_dtype", "kv_cache_dtype")
#: columns of whole numbers that every row needs, and their smallest values
LEAST = {
    "batch_size": 1, "isl": 1, "num_heads": 1, "num_key_value_heads": 0, "head_dim": 1, "step": 0, "window_size": 0,
}  # fmt: skip
#: columns of versions that had no other value -> that value
ABSENT = {"window_size": 0, "beam_width": 1}
#: collectors whose decode rows hold `step` keys, not one more: vLLM 0.14
STEP_IS_LENGTH = {("vllm", "0.14.0")}


def holds_tables(folder: Path) -> bool:
    """Whether such tables lie below a folder."""
    return any(path for name in FILES for path in folder.rglob(name))


def read_folder(folder: Path) -> Table:
    """Every attention table below a folder.

    Raises:
        FileError: none there, or none that can be read. AbsentError: pandas and pyarrow are not installed.
    """
    files = sorted(path for name in FILES for path in folder.rglob(name))
    if not files:
        raise FileError(
            "no attention tables below this folder", str(folder), "it holds <system>/attention/<framework>/, or CSVs"
        )
    return together(files, read_file)


def read_file(path: Path) -> Table:
    """One table; its folders name system, framework and version. Each row is in `timings` or counted in `skipped`.

    Raises:
        FileError: missing, cut short, or not such a table. AbsentError: pandas and pyarrow are not installed.
    """
    if path.name not in FILES or len(path.parts) < 5:
        raise FileError("not an AIConfigurator attention table", str(path), f"expected {' or '.join(FILES)}")
    version, framework, system = path.parts[-2], path.parts[-3], path.parts[-5]
    frame, device = _frame(path), _device(system)
    if device is None:
        return Table((), {f"a system without a device file: {system}": len(frame)} if len(frame) else {})
    frame, skipped = usable_rows(frame, FILES[path.name] == "decode")
    made = []
    for (source, q, kv), group in frame.groupby(list(WORDS), sort=True):
        if unknown := _unknown(q, kv):
            skipped[unknown] = skipped.get(unknown, 0) + len(group)
            continue
        kernel = KERNELS.get((framework, source), "")
        why = "" if kernel else f"no time model of {framework}'s {source}" if source else "kernel_source is missing"
        calls = _calls(group, FILES[path.name], 0 if (framework, version) in STEP_IS_LENGTH else 1)
        timings = Timings(
            device, kernel or source or "unnamed", framework, TYPES[q], TYPES[kv], True, calls,
            group["latency"].to_numpy(float) / 1e3, f"{system}/{framework}/{version}/{path.stem}",
            group.index.to_numpy(np.int64) + 1, phase=FILES[path.name], why=why, unit="ms",
        )  # fmt: skip
        made.append(timings[calls.n_kv > 0])
        if empty := int((calls.n_kv < 1).sum()):
            skipped["no key at all"] = skipped.get("no key at all", 0) + empty
    return Table(tuple(made), skipped)


def _device(system: str) -> Device | None:
    """The device that a system is, by its own name or the catalogue's."""
    try:
        return load_device(SYSTEMS.get(system, system.replace("_", "-")))
    except UsageError:
        return None


def _unknown(q: str, kv: str) -> str:
    """Why element types cannot be read, or empty."""
    for column, name in (("attn_dtype", q), ("kv_cache_dtype", kv)):
        if name not in TYPES:
            return f"unknown element type {name} ({column})" if name else f"{column} is missing"
    return ""


def usable_rows(frame: pd.DataFrame, decode: bool = False) -> tuple[pd.DataFrame, dict[str, int]]:
    """(rows whose numbers can be, why the others were left out -> how many); zero key/value heads mean as many as heads.

    Args:
        decode: one query per row, whose `isl` is 1.
    """
    import pandas as pd

    left: dict[str, int] = {}

    def keep(good: pd.Series[bool], why: str) -> None:
        nonlocal frame
        if bad := int((~good).sum()):
            left[why] = left.get(why, 0) + bad
            frame = frame[good]

    for name in (*LEAST, "beam_width", "latency"):
        if name not in frame:
            continue
        keep(frame[name].notna(), f"{name} is missing")
        frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce")})
        keep((frame[name] >= LEAST.get(name, 0)) & (frame[name] < LARGEST), f"{name} cannot be")
        if name in LEAST:
            keep(frame[name] % 1 == 0, f"{name} is not a whole number")
    keep(frame["latency"] > 0, "latency cannot be")
    if decode:
        keep(frame["isl"] == 1, "isl of a decode row is not 1")
    if "beam_width" in frame:
        keep(frame["beam_width"] == 1, "beam_width is not 1")
    groups = frame["num_key_value_heads"].where(frame["num_key_value_heads"] > 0, frame["num_heads"])
    keep(frame["num_heads"] % groups == 0, "heads do not divide among key/value heads")
    return frame, left


def parquet(path: Path) -> pd.DataFrame:
    """A table as it is.

    Raises:
        AbsentError: pandas and pyarrow are not installed.
    """
    try:
        import pandas as pd
        import pyarrow  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        raise AbsentError("reading Parquet needs pandas and pyarrow", str(path), "pip install pandas pyarrow") from None
    return pd.read_parquet(path)


def _frame(path: Path) -> pd.DataFrame:
    try:
        frame = parquet(path)
    except AbsentError:
        raise
    except FileNotFoundError:
        raise FileError("no such file", str(path), "check the path") from None
    except Exception as error:
        said = str(error).replace(f"'{path}'", "").rpartition(": ")[2][:80]
        raise FileError(f"not a whole Parquet file: {said}", str(path), "was it cut short?") from None
    needed = {*LEAST, *WORDS, "latency"} - set(ABSENT)
    missing = sorted(needed - set(frame.columns))
    if missing:
        raise FileError(f"missing columns {', '.join(missing)}", str(path))
    frame = frame.reset_index(drop=True)
    for name, value in ABSENT.items():
        if name not in frame:
            frame[name] = value
    for name in WORDS:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    return frame


def _calls(group: pd.DataFrame, phase: str, shift: int) -> Calls:
    def column(name: str) -> np.ndarray[Any, np.dtype[np.int64]]:
        made: np.ndarray[Any, np.dtype[np.int64]] = group[name].to_numpy(np.int64)
        return made

    heads, kv_heads, window = column("num_heads"), column("num_key_value_heads"), column("window_size")
    prefill = phase == "prefill"
    keys = column("isl") + column("step") if prefill else column("step") + shift
    return Calls.of(
        {
            "batch": column("batch_size"),
            "heads": heads,
            "kv_heads": np.where(kv_heads == 0, heads, kv_heads),
            "head_dim": column("head_dim"),
            "n_q": column("isl") if prefill else np.ones(len(group), np.int64),
            "n_kv": keys,
            "left": np.where(window > 0, window - 1, UNBOUNDED),
        }
    )
