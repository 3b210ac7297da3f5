"""Launches that go over tensors row by row, a strip of rows per item: what frameworks run between the products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from iosim.attention import Attention
from iosim.kernels.algorithm import Call
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work

#: bits of a truth value: masks and what dropout kept are bytes
TRUTH_BITS = 8


def tensor_bits(problem: Attention, tensor: str) -> int:
    """Bits of one element of a tensor that only unfused attention has: copies are as wide as what they copy.

    M (which scores count) and Z (which probabilities dropout kept; Dao et al. 2022, appendix B.3) are bytes;
    gradients of scores are as wide as scores.
    """
    base = tensor.split("_")[0]
    if base in ("M", "Z"):
        return TRUTH_BITS
    return problem.types.bits({"dP": "P", "dS": "S", "dQKV": "dQ"}.get(base, base))


@dataclass(frozen=True, slots=True)
class Strip:
    """One tensor of an elementwise launch."""

    tensor: str
    """its name"""
    width: int
    """elements of one row"""
    write: bool = False
    """written, not read"""
    times: int = 1
    """how often each strip of it is read"""
    share: int = 1
    """consecutive heads of the launch that use one head of it"""
    one_row: bool = False
    """its only row belongs to every row of the others"""


def elementwise(
    call: Call, name: str, heads: int, rows: int, size: int, strips: Sequence[Strip], exp: int = 0
) -> Launch:
    """One strip of `size` rows of one head per item: all reads, then all writes.

    Args:
        heads: heads over the batch. rows: rows of one head. exp: exponentials of the launch.
    """
    tiles = -(-rows // size)
    counts: dict[str, list[int]] = {}
    for strip in strips:
        per_head = (tiles if strip.one_row else rows) * strip.width * strip.times
        counts.setdefault(strip.tensor, [0, 0])[strip.write] += heads * per_head
    traffic = Traffic(tuple(Moved(t, tensor_bits(call.problem, t), *count) for t, count in counts.items()))

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, tiles)
        at = tile * size, min(size, rows - tile * size)

        def touch(strip: Strip) -> Touch:
            return Touch(strip.tensor, head // strip.share, *((0, 1) if strip.one_row else at), strip.write)

        for again in range(max(strip.times for strip in strips)):
            yield tuple(touch(strip) for strip in strips if not strip.write and again < strip.times)
        yield tuple(touch(strip) for strip in strips if strip.write)

    program = Program(heads, tiles, {strip.tensor: strip.width for strip in strips}, steps)
    return Launch(name, program.items, traffic, Work(exp=exp), program)
