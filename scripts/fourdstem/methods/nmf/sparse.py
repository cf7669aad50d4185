"""A low-rank and a sparse part: ``V ≈ W H + S``, S not negative and 0 nearly everywhere.

Minimises ``½ |V - S - W H|² + t Σ S``: S is what exceeds the model by more than t. Our own option, for hot pixels and
lone reflections that would else bend a component; the published code has nothing of the kind.
"""

from dataclasses import replace

import numpy as np

from fourdstem.methods.nmf import kernels
from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.solvers import EMPTY, MAX_ITER, SWEEPS, TOL, Factors, gram_of


def solve_sparse(
    matrix: Matrix,
    weight: np.ndarray,
    component: np.ndarray,
    excess: float,
    *,
    tol: float = TOL,
    max_iter: int = MAX_ITER,
    threads: int = 1,
) -> Factors:
    """Return the factorisation that goes with a sparse part, from given factors on.

    Parameters
    ----------
    matrix : Matrix
        Whole patterns.
    weight : ndarray of float32, shape (n, k)
    component : ndarray of float32, shape (k, columns)
    excess : float
        t.
    tol, max_iter, threads
        See `solvers.solve`.

    Returns
    -------
    Factors
        ``loss`` is the sum of squares without the sparse part.
    """
    matrix, limit = replace(matrix, threads=threads), np.float32(excess)
    w, h = np.ascontiguousarray(weight.T, np.float32), np.array(component, np.float32)
    before, converged, done, squares = np.inf, False, 0, np.inf
    for done in range(1, max_iter + 1):  # noqa: B007  told afterwards
        squares, beyond = _iterate(matrix, w, h, limit)
        cost = squares / 2 + excess * beyond
        if before - cost <= tol * max(cost, EMPTY * matrix.squared):
            converged = True
            break
        before = cost
    return Factors(w.T, h, squares, done, converged)


def _iterate(matrix: Matrix, w, h, limit) -> tuple[float, float]:
    """Update both factors once and return the squares and the sum of the sparse part, both as they were before."""
    gram = gram_of(h).astype(np.float32)

    def work(x, a, b):
        own = w[:, a:b]
        off = x - own.T @ h
        beyond = np.maximum(off - limit, 0)
        kept = x - beyond
        kernels.hals(w, a, h @ kept.T, gram, 0.0, SWEEPS)
        squares = float(np.square(off - beyond).sum(dtype=np.float64))
        return own @ kept, own @ own.T, squares, float(beyond.sum(dtype=np.float64))

    cross, square, squares, beyond = np.zeros(h.shape), np.zeros((len(h), len(h))), 0.0, 0.0
    for one, two, three, four in matrix.map(work):
        cross += one
        square += two
        squares, beyond = squares + three, beyond + four
    kernels.hals(h, 0, cross.astype(np.float32), square.astype(np.float32), 0.0, SWEEPS)
    return squares, beyond
