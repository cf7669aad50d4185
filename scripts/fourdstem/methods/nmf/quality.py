"""How alike two patterns look: PSNR, SSIM, GMSD and MDSI inside a detector mask.

Every pattern is first divided by its root mean square inside the mask and each pair by its largest value, so that
both lie in 0 to 1: weights and doses do not count, and dark patterns do not saturate the measures. Pixels outside the
mask are 0 in both and are not averaged over.

All four measures are ratios in which that largest value may as well multiply the constants. So what filters make of
a pattern is computed once for all its pairs, in 32 bits (10⁻⁵ dB and 10⁻⁶ off 64 bits). PSNR and SSIM are those of
scikit-image (a test compares them), which would filter both patterns of each pair.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import uniform_filter

METRICS = ("psnr", "ssim", "gmsd", "mdsi")
HIGHER_IS_ALIKE = {"psnr": True, "ssim": True, "gmsd": False, "mdsi": False}
MOST_PSNR = 100.0  # dB of equal patterns, which have no error
WINDOW, SSIM_C1, SSIM_C2 = 7, 0.01**2, 0.03**2
GMSD_C = 170 / 255**2  # of values in 0 to 1; 170 for 0 to 255 in the paper
MDSI_C1, MDSI_C2, MDSI_C3, MDSI_ALPHA = 140.0, 55.0, 550.0, 0.6  # of values in 0 to 255
GREY_TO_LHM = 0.9999, -0.01, -0.09  # row sums of the matrix in the paper: what is left of grey
KEPT = 2**25  # bytes of filtered patterns that are kept for further pairs


@dataclass(frozen=True)
class Seen:
    """A pattern and what filters make of it.

    Attributes
    ----------
    pattern : ndarray of shape (detector_y, detector_x)
        0 outside the mask.
    top : float
        Its largest value; the measures are of values in 0 to 1, which are these by the larger one of a pair.
    mean, spread : ndarray
        Over windows, of its values and of their squares less the mean's, in pixels of the mask.
    along_y, along_x : ndarray
        Prewitt differences, in pixels of the mask.
    halved : ndarray
        Magnitude of the same after averaging over 2 × 2 px, of blocks inside the mask.
    """

    pattern: np.ndarray
    top: float
    mean: np.ndarray
    spread: np.ndarray
    along_y: np.ndarray
    along_x: np.ndarray
    halved: np.ndarray


def likeness(first, second, mask: np.ndarray | None = None, pairs=None) -> np.ndarray:
    """Return all four measures of pairs of patterns.

    Parameters
    ----------
    first, second : ndarray of shape (pattern, detector_y, detector_x)
        Not negative; any scale.
    mask : ndarray of bool, shape (detector_y, detector_x), optional
        Pixels that count; all by default.
    pairs : sequence of pairs of int, optional
        Which of ``first`` is compared with which of ``second``; by default each with the one in its place.

    Returns
    -------
    ndarray of float64, shape (pair, metric)
        In the order of `METRICS`; NaN where a pattern is empty inside the mask.
    """
    mask = np.ones(np.shape(first)[1:], bool) if mask is None else np.asarray(mask, bool)
    pairs = [(i, i) for i in range(len(first))] if pairs is None else list(pairs)
    one = _kept(first, mask)
    two = one if second is first else _kept(second, mask)
    out = np.full((len(pairs), len(METRICS)), np.nan)
    for row, (i, j) in zip(out, pairs, strict=True):
        a, b = one(i), two(j)
        if a is not None and b is not None:
            row[:] = psnr(a, b, mask), ssim(a, b, mask), gmsd(a, b), mdsi(a, b, mask)
    return out


def _kept(patterns, mask: np.ndarray):
    """Return a function of the number of a pattern, `see` of it, which keeps some of what it has returned."""
    known, most = {}, max(1, KEPT // (40 * mask.size))

    def get(i: int):
        if i not in known:
            if len(known) >= most:
                known.pop(next(iter(known)))
            known[i] = _normalised(np.asarray(patterns[i], np.float32), mask)
        return known[i]

    return get


def _normalised(pattern: np.ndarray, mask: np.ndarray) -> Seen | None:
    """Return a pattern at root mean square 1 as the measures need it; None if it is empty inside the mask."""
    size = float(np.sqrt((pattern[mask] ** 2).mean(dtype=np.float64))) if mask.any() else 0.0
    if not np.isfinite(size) or size <= 0:
        return None
    whole = np.where(mask, pattern, 0) / size
    return see(whole, mask, float(whole.max()))


def see(whole: np.ndarray, mask: np.ndarray, top: float) -> Seen:
    """Return a pattern, 0 outside the mask, as the measures need it."""
    side = _side(mask.shape)
    mean = uniform_filter(whole, side)[mask]
    spread = uniform_filter(whole * whole, side)[mask] - mean * mean
    along_y, along_x = (edge[mask] for edge in _edges(whole))
    inside = _halved(mask.astype(float)) > 0.999
    halved = _magnitude(*(edge[inside] for edge in _edges(_halved(whole))))
    return Seen(whole, top, mean, spread, along_y, along_x, halved)


def _side(shape) -> int:
    """Return the width of SSIM's window: 7 px, or the largest odd number that fits."""
    return min(WINDOW, *(n - 1 + n % 2 for n in shape))


def psnr(first: Seen, second: Seen, mask: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of values in 0 to 1, dB; at most `MOST_PSNR`."""
    error = ((first.pattern - second.pattern)[mask] ** 2).mean() / _top(first, second) ** 2
    return min(MOST_PSNR, -10 * np.log10(max(error, 1e-12)))


def ssim(first: Seen, second: Seen, mask: np.ndarray) -> float:
    """Return the structural similarity (doi:10.1109/TIP.2003.819861) of values in 0 to 1, averaged over the mask.

    With the uniform window and the sample covariances of scikit-image. NaN where no window of 3 px fits.
    """
    side, square = _side(mask.shape), _top(first, second) ** 2
    if side < 3:
        return float("nan")
    both = uniform_filter(first.pattern * second.pattern, side)[mask]
    product, unbias = first.mean * second.mean, side**2 / (side**2 - 1)
    alike = (2 * product + SSIM_C1 * square) * (2 * unbias * (both - product) + SSIM_C2 * square)
    squares = first.mean**2 + second.mean**2 + SSIM_C1 * square
    return float((alike / (squares * (unbias * (first.spread + second.spread) + SSIM_C2 * square))).mean())


def gmsd(first: Seen, second: Seen) -> float:
    """Return the gradient magnitude similarity deviation of values in 0 to 1 (doi:10.1109/TIP.2013.2293423).

    The standard deviation over pixels of (2 m₁ m₂ + c) / (m₁² + m₂² + c), m the Prewitt gradients of patterns that were
    averaged over 2 × 2 px. 0 for equal patterns. A block counts where all of it is in the mask.
    """
    if not first.halved.size:
        return float("nan")
    return float(_similar(first.halved, second.halved, GMSD_C * _top(first, second) ** 2).std())


def mdsi(first: Seen, second: Seen, mask: np.ndarray) -> float:
    """Return the mean deviation similarity index of values in 0 to 1 (doi:10.1109/ACCESS.2016.2604042).

    For grey images, with the paper's constants: gradient similarity with the pair's mean as a third image, weighted
    with the similarity of the two colour channels (nearly 1 for grey). Fourth roots of negative values are complex.
    The paper averages images whose shorter side is 384 px or more first; patterns are expected to be smaller. 0 for
    equal patterns.
    """
    light, h, m = GREY_TO_LHM
    square, colour = (_top(first, second) / 255) ** 2, h**2 + m**2
    between = (first.along_y + second.along_y) / 2, (first.along_x + second.along_x) / 2
    every = (first.along_y, first.along_x), (second.along_y, second.along_x), between
    edges = [_magnitude(*along) for along in every]
    c1, c2, c3 = MDSI_C1 * square / light**2, MDSI_C2 * square / light**2, MDSI_C3 * square / colour
    gradient = _similar(edges[0], edges[1], c1) + _similar(edges[0], edges[2], c2) - _similar(edges[1], edges[2], c2)
    both = MDSI_ALPHA * gradient + (1 - MDSI_ALPHA) * _similar(first.pattern[mask], second.pattern[mask], c3)
    root, turned = np.sqrt(np.sqrt(np.abs(both))), both < 0  # those by an eighth of a turn
    real, imaginary = np.where(turned, np.sqrt(0.5) * root, root), np.where(turned, np.sqrt(0.5) * root, 0)
    return float(_magnitude(real - real.mean(), imaginary - imaginary.mean()).mean() ** 0.25)


def _top(first: Seen, second: Seen) -> float:
    return max(first.top, second.top)


def _halved(pattern):
    """Average blocks of 2 × 2 px; a block that sticks out is filled with zeros."""
    ny, nx = pattern.shape
    padded = np.pad(pattern, ((0, ny % 2), (0, nx % 2)))
    return padded.reshape((ny + 1) // 2, 2, (nx + 1) // 2, 2).mean(axis=(1, 3))


def _edges(pattern):
    """Return Prewitt differences along y and along x; outside lie zeros."""
    wide = np.pad(pattern, 1)
    along_x = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    along_y = wide[:-2] + wide[1:-1] + wide[2:]
    return (along_x[2:] - along_x[:-2]) / 3, (along_y[:, 2:] - along_y[:, :-2]) / 3


def _magnitude(y, x):
    return np.sqrt(y * y + x * x)


def _similar(m1, m2, constant):
    return (2 * m1 * m2 + constant) / (m1 * m1 + m2 * m2 + constant)
