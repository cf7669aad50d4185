"""Kernels of averaging: weighted sums of the windows.

Neighbours share most of their windows, so that two in a row, and with `TALL` 2 those below, take what is loaded of one.
A piece of their sums, `PIECE` numbers each, stays in registers while the patterns of the windows go by (see
`vectors`): nothing is stored in between. For that the same piece of all patterns lies together (see `arrays.pieces`):
what the windows of a row of positions hold of it fits into the cache.

Bits depend neither on threads nor on memory: a number is summed over its window in one order, whoever does it, and a
weight of 0 changes nothing.
"""

import numba
import numpy as np

from fourdstem.methods.nonlocal_average.arrays import PIECE, TALL
from fourdstem.methods.nonlocal_average.kernels import window_begin, window_width
from fourdstem.methods.nonlocal_average.source import root
from fourdstem.methods.nonlocal_average.vectors import SUMS, copy, settle, weighted

TOGETHER = 4  # pieces of a pattern that are put away one after the other


@numba.njit(nogil=True, cache=True)
def entries(weights, y0, core, scan, rows, columns):
    """Return what the windows of groups of neighbours hold, but for what none of them takes.

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
    place : ndarray of int64, shape (groups along y, groups along x, entries)
        See `vectors.weighted`; a group has `TALL` rows and two columns.
    weight : ndarray of float32, shape (groups along y, groups along x, entries, SUMS)
        0 beyond a window; where a group reaches beyond the rows or columns, their last takes the place of the next.
    count : ndarray of int64, shape (groups along y, groups along x)
    """
    half, ny, nx, left = scan
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    tall, wide = (weights.shape[0] + TALL - 1) // TALL, (weights.shape[1] + 1) // 2
    most = (width_y + TALL - 1) * (width_x + 1)
    place = np.empty((tall, wide, most), np.int64)
    weight = np.zeros((tall, wide, most, SUMS), np.float32)
    count = np.zeros((tall, wide), np.int64)
    for group in range(tall):
        first, last = TALL * group, min(TALL * group + TALL, weights.shape[0]) - 1
        for pair in range(wide):
            i, j = 2 * pair, min(2 * pair + 1, weights.shape[1] - 1)
            n = 0
            for y2 in range(window_begin(y0 + first, half, ny), window_begin(y0 + last, half, ny) + width_y):
                for x2 in range(window_begin(core + i, half, nx), window_begin(core + j, half, nx) + width_x):
                    some = False
                    for k in range(SUMS):
                        y, x = min(first + k // 2, last), j if k % 2 else i
                        dy, dx = y2 - window_begin(y0 + y, half, ny), x2 - window_begin(core + x, half, nx)
                        inside = 0 <= dy < width_y and 0 <= dx < width_x
                        own = weights[y, x, dy * width_x + dx] if inside else np.float32(0)
                        weight[group, pair, n, k] = own
                        some = some or own != 0
                    if some:
                        place[group, pair, n] = y2 % rows * columns + x2 - left
                        n += 1
            count[group, pair] = n
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
    some, low = np.empty((SUMS, PIECE), np.float32), np.float32(offset)
    for piece in range(*pieces):
        for group in range(count.shape[0]):
            for pair in range(count.shape[1]):
                weighted(values[piece], place[group, pair], weight[group, pair], count[group, pair], some)
                for n in range(SUMS):
                    for p in range(PIECE):
                        value = some[n, p] * some[n, p] + low if square else some[n, p]
                        some[n, p] = value if meant[piece, p] != 0 else np.float32(0)
                    y, x = TALL * group + n // 2, 2 * pair + n % 2
                    if y < out.shape[0] and x < out.shape[1]:
                        copy(some[n], out[y, x, piece])
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
