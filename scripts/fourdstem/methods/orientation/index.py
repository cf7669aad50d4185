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
from dataclasses import dataclass, replace

import numpy as np
import torch

from fourdstem.crystal import Crystal
from fourdstem.cube import UNIT, Cube
from fourdstem.errors import InputError
from fourdstem.methods.orientation import overlap, polish
from fourdstem.methods.orientation.candidates import select
from fourdstem.methods.orientation.matching import Bank, Optics, build_bank, correlate, prepare
from fourdstem.methods.orientation.phases import (
    alike_patterns,
    alike_templates,
    merged,
    of_phase,
    reliability,
    tell_alike,
)
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
# Fewer templates of a phase are told.
_FEW = 5


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
    relrod: str = setting(
        "lorentzian",
        "Shape of relrods: lorentzian is sinc² averaged over its fringes; gaussian has the same top and no tails.",
        choices=("lorentzian", "gaussian"),
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
    polish: bool = setting(
        False,
        "Apply the scale and centre that the indexed patterns ask for, and index again; they are reported in any case.",
    )
    overlap: bool = setting(
        False, "Subtract the orientation found from every pattern and index what is left; takes as long again."
    )
    overlap_seed: int = setting(0, "Seed of the single crystals that overlaps are compared with.", minimum=0)
    minimum_probability: float = setting(
        0.0,
        "A pattern whose probability of being right is lower is not indexed; its probability and candidates are kept.",
        minimum=0,
        maximum=1,
    )
    calibration_patterns: int = setting(
        2000,
        "Simulated patterns of the sample's phases under the conditions of the scan, by which the probability of being "
        "right is calibrated; 0: no probability.",
        minimum=0,
        maximum=1000000,
    )
    seed: int = setting(0, "Seed of these patterns.", minimum=0, maximum=2**31)


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
    phase_correlation: np.ndarray | None = quantity(
        "scan_y scan_x phase", "", "Correlation with the best template of each phase", default=None
    )
    phase_reliability: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Reliability of the phase, 100 (1 - Q of the next phase / Q)", default=None
    )
    scale_factor: float = quantity(
        "", "", "Distances seen on the detector by those that the calibration gives", default=np.nan
    )
    scale_factor_sigma: float = quantity("", "", "Standard deviation of the scale factor", default=np.nan)
    pixel_refined_inv_angstrom: float = quantity("", "1/Å", "Detector pixel that the patterns fit", default=np.nan)
    centre_offset_px: np.ndarray | None = quantity("yx", "px", "Beam off the middle of the patterns", default=None)
    centre_offset_sigma_px: np.ndarray | None = quantity(
        "yx", "px", "Standard deviation of the centre offset", default=None
    )
    overlap_orientation: np.ndarray | None = quantity(
        "scan_y scan_x quaternion", "", "Second orientation, of what the first leaves", default=None
    )
    overlap_phase: np.ndarray | None = quantity("scan_y scan_x", "", "Phase of the second orientation", default=None)
    overlap_correlation: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Correlation of what the first leaves with the second", default=None
    )
    overlap_share: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Share of the Bragg intensity that the second alone explains", default=None
    )
    overlap_significance: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Share of simulated single crystals whose second correlation is lower", default=None
    )
    foreign_weight: np.ndarray | None = quantity(
        "scan_y scan_x", "", "Share of the averaged weight from positions indexed more than 5° away", default=None
    )
    probability: np.ndarray | None = quantity(
        "scan_y scan_x",
        "",
        "Probability that the phase is right and the orientation within 5° of the truth, calibrated on simulation",
        default=None,
    )
    calibration_feature: tuple[str, ...] | None = quantity(
        "feature", "", "What the probability is a function of", default=None
    )
    calibration_centre: np.ndarray | None = quantity("feature", "", "Mean over the simulated patterns", default=None)
    calibration_scale: np.ndarray | None = quantity("feature", "", "Standard deviation over these", default=None)
    calibration_coefficient: np.ndarray | None = quantity(
        "term", "", "Of 1, of the standardised features, their squares and products in logit P", default=None
    )
    calibration_predicted: np.ndarray | None = quantity(
        "pattern", "", "Probability of simulated patterns by a model fitted to others", default=None
    )
    calibration_right: np.ndarray | None = quantity("pattern", "", "1 where these were indexed rightly", default=None)
    calibration_beyond: float | None = quantity(
        "", "", "Share of compared patterns beyond a boundary, as their agreement tells", default=None
    )
    calibration_base_rate: float | None = quantity(
        "", "", "Share that is right of the simulated patterns that would be indexed", default=None
    )
    calibration_shift: float | None = quantity(
        "", "", "Added to logit P: more (> 0) or fewer positions are right than of the simulated patterns", default=None
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
    result, work, seen, symmetry = _indexed(cube, crystals, params, device)
    found = polish.measure(cube, result, seen)
    polish.tell(found, cube.acquisition.pixel_inv_angstrom, params.polish)
    told = polish.fields(found, cube.acquisition.pixel_inv_angstrom)
    if params.polish and found.known:
        cube = polish.applied(cube, found)
        result, work, seen, symmetry = _indexed(cube, crystals, params, device)
    tell_alike(alike_patterns(result))
    if nothing := int(np.isnan(result.correlation).sum()):
        text = "%d of %d patterns hold nothing to match (dark, constant, or saturated throughout) and are not indexed"
        log.warning(text, nothing, result.phase.size)
    if params.overlap:
        told |= overlap.second(cube, result, seen, work, symmetry, params.overlap_seed)
    return replace(result, **told)


def indexed(cube: Cube, crystals: list[Crystal], params: Params, device: str = "cpu") -> Result:
    """Match as `compute` does, without camera length and overlap: for simulated patterns, whose camera is known."""
    return _indexed(cube, crystals, params, device)[0]


def _indexed(cube: Cube, crystals: list[Crystal], params: Params, device: str) -> tuple:
    """First orientations, and with what they were found: a function of patterns, crystals in the pattern, symmetry."""
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
    _tell_few(bank, crystals)
    tell_alike(alike_templates(crystals, bank, optics, rings, params.sampling_deg))
    operations = [from_matrix(crystal.operations) for crystal in crystals]
    start = np.cumsum([0, *map(len, operations)])
    symmetry = (np.concatenate(operations), start, np.deg2rad(params.distinct_deg))

    disks = spots(crystals, optics, rings, cube.valid, params.intensity_power) if params.refine else None

    def work(patterns: np.ndarray, wanted: int):
        torch.set_num_threads(1)
        polar = (weights @ patterns.reshape(UNIT, -1).T).T.reshape(UNIT, *valid.shape)
        found = match(polar, bank, symmetry, wanted * (1 if disks is None else _SPARE))
        if disks is not None:
            found = [_refined(patterns, disks, own, symmetry, params.sampling_deg, wanted) for own in found]
        return merged(found, wanted)

    result = _collect(cube, lambda patterns, _: work(patterns, params.candidates), crystals, params)
    return result, work, overlap.detector(crystals, optics, rings, cube.valid), symmetry


def _tell_few(bank: Bank, crystals: list[Crystal]) -> None:
    count = np.bincount(bank.phase, minlength=len(crystals))
    for number, crystal in zip(count, crystals, strict=True):
        if number < _FEW:
            templates = "template" if number == 1 else "templates"
            text = "%d %s of %s: orientations are coarse, and reliability compares few; lower orientation: sampling_deg"
            log.warning(text, number, templates, crystal.name)


def match(polar: np.ndarray, bank: Bank, symmetry: tuple, candidates: int) -> list[tuple[np.ndarray, ...]]:
    """By phase: orientations (NaN where there is none), phases (-1), correlations (NaN) of the candidates of a unit."""
    shape, phases = (UNIT, candidates), len(symmetry[1]) - 1
    found = [(np.full((*shape, 4), np.nan), np.full(shape, -1), np.full(shape, np.nan)) for _ in range(phases)]
    prepared, usable = prepare(polar, bank)
    if usable.any():
        peaks = correlate(prepared, bank)
        for k, own in enumerate(found):
            part = of_phase(bank, k)
            rows = np.ascontiguousarray(bank.quaternion[:, part]), bank.phase[part]
            select(*(values[part] for values in peaks), usable, rows, symmetry, own, polar.shape[2])
    return found


def _refined(patterns: np.ndarray, disks: Spots, found: tuple, symmetry: tuple, sampling_deg, wanted) -> tuple:
    refine(patterns, disks, np.deg2rad(sampling_deg) / 2, symmetry, wanted, *found)
    return tuple(part[:, :wanted] for part in found)


def _collect(cube: Cube, work, crystals: list[Crystal], params: Params) -> Result:
    shape = (*cube.scan_shape, params.candidates)
    orientation = np.full((*shape, 4), np.nan, np.float32)
    score, phase = np.full(shape, np.nan, np.float32), np.full(shape, -1, np.int16)
    best = np.full((*cube.scan_shape, len(crystals)), np.nan, np.float32)
    units, started = len(cube.units()), time.perf_counter()
    for number, (unit, (quaternion, phases, found, of_phases)) in enumerate(cube.map_units(work), 1):
        orientation[unit.where] = np.where(quaternion[..., :1] < 0, -quaternion, quaternion)[: unit.count]
        phase[unit.where] = phases[: unit.count]
        score[unit.where] = np.minimum(found[: unit.count], 1)
        best[unit.where] = np.minimum(of_phases[: unit.count], 1)
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
        phase_correlation=best if len(crystals) > 1 else None,
        phase_reliability=reliability(best),
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
        rod=params.relrod,
    )
    return optics, choose_rings(r_min, r_max, disk)


def _check_range(crystal: Crystal, r_min: float, r_max: float, pixel: float) -> None:
    shortest = np.linalg.norm(crystal.reciprocal, axis=1).min() / pixel
    if r_max <= r_min or shortest > 3 * r_max:
        raise InputError(
            f"no reflection of {crystal.name} between the direct beam, which reaches to {r_min:.1f} px, and the last"
            f" ring, at {r_max:.1f} px",
            where="acquisition",
            expected=f"reflections at multiples of about {shortest:.1f} px",
            do="Check detector_pixel_inv_angstrom, convergence_mrad and orientation: g_max_inv_angstrom.",
        )
