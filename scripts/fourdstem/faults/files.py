"""A sound small file of every kind, and what in it is a count and what a number that stands for itself."""

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import tifffile

from fourdstem.faults import writers

# Few counts, as a fast camera records them.
COUNTS = np.random.default_rng(7).poisson(40, (3, 5, 8, 6)).astype(np.uint16)
FRAMES = COUNTS.reshape(15, 8, 6)
STEP, PIXEL = 2.03125, 0.2109375  # nm and 1/nm; rare as patterns of bytes


@dataclass(frozen=True)
class Sound:
    """A file without damage.

    Attributes
    ----------
    path : path
        What a user would name.
    damaged : path
        The file that is damaged: itself, or one that belongs to it.
    payload : list of (int, int, int)
        First byte, end, and the number of counts that one byte in between can change.
    own : list of (int, int)
        Bytes of numbers and names that stand for themselves: no other number of the file tells that they changed.
    scan_shape : tuple of int or None
        What the user writes into the configuration.
    """

    path: Path
    damaged: Path
    payload: list
    own: list
    scan_shape: tuple[int, int] | None = (3, 5)


def _found(content: bytes, parts) -> list[tuple[int, int]]:
    """Return every place where one of the parts stands."""
    places = []
    for part in parts:
        at = content.find(part)
        while at >= 0:
            places.append((at, at + len(part)))
            at = content.find(part, at + 1)
    return places


def _sound(path: Path, blobs, own=(), damaged=None, stacked=True, itemsize=2) -> Sound:
    """Describe a file whose counts stand in it as they are, in the given pieces."""
    damaged = damaged or path
    content = damaged.read_bytes()
    payload = [(*place, 1) for place in _found(content, {bytes(b) for b in blobs})]
    numbers = [struct.pack(f"{order}d", v) for v in (STEP, PIXEL, 200.0, 2e5, 120.0) for order in "<>"]
    numbers += [struct.pack(f"{order}f", v) for v in (STEP, PIXEL, 200.0, 2e5) for order in "<>"]
    return Sound(path, damaged, payload, _found(content, [*numbers, *own]), None if stacked is False else (3, 5))


def _npy(folder: Path) -> Sound:
    np.save(folder / "a.npy", COUNTS)
    return _sound(folder / "a.npy", [COUNTS.tobytes()], stacked=False)


def _npy_fortran(folder: Path) -> Sound:
    np.save(folder / "f.npy", np.asfortranarray(COUNTS))
    return _sound(folder / "f.npy", [COUNTS.tobytes("F")], stacked=False)


def _mib(folder: Path) -> Sound:
    writers.write_merlin(folder / "a.mib", FRAMES)
    return _sound(folder / "a.mib", [f.astype(">u2").tobytes() for f in FRAMES])


def _hdr(folder: Path) -> Sound:
    lines = {"ScanX": 5, "ScanY": 3, "Frames in Acquisition (Number)": 15, "Counter Depth (number)": 12}
    writers.write_merlin(folder / "b.mib", FRAMES, lines)
    return _sound(folder / "b.mib", [], [b"\t12"], damaged=folder / "b.hdr", stacked=False)


def _seq(folder: Path) -> Sound:
    writers.write_seq(folder / "a.seq", FRAMES)
    return _sound(folder / "a.seq", [f.tobytes() for f in FRAMES])


def _mrc(folder: Path) -> Sound:
    writers.write_mrc(folder / "a.mrc", FRAMES)
    return _sound(folder / "a.mrc", [FRAMES.tobytes()])


def _blo(folder: Path) -> Sound:
    from rsciio.blockfile import file_writer

    data = COUNTS[:, :, :6].astype(np.uint8)
    file_writer(str(folder / "a.blo"), writers.rosetta_signal(data, "cm", STEP, PIXEL), navigator=None)
    return _sound(folder / "a.blo", [p.tobytes() for row in data for p in row], stacked=False)


def _tvips(folder: Path) -> Sound:
    from rsciio.tvips import file_writer

    file_writer(str(folder / "a_000.tvips"), writers.rosetta_signal(COUNTS, "1/nm", STEP, PIXEL))
    return _sound(folder / "a_000.tvips", [f.tobytes() for f in FRAMES], [struct.pack("<I", 200)])


def _hspy(folder: Path) -> Sound:
    from rsciio.hspy import file_writer

    file_writer(str(folder / "a.hspy"), writers.rosetta_signal(COUNTS, "1/nm", STEP, PIXEL), compression=None)
    return _of_hdf5(folder / "a.hspy", "Experiments/scan/data", [b"1/nm", b"nm", b"beam_energy", b"scale", b"units"])


def _dm4(folder: Path) -> Sound:
    writers.write_dm4(folder / "a.dm4", COUNTS, ("nm", "nm", "1/nm", "1/nm"), swapped=1)
    return _sound(folder / "a.dm4", [COUNTS.tobytes()], _DM_OWN, stacked=False)


def _dm4_turned(folder: Path) -> Sound:
    data = np.ascontiguousarray(COUNTS.transpose(2, 3, 0, 1))
    writers.write_dm4(folder / "b.dm4", data, ("1/nm", "1/nm", "nm", "nm"), swapped=0)
    return _sound(folder / "b.dm4", [data.tobytes()], _DM_OWN, stacked=False)


_DM_OWN = [
    *(struct.pack("<d", v) for v in (2.0, 0.2)), b"Scale", b"Units", b"Voltage", b"Microscope Info", b"Calibrations",
    b"Dimension\0", "1/nm".encode("utf-16-le"), "nm".encode("utf-16-le"), b"ImageTags",
]  # fmt: skip


def _empad(folder: Path) -> Sound:
    _write_empad(folder / "a.xml", "e")
    return _sound(folder / "a.xml", [], stacked=False)


def _empad_raw(folder: Path) -> Sound:
    frames = _write_empad(folder / "b.xml", "f")
    return _sound(folder / "b.xml", [f.tobytes() for f in frames], damaged=folder / "f_x2_y2.raw", stacked=False)


def _write_empad(path: Path, name: str) -> np.ndarray:
    frames = np.random.default_rng(3).normal(size=(4, 130, 128)).astype("<f4")
    text = f'<root><raw_file filename="{name}_x2_y2.raw"/><pix_x>2</pix_x><pix_y>2</pix_y></root>'
    path.write_text(text, encoding="utf-8")
    frames.tofile(path.with_name(f"{name}_x2_y2.raw"))
    return frames


def _tif(folder: Path, name="a.tif", **options) -> Sound:
    tifffile.imwrite(folder / name, FRAMES, photometric="minisblack", **options)
    if "compression" not in options:
        return _sound(folder / name, [f.tobytes() for f in FRAMES])
    with tifffile.TiffFile(folder / name) as file:
        strips = [
            (o, o + n, FRAMES[0].size) for p in file.pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True)
        ]
    return Sound(folder / name, folder / name, strips, [])


def _zspy(folder: Path) -> Sound:
    path, chunks = folder / "a.zspy", (1, 5, 8, 6)
    writers.write_zspy(path, COUNTS.shape, chunks, COUNTS, archive=True)
    content, payload = path.read_bytes(), []
    with zipfile.ZipFile(path) as file:
        for name in (n for n in file.namelist() if "/data/" in n and not n.endswith(".zarray")):
            payload += [(*place, int(np.prod(chunks))) for place in _found(content, [file.read(name)])]
    return Sound(path, path, payload, _found(content, [b"200.0", b"0.2", b"2.0", b"1.2", b"0.5"]), None)


def _of_hdf5(path: Path, dataset: str, own=(), damaged: Path | None = None, stacked=False) -> Sound:
    """Describe an HDF5 file; of a compressed dataset one byte can change every count of its chunk."""
    damaged = damaged or path
    content = damaged.read_bytes()
    with h5py.File(damaged) as file:
        payload = _stored(file[dataset]) if dataset in file else []
    numbers = [struct.pack("<d", v) for v in (STEP, PIXEL, 200.0, 2e5, 120.0)]
    return Sound(path, damaged, payload, _found(content, [*numbers, *own]), (3, 5) if stacked else None)


def _stored(data) -> list:
    if data.chunks is None:
        return [(data.id.get_offset(), data.id.get_offset() + data.id.get_storage_size(), 1)]
    infos = [data.id.get_chunk_info(i) for i in range(data.id.get_num_chunks())]
    counts = 1 if data.compression is None and not data._filters else int(np.prod(data.chunks))
    return [(i.byte_offset, i.byte_offset + i.size, counts) for i in infos]


def _hdf5(folder: Path, name="a.h5", counts=COUNTS, libver="earliest", **options) -> Sound:
    path = folder / name
    with h5py.File(path, "w", libver=libver) as file:
        file.create_dataset("counts", data=counts, **options)
        file["acquisition/beam_energy_kev"] = 120.0
        file["acquisition/scan_step_angstrom"] = [STEP, STEP]
        file["acquisition/scan_rotation_deg"] = PIXEL
    own = [b"beam_energy_kev", b"scan_step_angstrom", b"scan_rotation_deg", b"acquisition"]
    return _of_hdf5(path, "counts", own, stacked=counts.ndim == 3)


def _nexus(folder: Path) -> Sound:
    path = folder / "a.nxs"
    with h5py.File(path, "w") as file:
        group = file.create_group("entry/data")
        group["data"] = COUNTS
        group.attrs["axes"] = ["y", "x", "ky", "kx"]
        for name, n, step, unit in zip(
            group.attrs["axes"], COUNTS.shape, (STEP, STEP, 0.3, 0.3), ("nm", "nm", "mrad", "mrad"), strict=True
        ):
            group[name] = np.arange(n) * step
            group[name].attrs["units"] = unit
    values = [struct.pack("<d", v) for v in (0.3 * 5, 0.3 * 7, 4 * STEP, 2 * STEP, 0.3)]
    return _of_hdf5(path, "entry/data/data", [*values, b"units", b"mrad", b"nm", b"axes", b"kx", b"ky"])


def _ncem(folder: Path) -> Sound:
    path = folder / "n.emd"
    with h5py.File(path, "w") as file:
        group = file.create_group("data/scan")
        group.attrs["emd_group_type"] = 1
        group["data"] = COUNTS
        for i, (step, unit) in enumerate([(STEP, "nm")] * 2 + [(PIXEL, "n_m^-1")] * 2, 1):
            group[f"dim{i}"] = np.array([0.0, step])
            group[f"dim{i}"].attrs["units"] = unit
    return _of_hdf5(
        path, "data/scan/data", [b"units", b"n_m^-1", b"nm", b"dim1", b"dim2", b"dim3", b"dim4", b"emd_group_type"]
    )


def _velox(folder: Path) -> Sound:
    writers.write_velox(folder / "v.emd", FRAMES)
    sound = _of_hdf5(folder / "v.emd", "Data/Image/7f2a/Data", stacked=True)
    with h5py.File(folder / "v.emd") as file:
        text = file["Data/Image/7f2a/Metadata"].id
        own = (text.get_offset(), text.get_offset() + text.get_storage_size())
    return replace(sound, own=[own])


def _topspin(folder: Path) -> Sound:
    raster = [(1.8e-7 + 2e-9 * y, 1.7e-7 + 4e-9 * x) for y in range(3) for x in range(5)]
    writers.write_topspin(folder / "a.app5", raster)
    content = (folder / "a.app5").read_bytes()
    payload = [(*place, 1) for place in _found(content, [f.astype("f4").tobytes() for f in writers.FRAMES])]
    return Sound(folder / "a.app5", folder / "a.app5", payload, _found(content, [b"<M>", b"Metadata"]), None)


def _arina(part: str) -> Callable[[Path], Sound]:
    def write(folder: Path) -> Sound:
        folder = folder / part
        folder.mkdir(exist_ok=True)
        names = {p: folder / f"s{n}.h5" for p, n in (("master", "_master"), ("data", "_data_000001"), ("sidecar", ""))}
        with h5py.File(names["data"], "w") as file:
            file.create_dataset("entry/data/data", data=FRAMES, chunks=(1, 8, 6), **hdf5plugin.Bitshuffle(cname="lz4"))
        with h5py.File(names["master"], "w") as file:
            file["entry/data/data_000001"] = h5py.ExternalLink("s_data_000001.h5", "entry/data/data")
            file["entry/instrument/detector/detectorSpecific/photon_energy"] = 200000.0
        with h5py.File(names["sidecar"], "w") as file:
            said = {"NumPixelsX": 5, "NumPixelsY": 3, "Pixel Size": [STEP], "IsPixelSizeCalibrated": [1]}
            file.create_group("STEM Metadata").attrs.update(said)
        own = [
            b"photon_energy",
            b"detectorSpecific",
            b"Pixel Size",
            b"IsPixelSizeCalibrated",
            b"NumPixels",
            b"STEM Metadata",
        ]
        return _of_hdf5(names["master"], "entry/data/data", own, names[part], stacked=True)

    return write


KINDS: dict[str, Callable[[Path], Sound]] = {
    "npy": _npy,
    "npy, Fortran order": _npy_fortran,
    "mib": _mib,
    "mib: hdr": _hdr,
    "blo": _blo,
    "seq": _seq,
    "mrc": _mrc,
    "tvips": _tvips,
    "dm4": _dm4,
    "dm4, scan fastest": _dm4_turned,
    "empad": _empad,
    "empad: raw": _empad_raw,
    "tif": _tif,
    "tif, zlib": lambda folder: _tif(folder, "b.tif", compression="zlib"),
    "tif, pages": lambda folder: _tif(folder, "c.tif", metadata=None, contiguous=False),
    "tif, ImageJ": lambda folder: _tif(folder, "d.tif", imagej=True),
    "hdf5": _hdf5,
    "hdf5, chunks": lambda folder: _hdf5(folder, "b.h5", chunks=(1, 5, 8, 6)),
    "hdf5, gzip": lambda folder: _hdf5(folder, "c.h5", FRAMES, chunks=(1, 8, 6), compression="gzip"),
    "hdf5, float": lambda folder: _hdf5(folder, "e.h5", COUNTS.astype("f4")),
    "hdf5, as simulated": lambda folder: _hdf5(
        folder, "d.h5", libver="v110", chunks=(1, 5, 8, 6), **hdf5plugin.Bitshuffle(cname="lz4")
    ),
    "hspy": _hspy,
    "zspy, zip": _zspy,
    "nxs": _nexus,
    "emd, NCEM": _ncem,
    "emd, Velox": _velox,
    "app5": _topspin,
    "arina": _arina("master"),
    "arina: data": _arina("data"),
    "arina: sidecar": _arina("sidecar"),
}
