"""How well the probability of being right agrees with the truth."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from fourdstem.methods.orientation import right, scores, shift, shifted

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


@dataclass(frozen=True)
class Judged:
    """Probabilities of one film beside what is right.

    Attributes
    ----------
    calibrated : ndarray of shape (position,)
        Probability as calibrated on simulation, before the scan's own positions shift it.
    outcome : ndarray of bool, shape (position,)
    shift : float
        What the job added to the logit.
    rate : float
        Share that is right of the simulated patterns.
    patches : int
        Independent ones of these.
    """

    calibrated: np.ndarray
    outcome: np.ndarray
    shift: float
    rate: float
    patches: int

    @property
    def probability(self) -> np.ndarray:
        """As the job gives it."""
        return shifted(self.calibrated, self.shift)

    def shift_at(self, rate: float) -> float:
        """Shift that Bayes' rule asks for where the share of right positions is no longer the film's but ``rate``."""
        own = np.clip(self.outcome.mean(), 1e-3, 1 - 1e-3)
        return float(np.log(rate / (1 - rate)) - np.log(own / (1 - own)))


def judged(truth, result, crystals, patches: int) -> Judged:
    """Return the probabilities of a film with their truth; ``patches``: independent ones of the simulated patterns."""
    found, outcome = outcomes(truth, result, crystals)
    by = float(result.calibration_shift)
    return Judged(shifted(found, -by), outcome, by, float(result.calibration_base_rate), patches)


def pooled(found: dict) -> dict:
    """Return ``{key: (probability, outcome)}`` of several films, from ``{key: [Judged]}``."""
    return {key: _pool([(film.probability, film.outcome) for film in films]) for key, films in found.items()}


STUDY_COLUMNS = (
    "dose", "source", "base_rate", "as", "positions", "ece", "auc", "brier", "brier_of_base_rate", "mean_probability",
)  # fmt: skip
BASE_RATES = (0.1, 0.3, 0.5, 0.7, 0.9, 0.95)


def study_rows(found: dict, seed: int) -> list[tuple]:
    """Return a table of scores by dose and source, of all positions and of other base rates.

    Parameters
    ----------
    found : dict of (dose, source) to list of Judged
        Scored together.
    seed : int
        Of the resampling.

    Returns
    -------
    list of tuple
        The first names the columns. ``as``: "found" are all positions, as the job gives them; "found, calibrated" those
        before the scan's own positions shift them; "resampled" are right and wrong ones drawn in each film, without
        replacement, so that a share ``base_rate`` is right: "calibrated" as before, "shift found" by the shift that
        the drawn positions ask for, as in a job, "shift known" by that which Bayes' rule asks for at this base rate.
    """
    table = [STUDY_COLUMNS]
    for (dose, source), films in sorted(found.items()):
        table.append(_study_row(dose, source, "found", *_pool([(f.probability, f.outcome) for f in films])))
        table.append(_study_row(dose, source, "found, calibrated", *_pool([(f.calibrated, f.outcome) for f in films])))
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(8,)))
        for rate in BASE_RATES:
            kinds = {"resampled, calibrated": [], "resampled, shift found": [], "resampled, shift known": []}
            for film in films:
                drawn = _drawn(film.outcome, rate, rng)
                some, outcome = film.calibrated[drawn], film.outcome[drawn]
                for by, pairs in zip(
                    (0.0, shift(some, film.rate, film.patches), film.shift_at(rate)), kinds.values(), strict=True
                ):
                    pairs.append((shifted(some, by), outcome))
            for kind, pairs in kinds.items():
                predicted, outcome = _pool(pairs)
                if len(np.unique(outcome)) == 2:
                    table.append(_study_row(dose, source, kind, predicted, outcome))
    return table


def _pool(pairs: list) -> tuple[np.ndarray, np.ndarray]:
    return tuple(map(np.concatenate, zip(*pairs, strict=True)))


def _drawn(outcome: np.ndarray, rate: float, rng) -> np.ndarray:
    """Positions, as many as there are, of which a share ``rate`` is right."""
    size = int(min(outcome.sum() / rate, (~outcome).sum() / (1 - rate)))
    parts = ((outcome, round(size * rate)), (~outcome, size - round(size * rate)))
    return np.concatenate([rng.permutation(np.flatnonzero(which))[:count] for which, count in parts])


def _study_row(dose, source: str, kind: str, predicted, outcome) -> tuple:
    told = scores(predicted, outcome)
    values = (told["ece"], told["auc"], told["brier"], told["brier_of_base_rate"], float(predicted.mean()))
    numbers = tuple(f"{v:.3f}" for v in values)
    return (f"{dose:g}", source, f"{outcome.mean():.3f}", kind, len(outcome), *numbers)
