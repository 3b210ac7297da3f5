"""Bits of one element of every tensor that any algorithm moves, from a list made by hand."""

from __future__ import annotations

import pytest

from iosim.attention import Attention, Shape, Types
from iosim.kernels import ALGORITHMS, Call
from iosim.masks import Grid, Tiling, bind

#: four widths that differ, so that no tensor passes for another
TYPES = Types(q="fp8", kv="int4", out="bf16")
QUERY, KEY, OUT, FP32, SCALE = 8, 4, 16, 32, 16
WIDTHS = {
    # operands, scores and probabilities in memory, and gradients of operands
    QUERY: "A B B_k B_q M P P_dropped P_handed Q S Z dK dK_expanded dP dP_dropped dQ dS dS_masked dV dV_expanded",
    # keys and values, what is computed in their place, and what a layer's projections give beside them
    KEY: "K K_state K_state_out K_summary U V V_new V_state V_state_out V_summary W delta states z",
    OUT: "O O_across O_ungated V_agent dO",
    # sums, statistics, parameters of a layer, states between calls, scores on their way to other cores, page numbers
    FP32: "D LSE LSE_partial O_handed O_partial S_handed beta bias block_table dK_accum dQ_accum dV_accum decay filter "
    "filter_fft g l m ssm state state_out update",
}
EXPECTED = {tensor: bits for bits, names in WIDTHS.items() for tensor in names.split()} | {
    "K_scale": SCALE, "V_scale": SCALE, "mask": 8, "M_mask": 8,
}  # fmt: skip
#: of one algorithm only
OWN = {("selective-scan", "A"): FP32, ("selective-scan", "states"): FP32, ("flash-conv", "states"): FP32}
#: settings that bring further tensors
SETTINGS: dict[str, list[dict[str, object]]] = {
    "chunk-states": [{"gate": "scalar"}],
    "delta-rule": [{"gate": "scalar"}],
    "fast-attention": [{"mask": "tensor"}, {"mask": "tiling-mask"}],
    "fixed-state": [{"gate": "vector"}],
    "flash-bias": [{"bias": "low-rank", "rank": 8}],
    "flash2": [{"page_size": 16, "scale_group": 8}],
    "selective-scan": [{"materialise": True}, {"save": True, "z": True}],
    "spatial-array": [{"passes": 2, "between": "spill", "lse": True}],
    "split-kv": [{"splits": 2}],
    "stream-k": [{"workers": 3}],
    "unfused": [{"mask_kernel": "padding", "dropout": True, "scale_kernel": True}],
    "unfused-backward": [{"mask_kernel": "matrix", "dropout": True}],
}


def widths(name: str) -> dict[str, int]:
    """Bits by tensor over all phases and settings: 64 keys in tiles of 16, two query heads on one of keys."""
    algorithm, found = ALGORITHMS[name], {}
    for phase in algorithm.phases:
        queries, text = (1, "full") if phase == "decode" else (64, "full" if name == "agent" else "causal")
        asked = Attention(Shape(1, 2, 1, 16, 16), bind(text, Grid((queries,), (64,))), TYPES, phase)
        for chosen in ({}, *SETTINGS.get(name, [])):
            tiling = (
                Tiling((1,), (1,)) if name == "fixed-state" else Tiling((16,), (16,))
            )  # its state goes token by token
            call = Call(asked, tiling, algorithm.settings(chosen))
            for moved in (m for launch in algorithm.launches(call) for m in launch.traffic.moved):
                assert found.setdefault(moved.tensor, moved.bits) == moved.bits
    return found


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_every_tensor_has_its_own_width(name: str) -> None:
    found = widths(name)
    assert found == {tensor: OWN.get((name, tensor), EXPECTED[tensor]) for tensor in found}


def test_the_list_names_nothing_else() -> None:
    assert {tensor for name in ALGORITHMS for tensor in widths(name)} == set(EXPECTED)
