"""Passes over the recorded counts: sums of patterns by weights of positions, and sums of pixels by weights of pixels.

The unit of work is a fixed strip of a scan row, computed in one thread: what is in flight depends on memory and
threads, the result does not. Counts stay as recorded but for the smooth descan surface; where that moves by less
than `STILL_PX` nothing is interpolated at all.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from scipy.ndimage import binary_dilation

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.cube import UNIT, Cube, Unit

STRIP = 8 * UNIT
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

    def rows(self, stored: np.ndarray, unit: Unit) -> np.ndarray:
        """Return float32 (n, pixels) of stored patterns (n, detector_y, detector_x)."""
        if self.half:
            stored = split(np.ascontiguousarray(stored), unit.y, unit.x0, self.seed, self.half)
        offset = np.float32(self.cube.correction.offset_counts)
        if self.shift_px is not None:
            shift = np.ascontiguousarray(self.shift_px[unit.where], np.float64)
            out = np.empty((len(stored), self.pixels), np.float32)
            return moved(np.ascontiguousarray(stored), shift, self.usable, offset, self.bin_px, self.shape, out)
        if self.bin_px > 1 or stored.dtype.byteorder not in "=|":
            out = np.empty((len(stored), self.pixels), np.float32)
            return binned(_native(stored), self.usable, offset, self.bin_px, self.shape, out)
        out = stored.reshape(len(stored), -1).astype(np.float32)
        if offset:
            out -= offset
        if not self.usable.all():
            out[:, ~self.usable.reshape(-1)] = 0
        return out

    def strips(self) -> list[Unit]:
        """Return all strips in scan order."""
        ny, nx = self.cube.scan_shape
        return [Unit(y, x, min(x + STRIP, nx)) for y in range(ny) for x in range(0, nx, STRIP)]

    def run(self, work):
        """Yield ``(strip, work(rows, strip))`` in scan order, computed by several threads."""
        cube = self.cube
        strip_mb = STRIP * np.prod(cube.detector_shape) * 12 / 2**20
        ahead = int(np.clip(cube.memory_mb / 2 / strip_mb, 1, 2 * cube.threads))
        with ThreadPoolExecutor(min(cube.threads, ahead)) as pool:
            waiting = deque()
            for strip in self.strips():
                stored = cube.data[strip.where]
                waiting.append((strip, pool.submit(lambda s, u: work(self.rows(s, u), u), stored, strip)))
                if len(waiting) >= ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()


def _native(stored: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(stored.astype(stored.dtype.newbyteorder("="), copy=False))


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
    design : ndarray of shape (scan_y, scan_x, column)
        Weights; a sum over 32 positions is taken in float32, everything beyond in float64.
    group : ndarray of bool, shape (scan_y, scan_x, group)

    Returns
    -------
    sums : ndarray of shape (column, pixel)
        ``Σ_r design(r) X(r)``.
    squares : ndarray of shape (group, pixel)
        ``Σ_r group(r) X(r)²``.
    """
    design = np.asarray(design, np.float32)
    group = np.ascontiguousarray(group, np.uint8)

    def work(rows, strip):
        weights = design[strip.where]
        total = np.zeros((design.shape[2], source.pixels))
        for i in range(0, len(rows), UNIT):
            part = np.zeros((UNIT, source.pixels), np.float32) if len(rows) - i < UNIT else rows[i : i + UNIT]
            weight = np.zeros((UNIT, design.shape[2]), np.float32)
            count = min(UNIT, len(rows) - i)
            part[:count], weight[:count] = rows[i : i + count], weights[i : i + count]
            total += weight.T @ part
        return total, squares_of(rows, group[strip.where], np.zeros((group.shape[2], source.pixels)))

    sums, squares = np.zeros((design.shape[2], source.pixels)), np.zeros((group.shape[2], source.pixels))
    for _, (total, square) in source.run(work):
        sums += total
        squares += square
    return sums, squares


def images(source: Source, weights: np.ndarray, more=None) -> tuple[np.ndarray, np.ndarray | None]:
    """Sum pixels by weights, position by position.

    Parameters
    ----------
    source : Source
    weights : ndarray of shape (pixel, column)
    more : callable, optional
        ``more(rows, strip)`` returns float64 (n, m) of a strip's positions, handed back as the second result.

    Returns
    -------
    images : ndarray of shape (column, scan_y, scan_x)
    others : ndarray of shape (m, scan_y, scan_x), or None
    """
    weights = np.ascontiguousarray(weights, np.float32)
    out = np.empty((weights.shape[1], *source.cube.scan_shape))
    others = None

    def work(rows, strip):
        made = np.empty((len(rows), weights.shape[1]))
        for i in range(0, len(rows), UNIT):
            count = min(UNIT, len(rows) - i)
            part = rows[i : i + UNIT]
            if count < UNIT:  # a product of one shape has one order of summation
                part = np.zeros((UNIT, source.pixels), np.float32)
                part[:count] = rows[i:]
            made[i : i + count] = (part @ weights)[:count]
        return made, None if more is None else more(rows, strip)

    for strip, (made, extra) in source.run(work):
        out[(slice(None), *strip.where)] = made.T
        if extra is not None:
            others = np.empty((extra.shape[1], *source.cube.scan_shape)) if others is None else others
            others[(slice(None), *strip.where)] = extra.T
    return out, others


@numba.njit(nogil=True, cache=True)
def squares_of(rows, group, out):
    """Add the squares of float32 rows (n, pixel) to ``out`` (group, pixel) where ``group`` (n, group) is not 0."""
    for i in range(rows.shape[0]):
        for j in range(group.shape[1]):
            if group[i, j]:
                for k in range(rows.shape[1]):
                    out[j, k] += np.float64(rows[i, k]) * rows[i, k]
    return out


@numba.njit(nogil=True, cache=True)
def binned(stored, usable, offset, size, shape, out):
    """Sum usable pixels of (n, detector_y, detector_x) over squares of ``size``, into ``out`` (n, pixel)."""
    out[:] = 0
    for i in range(stored.shape[0]):
        for y in range(shape[0] * size):
            first, x = (y // size) * shape[1], 0
            for k in range(first, first + shape[1]):
                total = out[i, k]
                for _ in range(size):
                    if usable[y, x]:
                        total += np.float32(stored[i, y, x]) - offset
                    x += 1
                out[i, k] = total
    return out


@numba.njit(nogil=True, cache=True)
def moved(stored, shift, usable, offset, size, shape, out):
    """As `binned`, each pattern interpolated bilinearly at ``shift`` (n, 2) beside every usable pixel."""
    out[:] = 0
    for i in range(stored.shape[0]):
        y0, x0 = int(np.floor(shift[i, 0])), int(np.floor(shift[i, 1]))
        fy, fx = np.float32(shift[i, 0] - y0), np.float32(shift[i, 1] - x0)
        for y in range(shape[0] * size):
            for x in range(shape[1] * size):
                if usable[y, x]:
                    a, b = y + y0, x + x0
                    c, d = min(a + 1, stored.shape[1] - 1), min(b + 1, stored.shape[2] - 1)
                    above = (1 - fx) * np.float32(stored[i, a, b]) + fx * np.float32(stored[i, a, d])
                    below = (1 - fx) * np.float32(stored[i, c, b]) + fx * np.float32(stored[i, c, d])
                    out[i, (y // size) * shape[1] + x // size] += (1 - fy) * above + fy * below - offset
    return out


@numba.njit(nogil=True, cache=True)
def split(stored, row, column, seed, half):
    """Return one half of a binomial splitting: each count goes to half 1 or 2 with equal chance.

    A count of n electrons is thinned by the bits of hashes of (seed, position, pixel): both passes over the data,
    in any order, split alike, and the halves of a Poisson count are independent Poisson counts.
    """
    out = np.empty_like(stored)
    n, ny, nx = stored.shape
    for i in range(n):
        base = _mix(
            np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15)
            ^ _mix(np.uint64(row) << np.uint64(32) | np.uint64(column + i))
        )
        for y in range(ny):
            for x in range(nx):
                left, taken, draw = np.int64(stored[i, y, x]), np.int64(0), np.uint64(0)
                state = base ^ _mix(np.uint64(y) << np.uint64(32) | np.uint64(x))
                while left > 0:
                    bits = _mix(state + draw * np.uint64(0xD1342543DE82EF95))
                    if left < 64:
                        bits &= (np.uint64(1) << np.uint64(left)) - np.uint64(1)
                    taken += _ones(bits)
                    left -= 64
                    draw += np.uint64(1)
                out[i, y, x] = taken if half == 1 else stored[i, y, x] - taken
    return out


@numba.njit(nogil=True, cache=True)
def _mix(value):
    """Scramble 64 bits (the finaliser of splitmix64)."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(nogil=True, cache=True)
def _ones(bits):
    """Count the ones among 64 bits."""
    b = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    b = (b & np.uint64(0x3333333333333333)) + ((b >> np.uint64(2)) & np.uint64(0x3333333333333333))
    b = (b + (b >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((b * np.uint64(0x0101010101010101)) >> np.uint64(56))
