"""Terms that every kernel family shares: what stays in the last cache, the KV-cache write, smooth maxima."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from iosim.timing.calls import Calls, Floats
from iosim.timing.rates import Rates

Parts = dict[str, Floats]

#: fp32 instructions per score beside the exponential, counted, not fitted: scale and subtract 1, maximum 1, sum 1,
#: half a paired conversion, and about 1.2 for masks, the test of empty rows and the loop
SCORE_INSTRUCTIONS = 4.7

#: footprint over usable capacity at which the last cache keeps all, and none: between, a hashed cache without
#: exact LRU keeps a part. Read from decode on A100 and H100: 0.96 is warm, 1.20 nearly cold, 1.9 cold.
KEEPS_ALL, KEEPS_NONE = 0.95, 1.25
#: time constant with which the clock falls to what the power limit allows (A100: 5.5 ms fits, 2 to 10 ms alike)
POWER_TIME_S = 5.5e-3
#: what the first repetition of a captured graph takes more where they begin on a raster: readings on Blackwell are its
#: multiples plus 0.70 us (6 repetitions) and 0.21 us (20)
REPLAY_START_S = 4.2e-6
#: blocks that the distributor starts per clock of the whole chip: 65,536 blocks of 64 threads take 34 us on B200
BLOCKS_PER_CLK = 1.0
#: blocks of the KV-cache write that a core holds at once, whatever their size
MOST_BLOCKS_PER_CORE = 32
#: (repetitions before, repetitions timed) of the tables' collectors; a call alone otherwise. Sources: vLLM's and
#: SGLang's collectors in AIConfigurator.
REPEATS = {"none": (0, 1), "vllm": (3, 6), "sglang": (3, 20)}


def kept_share(calls: Calls, rates: Rates, more: Floats | float = 0.0) -> Floats:
    """Share of a call's bytes that the last cache still holds when the call is repeated.

    Args:
        more: bytes that the call touches beside Q, K, V and O.
    """
    return held((calls.kv_bytes + calls.qo_bytes + more) / rates.l2_warm_bytes)


def held(full: Floats) -> Floats:
    """Share of a footprint, in usable capacities, that a last cache still holds when it is swept again."""
    made: Floats = np.clip((KEEPS_NONE - full) / (KEEPS_NONE - KEEPS_ALL), 0.0, 1.0)
    return made


def bytes_s(moved: Floats, kept: Floats, rates: Rates) -> Floats:
    """Time of bytes of which a share comes from the last cache and the rest from main memory."""
    made: Floats = moved * ((1 - kept) / rates.hbm_bytes_per_s + kept / rates.l2_bytes_per_s)
    return made


def cache_write_s(calls: Calls, rates: Rates, c: Mapping[str, float], order: float = np.inf) -> Floats:
    """The framework's own kernel that copies new keys and values into the paged cache: a block per token.

    The slowest of its waves (a fixed latency and one that grows with the square of the threads, which share the
    core), the start of its blocks, and its bytes (K and V, read and written: at the last cache's rate for the share
    that it still holds).

    Args:
        order: of the smooth maximum of blocks and bytes; infinite: the larger.
    """
    width = calls.kv_heads * calls.head_dim
    threads = np.minimum(width, 512)
    resident = np.minimum(MOST_BLOCKS_PER_CORE, rates.threads_per_core // threads)
    tokens = (calls.batch * calls.n_q).astype(float)
    wave = (c["write_wave"] + c["write_threads"] * (threads / 512) ** 2) / rates.clock_hz
    waves_s = tokens / (rates.cores * resident) * wave
    launched_s = tokens / (BLOCKS_PER_CLK * rates.clock_hz)
    return smooth_max(order, np.maximum(waves_s, launched_s), copy_s(calls, rates, c))


def copy_s(calls: Calls, rates: Rates, c: Mapping[str, float]) -> Floats:
    """New keys and values read once and written once."""
    new = new_bytes(calls)
    return bytes_s(2 * new, kept_share(calls, rates, new), rates) / c["write_bandwidth"]


def new_bytes(calls: Calls) -> Floats:
    """16-bit keys and values of the call's own tokens, which the framework copies into the cache."""
    made: Floats = 2.0 * calls.batch * calls.n_q * calls.kv_heads * (calls.head_dim + calls.head_dim_v)
    return made


def cold_start_s(calls: Calls, rates: Rates, c: Mapping[str, float], framework: str) -> Floats:
    """What starts take longer where the bytes of the call have swept its own code and tables out of the last cache."""
    if framework == "none":
        return (1 - kept_share(calls, rates)) * c["cold_start"] * rates.hbm_latency_s / 2
    return (1 - kept_share(calls, rates, new_bytes(calls))) * c["cold_start"] * rates.hbm_latency_s


def slowed(call_s: Floats, busy: Floats, c: Mapping[str, float], framework: str) -> Floats:
    """How much longer the kernel takes in the mean repetition once the board has lowered its clock to its limit.

    The board allows any power for `power_time` ms from the first repetition on. Then power, `power` board limits with
    busy matrix units and half as much without, must come down to one limit: power ~ clock cubed.

    Args:
        call_s: one repetition at the highest clock. busy: share of time in which the matrix units work.
    """
    before, timed = REPEATS[framework]
    late = ((before + timed) * call_s - c["power_time"] * 1e-3) / (timed * call_s)
    wanted = c["power"] * (1 + busy) / 2
    made: Floats = np.clip(late, 0.0, 1.0) * (np.maximum(wanted, 1.0) ** (1 / 3) - 1)
    return made


def replay_s(busy: Floats, framework: str, rates: Rates) -> Floats:
    """What repetitions of a captured graph add where they begin on a raster: the wait for the next step, and the start.

    A sawtooth in `busy`, the time of the call itself. Its first harmonics, damped by how evenly a call repeats itself,
    so that long calls wait half a step on average.
    """
    step = rates.replay_step_s
    if not step:
        return np.zeros(len(busy))
    phase = busy / step
    wait = np.full(len(busy), 0.5)
    for k in range(1, 4):
        damped = np.exp(-2 * (np.pi * k * rates.replay_spread * phase) ** 2)
        wait += np.sin(2 * np.pi * k * phase) / (np.pi * k) * damped
    return wait * step + REPLAY_START_S / REPEATS[framework][1]


def slowdown(makespan: Floats, busy: Floats, power: float, rates: Rates) -> Floats:
    """How much longer long runs take: power above the board's limit lowers the clock, and power goes with its cube.

    The limit is known by what it does to a matrix product, whose matrix units are always busy.
    """
    if rates.sustained >= 1:
        return np.zeros(len(makespan))
    wanted = power * np.minimum(busy, 1.0) / rates.sustained**3
    made: Floats = (np.maximum(wanted, 1.0) ** (1 / 3) - 1) * (1 - np.exp(-makespan / POWER_TIME_S))
    return made


def smooth_max(order: float, *terms: Floats) -> Floats:
    """The p-norm: overlapped resources, a little above the larger."""
    largest = np.maximum.reduce(list(terms))
    total = sum((np.maximum(term, 0) / np.where(largest > 0, largest, 1)) ** order for term in terms)
    made: Floats = largest * np.asarray(total) ** (1 / order)
    return made


def total_s(parts: Parts) -> Floats:
    """The expectation: the sum of its parts."""
    return np.asarray(sum(parts.values()))
