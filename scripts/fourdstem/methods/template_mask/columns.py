"""Where an image has its columns: mean peaks, positions of single columns with their counting noise, pull."""

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

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
    found, _ = _vertex(offset[:, near].T - place, mean[near], None)
    return place + found if found is not None else np.full(2, np.nan)


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


def positions(image, variance, columns_px, step, core: float) -> tuple[np.ndarray, np.ndarray]:
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

    Returns
    -------
    place, sigma : ndarray of shape (column, 2)
        Peak and its standard deviation by counting noise, px; NaN where there is no peak within ``core`` of the
        column, or the scan ends, or where two columns share one peak.
    """
    step = np.asarray(step)
    radius = max(core, 1.9 * float(step.max()))
    variance = np.broadcast_to(np.asarray(variance, float), image.shape)
    place, sigma = (np.full((len(columns_px), 2), np.nan) for _ in range(2))
    for i, column in enumerate(columns_px):
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
