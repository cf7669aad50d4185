"""Quaternions (w, x, y, z) of orientations: passive, lab to crystal, so that a symmetry acts from the left."""

import numpy as np
from scipy.spatial.transform import Rotation

from fourdstem.crystal import Crystal

_BLOCK = 65536


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


def conjugate(quaternion: np.ndarray) -> np.ndarray:
    """Inverse of unit quaternions."""
    return np.asarray(quaternion, float) * [1.0, -1.0, -1.0, -1.0]


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


def disorientation(first: np.ndarray, second: np.ndarray, operations: np.ndarray) -> np.ndarray:
    """Turn of the smallest angle from the first to the second orientation, in the crystal frame.

    Parameters
    ----------
    first, second : ndarray of shape (n, 4)
        Quaternions of any length; NaN gives NaN.
    operations : ndarray of shape (m, 4)
        Rotations of the Laue group.

    Returns
    -------
    ndarray of shape (n, 4)
        ``O second conj(first)`` with w >= 0 and the O for which w is largest. The same O takes ``second`` to its
        equivalent nearest to ``first``.
    """
    first, second = np.broadcast_arrays(np.asarray(first, float), np.asarray(second, float))
    out = np.empty(first.shape)
    for start in range(0, len(first), _BLOCK):
        part = slice(start, start + _BLOCK)
        turn = multiply(second[part], conjugate(first[part]))
        turn /= np.linalg.norm(turn, axis=-1, keepdims=True)
        best = np.abs(turn @ conjugate(operations).T).argmax(axis=1)
        turn = multiply(operations[best], turn)
        out[part] = np.where(turn[:, :1] < 0, -turn, turn)
    return out


def angle_deg(turn: np.ndarray) -> np.ndarray:
    """Angle of quaternions (..., 4), degrees, 0 to 180; exact near 0, where an arc cosine is not."""
    turn = np.asarray(turn, float)
    return np.rad2deg(2 * np.arctan2(np.linalg.norm(turn[..., 1:], axis=-1), np.abs(turn[..., 0])))


def random_orientations(count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4) unit quaternions, uniform over all rotations."""
    quaternion = rng.normal(size=(count, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    return np.where(quaternion[:, :1] < 0, -quaternion, quaternion)


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
