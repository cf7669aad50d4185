"""From Fourier coefficients over azimuth to the highest peaks of every template's correlation.

A transform is done for all patterns of a unit at a time: the innermost loop runs over patterns, so that every step
is a vector instruction. A and B, the two real correlations of `matching`, are the real and the imaginary part of
one complex transform.
"""

import numba
import numpy as np
import torch

from fourdstem import jit  # noqa: F401  compiled code is cached safely

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
def peaks(product, inverse_norm, apart, cos, sin, score, place):
    """Find the two highest peaks over azimuth, of every template and of its mirror image, for every pattern.

    Parameters
    ----------
    product : ndarray of float32, shape (2 harmonic, template, 2 patterns)
        Coefficients of frequencies 1, 2, …, then of -1, -2, …; real parts, then imaginary parts.
    inverse_norm : ndarray of float32, shape (2, template, azimuth)
        What curves are multiplied by: templates, then mirror images.
    apart : int
        The second peak is a local maximum more than so many bins from the first.
    cos, sin : ndarray of float32, shape (azimuth,)
    score : ndarray of float32, shape (template, 2, peak, patterns)
        Filled with heights; a missing second peak is 0.
    place : ndarray of float32, shape (template, 2, peak, patterns)
        Filled with azimuths in bins, refined by a parabola.
    """
    count, azimuths, patterns = product.shape[0] // 2, inverse_norm.shape[2], product.shape[2] // 2
    work = np.empty((4, azimuths * patterns), np.float32)
    curve = np.empty((azimuths, patterns), np.float32)
    for t in range(product.shape[1]):
        work[:2] = 0
        for k in range(count):
            for into, frequency in ((k + 1, k), (azimuths - k - 1, count + k)):
                row, real, imaginary = product[frequency, t], work[0], work[1]
                for i in range(patterns):
                    real[into * patterns + i] = row[i]
                    imaginary[into * patterns + i] = row[patterns + i]
        real, imaginary = inverse_transform(work, azimuths, patterns, cos, sin)
        for mirror in range(2):
            sign = np.float32(1 - 2 * mirror)
            for a in range(azimuths):
                into, scale = curve[a], inverse_norm[mirror, t, a]
                one, other = real[a * patterns : (a + 1) * patterns], imaginary[a * patterns : (a + 1) * patterns]
                for i in range(patterns):
                    into[i] = scale * (one[i] + sign * other[i])
            _two_highest(curve, apart, score[t, mirror], place[t, mirror])


@numba.njit(nogil=True, cache=True)
def _two_highest(curve, apart, score, place):
    azimuths, patterns = curve.shape
    # Bins are kept as float32 like the values: one width lets the compiler use vectors.
    first, second = np.zeros(patterns, np.float32), -np.ones(patterns, np.float32)
    high, next_high = curve[0].copy(), np.zeros(patterns, np.float32)
    for a in range(1, azimuths):
        here, at = curve[a], np.float32(a)
        for i in range(patterns):
            first[i] = at if here[i] > high[i] else first[i]
            high[i] = max(here[i], high[i])
    near, whole = np.float32(apart), np.float32(azimuths)
    for a in range(azimuths):
        before, here, after, at = curve[a - 1], curve[a], curve[(a + 1) % azimuths], np.float32(a)
        for i in range(patterns):
            value, best = here[i], next_high[i]
            distance = abs(at - first[i])
            taken = (min(distance, whole - distance) > near) & (value > max(before[i], after[i], best))
            second[i] = at if taken else second[i]
            next_high[i] = value if taken else best
    for i in range(patterns):
        score[0, i], score[1, i] = high[i], next_high[i]
        for peak, at in ((0, int(first[i])), (1, int(second[i]))):
            left, middle, right = curve[at - 1, i], curve[at, i], curve[(at + 1) % azimuths, i]
            bend = left - 2 * middle + right
            place[peak, i] = at + (np.float32(0.5) * (left - right) / bend if bend < 0 else np.float32(0))


@numba.njit(nogil=True, cache=True)
def inverse_transform(work, size, lanes, cos, sin):
    """Fourier sums with positive exponents of ``lanes`` series at a time, not divided by ``size``.

    Stockham's algorithm with radix 4, a last step of radix 2 or 3.

    Parameters
    ----------
    work : ndarray of float32, shape (4, size * lanes)
        Real parts, imaginary parts (frequency, lane), room. Overwritten.
    size : int
        4^n times 1, 2 or 3.
    lanes : int
    cos, sin : ndarray of float32, shape (size,)
        Of 2 pi k / size.

    Returns
    -------
    real, imaginary : ndarray of float32, shape (size * lanes,)
        Parts of ``work``.
    """
    a, b, c, d = work[0], work[1], work[2], work[3]
    length, stride = size, lanes
    while length % 4 == 0:
        _radix4(a, b, c, d, length, stride, cos, sin)
        a, b, c, d = c, d, a, b
        length, stride = length // 4, 4 * stride
    if length == 2:
        _radix2(a, b, c, d, stride)
        a, b, c, d = c, d, a, b
    if length == 3:
        _radix3(a, b, c, d, stride)
        a, b, c, d = c, d, a, b
    return a, b


@numba.njit(nogil=True, cache=True)
def _radix4(xr, xi, yr, yi, length, s, cos, sin):
    quarter, step = length // 4, len(cos) // length
    for p in range(quarter):
        c1, s1 = cos[p * step], sin[p * step]
        c2, s2 = cos[2 * p * step], sin[2 * p * step]
        c3, s3 = cos[3 * p * step], sin[3 * p * step]
        ar, ai = xr[s * p : s * p + s], xi[s * p : s * p + s]
        at = s * (p + quarter)
        br, bi = xr[at : at + s], xi[at : at + s]
        at += s * quarter
        cr, ci = xr[at : at + s], xi[at : at + s]
        at += s * quarter
        dr, di = xr[at : at + s], xi[at : at + s]
        at = 4 * s * p
        r0, i0 = yr[at : at + s], yi[at : at + s]
        r1, i1 = yr[at + s : at + 2 * s], yi[at + s : at + 2 * s]
        r2, i2 = yr[at + 2 * s : at + 3 * s], yi[at + 2 * s : at + 3 * s]
        r3, i3 = yr[at + 3 * s : at + 4 * s], yi[at + 3 * s : at + 4 * s]
        for q in range(s):
            even_r, even_i = ar[q] + cr[q], ai[q] + ci[q]
            odd_r, odd_i = ar[q] - cr[q], ai[q] - ci[q]
            sum_r, sum_i = br[q] + dr[q], bi[q] + di[q]
            turn_r, turn_i = di[q] - bi[q], br[q] - dr[q]  # i (b - d)
            r0[q], i0[q] = even_r + sum_r, even_i + sum_i
            x, y = odd_r + turn_r, odd_i + turn_i
            r1[q], i1[q] = x * c1 - y * s1, x * s1 + y * c1
            x, y = even_r - sum_r, even_i - sum_i
            r2[q], i2[q] = x * c2 - y * s2, x * s2 + y * c2
            x, y = odd_r - turn_r, odd_i - turn_i
            r3[q], i3[q] = x * c3 - y * s3, x * s3 + y * c3


@numba.njit(nogil=True, cache=True)
def _radix2(xr, xi, yr, yi, s):
    for x, y in ((xr, yr), (xi, yi)):
        a, b, first, second = x[:s], x[s : 2 * s], y[:s], y[s : 2 * s]
        for q in range(s):
            first[q], second[q] = a[q] + b[q], a[q] - b[q]


@numba.njit(nogil=True, cache=True)
def _radix3(xr, xi, yr, yi, s):
    half = np.float32(np.sqrt(0.75))
    for q in range(s):
        ar, ai, br, bi, cr, ci = xr[q], xi[q], xr[s + q], xi[s + q], xr[2 * s + q], xi[2 * s + q]
        sum_r, sum_i = br + cr, bi + ci
        turn_r, turn_i = half * (ci - bi), half * (br - cr)  # i √¾ (b - c)
        low_r, low_i = ar - np.float32(0.5) * sum_r, ai - np.float32(0.5) * sum_i
        yr[q], yi[q] = ar + sum_r, ai + sum_i
        yr[s + q], yi[s + q] = low_r + turn_r, low_i + turn_i
        yr[2 * s + q], yi[2 * s + q] = low_r - turn_r, low_i - turn_i
