"""Patterns made ready for the refinement: averaged, raised to a power, freed of ring means, convolved with a disk."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.vectors import PIECE, taps

# Sums by ring are kept so many times, for neighbours of one ring not to wait for each other.
_COPIES = 8


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
def flatten(sums, weight, ring, share, power, squares):
    """Raise averages to a power, and to twice that, and take ring means away.

    Parameters
    ----------
    sums : ndarray of float32, shape (detector_y, detector_x)
        Changed: ``sums * weight`` to the power, free of ring means; 0 where ring is -1.
    weight : ndarray of float32, shape (detector_y, detector_x)
    ring : ndarray of int, shape (detector_y, detector_x)
    share : ndarray of float64, shape (rings + 1,)
        1 / pixels of each ring; last that of those beyond, which are 0.
    power : float
    squares : ndarray of float32, shape (detector_y, detector_x)
        Filled with squares of the raised averages, likewise free of ring means.

    Returns
    -------
    float
        ‖B‖; 0 where nothing but the means is there.
    """
    rings = len(share)
    total, other = np.zeros((rings, _COPIES)), np.zeros((rings, _COPIES))
    whole = np.zeros(_COPIES)
    for y in range(sums.shape[0]):
        values, scale, own, second = sums[y], weight[y], ring[y], squares[y]
        for x in range(len(values)):
            values[x] = max(values[x], np.float32(0)) * scale[x]
        if power == 0.25:  # square roots are vector instructions, powers are not
            for x in range(len(values)):
                values[x] = np.sqrt(np.sqrt(values[x]))
        else:
            for x in range(len(values)):
                values[x] = values[x] ** np.float32(power)
        for x in range(len(values)):
            second[x] = values[x] * values[x]
        for x in range(len(values)):
            total[own[x], x % _COPIES] += values[x]
            other[own[x], x % _COPIES] += second[x]
            whole[x % _COPIES] += np.float64(values[x]) * values[x]
    mean, squared = np.empty(rings, np.float32), np.empty(rings, np.float32)
    energy = whole.sum()
    least = 1e-12 * energy
    for r in range(rings):
        mean[r], squared[r] = total[r].sum() * share[r], other[r].sum() * share[r]
        energy -= total[r].sum() ** 2 * share[r]
    for y in range(sums.shape[0]):
        values, own, second = sums[y], ring[y], squares[y]
        for x in range(len(values)):
            values[x] -= mean[own[x]]
            second[x] -= squared[own[x]]
    return np.sqrt(energy) if energy > least else 0.0


@numba.njit(nogil=True, cache=True)
def prepare(pattern, inside, box, weight, ring, share, power, twice, disk):
    """D of a pattern (see `refinement`), for ranking and for the final place, and ‖B‖.

    The power of the second is ``twice`` the first, or the same: then the second D is the first.
    """
    shown, squares = np.empty_like(pattern), np.empty_like(pattern)
    explained, final = np.empty_like(pattern), np.empty_like(pattern)
    for y in range(pattern.shape[0]):
        for x in range(pattern.shape[1]):
            shown[y, x] = pattern[y, x] * inside[y, x]
    averages = np.empty_like(pattern)
    convolve(shown, box, averages)
    norm = flatten(averages, weight, ring, share, power, squares)
    convolve(averages, disk, explained)
    if not twice:
        return explained, explained, norm
    convolve(squares, disk, final)
    return explained, final, norm
