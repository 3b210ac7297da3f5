"""The Triton kernel where Triton is installed: interpreted against a softmax, compiled for GPUs that are not here, run on one."""

from __future__ import annotations

import importlib.util
import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iosim.measure.cases import Case
from iosim.measure.experiments import Board, cuda_cases, selected
from iosim.measure.triton_tiled import launch_of, section_heads

MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
needs_triton = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {MISSING}")
SMALL = Case("triton-tiled", 2, 6, 3, 32, 37, 53, "full", 16, 16, dtype="fp32", stages=2, warps=4)
SIZES = [(1, 5), (16, 16), (37, 53), (65, 65)]


def interpreted_cases() -> list[Case]:
    choices = itertools.product(
        ("full", "causal"), ("cyclic", "sawtooth"), ("head-major", "row-major", "longest-first", "sections:5"),
        ("item", "static", "atomic"),
    )  # fmt: skip
    made = [
        replace(SMALL, mask=mask, order=order, grid=grid, pick=pick, per_core=2) for mask, order, grid, pick in choices
    ]
    made += [
        replace(SMALL, tile_q=tile_q, tile_kv=tile_kv, seq_q=n_q, seq_kv=n_kv, mask=mask)
        for (tile_q, tile_kv), (n_q, n_kv), mask in itertools.product([(32, 16), (64, 64)], SIZES, ["full", "causal"])
    ]
    return [
        *made,
        replace(SMALL, writes=4),
        replace(SMALL, keep="evict_last"),
        replace(SMALL, batch=1, heads=1, kv_heads=1),
    ]


def largest_error(case: Case, place: str = "cpu") -> float:
    import torch

    from iosim.measure.triton_tiled import tiled_attention

    kind = torch.float32 if place == "cpu" else torch.bfloat16
    q = torch.randn(case.batch, case.heads, case.seq_q, case.head_dim, device=place, dtype=kind)
    k, v = (torch.randn(case.batch, case.kv_heads, case.seq_kv, case.head_dim, device=place, dtype=kind) for _ in "kv")
    out = torch.full((case.writes, *q.shape), float("nan"), device=place, dtype=kind)
    tiled_attention(q, k, v, out, case, 3, torch.zeros(2, dtype=torch.int32, device=place))
    keys, values = (each.double().repeat_interleave(case.heads // case.kv_heads, 1) for each in (k, v))
    scores = q.double() @ keys.transpose(-1, -2) / case.head_dim**0.5
    if case.mask == "causal":
        rows = torch.arange(case.seq_q, device=place)[:, None] + case.seq_kv - case.seq_q
        scores = scores.masked_fill(torch.arange(case.seq_kv, device=place)[None] > rows, float("-inf"))
    return float((out - torch.softmax(scores, -1) @ values).abs().max().nan_to_num(nan=1e9))


@needs_triton
@pytest.mark.slow
def test_every_choice_computes_attention() -> None:
    root = str(Path(__file__).parents[2])
    settings = {
        **os.environ,
        "TRITON_INTERPRET": "1",
        "PYTHONPATH": os.pathsep.join([root, str(Path(__file__).parent)]),
    }
    code = "import test_triton as t; print(max(t.largest_error(case) for case in t.interpreted_cases()))"
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 1e-5


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_every_choice_compiles_for_gpus_that_are_not_here(capability: int) -> None:
    chosen = {}
    for case in selected(cuda_cases(Board(hopper=capability >= 90)), ["triton-tiled"]):
        _, arguments, fixed = launch_of(case, 132)
        chosen[tuple(fixed.items())] = (case, arguments, fixed)
    assert len(chosen) > 10
    for case, arguments, fixed in chosen.values():
        compiled = compile_for(capability, case, arguments, fixed)
        assert compiled.metadata.shared <= (166912 if capability == 80 else 232448)


def compile_for(capability: int, case: Case, arguments: dict[str, Any], fixed: dict[str, Any]) -> Any:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from iosim.measure.triton_tiled import forward

    def kind(name: str) -> str:
        if name in fixed:
            return "constexpr"
        if name.endswith("_ptr"):
            return "*i32" if name[:-4] in ("counter", "side") else f"*{case.dtype}"
        return "fp32" if name == "log2_scale" else "i64" if abs(arguments[name]) >= 1 << 31 else "i32"

    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(forward.arg_names) if name.endswith("_ptr")}
    source = ASTSource(forward, {name: kind(name) for name in forward.arg_names}, fixed, aligned)
    options = {"num_warps": case.warps, "num_stages": case.stages}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@needs_triton
@pytest.mark.gpu
def test_every_choice_computes_attention_on_a_gpu() -> None:
    for case in interpreted_cases():
        assert largest_error(replace(case, dtype="bf16"), "cuda") < 3e-2, case.key


@pytest.mark.parametrize("cores", [1, 3, 132])
def test_every_item_is_run_once_by_somebody(cores: int) -> None:
    for case in interpreted_cases():
        programs, arguments, fixed = launch_of(case, cores)
        items = case.batch * case.heads * -(-case.seq_q // case.tile_q)
        assert arguments["items"] == items
        assert programs == (items if case.pick == "item" else min(items, 2 * cores))
        heads = case.batch * case.heads
        section = {"head-major": 1, "longest-first": 1, "row-major": heads, "sections:5": min(5, heads)}[case.grid]
        assert arguments["section"] == section_heads(case) == section
        assert fixed["descending"] == (case.grid in ("longest-first", "sections:5"))
        assert arguments["slots"] == cores * max(1, case.per_core)
        seen = {place_of(item, section, case) for item in range(items)}
        assert len(seen) == items


def place_of(item: int, section: int, case: Case) -> tuple[int, int]:
    """(head, row block) of an item, as the kernel's docstring says: sections, in each row blocks, in each heads."""
    blocks, heads = -(-case.seq_q // case.tile_q), case.batch * case.heads
    order = [
        (head, block)
        for first in range(0, heads, section)
        for block in (range(blocks) if case.grid in ("head-major", "row-major") else reversed(range(blocks)))
        for head in range(first, min(first + section, heads))
    ]
    return order[item]
