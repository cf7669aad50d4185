"""Where a factorisation begins: from the singular vectors, or at random."""

import numpy as np

from fourdstem.methods.nmf.matrix import Matrix

FILL = 0.1  # of the constant whose product over all components is the mean of the matrix


def begin(start: str, rank: int, seed: int, low: Matrix, mean: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (rank, n) and components (rank, columns), float32, not negative.

    NNDSVD: Boutsidis, Gallopoulos, Pattern Recognit. 41, 1350 (2008), doi 10.1016/j.patcog.2007.09.010. Each singular
    pair is split into its positive and its negative part, and the larger one is taken.

    Parameters
    ----------
    start : {"nndsvd", "nndsvda", "random"}
        nndsvda puts a little where nndsvd leaves 0: what multiplicative updates find at 0 stays there.
    rank, seed : int
        The seed counts for "random" alone.
    low : Matrix
        With the singular vectors as its basis, largest first (`compressed.compress`).
    mean : float
        Of the matrix.
    """
    n, columns = low.shape[0], low.columns
    if start == "random":
        draw, scale = np.random.default_rng((seed, rank)), np.float32(np.sqrt(max(mean, 1e-30) / rank))
        w = np.abs(draw.standard_normal((rank, n), np.float32)) * scale
        return w, np.abs(draw.standard_normal((rank, columns), np.float32)) * scale
    w, h = np.zeros((rank, n), np.float32), np.zeros((rank, columns), np.float32)
    known = min(rank, low.shape[1])  # where the data have fewer directions, the rest begins at 0
    for j in range(known):
        left, right = low.x[:, j].astype(np.float64), low.basis[j].astype(np.float64)
        sides = [(np.maximum(s * left, 0), np.maximum(s * right, 0)) for s in (1, -1)]
        sizes = [(np.linalg.norm(a), np.linalg.norm(b)) for a, b in sides]
        best = 0 if sizes[0][0] * sizes[0][1] >= sizes[1][0] * sizes[1][1] else 1
        (a, b), (size_a, size_b) = sides[best], sizes[best]
        if size_a * size_b > 0:
            root = np.sqrt(size_a * size_b)
            w[j], h[j] = root * a / size_a, root * b / size_b
    if start == "nndsvda":
        fill = np.float32(FILL * np.sqrt(max(mean, 0) / rank))
        w[w == 0], h[h == 0] = fill, fill
    return w, h
