"""Kernels of the window search: distances of pairs, noise, weights, weighted sums.

Rows of patterns live in a ring: scan row y is stored at ``y % capacity``. The window of position i along one
axis of n positions is ``[begin, begin + width)``, shifted at the edges so that it stays full. Everything that
belongs to a pair is kept in the slot ``(y_j - begin_y) * width_x + (x_j - begin_x)`` of i's table.

Pixels are taken in blocks so that the patterns of a tile stay in the cache while they meet each other; several
partners share one pass, which loads each pixel of the first pattern once. Sums run in one order, whatever the
thread count: a tile is computed by one thread, and tiles do not depend on the number of threads.
"""

import numba
import numpy as np

FAST = {"reassoc", "contract", "nsz"}  # lets sums use vector lanes; NaN keeps its meaning
DISTANCE_BLOCK = 512
SUM_BLOCK = 512
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


@numba.njit(nogil=True, cache=True, fastmath=FAST)
def squared_differences(one, row, first, last, p0, p1, sums):
    """Add ``Σ (one - row[x])²`` over pixels p0 to p1 to ``sums[x - first]`` for x from first to last."""
    x = first
    while x + 4 <= last:
        s0 = s1 = s2 = s3 = np.float32(0)
        a, b, c, d = row[x], row[x + 1], row[x + 2], row[x + 3]
        for p in range(p0, p1):
            z = one[p]
            s0 += (z - a[p]) * (z - a[p])
            s1 += (z - b[p]) * (z - b[p])
            s2 += (z - c[p]) * (z - c[p])
            s3 += (z - d[p]) * (z - d[p])
        sums[x - first] += s0
        sums[x - first + 1] += s1
        sums[x - first + 2] += s2
        sums[x - first + 3] += s3
        x += 4
    while x < last:
        s0 = np.float32(0)
        a = row[x]
        for p in range(p0, p1):
            s0 += (one[p] - a[p]) * (one[p] - a[p])
        sums[x - first] += s0
        x += 1


@numba.njit(nogil=True, cache=True)
def pair_distances(roots, tile, half, ny, table):
    """Fill both slots of every pair whose later member lies in a tile: each sum is computed once.

    Parameters
    ----------
    roots : ndarray of float32, shape (capacity, scan_x, n)
        Square roots of counts.
    tile : tuple of int
        y0, y1, x0, x1.
    half, ny : int
        Half width of the window; rows of the scan.
    table : ndarray of float64, shape (capacity, scan_x, window)
        Σ (Z_i - Z_j)², filled.
    """
    capacity, nx, n = roots.shape
    y0, y1, x0, x1 = tile
    reach = 2 * window_width(half, nx)
    sums = np.zeros((y1 - y0, x1 - x0, min(2 * half, ny - 1) + 1, reach))
    for p0 in range(0, n, DISTANCE_BLOCK):
        p1 = min(p0 + DISTANCE_BLOCK, n)
        for y in range(y0, y1):
            for x in range(x0, x1):
                for y2 in range(max(0, y - 2 * half), y + 1):
                    first, last = partners(y, x, y2, half, ny, nx)
                    into = sums[y - y0, x - x0, y - y2]
                    squared_differences(roots[y % capacity, x], roots[y2 % capacity], first, last, p0, p1, into)
    for y in range(y0, y1):
        for x in range(x0, x1):
            for y2 in range(max(0, y - 2 * half), y + 1):
                first, last = partners(y, x, y2, half, ny, nx)
                for x2 in range(first, last):
                    keep(table, y, x, y2, x2, half, ny, sums[y - y0, x - x0, y - y2, x2 - first])
                    keep(table, y2, x2, y, x, half, ny, sums[y - y0, x - x0, y - y2, x2 - first])


@numba.njit(nogil=True, cache=True)
def keep(table, y, x, y2, x2, half, ny, value):
    """Store what belongs to the pair in the slot of (y2, x2) in the table of (y, x), if it has one."""
    capacity, nx, _ = table.shape
    width_x = window_width(half, nx)
    dy, dx = y2 - window_begin(y, half, ny), x2 - window_begin(x, half, nx)
    if 0 <= dy < window_width(half, ny) and 0 <= dx < width_x:
        table[y % capacity, x, dy * width_x + dx] = value


@numba.njit(nogil=True, cache=True)
def noise_variances(table, y, half, ny, n, out):
    """Fill ``out[x]`` with σ² of scan row y: the least Σ (Z_i - Z_j)² / 2n of the 8 neighbours.

    Duplicates do not count, for they would make the noise vanish; without a neighbour that counts, σ² is NaN.
    """
    capacity, nx, _ = table.shape
    width_x = window_width(half, nx)
    for x in range(nx):
        least = np.inf
        for y2 in range(max(y - 1, 0), min(y + 2, ny)):
            for x2 in range(max(x - 1, 0), min(x + 2, nx)):
                slot = (y2 - window_begin(y, half, ny)) * width_x + x2 - window_begin(x, half, nx)
                total = table[y % capacity, x, slot]
                if (y2 != y or x2 != x) and DUPLICATE < total < least:
                    least = total
        out[x] = least / (2 * n) if least < np.inf else np.nan


@numba.njit(nogil=True, cache=True)
def row_weights(table, variance, y, half, ny, n, scale, out):
    """Fill ``out[x]`` with the normalised weights of scan row y, and return their trust.

    Parameters
    ----------
    table : ndarray of float64, shape (capacity, scan_x, window)
        From `pair_distances`.
    variance : ndarray of float64, shape (scan_y, scan_x)
        From `noise_variances`.
    y, half, ny, n : int
        Scan row, half width of the window, rows of the scan, pixels compared.
    scale : tuple of float
        λ and d₀.
    out : ndarray of float32, shape (scan_x, window)

    Returns
    -------
    ndarray of float32, shape (2, scan_x)
        Effective number and self-weight.
    """
    capacity, nx, _ = table.shape
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    weight = np.empty(width_y * width_x)
    trust = np.empty((2, nx), np.float32)
    for x in range(nx):
        for slot in range(weight.size):
            y2 = window_begin(y, half, ny) + slot // width_x
            x2 = window_begin(x, half, nx) + slot % width_x
            if y2 == y and x2 == x:
                weight[slot] = 1.0
            else:
                weight[slot] = pair_weight(table[y % capacity, x, slot], variance[y, x] + variance[y2, x2], n, scale)
        total = weight.sum()
        trust[0, x] = total**2 / (weight**2).sum()
        trust[1, x] = 1 / total
        out[x] = weight / total
    return trust


@numba.njit(nogil=True, cache=True)
def pair_weight(total, variance, n, scale):
    """Weight of a pair from Σ (Z_i - Z_j)² and σ²_i + σ²_j; 0 where the noise is not known."""
    if not variance > 0:
        return 0.0
    width, offset = scale
    distance = (total - n * variance) / (variance * np.sqrt(2.0 * n))
    weight = np.exp(-max(distance - offset, 0.0) / width**2)
    return weight if weight >= NEGLIGIBLE else 0.0


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def add_row(weights, row, p0, p1, out):
    """Add ``Σ_k weights[k] * row[k]`` over pixels p0 to p1 to ``out``."""
    k = 0
    while k + 3 <= weights.size:
        u, v, w = weights[k], weights[k + 1], weights[k + 2]
        if u > 0 or v > 0 or w > 0:
            a, b, c = row[k], row[k + 1], row[k + 2]
            for p in range(p0, p1):
                out[p] += u * a[p] + v * b[p] + w * c[p]
        k += 3
    while k < weights.size:
        if weights[k] > 0:
            a = row[k]
            for p in range(p0, p1):
                out[p] += weights[k] * a[p]
        k += 1


@numba.njit(nogil=True, cache=True)
def weighted_sums(values, weights, tile, half, ny, out):
    """Fill ``out[y - y0, x]`` with the weighted sums of a tile's windows.

    Parameters
    ----------
    values : ndarray of float32, shape (capacity, scan_x, pixels)
    weights : ndarray of float32, shape (rows, scan_x, window)
        Of the rows from y0 on.
    tile : tuple of int
        y0, y1, x0, x1.
    half, ny : int
        Half width of the window; rows of the scan.
    out : ndarray of float32, shape (rows, scan_x, pixels)
    """
    capacity, nx, n = values.shape
    y0, y1, x0, x1 = tile
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    for p0 in range(0, n, SUM_BLOCK):
        p1 = min(p0 + SUM_BLOCK, n)
        for y in range(y0, y1):
            for x in range(x0, x1):
                total = out[y - y0, x]
                total[p0:p1] = 0
                begin = window_begin(x, half, nx)
                for k in range(width_y):
                    row = values[(window_begin(y, half, ny) + k) % capacity, begin : begin + width_x]
                    add_row(weights[y - y0, x, k * width_x : (k + 1) * width_x], row, p0, p1, total)
