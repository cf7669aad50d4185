"""Scan rotation and flip from the curl of the centre-of-mass field.

The centre of mass of a phase object's pattern is the gradient of a potential, and a gradient has no curl (Lazić et
al., Ultramicroscopy 160, 265 (2016), doi 10.1016/j.ultramic.2015.10.011). Turned by φ, the field's curl and divergence
become ``cos φ curl + sin φ div`` and ``cos φ div - sin φ curl``: the squared curl, summed over the scan, is a quadratic
form in (cos φ, sin φ), so that its minimum is known in closed form. Noise that is alike in y and x raises it at every φ
by the same amount. φ and φ + 180° have the same curl; the sign of the divergence would part them. The contrast of
diffraction is no gradient, and where it rules, nothing is proposed.
"""

from dataclasses import dataclass

import numpy as np

from fourdstem.geometry import ellipse_matrix

BLOCKS = 6  # per scan axis; their scatter is the uncertainty, as neighbouring curls are not independent
LEAST_BLOCKS = 12
LEAST_BLOCK_PX = 4
FLIP_SIGMA = 4.0


@dataclass(frozen=True)
class Rotation:
    """Proposed rotation (°) and its sigma, NaN without a proposal; flip 0 or 1, -1 without; and the verdict."""

    rotation_deg: float
    sigma_deg: float
    flip: int
    passed: bool
    reason: str


@dataclass(frozen=True)
class _Fit:
    """Of one flip: the rotation that minimises the curl, its sigma (°), and the blocks' part in the contrast."""

    angle_deg: float
    sigma_deg: float
    contrast: float
    parts: np.ndarray


def propose(deflection: np.ndarray, ellipse, acquisition, limits) -> Rotation:
    """Propose scan rotation and flip; nothing is applied.

    Parameters
    ----------
    deflection : ndarray of shape (scan_y, scan_x, 2)
        Centre of mass (y, x) of the recorded patterns, px, less the smooth descan surface; NaN where there are no
        counts. What is left of a linear descan does no harm: curl and divergence are taken from their means.
    ellipse : rings.Ellipse
        In force; undone first.
    acquisition : Acquisition
        The values in force, and the scan step (squares where it is not known).
    limits : Params
        ``curl_contrast_limit``, ``rotation_sigma_limit_deg`` and ``rotation_tolerance_deg``.

    Returns
    -------
    Rotation
        Of the two angles half a turn apart, the one nearer to the rotation in force.
    """
    field = deflection @ np.linalg.inv(ellipse_matrix(ellipse.ratio, ellipse.angle_deg)).T
    step = np.array(acquisition.scan_step_angstrom or (1.0, 1.0))
    found = [_fit(field * [sign, 1.0], step / step.min()) for sign in (1.0, -1.0)]
    if found[0] is None:
        return _none(f"the scan has fewer than {LEAST_BLOCKS} blocks of {LEAST_BLOCK_PX} x {LEAST_BLOCK_PX} positions")
    flip = int(found[1].contrast > found[0].contrast)
    best, other = found[flip], found[1 - flip]
    if best.contrast < limits.curl_contrast_limit or best.sigma_deg > limits.rotation_sigma_limit_deg:
        text = f"the field is too weak or no gradient: rotation removes {best.contrast:.2f} of its curl (limit "
        text += f"{limits.curl_contrast_limit:g}), standard deviation {best.sigma_deg:.1f}° (limit "
        return _none(f"{text}{limits.rotation_sigma_limit_deg:g}°)")
    apart = best.parts - other.parts
    spread = np.sqrt(len(apart) * apart.var(ddof=1))
    certainty = apart.sum() / max(spread, 1e-9 * best.parts.sum())  # rounding does not decide
    if certainty < FLIP_SIGMA:
        text = f"both flips fit alike ({certainty:.1f} standard deviations apart, {FLIP_SIGMA:g} needed): "
        return _none(
            f"{text}{found[0].angle_deg:.1f}° unflipped or {found[1].angle_deg:.1f}° flipped, or half a turn on"
        )
    return _judge(best, flip, acquisition, limits)


def _none(why: str) -> Rotation:
    return Rotation(np.nan, np.nan, -1, True, f"no proposal: {why}")


def _judge(best: _Fit, flip: int, acquisition, limits) -> Rotation:
    known = acquisition.scan_rotation_deg
    off = (best.angle_deg - known + 90) % 180 - 90
    angle = (known + off + 180) % 360 - 180
    tolerance = max(limits.rotation_tolerance_deg, 3 * best.sigma_deg)
    passed = flip == int(acquisition.detector_flip_y) and abs(off) <= tolerance
    reason = f"least curl at {angle:.1f} ± {best.sigma_deg:.1f}°, detector_flip_y {bool(flip)} (rotation removes "
    reason += f"{best.contrast:.2f} of the curl); in force {known:.1f}°, {acquisition.detector_flip_y} (limit "
    reason += f"{tolerance:.1f}°); half a turn has the same curl, only the sign of the divergence tells it"
    return Rotation(float(angle), best.sigma_deg, flip, bool(passed), reason)


def _fit(field, step) -> _Fit | None:
    """Minimise the curl of one flip; None where the scan is too small.

    With z = (Σ div² - curl², Σ -2 curl div), curl² is least at half the angle of z, and the contrast
    (most - least) / (most + least) is |z| / Σ (curl² + div²).
    """
    curl, div, seen = _derivatives(field, step)
    blocks = _blocks(seen)
    if len(blocks) < LEAST_BLOCKS:
        return None
    curl, div = curl - curl[seen].mean(), div - div[seen].mean()
    z = np.array([[(div[b] ** 2 - curl[b] ** 2).sum(), -2 * (curl[b] * div[b]).sum()] for b in blocks])
    total, power = z.sum(axis=0), sum((curl[b] ** 2 + div[b] ** 2).sum() for b in blocks)
    size = np.hypot(*total)
    if size == 0:
        return _Fit(0.0, np.inf, 0.0, np.zeros(len(z)))
    along = total / size
    across = z @ [-along[1], along[0]]
    sigma = 0.5 * np.sqrt(len(z) * across.var(ddof=1)) / size
    return _Fit(
        float(np.rad2deg(0.5 * np.arctan2(*total[::-1]))), float(np.rad2deg(sigma)), float(size / power), z @ along
    )


def _derivatives(field, step):
    """Curl and divergence by central differences, and where both exist; shape (scan_y - 2, scan_x - 2)."""
    if min(field.shape[:2]) < 3:
        return np.zeros((0, 0)), np.zeros((0, 0)), np.zeros((0, 0), bool)
    by_y = (field[2:, 1:-1] - field[:-2, 1:-1]) / (2 * step[0])
    by_x = (field[1:-1, 2:] - field[1:-1, :-2]) / (2 * step[1])
    curl, div = by_x[..., 0] - by_y[..., 1], by_y[..., 0] + by_x[..., 1]
    return curl, div, np.isfinite(curl) & np.isfinite(div)


def _blocks(seen):
    """Indices (y, x) of the positions of each block of the scan, empty ones left out."""
    edges = [np.linspace(0, n, min(BLOCKS, n // LEAST_BLOCK_PX) + 1).astype(int) for n in seen.shape]
    blocks = []
    for y0, y1 in zip(edges[0][:-1], edges[0][1:], strict=True):
        for x0, x1 in zip(edges[1][:-1], edges[1][1:], strict=True):
            y, x = np.nonzero(seen[y0:y1, x0:x1])
            if len(y):
                blocks.append((y + y0, x + x0))
    return blocks
