"""Simulated scans with known truth.

No intensity model is shared with the matcher: many-beam dynamical intensities from other scattering factors,
a film of varying thickness, absorption, diffuse scattering and the point spread of a detector.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from fourdstem.calibration import Acquisition, wavelength_angstrom
from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT, Correction, Cube, Unit
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods.simulate import atomic, bloch, detector
from fourdstem.methods.simulate.film import Film, descan, grow
from fourdstem.methods.simulate.rehearsal import PATCH, conditions, rehearse
from fourdstem.methods.simulate.settings import Params, Result, acquisition

__all__ = [
    "PATCH", "Expected", "Params", "Result", "acquisition", "beam_radius_px", "compute", "conditions", "expected",
    "recorded", "rehearse",
]  # fmt: skip

BEND_STEP_DEG = 0.25  # orientations of the bent grain are computed this far apart and mixed in between
FAINTEST = 1e-6  # share of the incident electrons below which a disk is not drawn; some 100 such disks make 1e-4


def compute(params: Params, crystals: list[Crystal], out, threads: int = 1) -> Result:
    """Simulate a scan.

    Parameters
    ----------
    params : Params
    crystals : list of Crystal
        Phases of the grains; the first, cubic, makes the lamella and the bent grain.
    out : array-like of uint16, shape (scan_y, scan_x, detector_y, detector_x)
        Receives the recorded counts, assigned in scan order.
    threads : int
        The answer does not depend on it.

    Returns
    -------
    Result
        The truth.

    Raises
    ------
    InputError
        If the first phase of a film is not cubic, or the settings do not fit the crystal.
    """
    if params.specimen == "atomic":
        return atomic.recorded(params, crystals, out, threads)
    scene = _scene(params, crystals, threads)
    bad = detector.faults(params)
    centre = descan(params)
    electrons = np.zeros((2, *params.scan_shape), np.float32)

    def work(unit: Unit):
        return np.stack([_recorded(scene, unit.y, x, centre[unit.y, x], bad) for x in range(unit.x0, unit.x1)])

    with ThreadPoolExecutor(threads) as pool:
        for y in range(params.scan_shape[0]):
            units = [Unit(y, x, min(x + UNIT, params.scan_shape[1])) for x in range(0, params.scan_shape[1], UNIT)]
            for unit, counts in zip(units, pool.map(work, units), strict=True):
                out[unit.y, unit.x0 : unit.x1] = counts
                electrons[:, unit.y, unit.x0 : unit.x1] = _electrons(scene, counts, centre[unit.where], bad)
    return _truth(scene, centre, bad, electrons)


def beam_radius_px(params: Params) -> float:
    """Return the radius of a disk."""
    wavelength = wavelength_angstrom(params.beam_energy_kev)
    return params.convergence_mrad * 1e-3 / wavelength / params.detector_pixel_inv_angstrom


def recorded(params: Params, crystals: list[Crystal], threads: int = 1) -> tuple[Cube, Result]:
    """Return a simulated scan, held in memory, as a corrected cube, and its truth.

    Centres, ellipse and bad pixels are the true ones: what preprocessing would find if it made no mistake.
    """
    counts = np.zeros((*params.scan_shape, *params.detector_shape), np.uint16)
    truth = compute(params, crystals, counts, threads)
    correction = Correction(truth.centre_px, _to_recorded(params), truth.bad_pixel > 0, counts_per_electron=1.0)
    valid = np.ones(params.detector_shape, np.uint8)
    for y in range(params.scan_shape[0]):
        filled = correction.apply(np.ones_like(counts[y]), (y, slice(None)))
        valid &= (filled > 0.5).all(axis=0)
    known = Acquisition(**acquisition(params))
    return Cube(counts, acquisition=known, correction=correction, valid=valid, threads=threads), truth


def expected(params: Params, crystals: list[Crystal], threads: int = 1) -> "Expected":
    """Return the noise-free corrected patterns: centred, no ellipse, no bad pixels, axes along the scan."""
    return Expected(_scene(params, crystals, threads))


@dataclass(frozen=True)
class Expected:
    """Noise-free corrected patterns, computed when they are sliced; serves as the ``data`` of a `Cube`."""

    scene: "Scene"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(scan_y, scan_x, detector_y, detector_x)."""
        return (*self.scene.params.scan_shape, *self.scene.params.detector_shape)

    def __getitem__(self, where) -> np.ndarray:
        """Return the float32 patterns (n, detector_y, detector_x) at ``[y, x0:x1]``."""
        y, xs = where
        middle = (np.array(self.shape[2:]) - 1) / 2
        columns = range(*xs.indices(self.shape[1]))
        return np.stack([_pattern(self.scene, y, x, middle, np.eye(2)) for x in columns]).astype(np.float32)


@dataclass(frozen=True)
class Scene:
    """A film and the spots of its orientations.

    Attributes
    ----------
    params : Params
    film : Film
    spots : list of lists of Spots
        By grain; several along the bend for the bent grain, one for every other.
    bend_deg : ndarray
        Bend angles at which the bent grain was computed.
    """

    params: Params
    film: Film
    spots: list
    bend_deg: np.ndarray


def _scene(params: Params, crystals, threads: int) -> Scene:
    film = grow(params, crystals)
    span = film.bend_angle_deg
    bend = np.linspace(span.min(), span.max(), int(np.ceil(np.ptp(span) / BEND_STEP_DEG)) + 1)
    potentials = [
        bloch.potential(c, params.beam_energy_kev, params.g_max_inv_angstrom, params.absorption) for c in crystals
    ]
    jobs = [(k, a) for k in range(len(film.matrix)) for a in (bend if k == film.bent else [0.0])]

    def work(job):
        grain, angle = job
        return bloch.spots(
            potentials[film.phase[grain]],
            film.turned(grain, angle),
            max(params.thickness_angstrom),
            precession_mrad=params.precession_mrad,
            azimuths=params.precession_azimuths,
            cutoff=params.beam_cutoff,
            most=params.most_beams,
        )

    by_grain = [[] for _ in film.matrix]
    with ThreadPoolExecutor(threads) as pool:
        for (grain, _), result in zip(jobs, pool.map(work, jobs), strict=True):
            by_grain[grain].append(result)
    return Scene(params, film, by_grain, bend)


def _shares(scene: Scene, y: int, x: int):
    """Yield (spots, share) of everything that the probe sees."""
    for grain in np.flatnonzero(scene.film.fraction[y, x]):
        share = scene.film.fraction[y, x, grain]
        tables = scene.spots[grain]
        if len(tables) == 1:
            yield tables[0], share
        else:
            place = np.interp(scene.film.bend_angle_deg[y, x], scene.bend_deg, np.arange(len(tables)))
            low = min(int(place), len(tables) - 2)
            yield tables[low], share * (low + 1 - place)
            yield tables[low + 1], share * (place - low)


def _pattern(scene: Scene, y: int, x: int, centre, matrix) -> np.ndarray:
    """Return the expected pattern of one position, in electrons per pixel."""
    params = scene.params
    pixel = params.detector_pixel_inv_angstrom
    radius = params.convergence_mrad * 1e-3 / wavelength_angstrom(params.beam_energy_kev) / pixel
    inverse = np.linalg.inv(matrix)
    thickness = scene.film.thickness_angstrom[y, x]
    elastic = np.exp(-thickness / params.inelastic_path_angstrom)
    out = np.zeros(params.detector_shape)
    diffuse = 1.0
    for table, share in _shares(scene, y, x):
        intensity = share * elastic * table.at(thickness)
        diffuse -= intensity.sum()
        visible = intensity > FAINTEST
        position = np.ascontiguousarray(table.g_lab[visible, 1::-1]) / pixel
        electrons = params.electrons_per_pattern * intensity[visible]
        detector.add_disks(position, electrons, radius, params.disk_blur_px, centre, inverse, out)
    width = params.diffuse_width_inv_angstrom / pixel
    detector.add_diffuse(params.electrons_per_pattern * diffuse, width, centre, inverse, out)
    return detector.spread(out, params.point_spread_px, params.point_spread_tail)


def _to_recorded(params: Params) -> np.ndarray:
    return corrected_to_recorded(
        params.ellipse_ratio, params.ellipse_angle_deg, params.scan_rotation_deg, params.detector_flip_y
    )


def _recorded(scene: Scene, y: int, x: int, centre, bad) -> np.ndarray:
    pattern = _pattern(scene, y, x, centre, _to_recorded(scene.params))
    return detector.record(pattern, bad, scene.params.hot_counts, scene.params.seed, y, x)


def _electrons(scene: Scene, counts, centre, bad) -> np.ndarray:
    """Return electrons in all and outside the direct disk, (2, n), from the good pixels."""
    params = scene.params
    pixel = params.detector_pixel_inv_angstrom
    radius = params.convergence_mrad * 1e-3 / wavelength_angstrom(params.beam_energy_kev) / pixel
    y, x = np.indices(params.detector_shape)
    good = np.where(bad == 0, counts, 0)
    far = np.hypot(y - centre[:, 0, None, None], x - centre[:, 1, None, None]) > 1.5 * radius + 1
    return np.stack([good.sum(axis=(1, 2)), (good * far).sum(axis=(1, 2))])


def _truth(scene: Scene, centre, bad, electrons) -> Result:
    params, film = scene.params, scene.film
    grain = film.fraction.argmax(axis=-1)
    return Result(
        orientation=film.orientation().astype(np.float32),
        phase=film.phase[grain].astype(np.int32),
        grain=grain.astype(np.int32),
        grain_fraction=film.fraction.astype(np.float32),
        grain_phase=film.phase.astype(np.int32),
        thickness_angstrom=film.thickness_angstrom.astype(np.float32),
        twin=(grain == film.twin).astype(np.uint8),
        bent=(grain == film.bent).astype(np.uint8),
        reference=(grain == film.reference).astype(np.uint8),
        twin_grain=film.twin,
        centre_px=centre.astype(np.float32),
        bad_pixel=bad,
        ellipse_ratio=params.ellipse_ratio,
        ellipse_angle_deg=params.ellipse_angle_deg,
        electrons_per_pattern=params.electrons_per_pattern,
        recorded_electrons=electrons[0],
        scattered_electrons=electrons[1],
    )
