"""Small raw files, written as vendors' programs write them."""

import itertools
import json
import struct
import zipfile

import h5py
import hdf5plugin
import numpy as np

COUNTS = np.random.default_rng(0).integers(0, 60000, (3, 5, 8, 6)).astype(np.uint16)
FRAMES = COUNTS.reshape(15, 8, 6)
GUID = "a0dba950-15bf-4a74-a81c-9cea8560c2c8"


def write_merlin(path, frames, hdr=None, chips="1x1", depth=12, packed=None):
    """Write frames as Merlin does, ``hdr`` as the lines of the header file; ``packed`` are the frames of raw mode."""
    ny, nx = frames.shape[1:]
    length, count, hexadecimal = (384, 1, "01") if chips == "1x1" else (768, 4, "0F")
    kind = "R64" if packed is not None else f"U{frames.itemsize * 8:02d}"
    if packed is not None and count == 4:
        ny, nx = ny // 2, nx * 2
    head = f"MQ1,000001,{length:05d},{count:02d},{nx:04d},{ny:04d},{kind},{chips:>6},{hexadecimal},"
    head += "2024-07-02 13:49:15.390226,0.001,0," + "0," * 30
    head += f"MQ1A,2024-07-02T11:49:15.390226675Z,1000000ns,{depth},"
    head = head.encode().ljust(length, b"\0")
    stored = [f.astype(f">u{frames.itemsize}").tobytes() for f in frames] if packed is None else packed
    path.write_bytes(b"".join(head + frame for frame in stored))
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


def dm_group(tags, root=False):
    """A group of tags as .dm4 stores it, in pieces; an empty name is an unnamed tag."""
    body = [piece for name, value in tags for piece in dm_tag(name, value)]
    return [b"\0\1" + (b"" if root else struct.pack(">Q", dm_size(body))) + struct.pack(">Q", len(tags)), *body]


def dm_size(pieces):
    """Bytes of pieces; a number stands for so many zeros."""
    return sum(piece if isinstance(piece, int) else len(piece) for piece in pieces)


def dm_tag(name, value):
    """One tag: a group, a number, text (an array of 16-bit characters) or the counts (an array)."""
    head = struct.pack(">BH", 20 if isinstance(value, list) else 21, len(name)) + name.encode()
    if isinstance(value, list):
        return [head, *dm_group(value)]
    if isinstance(value, np.ndarray):
        kind = (20, {"uint16": 4, "float32": 6}[value.dtype.name], value.size)
        content = value.tobytes() if any(value.strides) else value.nbytes
    elif isinstance(value, str):
        kind, content = (20, 4, len(value)), value.encode("utf-16-le")
    else:
        kind, content = (
            ((7,), struct.pack("<d", value)) if isinstance(value, float) else ((5,), struct.pack("<L", value))
        )
    body = [b"%%%%" + struct.pack(f">{len(kind) + 1}Q", len(kind), *kind), content]
    return [head + struct.pack(">Q", dm_size(body)), *body]


def write_dm4(path, data, units, swapped=None):
    """Write an array as DigitalMicrograph does: dimensions fastest first, little-endian.

    One zero that is broadcast leaves a hole in the file.
    """
    scales = [{"nm": 2.0, "1/nm": 0.2}.get(unit, 1.0) for unit in units]
    calibrations = [
        ("", [("Origin", 0.0), ("Scale", scale), ("Units", unit)])
        for scale, unit in zip(scales[::-1], units[::-1], strict=True)
    ]
    image_data = [
        (
            "Calibrations",
            [("Brightness", [("Origin", 0.0), ("Scale", 1.0), ("Units", "")]), ("Dimension", calibrations)],
        ),
        ("Data", data),
        ("DataType", {"uint16": 10, "float32": 2}[data.dtype.name]),
        ("Dimensions", [("", int(n)) for n in data.shape[::-1]]),
    ]
    meta = [("Format", "Diffraction image")] + ([] if swapped is None else [("Data Order Swapped", swapped)])
    tags = [("Meta Data", meta), ("Microscope Info", [("Voltage", 200000.0)])]
    image = [("ImageData", image_data), ("ImageTags", tags), ("Name", "scan")]
    body = dm_group([("ImageList", [("", image)])], root=True)
    with path.open("wb") as file:
        file.write(struct.pack(">lQl", 4, dm_size(body), 1))
        for piece in body:
            file.seek(piece, 1) if isinstance(piece, int) else file.write(piece)


def blosc(data):
    """Pack an array as Blosc does, by the HDF5 filter of that name."""
    with h5py.File("packed", "w", driver="core", backing_store=False) as file:
        stored = file.create_dataset("d", data=data, chunks=data.shape, **hdf5plugin.Blosc(cname="zstd"))
        left_out, packed = stored.id.read_direct_chunk((0,) * data.ndim)
    if left_out:  # what cannot be made smaller Blosc copies behind a header, HDF5 stores as it is
        packed = struct.pack("<4B3I", 2, 1, 2, data.itemsize, data.nbytes, data.nbytes, data.nbytes + 16) + packed
    return packed


def write_zspy(path, shape, chunks, data, pack=blosc, archive=False, **described):
    """Write a store as HyperSpy with zarr 2 does: ``data`` whole, or one chunk that stands for all of them.

    ``described`` goes into the ``.zarray``, next to or instead of what HyperSpy writes.
    """
    separator = "." if archive else "/"
    axes = [("y", 2.0, "nm", True), ("x", 2.0, "nm", True), ("ky", 0.2, "1/nm", False), ("kx", 0.2, "1/nm", False)]
    group = "Experiments/scan"
    files = {".zgroup": {"zarr_format": 2}, f"{group}/.zgroup": {"zarr_format": 2}}
    for i, (name, scale, units, navigate) in enumerate(axes[4 - len(shape) :]):
        said = {"name": name, "scale": scale, "units": units, "navigate": navigate, "size": shape[i]}
        files[f"{group}/axis-{i}/.zattrs"] = said
    instrument = {"beam_energy": 200.0, "convergence_angle": 1.2, "rocking_angle": 0.5}
    files[f"{group}/metadata/Acquisition_instrument/TEM/.zattrs"] = instrument
    files[f"{group}/data/.zarray"] = {
        "shape": shape, "chunks": chunks, "dtype": data.dtype.str, "order": "C", "fill_value": 0, "filters": None,
        "compressor": {"id": "blosc", "cname": "zstd"}, "dimension_separator": separator, "zarr_format": 2,
    } | described  # fmt: skip
    files = {name: json.dumps(content).encode() for name, content in files.items()}
    packed = pack(data) if data.shape == tuple(chunks) != tuple(shape) else None
    for number in itertools.product(*(range(-(-n // c)) for n, c in zip(shape, chunks, strict=True))):
        name = f"{group}/data/{separator.join(map(str, number))}"
        files[name] = packed or pack(_whole_chunk(data, number, chunks))
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            for name, content in files.items():
                file.writestr(name, content)
        return
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def _whole_chunk(data, number, chunks):
    """Return one chunk, filled up with 9 where it leaves the array: what is stored there means nothing."""
    whole = np.full(chunks, 9, data.dtype)
    part = data[tuple(slice(n * c, (n + 1) * c) for n, c in zip(number, chunks, strict=True))]
    whole[tuple(slice(0, n) for n in part.shape)] = part
    return whole


def write_velox(path, frames, unit="1/m", more=()):
    """Write a Velox image stack: (y, x, frame), JSON in a column of bytes per frame."""
    said = {
        "Optics": {"AccelerationVoltage": "200000"},
        "BinaryResult": {"PixelSize": {"width": "2e8", "height": "2e8"}, "PixelUnitX": unit, "PixelUnitY": unit},
    }
    text = np.frombuffer(json.dumps(said).encode().ljust(4000, b"\0"), np.uint8)
    with h5py.File(path, "w") as file:
        file["Version"] = json.dumps({"format": "Velox", "version": "1.11"})
        for key, data in (("7f2a", frames), *more):
            stored = np.moveaxis(data, 0, -1)
            image = file.create_group(f"Data/Image/{key}")
            image.create_dataset("Data", data=stored, chunks=(*stored.shape[:2], 1))
            image["Metadata"] = np.repeat(text[:, None], len(data), axis=1)


def write_topspin(path, positions, place=GUID, dtype="f4"):
    """Write frames as TopSpin does: one dataset each, beam position in metres as XML beside it."""
    xml = "<M><C/><P><V><N/><V><X>{x!r}</X><Y>{y!r}</Y></V></V></P></M>"
    with h5py.File(path, "a") as file:
        for i, (y, x) in enumerate(positions):
            file[f"{place}/{i}/Data"] = FRAMES[i % 15].astype(dtype)
            file[f"{place}/{i}/Metadata"] = np.bytes_(xml.format(x=float(x), y=float(y)))


def write_mrc(path, frames):
    """Write 16-bit frames as Direct Electron's software does."""
    header = bytearray(1024)
    n, ny, nx = frames.shape
    struct.pack_into("<4i", header, 0, nx, ny, n, 6)
    struct.pack_into("<3i", header, 28, nx, ny, n)
    header[208:214] = b"MAP DD"
    path.write_bytes(bytes(header) + frames.tobytes())


def rosetta_signal(data, unit, step, pixel):
    """Return what the writers of RosettaSciIO take: a scan by ``step`` nm, a detector of ``pixel`` ``unit``."""
    names, scales, units = ("y", "x", "ky", "kx"), (step, step, pixel, pixel), ("nm", "nm", unit, unit)
    axes = [
        {"name": names[i], "scale": scales[i], "offset": 0.0, "units": units[i], "navigate": i < 2}
        | {"size": data.shape[i], "index_in_array": i}
        for i in range(4)
    ]
    tem = {"Acquisition_instrument": {"TEM": {"beam_energy": 200.0}}}
    return {
        "data": data, "axes": axes, "original_metadata": {}, "attributes": {"_lazy": False, "ragged": False},
        "metadata": {"General": {"title": "scan"}, "Signal": {"signal_type": "electron_diffraction"}} | tem,
        "package_info": {}, "learning_results": {}, "models": None, "tmp_parameters": {}, "post_process": [],
    }  # fmt: skip
