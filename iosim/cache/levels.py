"""Replays touch lists at the coarsest level that is exact, and says which it was.

| level | rests on | holds for |
|---|---|---|
| copies | copies on lines of their own do not meet | lru and opt, all capacities; opt-bypass; fifo without writes |
| run stack | lines streamed in the order of the stack have one distance | lru, all capacities |
| atoms | the same, for intervals that every touch streams whole | lru, all capacities |
| super-lines | g divides every start and length | lru, all capacities; fifo and opt-bypass if g divides the capacity |
| set classes | g divides every start, every length and the number of sets | set-assoc, not hashed |
| lines | nothing | everything |

docs/explanation/cache.md has statements and proofs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from iosim.cache.atomic import atom_curve
from iosim.cache.counts import CacheCounts
from iosim.cache.curve import CurveReplay, LruCurve
from iosim.cache.future import Future
from iosim.cache.optimal import OptCurve, opt_curve
from iosim.cache.placement import set_count
from iosim.cache.policies import Policy, set_parameters
from iosim.cache.replays import checked_capacity
from iosim.cache.runstack import run_stack_curve
from iosim.trace.accesses import WRITE
from iosim.trace.dense import COUNT_LIMIT, DIRECT_LIMIT
from iosim.trace.granularity import atoms, coarsened, copies_of, divisor, folded
from iosim.trace.touches import Touches, exact_sum

#: atom touches up to which renaming and merging is tried: some 100 bytes each for a while
FOLD_LIMIT = 1 << 23
#: measured cost of one atom touch in accesses to lines or super-lines
ATOM_COST = 6


def lru_curve(touches: Touches) -> LruCurve:
    """LRU at every capacity, of all copies.

    Costs: 1 us per touch after merging (run stack), 20 ns per atom touch, 3 to 40 ns per super-line or line.
    """
    block = copies_of(touches)
    g = divisor(block)
    units = coarsened(block, g)
    return _one_copy(units.without_copies(), g).times(block.copies)


def _one_copy(units: Touches, g: int) -> LruCurve:
    cut = atoms(units)
    if cut.touched <= FOLD_LIMIT:
        curve = run_stack_curve(folded(units, cut), g)
        if curve is not None:
            return curve
    if cut.touched * ATOM_COST < exact_sum(units.length):
        return atom_curve(units, cut, g)
    return _unit_curve(units, g)


def _unit_curve(units: Touches, g: int) -> LruCurve:
    state = CurveReplay(g, direct_limit_for(units))
    for chunk in units.expand():
        state.feed(chunk)
    return state.finish()


def touch_counts(touches: Touches, policy: Policy, capacity_lines: int) -> CacheCounts:
    """Counts under any policy at one capacity, of all copies.

    Raises:
        UsageError: an impossible capacity, or ways that do not divide it.
    """
    capacity = checked_capacity(capacity_lines)
    if policy.name == "lru":
        return lru_curve(touches).at(capacity)
    g = granule(touches, policy, capacity)
    block, copies = _alone(touches, policy)
    counts = _replay(coarsened(block, g), policy, capacity // g)
    return _repeated(counts, copies).scaled(g, capacity, _method(copies, g, policy))


def opt_touches_curve(touches: Touches) -> OptCurve:
    """Belady's MIN at every capacity, of all copies: 0.6 us per line access of items one after another."""
    block = copies_of(touches)
    alone = block.without_copies()
    with Future(direct_limit_for(alone)) as future:
        for chunk in alone.expand():
            future.feed(chunk)
        return replace(opt_curve(future), copies=block.copies)


def granule(touches: Touches, policy: Policy, capacity_lines: int) -> int:
    """Lines per super-line at which a policy other than lru is exact; 1 where only lines are."""
    if policy.name in ("fifo", "opt-bypass"):
        return divisor(touches, capacity_lines)
    if policy.name == "set-assoc":
        ways, hashed = set_parameters(policy.parameter)
        return 1 if hashed else divisor(touches, set_count(capacity_lines, ways))
    return 1


def direct_limit_for(touches: Touches) -> int:
    """Ids that may index tables directly: those of the list, if it touches a good part of its extent."""
    dense = touches.extent * touches.copies <= 4 * min(touches.accesses, COUNT_LIMIT)
    return touches.base + touches.extent * touches.copies + 1 if dense and touches.base < COUNT_LIMIT else DIRECT_LIMIT


def _alone(touches: Touches, policy: Policy) -> tuple[Touches, int]:
    """The part to replay, and how often its counts are to be taken."""
    if policy.name in ("opt", "opt-bypass") or (policy.name == "fifo" and not np.any(touches.flags & WRITE)):
        block = copies_of(touches)
        return block.without_copies(), block.copies
    return touches, 1


def _replay(touches: Touches, policy: Policy, capacity: int) -> CacheCounts:
    state = policy.replay(capacity, direct_limit_for(touches))
    for chunk in touches.expand():
        state.feed(chunk)
    return state.finish()


def _repeated(counts: CacheCounts, copies: int) -> CacheCounts:
    """Counts of copies that run one after another: what ends dirty is written back, but for the last copy's."""
    if copies == 1:
        return counts
    total = counts.scaled(copies, counts.capacity_lines, counts.method)
    written = total.write_backs + total.dirty_at_end - counts.dirty_at_end
    return replace(total, write_backs=written, dirty_at_end=counts.dirty_at_end)


def _method(copies: int, g: int, policy: Policy) -> str:
    level = "lines" if g == 1 else f"set classes of {g}" if policy.name == "set-assoc" else f"super-lines of {g}"
    return level if copies == 1 else f"{copies} copies of {level}"
