"""The matrix by its first directions: the products of a factorisation at a hundredth of their cost.

Randomised subspace iteration: Halko, Martinsson, Tropp, SIAM Rev. 53, 217 (2011), doi 10.1137/090771806, algorithm 4.4.
The directions are those of patterns, so that every pass over the rows is one product to and one fro.
"""

import numpy as np

from fourdstem.methods.nmf.matrix import Matrix

PASSES = 2  # before the one that keeps the rows


def compress(matrix: Matrix, directions: int, seed: int, passes: int = PASSES) -> Matrix:
    """Return a matrix by its first singular vectors.

    Parameters
    ----------
    matrix : Matrix
    directions : int
        At most that many; fewer where the rows have fewer.
    seed : int
    passes : int
        Over the rows, before the one that projects them.

    Returns
    -------
    Matrix
        ``x`` (n, r) = U S and ``basis`` (r, columns), singular values descending. ``squared`` is that of the whole
        matrix, so that a loss counts what the directions leave out.
    """
    columns = matrix.columns
    directions = min(directions, columns, matrix.shape[0])
    found = np.random.default_rng(seed).standard_normal((columns, directions))
    for _ in range(passes):
        found = _to_and_fro(matrix, np.linalg.qr(found)[0])
    basis = np.linalg.qr(found)[0].astype(np.float32)
    rows = np.empty((matrix.shape[0], directions), np.float32)
    gram = np.zeros((directions, directions))

    def work(x, a, b):
        rows[a:b] = x @ basis
        wide = rows[a:b].astype(np.float64)
        return wide.T @ wide

    for one in matrix.map(work):
        gram += one
    values, turn = np.linalg.eigh(gram)
    kept = values > max(values[-1], 0.0) * 1e-12
    turn = turn[:, kept][:, ::-1]
    for a in range(0, len(rows), 4096):
        rows[a : a + 4096, : turn.shape[1]] = rows[a : a + 4096] @ turn.astype(np.float32)
    x = np.ascontiguousarray(rows[:, : turn.shape[1]])
    along = np.ascontiguousarray((basis @ turn.astype(np.float32)).T)
    left_out = max(matrix.squared - float(values[kept].sum()), 0.0)
    return Matrix(x, x.shape, matrix.squared, along, matrix.threads, left_out)


def _to_and_fro(matrix: Matrix, found: np.ndarray) -> np.ndarray:
    """Return VᵀV times orthonormal directions (columns, r)."""
    narrow = found.astype(np.float32)
    total = np.zeros(found.shape)
    for one in matrix.map(lambda x, a, b: x.T @ (x @ narrow)):
        total += one
    return total


def captured(low: Matrix) -> float:
    """Return the share of the sum of squares that lies in the directions."""
    return 1 - low.left_out / low.squared if low.squared > 0 else 1.0
