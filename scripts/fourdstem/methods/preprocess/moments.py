"""One pass over the recorded counts: what each detector pixel does over the scan, and the detector's noise."""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.cube import Cube
from fourdstem.errors import InputError

MOST_COUNTS = 1e15  # squares of more do not fit the float32 of the kernels; no detector counts so far


@dataclass(frozen=True)
class Moments:
    """Statistics over the scan of each detector pixel; arrays of shape (detector_y, detector_x).

    Attributes
    ----------
    positions, pairs : int
        How many patterns there are, and how many pairs of neighbours along scan_x inside a unit.
    mean, variance : ndarray of float64
        Over all positions; counts and counts².
    pair_variance : ndarray of float64
        Half the mean squared difference of neighbours: noise without slow changes of the specimen. NaN
        where a scan has no pairs.
    maximum : ndarray of float32
    at_maximum : ndarray of int64
        How many positions reach that maximum.
    nan : ndarray of bool
        Pixels that are NaN or infinite at every position.
    """

    positions: int
    pairs: int
    mean: np.ndarray
    variance: np.ndarray
    pair_variance: np.ndarray
    maximum: np.ndarray
    at_maximum: np.ndarray
    nan: np.ndarray


def measure(cube: Cube) -> Moments:
    """Return the statistics of every detector pixel.

    Raises
    ------
    InputError
        If the whole scan is one number, a pixel is NaN or infinite in some patterns but not in all, or counts are
        larger than any detector's.
    """
    ny, nx = cube.detector_shape
    total, square, pair = (np.zeros((ny, nx)) for _ in range(3))
    maximum, at_maximum, nan = np.full((ny, nx), -np.inf, np.float32), np.zeros((ny, nx), np.int64), None

    def work(patterns, unit):
        sums = np.zeros((5, ny, nx))
        holes = ~np.isfinite(patterns[0])
        odd = accumulate(patterns[: unit.count].reshape(unit.count, -1), holes.ravel(), sums.reshape(5, -1))
        if odd >= 0 and not (~np.isfinite(patterns[odd]) & ~holes).any():
            odd = 0  # it is the first pattern that has more of them
        return sums, holes, odd

    first = cube.units()[0]
    for unit, (sums, holes, odd) in cube.map_units(work):
        nan = holes if nan is None else nan
        if odd >= 0 or not np.array_equal(holes, nan):
            _complain_about_nan(*((unit, max(odd, 0)) if odd >= 0 or (holes & ~nan).any() else (first, 0)))
        total += sums[0]
        square += sums[1]
        pair += sums[2]
        higher, equal = sums[3] > maximum, sums[3] == maximum
        at_maximum = np.where(higher, sums[4], at_maximum + equal * sums[4]).astype(np.int64)
        maximum = np.maximum(maximum, sums[3].astype(np.float32))
    positions = int(np.prod(cube.scan_shape))
    pairs = positions - len(cube.units())
    mean = total / positions
    variance = np.maximum(square / positions - mean**2, 0) * positions / max(positions - 1, 1)
    _complain_about_level(mean[~nan], variance[~nan], maximum[~nan])
    halves = pair / (2 * pairs) if pairs else np.full((ny, nx), np.nan)
    return Moments(positions, pairs, mean, variance, halves, maximum, at_maximum, nan)


def _complain_about_level(mean, variance, maximum):
    """Raise where there is nothing to see: no number at all, one number everywhere, or numbers that are no counts."""
    if mean.size and maximum.max() <= MOST_COUNTS and (np.ptp(mean) > 0 or variance.any()):
        return
    found = "every count of the scan is NaN or infinite"
    if mean.size:
        same = np.ptp(mean) == 0 and not variance.any()
        found = f"every count of the scan is {mean[0]:g}" if same else f"counts of up to {maximum.max():.3g}"
    raise InputError(
        found,
        where="the scan",
        expected=f"patterns with different counts, of up to {MOST_COUNTS:.0e}",
        do="Check dataset, scan_shape and roi, and that the file was read in its own byte order.",
    )


def _complain_about_nan(unit, index: int):
    raise InputError(
        f"a pixel is NaN or infinite at scan position (y, x) = ({unit.y}, {unit.x0 + index}) but not at every position",
        where="the scan",
        expected="numbers, or NaN in the same detector pixels everywhere",
        do="Repair the file, leave the position out by roi, or mask the pixel (acquisition: mask).",
    )


@numba.njit(nogil=True, cache=True)
def accumulate(patterns, holes, sums):
    """Add up one unit.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n, pixels)
    holes : ndarray of bool, shape (pixels,)
        NaN or infinite in the first pattern; such pixels are passed over.
    sums : ndarray of float64, shape (5, pixels)
        Zero on entry. Receives sum, sum of squares, sum of squared differences of neighbours, maximum, and how
        often it is reached.

    Returns
    -------
    int
        Index of the first pattern whose holes are not those of ``holes``, or -1.
    """
    for i in range(patterns.shape[0]):
        for k in range(patterns.shape[1]):
            value = float(patterns[i, k])
            if np.isfinite(value) == holes[k]:
                return i
            if holes[k]:
                continue
            sums[0, k] += value
            sums[1, k] += value * value
            if i:
                step = value - patterns[i - 1, k]
                sums[2, k] += step * step
            if i == 0 or value > sums[3, k]:
                sums[3, k], sums[4, k] = value, 1
            elif value == sums[3, k]:
                sums[4, k] += 1
    return -1


@dataclass(frozen=True)
class Noise:
    """Variance of a count I: ``slope * max(I - floor, 0) + dark``.

    Attributes
    ----------
    floor : float
        Level of the darkest pixels, counts.
    slope : float
        Counts of variance per count, the gain where it is known.
    dark : float
        Variance at the floor, counts².
    """

    floor: float
    slope: float
    dark: float


@dataclass(frozen=True)
class Gain:
    """What the mean–variance line says; NaN = declined or not knowable."""

    counts_per_electron: float
    offset_counts: float
    readout_noise_counts: float
    passed: bool
    reason: str


MIN_PAIRS = 100
MIN_SPAN = 3  # of the variances on the line, or its slope means nothing
BINS = 24


def estimate_gain(moments: Moments, good: np.ndarray, acquisition, limits, integer: bool) -> tuple[Gain, Noise]:
    """Fit ``variance = gain * (mean - offset) + readout²`` to the quiet pixels of each level.

    The specimen adds variance where neighbours along the scan differ; hence differences of neighbours, and the
    lower quartile of the pixels of one mean. The line alone cannot part offset from readout noise: one of them
    comes from the acquisition, from counting (integers that reach 0), or from a level floor.

    Parameters
    ----------
    moments : Moments
    good : ndarray of bool, shape (detector_y, detector_x)
    acquisition : Acquisition
        Values given there are kept.
    limits : Params
        ``gain_scatter_limit``.
    integer : bool
        Counts are stored as integers.

    Returns
    -------
    tuple of (Gain, Noise)
        The noise model is usable even where the gain is declined.
    """
    mean = moments.mean[good]
    enough = moments.pairs >= MIN_PAIRS
    variance = moments.pair_variance[good] if enough else moments.variance[good]
    floor = float(np.quantile(mean, 0.05))
    darkest = mean <= floor
    slope, intercept, scatter, span = _line(mean, variance, max(moments.pairs, 1)) if enough else (np.nan,) * 4
    sound = enough and slope > 0 and scatter <= limits.gain_scatter_limit and span >= MIN_SPAN
    given = acquisition.counts_per_electron
    if given is not None:
        gain, reason = given, f"gain {given:g} counts per electron given"
    elif sound:
        gain = slope
        reason = f"gain {slope:.3g} counts per electron; quiet pixels scatter {scatter:.1%} about the line"
        reason += f" (limit {limits.gain_scatter_limit:.0%})"
    else:
        gain, reason = np.nan, _why_no_gain(moments.pairs, slope, scatter, span, limits)
    line = intercept if sound else np.nan
    offset, readout, more = _offset_and_readout(moments, good, acquisition, gain, line, integer)
    return (
        Gain(gain, offset, readout, bool(np.isfinite(gain)), f"{reason}; {more}"),
        _noise(mean, variance, darkest, floor, gain, moments.positions),
    )


def _why_no_gain(pairs, slope, scatter, span, limits) -> str:
    if pairs < MIN_PAIRS:
        return f"gain declined: {pairs} pairs of neighbouring positions, {MIN_PAIRS} needed"
    if not span >= MIN_SPAN:
        return f"gain declined: variances span a factor {span:.1f} only, {MIN_SPAN} needed"
    about = f"scatter {scatter:.0%} about the line (limit {limits.gain_scatter_limit:.0%})"
    return f"gain declined: slope {slope:.3g}, {about}"


def _line(mean, variance, pairs):
    """Slope, intercept, relative scatter and span of the levels of the quiet pixels."""
    bins = _levels(mean)
    keep, correction = np.ones(len(mean), bool), 1.0
    for _ in range(4):
        level, quiet = [], []
        for inside in bins:
            level.append(mean[inside][keep[inside]].mean())
            quiet.append(variance[inside][keep[inside]].mean() / correction)
        level, quiet = np.array(level), np.array(quiet)
        if len(level) < 4:
            return np.nan, np.nan, np.nan, np.nan
        slope, intercept, residual = _robust_line(level, quiet)
        ratio = variance / np.maximum(slope * mean + intercept, 1e-12)
        for inside in bins:
            keep[inside] = ratio[inside] <= np.median(ratio[inside])
        # The lower half of a sample of width s lies 0.8 s below its mean; mean squared differences of Gaussian
        # noise have s = v sqrt(3 / pairs).
        correction = 1 - 0.8 * min(np.sqrt(3 / pairs), 0.5)
    return slope, intercept, 1.4826 * np.median(np.abs(residual)), quiet.max() / max(quiet.min(), 1e-12)


def _levels(mean) -> list[np.ndarray]:
    """Indices of the pixels of each level of the mean: quantiles where most pixels are, equal steps above."""
    low = np.quantile(mean, [0, 0.1, 0.3, 0.5, 0.7])
    steps = np.linspace(mean.min(), mean.max(), BINS + 1)
    edges = np.unique(np.concatenate([low, steps[steps > low[-1]]]))
    bins = np.clip(np.searchsorted(edges, mean, side="right") - 1, 0, len(edges) - 2)
    groups = [np.flatnonzero(bins == k) for k in range(len(edges) - 1)]
    return [g for g in groups if len(g) >= 12]


def _robust_line(level, quiet):
    design = np.stack([level, np.ones_like(level)], 1)
    weight, robust = 1 / np.maximum(quiet, 1e-12), np.ones_like(level)
    for _ in range(20):
        w = np.sqrt(robust) * weight
        slope, intercept = np.linalg.lstsq(design * w[:, None], quiet * w, rcond=None)[0]
        residual = (quiet - slope * level - intercept) * weight
        robust = 1 / (1 + (residual / 0.1) ** 2)
    return slope, intercept, residual


def _offset_and_readout(moments, good, acquisition, gain, intercept, integer):
    offset, readout = acquisition.offset_counts, acquisition.readout_noise_counts
    if offset is None and integer and moments.mean[good].min() >= 0 and _reaches_zero(moments, good):
        offset, how = 0.0, "offset 0 (counts of single electrons)"
    elif offset is not None:
        how = f"offset {offset:g} given"
    elif readout is not None and np.isfinite(gain + intercept):
        offset = (readout**2 - intercept) / gain
        how = f"offset {offset:.4g} counts from the line and the readout noise given"
    else:
        offset, how = _level_floor(moments, good)
    if readout is None:
        square = intercept + gain * offset
        # Below a millionth of an electron it is the rounding of the line's intercept.
        readout = 0.0 if square < (1e-6 * gain) ** 2 else float(np.sqrt(square))
        return offset, readout, f"{how}; readout noise {readout:.3g} counts"
    return offset, readout, f"{how}; readout noise {readout:g} given"


def _reaches_zero(moments, good) -> bool:
    """Tell whether the dimmest pixels are mostly 0, as those of a counting detector are."""
    dim = np.sort(moments.mean[good])[: max(good.sum() // 20, 1)]
    return dim.mean() < 1


def _level_floor(moments, good):
    """Offset from the darkest quarter, if the pixels there differ by no more than their noise."""
    mean = moments.mean[good]
    dark = mean <= np.quantile(mean, 0.25)
    error = np.sqrt(np.median(moments.variance[good][dark]) / moments.positions)
    low, high = np.quantile(mean[dark], [0.16, 0.84])
    if moments.positions > 1 and high - low <= 3 * error:
        return float(np.median(mean[dark])), f"offset {np.median(mean[dark]):.4g} counts from the level floor"
    return np.nan, "offset declined: the darkest quarter of the detector is not level"


def _noise(mean, variance, darkest, floor, gain, positions) -> Noise:
    if positions == 1:
        slope, dark = (gain if np.isfinite(gain) else 1.0), 0.0
    else:
        dark = float(np.median(variance[darkest]))
        bright = mean > floor + 0.25 * (np.quantile(mean, 0.999) - floor)
        ratio = (variance[bright] - dark) / (mean[bright] - floor)
        slope = gain if np.isfinite(gain) else float(np.quantile(ratio, 0.25))
    return Noise(floor, max(slope, 1e-6), max(dark, slope * 1e-3, 1e-12))
