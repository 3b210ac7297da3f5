"""A Triton attention kernel whose every choice is free: tile, direction over the keys, order, placement and pacing of items.

Its schedules are ones that iosim counts and replays, so that a simulated and a measured schedule can be the same.
"""

from __future__ import annotations

import math
from typing import Any

from iosim.errors import AbsentError
from iosim.measure.cases import Case

try:
    import triton
    import triton.language as tl
except ImportError:  # pragma: no cover (no Triton on this machine)
    triton = None

if triton is not None:  # pragma: no cover (compiled or interpreted, never run line by line)

    @triton.jit  # type: ignore[untyped-decorator]
    def _item(  # type: ignore[no-untyped-def]
        q_ptr, k_ptr, v_ptr, o_ptr, n_q, n_kv, all_heads, group, log2_scale, head, block, back,
        d: tl.constexpr, tile_q: tl.constexpr, tile_kv: tl.constexpr, causal: tl.constexpr, sawtooth: tl.constexpr,
        tma: tl.constexpr, keep: tl.constexpr, writes: tl.constexpr,
    ):  # fmt: skip
        """One row block of one head: FlashAttention-2's loop."""
        column = tl.arange(0, d)
        row = block * tile_q + tl.arange(0, tile_q)
        inside = row < n_q
        q_base = head.to(tl.int64) * n_q * d
        kv_row = (head // group).to(tl.int64) * n_kv
        query = tl.load(q_ptr + q_base + row[:, None] * d + column[None, :], mask=inside[:, None], other=0.0)
        top = tl.full((tile_q,), float("-inf"), tl.float32)
        weight = tl.zeros((tile_q,), tl.float32)
        total = tl.zeros((tile_q, d), tl.float32)
        ahead = n_kv - n_q
        stop = n_kv
        if causal:
            stop = tl.minimum(n_kv, block * tile_q + tile_q + ahead)
        if tma:
            rows_of_all = all_heads // group * n_kv
            k_tiles = tl.make_tensor_descriptor(k_ptr, [rows_of_all, d], [d, 1], [tile_kv, d])
            v_tiles = tl.make_tensor_descriptor(v_ptr, [rows_of_all, d], [d, 1], [tile_kv, d])
        tiles = tl.cdiv(stop, tile_kv)
        for step in range(tiles):
            tile = step
            if sawtooth:
                tile = tl.where(back == 1, tiles - 1 - step, step)
            key = tile * tile_kv + tl.arange(0, tile_kv)
            real = key < n_kv
            place = (kv_row + key)[:, None] * d + column[None, :]
            if tma:
                keys = k_tiles.load([(kv_row + tile * tile_kv).to(tl.int32), 0])
            else:
                keys = tl.load(k_ptr + place, mask=real[:, None], other=0.0, eviction_policy=keep)
            score = tl.dot(query, tl.trans(keys)) * log2_scale
            seen = real[None, :]
            if causal:
                seen = seen & (key[None, :] <= row[:, None] + ahead)
            score = tl.where(seen, score, float("-inf"))
            higher = tl.maximum(top, tl.max(score, 1))
            safe = tl.where(higher == float("-inf"), 0.0, higher)
            part = tl.exp2(score - safe[:, None])
            shrink = tl.exp2(top - safe)
            weight = weight * shrink + tl.sum(part, 1)
            if tma:
                values = v_tiles.load([(kv_row + tile * tile_kv).to(tl.int32), 0])
            else:
                values = tl.load(v_ptr + place, mask=real[:, None], other=0.0, eviction_policy=keep)
            total = total * shrink[:, None] + tl.dot(part.to(values.dtype), values)
            top = higher
        result = (total / weight[:, None]).to(query.dtype)
        size = all_heads.to(tl.int64) * n_q * d
        for copy in tl.static_range(writes):
            tl.store(o_ptr + copy * size + q_base + row[:, None] * d + column[None, :], result, mask=inside[:, None])

    @triton.jit
    def _wait(nanoseconds):  # type: ignore[no-untyped-def]
        start = tl.extra.cuda.globaltimer()
        now = start
        while now - start < nanoseconds:
            now = tl.extra.cuda.globaltimer()

    @triton.jit(do_not_specialize=["items", "programs", "slots", "section", "group", "delay"])  # type: ignore[untyped-decorator]
    def forward(  # type: ignore[no-untyped-def]
        q_ptr, k_ptr, v_ptr, o_ptr, counter_ptr, side_ptr, n_q, n_kv, all_heads, group, log2_scale,
        items, programs, slots, section, delay,
        d: tl.constexpr, tile_q: tl.constexpr, tile_kv: tl.constexpr, causal: tl.constexpr, sawtooth: tl.constexpr,
        tma: tl.constexpr, keep: tl.constexpr, writes: tl.constexpr,
        descending: tl.constexpr, pick: tl.constexpr, stagger: tl.constexpr,
    ):  # fmt: skip
        """Items in order: sections of heads, in each its row blocks, in each its heads.

        pick: item: a program per item; static: programs that stride over the items; atomic: the next item of a counter;
        sides: the next row block of the head that belongs to this core's side. Sawtooth turns round after each round of
        items, not with the row block: blocks that run together must walk the same way, or each line is fetched twice.
        """
        blocks = tl.cdiv(n_q, tile_q)
        number = tl.program_id(0)
        all_heads = all_heads + 0 * number  # a tensor also where the launcher made 1 a constant
        if stagger:
            _wait(delay * number // programs)
        item = number
        side = 0 * number
        if pick == "atomic":
            item = tl.atomic_add(counter_ptr, 1)
        if pick == "sides":
            side = tl.load(side_ptr + tl.extra.cuda.smid())
            item = tl.atomic_add(counter_ptr + side, 1)
        while item < items:
            if pick == "sides":
                head = side
                block = item
            else:
                which = item // (section * blocks)
                rest = item % (section * blocks)
                size = tl.minimum(section, all_heads - which * section)
                head = which * section + rest % size
                block = rest // size
            if descending:
                block = blocks - 1 - block
            _item(
                q_ptr, k_ptr, v_ptr, o_ptr, n_q, n_kv, all_heads, group, log2_scale, head, block, item // slots % 2,
                d, tile_q, tile_kv, causal, sawtooth, tma, keep, writes,
            )  # fmt: skip
            if pick == "item":
                item = items
            elif pick == "static":
                item += programs
            else:
                item = tl.atomic_add(counter_ptr + side, 1)

    @triton.jit
    def follow(next_ptr, out_ptr, steps):  # type: ignore[no-untyped-def]
        """One core follows a chain of indices: latency of whatever level holds it."""
        place = tl.load(next_ptr)
        for _ in range(steps):
            place = tl.load(next_ptr + place, cache_modifier=".cg")
        tl.store(out_ptr, place)

    @triton.jit
    def atomic_latency(line_ptr, clocks_ptr, steps):  # type: ignore[no-untyped-def]
        """Clocks of an atomic on one line from each core: they go to the line's home partition, so they tell the sides."""
        place = tl.atomic_add(line_ptr, 0)
        start = tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l,r", [place], tl.int64, is_pure=False, pack=1)
        for _ in range(steps):
            place = tl.atomic_add(line_ptr + place, 0)
        end = tl.inline_asm_elementwise("mov.u64 $0, %clock64;", "=l,r", [place], tl.int64, is_pure=False, pack=1)
        tl.store(clocks_ptr + tl.extra.cuda.smid(), ((end - start) // steps).to(tl.int32))


def require() -> None:
    """Raises AbsentError where Triton is not installed."""
    if triton is None:
        raise AbsentError("Triton is not installed", "triton-tiled", "pip install triton")


def section_heads(case: Case) -> int:
    """Heads whose row blocks are interleaved: 1, all, or as many as the case says."""
    heads = case.batch * case.heads
    if case.grid.startswith("sections:"):
        return min(heads, int(case.grid.partition(":")[2]))
    return heads if case.grid == "row-major" else 1


def launch_of(case: Case, cores: int, sweep_s: float = 0.0) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """(programs, arguments by name, choices fixed at compilation) of a case.

    Args:
        cores: streaming multiprocessors.
        sweep_s: how long one sweep over the keys takes, which staggered starts are a share of.
    """
    heads = case.batch * case.heads
    blocks = -(-case.seq_q // case.tile_q)
    items = blocks if case.pick == "sides" else heads * blocks
    programs = items if case.pick == "item" else min(items * (2 if case.pick == "sides" else 1), case.per_core * cores)
    arguments = {
        "n_q": case.seq_q, "n_kv": case.seq_kv, "all_heads": heads, "group": case.heads // case.kv_heads,
        "log2_scale": math.log2(math.e) / math.sqrt(case.head_dim), "items": items, "programs": programs,
        "slots": cores * max(1, case.per_core),
        "section": section_heads(case), "delay": round(1e9 * sweep_s * case.stagger / 100),
    }  # fmt: skip
    fixed = {
        "d": case.head_dim, "tile_q": case.tile_q, "tile_kv": case.tile_kv, "causal": case.mask == "causal",
        "sawtooth": case.order == "sawtooth", "tma": case.loads == "tma", "keep": case.keep, "writes": case.writes,
        "descending": case.grid.startswith(("longest", "sections")), "pick": case.pick, "stagger": case.stagger > 0,
    }  # fmt: skip
    return programs, arguments, fixed


def tiled_attention(
    q: Any, k: Any, v: Any, out: Any, case: Case, cores: int, counter: Any, sides: Any = None, sweep_s: float = 0.0
) -> Any:
    """Attention of contiguous (batch, heads, tokens, head size) tensors by this kernel; full or causal.

    Args:
        out: `writes` copies of the output, (writes, batch, heads, tokens, head size).
        counter: two zeros, int32, which a call that picks items from them uses up.
        sides: side of each core, int32, where heads belong to sides.
    Returns:
        The compiled kernel where there is one: its registers and shared memory.
    Raises:
        AbsentError: Triton is not installed.
    """
    require()
    programs, arguments, fixed = launch_of(case, cores, sweep_s)
    return forward[(programs,)](
        q, k, v, out, counter, counter if sides is None else sides, **arguments, **fixed,
        num_warps=case.warps, num_stages=case.stages,
    )  # fmt: skip
