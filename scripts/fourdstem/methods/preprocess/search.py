"""Learns what the direct beam looks like, then finds it in every pattern."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from fourdstem.cube import Cube
from fourdstem.geometry import repair, repairable
from fourdstem.methods.preprocess import descan
from fourdstem.methods.preprocess.beam import Beam, add_profile, blur_stamp, fit_beam, guess_radius, stamp, template
from fourdstem.methods.preprocess.centre import locate, mass
from fourdstem.methods.preprocess.moments import Noise
from fourdstem.methods.preprocess.uneven import ANY, LEAST_RADIUS_PX, disk_table, level, likely_spread

SAMPLE_UNITS = 8
GOLDEN = 0.6180339887498949
SMALL_RADIUS_PX = 1.5  # below this, radius and blur cannot be told apart and a given radius is taken


@dataclass(frozen=True)
class Finder:
    """What `centre.locate` needs.

    Attributes
    ----------
    beam : Beam
    table, spectrum, blur : ndarray
        Template against radius, its spectrum on the detector, and that of a Gaussian half as wide as the disk.
    noise : Noise
    predicted_px : ndarray of shape (scan_y, scan_x, 2)
        Where the beam is expected.
    half_width_px : float
        How far from there it is sought.
    shape : tuple of int
        Of the detector.
    disk : ndarray
        The disk itself and its slope against radius.
    spread : float
        Standard deviation of the slope of brightness across the disk; 0 where disks are even.
    """

    beam: Beam
    table: np.ndarray
    spectrum: np.ndarray
    blur: np.ndarray
    noise: Noise
    predicted_px: np.ndarray
    half_width_px: float
    shape: tuple[int, int]
    disk: np.ndarray
    spread: float = 0.0

    def with_beam(self, beam: Beam) -> "Finder":
        """Return the finder for another beam."""
        return finder_of(beam, self.noise, self.predicted_px, self.half_width_px, self.shape)


def finder_of(beam: Beam, noise: Noise, predicted_px, half_width_px: float, shape) -> Finder:
    """Return the finder of even disks; parameters are those of `Finder`."""
    table = template(beam)
    spectrum, blur = stamp(table, shape), blur_stamp(beam, shape)
    return Finder(beam, table, spectrum, blur, noise, predicted_px, half_width_px, shape, disk_table(beam))


def clean(patterns: np.ndarray, bad: np.ndarray, floor: float) -> np.ndarray:
    """Repair patterns in place; what cannot be repaired is at the floor, where it pulls at nothing."""
    repair(patterns, bad)
    patterns[:, bad & ~repairable(bad)] = floor
    return patterns


def learn(cube: Cube, params, bad: np.ndarray, noise: Noise, mean: np.ndarray) -> tuple[Finder, str]:
    """Learn radius, edge and contrast of the beam, and where to seek it, from a sample of the scan.

    Parameters
    ----------
    cube : Cube
    params : Params
    bad : ndarray of bool, shape (detector_y, detector_x)
    noise : Noise
    mean : ndarray of shape (detector_y, detector_x)
        Of the recorded patterns.

    Returns
    -------
    tuple of (Finder, str)
        The string says how the radius came about.
    """
    units, shape = _sample(cube), cube.detector_shape
    radius = guess_radius((p for u in units for p in _read(cube, u, bad, noise)), shape, noise)
    beam = Beam(radius, max(0.7, 0.05 * radius), 10.0)
    smooth = uniform_filter(clean(mean[None].astype(np.float32), bad, noise.floor)[0], 2 * int(radius / 2) + 1)
    start = np.array(np.unravel_index(np.argmax(smooth), smooth.shape), float)
    wide = params.search_px or max(shape) / 4 + radius
    everywhere = np.broadcast_to(start, (*cube.scan_shape, 2))
    finder = finder_of(beam, noise, everywhere, wide, shape)
    for _ in range(3):
        found, sums = _look(cube, units, bad, finder)
        if not np.isfinite(found[:, 0]).any():
            return finder, ""
        before, finder = finder.beam, finder.with_beam(fit_beam(sums, finder.beam.radius_px))
        finder = _aim(finder, cube.scan_shape, units, found, params)
        settled = max(finder.beam.radius_sigma_px, 0.1 * finder.beam.edge_px)  # templates so alike find the same
        if abs(finder.beam.radius_px - before.radius_px) < settled:
            break
    beam, how = _given_radius(finder.beam, cube.acquisition)
    finder = finder.with_beam(beam)
    if params.centre_method != "disk_correlation" or beam.radius_px < LEAST_RADIUS_PX:
        return finder, how
    spread = _spread(cube, units, bad, finder)
    if spread > 0:
        how += f"; its brightness slopes by ± {spread:.2f} from middle to edge, fitted beside its centre"
    return replace(finder, spread=spread), how


def _spread(cube, units, bad, finder) -> float:
    """Spread of the slope of brightness across the disk in the sample; 0 where even disks explain it."""
    slopes, sigma = [], []
    for unit in units:
        patterns = _read(cube, unit, bad, finder.noise)
        for pattern, found in zip(patterns, locate(patterns, finder, finder.predicted_px[unit.where]), strict=True):
            if np.isfinite(found[0]):
                told = level(pattern, found[:2], finder, ANY)
                slopes.append(told[2:4])
                sigma.append(told[5])
    return likely_spread(np.array(slopes).reshape(-1, 2), np.array(sigma))


def _sample(cube):
    """Units spread over the scan by the golden ratio, so that no column or row is preferred."""
    units = cube.units()
    return [
        units[k] for k in sorted({int((i * GOLDEN) % 1 * len(units)) for i in range(min(SAMPLE_UNITS, len(units)))})
    ]


def _read(cube, unit, bad, noise):
    return clean(np.array(cube.read(unit)), bad, noise.floor)  # a copy: `read` may hand out the scan itself


def _look(cube, units, bad, finder):
    """Find the beam in the sample, read anew one unit at a time; return what `locate` does, and radial sums."""
    radius, floor = finder.beam.radius_px, finder.noise.floor
    step = 0.25 if radius < 8 else 0.5
    sums = np.zeros((3, int(np.ceil(min(2.5 * radius + 8, min(finder.shape) / 2) / step))))
    found = []
    for unit in units:
        patterns = _read(cube, unit, bad, finder.noise)
        found.append(locate(patterns, finder, finder.predicted_px[unit.where]))
        for pattern, centre in zip(patterns, found[-1][:, :2], strict=True):
            if np.isfinite(centre[0]):
                add_profile(pattern, ~bad, centre, floor, step, sums)
    return np.concatenate(found), sums


def _aim(finder: Finder, scan_shape, units, found, params) -> Finder:
    """Seek near the plane through the sample's centres."""
    y = np.concatenate([np.full(u.count, u.y) for u in units])
    x = np.concatenate([np.arange(u.x0, u.x1) for u in units])
    centre, sigma = np.full((*scan_shape, 2), np.nan), np.full(scan_shape, np.nan)
    centre[y, x], sigma[y, x] = found[:, :2], found[:, 2]
    surface = descan.fit(centre, sigma, params.outlier_sigma)
    # No farther than two diameters, or the window reaches Bragg disks brighter than the beam.
    least, most = max(2 * finder.beam.radius_px, 6.0), max(4 * finder.beam.radius_px, 10.0)
    half = params.search_px or float(np.clip(8 * surface.scatter_px, least, most))
    return replace(finder, predicted_px=surface.surface, half_width_px=half)


def _given_radius(beam: Beam, acquisition) -> tuple[Beam, str]:
    measured = f"beam radius {beam.radius_px:.2f} ± {beam.radius_sigma_px:.2f} px, edge {beam.edge_px:.2f} px"
    pixel, angle = acquisition.pixel_inv_angstrom, acquisition.convergence_mrad
    if pixel is None or not angle or acquisition.beam_energy_kev is None:
        return beam, measured
    given = angle * 1e-3 / acquisition.wavelength_angstrom / pixel
    text = f"{measured}; convergence and pixel give {given:.2f} px"
    if beam.radius_px < SMALL_RADIUS_PX and 0.4 <= given <= 2.5 * SMALL_RADIUS_PX:
        return replace(beam, radius_px=given), f"{text}, in force below {SMALL_RADIUS_PX} px"
    return beam, text


def centres(cube: Cube, method: str, bad: np.ndarray, finder: Finder) -> np.ndarray:
    """Return y, x, sigma (px), all counts, and `centre.mass` y, x (px) of every position: (scan_y, scan_x, 6)."""
    out = np.full((*cube.scan_shape, 6), np.nan)

    def work(patterns, unit):
        done = clean(patterns[: unit.count], bad, finder.noise.floor)
        found = locate(done, finder, finder.predicted_px[unit.where], method)
        return np.concatenate([found, mass(done, finder.noise)], axis=1)

    for unit, found in cube.map_units(work):
        out[unit.where] = found
    return out
