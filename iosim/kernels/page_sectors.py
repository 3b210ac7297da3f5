"""What a paged KV cache costs in sectors: a miss fetches whole ones, and rows of a page need not fill them.

A page of p tokens holds the rows of one head one after another and begins at a sector (FlashInfer's HND layout;
pages of several heads interleave alike where a row is a whole number of sectors). With row bits w and sector bits s
    a page         ceil(p w / s) sectors, of which ceil(p w / s) s - p w bits are unused
    a tile's read  the sum over pages of the sectors that its rows touch: ceil((o + n w) / s) - floor(o / s) for n rows
                   from bit o of a page
over all visited (Q tile, KV tile) pairs. Scales lie in pages of their own; the block table is one dense array.
Sources: Kwon et al. 2023 (arXiv 2309.06180) section 4.1; NVIDIA Nsight Compute documentation (sectors of 32 bytes).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from iosim.machine import Device
from iosim.masks import Mask, Tiling
from iosim.schedule import Moved, Schedule, Traffic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: of a device that does not name its sectors
SECTOR_BYTES = 32
PAGED = ("K", "V", "K_scale", "V_scale")


@dataclass(frozen=True, slots=True)
class PageCost:
    """Sectors of one tensor of a paged cache."""

    tensor: str
    """K, V, K_scale or V_scale"""
    sector_bytes: int
    """bytes that one miss fetches"""
    page_sectors: int
    """sectors of one head's page"""
    page_unused_bits: int
    """bits of them that hold no element"""
    read_bits: int
    """bits of the elements that the kernel reads, over all visited tile pairs"""
    read_sectors: int
    """sectors that it reads for them"""

    @property
    def wasted_bits(self) -> int:
        """Bits read that the kernel has no use for."""
        return 8 * self.sector_bytes * self.read_sectors - self.read_bits

    def padded(self, moved: Moved) -> Moved:
        """What was moved, in whole sectors: of a part of the reads, their share, rounded up."""
        bits = moved.read_elements * moved.bits
        whole = -(-bits * self.read_sectors * self.sector_bytes // self.read_bits)
        return replace(moved, padding_bytes=max(0, whole - moved.read_bytes))

    def to_dict(self) -> dict[str, object]:
        """Keys with units."""
        return {
            "tensor": self.tensor,
            "sector_bytes": self.sector_bytes,
            "page_sectors": self.page_sectors,
            "page_unused_bytes": self.page_unused_bits / 8,
            "read_sectors": self.read_sectors,
            "read_sector_bytes": self.read_sectors * self.sector_bytes,
            "wasted_bytes": self.wasted_bits / 8,
        }


def page_costs(schedule: Schedule, sector_bytes: int | None = None) -> tuple[PageCost, ...]:
    """Costs of K, V and their scales; none where the cache is not paged.

    Args:
        schedule: a kernel that reads each visited tile of a paged cache once.
        sector_bytes: bytes of a sector; None: 32.
    """
    page, sector = int(str(schedule.parameters.get("page_size", 0))), sector_bytes or SECTOR_BYTES
    if not page or schedule.algorithm == "cascade":  # whose keys lie in pages of two kinds
        return ()
    walks = _walks(schedule, page)
    keys = sum(times * int((visits * keys).sum()) for visits, _, keys, times in walks)
    made = []
    for moved in schedule.traffic.moved:
        if moved.tensor in PAGED and moved.read_elements and not moved.read_elements % keys:
            row = moved.read_elements // keys * moved.bits
            sectors = sum(
                times * int((visits * sectors_of(first, keys, page, row, 8 * sector)).sum())
                for visits, first, keys, times in walks
            )
            size = page_size_sectors(page, row, sector)
            made.append(PageCost(moved.tensor, sector, *size, keys * row, sectors))
    return tuple(made)


def sector_bytes_of(device: Device) -> int | None:
    """The least that a miss of the last cache fetches, where the device says so."""
    last = device.cache_before("hbm") if device.has_level("hbm") else None
    return (last.sector_bytes or last.line_bytes) if last else None


def page_size_sectors(page: int, row_bits: int, sector_bytes: int) -> tuple[int, int]:
    """(sectors of a page of so many rows, bits of them that hold no element).

    >>> page_size_sectors(1, 36 * 4, 32)
    (1, 112)
    """
    sectors = -(-page * row_bits // (8 * sector_bytes))
    return sectors, 8 * sector_bytes * sectors - page * row_bits


def sectors_of(
    first: NDArray[np.int64], keys: NDArray[np.int64], page: int, row_bits: int, sector_bits: int
) -> NDArray[np.int64]:
    """Sectors that tiles of `keys` rows touch which begin at row `first` of their page; several pages from row 0."""
    whole = keys // page * (first == 0)
    begin, end = first * row_bits, (first + keys - whole * page) * row_bits
    sectors: NDArray[np.int64] = (
        whole * -(-page * row_bits // sector_bits) - (-end // sector_bits) - begin // sector_bits
    )
    return sectors


def in_sectors(traffic: Traffic, costs: Sequence[PageCost]) -> Traffic:
    """The traffic with the bytes that whole sectors bring along; elements stay."""
    known: Mapping[str, PageCost] = {cost.tensor: cost for cost in costs}
    return Traffic(tuple(known[m.tensor].padded(m) if m.tensor in known else m for m in traffic.moved))


def page_note(kernel: str, costs: Sequence[PageCost]) -> tuple[str, ...]:
    """What a page costs, in words; none where nothing is paged."""
    each = [
        f"{cost.tensor} {cost.page_sectors} x {cost.sector_bytes} B sectors, {cost.page_unused_bits / 8:g} B unused"
        for cost in costs
    ]
    what = "; bytes at l2 and hbm are those of whole sectors" if any(cost.wasted_bits for cost in costs) else ""
    return (f"{kernel}: a page of one head takes {', '.join(each)}{what}",) if each else ()


Walk = tuple["NDArray[np.int64]", "NDArray[np.int64]", "NDArray[np.int64]", int]


def _walks(schedule: Schedule, page: int) -> list[Walk]:
    """(visits of each KV tile, its first row within a page, its keys, how often such a head occurs)."""
    tiling, shape = schedule.tiling, schedule.problem.shape
    return [
        (*_columns(part, tiling, page), times * shape.batch * heads // tiling.group)
        for mask, heads in schedule.problem.masks()
        for part, times in mask.sequences()
    ]


def _columns(mask: Mask, tiling: Tiling, page: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    import numpy as np

    visits = mask.visits(tiling)
    size = len(visits.kv_cols) + 1
    change = np.bincount(visits.start, minlength=size) - np.bincount(visits.stop, minlength=size)
    return np.cumsum(change)[:-1], visits.kv_firsts(tiling.cols) % page, visits.kv_cols
