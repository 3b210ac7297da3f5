"""What a measurement covers: the forward pass, the backward one or both, with dropout or without."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """Passes of a call, as training benchmarks time them."""

    forward: bool = True
    """the forward pass is timed"""
    backward: bool = False
    """the backward pass is timed"""
    dropout: bool = False
    """probabilities are dropped at random"""
    padding: bool = False
    """keys beyond each sequence's length are masked"""
    whole_heads: bool = False
    """an item is a whole head: FlashAttention-1 as first released (2022), which did not cut heads over the cores"""

    def __str__(self) -> str:
        passes = "backward" if not self.forward else "forward and backward" if self.backward else "forward"
        more = [name for name, set_ in (("dropout", self.dropout), ("padding", self.padding)) if set_]
        return ", ".join([passes, *more])


FORWARD = Work()
BACKWARD = Work(forward=False, backward=True)
