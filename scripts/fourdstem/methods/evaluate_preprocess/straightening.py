"""How well the ellipse of the camera is found in means of scans, and how round rings are after its correction."""

import numpy as np
import torch

from fourdstem.geometry import ellipse_matrix
from fourdstem.methods.evaluate_preprocess.denoising import recorded_of
from fourdstem.methods.evaluate_preprocess.known import Known
from fourdstem.methods.preprocess import Params
from fourdstem.methods.preprocess.beam import Beam
from fourdstem.methods.preprocess.rings import fit_ellipse
from fourdstem.methods.training import patterns
from fourdstem.methods.training.supply import EXTRA

DOSES = (1e4, 1e6, 1e8)  # electrons in the whole mean
ENOUGH = 10  # orientations, from which on an ellipse can be known
_EDGE = 0.6  # px; what the simulated edges are about


def table(seed: int, count: int, say) -> list[tuple]:
    """Rows of the errors of a/b and of the angle, of rings before and after, and of how often the fit declines."""
    made = [patterns.draw_scan_mean(seed, "test", i) for i in range(count)]
    extras = np.zeros((count, EXTRA), np.float32)
    extras[:, 2] = [radius for _, _, radius, _ in made]
    known = Known(torch.from_numpy(np.stack([m[0] for m in made])), torch.from_numpy(extras), np.full(count, _EDGE))
    true = [_ratio_angle(e) for _, e, _, _ in made]
    orientations = np.array([m[3] for m in made])
    rows = []
    for dose in DOSES:
        images = recorded_of(known, dose, seed + 1).electrons[:, 0].numpy().astype(float)
        everywhere = np.ones(images.shape[1:], bool)
        fits = [
            fit_ellipse([image], everywhere, Beam(float(r), _EDGE, 10.0), Params())[0]
            for image, r in zip(images, known.radii, strict=True)
        ]
        for label, chosen in (("10 orientations and more", orientations >= ENOUGH), ("fewer", orientations < ENOUGH)):
            if chosen.any():
                some = np.flatnonzero(chosen)
                rows += _rows(dose, label, [true[i] for i in some], [fits[i] for i in some])
        say(f"ellipses at {dose:g} electrons done")
    return rows


def _ratio_angle(e) -> tuple[float, float]:
    return float(np.exp(2 * np.hypot(*e))), float(np.rad2deg(0.5 * np.arctan2(e[1], e[0])))


def unevenness(true, found) -> float:
    """Standard deviation over azimuth of the radius of a ring, by its mean, after correction.

    Parameters
    ----------
    true, found : tuple of float
        a/b and angle (°) of the camera and of the correction.
    """
    azimuth = np.arange(360) * np.pi / 180
    ring = np.linalg.inv(ellipse_matrix(*found)) @ ellipse_matrix(*true) @ np.stack([np.sin(azimuth), np.cos(azimuth)])
    radius = np.hypot(*ring)
    return float(radius.std() / radius.mean())


def _rows(dose, label, true, fits) -> list[tuple]:
    passed = [k for k, fit in enumerate(fits) if fit.passed]
    told = {"declined": (1 - len(passed) / len(fits), len(fits))}
    if passed:
        ratio = np.array([abs(fits[k].ratio - true[k][0]) for k in passed])
        turn = np.array([abs((fits[k].angle_deg - true[k][1] + 90) % 180 - 90) for k in passed if true[k][0] >= 1.02])
        pull = ratio / [fits[k].ratio_sigma for k in passed]
        before = np.array([unevenness(true[k], (1.0, 0.0)) for k in passed])
        after = np.array([unevenness(true[k], (fits[k].ratio, fits[k].angle_deg)) for k in passed])
        told |= {
            "error of a/b, mean": (ratio.mean(), len(ratio)),
            "error of a/b, median": (np.median(ratio), len(ratio)),
            "error of a/b by its standard deviation, median": (np.median(pull), len(pull)),
            "unevenness of rings before, mean": (before.mean(), len(before)),
            "unevenness of rings after, mean": (after.mean(), len(after)),
        }
        if len(turn):
            told["error of the angle where a/b >= 1.02 (°), mean"] = (turn.mean(), len(turn))
            told["error of the angle where a/b >= 1.02 (°), median"] = (np.median(turn), len(turn))
    return [("ellipse", "scan means", "fit", dose, label, k, v, n) for k, (v, n) in told.items()]
