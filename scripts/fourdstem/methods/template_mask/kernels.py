"""Compiled loops over patterns as they are stored, and over rows of float32 (n, pixel) made of them."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely

SPAN = 512  # pixels summed in float32


@numba.njit(nogil=True, cache=True)
def plain(stored, usable, offset, out):
    """Write usable pixels of patterns (n, pixel) less an offset into ``out``, 0 elsewhere."""
    for i in range(stored.shape[0]):
        here, there = stored[i], out[i]
        for k in range(len(here)):
            value = np.float32(here[k]) - offset
            there[k] = value if usable[k] else np.float32(0)
    return out


@numba.njit(nogil=True, cache=True)
def paired(stored, usable, offset, low, total, kept, lone, out):
    """Write sums of opposite pixels, lone pixels and differences of opposite pixels into ``out`` (n, ...).

    Parameters
    ----------
    stored : ndarray of shape (n, pixel)
    usable : ndarray of bool, shape (pixel,)
    offset : float32
    low, total : int
        Pixel ``low + j`` lies opposite ``total - low - j``, for each j of ``kept``.
    kept : ndarray of bool, shape (pair,)
        Whether both are usable; else both are among the lone.
    lone : ndarray of int, shape (lone,)
    out : ndarray of float32, shape (n, 2 pair + lone)
    """
    pairs, zero = len(kept), np.float32(0)
    alone = pairs + len(lone)
    high = total - low - pairs + 1
    for i in range(stored.shape[0]):
        near, far = stored[i, low : low + pairs], stored[i, high : high + pairs]
        even, odd = out[i, :pairs], out[i, alone:]
        last = np.uint64(pairs - 1)  # unsigned: the compiler then knows that no index counts from the end
        for j in range(np.uint64(pairs)):
            one, other = np.float32(near[j]) - offset, np.float32(far[last - j]) - offset
            even[j] = one + other if kept[j] else zero
            odd[j] = one - other if kept[j] else zero
        for j in range(len(lone)):
            value = np.float32(stored[i, lone[j]]) - offset
            out[i, pairs + j] = value if usable[lone[j]] else zero
    return out


@numba.njit(nogil=True, cache=True)
def squares_of(rows, group, out):
    """Add the squares of float32 rows (n, pixel) to ``out`` (group, pixel) where ``group`` (n, group) is not 0."""
    for j in range(group.shape[1]):
        line, i = out[j], 0
        while i < rows.shape[0]:
            if i + 4 <= rows.shape[0] and group[i, j] and group[i + 1, j] and group[i + 2, j] and group[i + 3, j]:
                a, b, c, d = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
                for k in range(len(line)):  # in the order of the rows, as below
                    first = line[k] + np.float64(a[k]) * a[k] + np.float64(b[k]) * b[k]
                    line[k] = first + np.float64(c[k]) * c[k] + np.float64(d[k]) * d[k]
                i += 4
            else:
                if group[i, j]:
                    a = rows[i]
                    for k in range(len(line)):
                        line[k] += np.float64(a[k]) * a[k]
                i += 1
    return out


@numba.njit(nogil=True, cache=True)
def add(out, first, part):
    """Add ``part`` (n, m) to the columns of ``out`` (n, ...) from ``first`` on."""
    for i in range(part.shape[0]):
        here, there = part[i], out[i, first : first + part.shape[1]]
        for k in range(len(here)):
            there[k] += here[k]
    return out


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, forceinline=True)
def narrow(rows, start, weights, used, out):
    """Add sums of rows (n, ...) from ``start`` on by few weights (column, pixel) to ``out`` (n, column).

    Four rows at a time share the weights; a library's product would copy all rows for a handful of columns. Summed in
    float32 over `SPAN` pixels, in float64 beyond; spans in which a column has no weight are not ``used``.
    """
    n, zero = rows.shape[0], np.float32(0)
    for i in range(0, n, 4):
        one, two, three = min(i + 1, n - 1), min(i + 2, n - 1), min(i + 3, n - 1)
        for span in range(used.shape[1]):
            first, last = span * SPAN, min(span * SPAN + SPAN, weights.shape[1])
            at, to = start + first, start + last
            a, b, c, d = rows[i, at:to], rows[one, at:to], rows[two, at:to], rows[three, at:to]
            for j in range(weights.shape[0]):
                if not used[j, span]:
                    continue
                w = weights[j, first:last]
                p, q, r, s = zero, zero, zero, zero
                for k in range(len(w)):
                    p += w[k] * a[k]
                    q += w[k] * b[k]
                    r += w[k] * c[k]
                    s += w[k] * d[k]
                sums = (p, q, r, s)
                for m in range(min(4, n - i)):
                    out[i + m, j] += sums[m]
    return out


def spans(weights):
    """Return in which spans of pixels weights (column, pixel) are not all 0, (column, span)."""
    return np.add.reduceat(weights != 0, np.arange(0, weights.shape[1], SPAN), axis=1) > 0


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"}, forceinline=True)
def spread(rows, mean, own, other, lone, out):
    """Return what paired rows put into their own images; see `masks.leave_one_out`.

    With e and o the sum and the difference of two opposite pixels less those of their means: ``Σ own e² + other e o``
    for even masks, ``Σ own o² + other e o`` for odd ones. Summed in float32 over `SPAN` pixels, in float64 beyond.

    Parameters
    ----------
    rows : ndarray of float32, shape (n, 2 pair + lone)
        Of `paired`.
    mean : ndarray of float32, shape (region, 2 pair + lone)
    own : ndarray of float32, shape (region, pair + lone)
    other : ndarray of float32, shape (region, pair)
    lone : int
    out : ndarray of float64, shape (n, 2 region)
        Of even and of odd masks, by turns.
    """
    pairs = other.shape[1]
    for i in range(rows.shape[0]):
        for j in range(mean.shape[0]):
            even, odd = 0.0, 0.0
            for first in range(0, pairs, SPAN):
                last, back = min(first + SPAN, pairs), pairs + lone
                x, y = rows[i, first:last], rows[i, back + first : back + last]
                m, n = mean[j, first:last], mean[j, back + first : back + last]
                a, b = own[j, first:last], other[j, first:last]
                s, t = np.float32(0), np.float32(0)
                for k in range(len(x)):
                    e, o = x[k] - m[k], y[k] - n[k]
                    both = b[k] * e * o
                    s += a[k] * e * e + both
                    t += a[k] * o * o + both
                even += s
                odd += t
            for k in range(pairs, pairs + lone):
                e = rows[i, k] - mean[j, k]
                even += own[j, k] * e * e
            out[i, 2 * j], out[i, 2 * j + 1] = even, odd
    return out


@numba.njit(nogil=True, cache=True)
def scatter(rows, mean, gain, inverse, partner):
    """Return what rows put into their own images: ``Σ_k gain_k d_k (d_k/std_k ± d_p/std_p) / 2``, p opposite k.

    ``d = X - mean``; rows (n, pixel), the rest (region, pixel) and partner (pixel,); float64 (n, 2 region): of even
    and of odd masks, by turns.
    """
    out = np.zeros((rows.shape[0], 2 * mean.shape[0]))
    scaled = np.empty(rows.shape[1])
    for i in range(rows.shape[0]):
        for j in range(mean.shape[0]):
            for k in range(rows.shape[1]):
                scaled[k] = (rows[i, k] - mean[j, k]) * inverse[j, k]
            own, opposite = 0.0, 0.0
            for k in range(rows.shape[1]):
                weighted = gain[j, k] * (rows[i, k] - mean[j, k])
                own += weighted * scaled[k]
                opposite += weighted * scaled[partner[k]]
            out[i, 2 * j], out[i, 2 * j + 1] = 0.5 * (own + opposite), 0.5 * (own - opposite)
    return out


@numba.njit(nogil=True, cache=True)
def without_own(rows, own, mask, mean, inverse, gain, limit, allowed, partner, sign):
    """Return ``Σ_k W_k (X_k - mean_k)`` with masks W learned without each row, whatever their form.

    Parameters
    ----------
    rows : ndarray of shape (n, pixel)
    own : ndarray of shape (n, template)
        Template by number of positions less one.
    mask, mean, inverse, gain, limit : ndarray of shape (template, pixel)
        Correlation, mean, inverse of the standard deviation, factor, smallest correlation kept.
    allowed, partner : ndarray of shape (pixel,)
    sign : int
        Of the correlations that are kept, 0 for both.
    """
    n, pixels = rows.shape
    out = np.zeros((n, mask.shape[0]))
    for i in range(n):
        for j in range(mask.shape[0]):
            total, a = 0.0, own[i, j]
            for k in range(pixels):
                if not allowed[k]:
                    continue
                p = partner[k]
                d = rows[i, k] - mean[j, k]
                here = mask[j, k] - a * d * inverse[j, k]
                there = mask[j, p] - a * (rows[i, p] - mean[j, p]) * inverse[j, p] if p != k else here
                m = 0.5 * (here + there)
                if abs(m) >= limit[j, k] and m * sign >= 0:
                    total += m * gain[j, k] * d
            out[i, j] = total
    return out


@numba.njit(nogil=True, cache=True)
def binned(stored, usable, offset, size, shape, out):
    """Sum usable pixels of (n, detector_y, detector_x) over squares of ``size``, into ``out`` (n, pixel)."""
    out[:] = 0
    for i in range(stored.shape[0]):
        for y in range(shape[0] * size):
            first, x = (y // size) * shape[1], 0
            for k in range(first, first + shape[1]):
                total = out[i, k]
                for _ in range(size):
                    if usable[y, x]:
                        total += np.float32(stored[i, y, x]) - offset
                    x += 1
                out[i, k] = total
    return out


@numba.njit(nogil=True, cache=True)
def moved(stored, shift, usable, offset, size, shape, out):
    """As `binned`, each pattern interpolated bilinearly at ``shift`` (n, 2) beside every usable pixel."""
    out[:] = 0
    for i in range(stored.shape[0]):
        y0, x0 = int(np.floor(shift[i, 0])), int(np.floor(shift[i, 1]))
        fy, fx = np.float32(shift[i, 0] - y0), np.float32(shift[i, 1] - x0)
        for y in range(shape[0] * size):
            for x in range(shape[1] * size):
                if usable[y, x]:
                    a, b = y + y0, x + x0
                    c, d = min(a + 1, stored.shape[1] - 1), min(b + 1, stored.shape[2] - 1)
                    above = (1 - fx) * np.float32(stored[i, a, b]) + fx * np.float32(stored[i, a, d])
                    below = (1 - fx) * np.float32(stored[i, c, b]) + fx * np.float32(stored[i, c, d])
                    out[i, (y // size) * shape[1] + x // size] += (1 - fy) * above + fy * below - offset
    return out


@numba.njit(nogil=True, cache=True)
def split(stored, row, column, seed, half):
    """Return one half of a binomial splitting: each count goes to half 1 or 2 with equal chance.

    A count of n electrons is thinned by the bits of hashes of (seed, position, pixel): both passes over the data,
    in any order, split alike, and the halves of a Poisson count are independent Poisson counts.
    """
    out = np.empty_like(stored)
    n, ny, nx = stored.shape
    for i in range(n):
        base = _mix(
            np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
            ^ _mix(np.uint64(row) << np.uint64(32) | np.uint64(column + i))
        )
        for y in range(ny):
            for x in range(nx):
                left, taken, draw = np.int64(stored[i, y, x]), np.int64(0), np.uint64(0)
                state = base ^ _mix(np.uint64(y) << np.uint64(32) | np.uint64(x))
                while left > 0:
                    bits = _mix(state + draw * np.uint64(0xD1342543DE82EF95))
                    if left < 64:
                        bits &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
                    taken += _ones(bits)
                    left -= 64
                    draw += np.uint64(1)
                out[i, y, x] = taken if half == 1 else stored[i, y, x] - taken
    return out


@numba.njit(nogil=True, cache=True)
def _mix(value):
    """Scramble 64 bits (the finaliser of splitmix64)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _ones(bits):
    """Count the ones among 64 bits."""
    b = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    b = (b & np.uint64(0x3333333333333333)) + ((b >> np.uint64(2)) & np.uint64(0x3333333333333333))
    b = (b + (b >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((b * np.uint64(0x0101010101010101)) >> np.uint64(56))
