"""FlashConv: H3's long convolution by FFT in one kernel, states passed between chunks of long sequences.

With a filter f per head, f_t = C A^t B of a diagonal state-space model with m states,
    O_t = sum over s <= t of f_{t-s} (Q_t . K_s) V_s + D (Q_t . K_t) V_t
is d convolutions of the sequences K_i V_j for each value column j, weighted by Q_i. A work item is a value column.
Chunks of c tokens, n_c of them, are convolved on F = max(16, 2 x the power of two at or above min(N, c)) points;
what earlier chunks give comes through m d words of state per item. Words
  filter       once per head: reads min(N, c) taps            writes F + 2 (its transform, F / 2 + 1 complex)
  convolution  per item: reads F + 2 + 1 (D) + N + 2 N d       writes N
               n_c > 1: + 3 m (A, B, C); a launch per chunk reads all of these and F + 3 again, n_c times, and
               (n_c - 1) m d words of state are written and read; `resident` keeps them on chip in one launch
so a head reads Q and K d_v times. All rows lie channel by channel, tokens consecutive.
FLOP: a real transform is a complex one of n = F / 2 points, by butterflies T = 5 n log2 n, and 14 (n - 1) + 2 to
unpack (12 in the inverse), as the released kernel writes it. Per item and chunk d (2 T + 32 (n - 1) + 6), per launch
2 n (scaling the filter); per token 5 d (K V, D, Q) and 3 m d for each of the state's update and use, whose
Vandermonde matrices are formed on chip. `radix` r executes dense transforms of r points on the matrix units instead:
T = 8 n (n_1 + ... + n_k) + 6 n (k - 1) with n = n_1 ... n_k (block FFT); useful FLOP stay those of butterflies.
Sources: Fu et al. 2022, Hungry Hungry Hippos (arXiv 2212.14052) section 4: fused block FFT convolution and state
passing; HazyResearch/safari csrc/fftconv/fftconv_cuda.cu, which has no state passing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

from iosim.errors import UsageError
from iosim.kernels.algorithm import Algorithm, Call, Parameter, register
from iosim.kernels.blocks import Extent, Strips
from iosim.kernels.linear_parts import Chunks, causal_chunks
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet


@dataclass(frozen=True, slots=True)
class Convolution:
    """One call: chunks of tokens, the transform's length, the states."""

    cut: Chunks
    """tokens"""
    states: int
    """m: states of the model per channel"""
    radix: int
    """points of a dense transform; 0: butterflies"""

    @property
    def tokens(self) -> int:
        """N."""
        return self.cut.problem.n_kv

    @property
    def extents(self) -> Strips:
        """(first token, tokens) of each chunk."""
        return self.cut.chunks(self.tokens)

    @property
    def passes(self) -> bool:
        """Whether states go from chunk to chunk."""
        return len(self.extents) > 1

    @property
    def taps(self) -> int:
        """Words of the filter that chunks see."""
        return min(self.tokens, self.cut.chunk)

    @property
    def points(self) -> int:
        """n: points of the complex transform, half of F."""
        return max(8, 1 << (self.taps - 1).bit_length())

    def channel(self, tensor: str, head: int, column: int, at: Extent, write: bool = False) -> Touch:
        """Some tokens of one channel."""
        owner = head if tensor in ("Q", "O") else self.cut.kv_head(head)
        return Touch(tensor, owner, column * self.tokens + at[0], at[1], write)

    def state(self, head: int, column: int, number: int, write: bool) -> Touch:
        """The state that a chunk leaves for one value column."""
        shape = self.cut.problem.shape
        words = self.states * shape.head_dim
        return Touch("states", head, (number * shape.head_dim_v + column) * words, words, write)

    def layer(self, head: int) -> int:
        """Head of the layer, whose filter all sequences of the batch share."""
        return head % self.cut.problem.shape.heads


def convolution_of(call: Call) -> Convolution:
    """What a call convolves.

    Raises:
        UsageError: not causal, or a radix that is no power of two.
    """
    radix = call.number("radix")
    if radix & (radix - 1) or radix == 1:
        raise UsageError(f"a transform splits into powers of two, got {radix}", "--set radix", "for example 16")
    return Convolution(causal_chunks(call, "a convolution sees the tokens before"), call.number("states"), radix)


def launches(call: Call) -> tuple[Launch, ...]:
    """The filter's transform, then one launch, or one per chunk."""
    made = convolution_of(call)
    chunks = list(enumerate(made.extents))
    if call.flag("resident") or not made.passes:
        return _filter(made), _convolve(made, "convolution", chunks, kept=True)
    each = (_convolve(made, f"chunk {number}", [(number, at)], kept=False) for number, at in chunks)
    return _filter(made), *each


def _filter(made: Convolution) -> Launch:
    """Transforms the taps of each head of the layer."""
    heads, words = made.cut.problem.shape.heads, 2 * made.points + 2

    def steps(head: int) -> Iterator[Step]:
        yield (Touch("filter", head, 0, made.taps, False),)
        yield (Touch("filter_fft", head, 0, words, True),)

    useful, executed = (14 * (made.points - 1) + 2 + flop for flop in transform_flop(made.points, made.radix))
    traffic = Traffic((_fp32(made, "filter", heads * made.taps), _fp32(made, "filter_fft", 0, heads * words)))
    program = Program(heads, 1, {"filter": 1, "filter_fft": 1}, steps)
    return Launch("filter", heads, traffic, Work(0, useful, executed) * heads, program)


def _convolve(made: Convolution, name: str, chunks: list[tuple[int, Extent]], kept: bool) -> Launch:
    """Some chunks of every value column; states are `kept` on chip or read and written around each chunk."""
    shape, bits = made.cut.problem.shape, made.cut.problem.types.bits
    items, last = made.cut.heads * shape.head_dim_v, len(made.extents) - 1
    tokens, words = sum(size for _, (_, size) in chunks), made.states * shape.head_dim
    read = {"filter_fft": 2 * made.points + 2, "D": 1} | ({"ssm": 3 * made.states} if made.passes else {})
    moved = [_fp32(made, tensor, items * size) for tensor, size in read.items()]
    moved += [
        Moved(t, bits(t), items * tokens * many) for t, many in (("V", 1), ("K", shape.head_dim), ("Q", shape.head_dim))
    ]
    moved.append(Moved("O", bits("O"), 0, items * tokens))
    enters, leaves = (sum(number != edge for number, _ in chunks) for edge in (0, last))
    if not kept:
        moved.append(_fp32(made, "states", items * words * enters, items * words * leaves))

    def steps(item: int) -> Iterator[Step]:
        head, column = divmod(item, shape.head_dim_v)
        yield tuple(Touch(tensor, made.layer(head), 0, size, False) for tensor, size in read.items())
        for number, at in chunks:
            entered = (made.state(head, column, number - 1, False),) if number and not kept else ()
            yield (*entered, made.channel("V", head, column, at))
            for depth in range(shape.head_dim):
                yield made.channel("K", head, depth, at), made.channel("Q", head, depth, at)
            left = (made.state(head, column, number, True),) if number < last and not kept else ()
            yield made.channel("O", head, column, at, True), *left

    program = Program(made.cut.heads, shape.head_dim_v, {m.tensor: 1 for m in moved}, steps)
    return Launch(name, items, Traffic(tuple(moved)), _work(made, chunks) * items, program)


def _work(made: Convolution, chunks: list[tuple[int, Extent]]) -> Work:
    """Of one item."""
    d, n, last = made.cut.problem.shape.head_dim, made.points, len(made.extents) - 1
    direct = 5 * sum(size for _, (_, size) in chunks)
    passing = sum(3 * made.states * size * ((number > 0) + (number < last)) for number, (_, size) in chunks)
    useful, executed = (
        2 * n + d * (len(chunks) * (2 * flop + 32 * (n - 1) + 6) + direct + passing)
        for flop in transform_flop(n, made.radix)
    )
    return Work(0, useful, executed)


def transform_flop(points: int, radix: int) -> tuple[int, int]:
    """(by butterflies, as executed) FLOP of a complex transform of a power of two points."""
    depth = points.bit_length() - 1
    butterflies = 5 * points * depth
    if not radix:
        return butterflies, butterflies
    factors = split(points, radix)
    assert prod(factors) == points
    return butterflies, 8 * points * sum(factors) + 6 * points * (len(factors) - 1)


def split(points: int, radix: int) -> list[int]:
    """Dense transforms that make one of so many points, the short one last.

    >>> split(8192, 16)
    [16, 16, 16, 2]
    """
    factors = []
    while points > 1:
        factors.append(min(radix, points))
        points //= factors[-1]
    return factors


def _fp32(made: Convolution, tensor: str, read: int = 0, write: int = 0) -> Moved:
    """Filters, their transforms and states are fp32."""
    return Moved(tensor, made.cut.problem.types.bits("accumulator"), read, write)


def working_set(call: Call) -> WorkingSet:
    """Shared memory exchanges one complex transform; the filter's, the data's, K V, V and the result are in registers,
    and so are the states of all channels. In fp32."""
    made, word = convolution_of(call), call.problem.types.bits("accumulator") // 8
    states = made.states * call.problem.shape.head_dim if made.passes else 0
    return WorkingSet(2 * made.points * word, (7 * made.points + states) * word)


FLASH_CONV = register(
    Algorithm(
        name="flash-conv",
        title="FlashConv: H3's convolution by a fused FFT, with state passing",
        source="Fu et al. 2022, arXiv 2212.14052, section 4",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(
            Parameter("states", 64, "states of the model per channel, which pass between chunks", least=1),
            Parameter("radix", 0, "points of the dense transforms of a block FFT; 0: radix-2 butterflies"),
            Parameter("resident", False, "one launch for all chunks, filter and states staying on chip"),
        ),
        launches=launches,
        working_set=working_set,
        packs=False,
    )
)
