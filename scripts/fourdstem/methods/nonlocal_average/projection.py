"""Patterns in the few directions in which those of a scan differ by more than noise, and weights from that.

The distance of whole patterns sums the noise of thousands of pixels, in which a thin lamella's few spots drown at low
dose. Here patterns are compared in at most 64 numbers:

1. f_b, electrons in soft bins (`features`); z = (f - m) / √(m + readout), m their mean over the scan. Scaling after
   Keenan, Kotula, Surf. Interface Anal. 36, 203 (2004), doi 10.1002/sia.1657.
2. C = symmetrised mean of z_i z_jᵀ over positions i and their 8 neighbours j. Noise of different patterns is
   independent, so that C has no noise floor, only scatter; a structure a few positions long lies in it nearly whole.
   y: z along the eigenvectors whose eigenvalue exceeds twice |the least|, which is noise alone.
3. Noise of y, unbiased for counts: v_ic = Σ_b Q_bc (f_ib + readout + ε² f_ib²), Q from `noise_table`; readout noise is
   that of as many electrons more in every bin.
4. First pass, over the search window: d_ij = [Σ_c (y_ic - y_jc)² / (v_ic + v_jc) - r] / √(2r), mean 0 and standard
   deviation 1 for patterns that differ by noise alone; w_ij = exp(-max(d_ij - d₀, 0) / λ²), w_ii = 1, normalised.
5. y'_i = Σ_j w_ij y_j and V_i = Σ_j w_ij v_ij. Second pass: d'_ij = Σ_c (y'_ic - y'_jc)² / (V_ic + V_jc) / √(2r), the
   same distance nearly without its noise, in units of the noise of one pattern.

Where the gain is not known, counts are taken for electrons.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.methods.nonlocal_average.axes import Axes, find_axes, moments_of
from fourdstem.methods.nonlocal_average.features import Bins, open_bins
from fourdstem.methods.nonlocal_average.kernels import (
    FAST,
    distance_weight,
    normalise,
    window_begin,
    window_width,
)
from fourdstem.methods.nonlocal_average.source import Source

FIRST = (1.0, 1.0)  # λ and d₀ in standard deviations of the distance: noise alone mostly keeps full weight


@dataclass(frozen=True)
class Projection:
    """What patterns are compared by in the second pass.

    Attributes
    ----------
    coordinates, noise : ndarray of float32, shape (scan_y, scan_x, r)
        y' and V; NaN where there is no beam.
    eigenvalues : ndarray of float64, shape (n,)
        All of C, from the largest on.
    """

    coordinates: np.ndarray
    noise: np.ndarray
    eigenvalues: np.ndarray


def project(source: Source, params, radius_px: float | None) -> Projection:
    """Read the scan twice: for the directions in which patterns differ, and for where each pattern lies in them.

    Parameters
    ----------
    source : Source
    params : Params
    radius_px : float or None
        See `open_bins`.

    Raises
    ------
    InputError
        If few bins are recorded at every position.
    """
    bins = open_bins(source.cube, params, radius_px)
    axes = find_axes(moments_of(source.cube, bins), bins)
    y, v = coordinates_of(source.cube, bins, axes)
    y, v = smoothed(y, v, params.window_half_width_px, source.cube.threads)
    return Projection(y, v, axes.eigenvalues)


def window_weights(projection: Projection, y: int, x0: int, x1: int, scan, scale, out) -> np.ndarray:
    """Fill ``out`` with the weights of columns x0 to x1 of scan row y, as `kernels.row_weights` does.

    Parameters
    ----------
    projection : Projection
    y, x0, x1 : int
    scan : tuple of int
        half, ny, nx, left.
    scale : tuple of float
        λ and d₀.
    out : ndarray of float32, shape (x1 - x0, window)

    Returns
    -------
    ndarray of float32, shape (2, x1 - x0)
        Effective number and self-weight.
    """
    return row_weights(projection.coordinates, projection.noise, 0.0, (y, x0, x1), scan[:3], scale, out)


def index_weights(projection: Projection, index: np.ndarray, scale) -> np.ndarray:
    """Return normalised weights (n, k) of the patterns ``index`` (n, k) for the one in the first column.

    ``index`` holds ``y * scan_x + x``, int32, -1 for none, whose weight is 0. ``scale`` is λ and d₀.
    """
    out = np.empty(index.shape, np.float32)
    r = projection.coordinates.shape[-1]
    table_weights(projection.coordinates.reshape(-1, r), projection.noise.reshape(-1, r), index, scale, out)
    return out


def search_coordinates(projection: Projection) -> np.ndarray:
    """Return (positions, r) float32 whose Euclidean distance ranks nearly like d'; NaN where there is no beam."""
    r = projection.coordinates.shape[-1]
    noise = projection.noise.reshape(-1, r)
    lit = np.isfinite(noise).all(axis=1)
    mean = noise[lit].mean(axis=0, dtype=np.float64) if lit.any() else np.ones(r)
    return projection.coordinates.reshape(-1, r) / np.sqrt(mean).astype(np.float32)


def coordinates_of(cube, bins: Bins, axes: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Return y and v, float32 (scan_y, scan_x, r)."""
    y, v = (np.full((*cube.scan_shape, axes.vectors.shape[1]), np.nan, np.float32) for _ in range(2))

    def work(patterns, unit):
        return axes.project(bins.features(patterns, unit), bins.background)

    for unit, (one, noise) in cube.map_stored(work):
        y[unit.where], v[unit.where] = one, noise
    y[~bins.beam], v[~bins.beam] = np.nan, np.nan
    return y, v


def smoothed(y: np.ndarray, v: np.ndarray, half: int, threads: int) -> tuple[np.ndarray, np.ndarray]:
    """Return y' and V of the second pass: means over the search window by the weights of the first pass."""
    ny, nx, _ = y.shape
    scan = (half, ny, nx)
    out = np.full_like(y, np.nan), np.full_like(v, np.nan)

    def work(row):
        weights = np.empty((nx, window_width(half, ny) * window_width(half, nx)), np.float32)
        row_weights(y, v, 1.0, (row, 0, nx), scan, FIRST, weights)
        smooth_row(y, v, weights, row, scan, *out)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(ny)))
    return out


@numba.njit(nogil=True, cache=True, fastmath=FAST, forceinline=True)
def pair_distance(y1, v1, y2, v2, noise):
    """Distance of a pair (r,); ``noise`` is 1 for patterns with their noise, 0 for averages. NaN without a beam."""
    total = np.float32(0)
    for c in range(y1.size):
        total += (y1[c] - y2[c]) * (y1[c] - y2[c]) / (v1[c] + v2[c])
    return (total - noise * y1.size) / np.sqrt(2.0 * y1.size)


@numba.njit(nogil=True, cache=True)
def row_weights(y, v, noise, where, scan, scale, out):
    """Fill ``out`` with normalised weights over the search window and return their trust.

    Parameters
    ----------
    y, v : ndarray of float32, shape (scan_y, scan_x, r)
    noise : float
        See `pair_distance`.
    where : tuple of int
        Scan row, first and last + 1 column.
    scan : tuple of int
        half, ny, nx.
    scale : tuple of float
        λ and d₀.
    out : ndarray of float32, shape (columns, window)

    Returns
    -------
    ndarray of float32, shape (2, columns)
        Effective number and self-weight.
    """
    half, ny, nx = scan
    row, x0, x1 = where
    width_y, width_x = window_width(half, ny), window_width(half, nx)
    weight = np.empty(width_y * width_x)
    trust = np.empty((2, x1 - x0), np.float32)
    for x in range(x0, x1):
        for slot in range(weight.size):
            y2 = window_begin(row, half, ny) + slot // width_x
            x2 = window_begin(x, half, nx) + slot % width_x
            if y2 == row and x2 == x:
                weight[slot] = 1.0
            else:
                distance = pair_distance(y[row, x], v[row, x], y[y2, x2], v[y2, x2], noise)
                weight[slot] = distance_weight(distance, scale)
        trust[0, x - x0], trust[1, x - x0] = normalise(weight, out[x - x0])
    return trust


@numba.njit(nogil=True, cache=True)
def smooth_row(y, v, weights, row, scan, out_y, out_v):
    """Fill a row of ``out_y`` and ``out_v`` (scan_y, scan_x, r) with weighted means, weights (scan_x, window)."""
    half, ny, nx = scan
    width_x = window_width(half, nx)
    r = y.shape[2]
    sums = np.empty((2, r))
    for x in range(nx):
        if np.isnan(y[row, x, 0]):
            continue
        sums[:] = 0
        for slot in range(weights.shape[1]):
            w = weights[x, slot]
            if w > 0:
                y2 = window_begin(row, half, ny) + slot // width_x
                x2 = window_begin(x, half, nx) + slot % width_x
                for c in range(r):
                    sums[0, c] += w * y[y2, x2, c]
                    sums[1, c] += w * v[y2, x2, c]
        out_y[row, x], out_v[row, x] = sums[0], sums[1]


@numba.njit(nogil=True, cache=True)
def table_weights(y, v, index, scale, out):
    """Fill ``out`` (n, k) with normalised weights of patterns of a table; see `index_weights`."""
    for i in range(index.shape[0]):
        own = index[i, 0]
        total = 0.0
        for k in range(index.shape[1]):
            j = index[i, k]
            weight = 1.0 if j == own else 0.0
            if j >= 0 and j != own:
                weight = distance_weight(pair_distance(y[own], v[own], y[j], v[j], 0.0), scale)
            out[i, k] = weight
            total += weight
        out[i] /= total
