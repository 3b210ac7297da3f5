"""Main-memory traffic of a schedule in closed form, where its structure decides it.

The items that run at once sweep K and V in lockstep, head after head. When the K and V of the heads in flight
fit the last cache, each key is fetched once; when they do not, each round of items fetches them again, because
a cyclic sweep larger than an LRU cache never hits. Partitions that keep own copies hold half each.
These are models, labelled so; only "everything fits" is exact under LRU. Evidence and sizes:
docs/explanation/main-memory.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from iosim.machine import Device, MemoryLevel
from iosim.schedule import Moved, Schedule, Traffic

#: results of a call: what is written for somebody else to read
RESULTS = frozenset({"O", "LSE", "dQ", "dK", "dV", "state", "K_summary", "V_summary"})
#: caches of which a call reads what lies there before it writes new rows
GROWING = frozenset({"K_summary", "V_summary"})

#: tensors of kernels that keep a Q tile and sweep K and V
SWEEPING = frozenset({"Q", "K", "V", "O", "LSE", "O_partial", "LSE_partial", "K_scale", "V_scale", "block_table",
                      "S_tile", "P_tile", "O_tile"})  # fmt: skip

#: how a method begins that fetches and writes each tensor once at most
FITS = "all tensors fit the"

#: algorithms that put N x N scores into memory, launch by launch
MATERIALISING = frozenset({"unfused", "unfused-backward"})
#: those scores, and what is kept or derived of them under these names
SQUARES = frozenset({"S", "P", "Z", "dP", "dS"})


@dataclass(frozen=True, slots=True)
class HbmTraffic:
    """Bytes at the main memory, and how they were found."""

    traffic: Traffic
    """by tensor"""
    method: str
    """in words"""
    exact: bool
    """exact under an LRU cache of the stated capacity"""


def scratch_of(schedule: Schedule) -> frozenset[str]:
    """Tensors that live only inside the call: written and read within it and no result. They may die in a cache."""
    moved = schedule.traffic.moved
    return frozenset(m.tensor for m in moved if m.read_elements and m.write_elements) - RESULTS


def inputs_of(schedule: Schedule) -> tuple[str, ...]:
    """Tensors that lie somewhere before the call, and may lie in a warm cache: what is read and not written in it."""
    return tuple(
        m.tensor for m in schedule.traffic.moved if m.read_elements and (not m.write_elements or m.tensor in GROWING)
    )


def usable_bytes(cache: MemoryLevel) -> int:
    """Capacity that data read by every core can use: one partition's where partitions keep own copies."""
    size = cache.effective_bytes or cache.capacity_bytes or 0
    return size // cache.partitions if cache.replicates else size * cache.instances


def hbm_traffic(schedule: Schedule, device: Device, warm: bool = False) -> HbmTraffic | None:
    """Bytes that a schedule moves between main memory and the last cache.

    None where no closed form knows the structure of the kernel. A warm cache still holds a call whose tensors all fit
    it, so that nothing is read; of larger calls no closed form knows what is left, and they are counted from a cold one.

    Args:
        warm: the call before was the same.
    """
    cold = _from_cold(schedule, device)
    if cold is None or not warm:
        return cold
    if FITS not in cold.method:
        return HbmTraffic(cold.traffic, f"{cold.method}; from a cold cache", False)
    moved = tuple(Moved(m.tensor, m.bits, 0, m.write_elements) for m in cold.traffic.moved)
    return HbmTraffic(Traffic(moved), f"{cold.method}, warm", cold.exact)


def _from_cold(schedule: Schedule, device: Device) -> HbmTraffic | None:
    cache = device.cache_before("hbm")
    capacity = usable_bytes(cache) if cache else 0
    core = schedule.traffic
    if cache is None and schedule.multicast == 1:
        return HbmTraffic(core, "closed form: no cache before main memory, every request reaches it", True)
    if cache and footprint_bytes(schedule) <= capacity:
        shared = cache.instances == 1  # of several caches each fetches what its own cores read
        return HbmTraffic(once(schedule, core), f"closed form: {FITS} {cache.name}", shared and _all_known(schedule))
    if schedule.algorithm in MATERIALISING:
        return _materialised(schedule, core, capacity)
    if schedule.algorithm == "flash1":
        return _swept(schedule, device, capacity, ("Q", "O", "l", "m"), "Q, O and statistics", items_share=1)
    if schedule.algorithm == "cascade":
        return HbmTraffic(once(schedule, core), "closed form: Q tiles sweep the shared keys in step", False)
    if not {m.tensor for m in core.moved} <= SWEEPING:
        return None
    shared_by = schedule.launches[0].items // (schedule.problem.sequences * schedule.problem.shape.kv_heads)
    return _swept(schedule, device, capacity, ("K", "V"), "K and V", items_share=max(1, shared_by))


def tensor_elements(schedule: Schedule) -> dict[str, int]:
    """Distinct elements of each tensor of the call; of one unknown here, what is written, or else read by one launch."""
    known = _known(schedule)
    return {m.tensor: known[m.tensor] if m.tensor in known else _as_moved(schedule, m) for m in schedule.traffic.moved}


def _as_moved(schedule: Schedule, m: Moved) -> int:
    """Distinct elements of a tensor of the kernel's own, by what is moved of it."""
    if m.tensor in GROWING:
        return m.read_elements + m.write_elements
    return m.write_elements or _least_read(schedule, m.tensor)


def _all_known(schedule: Schedule) -> bool:
    """Whether no input of the kernel's own, which it may read again and again, is counted as if it did not."""
    known = _known(schedule)
    return all(m.tensor in known or m.write_elements or not m.read_elements for m in schedule.traffic.moved)


def _known(schedule: Schedule) -> dict[str, int]:
    problem, shape = schedule.problem, schedule.problem.shape
    rows, keys = shape.batch * shape.heads * problem.n_q, _touched_keys(schedule)
    shared = shape.kv_heads * problem.shared_keys
    return {
        "K_prefix": shared * shape.head_dim,
        "V_prefix": 0 if shape.latent else shared * shape.head_dim_v,
        "Q": rows * shape.head_dim,
        "K": keys * shape.head_dim,
        "V": 0 if shape.latent else keys * shape.head_dim_v,
        "O": rows * shape.head_dim_v,
        "dO": rows * shape.head_dim_v,
        "LSE": rows,
        "l": rows,
        "m": rows,
        "S": rows * problem.n_kv,
        "P": rows * problem.n_kv,
        **({"M": shape.batch * problem.n_kv} if schedule.parameters.get("mask_kernel") == "padding" else {}),
    }


def _least_read(schedule: Schedule, tensor: str) -> int:
    """Elements that the launch with the fewest reads of an input reads of it."""
    reads = (m.read_elements for launch in schedule.launches for m in launch.traffic.moved if m.tensor == tensor)
    return min((count for count in reads if count), default=0)


def _touched_keys(schedule: Schedule) -> int:
    """Keys that some tile visits, over batch and key/value heads; heads of a group visit the same ones."""
    shape, tiling = schedule.problem.shape, schedule.tiling
    if schedule.algorithm in MATERIALISING:
        return shape.batch * shape.kv_heads * schedule.problem.n_kv
    per_head = sum(
        mask.sums(tiling).active_key_rows * heads // tiling.group for mask, heads in schedule.problem.masks()
    )
    keys = shape.batch * per_head * tiling.group // shape.group
    if schedule.algorithm != "cascade":  # which reads the shared keys under a name of their own
        return keys
    return keys - schedule.problem.sequences * shape.kv_heads * schedule.problem.shared_keys


def footprint_bytes(schedule: Schedule) -> int:
    """Bytes of all tensors of the call, scratch included."""
    elements = tensor_elements(schedule)
    return sum(-(-elements[m.tensor] * m.bits // 8) for m in schedule.traffic.moved)


def once(schedule: Schedule, core: Traffic) -> Traffic:
    """Each tensor fetched at most once and written back once; scratch that dies in the cache never leaves it."""
    elements, scratch = tensor_elements(schedule), scratch_of(schedule)
    return Traffic(
        tuple(
            Moved(
                m.tensor,
                m.bits,
                0 if m.write_elements and m.tensor not in GROWING else min(m.read_elements, elements[m.tensor]),
                0 if m.tensor in scratch else min(m.write_elements, elements[m.tensor]),
            )
            for m in core.moved
        )
    )


def _materialised(schedule: Schedule, core: Traffic, capacity: int) -> HbmTraffic:
    """Unfused: each launch streams its operands; tensors larger than the cache cross it on every use.

    A product's tiles that read an operand again find it in the cache; N x N tensors are swept, and are not there.
    """
    elements, best = tensor_elements(schedule), {m.tensor: m for m in once(schedule, core).moved}
    square = schedule.problem.shape.batch * schedule.problem.shape.heads * schedule.problem.n_q * schedule.problem.n_kv
    if square * schedule.problem.types.bits("S") // 8 <= capacity:
        return HbmTraffic(once(schedule, core), "closed form: scores of a launch stay in the cache", False)
    moved = []
    for m in core.moved:
        size = elements[m.tensor]
        if m.tensor.split("_")[0] in SQUARES:
            moved.append(m)
        elif size * m.bits // 8 > capacity:
            moved.append(Moved(m.tensor, m.bits, *_by_launch(schedule, m.tensor, size)))
        else:
            moved.append(best[m.tensor])
    return HbmTraffic(Traffic(tuple(moved)), "closed form: scores exceed the cache and cross it on every use", False)


def _by_launch(schedule: Schedule, tensor: str, size: int) -> tuple[int, int]:
    """Elements (read, written) when each launch fetches and writes a tensor of so many elements at most once."""
    found = [m for launch in schedule.launches for m in launch.traffic.moved if m.tensor == tensor]
    return sum(min(m.read_elements, size) for m in found), sum(min(m.write_elements, size) for m in found)


def _swept(
    schedule: Schedule,
    device: Device,
    capacity: int,
    swept: tuple[str, ...],
    what: str,
    items_share: int,
) -> HbmTraffic:
    """A kernel whose items sweep some tensors again and again."""
    core, shape, sequences = schedule.traffic, schedule.problem.shape, schedule.problem.sequences
    best = {m.tensor: m for m in once(schedule, core).moved}
    heads = sequences * (shape.kv_heads if "K" in swept else shape.heads)  # of unequal lengths the mean sweep counts
    in_flight = min(heads, -(-device.cores // items_share))
    elements = tensor_elements(schedule)
    sweep_bytes = sum(elements[m.tensor] * m.bits // 8 for m in core.moved if m.tensor in swept) // heads
    if all(m.read_elements <= elements[m.tensor] for m in core.moved if m.tensor in swept):
        return HbmTraffic(Traffic(tuple(best.values())), f"closed form: nothing reads {what} twice", False)
    tiles_bytes = device.cores * schedule.working_set.shared_bytes
    if in_flight * sweep_bytes + tiles_bytes <= capacity:
        return HbmTraffic(
            Traffic(tuple(best.values())), f"closed form: {what} of the heads in flight stay cached", False
        )
    share = max(1, min(items_share, device.cores) // schedule.paired)  # cores of a pair read one sweep together
    moved = []
    for m in core.moved:
        if m.tensor not in swept:
            moved.append(best[m.tensor])
            continue
        reads = max(best[m.tensor].read_elements, -(-m.read_elements // share))
        writes = max(best[m.tensor].write_elements, -(-m.write_elements // share))
        moved.append(Moved(m.tensor, m.bits, reads, writes))
    return HbmTraffic(Traffic(tuple(moved)), f"closed form: each round of items sweeps {what} again", False)
