"""Patterns for other programs: NanoMEGAS blockfiles, HyperSpy's .hspy, NCEM's .emd, by RosettaSciIO's writers.

RosettaSciIO writes everything but the patterns; these are filled in unit by unit, so that a scan may be larger than
memory. (Its .emd writer loads the whole scan, its others leave the order of chunks to chance.)
"""

import os
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import dask.array as da
import h5py
import numpy as np
from rsciio.blockfile import file_writer as write_blockfile
from rsciio.emd import file_writer as write_emd
from rsciio.hspy import file_writer as write_hspy

from fourdstem import __version__
from fourdstem.calibration import Acquisition
from fourdstem.errors import InputError

_CHUNK_BYTES = 4 * 2**20
_PACKING = {"compression": "gzip", "compression_opts": 1, "shuffle": True}  # what every HDF5 library can unpack
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
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)
    try:
        {"blo": _blo, "hspy": _hspy, "emd": _emd}[kind](_Out(temporary, cube, title))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _hspy(out: _Out) -> None:
    write_hspy(str(out.path), _signal(out, None), write_dataset=False, show_progressbar=False)
    with h5py.File(out.path, "r+", rdcc_nbytes=0) as file:
        group = file["Experiments"][out.title]
        chunks = (1, min(out.per_chunk, out.cube.shape[1]), *out.cube.detector_shape)
        data = group.create_dataset("data", out.cube.shape, np.float32, chunks=chunks, **_PACKING)
        for unit, patterns in out.patterns():
            data[unit.where] = patterns


def _emd(out: _Out) -> None:
    ny, nx, *detector = out.cube.shape
    one = np.zeros((1, 1, *detector), np.float32)
    write_emd(str(out.path), _signal(out, one), chunks=(1, min(out.per_chunk, nx), *detector), **_PACKING)
    with h5py.File(out.path, "r+", rdcc_nbytes=0) as file:
        data = file["signals"][out.title]["data"]
        data.resize((*detector[::-1], nx, ny))  # NCEM's order of axes is the other way round
        data.parent.attrs.update(_instrument(out.acquisition))
        for unit, patterns in out.patterns():
            data[:, :, unit.x0 : unit.x1, unit.y] = patterns.T


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
    """What NCEM has no names for, under ours."""
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
        "package_info": {"package": "fourdstem", "package_version": __version__},
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
        "scale": scale,
        "offset": offset,
        "units": units,
        "navigate": navigate,
    }
