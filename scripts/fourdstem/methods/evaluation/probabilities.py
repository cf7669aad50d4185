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
