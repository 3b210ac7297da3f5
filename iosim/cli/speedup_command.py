"""iosim speedup."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from iosim.cli.problem_options import PICTURES, answer_options, device_options, problem_options

if TYPE_CHECKING:
    from iosim.machine import Device
    from iosim.masks import Mask, Tiling
    from iosim.problem_builder import Asked
    from iosim.speedup import Setting, Speedup


@click.command("speedup")
@problem_options
@device_options
@click.option(
    "--tile",
    metavar="Q/KV|AxB|auto",
    help="Tile per axis, on row-major tokens, or auto: the best of the kernel's list.",
)
@click.option(
    "--kernel", default="natten", metavar="NAME", help="Whose tile list auto and the default take. Default: natten."
)
@click.option("--stride", type=click.Choice(["auto"]), help="auto: strides of a gna mask that raise the bound.")
@click.option("--windows", is_flag=True, help="Block-sparse windows near the wanted one, and window against bound.")
@click.option("--share", type=float, metavar="F", help="Attention's share of the workload's time, for the end to end.")
@click.option("--steps", type=float, default=1.0, metavar="R", help="Share of the steps that use the mask. Default: 1.")
@click.option("--fused/--permuted", default=True, help="Whether tokens are permuted inside the kernel. Default: fused.")
@click.option("--export", nargs=2, metavar="flex FILE", help="FlexAttention block indices as an npz file.")
@click.option(
    "--picture", type=click.Path(path_type=Path), metavar="FILE", help="The mask's blocks as .svg, .png or .pdf."
)
@answer_options(PICTURES)
def command(fmt: str | None, output: str | None, **options: Any) -> None:
    """How much faster a mask can make attention: upper bounds at element, tile and machine level.

    \b
    Examples:
      iosim speedup --heads 1 --head-dim 128 --seq 32768 --mask gna:window=2048,stride=256 --tile 256/128
      iosim speedup --network hunyuanvideo --mask gna:window=18x24x24,stride=16x8x8 --tile 4x8x8/2x8x8 --device b200-sxm
      iosim speedup --network flux-1-dev-4k --mask gna:window=80x80 --tile auto --device b200-sxm --share 0.518
      iosim speedup --heads 1 --head-dim 128 --seq 8192 --mask window:1024,sink=4 --tile 128x128
    """
    from iosim.cli.asking import asked_device, asked_problem, option_inputs
    from iosim.cli.output import Answer, check_picture, emit
    from iosim.errors import UsageError
    from iosim.speedup import EndToEnd, speedup

    for name in ("share", "steps"):
        if options[name] is not None and not 0 < options[name] <= 1:
            raise UsageError(f"must be above 0 and at most 1, got {options[name]}", f"--{name}")
    if options["picture"]:
        check_picture(str(options["picture"]), "--picture")
    asked = asked_problem(options)
    device = asked_device(options["device"])
    mask = asked.problem.mask
    tiling, ranked = _tiling(asked, device, options)
    made = speedup(
        mask,
        tiling,
        heads=asked.problem.shape.heads,
        head_dim=asked.problem.shape.head_dim,
        head_dim_v=asked.problem.shape.head_dim_v,
        dtype_bytes=asked.problem.types.bits("Q") / 8,
        machine=_machine(asked, device, options, mask, tiling),
        end_to_end=EndToEnd(options["share"], options["steps"]) if options["share"] else None,
    )
    expected = _expected(asked, device, mask, tiling)
    times = dict(zip(("time_expected_s", "dense_time_expected_s"), expected or (None, None), strict=True))
    result = {**made.to_dict(), **times}
    found = _search(mask, tiling, options)
    for name, settings in found.items():
        result[name] = [_setting(one) for one in settings]
    if ranked:
        result["tiles"] = [{"tile": one.tiling, "speedup": one.ceiling.speedup} for one in ranked]
    _files(mask, tiling, asked, options)
    inputs = {**asked.inputs, **option_inputs(options), "tile": str(tiling), "kernel": options["kernel"]}
    for name in ("stride", "share", "steps", "fused"):
        inputs[name] = options[name]
    emit(
        Answer(
            command="speedup",
            inputs=inputs,
            result=result,
            text=lambda: _text(made, mask, tiling, found, ranked, expected),
            rows=lambda: [{k: v for k, v in result.items() if k not in found}],
            assumptions=[*made.notes, *asked.notes, "the dense problem is unmasked, for causal masks too"],
            provenance={"device_sha256": device.sha256 if device else None},
            picture=lambda: _picture(mask, tiling),
        ),
        fmt,
        output,
    )


def _tiling(asked: Asked, device: Device | None, options: dict[str, Any]) -> tuple[Tiling, list[Speedup]]:
    """The tile asked for, else the kernel's default, else the best of its list."""
    from iosim.masks import parse_tile
    from iosim.speedup import rank_tiles, tile_shapes

    if options["tile"] and options["tile"] != "auto":
        return parse_tile(options["tile"]), []
    mask = asked.problem.mask
    rank = len(mask.grid.layout_q)
    architecture = device.architecture if device and device.architecture in ("hopper", "blackwell") else "flex"
    shapes = tile_shapes(architecture, rank, asked.problem.shape.head_dim, kernel=options["kernel"])
    if asked.problem.unequal:
        shapes = tuple(dict.fromkeys(shape.flattened() for shape in shapes))
    if options["tile"] != "auto":
        return shapes[0], []
    ranked = list(rank_tiles(mask, shapes, asked.problem.shape.heads))
    return parse_tile(ranked[0].tiling), ranked


def _machine(asked: Asked, device: Device | None, options: dict[str, Any], mask: Mask, tiling: Tiling) -> Any:
    """Time floors of the dense and the masked call, and of a permutation apart from the kernel."""
    from dataclasses import replace

    from iosim.floors import time_floor
    from iosim.problem_builder import bind_lengths
    from iosim.speedup import MachineBound, speedup

    if device is None:
        return None
    warm = options["l2"] == "warm"
    dense = time_floor(replace(asked.problem, mask=bind_lengths("full", *mask.lengths)), device, warm).time_s
    sparse = time_floor(asked.problem, device, warm).time_s
    permute = 0.0
    if not options["fused"]:
        shape = asked.problem.shape
        one = speedup(mask, tiling, head_dim=shape.head_dim, dtype_bytes=asked.problem.types.bits("Q") / 8)
        permute = one.permute_bytes * shape.heads * shape.batch / device.bandwidth_bytes_per_s("hbm")
    return MachineBound(dense, sparse, permute)


def _expected(asked: Asked, device: Device | None, mask: Mask, tiling: Tiling) -> tuple[float, float] | None:
    """Expected times of a neighbourhood kernel and of a dense one, all heads; none where no constants speak of it."""
    import numpy as np

    from iosim.errors import AbsentError
    from iosim.speedup.expected_time import neighborhood_parts
    from iosim.timing.calls import Calls
    from iosim.timing.families import expected_parts
    from iosim.timing.parts import total_s

    problem, shape = asked.problem, asked.problem.shape
    if device is None or problem.types.bits("Q") != 16 or not mask.text.startswith("gna"):
        return None
    numbers = {"batch": shape.batch, "heads": shape.heads, "kv_heads": shape.kv_heads, "head_dim": shape.head_dim,
               "head_dim_v": shape.head_dim_v, "n_q": mask.n_q, "n_kv": mask.n_kv, "causal": False}  # fmt: skip
    try:
        parts = neighborhood_parts(
            mask, tiling, device, shape.batch * shape.heads, shape.head_dim, shape.head_dim_v
        )  # fmt: skip
        dense = expected_parts(Calls.of({name: np.array([value]) for name, value in numbers.items()}), device, "cudnn")
    except AbsentError:
        return None
    return sum(parts.values()), float(total_s(dense)[0])


def _search(mask: Mask, tiling: Tiling, options: dict[str, Any]) -> dict[str, tuple[Setting, ...]]:
    """Strides and windows around a gna mask."""
    from iosim.errors import UsageError
    from iosim.masks import parse_mask
    from iosim.speedup import aligned_windows, pareto, stride_search

    if not options["stride"] and not options["windows"]:
        return {}
    spec = parse_mask(options["mask"] or mask.text)
    if spec.name != "gna":
        raise UsageError(f"mask {spec.name!r} has no strides to search", "--mask", "give gna:window=...")
    layout, window = mask.grid.layout_q, spec.extents("window")
    dilation, causal = spec.extents("dilation", ()), spec.extents("causal", (), least=0)
    found = {}
    if options["stride"]:
        found["strides"] = stride_search(layout, window, tiling, dilation, causal)
    if options["windows"]:
        found["windows"] = aligned_windows(layout, window, tiling, dilation)
        found["pareto"] = pareto(layout, tiling, dilation)
    return found


def _setting(one: Setting) -> dict[str, object]:
    return {
        "window": "x".join(map(str, one.window)),
        "stride": "x".join(map(str, one.stride)),
        "tile_speedup_worst": one.worst,
        "tile_speedup_mean": one.mean,
        "block_sparse": one.block_sparse,
    }


def _files(mask: Mask, tiling: Tiling, asked: Asked, options: dict[str, Any]) -> None:
    """The export and the picture that were asked for."""
    from iosim.errors import UsageError

    if options["export"]:
        kind, path = options["export"]
        if kind != "flex":
            raise UsageError(f"no export {kind!r}", "--export", "write --export flex FILE.npz")
        from iosim.masks.flex_export import save_flex

        save_flex(mask, tiling, Path(path), asked.problem.shape.heads)
    if options["picture"]:
        from iosim.cli.output import save_figure

        save_figure(_picture(mask, tiling), options["picture"])


def _picture(mask: Mask, tiling: Tiling) -> object:
    from iosim.render.mask_picture import plot_blocks

    return plot_blocks(mask, tiling)


def _text(
    made: Speedup, mask: Mask, tiling: Tiling, found: dict[str, Any], ranked: list[Speedup],
    expected: tuple[float, float] | None,
) -> str:  # fmt: skip
    from iosim.render.speedup_text import speedup_text

    return speedup_text(made, mask, tiling, found, ranked, expected)
