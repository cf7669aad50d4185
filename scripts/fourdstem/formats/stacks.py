"""Stacks of images that were not made for scans: TIFF and Norpix sequences."""

import logging
import struct
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np
import tifffile

from fourdstem.errors import InputError
from fourdstem.formats.consistency import damaged
from fourdstem.formats.raw import ListedFrames, MappedFrames, RawScan

# Norpix header, little-endian, from byte 548: width, height, bits per pixel, bits used, bytes per image, format,
# allocated frames, origin, bytes from image to image; version at byte 28; compression at byte 620.
_NORPIX_MAGIC, _NORPIX_MONO = 0xFEED, 100
_NORPIX_SIDECARS = (".dark.mrc", ".gain.mrc", ".Config.Metadata.xml")


def open_seq(path: Path) -> RawScan:
    """Open an uncompressed monochrome Norpix StreamPix sequence as a stack of frames.

    The layout is that of the StreamPix manual: 1024 bytes of header, 8192 from version 5 on, then images at equal
    distances, each followed by its time stamp. The file does not know of a scan.
    """
    with path.open("rb") as file:
        header = file.read(1024)
    if len(header) < 1024 or struct.unpack_from("<I", header)[0] != _NORPIX_MAGIC:
        raise _no_sequence("no header of a Norpix sequence", path, "Copy it again from the camera's computer.")
    version = struct.unpack_from("<i", header, 28)[0]
    width, height, bits, used, _, image_format, allocated, _, distance = struct.unpack_from("<9I", header, 548)
    compression = struct.unpack_from("<I", header, 620)[0] if version >= 5 else 0
    if image_format != _NORPIX_MONO or compression or bits not in (8, 16):
        kind = f"a sequence of image format {image_format}, compression {compression}, {bits} bits per pixel"
        raise _no_sequence(kind, path, "Export it from StreamPix as uncompressed monochrome .seq or as .tif.")
    if distance < width * height * bits // 8 or not width * height:
        raise _no_sequence(
            f"{distance} bytes per image of {height} by {width} px of {bits} bits", path, "Copy it again."
        )
    record = np.dtype(
        {"names": ["frame"], "formats": [(f"<u{bits // 8}", (height, width))], "offsets": [0], "itemsize": distance}
    )
    offset = 8192 if version >= 5 else 1024
    frames, rest = divmod(path.stat().st_size - offset, distance)
    if frames < 1:
        raise _no_sequence("no complete frame", path, "Copy it again from the camera's computer; it is truncated.")
    notes = ["a sequence states neither scan shape nor calibration"]
    if rest:
        notes.append(f"the last frame is incomplete ({rest} bytes) and is left out")
    if allocated != frames:
        notes.append(f"the header announces {allocated} frames, the file holds {frames}")
    beside = [path.name + end for end in _NORPIX_SIDECARS if path.with_name(path.name + end).is_file()]
    if beside:
        notes.append(
            f"counts are as recorded; {', '.join(beside)} beside it {'is' if len(beside) == 1 else 'are'} not used"
        )
    saturation = float(2**used - 1) if 0 < used <= bits else None
    data = MappedFrames(str(path), record, offset, (frames,))
    return RawScan(data, "Norpix sequence", notes=tuple(notes), saturation_counts=saturation)


def _no_sequence(found: str, path: Path, do: str) -> InputError:
    return InputError(found, where=str(path), expected="an uncompressed monochrome .seq of 8 or 16 bits", do=do)


def open_tif(path: Path) -> RawScan:
    """Open a TIFF stack; a stack that tifffile wrote from an array of 4 axes keeps them.

    Uncompressed frames that follow one another are mapped, others are read page by page. Resolution tags are not
    taken: programs disagree on what they mean.
    """
    try:
        with _complaints() as complaints:
            opened = tifffile.TiffFile(path)
            series = list(opened.series)
    except Exception as error:  # parsers of foreign formats raise whatever they like on a broken file
        raise _broken_tif(path, f"{type(error).__name__}: {error}") from error
    if complaints:
        opened.close()
        raise _broken_tif(path, complaints[0])
    stacks = [s for s in series if len(s.shape) > 2 and s.axes.endswith("YX")]
    if len(stacks) != 1:
        opened.close()
        raise InputError(
            f"{len(stacks)} stacks; it holds images of shape {', '.join(str(s.shape) for s in series[:8])}",
            where=str(path),
            expected="one stack of monochrome frames of one size",
            do="Save the frames of one scan as one multi-page TIFF.",
        )
    return _tif_scan(path, opened, stacks[0])


def _broken_tif(path: Path, why: str) -> InputError:
    return InputError(
        f"a TIFF file that cannot be read ({why})",
        where=str(path),
        expected="a complete TIFF stack",
        do="Copy it again; it may be truncated.",
    )


@contextmanager
def _complaints():
    """Collect what tifffile reports as an error: of a chain of pages that breaks off it returns the beginning."""
    said, handler = [], logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("tifffile")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _tif_scan(path: Path, opened: tifffile.TiffFile, stack) -> RawScan:
    written = len(stack.shape) == 4 and stack.kind == "shaped"
    records = stack.shape[:2] if written else (prod(stack.shape[:-2]),)
    count_type = np.dtype(stack.dtype).newbyteorder(opened.byteorder)
    notes = ["resolution tags of a TIFF are not taken"]
    if not written and len(stack.shape) > 3:
        notes.append(f"axes {stack.axes} of shape {stack.shape} are read as one stack of frames, in the order stored")
    if stack.dataoffset is not None:
        opened.close()
        data = MappedFrames(str(path), count_type, stack.dataoffset, (*records, *stack.shape[-2:]))
        return RawScan(data, "TIFF", notes=tuple(notes))
    opened.filehandle.set_lock(True)
    data = ListedFrames(lambda i: _page(stack.pages[i], path), records, stack.shape[-2:], count_type)
    notes.append("frames are compressed or scattered: read page by page, which is slower")
    return RawScan(data, "TIFF", notes=tuple(notes), closing=opened.close)


def _page(page, path: Path) -> np.ndarray:
    """Read one page; where a place or a length is 0, tifffile would return zeros."""
    if 0 in (*page.dataoffsets, *page.databytecounts) or len(page.dataoffsets) != len(page.keyframe.dataoffsets):
        raise damaged(path, f"page {page.index} without all of its counts", "every page complete")
    return page.asarray(maxworkers=1)
