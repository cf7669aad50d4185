"""Kernels of the factorisation: columns are independent, so that the compiler can take many of them at once."""

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely

TILE = 256  # columns whose numbers stay in the first cache; the answer is the same with any


@numba.njit(nogil=True, cache=True)
def hals(w, begin, cross, gram, penalty, sweeps):
    """Minimise ``½ wᵀ gram w - crossᵀ w + penalty Σ w`` over each row of some columns of ``w`` in turn, w ≥ 0.

    Hierarchical alternating least squares: Cichocki, Phan, IEICE Trans. E92-A, 708 (2009), doi
    10.1587/transfun.E92.A.708, eq. 25; several sweeps by one product after Gillis, Glineur, Neural Comput. 24, 1085
    (2012), doi 10.1162/NECO_a_00256.

    Parameters
    ----------
    w : ndarray of float32, shape (k, more)
        Columns ``begin`` to ``begin + n - 1`` are changed. They are not cut out beforehand: of another layout in
        memory, all this would be compiled once more. Values are put into slices one by one, as assigning whole ones
        takes four times as long to compile.
    begin : int
    cross : ndarray of float32, shape (k, n)
    gram : ndarray of float32, shape (k, k)
    penalty : float
    sweeps : int
    """
    k, n = cross.shape
    rest, some = np.empty(TILE, np.float32), np.zeros((k + 4 - k % 4, TILE), np.float32)
    others = np.zeros((k, some.shape[0]), np.float32)
    for j in range(k):
        for i in range(k):
            if i != j:
                others[j, i] = gram[j, i]
    less, nothing = np.float32(penalty), np.float32(0)
    for first in range(0, n, TILE):
        width = min(TILE, n - first)
        for j in range(k):
            own, old = some[j], w[j, begin + first : begin + first + width]
            for t in range(width):
                own[t] = old[t]
        for _ in range(sweeps):
            for j in range(k):
                if gram[j, j] <= 0:  # a component that is empty stays as it is until it has something again
                    continue
                scale, wanted = np.float32(1) / gram[j, j], cross[j, first : first + width]
                for t in range(width):
                    rest[t] = wanted[t] - less
                for t in range(width, TILE):
                    rest[t] = 0
                for i in range(0, k, 4):  # four at once: what is left is loaded and stored a quarter as often
                    a, b, c, d = others[j, i], others[j, i + 1], others[j, i + 2], others[j, i + 3]
                    e, f, g, h = some[i], some[i + 1], some[i + 2], some[i + 3]
                    for t in range(TILE):
                        rest[t] -= (a * e[t] + b * f[t]) + (c * g[t] + d * h[t])
                own = some[j]
                for t in range(TILE):
                    value = rest[t] * scale
                    own[t] = value if value > nothing else nothing
        for j in range(k):
            own, new = some[j], w[j, begin + first : begin + first + width]
            for t in range(width):
                new[t] = own[t]


@numba.njit(nogil=True, cache=True)
def multiply(w, begin, cross, gram, penalty):
    """Multiply some columns of ``w`` by ``cross / (gram w + penalty)``.

    Lee, Seung, Nature 401, 788 (1999), doi 10.1038/44565, for the Frobenius norm.

    Parameters
    ----------
    w, begin, cross, gram, penalty
        See `hals`.
    """
    k, n = cross.shape
    old, below = np.empty((k, TILE), np.float32), np.empty(TILE, np.float32)
    for first in range(0, n, TILE):
        width = min(TILE, n - first)
        for j in range(k):
            for t in range(width):
                old[j, t] = w[j, begin + first + t]
        for j in range(k):
            for t in range(width):
                below[t] = np.float32(penalty)
            for i in range(k):
                g = gram[j, i]
                for t in range(width):
                    below[t] += g * old[i, t]
            for t in range(width):
                if below[t] > 0:
                    up = max(cross[j, first + t], np.float32(0))
                    w[j, begin + first + t] = old[j, t] * up / below[t]
