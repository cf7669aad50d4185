"""Scans that are mixtures of a known number of patterns: the truth for factorisations.

A *component* is a crystal in one orientation (or an amorphous support). Its pattern is a two-dimensional lattice of
disks whose intensities are drawn at random under the envelope of a tilted crystal, over a diffuse background; no
dynamical theory, because what is asked of a factorisation is to tell patterns apart and to count them. Positions hold
known shares of the components: grains with boundaries softened by the probe, zones where two crystals lie on each
other, particles on a support. A bent crystal counts as one component although its intensities change along it.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube

DIRECT, DIFFUSE = 0.5, 0.15  # shares of the electrons in the direct disk and in the diffuse background
BENDS = 9  # patterns along a bent crystal; mixed in between
SWELL = 0.3  # the scattered electrons vary by this share, slowly, over the scan: thickness
DISK_BLUR_PX = 0.4


@dataclass(frozen=True)
class Mixture:
    """What is mixed and how it is recorded.

    Attributes
    ----------
    kind : str
        "grains", "overlap" (half of the scan in zones of two crystals) or "support" (particles on amorphous carbon,
        which is a component too).
    components : int
        How many patterns the scan is made of.
    dose : float
        Electrons per pattern.
    unequal : float
        Largest by smallest area of the grains, roughly; 1 leaves them as they grow.
    bent : int
        How many of the crystals are bent.
    bend : float
        Change of the tilt along a bent crystal, in units of the width of the intensity envelope.
    scan_shape, detector_shape : tuple of int
    radius_px, probe_sigma_px : float
        Radius of a disk; standard deviation of the probe in scan steps.
    seed : int
        Of specimen and noise.
    """

    kind: str = "grains"
    components: int = 4
    dose: float = 1000.0
    unequal: float = 1.0
    bent: int = 0
    bend: float = 0.6
    scan_shape: tuple[int, int] = (48, 48)
    detector_shape: tuple[int, int] = (48, 48)
    radius_px: float = 1.7
    probe_sigma_px: float = 0.5
    seed: int = 1


KINDS = {
    "two": Mixture(components=2),
    "three at 100": Mixture(components=3, dose=100),
    "four at 300": Mixture(components=4, dose=300),
    "six": Mixture(components=6),
    "eight": Mixture(components=8),
    "twelve at 3000": Mixture(components=12, dose=3000),
    "overlap": Mixture("overlap", components=5),
    "unequal": Mixture(components=6, unequal=15),
    "bent": Mixture(components=5, bent=2),
    "support": Mixture("support", components=5),
}  # electrons per pattern: 1000 where the name does not say


@dataclass(frozen=True)
class Mixed:
    """A scan and its truth.

    Attributes
    ----------
    counts : ndarray of uint16, shape (scan_y, scan_x, detector_y, detector_x)
    fraction : ndarray of float32, shape (scan_y, scan_x, component)
        Share of each component; sums to 1.
    pattern : ndarray of float32, shape (component, detector_y, detector_x)
        Expected electrons of a pattern of the component alone, for a bent one in the mean over where it lies.
    """

    counts: np.ndarray
    fraction: np.ndarray
    pattern: np.ndarray


def kind(name: str, seed: int) -> Mixture:
    """Return one of the `KINDS` with a seed."""
    return replace(KINDS[name], seed=seed)


def cube_of(mixed: Mixed, threads: int = 1) -> Cube:
    """Return the counts as a corrected cube: beams in the middle of the detector, one count per electron."""
    scan, detector = mixed.counts.shape[:2], mixed.counts.shape[2:]
    centre = np.broadcast_to((np.array(detector) - 1) / 2, (*scan, 2)).copy()
    correction = Correction(centre, np.eye(2), np.zeros(detector, bool), counts_per_electron=1.0)
    known = Acquisition(beam_energy_kev=200.0, scan_shape=scan)
    valid = np.ones(detector, np.uint8)
    return Cube(mixed.counts, acquisition=known, correction=correction, valid=valid, threads=threads)


def mix(spec: Mixture) -> Mixed:
    """Simulate a scan.

    Parameters
    ----------
    spec : Mixture

    Returns
    -------
    Mixed
    """
    other = zlib.crc32(repr(replace(spec, seed=0)).encode())  # kinds of the same seed share no crystal
    rng = np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(20, other)))
    crystals = [_crystal(rng, spec, i < spec.bent) for i in range(spec.components - (spec.kind == "support"))]
    fraction = {"grains": _grains, "overlap": _overlap, "support": _support}[spec.kind](rng, spec)
    place = [_place(rng, fraction[..., i]) for i in range(len(crystals))]
    swell = 1 + SWELL * (_smooth(rng, spec.scan_shape) - 0.5)
    expected = np.zeros((*spec.scan_shape, *spec.detector_shape))
    mean = np.zeros((spec.components, *spec.detector_shape))
    for i in range(spec.components):
        if i < len(crystals):
            tables, along = crystals[i], place[i] * (len(crystals[i]) - 1)
        else:
            tables, along = _amorphous(spec)[None], np.zeros(spec.scan_shape)
        low = np.minimum(along.astype(int), max(len(tables) - 2, 0))
        part = (along - low)[..., None, None]
        scattered = (1 - part) * tables[low] + part * tables[np.minimum(low + 1, len(tables) - 1)]
        mean[i] = np.average(scattered, axis=(0, 1), weights=fraction[..., i])
        expected += (fraction[..., i] * swell)[..., None, None] * scattered
    direct = _direct(spec)
    expected += direct * (1 - expected.sum(axis=(2, 3), keepdims=True))
    mean += direct * (1 - mean.sum(axis=(1, 2), keepdims=True))
    counts = rng.poisson(spec.dose * expected).astype(np.uint16)
    return Mixed(counts, fraction.astype(np.float32), (spec.dose * mean).astype(np.float32))


def _axes(spec):
    return np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in spec.detector_shape), indexing="ij")


def _disks(spec, positions, intensity):
    y, x = _axes(spec)
    distance = np.hypot(y - positions[:, 0, None, None], x - positions[:, 1, None, None])
    profile = 1 / (1 + np.exp((distance - spec.radius_px) / (DISK_BLUR_PX / 1.7)))  # close to a blurred edge
    return np.tensordot(intensity / profile.sum(axis=(1, 2)).clip(1e-9), profile, axes=1)


def _direct(spec):
    return _disks(spec, np.zeros((1, 2)), np.ones(1))


def _diffuse(spec, width):
    y, x = _axes(spec)
    background = width / (y**2 + x**2 + width**2) ** 1.5
    return background / background.sum()


def _amorphous(spec):
    """Return the scattered electrons (detector_y, detector_x) of the support: a halo over a diffuse background."""
    y, x = _axes(spec)
    radius, width = 0.5 * spec.detector_shape[0] / 2, 0.1 * spec.detector_shape[0]
    halo = np.exp(-((np.hypot(y, x) - radius) ** 2) / (2 * width**2))
    diffuse = _diffuse(spec, spec.detector_shape[0] / 8)
    return (1 - DIRECT - DIFFUSE) / 2 * halo / halo.sum() + DIFFUSE * diffuse


def _crystal(rng, spec, bent):
    """Return the scattered electrons of a crystal (bend, detector_y, detector_x); one bend where it is not bent.

    The intensity of a reflection is its own random strength times exp(-(g·t + c g²)²), t the tilt: the excitation
    error of a crystal whose zone axis is tilted by t, in units of the width of the envelope.
    """
    half = min(spec.detector_shape) / 2
    length = rng.uniform(0.28, 0.42, 2) * half
    angle = rng.uniform(0, np.pi)
    between = np.deg2rad(rng.uniform(55, 90))
    basis = [[length[0] * np.cos(angle), length[0] * np.sin(angle)]]
    basis += [[length[1] * np.cos(angle + between), length[1] * np.sin(angle + between)]]
    h, k = np.mgrid[-5:6, -5:6].reshape(2, -1)
    g = np.stack([h, k], axis=1) @ np.array(basis)
    size = np.hypot(*g.T)
    g = g[(size > 0) & (size < half - spec.radius_px)]
    strength = rng.lognormal(0, 0.8, len(g))
    tilt, turn = rng.normal(0, 0.5, 2), rng.uniform(0, 2 * np.pi)
    along = spec.bend * np.array([np.cos(turn), np.sin(turn)])
    patterns = []
    for step in np.linspace(-0.5, 0.5, BENDS) if bent else [0.0]:
        scaled = g / (0.6 * half)
        envelope = np.exp(-((scaled @ (tilt + step * along) + 0.4 * (scaled**2).sum(axis=1)) ** 2))
        intensity = strength * envelope * np.exp(-0.5 * (scaled**2).sum(axis=1))
        disks = (1 - DIRECT - DIFFUSE) * intensity / intensity.sum()
        patterns.append(_disks(spec, g, disks) + DIFFUSE * _diffuse(spec, spec.detector_shape[0] / 8))
    return np.stack(patterns)


def _smooth(rng, shape):
    """Return a slow random surface that just fills 0 to 1."""
    coarse = rng.normal(size=(4, 4))
    surface = zoom(coarse, [n / 4 for n in shape], order=3)[: shape[0], : shape[1]]
    return (surface - surface.min()) / np.ptp(surface)


def _place(rng, fraction):
    """Return where (0 to 1) along its bend a crystal is at each position: from one side of it to the other."""
    ys, xs = np.indices(fraction.shape)
    turn = rng.uniform(0, 2 * np.pi)
    along = np.sin(turn) * ys + np.cos(turn) * xs
    inside = along[fraction > 0.5]
    low, high = (inside.min(), inside.max()) if len(inside) else (along.min(), along.max())
    return np.clip((along - low) / max(high - low, 1e-9), 0, 1)


def _softened(labels, count, sigma):
    share = np.stack([gaussian_filter((labels == i).astype(float), sigma) for i in range(count)], axis=-1)
    share[share < 1e-3] = 0
    return share / share.sum(axis=-1, keepdims=True)


def _cells(rng, spec):
    """Return labels (scan_y, scan_x) of cells around random places, one per component."""
    ys, xs = np.indices(spec.scan_shape)
    places = [rng.uniform(0.05, 0.95, 2) * spec.scan_shape]
    while len(places) < spec.components:  # each is the loneliest of ten
        drawn = rng.uniform(0.05, 0.95, (10, 2)) * spec.scan_shape
        lonely = np.linalg.norm(drawn[:, None] - np.array(places), axis=2).min(axis=1)
        places.append(drawn[lonely.argmax()])
    places = np.array(places)
    distance = np.hypot(ys[..., None] - places[:, 0], xs[..., None] - places[:, 1])
    return distance.argmin(axis=-1)


def _grains(rng, spec):
    labels = _cells(rng, spec)
    if spec.unequal > 1:
        labels = _unequal(rng, spec)
    return _softened(labels, spec.components, spec.probe_sigma_px)


def _unequal(rng, spec):
    """Return labels of grains whose areas fall geometrically: discs on a first grain that fills the rest."""
    count = spec.components
    share = spec.unequal ** -np.linspace(0, 1, count)
    share /= share.sum()
    ys, xs = np.indices(spec.scan_shape)
    labels = np.zeros(spec.scan_shape, int)
    for i in range(1, count):
        radius = np.sqrt(share[i] * labels.size / np.pi)
        distance = [np.hypot(ys - y, xs - x) for y, x in rng.uniform(0.1, 0.9, (200, 2)) * spec.scan_shape]
        lost = [((d < radius) & (labels > 0)).sum() - 0.5 * (d < radius).sum() for d in distance]  # on others, outside
        labels[distance[int(np.argmin(lost))] < radius] = i
    return labels


def _overlap(rng, spec):
    """Return shares where half of the scan is zones in which two crystals lie on each other.

    There the lesser has 0.8 to 1 times the share of the greater; elsewhere one crystal is alone.
    """
    first, second = _cells(rng, spec), _cells(rng, spec)
    for i in range(spec.components):  # a crystal does not lie on itself
        second[(second == i) & (first == i)] = (i + 1) % spec.components
    stacked = _smooth(rng, spec.scan_shape)
    stacked = stacked > np.median(stacked)
    lesser = np.where(stacked, 4 / 9 + (1 / 2 - 4 / 9) * _smooth(rng, spec.scan_shape), 0.0)
    share = np.zeros((*spec.scan_shape, spec.components))
    np.put_along_axis(share, first[..., None], (1 - lesser)[..., None], axis=-1)
    rows = np.take_along_axis(share, second[..., None], axis=-1) + lesser[..., None]
    np.put_along_axis(share, second[..., None], rows, axis=-1)
    share = np.stack([gaussian_filter(share[..., i], spec.probe_sigma_px) for i in range(spec.components)], axis=-1)
    share[share < 1e-3] = 0
    return share / share.sum(axis=-1, keepdims=True)


def _support(rng, spec):
    """Return shares of particles (0.75 where one lies) on a support, the last component."""
    ys, xs = np.indices(spec.scan_shape)
    labels = np.full(spec.scan_shape, spec.components - 1)
    for _ in range(3):
        for i in range(spec.components - 1):
            y, x = rng.uniform(0.05, 0.95, 2) * spec.scan_shape
            labels[np.hypot(ys - y, xs - x) < rng.uniform(3, 6) * spec.scan_shape[0] / 48] = i
    share = _softened(labels, spec.components, spec.probe_sigma_px)
    particle = 0.75 * share[..., :-1]
    return np.concatenate([particle, 1 - particle.sum(axis=-1, keepdims=True)], axis=-1)
