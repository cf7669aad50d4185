"""Hierarchical alternating least squares on a graphics card.

The same steps as `solvers` and `kernels`, in 32 bits, with sums over blocks of rows in 64 bits, so that convergence is
judged alike; results agree with those of the processor within rounding, not to the bit. They depend neither on how much
memory the card has nor on what else runs: one stream, no sum by atomics, and the same blocks wherever they lie.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

from fourdstem import device as devices
from fourdstem.methods.nmf.matrix import Matrix
from fourdstem.methods.nmf.solvers import EMPTY, SWEEPS

SHARE = 0.5  # of the free memory of the card, that the rows may take


def alternate(matrix: Matrix, w: np.ndarray, h: np.ndarray, limits, penalty: float, device: str):
    """Update weights (k, n) and components (k, columns) in turn.

    Parameters
    ----------
    matrix : Matrix
        Its ``x`` is put on the device as a whole if there is room, else block by block, twice an iteration.
    w, h : ndarray of float32
        Weights and one more array of their size are always there.
    limits : tuple
        Tolerance and most iterations.
    penalty : float
        See `solvers.solve`.
    device : str
        Of torch: "cuda", or "cpu" to try it.

    Returns
    -------
    tuple
        What `solvers.Factors` holds.
    """
    tol, max_iter = limits
    blocks = _blocks(matrix, device)
    basis = None if matrix.basis is None else _put(matrix.basis, device)
    w, h = _put(w, device), _put(h, device)
    before, converged, done, now = np.inf, False, 0, np.inf
    share = 1.0 if penalty == 0 else 0.5
    for done in range(1, max_iter + 1):  # noqa: B007  told afterwards
        if penalty > 0:
            size = torch.linalg.vector_norm(h, dim=1, keepdim=True)
            size[size == 0] = 1
            h, w = h / size, w * size
        cross, square = _weigh(blocks, w, h, basis, penalty)
        _sweep(h, cross, square.float(), 0.0)
        wide = h.double()
        explained = 2 * (cross.double() * wide).sum() - (square * (wide @ wide.T)).sum()
        now = max(matrix.squared - float(explained), 0.0)
        cost = now if penalty == 0 else share * now + penalty * float(w.double().sum())
        if before - cost <= tol * max(abs(cost - matrix.left_out * share), EMPTY * matrix.squared):
            converged = True
            break
        before = cost
    return w.T.cpu().numpy(), h.cpu().numpy(), now, done, converged


def _put(array: np.ndarray, device: str) -> torch.Tensor:
    """Return a copy on the device, contiguous, so that products of it take the same path whatever it was cut from."""
    return torch.from_numpy(np.array(array, np.float32, order="C")).to(device)


def _blocks(matrix: Matrix, device: str) -> Callable[[], Iterator[tuple[int, int, torch.Tensor]]]:
    """Return what yields the first and last + 1 row of every block and its rows on the device."""

    def read():
        for a, b in matrix.spans():
            yield a, b, _put(matrix.block(a, b), device)

    if 4 * matrix.shape[0] * matrix.shape[1] > SHARE * devices.free_bytes(device):
        return read
    kept = list(read())
    return lambda: iter(kept)


def _weigh(blocks, w: torch.Tensor, h: torch.Tensor, basis, penalty: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Update weights (k, n) in place; return WᵀV (k, columns), float32, and WᵀW, float64."""
    along, wide = h if basis is None else h @ basis.T, h.double()
    wanted = torch.empty_like(w)
    for a, b, rows in blocks():
        wanted[:, a:b] = along @ rows.T
    _sweep(w, wanted, (wide @ wide.T).float(), penalty)
    cross = torch.zeros(along.shape, dtype=torch.float64, device=w.device)
    square = torch.zeros(len(w), len(w), dtype=torch.float64, device=w.device)
    for a, b, rows in blocks():
        own = w[:, a:b].contiguous()
        cross += own @ rows
        square += own @ own.T
    cross = cross.float()
    return (cross if basis is None else cross @ basis), square


def _sweep(w: torch.Tensor, cross: torch.Tensor, gram: torch.Tensor, penalty: float) -> None:
    """Minimise over each row of ``w`` in turn, in place; see `kernels.hals`."""
    size = gram.diagonal().clone()
    others = gram - torch.diag(size)
    used = torch.nonzero(size > 0)[:, 0].tolist()  # the one place that waits for the card
    for _ in range(SWEEPS):
        for j in used:
            w[j] = ((cross[j] - penalty - others[j] @ w) / size[j]).clamp(min=0)
