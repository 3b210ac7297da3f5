"""What an algorithm is, its parameters, and the sums over visited tiles that its counts are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from iosim.attention import Attention
from iosim.errors import UsageError, did_you_mean
from iosim.exact import decide
from iosim.masks import Band, TileSums, Tiling
from iosim.masks.band_tiles import BandTiles
from iosim.schedule import Launch, Moved, Work, WorkingSet

Setting = int | bool | str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an algorithm."""

    name: str
    """as typed after --set"""
    default: Setting
    """an integer default below `least` means: the algorithm chooses"""
    meaning: str
    """with its unit"""
    least: int = 0
    """smallest integer allowed"""
    most: int | None = None
    """largest integer allowed; None: what fits"""
    choices: tuple[str, ...] = ()
    """allowed words of a text parameter"""

    def read(self, value: object, where: str) -> Setting:
        """A typed or given value as this parameter's type.

        Raises:
            UsageError: the wrong type or out of range.
        """
        if isinstance(self.default, bool):
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            if isinstance(value, bool) or str(value).lower() in words:
                return value if isinstance(value, bool) else words[str(value).lower()]
            raise UsageError(f"{self.name} is true or false, got {value!r}", where)
        if isinstance(self.default, int):
            return self._whole(value, where)
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} has no choice {value!r}", where, did_you_mean(str(value), self.choices))
        return str(value)

    def _whole(self, value: object, where: str) -> int:
        text = str(value)
        if isinstance(value, bool) or not text.lstrip("+-").isdigit() or len(text) > 12:
            raise UsageError(f"{self.name} needs a whole number, got {value!r}", where)
        upward = f"from {self.least}" if self.most is None else f"{self.least} to {self.most}"
        if int(text) < self.least:
            raise UsageError(
                f"{self.name} must be at least {self.least}, got {text}", where, f"{upward}: {self.meaning}"
            )
        if self.most is not None and int(text) > self.most:
            raise UsageError(f"{self.name} must be at most {self.most}, got {text}", where, f"{upward}: {self.meaning}")
        return int(text)


@dataclass(frozen=True, slots=True)
class Call:
    """One algorithm applied to one problem, every choice made."""

    problem: Attention
    """what to compute"""
    tiling: Tiling
    """tile extents; `group` > 1 when query heads are packed into rows"""
    settings: Mapping[str, Setting]
    """every parameter of the algorithm"""
    cores: int = 1
    """cores that work at once: the device's, or one"""
    private: tuple[tuple[str, int], ...] = ()
    """a core's own caches where only caches hold a tile (a CPU): name and bytes, nearest first"""
    neighbours: int = 1
    """cores that share one instance of the last cache"""

    def number(self, name: str) -> int:
        """An integer parameter, or a column of it over many problems."""
        value = self.settings[name]
        return int(value) if isinstance(value, (int, str)) else value

    def flag(self, name: str) -> bool:
        """A true-or-false parameter."""
        return bool(self.settings[name])


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A family of kernels with one loop structure."""

    name: str
    """registry name"""
    title: str
    """as a reader would cite it"""
    source: str
    """paper or code"""
    algorithm_class: str
    """standard: forms each score as its own sum; standard-once: each multiply-add exactly once"""
    phases: tuple[str, ...]
    """phases it computes"""
    parameters: tuple[Parameter, ...]
    """what --set may change"""
    launches: Callable[[Call], tuple[Launch, ...]]
    """the grid launches with exact counts"""
    working_set: Callable[[Call], WorkingSet]
    """fast memory of one work item"""
    packs: bool = True
    """whether the query heads of a group can share the rows of a tile"""
    varlen: bool = False
    """whether the sequences of a batch may have lengths of their own"""
    square: bool = False
    """its tiles are square, of any extent"""
    limit: Callable[[Call], tuple[int, int]] = lambda call: (call.tiling.rows, call.tiling.cols)
    """most rows and keys of a tile that it takes, whatever fits"""
    notes: Callable[[Call], tuple[str, ...]] = lambda call: ()
    """what a reader of its numbers must know"""
    model: Callable[[Call], str] = lambda call: ""
    """the model behind its counts where a core's caches decide them; empty: exact"""
    chosen: Callable[[Call], Mapping[str, Setting]] = lambda call: {}
    """parameters that leave the choice to it -> what it chose"""

    def settings(self, *given: Mapping[str, object], where: str = "--set") -> dict[str, Setting]:
        """Defaults overridden by each mapping in turn.

        Raises:
            UsageError: a parameter it does not have, or a value that does not fit.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        chosen: dict[str, Setting] = {name: parameter.default for name, parameter in known.items()}
        for mapping in given:
            for name, value in mapping.items():
                if name not in known:
                    raise UsageError(f"{self.name} has no parameter {name!r}", where, did_you_mean(name, known))
                chosen[name] = known[name].read(value, where)
        return chosen


ALGORITHMS: dict[str, Algorithm] = {}


def register(algorithm: Algorithm) -> Algorithm:
    """Add an algorithm to the registry; others may call this too."""
    ALGORITHMS[algorithm.name] = algorithm
    return algorithm


#: parameters that every flash-like algorithm shares
LSE = Parameter("lse", True, "write one fp32 log-sum-exp word per row")
STAGES = Parameter("stages", 1, "K/V tiles in shared memory at once", least=1)
MMA_ROWS = Parameter("mma_rows", 64, "rows that share one read of a K/V operand from shared memory", least=1)


@lru_cache(maxsize=32)
def total_sums(problem: Attention, tiling: Tiling) -> TileSums:
    """Tile sums over batch and all heads (`longest`: the longest of all), kept for the launches of one schedule.

    Packed heads (`tiling.group` > 1) share the rows of a tile, so one packed problem stands for a group.
    """
    total: TileSums | None = None
    for mask, heads in problem.masks():
        if decide(heads % tiling.group != 0):
            raise UsageError("query heads of one group have different masks and cannot be packed", "--pack-gqa")
        part = mask.sums(tiling).repeated(problem.shape.batch * heads // tiling.group)
        total = part if total is None else total.plus(part)
    assert total is not None
    return total


def longest_walk(problem: Attention, tiling: Tiling) -> int:
    """Most KV tiles that one Q tile visits: of a band in closed form, so that a fit counts no call."""
    return max(
        BandTiles(mask, tiling).longest if isinstance(mask, Band) and tiling.flat else mask.sums(tiling).longest
        for mask, _ in problem.masks()
    )


def head_sums(call: Call) -> TileSums:
    """Tile sums of the first head; every head has as many Q and KV tiles."""
    return call.problem.masks()[0][0].sums(call.tiling)


def moved(problem: Attention, tensor: str, read: int = 0, write: int = 0) -> Moved:
    """Elements of one tensor with the width the problem gives it."""
    return Moved(tensor, problem.types.bits(tensor), read, write)


def visited_work(problem: Attention, sums: TileSums, mma_rows: int, delivered: Iterable[Moved]) -> Work:
    """Arithmetic of a flash-like forward pass over the visited tiles.

    Shared memory: Q, K and V operands are read per tile, K and V once per `mma_rows` rows of all tiles together
    (FlashAttention-4 section 3 counts the same for one 128 x 128 tile: 96 KiB), and every word of Q, K and V that is
    `delivered` is written once.
    """
    shape, bits = problem.shape, problem.types.bits
    q_bits, kv_bits = shape.head_dim * bits("Q"), shape.head_dim * bits("K") + shape.head_dim_v * bits("V")
    operands = sums.query_rows * q_bits + -(-sums.area // mma_rows) * kv_bits
    copied = sum(moved.read_elements * moved.bits for moved in delivered if moved.tensor in ("Q", "K", "V"))
    return Work(
        tile_pairs=sums.tile_pairs,
        flop=problem.flop(),
        flop_executed=2 * problem.pair_elements * sums.area,
        exp=sums.area,
        exp_rescale=sums.query_rows,
        shared_bytes=(operands + copied) // 8,
    )
