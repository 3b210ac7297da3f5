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
from dataclasses import dataclass, replace

from iosim.errors import UsageError
from iosim.exact import ceil_log2, choose, decide, least, most
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
        return decide(self.extents.number > 1)

    @property
    def taps(self) -> int:
        """Words of the filter that chunks see."""
        return least(self.tokens, self.cut.chunk)

    @property
    def depth(self) -> int:
        """log2 n."""
        return most(3, ceil_log2(self.taps))

    @property
    def points(self) -> int:
        """n: points of the complex transform, half of F."""
        return 1 << self.depth

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


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive chunks that one launch convolves, of every value column."""

    first: int
    """number of the first chunk"""
    chunks: int
    """how many"""
    tokens: int
    """of them all"""
    entered: int
    """tokens of those chunks that a state enters"""
    left: int
    """tokens of those that leave a state"""


def launches(call: Call) -> tuple[Launch, ...]:
    """The filter's transform, then one launch, or one per chunk: those between the first and the last are alike."""
    made = convolution_of(call)
    number, size = made.extents.number, made.cut.chunk
    before = (number - 1) * size  # tokens of all chunks but the last
    if call.flag("resident") or not made.passes:
        whole = Part(0, number, made.tokens, made.tokens - made.taps, before)
        return _filter(made), _convolve(made, "convolution", whole, kept=True)
    end = made.tokens - before
    first, last = Part(0, 1, size, 0, size), Part(number - 1, 1, end, end, 0)
    ends = (_convolve(made, "first chunk", first, kept=False), _convolve(made, "last chunk", last, kept=False))
    if decide(number == 2):
        return _filter(made), *ends
    inner = replace(_convolve(made, "chunk", Part(1, 1, size, size, size), kept=False), times=number - 2)
    return _filter(made), ends[0], replace(inner, later=lambda time: _program(made, 1 + time, 1, kept=False)), ends[1]


def _filter(made: Convolution) -> Launch:
    """Transforms the taps of each head of the layer."""
    heads, words = made.cut.problem.shape.heads, 2 * made.points + 2

    def steps(head: int) -> Iterator[Step]:
        yield (Touch("filter", head, 0, made.taps, False),)
        yield (Touch("filter_fft", head, 0, words, True),)

    useful, executed = (14 * (made.points - 1) + 2 + flop for flop in transform_flop(made.depth, made.radix))
    traffic = Traffic((_fp32(made, "filter", heads * made.taps), _fp32(made, "filter_fft", 0, heads * words)))
    program = Program(heads, 1, {"filter": 1, "filter_fft": 1}, steps)
    return Launch("filter", heads, traffic, Work(0, useful, executed) * heads, program)


def _convolve(made: Convolution, name: str, part: Part, kept: bool) -> Launch:
    """Some chunks of every value column; states are `kept` on chip or read and written around each chunk."""
    shape, bits = made.cut.problem.shape, made.cut.problem.types.bits
    items, words = made.cut.heads * shape.head_dim_v, made.states * shape.head_dim
    moved = [_fp32(made, tensor, items * size) for tensor, size in _first_words(made).items()]
    moved += [
        Moved(t, bits(t), items * part.tokens * many)
        for t, many in (("V", 1), ("K", shape.head_dim), ("Q", shape.head_dim))
    ]
    moved.append(Moved("O", bits("O"), 0, items * part.tokens))
    if not kept:
        enters, leaves = (words if decide(tokens > 0) else 0 for tokens in (part.entered, part.left))
        moved.append(_fp32(made, "states", items * enters, items * leaves))
    program = _program(made, part.first, part.chunks, kept)
    return Launch(name, items, Traffic(tuple(moved)), _work(made, part) * items, program)


def _first_words(made: Convolution) -> dict[str, int]:
    """Words that an item reads before its tokens."""
    read = {"filter_fft": 2 * made.points + 2, "D": 1}
    return read | ({"ssm": 3 * made.states} if made.passes else {})


def _program(made: Convolution, first: int, chunks: int, kept: bool) -> Program:
    """Some chunks of every value column."""
    shape, read = made.cut.problem.shape, _first_words(made)

    def steps(item: int) -> Iterator[Step]:
        head, column = divmod(item, shape.head_dim_v)
        last = len(made.extents) - 1
        yield tuple(Touch(tensor, made.layer(head), 0, size, False) for tensor, size in read.items())
        for number in range(first, first + chunks):
            at = made.extents[number]
            entered = (made.state(head, column, number - 1, False),) if number and not kept else ()
            yield (*entered, made.channel("V", head, column, at))
            for depth in range(shape.head_dim):
                yield made.channel("K", head, depth, at), made.channel("Q", head, depth, at)
            left = (made.state(head, column, number, True),) if number < last and not kept else ()
            yield made.channel("O", head, column, at, True), *left

    names = (*read, "V", "K", "Q", "O", "states")
    return Program(made.cut.heads, shape.head_dim_v, dict.fromkeys(names, 1), steps)


def _work(made: Convolution, part: Part) -> Work:
    """Of one item."""
    d, n = made.cut.problem.shape.head_dim, made.points
    direct = 5 * part.tokens
    passing = 3 * made.states * (part.entered + part.left)
    useful, executed = (
        2 * n + d * (part.chunks * (2 * flop + 32 * (n - 1) + 6) + direct + passing)
        for flop in transform_flop(made.depth, made.radix)
    )
    return Work(0, useful, executed)


def transform_flop(depth: int, radix: int) -> tuple[int, int]:
    """(by butterflies, as executed) FLOP of a complex transform of 2^depth points.

    Dense transforms of `radix` points, and a shorter last one, make it up.

    >>> transform_flop(13, 16) == (5 * 8192 * 13, 8 * 8192 * (16 + 16 + 16 + 2) + 6 * 8192 * 3)
    True
    """
    points = 1 << depth
    butterflies = 5 * points * depth
    if not radix:
        return butterflies, butterflies
    whole, rest = depth // ceil_log2(radix), depth % ceil_log2(radix)
    factors = whole * radix + choose(rest > 0, 1 << rest, 0)
    return butterflies, 8 * points * factors + 6 * points * (whole + least(rest, 1) - 1)


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
