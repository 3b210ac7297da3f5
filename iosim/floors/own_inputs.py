"""What relatives of linear attention must read: Q, K, V as far as they matter, and the inputs that only they have.

Words over a batch of B sequences, H_kv key/value heads, N tokens, w gate words per token:
    gates g        B H_kv w (N - 1); N with a prefix: the first token's decay meets a state of zeros
    beta           B H_kv N                                     delta rule
    prefix         B H_kv P (d + d_v)                           keys and values that every token sees
    Delta, z       B H_kv N d_v, B H N d_v                      selective scan
    A              H_kv d d_v from two tokens on; bias, D       H_kv d_v each, for the whole batch
    filter, D      H N, H                                       convolution, where taps and not a model are given
With a normaliser a row that sees one key is its value, as in softmax attention, and with one feature that is the query
itself its size cancels. Each word counted changes an output on generic data; docs/explanation/floors/linear.md.
"""

from __future__ import annotations

from collections.abc import Callable

from iosim.attention import Attention
from iosim.kernels.linear_parts import is_causal
from iosim.schedule import Moved, Schedule

Words = dict[str, int]


def linear_inputs(schedule: Schedule) -> tuple[Moved, ...]:
    """Inputs of the function that a schedule of class `linear` computes, tensor by tensor."""
    problem, counts = schedule.problem, schedule.problem.counts()
    rows, keys = counts.rows, counts.keys
    if schedule.parameters.get("normalise"):
        if not schedule.parameters.get("prefix"):
            rows, keys = counts.rows_ok, counts.keys_ok
        if schedule.parameters.get("features") == "identity" and problem.shape.head_dim == 1:
            rows = 0
    bits = {moved.tensor: moved.bits for moved in schedule.traffic.moved}
    words = BESIDE[schedule.algorithm](schedule) if schedule.algorithm in BESIDE else {}
    beside = (Moved(tensor, bits[tensor], count) for tensor, count in words.items() if count)
    return (*operands(problem, rows, keys), *beside)


def operands(problem: Attention, rows: int, keys: int) -> tuple[Moved, ...]:
    """So many rows of Q and of K, and every value that is seen."""
    shape, bits = problem.shape, problem.types.bits
    values = 0 if shape.latent else problem.counts().keys * shape.head_dim_v
    return (
        Moved("Q", bits("Q"), rows * shape.head_dim),
        Moved("K", bits("K"), keys * shape.head_dim),
        Moved("V", bits("V"), values),
    )


def gate_words(schedule: Schedule) -> int:
    """w: words of decay per token and key/value head."""
    return {"scalar": 1, "vector": schedule.problem.shape.head_dim}.get(str(schedule.parameters.get("gate")), 0)


def _heads(schedule: Schedule) -> int:
    return schedule.problem.shape.batch * schedule.problem.shape.kv_heads


def _gates(schedule: Schedule) -> Words:
    """Decays between tokens: only an order of tokens has them."""
    before = bool(schedule.parameters.get("prefix"))
    tokens = schedule.problem.n_kv - 1 + before if is_causal(schedule.problem) else 0
    return {"g": _heads(schedule) * gate_words(schedule) * tokens}


def _one_pass(schedule: Schedule) -> Words:
    shape, prefix = schedule.problem.shape, int(str(schedule.parameters["prefix"]))
    rows = _heads(schedule) * prefix
    return _gates(schedule) | {"K_prefix": rows * shape.head_dim, "V_prefix": rows * shape.head_dim_v}


def _delta_rule(schedule: Schedule) -> Words:
    return _gates(schedule) | {"beta": _heads(schedule) * schedule.problem.n_kv}


def _scan(schedule: Schedule) -> Words:
    """A, the bias and D belong to the layer, whatever the batch."""
    shape, n, has = schedule.problem.shape, schedule.problem.n_kv, schedule.parameters
    layer = shape.kv_heads * shape.head_dim_v
    return {
        "delta": shape.batch * layer * n,
        "A": layer * shape.head_dim * (n > 1),
        "bias": layer * bool(has["softplus"]),
        "D": layer * bool(has["skip"]),
        "z": shape.batch * shape.heads * n * shape.head_dim_v * bool(has["z"]),
    }


def _convolution(schedule: Schedule) -> Words:
    """Beyond a chunk the filter and its state-space model say the same twice, and neither is counted."""
    heads, n = schedule.problem.shape.heads, schedule.problem.n_kv
    return {"filter": heads * n * (n <= schedule.tiling.rows), "D": heads}


BESIDE: dict[str, Callable[[Schedule], Words]] = {
    "lightning2": _one_pass,
    "chunk-states": _gates,
    "delta-rule": _delta_rule,
    "selective-scan": _scan,
    "flash-conv": _convolution,
}
