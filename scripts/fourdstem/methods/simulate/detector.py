"""From spots to counts: soft-edged disks, diffuse scattering, point spread, bad pixels, shot noise."""

import math

import numba
import numpy as np

from fourdstem import jit  # noqa: F401  compiled code is cached safely

DEAD, HOT = 1, 2
TAIL_SIGMA_PX = 3.0


@numba.njit(nogil=True, cache=True)
def add_disks(position, electrons, radius, blur, centre, inverse, out):
    """Add uniform disks with blurred edges to an expected pattern.

    Parameters
    ----------
    position : ndarray of shape (n, 2)
        Offsets (y, x) from the beam in the corrected frame, px.
    electrons : ndarray of shape (n,)
        Integral of each disk.
    radius, blur : float
        Radius and standard deviation of the edge in the corrected frame, px.
    centre : ndarray of shape (2,)
        Beam in the frame of ``out``.
    inverse : ndarray of shape (2, 2)
        Takes an offset in the frame of ``out`` to the corrected frame.
    out : ndarray of shape (detector_y, detector_x)
        Added to. Pixels are sampled 2 × 2; a disk beyond the edge loses what falls outside.
    """
    forward = np.linalg.inv(inverse)
    reach = math.ceil(1.2 * (radius + 4 * blur)) + 1
    # the integral of erfc((d - r) / (√2 b)) / 2 over the plane is π (r² + b²) up to terms of exp(-r²/2b²)
    density = 0.25 / (math.pi * (radius * radius + blur * blur))
    for i in range(position.shape[0]):
        cy = centre[0] + forward[0, 0] * position[i, 0] + forward[0, 1] * position[i, 1]
        cx = centre[1] + forward[1, 0] * position[i, 0] + forward[1, 1] * position[i, 1]
        for y in range(max(int(cy) - reach, 0), min(int(cy) + reach + 1, out.shape[0])):
            for x in range(max(int(cx) - reach, 0), min(int(cx) + reach + 1, out.shape[1])):
                covered = 0.0
                for part in range(4):
                    dy = y - cy + 0.5 * (part // 2) - 0.25
                    dx = x - cx + 0.5 * (part % 2) - 0.25
                    uy = inverse[0, 0] * dy + inverse[0, 1] * dx
                    ux = inverse[1, 0] * dy + inverse[1, 1] * dx
                    covered += 0.5 * math.erfc((math.hypot(uy, ux) - radius) / (1.4142135623730951 * blur))
                out[y, x] += covered * density * electrons[i]


@numba.njit(nogil=True, cache=True)
def add_diffuse(electrons, width, centre, inverse, out):
    """Add a diffuse background w / (2π (q² + w²)^(3/2)), whose integral over the plane is ``electrons``."""
    scale = electrons * width / (2 * math.pi)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            dy, dx = y - centre[0], x - centre[1]
            uy = inverse[0, 0] * dy + inverse[0, 1] * dx
            ux = inverse[1, 0] * dy + inverse[1, 1] * dx
            square = uy * uy + ux * ux + width * width
            out[y, x] += scale / (square * math.sqrt(square))


def spread(pattern: np.ndarray, sigma_px: float, tail: float) -> np.ndarray:
    """Apply the detector's point spread: a narrow Gaussian and a share ``tail`` in one of σ = 3 px."""
    wide = _convolve(pattern, _gaussian(TAIL_SIGMA_PX))
    return (1 - tail) * _convolve(pattern, _gaussian(sigma_px)) + tail * wide


def _gaussian(sigma):
    """Weights of one pixel's charge on its neighbours along one axis: a Gaussian integrated over pixels."""
    half = math.ceil(4 * sigma) + 1
    edges = np.arange(-half, half + 2) - 0.5
    upto = np.array([0.5 * (1 + math.erf(e / (math.sqrt(2) * max(sigma, 1e-6)))) for e in edges])
    weights = np.diff(upto)
    return weights / weights.sum()


@numba.njit(nogil=True, cache=True)
def _convolve(pattern, weights):
    half = len(weights) // 2
    ny, nx = pattern.shape
    along, out = np.zeros_like(pattern), np.zeros_like(pattern)
    for y in range(ny):
        for k in range(-half, half + 1):
            w, low, high = weights[k + half], max(0, -k), min(nx, nx - k)
            given, into = pattern[y, low:high], along[y, low + k : high + k]
            for x in range(len(given)):
                into[x] += w * given[x]
    for y in range(ny):
        for k in range(max(-half, y - ny + 1), min(half, y) + 1):
            w, given, into = weights[k + half], along[y - k], out[y]
            for x in range(nx):
                into[x] += w * given[x]
    return out


def faults(params) -> np.ndarray:
    """Return the map of bad pixels: 0 good, 1 dead, 2 hot."""
    rng = np.random.default_rng(np.random.SeedSequence(params.seed, spawn_key=(2,)))
    bad = np.zeros(params.detector_shape, np.uint8)
    chosen = rng.choice(bad.size, params.dead_pixels + params.hot_pixels, replace=False)
    bad.flat[chosen[: params.dead_pixels]] = DEAD
    bad.flat[chosen[params.dead_pixels :]] = HOT
    return bad


def record(expected: np.ndarray, bad: np.ndarray, hot_counts: float, seed: int, y: int, x: int) -> np.ndarray:
    """Draw the uint16 counts of one position; the noise depends on seed and position alone."""
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(3, y, x))))
    mean = np.where(bad == HOT, expected + hot_counts, np.where(bad == DEAD, 0.0, expected))
    return np.minimum(rng.poisson(mean), 65535).astype(np.uint16)
