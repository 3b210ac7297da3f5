"""Time of one problem's counts for every named kernel, and of a million problems in bulk.

    python benchmarks/counts.py [--over 1.0] [--rows 1000000] [--only single|bulk]

One problem: `make_schedule` and the elements and arithmetic of all launches, best of nine, each on a problem whose mask
nobody has counted yet, with empty caches; kernel files, devices and masks' modules are loaded before.
In bulk: random problems, masks full, causal and windowed, heads shared or not, two head sizes; processor time of one
core per row of `count_many`, all columns, against the time that one problem takes alone.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from iosim.attention import Attention, Shape
from iosim.bulk import CLOSED, count_many
from iosim.bulk.groups import typed_tile
from iosim.bulk.table import Table
from iosim.errors import UsageError
from iosim.kernels import kernel_names, load_kernel, make_schedule, stream_line
from iosim.kernels.algorithm import total_sums
from iosim.machine import Device, load_device
from iosim.masks import Grid, bind, parse_mask

#: kernels that are asked on another device than the H100
BOARDS = {"flash4-decode": "b200-sxm", "flash4": "b200-sxm", "fast-attention": "ascend-910b2", "cpu-flash": "epyc-9654",
          "fusemax": "fusemax-cloud", "two-pass-array": "fusemax-cloud", "three-pass-array": "fusemax-cloud",
          "recompute-array": "fusemax-cloud"}  # fmt: skip
HEADS = {"based": 16, "prefix-linear": 16, "flashmla": 576, "flashconv": 8, "mamba1": 16}
#: keys beyond the queries: none for kernels whose state holds the tokens before
MORE_KEYS = {"linear": 0, "recurrent": 0, "summaries": 0}
LENGTHS = (8192, 131_072, 1_048_576)
MASKS = (
    "full",
    "causal",
    "causal-top-left",
    "window:4096",
    "window:4096,sink=4",
    "window:1000,sink=130",
    "band:left=777",
)


def problems(phase: str, d: int, more_keys: int = 37) -> list[tuple[str, Attention]]:
    """Problems of a phase by name, masks not counted yet."""
    latent = d == 576
    shape = Shape(
        64 if phase == "decode" else 1, 128 if latent else 32, 1 if latent else 8, d, 512 if latent else d, latent
    )
    made = []
    for n in LENGTHS:
        for text in MASKS:
            for queries in (1, 4) if phase == "decode" else (n,):
                mask = bind(parse_mask(text), Grid((queries,), (n + more_keys,)))
                made.append((f"{phase} {queries} x {n} {text}", Attention(shape, mask, phase=phase)))
    return made


def once(problem: Attention, device: Device, kernel: object) -> float:
    """Seconds of one count with nothing remembered."""
    for remembered in (total_sums, stream_line._cuts):
        remembered.cache_clear()
    start = time.perf_counter()
    schedule = make_schedule(problem, device, kernel)  # type: ignore[arg-type]
    total = schedule.traffic.total_bytes, schedule.work.flop
    taken = time.perf_counter() - start
    assert min(total) >= 0
    return taken


def single(over_ms: float) -> None:
    """Print the slowest problem of every kernel, and all that take longer than so many milliseconds."""
    for name in kernel_names():
        kernel, device = load_kernel(name), load_device(BOARDS.get(name, "h100-sxm5"))
        best: dict[str, float] = {}
        for phase in kernel.algorithm.phases:
            for _ in range(9):
                more = MORE_KEYS.get(kernel.algorithm.algorithm_class, 37)
                for label, problem in problems(phase, HEADS.get(name, 64), more):
                    try:
                        taken = once(problem, device, kernel)
                    except UsageError:  # a mask or a head size that the kernel does not have
                        continue
                    best[label] = min(best.get(label, taken), taken)
        if not best:
            continue
        slowest = max(best, key=best.__getitem__)
        print(
            f"{name:22} median {1e3 * sorted(best.values())[len(best) // 2]:7.3f} ms, slowest {1e3 * best[slowest]:8.3f} ms: {slowest}"
        )
        for label, taken in best.items():
            if 1e3 * taken > over_ms and label != slowest:
                print(f"{'':22} {1e3 * taken:8.3f} ms: {label}")


#: masks of kernels that have not all of them, and extra columns
SPECIAL = {
    "agent": {"mask": "full"}, "gla": {"mask": "causal"}, "delta-rule": {"mask": "causal"}, "mamba1": {"mask": "causal"},
    "lightning1": {"mask": "causal"}, "lightning2": {"mask": "causal"}, "stream-k": {"mask": "full"},
    "split-kv": {"mask": "full", "splits": 4, "tile_rows": 64, "tile_cols": 32},
    "based": {"head_dim": 16, "mask": "causal"}, "prefix-linear": {"head_dim": 16, "mask": "causal"},
    "rat": {"mask": "causal"}, "rat-decode": {"mask": "causal"}, "fast-attention-tiling-mask": {"mask": "causal"},
    "flashmla": {"mask": "full", "head_dim": 576, "head_dim_v": 512}, "flashconv": {"mask": "causal", "head_dim": 8},
}  # fmt: skip


def bulk(rows: int) -> None:
    """Print microseconds per row of every closed kernel."""
    draw = np.random.default_rng(1)
    shared = {"seq_kv": (2 ** draw.uniform(7, 17, rows)).astype(int), "batch": draw.integers(1, 65, rows),
              "kv_heads": draw.choice([1, 2, 4, 8], rows), "head_dim": draw.choice([64, 128], rows), "window": 4096,
              "mask": draw.choice(["full", "causal", "window"], rows)}  # fmt: skip
    shared["heads"] = shared["kv_heads"] * draw.choice([1, 4, 8], rows)
    for name in sorted(load for load in kernel_names() if load_kernel(load).algorithm.name in CLOSED):
        kernel = load_kernel(name)
        columns = shared | SPECIAL.get(name, SPECIAL.get(kernel.algorithm.name, {}))
        if kernel.algorithm.algorithm_class == "linear":
            columns["mask"] = "causal"
        for phase in kernel.algorithm.phases:
            if kernel.algorithm.name == "split-kv" and "splits" not in columns:
                columns |= SPECIAL["split-kv"]
            start = time.process_time()
            try:
                counts = count_many(name, columns, phase=phase)
            except UsageError as error:
                print(f"{name:22} {phase:9} {error.faults[0].what}")
                continue
            taken = time.process_time() - start
            alone = _alone(name, columns, phase)
            print(f"{name:22} {phase:9} {1e6 * taken / rows:6.2f} us a row, {1e6 * alone:6.0f} us alone: "
                  f"{alone * rows / taken:5.0f}x, one by one {int(counts.beyond.sum())}", flush=True)  # fmt: skip


def _alone(name: str, columns: dict[str, object], phase: str) -> float:
    """Median seconds of some of the rows, each a new problem."""
    made = Table.of(columns, phase, False)
    kernel, taken = load_kernel(name), []
    for index in range(0, len(made), len(made) // 60):
        problem = made.problem(index)
        tile = typed_tile(made, index)
        chosen = {} if made.splits is None else {"splits": int(made.splits[index])}
        start = time.process_time()
        schedule = make_schedule(problem, None, kernel, tile, chosen)
        assert schedule.traffic.total_bytes + schedule.work.flop >= 0
        taken.append(time.process_time() - start)
    return sorted(taken)[len(taken) // 2]


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--over", type=float, default=1.0, help="milliseconds above which a problem is listed")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=("single", "bulk"))
    given = parser.parse_args()
    if given.only != "bulk":
        single(given.over)
    if given.only != "single":
        bulk(given.rows)


if __name__ == "__main__":
    main()
