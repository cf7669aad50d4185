"""Kernels of averaging: squared differences of pairs, weights.

Rows of patterns live in a ring: scan row y is stored at ``y % capacity``, its columns from ``left`` on. The window
of position i along one axis of n positions is ``[begin, begin + width)``, shifted at the edges so that it stays
full. Everything that belongs to a pair is kept in the slot ``(y_j - begin_y) * width_x + (x_j - begin_x)`` of i's
table. ``scan`` is the tuple (half, ny, nx, left): half width of the window, positions of the scan, first column.

What makes them fast: the pixels of a pattern lie in blocks (see `arrays.blocks`), so that those of a tile stay in
the cache while patterns meet each other; two neighbours meet the same five partners in one pass (see `vectors`), so
that what is loaded is used several times. Sums run in one order, whatever the thread count: a tile is computed by
one thread, and tiles do not depend on the number of threads.
"""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.nonlocal_average.arrays import BLOCK
from fourdstem.methods.nonlocal_average.vectors import PARTNERS, ten_squares
from fourdstem.vectors import LANES

FAST = {"reassoc", "contract", "nsz"}  # lets sums use vector lanes; NaN keeps its meaning
DUPLICATE = 1e-3  # some cameras hand out one frame twice
NEGLIGIBLE = 1e-9  # of a weight; below the last bit of a float32 sum


@numba.njit(nogil=True, cache=True)
def window_width(half, n):
    """Positions along one axis of the search window."""
    return min(2 * half + 1, n)


@numba.njit(nogil=True, cache=True)
def window_begin(i, half, n):
    """First position of the window of position i, along one axis of n positions."""
    return min(max(i - half, 0), n - window_width(half, n))


@numba.njit(nogil=True, cache=True)
def seen_from(i, half, n):
    """First and last + 1 position whose window holds position i."""
    width = window_width(half, n)
    first = 0 if i < width else i - half
    last = n if i >= n - width else i + half + 1
    return first, last


@numba.njit(nogil=True, cache=True)
def partners(y, x, y2, half, ny, nx):
    """Range of x2 such that (y2, x2) precedes (y, x) and one of the two lies in the other's window."""
    first, last = nx, 0
    if window_begin(y, half, ny) <= y2 < window_begin(y, half, ny) + window_width(half, ny):
        first = window_begin(x, half, nx)
        last = first + window_width(half, nx)
    low, high = seen_from(y, half, ny)
    if low <= y2 < high:
        a, b = seen_from(x, half, nx)
        first, last = min(first, a), max(last, b)
    return first, (min(last, x) if y2 == y else last)


@numba.njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def difference(z, i, j, block):
    """Return Σ (Z_i - Z_j)² of a block; i and j are (row, column)."""
    total = np.float32(0)
    for p in range(BLOCK):
        a, b = z[i[0], i[1], block, p], z[j[0], j[1], block, p]
        total += (a - b) * (a - b)
    return total


@numba.njit(nogil=True, cache=True)
def starts(z, row, column, block):
    """Return where a block of a pattern begins, all numbers of ``z`` (capacity, columns, blocks, BLOCK) in one row."""
    return ((row * z.shape[1] + column) * z.shape[2] + block) * BLOCK


@numba.njit(nogil=True, cache=True)
def fifth(first, x2, columns):
    """Return which five of the partners from ``first`` on hold column x2, and the first column of the five."""
    five = (x2 - first) // PARTNERS
    return five, min(first + five * PARTNERS, columns - PARTNERS)


@numba.njit(nogil=True, cache=True)
def squared_differences(z, i, j, row, first, last, block, sums, at):
    """Add what patterns i and j differ by from those of ``z[row, first:last]`` to ``sums[at:]``, five by five.

    What of five lies beyond ``last`` means nothing. i and j are (row, column); see `vectors.ten_squares` and `fifth`.
    """
    own, partner = starts(z, i[0], i[1], block), starts(z, j[0], j[1], block)
    for k in range(first, last, PARTNERS):
        five, start = fifth(first, k, z.shape[1])
        there = starts(z, row, start, block)
        ten_squares(z, own, partner, there, z.shape[2] * BLOCK, sums, at + five * LANES)


@numba.njit(nogil=True, cache=True)
def pair_range(y, x, second, y2, scan, columns):
    """Range of columns that hold the partners of (y, x) and of (y, second) in row y2."""
    half, ny, nx, left = scan
    a, b = partners(y, x, y2, half, ny, nx)
    c, d = partners(y, second, y2, half, ny, nx)
    return max(min(a, c), left), min(max(b, d), left + columns)


@numba.njit(nogil=True, cache=True)
def pair_distances(roots, tile, scan, table):
    """Fill both slots of every pair whose later member lies in a tile: each sum is computed once.

    Parameters
    ----------
    roots : ndarray of float32, shape (capacity, columns, blocks, BLOCK)
        What is compared.
    tile : tuple of int
        y0, y1, x0, x1.
    scan : tuple of int
        half, ny, nx, left.
    table : ndarray of float64, shape (capacity, columns, window)
        Σ (Z_i - Z_j)², filled.
    """
    capacity, columns, blocks, _ = roots.shape
    half, ny, nx, left = scan
    y0, y1, x0, x1 = tile
    rows, pairs = min(2 * half, ny - 1) + 1, (x1 - x0 + 1) // 2
    room = -(-(2 * window_width(half, nx) + 1) // PARTNERS) * LANES
    ranges = np.zeros((y1 - y0, pairs, rows, 2), np.int64)
    sums = np.zeros((y1 - y0) * pairs * rows * room)
    for y in range(y0, y1):
        for pair in range(pairs):
            x = x0 + 2 * pair
            for y2 in range(max(0, y - 2 * half), y + 1):
                first, last = pair_range(y, x, min(x + 1, x1 - 1), y2, scan, columns)
                ranges[y - y0, pair, y - y2] = first - left, last - left
    for block in range(blocks):
        for y in range(y0, y1):
            for y2 in range(max(0, y - 2 * half), y + 1):
                for pair in range(pairs):
                    x = x0 + 2 * pair - left
                    i, j = (y % capacity, x), (y % capacity, min(x + 1, x1 - 1 - left))
                    first, last = ranges[y - y0, pair, y - y2]
                    at = (((y - y0) * pairs + pair) * rows + y - y2) * room
                    squared_differences(roots, i, j, y2 % capacity, first, last, block, sums, at)
    for y in range(y0, y1):
        for x in range(x0, x1):
            pair, own = (x - x0) // 2, (x - x0) % 2
            for y2 in range(max(0, y - 2 * half), y + 1):
                at = (((y - y0) * pairs + pair) * rows + y - y2) * room
                first, last = partners(y, x, y2, half, ny, nx)
                for x2 in range(max(first, left), min(last, left + columns)):
                    five, start = fifth(ranges[y - y0, pair, y - y2, 0], x2 - left, columns)
                    value = sums[at + five * LANES + own * PARTNERS + x2 - left - start]
                    keep(table, y, x, y2, x2, scan, value)
                    keep(table, y2, x2, y, x, scan, value)


@numba.njit(nogil=True, cache=True)
def keep(table, y, x, y2, x2, scan, value):
    """Store what belongs to the pair in the slot of (y2, x2) in the table of (y, x), if it has one."""
    half, ny, nx, left = scan
    width_x = window_width(half, nx)
    dy, dx = y2 - window_begin(y, half, ny), x2 - window_begin(x, half, nx)
    if 0 <= dy < window_width(half, ny) and 0 <= dx < width_x:
        table[y % table.shape[0], x - left, dy * width_x + dx] = value


@numba.njit(nogil=True, cache=True)
def near_differences(rows, y, x0, x1, out):
    """Fill ``out[x]`` with Σ (Z_i - Z_j)² of columns x0 to x1 and the neighbours W, NW, N, NE; NaN beyond the scan.

    Parameters
    ----------
    rows : ndarray of float32, shape (capacity, columns, blocks, BLOCK)
        Scan row y lies at ``y % capacity``, as does the one before; at least `PARTNERS` columns, of which those of
        ``out`` mean something.
    y, x0, x1 : int
    out : ndarray of float32, shape (scan_x, 4)
    """
    capacity, columns, blocks, _ = rows.shape
    now, before = y % capacity, (y - 1) % capacity
    nx, sums = out.shape[0], np.empty(LANES)
    for x in range(x0, x1, 2):
        start, second = min(max(x - 1, 0), columns - PARTNERS), min(x + 1, x1 - 1)
        sums[:] = np.nan if y == 0 else 0.0
        for block in range(blocks if y > 0 else 0):
            own, other = starts(rows, now, x, block), starts(rows, now, second, block)
            there = starts(rows, before, start, block)
            ten_squares(rows, own, other, there, blocks * BLOCK, sums, 0)
        for n in range(second - x + 1):
            total = np.nan if x + n == 0 else 0.0
            for block in range(blocks if x + n > 0 else 0):
                total += difference(rows, (now, x + n), (now, x + n - 1), block)
            out[x + n, 0] = total
            for k in range(1, 4):
                x2 = x + n + k - 2
                out[x + n, k] = sums[n * PARTNERS + x2 - start] if 0 <= x2 < nx else np.nan


@numba.njit(nogil=True, cache=True)
def distance_weight(distance, scale):
    """Weight of a pair at a distance, ``scale`` being λ and d₀; 0 where the distance is not known."""
    if np.isnan(distance):
        return 0.0
    width, offset = scale
    weight = np.exp(-max(distance - offset, 0.0) / width**2)
    return weight if weight >= NEGLIGIBLE else 0.0


@numba.njit(nogil=True, cache=True)
def pair_weight(total, variance, n, scale):
    """Weight of a pair from Σ (Z_i - Z_j)² and σ²_i + σ²_j; 0 where the noise is not known."""
    if not variance > 0:
        return 0.0
    return distance_weight((total - n * variance) / (variance * np.sqrt(2.0 * n)), scale)


@numba.njit(nogil=True, cache=True)
def normalise(weight, out):
    """Fill ``out`` with weights that sum to 1, that of the pattern itself being 1 before; return their trust.

    Returns
    -------
    tuple of float
        Effective number and self-weight.
    """
    total = weight.sum()
    out[:] = weight / total
    return total**2 / (weight**2).sum(), 1 / total


@numba.njit(nogil=True, cache=True)
def row_weights(table, variance, y, x0, x1, scan, n, scale, out):
    """Fill ``out[x - x0]`` with the normalised weights of columns x0 to x1 of scan row y, and return their trust.

    Parameters
    ----------
    table : ndarray of float64, shape (capacity, columns, window)
        From `pair_distances`.
    variance : ndarray of float64, shape (scan_y, scan_x)
        σ².
    y, x0, x1 : int
    scan : tuple of int
        half, ny, nx, left.
    n : int
        Pixels compared.
    scale : tuple of float
        λ and d₀.
    out : ndarray of float32, shape (x1 - x0, window)

    Returns
    -------
    ndarray of float32, shape (2, x1 - x0)
        Effective number and self-weight.
    """
    half, ny, nx, left = scan
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    weight = np.empty(width_y * width_x)
    trust = np.empty((2, x1 - x0), np.float32)
    for x in range(x0, x1):
        for slot in range(weight.size):
            y2 = window_begin(y, half, ny) + slot // width_x
            x2 = window_begin(x, half, nx) + slot % width_x
            if y2 == y and x2 == x:
                weight[slot] = 1.0
            else:
                total = table[y % table.shape[0], x - left, slot]
                weight[slot] = pair_weight(total, variance[y, x] + variance[y2, x2], n, scale)
        trust[0, x - x0], trust[1, x - x0] = normalise(weight, out[x - x0])
    return trust
