"""HDF5 of any origin: ours, plain, py4DSTEM and EMD, HyperSpy, NeXus, Dectris; what lies otherwise is in `layouts`."""

import re
from dataclasses import fields
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the compression filters that vendors use
import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.errors import InputError
from fourdstem.formats.consistency import check_attributes, check_number, check_storage
from fourdstem.formats.layouts import (
    arina_sidecar,
    arranged,
    hyperspy_metadata,
    is_velox_image,
    open_topspin,
    topspin_scans,
    velox_metadata,
)
from fourdstem.formats.raw import JoinedFrames, RawScan
from fourdstem.formats.units import angle_mrad, axes_metadata, length_angstrom, reciprocal_inv_angstrom

# One scan row of chunks that span several rows should stay decompressed until the next row is read.
_CACHE_BYTES = 64 * 2**20
# A path to a mask on someone else's disk is no use here.
_KEYS = tuple(f.name for f in fields(Acquisition) if f.name != "mask")
# A loose attribute of someone else's file may bear one of our names; signs and senses are conventions, lengths are not.
_LOOSE_KEYS = tuple(k for k in _KEYS if k not in ("scan_rotation_deg", "detector_flip_y", "scan_shape"))


def list_candidates(path) -> list[tuple[str, tuple[int, ...], str]]:
    """Return ``(dataset, shape, dtype)`` of every dataset of 3 or 4 axes that could hold a scan."""
    with _open(path) as file:
        return [(name, data.shape, str(data.dtype)) for name, data in _candidates(file)[0]]


def open_hdf5(path, dataset: str | None = None) -> RawScan:
    """Open the scan in an HDF5 file; see `open_raw`."""
    with _open(path) as file:
        scans = topspin_scans(file)
        names = [] if scans else [_given(file, dataset, path)] if dataset else _chosen(file, path)
    # Every dataset has a chunk cache of its own: where many follow one another each is read once, in order.
    file = _open(path, _CACHE_BYTES if len(names) == 1 else 0)
    try:
        if scans:
            return open_topspin(file, scans, dataset, path)
        data = file[names[0]] if len(names) == 1 else JoinedFrames(tuple(file[name] for name in names))
        stored = [note for name in names for note in check_storage(file[name])]
        data, metadata, notes = _described(file, names[0], data)
        alone = isinstance(data, h5py.Dataset)
        return RawScan(
            data,
            format="HDF5 (Dectris)" if isinstance(data, JoinedFrames) else "HDF5",
            metadata=metadata,
            notes=(*stored, *notes),
            saturation_counts=_saturation(file),
            chunks=data.chunks if alone else None,
            hdf5_location=(data.file.filename, data.name) if alone else None,
            closing=file.close,
        )
    except BaseException:
        file.close()
        raise


def _open(path, cache_bytes: int = 0) -> h5py.File:
    try:
        return h5py.File(path, "r", rdcc_nbytes=cache_bytes)
    except OSError as error:
        raise InputError(
            f"an HDF5 file that cannot be opened ({error})",
            where=str(path),
            expected="a complete HDF5 file",
            do="Copy it again from the microscope; it may be truncated or still be written.",
        ) from None


def _candidates(file: h5py.File) -> tuple[list, list[str]]:
    """Return datasets that could hold a scan, following links, each once; and links that lead nowhere."""
    found, broken, seen, groups = [], [], set(), [("", file)]
    while groups:
        prefix, group = groups.pop(0)
        for key in group:
            name = f"{prefix}/{key}"
            try:
                item = group[key]
            except (KeyError, OSError):
                link = group.get(key, getlink=True)
                broken.append(f"{name} -> {getattr(link, 'filename', '')}{getattr(link, 'path', '')}")
                continue
            info = h5py.h5o.get_info(item.id)
            if (info.fileno, info.addr) in seen:
                continue
            seen.add((info.fileno, info.addr))
            if isinstance(item, h5py.Group):
                groups.append((name, item))
            elif isinstance(item, h5py.Dataset) and _could_be_scan(item):
                found.append((name, item))
    return found, broken


def _could_be_scan(data: h5py.Dataset) -> bool:
    return data.dtype.kind in "uif" and len(data.shape or ()) in (3, 4) and min(data.shape[-2:]) > 1 and data.size > 0


def _chosen(file: h5py.File, path) -> list[str]:
    """Return the name of the scan, or the names of the blocks that it consists of."""
    found, broken = _candidates(file)
    for axes in (4, 3):
        names = [name for name, data in found if data.ndim == axes]
        if axes == 4 and "/counts" in names:
            names = ["/counts"]
        if axes == 3 and len(names) > 1 and all(re.search(r"/data_\d+$", name) for name in names):
            return _blocks(dict(found), sorted(names), path)
        if len(names) == 1:
            return names
        if len(names) > 1:
            raise InputError(
                f"{len(names)} datasets that could be the scan: {_listing(found, names)}",
                where=str(path),
                expected="one of them named in the configuration",
                do=f"Set `dataset:` of the sample, for example `dataset: {names[0]}`.",
            )
    found_text = f"links that lead nowhere: {', '.join(broken)}" if broken else f"only {_contents(file)}"
    raise InputError(
        f"no scan, {found_text}",
        where=str(path),
        expected="a numeric dataset of 4 axes (scan_y, scan_x, detector_y, detector_x) or 3 (frames, y, x)",
        do="Put the linked files beside this one." if broken else "Check that this is the raw file of the scan.",
    )


def _blocks(found: dict, names: list[str], path) -> list[str]:
    if len({(found[name].shape[1:], found[name].dtype) for name in names}) > 1:
        raise InputError(
            f"blocks of frames that differ in shape or type: {_listing(found.items(), names)}",
            where=str(path),
            expected="blocks of one acquisition",
            do="Name one of them by `dataset:`.",
        )
    return names


def _given(file: h5py.File, dataset: str, path) -> str:
    try:
        data = file[dataset]
    except (KeyError, OSError):
        data = None
    if not isinstance(data, h5py.Dataset) or not _could_be_scan(data):
        found, _ = _candidates(file)
        shape = f" of shape {data.shape}, {data.dtype}" if isinstance(data, h5py.Dataset) else ""
        raise InputError(
            f"`{dataset}`{shape} is no scan" if data is not None else f"no dataset `{dataset}`",
            where=str(path),
            expected=f"one of {_listing(found, [n for n, _ in found]) or 'its datasets of 3 or 4 axes (it has none)'}",
            do="Correct `dataset:` of the sample.",
        )
    return "/" + dataset.strip("/")


def _listing(found, names) -> str:
    return ", ".join(f"{name} {data.shape} {data.dtype}" for name, data in found if name in names)


def _contents(file: h5py.File) -> str:
    names = []
    file.visititems(lambda name, item: names.append(f"/{name} {item.shape}") if hasattr(item, "shape") else None)
    return (", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")) or "empty groups"


def _described(file: h5py.File, name: str, data):
    """Return the data with our order of axes, acquisition values (nearest to our own names wins) and notes."""
    dataset = data if isinstance(data, h5py.Dataset) else data.stacks[0]
    axes = _axes(dataset)
    turning = []
    if dataset is data:
        data, axes, turning = arranged(name, dataset, axes)
    metadata, notes = axes_metadata(axes)
    notes += turning
    for values in (
        velox_metadata(dataset) if is_velox_image(name) else {},
        _dectris(file),
        arina_sidecar(file.filename, data.shape[0]) if dataset.ndim == 3 else {},
        _py4dstem(file),
        _hyperspy(dataset),
        _own_attributes(file, name),
        _own_group(file),
    ):
        metadata.update(values)
    if "detector_pixel_inv_angstrom" in metadata:
        metadata.pop("detector_pixel_mrad", None)
    other = [
        f"{key} = {_text(value)}"
        for key, value in dataset.attrs.items()
        if key not in _LOOSE_KEYS and np.size(value) < 9
    ]
    if other:
        notes.append("attributes that are not interpreted: " + ", ".join(other))
    return data, metadata, notes


def _own_group(file) -> dict:
    for place in ("acquisition", "entry/acquisition"):
        if isinstance(file.get(place), h5py.Group):
            return {k: _value(check_number(file[place][k])) for k in _KEYS if k in file[place]}
    return {}


def _own_attributes(file, name: str) -> dict:
    parts = name.split("/")
    places = ["/".join(parts[:n]) or "/" for n in range(1, len(parts) + 1)]
    return {k: _value(check_attributes(file[p])[k]) for p in places for k in _LOOSE_KEYS if k in file[p].attrs}


def _axes(dataset) -> list[tuple[float, str]]:
    """Return (scale, unit) of each axis, from HyperSpy's, EMD's or NeXus's way to write them."""
    group, out = dataset.parent, []
    named = group.attrs.get("axes", ())
    named = [named] if isinstance(named, (str, bytes)) else list(named)
    first = 0 if "dim0" in group else 1
    for i in range(dataset.ndim):
        if f"axis-{i}" in group:
            attrs = check_attributes(group[f"axis-{i}"])
            out.append((float(attrs.get("scale", 0)), _text(attrs.get("units", ""))))
            continue
        key = f"dim{i + first}" if f"dim{i + first}" in group else _text(named[i]) if len(named) == dataset.ndim else ""
        values = group[key] if key and key in group else None
        out.append(_spacing(values) if isinstance(values, h5py.Dataset) else (0.0, ""))
    return out


def _spacing(values) -> tuple[float, str]:
    """Scale and unit of an axis given by its values; EMD may write the first two only."""
    unit = _text(values.attrs.get("units", ""))
    numbers = check_number(values) if values.dtype.kind in "uif" and values.ndim == 1 else ()
    return (float(numbers[-1] - numbers[0]) / (len(numbers) - 1) if len(numbers) > 1 else 0.0), unit


def _hyperspy(dataset) -> dict:
    group = dataset.parent
    if "axis-0" not in group:
        return {}
    axes = [check_attributes(group[f"axis-{i}"]) for i in range(dataset.ndim)]
    instrument = group.get("metadata/Acquisition_instrument/TEM")
    where = f"{dataset.file.filename}:{dataset.name}"
    return hyperspy_metadata(axes, {} if instrument is None else check_attributes(instrument), where)


def _py4dstem(file) -> dict:
    """Read the calibration bundle of py4DSTEM 0.14, which stands beside the cube."""
    places = [f"{root}/metadatabundle/calibration" for root in file]
    group = next((file[p] for p in places if p in file), {})
    values = {key: _value(check_number(group[key])) for key in group if isinstance(group[key], h5py.Dataset)}
    pixel, step = values.get("Q_pixel_size"), values.get("R_pixel_size")
    inverse = reciprocal_inv_angstrom(values.get("Q_pixel_units"))
    angle = angle_mrad(values.get("Q_pixel_units"))
    length = length_angstrom(values.get("R_pixel_units"))
    out = {}
    if inverse and pixel:
        out["detector_pixel_inv_angstrom"] = pixel * inverse
    elif angle and pixel:
        out["detector_pixel_mrad"] = pixel * angle
    if length and step:
        out["scan_step_angstrom"] = (step * length, step * length)
    return out


def _dectris(file) -> dict:
    energy = file.get("entry/instrument/detector/detectorSpecific/photon_energy")
    volts = float(check_number(energy)) if isinstance(energy, h5py.Dataset) else 0.0
    return {"beam_energy_kev": volts / 1e3} if volts > 0 else {}


def _saturation(file) -> float | None:
    value = file.get("entry/instrument/detector/saturation_value")
    return float(check_number(value)) if isinstance(value, h5py.Dataset) else None


def _value(stored):
    if isinstance(stored, (bytes, str)):
        return _text(stored)
    plain = np.asarray(stored).tolist()
    if isinstance(plain, list):
        return plain[0] if len(plain) == 1 else tuple(plain)
    return plain


def _text(value) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def is_hdf5(path: Path) -> bool:
    """Tell whether the file begins as HDF5 does."""
    return h5py.is_hdf5(path)
