"""Virtual detectors on corrected patterns: bright field, annular dark field, centre of mass."""

from dataclasses import dataclass

import numba
import numpy as np

from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.schema import quantity, setting


@dataclass(frozen=True)
class Params:
    """Where the virtual detectors begin and end.

    Limits are multiples of the beam's radius, unless an explicit limit in px or in mrad is given (one of them).
    """

    bright_field_outer: float = setting(1.0, "Outer radius of the bright field in beam radii.", above=0)
    bright_field_outer_px: float | None = setting(None, "Outer radius of the bright field, overrides.", above=0)
    bright_field_outer_mrad: float | None = setting(None, "Outer angle of the bright field, overrides.", above=0)
    dark_field_inner: float = setting(2.0, "Inner radius of the dark field in beam radii.", minimum=0)
    dark_field_inner_px: float | None = setting(None, "Inner radius of the dark field, overrides.", minimum=0)
    dark_field_inner_mrad: float | None = setting(None, "Inner angle of the dark field, overrides.", minimum=0)
    dark_field_outer_px: float | None = setting(
        None, "Outer radius of the dark field; null: the circle that touches the detector's edge.", above=0
    )
    dark_field_outer_mrad: float | None = setting(None, "Outer angle of the dark field, overrides.", above=0)


@dataclass(frozen=True)
class Result:
    """Virtual images; pixels that some position lacks belong to no detector."""

    bright_field: np.ndarray = quantity("scan_y scan_x", "counts", "Bright field")
    annular_dark_field: np.ndarray = quantity("scan_y scan_x", "counts", "Annular dark field")
    sum: np.ndarray = quantity("scan_y scan_x", "counts", "All counts")
    centre_of_mass_y: np.ndarray = quantity("scan_y scan_x", "px", "Centre of mass, y, from the beam")
    centre_of_mass_x: np.ndarray = quantity("scan_y scan_x", "px", "Centre of mass, x, from the beam")
    bright_field_outer_px: float = quantity("", "px", "Outer radius of the bright field")
    dark_field_inner_px: float = quantity("", "px", "Inner radius of the dark field")
    dark_field_outer_px: float = quantity("", "px", "Outer radius of the dark field")


def compute(cube: Cube, params: Params, beam_radius_px: float) -> Result:
    """Sum corrected patterns over virtual detectors.

    Parameters
    ----------
    cube : Cube
        Corrected patterns; where ``cube.valid`` is 0 nothing is summed.
    params : Params
    beam_radius_px : float
        From `preprocess`, px.

    Returns
    -------
    Result
        A position without counts has no centre of mass (NaN). The centre of mass is that of all valid pixels,
        relative to the detector's middle, where the beam is; nothing else is taken off.

    Raises
    ------
    InputError
        If a limit is given twice, needs a calibration that is missing, or leaves a detector without pixels.
    """
    bright, inner, outer = _limits(cube, params, beam_radius_px)
    shape = cube.detector_shape
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape)
    r = np.hypot(y[:, None], x[None, :])
    valid = np.asarray(cube.valid) > 0
    inside = np.stack([valid & (r <= bright), valid & (r >= inner) & (r <= outer), valid]).astype(np.uint8)
    for name, mask in (("bright_field", inside[0]), ("dark_field", inside[1])):
        if not mask.any():
            limits = f"0 to {bright:.2f} px" if name == "bright_field" else f"{inner:.2f} to {outer:.2f} px"
            raise _input_error(f"{name} from {limits} holds no valid pixel", name, "a range with pixels")
    images = np.full((5, *cube.scan_shape), np.nan, np.float32)
    for unit, sums in cube.map_units(lambda p, unit: integrate(p[: unit.count], inside, np.empty((5, unit.count)))):
        images[(slice(None), *unit.where)] = sums
    return Result(images[0], images[1], images[2], images[3], images[4], bright, inner, outer)


@numba.njit(nogil=True, cache=True)
def integrate(patterns, inside, out):
    """Sum patterns over the virtual detectors, in float64.

    Parameters
    ----------
    patterns : ndarray of float32, shape (n, detector_y, detector_x)
    inside : ndarray of uint8, shape (3, detector_y, detector_x)
        Bright field, dark field, everything.
    out : ndarray of float64, shape (5, n)
        Receives bright field, dark field, sum, centre of mass y and x (px from the middle; NaN without counts).

    Returns
    -------
    ndarray
        ``out``.
    """
    n, ny, nx = patterns.shape
    for i in range(n):
        bright, dark, total, my, mx = 0.0, 0.0, 0.0, 0.0, 0.0
        for y in range(ny):
            for x in range(nx):
                counts = float(patterns[i, y, x])
                if inside[0, y, x]:
                    bright += counts
                if inside[1, y, x]:
                    dark += counts
                if inside[2, y, x]:
                    total += counts
                    my += counts * (y - (ny - 1) / 2)
                    mx += counts * (x - (nx - 1) / 2)
        out[0, i], out[1, i], out[2, i] = bright, dark, total
        out[3, i] = my / total if total > 0 else np.nan
        out[4, i] = mx / total if total > 0 else np.nan
    return out


def _limits(cube: Cube, params: Params, radius: float) -> tuple[float, float, float]:
    edge = (min(cube.detector_shape) - 1) / 2
    bright = _limit(cube, params, "bright_field_outer", params.bright_field_outer * radius)
    inner = _limit(cube, params, "dark_field_inner", params.dark_field_inner * radius)
    outer = _limit(cube, params, "dark_field_outer", edge)
    return bright, inner, outer


def _limit(cube: Cube, params: Params, name: str, default: float) -> float:
    px, mrad = getattr(params, f"{name}_px"), getattr(params, f"{name}_mrad")
    if px is not None and mrad is not None:
        raise _input_error(f"{name}_px = {px:g} and {name}_mrad = {mrad:g}", name, "one of the two")
    if px is not None:
        return float(px)
    if mrad is None:
        return float(default)
    acquisition = cube.acquisition
    if acquisition.detector_pixel_mrad is not None:
        return mrad / acquisition.detector_pixel_mrad
    if acquisition.pixel_inv_angstrom is None or acquisition.beam_energy_kev is None:
        raise _input_error(f"{name}_mrad = {mrad:g} without calibration", name, "detector_pixel_mrad in acquisition")
    return mrad * 1e-3 / (acquisition.wavelength_angstrom * acquisition.pixel_inv_angstrom)


def _input_error(found: str, name: str, expected: str) -> InputError:
    return InputError(found, where="virtual_image", expected=expected, do=f"Change the limits of {name}.")
