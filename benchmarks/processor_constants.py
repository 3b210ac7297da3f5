"""Refits the constants of models/calibration/processor.toml on this machine: probe one core, time 68 calls, fit.

    python benchmarks/processor_constants.py [calls.csv]

Prints each constant with its 95 % interval (Jacobian, independent rows) and the errors. With a file the calls are kept in
it and the probe beside it, as `iosim validate` and `iosim calibrate` read them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

from iosim.machine import Device, load_device
from iosim.measure.cases import Case
from iosim.measure.cpu import CpuMachine
from iosim.measure.probe_file import probed_text
from iosim.measure.result_file import measured_rows, write_rows
from iosim.measure.system import read_system
from iosim.timing.calls import UNBOUNDED, Calls
from iosim.timing.processor import processor_parts

START = {"near_share": 0.9, "score": 10.0, "row": 25.0, "pass": 4.0, "exposed_cache": 0.2, "exposed_memory": 0.5}
PER_CALL_S = 0.4


def cases() -> Iterator[Case]:
    base = Case("cpu-tiled", 1, 1, 1, 64, 512, 512, "full", 64, 64, dtype="fp32")
    for kernel in ("cpu-tiled", "cpu-unfused"):
        for d in (32, 64, 128):
            for n in (256, 512, 1024, 2048):
                for mask in ("full", "causal"):
                    yield replace(base, kernel=kernel, head_dim=d, seq_q=n, seq_kv=n, mask=mask)
    for tile in ((16, 64), (64, 16), (32, 32), (128, 128), (64, 256), (256, 64), (8, 8), (1, 64), (16, 512)):
        yield replace(base, tile_q=tile[0], tile_kv=tile[1], seq_q=1024, seq_kv=1024)
    for n_kv in (4096, 32768):
        for heads in (1, 8):
            for d in (64, 128):
                yield replace(base, seq_q=1, seq_kv=n_kv, heads=heads, kv_heads=heads, head_dim=d, tile_q=1)
    yield replace(base, seq_q=64, seq_kv=65536)
    yield replace(base, seq_q=1024, seq_kv=16384)
    yield replace(base, kernel="cpu-unfused", seq_q=1024, seq_kv=8192)


def expected_s(case: Case, core: Device, constants: dict[str, float]) -> float:
    columns = {
        "batch": [case.batch], "heads": [case.heads], "kv_heads": [case.kv_heads], "head_dim": [case.head_dim],
        "n_q": [case.seq_q], "n_kv": [case.seq_kv], "causal": [case.mask == "causal"], "left": [UNBOUNDED],
    }  # fmt: skip
    tile = (case.tile_q, case.tile_kv)
    parts = processor_parts(Calls.of(columns), core, case.kernel, tile, True, constants)
    return float(sum(part[0] for part in parts.values()))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        path = kept.with_suffix(".device.toml") if kept else Path(folder) / "core.toml"
        path.write_text(probed_text(read_system(), 1), encoding="utf-8")
        core = load_device(str(path))
    machine, todo = CpuMachine(), list(cases())
    measured = [machine.run(case, PER_CALL_S) for case in todo]
    if kept:
        pairs = zip(todo, measured, strict=True)
        write_rows(kept, [row for case, made in pairs for row in measured_rows(case, str(path), machine.facts(), made)])
    times = np.log([made.times["warm"].p20_s for made in measured])

    def residuals(logs: np.ndarray) -> np.ndarray:
        constants = dict(zip(START, np.exp(logs).tolist(), strict=True))
        return np.log([expected_s(case, core, constants) for case in todo]) - times

    found = least_squares(residuals, np.log(list(START.values())), loss="soft_l1", f_scale=0.05)
    spread = np.sqrt(np.diag(np.linalg.inv(found.jac.T @ found.jac)) * 2 * found.cost / (len(todo) - len(START)))
    for name, value, each in zip(START, found.x, 1.96 * spread, strict=True):
        print(f"{name:15} {np.exp(value):8.4f}  {np.exp(value - each):8.4f} to {np.exp(value + each):8.4f}")
    errors = np.abs(np.exp(residuals(found.x)) - 1)
    print(f"{len(todo)} calls: median {np.median(errors):.1%}, 90th percentile {np.percentile(errors, 90):.1%}")


if __name__ == "__main__":
    main()
