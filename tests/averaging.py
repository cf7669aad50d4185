"""Small scans to average."""

import numpy as np

from fourdstem.methods import nonlocal_average as method

EVERYTHING = 1000.0  # a λ so large that the window is averaged evenly


def average(cube, beam_radius_px=None, **settings):
    """Return averages and result; by the published distance with λ = 1.7 unless told otherwise."""
    out = np.full(cube.shape, np.nan, np.float32)
    params = method.Params(**{"distance": "pattern", "lambda_value": 1.7} | settings)
    return out, method.compute(cube, params, out, beam_radius_px)


def two_grains(ny=12, nx=14, n=20, dose=300.0, seed=0):
    """Poisson counts of two grains, left and right, and their expected patterns (2, n, n)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:n, :n] - (n - 1) / 2
    expected = np.full((2, n, n), 0.05)
    expected += 5.0 * (np.hypot(y, x) < 1.6)
    for grain in range(2):
        for angle in np.arange(4) * np.pi / 2 + 0.8 * grain:
            expected[grain] += np.hypot(y - 6 * np.sin(angle), x - 6 * np.cos(angle)) < 1.5
    expected *= dose / expected.sum(axis=(1, 2), keepdims=True)
    grain = (np.arange(nx) >= nx // 2).astype(int)
    counts = rng.poisson(expected[np.broadcast_to(grain, (ny, nx))])
    return counts.astype(np.uint16), expected


def uniform(mean, ny=10, nx=10, n=24, seed=0):
    return np.random.default_rng(seed).poisson(mean, (ny, nx, n, n)).astype(np.uint16)
