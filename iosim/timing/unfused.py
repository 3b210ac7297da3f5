"""Unfused attention as eager frameworks run it: products, softmax, mask and dropout, each a launch over all scores.

Bytes per pair of query and key, 16-bit scores S and probabilities P, a byte per pair for what dropout kept:
  forward   S = Q K^T writes 2; mask (causal: an addition) reads and writes 2 + 2; softmax 2 + 2; dropout 2 + 2 + 1;
            P V reads 2
  backward  dV reads 2; dP writes 2; dropout 2 + 2 + 1; dS reads 2 + 2 and writes 2; dQ and dK read 2 each
Source: Dao et al. 2022 (arXiv 2205.14135), algorithms 0 and 3; `iosim.kernels.eager` counts the same launches.
A launch's times add: FLOP at the matrix units' rate, bytes at main memory's, and issue slots per score of a product or a
broadcast mask (as in `looped`). With 64 or 128 terms per score a product does them in turns, and what keeps A100 from its
bandwidth is not its bandwidth: charged as a share of it, the A6000 and RTX 3090 come out a third too slow.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iosim.errors import AbsentError
from iosim.machine import Device
from iosim.timing.calls import Calls, Floats
from iosim.timing.looped import ISSUE, sustained
from iosim.timing.parts import Parts, smooth_max
from iosim.timing.work import Work

#: bytes per pair
PRODUCTS, PRODUCTS_BACKWARD = 2 + 2, 2 + 2 + 2 + 2
SOFTMAX, SOFTMAX_BACKWARD = 2 + 2, 2 + 2 + 2
DROPOUT = 2 + 2 + 1
MASK = 2 + 2
#: order of the smooth maximum of what the host issues and what the device runs: later launches of a call are issued
#: while earlier ones run. Chosen with the fit; 1 is one after the other
HOST_OVERLAP = 2.0
#: main-memory bandwidth that passes over tensors reach, of the datasheet's. Assumed: figures of one memory cannot tell it
#: from the issue slots
PASS_SHARE = 0.9


def parts(calls: Calls, device: Device, c: Mapping[str, float], work: Work) -> Parts:
    """Named terms of the expectation, in seconds.

    Raises:
        AbsentError: windows, padding or unequal lengths, which the data does not hold.
    """
    if calls.local.any() or work.padding or (calls.n_q != calls.n_kv).any():
        raise AbsentError("calibrated for full and causal self-attention without padding only")
    rates = sustained(device)
    pairs = calls.batch.astype(float) * calls.heads * calls.n_q * calls.n_kv
    products = PRODUCTS * work.forward + PRODUCTS_BACKWARD * work.backward
    softmax = SOFTMAX * work.forward + SOFTMAX_BACKWARD * work.backward
    dropped = DROPOUT * (work.forward + work.backward) if work.dropout else 0
    masks = np.where(calls.causal & work.forward, MASK, 0)
    flop = 2.0 * pairs * ((calls.head_dim + calls.head_dim_v) * work.forward
                          + (2 * calls.head_dim + 2 * calls.head_dim_v) * work.backward)  # fmt: skip
    operands = 3 * (2 * work.forward + 4 * work.backward) * calls.batch * calls.heads * calls.n_q * calls.head_dim * 2.0
    slots = pairs / (ISSUE * rates.cores * rates.clock_hz)
    bandwidth = PASS_SHARE * rates.hbm_bytes_per_s
    made = {
        "matrix_s": flop / (rates.matrix_flop_per_clk * rates.cores * rates.clock_hz),
        "scores_s": (products * pairs + operands) / bandwidth
        + c["products"] * (2 * work.forward + 4 * work.backward) * slots,
        "softmax_s": (softmax + dropped) * pairs / bandwidth,
        "mask_s": masks * pairs / bandwidth + c["mask"] * np.where(masks > 0, slots, 0.0),
    }
    running: Floats = np.asarray(sum(made.values()))
    host = (c["host"] * work.forward + c["host_backward"] * work.backward) * 1e-6
    made["host_s"] = smooth_max(HOST_OVERLAP, np.full(len(calls), host), running) - running
    return made
