"""Upper bounds on speedup for people: the ceiling and what binds it first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iosim.masks import Mask, Tiling
from iosim.render.mask_picture import block_text
from iosim.render.text import byte_count, line, seconds, strong, table, wrapped

if TYPE_CHECKING:
    from iosim.speedup import Setting, Speedup

BINDS = {
    "mask": "the mask itself: every pair that remains must be computed",
    "tiles": "tiles: partly masked tiles are computed whole",
    "padding": "padding of the layout to whole tiles",
    "selection": "choosing the blocks",
    "machine": "the device: what remains is bound by something that the mask does not shrink",
}


def speedup_text(
    made: Speedup,
    mask: Mask,
    tiling: Tiling,
    found: Mapping[str, Sequence[Setting]],
    ranked: Sequence[Speedup],
    expected: tuple[float, float] | None = None,
) -> str:
    """Ceiling, chain, table, picture, reasons, searches.

    Args:
        expected: seconds of all heads with the mask, and without one.
    """
    ceiling = made.ceiling
    parts = [
        line(f"At most {strong(f'{ceiling.speedup:.2f}x')} faster than dense, bound by {BINDS[ceiling.binds]}."),
        "  " + "  ->  ".join(f"{name} {value:.2f}x" for name, value in ceiling.chain),
        "",
        _bounds(made),
        "",
        f"{made.tiles.visited_sum:,} of {made.tiles.dense_tile_pairs:,} tile pairs visited, "
        f"{made.whole_tile_pairs:,} whole, {made.partial_tile_pairs:,} partly masked"
        + (": perfectly block-sparse" if made.block_sparse else ""),
    ]
    if made.permute_bytes:
        parts.append(f"permuting tokens apart from the kernel would move {byte_count(made.permute_bytes)} per head")
    if made.machine:
        parts.append(
            f"time floors: dense {seconds(made.machine.dense_time_s)}, masked {seconds(made.machine.sparse_time_s)}"
        )
    if expected:
        masked, dense = expected
        parts.append(
            f"expected, all heads: dense {seconds(dense)}, masked {seconds(masked)}, {dense / masked:.1f}x "
            "(cuDNN's cost of a tile; permutation apart)"
        )
    if made.end_to_end:
        parts.append(f"end to end at most {made.end_to_end.of(ceiling.speedup):.2f}x")
    if made.reasons:
        parts += ["", "not block-sparse because", wrapped(made.reasons, "  - ")]
    if ranked:
        rows = [[one.tiling, f"{one.ceiling.speedup:.2f}x", f"{one.tiles.speedup_worst:.2f}x"] for one in ranked]
        parts += ["", table(["tile", "ceiling", "slowest tile"], rows)]
    for name, settings in found.items():
        parts += ["", _settings(name, settings)]
    parts += ["", f"blocks of {tiling} (full █, partial ░), work per Q tile beside", block_text(mask, tiling)]
    if made.notes:
        parts += ["", wrapped(made.notes)]
    return "\n".join(parts)


def _bounds(made: Speedup) -> str:
    rows = [
        ["FLOP: masked pairs skipped", f"{made.flop_speedup:.3f}x"],
        ["tiles, mean: work decides", f"{made.tiles.speedup_mean:.3f}x"],
        ["tiles, worst: the slowest Q tile decides", f"{made.tiles.speedup_worst:.3f}x"],
        ["tiles against dense without padding", f"{made.tile_speedup_vs_1d_dense:.3f}x"],
        ["KV tiles laid out per Q tile, worst", f"{made.dynamic.speedup_worst:.3f}x"],
        ["row-major tiles, mean / worst", f"{made.flat.speedup_mean:.3f}x / {made.flat.speedup_worst:.3f}x"],
    ]
    if made.machine:
        rows.append(["device: time floor dense / masked", f"{made.machine.speedup:.3f}x"])
    return table(["upper bound", "speedup"], rows)


def _settings(name: str, settings: Sequence[Setting]) -> str:
    titles = {
        "strides": "strides that raise the bound",
        "windows": "block-sparse windows near this one",
        "pareto": "window against bound",
    }
    rows = [
        ["x".join(map(str, one.window)), "x".join(map(str, one.stride)), f"{one.worst:.2f}x", f"{one.mean:.2f}x",
         "yes" if one.block_sparse else "no"]
        for one in settings[:24]
    ]  # fmt: skip
    return table(["window", "stride", "worst", "mean", "block-sparse"], rows, left=2, title=titles[name])
