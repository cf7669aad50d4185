"""A direct disk that is brighter on one side, and its centre all the same.

Correlation with an even disk weighs the counts at one edge against those at the other. Where diffraction takes more
from one side, as rocking curves and bent crystals make it do, the maximum moves by a part of the edge's width at any
dose: by 0.18 px (median) on simulated patterns at a million electrons, of which half have a slope of 0.25 from the
middle to the edge, against 0.015 px with that slope left out (studies/preprocess.csv). Here the slope is fitted beside
the centre. How uneven the disks of a scan are is learnt from the scan and enters as a prior, without which the fit
would lose at low dose; on a scan of even disks the correlation stays as it is, to the bit.

The uncertainty is that of counting and of the prior. With the gain known, errors are 0.9 to 1.1 of it (disks of 4 and
8 px, slopes of 0.1 and 0.25, 1,000 to 30,000 counts), but slopes beyond 0.4 cost up to 0.02 px more at any dose. Where
the gain is declined it is cautious, 1.5 to 3 times the errors at 30,000 counts, on even disks as well: what differs
between neighbouring patterns passes for noise.
"""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.preprocess.beam import STEP_PX, Beam, contrast_limit, soft_disk

SPREADS = (0.03, 0.06, 0.12, 0.25, 0.5)  # of the slope, at which a scan is asked whether its disks are uneven
SIGNIFICANT = 8.0  # of the log-likelihood above that of even disks, summed over patterns
MOST_OF_ONE = 3.0  # of that sum, so that few patterns found at a wrong place do not decide
LEAST_RADIUS_PX = 3.0  # in smaller disks slope and shift look alike: on a film with disks of 2 px errors grew by 30 %
KNOWN = 0.15  # a pattern tells if noise leaves its slope this certain: with fewer counts errors are not normal
STEEP = 0.9  # quantile of the slopes that tells their spread: the median sees even disks where half of them are
ANY = 1.0  # prior while the spread itself is sought
LEAST = 0.2  # brightness of the darker edge in the model, as part of the middle's
STEPS = 12
SETTLED_PX = 1e-3


def disk_table(beam: Beam) -> np.ndarray:
    """Table of the soft disk and its slope at steps of 0.02 px, shape (2, n)."""
    r = np.arange(0, beam.radius_px + 4 * beam.edge_px + 1, STEP_PX)
    disk = soft_disk(r, beam.radius_px, beam.edge_px)
    return np.stack([disk, np.gradient(disk, STEP_PX)])


def level(pattern, found, finder, spread: float) -> np.ndarray:
    """Fit the slope of the brightness beside the centre.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
        Unusable pixels are at ``noise.floor``.
    found : ndarray of shape (2,)
        Maximum of the correlation, px.
    finder : search.Finder
    spread : float
        Standard deviation of slopes in this scan.

    Returns
    -------
    ndarray of shape (6,)
        y, x (px); slopes along y and x, change from the middle to the edge by the brightness of the middle; standard
        deviations of a coordinate (px) and of a slope. NaN where the fit leads nowhere.
    """
    out = np.full(6, np.nan)
    noise, beam = finder.noise, finder.beam
    fit_slope(
        pattern,
        found,
        beam.radius_px,
        finder.disk,
        STEP_PX,
        contrast_limit(beam),
        spread,
        noise.floor,
        noise.slope,
        noise.dark,
        out,
    )
    return out


def likely_spread(slopes: np.ndarray, sigma: np.ndarray) -> float:
    """Spread of the slopes of a sample of patterns; 0 where even disks explain them.

    Parameters
    ----------
    slopes : ndarray of shape (n, 2)
    sigma : ndarray of shape (n,)
        Their standard deviations by counting noise.
    """
    known = np.isfinite(slopes).all(axis=1) & (sigma < KNOWN)
    if not known.any():
        return 0.0
    square, variance = (slopes[known] ** 2).sum(axis=1), sigma[known] ** 2
    gain = []
    for spread in SPREADS:
        whole = variance + spread**2
        of_each = np.log(variance / whole) + 0.5 * square * (1 / variance - 1 / whole)
        gain.append(np.minimum(of_each, MOST_OF_ONE).sum())
    if max(gain) < SIGNIFICANT:
        return 0.0
    of_one = -2 * np.log(1 - STEEP)  # that quantile of the Rayleigh distribution, squared
    found = np.quantile(square, STEEP) / of_one - np.median(variance)
    return float(np.sqrt(np.clip(found, SPREADS[0] ** 2, SPREADS[-1] ** 2)))


@numba.njit(nogil=True, cache=True)
def fit_slope(pattern, start, radius, table, step, limit, spread, floor, slope, dark, out):
    """Centre, slopes, height and background by Fisher's scoring, weighted as the correlation weighs.

    The model is ``A d(r) (1 + g · u / R) + b`` with u the offset from the centre. With g = 0 its equations are those
    of the correlation with ``log(1 + limit d)``. Parameters are those of `level` and `centre.refine`.
    """
    guess = np.zeros(6)
    guess[0], guess[1] = start[0], start[1]
    out[:] = np.nan
    _height(pattern, guess, table, step, floor)
    normal, score, counted = np.zeros((6, 6)), np.zeros(6), np.zeros((6, 6))
    for _ in range(STEPS):
        if guess[4] <= 0:
            return
        _equations(pattern, guess, radius, table, step, limit, floor, slope, dark, normal, score, counted)
        for k in (2, 3):
            normal[k, k] += 1 / spread**2
            counted[k, k] += 1 / spread**2
            score[k] -= guess[k] / spread**2
        if not _factor(normal):
            return
        _solve(normal, score)
        size = np.sqrt(score[0] ** 2 + score[1] ** 2)
        guess += score * min(1.0, 0.5 / max(size, 1e-12))
        if size < SETTLED_PX:
            break
    out[:4] = guess[:4]
    for k in (0, 2):
        out[4 + k // 2] = np.sqrt(0.5 * (_variance(normal, counted, k) + _variance(normal, counted, k + 1)))


@numba.njit(nogil=True, cache=True)
def _variance(factor, counted, k):
    """Variance of parameter k, H⁻¹ V H⁻¹: weights are not the inverse of what counting scatters."""
    row = np.zeros(counted.shape[0])
    row[k] = 1.0
    _solve(factor, row)
    total = 0.0
    for i in range(row.size):
        for j in range(row.size):
            total += row[i] * row[j] * counted[max(i, j), min(i, j)]
    return total


@numba.njit(nogil=True, cache=True)
def _height(pattern, guess, table, step, floor):
    """Height and background by least squares, into ``guess[4:]``."""
    ny, nx = pattern.shape
    last = table.shape[1] - 2
    reach = last * step
    dd, d, n, dc, c = 0.0, 0.0, 0, 0.0, 0.0
    for y in range(max(int(guess[0] - reach), 0), min(int(guess[0] + reach) + 2, ny)):
        for x in range(max(int(guess[1] - reach), 0), min(int(guess[1] + reach) + 2, nx)):
            k = int(np.sqrt((y - guess[0]) ** 2 + (x - guess[1]) ** 2) / step)
            if k < last:
                value, counts = table[0, k], pattern[y, x] - floor
                dd += value * value
                d += value
                n += 1
                dc += value * counts
                c += counts
    det = dd * n - d * d
    if det > 0:
        guess[4], guess[5] = (n * dc - d * c) / det, (dd * c - d * dc) / det


@numba.njit(nogil=True, cache=True)
def _equations(pattern, guess, radius, table, step, limit, floor, slope, dark, normal, score, counted):
    """Normal matrix, score and its variance by counting, at ``guess``: y, x, slopes, height, background.

    Matrices are lower triangles.
    """
    ny, nx = pattern.shape
    last = table.shape[1] - 2
    reach = last * step
    cy, cx, gy, gx, height, back = guess
    row = np.zeros(6)
    row[5] = 1.0
    normal[:], score[:], counted[:] = 0.0, 0.0, 0.0
    for y in range(max(int(cy - reach), 0), min(int(cy + reach) + 2, ny)):
        for x in range(max(int(cx - reach), 0), min(int(cx + reach) + 2, nx)):
            dy, dx = y - cy, x - cx
            r = np.sqrt(dy * dy + dx * dx)
            k = int(r / step)
            if k >= last:
                continue
            f = r / step - k
            disk = table[0, k] + f * (table[0, k + 1] - table[0, k])
            fall = (table[1, k] + f * (table[1, k + 1] - table[1, k])) / max(r, 1e-9)
            bright = max(1 + (gy * dy + gx * dx) / radius, LEAST)
            row[0] = -height * (fall * bright * dy + disk * gy / radius)
            row[1] = -height * (fall * bright * dx + disk * gx / radius)
            row[2], row[3] = height * disk * dy / radius, height * disk * dx / radius
            row[4] = disk * bright
            counts = pattern[y, x] - floor
            off = counts - height * row[4] - back
            weight = 1 / (slope * height * (row[4] + 1 / limit) + dark)
            square = weight * weight * (slope * max(counts, 0.0) + dark)
            for i in range(6):
                score[i] += weight * row[i] * off
                for j in range(i + 1):
                    normal[i, j] += weight * row[i] * row[j]
                    counted[i, j] += square * row[i] * row[j]


@numba.njit(nogil=True, cache=True)
def _factor(matrix):
    """Cholesky factor in place of the lower triangle; False where the matrix is not positive definite."""
    for i in range(matrix.shape[0]):
        for j in range(i + 1):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            if i > j:
                matrix[i, j] = total / matrix[j, j]
            elif total > 0:
                matrix[i, i] = np.sqrt(total)
            else:
                return False
    return True


@numba.njit(nogil=True, cache=True)
def _solve(factor, vector):
    """Solve in place, given the Cholesky factor."""
    n = vector.size
    for i in range(n):
        for k in range(i):
            vector[i] -= factor[i, k] * vector[k]
        vector[i] /= factor[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= factor[k, i] * vector[k]
        vector[i] /= factor[i, i]
