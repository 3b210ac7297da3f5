"""Reads AIConfigurator's Parquet tables of attention (package aiconfigurator-core, Apache-2.0; NVIDIA).

They time a framework's call, repeated in a CUDA graph with a warm last cache; latency in milliseconds. One row is
one shape: `isl` queries of a prefill (causal), or one query on `isl + step` keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iosim.errors import AbsentError, FileError
from iosim.machine import load_device
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.validate.rows import LARGEST
from iosim.validate.timings import Table, Timings

if TYPE_CHECKING:
    import pandas as pd

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
TYPES = {"bfloat16": "bf16", "float16": "fp16", "fp8": "fp8", "": "bf16"}
FILES = {"context_attention_perf.parquet": "prefill", "generation_attention_perf.parquet": "decode"}
#: columns that every row needs, and their smallest values
LEAST = {
    "batch_size": 1, "isl": 1, "num_heads": 1, "num_key_value_heads": 0, "head_dim": 1, "step": 0, "window_size": 0,
    "latency": 0,
}  # fmt: skip
#: collectors whose decode rows hold `step` keys, not one more: vLLM 0.14
STEP_IS_LENGTH = {("vllm", "0.14.0")}


def read_folder(folder: Path) -> Table:
    """Every attention table below a folder.

    Raises:
        FileError: none there, or one that cannot be read. AbsentError: pandas and pyarrow are not installed.
    """
    files = sorted(path for name in FILES for path in folder.rglob(name))
    if not files:
        raise FileError(
            "no attention tables below this folder", str(folder), "it holds <system>/attention/<framework>/"
        )
    total = Table((), {})
    for path in files:
        total = total + read_file(path)
    return total


def read_file(path: Path) -> Table:
    """One table; its folders name system, framework and version.

    Raises:
        FileError: missing, cut short, or not such a table. AbsentError: pandas and pyarrow are not installed.
    """
    if path.name not in FILES or len(path.parts) < 5:
        raise FileError("not an AIConfigurator attention table", str(path), f"expected {' or '.join(FILES)}")
    version, framework, system = path.parts[-2], path.parts[-3], path.parts[-5]
    if system not in SYSTEMS:
        return Table((), {f"a system without a device file: {system}": 1})
    frame, skipped = usable_rows(_frame(path))
    made = []
    for (source, q, kv), group in frame.groupby(["kernel_source", "attn_dtype", "kv_cache_dtype"], sort=True):
        kernel = KERNELS.get((framework, str(source)))
        if kernel is None or str(q) not in TYPES or str(kv) not in TYPES:
            why = f"{framework} {source}: no time model"
            skipped[why] = skipped.get(why, 0) + len(group)
            continue
        shift = 0 if (framework, version) in STEP_IS_LENGTH else 1
        calls = _calls(group, FILES[path.name], shift)
        timings = Timings(
            load_device(SYSTEMS[system]), kernel, framework, TYPES[str(q)], TYPES[str(kv)], True, calls,
            group["latency"].to_numpy(float) / 1e3, f"{system}/{framework}/{version}/{path.stem}",
            group.index.to_numpy(np.int64) + 1,
        )  # fmt: skip
        made.append(timings[calls.n_kv > 0])
        if empty := int((calls.n_kv < 1).sum()):
            skipped["no key at all"] = skipped.get("no key at all", 0) + empty
    return Table(tuple(made), skipped)


def usable_rows(frame: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """(rows whose numbers can be, why the others were left out -> how many); zero key/value heads mean as many as heads."""
    import pandas as pd

    left: dict[str, int] = {}

    def keep(good: pd.Series[bool], why: str) -> None:
        nonlocal frame
        if bad := int((~good).sum()):
            left[why] = bad
            frame = frame[good]

    for name, least in LEAST.items():
        numbers = pd.to_numeric(frame[name], errors="coerce")
        keep(numbers.notna(), f"{name} is missing")
        numbers = numbers[frame.index]
        keep((numbers >= least) & (numbers < LARGEST), f"{name} cannot be")
    keep(pd.to_numeric(frame["latency"]) > 0, "latency cannot be")
    groups = frame["num_key_value_heads"].where(frame["num_key_value_heads"] > 0, frame["num_heads"])
    keep(frame["num_heads"] % groups == 0, "heads do not divide among key/value heads")
    return frame, left


def _frame(path: Path) -> pd.DataFrame:
    try:
        import pandas as pd
        import pyarrow  # type: ignore[import-not-found] # noqa: F401
    except ImportError:
        raise AbsentError("reading Parquet needs pandas and pyarrow", str(path), "pip install pandas pyarrow") from None
    try:
        frame: Any = pd.read_parquet(path)
    except FileNotFoundError:
        raise FileError("no such file", str(path), "check the path") from None
    except Exception as error:
        said = str(error).replace(f"'{path}'", "").rpartition(": ")[2][:80]
        raise FileError(f"not a whole Parquet file: {said}", str(path), "was it cut short?") from None
    needed = {*LEAST, "kernel_source"} - {"window_size"}
    missing = sorted(needed - set(frame.columns))
    if missing:
        raise FileError(f"missing columns {', '.join(missing)}", str(path))
    for name, value in {"window_size": 0, "attn_dtype": "", "kv_cache_dtype": ""}.items():
        frame[name] = frame[name].fillna(value) if name in frame else value
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
