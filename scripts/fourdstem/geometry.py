"""Frames and resampling: from the detector as recorded to the corrected pattern.

A corrected pattern has the beam at ``((n_y - 1) / 2, (n_x - 1) / 2)``, no ellipse, and detector axes that run
along the scan axes. With u an offset (y, x) from the beam in the corrected frame, its offset in the recorded
frame is ``matrix @ u``, ``matrix = E F R(-φ)``: undo the scan rotation φ, undo the flip, apply the ellipse.
All three preserve area, so counts are preserved without a Jacobian.
"""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely


def ellipse_matrix(ratio: float, angle_deg: float) -> np.ndarray:
    """Area-preserving (y, x) matrix that stretches a circle to the ellipse a/b = ratio.

    The long axis lies at ``angle_deg`` from +detector_x towards +detector_y (down).
    """
    angle = np.deg2rad(angle_deg)
    along = np.array([np.sin(angle), np.cos(angle)])
    across = np.array([np.cos(angle), -np.sin(angle)])
    stretch = np.sqrt(ratio)
    return stretch * np.outer(along, along) + np.outer(across, across) / stretch


def rotation_matrix(angle_deg: float) -> np.ndarray:
    """(y, x) matrix of a rotation that takes +x towards +y (down)."""
    angle = np.deg2rad(angle_deg)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, sin], [-sin, cos]])


def corrected_to_recorded(ratio: float, angle_deg: float, scan_rotation_deg: float, flip_y: bool) -> np.ndarray:
    """(2, 2) matrix that takes an offset in the corrected frame to the recorded frame."""
    flip = np.diag([-1.0 if flip_y else 1.0, 1.0])
    return ellipse_matrix(ratio, angle_deg) @ flip @ rotation_matrix(-scan_rotation_deg)


def repair(patterns: np.ndarray, bad: np.ndarray, mendable: np.ndarray | None = None) -> np.ndarray:
    """Replace isolated bad pixels by the mean of their good neighbours.

    Parameters
    ----------
    patterns : ndarray of shape (n, detector_y, detector_x)
        Counts; changed in place.
    bad : ndarray of bool, shape (detector_y, detector_x)
    mendable : ndarray of bool, shape (detector_y, detector_x), optional
        ``repairable(bad)``, where it is known.

    Returns
    -------
    ndarray
        ``patterns``. Pixels that `repairable` calls hopeless are left as they are.
    """
    for y, x in np.argwhere(bad & (repairable(bad) if mendable is None else mendable)):
        ys, xs = slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2)
        good = ~bad[ys, xs]
        patterns[:, y, x] = patterns[:, ys, xs][:, good].mean(axis=1, dtype=np.float64)
    return patterns


def repairable(bad: np.ndarray) -> np.ndarray:
    """Tell which pixels have at least four good ones among their eight neighbours."""
    good = np.pad(~bad, 1).astype(np.uint8)
    ny, nx = bad.shape
    count = sum(good[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    return count - good[1:-1, 1:-1] >= 4


@numba.njit(nogil=True, cache=True)
def resample(patterns, usable, centre, matrix, out):
    """Interpolate patterns bilinearly onto the corrected frame.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n, detector_y, detector_x)
    usable : ndarray of uint8, shape (detector_y, detector_x)
        0 = this pixel may not be used.
    centre : ndarray of shape (n, 2)
        Beam position (y, x) in each recorded pattern, px.
    matrix : ndarray of shape (2, 2)
        From `corrected_to_recorded`.
    out : ndarray of float32, shape (n, detector_y, detector_x)
        Filled. A pixel whose four neighbours carry less than half of the weight is 0.
    """
    ny, nx = usable.shape
    flat = patterns.reshape(patterns.shape[0], ny * nx)
    offset, whole = _offsets(matrix, ny, nx), _whole(usable)
    holes = whole.sum() < (ny - 1) * (nx - 1)
    at, part = np.empty(nx, np.uint32), np.empty((2, nx), np.float32)  # unsigned: no index counts from the end
    inside = np.empty(nx, np.bool_)
    right, down = np.uint32(nx > 1), np.uint32(nx if ny > 1 else 0)
    for i in range(patterns.shape[0]):
        cy, cx = centre[i]
        for y in range(ny):
            for x in range(nx):
                sy, sx = cy + offset[0, y, x], cx + offset[1, y, x]
                inside[x] = (sy >= 0) & (sy < ny - 1) & (sx >= 0) & (sx < nx - 1)
                y0, x0 = np.int32(sy), np.int32(sx)
                part[0, x], part[1, x] = sy - y0, sx - x0
                at[x] = np.uint32(y0 * nx + x0) if inside[x] else np.uint32(0)
            for x in range(nx):
                p, fy, fx = at[x], part[0, x], part[1, x]
                above = flat[i, p] + fx * (flat[i, p + right] - flat[i, p])
                q = p + down
                below = flat[i, q] + fx * (flat[i, q + right] - flat[i, q])
                out[i, y, x] = above + fy * (below - above)
            for x in range(nx):
                if not inside[x] or (holes and not whole[at[x]]):
                    out[i, y, x] = _bilinear(patterns[i], usable, cy + offset[0, y, x], cx + offset[1, y, x])


@numba.njit(nogil=True, cache=True)
def _offsets(matrix, ny, nx):
    """Return float64 (2, ny, nx): offset (y, x) from the beam, as recorded, of every corrected pixel."""
    out = np.empty((2, ny, nx))
    for y in range(ny):
        for x in range(nx):
            for k in range(2):
                out[k, y, x] = matrix[k, 0] * (y - (ny - 1) / 2) + matrix[k, 1] * (x - (nx - 1) / 2)
    return out


@numba.njit(nogil=True, cache=True)
def _whole(usable):
    """Tell (bool, ny * nx) whether a pixel, the next, and the two below them may be used."""
    ny, nx = usable.shape
    out = np.zeros(ny * nx, np.bool_)
    for y in range(ny - 1):
        for x in range(nx - 1):
            out[y * nx + x] = usable[y : y + 2, x : x + 2].all()
    return out


@numba.njit(nogil=True, cache=True)
def _bilinear(pattern, usable, sy, sx):
    ny, nx = usable.shape
    y0, x0 = int(np.floor(sy)), int(np.floor(sx))
    fy, fx = sy - y0, sx - x0
    total, weight = 0.0, 0.0
    for dy in range(2):
        for dx in range(2):
            y, x = y0 + dy, x0 + dx
            if 0 <= y < ny and 0 <= x < nx and usable[y, x]:
                w = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
                total += w * pattern[y, x]
                weight += w
    return total / weight if weight >= 0.5 else 0.0


@numba.njit(nogil=True, cache=True)
def valid_everywhere(usable, centre, matrix):
    """Tell which corrected pixels every position can fill.

    Parameters
    ----------
    usable : ndarray of uint8, shape (detector_y, detector_x)
    centre : ndarray of shape (n, 2)
        Beam positions (y, x), px; NaN rows are skipped.
    matrix : ndarray of shape (2, 2)

    Returns
    -------
    ndarray of uint8, shape (detector_y, detector_x)
    """
    ny, nx = usable.shape
    half_y, half_x = (ny - 1) / 2, (nx - 1) / 2
    ones = np.ones(usable.shape, np.float32)
    valid = np.ones(usable.shape, np.uint8)
    low, high = _extent(centre)
    missing = _unusable_above_left(usable)
    for y in range(ny):
        for x in range(nx):
            oy = matrix[0, 0] * (y - half_y) + matrix[0, 1] * (x - half_x)
            ox = matrix[1, 0] * (y - half_y) + matrix[1, 1] * (x - half_x)
            # Most pixels see good neighbours from wherever the beam goes; only the rest need each position.
            y0, y1 = int(np.floor(low[0] + oy)), int(np.floor(high[0] + oy)) + 2
            x0, x1 = int(np.floor(low[1] + ox)), int(np.floor(high[1] + ox)) + 2
            within = y0 >= 0 and x0 >= 0 and y1 <= ny and x1 <= nx
            if within and missing[y1, x1] - missing[y0, x1] - missing[y1, x0] + missing[y0, x0] == 0:
                continue
            for i in range(centre.shape[0]):
                if np.isnan(centre[i, 0]):
                    continue
                if _bilinear(ones, usable, centre[i, 0] + oy, centre[i, 1] + ox) == 0.0:
                    valid[y, x] = 0
                    break
    return valid


@numba.njit(nogil=True, cache=True)
def _extent(centre):
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(centre.shape[0]):
        if not np.isnan(centre[i, 0]):
            for k in range(2):
                low[k], high[k] = min(low[k], centre[i, k]), max(high[k], centre[i, k])
    if low[0] > high[0]:
        low[:], high[:] = 0.0, 0.0
    return low, high


@numba.njit(nogil=True, cache=True)
def _unusable_above_left(usable):
    """Summed-area table of the unusable pixels, one row and column larger than the detector."""
    ny, nx = usable.shape
    table = np.zeros((ny + 1, nx + 1), np.int64)
    for y in range(ny):
        for x in range(nx):
            table[y + 1, x + 1] = table[y, x + 1] + table[y + 1, x] - table[y, x] + (usable[y, x] == 0)
    return table
