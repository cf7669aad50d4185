"""Measured patterns as recorded and denoised; nothing is known of them, so they are only looked at."""

import numpy as np
import torch

_SPOTS = 3  # patterns of a scan that are shown


def halves(path) -> np.ndarray:
    """Whole patterns (n, y, x), beam in the middle, of stored halves whose other side is put there by Friedel's law.

    The counts of these files are scaled; their smallest step is taken for an electron and the least count for none.
    """
    with np.load(path, allow_pickle=False) as file:
        half = file["selected_patterns_raw"].astype(np.float32)
    levels = np.unique(half)
    half = (half - levels[0]) / np.diff(levels).min()
    bright = half.mean(axis=0) > 0.5 * half.mean(axis=0).max()
    cy, cx = (round(float(place.mean())) for place in np.nonzero(bright))
    reach = min(cy, half.shape[1] - 1 - cy)
    right = half[:, cy - reach : cy + reach + 1, cx:]
    return np.concatenate([right[:, ::-1, :0:-1], right], axis=2)


def spread_over(counts) -> np.ndarray:
    """Some patterns (n, y, x), float32, spread over a scan (scan_y, scan_x, y, x)."""
    ny, nx = counts.shape[:2]
    places = [(ny * k // _SPOTS + ny // (2 * _SPOTS), nx // 2) for k in range(_SPOTS)]
    return np.stack([np.asarray(counts[y, x : x + 1], np.float32)[0] for y, x in places])


def denoised(patterns: np.ndarray, way) -> np.ndarray:
    """Denoise patterns (n, y, x) by a way of `ways`."""
    return way(torch.from_numpy(patterns)[:, None])[:, 0].numpy()
