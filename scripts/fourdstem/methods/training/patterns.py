"""Expected training patterns: what a detector would record on average, with everything known.

Every pattern is drawn from its own seed, so that the data do not depend on who computes them or when.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from fourdstem.calibration import wavelength_angstrom
from fourdstem.geometry import ellipse_matrix
from fourdstem.methods.training import drawing
from fourdstem.methods.training.structures import of_share

SIZE = 128  # px
SPOTS = 48  # brightest reflections that are remembered for the count of those found again
LARGEST_ELLIPSE = 1.12
LARGEST_SHIFT_PX = 12.0
LARGEST_RADIUS_PX = 20.0
_RING_STEP = 0.25


@dataclass(frozen=True)
class Optics:
    """What is the same for all patterns of one scan.

    Attributes
    ----------
    wavelength, pixel : float
        Å; 1/Å per px.
    radius, edge : float
        Of the disks, px.
    ratio, angle_deg : float
        Ellipse of the camera.
    probe : ndarray of shape (2, 2)
        See `drawing.add_disks`.
    """

    wavelength: float
    pixel: float
    radius: float
    edge: float
    ratio: float
    angle_deg: float
    probe: np.ndarray

    @property
    def matrix(self) -> np.ndarray:
        """Ellipse as an area-preserving (y, x) matrix."""
        return ellipse_matrix(self.ratio, self.angle_deg)


@dataclass(frozen=True)
class Pattern:
    """One expected pattern.

    Attributes
    ----------
    image : ndarray of float32, shape (SIZE, SIZE)
        Sums to 1.
    centre : ndarray of shape (2,)
        (y, x) of the direct disk, px.
    radius : float
    spots : ndarray of float32, shape (SPOTS, 3)
        y, x in px and integrated share of the brightest reflections inside the detector; share 0 where there are fewer.
    """

    image: np.ndarray
    centre: np.ndarray
    radius: float
    spots: np.ndarray


def seeded(seed: int, share: str, kind: int, index: int) -> np.random.Generator:
    """Return the generator of the ``index``-th example of a kind."""
    part = ("train", "validate", "test").index(share)
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(part, kind, index)))


@dataclass(frozen=True)
class Scene:
    """Everything that a pattern is drawn from; leaving a part out shows what that part does.

    Attributes
    ----------
    optics : Optics
    centre : ndarray of shape (2,)
        (y, x) of the direct disk, px.
    scattered : float
        Share of the electrons that the disks hold beside the direct one.
    tables : tuple
        Disks of each grain, see `grain`.
    weights : ndarray
        Shares of the grains.
    tilt : ndarray of shape (2,)
        Slope of the brightness inside the direct disk, see `drawing.add_direct`.
    darkening : tuple of ndarray
        Rocking curves (n, 4) that darken the direct disk, and their thicknesses (n,).
    smooth : ndarray
        Radial profile of background, halo and powder rings, in steps of 0.25 px.
    middle : ndarray of shape (2,)
        Where that profile is centred (y, x), px.
    """

    optics: Optics
    centre: np.ndarray
    scattered: float
    tables: tuple
    weights: np.ndarray
    tilt: np.ndarray
    darkening: tuple[np.ndarray, np.ndarray]
    smooth: np.ndarray
    middle: np.ndarray


def draw_pattern(seed: int, share: str, index: int) -> Pattern:
    """Return one pattern of one to three grains, or of none.

    Parameters
    ----------
    seed : int
    share : {"train", "validate", "test"}
        Structures that may be used.
    index : int
    """
    return drawn(draw_scene(seed, share, index))


def draw_scene(seed: int, share: str, index: int) -> Scene:
    """Return what `draw_pattern` draws."""
    rng = seeded(seed, share, 0, index)
    structures = of_share(share)
    grains = int(rng.choice(4, p=[0.06, 0.62, 0.22, 0.10]))
    chosen = [structures[rng.integers(len(structures))] for _ in range(grains)]
    optics = draw_optics(rng, chosen, LARGEST_RADIUS_PX)
    centre = (SIZE - 1) / 2 + rng.uniform(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX, 2)
    scattered = rng.uniform(0.05, 0.9) if rng.random() < 0.9 else rng.uniform(0.9, 0.99)
    tables = tuple(grain(rng, structure, optics) for structure in chosen)
    weights = rng.dirichlet(np.ones(max(grains, 1)))
    tilt = rng.normal(0, 0.25, 2) * (rng.random() < 0.5)
    smooth, middle = _smooth_parts(rng, optics, centre, structures, rng.uniform(0, 0.6) ** 2)
    return Scene(optics, centre, scattered, tables, weights, tilt, _darkening(tables), smooth, middle)


def draw_scan(seed: int, share: str, index: int, grains: int, each: int) -> list[Scene]:
    """Return the scenes of a small scan: ``each`` positions in every one of several grains, one behind the other.

    Within a grain only the share of scattered electrons and the place of the beam (0.2 px) differ.
    """
    rng = seeded(seed, share, 2, index)
    structures = of_share(share)
    phases = [structures[rng.integers(len(structures))] for _ in range(2)]
    optics = draw_optics(rng, phases, 8.0)
    middle = (SIZE - 1) / 2 + rng.uniform(-LARGEST_SHIFT_PX, LARGEST_SHIFT_PX, 2)
    scattered, share_of_smooth = rng.uniform(0.2, 0.8), rng.uniform(0, 0.6) ** 2
    smooth, lopsided = _smooth_parts(rng, optics, np.zeros(2), structures, share_of_smooth)
    scenes = []
    for k in range(grains):
        tables = (grain(rng, phases[k % len(phases)], optics),)
        tilt, dark = rng.normal(0, 0.25, 2) * (rng.random() < 0.5), _darkening(tables)
        for _ in range(each):
            centre, part = middle + rng.normal(0, 0.2, 2), scattered * rng.uniform(0.85, 1.15)
            scenes.append(Scene(optics, centre, part, tables, np.ones(1), tilt, dark, smooth, centre + lopsided))
    return scenes


def drawn(scene: Scene) -> Pattern:
    """Draw a scene."""
    optics, centre, image = scene.optics, scene.centre, np.zeros((SIZE, SIZE))
    matrix, inverse = optics.matrix, np.linalg.inv(optics.matrix)
    shape = (optics.radius, optics.edge)
    spots = []
    for (position, flux, rock, thickness), weight in zip(scene.tables, scene.weights, strict=False):
        flux = flux * weight * scene.scattered
        drawing.add_disks(position, flux, rock, thickness, shape, centre, matrix, inverse, optics.probe, image)
        spots.append(np.column_stack([centre + position @ matrix.T, flux]))
    direct = 1 - scene.scattered
    drawing.add_direct(direct, *scene.darkening, scene.tilt, shape, centre, inverse, optics.probe, image)
    drawing.add_radial(scene.smooth, _RING_STEP, scene.middle, inverse, image)
    total = image.sum()
    return Pattern((image / total).astype(np.float32), centre, optics.radius, _brightest(spots, total))


def draw_optics(rng, structures, largest_radius: float) -> Optics:
    """Draw beam energy, camera length, disks and distortions that suit the structures."""
    energy = rng.choice([60.0, 80.0, 120.0, 200.0, 300.0])
    radius = np.exp(rng.uniform(0, np.log(largest_radius)))
    pixel = rng.uniform(0.6, 2.0) / (SIZE / 2)
    if structures and rng.random() < 0.85:  # disks that do not overlap much, as operators like them
        closest = min(_spacing(s) for s in structures)
        pixel = min(pixel, closest / (2.05 * radius))
    edge = rng.uniform(0.35, 0.8) if rng.random() < 0.6 else rng.uniform(0.35, 0.4 + 0.12 * radius)
    ratio = np.exp(rng.uniform(0, np.log(LARGEST_ELLIPSE))) if rng.random() < 0.8 else 1.0
    probe = np.eye(2)
    if rng.random() < 0.25:
        probe = ellipse_matrix(rng.uniform(1, 1.1), rng.uniform(-90, 90))
    wavelength = wavelength_angstrom(energy)
    return Optics(wavelength, pixel, radius, min(edge, 3.0), ratio, rng.uniform(-90, 90), probe)


def _spacing(structure) -> float:
    """|g| of the innermost strong reflection, 1/Å."""
    g, strength = structure.table
    return np.linalg.norm(g[strength > 0.2 * strength.max()], axis=1).min()


def turned(rng, structure) -> np.ndarray:
    """Draw a crystal-to-lab rotation: any, or a few degrees off a zone axis of low index."""
    if rng.random() < 0.5:
        return Rotation.from_quat(rng.normal(size=4)).as_matrix()
    zone = np.zeros(3)
    while not zone.any():
        zone = rng.integers(-2, 3, 3) @ structure.lattice
    turn = Rotation.align_vectors([[0.0, 0.0, 1.0]], [zone / np.linalg.norm(zone)])[0]
    tilt = Rotation.from_rotvec([*rng.normal(0, np.deg2rad(1.5), 2), 0.0])
    return (tilt * Rotation.from_rotvec([0, 0, rng.uniform(0, 2 * np.pi)]) * turn).as_matrix()


def grain(rng, structure, optics: Optics, mode: int | None = None):
    """Return disks of one grain: positions (n, 2) px, flux (n,) of sum 1, rocking (n, 4), thickness (n,) Å.

    Modes: 0 kinematical with a Gaussian relrod (precession, bending); 1 two-beam; 2 two-beam with the rocking
    curve seen inside the disks. In most grains the intensities are multiplied at random, so that Friedel pairs differ
    as many-beam scattering and bending make them differ.
    """
    g, strength = structure.table
    mode = int(rng.choice(3, p=[0.4, 0.2, 0.4])) if mode is None else mode
    thickness = np.exp(rng.uniform(np.log(60), np.log(1500)))
    spread = rng.uniform(0.004, 0.03)
    width = 3 * spread if mode == 0 else min(0.08, 4 / thickness + 0.01)
    if mode == 2:
        width += optics.wavelength * optics.radius * optics.pixel
    strain = np.eye(3) + rng.normal(0, 0.004, (3, 3))
    found = drawing.excite(
        g, strength, turned(rng, structure) @ strain, optics.wavelength, width, 1.5 * SIZE / 2 * optics.pixel
    )
    gy, gx, s, f = found.T
    w = np.minimum(1.4 * optics.wavelength * f / np.pi, 0.02)  # 1/ξ = λ γ |F| / (π V)
    slope = optics.wavelength * optics.pixel * (mode == 2)
    rock = np.column_stack([s, -slope * gy, -slope * gx, np.maximum(w, 1e-7)])
    depth = np.full(len(s), thickness)
    if mode == 0:
        flux = f**2 * np.exp(-0.5 * (s / spread) ** 2)
    elif mode == 1:
        flux = np.array([drawing.rocking(a, b, thickness) for a, b in zip(s, rock[:, 3], strict=True)])
    else:
        flux = np.array([drawing._mean_rocking(r, thickness, optics.radius) for r in rock])
    if rng.random() < 0.7:
        flux = flux * np.exp(rng.normal(0, rng.uniform(0.2, 1.3), len(flux)))
    keep = flux > 2e-5 * flux.sum()
    total = max(flux[keep].sum(), 1e-12)
    return np.column_stack([gy, gx])[keep] / optics.pixel, flux[keep] / total, rock[keep], depth[keep]


def _darkening(tables, most: int = 8):
    """Rocking curves that darken the direct disk: the strongest of the grains that show them."""
    rows, thick, flux = [np.zeros((0, 4))], [np.zeros(0)], [np.zeros(0)]
    for _, strength, rock, thickness in tables[:1]:
        seen = (rock[:, 1] != 0) | (rock[:, 2] != 0)
        rows.append(rock[seen])
        thick.append(thickness[seen])
        flux.append(strength[seen])
    order = np.argsort(-np.concatenate(flux), kind="stable")[:most]
    return np.concatenate(rows)[order], np.concatenate(thick)[order]


def _brightest(spots, total) -> np.ndarray:
    out = np.zeros((SPOTS, 3), np.float32)
    if not spots:
        return out
    rows = np.concatenate(spots)
    rows[:, 2] /= total
    rows = rows[((rows[:, :2] > 0) & (rows[:, :2] < SIZE - 1)).all(axis=1)]
    rows = rows[np.argsort(-rows[:, 2], kind="stable")[:SPOTS]]
    out[: len(rows)] = rows
    return out


def _smooth_parts(rng, optics, centre, structures, share):
    """Diffuse background, often an amorphous halo, sometimes powder rings, each with a share of the electrons.

    Returns their sum as a radial profile, and where it is centred.
    """
    radii = np.arange(0, 1.5 * SIZE, _RING_STEP)
    background = np.zeros(len(radii))
    width = rng.uniform(4, 60)
    falls = rng.random()
    background += falls * np.exp(-radii / width) + (1 - falls) / (1 + (radii / width) ** 2) ** rng.uniform(1, 2)
    parts = [(background, share * 0.9 + 0.01)]
    if rng.random() < 0.3:
        place = rng.uniform(12, 45)
        halo = np.exp(-0.5 * ((radii - place) / (0.12 * place)) ** 2)
        halo += 0.4 * np.exp(-0.5 * ((radii - 1.75 * place) / (0.2 * place)) ** 2)
        parts.append((halo, rng.uniform(0, 0.5)))
    if rng.random() < 0.25:
        parts.append((_powder(rng, optics, structures, radii), rng.uniform(0, 0.7) ** 2))
    weight = np.maximum(radii, _RING_STEP / 2) * _RING_STEP * 2 * np.pi
    inside = radii < SIZE / 2
    total = sum(p / max((p * weight)[inside].sum(), 1e-12) * part for p, part in parts)
    lopsided = centre + rng.normal(0, 2.0, 2) * (rng.random() < 0.5)
    return total, lopsided


def _powder(rng, optics, structures, radii) -> np.ndarray:
    g, strength = structures[rng.integers(len(structures))].table
    r = np.linalg.norm(g, axis=1) / optics.pixel
    counts, edges = np.histogram(r, bins=len(radii), range=(0, 1.5 * SIZE), weights=strength**2)
    at = 0.5 * (edges[1:] + edges[:-1])
    width = np.hypot(0.45 * optics.radius, optics.edge) + rng.uniform(0, 1)
    kernel = np.exp(-0.5 * (np.arange(-80, 81) * _RING_STEP / width) ** 2)
    return np.convolve(counts / np.maximum(at, 1), kernel / kernel.sum(), mode="same")


def draw_scan_mean(seed: int, share: str, index: int):
    """Return a centred mean pattern of a scan and its ellipse: what the third network sees.

    Returns
    -------
    image : ndarray of float32, shape (SIZE, SIZE)
        Sums to 1; the beam is in the middle but for what centring leaves over.
    e : ndarray of shape (2,)
        ε cos 2θ, ε sin 2θ, with ε = ½ ln(a/b).
    radius : float
        Of the disks, px.
    orientations : int
        How many grains the scan holds; from ten on the ellipse can be known.
    """
    rng = seeded(seed, share, 1, index)
    structures = of_share(share)
    count = int(np.exp(rng.uniform(np.log(10), np.log(80)))) if rng.random() < 0.85 else int(rng.integers(1, 10))
    phases = [structures[rng.integers(len(structures))] for _ in range(1 + (rng.random() < 0.3))]
    optics = draw_optics(rng, phases, 9.0)
    centre = (SIZE - 1) / 2 + rng.normal(0, 0.1, 2)
    matrix, inverse = optics.matrix, np.linalg.inv(optics.matrix)
    blurred = float(np.hypot(optics.edge, rng.uniform(0, 0.4)))
    image = np.zeros((SIZE, SIZE))
    scattered = rng.uniform(0.05, 0.9)
    weights = rng.dirichlet(np.full(count, rng.uniform(0.5, 5)))
    mode = int(rng.choice(3, p=[0.5, 0.3, 0.2]))
    for weight in weights:
        position, flux, rock, thickness = grain(rng, phases[rng.integers(len(phases))], optics, mode)
        keep = (flux > 1e-3) & (np.hypot(*position.T) < 0.8 * SIZE)
        args = (position[keep], flux[keep] * weight * scattered, rock[keep], thickness[keep], (optics.radius, blurred))
        drawing.add_disks(*args, centre, matrix, inverse, optics.probe, image)
    none = np.zeros((0, 4)), np.zeros(0), np.zeros(2)
    drawing.add_direct(1 - scattered, *none, (optics.radius, blurred), centre, inverse, optics.probe, image)
    smooth, middle = _smooth_parts(rng, optics, centre, structures, rng.uniform(0, 0.6) ** 2)
    drawing.add_radial(smooth, _RING_STEP, middle, inverse, image)
    epsilon, angle = 0.5 * np.log(optics.ratio), np.deg2rad(2 * optics.angle_deg)
    e = epsilon * np.array([np.cos(angle), np.sin(angle)])
    return (image / image.sum()).astype(np.float32), e, optics.radius, count
