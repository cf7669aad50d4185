"""All ranks and starts at once: one compression for all, then one pass that makes their losses exact.

With the components of a fit given, the best weights follow from the whole patterns; a pass over these computes them
for all fits together, and with them the true loss. Only the components are those of the compressed patterns.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from fourdstem.methods.nmf import kernels
from fourdstem.methods.nmf.compressed import compress
from fourdstem.methods.nmf.matrix import Matrix, wrap
from fourdstem.methods.nmf.solvers import MAX_ITER, TOL, Factors, solve

BEYOND = 20  # directions kept beyond the largest rank
SETTLING = 4  # sweeps over the weights in the pass over whole patterns


@dataclass(frozen=True)
class Sweep:
    """All fits.

    Attributes
    ----------
    fits : dict
        ``{rank: [Factors, ...]}``; losses are those of whole patterns.
    error : float
        Largest relative difference between a loss that was found with few directions and the true one.
    """

    fits: dict[int, list[Factors]]
    error: float


def sweep(
    v,
    ranks: Sequence[int],
    starts: int = 3,
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
) -> Sweep:
    """Factorise a matrix at every rank from several starts.

    Parameters
    ----------
    v : ndarray of shape (n, columns), or Matrix
    ranks : sequence of int
    starts : int
        The first is ``start``; the others are random, of seeds ``seed + 1`` and so on.
    low : Matrix, optional
        ``v`` compressed to at least the largest rank.
    method, loss, start, seed, tol, max_iter, l1_weight, threads, device
        See `solvers.solve`. "mu" has no use for a compression: it works on whole patterns.
    """
    matrix = replace(wrap(v), threads=threads)
    low = compress(matrix, max(ranks) + BEYOND, seed) if low is None else low
    options = {"method": method, "loss": loss, "tol": tol, "max_iter": max_iter, "l1_weight": l1_weight}
    jobs = [(rank, s) for rank in ranks for s in range(starts)]
    whole = method == "mu"

    def fit(job):
        rank, s = job
        named = {"start": start if s == 0 else "random", "seed": seed + s, "device": device}
        if whole:
            return solve(matrix, rank, threads=threads, low=low, **named, **options)
        return solve(low, rank, threads=1, **named, **options)

    # One fit per thread: its blocks are small, and waiting for each other would cost more than they do.
    with ThreadPoolExecutor(1 if whole or device == "cuda" else threads) as pool:
        fits = list(pool.map(fit, jobs))
    error = 0.0
    if not whole:
        before = np.array([one.loss for one in fits])
        fits = settle(matrix, fits, l1_weight)
        after = np.array([one.loss for one in fits])
        error = float((np.abs(after - before) / np.maximum(after, 1e-30)).max())
    found: dict[int, list[Factors]] = {rank: [] for rank in ranks}
    for (rank, _), one in zip(jobs, fits, strict=True):
        found[rank].append(one)
    return Sweep(found, error)


def settle(matrix: Matrix, fits: list[Factors], penalty: float = 0.0) -> list[Factors]:
    """Return fits with the weights that whole patterns give to their components, and with their true losses."""
    components = np.concatenate([one.component for one in fits])
    ends = np.cumsum([0, *(len(one.component) for one in fits)])
    spans = list(zip(ends[:-1], ends[1:], strict=True))
    grams = [_gram(one.component) for one in fits]
    weights = [one.weight.T for one in fits]

    def work(x, a, b):
        crosses, change = components @ x.T, np.empty(len(fits))
        for i, (first, last) in enumerate(spans):
            own, cross = weights[i][:, a:b], crosses[first:last]
            kernels.hals(own, cross, grams[i].astype(np.float32), penalty, SETTLING)
            both = (own @ own.T).astype(np.float64)
            change[i] = float((both * grams[i]).sum()) - 2 * float(np.vdot(own.astype(np.float64), cross))
        return change

    loss = np.full(len(fits), matrix.squared)
    for change in matrix.map(work):
        loss += change
    return [replace(one, loss=max(float(value), 0.0)) for one, value in zip(fits, loss, strict=True)]


def _gram(h: np.ndarray) -> np.ndarray:
    wide = h.astype(np.float64)
    return wide @ wide.T
