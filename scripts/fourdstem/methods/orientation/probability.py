"""The probability that an indexed orientation is right, calibrated on simulation.

Right means: the phase is the true one and the orientation lies within 5° of the true one, symmetry considered; where
the probe sees two crystals, the true one is that with the larger share. The matcher is rehearsed on simulated patterns
whose truth is known (``simulate.rehearsal``), and a logistic regression on a few features of its answer is fitted::

    P = 1 / (1 + exp(-(b0 + Σ b_k z_k))),   z: standardised features, their squares and products

by maximum likelihood with a ridge penalty, so that features without information get no weight. Everything is refitted
for each scan and source: nothing is taken for granted of how the matcher scores.

Features: correlation of the best candidate; by how much it stands above the second, third and last one; how many
reflections its zone axis shows; share of eight others that are indexed alike. These are the eight neighbours, whose
noise is their own; for averages, whose neighbours share noise, eight members of the average, picked evenly along its
weights.
"""

import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from fourdstem.methods.orientation.rotations import (
    misorientation_deg,
    reduced_directions,
    to_matrix,
    zone_orientations,
)
from fourdstem.methods.orientation.templates import intensity_model, relrod, rods, scale

log = logging.getLogger("fourdstem")

RIGHT_DEG = 5.0
FEATURES = ("correlation", "above_second", "above_third", "above_last", "reflections", "agreement")
OTHERS = 8
# Penalty on squared coefficients of standardised features, in units of one pattern's log likelihood: some patches'.
_RIDGE = 30.0
_FOLDS = 5
# Zone axes at which reflections are counted, and half the width of tilts over which they are averaged.
_ZONES_DEG, _SOFT_DEG = 2.0, 0.5
# Of eight neighbours, those beyond a straight boundary next to a position.
_BEYOND = 3 / 8
_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """A fitted model, and what it predicts for rehearsed patterns that it was not fitted to.

    Attributes
    ----------
    centre, scale : ndarray of shape (feature,)
        Mean and standard deviation of the features over the rehearsed patterns.
    coefficient : ndarray of shape (term,)
        b0, those of the features, of their squares and products (upper triangle, row by row).
    predicted : ndarray of shape (pattern,)
        Probability, by a model that was fitted to other patches.
    right : ndarray of bool, shape (pattern,)
    beyond : float
        Share of the others that lie beyond a boundary, as the agreement within the scan tells.
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficient: np.ndarray
    predicted: np.ndarray
    right: np.ndarray
    beyond: float


def calibrate(result, rehearsed, truth, patch: int, crystals, params, picked=None) -> Calibration | None:
    """Fit the probability of being right to rehearsed patterns.

    Parameters
    ----------
    result : Result
        Of the scan; only how often its positions agree is taken from it.
    rehearsed : Result
        Of the rehearsed patterns.
    truth : Rehearsal or alike
        Has ``orientation``, ``phase`` and ``share`` (of a foreign crystal) of the rehearsed patterns, and ``cube``,
        of which only acquisition and detector count.
    patch : int
        So many rehearsed patterns in a row belong to one patch.
    crystals : list of Crystal
    params : Params
        ``seed`` is that of the choice of patterns at a boundary and of the folds.
    picked : ndarray, optional
        See `agreement`.

    Returns
    -------
    Calibration or None
        None where the rehearsal tells nothing: fewer than ten patterns are right, or fewer than ten wrong.
    """
    alike = _alike_in_patches(rehearsed, patch, crystals)
    within, found = np.nanmean(alike), np.nanmean(agreement(result, crystals, picked))
    beyond = float(np.clip(1 - found / within, 0, 0.6)) if within > 0 and np.isfinite(found) else 0.0
    rng = np.random.default_rng(np.random.SeedSequence(params.seed, spawn_key=(7,)))
    agreed = _at_boundaries(alike, truth.share.ravel(), beyond, rng)
    rich = reflections(rehearsed, crystals, truth.cube, params)
    values = _features(rehearsed.candidate_correlation, rich, agreed.reshape(rehearsed.phase.shape))
    known = np.isfinite(values).all(axis=-1).ravel()
    x, y = values.reshape(-1, len(FEATURES))[known], right(rehearsed, truth, crystals).ravel()[known]
    if min(y.sum(), (~y).sum()) < OTHERS + 2:
        return None
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    terms = _terms((x - centre) / scale)
    group = np.arange(known.size)[known] // patch
    fold = rng.permutation(group.max() + 1)[group] % _FOLDS
    predicted = np.empty(len(y))
    for k in range(_FOLDS):
        predicted[fold == k] = _logistic(terms[fold == k] @ fit(terms[fold != k], y[fold != k]))
    return Calibration(centre, scale, fit(terms, y), predicted, y, beyond)


def probability(result, calibration: Calibration, crystals, cube, params, picked=None) -> np.ndarray:
    """Probability of being right of every position, float32; NaN where not indexed (see `calibrate`)."""
    agreed = agreement(result, crystals, picked)
    agreed = np.where(np.isfinite(agreed), agreed, calibration.centre[-1])
    values = _features(result.candidate_correlation, reflections(result, crystals, cube, params), agreed)
    terms = _terms((values.reshape(-1, len(FEATURES)) - calibration.centre) / calibration.scale)
    found = _logistic(terms @ calibration.coefficient).reshape(result.phase.shape)
    return np.where(result.phase >= 0, found, np.nan).astype(np.float32)


def right(result, truth, crystals) -> np.ndarray:
    """Tell where the best candidate has the true phase and lies within 5° of the true orientation."""
    best, phase = result.candidate_orientation[..., 0, :], result.candidate_phase[..., 0]
    found = np.zeros(phase.shape, bool)
    for index, crystal in enumerate(crystals):
        both = (np.asarray(truth.phase) == index) & (phase == index)
        found[both] = misorientation_deg(truth.orientation[both], best[both], crystal) <= RIGHT_DEG
    return found


def agreement(result, crystals, picked=None) -> np.ndarray:
    """Share of others whose best candidate has the same phase and lies within 5°, (scan_y, scan_x).

    Parameters
    ----------
    result : Result
    crystals : list of Crystal
    picked : ndarray of int, shape (scan_y, scan_x, 8), optional
        Flat indices y * scan_x + x of the others, from `pick`; -1: none. Without it they are the neighbours.

    Returns
    -------
    ndarray
        NaN where a position, or all of its others, have no candidate.
    """
    if picked is None:
        picked = _neighbours(result.phase.shape)
    phase, best = result.candidate_phase[..., 0].ravel(), result.candidate_orientation[..., 0, :].reshape(-1, 4)
    picked = picked.reshape(len(phase), -1)
    known = (picked >= 0) & (phase[picked] >= 0) & (phase >= 0)[:, None]
    alike = _alike(np.arange(len(phase))[:, None], picked, known, phase, best, crystals)
    count = known.sum(axis=1)
    share = np.where(count > 0, alike.sum(axis=1) / np.maximum(count, 1), np.nan)
    return share.reshape(result.phase.shape)


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
        amplitude = strength * relrod(g @ matrix, wavelength, length, precession * 1e-3, half_width)
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


def scores(predicted: np.ndarray, outcome: np.ndarray) -> dict[str, float]:
    """Return ``ece``, ``auc``, ``brier`` and ``brier_of_base_rate`` of predicted probabilities.

    Expected calibration error: mean distance of predicted from observed shares over ten equal bins, by counts. Area
    under the curve of true against false positives: how often a right pattern has the higher probability (ties: half);
    NaN where all are right or all wrong. Brier score: mean square of probability minus outcome; that of the base rate
    r is r (1 - r).
    """
    p, y = np.asarray(predicted, float), np.asarray(outcome, bool)
    _, mean, share, count = curve(p, y)
    used = count > 0
    ranks = np.unique(p, return_inverse=True, return_counts=True)
    middle = (np.cumsum(ranks[2]) - (ranks[2] - 1) / 2)[ranks[1]]
    positive, negative = y.sum(), (~y).sum()
    auc = np.nan
    if positive and negative:
        auc = (middle[y].sum() - positive * (positive + 1) / 2) / (positive * negative)
    return {
        "ece": float((np.abs(mean - share)[used] * count[used]).sum() / max(count.sum(), 1)),
        "auc": float(auc),
        "brier": float(((p - y) ** 2).mean()) if len(p) else np.nan,
        "brier_of_base_rate": float(y.mean() * (1 - y.mean())) if len(p) else np.nan,
    }


def curve(predicted: np.ndarray, outcome: np.ndarray) -> tuple[np.ndarray, ...]:
    """Reliability diagram: lower edges of ten bins, mean prediction, observed share (NaN: empty) and count of each."""
    which = np.minimum((np.asarray(predicted) * _BINS).astype(int), _BINS - 1)
    count = np.bincount(which, minlength=_BINS)
    with np.errstate(invalid="ignore"):
        mean, share = (np.bincount(which, values, minlength=_BINS) / count for values in (predicted, outcome))
    return np.arange(_BINS) / _BINS, mean, share, count


def fit(terms: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression with a ridge penalty, by Newton's method; the first has no penalty."""
    y, b = outcome.astype(float), np.zeros(terms.shape[1])
    penalty = np.r_[0.0, np.full(terms.shape[1] - 1, _RIDGE)]
    for _ in range(50):
        p = _logistic(terms @ b)
        gradient = terms.T @ (y - p) - penalty * b
        step = np.linalg.solve((terms.T * (p * (1 - p))) @ terms + np.diag(penalty + 1e-9), gradient)
        b += step / max(1.0, np.abs(step).max())  # no step beyond 1: far from the maximum Newton's may overshoot
        if np.abs(step).max() < 1e-9:
            break
    return b


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def _terms(z: np.ndarray) -> np.ndarray:
    """1, features, squares and products; features far beyond what was rehearsed count as at 3 standard deviations."""
    z = np.clip(z, -3, 3)
    i, j = np.triu_indices(z.shape[1])
    return np.column_stack([np.ones(len(z)), z, z[:, i] * z[:, j]])


def _features(score: np.ndarray, rich: np.ndarray, agreed: np.ndarray) -> np.ndarray:
    """(scan_y, scan_x, feature); a candidate that is missing correlates as 0. NaN where there is none at all."""
    best, others = score[..., 0].astype(float), np.nan_to_num(score).astype(float)
    count = score.shape[-1]
    above = [best - others[..., min(k, count - 1)] for k in (1, 2, count - 1)]
    return np.stack([best, *above, rich, agreed], axis=-1)


def _neighbours(shape) -> np.ndarray:
    ny, nx = shape
    out = np.full((ny, nx, OTHERS), -1)
    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    y, x = np.mgrid[:ny, :nx]
    for k, (dy, dx) in enumerate(steps):
        inside = (y + dy >= 0) & (y + dy < ny) & (x + dx >= 0) & (x + dx < nx)
        out[..., k] = np.where(inside, (y + dy) * nx + x + dx, -1)
    return out


def _alike(first, second, known, phase, best, crystals) -> np.ndarray:
    """Which pairs of flat indices have one phase and orientations within 5°."""
    first, second = np.broadcast_arrays(first, second)
    out = np.zeros(first.shape, bool)
    for index, crystal in enumerate(crystals):
        both = known & (phase[first] == index) & (phase[second] == index)
        out[both] = misorientation_deg(best[first[both]], best[second[both]], crystal) <= RIGHT_DEG
    return out


def _alike_in_patches(rehearsed, patch: int, crystals) -> np.ndarray:
    """Agreement with each other pattern of the patch, (pattern, patch - 1); NaN where there is none."""
    phase = rehearsed.candidate_phase[..., 0].ravel()
    best = rehearsed.candidate_orientation[..., 0, :].reshape(-1, 4)
    own = np.arange(len(phase))[:, None]
    others = own // patch * patch + (own + np.arange(1, patch)) % patch
    inside = others < len(phase)
    others = np.where(inside, others, 0)
    known = inside & (phase[others] >= 0) & (phase >= 0)[:, None]
    return np.where(known, _alike(own, others, known, phase, best, crystals), np.nan)


def _at_boundaries(alike, mixed, beyond: float, rng) -> np.ndarray:
    """Share of the others that agree, if a part of them lay in another grain, which is indexed otherwise."""
    place = np.where(mixed > 0, -1.0, rng.random(len(mixed)))  # where two crystals are seen, a boundary is near
    near = place.argsort(kind="stable").argsort(kind="stable") < beyond / _BEYOND * len(mixed)
    lost = rng.permuted(np.arange(alike.shape[1])[None].repeat(len(alike), 0), axis=1) < _BEYOND * alike.shape[1]
    seen = np.where(near[:, None] & lost, np.where(np.isnan(alike), np.nan, 0), alike)
    count = np.isfinite(seen).sum(axis=1)
    return np.where(count > 0, np.nansum(seen, axis=1) / np.maximum(count, 1), np.nan)


def with_probability(result, rehearsed, truth, patch: int, crystals, params, picked=None):
    """Return the result with the probability of being right and what it was calibrated by (see `calibrate`).

    Positions below ``params.minimum_probability`` are not indexed: orientation NaN, phase -1; their probability and
    their candidates stay. Where the rehearsal tells nothing, probabilities are NaN and no position is taken away.
    """
    calibration = calibrate(result, rehearsed, truth, patch, crystals, params, picked)
    if calibration is None:
        log.warning("no probability: nearly all of the simulated patterns are indexed alike, rightly or wrongly")
        return replace(result, probability=np.full(result.phase.shape, np.nan, np.float32))
    told = scores(calibration.predicted, calibration.right)
    log.info("probability on simulated patterns: %s", ", ".join(f"{name} {value:.3f}" for name, value in told.items()))
    found = probability(result, calibration, crystals, truth.cube, params, picked)
    kept = ~(found < params.minimum_probability)
    return replace(
        result,
        orientation=np.where(kept[..., None], result.orientation, np.float32(np.nan)),
        phase=np.where(kept, result.phase, np.int16(-1)),
        probability=found,
        calibration_feature=FEATURES,
        calibration_centre=calibration.centre,
        calibration_scale=calibration.scale,
        calibration_coefficient=calibration.coefficient,
        calibration_predicted=calibration.predicted.astype(np.float32),
        calibration_right=calibration.right.astype(np.uint8),
        calibration_beyond=calibration.beyond,
    )
