"""A file larger than memory is read within memory, by every reader."""

import itertools
import os
import struct
import tempfile
import zlib
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from peak_memory import peak_growths_mb
from raw_files import write_dm4, write_merlin, write_seq, write_zspy

from fourdstem.formats import SUFFIXES

MEMORY_MB = 100
SCAN, DETECTOR = (64, 32), (256, 256)
SHAPE = (*SCAN, *DETECTOR)
FRAMES, FRAME_BYTES = 64 * 32, 2 * 256 * 256
TURNED = SHAPE[2:] + SHAPE[:2]
UNITS = ("nm", "nm", "1/nm", "1/nm")


def lengthened(path, size):
    """Let a file end in zeros that take no space."""
    os.truncate(path, size)


def npy(path, order="C"):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<u2", "fortran_order": order == "F", "shape": SHAPE})
        start = file.tell()
    lengthened(path, start + FRAMES * FRAME_BYTES)


def blo(path):
    header = struct.pack("<6sHIIIHHHH", b"IMGBLO", 0x0102, 0x1000, 0x2000, 0, 256, 0, 64, 64)
    path.write_bytes(header)
    lengthened(path, 0x2000 + 64 * 64 * (256 * 256 + 6))


def mib(path):
    """Also the guard against rosettasciio issue 266: a Merlin scan that was to be read lazily filled the memory."""
    write_merlin(path, np.zeros((1, *DETECTOR), np.uint16), {"ScanX": SCAN[1], "ScanY": SCAN[0]})
    lengthened(path, path.stat().st_size * FRAMES)


def raw_mib(path):
    empty = np.zeros((1, *DETECTOR), np.uint16)
    write_merlin(path, empty, {"ScanX": SCAN[1], "ScanY": SCAN[0]}, packed=[empty.tobytes()])
    lengthened(path, path.stat().st_size * FRAMES)


def tif(path):
    tifffile.memmap(path, shape=SHAPE, dtype="u2", photometric="minisblack", bigtiff=True)


def packed_tif(path):
    pages = itertools.repeat(zlib.compress(np.arange(256 * 256, dtype="<u2") % 7), FRAMES)
    tifffile.imwrite(path, pages, shape=(FRAMES, *DETECTOR), dtype="<u2", compression="zlib", metadata=None)


def seq(path):
    write_seq(path, np.zeros((1, *DETECTOR), "<u2"), announced=FRAMES)
    lengthened(path, 8192 + FRAMES * (path.stat().st_size - 8192))


def tvips(path):
    path.write_bytes(struct.pack("<13I", 256, 2, 256, 256, 16, 0, 0, 1, 1, 1, 200, 80, 60).ljust(256, b" "))
    lengthened(path, 256 + FRAMES * (60 + FRAME_BYTES))


def mrc(path):
    path.write_bytes(struct.pack("<4i", 256, 256, FRAMES, 6).ljust(208, b"\0") + b"MAP DD".ljust(816, b"\0"))
    lengthened(path, 1024 + FRAMES * FRAME_BYTES)


def empad(path):
    text = '<root><raw_file filename="scan_x64_y64.raw"/><pix_x>64</pix_x><pix_y>64</pix_y></root>'
    path.write_text(text)
    path.with_name("scan_x64_y64.raw").touch()
    lengthened(path.with_name("scan_x64_y64.raw"), 64 * 64 * 130 * 128 * 4)


def dm4(path, turned=False):
    data = np.broadcast_to(np.uint16(0), TURNED if turned else SHAPE)
    write_dm4(path, data, UNITS[2:] + UNITS[:2] if turned else UNITS, swapped=not turned)


def contiguous(path, name="counts", shape=SHAPE, attributes=None):
    with h5py.File(path, "w") as file:
        data = file.create_dataset(name, shape, "u2")
        data[-1, -1] = 1
        data.parent.attrs.update(attributes or {})


def ncem(path):
    contiguous(path, "data/scan/data", TURNED, {"emd_group_type": 1})
    with h5py.File(path, "a") as file:
        for i, unit in enumerate(UNITS[2:] + UNITS[:2], 1):
            file[f"data/scan/dim{i}"] = np.array([0.0, 1.0])
            file[f"data/scan/dim{i}"].attrs["units"] = unit


def chunked(file, name, shape, chunk):
    """Make a compressed dataset of chunks that are all alike."""
    data = file.create_dataset(name, shape, "u2", chunks=chunk, **hdf5plugin.Bitshuffle(cname="lz4"))
    first = tuple(slice(0, n) for n in chunk)
    data[first] = np.random.default_rng(0).poisson(1, chunk)
    file.flush()
    packed = data.id.read_direct_chunk((0,) * len(shape))[1]
    for place in np.ndindex(*(-(-n // c) for n, c in zip(shape, chunk, strict=True))):
        data.id.write_direct_chunk(tuple(p * c for p, c in zip(place, chunk, strict=True)), packed)


def h5(path):
    with h5py.File(path, "w") as file:
        chunked(file, "counts", SHAPE, (4, 8, *DETECTOR))


def hspy(path):
    with h5py.File(path, "w") as file:
        chunked(file, "Experiments/scan/data", SHAPE, (4, 4, 128, 128))
        for i in range(4):
            file.create_group(f"Experiments/scan/axis-{i}").attrs.update({"scale": 1.0, "units": UNITS[i]})


def velox(path):
    with h5py.File(path, "w") as file:
        chunked(file, "Data/Image/a/Data", (*DETECTOR, FRAMES), (*DETECTOR, 1))


def arina(path):
    for number, frames in ((1, 1000), (2, FRAMES - 1000)):
        with h5py.File(path.with_name(f"a_data_{number:06d}.h5"), "w") as file:
            chunked(file, "entry/data/data", (frames, *DETECTOR), (1, *DETECTOR))
    with h5py.File(path, "w") as file:
        for number in (1, 2):
            link = h5py.ExternalLink(f"a_data_{number:06d}.h5", "entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link


def app5(path):
    guid = "a0dba950-15bf-4a74-a81c-9cea8560c2c8"
    frame = np.arange(512 * 512, dtype=np.uint16).reshape(512, 512)
    with h5py.File(path, "w") as file:
        for i in range(FRAMES // 4):
            position = f"<M><C/><P><V><N/><V><X>{i % 32}e-9</X><Y>{i // 32}e-9</Y></V></V></P></M>"
            file.create_dataset(f"{guid}/{i}/Data", data=frame, chunks=(512, 512), **hdf5plugin.Bitshuffle(cname="lz4"))
            file[f"{guid}/{i}/Metadata"] = np.bytes_(position)


def zspy(path):
    write_zspy(path, SHAPE, (8, 8, *DETECTOR), np.ones((8, 8, *DETECTOR), np.uint16))


FILES = {  # name of the file -> what writes it; of those marked slow, whose patterns are scattered, two rows are read
    "a.npy": npy,
    "slow_fortran.npy": lambda path: npy(path, "F"),
    "a.blo": blo,
    "a.mib": mib,
    "raw.mib": raw_mib,
    "a.tif": tif,
    "packed.tiff": packed_tif,
    "a.seq": seq,
    "a_000.tvips": tvips,
    "a.mrc": mrc,
    "a.xml": empad,
    "a.dm4": dm4,
    "slow_turned.dm3": lambda path: dm4(path, turned=True),
    "a.h5": h5,
    "a.hdf5": lambda path: contiguous(path, "datacube_root/datacube/data"),
    "a.nxs": lambda path: contiguous(path, "entry/data/data"),
    "a.hspy": hspy,
    "slow_ncem.emd": ncem,
    "velox.emd": velox,
    "a_master.h5": arina,
    "a.app5": app5,
    "a.zspy": zspy,
}
PREPARE = """
import importlib, logging
import dask.array
from fourdstem.cube import Cube
from fourdstem.formats import open_raw
from fourdstem.methods.scan import Params, resolve_scan_shape, select
for plugin in ("blockfile", "digitalmicrograph", "empad", "mrc"):
    importlib.import_module(f"rsciio.{plugin}")
logging.disable()
"""
WORK = """
import itertools, sys
from fourdstem.cube import Cube
from fourdstem.formats import open_raw
from fourdstem.methods.scan import Params, resolve_scan_shape, select
path = sys.argv[1]
with open_raw(path) as raw:
    scan = resolve_scan_shape(raw.shape, raw.metadata.get("scan_shape", (64, 32)))
    counts = select(raw.data, scan, Params())
    done = Cube(counts, memory_mb=MEMORY, threads=2).map_stored(lambda patterns, unit: patterns[:, ::9].sum())
    read = [unit.count for unit, _ in itertools.islice(done, 2 if "slow" in path else None)]
    assert sum(read) == (64 if "slow" in path else scan[0] * scan[1]), read
""".replace("MEMORY", str(MEMORY_MB))


@pytest.fixture(scope="module")
def growths():
    """Name of a file -> how far reading it raised resident memory, MB."""
    with tempfile.TemporaryDirectory() as folder:
        for name, write in FILES.items():
            write(Path(folder) / name)
        measured = peak_growths_mb(PREPARE, WORK, [Path(folder) / name for name in FILES])
    return {Path(path).name: growth for path, growth in measured.items()}


@pytest.mark.parametrize("name", FILES)
def test_a_file_larger_than_memory_is_read_within_it(growths, name):
    assert growths[name] < 1.2 * MEMORY_MB


def test_every_suffix_has_a_file_larger_than_memory():
    assert {Path(name).suffix for name in FILES} == set(SUFFIXES)
