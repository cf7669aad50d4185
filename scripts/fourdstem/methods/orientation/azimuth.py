"""From Fourier coefficients over azimuth to the highest peaks of every template's correlation.

A few templates (`TALL`) and a unit of patterns at a time, so that their coefficients stay in the cache between the
matrix product and the transform. A transform is done for `LANES` patterns at a time, side by side in a vector: see
`transform`. A and B, the two real correlations of `matching`, are the real and the imaginary part of one complex
transform.
"""

import numba
import numpy as np
import torch

from fourdstem import jit  # noqa: F401  compiled code is cached safely
from fourdstem.methods.orientation.transform import WIDE, curves, multiply, radix2, radix3, radix4, second
from fourdstem.vectors import LANES

PEAKS = 2


def peaks_torch(product: torch.Tensor, inverse_norm: torch.Tensor, apart: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`peaks` on a graphics card.

    Parameters
    ----------
    product : torch.Tensor of float32, shape (azimuth, template, 2 patterns)
    inverse_norm : torch.Tensor of float32, shape (2, template, azimuth)
    apart : int

    Returns
    -------
    score, place : torch.Tensor of float32, shape (template, 2, peak, patterns)
    """
    azimuths, patterns = inverse_norm.shape[-1], product.shape[2] // 2
    both = torch.fft.ifft(torch.complex(product[..., :patterns], product[..., patterns:]), dim=0) * azimuths
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
def correlated(rows, both, first_ring, inverse_norm, apart, turns, room, work, score, place):
    """Find the peaks of all templates, of their mirror images too, for every pattern: see `peaks`.

    Parameters
    ----------
    rows : ndarray of float32, shape (groups, numbers, TALL)
        Of every group of templates: of every frequency, of its rings, the coefficient of each template.
    both : ndarray of float32, shape (azimuth, r, 2 patterns)
        Coefficients of patterns: real parts, then imaginary parts.
    first_ring : ndarray of int, shape (azimuth,)
        The first ring that counts, for each frequency.
    inverse_norm, apart, turns
        See `peaks`.
    room : ndarray of float32, shape (azimuth, TALL, 2 patterns)
        Of zeros; the number of patterns is a multiple of `WIDE` / 2.
    work, score, place
        See `peaks`.
    """
    (groups, numbers, tall), (azimuths, rings, columns) = rows.shape, both.shape
    for group in range(groups):
        at = group * numbers * tall
        for frequency in range(azimuths):
            count = rings - first_ring[frequency]
            begin = (frequency * rings + first_ring[frequency]) * columns
            to = frequency * tall * columns
            for column in range(0, columns if count > 0 else 0, WIDE):
                multiply(rows, at, both, begin + column, columns, count, room, to + column)
            at += count * tall
        peaks(room, inverse_norm, group * tall, apart, turns, work, score, place)


@numba.njit(nogil=True, cache=True)
def peaks(product, inverse_norm, first, apart, turns, work, score, place):
    """Find the two highest peaks over azimuth, of some templates and of their mirror images, for every pattern.

    Parameters
    ----------
    product : ndarray of float32, shape (azimuth, some templates, 2 patterns)
        Coefficients of frequencies 0, 1, …, -1; real parts, then imaginary parts. The number of patterns is a multiple
        of `LANES`.
    inverse_norm : ndarray of float32, shape (2, template, azimuth)
        What curves are multiplied by: templates, then mirror images.
    first : int
        The template with which ``product`` begins; it may go beyond the last.
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
    (_, templates, azimuths), (_, some, columns) = inverse_norm.shape, product.shape
    half, patterns = azimuths * LANES, columns // 2
    for t in range(first, min(first + some, templates)):
        norms = t * azimuths, (templates + t) * azimuths
        for lane in range(0, patterns, LANES):
            at = inverse_transform(product, (t - first) * columns + lane, work, azimuths, turns)
            curve = 2 * half - at
            to = 2 * t * PEAKS * patterns + lane
            curves(work, at, inverse_norm, norms, azimuths, curve, score, place, (to, PEAKS * patterns))
            for _ in range(2):
                second(work, curve, azimuths, max(apart, 1), score, place, to, patterns)
                curve, to = curve + half, to + PEAKS * patterns


def turns_of(azimuths: int) -> np.ndarray:
    """Cosines and sines of once, twice and three times 2 pi k / azimuths, (azimuths, 6), float32."""
    angle = 2 * np.pi / azimuths * np.arange(azimuths)[:, None] * (1, 2, 3)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(azimuths, 6).astype(np.float32)


@numba.njit(nogil=True, cache=True)
def inverse_transform(series, at, work, size, turns):
    """Fourier sums with positive exponents of `LANES` series at a time, not divided by ``size``.

    Stockham's algorithm with radix 4, a last step of radix 2 or 3.

    Parameters
    ----------
    series : ndarray of float32, shape (size, …, 2, n)
        By frequency; real parts, then imaginary parts.
    at : int
        Where the first `LANES` real parts of frequency 0 lie, flat.
    work : ndarray of float32, shape (4, size * LANES)
        Room.
    size : int
        4^n times 1, 2 or 3, from 4 on.
    turns : ndarray of float32, shape (size, 6)
        From `turns_of`.

    Returns
    -------
    int
        Where, flat in ``work``, the real parts begin, (size, lane); after them are the imaginary ones.
    """
    half, row = size * LANES, series.size // size
    quarter = size // 4
    for p in range(quarter):
        radix4(series, at + p * row, quarter * row, series.shape[-1] // 2, work, 4 * p * LANES, LANES, half, turns, p)
    source, target, length, stride = 0, 2 * half, quarter, 4 * LANES
    while length % 4 == 0:
        quarter = length // 4
        for p in range(quarter):
            for q in range(0, stride, LANES):
                begin, to, turn = source + p * stride + q, target + 4 * p * stride + q, p * (size // length)
                radix4(work, begin, quarter * stride, half, work, to, stride, half, turns, turn)
        source, target, length, stride = target, source, quarter, 4 * stride
    if length > 1:
        for q in range(0, stride, LANES):
            if length == 2:
                radix2(work, source + q, stride, target + q, half)
            else:
                radix3(work, source + q, stride, target + q, half)
        source = target
    return source
