"""A nanocrystalline film: grains, a twin lamella, a bent grain and its unbent partner, thickness, descan."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fourdstem.errors import InputError

OVERSAMPLE = 5  # odd, so that a scan position falls on a fine sample
MARGIN = 3


@dataclass(frozen=True)
class Film:
    """What lies under the scan; grain index -1 of every list is the twin lamella.

    Attributes
    ----------
    matrix : ndarray of shape (grain, 3, 3)
        Lab to crystal, mean of each grain.
    phase : ndarray of int, shape (grain,)
    fraction : ndarray of shape (scan_y, scan_x, grain)
        Share of the probe in each grain; sums to 1.
    parent, twin, bent, reference : int
        Indices of grains.
    bend_axis : ndarray of shape (3,)
        Lab; the bent grain is turned about it.
    bend_angle_deg : ndarray of shape (scan_y, scan_x)
        By how much, were the bent grain there.
    thickness_angstrom : ndarray of shape (scan_y, scan_x)
    """

    matrix: np.ndarray
    phase: np.ndarray
    fraction: np.ndarray
    parent: int
    twin: int
    bent: int
    reference: int
    bend_axis: np.ndarray
    bend_angle_deg: np.ndarray
    thickness_angstrom: np.ndarray

    def turned(self, grain: int, angle_deg: float) -> np.ndarray:
        """Return the lab-to-crystal matrix of a grain after turning it about the bend axis."""
        return self.matrix[grain] @ _turn(self.bend_axis, angle_deg).T

    def orientation(self) -> np.ndarray:
        """Return the quaternion (scan_y, scan_x, 4) of the grain with the largest share."""
        grain = self.fraction.argmax(axis=-1)
        out = np.empty((*grain.shape, 4))
        for where in np.ndindex(grain.shape):
            angle = self.bend_angle_deg[where] if grain[where] == self.bent else 0.0
            out[where] = quaternion(self.turned(grain[where], angle))
        return out


def quaternion(matrix: np.ndarray) -> np.ndarray:
    """Return (w, x, y, z), w >= 0, of a lab-to-crystal matrix."""
    q = Rotation.from_matrix(matrix).as_quat()[[3, 0, 1, 2]]
    return -q if q[0] < 0 else q


def grow(params, crystals) -> Film:
    """Make the film of a seed.

    Raises
    ------
    InputError
        If the first phase is not cubic: a Σ3 lamella exists only there.
    """
    if crystals[0].laue_class not in ("m-3m", "m-3"):
        raise InputError(
            f"phase '{crystals[0].name}' has Laue class {crystals[0].laue_class}",
            where="simulate",
            expected="a cubic first phase, because the film carries a Σ3 twin",
            do="List a cubic phase first.",
        )
    rng = np.random.default_rng(np.random.SeedSequence(params.seed))
    points = _fine_positions(params.scan_shape)
    seeds = _spread(rng, params.grains, params.scan_shape)
    fine = cKDTree(seeds).query(points)[1]
    bent, reference, parent = _cast(fine, points, seeds, params.scan_shape)
    matrix = Rotation.from_quat(rng.normal(size=(params.grains + 1, 4))).as_matrix()
    matrix[bent] = matrix[reference] = _near_cube_zone(rng)
    direction = rng.uniform(0, np.pi)
    matrix[parent], matrix[-1] = _twinned(rng, direction)
    phase = rng.integers(len(crystals), size=params.grains + 1)
    phase[[bent, reference, parent, -1]] = 0

    across = np.array([np.sin(direction), np.cos(direction)])
    middle = points[_inside(fine == parent, points, params.scan_shape)].mean(axis=0)
    fine[(fine == parent) & (np.abs((points - middle) @ across) < params.twin_width_px / 2)] = params.grains
    axis, angle_deg = _bend(rng, params, points[_inside(fine == bent, points, params.scan_shape)])
    fraction, thickness = _blurred(fine, params), _thickness(rng, params)
    return Film(matrix, phase, fraction, parent, params.grains, bent, reference, axis, angle_deg, thickness)


def descan(params) -> np.ndarray:
    """Return the true beam position (scan_y, scan_x, 2) on the detector, px: a plane and a slight parabola."""
    rng = np.random.default_rng(np.random.SeedSequence(params.seed, spawn_key=(1,)))
    y, x = np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in params.scan_shape), indexing="ij")
    turn = rng.uniform(0, 2 * np.pi)
    along = np.stack([np.cos(turn) * y + np.sin(turn) * x, -np.sin(turn) * y + np.cos(turn) * x], axis=-1)
    bow = 0.15 * (4 * (y**2 + x**2) - 1)[..., None] * rng.uniform(-1, 1, 2)
    offset = rng.uniform(-1, 1, 2) * params.descan_px / 4
    middle = (np.array(params.detector_shape) - 1) / 2
    return middle + offset + params.descan_px * (along / np.sqrt(2) + bow)


def _turn(axis, angle_deg):
    return Rotation.from_rotvec(np.deg2rad(angle_deg) * np.asarray(axis)).as_matrix()


def _fine_positions(shape):
    ys, xs = (np.arange(-MARGIN * OVERSAMPLE, (n + MARGIN) * OVERSAMPLE) for n in shape)
    y, x = np.meshgrid(*((i - OVERSAMPLE // 2) / OVERSAMPLE for i in (ys, xs)), indexing="ij")
    return np.stack([y, x], axis=-1).reshape(-1, 2)


def _spread(rng, count, shape):
    """Place seeds far from each other: each is the loneliest of 20 random places."""
    size = np.array(shape) - 1.0
    seeds = [rng.uniform(0, 1, 2) * size]
    while len(seeds) < count:
        places = rng.uniform(0, 1, (20, 2)) * size
        seeds.append(places[cKDTree(seeds).query(places)[0].argmax()])
    return np.array(seeds)


def _inside(chosen, points, shape):
    return chosen & (points >= 0).all(axis=1) & (points <= np.array(shape) - 1).all(axis=1)


def _cast(fine, points, seeds, shape):
    """Choose bent grain, unbent partner and parent of the lamella: large, and the first two not neighbours."""
    area = np.bincount(fine[_inside(fine >= 0, points, shape)], minlength=len(seeds))
    grid = fine.reshape([(n + 2 * MARGIN) * OVERSAMPLE for n in shape])
    touching = np.zeros((len(seeds), len(seeds)), dtype=bool)
    for a, b in ((grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])):
        touching[a, b] = touching[b, a] = True
    smaller = np.minimum(area[:, None], area[None, :]).astype(float)
    smaller[touching] -= area.sum()  # in a film of few grains every pair may touch: take the best of those
    np.fill_diagonal(smaller, -np.inf)
    bent, reference = np.unravel_index(smaller.argmax(), smaller.shape)
    area[[bent, reference]] = -1
    return int(bent), int(reference), int(area.argmax())


def _twinned(rng, direction):
    """Orient a parent with one {111} edge-on, normal at ``direction``, beam near <110>; return it and its twin.

    Near <110> the two patterns differ most; near <112> they would be the same within the zero-order zone.
    """
    normal = np.array([np.cos(direction), np.sin(direction), 0.0])
    beam = np.array([0.0, 0.0, 1.0])
    lab = np.stack([normal, np.cross(beam, normal), beam])
    plane, zone = np.array([1, 1, 1]) / np.sqrt(3), np.array([1, -1, 0]) / np.sqrt(2)
    zone = _turn(plane, rng.uniform(1, 3)) @ zone
    crystal = np.stack([plane, np.cross(zone, plane), zone])
    parent = crystal.T @ lab
    return parent, parent @ _turn(normal, 60.0).T


def _near_cube_zone(rng):
    """Return an orientation 3 to 8 degrees off <001>, whose pattern is rich and that a half turn maps onto its like.

    Bent and unbent grain would tell nothing about bending if their orientation could not be known at all.
    """
    turn = rng.uniform(0, 2 * np.pi)
    tilt = _turn([np.cos(turn), np.sin(turn), 0.0], rng.uniform(3, 8))
    return tilt @ _turn([0.0, 0.0, 1.0], rng.uniform(0, 360))


def _bend(rng, params, inside):
    """Return the bend axis and the bend angle map, zero in the mean over the grain."""
    turn = rng.uniform(0, 2 * np.pi)
    along = np.array([np.sin(turn), np.cos(turn)])
    place = inside @ along
    positions = np.stack(np.meshgrid(*(np.arange(n) for n in params.scan_shape), indexing="ij"), axis=-1)
    angle = params.bend_deg * (positions @ along - place.mean()) / np.ptp(place)
    low, high = params.bend_deg * (np.array([place.min(), place.max()]) - place.mean()) / np.ptp(place)
    return np.array([-np.sin(turn), np.cos(turn), 0.0]), np.clip(angle, low, high)


def _blurred(fine, params):
    shape = [(n + 2 * MARGIN) * OVERSAMPLE for n in params.scan_shape]
    sample = slice(MARGIN * OVERSAMPLE + OVERSAMPLE // 2, -MARGIN * OVERSAMPLE, OVERSAMPLE)
    shares = []
    for grain in range(params.grains + 1):
        covered = (fine == grain).reshape(shape).astype(float)
        shares.append(gaussian_filter(covered, params.probe_sigma_px * OVERSAMPLE)[sample, sample])
    fraction = np.stack(shares, axis=-1)
    fraction[fraction < 1e-3] = 0
    return fraction / fraction.sum(axis=-1, keepdims=True)


def _thickness(rng, params):
    """Return a wedge with a slow swell, stretched to the stated limits."""
    y, x = np.meshgrid(*(np.linspace(0, 1, n) for n in params.scan_shape), indexing="ij")
    slope = rng.uniform(-1, 1, 2)
    swell = sum(
        rng.uniform(0.1, 0.3) * np.cos(np.pi * (rng.uniform(0.5, 2) * y + rng.uniform(-2, 2) * x) + rng.uniform(0, 6))
        for _ in range(3)
    )
    height = slope[0] * y + slope[1] * x + swell
    low, high = sorted(params.thickness_angstrom)
    return low + (high - low) * (height - height.min()) / np.ptp(height)
