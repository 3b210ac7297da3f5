"""What must cross a link, whatever is sent: a floor by counting how many outputs there can be.

Attention can copy: with queries that single one key out, a row's output is that key's value, word for word. Let m
rows of a device single out m distinct keys that lie elsewhere. Then the device's outputs take as many values as m d_v
words can, while all else that it holds stays the same; so its messages must take as many, whatever they are: keys,
partial outputs, sums, or compressed words. The rows that can be served are a matching in a nested family: a row sees
all of a part of the sequence or none of it, and later rows see more.
Source: docs/explanation/links.md, with the proof.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from iosim.attention import Attention
from iosim.kernels.blocks import Extent

#: element type -> finite values that a copy keeps apart (infinities and NaN left out, the two zeros as one)
VALUES = {
    "fp64": 2**64 - 2**53 - 1,
    "fp32": 2**32 - 2**24 - 1,
    "tf32": 2**19 - 2**11 - 1,
    "bf16": 2**16 - 2**8 - 1,
    "fp16": 2**16 - 2**11 - 1,
    "fp8": 2**8 - 2**3 - 1,
    "int8": 2**8,
    "fp6": 2**6 - 1,
    "fp4": 2**4 - 1,
    "int4": 2**4,
}
CONDITIONS = (
    "worst-case data; exact softmax, rounded to the output's type",
    "messages tell by their bits, not by when they come or how many there are, and nothing comes another way",
)


def message_bytes(problem: Attention, words: int, copied: bool = True) -> int:
    """Bytes that so many words of K or V tell at least, rounded down.

    Args:
        copied: they reach the reader as outputs, so that the output's type may hold fewer values.
    """
    types = problem.types
    if problem.phase == "backward":  # gradients of O become those of V
        return told_bytes([(words, min(VALUES[types.out], VALUES[types.q]))])
    return told_bytes([(words, min(VALUES[types.kv], VALUES[types.out]) if copied else VALUES[types.kv])])


def told_bytes(words: Sequence[tuple[int, int]]) -> int:
    """Bytes that (words, values of each) tell at least: the logarithm of their outcomes, less a bit for the end."""
    bits = math.floor(sum(count * math.log2(values) for count, values in words) * (1 - 1e-12))
    return max(0, bits - 1) // 8


def singles_out(problem: Attention) -> bool:
    """Whether queries can single out any key: the keys' codes fit the elements that the scores are free to use.

    Codes of +-c in each of ceil(log2 N) elements make scores differ by 2 c^2 at least; types of four bits, whose c is
    small, repeat the code. V as a slice of K leaves the elements beside the slice.
    """
    shape = problem.shape
    free = shape.head_dim - (shape.head_dim_v if shape.latent else 0)
    repeats = 8 if VALUES[problem.types.kv] < 64 or VALUES[problem.types.q] < 64 else 1
    return free >= repeats * max(1, (problem.n_kv - 1).bit_length())


def matched(rows: Sequence[int], visible: Sequence[int]) -> int:
    """Rows that can single out distinct keys: part k has `rows[k]` rows, which see `visible[k]` keys, nested.

    Serving the parts that see least first is best (Hall's condition on a chain).
    """
    served = 0
    for some, keys in sorted(zip(rows, visible, strict=True), key=lambda pair: pair[1]):
        served += min(some, max(0, keys - served))
    return served


def tokens_received(problem: Attention, shard: Sequence[Extent], causal: bool) -> int:
    """Bytes that the device of a shard must receive, when inputs and outputs are shared out by tokens.

    Forward, its rows single out values elsewhere; backward, rows elsewhere single out its keys, whose gradient of V is
    then that row's gradient of O, word for word.
    """
    found = _keys_seen(problem, shard, causal) if problem.phase == "backward" else _rows_served(problem, shard, causal)
    return message_bytes(problem, _values(problem, found))


def tokens_sent(problem: Attention, shard: Sequence[Extent], causal: bool) -> int:
    """Bytes that the device of a shard must send: what rows elsewhere may single out; backward, its rows' gradients."""
    found = _rows_served(problem, shard, causal) if problem.phase == "backward" else _keys_seen(problem, shard, causal)
    return message_bytes(problem, _values(problem, found))


def _rows_served(problem: Attention, shard: Sequence[Extent], causal: bool) -> int:
    """Rows of a shard, over the heads of a group, that can single out distinct keys elsewhere."""
    own, visible = 0, []
    for first, tokens in shard:
        visible.append(first - own)
        own += tokens
    if not causal:
        visible = [problem.n_kv - own] * len(shard)
    rows = [tokens * problem.shape.group for _, tokens in shard]
    return matched(rows, visible) if singles_out(problem) else 0


def _keys_seen(problem: Attention, shard: Sequence[Extent], causal: bool) -> int:
    """Keys of a shard that distinct rows elsewhere can single out."""
    own = sum(tokens for _, tokens in shard)
    later, seers = own, []
    for first, tokens in shard:  # rows elsewhere that come after this part
        later -= tokens
        seers.append(problem.n_q - first - tokens - later)
    if not causal:
        seers = [problem.n_q - own] * len(shard)
    keys = [tokens for _, tokens in shard]
    return matched(keys, [rows * problem.shape.group for rows in seers]) if singles_out(problem) else 0


def answers_sent(problem: Attention, keys: int) -> int:
    """Bytes that whoever holds `keys` keys per head must send to who needs the outputs of all rows."""
    if not singles_out(problem):
        return 0
    return message_bytes(problem, _values(problem, min(problem.shape.group * problem.n_q, keys)))


def projected(problem: Attention, kv_heads: int, width: int) -> int:
    """Bytes about `kv_heads` key/value heads that outputs of `width` columns can hold, after a projection.

    The projection may copy: per row it has room for width // d_v heads. Rows and heads single out distinct keys.
    """
    room = width // problem.shape.head_dim_v
    if not singles_out(problem) or not room or not kv_heads:
        return 0
    used = min(kv_heads, room)
    heads = min(problem.shape.group, room // used)
    keys = used * min(heads * problem.n_q, problem.n_kv)
    return message_bytes(problem, problem.shape.batch * keys * problem.shape.head_dim_v)


def _values(problem: Attention, keys: int) -> int:
    """Words of V of so many keys per head."""
    return problem.shape.batch * problem.shape.kv_heads * keys * problem.shape.head_dim_v
