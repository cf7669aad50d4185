"""How many patterns stand above shot noise: the rank of counts that are Poisson distributed.

Landa, Zhang, Kluger, "Biwhitening reveals the rank of a count matrix", SIAM J. Math. Data Sci. 4, 1420 (2022),
doi:10.1137/21M1456807. Rows and columns of the counts are scaled so that the noise, whose variance is the expected
count, has mean variance 1 along each of them. Its singular values then end at √n + √columns (Marchenko and Pastur);
what lies beyond is signal. A start such as a normal distribution of pixels, or many counts, is not needed.

Patterns that were reduced beforehand (denoised, rebuilt from few components, averaged) have no such noise. That shows:
their singular values do not follow that law. Of them the signal is taken to end where the singular values level off.
"""

from dataclasses import dataclass

import numpy as np

from fourdstem.methods.nmf.matrix import Matrix, wrap

MOST_COLUMNS = 1536  # neighbours along a detector row are summed until no more are left: sums of counts are counts
ROUNDS, CLOSE = 200, 1e-6
# Of large noise (quantile) by its median, beyond what the law says: counts come within a factor 1.6, reduced patterns
# are off by 9 and more.
HIGH, UNLIKE = 0.9, np.log(3)
ROUNDING = 1e-6  # of the first singular value: what 32 bits cannot tell from 0
LEVEL, LONG = 1.1, 5  # so many successive singular values within this factor are level
CHANCE = 2.02  # of the Tracy-Widom law (β = 1), which noise alone exceeds in 1 of 100 scans


@dataclass(frozen=True)
class Visible:
    """What stands above the noise.

    Attributes
    ----------
    patterns : int
        Singular values beyond the edge. Shot noise hides further ones; a bent crystal may need several. Where the
        noise is not known, those before they level off.
    spectrum : ndarray of shape (n,)
        Singular values, largest first, in units of the edge, or of the first that is level.
    dispersion : float
        Variance of the noise by its mean that was taken; 0 where the noise is not known.
    known : bool
        False: the singular values follow no law of noise.
    """

    patterns: int
    spectrum: np.ndarray
    dispersion: float
    known: bool = True


def visible(electrons, dispersion: float | None = 1.0, most: int = 64) -> Visible:
    """Count the patterns that stand above the noise.

    Parameters
    ----------
    electrons : ndarray of shape (n, columns), or Matrix
        Counts by gain, not averaged. What interpolation does to the noise (less variance, neighbours alike) moves its
        singular values down: the count errs on the low side.
    dispersion : float or None
        Variance of the noise by its mean; None takes what puts the median of the singular values where noise has it,
        if the values above it are those of noise too.
    most : int
        Singular values that are kept.
    """
    summed = _summed(wrap(electrons))
    used_rows, used_columns = _used(summed)
    n, columns = len(used_rows), len(used_columns)
    if min(n, columns) < 2:
        return Visible(min(n, columns), np.ones(min(n, columns)), 1.0)
    gram = _whitened(summed, used_rows, used_columns)
    values = np.linalg.eigvalsh(gram)[::-1][: min(n, columns)].clip(0)
    if dispersion is None:
        middle, high = (_quantile(min(n, columns) / max(n, columns), q) for q in (0.5, HIGH))
        found = np.quantile(values, HIGH) / max(float(np.median(values)), 1e-30)
        if abs(np.log(max(found, 1e-30) / (high / middle))) > UNLIKE:
            return _levelled(np.sqrt(values), most)
        dispersion = float(np.median(values) / (max(n, columns) * middle))
    edge = (np.sqrt(n) + np.sqrt(columns)) ** 2
    spread = (np.sqrt(n) + np.sqrt(columns)) * (1 / np.sqrt(n) + 1 / np.sqrt(columns)) ** (1 / 3)
    edge = max(dispersion, 1e-12) * (edge + CHANCE * spread)
    return Visible(int((values > edge).sum()), np.sqrt(values[:most] / edge), float(dispersion))


def _levelled(spectrum: np.ndarray, most: int) -> Visible:
    """Count the singular values (n,) before the first `LONG` of them that lie within a factor `LEVEL`."""
    some = spectrum[spectrum > ROUNDING * spectrum[0]]
    level = np.flatnonzero(some[: 1 - LONG] < LEVEL * some[LONG - 1 :]) if len(some) >= LONG else []
    patterns = int(level[0]) if len(level) else min(len(some), most)
    edge = max(float(spectrum[min(patterns, len(spectrum) - 1)]), 1e-12)
    return Visible(patterns, spectrum[:most] / edge, 0.0, known=False)


def _summed(matrix: Matrix) -> np.ndarray:
    """Return the counts with so many neighbouring columns summed that `MOST_COLUMNS` suffice, float32."""
    step = -(-matrix.columns // MOST_COLUMNS)
    starts = np.arange(0, matrix.columns, step)
    out = np.empty((matrix.shape[0], len(starts)), np.float32)

    def work(rows, a, b):
        out[a:b] = np.add.reduceat(np.maximum(rows, 0), starts, axis=1)

    for _ in matrix.map(work):
        pass
    return out


def _used(x) -> tuple[np.ndarray, np.ndarray]:
    return np.flatnonzero(x.sum(axis=1) > 0), np.flatnonzero(x.sum(axis=0) > 0)


def _whitened(x, rows, columns) -> np.ndarray:
    """Return YᵀY, float64, of the scaled counts: Y² sums to the other side's length along every row and column."""
    x = x if x.shape == (len(rows), len(columns)) else x[np.ix_(rows, columns)]  # spare the copy where all count
    n, m = x.shape
    right = np.ones(m)
    for _ in range(ROUNDS):
        left = m / (x @ right.astype(np.float32)).astype(float).clip(1e-30)
        after = n / (left.astype(np.float32) @ x).astype(float).clip(1e-30)
        change = np.abs(after / right - 1).max()
        right = after
        if change < CLOSE:
            break
    gram = np.zeros((m, m))
    for start in range(0, n, 2048):
        y = x[start : start + 2048].astype(float) * np.sqrt(left[start : start + 2048, None]) * np.sqrt(right)
        gram += y.T @ y
    return gram


def _quantile(ratio: float, share: float) -> float:
    """Return a quantile of the Marchenko-Pastur law of variance 1 and ratio of sides at most 1."""
    low, high = (1 - np.sqrt(ratio)) ** 2, (1 + np.sqrt(ratio)) ** 2
    turn = np.linspace(0, np.pi, 20001)  # as cosines: the density ends in square roots
    at = (high + low) / 2 - (high - low) / 2 * np.cos(turn)
    density = np.sqrt(((high - at) * (at - low)).clip(0)) / at.clip(1e-12) * np.sin(turn)
    total = np.cumsum(density)
    return float(np.interp(share * total[-1], total, at))
