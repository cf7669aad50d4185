"""What the refinement knows of all phases and of the detector: reflections, relrods, disks, rings."""

from dataclasses import dataclass

import numpy as np

from fourdstem.crystal import Crystal
from fourdstem.methods.orientation.filtering import convolve
from fourdstem.methods.orientation.matching import Optics
from fourdstem.methods.orientation.polar import Rings
from fourdstem.methods.orientation.templates import relrod, rods

# Radii in units of the disk's.
_BOX, _DISK = 0.5, 1.2
# The power of templates in units of the patterns', for ranking candidates and for turning the best one to its final
# place. Averaging evens out strong disks less than weak ones: a power above the patterns' ranked simulated many-beam
# patterns best. Angles are most accurate where both are alike.
_SHARPER = (1.2, 1.0)
# The power of patterns for the final place in units of that for ranking (two: `filtering.flatten` takes squares), where
# intensities are kinematical (also: made so by precession): strong disks tell the angle best there. Two-beam
# intensities are too uncertain for it.
_FINAL = 2.0
# First steps of the search that it may go, without and with precession; other maxima belong to other candidates. With
# precession intensities change slowly: the best template of the grid is near, farther on errors of the model lead.
_REACH = (4.0, 2.0)
# Half-width of tilts to average over, beside the convergence: for ranking, and for the final place without and with
# precession or two beams. Many-beam intensities follow the excitation error less sharply than relrods; without it a
# template hangs on disks that the crystal shows differently. Where the user says that intensities are kinematical, and
# no precession evens them out, the final place is most accurate nearly without.
_SOFT, _SHARP = np.deg2rad(0.5), np.deg2rad(0.1)
# Relrods are tabulated: |g| in 1/Å, excitation errors up to where the widest falls to 1e-4 or to the limit in 1/Å.
_G_STEP, _S_COUNT, _S_LIMIT, _TAIL = 0.01, 1601, 0.2, 1e-4
# Relrods whose lengths differ by less share a row of the table.
_LENGTH_STEP = 0.03


@dataclass(frozen=True)
class Spots:
    """Reflections of all phases and where a pattern may show them.

    Attributes
    ----------
    g : ndarray of shape (n, 3)
        In the crystal frame, 1/Å.
    amplitude : ndarray of shape (2, n)
        (Strength / greatest of its phase) to the two powers of templates.
    start : ndarray of int, shape (phases + 1,)
        ``g[start[p]:start[p + 1]]`` belong to phase p.
    row : ndarray of int, shape (n,)
        Of the table: relrods of one phase, one |g| and one length.
    table : ndarray of shape (2, row, 1601)
        Relrods to the two powers of templates, over -s_max … s_max of their phase.
    s_max : ndarray of shape (phases,)
        1/Å.
    optics : tuple of float
        Wavenumber, 1/Å per px, r_min and r_max in px.
    seen : ndarray of float32, shape (detector_y, detector_x)
        Squared norm, on pixels that count, of a disk there.
    inside : ndarray of float32, shape (detector_y, detector_x)
        1 where the pixel counts.
    weight : ndarray of float32, shape (detector_y, detector_x)
        Turns sums under ``box`` into means.
    ring : ndarray of uint32, shape (detector_y, detector_x)
        Whole radius, px; the number of rings where the pixel does not count.
    order, first : ndarray of uint32, shape (pixels,), and of int, shape (rings + 1,)
        Pixels that count, flat, by ring: ``order[first[r]:first[r + 1]]`` are those of ring r.
    per_ring : ndarray of shape (ring,)
        Number of such pixels by whole radius in px, times the rings that a disk spreads over
        (and a factor of its edge).
    box, disk : ndarray of float32, shape (odd, odd)
        Kernels.
    reach : float
        First steps that the search may go.
    best : float
        c of the module docstring.
    power, final : float
        Of patterns, for ranking and for the final place.
    """

    g: np.ndarray
    amplitude: np.ndarray
    start: np.ndarray
    row: np.ndarray
    table: np.ndarray
    s_max: np.ndarray
    optics: tuple[float, ...]
    seen: np.ndarray
    inside: np.ndarray
    weight: np.ndarray
    ring: np.ndarray
    order: np.ndarray
    first: np.ndarray
    per_ring: np.ndarray
    box: np.ndarray
    disk: np.ndarray
    reach: float
    best: float
    power: float
    final: float


def spots(crystals: list[Crystal], optics: Optics, rings: Rings, valid: np.ndarray, power: float) -> Spots:
    """Prepare the refinement on patterns with these valid pixels (detector_y, detector_x)."""
    r_min, r_max = rings.radius[0] - rings.width / 2, rings.radius[-1] + rings.width / 2
    radius = np.hypot(*np.ix_(*(np.arange(n) - (n - 1) / 2 for n in valid.shape)))
    inside = ((np.asarray(valid) != 0) & (radius >= r_min) & (radius <= r_max)).astype(np.float32)
    radius_px = max(optics.disk_px, 1.0)
    box, disk = _kernel(_BOX * radius_px), _kernel(_DISK * radius_px)
    seen, share = _around(inside, disk**2), _around(inside, box)
    g_max = (r_max + radius_px) * optics.pixel
    found = [rods(c, g_max, optics.wavelength, optics.thickness, optics.intensity) for c in crystals]
    strength = np.concatenate([part[1] / part[1].max(initial=1e-30) for part in found])
    soft, final = _for_the_final_place(optics, power)
    powers = power * _SHARPER[0], final * _SHARPER[1]
    row, relrods, s_max = _of_phases(optics, found, soft)
    # Σ over rings of (pixels of a disk of radius R there)² is 16 R³ / 3, that of its π R² pixels in one ring π² R⁴.
    # ``seen`` holds squares of the soft-edged disk, the ring mean takes the disk itself.
    spread = max(1.0, 3 * np.pi**2 * _DISK * radius_px / 16) * ((disk**2).sum() / disk.sum()) ** 2
    ring, order, pixels = _by_ring(radius.astype(int), inside)
    return Spots(
        g=np.concatenate([part[0] for part in found]),
        amplitude=np.stack([strength**p for p in powers]),
        start=np.cumsum([0, *(len(part[0]) for part in found)]),
        row=row,
        table=np.stack([part**p for part, p in zip(relrods, powers, strict=True)]),
        s_max=s_max,
        optics=(1 / optics.wavelength, optics.pixel, r_min, r_max),
        seen=seen,
        inside=inside,
        weight=np.where(inside > 0, 1 / np.maximum(share, 1e-6), 0).astype(np.float32),
        ring=ring,
        order=order,
        first=np.cumsum([0, *pixels]).astype(int),
        per_ring=pixels * spread,
        box=box,
        disk=disk,
        reach=_REACH[optics.phi > 0],
        best=_attainable(radius_px, box, disk, power),
        power=power,
        final=final,
    )


def _around(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Sums of a kernel around every pixel."""
    out = np.empty_like(image)
    convolve(image, kernel, out)
    return out


def _by_ring(radius: np.ndarray, inside: np.ndarray) -> tuple:
    """Ring of each pixel, pixels by ring, and their numbers: see `Spots`."""
    pixels = np.bincount(radius.ravel(), inside.ravel())
    ring = np.where(inside > 0, radius, len(pixels)).astype(np.uint32)
    order = np.argsort(ring, axis=None, kind="stable")[: np.count_nonzero(inside)]
    return ring, order.astype(np.uint32), pixels


def _for_the_final_place(optics: Optics, power: float) -> tuple[np.ndarray, float]:
    """Half-widths of tilts for ranking and for the final place, and the power of patterns for the latter."""
    kinematical = optics.intensity == "kinematical"
    sharp = _SHARP if kinematical and optics.phi == 0 else _SOFT
    return np.hypot(optics.alpha, [_SOFT, sharp]), power * (_FINAL if kinematical else 1.0)


def _kernel(radius: float) -> np.ndarray:
    reach = int(np.ceil(radius + 0.5))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.clip(radius + 0.5 - np.hypot(y, x), 0, 1).astype(np.float32)


def _attainable(radius: float, box: np.ndarray, disk: np.ndarray, power: float) -> float:
    """Correlation of a lone disk, prepared like a pattern, with the disk of a template."""
    beam = np.pad(_kernel(radius), len(disk))
    shown, matched = np.empty_like(beam), np.empty_like(beam)
    convolve(beam, box / box.sum(), shown)
    shown **= np.float32(power)
    convolve(shown, disk, matched)
    middle = len(beam) // 2
    return float(matched[middle, middle] / np.sqrt((shown.astype(float) ** 2).sum() * (disk**2).sum()))


def _of_phases(optics: Optics, found: list[tuple], soft: np.ndarray) -> tuple:
    """Rows and tables as of `_relrods`, and s_max of each phase: what is found of one does not depend on the others."""
    parts = [_relrods(optics, np.linalg.norm(g, axis=1), length, soft) for g, _, length in found]
    first = np.cumsum([0, *(table.shape[1] for _, table, _ in parts)])
    row = np.concatenate([start + part[0] for start, part in zip(first, parts, strict=False)])
    return row, np.concatenate([table for _, table, _ in parts], axis=1), np.array([part[2] for part in parts])


def _relrods(optics: Optics, g: np.ndarray, length: np.ndarray, soft: np.ndarray) -> tuple:
    """Rows of a phase's reflections by |g| and length of relrod, a table for each half-width of tilts, s_max."""
    tail = 1 / (np.sqrt(2 * _TAIL) * np.pi * length.min(initial=optics.thickness))  # relrods are of it or shorter
    s_max = min(_S_LIMIT, tail) + g.max(initial=0.0) * (optics.phi + soft.max())
    s = np.linspace(-s_max, s_max, _S_COUNT)
    along = np.sqrt(s**2 + 1 / optics.wavelength**2) - s
    kinds = np.stack([np.round(g / _G_STEP), np.round(np.log(length) / _LENGTH_STEP)], axis=1)
    kinds, row = np.unique(kinds, axis=0, return_inverse=True)
    table = np.empty((len(soft), len(kinds), _S_COUNT))
    for i, (steps, logarithm) in enumerate(kinds):
        radius, thickness = steps * _G_STEP, np.full(_S_COUNT, np.exp(logarithm * _LENGTH_STEP))
        lab = np.stack([0 * s + radius, 0 * s, np.sqrt(along**2 - radius**2) - 1 / optics.wavelength], -1)
        for values, half_width in zip(table[:, i], soft, strict=True):
            values[:] = relrod(lab, optics.wavelength, thickness, optics.phi, half_width, optics.rod == "gaussian")
    return row.ravel(), table, float(s_max)
