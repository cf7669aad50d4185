"""The window search as a stream: scan rows come in, averaged rows go out, a few rows are held."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from fourdstem.cube import UNIT, Cube
from fourdstem.errors import InputError
from fourdstem.methods.nonlocal_average import kernels
from fourdstem.methods.nonlocal_average.source import Source

ROWS = (4, 2, 1)  # scan rows worked on together, the most that memory allows: the cache is loaded fewer times
COLUMNS = 16  # of a tile; fixed, so that the answer depends neither on threads nor on memory


@dataclass
class Ring:
    """The scan rows that are held: row y lies at ``y % capacity``.

    Attributes
    ----------
    shape : tuple of int
        (scan_y, scan_x).
    half : int
        Half width of the window.
    n, pixels, rows : int
        Pixels compared; pixels accumulated; scan rows worked on together.
    roots, values, table : ndarray
        See `kernels`.
    variance : ndarray of float64, shape (scan_y, scan_x)
        σ²; the one array that grows with the scan, along with the maps.
    """

    shape: tuple[int, int]
    half: int
    n: int
    pixels: int
    rows: int
    roots: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)
    table: np.ndarray = field(init=False)
    variance: np.ndarray = field(init=False)

    def __post_init__(self):
        ny, nx = self.shape
        capacity = min(rows_held(self.half, self.rows), ny)
        width = kernels.window_width(self.half, ny) * kernels.window_width(self.half, nx)
        self.roots = np.empty((capacity, nx, self.n), np.float32)
        self.values = np.empty((capacity, nx, self.pixels), np.float32)
        self.table = np.zeros((capacity, nx, width))
        self.variance = np.full(self.shape, np.nan)


def rows_held(half: int, rows: int) -> int:
    """Scan rows in memory at once: what the windows of the oldest unfinished group and the newest group span."""
    return 2 * half + 2 * rows


def needed_mb(cube: Cube, params, n: int, rows: int) -> float:
    """Memory of the ring, of one group of rows in work, and of one unit on its way in.

    Parameters
    ----------
    cube : Cube
    params : Params
    n : int
        Pixels compared.
    rows : int
        Scan rows worked on together.
    """
    ny, nx, *detector = cube.shape
    pixels, half = int(np.prod(detector)), params.window_half_width_px
    window = kernels.window_width(half, ny) * kernels.window_width(half, nx)
    held = min(rows_held(half, rows), ny) * nx * (4 * n + 4 * pixels + 8 * window)
    work = min(rows, ny) * nx * (4 * pixels + 4 * window) + 2 * nx * 4 * pixels  # counts of one row being written
    unit = UNIT * (4 * n + 5 * 4 * pixels)  # as stored, padded, repaired, corrected; roots
    return (held + work + unit + 4 * 8 * ny * nx) / 2**20


def rows_together(cube: Cube, params, n: int) -> int:
    """Return how many scan rows to work on together; the answer is the same with any.

    Raises
    ------
    InputError
        If even one row at a time needs more than ``cube.memory_mb``.
    """
    for rows in ROWS:
        if needed_mb(cube, params, n, rows) <= cube.memory_mb:
            return rows
    _, nx, *detector = cube.shape
    need = int(np.ceil(needed_mb(cube, params, n, ROWS[-1])))
    raise InputError(
        f"needs {need} MB for rows of {nx} patterns of {detector[0]}x{detector[1]} px",
        where="nonlocal_average job, mem_mb",
        expected=f"at most {cube.memory_mb:g} MB",
        do=f"Run with --set-resources nonlocal_average:mem_mb={need}, or choose a smaller window_half_width_px, "
        "roi or bin.",
    )


def average_window(source: Source, params, out, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average every pattern over its search window.

    Parameters
    ----------
    source : Source
    params : Params
    out : array-like of shape (scan_y, scan_x, detector_y, detector_x)
    rows : int
        Scan rows worked on together, from `rows_together`.

    Returns
    -------
    tuple of ndarray of float32, shape (scan_y, scan_x)
        Effective number, self-weight and σ.
    """
    cube = source.cube
    ny, nx = cube.scan_shape
    n, pixels = len(source.pixels), int(np.prod(cube.detector_shape))
    ring = Ring((ny, nx), params.window_half_width_px, n, pixels, rows)
    spare = cube.memory_mb - needed_mb(cube, params, n, rows)
    incoming = replace(cube.recorded(), memory_mb=max(spare, 0.0))  # one unit at least, which is counted
    trust = np.empty((2, ny, nx), np.float32)
    arrived = finished = 0
    with ThreadPoolExecutor(cube.threads) as pool:
        for unit, (roots, values) in incoming.map_units(source.prepare):
            row = unit.y % len(ring.roots)
            ring.roots[row, unit.x0 : unit.x1], ring.values[row, unit.x0 : unit.x1] = (roots, values)
            if unit.x1 < nx or (unit.y + 1 < ny and (unit.y + 1) % rows):
                continue
            _compare(ring, arrived, unit.y + 1, pool)
            arrived = unit.y + 1
            while finished < ny and _last_needed(ring, finished) < arrived:
                stop = min(finished + rows, ny)
                trust[:, finished:stop] = _average(ring, source, params, (finished, stop), pool, out)
                finished = stop
    return trust[0], trust[1], np.sqrt(ring.variance).astype(np.float32)


def _last_needed(ring: Ring, y0: int) -> int:
    """Last scan row that the group of rows from y0 on needs: its windows, and one row for their noise."""
    ny = ring.shape[0]
    y = min(y0 + ring.rows, ny) - 1
    last = kernels.window_begin(y, ring.half, ny) + kernels.window_width(ring.half, ny) - 1
    return min(last + 1, ny - 1)


def _tiles(y0: int, y1: int, nx: int) -> list[tuple[int, int, int, int]]:
    return [(y0, y1, x, min(x + COLUMNS, nx)) for x in range(0, nx, COLUMNS)]


def _compare(ring: Ring, y0: int, y1: int, pool) -> None:
    """Compare rows y0 to y1 with each other and with those before, then estimate all noise that can be."""
    ny, nx = ring.shape
    ring.table[np.arange(y0, y1) % len(ring.table)] = 0

    def work(tile):
        kernels.pair_distances(ring.roots, tile, ring.half, ny, ring.table)

    list(pool.map(work, _tiles(y0, y1, nx)))
    for y in range(max(y0 - 1, 0), y1 if y1 == ny else y1 - 1):
        kernels.noise_variances(ring.table, y, ring.half, ny, ring.n, ring.variance[y])


def _average(ring: Ring, source: Source, params, rows: tuple[int, int], pool, out) -> np.ndarray:
    """Average rows y0 to y1, write them, and return effective number and self-weight (2, rows, scan_x)."""
    ny, nx = ring.shape
    y0, y1 = rows
    weights = np.empty((y1 - y0, nx, ring.table.shape[2]), np.float32)
    trust = np.empty((2, y1 - y0, nx), np.float32)
    scale = (float(params.lambda_value), float(params.distance_offset))
    for y in range(y0, y1):
        trust[:, y - y0] = kernels.row_weights(
            ring.table, ring.variance, y, ring.half, ny, ring.n, scale, weights[y - y0]
        )
    sums = np.empty((y1 - y0, nx, ring.pixels), np.float32)

    def work(tile):
        kernels.weighted_sums(ring.values, weights, tile, ring.half, ny, sums)

    list(pool.map(work, _tiles(y0, y1, nx)))
    for y in range(y0, y1):
        out[y, 0:nx] = source.from_average(sums[y - y0])
    return trust
