"""What non-local averaging is compared with: averages over positions, its own other settings, noise-free patterns."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from fourdstem.cube import Cube, Unit
from fourdstem.files import disk_full

NOISE_FREE = "noise_free"
NONLOCAL = {  # settings of non-local averaging that differ from its defaults
    "window_pattern": {"search": "window", "distance": "pattern"},
    "window_projection": {"search": "window", "distance": "projection"},
    "global_pattern": {"search": "global", "distance": "pattern"},
    "global_projection": {"search": "global", "distance": "projection"},
    "window_sqrt": {"search": "window", "distance": "pattern", "average_in": "sqrt"},
}


def _box(half_width_px: int) -> tuple[float, ...]:
    return (1.0,) * (2 * half_width_px + 1)


def _gaussian(sigma_px: float) -> tuple[float, ...]:
    reach = int(4 * sigma_px + 0.5)  # beyond lies less than 1e-4
    return tuple(np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_px) ** 2))


OVER_POSITIONS = {  # weights of positions along each scan axis; the middle one is the position itself
    "box_3x3": _box(1),
    "box_5x5": _box(2),
    "box_9x9": _box(4),
    "gaussian_1": _gaussian(1.0),
    "gaussian_2": _gaussian(2.0),
}


@dataclass(frozen=True)
class PositionAverage:
    """Patterns averaged over nearby positions, by weights along each scan axis; ``data`` of a `Cube`.

    The rival of non-local averaging that asks nothing of the patterns. At the edges of the scan the weights of the
    positions that are there are normalised. Reads from several threads at once are not supported; `Cube.map_units`
    makes none.

    Attributes
    ----------
    cube : Cube
        Corrected patterns.
    weights : tuple of float
        Of 2 h + 1 positions; the weight of a position is the product along both axes.
    rows : dict
        Corrected rows that will be asked for again, as far as a quarter of the cube's memory reaches.
    """

    cube: Cube
    weights: tuple[float, ...]
    rows: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(scan_y, scan_x, detector_y, detector_x)."""
        return self.cube.shape

    def __getitem__(self, where) -> np.ndarray:
        """Return the float32 patterns (n, detector_y, detector_x) at ``[y, x0:x1]``."""
        y, xs = where
        x0, x1, _ = xs.indices(self.shape[1])
        h, weights = len(self.weights) // 2, np.array(self.weights)
        left, right = max(x0 - h, 0), min(x1 + h, self.shape[1])
        near = range(max(y - h, 0), min(y + h + 1, self.shape[0]))
        along_y = weights[near.start - y + h : near.stop - y + h]
        column = np.zeros((right - left, *self.shape[2:]))
        for row, weight in zip(near, along_y, strict=True):
            column += weight * self._row(row, left, right, near)
        out = np.empty((x1 - x0, *self.shape[2:]), np.float32)
        for i, x in enumerate(range(x0, x1)):
            low, high = max(x - h, 0), min(x + h + 1, self.shape[1])
            along_x = weights[low - x + h : high - x + h]
            total = np.tensordot(along_x, column[low - left : high - left], axes=1)
            out[i] = total / (along_y.sum() * along_x.sum())
        return out

    def _row(self, y: int, x0: int, x1: int, near: range) -> np.ndarray:
        row_mb = float(np.prod(self.shape[1:])) * 4 / 2**20
        if row_mb * len(self.weights) > self.cube.memory_mb / 4:
            return self.cube.read(Unit(y, x0, x1))
        for old in [row for row in self.rows if row not in near]:
            del self.rows[old]
        if y not in self.rows:
            self.rows[y] = self.cube.read(Unit(y, 0, self.shape[1]))
        return self.rows[y][x0:x1]


def average_over_positions(cube: Cube, name: str) -> Cube:
    """Return a cube whose patterns are averages of a corrected cube; ``name`` is one of `OVER_POSITIONS`."""
    return stored(cube, PositionAverage(cube, OVER_POSITIONS[name]))


def stored(cube: Cube, patterns) -> Cube:
    """Return a cube of patterns that need no correction and are otherwise like a corrected cube.

    Parameters
    ----------
    cube : Cube
    patterns : array-like of shape (scan_y, scan_x, detector_y, detector_x)
    """
    return replace(cube, data=patterns, correction=None, valid=cube.valid)


def noise_free(cube: Cube, expected, folder) -> Cube:
    """Return a cube of noise-free patterns that is otherwise like a corrected cube.

    Parameters
    ----------
    cube : Cube
    expected : array-like of shape (scan_y, scan_x, detector_y, detector_x)
        From ``simulate.expected``; what is slow to compute is read once and kept in a file.
    folder : path-like
        Takes the file.
    """
    patterns = _room(folder, NOISE_FREE, cube.shape)

    def keep(unit: Unit) -> None:
        patterns[unit.where] = expected[unit.where]

    with ThreadPoolExecutor(cube.threads) as pool:
        list(pool.map(keep, cube.units()))
    return stored(cube, patterns)


def room_for_average(folder, shape, most: int) -> dict[str, np.ndarray]:
    """Return what a non-local average writes to, by the names of its ``Output``.

    Parameters
    ----------
    folder : path-like
        Takes the patterns; an earlier average there is overwritten.
    shape : tuple of int
        (scan_y, scan_x, detector_y, detector_x).
    most : int
        Patterns at most that an average is made of.
    """
    table = (*shape[:2], most)
    member, weight = np.full(table, -1, np.int32), np.zeros(table, np.float32)
    return {"patterns": _room(folder, "average", shape), "member": member, "weight": weight}


def _room(folder, name: str, shape) -> np.ndarray:
    """Map a new file that is filled with zeros first: where a mapped page finds no room the system kills the job."""
    path = Path(folder) / name
    row = bytes(4 * int(np.prod(shape[1:])))
    try:
        with path.open("wb") as file:
            for _ in range(shape[0]):
                file.write(row)
    except OSError as error:
        raise disk_full(error, path) or error from None
    return np.memmap(path, np.float32, "r+", shape=tuple(shape))
