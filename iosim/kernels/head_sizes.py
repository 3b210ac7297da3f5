"""Head sizes that a kernel's code is compiled for: these alone, or others padded up to them."""

from __future__ import annotations

from dataclasses import dataclass

from iosim.attention import Attention
from iosim.catalog import Table
from iosim.errors import UsageError

OWN_TILE = "or give a tile with --tile"


@dataclass(frozen=True, slots=True)
class HeadSizes:
    """What a kernel's code asks of d and d_v. It speaks of the kernel's own tiles; a typed tile is another kernel's."""

    sizes: tuple[tuple[int, int], ...] = ()
    """(d, d_v) that the code is compiled for; none named: any"""
    row_bytes: int = 0
    """other sizes are padded up to `sizes` if a row of Q, K and V is a multiple of so many bytes; 0: they are not"""
    least: int = 0
    """smallest d and d_v"""
    latent: bool = False
    """computes only with V as a slice of K"""

    def check(self, kernel: str, problem: Attention) -> None:
        """Refuses head sizes that the code does not have.

        Raises:
            UsageError: names those that it has.
        """
        shape = problem.shape
        if self.latent and not shape.latent:
            hint = f"--latent, with head sizes {self._named()}; {OWN_TILE}"
            raise UsageError(f"{kernel} computes with V as a slice of K", "--kernel", hint)
        if wrong := self._wrong(problem):
            what = f"{kernel} has no tile for head size {spelled(shape.head_dim, shape.head_dim_v)}"
            raise UsageError(what, "--kernel", f"{wrong}; {OWN_TILE}")

    def _wrong(self, problem: Attention) -> str:
        """What the code has, if it does not have the problem's sizes."""
        given = problem.shape.head_dim, problem.shape.head_dim_v
        if min(given) < self.least:
            return f"its head sizes start at {self.least}"
        if not self.row_bytes:
            return "" if not self.sizes or given in self.sizes else f"its head sizes are {self._named()}"
        bits = problem.types.bits("Q")
        step = 8 * self.row_bytes // bits
        return f"its head sizes are multiples of {step}" if any(size % step for size in given) else ""

    def padding(self, problem: Attention) -> str:
        """The size that a padded problem runs in; empty where it is not padded."""
        given = problem.shape.head_dim, problem.shape.head_dim_v
        room = [size for size in self.sizes if size[0] >= given[0] and size[1] >= given[1]]
        if not room or given in self.sizes:
            return ""
        return spelled(*min(room, key=sum))

    def _named(self) -> str:
        return ", ".join(spelled(*size) for size in self.sizes)


#: every head size
ANY = HeadSizes()


def spelled(head_dim: int, head_dim_v: int) -> str:
    """As files and errors write sizes.

    >>> spelled(64, 64), spelled(192, 128)
    ('64', '192/128')
    """
    return str(head_dim) if head_dim == head_dim_v else f"{head_dim}/{head_dim_v}"


def read_head_sizes(table: Table) -> HeadSizes:
    """The `heads` table of a kernel file."""
    return HeadSizes(
        tuple(size for text in table.texts("sizes", default=()) if (size := _size(table, text))),
        table.integer("row_bytes", 0),
        table.integer("least", 0),
        table.flag("latent"),
    )


def _size(table: Table, text: str) -> tuple[int, int] | None:
    """`64`, or d and d_v as `192/128`."""
    parts = text.split("/")
    if len(parts) > 2 or not all(part.isdigit() and int(part) for part in parts):
        table.fault(f"{text!r} is no head size", "sizes", 'for example "64", or d and d_v as "192/128"')
        return None
    return int(parts[0]), int(parts[-1])
