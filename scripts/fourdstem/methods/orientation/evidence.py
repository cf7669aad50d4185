"""What an answer of the matcher looks like: the features that the probability of being right is a function of.

They are the correlation of the best candidate; by how much it stands above the second, third and last one; how many
reflections its zone axis shows; what eight others say of it (how many are indexed alike, and by how much they prefer it
to what else they fit); and how many patterns went into an average. The others are the eight neighbours, whose noise is
their own; for averages, whose neighbours share noise, eight members of the average, picked evenly along its weights.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from fourdstem.methods.orientation.rotations import (
    misorientation_deg,
    reduced_directions,
    to_matrix,
    zone_orientations,
)
from fourdstem.methods.orientation.templates import intensity_model, relrod, rods, scale

RIGHT_DEG = 5.0
FEATURES = (
    "correlation", "above_second", "above_third", "above_last", "reflections", "agreement", "preference", "averaged",
)  # fmt: skip
OTHERS = 8
# Zone axes at which reflections are counted, and half the width of tilts over which they are averaged.
_ZONES_DEG, _SOFT_DEG = 2.0, 0.5
# Positions whose others are compared at a time: bounds memory.
_AT_ONCE = 1024


@dataclass(frozen=True)
class Averages:
    """What averaged patterns are made of.

    Attributes
    ----------
    picked : ndarray of int, shape (scan_y, scan_x, 8)
        See `pick`.
    number : ndarray of shape (scan_y, scan_x)
        Effective number of patterns, (Σ w)² / Σ w².
    """

    picked: np.ndarray
    number: np.ndarray


@dataclass(frozen=True)
class Said:
    """What others say of the best candidate of a pattern; NaN where there is none, or no other.

    Attributes
    ----------
    alike : ndarray of shape (pattern, other)
        1 where the other's best candidate has the same phase and lies within 5°, else 0.
    preference : ndarray of shape (pattern, other)
        The other's correlation with this orientation (that of its last candidate, if none lies within 5°) less that
        with the best one farther away.
    foreign : ndarray of shape (pattern, other)
        The preference of the same pattern, if it had nothing like this orientation among its candidates.
    """

    alike: np.ndarray
    preference: np.ndarray
    foreign: np.ndarray


def averages(member, weight) -> Averages:
    """Look up what averages are made of, from members and weights as for `pick`."""
    shares = np.where(np.asarray(member) >= 0, np.asarray(weight, np.float64), 0)
    number = shares.sum(axis=-1) ** 2 / np.maximum((shares**2).sum(axis=-1), 1e-30)
    return Averages(pick(member, weight), np.maximum(number, 1))


def said(result, others: np.ndarray, crystals) -> Said:
    """Ask others of every best candidate.

    Parameters
    ----------
    result : Result
    others : ndarray of int, shape (pattern, other)
        Flat indices of other patterns; -1: none.
    crystals : list of Crystal
    """
    parts = [_said(result, slice(i, i + _AT_ONCE), others, crystals) for i in range(0, len(others), _AT_ONCE)]
    return Said(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _said(result, some: slice, others, crystals) -> tuple[np.ndarray, ...]:
    count = result.candidate_phase.shape[-1]
    phase = result.candidate_phase.reshape(-1, count)
    best = result.candidate_orientation.reshape(-1, count, 4)
    score = np.nan_to_num(result.candidate_correlation).reshape(-1, count).astype(float)
    other, own, mine = others[some], phase[some, 0], best[some, 0]
    known = (other >= 0) & (phase[other, 0] >= 0) & (own >= 0)[:, None]
    same = np.zeros((*other.shape, count), bool)
    for index, crystal in enumerate(crystals):
        i, j, k = np.nonzero((known & (own == index)[:, None])[..., None] & (phase[other] == index))
        same[i, j, k] = misorientation_deg(mine[i], best[other[i, j], k], crystal) <= RIGHT_DEG
    theirs = score[other]
    with_it = np.where(same.any(axis=-1), np.where(same, theirs, -1).max(axis=-1), theirs[..., -1])
    without = np.where(same.all(axis=-1), theirs[..., -1], np.where(same, -1, theirs).max(axis=-1))
    told = same[..., 0], with_it - without, theirs[..., -1] - theirs[..., 0]
    return tuple(np.where(known, values, np.nan) for values in told)


def neighbours(shape) -> np.ndarray:
    """Flat indices of the eight neighbours of every position of a scan, (scan_y, scan_x, 8); -1: none."""
    ny, nx = shape
    out = np.full((ny, nx, OTHERS), -1)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    y, x = np.mgrid[:ny, :nx]
    for k, (dy, dx) in enumerate(steps):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        out[..., k] = np.where(inside, (y + dy) * nx + x + dx, -1)
    return out


def mates(count: int, patch: int) -> np.ndarray:
    """Flat indices of the other patterns of the patch, (count, patch - 1); -1: none. Patches are ``patch`` in a row."""
    own = np.arange(count)[:, None]
    others = own // patch * patch + (own + np.arange(1, patch)) % patch
    return np.where(others < count, others, -1)


def mean_of(values: np.ndarray, shape) -> np.ndarray:
    """Mean over the others, in the shape of a scan; NaN where there are none."""
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan).reshape(shape)


def features(result, crystals, cube, params, alike, preference, number) -> np.ndarray:
    """Return the features (scan_y, scan_x, feature); NaN where a position has no candidate, or no others.

    Parameters
    ----------
    result : Result
        A candidate that is missing correlates as 0.
    crystals : list of Crystal
    cube : Cube
        Of which only acquisition and detector count.
    params : Params
    alike, preference, number : ndarray of shape (scan_y, scan_x)
        What the others say (see `said`), and the effective number of patterns in an average.
    """
    score = result.candidate_correlation
    best, others = score[..., 0].astype(float), np.nan_to_num(score).astype(float)
    count = score.shape[-1]
    above = [best - others[..., min(k, count - 1)] for k in (1, 2, count - 1)]
    rich = reflections(result, crystals, cube, params)
    return np.stack([best, *above, rich, alike, preference, np.log(np.broadcast_to(number, best.shape))], axis=-1)


def reflections(result, crystals, cube, params) -> np.ndarray:
    """Logarithm of the effective number of reflections at the zone axis of the best candidate, (scan_y, scan_x).

    (Σ a)² / Σ a² over the amplitudes a = I^power of the template: a few strong reflections fit many orientations.
    It depends on the zone axis alone and is looked up every 2°. NaN where there is no candidate.
    """
    phase, best = result.candidate_phase[..., 0], result.candidate_orientation[..., 0, :]
    out = np.full(phase.shape, np.nan)
    for index, crystal in enumerate(crystals):
        here = phase == index
        if here.any():
            zones = reduced_directions(crystal.operations, _ZONES_DEG)
            number = _effective_number(crystal, zone_orientations(zones), cube, params)
            images = np.concatenate([crystal.operations, -crystal.operations]) @ zones.T
            tree = cKDTree(np.moveaxis(images, 1, 2).reshape(-1, 3))
            nearest = tree.query(to_matrix(best[here].astype(float))[..., :, 2])[1] % len(zones)
            out[here] = np.log(number[nearest])
    return out


def _effective_number(crystal, matrices, cube, params) -> np.ndarray:
    pixel, wavelength = scale(cube.acquisition)
    g_max = params.g_max_inv_angstrom or (min(cube.detector_shape) - 1) / 2 * pixel
    precession, convergence = cube.acquisition.precession_mrad, cube.acquisition.convergence_mrad or 0.0
    model = intensity_model(params.intensity, precession)
    g, strength, length = rods(crystal, g_max, wavelength, params.thickness_angstrom, model)
    half_width = np.hypot(convergence * 1e-3, np.deg2rad(_SOFT_DEG))
    number = np.ones(len(matrices))
    for i, matrix in enumerate(matrices):
        weight = relrod(g @ matrix, wavelength, length, precession * 1e-3, half_width, params.relrod == "gaussian")
        amplitude = strength * weight
        amplitude = (amplitude / amplitude.max(initial=1e-30)) ** params.intensity_power
        number[i] = max(amplitude.sum() ** 2 / max((amplitude**2).sum(), 1e-30), 1.0)
    return number


def pick(member, weight) -> np.ndarray:
    """Pick eight members of every average, evenly along its weights: their mean is that of the members by weight.

    Parameters
    ----------
    member : array-like of int, shape (scan_y, scan_x, k)
        Flat index y * scan_x + x; -1: none.
    weight : array-like of shape (scan_y, scan_x, k)

    Returns
    -------
    ndarray of int, shape (scan_y, scan_x, 8)
        -1 where nothing but the position itself has weight.
    """
    ny, nx, _ = member.shape
    out = np.full((ny, nx, OTHERS), -1)
    for y in range(ny):
        others, shares = np.asarray(member[y]), np.asarray(weight[y], np.float64)
        own = others == (y * nx + np.arange(nx))[:, None]
        shares = np.where((others >= 0) & ~own, shares, 0)
        order = np.argsort(-shares, axis=1, kind="stable")
        upto = np.cumsum(np.take_along_axis(shares, order, 1), axis=1)
        for x in np.flatnonzero(upto[:, -1] > 0):
            at = np.searchsorted(upto[x], (np.arange(OTHERS) + 0.5) / OTHERS * upto[x, -1])
            out[y, x] = others[x, order[x, np.minimum(at, len(order[x]) - 1)]]
    return out
