"""What a device hands to the others for them to go on from its tokens: the states of linear attention's kernels.

Words per sequence and key/value head, f features, w gate words per token, x one with a normaliser:
    sums of keys and values      state f (d_v + x), decay w (the product of a shard's gates, as a sum of logarithms)
    delta rule                   state d d_v, transition d d (the product of a shard's gated I - beta k^T k)
    selective scan               state d d_v, decay d_v (the sum of a shard's Delta; all devices have A)
Each device's tokens turn the state S before them into A S + B with A and B of these words, so those of all shards
before its own, gathered once, give a device the state that it starts from. FlashConv's state is its state-space
model's, of another size for each filter: it is not counted.
Sources: Sun et al. 2025, LASP-2 (arXiv 2502.07563) section 3; Blelloch 1990, Prefix sums, for linear recurrences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from iosim.errors import UsageError
from iosim.kernels import Call
from iosim.kernels.linear_parts import chunks_of, is_causal
from iosim.links.way import Step, Way, busier_bytes
from iosim.schedule import Moved, Schedule, Traffic

COMPOSED = "a device composes the transitions of the shards before its own, whose FLOP are not counted"
PREFIX = "every device has the keys and values of the prefix and adds their state itself"


def gathered(way: Way, schedules: Sequence[Schedule]) -> Way:
    """A gather of states with those that the kernels of a report keep; any other way as it is.

    Args:
        schedules: of one device's own tokens.
    Raises:
        UsageError: a kernel whose state is not handed on so, or kernels whose states differ.
    """
    if way.name != "state-gather":
        return way
    kept = {schedule.kernel: state_words(schedule) for schedule in schedules}
    first, *others = kept
    if differs := [name for name in others if kept[name] != kept[first]]:
        what = f"{first} and {differs[0]} hand on states of different sizes, and a report has one link"
        raise UsageError(what, "--kernel", f"one at a time, for example {first}")
    traffic = traffic_of(schedules[0], kept[first], way.devices)
    notes = [COMPOSED] if "transition" in kept[first] else []
    notes += [PREFIX] if any(schedule.parameters.get("prefix") for schedule in schedules) else []
    return replace(
        way,
        traffic=(traffic,) * way.devices,
        steps=(Step(1.0, busier_bytes(traffic)),),
        told=replace(way.told, notes=(*way.told.notes, *notes)),
    )


def traffic_of(schedule: Schedule, words: dict[str, int], devices: int) -> Traffic:
    """Each device receives the words of all others, and all others receive its own; in the statistics' type."""
    shape, bits = schedule.problem.shape, schedule.problem.types.bits
    times = shape.batch * shape.kv_heads * (devices - 1)
    return Traffic(tuple(Moved(name, bits(name), times * count, times * count) for name, count in words.items()))


def state_words(schedule: Schedule) -> dict[str, int]:
    """Tensor -> words of one key/value head that a device's tokens are to those after them.

    Raises:
        UsageError: a kernel whose state is not handed on so, or gates under a mask that is not causal.
    """
    shape, name = schedule.problem.shape, schedule.algorithm
    state = shape.head_dim * shape.head_dim_v
    if name == "delta-rule":
        return {"state": state, "transition": shape.head_dim**2}
    if name == "selective-scan":
        return {"state": state, "decay": shape.head_dim_v}
    if name not in ("lightning1", "lightning2", "chunk-states"):
        what = f"{schedule.kernel} does not hand on its state in one gather that is counted"
        raise UsageError(what, "--kernel", "for example lightning2, gla, delta-rule")
    cut = chunks_of(Call(schedule.problem, schedule.tiling, schedule.parameters))  # type: ignore[arg-type]
    if cut.gate and not is_causal(schedule.problem):
        raise UsageError("gates forget the tokens before: they need an order", "--mask", "causal")
    return {"state": cut.features * (shape.head_dim_v + cut.extra)} | ({"decay": cut.gate} if cut.gate else {})
