"""Heads shared out, and the projected outputs added up: attention with an all-reduce of its tiles.

Each of P devices has H / P heads and the rows of the output projection that belong to them. Its product with W
columns is one summand of the layer's output, so the summands of all devices must be added: an all-reduce of N W words
per sequence. A ring adds S words in P chunks, reduce-scatter and then all-gather: a device sends every chunk but one,
twice, 2 (P - 1) / P S words, and receives as many. Cutting the rows into blocks changes no word, but lets the sum of
one block cross while the next is computed: with even blocks, compute c and link l,
    serial c + l,    overlapped  c / B + (B - 1) max(c, l) / B + l / B.
Sources: Lin et al. 2024, FastAttention, tiling-AllReduce (arXiv 2410.16663); Shoeybi et al. 2019, Megatron-LM (arXiv
1909.08053), for the shares; Patarasu and Yuan 2009, bandwidth optimal all-reduce: no algorithm that adds whole words
sends less.
"""

from __future__ import annotations

from iosim.attention import Attention
from iosim.errors import UsageError
from iosim.floors import compulsory_bytes
from iosim.links.least import CONDITIONS, projected
from iosim.links.sharding import heads_of_one, parts_of
from iosim.links.way import PLAIN, Least, Proven, Share, Step, Told, Way, busier_bytes, only, plain_mask, whole
from iosim.schedule import Moved, Traffic, bits_to_bytes

WHERE = "--exchange"
NOTES = (
    "the kernel is attention alone; the projection joins the expected time at the device's dense rate",
    "a ring all-reduce is the best of those that add whole words (Patarasu and Yuan 2009); `least` speaks of all",
)
SOURCE = "Lin et al. 2024, FastAttention, arXiv 2410.16663; Shoeybi et al. 2019, arXiv 1909.08053"


def tiling_all_reduce(problem: Attention, devices: int, settings: dict[str, str]) -> Way:
    """Attention, its output projection, and the all-reduce of the projected rows, block by block.

    Args:
        settings: `blocks`, row blocks whose all-reduce follows one another (8); `width`, columns of the projected
            output (heads x d_v).
    Raises:
        UsageError: heads that do not divide, a backward pass, more blocks than rows.
    """
    only(settings, ("blocks", "width"), "tiling-allreduce", WHERE)
    if problem.phase == "backward":
        raise UsageError("the backward pass of a projection is not counted", "--phase", "prefill or decode")
    share, shape = (
        heads_of_one(problem, devices, "fewer devices, or ring, which shares tokens out", True),
        problem.shape,
    )
    rows, width = shape.batch * problem.n_q, whole(settings, "width", shape.heads * shape.head_dim_v, WHERE)
    blocks = whole(settings, "blocks", min(8, rows), WHERE)
    if blocks > rows:
        raise UsageError(f"{rows} rows do not make {blocks} blocks", WHERE, "blocks=1 reduces all of them at once")
    bits = problem.types.bits("O")
    parts = [[part * width for _, part in parts_of(rows, blocks)]] * devices
    traffic = tuple(_ring(parts[0], device, devices, bits) for device in range(devices))
    largest = max(busier_bytes(_ring([max(parts[0])], device, devices, bits)) for device in range(devices))
    return Way(
        name="tiling-allreduce",
        boundary="link",
        traffic=traffic,
        pairs=(share.counts().pairs,) * devices,
        steps=_pipeline(blocks, largest, 2 * (devices - 1)),
        share=Share(share, beside_flop=2 * rows * share.shape.heads * shape.head_dim_v * width),
        proven=Proven(
            problem.flop(),
            compulsory_bytes(problem)[0],
            devices * bits_to_bytes(rows * width * bits),
            _least(problem, devices, width) if plain_mask(problem) in PLAIN else None,
        ),
        told=Told(SOURCE, notes=NOTES, settings={"blocks": blocks, "width": width}),
    )


def _ring(sums: list[int], device: int, devices: int, bits: int) -> Traffic:
    """What one device sends and receives to add up blocks of so many words.

    In the reduce-scatter it passes on every chunk but the one after its own number and keeps the sum of that one; in
    the all-gather every chunk but the one after that. It receives every chunk but its own, then all but the next.
    """
    received = sent = 0
    for block in sums:
        chunks = [size for _, size in parts_of(block, devices)]
        received += 2 * block - chunks[device] - chunks[(device + 1) % devices]
        sent += 2 * block - chunks[(device + 1) % devices] - chunks[(device + 2) % devices]
    return Traffic((Moved("sums", bits, received, sent),))


def _pipeline(blocks: int, largest: int, messages: int) -> tuple[Step, ...]:
    """The first block computes alone, the last one crosses alone."""
    both = (Step(1 / blocks, largest, messages=messages),) * (blocks - 1)
    return (Step(1 / blocks), *both, Step(0.0, largest, messages=messages))


def _least(problem: Attention, devices: int, width: int) -> Least:
    """Every device ends with all outputs, and starts without the values of the others' heads."""
    kv_heads = problem.shape.kv_heads
    own, alone = max(1, kv_heads // devices), 1 < devices <= kv_heads  # alone: no other device has its values
    return Least(
        (projected(problem, kv_heads - own, width),) * devices,
        (projected(problem, own, width) if alone else 0,) * devices,
        (
            "each device starts with its heads' Q, K, V and its rows of the projection, and ends with all outputs",
            *CONDITIONS,
        ),
    )
