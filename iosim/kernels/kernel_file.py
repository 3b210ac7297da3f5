"""Named kernels: an algorithm with the tiles and settings that real code chooses, read from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile

from iosim.attention import Attention, Types
from iosim.errors import UsageError
from iosim.kernels.algorithm import Algorithm, Setting
from iosim.kernels.head_sizes import ANY, OWN_TILE, HeadSizes, spelled
from iosim.machine import Device
from iosim.masks import Band, Tiling


@dataclass(frozen=True, slots=True)
class TileRule:
    """A tile and when the kernel uses it; the first rule that matches holds."""

    tiling: Tiling
    """tile extents"""
    settings: Mapping[str, Setting]
    """parameters that go with it"""
    head_dim: int = 0
    """largest head size; 0: any"""
    head_dim_v: int = 0
    """largest value head size; 0: any"""
    exact: bool = False
    """these head sizes only: none below them; a head_dim_v that is not named is head_dim"""
    architectures: tuple[str, ...] = ()
    """device architectures; none named: any"""
    capabilities: tuple[str, ...] = ()
    """compute capabilities; none named: any"""
    masks: tuple[str, ...] = ()
    """full | causal | local | other; none named: any"""
    rows: int = 0
    """most query rows of a KV head's group, queries x heads of the group; 0: any"""
    queries: int = 0
    """most queries of a sequence; 0: any"""
    bits: int = 0
    """widest query element in bits; 0: any"""
    packs: bool = False
    """packs the query heads of a group in prefill too"""
    unpacked: bool = False
    """packs no heads, not even in decode"""
    absent: bool = False
    """the kernel has no code for this"""
    assumed: bool = False
    """not from the kernel's own table"""
    note: str = ""
    """why"""

    def matches(self, problem: Attention, device: Device | None) -> bool:
        """Whether this rule speaks of the problem on the device (none: any device)."""
        shape = problem.shape
        fits = self._fits_head(shape.head_dim, shape.head_dim_v)
        fits = fits and (not self.rows or problem.n_q * shape.group <= self.rows)
        fits = fits and (not self.queries or problem.n_q <= self.queries)
        fits = fits and (not self.bits or problem.types.bits("Q") <= self.bits)
        if not fits or (self.masks and mask_kind(problem) not in self.masks):
            return False
        return not self.absent if device is None else self.speaks_of(device)

    @property
    def general(self) -> bool:
        """Whether the kernel's code has it on every device."""
        return not (self.architectures or self.capabilities or self.assumed)

    def speaks_of(self, device: Device) -> bool:
        """Whether this rule holds on the device for some problem."""
        return (not self.architectures or device.architecture in self.architectures) and (
            not self.capabilities or device.compute_capability in self.capabilities
        )

    def _fits_head(self, head_dim: int, head_dim_v: int) -> bool:
        if self.exact:
            return (head_dim, head_dim_v) == (self.head_dim, self.head_dim_v or self.head_dim)
        return (not self.head_dim or head_dim <= self.head_dim) and (
            not self.head_dim_v or head_dim_v <= self.head_dim_v
        )


@dataclass(frozen=True, slots=True)
class KernelFile:
    """A named kernel."""

    name: str
    """catalogue name"""
    title: str
    """for people"""
    algorithm: Algorithm
    """its loop structure"""
    source: str
    """code or paper that the tiles come from"""
    rules: tuple[TileRule, ...]
    """tiles, first match wins"""
    parameters: Mapping[str, Setting] = field(default_factory=dict)
    """settings that differ from the algorithm's defaults"""
    packs: bool = False
    """packs the query heads of a group in prefill too, unless told otherwise"""
    decode: str = ""
    """the kernel of the same code base that computes decode, where it is another one"""
    types: tuple[str, ...] = ()
    """element types of the queries that its code has; none named: any"""
    kv_types: tuple[str, ...] = ()
    """element types of keys and values, where they may differ from the queries'"""
    heads: HeadSizes = ANY
    """head sizes that its code is compiled for"""
    fixed: tuple[str, ...] = ()
    """settings that its code does not let a caller change"""
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """device architecture that the code does not run on -> kernels that do"""
    absent: str = ""
    """why it does not run there"""
    device: str = ""
    """the device that stands for its machines where nobody names one; empty: the usual one"""
    note: str = ""
    """what of the released code is counted, and what is not"""

    def check_types(self, wanted: Types) -> None:
        """Refuses element types that the kernel's code does not have.

        Raises:
            UsageError: names the types that it has.
        """
        if not self.types:
            return
        if wanted.q not in self.types:
            raise UsageError(
                f"{self.name} does not compute in {wanted.q}", "--dtype", f"it computes in {' and '.join(self.types)}"
            )
        if wanted.kv != wanted.q and wanted.kv not in self.kv_types:
            known = ", ".join(self.kv_types) or "those of the queries only"
            raise UsageError(
                f"{self.name} does not read {wanted.kv} keys and values", "--kv-dtype", f"it reads {known}"
            )

    def rule(self, problem: Attention, device: Device | None) -> TileRule:
        """The tile that this kernel uses for a problem: without a device one of its code for any, before one for some.

        Raises:
            UsageError: the kernel has no tile for this head size, mask or device.
        """
        self.heads.check(self.name, problem)
        speaking = [rule for rule in self.rules if rule.matches(problem, device)]
        rule = next(iter([rule for rule in speaking if device is None and rule.general] or speaking), None)
        if rule and not rule.absent:
            return rule
        what = f"{self.name} has no tile for head size {spelled(problem.shape.head_dim, problem.shape.head_dim_v)}"
        what += f" and {mask_kind(problem)} masks" if rule and rule.masks else ""
        raise UsageError(what + (f" on {device.name}" if device else ""), "--kernel", self._remedy(device))

    def _remedy(self, device: Device | None) -> str:
        """What has a tile: other devices, or other head sizes."""
        named = {name for rule in self.rules for name in rule.architectures}
        if device and all(rule.architectures for rule in self.rules) and device.architecture not in named:
            own = f", for example --device {self.device}" if self.device else ""
            return f"its tiles are for {', '.join(sorted(named))}{own}; or give one with --tile"
        speaking = [rule for rule in self.rules if device is None or rule.speaks_of(device)]
        reached = takewhile(lambda rule: device is None or not rule.absent or rule.head_dim, speaking)
        there = [rule for rule in reached if rule.head_dim and not rule.absent]
        exact = sorted({(rule.head_dim, rule.head_dim_v or rule.head_dim) for rule in there if rule.exact})
        known = [f"up to {max((rule.head_dim for rule in there if not rule.exact), default='none')}"]
        return f"its head sizes are {' and '.join(known + [spelled(*size) for size in exact])}; {OWN_TILE}"

    def check_fixed(self, given: Mapping[str, object], own: Mapping[str, Setting]) -> None:
        """Refuses a typed setting that differs from what the code has.

        Args:
            own: settings of the file and of the tile in use.
        Raises:
            UsageError: names the value that it has.
        """
        for name in self.fixed:
            if name in given and name in own and str(given[name]) != str(own[name]):
                hint = f"it has {name}={own[name]}; {OWN_TILE}"
                raise UsageError(f"{self.name} has no {name}={given[name]}", f"--set {name}", hint)


def mask_kind(problem: Attention) -> str:
    """full | causal | local | other: how a kernel's tile table tells masks apart."""
    kinds = set()
    for mask in (part for own, _ in problem.masks() for part, _ in own.sequences()):
        if not isinstance(mask, Band):
            kinds.add("other")
        elif mask.left is None:
            kinds.add("full" if mask.right is None else "causal")
        else:
            kinds.add("local")
    return kinds.pop() if len(kinds) == 1 else "other"
