"""Learns what the direct beam looks like, then finds it in every pattern."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from fourdstem.cube import Cube
from fourdstem.geometry import repair, repairable
from fourdstem.methods.preprocess import descan
from fourdstem.methods.preprocess.beam import Beam, fit_beam, guess_radius, profile_about, stamp, template
from fourdstem.methods.preprocess.centre import locate
from fourdstem.methods.preprocess.moments import Noise

SAMPLE_UNITS = 8
GOLDEN = 0.6180339887498949
SMALL_RADIUS_PX = 1.5  # below this, radius and blur cannot be told apart and a given radius is taken


@dataclass(frozen=True)
class Finder:
    """What `centre.locate` needs.

    Attributes
    ----------
    beam : Beam
    table, spectrum : ndarray
        Template against radius, and its spectrum on the detector.
    noise : Noise
    predicted_px : ndarray of shape (scan_y, scan_x, 2)
        Where the beam is expected.
    half_width_px : float
        How far from there it is sought.
    shape : tuple of int
        Of the detector.
    """

    beam: Beam
    table: np.ndarray
    spectrum: np.ndarray
    noise: Noise
    predicted_px: np.ndarray
    half_width_px: float
    shape: tuple[int, int]

    def with_beam(self, beam: Beam) -> "Finder":
        """Return the finder for another beam."""
        table = template(beam)
        return replace(self, beam=beam, table=table, spectrum=stamp(table, self.shape))


def clean(patterns: np.ndarray, bad: np.ndarray, floor: float) -> np.ndarray:
    """Return repaired patterns; what cannot be repaired is at the floor, where it pulls at nothing."""
    done = repair(patterns.copy(), bad)
    done[:, bad & ~repairable(bad)] = floor
    return done


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
    units, patterns = _sample(cube, bad, noise.floor)
    radius = guess_radius(patterns, noise)
    beam = Beam(radius, max(0.7, 0.05 * radius), 10.0)
    smooth = uniform_filter(clean(mean[None].astype(np.float32), bad, noise.floor)[0], 2 * int(radius / 2) + 1)
    start = np.array(np.unravel_index(np.argmax(smooth), smooth.shape), float)
    wide = params.search_px or max(cube.detector_shape) / 4 + radius
    shape = cube.detector_shape
    table = template(beam)
    everywhere = np.broadcast_to(start, (*cube.scan_shape, 2))
    finder = Finder(beam, table, stamp(table, shape), noise, everywhere, wide, shape)
    for _ in range(3):
        found = np.concatenate([locate(p, finder, finder.predicted_px[u.where]) for u, p in _per_unit(units, patterns)])
        if not np.isfinite(found[:, 0]).any():
            return finder, ""
        reach = min(2.5 * finder.beam.radius_px + 8, min(shape) / 2)
        step = 0.25 if finder.beam.radius_px < 8 else 0.5
        curve = profile_about(patterns, ~bad, found[:, :2], noise.floor, reach, step)
        finder = finder.with_beam(fit_beam(*curve, finder.beam.radius_px))
        finder = _aim(finder, cube.scan_shape, units, found, params)
    beam, how = _given_radius(finder.beam, cube.acquisition)
    return finder.with_beam(beam), how


def _sample(cube, bad, floor):
    """Units spread over the scan by the golden ratio, so that no column or row is preferred."""
    units = cube.units()
    picks = sorted({int((i * GOLDEN) % 1 * len(units)) for i in range(min(SAMPLE_UNITS, len(units)))})
    chosen = [units[k] for k in picks]
    return chosen, np.concatenate([clean(cube.read(u), bad, floor) for u in chosen])


def _per_unit(units, patterns):
    at = 0
    for unit in units:
        yield unit, patterns[at : at + unit.count]
        at += unit.count


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
    """Return y, x, sigma (px) and all counts of every position, shape (scan_y, scan_x, 4)."""
    out = np.full((*cube.scan_shape, 4), np.nan)

    def work(patterns, unit):
        done = clean(patterns[: unit.count], bad, finder.noise.floor)
        return locate(done, finder, finder.predicted_px[unit.where], method)

    for unit, found in cube.map_units(work):
        out[unit.where] = found
    return out
