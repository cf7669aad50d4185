"""The directions in which the patterns of a scan differ by more than noise, from the covariance of neighbours."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from scipy.linalg import eigh

from fourdstem.methods.nonlocal_average.features import Bins, noise_table

MOST_COMPONENTS = 64  # 1 kB per position in all; films of 14 grains had 22 to 45
EDGE = 2.0  # noise alone: largest eigenvalue 1.4 to 1.7 times |the least| on scans of 28 x 28 to 84 x 84
MODEL_ERROR = 0.1  # ε, of a bin: thickness, sub-pixel centre; matters only at high dose
LEAST_NOISE = 1e-9  # of an empty pattern, which has none
COLUMNS = 256  # of the covariance, computed by one thread; fixed
NEEDED_MB = 60  # covariance of `features.MOST_FEATURES` bins and its eigenvectors; 46 measured
TOGETHER = 256  # positions at least, whose products are summed in float32; fixed


@dataclass
class Moments:
    """Sums over a scan whose rows of features come one by one; four rows are held, or those of 256 positions.

    With s(x) = f(x - 1) + f(x + 1) and t = s + f of the row above, Σ f_i f_jᵀ over neighbours is the symmetric part of
    Σ fᵀ (s + 2 t). A reference is subtracted from all features first, or float32 would drown C in the mean.

    Attributes
    ----------
    n : int
        Bins.
    reference, total : ndarray, shape (n,)
        Mean of the first row with a beam, and the sum of what features have above it.
    product : ndarray of float64, shape (n, n)
        Of which the symmetric part counts.
    border : ndarray of float64, shape (n,)
        Σ f_i over pairs (i, j).
    count, pairs : int
        Patterns, and ordered pairs of neighbours, with a beam.
    """

    n: int
    reference: np.ndarray | None = None
    total: np.ndarray = field(init=False)
    product: np.ndarray = field(init=False)
    border: np.ndarray = field(init=False)
    count: int = 0
    pairs: int = 0
    _above: tuple | None = None
    waiting: list = field(default_factory=list)

    def __post_init__(self):
        self.total, self.border = np.zeros(self.n), np.zeros(self.n)
        self.product = np.zeros((self.n, self.n))

    def add_row(self, features: np.ndarray, beam: np.ndarray, pool) -> None:
        """Add features (scan_x, n) float32, which are spoilt, of the positions with a beam (scan_x,)."""
        if self.reference is None:
            if not beam.any():
                return
            self.reference = features[beam].mean(axis=0, dtype=np.float64).astype(np.float32)
        features -= self.reference
        features[~beam] = 0
        lit = beam.astype(np.int64)
        side, near = _side(features), _side(lit)
        self.total += features.sum(axis=0, dtype=np.float64)
        self.count += int(lit.sum())
        self.border += near @ features
        self.pairs += int(lit @ near)
        three = features + side, near + lit
        if self._above is not None:
            above, (sums, counts) = self._above
            side += 2 * sums
            self.border += counts @ features + three[1] @ above
            self.pairs += 2 * int(lit @ counts)
        self._above = features, three
        self.waiting.append((features, side))
        if sum(len(rows) for rows, _ in self.waiting) >= TOGETHER:
            self.multiply(pool)

    def multiply(self, pool) -> None:
        """Add the products of the rows that wait."""
        features, side = (np.concatenate(rows) for rows in zip(*self.waiting, strict=True))

        def work(a):
            self.product[:, a : a + COLUMNS] += features.T @ side[:, a : a + COLUMNS]

        list(pool.map(work, range(0, self.n, COLUMNS)))
        self.waiting.clear()

    def mean(self) -> np.ndarray:
        """Return the mean feature (n,)."""
        return self.total / max(self.count, 1) + (0.0 if self.reference is None else self.reference)

    def covariance(self) -> np.ndarray:
        """Return the mean of (f_i - m) (f_j - m)ᵀ over neighbours i, j, (n, n); 0 without any."""
        m = self.total / max(self.count, 1)
        c = (self.product + self.product.T) / 2
        c -= np.outer(m, self.border) + np.outer(self.border, m) - self.pairs * np.outer(m, m)
        return c / max(self.pairs, 1)


def _side(values: np.ndarray) -> np.ndarray:
    out = np.zeros_like(values)
    out[1:] += values[:-1]
    out[:-1] += values[1:]
    return out


def moments_of(cube, bins: Bins) -> Moments:
    """Read a scan once and sum its features."""
    moments, nx = Moments(len(bins.used)), cube.scan_shape[1]
    with ThreadPoolExecutor(cube.threads) as pool:
        for unit, features in cube.map_stored(bins.features):
            if unit.x0 == 0:
                row = np.empty((nx, moments.n), np.float32)
            row[unit.x0 : unit.x1] = features
            if unit.x1 == nx:
                moments.add_row(row, bins.beam[unit.y], pool)
        if moments.waiting:
            moments.multiply(pool)
    return moments


@dataclass(frozen=True)
class Axes:
    """Directions in which patterns differ by more than noise.

    Attributes
    ----------
    mean : ndarray of float32, shape (n,)
    vectors : ndarray of float32, shape (n, r)
        What an electron in a bin adds to each component; 0 for a bin that is always empty.
    table : ndarray of float32, shape (n, r)
        Q.
    eigenvalues : ndarray of float64, shape (n,)
    """

    mean: np.ndarray
    vectors: np.ndarray
    table: np.ndarray
    eigenvalues: np.ndarray

    def project(self, features: np.ndarray, background: float) -> tuple[np.ndarray, np.ndarray]:
        """Return y and v, float32 (patterns, r), of features (patterns, n)."""
        y = (features - self.mean) @ self.vectors
        v = (features + np.float32(background) + np.float32(MODEL_ERROR**2) * features * features) @ self.table
        # Readout noise can make few electrons negative; half of its own variance is left.
        return y, np.maximum(v, np.maximum(background / 2 * self.table.sum(axis=0), np.float32(LEAST_NOISE)))


def find_axes(moments: Moments, bins: Bins) -> Axes:
    """Return the eigenvectors of the covariance of neighbours that stand out of its noise, at least one.

    Where none does, the first is kept all the same: it may be half-seen structure. If it is noise, less is averaged
    on small scans, to which it is fitted: of noise alone 86 to 99 % of the window on 16 x 16 positions, 98 % and more
    from 28 x 28 on, but 57 to 94 % on 9 x 9.
    """
    mean = moments.mean()
    scale = np.maximum(mean, 0) + bins.background
    root = np.where(scale > 0, np.sqrt(scale), np.inf)
    c = moments.covariance()
    c /= np.outer(root, root)
    values, vectors = eigh(c, overwrite_a=True, driver="evd")
    r = int(np.clip((values > EDGE * abs(values[0])).sum(), 1, min(MOST_COMPONENTS, len(values))))
    vectors = vectors[:, ::-1][:, :r]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(r)]
    vectors = vectors * np.sign(largest) / root[:, None]
    table = noise_table(vectors, bins)
    return Axes(mean.astype(np.float32), vectors.astype(np.float32), table.astype(np.float32), values[::-1])
