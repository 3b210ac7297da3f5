"""Fast memory of a work item, buffer by buffer: each case lists what the kernel keeps at once, elements and bits."""

from __future__ import annotations

import pytest

from iosim.attention import Attention, Shape, Types
from iosim.kernels import ALGORITHMS, Call
from iosim.masks import Grid, Tiling, bind
from iosim.schedule import WorkingSet

#: rows and keys of a tile, and head sizes: no two alike, so that no extent passes for another
R, C, D, DV = 96, 48, 80, 72
Q, KV, OUT, FP32 = 8, 4, 16, 32
TYPES = Types(q="fp8", kv="int4", out="bf16")
Buffers = list[tuple[int, int]]

#: algorithm, settings, shared memory, registers, tensor memory: (elements, bits) of every buffer
SCORES, OUTPUT, STATISTICS = (R * C, FP32), (R * DV, FP32), (2 * R, FP32)
QUERIES, KEYS, VALUES = (R * D, Q), (C * D, KV), (C * DV, KV)
CASES: list[tuple[str, dict[str, object], Buffers, Buffers, Buffers]] = [
    ("flash1", {}, [QUERIES, KEYS, VALUES], [SCORES, OUTPUT, STATISTICS], []),
    ("flash2", {"stages": 2}, [QUERIES, KEYS, VALUES, KEYS, VALUES], [SCORES, OUTPUT, STATISTICS], []),
    ("flash3", {"stages": 2, "scale_group": 16}, [QUERIES, *2 * [KEYS, VALUES, (C * 5, 16), (C * 5, 16)]],
     [SCORES, OUTPUT, STATISTICS], []),
    ("flash4", {"slots": 2}, [QUERIES, KEYS, VALUES], [SCORES, OUTPUT, STATISTICS], []),
    ("flash4", {"slots": 3}, [QUERIES, KEYS, VALUES, KEYS], [SCORES, OUTPUT, STATISTICS], []),
    ("flash4", {"slots": 5, "tensor_memory": True}, [QUERIES, KEYS, VALUES, KEYS, VALUES, KEYS], [SCORES, STATISTICS],
     [SCORES, OUTPUT]),
    ("flash2-backward", {"stages": 2}, [QUERIES, QUERIES, (R * DV, OUT), KEYS, VALUES, (R * C, Q), (R * C, Q)],
     [(C * D, FP32), (C * DV, FP32), SCORES, SCORES], []),
    # chunks of R tokens, one state of D features x 24 value columns; g is fp32
    ("lightning2", {"value_block": 24, "gate": "vector", "normalise": True},
     [(R * D, Q), (R * D, KV), (R * 24, KV), (R * D, FP32)], [(D * 24, FP32), (D, FP32), (R * R, FP32), (R * 24, FP32)], []),
    ("chunk-states", {"value_block": 24, "gate": "scalar"},
     [(R * 64, Q), (R * 64, KV), (R * 24, KV), (64 * 24, KV), (R, FP32)], [(R * R, FP32), (R * 24, FP32)], []),
    # states of the D channels pass between chunks; a transform of 128 complex words for R real ones
    ("flash-conv", {"states": 3}, [(2 * 128, FP32)],
     [(2 * 128, FP32), (2 * 128, FP32), (128, FP32), (128, FP32), (128, FP32), (3 * D, FP32)], []),
    # one element of B and C per token, states of 24 channels running and to be scanned
    ("selective-scan", {"value_block": 24}, [(R, Q), (R, KV), (D * 24, FP32), (D * 24, FP32)],
     [(R, FP32), (R, FP32), *5 * [(R * 24, FP32)]], []),
    # a block of queries in the buffer, its statistics and outputs in words of 16 bits; 1000 keys are 21 tiles
    ("spatial-array", {}, [QUERIES, KEYS, VALUES, (R * DV, 16), (2 * R, 16)], [], []),
    ("spatial-array", {"passes": 2}, [QUERIES, KEYS, VALUES, (R * DV, 16), (2 * R, 16), (21 * R, 16), (21 * R, 16),
                                      (1000 * R, 16)], [], []),
    ("spatial-array", {"passes": 3, "state_bits": 8}, [QUERIES, KEYS, VALUES, (R * DV, 8), (2 * R, 8), (1000 * R, 8)], [], []),
    ("spatial-array-recompute", {"passes": 2}, [QUERIES, KEYS, VALUES, (R * DV, 16), (2 * R, 16), (21 * R, 16), (21 * R, 16)],
     [], []),
]  # fmt: skip


@pytest.mark.parametrize(("name", "chosen", "shared", "registers", "tensor"), CASES, ids=lambda value: str(value)[:24])
def test_a_working_set_is_its_buffers(
    name: str, chosen: dict[str, object], shared: Buffers, registers: Buffers, tensor: Buffers
) -> None:
    algorithm = ALGORITHMS[name]
    linear = algorithm.algorithm_class == "linear"
    mask, phase = bind("causal" if linear else "full", Grid((1000,), (1000,))), algorithm.phases[0]
    call = Call(Attention(Shape(1, 1, 1, D, DV), mask, TYPES, phase), Tiling((R,), (C,)), algorithm.settings(chosen))
    held = (sum(elements * bits for elements, bits in part) // 8 for part in (shared, registers, tensor))
    assert algorithm.working_set(call) == WorkingSet(*held)
