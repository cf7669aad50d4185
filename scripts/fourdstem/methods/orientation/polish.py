"""Scale and centre that the indexed patterns themselves ask for.

Of the patterns that correlate best, the disks of the orientation found are looked for where the template has them.
A disk that lies x px from the middle is seen moved by d; over all patterns n and disks::

    d = (f − 1) x + o + ω_n z × x

f is the scale (camera length) and o the centre, the same for all; ω_n, an error of the in-plane angle, is each
pattern's own and of no interest. Least squares (Huber's), repeated at the places found until they stand still. Standard
deviations are those of the jackknife over 20 groups of neighbouring positions, so that what one grain does wrong in
all its patterns counts once. The pixel of these patterns is the value in force divided by f.
"""

import json
import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import binary_erosion

from fourdstem.cube import Correction, Cube
from fourdstem.methods.orientation.filtering import convolve
from fourdstem.methods.orientation.overlap import Detector, disks

log = logging.getLogger("fourdstem")

# Patterns that are looked at, disks of each, and how many of both are the fewest that say anything.
_PATTERNS, _DISKS, _FEWEST, _FEWEST_DISKS = 400, 30, 20, 100
_GROUPS = 20
# Disks fainter than this part of a template's strongest are not looked for.
_BRIGHT = 0.02
# A disk is looked for so far from its place, px; beyond so many px from the others it counts less (Huber).
_REACH, _HUBER = 2.5, 0.3
_ROUNDS = 6
# Sigmas are no smaller: places of maxima between pixels are known no better.
_FACTOR_FLOOR, _OFFSET_FLOOR = 3e-4, 0.01
# Disks that lie farther from their places than this on average, px, are noise.
_NOISE = 1.0
# Told as a warning from so many sigmas, and from so large a part of the scale, and px.
_SIGMAS, _SCALE_LIMIT, _OFFSET_LIMIT = 3.0, 0.005, 0.3
# Of a disk's place when it has many counts, px: intensities vary inside it.
_FLOOR = 0.1


@dataclass(frozen=True)
class Polish:
    """What the patterns say of scale and centre.

    Attributes
    ----------
    factor, factor_sigma : float
        Distances on the detector in units of those expected; NaN where too little was found.
    offset_px, offset_sigma_px : ndarray of shape (2,)
        Beam (y, x) minus the middle of the pattern.
    patterns, found : int
        How many patterns and disks were used.
    """

    factor: float = np.nan
    factor_sigma: float = np.nan
    offset_px: np.ndarray = None
    offset_sigma_px: np.ndarray = None
    patterns: int = 0
    found: int = 0

    @property
    def known(self) -> bool:
        """Whether there was enough to look at."""
        return bool(np.isfinite(self.factor))


def measure(cube: Cube, result, seen: Detector) -> Polish:
    """Look for the disks of the best indexed patterns.

    Parameters
    ----------
    cube : Cube
    result : orientation.Result
        Of this cube, with this calibration.
    seen : Detector
    """
    chosen = _best(result)
    if len(chosen) < _FEWEST:
        return _nothing()
    middle = (np.array(cube.detector_shape) - 1) / 2
    looked = [_prepare(cube.pattern(y, x), result.orientation[y, x], result.phase[y, x], seen) for y, x in chosen]
    at = np.array([1.0, 0.0, 0.0])
    for _ in range(_ROUNDS):
        parts = [_equations(image, place - middle, at, middle) for image, place in looked]
        distance = np.concatenate([part[2] for part in parts])
        if len(distance) < _FEWEST_DISKS:
            return _nothing()
        normal, right = np.stack([p[0] for p in parts]), np.stack([p[1] for p in parts])
        step = np.linalg.solve(normal.sum(axis=0), right.sum(axis=0))
        at = at + step
        if np.abs(step * [middle.min(), 1, 1]).max() < 1e-3:
            break
    if np.median(distance) > _NOISE:
        return _nothing()
    group = np.arange(len(parts)) * _GROUPS // len(parts)
    without = np.array([np.linalg.solve(normal[group != g].sum(0), right[group != g].sum(0)) for g in np.unique(group)])
    sigma = np.sqrt(((without - without.mean(axis=0)) ** 2).sum(axis=0) * (len(without) - 1) / len(without))
    sigma = np.hypot(sigma, [_FACTOR_FLOOR, _OFFSET_FLOOR, _OFFSET_FLOOR])
    return Polish(float(at[0]), float(sigma[0]), at[1:], sigma[1:], len(chosen), len(distance))


def tell(found: Polish, pixel: float, apply: bool) -> None:
    """Say in the log what was found; a warning where it matters and is not applied."""
    if not found.known:
        log.info("scale and centre: too few disks of indexed patterns to tell")
        return
    (dy, dx), (sigma_y, sigma_x) = found.offset_px, found.offset_sigma_px
    refined, sigma = pixel / found.factor, pixel * found.factor_sigma / found.factor**2
    text = f"{found.found} disks of {found.patterns} indexed patterns fit {refined:.5f} ± {sigma:.5f} 1/Å per px (in "
    text += f"force {pixel:.5f}, {refined / pixel - 1:+.2%}) and a beam ({dy:+.2f} ± {sigma_y:.2f}, {dx:+.2f} ± "
    text += f"{sigma_x:.2f}) px off the middle (y, x)"
    if apply:
        log.info("%s; applied, indexing again", text)
    elif matters(found.factor, found.factor_sigma, found.offset_px, found.offset_sigma_px):
        log.warning("%s; orientation: polish applies it", text)
    else:
        log.info("%s", text)


def tell_camera(verdict: str) -> None:
    """Warn in the log where `preprocess` found that the rings do not fit the calibration.

    Parameters
    ----------
    verdict : str
        JSON, ``{camera: {pass, reason}, …}``.
    """
    camera = json.loads(verdict).get("camera", {"pass": True})
    if not camera["pass"]:
        log.warning("calibration: %s; set acquisition: detector_pixel_inv_angstrom", camera["reason"])


def matters(factor, factor_sigma, offset_px, offset_sigma_px) -> bool:
    """Whether scale or centre is off by more than can be ignored (0.5 %, 0.3 px) and by more than three sigmas."""
    scale = abs(factor - 1) > max(_SCALE_LIMIT, _SIGMAS * factor_sigma)
    centre = np.any(np.abs(offset_px) > np.maximum(_OFFSET_LIMIT, _SIGMAS * np.asarray(offset_sigma_px)))
    return bool(scale or centre)


def fields(found: Polish, pixel: float) -> dict:
    """Return what the result holds of it."""
    return {
        "scale_factor": found.factor,
        "scale_factor_sigma": found.factor_sigma,
        "pixel_refined_inv_angstrom": pixel / found.factor,
        "centre_offset_px": np.asarray(found.offset_px, np.float32),
        "centre_offset_sigma_px": np.asarray(found.offset_sigma_px, np.float32),
    }


def _nothing() -> Polish:
    return Polish(offset_px=np.full(2, np.nan), offset_sigma_px=np.full(2, np.nan))


def _best(result) -> np.ndarray:
    """Positions (n, 2) of the highest correlations, in scan order."""
    score = np.where(result.phase >= 0, result.correlation, -1).ravel()
    order = np.argsort(-score, kind="stable")[:_PATTERNS]
    order = np.sort(order[score[order] >= np.median(score[score >= 0])]) if (score >= 0).any() else order[:0]
    return np.stack(np.unravel_index(order, result.phase.shape), axis=-1)


def _prepare(pattern, quaternion, phase, seen: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Counts under a disk around each pixel (NaN where pixels do not count), and places of lonely bright disks."""
    inside = (seen.ring >= 0).astype(np.float32)
    image, filled = np.empty_like(pattern), np.empty_like(pattern)
    convolve(pattern * inside, seen.kernel, image)
    convolve(inside, seen.kernel, filled)
    place, weight = disks(quaternion, phase, seen)
    apart = np.hypot(*(place[:, None] - place[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    lonely = apart.min(axis=1) > 2 * (seen.optics.disk_px + 1) if len(place) > 1 else np.ones(len(place), bool)
    bright = np.flatnonzero(lonely & (weight > _BRIGHT * weight.max()))[-_DISKS:]
    return np.where(filled > 0.99 * seen.kernel.sum(), image, np.nan), place[bright]


def _equations(image, x, at, middle) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Normal equations of one pattern for (f, o_y, o_x), its own angle eliminated; how far disks are from places."""
    expected = middle + at[1:] + at[0] * x
    moved = np.array([_moved(image, place) for place in expected]).reshape(-1, 3)
    good = np.isfinite(moved[:, 0])
    x, d, counts = x[good], moved[good, :2], moved[good, 2]
    if len(x) < 3:
        return np.zeros((3, 3)), np.zeros(3), np.zeros(0)
    zero, one = np.zeros(len(x)), np.ones(len(x))
    rows = np.concatenate([np.stack([x[:, 0], one, zero], -1), np.stack([x[:, 1], zero, one], -1)])
    turn = np.concatenate([x[:, 1], -x[:, 0]])
    target = np.concatenate([d[:, 0], d[:, 1]])
    centre = np.median(d, axis=0)
    huber = np.minimum(1, _HUBER / np.maximum(np.hypot(*(d - centre).T), 1e-9))
    weight = np.tile(huber / (_FLOOR**2 + 1 / np.maximum(counts, 1e-3)), 2)
    share = (turn * weight) @ np.column_stack([rows, target]) / max((turn * weight) @ turn, 1e-12)
    rows, target = rows - np.outer(turn, share[:3]), target - turn * share[3]
    return (rows * weight[:, None]).T @ rows, (rows * weight[:, None]).T @ target, np.hypot(*d.T)


def _moved(image, place) -> tuple[float, float, float]:
    """How far from its place (y, x) a disk's sum has its maximum, px, and by how many counts it stands out."""
    nothing = (np.nan, np.nan, np.nan)
    y0, x0 = np.rint(place).astype(int)
    reach = int(np.ceil(_REACH)) + 1
    if y0 < reach or x0 < reach or y0 >= image.shape[0] - reach or x0 >= image.shape[1] - reach:
        return nothing
    part = image[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
    if np.isnan(part).any():
        return nothing
    y, x = np.unravel_index(np.argmax(part[1:-1, 1:-1]), (2 * reach - 1, 2 * reach - 1))
    y, x = y + 1, x + 1
    off = np.array([y0 + y - reach, x0 + x - reach], float) - place
    around = part[y - 1 : y + 2, x - 1 : x + 2]
    counts = part[y, x] - np.partition(part.ravel(), part.size // 2)[part.size // 2]  # the median of an odd number
    for axis, (left, right) in enumerate(((around[0, 1], around[2, 1]), (around[1, 0], around[1, 2]))):
        bend = left - 2 * around[1, 1] + right
        off[axis] += 0.5 * (left - right) / bend if bend < 0 else 0.0
    return (*off, counts) if counts > 0 and np.hypot(*off) <= _REACH else nothing


def applied(cube: Cube, found: Polish) -> Cube:
    """Return the cube with scale and centre as found; patterns that were corrected before are interpolated again."""
    pixel = cube.acquisition.pixel_inv_angstrom / found.factor
    known = replace(cube.acquisition, detector_pixel_inv_angstrom=pixel, detector_pixel_mrad=None)
    old, margin = cube.correction, int(np.ceil(np.abs(found.offset_px).max()))
    if old is None:
        middle = (np.array(cube.detector_shape) - 1) / 2
        old = Correction(np.broadcast_to(middle, (*cube.scan_shape, 2)), np.eye(2), np.asarray(cube.valid) == 0)
    new = replace(old, centre_px=old.centre_px + old.matrix @ found.offset_px)
    valid = binary_erosion(np.asarray(cube.valid) != 0, np.ones((3, 3)), max(margin, 1)).astype(np.uint8)
    return replace(cube, acquisition=known, correction=new, valid=valid)
