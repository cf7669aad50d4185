"""Quantum Detectors Merlin: frames as its software assembles them, or as the chips send them (raw mode)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.raw import MappedFrames, RawScan, expect_frames

_TYPES = {"U08": "u1", "U16": ">u2", "U32": ">u4"}
_RAW_BITS = {1: 1, 6: 8, 12: 16}  # bits of the counter -> bits in the file
# Quad in raw mode: a row of the file holds the rows of four chips. Where each belongs in the frame, in units of
# chips, and whether it is turned by half a turn, as frames of one detector in both modes show.
_QUAD = (((1, 1), True), ((1, 0), True), ((0, 1), False), ((0, 0), False))


@dataclass(frozen=True)
class PackedFrames:
    """Frames in raw mode: words of 64 bits, highest byte first, the first pixel in the lowest bits.

    Attributes
    ----------
    stored : MappedFrames
        Bytes, shape (frames, rows, bytes of a row).
    depth : int
        Bits of the counter: 1, 6 or 12.
    quad : bool
        Four chips, in a row in the file, two by two in the frame.
    """

    stored: MappedFrames
    depth: int
    quad: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the frames as one array."""
        frames, rows, row_bytes = self.stored.shape
        columns = row_bytes * 8 // _RAW_BITS[self.depth]
        return (frames, 2 * rows, columns // 2) if self.quad else (frames, rows, columns)

    @property
    def dtype(self) -> np.dtype:
        """Type of a count."""
        return np.dtype(np.uint16 if self.depth == 12 else np.uint8)

    @property
    def ndim(self) -> int:
        """Number of axes, 3."""
        return 3

    def __getitem__(self, where) -> np.ndarray:
        number, *within = where if isinstance(where, tuple) else (where,)
        some = number if isinstance(number, slice) else slice(int(number), int(number) + 1 or None)
        frames = _unpacked(self.stored[some], self.depth)
        frames = (_assembled(frames) if self.quad else frames)[:, ::-1]
        return np.ascontiguousarray(frames[(slice(None) if isinstance(number, slice) else 0, *within)])


def _unpacked(packed: np.ndarray, depth: int) -> np.ndarray:
    """Return the counts of frames of bytes (n, rows, bytes of a row)."""
    words = packed.reshape(*packed.shape[:2], -1, 8)[..., ::-1]
    lowest_first = np.ascontiguousarray(words).reshape(packed.shape)
    if depth == 1:
        return np.unpackbits(lowest_first, axis=2, bitorder="little")
    return lowest_first if depth == 6 else lowest_first.view("<u2").astype(np.uint16, copy=False)


def _assembled(frames: np.ndarray) -> np.ndarray:
    side = frames.shape[2] // 4
    out = np.empty((len(frames), 2 * side, 2 * side), frames.dtype)
    for number, ((y, x), turned) in enumerate(_QUAD):
        chip = frames[:, :, number * side : (number + 1) * side]
        out[:, y * side : (y + 1) * side, x * side : (x + 1) * side] = chip[:, ::-1, ::-1] if turned else chip
    return out


def open_mib(path: Path) -> RawScan:
    """Open a Quantum Detectors Merlin file (``.mib``, with its ``.hdr`` if it is there) as a stack of frames.

    Size, type and depth come from the header of the first frame, which is there for every arrangement of chips.
    The rows are turned as Merlin's own software shows them. The shape of the scan comes from the ``.hdr`` or
    the configuration; time stamps of the frames are not read for it.
    """
    head = _first_header(path)
    raw = head[6].strip() == "R64"
    offset, columns, rows = int(head[2]), int(head[4]), int(head[5])
    depth = _depth(head)
    if raw:
        _check_raw(path, head, depth)
        frame = ("u1", (rows, columns * _RAW_BITS[depth] // 8))
    else:
        frame = (np.dtype(_TYPES[head[6].strip()]), (rows, columns))
    record = np.dtype([("head", "u1", offset), ("frame", *frame)])
    frames, rest = divmod(path.stat().st_size, record.itemsize)
    expect_frames(path, frames, 1, "at least one frame")
    notes = [] if rest == 0 else [f"the last frame is incomplete ({rest} bytes) and is left out"]
    metadata, announced = _sidecar(path, frames, notes)
    depth = depth or announced
    if raw:
        data = PackedFrames(MappedFrames(str(path), record, 0, (frames,)), depth, head[7].strip() == "2x2")
        notes.append("raw mode: counts as the chips send them, arranged here; no flat field, no gaps filled")
    else:
        data = MappedFrames(str(path), record, 0, (frames,), flip_y=True)
    saturation = float(2**depth - 1) if depth else None
    return RawScan(data, "Merlin", metadata, tuple(notes), saturation_counts=saturation)


def _first_header(path: Path) -> list[str]:
    """Return the fields of the first frame's header, which has 384 bytes per chip or fewer."""
    with path.open("rb") as file:
        fields = file.read(64).decode("latin1").split(",")
        known = len(fields) > 6 and fields[0] == "MQ1" and fields[2].isdigit() and int(fields[2]) >= 128
        file.seek(0)
        fields = file.read(int(fields[2])).decode("latin1").split(",") if known else []
    if len(fields) < 8 or not (fields[4] + fields[5]).isdigit() or fields[6].strip() not in (*_TYPES, "R64"):
        raise _unreadable("no Merlin header", path, "Copy it again from the microscope.")
    return fields


def _depth(head: list[str]) -> int:
    """Return the counter depth, which newer software writes behind the exposure; 0 where it is not written."""
    place = head.index("MQ1A") + 3 if "MQ1A" in head else len(head)
    return _integer(head[place].strip("\0 ")) if place < len(head) else 0


def _check_raw(path: Path, head: list[str], depth: int) -> None:
    chips, columns, rows = head[7].strip(), int(head[4]), int(head[5])
    fits = (chips == "1x1" or (chips == "2x2" and columns == 4 * rows)) and columns % 64 == 0
    if depth not in _RAW_BITS or not fits:
        raise _unreadable(
            f"raw frames (R64) of {depth or 'unknown'} bit, chips {chips}, {rows} rows of {columns} px",
            path,
            "Export it with Merlin's software with raw mode off.",
        )


def _unreadable(found: str, path: Path, do: str) -> InputError:
    expected = (
        f"a .mib file of processed frames ({', '.join(_TYPES)}), or of raw frames of 1, 6 or 12 bit of whole chips"
    )
    return InputError(found, where=str(path), expected=expected, do=do)


def _sidecar(path: Path, frames: int, notes: list[str]) -> tuple[dict, int]:
    """Return what the ``.hdr`` says: the shape of the scan, and the counter depth or 0."""
    sidecar = next((p for p in (path.with_suffix(".hdr"), path.with_suffix(".HDR")) if p.is_file()), None)
    if sidecar is None:
        notes.append("no .hdr beside it")
        return {}, 0
    lines = [line.split("\t", 1) for line in sidecar.read_text("latin1").splitlines() if "\t" in line]
    values = {key.rstrip(":").split(" (")[0]: text.strip() for key, text in lines}
    x, y, row = (_integer(values.get(key)) for key in ("ScanX", "ScanY", "Frames per Trigger"))
    recorded, depth = (_integer(values.get(key)) for key in ("Frames in Acquisition", "Counter Depth"))
    if recorded and recorded != frames:
        notes.append(f"the .hdr announces {recorded} frames, the .mib holds {frames}")
    if x and y:
        return {"scan_shape": (y, x)}, depth
    if 1 < row < recorded and recorded % row == 0:
        notes.append("scan shape from the frames per trigger: one trigger per scan row")
        return {"scan_shape": (recorded // row, row)}, depth
    return {}, depth


def _integer(text) -> int:
    return int(text) if text and text.isdigit() else 0
