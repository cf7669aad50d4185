"""The window search as a stream: scan rows come in, averaged rows go out, a few rows are held."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from fourdstem.cube import UNIT, Cube
from fourdstem.errors import InputError
from fourdstem.methods.nonlocal_average import kernels, sums
from fourdstem.methods.nonlocal_average.arrays import PIECE, blocks, flat, in_pieces, joined, padded, pieces
from fourdstem.methods.nonlocal_average.axes import MOST_COMPONENTS, NEEDED_MB
from fourdstem.methods.nonlocal_average.projection import Projection, window_weights
from fourdstem.methods.nonlocal_average.source import Source
from fourdstem.methods.nonlocal_average.vectors import PARTNERS

ROWS = (4, 2, 1)  # scan rows worked on together, the most that memory allows: the cache is loaded fewer times
COLUMNS = 16  # of a tile that is compared; even and fixed: the answer depends neither on threads nor on memory
SHARE = 16  # pieces of patterns that are averaged in one go by a thread
STRIP = 256  # columns averaged in one pass over the scan; fixed, because it decides the order in which files are filled


@dataclass(frozen=True)
class Likeness:
    """How patterns are compared.

    Attributes
    ----------
    n : int
        Pixels compared; 0: the projection is compared instead.
    scale : tuple of float
        λ and d₀.
    variance : ndarray of float64, shape (scan_y, scan_x)
        σ² of the pixels compared.
    projection : Projection or None
    """

    n: int
    scale: tuple[float, float]
    variance: np.ndarray
    projection: Projection | None = None

    def weights(self, ring: "Ring", y: int, out) -> np.ndarray:
        """Fill ``out`` (columns, window) with the weights of scan row y, and return their trust (2, columns)."""
        if self.projection is not None:
            return window_weights(self.projection, y, *ring.core, ring.scan, self.scale, out)
        return kernels.row_weights(ring.table, self.variance, y, *ring.core, ring.scan, self.n, self.scale, out)


@dataclass
class Ring:
    """The scan rows that are held: row y lies at ``y % capacity``; columns x0 to x1, averaged from core to end.

    Attributes
    ----------
    shape : tuple of int
        (scan_y, scan_x).
    half, n, pixels, rows : int
        Half width of the window; numbers compared; pixels accumulated; scan rows worked on together.
    core : tuple of int
        First and last + 1 column that is averaged.
    x0, x1 : int
        Columns held: those and what their windows reach.
    roots, values, table : ndarray
        See `kernels` and `sums`.
    averages : list of ndarray
        Two, likewise: one is filled while the other is written.
    """

    shape: tuple[int, int]
    half: int
    n: int
    pixels: int
    rows: int
    core: tuple[int, int]
    x0: int = field(init=False)
    x1: int = field(init=False)
    roots: np.ndarray = field(init=False)
    values: np.ndarray = field(init=False)
    table: np.ndarray = field(init=False)
    averages: list[np.ndarray] = field(init=False)

    def __post_init__(self):
        ny, nx = self.shape
        self.x0, self.x1 = held_columns(self.core, self.half, nx)
        held = (min(rows_held(self.half, self.rows), ny), self.x1 - self.x0)
        width = kernels.window_width(self.half, ny) * kernels.window_width(self.half, nx)
        self.roots = blocks(held[0], max(held[1], PARTNERS), self.n)  # five are compared at a time
        self.values = pieces(*held, self.pixels)
        self.table = np.zeros((*held, width))
        self.averages = [joined(min(self.rows, ny), self.core[1] - self.core[0], self.pixels) for _ in range(2)]

    @property
    def scan(self) -> tuple[int, int, int, int]:
        """What `kernels` want to know of where the ring lies."""
        return (self.half, *self.shape, self.x0)

    def put(self, unit, patterns, corrected, source: Source) -> None:
        """Store the patterns of a unit, given as they are stored and corrected."""
        row, x0 = unit.y % len(self.roots), unit.x0 - self.x0
        if self.n:
            source.compared(patterns, unit, flat(self.roots)[row, x0 : x0 + unit.count])
        sums.put(corrected.reshape(unit.count, -1), source.root, source.offset, row, x0, self.values)


def strips(nx: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) of the columns that are averaged in one pass."""
    return [(x, min(x + STRIP, nx)) for x in range(0, nx, STRIP)]


def held_columns(core: tuple[int, int], half: int, nx: int) -> tuple[int, int]:
    """Return the columns that the windows of a strip reach; those at the edges of the scan reach 2 half widths."""
    return max(core[0] - 2 * half, 0), min(core[1] + 2 * half, nx)


def rows_held(half: int, rows: int) -> int:
    """Scan rows in memory at once: what the windows of the oldest unfinished group and the newest group span."""
    return 2 * half + 2 * rows


def needed_mb(cube: Cube, params, n: int, rows: int) -> float:
    """Memory of the ring, of one group of rows in work, and of one unit on its way in; or of the projection, before.

    Parameters
    ----------
    cube : Cube
    params : Params
    n : int
        Numbers compared per pattern; 0: their projection is compared.
    rows : int
        Scan rows worked on together.
    """
    ny, nx, *detector = cube.shape
    pixels, half = int(np.prod(detector)), params.window_half_width_px
    window = kernels.window_width(half, ny) * kernels.window_width(half, nx)
    x0, x1 = held_columns((0, min(STRIP, nx)), half, nx)
    if nx > 2 * STRIP:
        x1 += 2 * half  # a strip inside the scan reaches to both sides
    row = 4 * in_pieces(x1 - x0, pixels) + (x1 - x0) * (4 * padded(n) + 8 * window)
    held = min(rows_held(half, rows), ny) * row
    # Sums and weights, twice: filled and being written; members of one row, and of pairs of neighbours.
    work = min(rows, ny) * min(STRIP, nx) * (2 * 4 * in_pieces(1, pixels) + 24 * window)
    # As stored, padded, repaired twice, corrected; two more, as stored and corrected, until they are put away.
    unit = UNIT * (6 + 2 * 2) * 4 * pixels
    maps = (8 * 8 if n else 8 * 8 + 4 * 4 * MOST_COMPONENTS) * ny * nx
    return max((held + work + unit + maps) / 2**20, 0 if n else NEEDED_MB)


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
        f"needs {need} MB for rows of {min(nx, STRIP)} patterns of {detector[0]}x{detector[1]} px",
        where="nonlocal_average job, mem_mb",
        expected=f"at most {cube.memory_mb:g} MB",
        do=f"Run with --set-resources nonlocal_average:mem_mb={need}, or choose a smaller window_half_width_px, "
        "roi or bin.",
    )


def average_window(source: Source, likeness: Likeness, params, out, rows: int) -> np.ndarray:
    """Average every pattern over its search window.

    Parameters
    ----------
    source : Source
    likeness : Likeness
    params : Params
    out : Output
    rows : int
        Scan rows worked on together, from `rows_together`.

    Returns
    -------
    ndarray of float32, shape (2, scan_y, scan_x)
        Effective number and self-weight.
    """
    cube = source.cube
    trust = np.empty((2, *cube.scan_shape), np.float32)
    spare = cube.memory_mb - needed_mb(cube, params, likeness.n, rows)
    incoming = replace(cube, memory_mb=max(spare, 0.0))  # one unit at least, which is counted
    with ThreadPoolExecutor(cube.threads) as pool, Writer(source, out) as writer:
        for core in strips(cube.scan_shape[1]):
            pixels = int(np.prod(cube.detector_shape))
            ring = Ring(cube.scan_shape, params.window_half_width_px, likeness.n, pixels, rows, core)
            _average_strip(ring, source, likeness, incoming, pool, writer, trust)
        writer.wait()
    return trust


def _average_strip(ring: Ring, source: Source, likeness: Likeness, incoming: Cube, pool, writer, trust) -> None:
    ny, rows = ring.shape[0], ring.rows
    arrived = finished = 0

    def prepare(patterns, unit):
        return patterns, source.corrected(patterns, unit)

    put_mb = UNIT * 2 * 4 * ring.pixels / 2**20
    most = int(np.clip(incoming.memory_mb / 4 / put_mb, 2, max(incoming.threads, 2)))
    filling = deque()
    for unit, found in incoming.map_stored(prepare, (ring.x0, ring.x1)):
        filling.append(pool.submit(ring.put, unit, *found, source))
        complete = unit.x1 == ring.x1 and (unit.y + 1 == ny or (unit.y + 1) % rows == 0)
        while len(filling) >= (1 if complete else most):
            filling.popleft().result()
        if not complete:
            continue
        if likeness.n:
            _compare(ring, arrived, unit.y + 1, pool)
        arrived = unit.y + 1
        while finished < ny and _last_needed(ring, finished) < arrived:
            stop = min(finished + rows, ny)
            _average(ring, source, likeness, (finished, stop), pool, writer, trust)
            finished = stop


def _last_needed(ring: Ring, y0: int) -> int:
    """Last scan row that the windows of the group of rows from y0 on need."""
    ny = ring.shape[0]
    y = min(y0 + ring.rows, ny) - 1
    return kernels.window_begin(y, ring.half, ny) + kernels.window_width(ring.half, ny) - 1


def _tiles(y0: int, y1: int, x0: int, x1: int) -> list[tuple[int, int, int, int]]:
    return [(y0, y1, x, min(x + COLUMNS, x1)) for x in range(x0, x1, COLUMNS)]


def _compare(ring: Ring, y0: int, y1: int, pool) -> None:
    """Compare rows y0 to y1 with each other and with those before."""
    ring.table[np.arange(y0, y1) % len(ring.table)] = 0
    tiles = _tiles(y0, y1, ring.x0, ring.x1)
    list(pool.map(lambda tile: kernels.pair_distances(ring.roots, tile, ring.scan, ring.table), tiles))


def _average(ring: Ring, source: Source, likeness: Likeness, rows: tuple[int, int], pool, writer, trust) -> None:
    """Average rows y0 to y1 of the strip, store their trust and have them written."""
    (y0, y1), (x0, x1) = rows, ring.core
    weights = np.empty((y1 - y0, x1 - x0, ring.table.shape[2]), np.float32)

    def weigh(y):
        trust[:, y, x0:x1] = likeness.weights(ring, y, weights[y - y0])

    list(pool.map(weigh, range(y0, y1)))
    _, rows_stored, columns_stored, _ = ring.values.shape
    entries = sums.entries(weights, y0, x0, ring.scan, rows_stored, columns_stored)
    meant = np.zeros((len(ring.values), PIECE), np.uint8)
    meant.reshape(-1)[: ring.pixels] = np.asarray(source.cube.valid).reshape(-1) != 0
    averages = ring.averages[y0 // ring.rows % 2]

    def work(first):
        share = first, min(first + SHARE, len(ring.values))
        sums.weighted_sums(ring.values, *entries, share, source.root, source.offset, meant, averages)

    list(pool.map(work, range(0, len(ring.values), SHARE)))
    writer.write(ring, y0, averages, weights)


class Writer:
    """Writes averaged rows in their order, one group while the next is averaged."""

    def __init__(self, source: Source, out):
        self.detector, self.out = source.cube.detector_shape, out
        self.pool, self.writing = ThreadPoolExecutor(1), None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.pool.shutdown()

    def write(self, ring: Ring, y0: int, averages, weights) -> None:
        """Write rows from y0 on, once those before are written."""
        self.wait()
        self.writing = self.pool.submit(self._write, ring, y0, averages, weights)

    def wait(self) -> None:
        """Wait until everything is written; raise what writing raised."""
        if self.writing is not None:
            self.writing.result()

    def _write(self, ring: Ring, y0: int, averages, weights) -> None:
        patterns = flat(averages)[..., : ring.pixels].reshape(*averages.shape[:2], *self.detector)
        for n in range(len(weights)):
            self.out.write(y0 + n, *ring.core, patterns[n], members_of(ring, y0 + n), weights[n])


def members_of(ring: Ring, y: int) -> np.ndarray:
    """Return int32 (columns, window): index ``y * scan_x + x`` of what the windows of a row of the strip hold."""
    half, ny, nx, _ = ring.scan
    width_y, width_x = kernels.window_width(half, ny), kernels.window_width(half, nx)
    rows = kernels.window_begin(y, half, ny) + np.arange(width_y)
    begin = np.array([kernels.window_begin(x, half, nx) for x in range(*ring.core)])
    columns = begin[:, None] + np.arange(width_x)
    return (rows[:, None] * nx + columns[:, None, :]).reshape(len(begin), -1).astype(np.int32)
