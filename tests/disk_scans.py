"""Scans of one disk whose centres are known, for the tests of preprocessing."""

import numpy as np
from scipy.special import erfc


def disk(shape, position, radius, edge=0.5):
    """Soft disk with unit sum."""
    y, x = np.indices(shape)
    image = 0.5 * erfc((np.hypot(y - position[0], x - position[1]) - radius) / (np.sqrt(2) * edge))
    return image / image.sum()


def true_centres(scan, size):
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in scan)
    y, x = y[:, None] + 0 * x, 0 * y[:, None] + x
    return np.stack([size / 2 + 0.3 + 1.0 * y + 0.4 * x, size / 2 - 1.7 - 0.7 * y + 1.2 * x + 0.3 * x * y], axis=-1)


def scan_of_disks(scan=(6, 40), size=48, radius=4.0, counts=1000, seed=0, jitter=0.0, background=0.2):
    """Poisson counts of a disk on a broad background, and its true centres."""
    rng = np.random.default_rng(seed)
    centres = true_centres(scan, size) + jitter * rng.normal(size=(*scan, 2))
    data = np.empty((*scan, size, size), np.uint16)
    y, x = np.indices((size, size))
    for place in np.ndindex(scan):
        cy, cx = centres[place]
        wide = np.exp(-np.hypot(y - cy, x - cx) / 9)
        data[place] = rng.poisson(
            counts * ((1 - background) * disk((size, size), (cy, cx), radius) + background * wide / wide.sum())
        )
    return data, centres


def rms(error):
    return float(np.sqrt(np.nanmean(error**2)))
