"""Patterns made ready for the refinement: averaged, raised to a power, freed of ring means, convolved with a disk."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.vectors import PIECE, taps


@numba.njit(nogil=True, cache=True)
def convolve(image, kernel, out):
    """Sum of a kernel (odd sides, symmetric) around every pixel; nothing lies beyond the edge."""
    ny, nx = image.shape
    reach = kernel.shape[0] // 2
    wide = (nx + PIECE - 1) // PIECE * PIECE + 2 * reach
    padded = np.zeros((ny + 2 * reach, wide), np.float32)
    for y in range(ny):  # an assignment of slices takes numba seconds to compile
        for x in range(nx):
            padded[reach + y, reach + x] = image[y, x]
    offset, weight, count = np.empty(kernel.size, np.int64), np.empty(kernel.size, np.float32), 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            if kernel[i, j] > 0:
                offset[count], weight[count] = i * wide + j, kernel[i, j]
                count += 1
    flat, sums = padded.reshape(-1), np.empty(wide, np.float32)
    for y in range(ny):
        for x in range(0, nx, PIECE):
            taps(flat, y * wide + x, offset, weight, count, sums, x)
        for x in range(nx):
            out[y, x] = sums[x]


@numba.njit(nogil=True, cache=True)
def flatten(sums, weight, rings, power, squares):
    """Raise averages to a power, and to twice that, and take ring means away.

    Parameters
    ----------
    sums : ndarray of float32, shape (detector_y, detector_x)
        Changed: ``sums * weight`` to the power, free of ring means; 0 beyond all rings.
    weight : ndarray of float32, shape (detector_y, detector_x)
    rings : tuple
        ring, order and first: see `Spots`.
    power : float
    squares : ndarray of float32, shape (detector_y, detector_x)
        Filled with squares of the raised averages, likewise free of ring means.

    Returns
    -------
    float
        ‖B‖; 0 where nothing but the means is there.
    """
    ring, order, first = rings
    for y in range(sums.shape[0]):
        values, scale = sums[y], weight[y]
        for x in range(len(values)):
            values[x] = max(values[x], np.float32(0)) * scale[x]
        if power == 0.25:  # square roots are vector instructions, powers are not
            for x in range(len(values)):
                values[x] = np.sqrt(np.sqrt(values[x]))
        else:
            for x in range(len(values)):
                values[x] = values[x] ** np.float32(power)
    # Pixels beyond take the last mean, 0.
    mean, squared = np.zeros(len(first), np.float32), np.zeros(len(first), np.float32)
    flat, whole, constant = sums.reshape(-1), 0.0, 0.0
    for r in range(len(first) - 1):
        pixels = max(first[r + 1] - first[r], 1)
        total, square = _sums(flat, order[first[r] : first[r + 1]])
        mean[r], squared[r] = total / pixels, square / pixels
        whole, constant = whole + square, constant + total**2 / pixels
    for y in range(sums.shape[0]):
        values, own, second = sums[y], ring[y], squares[y]
        for x in range(len(values)):
            second[x] = values[x] * values[x] - squared[own[x]]
            values[x] -= mean[own[x]]
    return np.sqrt(whole - constant) if whole - constant > 1e-12 * whole else 0.0


@numba.njit(nogil=True, cache=True)
def _sums(values, places):
    """Sum of some values and of their squares; four at a time, for none to wait for the one before."""
    whole = len(places) // 4 * 4
    a = b = c = d = aa = bb = cc = dd = 0.0
    for i in range(0, whole, 4):
        p, q = np.float64(values[places[i]]), np.float64(values[places[i + 1]])
        r, s = np.float64(values[places[i + 2]]), np.float64(values[places[i + 3]])
        a, b, c, d = a + p, b + q, c + r, d + s
        aa, bb, cc, dd = aa + p * p, bb + q * q, cc + r * r, dd + s * s
    for i in range(whole, len(places)):
        p = np.float64(values[places[i]])
        a, aa = a + p, aa + p * p
    return (a + b) + (c + d), (aa + bb) + (cc + dd)


@numba.njit(nogil=True, cache=True)
def prepare(pattern, inside, kernels, weight, rings, power, twice):
    """D of a pattern (see `refinement`), for ranking and for the final place, and ‖B‖.

    The power of the second is ``twice`` the first, or the same: then the second D is the first. The rest is of `Spots`.
    """
    box, disk = kernels
    shown, averages, explained = np.empty_like(pattern), np.empty_like(pattern), np.empty_like(pattern)
    for y in range(pattern.shape[0]):
        for x in range(pattern.shape[1]):
            shown[y, x] = pattern[y, x] * inside[y, x]
    convolve(shown, box, averages)
    norm = flatten(averages, weight, rings, power, shown)
    convolve(averages, disk, explained)
    if not twice:
        return explained, explained, norm
    convolve(shown, disk, averages)
    return explained, averages, norm
