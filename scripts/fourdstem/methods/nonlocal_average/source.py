"""What the average is made from: roots of recorded counts to compare, corrected counts to accumulate."""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.cube import Cube, Unit
from fourdstem.errors import InputError
from fourdstem.geometry import repair, repairable

LEAST_SHARE = 0.1  # of the disk that must be recorded at every position
BEAM_MARGIN_PX = 1.5  # rounding of the centre (0.5) and one pixel of blur and ellipse


@dataclass(frozen=True)
class Source:
    """Patterns of a cube, ready to compare and to accumulate.

    Attributes
    ----------
    cube : Cube
    shift : ndarray of int64, shape (scan_y, scan_x, 2)
        Whole pixels (y, x) by which the beam lies off the middle of the detector.
    pixels : ndarray of int64, shape (n, 2)
        Pixels (y, x) of a shifted pattern that are compared, recorded at every position.
    minimum : float
        Lowest count of the scan's usable pixels.
    root : bool
        Accumulate square roots instead of counts.
    """

    cube: Cube
    shift: np.ndarray
    pixels: np.ndarray
    minimum: float
    root: bool

    def prepare(self, patterns: np.ndarray, unit: Unit) -> tuple[np.ndarray, np.ndarray]:
        """Return roots (n_patterns, n) to compare and values (n_patterns, n_y * n_x) to accumulate, float32."""
        recorded, correction = patterns[: unit.count], self.cube.correction
        roots = np.empty((unit.count, len(self.pixels)), np.float32)
        if correction is None:
            shifted_roots(recorded, self.shift[unit.where], self.pixels, self.minimum, roots)
            return roots, self.to_average(recorded)
        corrected = correction.apply(recorded, unit.where)
        shifted_roots(repair(recorded, correction.bad), self.shift[unit.where], self.pixels, self.minimum, roots)
        # Without a beam there is nothing to align: NaN makes every distance to it, and so its σ, unknown.
        roots[np.isnan(correction.centre_px[unit.where]).any(axis=-1)] = np.nan
        return roots, self.to_average(corrected)

    @property
    def offset(self) -> float:
        """Lowest count in the frame of the averaged patterns, from which the detector's offset is subtracted."""
        return self.minimum - (0.0 if self.cube.correction is None else self.cube.correction.offset_counts)

    def to_average(self, patterns: np.ndarray) -> np.ndarray:
        """Return what is accumulated, (n_patterns, n_y * n_x)."""
        flat = patterns.reshape(len(patterns), -1)
        return np.sqrt(np.maximum(flat - np.float32(self.offset), 0)) if self.root else flat

    def from_average(self, values: np.ndarray) -> np.ndarray:
        """Undo `to_average`: counts (n_patterns, detector_y, detector_x), 0 where they mean nothing."""
        counts = values * values + np.float32(self.offset) if self.root else values
        counts = counts.reshape(len(values), *self.cube.detector_shape)
        counts[:, np.asarray(self.cube.valid) == 0] = 0
        return counts


def open_source(cube: Cube, params, beam_radius_px: float | None) -> Source:
    """Work out shifts, pixels and minimum of a scan.

    Parameters
    ----------
    cube : Cube
    params : Params
    beam_radius_px : float or None

    Returns
    -------
    Source

    Raises
    ------
    InputError
        See `average.compute`.
    """
    if cube.correction is None:
        good = usable = np.asarray(cube.valid) != 0
        shift = np.zeros((*cube.scan_shape, 2), np.int64)
    else:
        good = ~cube.correction.bad
        usable = good | repairable(cube.correction.bad)
        shift = whole_pixel_shift(cube.correction.centre_px, cube.detector_shape)
    compared = _compared(cube, params)
    if params.mask_direct_beam:
        compared &= ~disk(cube.detector_shape, _beam_radius_px(cube, beam_radius_px) + BEAM_MARGIN_PX)
    pixels = np.argwhere(compared & recorded_everywhere(usable, shift))
    if len(pixels) < max(LEAST_SHARE * compared.sum(), 1):
        raise InputError(
            f"only {len(pixels)} of the {compared.sum()} pixels to compare are usable at every scan position",
            where="nonlocal_average",
            expected=f"at least {LEAST_SHARE:.0%}",
            do="Look at the measured centres and at the detector mask, or raise mask_fraction.",
        )
    return Source(cube, shift, pixels, lowest_count(cube, good), params.average_in == "sqrt")


def most_compared(cube: Cube, params) -> int:
    """Return how many pixels are compared at most, without reading the scan."""
    return int(_compared(cube, params).sum())


def _compared(cube: Cube, params) -> np.ndarray:
    return disk(cube.detector_shape, params.mask_fraction * min(cube.detector_shape) / 2)


def whole_pixel_shift(centre_px: np.ndarray, detector_shape: tuple[int, int]) -> np.ndarray:
    """Return int64 (..., 2): centre minus the detector's middle, rounded; 0 where there is no centre."""
    middle = (np.array(detector_shape) - 1) / 2
    # floor(x + 1/2): np.round goes to even, so that a descan of one pixel could move the rounding.
    return np.floor(np.nan_to_num(centre_px - middle, nan=0.0) + 0.5).astype(np.int64)


def disk(detector_shape: tuple[int, int], radius_px: float) -> np.ndarray:
    """Return bool (detector_y, detector_x): pixels nearer than `radius_px` to the middle."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in detector_shape)
    return np.hypot(y[:, None], x) < radius_px


def recorded_everywhere(usable: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Tell which pixels (bool, detector_y, detector_x) of the shifted patterns are usable at every position."""
    ny, nx = usable.shape
    everywhere = np.ones((ny, nx), bool)
    for sy, sx in np.unique(shift.reshape(-1, 2), axis=0):
        here = np.zeros((ny, nx), bool)
        ys, xs = (slice(max(-sy, 0), max(min(ny - sy, ny), 0)), slice(max(-sx, 0), max(min(nx - sx, nx), 0)))
        here[ys, xs] = usable[max(sy, 0) : max(ny + sy, 0), max(sx, 0) : max(nx + sx, 0)]
        everywhere &= here
    return everywhere


def lowest_count(cube: Cube, good: np.ndarray) -> float:
    """Return the lowest recorded count among the good pixels of the whole scan.

    Repaired pixels do not count: a mean of good ones cannot lie below them.
    """
    lowest = np.inf
    for unit in cube.units():
        counts = np.asarray(cube.data[unit.where])[:, good]
        if counts.dtype.kind == "f" and not np.isfinite(counts).all():
            raise InputError(
                "a detector pixel that is not marked bad holds NaN or infinity",
                where=f"scan row {unit.y}, columns {unit.x0} to {unit.x1 - 1}",
                expected="finite counts",
                do="Mark the pixel in acquisition.mask, or repair the file.",
            )
        lowest = min(lowest, float(counts.min()))
        if lowest == 0 and counts.dtype.kind == "u":
            break  # nothing can be lower
    return lowest


def _beam_radius_px(cube: Cube, beam_radius_px: float | None) -> float:
    if beam_radius_px is not None:
        return beam_radius_px
    about = cube.acquisition
    if about.convergence_mrad is None or about.beam_energy_kev is None or about.pixel_inv_angstrom is None:
        raise InputError(
            "mask_direct_beam is set, but the radius of the direct beam is not known",
            where="acquisition",
            expected="convergence_mrad, beam_energy_kev and detector_pixel_inv_angstrom or detector_pixel_mrad",
            do="Supply them, or set nonlocal_average.mask_direct_beam to false.",
        )
    return about.convergence_mrad * 1e-3 / about.wavelength_angstrom / about.pixel_inv_angstrom


@numba.njit(nogil=True, cache=True)
def shifted_roots(patterns, shift, pixels, minimum, out):
    """Fill ``out[i, k] = √(I - minimum)`` of pixel k of pattern i, moved by a whole-pixel shift.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n_patterns, detector_y, detector_x)
    shift : ndarray of int64, shape (n_patterns, 2)
    pixels : ndarray of int64, shape (n, 2)
    minimum : float
    out : ndarray of float32, shape (n_patterns, n)
    """
    low = np.float32(minimum)
    for i in range(out.shape[0]):
        for k in range(out.shape[1]):
            count = patterns[i, pixels[k, 0] + shift[i, 0], pixels[k, 1] + shift[i, 1]]
            out[i, k] = np.sqrt(max(count - low, np.float32(0)))
