"""Decoding with a state of fixed size: linear attention and state-space models, token by token.

Words per key/value head with G query heads, t new tokens, f x d_v words of state:
    reads   f d_v + t (G d + d + d_v + gate)
    writes  f d_v + t G d_v
whatever the context (old and new state are two tensors here, though kernels overwrite it): the cache of softmax attention, N_kv (d + d_v), is not there. The state stays on chip
between the new tokens of one call. No floor of attention speaks of this kernel; its own is `floors.linear`.
Sources: Katharopoulos et al. 2020, Transformers are RNNs (arXiv 2006.16236) section 3.4; Dao, Gu 2024,
Mamba-2 (arXiv 2405.21060) for gated states.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.exact import decide
from iosim.kernels.algorithm import Algorithm, Call, Parameter, register
from iosim.kernels.kernel_file import mask_kind
from iosim.kernels.linear_parts import FEATURE_MAP, FEATURES, GATE, GATES, feature_exp, is_causal
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

STATE_BITS = Parameter("state_bits", 32, "bits of one element of the state", least=4, most=64)


def widths(call: Call) -> dict[str, int]:
    """Elements of one row; a row of the state is one feature's."""
    shape = call.problem.shape
    gate = (0, 1, shape.head_dim)[GATES.index(str(call.settings["gate"]))]
    rows = {"Q": shape.head_dim, "K": shape.head_dim, "V": shape.head_dim_v, "O": shape.head_dim_v}
    return (
        rows | {"state": shape.head_dim_v, "state_out": shape.head_dim_v} | ({"g": gate} if decide(gate != 0) else {})
    )


def features(call: Call) -> int:
    """f: rows of the state."""
    d = call.problem.shape.head_dim
    return (d, 2 * d, 1 + d + d * d)[FEATURES.index(str(call.settings["features"]))]


def decode(call: Call) -> tuple[Launch, ...]:
    """One item per key/value head: the state in, all new tokens, the state out. Q and O lie packed, as in decode.

    Raises:
        UsageError: a mask that a state cannot hold, V within K, or a tile.
    """
    _check(call)
    problem, shape, elements = call.problem, call.problem.shape, widths(call)
    heads, tokens, f = shape.batch * shape.kv_heads, problem.n_q, features(call)
    state = heads * f * shape.head_dim_v
    bits = problem.types.bits
    kept = call.number("state_bits")
    tensors = [Moved("state", kept, state), Moved("state_out", kept, 0, state)]
    for name in ("Q", "K", "V", "g"):
        if name in elements:
            copies = shape.group if name == "Q" else 1
            tensors.append(Moved(name, bits(name), heads * copies * tokens * elements[name]))
    tensors.append(Moved("O", bits("O"), 0, heads * shape.group * tokens * shape.head_dim_v))

    def steps(head: int) -> Iterator[Step]:
        yield (Touch("state", head, 0, f, False),)
        for token in range(tokens):
            yield (
                *(Touch(name, head, token, 1, False) for name in ("K", "V", "g") if name in elements),
                Touch("Q", head, token * shape.group, shape.group, False),
            )
            yield (Touch("O", head, token * shape.group, shape.group, True),)
        yield (Touch("state_out", head, 0, f, True),)

    flop = 2 * heads * tokens * f * shape.head_dim_v * (1 + shape.group)
    rows = tokens * (1 + shape.group)
    exp = heads * (feature_exp(call, rows) + tokens * elements.get("g", 0))
    return (
        Launch("decode", heads, Traffic(tuple(tensors)), Work(0, flop, flop, exp), Program(heads, 1, elements, steps)),
    )


def _check(call: Call) -> None:
    problem = call.problem
    if not is_causal(problem) and not (mask_kind(problem) == "full" and decide(problem.n_q == 1)):
        what = f"a state is the sum of all tokens before: it has no mask {problem.mask}"
        raise UsageError(what, "--mask", "causal, or full for one new token")
    if problem.shape.latent:
        raise UsageError("linear attention reads V apart from K", "--latent")
    if decide(call.tiling.rows * call.tiling.cols != 1):
        raise UsageError(f"a state goes token by token: no tile {call.tiling}", "--tile", "leave it out, or 1x1")


def working_set(call: Call) -> WorkingSet:
    """The state in registers."""
    shape = call.problem.shape
    return WorkingSet(0, features(call) * shape.head_dim_v * call.problem.types.bits("accumulator") // 8)


FIXED_STATE = register(
    Algorithm(
        name="fixed-state",
        title="Decoding with a state of fixed size",
        source="Katharopoulos et al. 2020, arXiv 2006.16236",
        algorithm_class="recurrent",
        phases=("decode",),
        parameters=(FEATURE_MAP, GATE, STATE_BITS),
        launches=decode,
        working_set=working_set,
        packs=False,
    )
)
