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

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import fft

from fourdstem.methods.template_mask import masks

MIRRORS = ((1, 1), (-1, 1), (1, -1))  # along y and x; a slope changes its sign where its image is mirrored


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


def join(
    question: masks.Question, fair, weights, learned: masks.Learned, noise, triples, step, threads: int = 1
) -> Joined:
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
    threads : int
        Templates are joined side by side; no image knows of another.
    """
    variance = noise(weights, learned.mean)
    # in-sample slope of image on template: above 0, so that the sign of an image never follows its own noise
    strength = (weights * learned.mask * learned.std).sum(axis=1)

    def one(three):
        ratio = question.scale[three[0]] / np.maximum(question.scale[list(three)], 1e-300)
        return _joined(fair[list(three)], strength[list(three)] * ratio, variance[list(three)], step)

    with ThreadPoolExecutor(threads) as pool:
        image, level = zip(*pool.map(one, triples), strict=True)
    return Joined(np.stack(image), np.array(level))


def _joined(parts, strength, variance, step) -> tuple[np.ndarray, float]:
    """Return the joint image of an even one and two slopes (3, scan_y, scan_x), and the variance of its noise."""
    ny, nx = parts.shape[1:]
    if not (variance[0] > 0 and strength[0] > 0):
        return parts[0], variance[0]
    ky, kx = np.fft.fftfreq(2 * ny, step[0])[:, None], np.fft.rfftfreq(2 * nx, step[1])[None, :]
    wave = [np.ones_like(ky * kx), 2j * np.pi * ky, 2j * np.pi * kx]
    known = [s**2 / v if v > 0 else 0.0 for s, v in zip(strength, variance, strict=True)]
    whole = sum(w * (q.real**2 + q.imag**2) for w, q in zip(known, wave, strict=True))
    wave[1][ny], wave[2][:, nx] = 0.0, 0.0  # of the highest frequency a slope knows no sign
    total, power = 0.0, 0.0
    for part, s, w, q, v, mirror in zip(parts, strength, known, wave, variance, MIRRORS, strict=True):
        filtered = strength[0] * (w / s if s > 0 else 0.0) * q.conj() / whole
        total = total + filtered * fft.rfft2(_mirrored(part - (part.mean() if mirror == (1, 1) else 0), *mirror))
        power = power + v * (filtered.real**2 + filtered.imag**2)
    image = fft.irfft2(total, (2 * ny, 2 * nx))[:ny, :nx] + parts[0].mean()
    often = np.r_[1, np.full(nx - 1, 2), 1] / (4 * ny * nx)  # frequencies of both signs
    return image, float((power @ often).sum())


def _mirrored(part: np.ndarray, along_y: int, along_x: int) -> np.ndarray:
    """Return an image (2 scan_y, 2 scan_x) mirrored about its far edges; slopes change their sign there."""
    wide = np.concatenate([part, along_x * part[:, ::-1]], axis=1)
    return np.concatenate([wide, along_y * wide[::-1]])
