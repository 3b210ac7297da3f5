"""FlashConv in float64 by following the touches of a schedule, its transforms written out, and the sum it computes."""

from __future__ import annotations

import numpy as np
from oracles.arithmetic import Arithmetic
from oracles.numpy_kernels import Memory, steps_of

from iosim.kernels.flash_conv import Convolution
from iosim.schedule import Launch

Array = np.ndarray


def direct(q: Array, k: Array, v: Array, filtered: Array, skip: float) -> Array:
    """O_t = sum over s <= t of f_{t-s} (q_t . k_s) v_s + D (q_t . k_t) v_t, term by term."""
    out = np.zeros((len(q), v.shape[1]))
    for t in range(len(q)):
        out[t] = skip * (q[t] @ k[t]) * v[t]
        for s in range(t + 1):
            out[t] += filtered[t - s] * (q[t] @ k[s]) * v[s]
    return out


def butterflies(x: Array, count: Arithmetic, sign: int = -1) -> Array:
    """A transform of a power of two points by decimation in time."""
    if len(x) == 1:
        return x
    even, odd = butterflies(x[::2], count, sign), butterflies(x[1::2], count, sign)
    turned = count.complex_mul(odd, np.exp(sign * 2j * np.pi * np.arange(len(odd)) / len(x)))
    return np.concatenate([count.add(even, turned), count.add(even, -turned)])


def dense(x: Array, radix: int, count: Arithmetic, sign: int = -1) -> Array:
    """The same by dense transforms of at most `radix` points: products with a matrix of roots of unity."""
    inner = min(radix, len(x))
    outer = len(x) // inner
    roots = np.exp(sign * 2j * np.pi * np.outer(np.arange(inner), np.arange(inner)) / inner)
    rows = np.zeros((inner, outer), complex)
    for point in range(inner):  # one multiply-add of every row at a time
        rows = count.add(rows, count.complex_mul(roots[:, point : point + 1], x.reshape(inner, outer)[point]))
    if outer == 1:
        return rows[:, 0]
    rows = count.complex_mul(rows, np.exp(sign * 2j * np.pi * np.outer(np.arange(inner), np.arange(outer)) / len(x)))
    return np.stack([dense(row, radix, count, sign) for row in rows]).T.reshape(-1)


class Transforms:
    """Real transforms of 2 n points by complex ones of n."""

    def __init__(self, points: int, radix: int, count: Arithmetic) -> None:
        self.points, self.radix, self.count = points, radix, count
        self.turn = np.exp(-1j * np.pi * np.arange(points) / points)

    def complex(self, x: Array, sign: int) -> Array:
        if not self.radix:
            return butterflies(x, self.count, sign)
        useful, executed = Arithmetic(), Arithmetic()
        known = butterflies(x, useful, sign)
        found = dense(x, self.radix, executed, sign)
        np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-9)
        self.count.flop += useful.flop
        self.count.executed += executed.executed
        return found

    def _mixed(self, s: Array) -> tuple[Array, Array]:
        """Sums and differences of points and their mirror images, from the second on."""
        other = np.conj(s[:0:-1])
        return self.count.add(s[1:], other), self.count.add(s[1:], -other)

    def _ends(self, s: Array) -> Array:
        return self.count.add(np.array([s[0].real, s[0].real]), np.array([s[0].imag, -s[0].imag]))

    def forward(self, real: Array) -> Array:
        """The first n points of a real sequence's transform; the last, which is real, is the first's imaginary part."""
        s = self.complex(real[::2] + 1j * real[1::2], -1)
        even, odd = self._mixed(s)
        both = self.count.add(even, self.count.complex_mul(-1j * odd, self.turn[1:]))
        first = self._ends(s)
        return np.concatenate([[first[0] + 1j * first[1]], self.count.mul(both, np.array(0.5))])

    def inverse(self, spectrum: Array) -> Array:
        """Twice n times the real sequence, halves left to whoever scales."""
        even, odd = self._mixed(spectrum)
        both = self.count.add(even, self.count.complex_mul(odd, 1j * np.conj(self.turn[1:])))
        first = self._ends(spectrum)
        s = self.complex(np.concatenate([[first[0] + 1j * first[1]], both]), 1)
        return np.stack([s.real, s.imag], axis=1).reshape(-1)

    def times(self, a: Array, b: Array) -> Array:
        ends = self.count.mul(np.array([a[0].real, a[0].imag]), np.array([b[0].real, b[0].imag]))
        return np.concatenate([[ends[0] + 1j * ends[1]], self.count.complex_mul(a[1:], b[1:])])


def padded(values: Array, length: int) -> Array:
    return np.concatenate([values, np.zeros(length - len(values))])


def transform_filter(launch: Launch, memory: Memory, made: Convolution, count: Arithmetic) -> None:
    """Points 0 to n of the filter's transform, real and imaginary parts."""
    for _, loads, writes in steps_of(launch, memory):
        if loads:
            found = Transforms(made.points, made.radix, count).forward(
                padded(loads["filter"][0][1][:, 0], 2 * made.points)
            )
        for touch in writes:
            whole = np.concatenate([[found[0].real], found[1:], [found[0].imag]])
            memory.store(touch, 1, np.stack([whole.real, whole.imag], axis=1))


def convolve(launch: Launch, memory: Memory, made: Convolution, count: Arithmetic) -> None:
    """Channel after channel of each chunk: the convolution of K V, what the state adds, and the state's update."""
    d, m, last = made.cut.problem.shape.head_dim, made.states, -1
    work = Transforms(made.points, made.radix, count)
    for item, loads, writes in steps_of(launch, memory):
        if item != last:
            last, state, a, b, c = item, np.zeros((d, m)), None, None, None
            pairs = loads["filter_fft"][0][1].reshape(-1, 2)
            packed = pairs[:-1, 0] + 1j * pairs[:-1, 1]
            packed[0] = pairs[0, 0] + 1j * pairs[-1, 0]
            spectrum = count.mul(packed, np.array(0.5 / made.points))
            skip = loads["D"][0][1][0, 0]
            if "ssm" in loads:
                a, b, c = loads["ssm"][0][1].reshape(3, m)
        if "states" in loads:
            state = loads["states"][0][1].reshape(d, m)
        if "V" in loads:
            at, v = loads["V"][0][0], loads["V"][0][1][:, 0]
            first, size, depth = at.row % made.tokens, at.rows, 0
            result = np.zeros(size)
        if "K" in loads:
            u = count.mul(loads["K"][0][1][:, 0], v)
            y = work.inverse(work.times(work.forward(padded(u, 2 * made.points)), spectrum))[:size]
            y = count.add(y, count.mul(u, np.array(skip)))
            if first:
                x = state[depth]
                for t in range(size):
                    x = count.mul(a, x)
                    for part in count.mul(c, x):
                        y[t] = count.add(y[t], part)
            if first + size < made.tokens:
                x = state[depth]
                for t in range(size):
                    x = count.add(count.mul(a, x), count.mul(b, np.full(m, u[t])))
                state[depth] = x
            result = count.add(result, count.mul(y, loads["Q"][0][1][:, 0]))
            depth += 1
        for touch in writes:
            memory.store(touch, 1, result if touch.tensor == "O" else state)
