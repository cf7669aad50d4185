"""Passes over the recorded counts: sums of patterns by weights of positions, and sums of pixels by weights of pixels.

The unit of work is a fixed stretch of strips of scan rows, computed in one thread: what is in flight depends on
memory and threads, the result does not. Counts stay as recorded but for the smooth descan surface; where that moves by
less than `STILL_PX` nothing is interpolated at all.
"""

import mmap
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation

from fourdstem.cube import UNIT, Cube, Unit
from fourdstem.methods.template_mask import kernels

STRIP = 8 * UNIT  # positions of a strip at most
ROOM = 2**22  # numbers of a strip; fewer positions where detectors are large
STRETCH = 8  # strips whose sums are added by one thread
AHEAD = 2  # strips that are asked for beforehand
NEAR = 2**18  # numbers that are looked at while they are in the cache
CHUNK = 1024  # numbers of a row by which products are made: these of all rows of a strip fit in the cache
FEW = 16  # columns up to which no library is asked for a product
STILL_PX = 0.1


@dataclass(frozen=True)
class Source:
    """Recorded counts on their way to float32 rows, one per position.

    Attributes
    ----------
    cube : Cube
        Its correction carries the descan surface, the bad pixels and the offset; nothing else of it is applied.
    shift_px : ndarray of shape (scan_y, scan_x, 2), or None
        By how much the beam is off ``centre_px`` at each position; None where that is nothing.
    centre_px : ndarray of shape (2,)
        Beam in every pattern that is handed out, (y, x).
    usable : ndarray of bool, shape (detector_y, detector_x)
        Pixels that every position has; the others are 0.
    bin_px : int
        Pixels summed along each axis.
    half : int
        0: all counts; 1, 2: the halves of a binomial splitting.
    seed : int
        Of the splitting.
    """

    cube: Cube
    shift_px: np.ndarray | None
    centre_px: np.ndarray
    usable: np.ndarray
    bin_px: int = 1
    half: int = 0
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels (y, x) after binning; what is left over at the far edges is not used."""
        return tuple(n // self.bin_px for n in self.cube.detector_shape)

    @property
    def pixels(self) -> int:
        """Pixels after binning."""
        return self.shape[0] * self.shape[1]

    @property
    def width(self) -> int:
        """Numbers per row."""
        return self.pixels

    def fill(self, stored: np.ndarray, unit: Unit, out: np.ndarray) -> None:
        """Write stored patterns (n, detector_y, detector_x) into float32 rows (n, pixels)."""
        if self.half:
            stored = kernels.split(np.ascontiguousarray(stored), unit.y, unit.x0, self.seed, self.half)
        offset = np.float32(self.cube.correction.offset_counts)
        if self.shift_px is not None:
            shift = np.ascontiguousarray(self.shift_px[unit.where], np.float64)
            kernels.moved(_native(stored), shift, self.usable, offset, self.bin_px, self.shape, out)
        elif self.bin_px > 1:
            kernels.binned(_native(stored), self.usable, offset, self.bin_px, self.shape, out)
        else:
            kernels.plain(_native(stored).reshape(len(stored), -1), self.usable.reshape(-1), offset, out)


@dataclass(frozen=True)
class Paired:
    """Rows in which pixels that lie opposite each other about the beam are added, and subtracted.

    Weights that are equal at opposite pixels need only the sums, those of opposite sign only the differences: half of
    the products, and no other result.

    Attributes
    ----------
    source : Source
    low, total : int
        Pixel ``low + j`` lies opposite ``total - low - j``.
    kept : ndarray of bool, shape (pair,)
        Whether these two form a pair.
    lone : ndarray of int, shape (lone,)
        Pixels without a partner.
    """

    source: Source
    low: int
    total: int
    kept: np.ndarray
    lone: np.ndarray

    @property
    def cube(self) -> Cube:
        """Of the source."""
        return self.source.cube

    @property
    def width(self) -> int:
        """Numbers per row: sums of pairs, lone pixels, differences of pairs."""
        return 2 * len(self.kept) + len(self.lone)

    @property
    def evens(self) -> int:
        """How many numbers of a row come before the differences."""
        return len(self.kept) + len(self.lone)

    def fill(self, stored: np.ndarray, unit: Unit, out: np.ndarray) -> None:
        """Write stored patterns into rows (n, width)."""
        known, offset = self.source, np.float32(0)
        usable = known.usable.reshape(-1)
        if known.half or known.shift_px is not None or known.bin_px > 1:
            rows, usable = np.empty((len(stored), known.pixels), np.float32), np.ones(known.pixels, bool)
            known.fill(stored, unit, rows)
        else:
            rows, offset = _native(stored).reshape(len(stored), -1), np.float32(known.cube.correction.offset_counts)
        kernels.paired(rows, usable, offset, self.low, self.total, self.kept, self.lone, out)

    def folded(self, values: np.ndarray) -> np.ndarray:
        """Return values (n, pixel) as this makes them of patterns, (n, width)."""
        one = self._of_pairs(values, self.low + np.arange(len(self.kept)))
        other = self._of_pairs(values, self.total - self.low - np.arange(len(self.kept)))
        return np.concatenate([one + other, values[:, self.lone], one - other], axis=1)

    def once(self, values: np.ndarray) -> np.ndarray:
        """Return values (n, pixel) of the first of each pair, and of lone pixels, (n, evens)."""
        one = self._of_pairs(values, self.low + np.arange(len(self.kept)))
        return np.concatenate([one, values[:, self.lone]], axis=1)

    def _of_pairs(self, values, index) -> np.ndarray:
        return np.where(self.kept, values[:, index], 0.0)


def pair(source: Source, partner: np.ndarray) -> Paired | None:
    """Return the rows of pairs of pixels, None where no pixel has a partner (pixel,)."""
    pixel = np.arange(len(partner))
    of_pairs = pixel < partner
    if not of_pairs.any():
        return None
    total, low = int((pixel + partner)[of_pairs][0]), int(pixel[of_pairs][0])
    if ((pixel + partner)[partner != pixel] != total).any():
        raise ValueError("pixels that lie opposite each other about more than one point")
    return Paired(source, low, total, of_pairs[low : (total + 1) // 2].copy(), np.flatnonzero(partner == pixel))


class Images:
    """Sums of pixels by weights, position by position.

    Parameters
    ----------
    source : Source or Paired
    parts : list of (int, ndarray of shape (column, number))
        Weights of the numbers of a row from an index on.
    more : callable, optional
        ``more(rows, unit)`` returns float64 (n, many) of the positions of a unit.
    many : int
    """

    def __init__(self, source, parts, more=None, many: int = 0):
        self.source, self.more = source, more
        self.parts, done = [], 0
        for first, weights in parts:
            columns = slice(done, done + len(weights))
            used = kernels.spans(weights) if len(weights) <= FEW else None
            turned = weights.T if used is None else weights
            self.parts.append((first, np.ascontiguousarray(turned, np.float32), used, columns))
            done += len(weights)
        self.made = np.empty((done, *source.cube.scan_shape))
        self.others = np.empty((many, *source.cube.scan_shape)) if more is not None else None

    @property
    def state_bytes(self) -> int:
        """Every position has its own place in the result."""
        return 0

    def begin(self) -> None:
        """Nothing is summed over positions."""

    def near(self, state, rows, unit: Unit) -> None:
        """Take rows that were just made."""
        if self.more is not None:
            self.others[(slice(None), *unit.where)] = self.more(rows, unit).T
        for first, weights, used, columns in self.parts:
            if used is not None:
                made = np.zeros((len(rows), len(weights)))
                self.made[(columns, *unit.where)] = kernels.narrow(rows, first, weights, used, made).T

    def far(self, state, rows, strip: Unit) -> None:
        """Take a strip."""
        for first, weights, used, columns in self.parts:
            if used is None:
                made = np.zeros((len(rows), weights.shape[1]))
                for a in range(0, len(weights), CHUNK):
                    part = weights[a : a + CHUNK]
                    made += rows[:, first + a : first + a + len(part)] @ part
                self.made[(columns, *strip.where)] = made.T

    def end(self, state) -> None:
        """Nothing is left to do."""


class Moments:
    """Sums of patterns by weights of positions (column, scan_y, scan_x), and of squares by groups of positions."""

    def __init__(self, source: Source, design: np.ndarray, group: np.ndarray):
        self.source, self.design, self.group = source, np.asarray(design, np.float32), np.asarray(group, np.uint8)
        self.sums, self.squares = (np.zeros((len(a), source.width)) for a in (design, group))

    @property
    def state_bytes(self) -> int:
        """Of the sums of one stretch."""
        return self.sums.nbytes + self.squares.nbytes

    def begin(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sums of one stretch."""
        return np.zeros_like(self.sums), np.zeros_like(self.squares)

    def near(self, state, rows, unit: Unit) -> None:
        """Take rows that were just made."""
        kernels.squares_of(rows, np.ascontiguousarray(self.group[(slice(None), *unit.where)].T), state[1])

    def far(self, state, rows, strip: Unit) -> None:
        """Take a strip; over its positions sums are float32."""
        weights = self.design[(slice(None), *strip.where)]
        for a in range(0, rows.shape[1], CHUNK):
            kernels.add(state[0], a, weights @ rows[:, a : a + CHUNK])

    def end(self, state) -> None:
        """Add a stretch, in scan order."""
        self.sums += state[0]
        self.squares += state[1]


def run(*jobs) -> None:
    """Read the scan once for several jobs, by several threads.

    A thread takes a stretch of strips. Rows of a unit are looked at while they are in the cache, products are made of
    a whole strip. Jobs of the same source share its rows.
    """
    cube = jobs[0].source.cube
    sources = list({id(job.source): job.source for job in jobs}.values())
    numbers = sum(s.width for s in sources)
    pixels = int(np.prod(cube.detector_shape))
    strips = _strips(cube.scan_shape, int(np.clip(ROOM / max(numbers, pixels) // UNIT * UNIT, UNIT, STRIP)))
    length = max(s.count for s in strips)
    each = length * (4 * numbers + cube.data.dtype.itemsize * pixels) + 2 * sum(job.state_bytes for job in jobs)
    workers = int(np.clip(cube.memory_mb / 2 * 2**20 / each, 1, cube.threads))
    rooms = threading.local()

    def work(stretch):
        if not hasattr(rooms, "rows"):
            rooms.rows = [np.empty((length, s.width), np.float32) for s in sources]
        return _stretch(cube.data, stretch, jobs, sources, rooms.rows)

    with ThreadPoolExecutor(workers) as pool:
        waiting = deque()
        for i in range(0, len(strips), STRETCH):
            _will_need(cube.data, strips[i : i + AHEAD])
            waiting.append(pool.submit(work, strips[i : i + STRETCH]))
            if len(waiting) > workers:
                _end(jobs, waiting.popleft().result())
        for future in waiting:
            _end(jobs, future.result())


def _stretch(data, stretch: list[Unit], jobs, sources, rooms) -> list:
    """Work on consecutive strips in one thread, with room for the rows of one strip per source."""
    states = [job.begin() for job in jobs]
    of = [next(i for i, s in enumerate(sources) if s is job.source) for job in jobs]
    for i, strip in enumerate(stretch):
        stored = data[strip.where]
        _will_need(data, stretch[i + AHEAD : i + AHEAD + 1])
        for unit in _units(strip, int(np.clip(NEAR // max(s.width for s in sources), 8, STRIP))):
            part = slice(unit.x0 - strip.x0, unit.x1 - strip.x0)
            for source, rows in zip(sources, rooms, strict=True):
                source.fill(stored[part], unit, rows[part])
            for job, state, own in zip(jobs, states, of, strict=True):
                job.near(state, rooms[own][part], unit)
        for job, state, own in zip(jobs, states, of, strict=True):
            job.far(state, rooms[own][: strip.count], strip)
    return states


def _end(jobs, states) -> None:
    for job, state in zip(jobs, states, strict=True):
        job.end(state)


def _strips(scan_shape, length: int) -> list[Unit]:
    """Return all strips in scan order; they depend on the detector and on nothing else."""
    ny, nx = scan_shape
    return [Unit(y, x, min(x + length, nx)) for y in range(ny) for x in range(0, nx, length)]


def _units(strip: Unit, length: int) -> list[Unit]:
    return [Unit(strip.y, x, min(x + length, strip.x1)) for x in range(strip.x0, strip.x1, length)]


def _native(stored: np.ndarray) -> np.ndarray:
    """Return patterns in the machine's order of bytes, read-only: code is compiled once for files and arrays."""
    stored = np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("="), copy=False)).view()
    stored.flags.writeable = False
    return stored


def _will_need(data, strips: list[Unit]) -> None:
    """Ask the system to read strips of a mapped file while others are worked on."""
    if not isinstance(data, np.memmap) or not hasattr(mmap, "MADV_WILLNEED"):
        return
    start = np.frombuffer(data._mmap, np.uint8).ctypes.data
    for strip in strips:
        piece = data[strip.where]
        first = (piece.ctypes.data - start) // mmap.PAGESIZE * mmap.PAGESIZE
        data._mmap.madvise(mmap.MADV_WILLNEED, first, piece.ctypes.data - start + piece.nbytes - first)


def open_source(cube: Cube, bin_px: int = 1) -> Source:
    """Return the counts of a cube whose correction holds the descan surface as ``centre_px``."""
    surface = np.asarray(cube.correction.centre_px, float)
    centre = np.nanmean(surface.reshape(-1, 2), axis=0)
    shift = surface - centre
    usable = ~cube.correction.bad & (np.asarray(cube.valid) > 0)
    if np.abs(shift).max() < STILL_PX:
        return Source(cube, None, centre, usable, bin_px)
    reach = int(np.ceil(np.abs(shift).max()))
    missing = binary_dilation(~usable, np.ones((2 * reach + 1,) * 2)) if not usable.all() else ~usable
    missing[:reach], missing[-reach:], missing[:, :reach], missing[:, -reach:] = True, True, True, True
    return Source(cube, shift, centre, ~missing, bin_px)


def moments(source: Source, design: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum patterns by weights of positions, and squares of counts by groups of positions.

    Parameters
    ----------
    source : Source
    design : ndarray of shape (column, scan_y, scan_x)
        Weights.
    group : ndarray of bool, shape (group, scan_y, scan_x)

    Returns
    -------
    sums : ndarray of shape (column, pixel)
        ``Σ_r design(r) X(r)``.
    squares : ndarray of shape (group, pixel)
        ``Σ_r group(r) X(r)²``.
    """
    job = Moments(source, design, group)
    run(job)
    return job.sums, job.squares


def images(source: Source, weights: np.ndarray) -> np.ndarray:
    """Return sums of pixels by weights (column, pixel), position by position: (column, scan_y, scan_x)."""
    job = Images(source, [(0, weights)])
    run(job)
    return job.made
