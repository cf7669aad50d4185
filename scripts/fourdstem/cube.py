"""A 4D scan read piece by piece: axes ``(scan_y, scan_x, detector_y, detector_x)``, slow first.

The answer of a stage may not depend on memory or threads. Hence the *unit*: up to 32 consecutive patterns of
one scan row, starting at a multiple of 32, zero-padded to 32. Memory decides how many units are in flight,
threads decide who computes them; inside a unit everything runs in one thread.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.geometry import repair, repairable, resample

UNIT = 32


class Unit(NamedTuple):
    """Patterns ``[y, x0:x1]`` of a scan."""

    y: int
    x0: int
    x1: int

    @property
    def count(self) -> int:
        """How many patterns the unit holds (1 to 32)."""
        return self.x1 - self.x0

    @property
    def where(self) -> tuple[int, slice]:
        """Index into any array that begins with (scan_y, scan_x)."""
        return self.y, slice(self.x0, self.x1)


@dataclass(frozen=True)
class Correction:
    """What takes recorded counts to corrected patterns, in one interpolation.

    Attributes
    ----------
    centre_px : ndarray of shape (scan_y, scan_x, 2)
        Beam position (y, x) in the recorded pattern; NaN where there is no beam.
    matrix : ndarray of shape (2, 2)
        `geometry.corrected_to_recorded`.
    bad : ndarray of bool, shape (detector_y, detector_x)
        Dead, hot, saturated or masked pixels.
    offset_counts : float
        Subtracted from every pixel.
    counts_per_electron, readout_noise_counts : float
        Gain, NaN where it is not known, and standard deviation of the readout.
    saturated : ndarray of bool, shape (detector_y, detector_x), or None
        Pixels that are used, but whose counts are a lower bound.
    """

    centre_px: np.ndarray
    matrix: np.ndarray
    bad: np.ndarray
    offset_counts: float = 0.0
    counts_per_electron: float = np.nan
    readout_noise_counts: float = 0.0
    saturated: np.ndarray | None = None

    @cached_property
    def _mendable(self) -> np.ndarray:
        return repairable(self.bad)

    def apply(self, patterns: np.ndarray, where) -> np.ndarray:
        """Return float32 corrected patterns (n, detector_y, detector_x); a pattern without a beam is 0."""
        return self.interpolate(patterns.astype(np.float32) - np.float32(self.offset_counts), self.centre_px[where])

    def interpolate(self, patterns: np.ndarray, centre_px: np.ndarray) -> np.ndarray:
        """Return likewise patterns without offset (float32, changed) whose beams are at ``centre_px`` (n, 2)."""
        clean = repair(patterns, self.bad, self._mendable)
        usable = (~self.bad | self._mendable).astype(np.uint8)
        centre = np.ascontiguousarray(centre_px, np.float64).reshape(-1, 2)
        out = np.empty_like(clean)
        resample(clean, usable, np.nan_to_num(centre, nan=-1e6), self.matrix, out)
        return out


@dataclass(frozen=True)
class Cube:
    """Patterns of a scan, read lazily.

    Attributes
    ----------
    data : array-like of shape (scan_y, scan_x, detector_y, detector_x)
        NumPy array or HDF5 dataset; only ever sliced.
    acquisition : Acquisition
    correction : Correction or None
        Applied while reading; None: patterns are handed out as they are stored.
    valid : ndarray of uint8, shape (detector_y, detector_x)
        1 where the pixels that are handed out mean something.
    memory_mb, threads : float, int
        What the caller may use; the answer never depends on them.
    """

    data: Any
    acquisition: Acquisition = field(default_factory=Acquisition)
    correction: Correction | None = None
    valid: np.ndarray | None = None
    memory_mb: float = 2000.0
    threads: int = 1

    def __post_init__(self):
        if self.valid is None:
            object.__setattr__(self, "valid", np.ones(self.detector_shape, np.uint8))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(scan_y, scan_x, detector_y, detector_x)."""
        return tuple(self.data.shape)

    @property
    def scan_shape(self) -> tuple[int, int]:
        """(scan_y, scan_x)."""
        return self.shape[:2]

    @property
    def detector_shape(self) -> tuple[int, int]:
        """(detector_y, detector_x)."""
        return self.shape[2:]

    def units(self, columns: tuple[int, int] | None = None) -> list[Unit]:
        """Return all units in scan order; those of a range of columns end where it does."""
        ny, nx = self.scan_shape
        first, last = columns or (0, nx)
        starts = range(first // UNIT * UNIT, last, UNIT)
        return [Unit(y, max(x, first), min(x + UNIT, last)) for y in range(ny) for x in starts]

    def read(self, unit: Unit) -> np.ndarray:
        """Return the patterns of one unit as float32 (n, detector_y, detector_x), corrected if the cube is."""
        stored = self.data[unit.where]
        if self.correction is None:
            return np.asarray(stored, np.float32)
        return self.correction.apply(stored, unit.where)

    def pattern(self, y: int, x: int) -> np.ndarray:
        """Return one pattern as float32 (detector_y, detector_x)."""
        return self.read(Unit(y, x, x + 1))[0]

    def map_units(self, work: Callable[[np.ndarray, Unit], Any]) -> Iterator[tuple[Unit, Any]]:
        """Yield ``(unit, work(patterns, unit))`` in scan order, computed by several threads.

        ``patterns`` is float32 of shape (32, detector_y, detector_x), zero beyond ``unit.count``, so that a
        matrix product inside ``work`` has one shape and one result whatever the position of the unit. Sum
        what is yielded in float64 and in the order in which it comes, and the sum is reproducible.
        """
        yield from self.map_stored(lambda stored, unit: work(self._padded(stored, unit), unit))

    def _padded(self, stored: np.ndarray, unit: Unit) -> np.ndarray:
        patterns = np.zeros((UNIT, *self.detector_shape), np.float32)
        done = stored if self.correction is None else self.correction.apply(stored, unit.where)
        patterns[: unit.count] = done
        return patterns

    def map_stored(
        self, work: Callable[[np.ndarray, Unit], Any], columns: tuple[int, int] | None = None
    ) -> Iterator[tuple[Unit, Any]]:
        """Yield ``(unit, work(patterns, unit))`` likewise, with patterns (unit.count, ...) as they are stored.

        ``columns`` (first, last + 1) reads a strip of the scan.
        """
        unit_mb = UNIT * np.prod(self.detector_shape) * 4 * 4 / 2**20
        ahead = int(np.clip(self.memory_mb / 2 / unit_mb, 1, 4 * self.threads))
        with ThreadPoolExecutor(min(self.threads, ahead)) as pool:
            waiting = deque()
            for unit in self.units(columns):
                waiting.append((unit, pool.submit(work, self.data[unit.where], unit)))
                if len(waiting) >= ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
