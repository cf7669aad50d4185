"""How good single patterns are: likeness to the noise-free one, and what an average is made of."""

import numpy as np

from fourdstem.cube import Cube, Unit

BEAM_MARGIN = 1.5, 1.0  # the direct disk, its blurred edge and what a wrong centre leaves: times the radius, plus px


def psnr(cube: Cube, expected: Cube, beam_radius_px: float) -> np.ndarray:
    """Return the peak signal-to-noise ratio of every pattern, dB.

    10 log10(peak² / mean square error), after the pattern is scaled to the total counts of the noise-free one
    (over all valid pixels). Peak and error are those of the valid pixels outside the direct disk, the peak that
    of the noise-free pattern: the direct beam is bright in any source and would hide what happens to the others.

    Parameters
    ----------
    cube : Cube
        Corrected patterns.
    expected : Cube
        Noise-free patterns, from `rivals.noise_free`.
    beam_radius_px : float
        Radius r of the direct disk; pixels nearer than 1.5 r + 1 px to the middle are left out.

    Returns
    -------
    ndarray of float32, shape (scan_y, scan_x)
        NaN where a pattern holds no counts.
    """
    valid = np.asarray(cube.valid) != 0
    y, x = (np.arange(n) - (n - 1) / 2 for n in cube.detector_shape)
    outside = valid & (np.hypot(y[:, None], x) > BEAM_MARGIN[0] * beam_radius_px + BEAM_MARGIN[1])
    result = np.full(cube.scan_shape, np.nan, np.float32)

    def work(patterns: np.ndarray, unit: Unit):
        truth = np.asarray(expected.data[unit.where], float)
        found = patterns[: unit.count].astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = truth[:, valid].sum(axis=1) / found[:, valid].sum(axis=1)
            error = ((found[:, outside] * scale[:, None] - truth[:, outside]) ** 2).mean(axis=1)
            return 10 * np.log10(truth[:, outside].max(axis=1) ** 2 / error)

    for unit, values in cube.map_units(work):
        result[unit.where] = values
    return result


def foreign_weight(grain: np.ndarray, member: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the share of weight that comes from other grains than the position's own.

    Parameters
    ----------
    grain : ndarray of int, shape (scan_y, scan_x)
    member : ndarray of int, shape (scan_y, scan_x, k)
        Flat index y * scan_x + x of each contributor; -1 is none.
    weight : ndarray of float, shape (scan_y, scan_x, k)

    Returns
    -------
    ndarray of float32, shape (scan_y, scan_x)
        NaN where nothing contributes.
    """
    grain = np.asarray(grain)
    used = np.where(np.asarray(member) >= 0, np.asarray(weight, float), 0.0)
    foreign = grain.ravel()[np.maximum(member, 0)] != grain[..., None]
    with np.errstate(invalid="ignore"):
        return ((used * foreign).sum(axis=-1) / used.sum(axis=-1)).astype(np.float32)


def effective_number(weight: np.ndarray) -> np.ndarray:
    """Return (Σw)² / Σw² over the last axis: how many patterns of equal weight would be as noisy."""
    weight = np.asarray(weight, float)
    with np.errstate(invalid="ignore"):
        return weight.sum(axis=-1) ** 2 / (weight**2).sum(axis=-1)
