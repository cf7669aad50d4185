"""All ranks and starts at once: one compression for all, then two passes that make their losses exact.

All fits together take one step on whole patterns: of weights, components, and weights again, and with these the true
loss of each.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fourdstem.methods.nmf import kernels
from fourdstem.methods.nmf.compressed import compress
from fourdstem.methods.nmf.matrix import Matrix, wrap
from fourdstem.methods.nmf.solvers import MAX_ITER, Factors, gram_of, solve

BEYOND = 28  # directions kept beyond the largest rank
ENOUGH = 1e-5  # tolerance: losses come within a part in a thousand of what ten times less gives
SETTLING = 4  # sweeps in a pass over whole patterns


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
    tol: float = ENOUGH,
    max_iter: int = MAX_ITER,
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
    method, loss, start, seed, tol, max_iter, threads, device
        See `solvers.solve`. "mu" has no use for a compression: it works on whole patterns.
    """
    matrix = replace(wrap(v), threads=threads)
    low = compress(matrix, max(ranks) + BEYOND, seed) if low is None else low
    options = {"method": method, "loss": loss, "tol": tol, "max_iter": max_iter}
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
    return _gathered(jobs, fits, None if whole else settle(matrix, fits))


def _gathered(jobs, fits, settled) -> Sweep:
    """Return all fits by rank; without settled ones, those found are of whole patterns already."""
    before = np.array([one.loss for one in fits])
    fits = fits if settled is None else settled
    after = np.array([one.loss for one in fits])
    found: dict[int, list[Factors]] = {rank: [] for rank, _ in jobs}
    for (rank, _), one in zip(jobs, fits, strict=True):
        found[rank].append(one)
    return Sweep(found, float((np.abs(after - before) / np.maximum(after, 1e-30)).max()))


def settle(matrix: Matrix, fits: list[Factors]) -> list[Factors]:
    """Return fits after a step on whole patterns, with their true losses.

    One pass gives the best weights to given components, and the components that go with these; a second one the weights
    and losses of those.
    """
    ends = np.cumsum([0, *(len(one.component) for one in fits)])
    spans = list(pairwise(ends.tolist()))
    components = np.concatenate([one.component for one in fits])
    weights = [one.weight.T for one in fits]
    cross, squares, _ = _pass(matrix, components, weights, spans, keep=True)
    for i, (first, last) in enumerate(spans):
        own = components[first:last]
        kernels.hals(own, 0, cross[first:last].astype(np.float32), squares[i].astype(np.float32), 0.0, SETTLING)
    _, _, loss = _pass(matrix, components, weights, spans, keep=False)
    parts = [components[first:last] for first, last in spans]
    every = zip(fits, parts, loss, strict=True)
    return [replace(one, component=h, loss=max(float(value), 0.0)) for one, h, value in every]


def _pass(matrix: Matrix, components, weights, spans, keep: bool):
    """Update the weights of all fits; return W^T V (where it is kept), W^T W and the losses."""
    grams = [gram_of(components[first:last]) for first, last in spans]

    def work(x, a, b):
        crosses, change, squares = components @ x.T, np.empty(len(spans)), []
        for i, (first, last) in enumerate(spans):
            own, cross = weights[i][:, a:b], crosses[first:last]
            kernels.hals(weights[i], a, cross, grams[i].astype(np.float32), 0.0, SETTLING)
            squares.append(own @ own.T)
            change[i] = float((squares[i] * grams[i]).sum()) - 2 * float(np.vdot(own.astype(np.float64), cross))
            crosses[first:last] = own
        return (crosses @ x if keep else None), squares, change

    total, square = np.zeros(components.shape if keep else 0), [np.zeros_like(one) for one in grams]
    loss = np.full(len(spans), matrix.squared)
    for cross, squares, change in matrix.map(work):
        loss += change
        if keep:
            total += cross
            for one, more in zip(square, squares, strict=True):
                one += more
    return total, square, loss
