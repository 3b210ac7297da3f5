"""The command line's mask notation, and the registry of masks.

    NAME[:value][,key=value...]     causal   window:4096,sink=4   gna:window=18x24x24,stride=16x8x8
    and(M;M...)  or(M;M...)  not(M)
    heads(2*M;6*M)           masks for parts of the heads: here a quarter and three quarters, in order

A mask is registered with a builder from its arguments and the layouts; others may add to `MASKS`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib import import_module

from iosim.errors import UsageError, did_you_mean
from iosim.masks.mask import Mask
from iosim.masks.tiling import Grid

_HEAD = re.compile(r"([a-z][a-z0-9-]*)(?::(.*))?$", re.DOTALL)
_COMBINED = re.compile(r"(and|or|not|heads)\((.*)\)$", re.DOTALL)
_SHARE = re.compile(r"(?:(\d{1,4})\*)?(.*)$", re.DOTALL)
MAX_BRACKETS = 64  # deeper nesting is a mistake, and recursion has an end


@dataclass(frozen=True, slots=True)
class MaskSpec:
    """A mask as written, not yet bound to lengths."""

    name: str
    """registered name, or and | or | not | heads"""
    value: str = ""
    """the part after the colon that has no `=`"""
    options: dict[str, str] = field(default_factory=dict)
    """the `key=value` parts"""
    children: tuple[MaskSpec, ...] = ()
    """the operands of and | or | not | heads"""
    where: str = "--mask"
    """where it was written, for messages"""
    share: int = 1
    """parts of the heads that have it, inside heads(...)"""

    def __str__(self) -> str:
        if self.children:
            shared = (f"{child.share}*{child}" if child.share > 1 else str(child) for child in self.children)
            return f"{self.name}({';'.join(shared)})"
        parts = ([self.value] if self.value else []) + [f"{k}={v}" for k, v in self.options.items()]
        return self.name + (":" + ",".join(parts) if parts else "")

    def only(self, *known: str, value: bool = False) -> None:
        """Refuse options (and a value) that this mask does not have."""
        if self.value and not value:
            raise UsageError(f"mask {self.name!r} takes no bare value, got {self.value!r}", self.where)
        for option in self.options:
            if option not in known:
                hint = did_you_mean(option, known) if known else f"{self.name!r} takes no options"
                raise UsageError(f"mask {self.name!r} has no option {option!r}", self.where, hint)

    def number(self, option: str = "", default: int | None = None, least: int = 0) -> int:
        """A whole number: the value when `option` is empty, else that option."""
        text = self.options.get(option, "") if option else self.value
        if not text and default is not None:
            return default
        label = f"{option} of {self.name}" if option else self.name
        if not re.fullmatch(r"[+-]?\d{1,18}", text):
            raise UsageError(f"{label} needs a whole number, got {text!r}", self.where, self._such_as(option, "64"))
        if int(text) < least:
            hint = self._such_as(option, str(max(least, 64)))
            raise UsageError(f"{label} must be at least {least}, got {text}", self.where, hint)
        return int(text)

    def fraction(self, option: str = "", default: float | None = None) -> float:
        """A number above 0 and at most 1: the value when `option` is empty, else that option."""
        text = self.options.get(option, "") if option else self.value
        if not text and default is not None:
            return default
        label = f"{option} of {self.name}" if option else self.name
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 < number <= 1:
            raise UsageError(f"{label} must be above 0 and at most 1, got {text!r}", self.where)
        return number

    def flag(self, option: str) -> bool:
        """An option that is 0 (the default) or 1."""
        text = self.options.get(option, "0")
        if text not in ("0", "1"):
            raise UsageError(f"{option} of {self.name} is 0 or 1, got {text!r}", self.where)
        return text == "1"

    def extents(self, option: str = "", default: tuple[int, ...] | None = None, least: int = 1) -> tuple[int, ...]:
        """Extents per axis, joined by x: the value when `option` is empty, else that option."""
        text = self.options.get(option, "") if option else self.value
        if not text and default is not None:
            return default
        label = f"{option} of {self.name}" if option else self.name
        if not re.fullmatch(r"\d{1,12}(x\d{1,12})*", text):
            raise UsageError(f"{label} needs extents such as 18x24x24, got {text!r}", self.where)
        numbers = tuple(int(part) for part in text.split("x"))
        if min(numbers) < least:
            hint = self._such_as(option, "x".join(["8"] * len(numbers)))
            raise UsageError(f"{label} must be at least {least} on every axis, got {text}", self.where, hint)
        return numbers

    def _such_as(self, option: str, value: str) -> str:
        """How the value or an option of this mask is written."""
        return f"such as {option}={value}" if option else f"such as {self.name}:{value}"


def parse_mask(text: str, where: str = "--mask") -> MaskSpec:
    """Read a mask in the command line's notation.

    Raises:
        UsageError: an unknown name, unbalanced brackets, or a part that is not `key=value`.

    >>> str(parse_mask("and(causal;not(window:64))"))
    'and(causal;not(window:64))'
    """
    text = text.strip()
    if text.count("(") > MAX_BRACKETS:
        raise UsageError(f"more than {MAX_BRACKETS} brackets in a mask", where)
    if combined := _COMBINED.match(text):
        children = tuple(_child(part, combined[1], where) for part in _split(combined[2], where))
        if combined[1] == "not" and len(children) != 1:
            raise UsageError(f"not(...) takes one mask, got {len(children)}", where)
        return MaskSpec(combined[1], children=children, where=where)
    head = _HEAD.match(text)
    if not head:
        raise UsageError(f"{text!r} is not a mask", where, "write NAME, NAME:value or and(M;M)")
    if head[1] not in MASKS:
        raise UsageError(f"unknown mask {head[1]!r}", where, did_you_mean(head[1], MASKS))
    value, options = "", {}
    for index, part in enumerate(head[2].split(",") if head[2] is not None else ()):
        option, equals, content = part.partition("=")
        if equals and re.fullmatch(r"[a-z][a-z0-9_-]*", option):
            if option in options:
                raise UsageError(f"{option} of mask {head[1]!r} is given twice", where)
            options[option] = content
        elif index == 0:
            value = part
        else:
            raise UsageError(f"{part!r} of mask {head[1]!r} is not key=value", where)
    return MaskSpec(head[1], value, options, where=where)


def _child(text: str, operator: str, where: str) -> MaskSpec:
    """An operand; inside heads(...) it may begin with its share of the heads."""
    share = _SHARE.match(text.strip())
    if operator != "heads" or share is None or share[1] is None:
        return parse_mask(text, where)
    if int(share[1]) < 1:
        raise UsageError(f"a share of {share[1]} heads in {text!r}", where, "leave the mask out")
    return replace(parse_mask(share[2], where), share=int(share[1]))


def _split(text: str, where: str) -> Iterable[str]:
    """Cut at the semicolons outside brackets."""
    depth, part = 0, ""
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
        if character == ";" and depth == 0:
            yield part
            part = ""
        else:
            part += character
    if depth != 0:
        raise UsageError(f"unbalanced brackets in {text!r}", where)
    yield part


def bind(spec: MaskSpec | str, grid: Grid) -> Mask:
    """The mask on these layouts.

    Raises:
        UsageError: an option is missing or does not fit the layouts.
    """
    if isinstance(spec, str):
        spec = parse_mask(spec)
    if spec.children:
        return _join(spec, [bind(child, grid) for child in spec.children])
    return MASKS[spec.name](spec, grid)


def _join(spec: MaskSpec, masks: list[Mask]) -> Mask:
    if spec.name != "heads":
        from iosim.masks.combined import combine

        return combine(spec.name, masks)
    from iosim.masks.head_mask import HeadMask

    shared = [mask for mask, child in zip(masks, spec.children, strict=True) for _ in range(child.share)]
    return HeadMask.pattern(masks[0].grid, shared, str(spec))


MaskBuilder = Callable[[MaskSpec, Grid], Mask]


def _from(module: str, builder: str) -> MaskBuilder:
    """A builder whose module is imported when the mask is used: most need numpy."""

    def build(spec: MaskSpec, grid: Grid) -> Mask:
        mask: Mask = getattr(import_module(f"iosim.masks.{module}"), builder)(spec, grid)
        return mask

    return build


#: name -> builder; `and`, `or` and `not` are part of the notation
MASKS: dict[str, MaskBuilder] = {
    "full": _from("band", "build_full"),
    "causal": _from("band", "build_causal"),
    "causal-top-left": _from("band", "build_causal_top_left"),
    "window": _from("band", "build_window"),
    "strided": _from("toeplitz", "build_strided"),
    "dilated": _from("toeplitz", "build_dilated"),
    "document": _from("grouped", "build_document"),
    "chunk": _from("grouped", "build_chunk"),
    "blocked": _from("grouped", "build_blocked"),
    "prefix": _from("global_tokens", "build_prefix"),
    "band": _from("band", "build_band"),
    "longformer": _from("global_tokens", "build_longformer"),
    "gna": _from("neighborhood", "build_gna"),
    "sta": _from("windows", "build_sta"),
    "swin": _from("windows", "build_swin"),
    "halo": _from("windows", "build_halo"),
    "axial": _from("windows", "build_axial"),
    "grid": _from("windows", "build_grid"),
    "circular": _from("circular", "build_circular"),
    "radial": _from("radial", "build_radial"),
    "s2": _from("sharded", "build_s2"),
    "longlora": _from("head_mask", "build_longlora"),
    "bigbird": _from("block_mask", "build_bigbird"),
    "file": _from("block_mask", "build_file"),
    "density": _from("block_mask", "build_density"),
    "py": _from("predicate", "build_predicate"),
}
