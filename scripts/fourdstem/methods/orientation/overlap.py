"""A second orientation where two crystals overlap: the first is subtracted, what is left is indexed again.

Subtracting. The reflections of the first orientation have templates' intensities t_i; the pattern, less its radial
background, has the sums m_i in their disks. Many-beam intensities are not those of templates, but lie at the same
places: a disk is taken away as far as the first crystal may explain it::

    e_i = min(m_i, κ a t_i),   a = Σ m_i / Σ t_i,   κ = 10

so that strong reflections vanish into the background whatever their intensity, and a bright disk where the first
crystal has almost none stays. The remainder is indexed like any pattern. Pixels under disks that were taken away are
background then, and count against a second orientation that shares these reflections.

Trust. The correlation of the remainder with its best template is compared with what single crystals give: of up to 512
patterns, spread over the scan, the first orientation's disks as measured, over the radial background and with noise
as large as measured, make patterns without a second crystal. They go the same way, and the significance of a position
is the share of them with a lower correlation. Whatever real patterns hold beside (Kikuchi lines, diffuse streaks,
a calibration that is off) is not in it.

Share. s = Σ e'_j / (Σ e_i + Σ e'_j), with e'_j what the second orientation explains of the remainder likewise. It is
the part of the Bragg intensity that *only* the second explains, hence a lower bound: shared disks go to the first.
"""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT, Cube, Unit
from fourdstem.methods.orientation.candidates import distinct
from fourdstem.methods.orientation.filtering import convolve
from fourdstem.methods.orientation.matching import Optics
from fourdstem.methods.orientation.polar import Rings
from fourdstem.methods.orientation.rotations import to_matrix
from fourdstem.methods.orientation.templates import relrod, rods

_KAPPA = 10.0
# Half-width of tilts to average over, beside the convergence: an orientation is known no better.
_SOFT = np.deg2rad(0.5)
# Reflections fainter than this part of the strongest are not subtracted.
_FAINT = 1e-3
# Disks reach farther than the beam's by so many px: blur, and places that are slightly off.
_WIDER = 1.0
# Rings of pixels to each side that the background is averaged over.
_ACROSS = 2
# Candidates of the remainder: more than one, because it may be the first orientation again.
_WANTED = 3
# A second orientation counts from here on: at 0.99 about 1 in 40 single crystals was taken for two, at 0.95 1 in 3.
SIGNIFICANCE, SHARE = 0.99, 0.05
# Units whose patterns are compared with single crystals.
_COMPARED = 16


@dataclass(frozen=True)
class Detector:
    """What `subtract` knows of pattern and crystals.

    Attributes
    ----------
    rods : list of tuple
        By phase, from `templates.rods`.
    optics : Optics
    ring : ndarray of int, shape (detector_y, detector_x)
        Whole radius, px; -1 where the pixel does not count.
    kernel : ndarray of float32, shape (odd, odd)
        A disk with soft edges.
    """

    rods: list
    optics: Optics
    ring: np.ndarray
    kernel: np.ndarray


def detector(crystals: list[Crystal], optics: Optics, rings: Rings, valid: np.ndarray) -> Detector:
    """Prepare for patterns with these valid pixels (detector_y, detector_x)."""
    r_min, r_max = rings.radius[0] - rings.width / 2, rings.radius[-1] + rings.width / 2
    y, x = (np.arange(n) - (n - 1) / 2 for n in valid.shape)
    radius = np.hypot(y[:, None], x)
    inside = (np.asarray(valid) != 0) & (radius >= r_min) & (radius <= r_max)
    g_max = (r_max + optics.disk_px) * optics.pixel
    found = [rods(c, g_max, optics.wavelength, optics.thickness, optics.intensity) for c in crystals]
    reach = int(np.ceil(optics.disk_px + 0.5))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel = np.clip(optics.disk_px + 0.5 - np.hypot(rows, columns), 0, 1).astype(np.float32)
    return Detector(found, optics, np.where(inside, radius.astype(int), -1), kernel)


def second(cube: Cube, result, seen: Detector, index, symmetry: tuple, seed: int) -> dict:
    """Index what the first orientations leave, for every position that is indexed.

    Parameters
    ----------
    cube : Cube
    result : orientation.Result
    seen : Detector
    index : callable
        ``index(patterns, wanted)``: quaternion, phase, score of the candidates of a unit (and whatever more).
    symmetry : tuple
        operations (m, 4), start (phases + 1,) and the angle in rad by which first and second must differ.
    seed : int
        Of the noise of the single crystals to compare with.

    Returns
    -------
    dict
        The fields ``overlap_*`` of the result.
    """
    shape = cube.scan_shape
    orientation, phase = np.full((*shape, 4), np.nan, np.float32), np.full(shape, -1, np.int16)
    score, share = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    units = cube.units()
    compared = set(units[:: max(1, -(-len(units) // _COMPARED))])

    def work(patterns: np.ndarray, unit: Unit):
        first = _padded(result.orientation[unit.where], np.nan), _padded(result.phase[unit.where], -1)
        found = _remainders(patterns, first, seen, index, symmetry)
        if unit not in compared:
            return found, []
        return found, _single(patterns, first, found, seen, index, symmetry, (seed, unit))

    singles = []
    for unit, ((quaternion, phases, scores, shares), of_singles) in cube.map_units(work):
        part = slice(unit.count)
        orientation[unit.where] = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)[part]
        phase[unit.where], score[unit.where], share[unit.where] = phases[part], scores[part], shares[part]
        singles.extend(of_singles)
    below = np.searchsorted(np.sort(singles), score, "left") / (len(singles) + 1) if singles else np.nan * score
    return {
        "overlap_orientation": orientation,
        "overlap_phase": phase,
        "overlap_correlation": score,
        "overlap_share": share,
        "overlap_significance": np.where(np.isfinite(score), below, np.nan).astype(np.float32),
    }


def overlapping(result) -> np.ndarray:
    """Positions (scan_y, scan_x) whose second orientation counts, bool."""
    return (result.overlap_significance >= SIGNIFICANCE) & (result.overlap_share >= SHARE)


def _padded(values: np.ndarray, fill) -> np.ndarray:
    out = np.full((UNIT, *values.shape[1:]), fill, values.dtype)
    out[: len(values)] = values
    return out


def _remainders(patterns, first, seen: Detector, index, symmetry) -> tuple:
    """Second orientations, phases, scores and shares of a unit."""
    left, explained = np.zeros_like(patterns), np.zeros(UNIT)
    known = np.flatnonzero(first[1] >= 0)
    for n in known:
        left[n], taken, *_ = subtract(patterns[n], *disks(first[0][n], first[1][n], seen), seen)
        explained[n] = taken.sum()
    quaternion, phase, score, *_ = index(left, _WANTED)
    out = np.full((UNIT, 4), np.nan), np.full(UNIT, -1), np.full(UNIT, np.nan), np.full(UNIT, np.nan)
    for n in known:
        both = np.concatenate([first[0][n : n + 1].astype(float), quaternion[n]])
        apart = distinct(both, np.concatenate([first[1][n : n + 1].astype(np.int64), phase[n]]), *symmetry)[1:]
        if apart.any():
            c = int(np.argmax(apart))
            out[0][n], out[1][n], out[2][n] = quaternion[n, c], phase[n, c], min(score[n, c], 1.0)
            _, taken, *_ = subtract(left[n], *disks(quaternion[n, c], phase[n, c], seen), seen)
            out[3][n] = taken.sum() / max(taken.sum() + explained[n], 1e-30)
    return out


def _single(patterns, first, found, seen: Detector, index, symmetry, where: tuple) -> list[float]:
    """Scores of second orientations of patterns that hold the first crystals alone."""
    seed, unit = where
    made = np.zeros_like(patterns)
    for n in np.flatnonzero(first[1] >= 0):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(unit.y, unit.x0 + int(n)))))
        others = (found[0][n], found[1][n]) if found[1][n] >= 0 else None
        made[n] = alone(patterns[n], (first[0][n], first[1][n]), others, seen, rng)
    quaternion, phase, *_ = index(made, _WANTED)
    again = quaternion[:, 0], np.where(first[1] >= 0, phase[:, 0], -1)
    score = _remainders(made, again, seen, index, symmetry)[2]
    return [float(value) for value in score if np.isfinite(value)]


def alone(pattern: np.ndarray, first: tuple, other: tuple | None, seen: Detector, rng) -> np.ndarray:
    """Make a pattern of the first crystal alone: its disks as measured, the radial background, noise as measured.

    Noise has the variance of what no disk covers, measured on the area of a disk; it is spread over neighbours, as an
    interpolation does, until the variance of single pixels agrees too.
    """
    place, weight = disks(*first, seen)
    left, explained, background, owner = subtract(pattern, place, weight, seen)
    free = owner < 0
    if other is not None:
        free &= subtract(left, *disks(*other, seen), seen)[3] < 0
    mean = np.where(seen.ring >= 0, background[seen.ring], 0.0)
    level, spread = noise(pattern - mean, mean, free & (seen.ring >= 0), seen.kernel)
    render_disks(place, explained, seen.optics.disk_px, mean)
    drawn = rng.poisson(np.maximum(mean, 0) / level) * level
    # Weights (w, 1 - w) along both axes leave (w² + (1 - w)²)² of the variance of a pixel.
    w = 0.5 + 0.5 * np.sqrt(max(2 * np.sqrt(min(spread, 1.0)) - 1, 0.0))
    drawn = w * drawn + (1 - w) * np.roll(drawn, 1, axis=0)
    return (w * drawn + (1 - w) * np.roll(drawn, 1, axis=1)).astype(np.float32)


def noise(off: np.ndarray, mean: np.ndarray, free: np.ndarray, kernel: np.ndarray) -> tuple[float, float]:
    """Variance by mean of counts summed under a kernel, and that of single pixels in units of it.

    ``off`` are deviations from the means; only ``free`` pixels count. 1, 1 where there is nothing to measure.
    """
    off, mean = (np.where(free, values, 0).astype(np.float32) for values in (off, mean))
    total, expected = np.empty_like(off), np.empty_like(off)
    convolve(off, kernel, total)
    convolve(mean, kernel**2, expected)
    if not expected[free].sum(dtype=float) > 0:
        return 1.0, 1.0
    level = float((total[free].astype(float) ** 2).sum() / expected[free].sum(dtype=float))
    pixel = float((off.astype(float) ** 2).sum() / mean.sum(dtype=float))
    return (level, pixel / level) if level > 0 else (1.0, 1.0)


def render_disks(place: np.ndarray, total: np.ndarray, radius: float, out: np.ndarray) -> None:
    """Add soft-edged disks of these sums to a pattern."""
    for (cy, cx), intensity in zip(place, total, strict=True):
        reach = int(np.ceil(radius + 0.5))
        y0, x0 = int(np.rint(cy)), int(np.rint(cx))
        y, x = np.ogrid[y0 - reach : y0 + reach + 1, x0 - reach : x0 + reach + 1]
        disk = np.clip(radius + 0.5 - np.hypot(y - cy, x - cx), 0, 1)
        part = out[max(y0 - reach, 0) : max(y0 + reach + 1, 0), max(x0 - reach, 0) : max(x0 + reach + 1, 0)]
        top, left = max(reach - y0, 0), max(reach - x0, 0)
        part += intensity * (disk / disk.sum())[top : top + part.shape[0], left : left + part.shape[1]]


def disks(quaternion: np.ndarray, phase: int, seen: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) in px and template intensities (n,) of an orientation's reflections, faintest first."""
    optics, (g, strength, length) = seen.optics, seen.rods[phase]
    lab = g @ to_matrix(quaternion)
    half_width = np.hypot(optics.alpha, _SOFT)
    weight = strength * relrod(lab, optics.wavelength, length, optics.phi, half_width, optics.rod == "gaussian")
    order = np.argsort(weight, kind="stable")
    order = order[weight[order] > _FAINT * weight.max()]
    middle = (np.array(seen.ring.shape) - 1) / 2
    return middle + lab[order][:, 1::-1] / optics.pixel, weight[order]


def subtract(pattern: np.ndarray, place: np.ndarray, weight: np.ndarray, seen: Detector):
    """Take an orientation's disks out of a pattern.

    Returns
    -------
    remainder : ndarray of float32, shape (detector_y, detector_x)
    explained : ndarray of shape (n,)
        e_i.
    background : ndarray of float64, shape (ring,)
    owner : ndarray of int, shape (detector_y, detector_x)
        Disk that each pixel belongs to; -1: none.
    """
    owner = np.full(pattern.shape, -1)
    own(place, seen.optics.disk_px + _WIDER, owner)
    free = ((owner < 0) & (seen.ring >= 0)).astype(np.float32)
    smooth, filled = np.empty_like(pattern), np.empty_like(pattern)
    convolve(pattern * free, seen.kernel, smooth)
    convolve(free, seen.kernel, filled)
    background = radial(pattern, smooth / np.maximum(filled, 1e-6), seen.ring, owner)
    remainder, explained = np.empty_like(pattern), np.zeros(len(weight))
    take(pattern, seen.ring, owner, weight, background, remainder, explained)
    return remainder, explained, background, owner


@numba.njit(nogil=True, cache=True)
def own(place, radius, owner):
    """Write into every pixel of a disk the index of the disk; later ones win."""
    ny, nx = owner.shape
    reach = int(np.ceil(radius))
    for i in range(len(place)):
        y0, x0 = int(np.rint(place[i, 0])), int(np.rint(place[i, 1]))
        for y in range(max(y0 - reach, 0), min(y0 + reach + 1, ny)):
            for x in range(max(x0 - reach, 0), min(x0 + reach + 1, nx)):
                if (y - place[i, 0]) ** 2 + (x - place[i, 1]) ** 2 <= radius * radius:
                    owner[y, x] = i


@numba.njit(nogil=True, cache=True)
def radial(pattern, smooth, ring, owner):
    """Mean by radius of pixels that no disk owns, without places that stand out by 3 standard deviations.

    What stands out is told from ``smooth``, means over a disk around each pixel: single counts do not stand out.
    """
    count = ring.max() + 1
    limit = np.full(count, np.inf)
    mean = np.zeros(count)
    for _ in range(3):
        total, number = np.zeros(count), np.zeros(count)
        middle, square = np.zeros(count), np.zeros(count)
        for y in range(ring.shape[0]):
            for x in range(ring.shape[1]):
                r, value = ring[y, x], smooth[y, x]
                if r >= 0 and owner[y, x] < 0 and value <= limit[r]:
                    total[r] += pattern[y, x]
                    middle[r] += value
                    square[r] += value * value
                    number[r] += 1
        for r in range(count):
            low, high = max(r - _ACROSS, 0), min(r + _ACROSS + 1, count)
            n = max(number[low:high].sum(), 1.0)
            mean[r] = total[low:high].sum() / n
            at = middle[low:high].sum() / n
            limit[r] = at + 3 * np.sqrt(max(square[low:high].sum() / n - at * at, 0.0))
    return mean


@numba.njit(nogil=True, cache=True)
def take(pattern, ring, owner, weight, background, remainder, explained):
    """Scale down what lies above the background in owned pixels, as the module's docstring says."""
    ny, nx = pattern.shape
    measured, predicted = np.zeros(len(weight)), np.zeros(len(weight))
    size = np.zeros(len(weight))
    for y in range(ny):
        for x in range(nx):
            i = owner[y, x]
            if i >= 0 and ring[y, x] >= 0:
                measured[i] += pattern[y, x] - background[ring[y, x]]
                size[i] += 1
    predicted[:] = np.where(size > 0, weight, 0.0)
    scale = max(measured.sum(), 0.0) / max(predicted.sum(), 1e-30)
    for i in range(len(weight)):
        explained[i] = min(max(measured[i], 0.0), _KAPPA * scale * predicted[i])
    for y in range(ny):
        for x in range(nx):
            i, r = owner[y, x], ring[y, x]
            remainder[y, x] = pattern[y, x]
            if i >= 0 and r >= 0 and measured[i] > 0:
                above = pattern[y, x] - background[r]
                remainder[y, x] = background[r] + above * (1 - explained[i] / measured[i])
