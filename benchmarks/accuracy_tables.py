"""The tables of docs/accuracy.md, from what `iosim validate` says of the open AIConfigurator tables.

    iosim validate site-packages/aiconfigurator_core/systems/data --format json -o validated.json
    python benchmarks/accuracy_tables.py validated.json

One table per framework, phase, what windows do and head sizes; a line per device, on the rows that no constant was
fitted on. Then the rows without an expectation and the floors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Group = Mapping[str, Any]

DEVICES = {
    "a100-sxm-80gb": "A100", "h100-sxm5": "H100", "h200-sxm": "H200", "b200-sxm": "B200", "b300-sxm": "B300",
    "gb200": "GB200", "gb300": "GB300", "l40s": "L40S", "rtx-pro-6000-blackwell-server": "RTX PRO 6000",
}  # fmt: skip
FRAMEWORKS = {"vllm": "vLLM", "sglang": "SGLang"}
PHASES = {"prefill": "Prefill", "decode": "Decode", "one-query": "Single queries of prefill tables"}
WINDOWS = {"none": "", "cuts": ", windows that cut", "idle": ", windows that do not cut"}
SIZES = {"64, 128, 256": "", "other": ", other head sizes"}


def line(group: Group) -> str:
    judged, pair = group["judged"], group["judged_yardstick"]
    errors = " / ".join(f"{100 * judged[name]:.1f}" for name in ("median_abs_error", "mean_abs_error", "p90_abs_error"))
    device = DEVICES.get(group["device"], group["device"])
    bias = f"{100 * (judged['median_ratio'] - 1):+.1f}"
    fitted = f"{100 * pair['median_abs_error']:.1f} / {100 * pair['p90_abs_error']:.0f}"
    return f"| {device} | {judged['n']:,} | {errors} | {bias} | {fitted} |"


def tables(groups: list[Group]) -> Iterator[str]:
    found: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if group["judged"]:
            key = tuple(group[name] for name in ("head_dims", "framework", "phase", "window_kind"))
            found.setdefault(key, []).append(group)
    order = [(s, f, p, w) for s in SIZES for f in FRAMEWORKS for p in PHASES for w in WINDOWS]
    devices = list(DEVICES)
    for key in sorted(found, key=order.index):
        sizes, framework, phase, window = key
        yield f"\n### {PHASES[phase]}{WINDOWS[window]}, {FRAMEWORKS[framework]}{SIZES[sizes]}\n"
        yield "| device | rows | median / mean / 90th | bias | fitted pair: median / 90th |\n|---|---|---|---|---|"
        yield from map(line, sorted(found[key], key=lambda group: devices.index(group["device"])))


def unexpected(groups: list[Group]) -> Iterator[str]:
    rows: dict[tuple[str, ...], int] = {}
    for group in groups:
        if group["median_abs_error"] is None:
            types = "/".join(dict.fromkeys((group["dtype"], group["kv_dtype"])))
            key = (group["framework"], group["kernel"], types, group["why"])
            rows[key] = rows.get(key, 0) + group["n"]
    yield "\n### Without an expectation\n\n| framework | kernel | types | rows | why |\n|---|---|---|---|---|"
    for (framework, kernel, types, why), count in sorted(rows.items(), key=lambda item: -item[1]):
        yield f"| {framework} | {kernel} | {types} | {count:,} | {why} |"


def floors(result: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n### Floors\n\n{result['floors']['beaten']:,} of {result['floors']['rows']:,} rows are faster:\n"
    for group in result["groups"]:
        if group["floors_beaten"]:
            names = " ".join(group[name] for name in ("device", "framework", "kernel", "phase", "head_dims"))
            yield f"* {names}: {group['floors_beaten']:,}, up to {group['floor_ratio']:.2f} times"


def main() -> None:
    result = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["result"]
    for part in (tables(result["groups"]), unexpected(result["groups"]), floors(result)):
        print("\n".join(part))


if __name__ == "__main__":
    main()
