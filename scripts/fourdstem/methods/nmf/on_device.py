"""Hierarchical alternating least squares on a graphics card.

The same steps as `solvers` and `kernels`, in 32 bits; sums over all rows are made in one product there, so that results
agree with those of the processor within rounding, not to the bit.
"""

import numpy as np
import torch

from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.solvers import EMPTY, SWEEPS


def alternate(matrix: Matrix, w: np.ndarray, h: np.ndarray, limits, penalty: float, device: str):
    """Update weights (k, n) and components (k, columns) in turn.

    Parameters
    ----------
    matrix : Matrix
        All of its ``x`` is put on the device.
    w, h : ndarray of float32
    limits : tuple
        Tolerance and most iterations.
    penalty : float
        See `solvers.solve`.
    device : str
        Of torch.

    Returns
    -------
    tuple
        What `solvers.Factors` holds.
    """
    tol, max_iter = limits
    x = torch.cat([torch.from_numpy(matrix.block(a, b)).to(device) for a, b in matrix.spans()])
    basis = None if matrix.basis is None else torch.from_numpy(np.ascontiguousarray(matrix.basis)).to(device)
    w, h = (torch.from_numpy(np.array(one)).to(device) for one in (w, h))
    before, converged, done, now = np.inf, False, 0, np.inf
    share = 1.0 if penalty == 0 else 0.5
    for done in range(1, max_iter + 1):  # noqa: B007  told afterwards
        if penalty > 0:
            size = torch.linalg.vector_norm(h, dim=1, keepdim=True).clamp(min=1e-30)
            h, w = h / size, w * size
        along = h if basis is None else h @ basis.T
        _sweep(w, along @ x.T, h @ h.T, penalty)
        cross, square = w @ x, w @ w.T
        cross = cross if basis is None else cross @ basis
        _sweep(h, cross, square, 0.0)
        wide = h.double()
        explained = 2 * (cross.double() * wide).sum() - (square.double() * (wide @ wide.T)).sum()
        now = max(matrix.squared - float(explained), 0.0)
        cost = now if penalty == 0 else share * now + penalty * float(w.double().sum())
        if before - cost <= tol * max(abs(cost - matrix.left_out * share), EMPTY * matrix.squared):
            converged = True
            break
        before = cost
    return w.T.cpu().numpy(), h.cpu().numpy(), now, done, converged


def _sweep(w, cross, gram, penalty: float) -> None:
    size = gram.diagonal().clone()
    others = gram - torch.diag(size)
    for _ in range(SWEEPS):
        for j in torch.nonzero(size > 0)[:, 0].tolist():
            w[j] = ((cross[j] - penalty - others[j] @ w) / size[j]).clamp(min=0)
