"""What a candidate rank is worth: loss, fidelity, redundancy, raw match, stability, and how many clusters are distinct.

After Cao et al., Digital Discovery 2025, doi:10.1039/D5DD00071H, with redundancy without the diagonal, recorded
patterns for the raw match, and two measures of our own: the worst component's agreement between starts, and the
number of clusters whose recorded mean patterns differ by more than noise and bending make them.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import squareform

from fourdstem.methods.nmf import quality
from fourdstem.methods.nmf.matrix import wrap
from fourdstem.methods.nmf.solvers import Factors

SAMPLED = 32  # positions whose patterns are compared with their reconstruction
ALIKE = 0.85  # cosine of cluster means above which they are one: pieces of a bent crystal reach 0.9 and more
FEWEST = 4  # positions of a cluster that counts
AT_ONCE = 2**18  # numbers of a model that are compared with the data at a time: they stay in the second cache


@dataclass(frozen=True)
class Curves:
    """All candidates, by ascending rank; the measures of likeness are in the order of `quality.METRICS`.

    Attributes
    ----------
    rank : ndarray of int, shape (candidate,)
    loss : ndarray of shape (candidate,)
        Mean |V - W H|, the K-component loss.
    fidelity, redundancy, raw_match : ndarray of shape (candidate, metric)
        Of sampled patterns with their reconstruction; of all pairs of components; of recorded cluster means with
        components.
    stability : ndarray of shape (candidate,)
        Cosine of the least like component of the best fit with its partner in another start, averaged over the
        starts; NaN with one start.
    distinct : ndarray of int, shape (candidate,)
        Clusters that are neither empty nor alike.
    """

    rank: np.ndarray
    loss: np.ndarray
    fidelity: np.ndarray
    redundancy: np.ndarray
    raw_match: np.ndarray
    stability: np.ndarray
    distinct: np.ndarray


def measure(v, fits: Mapping[int, Sequence[Factors]], recorded=None, mask=None, dispersion: float = 1.0) -> Curves:
    """Measure all candidate ranks, in one pass over the patterns and one over those recorded.

    Parameters
    ----------
    v : ndarray of shape (n, columns), or Matrix
        The patterns that were factorised.
    fits : dict
        ``{rank: [Factors, ...]}``, of several starts each.
    recorded : ndarray of shape (n, columns), or Matrix, optional
        The same patterns as recorded, in electrons; ``v`` where they are not at hand.
    mask : ndarray of bool, shape (detector_y, detector_x), optional
        Where the columns lie, in order; without it patterns are one row of pixels, and what needs images is NaN.
    dispersion : float
        Variance of the noise of ``recorded`` by its mean; taken as 0 where ``recorded`` is not given.
    """
    v, ranks = wrap(v), sorted(fits)
    best = [min(fits[k], key=lambda one: one.loss) for k in ranks]
    loss, sampled, rebuilt = _compared(v, best)
    label = np.stack([labels(one) for one in best])
    sums = cluster_sums(v if recorded is None else wrap(recorded), label, ranks)
    noise = 0.0 if recorded is None else dispersion

    def one(i):
        parts, size = best[i].component, np.bincount(label[i][label[i] >= 0], minlength=ranks[i])
        used = size > 0
        return (
            _likeness(sampled, rebuilt[i], mask),
            _likeness(parts, parts, mask, list(combinations(range(len(parts)), 2))),
            _likeness(sums[i][used] / size[used, None], parts[used], mask),
            stability(best[i], fits[ranks[i]]),
            len(set(groups(sums[i], size, noise)) - {-1}),
        )

    with ThreadPoolExecutor(v.threads) as pool:
        columns = zip(*pool.map(one, range(len(ranks))), strict=True)
    return Curves(np.array(ranks), loss, *(np.array(column) for column in columns))


def electrons(component: np.ndarray) -> np.ndarray:
    """Return the electrons of each component (k,): times these, weights are shares of the reconstructed intensity.

    Of the scalings that make weights comparable (unit sum, norm, maximum; largest weight 1) this one gave the truth
    best (`snakemake study_nmf`).
    """
    return np.asarray(component, float).sum(axis=1)


def labels(fit: Factors) -> np.ndarray:
    """Return the component that holds most of each row's reconstructed intensity (n,), -1 where none holds any."""
    shares = fit.weight * electrons(fit.component)
    return np.where(shares.max(axis=1) > 0, shares.argmax(axis=1), -1)


def cluster_sums(matrix, label: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Return the sums of the rows of every cluster, float64 (cluster, columns), of several labellings at once.

    Parameters
    ----------
    matrix : ndarray of shape (n, columns), or Matrix
    label : ndarray of int, shape (labelling, n)
    counts : sequence of int
        Number of clusters of each labelling.
    """
    ends = np.cumsum([0, *counts])

    def add(rows, a, b):
        chosen = np.zeros((ends[-1], b - a))
        for own, first in zip(label[:, a:b], ends, strict=False):
            chosen[first + own[own >= 0], np.flatnonzero(own >= 0)] = 1
        return chosen @ rows.astype(float)

    return np.split(sum(wrap(matrix).map(add)), ends[1:-1])


def alikeness(sums: np.ndarray, dispersion: float = 1.0) -> np.ndarray:
    """Return the cosines of expected patterns (cluster, cluster) from sums of noisy ones.

    The square of a sum of counts exceeds that of its expectation by the variance, which is the sum times the
    dispersion. 0 where noise is all there is.
    """
    square = (sums**2).sum(axis=1) - dispersion * sums.sum(axis=1)
    norm = np.sqrt(square.clip(0))
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = np.where(np.outer(norm, norm) > 0, sums @ sums.T / np.outer(norm, norm), 0.0)
    np.fill_diagonal(cosine, 1.0)
    return np.clip(cosine, 0, 1)


def groups(sums: np.ndarray, size: np.ndarray, dispersion: float = 1.0, alike: float = ALIKE) -> np.ndarray:
    """Return the group (cluster,) of every cluster: alike ones share it, by average linkage; -1 does not count.

    A cluster does not count if it has fewer than `FEWEST` positions, or noise alone.
    """
    counts = (size >= FEWEST) & ((sums**2).sum(axis=1) > dispersion * sums.sum(axis=1))
    group = np.full(len(size), -1)
    if counts.sum() == 1:
        group[counts] = 0
    if counts.sum() > 1:
        distance = 1 - alikeness(sums[counts], dispersion)
        tree = linkage(squareform(distance, checks=False), "average")
        group[counts] = fcluster(tree, 1 - alike, "distance") - 1
    return group


def matched(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine of each row of ``first`` with its partner in ``second``, and the partner, -1 for none.

    Partners make the largest sum of cosines; where there are fewer rows in ``second`` some have none and cosine 0.
    """
    unit = [p / np.linalg.norm(p, axis=1, keepdims=True).clip(1e-30) for p in (first, second)]
    cosine = unit[0] @ unit[1].T
    rows, columns = linear_sum_assignment(-cosine)
    value, partner = np.zeros(len(first)), np.full(len(first), -1)
    value[rows], partner[rows] = cosine[rows, columns], columns
    return value, partner


def stability(best: Factors, fits: Sequence[Factors]) -> float:
    """Return the cosine of the best fit's least stable component with its partner, averaged over the other fits."""
    others = [one for one in fits if one is not best]
    if not others:
        return float("nan")
    return float(np.mean([matched(best.component, one.component)[0].min() for one in others]))


def _compared(v, best: Sequence[Factors]):
    """Return the mean |V - W H| of every fit, sampled rows of V, and the same of every W H."""
    n = v.shape[0]
    where = np.unique(np.linspace(0, n - 1, SAMPLED).astype(int))
    kept, step = np.empty((len(where), v.columns), np.float32), max(1, AT_ONCE // v.columns)

    def work(rows, a, b):
        inside = np.flatnonzero((where >= a) & (where < b))
        kept[inside] = rows[where[inside] - a]
        total, off = np.zeros(len(best)), np.empty((step, v.columns), np.float32)
        for first in range(a, b, step):
            some = rows[first - a : first - a + step]
            for i, fit in enumerate(best):
                own = np.matmul(fit.weight[first : first + len(some)], fit.component, out=off[: len(some)])
                np.abs(np.subtract(some, own, out=own), out=own)
                total[i] += own.sum(axis=1).sum(dtype=np.float64)
        return total

    total = sum(v.map(work))
    return total / (n * v.columns), kept, [fit.weight[where] @ fit.component for fit in best]


def _likeness(first, second, mask, pairs=None) -> np.ndarray:
    """Return the measures (metric,) of pairs of rows, averaged over the pairs that have them."""
    if not len(first) or mask is None:
        return np.full(len(quality.METRICS), np.nan)
    images = _images(first, mask)
    others = images if second is first else _images(second, mask)
    values = quality.likeness(images, others, mask, pairs)
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan)


def _images(rows, mask) -> np.ndarray:
    images = np.zeros((len(rows), *mask.shape))
    images[:, mask] = rows
    return images
