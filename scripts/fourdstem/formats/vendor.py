"""NumPy, NanoMEGAS blockfiles, TVIPS, EMPAD and MRC: frames at equal distances, mapped as they are read."""

from math import prod
from pathlib import Path

import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.consistency import check_file_size, damaged
from fourdstem.formats.raw import JoinedFrames, MappedFrames, RawScan, TurnedFrames, expect_frames
from fourdstem.formats.rosetta import load
from fourdstem.formats.units import axes_metadata

_BLO_MAGIC = 0x0102
_EMPAD_ROWS, _EMPAD_SIDE = 130, 128  # two rows below each frame are no counts
# TVIPS: the 13 numbers that begin the first file. RosettaSciIO reads every frame's header to open one.
_TVIPS_HEADER = (
    "size", "version", "width", "height", "bits", "offset_x", "offset_y", "bin_x", "bin_y", "pixel", "energy_kev",
    "magnification", "frame_header",
)  # fmt: skip


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
    check_file_size(path, mapped.offset + mapped.nbytes, f"{mapped.shape} numbers of type {mapped.dtype}")
    if mapped.flags.c_contiguous:
        return RawScan(MappedFrames(str(path), mapped.dtype, mapped.offset, mapped.shape), "NumPy")
    turned = MappedFrames(str(path), mapped.dtype, mapped.offset, mapped.shape[::-1])
    note = "Fortran order: every read walks through the whole file; save it in C order"
    return RawScan(TurnedFrames(turned, tuple(range(mapped.ndim))[::-1]), "NumPy", notes=(note,))


def open_blo(path: Path) -> RawScan:
    """Open a NanoMEGAS ASTAR blockfile."""
    loaded = load("Blockfile", path)[0]
    header = loaded["original_metadata"]["blockfile_header"]
    side, scan = int(header["DP_SZ"]), (int(header["NY"]), int(header["NX"]))
    record = np.dtype([("mark", "u1", 6), ("frame", "u1", (side, side))])
    offset = int(header["Data_offset_2"])
    if int(header["MAGIC"]) != _BLO_MAGIC:
        raise InputError(
            f"a file that begins with {int(header['MAGIC']):#06x}",
            where=str(path),
            expected=f"a blockfile, which begins with {_BLO_MAGIC:#06x}",
            do="Check that this is the file that ASTAR wrote; copy it again.",
        )
    expect_frames(path, (path.stat().st_size - offset) // record.itemsize, prod(scan), f"scan of {scan}")
    surplus = check_file_size(path, offset + prod(scan) * record.itemsize, f"a scan of {scan}", record.itemsize)
    metadata, notes = axes_metadata([(axis["scale"], axis["units"]) for axis in loaded["axes"]])
    notes += surplus
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


def open_tvips(path: Path) -> RawScan:
    """Open a TVIPS stream, of all its parts, as a stack of frames.

    The scan that the frames' headers hint at is not taken: where it starts and how long its rows are would be
    guessed.
    """
    if not path.stem.endswith("_000"):
        raise _no_stream("a part of a stream", path, "Name its first part, whose name ends in _000.tvips (part 000).")
    values = np.fromfile(path, "<u4", len(_TVIPS_HEADER))
    header = dict(zip(_TVIPS_HEADER, map(int, values), strict=False))
    if len(values) < len(_TVIPS_HEADER) or header["version"] not in (1, 2) or header["bits"] not in (8, 16):
        raise _no_stream("no header of a TVIPS stream", path, "Copy it again from the camera's computer.")
    gap = header["frame_header"] if header["version"] == 2 else 12
    shape = (header["height"], header["width"])
    record = np.dtype([("head", "u1", gap), ("frame", f"<u{header['bits'] // 8}", shape)])
    parts, first = [], header["size"]
    while (part := path.with_name(f"{path.stem[:-3]}{len(parts):03d}{path.suffix}")).is_file():
        frames, rest = divmod(part.stat().st_size - first, record.itemsize)
        if rest or frames < 1:
            found = f"{part.name} of {frames} frames of {shape} and {rest} bytes"
            raise _no_stream(found, path, "Copy it again from the camera's computer; it is truncated.")
        parts.append(MappedFrames(str(part), record, first, (frames,)))
        first = 0
    metadata = {"beam_energy_kev": float(header["energy_kev"])} if header["energy_kev"] else {}
    notes = ("the pixel size in the file is a whole number and not taken",)
    return RawScan(parts[0] if len(parts) == 1 else JoinedFrames(tuple(parts)), "TVIPS", metadata, notes)


def _no_stream(found: str, path: Path, do: str) -> InputError:
    return InputError(found, where=str(path), expected="a complete TVIPS stream of 8 or 16 bits", do=do)


def open_empad(path: Path) -> RawScan:
    """Open an EMPAD scan or series by its ``.xml``; the counts lie in the ``.raw`` that it names.

    The shape is that of the ``.xml``, and the ``.raw`` must hold exactly so many frames.
    """
    loaded = load("EMPAD", path)[0]
    axes = {axis["name"]: axis for axis in loaded["axes"]}
    names = ["series_count"] if "series_count" in axes else ["scan_y", "scan_x"]
    scan = tuple(int(axes[name]["size"]) if name in axes else 1 for name in names)
    counts = path.with_name(loaded["original_metadata"]["root"]["raw_file"]["filename"])
    record = np.dtype([("frame", "<f4", (_EMPAD_SIDE,) * 2), ("rest", "<f4", (_EMPAD_ROWS - _EMPAD_SIDE, _EMPAD_SIDE))])
    held = counts.stat().st_size / record.itemsize if counts.is_file() else None
    if held != prod(scan):
        raise InputError(
            f"{held:g} frames in {counts.name}" if held is not None else f"no {counts.name} beside it",
            where=str(path),
            expected=f"{prod(scan)} frames of {_EMPAD_ROWS} by {_EMPAD_SIDE} px for {scan} positions in {counts.name}",
            do="Copy both files again, side by side; or correct the shape in the .xml, which is a text.",
        )
    given = [axes.get(name, {"scale": 0.0, "units": ""}) for name in (*names, "height", "width")]
    metadata, notes = axes_metadata([(axis["scale"], axis["units"]) for axis in given])
    return RawScan(MappedFrames(str(counts), record, 0, scan), "EMPAD", metadata, tuple(notes))


def open_mrc(path: Path) -> RawScan:
    """Open an ``.mrc`` stack; Direct Electron's ``_info.txt`` beside a movie says the shape of a raster scan."""
    loaded = load("MRC", path)[0]
    header = loaded["original_metadata"]["std_header"]
    stack = tuple(int(header[key]) for key in ("NZ", "NY", "NX"))
    offset, count = 1024 + int(header["NEXT"]), np.dtype(loaded["data"].dtype)
    frame_bytes = prod(stack[1:]) * count.itemsize
    held, rest = divmod(path.stat().st_size - offset, max(frame_bytes, 1))
    expect_frames(path, held, stack[0], f"stack of {stack}")
    # Axes of .mrc are lengths; from Direct Electron's text file RosettaSciIO makes them 1 of whatever unit.
    notes = ["pixel sizes of a .mrc are not taken"]
    sampled = tuple(int(header[key]) for key in ("MZ", "MY", "MX"))
    if (held > stack[0] or rest) and sampled[1:] not in ((0, 0), stack[1:]):
        raise damaged(path, f"frames of {stack[1:]} px sampled at {sampled[1:]}, in a file of more bytes", "both alike")
    if held > stack[0] or rest:
        notes.append(f"{(held - stack[0]) * frame_bytes + rest} bytes behind the last frame are not read")
    said = loaded["original_metadata"].get("de_metadata", {})
    scan = tuple(int(axis["size"]) for axis in loaded["axes"] if axis["navigate"]) if said else ()
    raster = said.get("Scan - Type", "Raster") == "Raster"
    fits = len(scan) == 2 and prod(scan) == stack[0] and raster
    if said and not fits:
        notes.append(f"the scan of _info.txt ({scan}, {said.get('Scan - Type')}) is no raster of the frames: not taken")
    data = MappedFrames(str(path), count, offset, (*(scan if fits else stack[:1]), *stack[1:]))
    return RawScan(data, "MRC", notes=tuple(notes))
