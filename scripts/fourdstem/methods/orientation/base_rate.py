"""The share of right positions of a scan, from their probabilities: has it more or fewer than the rehearsal?

A probability that was calibrated where a share r of the patterns is right, at another share π, but with right and wrong
patterns that look as they did, becomes by Bayes' rule ::

    P' = P e^δ / (1 - P + P e^δ),   e^δ = π (1 - r) / ((1 - π) r)

π, or δ, is found from the scan itself by maximum likelihood (Saerens, Latinne, Decaestecker, Neural Computation 14, 21
(2002), doi:10.1162/089976602753284446, whose iteration ends there): L(δ) = ⟨ln(1 - P + P e^δ)⟩ - ln(1 - r + r e^δ).

L counts only as many times as there are independent observations, and δ has a wide Laplace prior, which decides only
where the scan tells nearly nothing: few positions, or right and wrong ones that look alike. A narrow one, which
believes the rehearsal longer, costs more where the scan differs from it than it saves where it does not.
"""

import numpy as np

from fourdstem.methods.orientation.logistic import logistic

# Positions that are right or wrong together: about a small grain.
TOGETHER = 30
# Scale of the Laplace prior of δ.
_SCALE = 8.0
# Where right and wrong are told apart no better, nothing is learnt from the scan.
LEAST_AUC = 0.7
_SHIFTS = np.linspace(-6, 6, 241)


def shift(predicted: np.ndarray, rate: float, rehearsed: int) -> float:
    """Return δ, the shift of the logit that the positions of a scan ask for.

    Parameters
    ----------
    predicted : ndarray of shape (position,)
        Probabilities as calibrated.
    rate : float
        Share that is right of the patterns by which they were calibrated.
    rehearsed : int
        Independent ones of these patterns.
    """
    if not len(predicted):
        return 0.0
    number = 1 / (TOGETHER / len(predicted) + 1 / rehearsed)
    value = np.empty(len(_SHIFTS))
    for k, factor in enumerate(np.exp(_SHIFTS)):
        gain = np.log(1 - predicted + predicted * factor).mean() - np.log(1 - rate + rate * factor)
        value[k] = number * gain - abs(_SHIFTS[k]) / _SCALE
    return float(_SHIFTS[value.argmax()])


def shifted(predicted: np.ndarray, by: float) -> np.ndarray:
    """Return probabilities whose logit is shifted."""
    p = np.clip(predicted, 1e-12, 1 - 1e-12)
    return logistic(np.log(p / (1 - p)) + by)
