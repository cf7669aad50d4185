"""Which rank: as many components as shot noise lets one tell apart, no more than are distinct."""

from dataclasses import dataclass

import numpy as np

from fourdstem.methods.nmf import quality
from fourdstem.methods.nmf.curves import Curves
from fourdstem.methods.nmf.noise import Visible

AROUND = 4  # of the knee, where the published measures vote


@dataclass(frozen=True)
class Choice:
    """A rank and why.

    Attributes
    ----------
    rank : int
    reason : str
        One or two sentences for the report.
    knee : int
        Of the K-component loss.
    """

    rank: int
    reason: str
    knee: int


def choose(curves: Curves, visible: Visible | None, fixed: int | None = None) -> Choice:
    """Choose a rank among the candidates.

    Parameters
    ----------
    curves : Curves
    visible : Visible or None
        How many patterns stand above the noise; None where the rank is fixed. Among the ranks up to that number the one
        with the most distinct clusters is chosen, the least of several: a component too many splits a cluster into
        alike ones and does little harm, a component too few loses one.
    fixed : int, optional
        The user's rank.
    """
    bend = knee(curves.rank, curves.loss)
    if fixed is not None:
        return Choice(fixed, f"rank {fixed} was set in the configuration", bend)
    return Choice(*_within_noise(curves, visible), bend)


def _within_noise(curves: Curves, visible: Visible) -> tuple[int, str]:
    limit = visible.patterns
    allowed = curves.rank <= max(limit, curves.rank[0])
    most = curves.distinct[allowed].max()
    rank = int(curves.rank[allowed][curves.distinct[allowed].argmax()])
    reason = f"{limit} patterns stand above the shot noise"
    if not visible.known:
        reason = f"the noise is not known, {limit} patterns stand out before the singular values level off"
    if limit < curves.rank[0]:
        return rank, f"{reason}, fewer than the smallest candidate"
    if limit > curves.rank[-1]:
        reason += f", more than the largest candidate, {curves.rank[-1]}: a wider range may find more"
    if most < rank:
        return rank, f"{reason}; no candidate has more than the {most} distinct clusters of rank {rank}"
    if rank < min(limit, curves.rank[-1]):
        return rank, f"{reason}, but beyond rank {rank} clusters are alike or empty, as pieces of a bent crystal are"
    return rank, f"{reason}, and all clusters of rank {rank} are distinct"


def knee(rank: np.ndarray, loss: np.ndarray) -> int:
    """Return where a falling, convex curve lies farthest below the line through its ends.

    Satopää et al. 2011, doi:10.1109/ICDCSW.2011.20.
    """
    if len(rank) < 3 or not np.ptp(loss) > 0:
        return int(rank[0])
    along = (rank - rank[0]) / (rank[-1] - rank[0])
    down = (loss - loss.min()) / np.ptp(loss)
    line = down[0] + (down[-1] - down[0]) * along
    return int(rank[(line - down).argmax()])


def by_measures(curves: Curves) -> int:
    """Return the rank within the knee ± 4 that fidelity, redundancy, raw match and stability choose, by mean order.

    All four measures of likeness vote in the first three, stability once in place of four.
    """
    near = np.abs(curves.rank - knee(curves.rank, curves.loss)) <= AROUND
    votes = []
    for values, wanted in ((curves.fidelity, 1), (curves.redundancy, -1), (curves.raw_match, 1)):
        sign = [wanted if quality.HIGHER_IS_ALIKE[name] else -wanted for name in quality.METRICS]
        votes.append(_order(values[near] * sign).mean(axis=1))
    votes.append(_order(curves.stability[near, None])[:, 0])
    return int(curves.rank[near][np.mean(votes, axis=0).argmax()])


def _order(values: np.ndarray) -> np.ndarray:
    """Return the place (0 worst) of every value along the first axis; 0 throughout where any is NaN."""
    known = np.isfinite(values).all(axis=0)
    return np.where(known, np.argsort(np.argsort(values, axis=0, kind="stable"), axis=0), 0).astype(float)
