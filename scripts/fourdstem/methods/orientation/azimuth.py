"""From Fourier coefficients over azimuth to the highest peaks of every template's correlation.

A transform is done for `LANES` patterns at a time, side by side in a vector: see `transform`. A and B, the two real
correlations of `matching`, are the real and the imaginary part of one complex transform.
"""

import numba
import numpy as np
import torch

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.transform import curves, highest, move, radix2, radix3, radix4
from fourdstem.vectors import LANES

PEAKS = 2


def harmonics(azimuths: int) -> int:
    """Number of positive frequencies in use: all below Nyquist's; 0 is left out, ring means are 0."""
    return azimuths // 2 - 1


def peaks_torch(product: torch.Tensor, inverse_norm: torch.Tensor, apart: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`peaks` on a graphics card.

    Parameters
    ----------
    product : torch.Tensor of float32, shape (2 harmonic, template, 2 patterns)
    inverse_norm : torch.Tensor of float32, shape (2, template, azimuth)
    apart : int

    Returns
    -------
    score, place : torch.Tensor of float32, shape (template, 2, peak, patterns)
    """
    azimuths, count = inverse_norm.shape[-1], product.shape[0] // 2
    patterns = product.shape[2] // 2
    spectrum = torch.zeros((azimuths, product.shape[1], patterns), dtype=torch.complex64, device=product.device)
    value = torch.complex(product[..., :patterns], product[..., patterns:])
    spectrum[1 : count + 1] = value[:count]
    spectrum[-count:] = value[count:].flip(0)
    both = torch.fft.ifft(spectrum, dim=0) * azimuths
    curve = torch.stack([both.real + both.imag, both.real - both.imag])  # (2, azimuth, template, patterns)
    curve *= inverse_norm.transpose(1, 2)[..., None]
    before, after = curve.roll(1, 1), curve.roll(-1, 1)
    bins = torch.arange(azimuths, device=product.device)[None, :, None, None]
    first = curve.argmax(dim=1, keepdim=True)
    distance = (bins - first).abs()
    far = torch.minimum(distance, azimuths - distance) > apart
    second = torch.where(far & (curve > before) & (curve > after), curve, 0).argmax(dim=1, keepdim=True)
    score, place = [], []
    for at in (first, second):
        left, middle, right = (part.gather(1, at)[:, 0] for part in (before, curve, after))
        bend = left - 2 * middle + right
        vertex = torch.where(bend < 0, 0.5 * (left - right) / torch.where(bend < 0, bend, -1), 0)
        score.append(middle)
        place.append(at[:, 0] + vertex)
    lonely = ~(far & (curve > before) & (curve > after) & (curve > 0)).any(dim=1)
    score[1] = torch.where(lonely, 0, score[1])
    return torch.stack(score, 1).permute(2, 0, 1, 3), torch.stack(place, 1).permute(2, 0, 1, 3)


@numba.njit(nogil=True, cache=True)
def peaks(product, inverse_norm, apart, turns, work, score, place):
    """Find the two highest peaks over azimuth, of every template and of its mirror image, for every pattern.

    Parameters
    ----------
    product : ndarray of float32, shape (2 harmonic, template, 2 patterns)
        Coefficients of frequencies 1, 2, …, then of -1, -2, …; real parts, then imaginary parts. The number of
        patterns is a multiple of `LANES`.
    inverse_norm : ndarray of float32, shape (2, template, azimuth)
        What curves are multiplied by: templates, then mirror images.
    apart : int
        The second peak is a local maximum more than so many bins from the first.
    turns : ndarray of float32, shape (azimuth, 6)
        From `turns_of`.
    work : ndarray of float32, shape (4, azimuth * LANES)
        Room; vectors that lie across lines of the cache take half as long again.
    score : ndarray of float32, shape (template, 2, peak, patterns)
        Filled with heights; a missing second peak is 0.
    place : ndarray of float32, shape (template, 2, peak, patterns)
        Filled with azimuths in bins, refined by a parabola.
    """
    count, templates, patterns = product.shape[0] // 2, product.shape[1], product.shape[2] // 2
    azimuths = inverse_norm.shape[2]
    half, row = azimuths * LANES, 2 * patterns
    for t in range(templates):
        for first in range(0, patterns, LANES):
            for n in range(LANES):  # frequencies 0 and Nyquist's
                for frequency in (0, azimuths // 2):
                    work[0, frequency * LANES + n] = work[1, frequency * LANES + n] = 0
            for k in range(count):
                for into, frequency in ((k + 1, k), (azimuths - k - 1, count + k)):
                    at = (frequency * templates + t) * row + first
                    move(product, at, work, into * LANES)
                    move(product, at + patterns, work, into * LANES + half)
            at = inverse_transform(work, azimuths, turns)
            curve = 2 * half - at
            norms = t * azimuths, (templates + t) * azimuths
            curves(work, at, half, inverse_norm, norms[0], norms[1], azimuths, curve)
            for mirror in range(2):
                to = (2 * t + mirror) * PEAKS * patterns + first
                highest(work, curve + mirror * half, azimuths, float(apart), score, place, to, patterns)


def turns_of(azimuths: int) -> np.ndarray:
    """Cosines and sines of once, twice and three times 2 pi k / azimuths, (azimuths, 6), float32."""
    angle = 2 * np.pi / azimuths * np.arange(azimuths)[:, None] * (1, 2, 3)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(azimuths, 6).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def inverse_transform(work, size, turns):
    """Fourier sums with positive exponents of `LANES` series at a time, not divided by ``size``.

    Stockham's algorithm with radix 4, a last step of radix 2 or 3.

    Parameters
    ----------
    work : ndarray of float32, shape (4, size * LANES)
        Real parts, imaginary parts (frequency, lane), room. Overwritten.
    size : int
        4^n times 1, 2 or 3.
    turns : ndarray of float32, shape (size, 6)
        From `turns_of`.

    Returns
    -------
    int
        Where, flat, the real parts begin; after them are the imaginary ones.
    """
    half = size * LANES
    source, target, length, stride = 0, 2 * half, size, LANES
    while length % 4 == 0:
        quarter = length // 4
        for p in range(quarter):
            for q in range(0, stride, LANES):
                at, to = source + p * stride + q, target + 4 * p * stride + q
                radix4(work, at, quarter * stride, to, stride, half, turns, p * (size // length))
        source, target, length, stride = target, source, quarter, 4 * stride
    if length > 1:
        for q in range(0, stride, LANES):
            if length == 2:
                radix2(work, source + q, stride, target + q, half)
            else:
                radix3(work, source + q, stride, target + q, half)
        source = target
    return source
