"""From weights to maps: sizes taken out, labels, background, overlap, what is not explained, clusters."""

from dataclasses import dataclass

import numpy as np

PRESENT = 0.1  # mean share of all weight that a background has at least
ENDS = (5.0, 95.0)  # percentiles between which a background is even
LEAST_PART = 0.25  # of the norm of a pattern, that is unexplained
LEAST_SPREAD = 0.05  # of the logarithm of a misfit: what differs less than this has the same reasons


@dataclass(frozen=True)
class Labels:
    """What positions (n,) are.

    Attributes
    ----------
    label : ndarray of int32, shape (n,)
        Component; -1 where nothing is.
    overlap : ndarray of uint8, shape (ratios, n)
    """

    label: np.ndarray
    overlap: np.ndarray


def sizes(component: np.ndarray, scaling: str) -> np.ndarray:
    """Return the size of each component (k, columns), by which its weights are multiplied before they are compared.

    A factorisation fixes only products of weights and components: twice the one and half the other is the same. With
    the sum, a weight is the number of counts that a component contributes.
    """
    wide = component.astype(np.float64)
    if scaling == "sum":
        return wide.sum(axis=1)
    return np.linalg.norm(wide, axis=1) if scaling == "norm" else wide.max(axis=1, initial=0.0)


def find_background(weight: np.ndarray, evenness: float) -> int:
    """Return the component that lies under all others, or -1.

    Its weight is nowhere far from what it is elsewhere: at the 5th percentile at least ``evenness`` of the 95th. A
    phase is absent somewhere. Of several the most even one is taken.

    Parameters
    ----------
    weight : ndarray, shape (n, k)
        Sizes taken out, of positions with counts.
    """
    if weight.shape[1] < 2 or len(weight) == 0:
        return -1
    low, high = np.percentile(weight, ENDS, axis=0)
    even = np.where(high > 0, low / np.where(high > 0, high, 1), 0)
    even[weight.sum(axis=0) < PRESENT * weight.sum()] = 0
    return int(even.argmax()) if even.max() >= evenness else -1


def labels(weight: np.ndarray, lit: np.ndarray, background: int, handover: float, ratios) -> Labels:
    """Return what each position is, and where two components are about as strong.

    Parameters
    ----------
    weight : ndarray of float32, shape (n, k)
        Sizes taken out.
    lit : ndarray of bool, shape (n,)
    background : int
        -1: none. Where another weight is at least ``handover`` of its weight, the label is the other's; it overlaps
        with nothing.
    handover : float
    ratios : sequence of float
        Of second weight to first, from which a position overlaps.
    """
    others = np.array([j for j in range(weight.shape[1]) if j != background])
    strongest = np.argsort(-weight[:, others], axis=1, kind="stable")[:, :2]
    values = np.take_along_axis(weight[:, others], strongest, axis=1)
    label = others[strongest[:, 0]].astype(np.int32)
    if background >= 0:
        label[values[:, 0] < handover * weight[:, background]] = background
    label[~lit | (weight.max(axis=1) <= 0)] = -1
    overlap = np.zeros((len(ratios), len(weight)), np.uint8)
    if len(others) > 1:
        real = (label >= 0) & (label != background)
        for i, ratio in enumerate(ratios):
            overlap[i] = real & (values[:, 1] >= ratio * values[:, 0])
    return Labels(label, overlap)


def unexplained(misfit, level, squares, lit: np.ndarray, deviations: float) -> np.ndarray:
    """Return where the misfit stands out of what it is elsewhere, uint8 (n,); ``deviations`` 0: nowhere.

    Of its logarithm: misfits of averaged patterns spread over a factor, with the number of patterns averaged. And what
    exceeds the noise of elsewhere must be no small part of the pattern.

    Parameters
    ----------
    misfit, squares : ndarray, shape (n,)
        Squares that are not explained, and all.
    level : ndarray, shape (n,)
        To which the squares of noise are proportional.
    lit : ndarray of bool, shape (n,)
    deviations : float
    """
    out = np.zeros(len(misfit), np.uint8)
    known = lit & (misfit > 0) & (level > 0)
    if deviations == 0 or not known.any():
        return out
    logarithm = np.log(misfit[known] / level[known])
    middle = np.median(logarithm)
    spread = max(1.4826 * float(np.median(np.abs(logarithm - middle))), LEAST_SPREAD)
    excess = misfit[known] - np.exp(middle) * level[known]
    out[known] = (logarithm > middle + deviations * spread) & (excess > LEAST_PART**2 * squares[known])
    return out


@dataclass(frozen=True)
class Clusters:
    """Components put together, the likest first.

    Attributes
    ----------
    of_component : ndarray of int32, shape (k,)
        Cluster of each component; -1: it labels no position.
    first, second : ndarray of int32, shape (merges,)
        Components 0 to k - 1, or k + m: what merge m made. All merges down to one, made or not.
    correlation : ndarray of float32, shape (merges,)
    made : ndarray of uint8, shape (merges,)
    """

    of_component: np.ndarray
    first: np.ndarray
    second: np.ndarray
    correlation: np.ndarray
    made: np.ndarray


def merge(mean: np.ndarray, size: np.ndarray, limit: float) -> Clusters:
    """Merge components whose mean patterns differ from that of the scan in the same way.

    Patterns share a background that would make any two correlate; hence the mean pattern of the scan is taken off.
    A merge is made where the correlation exceeds ``limit``, and no merge after the first that does not.

    Parameters
    ----------
    mean : ndarray, shape (k, pixels)
        Raw mean patterns of the positions of each label, in pixels in use.
    size : ndarray of int, shape (k,)
        Number of positions.
    limit : float
    """
    groups = {j: ([j], mean[j].astype(np.float64), float(size[j])) for j in range(len(mean)) if size[j] > 0}
    total = sum(pattern * n for _, pattern, n in groups.values()) / max(sum(n for *_, n in groups.values()), 1)
    tree, open_, applied = [], True, {}
    while len(groups) > 1:
        names = sorted(groups)
        found = np.nan_to_num(np.corrcoef([groups[g][1] - total for g in names]), nan=-1.0)
        np.fill_diagonal(found, -np.inf)
        i, j = sorted(np.unravel_index(int(found.argmax()), found.shape))
        correlation = float(found[i, j])
        if open_ and correlation <= limit:
            open_, applied = False, {g: members for g, (members, *_) in groups.items()}
        a, b = groups.pop(names[i]), groups.pop(names[j])
        number = a[2] + b[2]
        tree.append((names[i], names[j], correlation, open_))
        groups[len(mean) + len(tree) - 1] = (a[0] + b[0], (a[1] * a[2] + b[1] * b[2]) / number, number)
    if open_:
        applied = {g: members for g, (members, *_) in groups.items()}
    of_component = np.full(len(mean), -1, np.int32)
    for number, members in enumerate(sorted(applied.values(), key=lambda m: -sum(size[j] for j in m))):
        of_component[members] = number
    first, second, correlation, made = (list(column) for column in zip(*tree, strict=True)) if tree else ([],) * 4
    return Clusters(
        of_component,
        np.array(first, np.int32),
        np.array(second, np.int32),
        np.array(correlation, np.float32),
        np.array(made, np.uint8),
    )


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of rows with rows (k,), float32; NaN where one of the two is empty."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    size = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return np.where(size > 0, (one * two).sum(axis=1) / np.where(size > 0, size, 1), np.nan).astype(np.float32)


def medians(values: np.ndarray, label: np.ndarray, k: int) -> np.ndarray:
    """Return the median of the values (n,) of each label (k,), float32; NaN where it has no positions."""
    return np.array([np.median(values[label == j]) if (label == j).any() else np.nan for j in range(k)], np.float32)
