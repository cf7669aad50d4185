"""A factorisation against a known mixture: labels, overlap, components; and other ways to count the components."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.linalg import eigh
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

RESTARTS = 4  # of k-means, the tightest counts
SAMPLED = 600  # positions whose silhouettes are averaged
DIRECTIONS = 20  # principal components in which positions are clustered


@dataclass(frozen=True)
class Agreement:
    """How well a factorisation fits the truth.

    Attributes
    ----------
    ari : float
        Adjusted Rand index of labels and the component with the largest share; no label is a label.
    accuracy : float
        Share of positions whose label is the partner of that component.
    overlap_f1 : float
        F1 of the positions whose second share is at least the ratio times the first; NaN where there are none.
    cosine_least, cosine_mean : float
        Of the true patterns with their partners; 0 without one.
    """

    ari: float
    accuracy: float
    overlap_f1: float
    cosine_least: float
    cosine_mean: float


def agreement(label, overlap, component, fraction, pattern, ratio: float) -> Agreement:
    """Compare labels, overlap and components with the truth.

    Parameters
    ----------
    label : ndarray of int, shape (scan_y, scan_x)
    overlap : ndarray of bool, shape (scan_y, scan_x)
    component : ndarray of shape (k, pixel)
    fraction : ndarray of shape (scan_y, scan_x, true component)
    pattern : ndarray of shape (true component, pixel)
    ratio : float
        Of second to first share from which a position truly overlaps.
    """
    cosine, partner = _partners(pattern, component)
    truth = fraction.argmax(axis=-1)
    shares = np.sort(fraction, axis=-1)
    both = shares[..., -2] >= ratio * shares[..., -1]
    return Agreement(
        ari=adjusted_rand(truth.ravel(), np.asarray(label).ravel()),
        accuracy=float((partner[truth] == label).mean()),
        overlap_f1=f1(both, np.asarray(overlap, bool)),
        cosine_least=float(cosine.min()),
        cosine_mean=float(cosine.mean()),
    )


def weights_of(patterns: np.ndarray, component: np.ndarray) -> np.ndarray:
    """Return electrons of each true component in each pattern (n, component): least squares, negative ones taken as 0.

    What is left to a factorisation that finds the true patterns exactly: labels where two components are about as
    strong depend on the noise alone.

    Parameters
    ----------
    patterns : ndarray of shape (n, pixel)
    component : ndarray of shape (component, pixel)
    """
    component = np.asarray(component, float)
    return np.maximum(patterns @ np.linalg.pinv(component), 0) * component.sum(axis=1)


def _partners(truth, found):
    unit = [np.asarray(p, float) / np.linalg.norm(p, axis=1, keepdims=True).clip(1e-30) for p in (truth, found)]
    cosine = unit[0] @ unit[1].T
    rows, columns = linear_sum_assignment(-cosine)
    value, partner = np.zeros(len(truth)), np.full(len(truth), -2)
    value[rows], partner[rows] = cosine[rows, columns], columns
    return value, partner


def adjusted_rand(first, second) -> float:
    """Return the adjusted Rand index of two labellings (n,): 1 for the same partition, 0 for chance."""
    one, two = (np.unique(labels, return_inverse=True)[1] for labels in (first, second))
    table = np.zeros((one.max() + 1, two.max() + 1))
    np.add.at(table, (one, two), 1)
    pairs = [(counts * (counts - 1) / 2).sum() for counts in (table, table.sum(axis=1), table.sum(axis=0))]
    chance = pairs[1] * pairs[2] / (len(one) * (len(one) - 1) / 2)
    most = (pairs[1] + pairs[2]) / 2
    return 1.0 if most == chance else float((pairs[0] - chance) / (most - chance))


def f1(truth, found) -> float:
    """Return the harmonic mean of precision and recall; NaN where nothing is true."""
    if not truth.any():
        return float("nan")
    return float(2 * (truth & found).sum() / (truth.sum() + found.sum()))


def usual_ranks(patterns: np.ndarray, most: int, seed: int = 0) -> dict[str, int]:
    """Return ranks, 2 to ``most``, by two usual ways.

    Parameters
    ----------
    patterns : ndarray of shape (n, pixel)
    most : int
    seed : int
        Of k-means.

    Returns
    -------
    dict
        "PCA scree": one more than the principal components before the largest fall of the variances. "silhouette": the
        number of k-means clusters with the largest mean silhouette, in the first principal components, of evenly
        spread positions (Rousseeuw 1987, doi:10.1016/0377-0427(87)90125-7).
    """
    values, points = _principal(patterns, max(DIRECTIONS, most + 1))
    falls = values[:-1] / values[1:].clip(1e-30)
    scree = int(falls[: most - 1].argmax()) + 2  # n mixtures that sum to one lie in n - 1 directions about the mean
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    points = points[np.unique(np.linspace(0, len(points) - 1, SAMPLED).astype(int)), :DIRECTIONS]
    distance = cdist(points, points)
    scores = []
    for k in range(2, most + 1):
        runs = [kmeans2(points, k, minit="++", rng=rng) for _ in range(RESTARTS)]
        label = min(runs, key=lambda run: ((points - run[0][run[1]]) ** 2).sum())[1]
        scores.append(_mean_silhouette(distance, label))
    return {"PCA scree": scree, "silhouette": int(np.argmax(scores)) + 2}


def _mean_silhouette(distance, label) -> float:
    names, label = np.unique(label, return_inverse=True)
    if len(names) < 2:
        return -1.0
    member = (label[:, None] == np.arange(len(names))).astype(float)
    size = member.sum(axis=0)
    total = distance @ member
    each = np.arange(len(label))
    own = total[each, label] / (size[label] - 1).clip(1)
    other = total / size
    other[each, label] = np.inf
    nearest = other.min(axis=1)
    value = np.where(size[label] > 1, (nearest - own) / np.maximum(nearest, own).clip(1e-30), 0)
    return float(value.mean())


def _principal(patterns, count: int):
    """Return the first variances (count,) about the mean, largest first, and the scores (n, count)."""
    centred = np.asarray(patterns, float) - np.mean(patterns, axis=0, dtype=float)
    side = centred.shape[1]
    count = min(count, side)
    values, vectors = eigh(centred.T @ centred / len(centred), subset_by_index=[side - count, side - 1])
    return values[::-1].clip(0), centred @ vectors[:, ::-1]


def scan_rows(kind: str, true_rank: int, ranks: dict, agreements: dict) -> list[tuple]:
    """Return rows (kind, way, metric, value) of one scan.

    Parameters
    ----------
    kind : str
    true_rank : int
    ranks : dict of way to rank
    agreements : dict of way to Agreement
    """
    rows = [(kind, way, "rank_error", str(rank - true_rank)) for way, rank in ranks.items()]
    for way, told in agreements.items():
        rows += [(kind, way, metric, f"{value:.4f}") for metric, value in asdict(told).items() if np.isfinite(value)]
    return rows
