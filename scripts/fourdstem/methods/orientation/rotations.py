"""The directions that a Laue group leaves to be sampled."""

import numpy as np

from fourdstem.rotations import from_matrix, misorientation_deg, multiply, sphere_grid, to_matrix

__all__ = [
    "from_matrix", "misorientation_deg", "multiply", "reduced_directions", "sphere_grid", "to_matrix",
    "zone_orientations",
]  # fmt: skip

# A direction without symmetry in any setting of any Laue group: no mirror plane or axis comes near it.
_GENERIC = np.array([0.2374, 0.1291, 0.9628])


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
