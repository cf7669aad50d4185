"""Arrays laid out for the vector units."""

import numpy as np
from llvmlite.binding import get_host_cpu_features

LINE = 64  # bytes of a cache line
BLOCK = 512  # float32; two patterns and five partners of them lie in the first cache
# float32; a piece fills whole cache lines. Its sums that are made together, of TALL × 2 positions, are as many vectors
# as keep the multipliers busy, but no more than there are registers for. The answer is the same with any.
PIECE, TALL = (64, 2) if get_host_cpu_features().get("avx512f") else (32, 1)


def blocks(*shape: int) -> np.ndarray:
    """Return float32 zeros whose last axis is split into blocks: (..., n) becomes (..., blocks, BLOCK), n and more.

    One block more than n needs where their number is even: patterns that lie a power of two apart would share few
    sets of the cache. The first element begins a cache line.
    """
    return _aligned((*shape[:-1], padded(shape[-1]) // BLOCK, BLOCK))


def padded(n: int) -> int:
    """Return how many numbers of a pattern of n `blocks` stores."""
    count = -(-n // BLOCK)
    return (count + 1 - count % 2) * BLOCK


def pieces(rows: int, columns: int, n: int) -> np.ndarray:
    """Return float32 zeros (pieces, rows, columns, PIECE) for patterns of n numbers.

    What patterns have at the same pixels lies together. An odd number of columns is stored: rows that lie a power of
    two apart would share few sets of the cache.
    """
    return _aligned((-(-n // PIECE), rows, columns + 1 - columns % 2, PIECE))


def joined(rows: int, columns: int, n: int) -> np.ndarray:
    """Return float32 zeros (rows, columns, pieces, PIECE) for patterns of n numbers: each lies together."""
    return _aligned((rows, columns, -(-n // PIECE), PIECE))


def in_pieces(columns: int, n: int) -> int:
    """Return how many numbers `pieces` stores of a row of patterns of n numbers."""
    return -(-n // PIECE) * PIECE * (columns + 1 - columns % 2)


def flat(array: np.ndarray) -> np.ndarray:
    """Return a view (..., n) of blocks, or of anything whose last two axes are the pixels of a pattern."""
    return array.reshape(*array.shape[:-2], -1)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    size = 4 * int(np.prod(shape))
    memory = np.zeros(size + LINE, np.uint8)
    begin = -memory.ctypes.data % LINE
    return memory[begin : begin + size].view(np.float32).reshape(shape)
