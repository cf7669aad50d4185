"""A second orientation where two crystals overlap: the first is subtracted, what is left is indexed again.

Subtracting. The reflections of the first orientation have templates' intensities t_i; the pattern, less its radial
background, has the sums m_i in their disks. Many-beam intensities are not those of templates, but lie at the same
places: a disk is taken away as far as the first crystal may explain it::

    e_i = min(m_i, κ a t_i),   a = Σ m_i / Σ t_i,   κ = 10

so that strong reflections vanish into the background whatever their intensity, and a bright disk where the first
crystal has almost none stays. The remainder is indexed like any pattern. Pixels under disks that were taken away are
background then, and count against a second orientation that shares these reflections.

Share. s = Σ e'_j / (Σ e_i + Σ e'_j), with e'_j what the second orientation explains of the remainder likewise. It is
the part of the Bragg intensity that *only* the second explains, hence a lower bound: shared disks go to the first.
"""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.crystal import Crystal
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


@dataclass(frozen=True)
class Detector:
    """What `remainder` knows of pattern and crystals.

    Attributes
    ----------
    rods : list of tuple
        By phase, from `templates.rods`.
    optics : Optics
    ring : ndarray of int, shape (detector_y, detector_x)
        Whole radius, px; -1 where the pixel does not count.
    """

    rods: list
    optics: Optics
    ring: np.ndarray


def detector(crystals: list[Crystal], optics: Optics, rings: Rings, valid: np.ndarray) -> Detector:
    """Prepare for patterns with these valid pixels (detector_y, detector_x)."""
    r_min, r_max = rings.radius[0] - rings.width / 2, rings.radius[-1] + rings.width / 2
    y, x = (np.arange(n) - (n - 1) / 2 for n in valid.shape)
    radius = np.hypot(y[:, None], x)
    inside = (np.asarray(valid) != 0) & (radius >= r_min) & (radius <= r_max)
    g_max = (r_max + optics.disk_px) * optics.pixel
    found = [rods(c, g_max, optics.wavelength, optics.thickness, optics.intensity) for c in crystals]
    return Detector(found, optics, np.where(inside, radius.astype(int), -1))


def disks(quaternion: np.ndarray, phase: int, seen: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Places (n, 2) in px and template intensities (n,) of an orientation's reflections, faintest first."""
    optics, (g, strength, length) = seen.optics, seen.rods[phase]
    lab = g @ to_matrix(quaternion)
    weight = strength * relrod(lab, optics.wavelength, length, optics.phi, np.hypot(optics.alpha, _SOFT))
    order = np.argsort(weight, kind="stable")
    order = order[weight[order] > _FAINT * weight.max()]
    middle = (np.array(seen.ring.shape) - 1) / 2
    return middle + lab[order][:, 1::-1] / optics.pixel, weight[order]


def subtract(pattern: np.ndarray, place: np.ndarray, weight: np.ndarray, seen: Detector):
    """Take an orientation's disks out of a pattern.

    Returns
    -------
    remainder : ndarray of float32, shape (detector_y, detector_x)
    explained : float
        Σ e_i.
    background : ndarray of float64, shape (ring,)
    """
    owner = np.full(pattern.shape, -1)
    own(place, seen.optics.disk_px + _WIDER, owner)
    background = radial(pattern, seen.ring, owner)
    remainder, explained = np.empty_like(pattern), np.zeros(len(weight))
    take(pattern, seen.ring, owner, weight, background, remainder, explained)
    return remainder, explained.sum(), background


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
def radial(pattern, ring, owner):
    """Mean by radius of pixels that no disk owns, twice without those 3 standard deviations above."""
    count = ring.max() + 1
    limit = np.full(count, np.inf)
    mean = np.zeros(count)
    for _ in range(3):
        total, square, number = np.zeros(count), np.zeros(count), np.zeros(count)
        for y in range(ring.shape[0]):
            for x in range(ring.shape[1]):
                r, value = ring[y, x], pattern[y, x]
                if r >= 0 and owner[y, x] < 0 and value <= limit[r]:
                    total[r] += value
                    square[r] += value * value
                    number[r] += 1
        for r in range(count):
            low, high = max(r - _ACROSS, 0), min(r + _ACROSS + 1, count)
            n = max(number[low:high].sum(), 1.0)
            mean[r] = total[low:high].sum() / n
            limit[r] = mean[r] + 3 * np.sqrt(max(square[low:high].sum() / n - mean[r] ** 2, 0.0))
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
