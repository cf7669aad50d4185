"""Patterns whose truth is known: of structures kept apart, of small scans, and by many-beam theory of other code."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.special import erfc

from fourdstem.calibration import wavelength_angstrom
from fourdstem.methods.training import patterns
from fourdstem.methods.training.supply import EXTRA

NO_CURVES = np.zeros((0, 4)), np.zeros(0)
CAMERAS = (0.0203, 0.028)  # 1/Å per px at which the many-beam patterns are drawn
_EDGE = 0.5  # px, of many-beam disks
_DIFFUSE = 0.05  # share of the electrons between the many-beam disks


@dataclass(frozen=True)
class Known:
    """Expected patterns and what is known of them.

    Attributes
    ----------
    images : Tensor of float32, shape (n, y, x)
        Sums of 1.
    extras : Tensor of float32, shape (n, EXTRA)
        As `training.supply.pattern_row` makes them: centre, radius, 0, spots.
    edges : ndarray of shape (n,)
        Width of the disks' edges, px.
    """

    images: torch.Tensor
    extras: torch.Tensor
    edges: np.ndarray

    @property
    def radii(self) -> np.ndarray:
        """Of the disks, px."""
        return self.extras[:, 2].numpy()


def of_scenes(scenes) -> Known:
    """Draw scenes."""
    made = [patterns.drawn(scene) for scene in scenes]
    extras = np.stack([_extra(p.centre, p.radius, p.spots) for p in made])
    images = torch.from_numpy(np.stack([p.image for p in made]))
    return Known(images, torch.from_numpy(extras), np.array([scene.optics.edge for scene in scenes]))


def _extra(centre, radius, spots) -> np.ndarray:
    return np.concatenate([centre, [radius, 0], spots.ravel()]).astype(np.float32)[:EXTRA]


def of_share(seed: int, share: str, count: int) -> Known:
    """Return the first patterns of a part of the structures."""
    return of_scenes([patterns.draw_scene(seed, share, i) for i in range(count)])


def without_spots(seed: int, share: str, count: int) -> Known:
    """Return patterns of direct beam, background, halos and rings alone."""
    scenes = [patterns.draw_scene(seed, share, i) for i in range(count)]
    return of_scenes([replace(scene, tables=(), darkening=NO_CURVES) for scene in scenes])


def small_scans(seed: int, share: str, count: int, positions: int) -> list[Known]:
    """Return scans of four grains, ``positions`` in each."""
    return [of_scenes(patterns.draw_scan(seed, share, i, 4, positions)) for i in range(count)]


def many_beam(path, seed: int, flat: bool) -> Known:
    """Draw many-beam patterns, each thickness at each camera length, the beam up to 3 px off the middle.

    Parameters
    ----------
    path : path-like
        Intensities over a grid of directions in the disks; see ``tests/fixtures/make_dynamical_disks_fixture.py``.
    seed : int
        Of the places of the beam.
    flat : bool
        Disks hold their mean intensity instead, for comparison.
    """
    with np.load(path, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    rng = np.random.default_rng(seed)
    made = []
    for start, stop in zip(stored["first"], stored["first"][1:], strict=False):
        place = np.stack([stored["y"][start:stop], stored["x"][start:stop]], axis=1)
        for grids in _grids(stored["intensity"][:, start:stop], stored["offset"], flat):
            for pixel in CAMERAS:
                centre = (patterns.SIZE - 1) / 2 + rng.uniform(-3, 3, 2)
                made.append(_many_beam(place, grids, float(stored["convergence_mrad"]), pixel, centre))
    images, extras = (torch.from_numpy(np.stack([m[k] for m in made])) for k in (0, 1))
    return Known(images, extras, np.full(len(made), _EDGE))


def _grids(intensity, offset, flat: bool):
    """Yield, per thickness, intensities (reflection, y, x) on the whole grid of directions, corners filled."""
    axis = np.unique(offset[:, 0])
    where = tuple(np.searchsorted(axis, offset[:, k]) for k in (0, 1))
    missing = np.ones((len(axis), len(axis)), bool)
    missing[where] = False
    nearest = distance_transform_edt(missing, return_distances=False, return_indices=True)
    for table in intensity.astype(float):
        if flat:
            table = np.broadcast_to(table.mean(axis=1, keepdims=True), table.shape)
        grids = np.zeros((len(table), *missing.shape))
        grids[:, where[0], where[1]] = table
        yield grids[:, nearest[0], nearest[1]]


def _many_beam(place, grids, convergence_mrad: float, pixel: float, centre):
    """Return an image and its extra: disks of a 200 kV beam on a diffuse background."""
    per_px = 1e3 * wavelength_angstrom(200.0) * pixel  # mrad
    radius, last = convergence_mrad / per_px, grids.shape[1] - 1
    step = 2 * convergence_mrad / last
    rows, columns = np.indices((patterns.SIZE, patterns.SIZE))
    image, spots = np.zeros(rows.shape), []
    for (gy, gx), grid in zip(place, grids, strict=True):
        dy, dx = rows - centre[0] - gy / pixel, columns - centre[1] - gx / pixel
        near = np.abs(dy) + np.abs(dx) < 1.5 * (radius + 4)
        u = np.stack([dy[near], dx[near]])
        value = map_coordinates(grid, u * per_px / step + last / 2, order=1, mode="nearest")
        value = value * 0.5 * erfc((np.hypot(*u) - radius) / (np.sqrt(2) * _EDGE))
        image[near] += value
        if (gy, gx) != (0, 0):
            spots.append((centre[0] + gy / pixel, centre[1] + gx / pixel, value.sum()))
    r = np.hypot(rows - centre[0], columns - centre[1])
    total = image.sum() / (1 - _DIFFUSE)
    image += _DIFFUSE * total * np.exp(-r / 15) / np.exp(-r / 15).sum()
    spots = np.array(spots) / [1, 1, total]
    inside = ((spots[:, :2] > 0) & (spots[:, :2] < patterns.SIZE - 1)).all(axis=1)
    spots = spots[inside][np.argsort(-spots[inside, 2])][: patterns.SPOTS]
    kept = np.zeros((patterns.SPOTS, 3))
    kept[: len(spots)] = spots
    return (image / total).astype(np.float32), _extra(centre, radius, kept)
