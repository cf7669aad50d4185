"""The direct beam as a model: a disk of radius R with a soft edge of width w on a level background."""

from dataclasses import dataclass

import numba
import numpy as np
from scipy import fft
from scipy.optimize import least_squares
from scipy.special import erfc
from scipy.stats import ncx2

from fourdstem import jit  # noqa: F401  compiled code is cached safely

NARROWEST_EDGE_PX = 0.3  # a pixel integrates over its area: 1 / sqrt(12)
STEP_PX = 0.02


@dataclass(frozen=True)
class Beam:
    """Radius and edge width of the direct disk in px, its contrast to the background, and the radius' sigma."""

    radius_px: float
    edge_px: float
    contrast: float
    radius_sigma_px: float = np.nan


def soft_disk(r: np.ndarray, radius: float, edge: float) -> np.ndarray:
    """Uniform disk convolved with a Gaussian: the chance that a Rice variate (r, edge) is below the radius.

    Where the edge is thin compared with the radius, its curvature does not matter and an error function does.
    """
    if radius > 12 * edge:
        return 0.5 * erfc((r - radius) / (np.sqrt(2) * edge))
    return ncx2.cdf((radius / edge) ** 2, 2, np.maximum(r / edge, 1e-6) ** 2)


def template(beam: Beam) -> np.ndarray:
    """Table of t(r) = log(1 + contrast * disk(r)) and of t', t'' at steps of 0.02 px, shape (3, n).

    With the true contrast, the sum of counts times this template is the log-likelihood of a Poisson pattern up to
    constants, so that its maximum is as precise as the counts allow.
    """
    r = np.arange(0, beam.radius_px + 6 * beam.edge_px + 2, STEP_PX)
    value = np.log1p(contrast_limit(beam) * soft_disk(r, beam.radius_px, beam.edge_px))
    value -= value[-1]
    slope = np.gradient(value, STEP_PX)
    slope[0] = 0.0
    return np.stack([value, slope, np.gradient(slope, STEP_PX)])


def contrast_limit(beam: Beam) -> float:
    """Contrast of the template.

    The full contrast would listen to the faintest counts outside the edge, where a lopsided halo lies. A limit of 10
    costs 3 % of precision; wide disks have precision to spare and a halo to fear.
    """
    return min(max(beam.contrast, 1.0), 10.0 * min(1.0, 8.0 / beam.radius_px))


def fast_shape(shape) -> tuple[int, int]:
    """Return the next larger shape whose FFT is quick; detectors of 257 or 514 px are not."""
    return tuple(fft.next_fast_len(n, real=True) for n in shape)


def stamp(table: np.ndarray, shape) -> np.ndarray:
    """Conjugate half-plane spectrum, on `fast_shape`, of the template at pixel (0, 0), for correlation by FFT."""
    y, x = (np.minimum(np.arange(n), n - np.arange(n)) for n in fast_shape(shape))
    r = np.hypot(y[:, None], x[None, :])
    image = np.interp(r, np.arange(table.shape[1]) * STEP_PX, table[0], right=0.0)
    return np.conj(fft.rfft2(image.astype(np.float32)))


def blur_stamp(beam: Beam, shape) -> np.ndarray:
    """Half-plane spectrum, on `fast_shape`, of a Gaussian of half the disk's radius, as blind to its edge as can be."""
    padded, sigma = fast_shape(shape), max(beam.radius_px / 2, 1.0)
    y, x = 2 * np.pi * fft.fftfreq(padded[0])[:, None], 2 * np.pi * fft.rfftfreq(padded[1])
    return np.exp(-0.5 * sigma**2 * (y**2 + x**2)).astype(np.float32)


def guess_radius(patterns, shape, noise) -> float:
    """Radius of the disk from the mean autocorrelation, which does not care where the beam is.

    The autocorrelation of a disk falls to half at 0.808 radii. Shot noise sits at zero lag and is taken off.

    Parameters
    ----------
    patterns : iterable of ndarray of float32, shape (detector_y, detector_x)
    shape : tuple of int
        Of the detector.
    noise : moments.Noise
    """
    reach = min(shape) // 2
    padded = fast_shape([n + reach for n in shape])  # lags up to the reach do not wrap around
    power = np.zeros((padded[0], padded[1] // 2 + 1))
    shot = 0.0
    for pattern in patterns:
        image = np.maximum(pattern - np.float32(noise.floor), 0)
        spectrum = fft.rfft2(image, padded)
        power += spectrum.real**2 + spectrum.imag**2
        shot += noise.slope * image.sum(dtype=np.float64)
    lags = fft.irfft2(power, padded)
    lags[0, 0] -= shot
    y, x = (np.arange(n) - (n // 2) for n in padded)
    r = np.hypot(*np.meshgrid(y, x, indexing="ij"))
    profile = radial_mean(np.fft.fftshift(lags), r, reach)
    profile[0] = max(profile[0], profile[1])
    below = np.flatnonzero(profile < 0.5 * profile[0])
    if not below.size:
        return reach / 2.0
    k = below[0]
    half = k - (0.5 * profile[0] - profile[k]) / (profile[k - 1] - profile[k])
    return float(np.clip(half / 0.808, 0.8, reach))


def radial_mean(image: np.ndarray, r: np.ndarray, reach: int) -> np.ndarray:
    """Mean of an image in rings one pixel wide about r = 0, 1, … reach."""
    bins = np.rint(r).astype(int).ravel()
    inside = bins <= reach
    total = np.bincount(bins[inside], image.ravel()[inside], reach + 1)
    return total / np.maximum(np.bincount(bins[inside], minlength=reach + 1), 1)


@numba.njit(nogil=True, cache=True)
def add_profile(pattern, usable, centre, floor, step, sums):
    """Add a pattern's counts against distance from its own centre: no interpolation, hence no blur.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
    usable : ndarray of bool, shape (detector_y, detector_x)
    centre : ndarray of shape (2,)
        Position (y, x), px.
    floor, step : float
        Subtracted counts; width of the bins, px.
    sums : ndarray of float64, shape (3, bins)
        Radii, counts and number of pixels of each bin are added.
    """
    ny, nx = pattern.shape
    bins = sums.shape[1]
    reach = int(bins * step) + 1
    for y in range(max(int(centre[0]) - reach, 0), min(int(centre[0]) + reach + 2, ny)):
        for x in range(max(int(centre[1]) - reach, 0), min(int(centre[1]) + reach + 2, nx)):
            r = np.sqrt((y - centre[0]) ** 2 + (x - centre[1]) ** 2)
            k = int(r / step)
            if k < bins and usable[y, x]:
                sums[0, k] += r
                sums[1, k] += pattern[y, x] - floor
                sums[2, k] += 1


def fit_beam(sums, seed_px: float) -> Beam:
    """Fit the soft disk to the sums of `add_profile`.

    Robust, so that intensity inside the disk and rings beyond count less.
    """
    radii, counts, number = sums[:, sums[2] > 0]
    radii, counts = radii / number, counts / number
    near = radii < 1.25 * seed_px + 3
    r, value, weight = radii[near], counts[near], np.sqrt(number[near] / number[near].max())
    inner = max(np.quantile(value[r < max(0.8 * seed_px, r[0] + 1e-9) + 1e-9], 0.5), 1e-9)
    value = value / inner

    def residual(p):
        return weight * (p[2] * soft_disk(r, p[0], p[1]) + p[3] + p[4] * np.minimum(r - p[0], 0) / p[0] - value)

    low = [0.4, NARROWEST_EDGE_PX, 0.05, -0.5, -1.0]
    high = [2.0 * seed_px + 2, max(2.0, 0.5 * seed_px), 10.0, 5.0, 1.0]
    start = np.clip([seed_px, max(0.7, 0.05 * seed_px), 1.0, max(value[-1], 0.0), 0.0], low, high)
    fit = least_squares(residual, start, bounds=(low, high), loss="soft_l1", f_scale=0.05)
    radius, edge, height, back, _ = fit.x
    spread = 2 * fit.cost / max(len(r) - 5, 1)
    normal = fit.jac.T @ fit.jac
    sigma = np.sqrt(spread * np.linalg.pinv(normal)[0, 0])
    return Beam(float(radius), float(edge), float(height / max(back, 0.01 * height)), float(sigma))
