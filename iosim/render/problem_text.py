"""What was asked, in a line for people."""

from __future__ import annotations

from iosim.attention import Attention


def problem_line(problem: Attention) -> str:
    """One line that names the problem."""
    shape = problem.shape
    lengths, batch = problem.mask.lengths, problem.sequences
    tokens = f"{lengths[0]} tokens" if lengths[0] == lengths[1] else f"{lengths[0]} queries, {lengths[1]} keys"
    tokens += f" of which the first {problem.shared_keys} are shared" if problem.shared_keys else ""
    heads = f"{shape.heads} heads" + (f" over {shape.kv_heads}" if shape.kv_heads != shape.heads else "")
    size = str(shape.head_dim) if shape.head_dim == shape.head_dim_v else f"{shape.head_dim}/{shape.head_dim_v}"
    types = problem.types.q if problem.types.q == problem.types.kv else f"{problem.types.q}, kv {problem.types.kv}"
    latent = ", V a slice of K" if shape.latent else ""
    return f"{problem.phase}: batch {batch}, {heads}, head size {size}{latent}, {tokens}, mask {problem.mask}, {types}"
