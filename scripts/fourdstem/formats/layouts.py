"""Scans in HDF5 that are not one dataset in our order of axes: Velox, EMD, TopSpin; what ARINA and HyperSpy say."""

import json
import xml.etree.ElementTree as ET
from itertools import takewhile
from pathlib import Path

import h5py
import numpy as np

from fourdstem.errors import InputError
from fourdstem.formats.consistency import check_attributes, check_frame_dataset
from fourdstem.formats.raw import ListedFrames, RawScan, TurnedFrames
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom

_GUID = [8, 4, 4, 4, 12]


def arranged(name: str, data, axes: list[tuple[float, str]]):
    """Return the data with our order of axes, their axes likewise, and notes; `TurnedFrames` where they had to turn.

    Velox stores (y, x, frame). EMD 0.2 does not fix an order: RosettaSciIO stores the transpose of its signals, and
    the units tell where lengths follow reciprocal lengths or angles.
    """
    if is_velox_image(name):
        return TurnedFrames(data, (2, 0, 1)), [axes[2], axes[0], axes[1]], []
    if "emd_group_type" not in data.parent.attrs or "dim0" in data.parent:
        return data, axes, []
    detector = [bool(reciprocal_inv_angstrom(unit) or angle_mrad(unit)) for _, unit in axes]
    scan = [bool(length_angstrom(unit)) for _, unit in axes]
    by_unit = data.ndim == 4 and all(detector[:2]) and all(scan[2:])
    if name.startswith("/signals/") or by_unit:
        order = tuple(range(data.ndim))[::-1]
        note = "stored with the detector first: every read walks through the whole file; save it as .hspy"
        return TurnedFrames(data, order), axes[::-1], [note]
    return data, axes, [] if any(detector) else ["this EMD states no units: its order of axes is taken as stored"]


def is_velox_image(name: str) -> bool:
    """Tell whether a dataset is an image of a Velox file."""
    return name.startswith("/Data/Image/") and name.endswith("/Data")


def velox_metadata(dataset) -> dict:
    """Return what the first frame of a Velox image says: pixel size and beam energy."""
    stored = dataset.parent.get("Metadata")
    if not isinstance(stored, h5py.Dataset) or stored.ndim != 2:
        return {}
    try:
        text = stored[:, 0].astype(np.uint8).tobytes().decode("utf-8", "replace").split("\0")[0]
        tree = json.loads(text)
        volts = float(tree.get("Optics", {}).get("AccelerationVoltage", 0))
        result = tree.get("BinaryResult", {})
        size = result.get("PixelSize", {})
        axes = [(float(size.get(side, 0)), result.get(f"PixelUnit{axis}", "")) for side, axis in _VELOX_AXES]
    except (ValueError, AttributeError, TypeError):
        return {}
    metadata = axes_metadata([(0.0, ""), *axes])[0]
    return metadata | ({"beam_energy_kev": volts / 1e3} if volts > 0 else {})


_VELOX_AXES = (("height", "Y"), ("width", "X"))


def arina_sidecar(master: str, frames: int) -> dict:
    """Return what the microscope's ``NAME.h5`` beside an ARINA ``NAME_master.h5`` says, if it fits the frames."""
    name = Path(master).name
    beside = Path(master).with_name(name.removesuffix("_master.h5") + ".h5")
    if not name.endswith("_master.h5") or not beside.is_file():
        return {}
    try:
        with h5py.File(beside, "r") as file:
            said = {key: float(np.ravel(value)[0]) for key, value in check_attributes(file["STEM Metadata"]).items()}
    except (OSError, KeyError, ValueError, TypeError):
        return {}
    scan = (int(said.get("NumPixelsY", 0)), int(said.get("NumPixelsX", 0)))
    if scan[0] * scan[1] != frames:
        return {}
    out = {"scan_shape": scan}
    if said.get("IsPixelSizeCalibrated") and said.get("Pixel Size", 0) > 0:
        out["scan_step_angstrom"] = (said["Pixel Size"] * 10,) * 2  # nm
    return out


def hyperspy_metadata(axes: list, instrument, where: str) -> dict:
    """Return what HyperSpy says of a signal beside its calibrated axes: energy, convergence, precession.

    Parameters
    ----------
    axes : list of mapping
        Attributes of each axis, in the order of the data.
    instrument : mapping
        Its metadata of the microscope.
    where : str
        File and dataset, for messages.

    Raises
    ------
    InputError
        If the last two axes are not the detector.
    """
    navigate = [bool(axis.get("navigate", i < len(axes) - 2)) for i, axis in enumerate(axes)]
    if navigate[-2:] != [False, False]:
        raise InputError(
            f"HyperSpy axes whose last two are not the detector (navigate: {navigate})",
            where=where,
            expected="a signal of two signal axes stored last",
            do="Transpose it in HyperSpy (`signal.transpose(signal_axes=2)`) and save it again.",
        )
    values = {
        "beam_energy_kev": instrument.get("beam_energy"),
        "convergence_mrad": instrument.get("convergence_angle"),
    }
    if "rocking_angle" in instrument:  # pyxem's name of the precession angle, degrees
        values["precession_mrad"] = float(instrument["rocking_angle"]) * angle_mrad("deg")
    return {k: float(v) for k, v in values.items() if v}


def topspin_scans(file: h5py.File) -> list[str]:
    """Return the groups of a TopSpin file that list the frames of a scan."""
    groups = [""] + [f"/{key}" for key in file if _is_guid(key)]
    return [
        f"{group}/{key}"
        for group in groups
        if isinstance(file[group or "/"], h5py.Group)
        for key in file[group or "/"]
        if _is_guid(key) and isinstance(file.get(f"{group}/{key}/0/Data"), h5py.Dataset)
    ]


def _is_guid(name: str) -> bool:
    return [len(part) for part in name.split("-")] == _GUID


def open_topspin(file: h5py.File, scans: list[str], dataset: str | None, path) -> RawScan:
    """Open a NanoMEGAS TopSpin scan: a group of frames 0, 1, ... with the beam position beside each."""
    wanted = "/" + dataset.strip("/") if dataset else scans[0]
    if wanted not in scans or (dataset is None and len(scans) > 1):
        raise InputError(
            f"no scan `{dataset}`" if dataset else f"{len(scans)} scans: {', '.join(scans)}",
            where=str(path),
            expected=f"one of {', '.join(scans)}",
            do=f"Set `dataset:` of the sample, for example `dataset: {scans[0]}`.",
        )
    group = file[wanted]
    count = len(group)
    missing = next((i for i in range(count) if f"{i}/Data" not in group), None)
    first = group["0/Data"]
    if missing is not None or first.ndim != 2:
        raise InputError(
            f"{count} frames in {wanted}, of which number {missing} is missing"
            if missing is not None
            else f"frames of shape {first.shape}",
            where=str(path),
            expected="frames 0, 1, 2, ... of 2 axes",
            do="Export it again from TopSpin.",
        )
    notes = ["the angle per detector pixel is not taken: the file does not name its unit"]
    records, metadata = _topspin_raster(group, count)
    if len(records) == 1:
        notes.append("the beam positions are no raster: the scan shape is not taken")
    data = ListedFrames(
        lambda i: check_frame_dataset(group[f"{i}/Data"], first.shape, first.dtype), records, first.shape, first.dtype
    )
    return RawScan(data, "TopSpin", metadata, tuple(notes), closing=file.close)


def _topspin_raster(group, count: int) -> tuple[tuple[int, ...], dict]:
    """Return the scan shape and steps; the shape is (count,) unless first row and last frame agree with a raster."""
    try:
        y0, x0 = _position(group, 0)
        row = list(takewhile(lambda yx: abs(yx[0] - y0) < 1e-12, (_position(group, i) for i in range(count))))
        width = len(row)
        height, rest = divmod(count, width)
        if rest or min(width, height) < 2:
            return (count,), {}
        step_x, step_y = row[1][1] - x0, _position(group, width)[0] - y0
        corner = _position(group, count - 1)
    except (KeyError, IndexError, ValueError, TypeError, ET.ParseError):
        return (count,), {}
    expected = np.array([y0 + (height - 1) * step_y, x0 + (width - 1) * step_x])
    if not np.allclose(corner, expected, rtol=0, atol=0.1 * min(abs(step_x), abs(step_y))):
        return (count,), {}
    return (height, width), axes_metadata([(step_y, "m"), (step_x, "m"), (0.0, ""), (0.0, "")])[0]


def _position(group, number: int) -> tuple[float, float]:
    """Beam position (y, x) of a frame, m."""
    position = ET.fromstring(group[f"{number}/Metadata"][()].decode())[1][0][1]
    return float(position[1].text), float(position[0].text)
