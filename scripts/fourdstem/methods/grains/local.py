"""Local misorientation (KAM) and the floor that noise alone puts under it."""

import numpy as np
from scipy.sparse import csr_array
from scipy.special import stdtrit

from fourdstem.methods.grains.segments import Map, Pairs
from fourdstem.rotations import conjugate, multiply

ROUNDING_DEG = 1e-4  # what single precision of the stored quaternions can do
LIMIT = 0.95  # of positions without anything but noise stay below the floor
CALIBRATING = 5  # draws that tell how large second differences of drawn noise are
ENOUGH = 30  # second differences of a grain; with fewer its noise is that of its phase


def kernel_average(here: Map, pairs: Pairs, grain: np.ndarray, threshold_deg: float) -> np.ndarray:
    """Mean misorientation with those first neighbours (up to four) that lie in the same grain without a jump.

    Returns
    -------
    ndarray of shape (n,)
        Degrees; NaN where there is no such neighbour.
    """
    inside = pairs.within(grain, threshold_deg)
    return _mean_over_pairs(pairs.first[inside], pairs.second[inside], pairs.angle_deg[inside], here.phase.size)


def _mean_over_pairs(first, second, value, size: int) -> np.ndarray:
    number = np.bincount(first, minlength=size) + np.bincount(second, minlength=size)
    total = np.bincount(first, value, size) + np.bincount(second, value, size)
    return np.divide(total, number, out=np.full(size, np.nan), where=number > 0)


def noise_floor(here: Map, pairs: Pairs, grain, mean, aligned, params, made_of=None) -> np.ndarray:
    """Local misorientation below which it cannot be told from noise.

    The scatter of the index is measured by second differences of orientation along rows and columns inside
    grains: a constant gradient cancels, noise does not. Noise of that covariance (a tensor in the lab, by grain;
    turns about the beam are known better than tilts) is drawn on the same map and averaged over neighbours as
    the measured angles are. The floor is the limit below which one more draw lies with a probability of 95 %
    (Student's t): where nothing but normal noise is there, some 6 % of the positions exceed it, and 8 to 10 % in
    the unbent grains of the demo, where noise has longer tails.

    What is assumed: noise of single patterns is independent; its effect on the angles is small and linear, so
    that the noise of an averaged pattern is the same average of noise (drawn noise is mixed by the very members
    and weights, and its amplitude is set so that second differences agree); curvature is no part of the
    structure sought: sub-grain walls count as noise and raise the floor. What the matcher gets wrong alike at
    neighbours is no part of the floor, nor of the misorientation. The floor does not undo that averaging also
    smooths true changes that are narrower than the window.

    Parameters
    ----------
    here : Map
    pairs : Pairs
    grain : ndarray of int, shape (n,)
    mean : ndarray of shape (grains, 4)
    aligned : ndarray of shape (n, 4)
    params : Params
        Uses ``threshold_deg``, ``noise_draws`` and ``seed``.
    made_of : tuple of (member, weight), optional
        Both (scan_y, scan_x, k).

    Returns
    -------
    ndarray of shape (n,)
        Degrees; NaN outside grains, and where a position has no neighbour in its grain.
    """
    if len(mean) == 0:
        return np.full(grain.size, np.nan)
    offset = _offsets_deg(grain, mean, aligned)
    steps = _steps(pairs, grain, params.threshold_deg)
    middles = _triples(here.shape, steps, offset, params.threshold_deg)
    mix = None if made_of is None else _mixing(*made_of)
    rng = np.random.default_rng(params.seed)
    draws = [_drawn(grain.size, mix, rng) for _ in range(params.noise_draws)]
    root = _noise_root(here, grain, len(mean), offset, draws[:CALIBRATING], middles)
    first, second = (np.concatenate(part) for part in zip(*steps, strict=True))
    total, squares = np.zeros(grain.size), np.zeros(grain.size)
    for drawn in draws:
        noise = _turned(root, grain, drawn)
        change = np.sqrt(((noise[second] - noise[first]) ** 2).sum(axis=1))
        # Lengths to this power are nearly normal (Wilson & Hilferty 1931, doi:10.1073/pnas.17.12.684).
        value = _mean_over_pairs(first, second, change, grain.size) ** (2 / 3)
        total += value
        squares += value**2
    average = total / len(draws)
    spread = np.sqrt(np.maximum(squares / len(draws) - average**2, 0) * len(draws) / (len(draws) - 1))
    # The limit of one more draw, mean and spread being known from a few only.
    factor = stdtrit(len(draws) - 1, LIMIT) * np.sqrt(1 + 1 / len(draws))
    return np.maximum((average + factor * spread) ** 1.5, ROUNDING_DEG)


def _offsets_deg(grain, mean, aligned) -> np.ndarray:
    """Rotation vectors from the mean of the grain, lab frame, degrees; NaN outside grains."""
    out = np.full((grain.size, 3), np.nan)
    inside = grain >= 0
    turn = multiply(conjugate(mean[grain[inside]]), aligned[inside])
    turn = np.where(turn[:, :1] < 0, -turn, turn)
    sine = np.linalg.norm(turn[:, 1:], axis=1)
    angle = 2 * np.arctan2(sine, turn[:, 0])
    scale = np.divide(angle, sine, out=np.full(sine.size, 2.0), where=sine > 0)
    out[inside] = np.rad2deg(turn[:, 1:] * scale[:, None])
    return out


def _steps(pairs: Pairs, grain, threshold_deg: float) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs (first, second) within grains without a jump: along scan_x, along scan_y."""
    inside = pairs.within(grain, threshold_deg)
    parts = (slice(None, pairs.along_x), slice(pairs.along_x, None))
    return [(pairs.first[part][inside[part]], pairs.second[part][inside[part]]) for part in parts]


def _triples(shape, steps, offset, threshold_deg: float) -> list[tuple[np.ndarray, int]]:
    """Middles of three positions in a row (stride apart) without a jump: along scan_x, along scan_y."""
    found = []
    for (first, _), stride in zip(steps, (1, shape[1]), strict=True):
        goes_on = np.zeros(shape[0] * shape[1], bool)
        goes_on[first] = True
        middle = first[first >= stride]
        middle = middle[goes_on[middle - stride]]
        # Two steps differ by less than two thresholds, unless an equivalent farther from the mean was taken.
        size = np.linalg.norm(_second_differences(offset, [(middle, stride)]), axis=1)
        found.append((middle[size <= 2.5 * threshold_deg], stride))
    return found


def _second_differences(values, middles) -> np.ndarray:
    return np.concatenate([values[m - stride] - 2 * values[m] + values[m + stride] for m, stride in middles])


def _mixing(member, weight) -> csr_array:
    """Rows that average noise as the patterns were averaged, weights summing to 1."""
    member, weight = (np.asarray(part).reshape(-1, np.shape(part)[-1]) for part in (member, weight))
    known = (member >= 0) & (weight > 0)
    rows = np.concatenate([[0], np.cumsum(known.sum(axis=1))])
    share = np.where(known, weight, 0) / np.maximum(np.where(known, weight, 0).sum(axis=1, keepdims=True), 1e-30)
    return csr_array((share[known].astype(np.float32), member[known], rows), shape=(len(member), len(member)))


def _drawn(size: int, mix, rng) -> np.ndarray:
    white = rng.normal(size=(size, 3)).astype(np.float32)
    return white if mix is None else mix @ white


def _turned(root, grain, drawn) -> np.ndarray:
    """Noise of the covariance of each position's grain; outside grains that of the last one, which nobody reads."""
    matrices = root.astype(np.float32)[grain]
    return sum(matrices[:, :, j] * drawn[:, j : j + 1] for j in range(3))


def _noise_root(here: Map, grain, count: int, offset, draws, middles) -> np.ndarray:
    """(grains, 3, 3) matrices that turn drawn noise into noise of the measured covariance."""
    label = grain[np.concatenate([m for m, _ in middles])]
    number = np.bincount(label, minlength=count)
    second = _second_differences(offset, middles)
    products = np.einsum("ni,nj->nij", second, second).reshape(-1, 9)
    covariance = np.stack([np.bincount(label, column, count) for column in products.T], axis=1).astype(float)
    unit = np.zeros(count)
    for drawn in draws:
        unit += np.bincount(label, (_second_differences(drawn, middles) ** 2).mean(axis=1), count) / len(draws)
    phase = np.zeros(count, int)
    phase[grain[grain >= 0]] = here.phase[grain >= 0]
    for k in range(len(here.crystals)):
        few, mine = (phase == k) & (number < ENOUGH), phase == k
        covariance[few], unit[few] = covariance[mine].sum(axis=0), unit[mine].sum()
    ratio = np.divide(covariance, unit[:, None], out=np.zeros_like(covariance), where=unit[:, None] > 0)
    value, vector = np.linalg.eigh(ratio.reshape(-1, 3, 3))
    # A phase of which no three positions lie in a row has no measured noise, and no floor.
    return np.where(unit[:, None, None] > 0, vector * np.sqrt(np.maximum(value, 0))[:, None, :], np.nan)
