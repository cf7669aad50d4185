"""The first look at a scan: the noise of every pattern, and λ from how much neighbours differ."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from scipy.optimize import minimize_scalar

from fourdstem.methods.nonlocal_average import kernels
from fourdstem.methods.nonlocal_average.arrays import blocks, flat
from fourdstem.methods.nonlocal_average.source import Source
from fourdstem.methods.nonlocal_average.vectors import PARTNERS

COLUMNS = 16
LAMBDA_LIMITS = (0.05, 100.0)
GRID = 32
MOST = 4096  # positions that λ is taken from, spread evenly
HELD = 3  # scan rows: one that is filled, one that is compared, one that it is compared with


@dataclass(frozen=True)
class Survey:
    """What the eight neighbours of every position tell.

    Attributes
    ----------
    differences : ndarray of float32, shape (scan_y, scan_x, 8)
        Σ (Z_i - Z_j)² to the neighbours W, NW, N, NE, E, SE, S, SW; NaN beyond the scan.
    variance : ndarray of float64, shape (scan_y, scan_x)
        σ²: the least of them / 2n. Duplicates do not count, for they would make the noise vanish; NaN where no
        neighbour counts.
    n : int
        Pixels compared.
    """

    differences: np.ndarray
    variance: np.ndarray
    n: int

    def distances(self) -> np.ndarray:
        """Return d (positions, 8) of the positions that have a neighbour, both with a noise estimate; NaN for none."""
        variance = self.variance[..., None] + _neighbours(self.variance)
        distance = (self.differences - self.n * variance) / (variance * np.sqrt(2.0 * self.n))
        return distance[np.isfinite(distance).any(axis=-1)]


@numba.njit(nogil=True, cache=True)
def self_weights(distances, lambda_value, offset):
    """Return the weight (positions,) of a pattern itself among its neighbours; one beyond the scan is as the others."""
    out = np.empty(distances.shape[0])
    for i in range(distances.shape[0]):
        total, known = 0.0, 0
        for k in range(distances.shape[1]):
            if np.isfinite(distances[i, k]):
                total += np.exp(-max(distances[i, k] - offset, 0.0) / lambda_value**2)
                known += 1
        out[i] = 1 / (1 + distances.shape[1] * total / known)
    return out


def lambdas_for(distances: np.ndarray, targets, offset: float) -> np.ndarray:
    """Return for each target the λ at which self-weights deviate least, in the mean, from it; NaN without distances.

    Parameters
    ----------
    distances : ndarray of shape (positions, 8)
        From `Survey.distances`.
    targets : sequence of float
        Published: 0.34, and 0.5 and 0.25.
    offset : float
        d₀.

    Source: Brewick, Wright, Rowenhorst, doi 10.1016/j.ultramic.2019.02.013, and the authors' code.
    """
    if not len(distances):
        return np.full(len(targets), np.nan)
    distances = distances[:: max(len(distances) // MOST, 1)]

    def weights(logarithm):
        return self_weights(distances, np.exp(logarithm), offset)

    grid = np.linspace(*np.log(LAMBDA_LIMITS), GRID)
    on_grid = np.array([weights(value) for value in grid])
    found = []
    for target in targets:
        best = int(np.argmin(np.abs(on_grid - target).mean(axis=1)))
        around = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
        found.append(
            minimize_scalar(
                lambda value, target=target: float(np.abs(weights(value) - target).mean()),
                bounds=around,
                method="bounded",
                options={"xatol": 1e-5},
            ).x
        )
    return np.exp(found)


def look(source: Source) -> Survey:
    """Compare every pattern of a scan with its neighbours, reading it once."""
    cube, n = source.cube, source.n
    ny, nx = cube.scan_shape
    rows = blocks(HELD, max(nx, PARTNERS), n)  # five are compared at a time
    differences = np.full((ny, nx, 8), np.nan, np.float32)
    with ThreadPoolExecutor(cube.threads) as pool:
        filling, filled = [], []
        for unit, patterns in cube.map_stored(lambda patterns, _: patterns):
            room = flat(rows)[unit.y % HELD, unit.x0 : unit.x1]
            filling.append(pool.submit(source.compared, patterns, unit, room))
            if unit.x1 == nx:  # the row before is compared while this one is filled
                _differ(rows, differences, unit.y - 1, filled, pool)
                filling, filled = [], filling
        _differ(rows, differences, ny - 1, filled, pool)
    least = np.where(differences > kernels.DUPLICATE, differences, np.inf).min(axis=-1).astype(np.float64)
    return Survey(differences, np.where(np.isfinite(least), least, np.nan) / (2 * n), n)


def _differ(rows, differences, y: int, filled, pool) -> None:
    """Fill in what scan row y, once filled, differs by from its neighbours in it and in the row before, and they."""
    for future in filled:
        future.result()
    if y < 0:
        return
    nx = differences.shape[1]
    out = np.empty((nx, 4), np.float32)

    def work(x):
        kernels.near_differences(rows, y, x, min(x + COLUMNS, nx), out)

    list(pool.map(work, range(0, nx, COLUMNS)))
    differences[y, :, :4] = out
    differences[y, : nx - 1, 4] = out[1:, 0]  # E of one is W of the next
    if y:
        differences[y - 1, : nx - 1, 5] = out[1:, 1]
        differences[y - 1, :, 6] = out[:, 2]
        differences[y - 1, 1:, 7] = out[:-1, 3]


def _neighbours(values: np.ndarray) -> np.ndarray:
    """Return values (scan_y, scan_x, 8) of the neighbours in the order of `Survey.differences`."""
    ny, nx = values.shape
    framed = np.pad(values, 1, constant_values=np.nan)
    steps = ((0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1))
    return np.stack([framed[1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx] for dy, dx in steps], axis=-1)
