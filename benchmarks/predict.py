"""Rows per second of `iosim predict`, on one core, file to file: distinct random calls, none of them twice.

python benchmarks/predict.py [ROWS]
"""

from __future__ import annotations

import csv
import random
import sys
import tempfile
import time
from pathlib import Path

from iosim.validate.prediction_file import predict_file

BOARDS = (("h100-sxm5", "flash3"), ("a100-sxm-80gb", "flash2"), ("b200-sxm", "trtllm"), ("l40s", "flash2"))
HEADER = [
    "device",
    "kernel",
    "phase",
    "dtype",
    "kv_dtype",
    "batch",
    "heads",
    "kv_heads",
    "head_dim",
    "seq_q",
    "seq_kv",
    "mask",
]


def write_rows(path: Path, count: int) -> None:
    """Random calls: lengths log-uniform from 16 to 32,768, half prefill and half decode."""
    draw = random.Random(1)
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(HEADER)
        for _ in range(count):
            device, kernel = draw.choice(BOARDS)
            phase, kv_heads = draw.choice(("prefill", "decode")), draw.choice((1, 2, 4, 8))
            n = int(2 ** draw.uniform(4, 15))
            writer.writerow(
                [device, kernel, phase, "bf16", "bf16", draw.choice((1, 2, 4, 8, 16, 32)), kv_heads * draw.choice((1, 4, 8)),
                 kv_heads, draw.choice((64, 128)), n if phase == "prefill" else 1, n, draw.choice(("causal", "full"))]
            )  # fmt: skip


def main() -> None:
    """Print seconds per million rows, wall and processor."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "rows.csv", Path(folder) / "out.csv"
        write_rows(source, 1000)
        with target.open("w", newline="") as handle:
            predict_file(source, handle)  # compile
        write_rows(source, count)
        wall, processor = time.perf_counter(), time.process_time()
        with target.open("w", newline="") as handle:
            outcome = predict_file(source, handle)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    scale = 1e6 / outcome.rows
    print(
        f"{outcome.rows:,} rows, {outcome.expected:,} expected: {wall * scale:.1f} s wall, {processor * scale:.1f} s processor per million"
    )


if __name__ == "__main__":
    main()
