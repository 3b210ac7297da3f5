"""Random attention calls on small ragged shapes, for properties of kernels and replays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st
from oracles import loop_counters

from iosim.attention import Attention, Shape, Types
from iosim.kernels import load_kernel, make_schedule
from iosim.masks import Grid, Tiling, bind
from iosim.schedule import Schedule
from iosim.trace.concurrency import Concurrency

#: how items of a launch run side by side
concurrencies = st.builds(
    Concurrency,
    cores=st.integers(1, 6),
    residency=st.integers(1, 2),
    grid_order=st.sampled_from(["head-major", "row-major", "longest-first", "sections", "chunked"]),
    kv_order=st.sampled_from(["cyclic", "reverse", "sawtooth"]),
    assignment=st.sampled_from(["dynamic", "static"]),
    section_heads=st.integers(1, 3),
    stagger_steps=st.integers(0, 2),
    instances=st.integers(1, 3),
)


def problem(
    n_q: int, n_kv: int, d: int, d_v: int | None = None, mask: str = "full", heads: int = 1, kv_heads: int = 1,
    batch: int = 1, phase: str = "prefill", latent: bool = False,
) -> Attention:  # fmt: skip
    shape = Shape(batch, heads, kv_heads, d, d if d_v is None else d_v, latent)
    return Attention(shape, bind(mask, Grid((n_q,), (n_kv,))), phase=phase)


def tile(rows: int, cols: int) -> Tiling:
    return Tiling((rows,), (cols,))


@st.composite
def calls(draw: st.DrawFn) -> dict[str, object]:
    kind = draw(st.sampled_from(["full", "causal", "causal-top-left", "window"]))
    n_kv = draw(st.integers(1, 22))
    n_q = draw(st.integers(1, n_kv if kind in ("causal", "window") else 22))
    window, sink = draw(st.integers(1, 12)), draw(st.integers(0, 5))
    text = f"window:{window},sink={sink}" if kind == "window" else kind
    return {
        "allowed": loop_counters.mask_matrix(n_q, n_kv, kind, window, sink),
        "mask": text,
        "n_q": n_q,
        "n_kv": n_kv,
        "d": draw(st.integers(1, 5)),
        "d_v": draw(st.integers(1, 5)),
        "group": draw(st.integers(1, 3)),
        "kv_heads": draw(st.integers(1, 2)),
        "batch": draw(st.integers(1, 2)),
        "rows": draw(st.integers(1, 9)),
        "cols": draw(st.integers(1, 9)),
    }


@st.composite
def cached_calls(draw: st.DrawFn) -> tuple[dict[str, object], dict[str, object]]:
    """A call, and how its K and V lie: in pages that divide a key tile or hold several, with scales, or plainly."""
    call = draw(calls())
    times, scales = draw(st.integers(0, 4)), draw(st.integers(0, 5))
    if draw(st.booleans()):  # small tiles in large pages
        page = times * call["cols"]
    else:
        page = draw(st.integers(1, 3)) if times else 0
        call["cols"] = times * page or call["cols"]
    return call, ({"page_size": page} if page else {}) | ({"scale_group": scales} if scales else {})


def make(call: dict, kernel: str, pack: bool | None = None, phase: str = "prefill", **settings: object) -> Schedule:
    asked = problem(
        call["n_q"], call["n_kv"], call["d"], call["d_v"], call["mask"], call["group"] * call["kv_heads"],
        call["kv_heads"], call["batch"], phase,
    )  # fmt: skip
    file, asked = load_kernel(kernel), of_kernel(asked, kernel)
    if settings.get("scale_group"):  # a quantised cache, whatever types the named kernel's code has
        file, asked = replace(file, types=(), kv_types=()), replace(asked, types=Types.of(asked.types.q, "int8"))
    return make_schedule(asked, None, file, tile(call["rows"], call["cols"]), settings, pack)


def of_kernel(asked: Attention, kernel: str) -> Attention:
    """The problem in a type that the kernel has."""
    types = load_kernel(kernel).types
    return asked if not types or "bf16" in types else replace(asked, types=Types.of(types[0]))


def per_tensor(schedule: Schedule) -> dict[str, tuple[int, int]]:
    return {m.tensor: (m.read_elements, m.write_elements) for m in schedule.traffic.moved}


def without_idle(traffic: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return {tensor: moved for tensor, moved in traffic.items() if moved != (0, 0)}
