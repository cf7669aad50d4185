"""Features of a pattern: electrons summed into soft bins about the beam, at its exact sub-pixel centre.

A count adds to the four bins around it, in proportion to tents of half-width `pitch`: about the matched filter of a
disk of that radius. Nothing is interpolated twice, and the noise of a sum of counts is known. Bins lie in the frame
of corrected patterns: a recorded pixel at the offset u from the beam lies at ``inv(matrix) @ u``.
"""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.cube import Cube, Unit
from fourdstem.errors import InputError
from fourdstem.geometry import repair, repairable
from fourdstem.methods.nonlocal_average.source import BEAM_MARGIN_PX, LEAST_SHARE

MOST_FEATURES = 1500  # a covariance of 18 MB, an eigendecomposition of half a second
LEAST_FEATURES = 100  # in the disk: few bins tell few orientations apart, however wide the probe's disks
WIDTHS = 64  # pitches across a detector whose beam radius is not known
# An electron counted in a bin lies at the distance f from it, in pitches, with the density 2 (1 - f), and adds 1 - f
# to it and f to the next: means of (1 - f)², f (1 - f) and f².
SHARES = np.array([[1 / 2, 1 / 6], [1 / 6, 1 / 6]])


@dataclass(frozen=True)
class Bins:
    """Where the bins lie, and what makes electrons of counts.

    Attributes
    ----------
    pitch : float
        Distance of neighbouring bins, px.
    half : int
        The grid has 2 half + 1 bins along each axis; its middle is the beam.
    used : ndarray of int64, shape (n,)
        Index in the flat grid of the bins that are compared.
    centre : ndarray of float64, shape (scan_y, scan_x, 2)
        Beam in the recorded pattern; NaN where there is none.
    inverse : ndarray, shape (2, 2)
        From recorded to corrected offsets.
    bad : ndarray of bool, shape (detector_y, detector_x)
    offset : float
        Subtracted from every count.
    gain : float
        Counts per electron; 1 where it is not known.
    readout : float
        Variance of the readout of a pixel, electrons².
    """

    pitch: float
    half: int
    used: np.ndarray
    centre: np.ndarray
    inverse: np.ndarray
    bad: np.ndarray
    offset: float
    gain: float
    readout: float

    @property
    def shape(self) -> tuple[int, int]:
        """Bins of the grid along each axis."""
        return (2 * self.half + 1,) * 2

    @property
    def beam(self) -> np.ndarray:
        """Bool (scan_y, scan_x): there is a beam."""
        return np.isfinite(self.centre).all(axis=-1)

    @property
    def background(self) -> float:
        """Electrons in a bin whose Poisson noise equals that of the readout: tents of a bin sum to pitch²."""
        return self.readout * self.pitch**2

    def features(self, patterns: np.ndarray, unit: Unit) -> np.ndarray:
        """Return float32 electrons (n_patterns, n) of patterns as they are stored; 0 where there is no beam."""
        if self.bad.any():
            patterns = repair(patterns.astype(np.float32), self.bad)
        out = np.empty((unit.count, len(self.used)), np.float32)
        lattice = (self.pitch, self.half)
        scale = (np.float32(self.offset), np.float32(1 / self.gain))
        splat(patterns, self.centre[unit.where], self.inverse, lattice, scale, self.used, out)
        return out


def open_bins(cube: Cube, params, radius_px: float | None) -> Bins:
    """Lay out the bins: about a disk's radius apart, each recorded in full at every position.

    The pitch is a whole number of pixels, so that the tents of a bin sum to the same wherever the beam lies between
    pixels.

    Parameters
    ----------
    cube : Cube
    params : Params
        ``mask_fraction`` and ``mask_direct_beam``.
    radius_px : float or None
        Radius of a disk. None takes the semi-angle of convergence; if that is not known either, 1/64 of the
        detector.

    Raises
    ------
    InputError
        If few bins are recorded at every position.
    """
    correction, ny_nx = cube.correction, cube.detector_shape
    if correction is None:
        bad, unusable = np.zeros(ny_nx, bool), np.asarray(cube.valid) == 0
        centre = np.broadcast_to((np.array(ny_nx) - 1) / 2, (*cube.scan_shape, 2))
        inverse, offset, gain, readout = np.eye(2), 0.0, 1.0, 0.0
    else:
        bad, centre, inverse = correction.bad, correction.centre_px, np.linalg.inv(correction.matrix)
        gain = correction.counts_per_electron if np.isfinite(correction.counts_per_electron) else 1.0
        offset, readout = correction.offset_counts, (np.nan_to_num(correction.readout_noise_counts) / gain) ** 2
        unusable = bad & ~repairable(bad)
        if correction.saturated is not None:
            unusable |= correction.saturated  # a clipped count says nothing of likeness
    radius = params.mask_fraction * min(ny_nx) / 2
    beam_px = _disk_radius(cube, radius_px)
    pitch = _pitch(radius, beam_px)
    half = int(np.ceil(radius / pitch)) + 1
    centre, inverse = np.array(centre, np.float64), np.ascontiguousarray(inverse, np.float64)
    distance = pitch * np.hypot(*np.indices((2 * half + 1,) * 2) - half)
    inside = distance < radius
    if params.mask_direct_beam:
        inside &= distance >= beam_px + BEAM_MARGIN_PX + pitch
    missed = np.zeros(inside.shape, np.uint8)
    known = np.ascontiguousarray(centre[np.isfinite(centre).all(axis=-1)])
    touch(np.argwhere(unusable), known, inverse, (pitch, half), missed)
    used = inside & (missed == 0) & _within(ny_nx, known, inverse, pitch, half)
    _check(int(used.sum()), int(inside.sum()))
    return Bins(pitch, half, np.flatnonzero(used), centre, inverse, bad, float(offset), float(gain), float(readout))


def _disk_radius(cube: Cube, radius_px: float | None) -> float:
    about = cube.acquisition
    if radius_px is not None:
        return radius_px
    if None in (about.convergence_mrad, about.beam_energy_kev, about.pixel_inv_angstrom):
        return max(1.0, min(cube.detector_shape) / WIDTHS)
    return about.convergence_mrad * 1e-3 / about.wavelength_angstrom / about.pixel_inv_angstrom


def _pitch(radius: float, beam_px: float) -> float:
    finest, coarsest = (np.sqrt(np.pi * radius**2 / n) for n in (MOST_FEATURES, LEAST_FEATURES))
    return float(np.ceil(max(finest, min(beam_px, coarsest), 1.0) - 1e-6))


def _within(detector_shape, centres, inverse, pitch: float, half: int) -> np.ndarray:
    """Tell which bins (bool, grid) lie on the detector in full, at all centres (n, 2)."""
    if not len(centres):
        return np.ones((2 * half + 1,) * 2, bool)
    bins = pitch * (np.indices((2 * half + 1,) * 2) - half)
    corners = pitch * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)])
    corners = np.einsum("ab,byxk->ayxk", np.linalg.inv(inverse), bins[..., None] + corners.T[:, None, None])
    low, high = corners.min(axis=-1), corners.max(axis=-1)
    size = np.array(detector_shape)[:, None, None]
    # A tent is 0 at its corners, so that they may lie on the first missing pixel.
    inside = (low + centres.min(axis=0)[:, None, None] >= -1) & (high + centres.max(axis=0)[:, None, None] <= size)
    return inside.all(axis=0)


def _check(used: int, wanted: int) -> None:
    if used < max(LEAST_SHARE * wanted, 1):
        raise InputError(
            f"only {used} of the {wanted} bins to compare are recorded in full at every scan position",
            where="nonlocal_average.distance: projection",
            expected=f"at least {LEAST_SHARE:.0%}",
            do="Look at the measured centres and at the detector mask, lower mask_fraction, or set distance to "
            "pattern.",
        )


@numba.njit(nogil=True, cache=True)
def splat(patterns, centre, inverse, lattice, scale, used, out):
    """Fill ``out`` with the electrons in the bins of each pattern.

    Parameters
    ----------
    patterns : ndarray, shape (n_patterns, detector_y, detector_x)
        Counts.
    centre : ndarray of float64, shape (n_patterns, 2)
        NaN: no beam, every bin is 0.
    inverse : ndarray of float64, shape (2, 2)
    lattice : tuple of (float, int)
        Pitch and half of `Bins`.
    scale : tuple of float32
        Offset and electrons per count.
    used : ndarray of int64, shape (n,)
    out : ndarray of float32, shape (n_patterns, n)
    """
    pitch, half = lattice
    size = 2 * half + 1
    m = inverse / pitch
    cells = np.empty(4 * size * size, np.float32)
    grid = np.empty(size * size, np.float32)
    for k in range(patterns.shape[0]):
        if np.isnan(centre[k, 0]) or np.isnan(centre[k, 1]):
            out[k] = 0
            continue
        cells[:] = 0
        for y in range(patterns.shape[1]):
            dy = y - centre[k, 0]
            start = m[0, 0] * dy - m[0, 1] * centre[k, 1] + half, m[1, 0] * dy - m[1, 1] * centre[k, 1] + half
            add_line(patterns[k, y], start, (m[0, 1], m[1, 1]), size, scale[0], cells)
        spread(cells, size, grid)
        for n in range(used.size):
            out[k, n] = grid[used[n]] * scale[1]


@numba.njit(nogil=True, cache=True)
def add_line(row, start, step, size, low, cells):
    """Add to the cells between four bins, flat (size * size, 4), a pixel row's sums of c, c f, c g and c f g.

    f, g: place of a pixel in its cell, 0 to 1 along y and x; c: its count. From them `spread` knows the shares of
    the four bins, and a pixel adds to one cache line instead of two. ``start``, ``step``: where pixel 0 lies on the
    grid of bins, and how far each is from the last. The bits of an unsigned index are used as they are, which saves
    a third of the time; zeros are sorted out without a branch, for the same reason.
    """
    a0, b0, da, db = np.float32(start[0]), np.float32(start[1]), np.float32(step[0]), np.float32(step[1])
    last = np.float32(size - 1)
    columns = np.uint32(row.size)
    filled = np.empty(row.size + 1, np.uint32)
    count = np.uint32(0)
    for x in range(columns):
        filled[count] = x
        count += np.uint32(np.float32(row[x]) != low)
    for s in range(count):
        x = filled[s]
        place = np.float32(np.int32(x))
        a, b = a0 + da * place, b0 + db * place
        if (a >= 0) & (a < last) & (b >= 0) & (b < last):
            i, j = np.int32(a), np.int32(b)
            f, g = a - np.float32(i), b - np.float32(j)
            c = np.float32(row[x]) - low
            to = np.uint32(4) * np.uint32(i * np.int32(size) + j)
            cells[to] += c
            cells[to + np.uint32(1)] += c * f
            cells[to + np.uint32(2)] += c * g
            cells[to + np.uint32(3)] += c * f * g


@numba.njit(nogil=True, cache=True)
def spread(cells, size, grid):
    """Fill the bins ``grid`` (flat) with the shares of the cells around them."""
    grid[:] = 0
    for i in range(size - 1):
        for j in range(size - 1):
            k = i * size + j
            both = cells[4 * k + 3]
            down, right = cells[4 * k + 1] - both, cells[4 * k + 2] - both
            grid[k] += cells[4 * k] - down - right - both
            grid[k + 1] += right
            grid[k + size] += down
            grid[k + size + 1] += both


@numba.njit(nogil=True, cache=True)
def touch(pixels, centres, inverse, lattice, out):
    """Set to 1 the bins ``out`` (grid) to which a pixel (n, 2) adds at any of the centres (positions, 2)."""
    pitch, half = lattice
    for c in range(centres.shape[0]):
        for p in range(pixels.shape[0]):
            dy, dx = pixels[p, 0] - centres[c, 0], pixels[p, 1] - centres[c, 1]
            i = int(np.floor((inverse[0, 0] * dy + inverse[0, 1] * dx) / pitch)) + half
            j = int(np.floor((inverse[1, 0] * dy + inverse[1, 1] * dx) / pitch)) + half
            for a in range(max(i, 0), min(i + 2, out.shape[0])):
                for b in range(max(j, 0), min(j + 2, out.shape[1])):
                    out[a, b] = 1


def noise_table(vectors: np.ndarray, bins: Bins) -> np.ndarray:
    """Return the mean square (n, r) of what an electron that is counted in a bin adds to each component.

    An electron beside the bin adds to its neighbours too, which the tents correlate: Σ over them of share times
    vector is squared and averaged over where such electrons fall, if they are spread evenly. Those of a disk about
    as wide as a bin are not, and their noise comes out a fifth too low (17 to 24 % on simulated films).

    Parameters
    ----------
    vectors : ndarray, shape (n, r)
        What one electron wholly in a bin adds.
    bins : Bins
    """
    rows, columns = bins.shape
    grid = np.zeros((rows * columns, vectors.shape[1]))
    grid[bins.used] = vectors
    padded = np.pad(grid.reshape(rows, columns, -1), ((1, 1), (1, 1), (0, 0)))
    table = np.zeros((rows, columns, vectors.shape[1]))
    for dy in (-1, 1):
        for dx in (-1, 1):
            corner = np.stack([padded[1 + a : 1 + a + rows, 1 + b : 1 + b + columns] for a in (0, dy) for b in (0, dx)])
            table += np.einsum("pyxr,pq,qyxr->yxr", corner, np.kron(SHARES, SHARES), corner, optimize=True) / 4
    return table.reshape(rows * columns, -1)[bins.used]
