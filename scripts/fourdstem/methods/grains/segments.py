"""Connected positions of like orientation, their means and their table."""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fourdstem.rotations import angle_deg, conjugate, disorientation, from_matrix, multiply

_ROUNDS = 3  # of the mean: positions are moved to their equivalents nearest to the last mean


class Map:
    """An orientation map, flattened in scan order.

    Parameters
    ----------
    indexed : Indexed or orientation.Result
    crystals : list of Crystal
    minimum_reliability : float

    Attributes
    ----------
    shape : tuple of int
        (scan_y, scan_x).
    orientation : ndarray of shape (n, 4)
        Unit quaternions, NaN where there is none.
    phase : ndarray of int, shape (n,)
        -1 where nothing was indexed, or not reliably.
    raw_phase : ndarray of int, shape (n,)
        -1 where nothing was indexed.
    correlation, reliability : ndarray of shape (n,)
    operations : list of ndarray of shape (m, 4)
        Rotations of each phase's Laue group.
    """

    def __init__(self, indexed, crystals, minimum_reliability: float):
        self.crystals = list(crystals)
        self.shape = indexed.phase.shape
        orientation = np.asarray(indexed.orientation, float).reshape(-1, 4)
        known = np.isfinite(orientation).all(axis=1) & (np.ravel(indexed.phase) >= 0)
        norm = np.linalg.norm(orientation, axis=1, keepdims=True)
        self.orientation = np.where(known[:, None], orientation / np.where(norm > 0, norm, np.nan), np.nan)
        self.correlation = np.asarray(indexed.correlation, float).ravel()
        self.reliability = np.asarray(indexed.reliability, float).ravel()
        self.raw_phase = np.where(known, np.ravel(indexed.phase), -1).astype(np.int64)
        # A reliability that is not known (a single candidate, a foreign file) excludes nothing.
        weak = self.reliability < minimum_reliability
        self.phase = np.where(weak, -1, self.raw_phase)
        self.operations = [from_matrix(crystal.operations) for crystal in crystals]


@dataclass(frozen=True)
class Pairs:
    """Neighbouring positions: along scan_x in scan order, then along scan_y.

    Attributes
    ----------
    first, second : ndarray of int, shape (pairs,)
        ``y * scan_x + x``; the second is one step right of, or below, the first.
    along_x : int
        How many of the pairs lie along scan_x.
    turn : ndarray of shape (pairs, 4)
        From the first to the second orientation, crystal frame; NaN unless both have one phase.
    angle_deg : ndarray of shape (pairs,)
    """

    first: np.ndarray
    second: np.ndarray
    along_x: int
    turn: np.ndarray
    angle_deg: np.ndarray

    def within(self, grain: np.ndarray, threshold_deg: float) -> np.ndarray:
        """Tell which pairs lie within one grain without a jump."""
        with np.errstate(invalid="ignore"):
            smooth = self.angle_deg <= threshold_deg
        return smooth & (grain[self.first] >= 0) & (grain[self.first] == grain[self.second])


def neighbours(here: Map) -> Pairs:
    """Return all pairs of first neighbours and the turns between them."""
    index = np.arange(here.phase.size).reshape(here.shape)
    first = np.concatenate([index[:, :-1].ravel(), index[:-1].ravel()])
    second = np.concatenate([index[:, 1:].ravel(), index[1:].ravel()])
    turn = np.full((first.size, 4), np.nan)
    for phase, operations in enumerate(here.operations):
        both = (here.phase[first] == phase) & (here.phase[second] == phase)
        turn[both] = disorientation(here.orientation[first[both]], here.orientation[second[both]], operations)
    return Pairs(first, second, index[:, :-1].size, turn, angle_deg(turn))


def find_grains(here: Map, pairs: Pairs, threshold_deg: float, minimum_px: int) -> tuple[np.ndarray, np.ndarray]:
    """Return connected regions of all sizes, and those large enough to be grains, both numbered in scan order."""
    with np.errstate(invalid="ignore"):
        joined = pairs.angle_deg <= threshold_deg
    size = here.phase.size
    graph = coo_array((np.ones(joined.sum(), bool), (pairs.first[joined], pairs.second[joined])), shape=(size, size))
    segment = _numbered(connected_components(graph, directed=False)[1], here.phase >= 0)
    count = np.bincount(segment[segment >= 0], minlength=1)
    return segment, _numbered(segment, (segment >= 0) & (count[segment] >= minimum_px))


def _numbered(label: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Number labels by their first position in scan order; -1 where not wanted."""
    out = np.full(label.size, -1, np.int32)
    found, first, inverse = np.unique(label[wanted], return_index=True, return_inverse=True)
    rank = np.empty(len(found), np.int32)
    rank[np.argsort(first, kind="stable")] = np.arange(len(found))
    out[wanted] = rank[inverse]
    return out


def average(here: Map, grain: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean orientation of every grain.

    Every orientation is moved to its equivalent nearest to a reference, first the one of highest correlation in
    the grain, then the last mean. The mean is the quaternion of largest sum of squared scalar products (Markley
    et al. 2007, doi:10.2514/1.28949).

    Returns
    -------
    mean : ndarray of shape (grains, 4)
    aligned : ndarray of shape (n, 4)
        Equivalents nearest to the mean; NaN outside grains.
    away_deg : ndarray of shape (n,)
        Misorientation from the mean (GROD); NaN outside grains.
    """
    inside = np.flatnonzero(grain >= 0)
    label, count = grain[inside], int(grain.max(initial=-1)) + 1
    aligned, away = np.full((grain.size, 4), np.nan), np.full(grain.size, np.nan)
    best = inside[np.lexsort((-np.nan_to_num(here.correlation[inside]), label))]
    mean = here.orientation[best[np.unique(grain[best], return_index=True)[1]]].reshape(count, 4)
    for _ in range(_ROUNDS):
        near = _nearest(here, inside, mean[label])
        products = np.einsum("ni,nj->nij", near, near).reshape(-1, 16)
        total = np.stack([np.bincount(label, column, count) for column in products.T], axis=1).reshape(count, 4, 4)
        mean = np.linalg.eigh(total)[1][..., -1]
        mean = np.where(mean[:, :1] < 0, -mean, mean)
    near = _nearest(here, inside, mean[label])
    aligned[inside] = near
    away[inside] = angle_deg(multiply(near, conjugate(mean[label])))
    return mean, aligned, away


def _nearest(here: Map, inside: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the equivalents nearest to reference orientations, on the same side of the sphere of quaternions."""
    out = np.empty((inside.size, 4))
    for phase, operations in enumerate(here.operations):
        mine = here.phase[inside] == phase
        turn = disorientation(reference[mine], here.orientation[inside[mine]], operations)
        out[mine] = multiply(turn, reference[mine])
    return out


def describe(here: Map, grain, mean, away, floor, step_nm) -> dict:
    """Return the table of grains, by the names of `Result`."""
    inside = np.flatnonzero(grain >= 0)
    label, count = grain[inside], len(mean)
    size = np.bincount(label, minlength=count)
    y, x = (part.astype(float) for part in np.divmod(inside, here.shape[1]))

    def over(values) -> np.ndarray:
        known = np.isfinite(values)
        number = np.bincount(label[known], minlength=count)
        total = np.bincount(label[known], values[known], count)
        return np.divide(total, number, out=np.full(count, np.nan), where=number > 0).astype(np.float32)

    edge = (y == 0) | (x == 0) | (y == here.shape[0] - 1) | (x == here.shape[1] - 1)
    area = size * step_nm[0] * step_nm[1]
    phase = np.zeros(count, np.int16)
    phase[label] = here.phase[inside]
    return {
        "grain_phase": phase,
        "grain_size_px": size.astype(np.int32),
        "grain_area_nm2": area.astype(np.float32),
        "grain_diameter_nm": (2 * np.sqrt(area / np.pi)).astype(np.float32),
        "grain_centroid_px": np.stack([over(y), over(x)], axis=1),
        "grain_orientation": mean.astype(np.float32),
        "grain_spread_deg": over(away[inside]),
        "grain_kam_floor_deg": over(floor[inside]),
        "grain_correlation": over(here.correlation[inside]),
        "grain_reliability": over(here.reliability[inside]),
        "grain_on_edge": (np.bincount(label[edge], minlength=count) > 0).astype(np.uint8),
        "grain_aspect_ratio": _aspect(label, size, y, x, step_nm),
    }


def _aspect(label, size, y, x, step_nm) -> np.ndarray:
    """Ratio of the axes of the ellipse with the same second moments; a position is a rectangle, not a point."""
    dy, dx = (1.0, 1.0) if np.isnan(step_nm).any() else step_nm
    y, x, count = y * dy, x * dx, len(size)

    def moment(a, b) -> np.ndarray:
        total = np.bincount(label, a * b, count) / size
        return total - np.bincount(label, a, count) * np.bincount(label, b, count) / size**2

    tensor = np.array([[moment(y, y) + dy**2 / 12, moment(y, x)], [moment(y, x), moment(x, x) + dx**2 / 12]])
    low, high = np.linalg.eigvalsh(np.moveaxis(tensor, -1, 0)).T
    return np.sqrt(high / low).astype(np.float32)
