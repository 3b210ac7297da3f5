"""Draws measurements/aiconfigurator-0.12.0-sample.csv from the tables of the package aiconfigurator-core 0.12.0.

    python benchmarks/aiconfigurator_sample.py site-packages/aiconfigurator_core/systems/data > sample.csv

One random stream runs through all groups, so that frameworks added at the end leave the rows before them as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from iosim.errors import AbsentError
from iosim.timing.calls import UNBOUNDED, Flags
from iosim.timing.families import calibration_of
from iosim.validate.aiconfigurator import FILES, SYSTEMS, read_file
from iosim.validate.calibrating import HEAD_DIMS
from iosim.validate.fitting import fitted_half
from iosim.validate.timings import Timings, joined

SEED, ROWS = 20261120, 95
FRAMEWORKS = ("vllm", "sglang")
HEAD = """\
# Measured by NVIDIA: a sample of the attention tables of aiconfigurator-core 0.12.0 (Apache-2.0, Copyright NVIDIA CORPORATION).
# Changed: columns renamed, latency in seconds, rows of the shapes that no fit of iosim uses. See README.md.
device,kernel,phase,dtype,kv_dtype,batch,heads,kv_heads,head_dim,seq_q,seq_kv,mask,l2,framework,time_s,source,kernel_source"""


def table_of(path: Path) -> Timings | None:
    """The 16-bit rows of a table that have an expectation, or nothing."""
    made = [each for each in read_file(path).timings if each.dtype == each.kv_dtype == "bf16" and has_model(each)]
    return joined(made)[0] if made else None


def has_model(table: Timings) -> bool:
    try:
        return bool(calibration_of(table.kernel, table.device))
    except AbsentError:
        return False


def usable(table: Timings, phase: str, window: bool) -> Flags:
    """Shapes that no fit uses: with a window that cuts, or without any."""
    calls = table.calls
    asked = calls.local if window else calls.left == UNBOUNDED
    made: Flags = (
        asked & ~fitted_half(calls) & np.isin(calls.head_dim, HEAD_DIMS) & (calls.decode == (phase == "decode"))
    )
    return made


def line(table: Timings, at: int, phase: str, kernel_source: str, place: str) -> str:
    c = table.calls
    mask = "causal" if c.left[at] == UNBOUNDED else f"window:{c.left[at] + 1}"
    shape = [str(column[at]) for column in (c.batch, c.heads, c.kv_heads, c.head_dim, c.n_q, c.n_kv)]
    words = [table.device.key, table.kernel, phase, table.dtype, table.kv_dtype, *shape, mask, "warm", table.framework]
    return ",".join([*words, f"{table.time_s[at]:.7g}", f"{place} row {table.row[at]}", kernel_source])


def drawn(root: Path, path: Path, phase: str, stream: np.random.Generator) -> Iterator[str]:
    table = table_of(path)
    if table is None:
        return
    sources = pd.read_parquet(path, columns=["kernel_source"])["kernel_source"]
    place = str(path.relative_to(root).with_suffix(""))
    for window in (False, True):
        rows = np.flatnonzero(usable(table, phase, window))
        chosen = stream.choice(len(rows), ROWS, replace=False) if len(rows) > ROWS else np.arange(len(rows))
        for at in np.sort(rows[chosen]).tolist():
            yield line(table, at, phase, sources[table.row[at] - 1], place)


def main() -> None:
    root, stream = Path(sys.argv[1]), np.random.default_rng(SEED)
    print(HEAD)
    for framework in FRAMEWORKS:
        for system in SYSTEMS:
            for name, phase in FILES.items():
                for path in sorted((root / system / "attention" / framework).glob(f"*/{name}")):
                    for text in drawn(root, path, phase, stream):
                        print(text)


if __name__ == "__main__":
    main()
