"""What else could have been chosen: ranks by other rules, labels by other scalings; for comparisons with the truth."""

import numpy as np

from fourdstem.methods.nmf.curves import Curves
from fourdstem.methods.nmf.rank import by_measures


def ranks(result) -> dict[str, int]:
    """Return the rank of a result by the rule of the stage, and by others on the same curves."""
    told = {name: getattr(result, f"{name}_by_metric") for name in ("fidelity", "redundancy", "raw_match")}
    curves = Curves(result.rank, result.loss, stability=result.stability, distinct=result.distinct, **told)
    return {
        "stage": int(result.chosen_rank),
        "noise alone": int(result.visible_patterns),
        "published measures": by_measures(curves),
        "knee of the loss": int(result.knee),
    }


def scalings(result) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return weights and labels of a result, whose scaling is "sum", by other scalings, ``{scaling: (weight, label)}``.

    "sum", "norm" and "max" set that of each component to 1, "weight" sets its largest weight to 1.
    """
    feature = result.feature.reshape(len(result.feature), -1)
    sizes = {
        "sum": feature.sum(axis=1),
        "norm": np.linalg.norm(feature, axis=1),
        "max": feature.max(axis=1),
        "weight": 1 / result.weight.max(axis=(0, 1)).clip(1e-30),
    }
    by = {name: result.weight * size for name, size in sizes.items()}
    return {name: (weight, weight.argmax(axis=-1)) for name, weight in by.items()}


def overlapping(weight: np.ndarray, ratio: float) -> np.ndarray:
    """Return where the second weight is at least ``ratio`` times the first, bool (scan_y, scan_x)."""
    if weight.shape[-1] < 2:
        return np.zeros(weight.shape[:-1], bool)
    ordered = np.sort(weight, axis=-1)
    return ordered[..., -2] >= ratio * ordered[..., -1].clip(1e-30)
