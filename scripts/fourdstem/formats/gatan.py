"""Gatan DigitalMicrograph, of either order of its axes."""

from pathlib import Path

import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.raw import MappedFrames, RawScan, TurnedFrames
from fourdstem.formats.rosetta import instrument, load, walk
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom


def open_dm(path: Path) -> RawScan:
    """Open a stack or cube of DigitalMicrograph, ``.dm3`` or ``.dm4``."""
    signals = load("DigitalMicrograph", path)
    usable = [s for s in signals if len(s["data"].shape) in (3, 4)]
    if len(usable) != 1:
        raise InputError(
            f"{len(usable)} scans; it holds arrays of shape {', '.join(str(s['data'].shape) for s in signals)}",
            where=str(path),
            expected="one array of 3 or 4 axes",
            do="Export the scan alone, for example as .hspy.",
        )
    axes = sorted(usable[0]["axes"], key=lambda axis: axis["index_in_array"])
    frames, axes, turning = _dm_frames(usable[0], axes, path)
    metadata, notes = axes_metadata([(axis["scale"], axis["units"]) for axis in axes])
    return RawScan(frames, "DigitalMicrograph", metadata | instrument(usable[0]), (*notes, *turning))


def _dm_frames(signal: dict, axes: list[dict], path: Path):
    """Return the counts mapped where the reader found them, with our order of axes, the axes likewise, and notes."""
    offset = int(walk(signal["original_metadata"], "ImageList.TagGroup0.ImageData.Data.offset"))
    stored = MappedFrames(str(path), np.dtype(signal["data"].dtype), offset, signal["data"].shape)
    if len(axes) == 4 and _scan_is_fastest(signal, axes, path):
        note = "stored with the scan axes fastest: every read walks through the whole file; save it as .hspy"
        return TurnedFrames(stored, (2, 3, 0, 1)), axes[2:] + axes[:2], [note]
    return stored, axes, []


def _scan_is_fastest(signal: dict, axes: list[dict], path: Path) -> bool:
    """Tell whether a DigitalMicrograph cube is stored detector first; RosettaSciIO does not look.

    GMS writes either order: files of before about 2019, and converted K2 data, have the scan axes fastest; newer
    ones the detector axes, which the tag "Data Order Swapped" says.
    """
    detector = [bool(reciprocal_inv_angstrom(axis["units"]) or angle_mrad(axis["units"])) for axis in axes]
    scan = [bool(length_angstrom(axis["units"])) for axis in axes]
    if all(scan[:2]) and all(detector[2:]):
        return False
    if all(detector[:2]) and all(scan[2:]):
        return True
    swapped = walk(signal["original_metadata"], "ImageList.TagGroup0.ImageTags.Meta Data.Data Order Swapped")
    if swapped is None:
        raise InputError(
            "a cube of 4 axes that does not say which of them are the scan",
            where=str(path),
            expected="units (nm and 1/nm or mrad) on all four axes, or the tag Meta Data:Data Order Swapped",
            do="Calibrate the axes in DigitalMicrograph and save it again.",
        )
    return str(swapped).strip().lower() in ("0", "false")
