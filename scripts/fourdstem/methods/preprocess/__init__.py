"""Bad pixels, centre and descan, ellipse, camera length, scan rotation and detector noise, from recorded counts."""

import numpy as np

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded, repairable, resample, valid_everywhere
from fourdstem.methods.preprocess import bad_pixels, descan, moments, rings, rotation, search, verdict
from fourdstem.methods.preprocess.centre import add_centred
from fourdstem.methods.preprocess.settings import Params, Result

__all__ = ["Params", "Result", "compute"]

_SMALLEST_PX = 8


def compute(cube: Cube, params: Params, crystals=()) -> Result:
    """Measure what it takes to correct a scan.

    Three passes over the counts: statistics of the pixels; centre of each pattern; centred mean and maximum.

    Parameters
    ----------
    cube : Cube
        Counts as recorded; ``cube.valid`` is the user's mask.
    params : Params
    crystals : sequence of Crystal
        Phases that may be there, for the camera length.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        If the scan is one number everywhere, has NaN in some positions only, is masked altogether, or shows no
        beam, or if the detector has fewer than 8 px on a side.
    """
    known = cube.acquisition
    stats, bad, wrong, integer = _detector(cube, params)
    gain, noise = moments.estimate_gain(stats, ~wrong, known, params, integer)
    blind = wrong & (bad != bad_pixels.SATURATED)  # a clipped count is a lower bound, not a lie
    finder, how = search.learn(cube, params, blind, noise, stats.mean)
    measured = search.centres(cube, params.centre_method, blind, finder)
    surface, centre, origin = _in_force(measured, params)
    mean, maximum, inside = _centred(cube, blind, noise.floor, centre)
    deflection = measured[..., 4:] - surface.surface
    ellipse, disk, camera, turn = _camera(cube, params, crystals, [mean, maximum], inside, finder.beam, deflection)
    matrix = corrected_to_recorded(ellipse.ratio, ellipse.angle_deg, known.scan_rotation_deg, known.detector_flip_y)
    corrected = _reshape(np.stack([mean, maximum]), inside, matrix)
    return Result(
        bad_pixel=bad,
        valid=valid_everywhere(_fillable(blind), centre.reshape(-1, 2), matrix),
        centre_px=centre.astype(np.float32),
        centre_measured_px=measured[..., :2].astype(np.float32),
        centre_surface_px=surface.surface.astype(np.float32),
        centre_sigma_px=measured[..., 2].astype(np.float32),
        centre_origin=origin,
        ellipse_ratio=ellipse.ratio,
        ellipse_ratio_sigma=ellipse.ratio_sigma,
        ellipse_angle_deg=ellipse.angle_deg,
        ellipse_angle_sigma_deg=ellipse.angle_sigma_deg,
        beam_radius_px=finder.beam.radius_px,
        beam_edge_px=finder.beam.edge_px,
        counts_per_electron=gain.counts_per_electron,
        offset_counts=gain.offset_counts,
        readout_noise_counts=gain.readout_noise_counts,
        pixel_proposed_inv_angstrom=camera[0],
        scan_rotation_proposed_deg=turn.rotation_deg,
        scan_rotation_sigma_deg=turn.sigma_deg,
        detector_flip_y_proposed=turn.flip,
        mean_pattern=np.where(stats.nan, np.nan, stats.mean).astype(np.float32),
        max_pattern=np.where(stats.nan, np.nan, stats.maximum).astype(np.float32),
        mean_pattern_corrected=corrected[0],
        max_pattern_corrected=corrected[1],
        verdict=verdict.write(params, measured, surface, origin, ellipse, disk, camera, turn, gain, how, bad),
    )


def _detector(cube: Cube, params: Params):
    """Statistics of the pixels, their flags, which are wrong or masked, and whether counts are integers."""
    if min(cube.detector_shape) < _SMALLEST_PX:
        found = f"a detector of {cube.detector_shape[0]} by {cube.detector_shape[1]} px"
        raise _input_error(
            found, f"at least {_SMALLEST_PX} by {_SMALLEST_PX} px, to find a beam in", "the order of the axes, and bin"
        )
    usable = np.asarray(cube.valid) > 0
    if not usable.any():
        raise _input_error("every detector pixel is masked", "a mask that leaves pixels")
    stats = moments.measure(cube)
    dtype = np.dtype(cube.data.dtype)
    integer = np.issubdtype(dtype, np.integer)
    bad = bad_pixels.find(stats, usable, params, np.iinfo(dtype).max if integer else None)
    wrong = (bad > 0) | ~usable
    if wrong.all():
        raise _input_error("every detector pixel is masked, dead, hot or saturated", "some good pixels")
    return stats, bad, wrong, integer


def _in_force(measured, params: Params):
    """Descan surface, centres in force and their origin.

    A pattern is dark without a beam and almost without counts; one whose beam is extinct in a crystal is not.
    """
    seen = np.isfinite(measured[..., 0])
    if not seen.any():
        raise _input_error("no pattern shows a direct beam", "a beam well above its background in some patterns")
    surface = descan.fit(measured[..., :2], measured[..., 2], params.outlier_sigma)
    dark = ~seen & (measured[..., 3] < params.dark_share * np.median(measured[..., 3][seen]))
    return surface, *descan.choose(measured[..., :2], dark, surface, params.descan_ratio_limit)


def _input_error(found: str, expected: str, check: str = "dataset, scan_shape, roi and mask") -> InputError:
    return InputError(found, where="the scan", expected=expected, do=f"Check {check}.")


def _fillable(blind):
    return (~blind | repairable(blind)).astype(np.uint8)


def _centred(cube: Cube, blind, floor: float, centre):
    """Mean and maximum of the patterns, floor taken off, beam in the middle; and the pixels that all have."""
    shape = cube.detector_shape
    total, maximum = np.zeros(shape), np.full(shape, -np.inf, np.float32)
    usable = _fillable(blind)
    seen = np.isfinite(centre[..., 0])

    def work(patterns, unit):
        done, places = search.clean(patterns[: unit.count], blind, floor), centre[unit.where]
        part, peak = np.zeros(shape), np.full(shape, -np.inf, np.float32)
        for i in np.flatnonzero(seen[unit.where]):
            add_centred(done[i], usable, floor, places[i], part, peak)
        return part, peak

    for _, (part, peak) in cube.map_units(work):
        total += part
        maximum = np.maximum(maximum, peak)
    inside = valid_everywhere(usable, centre.reshape(-1, 2), np.eye(2)) > 0
    return total / seen.sum(), maximum, inside


def _camera(cube: Cube, params: Params, crystals, images, inside, beam, deflection):
    """Ellipse in force and of the direct disk, and what is only proposed: camera length, scan rotation and flip."""
    known = cube.acquisition
    ellipse, found = _ellipse(params, images, inside, beam)
    camera = rings.camera(found, crystals, known.pixel_inv_angstrom, params.camera_tolerance)
    turn = rotation.propose(deflection, ellipse, known, params)
    return ellipse, rings.disk_ratio(images[0], beam), camera, turn


def _ellipse(params: Params, images, inside, beam):
    """Fit the ellipse; with ``ellipse_method: none`` the rings are still looked at, for the camera length."""
    ellipse, found = rings.fit_ellipse(images, inside, beam, params)
    if params.ellipse_method == "fit":
        return ellipse, found
    return rings.Ellipse(passed=True, reason=f"not corrected (ellipse_method: none); fit: {ellipse.reason}"), found


def _reshape(images, inside, matrix):
    """Take centred means to the corrected frame: for looking at, as it interpolates a second time."""
    out = np.empty(images.shape, np.float32)
    middle = (np.array(inside.shape) - 1) / 2
    resample(images.astype(np.float32), inside.astype(np.uint8), np.tile(middle, (len(images), 1)), matrix, out)
    return out
