"""Index every pattern by matching it with templates of all phases.

Frame: the orientation is a unit quaternion (w, x, y, z), w >= 0, passive, lab -> crystal: ``v_crystal = M v_lab``
with lab x = scan_x, y = scan_y (down), z the direction in which electrons travel. Kinematical intensities fix
neither polarity nor hand, so orientations are those of the Laue group.

A pattern whose reflections all lie in the zero-order Laue zone looks alike after half a turn about the beam.
Where no rotation of the Laue group makes the two orientations equal, both are honest candidates: they count as
distinct, their correlations are nearly the same, and the reliability is low because it should be.
"""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch

from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT, Cube, Unit
from fourdstem.errors import InputError
from fourdstem.methods.orientation.candidates import select
from fourdstem.methods.orientation.matching import Bank, Optics, build_bank, correlate, prepare
from fourdstem.methods.orientation.polar import choose_rings, polar_map
from fourdstem.methods.orientation.refinement import refine
from fourdstem.methods.orientation.rotations import from_matrix, misorientation_deg, multiply
from fourdstem.methods.orientation.spots import Spots, spots
from fourdstem.methods.orientation.templates import intensity_model, scale
from fourdstem.schema import quantity, setting

log = logging.getLogger("fourdstem")

# Refined candidates may meet; this many times as many are matched, to take the places of those dropped.
_SPARE = 3
# Of the correlation: where half a turn about the beam loses less, the two orientations are not told apart.
_TIE = 0.01


@dataclass(frozen=True)
class Params:
    """Settings of orientation mapping by template matching."""

    sources: tuple[str, ...] = setting(
        ("corrected", "averaged"),
        "Pattern sources to index, one map each; denoised ones were indexed worse than recorded ones in trials.",
        choices=("corrected", "denoised", "averaged"),
        fewest=1,
    )
    sampling_deg: float = setting(1.0, "Distance between neighbouring zone axes.", minimum=0.2, maximum=10)
    thickness_angstrom: float = setting(
        200.0, "Thickness of the specimen; its inverse is the length of relrods.", above=0, maximum=10000
    )
    intensity: str = setting(
        "auto",
        "Intensities of templates: two_beam damps and widens strong reflections as the thickness asks; "
        "kinematical suits precession and very thin crystals; auto takes two_beam where there is no precession.",
        choices=("auto", "two_beam", "kinematical"),
    )
    g_max_inv_angstrom: float | None = setting(
        None, "Reflections beyond are ignored; null takes the circle that the detector holds.", above=0, maximum=20
    )
    beam_radius_px: float | None = setting(
        None, "Radius of a disk; null takes it from the convergence angle.", above=0, maximum=1000
    )
    intensity_power: float = setting(
        0.25, "Patterns and templates are raised to it; below 1 it evens out strong and weak disks.", above=0, maximum=2
    )
    candidates: int = setting(5, "Distinct orientations to keep per pattern.", minimum=2, maximum=50)
    distinct_deg: float = setting(
        5.0, "Candidates are farther than this from each other, symmetry considered.", above=0, maximum=30
    )
    refine: bool = setting(
        True, "Turn every candidate off the grid to where it fits best, and rank the candidates by that fit."
    )
    minimum_correlation: float = setting(
        0.2, "A pattern whose best correlation is lower is not indexed.", minimum=0, maximum=1
    )


@dataclass(frozen=True)
class Result:
    """Orientation and phase of every position, and how far they can be trusted."""

    orientation: np.ndarray = quantity("scan_y scan_x quaternion", "", "Orientation (lab to crystal)")
    phase: np.ndarray = quantity("scan_y scan_x", "", "Phase")
    correlation: np.ndarray = quantity("scan_y scan_x", "", "Correlation with the best template")
    second_correlation: np.ndarray = quantity("scan_y scan_x", "", "Correlation of the best distinct alternative")
    reliability: np.ndarray = quantity("scan_y scan_x", "", "Reliability 100 (1 - Q2/Q1)")
    candidate_orientation: np.ndarray = quantity(
        "scan_y scan_x candidate quaternion", "", "Orientations of the candidates"
    )
    candidate_correlation: np.ndarray = quantity("scan_y scan_x candidate", "", "Correlations of the candidates")
    candidate_phase: np.ndarray = quantity("scan_y scan_x candidate", "", "Phases of the candidates")
    ambiguous: np.ndarray = quantity(
        "scan_y scan_x", "", "1 where half a turn about the beam fits as well within 1 %, and is no symmetry"
    )
    phase_name: tuple[str, ...] = quantity("phase", "", "Names of the phases")
    foreign_weight: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Share of the averaged weight from positions indexed more than 5° away", default=None
    )


def compute(cube: Cube, crystals: list[Crystal], params: Params, device: str = "cpu") -> Result:
    """Match every pattern with kinematical templates of all phases.

    Parameters
    ----------
    cube : Cube
        Corrected patterns; ``valid`` tells which pixels count.
    crystals : list of Crystal
    params : Params
    device : {"cpu", "cuda"}

    Returns
    -------
    Result
        Not indexed (dark, constant or below ``minimum_correlation``): orientation NaN, phase -1. A pattern that
        is dark or constant has NaN correlations too. Missing candidates are NaN and -1.

    Raises
    ------
    InputError
        If the calibration is missing, no phase is given, or the detector holds no reflection of a phase.
    """
    optics, rings = _geometry(cube, crystals, params)
    weights, valid = polar_map(rings, cube.detector_shape, cube.valid)
    started = time.perf_counter()
    # One torch thread here and in every unit: sums in one order, whatever the machine. It is not set back, because
    # units run side by side and one that ends would undo it for the others.
    torch.set_num_threads(1)
    bank = build_bank(
        crystals, optics, rings, valid, params.sampling_deg, params.intensity_power, params.distinct_deg, device
    )
    log.info("%d templates of %d phases in %.1f s", len(bank.phase), len(crystals), time.perf_counter() - started)
    operations = [from_matrix(crystal.operations) for crystal in crystals]
    start = np.cumsum([0, *map(len, operations)])
    symmetry = (np.concatenate(operations), start, np.deg2rad(params.distinct_deg))

    disks = spots(crystals, optics, rings, cube.valid, params.intensity_power) if params.refine else None

    def work(patterns: np.ndarray, unit: Unit):
        torch.set_num_threads(1)
        polar = (weights @ patterns.reshape(UNIT, -1).T).T.reshape(UNIT, *valid.shape)
        if disks is None:
            return match(polar, bank, symmetry, params.candidates)
        found = match(polar, bank, symmetry, _SPARE * params.candidates)
        return _refined(patterns, disks, found, symmetry, params)

    return _collect(cube, work, crystals, params)


def match(polar: np.ndarray, bank: Bank, symmetry: tuple, candidates: int) -> tuple[np.ndarray, ...]:
    """Orientations (NaN where there is none), phases (-1) and correlations (NaN) of the candidates of a unit."""
    shape = (UNIT, candidates)
    found = np.full((*shape, 4), np.nan), np.full(shape, -1), np.full(shape, np.nan)
    prepared, usable = prepare(polar, bank)
    if usable.any():
        peaks = correlate(prepared, bank)
        select(*peaks, usable, (bank.quaternion, bank.phase), symmetry, found, polar.shape[2])
    return found


def _refined(patterns: np.ndarray, disks: Spots, found: tuple, symmetry: tuple, params: Params) -> tuple:
    step = np.deg2rad(params.sampling_deg) / 2
    for pattern, quaternion, phase, score in zip(patterns, *found, strict=True):
        if phase[0] >= 0:
            refine(pattern, disks, step, symmetry, params.candidates, quaternion, phase, score)
    return tuple(part[:, : params.candidates] for part in found)


def _collect(cube: Cube, work, crystals: list[Crystal], params: Params) -> Result:
    shape = (*cube.scan_shape, params.candidates)
    orientation = np.full((*shape, 4), np.nan, np.float32)
    score, phase = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16)
    units, started = len(cube.units()), time.perf_counter()
    for number, (unit, (quaternion, phases, found)) in enumerate(cube.map_units(work), 1):
        orientation[unit.where] = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)[: unit.count]
        phase[unit.where] = phases[: unit.count]
        score[unit.where] = np.minimum(found[: unit.count], 1)
        if number * 10 // units > (number - 1) * 10 // units:
            log.info("indexed %d %% in %.0f s", 100 * number // units, time.perf_counter() - started)
    indexed = score[..., 0] >= params.minimum_correlation
    second = np.where(np.isnan(score[..., 1]) & ~np.isnan(score[..., 0]), np.float32(0), score[..., 1])
    return Result(
        orientation=np.where(indexed[..., None], orientation[..., 0, :], np.float32(np.nan)),
        phase=np.where(indexed, phase[..., 0], np.int16(-1)),
        correlation=score[..., 0].copy(),
        second_correlation=second,
        reliability=100 * (1 - second / score[..., 0]),
        candidate_orientation=orientation,
        candidate_correlation=score,
        candidate_phase=phase,
        ambiguous=_ambiguous(orientation, score, phase, crystals, params.distinct_deg),
        phase_name=tuple(crystal.name for crystal in crystals),
    )


def _ambiguous(orientation, score, phase, crystals, distinct_deg) -> np.ndarray:
    """Flag positions where a candidate is the best one turned by half a turn and nearly as good."""
    turned = multiply(orientation[..., :1, :], np.array([0, 0, 0, 1.0]))
    alike = (score >= (1 - _TIE) * score[..., :1]) & (phase == phase[..., :1])
    alike[..., 0] = False
    flags = np.zeros(score.shape[:2], np.uint8)
    for index, crystal in enumerate(crystals):
        y, x, c = np.nonzero(alike & (phase == index))
        apart = misorientation_deg(turned[y, x, 0], orientation[y, x, c], crystal)
        flags[y[apart < distinct_deg], x[apart < distinct_deg]] = 1
    return flags


def _geometry(cube: Cube, crystals: list[Crystal], params: Params):
    """Optics and rings that the acquisition, the detector and the settings ask for."""
    if not crystals:
        raise InputError("no phase", where="phases", expected="at least one", do="Name the phases of this sample.")
    acquisition = cube.acquisition
    pixel, wavelength = scale(acquisition)
    disk = params.beam_radius_px
    if disk is None:
        if acquisition.convergence_mrad is None:
            raise InputError(
                "no convergence angle",
                where="acquisition",
                expected="convergence_mrad",
                do="Give it there, or orientation: beam_radius_px.",
            )
        disk = acquisition.convergence_mrad * 1e-3 / wavelength / pixel
    r_max = (min(cube.detector_shape) - 1) / 2
    if params.g_max_inv_angstrom is not None:
        r_max = min(r_max, params.g_max_inv_angstrom / pixel)
    r_min = 1.5 * disk + 1  # beyond the central beam, blurred by a pixel
    for crystal in crystals:
        _check_range(crystal, r_min, r_max, pixel)
    optics = Optics(
        wavelength=wavelength,
        pixel=pixel,
        disk_px=disk,
        alpha=(acquisition.convergence_mrad or 0) * 1e-3,
        phi=acquisition.precession_mrad * 1e-3,
        thickness=params.thickness_angstrom,
        intensity=intensity_model(params.intensity, acquisition.precession_mrad),
    )
    return optics, choose_rings(r_min, r_max, disk)


def _check_range(crystal: Crystal, r_min: float, r_max: float, pixel: float) -> None:
    shortest = np.linalg.norm(crystal.reciprocal, axis=1).min() / pixel
    if r_max <= r_min or shortest > 3 * r_max:
        raise InputError(
            f"no reflection of {crystal.name} on rings from {r_min:.1f} to {r_max:.1f} px",
            where="acquisition",
            expected=f"reflections at multiples of about {shortest:.1f} px",
            do="Check detector_pixel_inv_angstrom, convergence_mrad and orientation: g_max_inv_angstrom.",
        )
