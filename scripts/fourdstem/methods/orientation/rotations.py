"""Quaternions (w, x, y, z) and the directions that a Laue group leaves to be sampled."""

import numpy as np
from scipy.spatial.transform import Rotation

from fourdstem.crystal import Crystal

# A direction without symmetry in any setting of any Laue group: no mirror plane or axis comes near it.
_GENERIC = np.array([0.2374, 0.1291, 0.9628])


def to_matrix(quaternion: np.ndarray) -> np.ndarray:
    """(..., 3, 3) matrices M, ``v_crystal = M v_lab``, of quaternions (..., 4)."""
    q = np.asarray(quaternion, float)
    flat = Rotation.from_quat(q.reshape(-1, 4)[:, [1, 2, 3, 0]]).as_matrix()
    return flat.reshape(*q.shape[:-1], 3, 3)


def from_matrix(matrix: np.ndarray) -> np.ndarray:
    """(..., 4) quaternions with w >= 0 of matrices (..., 3, 3)."""
    m = np.asarray(matrix, float)
    xyzw = Rotation.from_matrix(m.reshape(-1, 3, 3)).as_quat(canonical=True)
    return xyzw[:, [3, 0, 1, 2]].reshape(*m.shape[:-2], 4)


def multiply(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Product of quaternions; M(first second) = M(first) M(second)."""
    aw, ax, ay, az = np.moveaxis(np.asarray(first, float), -1, 0)
    bw, bx, by, bz = np.moveaxis(np.asarray(second, float), -1, 0)
    parts = (
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    )
    return np.stack(parts, -1)


def misorientation_deg(first: np.ndarray, second: np.ndarray, crystal: Crystal) -> np.ndarray:
    """Smallest angle between orientations of one crystal, over the rotations of its Laue group.

    Parameters
    ----------
    first, second : ndarray of shape (..., 4)
        Unit quaternions; they broadcast. NaN gives NaN.
    crystal : Crystal

    Returns
    -------
    ndarray of shape (...)
        Degrees, 0 to 180.
    """
    # Single precision leaves norms off by 1e-7, which alone would look like 0.03°.
    first, second = (
        np.asarray(q, float) / np.linalg.norm(np.asarray(q, float), axis=-1, keepdims=True) for q in (first, second)
    )
    first, second = np.broadcast_arrays(first, second)
    cosine = np.zeros(first.shape[:-1])
    for operation in from_matrix(crystal.operations):
        cosine = np.maximum(cosine, np.abs((first * multiply(operation, second)).sum(axis=-1)))
    return np.rad2deg(2 * np.arccos(np.minimum(cosine, 1)))


def sphere_grid(spacing_deg: float) -> np.ndarray:
    """(n, 3) unit vectors on rings of latitude; no direction is farther than 0.71 spacings from one of them."""
    rings = int(np.ceil(180 / spacing_deg))
    directions = []
    for polar in np.pi * np.arange(rings + 1) / rings:
        count = max(1, int(np.ceil(360 / spacing_deg * np.sin(polar) - 1e-9)))
        azimuth = 2 * np.pi * np.arange(count) / count
        x, y = np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth)
        directions.append(np.stack([x, y, np.full(count, np.cos(polar))], -1))
    return np.concatenate(directions)


def reduced_directions(operations: np.ndarray, spacing_deg: float) -> np.ndarray:
    """Directions that cover what the Laue group leaves of the sphere, boundary included.

    The sector is the Dirichlet cell of a direction without symmetry: all z that lie at least as near to it as
    to any of its images under the group, inversion included. That holds for all eleven Laue classes and for
    every setting. Grid points up to 0.71 spacings outside are kept, so that each direction *in* the sector has
    a neighbour within 0.71 spacings.

    Parameters
    ----------
    operations : ndarray of shape (m, 3, 3)
        Proper rotations of the Laue group.
    spacing_deg : float

    Returns
    -------
    ndarray of shape (n, 3)
    """
    centre = _GENERIC / np.linalg.norm(_GENERIC)
    images = np.concatenate([operations, -operations]) @ centre
    normal = centre - images
    length = np.linalg.norm(normal, axis=1)
    normal = normal[length > 1e-6] / length[length > 1e-6, None]
    grid = sphere_grid(spacing_deg)
    margin = np.sin(np.deg2rad(0.71 * spacing_deg))
    return grid[(grid @ normal.T >= -margin).all(axis=1)]


def zone_orientations(directions: np.ndarray) -> np.ndarray:
    """(n, 3, 3) matrices M of orientations that have these crystal directions along the beam (M e3)."""
    helper = np.where(np.abs(directions[:, :1]) < 0.9, [[1.0, 0, 0]], [[0, 1.0, 0]])
    e1 = helper - (helper * directions).sum(axis=1, keepdims=True) * directions
    e1 /= np.linalg.norm(e1, axis=1, keepdims=True)
    return np.stack([e1, np.cross(directions, e1), directions], axis=-1)
