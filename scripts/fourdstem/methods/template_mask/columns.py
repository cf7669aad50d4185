"""Where an image has its columns: mean peaks, positions of single columns with their counting noise, pull."""

import numba
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from fourdstem import jit  # noqa: F401  compiled code is cached safely

PATCH_ANGSTROM = 0.7
FINE_ANGSTROM = 0.05
EDGE_PX = 12  # by which the edge of an image is drawn out before its spline is made
TURNS = 3  # of moving the fit to where it found the peak


def mean_peak(image: np.ndarray, columns_px: np.ndarray, step, core: float) -> np.ndarray:
    """Return the peak (y, x) in Å, from the columns, of the mean picture of all columns; NaN where there is none."""
    step = np.asarray(step)
    margin = PATCH_ANGSTROM / step
    inside = ((columns_px >= margin) & (columns_px <= np.array(image.shape) - 1 - margin)).all(axis=1)
    if not inside.any():
        return np.full(2, np.nan)
    axis = np.arange(-PATCH_ANGSTROM, PATCH_ANGSTROM + 1e-9, FINE_ANGSTROM)
    offset = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    mean = _mean_patch(image, columns_px[inside], [axis / s for s in step])
    top = np.array(np.unravel_index(mean.argmax(), mean.shape))
    if (top == 0).any() or (top == len(axis) - 1).any():
        return np.full(2, np.nan)
    place = np.array([axis[top[0]], axis[top[1]]])
    near = np.hypot(offset[0] - place[0], offset[1] - place[1]) <= core
    known, found, _ = _vertex(np.ascontiguousarray(offset[:, near].T - place), mean[near], np.zeros(near.sum()))
    return place + found if known else np.full(2, np.nan)


def _mean_patch(image: np.ndarray, columns_px: np.ndarray, axes) -> np.ndarray:
    """Return the mean over columns of an image, a cubic spline, at ``column + (axes[0], axes[1])``, px.

    As `scipy.ndimage.map_coordinates` with mode "nearest"; places of one column lie on a grid, so that the splines of
    its rows and of its columns are made once.
    """
    coefficient = ndimage.spline_filter(np.pad(np.asarray(image, float), EDGE_PX, mode="edge"), mode="nearest")
    first, spline = [], []
    for column, axis in zip(columns_px.T + EDGE_PX, axes, strict=True):
        place = column[:, None] + axis
        first.append(np.floor(place[:, 0]).astype(int) - 1)
        apart = np.abs(place[:, :, None] - first[-1][:, None, None] - np.arange(int(np.ptp(axis)) + 6))
        spline.append(np.where(apart < 1, 2 / 3 - apart**2 * (1 - apart / 2), np.maximum(2 - apart, 0) ** 3 / 6))
    y, x = (f[:, None] + np.arange(s.shape[2]) for f, s in zip(first, spline, strict=True))
    rows = spline[0] @ coefficient[y[:, :, None], x[:, None, :]]
    return np.tensordot(rows, spline[1], axes=([0, 2], [0, 2])) / len(columns_px)


def pull(ahead, behind, columns_px, step, shift_angstrom: float, core: float) -> float:
    """Return how far peaks follow a template that is shifted along the diagonal by ± a distance (0: not, 1: wholly)."""
    moved = mean_peak(ahead, columns_px, step, core) - mean_peak(behind, columns_px, step, core)
    return float(moved @ np.array([1.0, 1.0]) / np.sqrt(2) / (2 * shift_angstrom))


def tops(image: np.ndarray, columns_px: np.ndarray, step, reach_angstrom: float) -> np.ndarray:
    """Return the brightest position within reach of each column, (column, 2) in px: for columns beside their sites."""
    step = np.asarray(step)
    grid = np.indices(image.shape).reshape(2, -1).T
    near = cKDTree(grid * step).query_ball_point(columns_px * step, reach_angstrom, return_sorted=True)
    value = np.asarray(image).reshape(-1)
    best = [grid[n][np.argmax(value[n])] if n else place for n, place in zip(near, columns_px, strict=True)]
    return np.array(best, float).reshape(-1, 2)


def positions(image, variance, columns_px, step, core: float, start_px=None) -> tuple[np.ndarray, np.ndarray]:
    """Fit a paraboloid at each column.

    Parameters
    ----------
    image : ndarray of shape (scan_y, scan_x)
    variance : ndarray of shape (scan_y, scan_x) or float
    columns_px : ndarray of shape (column, 2)
    step : (float, float)
        Å, (y, x).
    core : float
        Radius of the fit in Å; at least that of the twelve nearest positions.
    start_px : ndarray of shape (column, 2), optional
        Where to begin instead of the columns.

    Returns
    -------
    place, sigma : ndarray of shape (column, 2)
        Peak and its standard deviation by counting noise, px; NaN where there is no peak near the start
        (1.5 radii), or the scan ends, or where two columns share one peak.
    """
    step = np.asarray(step)
    radius = max(core, 1.9 * float(step.max()))
    image = np.ascontiguousarray(image, float)
    variance = np.ascontiguousarray(np.broadcast_to(np.asarray(variance, float), image.shape))
    place, sigma = (np.full((len(columns_px), 2), np.nan) for _ in range(2))
    for i, column in enumerate(columns_px if start_px is None else start_px):
        at = np.array(column, float)
        for _ in range(TURNS):
            low, high = np.ceil(at - radius / step).astype(int), np.floor(at + radius / step).astype(int) + 1
            if (low < 0).any() or (high > image.shape).any():
                break
            known, found, error = _peak(image, variance, at, low, high, step, radius)
            if not known or np.linalg.norm((at - column) * step + found) > 1.5 * radius:
                break
            at = at + found / step
        else:
            place[i], sigma[i] = at, error / step
    merged = unresolved(place, columns_px)
    place[merged], sigma[merged] = np.nan, np.nan
    return place, sigma


def unresolved(place: np.ndarray, columns_px: np.ndarray) -> np.ndarray:
    """Tell which columns share their peak with a neighbour: found at less than half of the distance of their sites."""
    out = np.zeros(len(place), bool)
    if len(place) > 1:
        near = np.minimum(len(place), 4)
        apart, index = cKDTree(columns_px).query(columns_px, k=near)
        for k in range(1, near):
            found = np.linalg.norm(place - place[index[:, k]], axis=1)
            out |= found < 0.5 * apart[:, k]
    return out


@numba.njit(cache=True)
def _peak(image, variance, at, low, high, step, radius):
    """Fit the positions within a radius (Å) of a place (y, x), px, among those from ``low`` to ``high``; `_vertex`."""
    most = (high[0] - low[0]) * (high[1] - low[1])
    offset, values, noise, n = np.empty((most, 2)), np.empty(most), np.empty(most), 0
    for y in range(low[0], high[0]):
        for x in range(low[1], high[1]):
            dy, dx = (y - at[0]) * step[0], (x - at[1]) * step[1]
            if np.sqrt(dy * dy + dx * dx) <= radius:
                offset[n, 0], offset[n, 1], values[n], noise[n] = dy, dx, image[y, x], variance[y, x]
                n += 1
    return _vertex(offset[:n], values[:n], noise[:n])


@numba.njit(cache=True)
def _vertex(offset, values, variance):
    """Fit ``c + b·u + u·A u``; return whether it has a maximum, where, and the standard deviation of that.

    By the normal equations, offsets in units of the largest.
    """
    vertex, sigma = np.full(2, np.nan), np.full(2, np.nan)
    unit = np.abs(offset).max() if len(offset) >= 7 else 0.0
    if unit == 0:
        return False, vertex, sigma
    normal, right, spread = np.zeros((6, 6)), np.zeros(6), np.zeros((6, 6))
    row = np.ones(6)
    for k in range(len(offset)):
        y, x = offset[k, 0] / unit, offset[k, 1] / unit
        row[1], row[2], row[3], row[4], row[5] = y, x, y * y, y * x, x * x
        for i in range(6):
            right[i] += row[i] * values[k]
            for j in range(6):
                normal[i, j] += row[i] * row[j]
                spread[i, j] += row[i] * row[j] * variance[k]
    inverse, fitted = _inverted(normal), np.zeros(6)
    for i in range(6):
        for j in range(6):
            fitted[i] += inverse[i, j] * right[j]
    _, by, bx, a, b, c = fitted
    det = 4 * a * c - b * b
    if not (a < 0 and det > 0):
        return False, vertex, sigma
    vy, vx = (b * bx - 2 * c * by) / det, (b * by - 2 * a * bx) / det
    # of the gradient at the vertex (0, 1, 0, 2 vy, vx, 0) and (0, 0, 1, 0, vy, 2 vx), turned into a shift of the vertex
    along_y = (0.0, 2 * c / det, -b / det, 4 * c * vy / det, (2 * c * vx - b * vy) / det, -2 * b * vx / det)
    along_x = (0.0, -b / det, 2 * a / det, -2 * b * vy / det, (2 * a * vy - b * vx) / det, 4 * a * vx / det)
    vertex[0], vertex[1] = unit * vy, unit * vx
    sigma[0], sigma[1] = unit * _sigma(along_y, inverse, spread), unit * _sigma(along_x, inverse, spread)
    return True, vertex, sigma


@numba.njit(cache=True)
def _sigma(slope, inverse, spread):
    """Return the standard deviation of ``slope · fitted``, fitted = ``inverse`` times sums of variance ``spread``."""
    turned, total = np.zeros(6), 0.0
    for i in range(6):
        for k in range(6):
            turned[i] += slope[k] * inverse[k, i]
    for i in range(6):
        for j in range(6):
            total += turned[i] * spread[i, j] * turned[j]
    return np.sqrt(max(total, 0.0))


@numba.njit(cache=True)
def _inverted(matrix):
    """Return the inverse of a symmetric positive definite matrix."""
    n, left, out = len(matrix), matrix.copy(), np.eye(len(matrix))
    for i in range(n):
        pivot = left[i, i]
        for j in range(n):
            left[i, j] /= pivot
            out[i, j] /= pivot
        for k in range(n):
            if k != i:
                factor = left[k, i]
                for j in range(n):
                    left[k, j] -= factor * left[i, j]
                    out[k, j] -= factor * out[i, j]
    return out
