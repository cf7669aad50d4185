"""Where columns are thought to be, which positions belong to them, and sites where nothing should be."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

TRIALS = 400  # shifts of the template among which the emptiest and a wrong one are chosen


@dataclass(frozen=True)
class Species:
    """One species as its template sees it.

    Attributes
    ----------
    name : str
    site_px : ndarray of shape (site, 2) or None
        Columns (y, x), those beyond the edge of the scan included; None for a picture.
    width_angstrom : float
    picture : ndarray of shape (scan_y, scan_x) or None
    """

    name: str
    site_px: np.ndarray | None
    width_angstrom: float
    picture: np.ndarray | None = None

    def template(self, shape, step, shift_angstrom=(0.0, 0.0)) -> np.ndarray:
        """Return the template (scan_y, scan_x), shifted by (y, x) in Å."""
        shift = np.asarray(shift_angstrom) / step
        if self.picture is not None:
            return ndimage.shift(self.picture, shift, order=1, mode="nearest") if shift.any() else self.picture
        return gaussians(self.site_px + shift, self.width_angstrom, shape, step)

    def columns(self, shape) -> np.ndarray:
        """Return the columns inside the scan, (column, 2) in px; of a picture, the middles of its bright parts."""
        if self.picture is not None:
            return self._middles
        inside = ((self.site_px >= 0) & (self.site_px <= np.array(shape) - 1)).all(axis=1)
        return self.site_px[inside]

    @cached_property
    def _middles(self) -> np.ndarray:
        label, count = parts(self.picture)
        inside = np.nonzero(label >= 0)
        of = label[inside]
        return np.stack([np.bincount(of, axis, count) for axis in inside], axis=1) / np.bincount(of)[:, None]


def gaussians(site_px: np.ndarray, width_angstrom: float, shape, step) -> np.ndarray:
    """Return a sum of Gaussians of height 1 at sites (site, 2), px; ``step`` (y, x) in Å."""
    out = np.zeros(shape)
    reach = np.ceil(4 * width_angstrom / np.asarray(step)).astype(int)
    for place in site_px:
        low = np.maximum(np.floor(place - reach).astype(int), 0)
        high = np.minimum(np.ceil(place + reach).astype(int) + 1, shape)
        if (low >= high).any():
            continue
        y, x = (np.arange(a, b) for a, b in zip(low, high, strict=True))
        dy, dx = (y - place[0]) * step[0], (x - place[1]) * step[1]
        out[low[0] : high[0], low[1] : high[1]] += np.exp(-0.5 * (dy[:, None] ** 2 + dx**2) / width_angstrom**2)
    return out


def parts(picture: np.ndarray) -> tuple[np.ndarray, int]:
    """Return connected parts brighter than half of a picture's range: labels from 0, -1 elsewhere; their number."""
    low, high = picture.min(), picture.max()
    label, count = ndimage.label(picture > (low + high) / 2)
    return label - 1, count


@dataclass(frozen=True)
class Cores:
    """Positions by column, and those of the background."""

    label: np.ndarray  # int (scan_y, scan_x), -1 = none
    background: np.ndarray  # bool (scan_y, scan_x)


def cores(columns_px, everything_px, shape, step, core: float, background: float) -> Cores:
    """Assign positions to columns.

    Parameters
    ----------
    columns_px, everything_px : ndarray of shape (column, 2)
        Columns of the species, and those of all species.
    core, background : float
        Å: nearer than this belongs to a column; farther than this from all columns is background.
    """
    grid = np.indices(shape).reshape(2, -1).T * np.asarray(step)
    label = np.full(len(grid), -1)
    if len(columns_px):
        near, index = cKDTree(columns_px * step).query(grid)
        label = np.where(near <= core, index, -1)
    far = cKDTree(np.concatenate([everything_px, columns_px]) * step).query(grid)[0] > background
    return Cores(label.reshape(shape), far.reshape(shape))


def picture_cores(picture: np.ndarray) -> Cores:
    """Assign positions to the bright parts of a picture; its darkest tenth of the range is background."""
    low, high = picture.min(), picture.max()
    return Cores(parts(picture)[0], picture <= low + 0.1 * (high - low))


def decoys(species: list[Species], basis, shape, step, seed: int) -> list[tuple[Species, Species]]:
    """Return, per species, the same sites moved to where there is nothing, and to wrong sites.

    Parameters
    ----------
    basis : ndarray of shape (2, 2) or None
        Lattice vectors in Å; without them shifts are tried within twice the largest width.
    seed : int
        Of the wrong sites.
    """
    rng = np.random.default_rng(seed)
    everything = [s.columns(shape) * step for s in species]
    tree = cKDTree(np.concatenate(everything))
    made = []
    for one, own in zip(species, everything, strict=True):
        if one.picture is not None:
            made.append(_rolled(one, rng, shape, step))
            continue
        shifts = _shifts(basis, own, rng)
        inner = own[_inside(own, shape, step)]
        moved = (inner[None] + shifts[:, None]).reshape(-1, 2)
        nearest = np.quantile(tree.query(moved)[0].reshape(len(shifts), -1), 0.1, axis=1)
        empty = shifts[nearest.argmax()]
        apart = np.quantile(cKDTree(own).query(moved)[0].reshape(len(shifts), -1), 0.1, axis=1)
        far = np.linalg.norm(shifts - empty, axis=1)
        wrong = shifts[np.argmax(np.minimum(apart, 1.0) + np.minimum(far, 1.0) - 0.5 * nearest / nearest.max())]
        made.append(tuple(Species(one.name, one.site_px + s / step, one.width_angstrom) for s in (empty, wrong)))
    return made


def _inside(places, shape, step) -> np.ndarray:
    """Tell which places are not at the edge; all where that leaves none."""
    span = (np.array(shape) - 1) * step
    inner = ((places > 0.15 * span) & (places < 0.85 * span)).all(axis=1)
    return inner if inner.any() else np.ones(len(places), bool)


def _shifts(basis, own, rng) -> np.ndarray:
    if basis is None:
        reach = np.median(cKDTree(own).query(own, k=min(2, len(own)))[0][:, -1]) if len(own) > 1 else 3.0
        return rng.uniform(-1, 1, (TRIALS, 2)) * max(reach, 1.5)
    side = int(np.sqrt(TRIALS))
    part = np.stack(np.meshgrid(*[np.arange(side) / side] * 2, indexing="ij"), -1).reshape(-1, 2)
    return (part - np.round(part)) @ basis


def _rolled(one: Species, rng, shape, step) -> tuple[Species, Species]:
    """Move a picture round the scan: to where it covers itself least, and at random."""
    bright = one.picture - one.picture.min()
    rolls = [tuple(int(v) for v in rng.integers(0, shape)) for _ in range(64)]
    common = [float((bright * np.roll(bright, r, (0, 1))).sum()) for r in rolls]
    chosen = (rolls[int(np.argmin(common))], rolls[0])
    return tuple(Species(one.name, None, one.width_angstrom, np.roll(one.picture, r, (0, 1))) for r in chosen)
