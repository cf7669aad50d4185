"""How alike two patterns look: PSNR, SSIM, GMSD and MDSI inside a detector mask.

Every pattern is first divided by its root mean square inside the mask and each pair by its largest value, so that
both lie in 0 to 1: weights and doses do not count, and dark patterns do not saturate the measures. Pixels outside the
mask are 0 in both and are not averaged over.
"""

import numpy as np
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

METRICS = ("psnr", "ssim", "gmsd", "mdsi")
HIGHER_IS_ALIKE = {"psnr": True, "ssim": True, "gmsd": False, "mdsi": False}
MOST_PSNR = 100.0  # dB of equal patterns, which have no error
GMSD_CONSTANT = 170 / 255**2  # of values in 0 to 1; 170 for 0 to 255 in the paper
MDSI_C1, MDSI_C2, MDSI_C3, MDSI_ALPHA = 140.0, 55.0, 550.0, 0.6
GREY_TO_LHM = 0.9999, -0.01, -0.09  # row sums of the matrix in the paper: what is left of grey


def likeness(first: np.ndarray, second: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Return all four measures of pairs of patterns.

    Parameters
    ----------
    first, second : ndarray of shape (pair, detector_y, detector_x)
        Not negative; any scale.
    mask : ndarray of bool, shape (detector_y, detector_x), optional
        Pixels that count; all by default.

    Returns
    -------
    ndarray of float64, shape (pair, metric)
        In the order of `METRICS`; NaN where a pattern is empty inside the mask.
    """
    first, second = np.asarray(first, float), np.asarray(second, float)
    mask = np.ones(first.shape[1:], bool) if mask is None else np.asarray(mask, bool)
    out = np.full((len(first), len(METRICS)), np.nan)
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        pair = normalised(a, b, mask)
        if pair is not None:
            out[i] = psnr(*pair, mask), ssim(*pair, mask), gmsd(*pair, mask), mdsi(*pair, mask)
    return out


def normalised(first: np.ndarray, second: np.ndarray, mask: np.ndarray):
    """Return both patterns at equal root mean square inside the mask, the larger maximum 1; None if one is empty."""
    scale = [np.sqrt((p[mask] ** 2).mean()) if mask.any() else 0.0 for p in (first, second)]
    if not all(np.isfinite(scale)) or min(scale) <= 0:
        return None
    pair = [np.where(mask, p, 0.0) / s for p, s in zip((first, second), scale, strict=True)]
    top = max(p.max() for p in pair)
    return pair[0] / top, pair[1] / top


def psnr(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of values in 0 to 1, dB; at most `MOST_PSNR`."""
    error = ((first - second)[mask] ** 2).mean()
    return min(MOST_PSNR, -10 * np.log10(max(error, 1e-12)))


def ssim(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return the structural similarity (doi:10.1109/TIP.2003.819861) of values in 0 to 1, averaged over the mask.

    scikit-image's, in its uniform window of 7 × 7 px, or the largest odd one that fits.
    """
    side = min(7, *(n - 1 + n % 2 for n in first.shape))
    if side < 3:
        return float("nan")
    local = structural_similarity(first, second, win_size=side, data_range=1.0, full=True)[1]
    return float(local[mask].mean())


def gmsd(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return the gradient magnitude similarity deviation of values in 0 to 1 (doi:10.1109/TIP.2013.2293423).

    The standard deviation over pixels of (2 m₁ m₂ + c) / (m₁² + m₂² + c), m the Prewitt gradients of patterns that were
    averaged over 2 × 2 px. 0 for equal patterns. A block counts where all of it is in the mask.
    """
    inside = _halved(mask.astype(float)) > 0.999
    if not inside.any():
        return float("nan")
    m1, m2 = (_gradient(_halved(p)) for p in (first, second))
    return float(_similar(m1, m2, GMSD_CONSTANT)[inside].std())


def mdsi(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """Return the mean deviation similarity index of values in 0 to 1 (doi:10.1109/ACCESS.2016.2604042).

    For grey images, with the paper's constants: gradient similarity with the pair's mean as a third image, weighted
    with the similarity of the two colour channels (nearly 1 for grey). Fourth roots of negative values are complex.
    The paper averages images whose shorter side is 384 px or more first; patterns are expected to be smaller. 0 for
    equal patterns.
    """
    light, h, m = GREY_TO_LHM
    x, y = 255 * first, 255 * second
    gradients = [_gradient(light * p) for p in (x, y, (x + y) / 2)]
    gradient = _similar(gradients[0], gradients[1], MDSI_C1)
    gradient += _similar(gradients[0], gradients[2], MDSI_C2) - _similar(gradients[1], gradients[2], MDSI_C2)
    colour = h**2 + m**2
    chromatic = (2 * colour * x * y + MDSI_C3) / (colour * (x**2 + y**2) + MDSI_C3)
    both = (MDSI_ALPHA * gradient + (1 - MDSI_ALPHA) * chromatic)[mask]
    root = both.astype(complex) ** 0.25
    return float(np.abs(root - root.mean()).mean() ** 0.25)


def _halved(pattern):
    """Average blocks of 2 × 2 px; a block that sticks out is filled with zeros."""
    ny, nx = pattern.shape
    padded = np.pad(pattern, ((0, ny % 2), (0, nx % 2)))
    return padded.reshape((ny + 1) // 2, 2, (nx + 1) // 2, 2).mean(axis=(1, 3))


def _gradient(pattern):
    """Return the magnitude of the Prewitt gradient; outside lie zeros."""
    parts = []
    for across, along in ((0, 1), (1, 0)):
        difference = correlate1d(pattern, [1.0, 0.0, -1.0], axis=along, mode="constant")
        parts.append(correlate1d(difference, [1 / 3] * 3, axis=across, mode="constant"))
    return np.hypot(*parts)


def _similar(m1, m2, constant):
    return (2 * m1 * m2 + constant) / (m1**2 + m2**2 + constant)
