"""FlashAttention-2 on a processor: tiles rest in the private caches of a core, and come back where these are too small.

A thread keeps a Q tile and walks the KV tiles with its own buffers of scores S, probabilities P and output Y, in
three phases per visited tile, each sweeping whole arrays in this order:
    scores   Q, K read, S written
    softmax  S read and scaled, P written, Y rescaled
    product  P, V read, Y updated; after the last tile Y is read and O written
Operands of 32 bits keep P in S's place. Under LRU a sweep finds its array in a cache of C bytes exactly when the
distinct arrays swept since, itself included, take at most C; what is dirty and does not stay is written back. Whole
tiles decide it, every tile as one in the middle of a walk. Words into a core per head, with the sums A, K, R and R1
of docs/explanation/counts.md, [x] = 1 where the array has gone by phase x:
    Q   N_q d, or R d [scores]        K, V   K (d + d_v)        O, LSE   N_q d_v + N_q written
    S   read A [softmax], written A ([softmax] + [scores])
    P   read A [product], written A [product], or A [softmax] when it goes only by the next tile
    Y   read (R - R1) d_v ([softmax] + [product]), written (R - R1) d_v [product] + R d_v [softmax]
Words of a buffer that nobody uses again are not counted. A product whose three arrays do not fit together sweeps
some of them more than once, by its own blocking: then these counts are too low, and `notes` says so. Without a
device everything stays: FlashAttention-2's words.
Source: PyTorch, aten/src/ATen/native/cpu/FlashAttentionKernel.cpp (32, 64 or 256 queries x 512 keys, buffers per
thread; packing of K and V for half-precision matrix units left out).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iosim.exact import decide, least
from iosim.kernels.algorithm import LSE, Algorithm, Call, moved, register, total_sums, visited_work
from iosim.kernels.cache_sweeps import Met, Sweep, meet
from iosim.kernels.key_values import kv_moved
from iosim.kernels.programs import Step, head_tiles
from iosim.kernels.step_tables import shared_pattern
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, WorkingSet
from iosim.units import binary_bytes, si

SCRATCH = ("S_tile", "P_tile", "O_tile")


def sweeps(in_place: bool) -> tuple[Sweep, ...]:
    """The sweeps over one visited tile, in order."""
    s, p, a = SCRATCH
    probabilities = s if in_place else p
    softmax = [Sweep("softmax", s, True, True)] + ([] if in_place else [Sweep("softmax", p, False, True)])
    return (
        Sweep("scores", "Q", True, False),
        Sweep("scores", "K", True, False),
        Sweep("scores", s, False, True),
        *softmax,
        Sweep("softmax", a, True, True),
        Sweep("product", probabilities, True, False),
        Sweep("product", "V", True, False),
        Sweep("product", a, True, True),
    )


def array_bytes(call: Call) -> dict[str, int]:
    """Bytes of each array of a whole tile, clipped to the call; P is 0 where it takes the place of S."""
    shape, bits = call.problem.shape, call.problem.types.bits
    rows = least(call.tiling.rows, call.problem.n_q)
    cols = least(call.tiling.cols, call.problem.n_kv)
    wide = bits("accumulator")
    elements = {
        "Q": rows * shape.head_dim * bits("Q"),
        "K": cols * shape.head_dim * bits("K"),
        "V": 0 if shape.latent else cols * shape.head_dim_v * bits("V"),
        "S_tile": rows * cols * wide,
        "P_tile": 0 if _in_place(call) else rows * cols * bits("P"),
        "O_tile": rows * shape.head_dim_v * wide,
    }
    return {name: -(-size // 8) for name, size in elements.items()}


def met(call: Call, capacity_bytes: int | None) -> tuple[Met, ...]:
    """How an LRU cache of so many bytes meets the sweeps of a tile in the middle of a walk; None: it holds all."""
    return meet(sweeps(_in_place(call)), array_bytes(call), capacity_bytes, fresh=("K", "V"))


def cache_traffic(call: Call, capacity_bytes: int | None) -> Traffic:
    """What crosses into (read) and out of (written) one private cache of every core.

    Args:
        capacity_bytes: of the cache; None: large enough for all arrays of a tile.
    """
    problem, shape, bits = call.problem, call.problem.shape, call.problem.types.bits
    sums = total_sums(problem, call.tiling)
    wide = {"S_tile": bits("accumulator"), "P_tile": bits("P"), "O_tile": bits("accumulator")}
    read = dict.fromkeys(("Q", *SCRATCH), 0)
    written = dict.fromkeys(SCRATCH, 0)
    later = sums.query_rows - sums.active_query_rows  # the first tile of a walk has Q and no output yet
    extent = {"Q": later * shape.head_dim, "S_tile": sums.area, "P_tile": sums.area, "O_tile": later * shape.head_dim_v}
    for each in met(call, capacity_bytes):
        name = each.sweep.array
        if name in read:
            read[name] = read[name] + extent[name] * each.fetched
        if name in written:
            updated = name == "O_tile" and each.sweep.phase == "product"
            whole = sums.query_rows * shape.head_dim_v if updated else extent[name]
            written[name] = written[name] + whole * each.written_back
    if not _output_stays(call, capacity_bytes):
        read["O_tile"] = read["O_tile"] + sums.active_query_rows * shape.head_dim_v
    rows = shape.batch * shape.heads * problem.n_q
    tensors = [
        moved(problem, "Q", read=sums.active_query_rows * shape.head_dim + read["Q"]),
        *kv_moved(call, sums),
        moved(problem, "O", write=rows * shape.head_dim_v),
    ]
    if call.flag("lse"):
        tensors.append(moved(problem, "LSE", write=rows))
    used = [name for name in SCRATCH if decide((read[name] != 0) | (written[name] != 0))]
    tensors += [Moved(name, wide[name], read[name], written[name]) for name in used]
    return Traffic(tuple(tensors))


def forward(call: Call) -> tuple[Launch, ...]:
    """The one launch, as the last private cache of a core sees it."""
    capacity = call.private[-1][1] if call.private else None
    traffic = cache_traffic(call, capacity)
    sums = total_sums(call.problem, call.tiling)
    nearest = cache_traffic(call, call.private[0][1]).total_bytes if call.private else 0
    work = replace(visited_work(call.problem, sums, 1, ()), shared_bytes=nearest)
    return (Launch("forward", sums.q_tiles, traffic, work, _program(call, met(call, capacity))),)


def _output_stays(call: Call, capacity_bytes: int | None) -> bool:
    return capacity_bytes is None or decide(array_bytes(call)["O_tile"] <= capacity_bytes)


def _in_place(call: Call) -> bool:
    bits = call.problem.types.bits
    return bits("P") >= bits("accumulator")


def _program(call: Call, found: tuple[Met, ...]) -> Program:
    """One Q tile per item. Buffers belong to threads: those of the threads that share a last cache are used again."""
    plan, shape = head_tiles(call), call.problem.shape
    sizes = {"S_tile": plan.rows * plan.cols, "P_tile": plan.rows * plan.cols, "O_tile": plan.rows * shape.head_dim_v}
    output_stays = _output_stays(call, call.private[-1][1] if call.private else None)

    def scratch(name: str, tile: int, words: int, write: bool) -> Touch:
        return Touch(name, 0, tile % call.neighbours * sizes[name], words, write)

    def visited(head: int, tile: int, keys: tuple[int, int], first: bool) -> Iterator[Step]:
        at = plan.q_tile(head, tile)
        words = {"S_tile": at[1] * keys[1], "P_tile": at[1] * keys[1], "O_tile": at[1] * shape.head_dim_v}
        for each in found:
            name = each.sweep.array
            if name == "Q":
                if first or each.fetched:
                    yield (Touch("Q", head, *at, False),)
            elif name in ("K", "V"):
                if name == "K" or not shape.latent:
                    yield (Touch(name, head // plan.kv_share, *keys, False),)
            else:
                own = name == "O_tile"
                if each.fetched and not (own and first):
                    yield (scratch(name, tile, words[name], False),)
                if each.written_back and not (own and first and each.sweep.phase == "softmax"):
                    yield (scratch(name, tile, words[name], True),)

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, plan.tiles)
        at, columns = plan.q_tile(head, tile), plan.visits(head).tiles_of(tile).tolist()
        for column in columns:
            yield from visited(head, tile, plan.kv_tile(head, column), column == columns[0])
        if columns and not output_stays:
            yield (scratch("O_tile", tile, at[1] * shape.head_dim_v, False),)
        done = (Touch("O", head, *at, True),)
        yield (*done, Touch("LSE", head, *at, True)) if call.flag("lse") else done

    elements = {"Q": shape.head_dim, "K": shape.head_dim, "V": shape.head_dim_v, "O": shape.head_dim_v, "LSE": 1}
    return Program(
        plan.heads,
        plan.tiles,
        elements | dict.fromkeys(SCRATCH, 1),
        steps,
        pattern=shared_pattern(plan.visits),
    )


def working_set(call: Call) -> WorkingSet:
    """All arrays of a whole tile and two statistics per row: caches hold what they can of it."""
    rows = least(call.tiling.rows, call.problem.n_q)
    statistics = 2 * rows * call.problem.types.bits("accumulator") // 8
    return WorkingSet(sum(array_bytes(call).values()) + statistics, 0)


def model(call: Call) -> str:
    """Empty where everything stays in the last private cache."""
    if not call.private or working_set(call).shared_bytes <= call.private[-1][1]:
        return ""
    name, room = call.private[-1]
    return f"whole arrays of a tile over an LRU {name} of {binary_bytes(room)}"


def largest_product(call: Call) -> int:
    """Bytes that the larger of the two products needs at once to sweep each of its arrays only once."""
    sizes = array_bytes(call)
    probabilities = sizes["P_tile"] or sizes["S_tile"]
    return max(sizes["Q"] + sizes["K"] + sizes["S_tile"], probabilities + sizes["V"] + sizes["O_tile"])


def notes(call: Call) -> tuple[str, ...]:
    """Which cache of a core holds a tile's arrays, and what comes back to the last one."""
    if not call.private:
        return ()
    size = working_set(call).shared_bytes
    holds = next((name for name, capacity in call.private if size <= capacity), None)
    near, capacity = call.private[0]
    at_near = cache_traffic(call, capacity)
    first = (
        f"{near} of all cores ({binary_bytes(capacity)} each) reads {si(at_near.read_bytes, 'B')} and gives back"
        f" {si(at_near.write_bytes, 'B')}, the products' own blocking aside"
    )
    if holds:
        return (f"a tile's arrays, {binary_bytes(size)}, rest in {holds} of a core", first)
    last, room = call.private[-1]
    back = {each.sweep.array for each in met(call, room) if each.fetched or each.written_back} - {"K", "V"}
    names = {"S_tile": "scores", "P_tile": "probabilities", "O_tile": "outputs", "Q": "Q"}
    again = ", ".join(names[name] for name in names if name in back) or "nothing"
    return (
        f"a tile's arrays, {binary_bytes(size)}, do not fit {last} of a core ({binary_bytes(room)}):"
        f" crossing it again for every tile: {again}",
        *([f"too low: the arrays of one product do not fit {last} together"] if largest_product(call) > room else []),
        first,
    )


CPU_FLASH = register(
    Algorithm(
        name="cpu-flash",
        title="FlashAttention-2 on a processor's caches",
        source="PyTorch, aten/src/ATen/native/cpu/FlashAttentionKernel.cpp",
        algorithm_class="standard-once",
        phases=("prefill", "decode"),
        parameters=(LSE,),
        launches=forward,
        working_set=working_set,
        packs=False,
        notes=notes,
        model=model,
    )
)
