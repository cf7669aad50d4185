"""Where an image has its columns: mean peaks, positions of single columns with their counting noise, pull."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

PATCH_ANGSTROM = 0.7
FINE_ANGSTROM = 0.05
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
    places = columns_px[inside].T[:, :, None, None] + offset[:, None] / step[:, None, None, None]
    mean = ndimage.map_coordinates(image, places, order=3, mode="nearest").mean(axis=0)
    top = np.array(np.unravel_index(mean.argmax(), mean.shape))
    if (top == 0).any() or (top == len(axis) - 1).any():
        return np.full(2, np.nan)
    place = np.array([axis[top[0]], axis[top[1]]])
    near = np.hypot(offset[0] - place[0], offset[1] - place[1]) <= core
    found, _ = _vertex(offset[:, near].T - place, mean[near], None)
    return place + found if found is not None else np.full(2, np.nan)


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
    variance = np.broadcast_to(np.asarray(variance, float), image.shape)
    place, sigma = (np.full((len(columns_px), 2), np.nan) for _ in range(2))
    for i, column in enumerate(columns_px if start_px is None else start_px):
        at = np.array(column, float)
        for _ in range(TURNS):
            low, high = np.ceil(at - radius / step).astype(int), np.floor(at + radius / step).astype(int) + 1
            if (low < 0).any() or (high > image.shape).any():
                break
            grid = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 2)
            near = np.linalg.norm((grid - at) * step, axis=1) <= radius
            index = tuple(grid[near].T)
            found, error = _vertex((grid[near] - at) * step, image[index], variance[index])
            if found is None or np.linalg.norm((at - column) * step + found) > 1.5 * radius:
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


def _vertex(offset, values, variance):
    """Fit ``c + b·u + u·A u`` and return its maximum and the standard deviation of that; None where there is none."""
    if len(offset) < 7:
        return None, None
    y, x = offset.T
    design = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1)
    inverse = np.linalg.pinv(design)
    _, by, bx, a, b, c = inverse @ values
    hessian = np.array([[2 * a, b], [b, 2 * c]])
    if not (np.linalg.eigvalsh(hessian) < 0).all():
        return None, None
    turned = np.linalg.inv(hessian)
    vertex = -turned @ np.array([by, bx])
    if variance is None:
        return vertex, None
    covariance = (inverse * variance) @ inverse.T
    vy, vx = vertex
    slope = np.array([[0, 1, 0, 2 * vy, vx, 0], [0, 0, 1, 0, vy, 2 * vx]])  # of the gradient at the vertex
    jacobian = -turned @ slope
    return vertex, np.sqrt(np.maximum(np.diag(jacobian @ covariance @ jacobian.T), 0))
