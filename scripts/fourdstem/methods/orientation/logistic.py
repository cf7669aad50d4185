"""Logistic regression whose penalty is chosen by cross-validation, and how well probabilities are calibrated."""

import numpy as np

# Penalties on squared coefficients of standardised features, in units of one pattern's log likelihood, and those tried
# for squares and products of features: what the patches, not the patterns, can tell is little where noise is shared.
_LINEAR, _QUADRATIC = 10.0, (30.0, 100.0, 300.0, 1000.0)
_FOLDS = 5
_BINS = 10


def fit(terms: np.ndarray, outcome: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """Coefficients of a logistic regression by Newton's method.

    Parameters
    ----------
    terms : ndarray of shape (pattern, term)
    outcome : ndarray of bool, shape (pattern,)
    penalty : ndarray of shape (term,)
        On half of the squared coefficient.
    """
    y, b = outcome.astype(float), np.zeros(terms.shape[1])
    for _ in range(50):
        p = logistic(terms @ b)
        gradient = terms.T @ (y - p) - penalty * b
        step = np.linalg.solve((terms.T * (p * (1 - p))) @ terms + np.diag(penalty + 1e-9), gradient)
        b += step / max(1.0, np.abs(step).max())  # no step beyond 1: far from the maximum Newton's may overshoot
        if np.abs(step).max() < 1e-7:
            break
    return b


def fitted(z: np.ndarray, outcome: np.ndarray, group: np.ndarray, rng) -> tuple[np.ndarray, np.ndarray]:
    """Fit features, their squares and products, with the penalty on the latter that predicts other groups best.

    Parameters
    ----------
    z : ndarray of shape (pattern, feature)
        Standardised.
    outcome : ndarray of bool, shape (pattern,)
    group : ndarray of int, shape (pattern,)
        Patterns of one group stay in one fold.
    rng : numpy.random.Generator
        Deals groups to folds.

    Returns
    -------
    coefficient : ndarray of shape (term,)
    predicted : ndarray of shape (pattern,)
        By a model that was fitted to the other folds.
    """
    expanded = terms(z)
    fold = rng.permutation(group.max() + 1)[group] % _FOLDS
    best = None
    for quadratic in _QUADRATIC:
        penalty = np.full(expanded.shape[1], quadratic)
        penalty[: z.shape[1] + 1] = _LINEAR
        penalty[0] = 0
        predicted = np.empty(len(outcome))
        for k in range(_FOLDS):
            out = fold == k
            predicted[out] = logistic(expanded[out] @ fit(expanded[~out], outcome[~out], penalty))
        loss = -np.log(np.where(outcome, predicted, 1 - predicted)).mean()
        if best is None or loss < best[0]:
            best = loss, penalty, predicted
    return fit(expanded, outcome, best[1]), best[2]


def logistic(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), x taken as within ± 30."""
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def terms(z: np.ndarray) -> np.ndarray:
    """1, features, squares and products; features far beyond what was rehearsed count as at 3 standard deviations."""
    z = np.clip(z, -3, 3)
    i, j = np.triu_indices(z.shape[1])
    return np.column_stack([np.ones(len(z)), z, z[:, i] * z[:, j]])


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
