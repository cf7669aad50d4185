"""From the units that vendors write to those of `calibration.Acquisition`."""

import math
import re

_LENGTHS = {
    "pm": 0.01, "å": 1.0, "a": 1.0, "ang": 1.0, "angstrom": 1.0, "angstroms": 1.0, "nm": 10.0, "n_m": 10.0,
    "nanometer": 10.0, "nanometre": 10.0, "um": 1e4, "micron": 1e4, "mm": 1e7, "m": 1e10,
}  # fmt: skip
_ANGLES = {"urad": 1e-3, "mrad": 1.0, "rad": 1e3, "deg": math.pi / 180 * 1e3, "°": math.pi / 180 * 1e3}


def length_angstrom(unit) -> float | None:
    """Return one ``unit`` of length in Å; None if it is none."""
    return _LENGTHS.get(_plain(unit))


def angle_mrad(unit) -> float | None:
    """Return one ``unit`` of angle in mrad; None if it is none."""
    return _ANGLES.get(_plain(unit))


def reciprocal_inv_angstrom(unit) -> float | None:
    """Return one ``unit`` of reciprocal length in 1/Å, as it stands, without a factor 2 pi; None if it is none."""
    match = re.fullmatch(r"1/(.+)|(?:k_)?(.+?)(?:\^-1|-1|⁻¹)", _plain(unit))
    length = _LENGTHS.get(match[1] or match[2]) if match else None
    return None if length is None else 1 / length


def _plain(unit) -> str:
    text = unit.decode("utf-8", "replace") if isinstance(unit, bytes) else str(unit or "")
    text = re.sub(r"[\s$\[\]{}()\\]", "", text).replace("Å", "Å").lower()
    if re.fullmatch(r".(_.)+", text):  # RosettaSciIO's EMD writer joins the letters of a unit by underscores
        text = text.replace("_", "")
    return text.replace("µ", "u").replace("μ", "u")


def axes_metadata(axes) -> tuple[dict, list[str]]:
    """Return what calibrated axes say about scan step and detector pixel.

    Parameters
    ----------
    axes : list of (float, str)
        Scale and unit of each axis of the data, slow first, 3 or 4 of them. A scale in pixels or without a
        known unit says nothing.

    Returns
    -------
    metadata : dict
        Acquisition values.
    notes : list of str
        Why an axis was not used.
    """
    metadata, notes = {}, []
    if len(axes) == 4:
        steps = [_scaled(axis, length_angstrom) for axis in axes[:2]]
        if all(steps):
            metadata["scan_step_angstrom"] = tuple(steps)
    for key, convert in (
        ("detector_pixel_inv_angstrom", reciprocal_inv_angstrom),
        ("detector_pixel_mrad", angle_mrad),
    ):
        pixels = [_scaled(axis, convert) for axis in axes[-2:]]
        if all(pixels) and abs(pixels[0] / pixels[1] - 1) > 0.01:
            notes.append(f"detector pixels are not square ({pixels[0]:.6g} by {pixels[1]:.6g}), {key} is not taken")
        elif all(pixels):
            metadata[key] = sum(pixels) / 2
    return metadata, notes


def _scaled(axis, convert) -> float | None:
    scale, unit = axis
    factor = convert(unit)
    if factor is None or scale is None or not math.isfinite(scale) or scale == 0:
        return None
    return abs(float(scale)) * factor
