"""Patterns like those of a scan, of the sample's own phases, whose truth is known: what a matcher is rehearsed on.

They come in patches: nine patterns of one orientation, as near each other as positions of one grain are. Zone axes and
thicknesses are spread evenly, not drawn: the share of difficult ones is that of random grains, with less scatter. Beam
position, dose, degree of averaging and what other grains bring into averages are those of positions of the scan.
Intensities are those of `bloch`, which shares nothing with a matcher's templates; diffuse scattering varies from patch
to patch, and some patterns show a foreign crystal too, as at a boundary. Noise is drawn on the detector as recorded and
then interpolated as the scan's patterns are.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT, Cube
from fourdstem.methods.simulate import bloch, detector
from fourdstem.methods.simulate.film import quaternion
from fourdstem.methods.simulate.settings import Params

PATCH = 9
# Positions of the scan whose conditions are looked up.
_PLACES = 512
# Fewer than the simulation of a film takes: 0.99 is the correlation of their intensities (fourth roots).
_AZIMUTHS, _STEP_ANGSTROM = 12, 10.0
# Of the stated thickness, from patch to patch.
_THICKNESS = 0.4, 1.0
# And within a patch; averages, over a wedge too, differ less.
_SLOPE, _SLOPE_AVERAGED = 0.05, 0.02
# Factors up to which background and its width, and the dose, differ from typical and from the scan's.
_DIFFUSE, _DOSE = 2.0, 1.2
# How many patterns lie so near a boundary that a foreign crystal takes up to half of the beam.
_MIXED = 0.15
# Most of an average that is taken to come from other grains: beyond, the answer rather than the average is foreign.
_MOST_FOREIGN = 0.8
# Share of the beam below which a disk is not drawn; some 100 such disks make 1e-3.
_FAINTEST = 1e-5
# A direction without symmetry in any setting of any Laue group.
_GENERIC = np.array([0.2374, 0.1291, 0.9628])


@dataclass(frozen=True)
class Conditions:
    """What a rehearsal takes from positions of a scan.

    Attributes
    ----------
    cube : Cube
        Corrected patterns: its acquisition, correction and valid pixels hold.
    centre_px : ndarray of shape (n, 2)
        Beam in the recorded pattern.
    electrons : ndarray of shape (n,)
        Of one recorded pattern.
    averaged : ndarray of shape (n,)
        Effective number of patterns in an average; 1 = none.
    foreign : ndarray of shape (n,)
        Share of an average that comes from other grains; 0 = none.
    shared : float
        Correlation of the noise of an average with that of those which the same patterns went into; 0 = none.
    """

    cube: Cube
    centre_px: np.ndarray
    electrons: np.ndarray
    averaged: np.ndarray
    foreign: np.ndarray
    shared: float


def conditions(cube: Cube, seed: int, member=None, weight=None, others=None, foreign=None) -> Conditions:
    """Look up the conditions of a scan at some of its positions.

    Parameters
    ----------
    cube : Cube
        Corrected patterns.
    seed : int
    member, weight : array-like of shape (scan_y, scan_x, k), optional
        What averages are made of, from ``nonlocal_average``; without them patterns are not averaged.
    others : ndarray of int, shape (scan_y, scan_x, n), optional
        Flat indices of the averages with which each will be compared; -1: none.
    foreign : ndarray of shape (scan_y, scan_x), optional
        Share of the weight from positions that are indexed otherwise; NaN (not indexed) counts as the mean.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6,)))
    ny, nx = cube.scan_shape
    flat = rng.permutation(ny * nx)[:_PLACES]
    flat = np.sort(flat[np.isfinite(cube.correction.centre_px.reshape(-1, 2)[flat]).all(axis=1)])
    y, x = np.divmod(flat, nx)
    gain = np.nan_to_num(cube.correction.counts_per_electron, nan=1.0)
    counts = np.array([cube.pattern(*at)[cube.valid != 0].sum(dtype=np.float64) for at in zip(y, x, strict=True)])
    averaged, shared, share = np.ones(len(flat)), 0.0, np.zeros(len(flat))
    if weight is not None:
        averaged, shared = _averaging(member, weight, others, y, x)
    if foreign is not None and np.isfinite(foreign[y, x]).any():
        share = np.where(np.isfinite(foreign[y, x]), foreign[y, x], np.nanmean(foreign[y, x]))
        share = np.clip(share.astype(np.float64), 0, _MOST_FOREIGN)
    return Conditions(cube, cube.correction.centre_px[y, x], np.maximum(counts / gain, 0), averaged, share, shared)


def _averaging(member, weight, others, y, x) -> tuple[np.ndarray, float]:
    """Effective number of patterns of positions, and mean correlation of their noise with that of the others."""
    nx = weight.shape[1]
    number, correlation = np.empty(len(y)), [0.0]
    for i, at in enumerate(zip(y, x, strict=True)):
        own = _weights(member, weight, *at)
        norm = sum(w * w for w in own.values())
        number[i] = sum(own.values()) ** 2 / norm
        for other in others[at][others[at] >= 0]:
            theirs = _weights(member, weight, *divmod(int(other), nx))
            product = sum(w * theirs.get(k, 0.0) for k, w in own.items())
            correlation.append(product / np.sqrt(norm * sum(w * w for w in theirs.values())))
    return number, float(np.clip(np.mean(correlation[1:] or correlation), 0, 0.98))


def _weights(member, weight, y: int, x: int) -> dict[int, float]:
    """Members of an average that have weight."""
    return {int(k): float(w) for k, w in zip(member[y, x], weight[y, x], strict=True) if k >= 0 and w > 0}


@dataclass(frozen=True)
class Rehearsal:
    """Corrected patterns, made when they are sliced; serves as the ``data`` of a `Cube`. Patch = flat index // 9.

    Attributes
    ----------
    known : Conditions
    spots : list of Spots
        By patch.
    orientation : ndarray of shape (rows, 32, 4)
    phase : ndarray of int, shape (rows, 32)
    share : ndarray of shape (rows, 32)
        Of foreign crystals.
    parts : ndarray of shape (patch, 4)
        Of that share, those of the crystals of the next four patches; they sum to 1.
    thickness : ndarray of shape (rows, 32)
        Å.
    place : ndarray of int, shape (patch, 10)
        Positions of the scan whose beam positions the patterns, and last what they share, have.
    dose, diffuse, width : ndarray of shape (patch,)
        Factor of the dose, factor of the diffuse part, 1/Å.
    radius_px : float
        Of a disk.
    seed : int
    """

    known: Conditions
    spots: list
    orientation: np.ndarray
    phase: np.ndarray
    share: np.ndarray
    parts: np.ndarray
    thickness: np.ndarray
    place: np.ndarray
    dose: np.ndarray
    diffuse: np.ndarray
    width: np.ndarray
    radius_px: float
    seed: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(rows, 32, detector_y, detector_x)."""
        return (*self.share.shape, *self.known.cube.detector_shape)

    @property
    def cube(self) -> Cube:
        """The patterns as a cube that is otherwise like the scan's corrected one; its units are made side by side."""
        return replace(self.known.cube, data=_Numbers(self.shape), correction=_Maker(self))

    @property
    def number(self) -> np.ndarray:
        """Effective number of patterns in each average, (rows, 32)."""
        patch = np.arange(self.share.size).reshape(self.share.shape) // PATCH
        return self.known.averaged[self.place[patch, 0]]

    def __getitem__(self, where) -> np.ndarray:
        """Return the float32 patterns (n, detector_y, detector_x) at ``[y, x0:x1]``."""
        return _Maker(self).apply(_Numbers(self.shape)[where], where)


@dataclass(frozen=True)
class _Numbers:
    """Numbers of rehearsed patterns, in place of stored ones: reading them costs nothing."""

    shape: tuple[int, int, int, int]

    def __getitem__(self, where) -> np.ndarray:
        y, xs = where
        return y * UNIT + np.arange(UNIT)[xs]


@dataclass(frozen=True)
class _Maker:
    """Makes patterns from their numbers, where a scan's would be corrected: in the threads of the cube."""

    rehearsal: Rehearsal

    def apply(self, numbers: np.ndarray, _) -> np.ndarray:
        """Return float32 patterns (n, detector_y, detector_x)."""
        patches, which = np.unique(numbers // PATCH, return_inverse=True)
        shared = self.rehearsal.known.shared
        own = _drawn(self.rehearsal, numbers, numbers % PATCH, 1 - shared)
        if shared > 0:
            own += _drawn(self.rehearsal, patches * PATCH, np.full(len(patches), PATCH), shared)[which]
        return own


def rehearse(
    crystals: list[Crystal],
    known: Conditions,
    patterns: int,
    thickness: float,
    radius_px: float | None,
    seed: int,
    threads: int = 1,
) -> Rehearsal:
    """Prepare patterns of orientations from all over under the conditions of a scan.

    Parameters
    ----------
    crystals : list of Crystal
        All equally frequent.
    known : Conditions
    patterns : int
        How many at least.
    thickness : float
        Å; patterns have 0.4 to 1 times as much.
    radius_px : float or None
        Of a disk; None takes it from the convergence angle.
    seed, threads : int
        The answer does not depend on ``threads``.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(4,)))
    rows = int(np.ceil(patterns / UNIT))
    shape, count = (rows, UNIT), int(np.ceil(rows * UNIT / PATCH))
    patch = np.arange(rows * UNIT).reshape(shape) // PATCH
    phase = rng.permutation(count) % len(crystals)
    matrices = _of_phases(crystals, phase, rng)
    even = (rng.permutation(count) + rng.random(count)) / count
    mean, typical = thickness * (_THICKNESS[0] + np.ptp(_THICKNESS) * even), Params()
    slope = _SLOPE_AVERAGED if known.shared > 0 else _SLOPE
    place = rng.integers(len(known.electrons), size=(count, PATCH + 1))
    share, parts = np.where(rng.random(shape) < _MIXED, rng.uniform(0, 0.5, shape), 0), np.eye(4)[np.zeros(count, int)]
    if known.shared > 0:
        share, parts = _of_averages(known, place[:, 0], rng)
        share = share[patch]
    return Rehearsal(
        known=known,
        spots=_spots(crystals, known, matrices, phase, (1 + _SLOPE) * _THICKNESS[1] * thickness, threads),
        orientation=np.stack([quaternion(matrix) for matrix in matrices])[patch],
        phase=phase[patch],
        share=share,
        parts=parts,
        thickness=mean[patch] * rng.uniform(1 - slope, 1 + slope, shape),
        place=place,
        dose=_spread(rng, _DOSE, count),
        diffuse=_spread(rng, _DIFFUSE, count),
        width=typical.diffuse_width_inv_angstrom * _spread(rng, _DIFFUSE, count),
        radius_px=max(_radius_px(known.cube.acquisition) if radius_px is None else radius_px, 0.5),
        seed=seed,
    )


def _radius_px(acquisition) -> float:
    """Of a disk, from the convergence angle."""
    return acquisition.convergence_mrad * 1e-3 / acquisition.wavelength_angstrom / acquisition.pixel_inv_angstrom


def _of_phases(crystals, phase: np.ndarray, rng) -> np.ndarray:
    """Lab-to-crystal matrices (patch, 3, 3), evenly spread for each phase (see `_orientations`)."""
    matrices = np.empty((len(phase), 3, 3))
    for index, crystal in enumerate(crystals):
        matrices[phase == index] = _orientations(crystal.operations, int((phase == index).sum()), rng)
    return matrices


def _orientations(operations: np.ndarray, count: int, rng) -> np.ndarray:
    """Lab-to-crystal matrices (count, 3, 3) whose zone axes lie evenly over what the Laue group tells apart.

    Zone axes are those points of a spiral over the sphere (a Fibonacci lattice, turned at random) that lie at least as
    near to a direction without symmetry as to its images; each is then replaced by one of its equivalents, drawn at
    random, and turned about the beam at random.
    """
    images = np.concatenate([operations, -operations]) @ _GENERIC
    normal = _GENERIC - images
    turn, points = Rotation.from_quat(rng.normal(size=4)), count * len(images)
    inside = np.empty((0, 3))
    while len(inside) < count:
        z = 1 - (2 * np.arange(points) + 1) / points
        angle = np.pi * (3 - np.sqrt(5)) * np.arange(points)
        across = np.sqrt(1 - z * z)
        sphere = turn.apply(np.column_stack([across * np.cos(angle), across * np.sin(angle), z]))
        inside = sphere[(sphere @ normal.T >= 0).all(axis=1)]
        points += len(images)
    zone = rng.permutation(inside)[:count]
    zone = np.einsum("nij,nj->ni", operations[rng.integers(len(operations), size=count)], zone)
    zone *= rng.choice([-1.0, 1.0], count)[:, None]
    first = np.cross(zone, rng.normal(size=(count, 3)))
    first /= np.linalg.norm(first, axis=1)[:, None]
    return np.stack([first, np.cross(zone, first), zone], axis=-1)


def _of_averages(known: Conditions, typical, rng) -> tuple[np.ndarray, np.ndarray]:
    """Share of foreign crystals in the averages of every patch, and the parts of it that four of these have.

    What the members bring is that of the positions whose conditions the patches take; most of it is one grain's. Where
    two crystals lie in the beam itself few patterns are alike: averages of few patterns are the likely places.
    """
    count, number = len(typical), known.averaged[typical]
    inside = rng.uniform(0, 0.5, count)
    order = (rng.exponential(size=count) * number**2).argsort(kind="stable")
    inside[order[int(_MIXED * count) :]] = 0
    broken = rng.uniform(0.4, 0.8, (count, 3))
    left = np.cumprod(1 - broken, axis=1)
    brought = known.foreign[typical, None] * np.column_stack([broken[:, 0], left[:, :2] * broken[:, 1:], left[:, 2]])
    brought[:, 0] += (1 - known.foreign[typical]) * inside
    share = brought.sum(axis=1)
    return share, np.where(share[:, None] > 0, brought / np.maximum(share, 1e-9)[:, None], np.eye(4)[0])


def _spread(rng, factor: float, shape) -> np.ndarray:
    return factor ** rng.uniform(-1, 1, shape)


def _spots(crystals, known: Conditions, matrices, phase, thickest: float, threads: int) -> list:
    typical, acquisition = Params(), known.cube.acquisition
    g_max = np.hypot(*known.cube.detector_shape) / 2 * acquisition.pixel_inv_angstrom
    g_max = min(g_max, typical.g_max_inv_angstrom)
    potentials = [bloch.potential(c, acquisition.beam_energy_kev, g_max, typical.absorption) for c in crystals]
    options = {
        "precession_mrad": acquisition.precession_mrad,
        "azimuths": _AZIMUTHS,
        "cutoff": typical.beam_cutoff,
        "most": typical.most_beams,
        "step_angstrom": _STEP_ANGSTROM,
    }

    def work(job):
        return bloch.spots(potentials[job[0]], job[1], thickest, **options)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, zip(phase, matrices, strict=True)))


def _drawn(rehearsal: Rehearsal, numbers: np.ndarray, parts: np.ndarray, share: float) -> np.ndarray:
    """Corrected patterns: what ``share`` of the exposure gives; noise and beam positions by ``parts``."""
    known = rehearsal.known
    place = rehearsal.place[numbers // PATCH, parts]
    counts = [_counts(rehearsal, *each, share) for each in zip(numbers, parts, place, strict=True)]
    return known.cube.correction.interpolate(np.stack(counts), known.centre_px[place])


def _counts(rehearsal: Rehearsal, number: int, part: int, place: int, share: float) -> np.ndarray:
    """Recorded counts of one pattern, float32."""
    known, patch = rehearsal.known, number // PATCH
    correction = known.cube.correction
    seed = np.random.SeedSequence(rehearsal.seed, spawn_key=(5, int(patch), int(part)))
    rng = np.random.Generator(np.random.Philox(seed))
    typical = rehearsal.place[patch, 0]
    averaged = known.averaged[typical]
    mean = _expected(rehearsal, number, known.centre_px[place])
    exposure = share * averaged * rehearsal.dose[patch] * known.electrons[typical]
    counts = rng.poisson(mean * (exposure / max(mean.sum(), 1e-30))) / averaged
    counts *= np.nan_to_num(correction.counts_per_electron, nan=1.0)
    readout = np.nan_to_num(correction.readout_noise_counts)
    if readout > 0:
        counts += rng.normal(0, readout * np.sqrt(share / averaged), counts.shape)
    return counts.astype(np.float32)


def _expected(rehearsal: Rehearsal, number: int, centre) -> np.ndarray:
    """Return the mean recorded pattern in units of its own."""
    cube, typical = rehearsal.known.cube, Params()
    centre = np.asarray(centre, np.float64)  # as in a simulated scan: compiled once
    pixel, inverse = cube.acquisition.pixel_inv_angstrom, np.linalg.inv(cube.correction.matrix)
    disk = rehearsal.radius_px, typical.disk_blur_px
    patch, (thickness, share) = number // PATCH, (v.flat[number] for v in (rehearsal.thickness, rehearsal.share))
    elastic = np.exp(-thickness / typical.inelastic_path_angstrom)
    out, seen = np.zeros(cube.detector_shape), 0.0
    for which, part in enumerate((1 - share, *(share * rehearsal.parts[patch]))):
        if part > 0:
            spots = rehearsal.spots[(patch + which) % len(rehearsal.spots)]
            intensity = part * elastic * spots.at(thickness)
            seen += intensity.sum()
            shown = intensity > _FAINTEST
            position = np.ascontiguousarray(spots.g_lab[shown, 1::-1]) / pixel
            detector.add_disks(position, intensity[shown], *disk, centre, inverse, out)
    diffuse = rehearsal.diffuse[patch] * max(1 - seen, 0)
    detector.add_diffuse(diffuse, rehearsal.width[patch] / pixel, centre, inverse, out)
    return detector.spread(out, typical.point_spread_px, typical.point_spread_tail)
