"""Pixels that lie: dead, hot, saturated."""

import numpy as np
from scipy.ndimage import maximum_filter, median_filter, rank_filter

from fourdstem.methods.preprocess.moments import Moments

GOOD, DEAD, HOT, SATURATED = 0, 1, 2, 3
EIGHT = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)
RING = np.pad(np.zeros((3, 3), bool), 1, constant_values=True)
CERTAIN_COUNTS = 16  # a pixel that should have had so many is empty by chance once in 1e7


def find(moments: Moments, usable: np.ndarray, params, ceiling: float | None) -> np.ndarray:
    """Classify detector pixels.

    Hot: far above the third brightest of its eight neighbours (so that up to two hot pixels may touch) compared
    with what the direct beam, the sharpest thing that the optics can make, shows; with its own variance over
    the scan in the error, so that a Bragg spot that visits one pixel once is not hot. Where the beam itself is
    narrower than that, only pixels that fluctuate less than counted electrons can are called hot.
    Dead: does not change although its surroundings do. Saturated: at the ceiling at a share of the positions.

    Parameters
    ----------
    moments : Moments
    usable : ndarray of bool, shape (detector_y, detector_x)
        The user's mask.
    params : Params
        ``hot_sigma``, ``saturated_share``.
    ceiling : float or None
        Largest value of an integer type, None for float data.

    Returns
    -------
    ndarray of uint8, shape (detector_y, detector_x)
        0 good, 1 dead, 2 hot, 3 saturated. Pixels outside ``usable`` are 0.
    """
    bad = np.zeros(usable.shape, np.uint8)
    alive = usable & ~moments.nan
    mean = np.where(alive, moments.mean, np.median(moments.mean[alive]))
    bad[_saturated(moments, alive, params.saturated_share, ceiling)] = SATURATED
    bad[_dead(moments, alive, mean)] = DEAD
    bad[_hot(moments, alive, mean, params.hot_sigma)] = HOT
    bad[moments.nan] = DEAD
    bad[~usable] = GOOD
    return bad


def isolation(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, per pixel, the third brightest of eight neighbours, the median of the ring around, and their ratio.

    The ratio is (third neighbour - ring) / (pixel - ring): 1 inside a disk, 0 for a lone pixel.
    """
    third = rank_filter(mean, rank=5, footprint=EIGHT, mode="mirror")
    ring = median_filter(mean, footprint=RING, mode="mirror")
    height = mean - ring
    ratio = np.where(height > 0, (third - ring) / np.where(height > 0, height, 1), 1.0)
    return third, ring, ratio


def _hot(moments, alive, mean, hot_sigma):
    third, ring, ratio = isolation(mean)
    floor = np.quantile(mean[alive], 0.05)
    around = median_filter(moments.variance, footprint=RING, mode="mirror")
    if moments.positions == 1:  # no variance to go by: counted electrons, and caution
        noise = 3 * np.sqrt(np.maximum(ring - floor, 0) + 1)
    else:
        noise = np.sqrt(np.maximum(around, moments.variance) / moments.positions)
    spread = 1.4826 * median_filter(np.abs(mean - ring), size=5, mode="mirror")
    excess = mean - third
    far = (excess > hot_sigma * noise) & (excess > hot_sigma * spread) & (excess > 0.3 * np.maximum(ring - floor, 0))
    sharpest = _beam_isolation(mean, third, ratio, alive)
    lone = far & alive & (ratio < min(0.3, 0.5 * sharpest))
    if sharpest < 0.3 and moments.positions > 1:
        electrons = np.maximum(mean - floor, 0)
        bright = alive & (mean > np.quantile(mean[alive], 0.9))
        fano = np.median(moments.variance[bright] / np.maximum(electrons[bright], 1e-12))
        lone |= far & alive & (ratio < 0.3) & (moments.variance < 0.2 * fano * electrons)
    return lone


def _beam_isolation(mean, third, ratio, alive) -> float:
    """Isolation ratio of the direct beam: 1 where it is wider than 10 px in area, else that of its peak."""
    level = np.where(alive, third, -np.inf)  # which lone pixels do not raise
    y, x = np.unravel_index(np.argmax(level), mean.shape)
    ys, xs = slice(max(y - 2, 0), y + 3), slice(max(x - 2, 0), x + 3)
    if (mean[ys, xs] > 0.5 * level[y, x]).sum() > 10:
        return 1.0
    ys, xs = slice(max(y - 1, 0), y + 2), slice(max(x - 1, 0), x + 2)
    return float(np.clip(ratio[ys, xs].ravel()[np.argmax(mean[ys, xs])], 0, 1))


def _dead(moments, alive, mean):
    """Pixels without change, or nearly without counts, where counts are certain; large dead blocks included."""
    still = alive & (moments.variance == 0) if moments.positions > 1 else alive & (mean == 0)
    dead = np.zeros(alive.shape, bool)
    lively = alive & ~still
    if lively.any():
        level = _median_of(mean, lively)
        unit = 1.0 if moments.positions == 1 else _median_of(moments.variance, lively) / np.maximum(level, 1e-12)
        expected = np.nan_to_num(level / np.maximum(unit, 1e-12)) * moments.positions
        dead = still & (mean < level) & (expected > CERTAIN_COUNTS)
    third = rank_filter(mean, rank=2, footprint=EIGHT, mode="mirror")
    around = median_filter(moments.variance, footprint=EIGHT, mode="mirror")
    error = np.sqrt(around / moments.positions)
    weak = (mean < 0.2 * third) & (third - mean > 8 * error) & (moments.variance < 0.2 * around)
    return dead | (weak & alive & (moments.positions > 1))


def _median_of(values, where, size: int = 9):
    """Median of the pixels of ``where`` in a window; NaN where there is none."""
    masked = np.where(where, values, np.nan)
    needed = maximum_filter((~where).astype(np.uint8), size=size)
    if not needed.any():
        return values
    half = size // 2
    out = values.astype(float)
    padded = np.pad(masked, half, constant_values=np.nan)
    for y, x in np.argwhere(~where):
        window = padded[y : y + size, x : x + size]
        window = window[~np.isnan(window)]
        out[y, x] = np.median(window) if window.size else np.nan
    return out


def _saturated(moments, alive, share, ceiling):
    enough = moments.at_maximum >= max(share * moments.positions, 1)
    at_type = alive & enough & (moments.maximum >= ceiling) if ceiling is not None else np.zeros(alive.shape, bool)
    # A ceiling below the type's: one large maximum, reached again and again by several pixels, some of which change.
    changing = moments.variance > 0
    top = moments.maximum[alive & changing].max(initial=-np.inf)
    clipped = alive & (moments.maximum == top)
    often = clipped & (moments.at_maximum >= max(share * moments.positions, 3))
    spread = np.sqrt(np.median(moments.variance[clipped & changing])) if (clipped & changing).any() else 0
    return at_type | (often if often.sum() >= 2 and spread >= 6 else np.zeros_like(often))
