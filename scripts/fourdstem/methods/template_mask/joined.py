"""Images from two kinds of mask: what opposite pixels have in common, and what they differ by.

A mask sees one position at a time. What it can reach is bounded: no weights W give ``W·(μ_c - μ_b)`` (columns less
background) over its counting noise ``√(Σ_k W_k² μ_bk)`` more than ``√(Σ_k (μ_ck - μ_bk)² / μ_bk)``. Integrals of
deflections exceed this by drawing on the neighbours. So do masks, if their odd part, learned from the slopes of the
template, is integrated: with an even image ``E = a T + noise`` and odd ones ``G_j = b_j ∂_j T + noise``, the estimate
of T of least variance is, at every spatial frequency q,

``T = (a E / v + Σ_j b_j (2πi q_j)* G_j / v_j) / (a² / v + Σ_j b_j² (2π q_j)² / v_j)``

with v the counting noise of each image. Even and odd masks share no noise. Nothing of the template's shape enters but
the masks and the numbers a and b, so that an empty site gets no column from it.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from fourdstem.methods.template_mask import masks


@dataclass(frozen=True)
class Joined:
    """Images, in counts of the even mask, and their counting noise.

    Attributes
    ----------
    image : ndarray of shape (image, scan_y, scan_x)
    variance : ndarray of shape (image,)
        Of each position; neighbours share it.
    """

    image: np.ndarray
    variance: np.ndarray


def slopes(template: np.ndarray, step) -> tuple[np.ndarray, np.ndarray]:
    """Return the slopes (y, x) of a template (scan_y, scan_x), per Å."""
    return tuple(np.gradient(template, *step))


def join(question: masks.Question, fair, weights, learned: masks.Learned, noise, triples, step) -> Joined:
    """Join even and odd images.

    Parameters
    ----------
    question : Question
    fair : ndarray of shape (template, scan_y, scan_x)
        Cross-fitted images.
    weights : ndarray of shape (template, pixel)
        Masks as applied.
    learned : Learned
    noise : callable
        ``noise(weights, mean)`` returns the counting noise of images.
    triples : sequence of (int, int, int)
        Template, and its slopes along y and x.
    step : (float, float)
        Å, (y, x).
    """
    variance = noise(weights, learned.mean)
    # in-sample slope of image on template: above 0, so that the sign of an image never follows its own noise
    strength = (weights * learned.mask * learned.std).sum(axis=1)
    image, level = [], []
    for three in triples:
        ratio = question.scale[three[0]] / np.maximum(question.scale[list(three)], 1e-300)
        one, left = _joined(fair[list(three)], strength[list(three)] * ratio, variance[list(three)], step)
        image.append(one)
        level.append(left)
    return Joined(np.stack(image), np.array(level))


def _joined(parts, strength, variance, step) -> tuple[np.ndarray, float]:
    """Return the joint image of an even one and two slopes (3, scan_y, scan_x), and the variance of its noise.

    The scan is mirrored about its edges, where slopes change their sign: cosines of the image, sines of a slope along
    its own axis, which its filter, imaginary and odd, makes cosines. Of the highest frequency a slope knows no sign.
    """
    if not (variance[0] > 0 and strength[0] > 0):
        return parts[0], variance[0]
    shape = parts.shape[1:]
    known = [s**2 / v if v > 0 else 0.0 for s, v in zip(strength, variance, strict=True)]
    ky, kx = (2 * np.pi * np.arange(n + 1) / (2 * n * s) for n, s in zip(shape, step, strict=True))
    wave = [np.ones((len(ky), len(kx))), *map(np.array, np.broadcast_arrays(ky[:, None], kx[None, :]))]
    whole = sum(w * q**2 for w, q in zip(known, wave, strict=True))
    wave[1][-1], wave[2][:, -1] = 0.0, 0.0
    share = [strength[0] * (w / s if s > 0 else 0.0) for w, s in zip(known, strength, strict=True)]
    filters = [k * q / whole for k, q in zip(share, wave, strict=True)]
    total = filters[0][:-1, :-1] * fft.dct(fft.dct(parts[0] - parts[0].mean(), axis=0), axis=1)
    for axis in (0, 1):  # sines are without the frequency 0; what comes there from the other end has no weight
        sines = np.roll(fft.dst(parts[1 + axis], axis=axis), 1, axis)
        total -= filters[1 + axis][:-1, :-1] * fft.dct(sines, axis=1 - axis)
    image = fft.idct(fft.idct(total, axis=0), axis=1) + parts[0].mean()
    power = sum(v * f**2 for v, f in zip(variance, filters, strict=True))
    often = [np.r_[1, np.full(n - 1, 2), 1] / (2 * n) for n in shape]  # frequencies of both signs
    return image, float(often[0] @ power @ often[1])
