"""Arrays that begin at a cache line: where they begin by chance, a stream from the nearest cache varies by half."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

LINE_BYTES = 64


def aligned(*shape: int) -> NDArray[np.float32]:
    """An array of single precision, not initialised."""
    size = math.prod(shape)
    raw = np.empty(4 * size + LINE_BYTES, np.uint8)
    first = -raw.ctypes.data % LINE_BYTES
    return raw[first : first + 4 * size].view(np.float32).reshape(shape)
