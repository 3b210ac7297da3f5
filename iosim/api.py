"""The library's front doors: what `import iosim` offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from iosim.analysis import analyze as analyze_call
from iosim.analysis import device_memory
from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.floors import Floors, Memory, attention_floors
from iosim.floors.bound import narrowest_bits
from iosim.links import LinkAsked
from iosim.machine import Device, load_device
from iosim.masks import parse_tile
from iosim.problem_builder import ask
from iosim.report import Options, Report
from iosim.units import parse

if TYPE_CHECKING:
    from iosim.curve_analysis import MissCurve


def device(name: str) -> Device:
    """A device of the catalogue, or a TOML file.

    Raises:
        UsageError: unknown name, with the nearest. FileError: a broken file.
    """
    return load_device(name)


def problem(
    network: str | None = None,
    *,
    layer: str | int | None = None,
    heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    head_dim_v: int | None = None,
    latent: bool = False,
    batch: int = 1,
    phase: str = "prefill",
    seq: str | int | tuple[int, ...] | None = None,
    seq_kv: str | int | tuple[int, ...] | None = None,
    mask: str | None = None,
    dtype: str = "bf16",
    kv_dtype: str | None = None,
    shared_prefix: int = 0,
) -> Attention:
    """One attention call: a network's layer, or plain shapes.

    Args:
        network: catalogue name or path of a config.json or TOML file; `llama-3-8b` when no heads are given.
        layer: kind or index, where layers differ.
        heads, kv_heads, head_dim, head_dim_v: plain shapes, or overrides of the network's.
        latent: V is a slice of K (absorbed multi-head latent attention).
        batch: sequences.
        phase: prefill, decode or backward.
        seq, seq_kv: tokens, a layout such as (30, 48, 80), or one length per sequence such as "100+2*3000"; keys
            count the new tokens.
        mask: in the command line's notation, such as "causal" or "window:4096,sink=4".
        dtype, kv_dtype: element types.
        shared_prefix: first keys that all sequences of a decode share, in tokens; floors count them once.
    Raises:
        UsageError: something that cannot be. FileError: a broken network file.
    """
    return ask(
        network,
        layer=layer,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        head_dim_v=head_dim_v,
        latent=latent,
        batch=batch,
        phase=phase,
        seq=seq,
        seq_kv=seq_kv,
        mask=mask,
        dtype=dtype,
        kv_dtype=kv_dtype,
        shared_prefix=shared_prefix,
    ).problem


def analyze(
    problem: Attention,
    device: Device | str | None = None,
    kernels: str | Sequence[str] | None = None,
    *,
    tile: str | None = None,
    settings: Mapping[str, object] | None = None,
    pack_gqa: bool | None = None,
    l2: str = "cold",
    lse_output: bool = False,
    measured: str | float | None = None,
    exchange: str | None = None,
    devices: int | None = None,
    offload: str | None = None,
    resident_fraction: str | float = 0,
    link: str | float | None = None,
    link_latency: str | float | None = None,
    far: str | float | None = None,
) -> Report:
    """What each kernel moves, what no kernel avoids, how long it takes at least, and why.

    Args:
        problem: the call.
        device: where, or its name; None is one core with one sequential stream.
        kernels: names or paths, or one; None: the phase's usual ones.
        tile: "128x64", or "16x16/16x8" per axis; None: each kernel's own.
        settings: kernel parameters.
        pack_gqa: pack query heads of a group into rows; None: in decode only.
        l2: "cold" or "warm".
        lse_output: the log-sum-exp is an output that floors count.
        measured: time of your own kernel, in seconds or as text ("1.3ms").
        exchange, devices: how so many devices share the call: "ring", "tiling-allreduce:blocks=4", ...
        offload, resident_fraction: "kv", "attention" or "activations" on the host, but for a share in [0, 1).
        link: a link of the device file, or a rate each way ("50GB/s", or bytes per second).
        link_latency: of one message, in seconds or as text ("5us"): part of the expected time only.
        far: what delivers what was offloaded: a device's name, or its memory's rate ("200GB/s", or bytes per second).
    Raises:
        UsageError: a kernel, tile or setting that cannot be. AbsentError: the device file lacks a needed fact.
    """
    if l2 not in ("cold", "warm"):
        raise UsageError(f"l2 is cold or warm, got {l2!r}", "l2")
    options = Options(
        tile=parse_tile(tile, "tile") if tile else None,
        settings=settings,
        pack_gqa=pack_gqa,
        warm=l2 == "warm",
        lse_output=lse_output,
        measured_s=None if measured is None else parse(measured, "s", "measured"),
        link=LinkAsked(
            exchange,
            devices,
            offload,
            resident_fraction,
            _text(link, "B/s"),
            _text(link_latency, "s"),
            _text(far, "B/s"),
        ),
    )
    where = load_device(device) if isinstance(device, str) else device
    return analyze_call(problem, where, [kernels] if isinstance(kernels, str) else kernels, options)


def _text(given: str | float | None, unit: str) -> str | None:
    """A quantity as text: a bare number is in the base unit."""
    return f"{given!r} {unit}" if isinstance(given, int | float) else given


def bounds(
    problem: Attention,
    *,
    memory_elements: int | None = None,
    device: Device | None = None,
    boundary: str = "hbm",
    warm: bool = False,
    lse_output: bool = False,
) -> Floors:
    """Every proven floor of a problem, for a memory of so many elements or at a device's boundary.

    Raises:
        UsageError: neither a memory nor a device, or a memory below one element.
    """
    if memory_elements is not None:
        if memory_elements < 1:
            raise UsageError(f"must be at least 1, got {memory_elements}", "memory_elements")
        memory = Memory("given", memory_elements * narrowest_bits(problem))
    elif device is not None:
        memory = device_memory(device, boundary)
    else:
        raise UsageError("give memory_elements or a device", "bounds")
    return attention_floors(problem, memory, warm, lse_output)


def miss_curve(
    problem: Attention,
    kernel: str = "flash2",
    *,
    device: Device | None = None,
    tile: str | None = None,
    settings: Mapping[str, object] | None = None,
    policies: Sequence[str] = ("lru",),
    line_bytes: int | None = None,
) -> MissCurve:
    """Traffic of a kernel against the capacity of one cache that its items share: every LRU size in one pass.

    Args:
        device: its cores run items side by side; None: one sequential stream.
        tile: "128x64"; None: the kernel's own.
        policies: lru, and opt, opt-bypass or fifo at chosen sizes.
    Raises:
        UsageError: something that cannot be.
    """
    from iosim.curve_analysis import miss_curve_of_call

    return miss_curve_of_call(
        problem, device, kernel, parse_tile(tile, "tile") if tile else None, dict(settings or {}), policies, line_bytes
    )
