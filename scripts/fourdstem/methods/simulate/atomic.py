"""A crystal down a zone axis under a probe smaller than its columns: scattering matrix, one per point of the zone.

In a crystal that repeats, a probe is a sum of plane waves, and those that differ by reciprocal lattice vectors
interfere where their disks overlap. For each point κ of the Brillouin zone that a detector pixel asks for, the
scattering matrix of the zero-order Laue zone is ``S = exp(2πi t A)``, with ``A = (U_{g-h} - δ_gh |κ+g|²) / 2K``;
the pattern of a probe at ρ is ``|Σ_h S_gh a(κ+h) exp(-2πi (κ+h)·ρ)|²``. Thermal vibration damps the potential and
what it scatters is not followed; inelastic scattering goes into a smooth background.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from scipy.linalg import eigh

from fourdstem.calibration import wavelength_angstrom
from fourdstem.crystal import SYMBOLS, Crystal, atomic_number, scattering_factor
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded, rotation_matrix
from fourdstem.methods.simulate import detector
from fourdstem.methods.simulate.film import descan
from fourdstem.methods.simulate.settings import Params, Result

SPLAT_PX = 0.55  # Gaussian by which plane waves become pixels; coverage is even where they lie at most a pixel apart
AHEAD = 256  # positions whose waves are held at once
# λ of relativistic mass: U_g = γ F_g / (π V); rest energy of the electron in keV.
REST_KEV = 510.99895


@dataclass(frozen=True)
class Columns:
    """A crystal seen along a zone axis; lab frame, (y, x) in Å, origin at scan position (0, 0).

    Attributes
    ----------
    basis : ndarray of shape (2, 2)
        Rows: the projected lattice vectors, shortest first.
    position : ndarray of shape (atom, 2)
        Atoms of one cell, projected.
    number, occupancy, u_iso : ndarray of shape (atom,)
    area, repeat : float
        Area of the projected cell in Å² and how far the cell reaches along the beam, Å.
    """

    basis: np.ndarray
    position: np.ndarray
    number: np.ndarray
    occupancy: np.ndarray
    u_iso: np.ndarray
    area: float
    repeat: float

    def without(self, element: str | None) -> "Columns":
        """Return the same crystal without one element."""
        if element is None:
            return self
        keep = self.number != atomic_number(element)
        kept = (self.position[keep], self.number[keep], self.occupancy[keep], self.u_iso[keep])
        return Columns(self.basis, *kept, self.area, self.repeat)


def recorded(params: Params, crystals: list[Crystal], out, threads: int = 1) -> Result:
    """Simulate an atomic-resolution scan; parameters and result as of `simulate.compute`.

    Raises
    ------
    InputError
        If the zone axis is [0, 0, 0], or an element named in the settings is not in the crystal.
    """
    _check(params, crystals[0])
    whole = columns(params, crystals[0])
    vacant = _vacant(params)
    centre, bad = descan(params), detector.faults(params)
    electrons = np.zeros((2, *params.scan_shape), np.float32)
    with ThreadPoolExecutor(threads) as pool:
        for kind, specimen in ((0, whole), (1, whole.without(params.vacancy_element))):
            where = np.argwhere(vacant == kind)
            if len(where):
                waves = list(pool.map(lambda k, s=specimen: _waves(params, s, k), _zone_points(params, specimen)))
                parts = [where[i : i + AHEAD] for i in range(0, len(where), AHEAD)]
                made = pool.map(lambda p, w=waves: _record(params, w, p, centre, bad), parts)
                for part, counts in zip(parts, made, strict=True):
                    for (y, x), pattern in zip(part, counts, strict=True):
                        out[y, x] = pattern
                        electrons[:, y, x] = pattern[bad == 0].sum()
    return _truth(params, whole, vacant, centre, bad, electrons)


def _check(params: Params, crystal: Crystal) -> None:
    known = sorted({SYMBOLS[z - 1] for z in crystal.numbers})
    for key in ("vacancy_element", "displaced_element"):
        name = getattr(params, key)
        if name is not None and name not in known:
            found = f"{key} = {name}, which {crystal.name} does not hold"
            raise InputError(found, where="simulate", expected=f"one of {', '.join(known)}", do="Name one of these.")
    if not any(params.zone_axis):
        raise InputError(
            "zone_axis = [0, 0, 0]", where="simulate", expected="a direction [u, v, w]", do="Name a zone axis."
        )


def columns(params: Params, crystal: Crystal) -> Columns:
    """Project one cell of a crystal along the zone axis, the beam travelling along [uvw]."""
    axis = np.array(params.zone_axis) / np.gcd.reduce(params.zone_axis)
    along = axis @ crystal.lattice
    z = along / np.linalg.norm(along)
    flat = crystal.lattice - np.outer(crystal.lattice @ z, z)
    basis3 = _shortest(flat)
    x = basis3[0] / np.linalg.norm(basis3[0])
    frame = np.stack([np.cross(z, x), x])  # rows y, x: x × y = z
    turn = rotation_matrix(params.crystal_rotation_deg)
    position = (crystal.positions @ crystal.lattice) @ frame.T
    if params.displaced_element is not None:
        moved = crystal.numbers == atomic_number(params.displaced_element)
        position = position + moved[:, None] * np.array(params.displacement_angstrom) @ turn
    basis = basis3 @ frame.T @ turn.T
    area = abs(np.linalg.det(basis))
    repeat = abs(np.linalg.det(crystal.lattice)) / area
    return Columns(basis, position @ turn.T, crystal.numbers, crystal.occupancy, crystal.u_iso, area, repeat)


def _shortest(flat: np.ndarray) -> np.ndarray:
    """Return the two shortest projected lattice vectors that span the plane, (2, 3)."""
    steps = np.array([[i, j, k] for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)])
    points = steps @ flat
    length = np.linalg.norm(points, axis=1)
    order = np.lexsort((*(-points.T), np.round(length, 6)))
    points = points[order][length[order] > 1e-6]
    first = points[0]
    off = np.linalg.norm(np.cross(points, first), axis=1) > 1e-4 * np.linalg.norm(first)
    return np.stack([first, points[off][0]])


def _vacant(params: Params) -> np.ndarray:
    """Tell (uint8) at which positions the vacancy element is missing: right of an edge along scan_y."""
    vacant = np.zeros(params.scan_shape, np.uint8)
    if params.vacancy_element is not None:
        vacant[:, round(params.scan_shape[1] * (1 - params.vacancy_share)) :] = 1
    return vacant


def _zone_points(params: Params, specimen: Columns) -> list[np.ndarray]:
    """Return points κ (y, x) of the zone, 1/Å, at most a detector pixel apart."""
    reciprocal = np.linalg.inv(specimen.basis).T
    count = [int(np.ceil(np.linalg.norm(b) / params.detector_pixel_inv_angstrom)) for b in reciprocal]
    return [np.array([i / count[0], j / count[1]]) @ reciprocal for i in range(count[0]) for j in range(count[1])]


@dataclass(frozen=True)
class Waves:
    """Plane waves of one point of the zone: ``matrix`` takes those of the probe to those behind the specimen."""

    incident: np.ndarray  # (n, 2), 1/Å
    outgoing: np.ndarray  # (m, 2), 1/Å
    matrix: np.ndarray  # complex64 (m, n)


def _waves(params: Params, specimen: Columns, point: np.ndarray) -> Waves:
    wavelength = wavelength_angstrom(params.beam_energy_kev)
    reciprocal = np.linalg.inv(specimen.basis).T
    reach = int(np.ceil(params.g_max_inv_angstrom * np.linalg.norm(specimen.basis, axis=1).max())) + 2
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    waves = point + steps @ reciprocal
    inside = np.linalg.norm(waves, axis=1) <= params.g_max_inv_angstrom
    steps, waves = steps[inside], waves[inside]
    matrix = _potential(params, specimen, steps) * wavelength / 2
    matrix[np.diag_indices(len(waves))] -= (waves**2).sum(axis=1) * wavelength / 2
    values, vectors = eigh(matrix, driver="evd")
    opening = params.convergence_mrad * 1e-3 / wavelength
    lit = np.linalg.norm(waves, axis=1) <= opening
    phase = np.exp(2j * np.pi * np.mean(params.thickness_angstrom) * values)
    done = (vectors * phase) @ vectors[lit].conj().T
    return Waves(waves[lit], waves, done.astype(np.complex64))


def _potential(params: Params, specimen: Columns, steps: np.ndarray) -> np.ndarray:
    """Return U_{g-h} in 1/Å² for all pairs of reflections, (n, n); the mean potential is left out."""
    reciprocal = np.linalg.inv(specimen.basis).T
    reach = np.abs(steps).max() * 2
    grid = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1)
    g = grid @ reciprocal
    g2 = (g**2).sum(axis=-1)
    total = np.zeros(g2.shape, complex)
    factor = {z: scattering_factor(int(z), g2, "xtables") for z in np.unique(specimen.number)}
    atoms = zip(specimen.number, specimen.position, specimen.occupancy, specimen.u_iso, strict=True)
    for z, place, occupancy, u in atoms:
        total += occupancy * factor[z] * np.exp(-2 * np.pi**2 * u * g2 - 2j * np.pi * (g @ place))
    total[reach, reach] = 0
    scale = (1 + params.beam_energy_kev / REST_KEV) / (np.pi * specimen.area * specimen.repeat)
    apart = steps[:, None] - steps[None, :] + reach
    return scale * total[apart[..., 0], apart[..., 1]]


def _record(params: Params, waves: list[Waves], positions, centre, bad) -> list[np.ndarray]:
    """Return the counts of some positions, a list of uint16 (detector_y, detector_x)."""
    place = positions * np.array(params.scan_step_angstrom)
    incident = sum(len(w.incident) for w in waves)
    intensity = []
    for wave in waves:
        phase = np.exp(-2j * np.pi * (wave.incident @ place.T)).astype(np.complex64)
        behind = wave.matrix @ phase
        intensity.append((behind.real**2 + behind.imag**2).T / incident)
    intensity = np.concatenate(intensity, axis=1)
    outgoing = np.concatenate([w.outgoing for w in waves]) / params.detector_pixel_inv_angstrom
    matrix = corrected_to_recorded(
        params.ellipse_ratio, params.ellipse_angle_deg, params.scan_rotation_deg, params.detector_flip_y
    )
    offset = outgoing @ matrix.T
    cell = params.detector_pixel_inv_angstrom**2 * _density(waves)
    elastic = np.exp(-np.mean(params.thickness_angstrom) / params.inelastic_path_angstrom)
    done = []
    for k, (y, x) in enumerate(positions):
        pattern = gather(intensity[k], offset, centre[y, x], np.zeros(params.detector_shape))
        pattern *= params.electrons_per_pattern * elastic * cell
        width = params.diffuse_width_inv_angstrom / params.detector_pixel_inv_angstrom
        electrons = params.electrons_per_pattern * (1 - elastic)
        detector.add_diffuse(electrons, width, centre[y, x], np.linalg.inv(matrix), pattern)
        pattern = detector.spread(pattern, params.point_spread_px, params.point_spread_tail)
        done.append(detector.record(pattern, bad, params.hot_counts, params.seed, int(y), int(x)))
    return done


def _density(waves: list[Waves]) -> float:
    """Return how many plane waves lie in one 1/Å²."""
    reach = max(np.linalg.norm(w.outgoing, axis=1).max() for w in waves)
    return sum(len(w.outgoing) for w in waves) / (np.pi * reach**2)


@numba.njit(nogil=True, cache=True)
def gather(intensity, offset, centre, out):
    """Average the plane waves near each pixel, by a Gaussian of `SPLAT_PX`.

    Parameters
    ----------
    intensity : ndarray of shape (wave,)
    offset : ndarray of shape (wave, 2)
        From the beam, (y, x) in px as recorded.
    centre : ndarray of shape (2,)
    out : ndarray of shape (detector_y, detector_x), zeros
        Receives intensity per wave; 0 where there is no wave within 2 px.
    """
    ny, nx = out.shape
    weight = np.zeros((ny, nx))
    for i in range(len(intensity)):
        py, px = centre[0] + offset[i, 0], centre[1] + offset[i, 1]
        for y in range(max(int(py) - 1, 0), min(int(py) + 3, ny)):
            for x in range(max(int(px) - 1, 0), min(int(px) + 3, nx)):
                w = np.exp(-0.5 * ((y - py) ** 2 + (x - px) ** 2) / SPLAT_PX**2)
                weight[y, x] += w
                out[y, x] += w * intensity[i]
    for y in range(ny):
        for x in range(nx):
            out[y, x] = out[y, x] / weight[y, x] if weight[y, x] > 1e-9 else 0.0
    return out


def _truth(params: Params, whole: Columns, vacant, centre, bad, electrons) -> Result:
    step = np.array(params.scan_step_angstrom)
    span = (np.array(params.scan_shape) - 1) * step
    reach = int(np.ceil(np.hypot(*span) / np.linalg.svd(whole.basis)[1].min())) + 1
    cells = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2) @ whole.basis
    places = (cells[:, None] + whole.position[None]).reshape(-1, 2)
    numbers = np.tile(whole.number, len(cells))
    inside = ((places >= 0) & (places <= span)).all(axis=1)
    columns_px, index = np.unique(np.round(places[inside] / step, 4), axis=0, return_index=True)
    film_only = dict.fromkeys(
        ("orientation", "phase", "grain", "grain_fraction", "grain_phase", "twin", "bent", "reference", "twin_grain")
    )
    return Result(
        **film_only,
        thickness_angstrom=np.full(params.scan_shape, np.mean(params.thickness_angstrom), np.float32),
        centre_px=centre.astype(np.float32),
        bad_pixel=bad,
        ellipse_ratio=params.ellipse_ratio,
        ellipse_angle_deg=params.ellipse_angle_deg,
        electrons_per_pattern=params.electrons_per_pattern,
        recorded_electrons=electrons[0],
        scattered_electrons=None,
        vacant=vacant,
        column_px=columns_px.astype(np.float32),
        column_number=numbers[inside][index].astype(np.int32),
    )
