"""Measured patterns as recorded and denoised; nothing is known of them, so they are only looked at."""

import numpy as np
import torch

_SPOTS = 3  # patterns of a scan that are shown


def halves(path) -> np.ndarray:
    """Whole patterns (n, y, 2 x) of stored halves whose left side is the right one inverted (Friedel's law).

    The counts of these files are scaled; their smallest step is taken for an electron and the least count for none.
    """
    with np.load(path, allow_pickle=False) as file:
        right = file["selected_patterns_raw"].astype(np.float32)
    levels = np.unique(right)
    right = (right - levels[0]) / np.diff(levels).min()
    return np.concatenate([right[:, ::-1, ::-1], right], axis=2)


def spread_over(counts) -> np.ndarray:
    """Some patterns (n, y, x), float32, spread over a scan (scan_y, scan_x, y, x)."""
    ny, nx = counts.shape[:2]
    places = [(ny * k // _SPOTS + ny // (2 * _SPOTS), nx // 2) for k in range(_SPOTS)]
    return np.stack([np.asarray(counts[y, x : x + 1], np.float32)[0] for y, x in places])


def denoised(patterns: np.ndarray, way) -> np.ndarray:
    """Denoise patterns (n, y, x) by a way of `ways`."""
    return way(torch.from_numpy(patterns)[:, None])[:, 0].numpy()
