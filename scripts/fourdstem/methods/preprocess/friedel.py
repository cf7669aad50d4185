"""The centre from Friedel's law: a pattern correlated with its own inversion.

The self-convolution ``C(s) = sum_r I(r) I(s - r)`` has a maximum at twice the centre of inversion, whatever the shape
of the disks; a pair of disks g, -g adds I(g) I(-g) there even if the two differ. Every pair of disks makes a maximum
at the sum of its positions, so that rivals of the centre lie half a reciprocal vector away: the one next to the direct
beam is taken.

Errors of single patterns, mean / 95 %, px, as measured: a disk of radius 4 px with 20 % of its counts in a background
(240 patterns), a simulated gold film, disks of 2 px, precession 17 mrad (256 patterns), and a disk that an unpaired
Bragg disk of 60 % touches (96 patterns).

=================  ==============  ==============  =============  =============  =============
method             disk, 100       disk, 1000      film, 120      film, 1200     touched, 4800
=================  ==============  ==============  =============  =============  =============
disk_correlation   0.235 / 0.488   0.072 / 0.149   0.246 / 0.483  0.081 / 0.149  0.038 / 0.073
centre_of_mass     0.323 / 0.638   0.099 / 0.199   0.250 / 0.523  0.085 / 0.164  0.310 / 0.428
blurred_maximum    0.324 / 0.638   0.099 / 0.199   0.250 / 0.523  0.085 / 0.164  0.313 / 0.445
friedel            0.387 / 0.779   0.118 / 0.230   0.278 / 0.588  0.089 / 0.178  0.332 / 0.445
=================  ==============  ==============  =============  =============  =============

Numbers in the head are counts or electrons per pattern. The inversion loses most of them all to counting noise, and
like both centres of mass to a disk that touches; its standard deviation is 10 to 17 % too small on the film (30 %
without precession at 120 electrons). The two centres of mass settle at the same place from either maximum.
"""

import numpy as np
from scipy import fft

from fourdstem.methods.preprocess.beam import fast_shape

BLUR_RADII = 0.35  # without a blur, noise multiplied by noise buries the maximum at low dose
SETTLED_PX = 1e-3
STEPS = 20


def locate_inversion(pattern, seed, radius: float, noise, out) -> None:
    """Find the centre of inversion next to the direct beam.

    Parameters
    ----------
    pattern : ndarray of float32, shape (detector_y, detector_x)
        Unusable pixels are at ``noise.floor``.
    seed : ndarray of shape (2,)
        The direct beam's neighbourhood, px; a maximum is sought within half a radius of it (at least 1 px).
    radius : float
        Of the disk, px.
    noise : moments.Noise
    out : ndarray of shape (4,)
        Receives y, x and the standard deviation per axis (NaN where the maximum is not a maximum).
    """
    signal = pattern.astype(np.float64) - noise.floor
    padded = fast_shape([2 * n - 1 for n in signal.shape])  # sums of positions do not wrap around
    frequency = _frequencies(padded)
    blur = np.exp(-0.5 * (max(BLUR_RADII * radius, 0.7)) ** 2 * (frequency[0][:, None] ** 2 + frequency[1] ** 2))
    spectrum = fft.rfft2(signal, padded, workers=1)
    power = (spectrum * blur) ** 2
    image = fft.irfft2(power, padded, workers=1)
    reach = max(radius, 2.0)
    low = np.clip(np.ceil(2 * seed - reach), 0, 2 * np.array(signal.shape) - 2).astype(int)
    high = np.clip(np.floor(2 * seed + reach), 0, 2 * np.array(signal.shape) - 2).astype(int) + 1
    near = image[low[0] : high[0], low[1] : high[1]]
    start = low + np.unravel_index(np.argmax(near), near.shape)
    place, hessian = _climb(power, frequency, padded, start.astype(float))
    out[:2] = place / 2
    smooth = fft.irfft2(spectrum * blur**2, padded, workers=1)
    out[2] = _uncertainty(signal, smooth, np.rint(place).astype(int), hessian, noise)


def _frequencies(padded):
    """Angular frequencies of the rows and of the half-plane's columns, per px."""
    return 2 * np.pi * fft.fftfreq(padded[0]), 2 * np.pi * fft.rfftfreq(padded[1])


def _climb(power, frequency, padded, place):
    """Newton's steps to the maximum of the series itself, free of the pixels; the place and the Hessian there."""
    hessian = np.zeros((2, 2))
    for _ in range(STEPS):
        gradient, hessian = _derivatives(power, frequency, padded, place)
        if np.linalg.eigvalsh(hessian)[1] >= 0:
            break
        step = -np.linalg.solve(hessian, gradient)
        size = np.hypot(*step)
        place = place + step / max(size, 1.0)
        if size < SETTLED_PX:
            break
    return place, hessian


def _derivatives(power, frequency, padded, place):
    (ky, kx), (sy, sx) = frequency, place
    weight = np.full(len(kx), 2.0)  # the other half-plane is the conjugate of this one
    weight[0] = 1.0
    if padded[1] % 2 == 0:
        weight[-1] = 1.0
    wave_x, wave_y = weight * np.exp(1j * kx * sx), np.exp(1j * ky * sy)
    rows = power @ np.stack([wave_x, 1j * kx * wave_x, -(kx**2) * wave_x], axis=1)
    sums = np.real(np.stack([wave_y, 1j * ky * wave_y, -(ky**2) * wave_y]) @ rows) / (padded[0] * padded[1])
    return np.array([sums[1, 0], sums[0, 1]]), np.array([[sums[2, 0], sums[1, 1]], [sums[1, 1], sums[0, 2]]])


def _uncertainty(signal, smooth, place, hessian, noise) -> float:
    """Standard deviation per axis, H⁻¹ V H⁻¹ of the maximum, halved as the centre is half the place.

    A count at r changes the gradient by twice the gradient of the smooth pattern at the mirrored pixel.
    """
    if np.linalg.eigvalsh(hessian)[1] >= 0:
        return np.nan
    ny, nx = signal.shape
    y, x = ((at - np.arange(n)) % m for at, n, m in zip(place, (ny, nx), smooth.shape, strict=True))
    slopes = [(np.roll(smooth, -1, axis) - np.roll(smooth, 1, axis))[np.ix_(y, x)] for axis in (0, 1)]
    counted = noise.slope * np.maximum(signal, 0) + noise.dark  # slopes are of two px: the 2 of the product is in them
    variance = np.array([[(counted * a * b).sum() for b in slopes] for a in slopes])
    inverse = np.linalg.inv(hessian)
    return float(np.sqrt(np.trace(inverse @ variance @ inverse) / 2) / 2)
