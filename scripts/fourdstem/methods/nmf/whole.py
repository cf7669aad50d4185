"""Passes over whole patterns, after the factorisation: components at every pixel, mean patterns, misfits."""

from dataclasses import replace

import numpy as np

from fourdstem.cube import Cube
from fourdstem.methods.nmf import kernels
from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.solvers import Factors, gram_of

SWEEPS = 200  # over the components, whose products are at hand


def components(cube: Cube, weight: np.ndarray) -> np.ndarray:
    """Return the non-negative patterns that fit a scan best by given weights, float32 (k, detector_y, detector_x).

    So a component is known at every pixel, in the counts of the source, whatever was masked, binned or weighted.

    Parameters
    ----------
    cube : Cube
        Corrected patterns.
    weight : ndarray of float32, shape (n, k)
        In scan order.
    """
    ny, nx, *detector = cube.shape
    by_place = weight.reshape(ny, nx, -1)
    cross = np.zeros((weight.shape[1], int(np.prod(detector))))

    def work(patterns, unit):
        return by_place[unit.where].T @ patterns[: unit.count].reshape(unit.count, -1)

    for _, one in cube.map_units(work):
        cross += one
    wide = weight.astype(np.float64)
    gram = sum(wide[a : a + 4096].T @ wide[a : a + 4096] for a in range(0, len(wide), 4096))
    h = np.maximum(np.linalg.pinv(gram, hermitian=True) @ cross, 0).astype(np.float32)
    kernels.hals(h, 0, cross.astype(np.float32), gram.astype(np.float32), 0.0, SWEEPS)
    return np.where(np.asarray(cube.valid) > 0, h.reshape(-1, *detector), np.float32(0))


def unbiased(matrix: Matrix, fit: Factors) -> Factors:
    """Return a fit with the weights that fit the rows best by its components; a penalty makes all of them too small."""
    w, gram = np.array(fit.weight.T, order="C"), gram_of(fit.component)

    def work(x, a, b):
        own, cross = w[:, a:b], fit.component @ x.T
        kernels.hals(w, a, cross, gram.astype(np.float32), 0.0, SWEEPS)
        return float((own @ own.T * gram).sum()) - 2 * float(np.vdot(own.astype(np.float64), cross))

    loss = matrix.squared + sum(matrix.map(work))
    return replace(fit, weight=w.T, loss=max(loss, 0.0))


def mean_patterns(cube: Cube, label: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean pattern of each label, float32 (k, detector_y, detector_x), and its number of positions (k,)."""
    by_place = label.reshape(cube.scan_shape)
    total, size = np.zeros((k, int(np.prod(cube.detector_shape)))), np.zeros(k, np.int64)

    def work(patterns, unit):
        own, some = by_place[unit.where], patterns[: unit.count].reshape(unit.count, -1)
        return [
            (j, some[own == j].sum(axis=0, dtype=np.float64), int((own == j).sum())) for j in np.unique(own) if j >= 0
        ]

    for _, found in cube.map_units(work):
        for j, one, number in found:
            total[j] += one
            size[j] += number
    mean = total / np.maximum(size, 1)[:, None]
    return mean.astype(np.float32).reshape(k, *cube.detector_shape), size


def misfits(matrix: Matrix, weight: np.ndarray, component: np.ndarray, sparse: float | None):
    """Return of every row: squares not explained, all squares, and what lies in the sparse part, float64 (n,).

    Parameters
    ----------
    matrix : Matrix
    weight : ndarray of float32, shape (n, k)
    component : ndarray of float32, shape (k, columns)
    sparse : float or None
        What exceeds the model by more belongs to the sparse part, and is no misfit.
    """
    out = np.zeros((3, matrix.shape[0]))

    def work(x, a, b):
        off = x - weight[a:b] @ component
        if sparse is not None:
            beyond = np.maximum(off - np.float32(sparse), 0)
            out[2, a:b] = beyond.sum(axis=1, dtype=np.float64)
            off -= beyond
        out[0, a:b] = np.square(off).sum(axis=1, dtype=np.float64)
        out[1, a:b] = np.square(x).sum(axis=1, dtype=np.float64)

    for _ in matrix.map(work):
        pass
    return out
