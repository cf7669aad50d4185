"""Arrays laid out for the vector units."""

import numpy as np

LINE = 64  # bytes of a cache line
BLOCK = 512  # float32; two patterns and five partners of them lie in the first cache


def blocks(*shape: int) -> np.ndarray:
    """Return float32 zeros whose last axis is split into blocks: (..., n) becomes (..., blocks, BLOCK), n and more.

    One block more than n needs where their number is even: patterns that lie a power of two apart would share few
    sets of the cache. The first element begins a cache line.
    """
    count = -(-shape[-1] // BLOCK)
    size = int(np.prod(shape[:-1])) * padded(shape[-1])
    memory = np.zeros(size * 4 + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size * 4].view(np.float32).reshape(*shape[:-1], count + 1 - count % 2, BLOCK)


def padded(n: int) -> int:
    """Return how many numbers of a pattern of n `blocks` stores."""
    count = -(-n // BLOCK)
    return (count + 1 - count % 2) * BLOCK


def flat(array: np.ndarray) -> np.ndarray:
    """Return a view (..., n) of blocks."""
    return array.reshape(*array.shape[:-2], -1)
