"""What the tests of raw files share: counts, a Merlin file of them, how a refusal is checked, the vendors' files."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest

from fourdstem.errors import InputError
from fourdstem.formats import open_raw

SHAPE = (3, 5, 8, 6)
COUNTS = np.random.default_rng(0).integers(0, 60000, SHAPE).astype(np.uint16)


def vendor_folder():
    """Folder of the files that vendors' programs wrote; skips where they are not there."""
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    return Path(folder) / "rsciio_formats"


def refuses(path, *words, **options):
    """The error has its four parts and names the file and the given words."""
    with pytest.raises(InputError) as caught:
        open_raw(path, **options)
    error = caught.value
    assert error.found and error.expected and error.do and Path(path).name in error.where
    for word in words:
        assert word in str(error), str(error)
    return error


def write_merlin(path, frames, hdr=None):
    """Write frames as Merlin does, ``hdr`` as the lines of the header file."""
    ny, nx = frames.shape[1:]
    head = f"MQ1,000001,00384,01,{nx:04d},{ny:04d},U16,   1x1,01,2024-07-02 13:49:15.390226,0.001,0,"
    head = (head + "0," * 30 + "MQ1A,2024-07-02T11:49:15.390226675Z,1000000ns,12,").encode().ljust(384, b"\0")
    path.write_bytes(b"".join(head + frame.astype(">u2").tobytes() for frame in frames))
    if hdr:
        path.with_suffix(".hdr").write_text("HDR,\t\n" + "\n".join(f"{k}:\t{v}" for k, v in hdr.items()) + "\nEnd\t")


def write_seq(path, frames, version=5, image_format=100, compression=0, gap=1024, announced=None):
    """Write a sequence as the StreamPix manual describes it; ``gap`` bytes follow each image."""
    header = bytearray(8192 if version >= 5 else 1024)
    struct.pack_into("<I", header, 0, 0xFEED)
    header[4:28] = "Norpix seq\n\0".encode("utf-16-le")
    struct.pack_into("<ii", header, 28, version, 1024)
    ny, nx = frames.shape[1:]
    bits = frames.itemsize * 8
    announced = len(frames) if announced is None else announced
    values = (
        nx,
        ny,
        bits,
        12 if bits == 16 else 8,
        frames[0].nbytes,
        image_format,
        announced,
        0,
        frames[0].nbytes + gap,
    )
    struct.pack_into("<9I", header, 548, *values)
    struct.pack_into("<I", header, 620, compression)
    path.write_bytes(bytes(header) + b"".join(f.tobytes() + b"\x7f" * gap for f in frames))
