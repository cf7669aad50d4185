"""The probability that an indexed orientation is right, calibrated on simulation.

Right means: the phase is the true one and the orientation lies within 5° of the true one, symmetry considered; where
the probe sees two crystals, the true one is that with the larger share. The matcher is rehearsed on simulated patterns
whose truth is known (``simulate.rehearsal``), and a logistic regression on a few features of its answer (`evidence`) is
fitted::

    P = 1 / (1 + exp(-(b0 + Σ b_k z_k + δ))),   z: standardised features, their squares and products

by maximum likelihood with a ridge penalty, so that features without information get no weight. Everything is refitted
for each scan and source: nothing is taken for granted of how the matcher scores. δ is 0 unless the scan's own
positions say that it has more or fewer right ones than the rehearsal (`base_rate`).
"""

import logging
from dataclasses import dataclass, replace

import numpy as np

from fourdstem.methods.orientation import base_rate
from fourdstem.methods.orientation.evidence import (
    FEATURES,
    OTHERS,
    RIGHT_DEG,
    Averages,
    Said,
    features,
    mates,
    mean_of,
    neighbours,
    said,
)
from fourdstem.methods.orientation.logistic import fitted, logistic, scores, terms
from fourdstem.methods.orientation.rotations import misorientation_deg

log = logging.getLogger("fourdstem")

# Of eight neighbours, those beyond a straight boundary next to a position.
_BEYOND = 3 / 8


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
    rate : float
        Share that is right of the rehearsed patterns that would be indexed.
    patches : int
    """

    centre: np.ndarray
    scale: np.ndarray
    coefficient: np.ndarray
    predicted: np.ndarray
    right: np.ndarray
    beyond: float
    rate: float
    patches: int


def calibrate(heard: Said, rehearsed, truth, patch: int, crystals, params, averages=None) -> Calibration | None:
    """Fit the probability of being right to rehearsed patterns.

    Parameters
    ----------
    heard : Said
        Of the scan, from `said_in_scan`; only how often its positions agree is taken from it.
    rehearsed : Result
        Of the rehearsed patterns.
    truth : Rehearsal or alike
        Has ``orientation``, ``phase``, ``share`` (of a foreign crystal) and ``number`` (of patterns in an average) of
        the rehearsed patterns, and ``cube``, of which only acquisition and detector count.
    patch : int
        So many rehearsed patterns in a row belong to one patch.
    crystals : list of Crystal
    params : Params
        ``seed`` is that of the choice of patterns at a boundary and of the folds.
    averages : Averages, optional
        What the scan's patterns are made of; without it they are not averaged, and its others are the neighbours.

    Returns
    -------
    Calibration or None
        None where the rehearsal tells nothing: fewer than ten patterns are right, or fewer than ten wrong.
    """
    shape = rehearsed.phase.shape
    told = said(rehearsed, mates(rehearsed.phase.size, patch), crystals)
    within, found = np.nanmean(told.alike), np.nanmean(mean_of(heard.alike, -1))
    beyond = float(np.clip(1 - found / within, 0, 0.6)) if within > 0 and np.isfinite(found) else 0.0
    rng = np.random.default_rng(np.random.SeedSequence(params.seed, spawn_key=(7,)))
    lost = (_beyond_boundaries if averages is None else _foreign)(told.alike.shape, truth.share.ravel(), beyond, rng)
    alike = np.where(lost & np.isfinite(told.alike), 0, told.alike)
    preference = np.where(lost, told.foreign, told.preference)
    about = mean_of(alike, shape), mean_of(preference, shape), truth.number
    values = features(rehearsed, crystals, truth.cube, params, *about)
    known = np.isfinite(values).all(axis=-1).ravel()
    x, y = values.reshape(-1, len(FEATURES))[known], right(rehearsed, truth, crystals).ravel()[known]
    if min(y.sum(), (~y).sum()) < OTHERS + 2:
        return None
    centre, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
    group = np.arange(known.size)[known] // patch
    coefficient, predicted = fitted((x - centre) / scale, y, group, rng)
    indexed = rehearsed.phase.ravel()[known] >= 0
    rate = float(np.clip(y[indexed].mean() if indexed.any() else y.mean(), 0.01, 0.99))
    return Calibration(centre, scale, coefficient, predicted, y, beyond, rate, int(group.max()) + 1)


def probability(result, heard: Said, calibration: Calibration, crystals, cube, params, averages=None) -> np.ndarray:
    """Probability of being right of every position, float32; NaN where not indexed (see `calibrate`)."""
    number = 1.0 if averages is None else averages.number
    about = (mean_of(values, result.phase.shape) for values in (heard.alike, heard.preference))
    values = features(result, crystals, cube, params, *about, number).reshape(-1, len(FEATURES))
    z = np.where(np.isfinite(values), (values - calibration.centre) / calibration.scale, 0)
    found = logistic(terms(z) @ calibration.coefficient).reshape(result.phase.shape)
    return np.where(result.phase >= 0, found, np.nan).astype(np.float32)


def right(result, truth, crystals) -> np.ndarray:
    """Tell where the best candidate has the true phase and lies within 5° of the true orientation."""
    best, phase = result.candidate_orientation[..., 0, :], result.candidate_phase[..., 0]
    found = np.zeros(phase.shape, bool)
    for index, crystal in enumerate(crystals):
        both = (np.asarray(truth.phase) == index) & (phase == index)
        found[both] = misorientation_deg(truth.orientation[both], best[both], crystal) <= RIGHT_DEG
    return found


def said_in_scan(result, crystals, averages: Averages | None = None) -> Said:
    """Ask the neighbours of every position of a scan, or of averages their members."""
    others = neighbours(result.phase.shape) if averages is None else averages.picked
    return said(result, others.reshape(result.phase.size, -1), crystals)


def _beyond_boundaries(shape, mixed, beyond: float, rng) -> np.ndarray:
    """Choose others (pattern, other) that are taken to lie in another grain, which is indexed otherwise."""
    place = np.where(mixed > 0, -1.0, rng.random(len(mixed)))  # where two crystals are seen, a boundary is near
    near = place.argsort(kind="stable").argsort(kind="stable") < beyond / _BEYOND * len(mixed)
    some = rng.permuted(np.arange(shape[1])[None].repeat(shape[0], 0), axis=1) < _BEYOND * shape[1]
    return near[:, None] & some


def _foreign(shape, share, beyond: float, rng) -> np.ndarray:
    """Likewise for averages: members come from other grains as often as these have part in the average."""
    factor = min(beyond / max(share.mean(), 1e-6), 1.0)
    return rng.random(shape) < factor * share[:, None]


def with_probability(result, rehearsed, truth, patch: int, crystals, params, averages=None):
    """Return the result with the probability of being right and what it was calibrated by (see `calibrate`).

    Positions below ``params.minimum_probability`` are not indexed: orientation NaN, phase -1; their probability and
    their candidates stay. Where the rehearsal tells nothing, probabilities are NaN and no position is taken away.
    """
    heard = said_in_scan(result, crystals, averages)
    calibration = calibrate(heard, rehearsed, truth, patch, crystals, params, averages)
    if calibration is None:
        log.warning("no probability: nearly all of the simulated patterns are indexed alike, rightly or wrongly")
        return replace(result, probability=np.full(result.phase.shape, np.nan, np.float32))
    told = scores(calibration.predicted, calibration.right)
    log.info("probability on simulated patterns: %s", ", ".join(f"{name} {value:.3f}" for name, value in told.items()))
    found = probability(result, heard, calibration, crystals, truth.cube, params, averages)
    by = 0.0
    if told["auc"] >= base_rate.LEAST_AUC:
        known = found[np.isfinite(found)].astype(np.float64)
        by = base_rate.shift(known, calibration.rate, calibration.patches)
    if by:
        found = base_rate.shifted(found.astype(np.float64), by).astype(np.float32)
        text = "%s positions are right than of the simulated patterns (%.2f): logit P is shifted by %+.2f"
        log.info(text, "more" if by > 0 else "fewer", calibration.rate, by)
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
        calibration_base_rate=calibration.rate,
        calibration_shift=by,
    )
