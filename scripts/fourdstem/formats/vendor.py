"""NumPy, NanoMEGAS blockfiles, Merlin, and what RosettaSciIO reads lazily."""

import importlib
import warnings
from math import prod
from pathlib import Path

import numpy as np
from rsciio import IO_PLUGINS

from fourdstem.errors import InputError
from fourdstem.formats.raw import DelayedFrames, MappedFrames, RawScan, TurnedFrames
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom

# Suffix -> plugin of RosettaSciIO. Only those that map the file: others load it whole at every slice.
PLUGINS = {".dm3": "DigitalMicrograph", ".dm4": "DigitalMicrograph", ".tvips": "TVIPS", ".mrc": "MRC", ".xml": "EMPAD"}
_MERLIN_TYPES = {"U08": "u1", "U16": ">u2", "U32": ">u4"}


def open_npy(path: Path) -> RawScan:
    """Open an array saved by `numpy.save`, of either byte order and either axis order."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy raises many kinds on a damaged header
        raise InputError(
            f"an array that cannot be mapped ({error})",
            where=str(path),
            expected="a complete .npy file of numbers",
            do="Save it again with numpy.save.",
        ) from error
    order = "C" if mapped.flags.c_contiguous else "F"
    notes = () if order == "C" else ("Fortran order: every read walks through the whole file; save it in C order",)
    return RawScan(MappedFrames(str(path), mapped.dtype, mapped.offset, mapped.shape, order), "NumPy", notes=notes)


def open_blo(path: Path) -> RawScan:
    """Open a NanoMEGAS ASTAR blockfile."""
    loaded = _load("Blockfile", path)[0]
    header = loaded["original_metadata"]["blockfile_header"]
    side, scan = int(header["DP_SZ"]), (int(header["NY"]), int(header["NX"]))
    record = np.dtype([("mark", "u1", 6), ("frame", "u1", (side, side))])
    offset = int(header["Data_offset_2"])
    _expect_frames(path, (path.stat().st_size - offset) // record.itemsize, prod(scan), f"scan of {scan}")
    metadata, notes = axes_metadata([(axis["scale"], axis["units"]) for axis in loaded["axes"]])
    if header["Beam_energy"]:
        metadata["beam_energy_kev"] = float(header["Beam_energy"]) / 1e3
    if header["SDP"] and header["Camera_length"]:
        # SDP: hundredths of a pixel per cm at the camera length, which is stored in tenths of a mm.
        metadata["detector_pixel_mrad"] = 1e3 * (100.0 / float(header["SDP"])) / (float(header["Camera_length"]) / 100)
        notes.append("detector pixel from the camera length that the operator entered: check it against a known ring")
    if header["Scan_rotation"]:
        angle = float(header["Scan_rotation"]) / 100
        notes.append(f"the file says scan rotation {angle:g}°, in the vendor's sense: not taken")
    return RawScan(MappedFrames(str(path), record, offset, scan), "blockfile", metadata, tuple(notes))


def open_mib(path: Path) -> RawScan:
    """Open a Quantum Detectors Merlin file (``.mib``, with its ``.hdr`` if it is there) as a stack of frames.

    The rows are turned as Merlin's own software shows them. The shape of the scan comes from the ``.hdr`` or
    the configuration; time stamps of the frames are not read for it.
    """
    fields = path.open("rb").read(384).decode("latin1").split(",")
    if len(fields) < 8 or fields[0] != "MQ1" or fields[6].strip() not in _MERLIN_TYPES:
        kind = "raw frames (R64) of a Merlin" if len(fields) > 7 and fields[6].startswith("R64") else "no Merlin header"
        raise InputError(
            kind,
            where=str(path),
            expected=f"a .mib file of processed frames ({', '.join(_MERLIN_TYPES)})",
            do="Export it with Merlin's software with raw mode off.",
        )
    count_type = np.dtype(_MERLIN_TYPES[fields[6].strip()])
    record = np.dtype([("head", "u1", int(fields[2])), ("frame", count_type, (int(fields[5]), int(fields[4])))])
    frames, rest = divmod(path.stat().st_size, record.itemsize)
    _expect_frames(path, frames, 1, "at least one frame")
    notes = [] if rest == 0 else [f"the last frame is incomplete ({rest} bytes) and is left out"]
    metadata, depth = _merlin_header(path, frames, notes)
    data = MappedFrames(str(path), record, 0, (frames,), flip_y=True)
    saturation = None if depth is None else float(2**depth - 1)
    return RawScan(data, "Merlin", metadata, tuple(notes), saturation_counts=saturation)


def _merlin_header(path: Path, frames: int, notes: list[str]) -> tuple[dict, int | None]:
    sidecar = next((p for p in (path.with_suffix(".hdr"), path.with_suffix(".HDR")) if p.is_file()), None)
    if sidecar is None:
        notes.append("no .hdr beside it")
        return {}, None
    lines = [line.split("\t", 1) for line in sidecar.read_text("latin1").splitlines() if "\t" in line]
    values = {key.rstrip(":").split(" (")[0]: text.strip() for key, text in lines}
    x, y, row = (_integer(values.get(key)) for key in ("ScanX", "ScanY", "Frames per Trigger"))
    recorded = _integer(values.get("Frames in Acquisition"))
    if recorded and recorded != frames:
        notes.append(f"the .hdr announces {recorded} frames, the .mib holds {frames}")
    depth = _integer(values.get("Counter Depth"))
    if x and y:
        return {"scan_shape": (y, x)}, depth
    if 1 < row < recorded and recorded % row == 0:
        notes.append("scan shape from the frames per trigger: one trigger per scan row")
        return {"scan_shape": (recorded // row, row)}, depth
    return {}, depth or None


def _integer(text) -> int:
    return int(text) if text and text.isdigit() else 0


def open_rosetta(path: Path) -> RawScan:
    """Open a file by the RosettaSciIO plugin of its suffix."""
    plugin = PLUGINS[path.suffix.lower()]
    signals = _load(plugin, path)
    usable = [s for s in signals if len(s["data"].shape) in (3, 4)]
    if len(usable) != 1:
        raise InputError(
            f"{len(usable)} scans; it holds arrays of shape {', '.join(str(s['data'].shape) for s in signals)}",
            where=str(path),
            expected="one array of 3 or 4 axes",
            do="Export the scan alone, for example as .hspy.",
        )
    signal = usable[0]
    axes = sorted(signal["axes"], key=lambda axis: not axis["navigate"])
    data = signal["data"].transpose([axis["index_in_array"] for axis in axes])
    frames, turning = DelayedFrames(data), []
    if plugin == "DigitalMicrograph":
        frames, axes, turning = _dm_frames(signal, axes, path)
    metadata, notes = axes_metadata([(axis["scale"], axis["units"]) for axis in axes])
    notes += turning
    if plugin == "MRC":
        # Axes of .mrc are lengths; from Direct Electron's text file RosettaSciIO makes them 1 of whatever unit.
        metadata, notes = {}, ["pixel sizes of a .mrc are not taken"]
    if plugin == "TVIPS":
        # The header keeps the pixel as an integer, which cannot hold a calibration.
        metadata, notes = {}, ["the pixel size in the file is a whole number and not taken"]
    metadata |= _instrument(signal)
    return RawScan(frames, plugin, metadata, tuple(notes))


def _dm_frames(signal: dict, axes: list[dict], path: Path):
    """Return the counts mapped where the reader found them, with our order of axes, the axes likewise, and notes."""
    offset = int(_walk(signal["original_metadata"], "ImageList.TagGroup0.ImageData.Data.offset"))
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
    swapped = _walk(signal["original_metadata"], "ImageList.TagGroup0.ImageTags.Meta Data.Data Order Swapped")
    if swapped is None:
        raise InputError(
            "a cube of 4 axes that does not say which of them are the scan",
            where=str(path),
            expected="units (nm and 1/nm or mrad) on all four axes, or the tag Meta Data:Data Order Swapped",
            do="Calibrate the axes in DigitalMicrograph and save it again.",
        )
    return str(swapped).strip().lower() in ("0", "false")


def _instrument(signal: dict) -> dict:
    """Read beam energy and convergence; a plugin may leave them to its mapping of the original metadata."""
    names = {
        "Acquisition_instrument.TEM.beam_energy": "beam_energy_kev",
        "Acquisition_instrument.TEM.convergence_angle": "convergence_mrad",
    }
    out = {}
    for place, (target, convert) in signal.get("mapping", {}).items():
        value = _walk(signal["original_metadata"], place) if target in names else None
        if value is not None:
            out[names[target]] = convert(value) if convert else value
    for target, key in names.items():
        value = _walk(signal["metadata"], target)
        if value is not None:
            out[key] = value
    return {key: float(value) for key, value in out.items() if value}


def _walk(tree, place: str):
    for key in place.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree


def _load(plugin: str, path: Path) -> list[dict]:
    module = importlib.import_module(next(p["api"] for p in IO_PLUGINS if p["name"] == plugin))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return module.file_reader(str(path), lazy=True)
    except Exception as error:  # parsers of foreign formats raise whatever they like on a broken file
        raise InputError(
            f"a file that RosettaSciIO's {plugin} reader cannot read ({type(error).__name__}: {error})",
            where=str(path),
            expected=f"a complete {path.suffix} file",
            do="Copy it again from the microscope; it may be truncated, or lack a file that belongs to it.",
        ) from error


def _expect_frames(path: Path, frames: int, needed: int, what: str) -> None:
    if frames < needed:
        raise InputError(
            f"{frames} complete frames, the header announces a {what}: {needed} frames",
            where=str(path),
            expected="a complete file",
            do="Copy it again from the microscope; it is truncated.",
        )
