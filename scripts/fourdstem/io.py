"""Result files: HDF5 with NeXus attributes, written and read only here.

Dataset ``name`` of a result lies at ``/entry/<name>/data`` in a NXdata group with ``units``, ``long_name`` and
``axes``, so that any NeXus viewer plots it. A file gets its final name only when it is complete.
"""

import dataclasses
import json
import os
from contextlib import contextmanager
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.cube import UNIT, Correction, Cube
from fourdstem.errors import InputError
from fourdstem.files import complete_or_absent, write_text
from fourdstem.geometry import corrected_to_recorded, repairable
from fourdstem.schema import as_settings, build, unit_of

PATTERN_AXES = ("scan_y", "scan_x", "detector_y", "detector_x")
_COMPRESSION = hdf5plugin.Bitshuffle(cname="lz4")


class ResultFile:
    """An HDF5 result being written; made by `create`."""

    def __init__(self, file: h5py.File, acquisition: Acquisition):
        self.file = file
        self.entry = file["entry"]
        self.acquisition = acquisition

    def write(self, result) -> None:
        """Write every dataset of a ``Result``; fields that are None are left out."""
        for field in dataclasses.fields(result):
            value = getattr(result, field.name)
            if value is not None:
                self.write_one(field.name.rstrip("_"), value, **field.metadata)

    def write_one(self, name: str, value, axes=(), unit: str = "", long_name: str = "") -> None:
        """Write one dataset with its unit and axes."""
        group = self._group(name, axes, unit, long_name)
        array = _storable(value)
        options = {"chunks": _map_chunks(array), **_COMPRESSION} if np.ndim(array) >= 2 and array.size > 256 else {}
        group.create_dataset("data", data=array, **options)
        self._describe(group, unit, long_name)

    def stream(self, name: str, shape, dtype, axes=PATTERN_AXES, *, unit="", long_name: str, frame="") -> h5py.Dataset:
        """Make a dataset whose axes begin with (scan_y, scan_x), to be filled unit by unit.

        A chunk is a divisor of a unit, and with no chunk cache each is written when its unit is assigned:
        the file's bytes do not depend on how many units were in flight.
        """
        group = self._group(name, axes, unit, long_name)
        data = group.create_dataset("data", shape, dtype, chunks=_pattern_chunks(shape, dtype), **_COMPRESSION)
        self._describe(group, unit, long_name)
        if frame:
            group.attrs["frame"] = data.attrs["frame"] = frame
        return data

    def link(self, name: str, file: str, dataset: str, *, unit: str, long_name: str, frame: str) -> None:
        """Point ``/entry/<name>/data`` at a dataset of another file instead of copying it."""
        group = self._group(name, PATTERN_AXES, unit, long_name)
        group["data"] = h5py.ExternalLink(os.path.relpath(file, Path(self.file.filename).parent), dataset)
        group.attrs.update({"frame": frame, "units": unit, "long_name": long_name})

    def write_acquisition(self, origins: dict[str, str]) -> None:
        """Write the acquisition values in force, each with its unit and where it came from."""
        group = self.entry.create_group("acquisition")
        for key, value in as_settings(self.acquisition).items():
            if value is not None:
                data = group.create_dataset(key, data=_storable(value))
                data.attrs.update({"units": unit_of(key), "origin": origins.get(key, "default")})

    def _group(self, name, axes, unit, long_name) -> h5py.Group:
        group = self.entry.create_group(name)
        group.attrs.update({"NX_class": "NXdata", "signal": "data", "long_name": long_name})
        step = self.acquisition.scan_step_angstrom
        names = list(axes)
        for i, axis in enumerate(names):
            if axis in ("scan_y", "scan_x") and step is not None and self.acquisition.scan_shape is not None:
                k = ("scan_y", "scan_x").index(axis)
                values = group.create_dataset(axis, data=np.arange(self.acquisition.scan_shape[k]) * step[k])
                values.attrs.update({"units": "angstrom", "long_name": f"{axis} (Å)"})
            else:
                names[i] = "."
        if names:
            group.attrs["axes"] = names
            group.attrs["axis_names"] = list(axes)
        return group

    @staticmethod
    def _describe(group, unit, long_name) -> None:
        group["data"].attrs.update({"units": unit, "long_name": long_name})


def _storable(value):
    if isinstance(value, str):
        return value
    if isinstance(value, tuple | list) and value and isinstance(value[0], str):
        return np.array(value, dtype=h5py.string_dtype("utf-8"))
    array = np.asarray(value)
    return array.astype(np.uint8) if array.dtype == bool else array


def _pattern_chunks(shape, dtype) -> tuple[int, ...]:
    """Whole patterns, a divisor of a unit, up to about 1 MiB."""
    frame_bytes = int(np.prod(shape[2:])) * np.dtype(dtype).itemsize
    per_chunk = 2 ** int(np.clip(np.log2(max(2**20 / frame_bytes, 1)), 0, np.log2(UNIT)))
    return (1, min(per_chunk, shape[1]), *shape[2:])


def _map_chunks(array) -> tuple[int, ...]:
    """Whole trailing axes, split along the first until a chunk has about 1 MiB."""
    rows = max(1, int(2**20 / max(array[0].nbytes, 1)))
    return (min(rows, array.shape[0]), *array.shape[1:])


@contextmanager
def create(path, process: dict, acquisition: Acquisition | None = None):
    """Open a result for writing; it gets its name when the block ends without an error.

    Parameters
    ----------
    path : path-like
    process : dict
        `stage.Job.process`: what the file says of its own making.
    acquisition : Acquisition, optional
        Scan shape and step calibrate the axes.
    """
    with _new(path) as file:
        file.attrs["default"] = "entry"
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        _write_process(entry.create_group("process"), process)
        yield ResultFile(file, acquisition or Acquisition())


def write_tree(path, tree: dict, process: dict) -> None:
    """Write nested dicts of arrays, numbers and strings as HDF5 groups, compressed by what every HDF5 library has.

    The file says of its own making, in ``/process``, what `create` writes.
    """
    with _new(path) as file:
        _write_process(file.create_group("process"), process)
        groups = [(file, tree)]
        while groups:
            group, content = groups.pop()
            for key, value in content.items():
                if isinstance(value, dict):
                    groups.append((group.create_group(key), value))
                    continue
                options = {"compression": "gzip", "shuffle": True} if np.size(value) > 256 else {}
                group.create_dataset(key, data=value, **options)


class RawFile:
    """A simulated raw file being written; made by `create_raw`."""

    def __init__(self, file: h5py.File):
        self.file = file

    def counts(self, shape, dtype) -> h5py.Dataset:
        """Make ``/counts``, to be filled unit by unit."""
        return self.file.create_dataset("counts", shape, dtype, chunks=_pattern_chunks(shape, dtype), **_COMPRESSION)

    def write_truth(self, truth) -> None:
        """Write every dataset of a simulation's ``Result`` as ``/truth/<name>``."""
        for field in dataclasses.fields(truth):
            value = getattr(truth, field.name)
            if value is not None:
                data = self.file.create_dataset(f"truth/{field.name.rstrip('_')}", data=_storable(value))
                meta = field.metadata
                data.attrs.update({"units": meta["unit"], "long_name": meta["long_name"], "axes": list(meta["axes"])})


@contextmanager
def create_raw(path, process: dict, acquisition: dict):
    """Open a simulated raw file for writing: ``/counts``, ``/acquisition/<key>``, ``/truth/<name>``."""
    with _new(path) as file:
        _write_process(file.create_group("process"), process)
        for key, value in acquisition.items():
            file.create_dataset(f"acquisition/{key}", data=value).attrs["units"] = unit_of(key)
        yield RawFile(file)


def read_truth(path, result: type):
    """Return a simulation's ``Result``, or what a truth file holds of it (None where it is silent)."""
    with h5py.File(path, "r") as file:
        truth = file["truth"]
        names = {f.name: f.name.rstrip("_") for f in dataclasses.fields(result)}
        return result(**{key: truth[name][()] if name in truth else None for key, name in names.items()})


def write_table(path, columns, rows) -> None:
    """Write a CSV file; floats with six significant digits."""
    cells = [[f"{c:.6g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    write_text(path, "\n".join(",".join(row) for row in [columns, *cells]) + "\n")


@contextmanager
def _new(path):
    """Yield an HDF5 file that gets its name when the block ends without an error."""
    with (
        complete_or_absent(path) as temporary,
        h5py.File(temporary, "w", libver="v110", rdcc_nbytes=0) as file,
    ):
        yield file


def copy_units(counts, out) -> None:
    """Copy a scan unit by unit; one unit is in memory at a time."""
    for unit in Cube(counts).units():
        out[unit.where] = counts[unit.where]


def _write_process(group, process: dict) -> None:
    group.attrs["NX_class"] = "NXprocess"
    group["program"] = "fourdstem"
    for key, value in process.items():
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
        group[key] = text


def read(path, name: str):
    """Return one dataset: an array, a number or a str; None where the file has none of that name."""
    with h5py.File(path, "r") as file:
        return _read(file, name)


def _read(file, name: str):
    data = file.get(f"entry/{name}/data")
    if data is None:
        return None
    if h5py.check_string_dtype(data.dtype):
        return data.asstr()[()] if data.shape == () else tuple(data.asstr()[()])
    return data[()]


def read_result(path, result: type):
    """Return a ``Result`` read from its file; fields that the file lacks are None."""
    with h5py.File(path, "r") as file:
        values = {f.name: _read(file, f.name.rstrip("_")) for f in dataclasses.fields(result)}
    return result(**values)


def read_settings(path) -> dict:
    """Return the settings that a result file says it was made with."""
    with h5py.File(path, "r") as file:
        return json.loads(file["entry/process/settings"].asstr()[()])


def read_acquisition(path) -> Acquisition:
    """Return the acquisition values in force from ``scan.h5``."""
    return build(Acquisition, {k: v for k, (v, _) in read_acquisition_origins(path).items()})


def read_acquisition_origins(path) -> dict:
    """Return ``{key: (value, origin)}`` of the acquisition values in force from ``scan.h5``."""
    with h5py.File(path, "r") as file:
        return {key: (_plain(data), data.attrs["origin"]) for key, data in file["entry/acquisition"].items()}


def _plain(data):
    if h5py.check_string_dtype(data.dtype):
        return data.asstr()[()]
    return data[()].tolist()


@contextmanager
def open_scan(scan, *, memory_mb: float = 2000, threads: int = 1):
    """Yield the recorded counts of ``scan.h5`` as a `Cube`; its ``valid`` is the user's mask."""
    with h5py.File(scan, "r") as file:
        data = _counts(file, scan)
        known, valid = read_acquisition(scan), read(scan, "mask")
        yield Cube(data, acquisition=known, valid=valid, memory_mb=memory_mb, threads=threads)


def _counts(file, scan):
    try:
        return file["entry/counts/data"]
    except (KeyError, OSError) as error:
        link = file["entry/counts"].get("data", getlink=True)
        raise InputError(
            f"the raw file {getattr(link, 'filename', '?')} that the scan links to cannot be opened ({error})",
            where=str(scan),
            expected="the raw HDF5 file where it was when the scan was read",
            do="Put it back, or correct `file:` in the configuration and run again.",
        ) from None


@contextmanager
def open_corrected(scan, preprocess, *, memory_mb: float = 2000, threads: int = 1):
    """Yield corrected patterns: counts of ``scan.h5`` interpolated once while they are read."""
    with open_scan(scan, memory_mb=memory_mb, threads=threads) as cube:
        # Saturated pixels (3) are used: a clipped count is a lower bound, a hole in the beam would be worse.
        found = read(preprocess, "bad_pixel")
        bad = np.isin(found, (1, 2)) | (cube.valid == 0)
        matrix = corrected_to_recorded(
            read(preprocess, "ellipse_ratio"),
            read(preprocess, "ellipse_angle_deg"),
            cube.acquisition.scan_rotation_deg,
            cube.acquisition.detector_flip_y,
        )
        known = (read(preprocess, key) for key in ("offset_counts", "counts_per_electron", "readout_noise_counts"))
        offset, gain, noise = (np.nan if value is None else float(value) for value in known)
        correction = Correction(
            read(preprocess, "centre_px"), matrix, bad, float(np.nan_to_num(offset)), gain, noise, found == 3
        )
        yield dataclasses.replace(cube, correction=correction, valid=read(preprocess, "valid"))


@contextmanager
def open_recorded(scan, preprocess, **options):
    """Yield recorded counts for what may not be centred one by one: the correction's centres are the descan surface.

    Read ``cube.data``, not `Cube.read`; bad and masked pixels are 0 in ``valid``.
    """
    with open_corrected(scan, preprocess, **options) as cube:
        known = dataclasses.replace(cube.correction, centre_px=read(preprocess, "centre_surface_px"))
        yield dataclasses.replace(cube, correction=known, valid=(~known.bad).astype(np.uint8))


@contextmanager
def open_averaged(averaged, acquisition, *, memory_mb: float = 2000, threads: int = 1):
    """Yield the patterns of ``nonlocal_average.h5``: already corrected, never interpolated again."""
    with h5py.File(averaged, "r") as file:
        data = file["entry/patterns/data"]
        if data.attrs["frame"] != "corrected":
            raise ValueError(f"{averaged}: patterns are in the {data.attrs['frame']} frame")
        valid = read(averaged, "valid")
        yield Cube(data, acquisition=acquisition, valid=valid, memory_mb=memory_mb, threads=threads)


@contextmanager
def open_denoised(denoised, scan, preprocess, *, memory_mb: float = 2000, threads: int = 1):
    """Yield the patterns of ``denoised.h5``, which lie as recorded, interpolated once while they are read.

    They have no offset any more, and bad pixels that could be repaired are filled.
    """
    with (
        open_corrected(scan, preprocess, memory_mb=memory_mb, threads=threads) as recorded,
        h5py.File(denoised, "r") as file,
    ):
        data = file["entry/patterns/data"]
        if data.attrs["frame"] != "recorded":
            raise ValueError(f"{denoised}: patterns are in the {data.attrs['frame']} frame")
        bad = recorded.correction.bad
        correction = dataclasses.replace(recorded.correction, bad=bad & ~repairable(bad), offset_counts=0.0)
        yield dataclasses.replace(recorded, data=data, correction=correction)


def _made(source: str, file, stage: str):
    """Return the file of a pattern source.

    Raises
    ------
    InputError
        If it was not made.
    """
    if not file or not Path(file).is_file():
        do = f"Add {stage} to the sample's stages, or take the source corrected."
        where, expected = "orientation: sources, or nmf: source", f"the result of {stage}"
        raise InputError(f"no {source} patterns", where=where, expected=expected, do=do)
    return file


@contextmanager
def open_patterns(source: str, inputs, *, memory_mb: float = 2000, threads: int = 1):
    """Yield a pattern source as a `Cube` in the corrected frame. Only here is it known which source is what.

    Parameters
    ----------
    source : {"corrected", "denoised", "averaged"}
    inputs
        Has ``scan``, ``preprocess`` and, for "denoised", ``denoise``, for "averaged", ``nonlocal_average``.
    """
    options = {"memory_mb": memory_mb, "threads": threads}
    if source == "corrected":
        with open_corrected(inputs.scan, inputs.preprocess, **options) as cube:
            yield cube
    elif source == "denoised":
        file = _made(source, inputs.denoise, "denoise")
        with open_denoised(file, inputs.scan, inputs.preprocess, **options) as cube:
            yield cube
    elif source == "averaged":
        file = _made(source, inputs.nonlocal_average, "nonlocal_average")
        with open_averaged(file, read_acquisition(inputs.scan), **options) as cube:
            yield cube
    else:
        known, found = "corrected, denoised or averaged", f"no pattern source {source!r}"
        raise InputError(found, where="orientation: sources, or nmf: source", expected=known, do="Name one of these.")
