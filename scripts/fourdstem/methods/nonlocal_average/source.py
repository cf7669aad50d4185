"""What the average is made from: roots of recorded counts to compare, corrected counts to accumulate."""

from dataclasses import dataclass
from functools import cached_property

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
    zero : float
        Count whose root is 0.
    root : bool
        Accumulate square roots instead of counts.
    """

    cube: Cube
    shift: np.ndarray
    pixels: np.ndarray
    zero: float
    root: bool

    @property
    def n(self) -> int:
        """How many pixels are compared."""
        return len(self.pixels)

    @property
    def along(self) -> np.ndarray:
        """From one pixel to the next along (y, x), in pixels of a flat pattern."""
        return np.array([self.cube.detector_shape[1], 1])

    @cached_property
    def runs(self) -> tuple[np.ndarray, np.ndarray]:
        """First pixel and length of each run of compared pixels that lie side by side."""
        return runs(self.pixels @ self.along)

    def compared(self, patterns: np.ndarray, unit: Unit, out: np.ndarray | None = None) -> np.ndarray:
        """Return float32 roots (n_patterns, n) of patterns as they are stored, in the front of ``out`` if it is given.

        Of ``out`` whole rows are taken: that they lie together is what lets their loop use the vector units.
        """
        correction = self.cube.correction
        roots = np.empty((unit.count, self.n), np.float32) if out is None else out
        if correction is not None and correction.bad.any():
            patterns = repair(patterns.astype(np.float32), correction.bad)
        shift = self.shift[unit.where] @ self.along
        shifted_roots(patterns.reshape(unit.count, -1), shift, *self.runs, self.zero, roots)
        if correction is not None:
            # Without a beam there is nothing to align: NaN makes every distance to it, and so its σ, unknown.
            roots[np.isnan(correction.centre_px[unit.where]).any(axis=-1), : self.n] = np.nan
        return roots

    def accumulated(self, patterns: np.ndarray, unit: Unit) -> np.ndarray:
        """Return float32 values (n_patterns, n_y * n_x) of patterns as they are stored, corrected: what is averaged."""
        return self.to_average(self.corrected(patterns, unit))

    def corrected(self, patterns: np.ndarray, unit: Unit) -> np.ndarray:
        """Return patterns as they are stored, corrected if there is a correction."""
        correction = self.cube.correction
        return patterns if correction is None else correction.apply(patterns, unit.where)

    @property
    def offset(self) -> float:
        """`zero` in the frame of the averaged patterns, from which the detector's offset is subtracted."""
        return self.zero - (0.0 if self.cube.correction is None else self.cube.correction.offset_counts)

    def to_average(self, patterns: np.ndarray) -> np.ndarray:
        """Return what is accumulated, float32 (n_patterns, n_y * n_x)."""
        flat = patterns.reshape(len(patterns), -1)
        if not self.root:
            return flat.astype(np.float32)
        roots = np.empty(flat.shape, np.float32)
        whole = np.array([0]), np.array([flat.shape[1]])
        shifted_roots(flat, np.zeros(len(flat), np.int64), *whole, self.offset, roots)
        return roots

    def from_average(self, values: np.ndarray) -> np.ndarray:
        """Undo `to_average`: counts (n_patterns, detector_y, detector_x), 0 where they mean nothing."""
        counts = values
        if self.root:
            counts = values * values
            counts += np.float32(self.offset)
        return self.meant(counts)

    def meant(self, counts: np.ndarray) -> np.ndarray:
        """Return counts (n_patterns, detector_y, detector_x), set to 0 where they mean nothing."""
        counts = counts.reshape(len(counts), *self.cube.detector_shape)
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
        if cube.correction.saturated is not None:
            usable &= ~cube.correction.saturated  # a clipped count says nothing of likeness
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
    lowest = lowest_count(cube, good)
    zero = lowest if transform_of(cube, params) == "root" else anscombe_zero(cube.correction)
    return Source(cube, shift, pixels, zero, params.average_in == "sqrt")


def transform_of(cube: Cube, params) -> str:
    """Return "root" or "anscombe", whichever is in force.

    Raises
    ------
    InputError
        If "anscombe" is asked for and the detector's gain is not known.
    """
    known = cube.correction is not None and np.isfinite(cube.correction.counts_per_electron)
    if params.transform == "anscombe" and not known:
        raise InputError(
            "the gain of the detector is not known",
            where="nonlocal_average.transform: anscombe",
            expected="acquisition.counts_per_electron, or a scan from which it can be estimated",
            do="Supply counts_per_electron and readout_noise_counts, or set transform to root.",
        )
    if params.transform == "auto":
        return "anscombe" if known and cube.correction.readout_noise_counts > 0 else "root"
    return params.transform


def anscombe_zero(correction) -> float:
    """Return the count whose root is 0 in the generalised Anscombe transform, which makes readout noise even too.

    √(I - offset + 3/8 gain + readout² / gain), all in counts. Source: Murtagh, Starck, Bijaoui, Astron. Astrophys.
    Suppl. 112, 179 (1995).
    """
    gain, noise = correction.counts_per_electron, np.nan_to_num(correction.readout_noise_counts)
    return float(correction.offset_counts - 0.375 * gain - noise**2 / gain)


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


def runs(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return first and length of each run of consecutive numbers of an ascending array."""
    breaks = np.flatnonzero(np.diff(pixels) != 1) + 1
    begin = np.concatenate([[0], breaks])
    return pixels[begin], np.diff(np.concatenate([begin, [len(pixels)]]))


@numba.njit(nogil=True, cache=True)
def root(count, zero):
    """Return √(count - zero) as float32, 0 below."""
    return np.sqrt(max(np.float32(count) - zero, np.float32(0)))


@numba.njit(nogil=True, cache=True)
def shifted_roots(patterns, shift, first, length, zero, out):
    """Fill ``out[i]`` with √(I - zero) of runs of pixels of pattern i, moved by a whole-pixel shift.

    Parameters
    ----------
    patterns : ndarray, shape (n_patterns, detector_y * detector_x)
    shift : ndarray of int64, shape (n_patterns,)
        In pixels of the flat pattern.
    first, length : ndarray of int64, shape (n_runs,)
        Likewise; see `runs`.
    zero : float
    out : ndarray of float32, shape (n_patterns, n)
    """
    low = np.float32(zero)
    for i in range(out.shape[0]):
        k = 0
        for begin, count in zip(first, length):  # noqa: B905  numba knows no strict
            counts, roots = patterns[i, begin + shift[i] : begin + shift[i] + count], out[i, k : k + count]
            for p in range(count):
                roots[p] = root(counts[p], low)
            k += count
