"""Patterns on rings: a fixed linear map from pixels to (radius, azimuth) bins.

Azimuth runs from +x towards +y (down). Each bin is the mean of bilinear samples half a pixel apart, so that at
large radii, where a bin covers several pixels, every count contributes.
"""

from typing import NamedTuple

import numpy as np
from scipy import sparse

# What `azimuth.inverse_transform` can do; the first whose step is fine enough is taken.
_AZIMUTHS = (64, 128, 192, 256, 512, 768)


class Rings(NamedTuple):
    """Bins of the polar map, px.

    Attributes
    ----------
    radius : ndarray of shape (r,)
        Middle of each ring.
    width : float
        Of each ring.
    azimuths : int
        Bins around each ring.
    """

    radius: np.ndarray
    width: float
    azimuths: int


def choose_rings(r_min: float, r_max: float, disk_px: float) -> Rings:
    """Rings between two radii, fine enough for disks of a radius: 0.8 radii wide, azimuths 1.6 radii apart."""
    disk_px = max(disk_px, 1.0)
    count = max(1, int(np.ceil((r_max - r_min) / max(1.0, 0.8 * disk_px))))
    width = (r_max - r_min) / count
    wanted = 2 * np.pi * r_max / (1.6 * disk_px)
    azimuths = next((n for n in _AZIMUTHS if n >= wanted), _AZIMUTHS[-1])
    return Rings(r_min + width * (np.arange(count) + 0.5), width, azimuths)


def polar_map(rings: Rings, shape: tuple[int, int], usable: np.ndarray | None = None):
    """Sparse matrix from pixels to bins, and the part of each bin that usable pixels fill.

    Parameters
    ----------
    rings : Rings
    shape : tuple of int
        (detector_y, detector_x) of patterns with the beam at their middle.
    usable : ndarray of shape (detector_y, detector_x), optional
        0 = this pixel means nothing.

    Returns
    -------
    weights : scipy.sparse.csr_matrix of float32, shape (r * azimuths, detector_y * detector_x)
        Rows are means over the usable part; rows of bins that are less than half usable are 0.
    valid : ndarray of bool, shape (r, azimuths)
    """
    ny, nx = shape
    across = max(1, int(np.ceil(2 * rings.width)))
    rows, columns, values = [], [], []
    for i, middle in enumerate(rings.radius):
        along = max(1, int(np.ceil(2 * (2 * np.pi * middle / rings.azimuths))))
        radius = middle + rings.width * ((np.arange(across) + 0.5) / across - 0.5)
        theta = 2 * np.pi / rings.azimuths * ((np.arange(rings.azimuths * along) + 0.5) / along - 0.5)
        y = (ny - 1) / 2 + radius[:, None] * np.sin(theta)
        x = (nx - 1) / 2 + radius[:, None] * np.cos(theta)
        bins = i * rings.azimuths + np.broadcast_to(np.arange(len(theta)) // along, y.shape)
        for index, share in _bilinear(y, x, ny, nx):
            rows.append(bins.ravel())
            columns.append(index.ravel())
            values.append(share.ravel() / (across * along))
    weights = sparse.coo_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))),
        shape=(len(rings.radius) * rings.azimuths, ny * nx),
    ).tocsr()
    if usable is not None:
        weights = weights @ sparse.diags((np.asarray(usable).ravel() != 0).astype(float))
    filled = np.asarray(weights.sum(axis=1)).ravel()
    valid = filled > 0.5
    weights = sparse.diags(np.where(valid, 1 / np.where(valid, filled, 1), 0)) @ weights
    weights.eliminate_zeros()
    return weights.astype(np.float32).tocsr(), valid.reshape(len(rings.radius), rings.azimuths)


def _bilinear(y, x, ny, nx):
    """Yield (pixel index, weight) of the four neighbours; weight 0 outside."""
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    for dy in (0, 1):
        for dx in (0, 1):
            yy, xx = y0 + dy, x0 + dx
            inside = (yy >= 0) & (yy < ny) & (xx >= 0) & (xx < nx)
            share = np.abs(1 - dy - (y - y0)) * np.abs(1 - dx - (x - x0))
            yield np.where(inside, yy * nx + xx, 0), np.where(inside, share, 0)
