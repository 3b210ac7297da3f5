"""Agent attention: a agents gather from all keys by softmax, and queries read the agents by softmax.

Words per head, T_a = ceil(a / B_r) tiles of agents, T_r = ceil(N_q / B_r) of queries:
    gather    reads a d + T_a N_kv (d + d_v)   writes a d_v
    scatter   reads N_q d + T_r a (d + d_v)    writes N_q d_v
Agents are an input (the paper pools them from the queries); its biases and convolution are not counted.
Source: Han et al. 2024, Agent Attention (arXiv 2312.08874) equation 5.
"""

from __future__ import annotations

from collections.abc import Iterator

from iosim.errors import UsageError
from iosim.kernels.algorithm import STAGES, Algorithm, Call, Parameter, register
from iosim.kernels.blocks import strips
from iosim.kernels.flash2 import working_set
from iosim.kernels.kernel_file import mask_kind
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work


def launches(call: Call) -> tuple[Launch, ...]:
    """Two passes of FlashAttention-2.

    Raises:
        UsageError: a mask, or a latent V.
    """
    problem, shape, agents = call.problem, call.problem.shape, call.number("agents")
    if mask_kind(problem) != "full" or shape.latent:
        raise UsageError("agent attention has no mask and reads V apart from K", "--mask", "full")
    gather = _pass(call, "gather", ("A", agents), ("K", "V", problem.n_kv, shape.group), "V_agent")
    scatter = _pass(call, "scatter", ("Q", problem.n_q), ("A", "V_agent", agents, 1), "O")
    return gather, scatter


def _pass(call: Call, name: str, queries: tuple[str, int], keys: tuple[str, str, int, int], output: str) -> Launch:
    """Rows of `queries` walk all of `keys` and write `output`."""
    shape, bits = call.problem.shape, call.problem.types.bits
    heads, (q, n_q), (k, v, n_kv, share) = shape.batch * shape.heads, queries, keys
    q_tiles, kv_tiles = strips(n_q, call.tiling.rows), strips(n_kv, call.tiling.cols)
    like = {"A": "Q", "V_agent": "O"}
    elements = {q: shape.head_dim, k: shape.head_dim, v: shape.head_dim_v, output: shape.head_dim_v}
    counts = {
        q: (n_q * shape.head_dim, 0),
        k: (q_tiles.number * n_kv * shape.head_dim, 0),
        v: (q_tiles.number * n_kv * shape.head_dim_v, 0),
        output: (0, n_q * shape.head_dim_v),
    }
    traffic = Traffic(
        tuple(Moved(t, bits(like.get(t, t)), heads * read, heads * written) for t, (read, written) in counts.items())
    )

    def steps(item: int) -> Iterator[Step]:
        head, tile = divmod(item, len(q_tiles))
        yield (Touch(q, head, *q_tiles[tile], False),)
        for at in kv_tiles:
            yield tuple(Touch(name, head // share, *at, False) for name in (k, v))
        yield (Touch(output, head, *q_tiles[tile], True),)

    cells, flop = heads * n_q * n_kv, 2 * call.problem.pair_elements
    rescaled = heads * n_q * kv_tiles.number
    work = Work(heads * q_tiles.number * kv_tiles.number, flop * cells, flop * cells, cells, rescaled)
    return Launch(name, heads * q_tiles.number, traffic, work, Program(heads, q_tiles.number, elements, steps))


AGENT = register(
    Algorithm(
        name="agent",
        title="Agent attention",
        source="Han et al. 2024, arXiv 2312.08874",
        algorithm_class="approximate",
        phases=("prefill",),
        parameters=(
            STAGES,
            Parameter("agents", 49, "agent tokens per head: of one alone queries would not matter", least=2),
        ),
        launches=launches,
        working_set=working_set,
        packs=False,
    )
)
