"""Patterns for other programs: NanoMEGAS blockfiles, HyperSpy's .hspy, py4DSTEM's .emd (EMD 1.0).

RosettaSciIO writes headers and axes of the first two, the patterns are filled in unit by unit: a scan may be larger
than memory, and the order of chunks is not left to chance. Its .emd is EMD 0.2, which py4DSTEM does not read, so that
EMD 1.0 is written here.
"""

from dataclasses import dataclass
from math import ceil
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

import dask.array as da
import h5py
import numpy as np
from rsciio.blockfile import file_writer as write_blockfile
from rsciio.hspy import file_writer as write_hspy

from fourdstem.calibration import Acquisition
from fourdstem.errors import InputError
from fourdstem.files import complete_or_absent

_CHUNK_BYTES = 4 * 2**20
_PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}  # what every HDF5 library can unpack
_EMD_UNITS = {"nm": "nm", "1/Å": "A^-1", "px": "pixels", "": "pixels"}
_BLO_RECORD_HEAD = 6  # bytes before each frame
_BLO_LARGEST = 60000  # the calibration is stored as a whole number of 16 bits: as large as it goes, for its digits


@dataclass(frozen=True)
class _Out:
    """What a writer needs: where, what, whose."""

    path: Path
    cube: object
    title: str

    @property
    def acquisition(self) -> Acquisition:
        return self.cube.acquisition

    @property
    def per_chunk(self) -> int:
        """Patterns in a chunk, a divisor of the 32 of a unit, so that each chunk is written once."""
        frame = 4 * int(np.prod(self.cube.detector_shape))
        return 2 ** int(np.clip(np.log2(max(_CHUNK_BYTES / frame, 1)), 0, 5))

    def patterns(self):
        """Yield ``(unit, patterns)``, float32 (n, detector_y, detector_x), in scan order."""
        return self.cube.map_units(lambda patterns, unit: patterns[: unit.count])


def write_patterns(path, kind: str, cube, title: str) -> None:
    """Write the patterns of a cube, in the corrected frame, with their calibration.

    Parameters
    ----------
    path : path-like
        It gets its name when it is complete.
    kind : {"blo", "hspy", "emd"}
        ``hspy`` and ``emd`` hold float32 counts, the origin of the detector axes at the beam. ``blo`` holds 8 bits:
        level = 255 sqrt(counts / highest count), negative counts as 0; its note says so and names the count.
    cube : Cube
    title : str

    Raises
    ------
    InputError
        If the detector is not square and the format cannot hold that.
    """
    with complete_or_absent(path) as temporary:
        temporary.unlink()  # writers take an empty file for a damaged one
        {"blo": _blo, "hspy": _hspy, "emd": _emd}[kind](_Out(temporary, cube, title))


def _hspy(out: _Out) -> None:
    write_hspy(str(out.path), _signal(out, None), write_dataset=False, show_progressbar=False)
    with h5py.File(out.path, "r+", rdcc_nbytes=0) as file:
        _fill(_patterns_dataset(file["Experiments"][out.title], out), out)


def _emd(out: _Out) -> None:
    with h5py.File(out.path, "w", rdcc_nbytes=0) as file:
        identity = str(uuid5(NAMESPACE_OID, f"fourdstem {out.title}"))  # the same every time
        names = {"authoring_program": "fourdstem", "authoring_user": "", "UUID": identity}
        file.attrs.update({"emd_group_type": "file", "version_major": 1, "version_minor": 0, **names})
        root = file.create_group("datacube_root")
        root.attrs.update({"emd_group_type": "root", "python_class": "Root"})
        group = root.create_group("datacube")
        group.attrs.update({"emd_group_type": "array", "python_class": "DataCube"})
        signal = _signal(out, None)
        for i, axis in enumerate(signal["axes"]):
            dim = group.create_dataset(f"dim{i}", data=axis["offset"] + axis["scale"] * np.arange(2))
            dim.attrs.update({"name": ("Rx", "Ry", "Qx", "Qy")[i], "units": _EMD_UNITS[axis["units"]]})
        _emd_calibration(root, signal["axes"])
        data = _patterns_dataset(group, out)
        data.attrs.update({"units": "pixel intensity", **_instrument(out.acquisition)})
        _fill(data, out)


def _emd_calibration(root: h5py.Group, axes: list[dict]) -> None:
    """What py4DSTEM takes in place of the axes; it knows one scan step, so that two different ones are left out."""
    bundle = root.create_group("metadatabundle")
    bundle.attrs["emd_group_type"] = "metadatabundle"
    group = bundle.create_group("calibration")
    group.attrs.update({"emd_group_type": "metadata", "python_class": "Calibration"})
    values = {"Q_pixel_size": axes[2]["scale"], "Q_pixel_units": _EMD_UNITS[axes[2]["units"]], "QR_flip": False}
    if axes[0]["scale"] == axes[1]["scale"]:
        values |= {"R_pixel_size": axes[0]["scale"], "R_pixel_units": _EMD_UNITS[axes[0]["units"]]}
    for key, value in {**values, "_root_treepath": ""}.items():
        kind = {bool: "bool", str: "string", float: "number"}[type(value)]
        group.create_dataset(key, data=value).attrs["type"] = kind
    targets = group.create_group("_target_paths")
    targets.attrs.update({"type": "list_of_strings", "length": 1})
    targets["0"] = "/datacube"


def _patterns_dataset(group: h5py.Group, out: _Out) -> h5py.Dataset:
    chunks = (1, min(out.per_chunk, out.cube.shape[1]), *out.cube.detector_shape)
    return group.create_dataset("data", out.cube.shape, np.float32, chunks=chunks, **_PACKING)


def _fill(data, out: _Out) -> None:
    for unit, patterns in out.patterns():
        data[unit.where] = patterns


def _blo(out: _Out) -> None:
    ny, nx, *detector = out.cube.shape
    if detector[0] != detector[1]:
        raise InputError(
            f"patterns of {detector[0]} x {detector[1]} px",
            where=out.title,
            expected="square patterns: blockfiles hold no others",
            do="Ask for .hspy or .emd instead.",
        )
    brightness, highest = np.zeros((ny, nx)), 0.0
    for unit, (sums, largest) in out.cube.map_units(_sums_and_largest):
        brightness[unit.where] = sums[: unit.count]
        highest = max(highest, largest)
    highest = highest or 1.0
    image = 255 * np.clip(brightness, 0, None) / (brightness.max() if brightness.max() > 0 else 1)
    blank = da.zeros(out.cube.shape, dtype=np.uint8, chunks=(1, nx, *detector))
    note = f"fourdstem, corrected patterns; level = 255 sqrt(counts / {highest:.6g})"
    signal = _signal(out, blank)
    signal["axes"][2:], signal["original_metadata"] = _blo_detector(out, note)
    if out.acquisition.scan_step_angstrom is None:
        for axis in signal["axes"][:2]:  # a blockfile has no other unit than nm
            axis.update(scale=0.0, units="nm")
    write_blockfile(str(out.path), signal, navigator=np.round(image), show_progressbar=False)
    record = np.dtype([("head", "u1", _BLO_RECORD_HEAD), ("frame", "u1", tuple(detector))])
    start = out.path.stat().st_size - ny * nx * record.itemsize
    frames = np.memmap(out.path, record, "r+", start, (ny, nx))["frame"]
    for unit, patterns in out.patterns():
        frames[unit.where] = np.round(255 * np.sqrt(np.clip(patterns, 0, None) / np.float32(highest)))
    frames.base.flush()


def _instrument(known: Acquisition) -> dict:
    """What EMD has no names for, under ours."""
    keys = ("beam_energy_kev", "convergence_mrad", "precession_mrad")
    return {key: getattr(known, key) for key in keys if getattr(known, key)}


def _sums_and_largest(patterns: np.ndarray, unit) -> tuple[np.ndarray, float]:
    return patterns.sum(axis=(1, 2), dtype=np.float64), float(patterns.max())


def _blo_detector(out: _Out, note: str) -> tuple[list[dict], dict]:
    """Axes in cm and header of a blockfile: pixels per cm at a camera length, of which only the product counts."""
    known = out.acquisition
    header = {"Note": note, "Beam_energy": round(1e3 * (known.beam_energy_kev or 0))}
    pixels_per_100_cm = 100.0
    if known.pixel_inv_angstrom and known.beam_energy_kev:
        product = 1e7 / (1e3 * known.pixel_inv_angstrom * known.wavelength_angstrom)
        header["Camera_length"] = ceil(product / _BLO_LARGEST)
        pixels_per_100_cm = round(product / header["Camera_length"])
    scale = 100 / (pixels_per_100_cm + 0.5)  # the writer cuts its quotient off
    axes = [_axis(i, size, scale, "cm", False) for i, size in enumerate(out.cube.detector_shape, 2)]
    return axes, {"blockfile_header": header}


def _signal(out: _Out, data) -> dict:
    """A signal as RosettaSciIO's writers take it; scan axes in nm, detector axes in 1/Å with the beam at 0."""
    known, pixel = out.acquisition, out.acquisition.pixel_inv_angstrom
    steps = [step / 10 for step in known.scan_step_angstrom or ()] or [1.0, 1.0]
    units = "nm" if known.scan_step_angstrom else ""
    axes = [_axis(i, size, steps[i], units, True) for i, size in enumerate(out.cube.scan_shape)]
    axes += [
        _axis(i, size, pixel or 1.0, "1/Å" if pixel else "px", False)
        for i, size in enumerate(out.cube.detector_shape, 2)
    ]
    tem = {"beam_energy": known.beam_energy_kev, "convergence_angle": known.convergence_mrad}
    tem["rocking_angle"] = float(np.rad2deg(known.precession_mrad * 1e-3)) or None
    return {
        "data": data,
        "axes": axes,
        "metadata": {
            "General": {
                "title": out.title,
                "notes": "corrected by fourdstem: centred, flat, detector axes along the scan axes",
            },
            "Signal": {"signal_type": "electron_diffraction"},
            "Acquisition_instrument": {"TEM": {key: value for key, value in tem.items() if value}},
        },
        "original_metadata": {},
        "tmp_parameters": {},
        "package_info": {"package": "", "package_version": ""},  # of a class for HyperSpy, of which there is none
        "learning_results": {},
        "attributes": {"_lazy": data is not None and not isinstance(data, np.ndarray), "ragged": False},
        "models": {},
    }


def _axis(index: int, size: int, scale: float, units: str, navigate: bool) -> dict:
    offset = 0.0 if navigate else -(size - 1) / 2 * scale
    name = ("y", "x", "ky", "kx")[index]
    return {
        "index_in_array": index,
        "size": size,
        "name": name,
        "scale": float(scale),
        "offset": offset,
        "units": units,
        "navigate": navigate,
    }
