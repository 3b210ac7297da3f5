"""Numbers that count formulas are written over: Python ints, int64 arrays of many problems, and intervals.

A formula written with `+ - * // %` and the functions here says the same for one problem and for a million:
`least`, `most` and `choose` stand for min, max and a conditional expression, `decide` for `if`. Formulas are
annotated with int; whoever calls them with arrays answers for overflow, and `iosim.bulk` proves that there is none by
evaluating the same formula on intervals. numpy is loaded only when an array arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

#: the decisions of a formula in order, written down or read back
_script: ContextVar[Script | None] = ContextVar("script", default=None)


class MixedError(Exception):
    """A formula takes another way for some of the rows than for the others: `rows` holds the condition, row by row."""

    def __init__(self, rows: Any) -> None:
        super().__init__("rows go different ways")
        self.rows = rows


class OneByOneError(Exception):
    """A formula has no closed form here: these rows are counted one by one."""


class Script:
    """Decisions of one evaluation, in order, so that another evaluation of the same formula takes the same way."""

    def __init__(self) -> None:
        self.decisions: list[bool] = []
        self.replaying: Iterator[bool] | None = None

    def decide(self, condition: Any) -> bool:
        """The decision on a condition over rows or intervals.

        Raises:
            MixedError: it holds for some rows only.
        """
        if self.replaying is not None:
            return next(self.replaying)
        if hasattr(condition, "all"):
            made = bool(condition.all())
            if not made and condition.any():
                raise MixedError(condition)
        else:
            made = bool(condition)
        self.decisions.append(made)
        return made


@contextmanager
def recording(script: Script, replay: bool = False) -> Iterator[Script]:
    """Within, `decide` writes its decisions into the script, or takes them from it."""
    script.replaying = iter(script.decisions) if replay else None
    token = _script.set(script)
    try:
        yield script
    finally:
        _script.reset(token)


def decide(condition: object) -> bool:
    """A condition that formulas branch on: alike for all rows.

    >>> decide(3 > 2)
    True
    """
    script = _script.get()
    return bool(condition) if script is None else script.decide(condition)


def least(first: int, *others: int) -> int:
    """The smaller, element by element."""
    for other in others:
        first = (
            min(first, other)
            if isinstance(first, int) and isinstance(other, int)
            else _pairwise("minimum", first, other)
        )
    return first


def most(first: int, *others: int) -> int:
    """The larger, element by element."""
    for other in others:
        first = (
            max(first, other)
            if isinstance(first, int) and isinstance(other, int)
            else _pairwise("maximum", first, other)
        )
    return first


def choose(condition: object, yes: int, no: int) -> int:
    """`yes` where the condition holds, else `no`; both are computed.

    >>> choose(2 > 3, 5, 7)
    7
    """
    if isinstance(condition, bool):
        return yes if condition else no
    for each in (condition, yes, no):
        if not hasattr(each, "dtype") and (chosen := getattr(each, "choose", None)):
            return chosen(condition, yes, no)  # type: ignore[no-any-return]
    import numpy as np

    return np.where(condition, yes, no)  # type: ignore[call-overload, no-any-return]


def ceil_div(a: int, b: int) -> int:
    """a / b rounded up."""
    return -(-a // b)


def ceil_log2(value: int) -> int:
    """The smallest k with 2^k >= value, of a value of at least 1.

    >>> [ceil_log2(value) for value in (1, 2, 3, 8, 9)]
    [0, 1, 2, 3, 4]
    """
    if isinstance(value, int):
        return (value - 1).bit_length()
    if made := getattr(value, "ceil_log2", None):
        return made()
    import numpy as np

    return np.searchsorted(1 << np.arange(63), value)


def bounded(value: int, top: Callable[[], int]) -> int:
    """The value, of which the caller knows that it is from 0 to `top()`: intervals, which do not know, are told."""
    if not isinstance(value, int) and (told := getattr(value, "bounded", None)):
        return told(top())
    return value


def most_over(count: int, value: Callable[[int], int]) -> int:
    """The largest of value(0) .. value(count - 1), with count >= 1."""
    if isinstance(count, int):
        return max(map(value, range(count)))
    if made := getattr(count, "most_over", None):
        return made(value)
    best = value(0)
    for index in range(1, int(count.max())):
        best = choose(index < count, most(best, value(index)), best)
    return best


def up_to(count: int) -> range:
    """range(count), of the largest count."""
    if isinstance(count, int):
        return range(count)
    return range(int(getattr(count, "high", None) or count.max()))


def _pairwise(name: str, a: Any, b: Any) -> Any:
    for one, other in ((a, b), (b, a)):
        if not hasattr(one, "dtype") and (made := getattr(one, name, None)):
            return made(other)
    import numpy as np

    return getattr(np, name)(a, b)
