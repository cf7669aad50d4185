"""What passed, what did not, and the numbers and thresholds behind it."""

import json

import numpy as np

from fourdstem.methods.preprocess import descan
from fourdstem.methods.preprocess.bad_pixels import CERTAIN_COUNTS


def write(params, measured, surface, origin, ellipse, disk, camera, turn, gain, radius_text: str, bad) -> str:
    """Return the verdict as JSON: ``{centre: {pass, reason}, descan, ellipse, camera, rotation, …: likewise}``."""
    verdict = {
        "centre": _centre(params, measured, origin, radius_text),
        "descan": _descan(params, surface, origin),
        "ellipse": _ellipse(ellipse, disk),
        "camera": {"pass": bool(camera[1]), "reason": camera[2]},
        "rotation": {"pass": turn.passed, "reason": turn.reason},
        "gain": {"pass": gain.passed, "reason": gain.reason},
        "pixels": _pixels(bad),
    }
    return json.dumps(verdict, ensure_ascii=False)


def _centre(params, measured, origin, radius_text):
    seen = np.isfinite(measured[..., 0])
    sigma = float(np.median(measured[..., 2][seen]))
    dark = int((origin == descan.NONE).sum())
    extinct = int((~seen).sum()) - dark
    reason = f"median standard deviation {sigma:.3f} px per axis (limit {params.centre_sigma_limit_px:g} px)"
    reason += f"; of {origin.size} patterns {dark} dark, {extinct} with too weak a direct beam; {radius_text}"
    return {"pass": sigma <= params.centre_sigma_limit_px, "reason": reason}


def _descan(params, surface, origin):
    lost = surface.outlier | (origin == descan.NONE)
    share = float(lost.mean())
    measured = bool((origin == descan.MEASURED).any())
    span = np.ptp(surface.surface.reshape(-1, 2), axis=0)
    reason = f"beam moves {span[0]:.2f} px in y and {span[1]:.2f} px in x over the scan; "
    reason += f"scatter about the surface {surface.scatter_px:.3f} px = {surface.ratio:.2f} of counting noise "
    reason += f"(limit {params.descan_ratio_limit:g}): {'measured centres' if measured else 'surface'} in force; "
    reason += f"{share:.1%} outliers or dark (limit {params.outlier_share_limit:.0%})"
    return {"pass": share <= params.outlier_share_limit, "reason": reason}


def _ellipse(ellipse, disk):
    reason = ellipse.reason
    if disk is not None:
        reason += f"; the direct disk itself has a/b = {disk[0]:.3f} at {disk[1]:.0f}°"
        reason += " (probe and camera together: not used)"
    return {"pass": ellipse.passed, "reason": reason}


def _pixels(bad):
    dead, hot, saturated = (int((bad == k).sum()) for k in (1, 2, 3))
    share = (bad > 0).mean()
    reason = f"{dead} dead, {hot} hot, {saturated} saturated: {share:.2%} of the detector (limit 1%)"
    reason += f"; a dead pixel shows only where at least {CERTAIN_COUNTS} counts are expected in the whole scan"
    return {"pass": bool(share <= 0.01 and saturated == 0), "reason": reason}
