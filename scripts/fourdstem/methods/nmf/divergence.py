"""Multiplicative updates for the generalised Kullback-Leibler divergence, the likelihood of counts."""

import numpy as np

from fourdstem.methods.nmf.matrix import Matrix

LEAST = np.float32(1e-12)  # of what is divided by


def alternate(matrix: Matrix, w: np.ndarray, h: np.ndarray, limits, penalty: float):
    """Update weights (k, n) and components (k, columns) in turn; needs all rows, no basis.

    Lee, Seung, Nature 401, 788 (1999), doi 10.1038/44565: W ← W (V / WH) Hᵀ / Σ H, and H likewise. D = Σ V ln(V / WH)
    - V + WH.

    Returns
    -------
    tuple
        What `solvers.Factors` holds.
    """
    if matrix.basis is not None:
        raise ValueError("the divergence needs whole patterns")
    tol, max_iter = limits
    before, converged, done, cost = np.inf, False, 0, np.inf
    constant = float(sum(matrix.map(_entropy)))
    for done in range(1, max_iter + 1):  # noqa: B007  told afterwards
        cost = constant + _iterate(matrix, w, h, penalty)
        if before - cost <= tol * max(abs(cost), 1e-30):
            converged = True
            break
        before = cost
    return w.T, h, distance(matrix, w, h), done, converged


def distance(matrix: Matrix, w: np.ndarray, h: np.ndarray) -> float:
    """Return the divergence of the rows from W H."""

    def work(v, a, b):
        model = np.maximum(w[:, a:b].T @ h, LEAST)
        return float((model - v * np.log(model)).sum(dtype=np.float64)) + _entropy(v, a, b)

    return max(float(sum(matrix.map(work))), 0.0)


def _entropy(v, a, b) -> float:
    some = v[v > 0].astype(np.float64)
    return float((some * np.log(some) - some).sum())


def _iterate(matrix: Matrix, w, h, penalty: float) -> float:
    """Return what the divergence was before, without what does not change."""
    sizes = h.sum(axis=1, dtype=np.float64).astype(np.float32)

    def work(v, a, b):
        own = w[:, a:b]
        model = np.maximum(own.T @ h, LEAST)
        cost = float((model - v * np.log(model)).sum(dtype=np.float64))
        own *= (h @ (v / model).T) / np.maximum(sizes + np.float32(penalty), LEAST)[:, None]
        return cost, own @ (v / np.maximum(own.T @ h, LEAST)), own.sum(axis=1, dtype=np.float64)

    cost, up, down = 0.0, np.zeros(h.shape), np.zeros(len(h))
    for one, two, three in matrix.map(work):
        cost += one
        up += two
        down += three
    h *= (up / np.maximum(down, 1e-30)[:, None]).astype(np.float32)
    return cost
