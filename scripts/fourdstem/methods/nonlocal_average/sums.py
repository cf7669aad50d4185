"""Kernels of averaging: weighted sums of the windows.

Two neighbours share nearly all of their window, so that both take what is loaded of a pattern. A piece of both sums,
`PIECE` numbers each, stays in registers while the patterns of the window go by (see `vectors`): nothing is stored in
between. For that the same piece of all patterns lies together (see `arrays.pieces`): what the windows of a row of
positions hold of it fits into the cache.

Bits depend neither on threads nor on memory: a number is summed over its window in one order, whoever does it.
"""

import numba
import numpy as np

from fourdstem.methods.nonlocal_average.arrays import PIECE
from fourdstem.methods.nonlocal_average.kernels import window_begin, window_width
from fourdstem.methods.nonlocal_average.source import root
from fourdstem.methods.nonlocal_average.vectors import copy, settle, two_sums

TOGETHER = 4  # pieces of a pattern that are put away one after the other


@numba.njit(nogil=True, cache=True)
def entries(weights, y0, core, scan, rows, columns):
    """Return what the windows of pairs of neighbours hold, but for what neither of the two takes.

    Parameters
    ----------
    weights : ndarray of float32, shape (scan rows, core columns, window)
        Of scan rows from y0 on and columns from ``core`` on.
    y0, core : int
    scan : tuple of int
        half, ny, nx, left; see `kernels`.
    rows, columns : int
        Of the values, as they are stored.

    Returns
    -------
    place : ndarray of int64, shape (scan rows, pairs, entries)
        See `two_sums`.
    weight : ndarray of float32, shape (scan rows, pairs, entries, 2)
        0 beyond a window; the last column of an odd number is its own neighbour.
    count : ndarray of int64, shape (scan rows, pairs)
    """
    half, ny, nx, left = scan
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    pairs, most = (weights.shape[1] + 1) // 2, width_y * (width_x + 1)
    place = np.empty((weights.shape[0], pairs, most), np.int64)
    weight = np.empty((weights.shape[0], pairs, most, 2), np.float32)
    count = np.zeros((weights.shape[0], pairs), np.int64)
    for y in range(weights.shape[0]):
        for pair in range(pairs):
            i, j = 2 * pair, min(2 * pair + 1, weights.shape[1] - 1)
            begin, shifted = window_begin(core + i, half, nx), window_begin(core + j, half, nx)
            for k in range(width_y):
                row = (window_begin(y0 + y, half, ny) + k) % rows
                for x in range(begin, shifted + width_x):
                    a = weights[y, i, k * width_x + x - begin] if x < begin + width_x else np.float32(0)
                    b = weights[y, j, k * width_x + x - shifted] if x >= shifted else np.float32(0)
                    if a != 0 or b != 0:
                        n = count[y, pair]
                        place[y, pair, n] = row * columns + x - left
                        weight[y, pair, n, 0], weight[y, pair, n, 1] = a, b
                        count[y, pair] += 1
    return place, weight, count


@numba.njit(nogil=True, cache=True)
def weighted_sums(values, place, weight, count, pieces, square, offset, meant, out):
    """Fill pieces of ``out`` with the weighted sums of all windows.

    Parameters
    ----------
    values : ndarray of float32, shape (pieces, rows, columns, PIECE)
        See `put`.
    place, weight, count : ndarray
        From `entries`.
    pieces : tuple of int
        First and last + 1 that is filled.
    square : bool
        Fill in the square of a sum plus the offset.
    offset : float
    meant : ndarray of uint8, shape (pieces, PIECE)
        0 where averages mean nothing and are set to 0.
    out : ndarray of float32, shape (scan rows, core columns, pieces, PIECE)
        Begins a cache line.
    """
    both, low = np.empty((2, PIECE), np.float32), np.float32(offset)
    for piece in range(*pieces):
        for y in range(count.shape[0]):
            for pair in range(count.shape[1]):
                two_sums(values[piece], place[y, pair], weight[y, pair], count[y, pair], both)
                for n in range(2):
                    for p in range(PIECE):
                        value = both[n, p] * both[n, p] + low if square else both[n, p]
                        both[n, p] = value if meant[piece, p] != 0 else np.float32(0)
                    copy(both[n], out[y, min(2 * pair + n, out.shape[1] - 1), piece])
    settle()


@numba.njit(nogil=True, cache=True)
def put(patterns, root_of, offset, row, column, values):
    """Store patterns (n_patterns, n), or the roots of what exceeds an offset, in ``values[:, row, column:]``.

    Parameters
    ----------
    patterns : ndarray, shape (n_patterns, n)
    root_of : bool
    offset : float
    row, column : int
    values : ndarray of float32, shape (pieces, rows, columns, PIECE)
        Begins a cache line; numbers that fill up a piece mean nothing.
    """
    low = np.float32(offset)
    some = np.zeros((patterns.shape[0], TOGETHER * PIECE), np.float32)
    for begin in range(0, patterns.shape[1], some.shape[1]):
        width = min(some.shape[1], patterns.shape[1] - begin)
        for i in range(patterns.shape[0]):
            taken, own = patterns[i, begin : begin + width], some[i]
            if root_of:
                for p in range(width):
                    own[p] = root(taken[p], low)
            else:
                for p in range(width):
                    own[p] = taken[p]
        for piece in range(-(-width // PIECE)):
            for i in range(patterns.shape[0]):
                copy(some[i, piece * PIECE :], values[begin // PIECE + piece, row, column + i])
    settle()
