"""How well the probability of being right agrees with the truth."""

from itertools import product

import numpy as np

from fourdstem.methods.orientation import right, scores

_UNITS = {"ece": "share", "auc": "", "brier": "", "brier_of_base_rate": ""}


def probability_rows(truth, indexed: dict, crystals, masks: dict) -> list[tuple]:
    """Return rows (source, region, metric, value, unit) of every source that has a probability.

    ``probability_positions`` and ``probability_base_rate`` (the share that is right) are those of the positions that
    have one; the others are `orientation.scores`. What ``minimum_probability`` took away counts: its probability is
    known.
    """
    table = []
    for (name, result), (region, mask) in product(indexed.items(), masks.items()):
        if result.probability is None:
            continue
        known = mask & np.isfinite(result.probability)
        if not known.any():
            continue
        outcome = right(result, truth, crystals)[known]
        found = scores(result.probability[known], outcome)
        rows = [("positions", float(known.sum()), ""), ("base_rate", float(outcome.mean()), "share")]
        rows += [(key, value, _UNITS[key]) for key, value in found.items() if np.isfinite(value)]
        table += [(name, region, f"probability_{metric}", value, unit) for metric, value, unit in rows]
    return table


def outcomes(truth, result, crystals) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities of all positions that have one, and whether these are right."""
    known = np.isfinite(result.probability)
    return result.probability[known].astype(float), right(result, truth, crystals)[known]


def pooled(found: dict) -> dict:
    """Return ``{key: (probability, outcome)}`` of several films, from ``{key: [outcomes of a film]}``."""
    return {key: tuple(map(np.concatenate, zip(*films, strict=True))) for key, films in found.items()}


STUDY_COLUMNS = (
    "dose", "source", "base_rate", "as", "positions", "ece", "auc", "brier", "brier_of_base_rate", "mean_probability",
)  # fmt: skip
BASE_RATES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95)


def study_rows(pairs: dict, seed: int) -> list[tuple]:
    """Return a table of scores by dose and source, of all positions and of other base rates.

    Parameters
    ----------
    pairs : dict of (dose, source) to (probability, outcome)
        Pooled over films.
    seed : int
        Of the resampling.

    Returns
    -------
    list of tuple
        The first names the columns. ``as``: "found" are all positions; "resampled" are right and wrong ones drawn,
        without replacement, so that a share ``base_rate`` is right; "resampled, odds moved" are the same with the
        odds of each probability multiplied by the change of the odds of the base rate, as Bayes' rule asks.
    """
    table = [STUDY_COLUMNS]
    for (dose, source), (predicted, outcome) in sorted(pairs.items()):
        table.append(_study_row(dose, source, "found", predicted, outcome))
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8,)))
        for rate in BASE_RATES:
            size = int(min(outcome.sum() / rate, (~outcome).sum() / (1 - rate)))
            parts = ((outcome, round(size * rate)), (~outcome, size - round(size * rate)))
            drawn = np.concatenate([rng.permutation(np.flatnonzero(which))[:count] for which, count in parts])
            if len(np.unique(outcome[drawn])) < 2:
                continue
            moved = _moved(predicted[drawn], outcome.mean(), outcome[drawn].mean())
            table.append(_study_row(dose, source, "resampled", predicted[drawn], outcome[drawn]))
            table.append(_study_row(dose, source, "resampled, odds moved", moved, outcome[drawn]))
    return table


def _moved(predicted, old: float, new: float) -> np.ndarray:
    odds = predicted / np.maximum(1 - predicted, 1e-9) * (new / (1 - new)) / (old / (1 - old))
    return odds / (1 + odds)


def _study_row(dose, source: str, kind: str, predicted, outcome) -> tuple:
    told = scores(predicted, outcome)
    values = (told["ece"], told["auc"], told["brier"], told["brier_of_base_rate"], float(predicted.mean()))
    numbers = tuple(f"{v:.3f}" for v in values)
    return (f"{dose:g}", source, f"{outcome.mean():.3f}", kind, len(outcome), *numbers)
