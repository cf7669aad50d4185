"""Non-negative matrix factorisation ``V ≈ W H`` of patterns: V (n, columns), W (n, k), H (k, columns), none negative.

All solvers alternate: with H fixed, W needs only V Hᵀ and H Hᵀ, and the other way about. Rows of V are read block by
block (`matrix`). With V given by few directions (`compressed`) the same products cost a hundredth.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fourdstem.methods.nmf import divergence, kernels
from fourdstem.methods.nmf.compressed import compress
from fourdstem.methods.nmf.matrix import Matrix, wrap
from fourdstem.methods.nmf.starts import begin

METHODS, LOSSES, STARTS = ("hals", "als", "mu"), ("frobenius", "kl"), ("nndsvda", "nndsvd", "random")
SWEEPS = 2  # of HALS by one product
SPARE = 10  # directions beyond the rank, from which a start is made
TOL, MAX_ITER = 1e-6, 1000
WIDE = 1024  # columns of which 64 bits are made at a time; fixed
EMPTY = 1e-9  # of the sum of squares: a loss that numbers of 32 bits cannot tell from 0


@dataclass(frozen=True)
class Factors:
    """A factorisation.

    Attributes
    ----------
    weight : ndarray of float32, shape (n, k)
    component : ndarray of float32, shape (k, columns)
    loss : float
        Sum of squares of V - W H, or the generalised Kullback-Leibler divergence.
    iterations : int
    converged : bool
        False: ``max_iter`` came first.
    """

    weight: np.ndarray
    component: np.ndarray
    loss: float
    iterations: int
    converged: bool


def solve(
    v,
    rank: int,
    *,
    method: str = "hals",
    loss: str = "frobenius",
    start: str = "nndsvda",
    seed: int = 0,
    tol: float = TOL,
    max_iter: int = MAX_ITER,
    l1_weight: float = 0.0,
    threads: int = 1,
    device: str = "cpu",
    low: Matrix | None = None,
    first: tuple[np.ndarray, np.ndarray] | None = None,
) -> Factors:
    """Factorise a matrix.

    Parameters
    ----------
    v : ndarray of shape (n, columns), or Matrix
        Not negative, finite.
    rank : int
    method : {"hals", "als", "mu"}
        Hierarchical alternating least squares; alternating least squares, clipped, of which the best iterate is kept;
        multiplicative updates.
    loss : {"frobenius", "kl"}
        "kl" goes with "mu".
    start : {"nndsvda", "nndsvd", "random"}
    seed : int
    tol : float
        Iterations end where one lowers the loss by less than this share of it.
    max_iter : int
    l1_weight : float
        λ of a penalty λ Σ W, components having the norm 1 (Frobenius; without that norm it would mean nothing).
    threads : int
        Never changes a result.
    device : {"cpu", "cuda"}
        CUDA for "hals" alone.
    low : Matrix, optional
        ``v`` by its first directions, from which nndsvd starts; computed where it is needed and not given.
    first : tuple of ndarray, optional
        Weights (n, k) and components (k, columns) to begin with.

    Returns
    -------
    Factors
    """
    if method not in METHODS or loss not in LOSSES or start not in STARTS or (loss == "kl" and method != "mu"):
        raise ValueError(f"method {method!r}, loss {loss!r}, start {start!r}")
    matrix = replace(wrap(v), threads=threads)
    if first is not None:
        w, h = np.ascontiguousarray(first[0].T, np.float32), np.array(first[1], np.float32)
    else:
        if low is None:
            low = matrix if matrix.basis is not None else compress(matrix, rank + SPARE, seed)
        w, h = begin(start, rank, seed, low, _mean(low))
    limits = (tol, max_iter)
    if loss == "kl":
        return Factors(*divergence.alternate(matrix, w, h, limits, l1_weight))
    if device == "cuda" and method == "hals":
        from fourdstem.methods.nmf import on_device

        return Factors(*on_device.alternate(matrix, w, h, limits, l1_weight, device))
    return _alternate(matrix, w, h, _UPDATES[method], limits, l1_weight)


def _mean(low: Matrix) -> float:
    """Return the mean of the matrix that a basis stands for."""
    along = low.basis.sum(axis=1, dtype=np.float64)
    return float(sum(low.map(lambda x, a, b: x.sum(axis=0, dtype=np.float64) @ along))) / (low.shape[0] * low.columns)


def _hals(w, begin: int, cross, gram, penalty: float) -> None:
    kernels.hals(w, begin, cross, gram.astype(np.float32), penalty, SWEEPS)


def _least_squares(w, begin: int, cross, gram, penalty: float) -> None:
    own = w[:, begin : begin + cross.shape[1]]
    own[:] = np.maximum(np.linalg.pinv(gram, hermitian=True).astype(np.float32) @ (cross - np.float32(penalty)), 0)


def _multiply(w, begin: int, cross, gram, penalty: float) -> None:
    kernels.multiply(w, begin, cross, gram.astype(np.float32), penalty)


_UPDATES = {"hals": _hals, "als": _least_squares, "mu": _multiply}


def weigh(matrix: Matrix, w: np.ndarray, h: np.ndarray, gram: np.ndarray, update: Callable, penalty: float = 0.0):
    """Update weights, whose components are fixed.

    Parameters
    ----------
    matrix : Matrix
    w : ndarray of float32, shape (k, n)
        Changed.
    h : ndarray of float32, shape (k, columns)
    gram : ndarray of float64, shape (k, k)
        H Hᵀ.
    update : callable
        ``update(w, a, V hᵀ, h hᵀ, penalty)`` changes the weights of a block of rows, the first of which is a.

    Returns
    -------
    cross : ndarray of float32, shape (k, columns)
        W^T V.
    square : ndarray of float64, shape (k, k)
        W^T W.
    """
    along = h if matrix.basis is None else h @ matrix.turned

    def work(x, a, b):
        update(w, a, along @ x.T, gram, penalty)
        own = w[:, a:b]
        return own @ x, own @ own.T

    cross, square = np.zeros((len(h), matrix.shape[1])), np.zeros((len(h), len(h)))
    for one, two in matrix.map(work):
        cross += one
        square += two
    cross = cross.astype(np.float32)
    return (cross if matrix.basis is None else cross @ matrix.basis), square


def gram_of(h: np.ndarray) -> np.ndarray:
    """Return H Hᵀ of components (k, columns), float64."""
    return _products(h, h)[0]


def _products(h: np.ndarray, cross: np.ndarray) -> tuple[np.ndarray, float]:
    """Return H Hᵀ and the sum of H times another array (k, columns), float64, by pieces that stay in the cache."""
    gram, dot = np.zeros((len(h), len(h))), 0.0
    for a in range(0, h.shape[1], WIDE):
        wide = h[:, a : a + WIDE].astype(np.float64)
        gram += wide @ wide.T
        dot += float(np.vdot(cross[:, a : a + WIDE].astype(np.float64), wide))
    return gram, dot


def _alternate(matrix: Matrix, w, h, update: Callable, limits, penalty: float) -> Factors:
    tol, max_iter = limits
    best, before, converged, done = None, np.inf, False, 0
    gram = gram_of(h)
    share = 1.0 if penalty == 0 else 0.5  # of the squares that the cost counts
    for done in range(1, max_iter + 1):  # noqa: B007  told afterwards
        if penalty > 0:
            _unit_norm(w, h)
            gram = gram_of(h)
        cross, square = weigh(matrix, w, h, gram, update, penalty)
        update(h, 0, cross, square, 0.0)
        gram, dot = _products(h, cross)
        now = max(matrix.squared - 2 * dot + float((square * gram).sum()), 0.0)
        cost = now if penalty == 0 else share * now + penalty * float(w.sum(dtype=np.float64))
        if best is None or cost < best[0]:
            # Clipped least squares may get worse; what descends by itself need not be copied.
            best = (cost, now, *((w.copy(), h.copy()) if update is _least_squares else (w, h)))
        # What the directions leave out no factor can change: noise, mostly, beside which any change looks small.
        if before - cost <= tol * max(abs(cost - matrix.left_out * share), EMPTY * matrix.squared):
            converged = True
            break
        before = cost
    _, now, w, h = best
    return Factors(w.T, h, now, done, converged)


def _unit_norm(w: np.ndarray, h: np.ndarray) -> None:
    size = np.linalg.norm(h.astype(np.float64), axis=1).astype(np.float32)
    size[size == 0] = 1
    h /= size[:, None]
    w *= size[:, None]
