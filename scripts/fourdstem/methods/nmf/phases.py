"""From components to a phase map: components are named by reference patterns, dim positions belong to none."""

import numpy as np

from fourdstem.methods.nmf.curves import electrons

LEAST = 0.5  # of the typical intensity of a phase: where the probe leaves a precipitate half of it is left


def nearest(component: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the reference pattern that each component is most like.

    Parameters
    ----------
    component : ndarray of shape (k, columns)
    reference : ndarray of shape (reference, columns)
        Not negative; what all of them share (diffuse background, matrix) is better taken off beforehand.

    Returns
    -------
    index : ndarray of int, shape (k,)
    cosine : ndarray of shape (k,)
    """
    unit = [p / np.linalg.norm(p, axis=1, keepdims=True).clip(1e-30) for p in (component, reference)]
    cosine = unit[0] @ unit[1].T
    return cosine.argmax(axis=1), cosine.max(axis=1)


def phase_map(weight: np.ndarray, component: np.ndarray, phase, least: float = LEAST) -> np.ndarray:
    """Return the phase that holds most of the intensity of each row.

    The components of a phase are added up. A row is of no phase where that sum is less than ``least`` times its median
    over the rows of that phase: beside a precipitate, where its disks fade, or where there is nothing.

    Parameters
    ----------
    weight : ndarray of shape (n, k)
    component : ndarray of shape (k, columns)
    phase : sequence of int, length k
        Phase of each component.
    least : float

    Returns
    -------
    ndarray of int, shape (n,)
        -1 for no phase.
    """
    names = np.unique(phase)
    shares = np.asarray(weight, float) * electrons(component)
    held = np.stack([shares[:, np.asarray(phase) == name].sum(axis=1) for name in names], axis=1)
    first, most = held.argmax(axis=1), held.max(axis=1)
    label = np.full(len(held), -1)
    for i, name in enumerate(names):
        own = (first == i) & (most > 0)
        if own.any():
            label[own & (most >= least * np.median(most[own]))] = name
    return label
