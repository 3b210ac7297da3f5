"""Mamba-1's selective state-space scan, with the state on chip.

A head is a group of channels that share B and C: Q, K, V and O are the paper's C, B, x and y, head_dim N is the
state's elements per channel and head_dim_v P the channels. Per channel p and state element s
    h_t[s, p] = exp(Delta_t[p] A[p, s]) h_{t-1}[s, p] + B_t[s] Delta_t[p] x_t[p]
    y_t[p]    = (sum over s of C_t[s] h_t[s, p] + D[p] x_t[p]) SiLU(z_t[p])
Words per head, L tokens in n chunks, b blocks of channels (a work item each); A, D and the bias serve the batch:
    reads   2 b N L (B, C) + n N P (A) + 2 L P (x, Delta); softplus + P (bias), skip + P (D), z + L P
    writes  L P; save + 2 n N P (state and decay at each chunk's end), and L P (the output before z) with z
The released kernel has b = P: every channel reads B and C again, and A in every chunk. Its loops count
    flop    6 per token, channel and state element (Delta A, B Delta x, two of h, two of y), 1 per token and channel
            (Delta x), softplus + 1 (bias), skip + 2, z + 2: no matrix products. A parallel scan combines more often.
    exp     N L P, softplus + L P, z + L P
`materialise` is the version before fusion, three launches through slow memory:
    discretise reads b N L + n N P + 2 L P (+ P)      writes 2 N L P  (decays and updates)
    scan       reads 2 N L P                          writes N L P    (states)
    outputs    reads b N L + N L P; skip + P + L P, z + L P           writes L P; save and z + L P
Fusing moves about N times less when b = 1 (6 N L P against 3 L P). Sources: Gu, Dao 2023, Mamba (arXiv 2312.00752)
equation 2, section 3.3.2 and appendix D; state-spaces/mamba csrc/selective_scan/selective_scan_fwd_kernel.cuh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from iosim.exact import decide, least
from iosim.kernels.algorithm import Algorithm, Call, Parameter, register
from iosim.kernels.blocks import Extent, Strips
from iosim.kernels.linear_parts import VALUE_BLOCK, Chunks, causal_chunks
from iosim.kernels.programs import Step
from iosim.schedule import Launch, Moved, Program, Touch, Traffic, Work, WorkingSet

#: tensors as wide as an operand; all others are fp32, as the released kernel keeps them
LIKE = {"Q": "Q", "K": "K", "V": "V", "delta": "V", "z": "V", "O": "O", "O_ungated": "O"}


@dataclass(frozen=True, slots=True)
class Scan:
    """One call: chunks of tokens, blocks of channels, and what the layer has."""

    cut: Chunks
    """tokens and channels"""
    softplus: bool
    """Delta comes before its bias and softplus"""
    skip: bool
    """D x is added"""
    gated: bool
    """SiLU(z) multiplies"""
    save: bool
    """what the backward pass needs is written"""

    @property
    def tokens(self) -> int:
        """L."""
        return self.cut.problem.n_kv

    @property
    def states(self) -> int:
        """N: elements of the state of one channel."""
        return self.cut.problem.shape.head_dim

    @property
    def channels(self) -> int:
        """P."""
        return self.cut.problem.shape.head_dim_v

    @property
    def extents(self) -> Strips:
        """(first token, tokens) of each chunk."""
        return self.cut.chunks(self.tokens)

    def columns(self, tensor: str, head: int, at: Extent, block: Extent, write: bool = False) -> Touch:
        """Some tokens of one block of channels, stored channel block by channel block."""
        own = tensor in ("O", "O_ungated", "z")
        (touch,) = self.cut.values("O" if own else "V", head, at, block, write)
        return touch._replace(tensor=tensor)

    def element(self, tensor: str, head: int, state: int, at: Extent) -> Touch:
        """Some tokens of one state element of B or C, which lie element by element."""
        owner = head if tensor == "Q" else self.cut.kv_head(head)
        return Touch(tensor, owner, state * self.tokens + at[0], at[1], False)

    def parameter(self, tensor: str, head: int, block: Extent) -> Touch:
        """A block's part of A, D or the bias, which all sequences of the batch share."""
        width = self.states if tensor == "A" else 1
        shared = self.cut.kv_head(head) % self.cut.problem.shape.kv_heads
        return Touch(tensor, shared, block[0] * width, block[1] * width, False)

    def materialised(self, tensor: str, head: int, at: Extent, block: Extent, write: bool = False) -> Touch:
        """Decays, updates or states of some tokens and one block of channels."""
        touch = self.columns("O", head, at, block, write)
        return Touch(tensor, head, touch.row * self.states, touch.rows * self.states, write)

    def moved(self, tensor: str, read: int = 0, write: int = 0) -> Moved:
        """Elements over batch and all heads."""
        bits = self.cut.problem.types.bits(LIKE.get(tensor, "accumulator"))
        return Moved(tensor, bits, read * self.cut.heads, write * self.cut.heads)


def scan_of(call: Call) -> Scan:
    """What a call scans.

    Raises:
        UsageError: not causal, lengths that differ, or V within K.
    """
    cut = causal_chunks(call, "a scan sees the tokens before: --mask causal")
    return Scan(cut, *(call.flag(name) for name in ("softplus", "skip", "z", "save")))


def launches(call: Call) -> tuple[Launch, ...]:
    """One launch, or three with states in slow memory."""
    scan = scan_of(call)
    if not call.flag("materialise"):
        return (_fused(scan),)
    return _discretise(scan), _scan(scan), _outputs(scan)


def _fused(scan: Scan) -> Launch:
    n, chunks = scan.tokens, scan.extents.number
    times, channels, words = scan.cut.blocks.number, scan.channels, scan.states * scan.channels
    read = {"V": n * channels, "delta": n * channels, "A": chunks * words}
    read |= {"K": times * n * scan.states, "Q": times * n * scan.states} | _extra_reads(scan, ("bias", "D", "z"))
    written = {"O": n * channels} | ({"states": 2 * chunks * words} if scan.save else {}) | _ungated(scan)

    def steps(head: int, block: Extent) -> Iterator[Step]:
        yield _parameters(scan, head, block, ("bias", "D"))
        for number, at in enumerate(scan.extents):
            yield (*(scan.columns(name, head, at, block) for name in ("V", "delta")), scan.parameter("A", head, block))
            for state in range(scan.states):
                yield scan.element("K", head, state, at), scan.element("Q", head, state, at)
            if scan.save:
                first = 2 * scan.states * (chunks * block[0] + number * block[1])
                yield (Touch("states", head, first, 2 * scan.states * block[1], True),)
            yield from _finish(scan, head, at, block)

    each = n * channels
    flop = each * (6 * scan.states + 1 + scan.softplus + 2 * scan.skip + 2 * scan.gated)
    return _launch(scan, "forward", read, written, Work(0, flop, flop, _exp(scan) + each * scan.gated), steps)


def _discretise(scan: Scan) -> Launch:
    """exp(Delta A) and B Delta x of every token, channel and state element."""
    n, words = scan.tokens, scan.states * scan.channels
    each = n * scan.channels
    read = {"V": each, "delta": each, "A": scan.extents.number * words, "K": scan.cut.blocks.number * n * scan.states}

    def steps(head: int, block: Extent) -> Iterator[Step]:
        yield _parameters(scan, head, block, ("bias",))
        for at in scan.extents:
            yield (
                *(scan.columns(name, head, at, block) for name in ("V", "delta")),
                scan.parameter("A", head, block),
                *(scan.element("K", head, state, at) for state in range(scan.states)),
            )
            yield tuple(scan.materialised(name, head, at, block, True) for name in ("decay", "update"))

    flop = each * (2 * scan.states + 1 + scan.softplus)
    written = {"decay": n * words, "update": n * words}
    return _launch(
        scan, "discretise", read | _extra_reads(scan, ("bias",)), written, Work(0, flop, flop, _exp(scan)), steps
    )


def _scan(scan: Scan) -> Launch:
    """States of every token."""
    words = scan.tokens * scan.states * scan.channels

    def steps(head: int, block: Extent) -> Iterator[Step]:
        for at in scan.extents:
            yield tuple(scan.materialised(name, head, at, block) for name in ("decay", "update"))
            yield (scan.materialised("states", head, at, block, True),)

    work = Work(0, 2 * words, 2 * words)
    return _launch(scan, "scan", {"decay": words, "update": words}, {"states": words}, work, steps)


def _outputs(scan: Scan) -> Launch:
    """Products of the states with C."""
    n, each = scan.tokens, scan.tokens * scan.channels
    read = {"states": each * scan.states, "Q": scan.cut.blocks.number * n * scan.states}
    read |= _extra_reads(scan, ("D", "z")) | ({"V": each} if scan.skip else {})

    def steps(head: int, block: Extent) -> Iterator[Step]:
        yield _parameters(scan, head, block, ("D",))
        for at in scan.extents:
            skipped = (scan.columns("V", head, at, block),) if scan.skip else ()
            queries = (scan.element("Q", head, state, at) for state in range(scan.states))
            yield (scan.materialised("states", head, at, block), *queries, *skipped)
            yield from _finish(scan, head, at, block)

    flop = each * (2 * scan.states + 2 * scan.skip + 2 * scan.gated)
    work = Work(0, flop, flop, each * scan.gated)
    return _launch(scan, "outputs", read, {"O": each} | _ungated(scan), work, steps)


def _exp(scan: Scan) -> int:
    """Decays, and the softplus of Delta."""
    return scan.tokens * scan.channels * (scan.states + scan.softplus)


def _extra_reads(scan: Scan, names: tuple[str, ...]) -> dict[str, int]:
    """Words of what a layer may have."""
    sizes = {"bias": scan.channels * scan.softplus, "D": scan.channels * scan.skip}
    sizes["z"] = scan.tokens * scan.channels * scan.gated
    return {name: sizes[name] for name in names if decide(sizes[name] != 0)}


def _ungated(scan: Scan) -> dict[str, int]:
    return {"O_ungated": scan.tokens * scan.channels} if scan.save and scan.gated else {}


def _parameters(scan: Scan, head: int, block: Extent, names: tuple[str, ...]) -> Step:
    return tuple(scan.parameter(name, head, block) for name in _extra_reads(scan, names))


def _finish(scan: Scan, head: int, at: Extent, block: Extent) -> Iterator[Step]:
    """The outputs of a chunk, gated or not."""
    if scan.gated:
        yield (scan.columns("z", head, at, block),)
    yield tuple(scan.columns(name, head, at, block, True) for name in ("O", *_ungated(scan)))


def _launch(
    scan: Scan,
    name: str,
    read: dict[str, int],
    written: dict[str, int],
    work: Work,
    steps: Callable[[int, Extent], Iterator[Step]],
) -> Launch:
    """A launch with one item per head and block of channels."""
    blocks = scan.cut.blocks

    def walk(item: int) -> Iterator[Step]:
        head, index = divmod(item, blocks.number)
        return (step for step in steps(head, blocks[index]) if step)

    moved = [scan.moved(tensor, words) for tensor, words in read.items()]
    moved += [scan.moved(tensor, 0, words) for tensor, words in written.items()]
    program = Program(scan.cut.heads, blocks.number, {m.tensor: 1 for m in moved}, walk)
    return Launch(name, program.items, Traffic(tuple(moved)), work * scan.cut.heads, program)


def working_set(call: Call) -> WorkingSet:
    """Of a chunk: one element of B and C and the running states in shared memory; in registers, both elements, and per
    channel Delta, Delta x, the output, the decay and the state."""
    scan, bits = scan_of(call), call.problem.types.bits
    chunk, width = least(scan.cut.chunk, scan.tokens), scan.cut.blocks.widest
    shared = chunk * (bits("K") + bits("Q")) + 2 * scan.states * width * bits("accumulator")
    return WorkingSet(shared // 8, chunk * (5 * width + 2) * bits("accumulator") // 8)


SELECTIVE_SCAN = register(
    Algorithm(
        name="selective-scan",
        title="Selective state-space scan (Mamba-1)",
        source="Gu, Dao 2023, arXiv 2312.00752",
        algorithm_class="linear",
        phases=("prefill",),
        parameters=(
            VALUE_BLOCK,
            Parameter("softplus", True, "Delta is the softplus of what is read plus a bias per channel"),
            Parameter("skip", True, "add D x, one word of D per channel"),
            Parameter("z", False, "multiply by SiLU(z), one word per token and channel"),
            Parameter("save", False, "write the states at chunk ends and the output before z, for a backward pass"),
            Parameter("materialise", False, "decays, updates and states of every token go through slow memory"),
        ),
        launches=launches,
        working_set=working_set,
        packs=False,
    )
)
