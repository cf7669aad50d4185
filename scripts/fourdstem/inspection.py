"""What a raw file holds, from a sample of its patterns, and the sample block to paste into a configuration."""

import json
import re
from dataclasses import dataclass
from math import ceil, prod, sqrt
from pathlib import Path

import numpy as np
from scipy import ndimage

from fourdstem.calibration import Acquisition
from fourdstem.formats import RawScan, open_raw
from fourdstem.methods.scan import Params, scan_shape_candidates, select
from fourdstem.schema import unit_of

_PAIRS = 128
_POSITIONS = 4096
_READ_BYTES = 512 * 2**20
_WANTED = {  # key -> what cannot be done without it
    "beam_energy_kev": "orientation, wavelength",
    "convergence_mrad": "the expected disk radius",
    "scan_shape": "every map",
    "scan_step_angstrom": "scale bars, exported maps",
    "detector_pixel_inv_angstrom": "orientation; or detector_pixel_mrad instead",
}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes
    ----------
    text : str
        For people: the facts, then the sample block.
    stanza : str
        The sample block alone, YAML.
    mean_pattern, max_pattern : ndarray of shape (detector_y, detector_x)
        Of the sampled patterns, counts.
    bright_field, dark_field : dict of str to ndarray
        Virtual images inside and outside the central disk, by a label that says the scan shape; several where
        the shape is not known, none where the scan is too large to read for it.
    gain : float or None
        Counts per electron, from the line of variance over mean.
    """

    text: str
    stanza: str
    mean_pattern: np.ndarray
    max_pattern: np.ndarray
    bright_field: dict
    dark_field: dict
    gain: float | None


def inspect(path, dataset: str | None = None) -> Inspection:
    """Say what a raw file holds.

    Parameters
    ----------
    path : path
    dataset : str, optional
        Dataset of an HDF5 file with several candidates.

    Raises
    ------
    InputError
        As `formats.open_raw`.
    """
    with open_raw(path, dataset) as raw:
        sample = _sample(raw)
        disk = _central_disk(sample["mean"])
        shapes = _scan_shapes(raw)
        bright, dark = _virtual_images(raw, disk, shapes)
        gain = _gain(sample["mean"], sample["variance"])
        stanza = _stanza(path, dataset, raw)
        facts = _facts(path, raw, sample, disk, shapes, gain)
    text = "\n".join([*facts, "", "# sample block: paste it into your configuration, correct what it marks", stanza])
    return Inspection(text, stanza, sample["mean"], sample["max"], bright, dark, gain)


def _frames(raw: RawScan, first: int, count: int) -> np.ndarray:
    """Return consecutive frames in recorded order, from one scan row, as float64."""
    if len(raw.shape) == 3:
        return np.asarray(raw.data[first : first + count], np.float64)
    y, x = divmod(first, raw.shape[1])
    return np.asarray(raw.data[y, x : x + count], np.float64)


def _sample(raw: RawScan) -> dict:
    """Sum neighbouring pairs of patterns spread over the scan; half their squared difference is the variance."""
    total, row = prod(raw.shape[:-2]), raw.shape[-3]
    count = min(_PAIRS, max(1, int(_READ_BYTES / (prod(raw.shape[-2:]) * 16))))
    starts = np.linspace(0, max(total - 2, 0), min(count, max(total // 2, 1))).astype(int) // 2 * 2
    starts = np.where((starts % row == row - 1) & (starts > 0) & (row > 1), starts - 1, starts)
    mean, square = np.zeros(raw.shape[-2:]), np.zeros(raw.shape[-2:])
    highest, lowest, seen, pairs = np.full(mean.shape, -np.inf), np.inf, 0, 0
    for first in np.unique(starts):
        frames = np.nan_to_num(_frames(raw, int(first), 2))
        mean += frames.sum(axis=0)
        highest = np.maximum(highest, frames.max(axis=0))
        lowest, seen = min(lowest, float(frames.min())), seen + len(frames)
        if len(frames) == 2:
            square += (frames[0] - frames[1]) ** 2 / 2
            pairs += 1
    variance = square / pairs if pairs > 1 else None
    return {"mean": mean / seen, "variance": variance, "max": highest, "lowest": lowest, "seen": seen}


def _central_disk(mean: np.ndarray) -> np.ndarray:
    """Mask of the bright region around the brightest place: above half of it after smoothing hot pixels away."""
    smooth = ndimage.gaussian_filter(ndimage.median_filter(mean, 3), 1.0)
    floor = np.median(smooth)
    labels, _ = ndimage.label(smooth >= floor + (smooth.max() - floor) / 2)
    return labels == labels[np.unravel_index(smooth.argmax(), smooth.shape)]


def _scan_shapes(raw: RawScan) -> list[tuple[int, int]]:
    """The scan shape that the file states, or else candidates, none of which is chosen."""
    stated, frames = raw.metadata.get("scan_shape"), prod(raw.shape[:-2])
    if stated and prod(stated) == frames:
        return [tuple(stated)]
    return scan_shape_candidates(frames)


def _virtual_images(raw: RawScan, disk: np.ndarray, shapes) -> tuple[dict, dict]:
    frame_bytes = prod(raw.shape[-2:]) * raw.dtype.itemsize
    most = max(1, min(_POSITIONS, int(_READ_BYTES / frame_bytes)))
    if len(shapes) == 1:
        stride = ceil(sqrt(max(prod(shapes[0]) / most, 1)))
        inside, outside = _sums(select(raw.data, shapes[0], Params(stride=stride)), disk)
        label = f"scan {shapes[0][0]} x {shapes[0][1]}" + (f", every {stride}th position" if stride > 1 else "")
        return {label: inside}, {label: outside}
    frames = prod(raw.shape[:-2])
    if frames > most:
        return {}, {}
    inside, outside = (image.ravel() for image in _sums(select(raw.data, (1, frames), Params()), disk))
    labels = {f"if the scan is {y} x {x}": (y, x) for y, x in shapes if min(y, x) > 1}
    return {k: inside.reshape(s) for k, s in labels.items()}, {k: outside.reshape(s) for k, s in labels.items()}


def _sums(selection, disk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    ny, nx = selection.shape[:2]
    inside, whole = np.zeros((ny, nx)), np.zeros((ny, nx))
    for y in range(ny):
        for x in range(0, nx, 32):
            patterns = np.asarray(selection[y, x : x + 32], np.float64)
            whole[y, x : x + 32] = patterns.sum(axis=(1, 2))
            inside[y, x : x + 32] = patterns[:, disk].sum(axis=1)
    return inside, whole - inside


def _gain(mean: np.ndarray, variance: np.ndarray | None) -> float | None:
    """Slope at zero of variance over mean, counts per electron; None where no line can be seen.

    A parabola is fitted to medians over pixels of like mean: its square term takes up the contrast between
    neighbouring positions, its constant the readout noise.
    """
    if variance is None:
        return None
    order = np.argsort(mean, axis=None)
    parts = np.array_split(order, min(24, order.size // 50) or 1)
    m = np.array([np.median(mean.flat[p]) for p in parts])
    v = np.array([np.median(variance.flat[p]) for p in parts])
    usable = v > 0
    if usable.sum() < 4 or np.ptp(m[usable]) <= 0:
        return None
    design = np.stack([np.ones(usable.sum()), m[usable], m[usable] ** 2], axis=1) / v[usable, None]
    gain = float(np.linalg.lstsq(design, np.ones(usable.sum()), rcond=None)[0][1])
    return gain if gain > 0 else None


def _facts(path, raw: RawScan, sample: dict, disk: np.ndarray, shapes, gain) -> list[str]:
    frames, (ny, nx) = prod(raw.shape[:-2]), raw.shape[-2:]
    size = frames * ny * nx * raw.dtype.itemsize / 2**20
    lines = [f"{path}: {raw.format}, shape {raw.shape}, {raw.dtype.name}, {size:.6g} MB uncompressed"]
    if raw.hdf5_location is not None:
        lines.append(f"dataset: {raw.hdf5_location[1]}, chunks {raw.chunks or 'none (contiguous)'}")
    if len(shapes) == 1:
        lines.append(f"scan shape: {list(shapes[0])}, as the file states")
    else:
        lines.append(f"scan shape: not in the file; {frames} frames could be {', '.join(str(list(s)) for s in shapes)}")
    for key, value in raw.metadata.items():
        if key != "scan_shape":
            lines.append(f"in the file: {key} = {_yaml(value)} {unit_of(key)}".rstrip())
    lines += [f"note: {note}" for note in raw.notes]
    lines.append(
        f"counts in {sample['seen']} patterns: {sample['lowest']:.6g} to {sample['max'].max():.6g},"
        f" mean {sample['mean'].mean():.4g} per pixel, {sample['mean'].sum():.6g} per pattern"
    )
    lines.append(_saturation(raw, sample["max"]))
    centre = ndimage.center_of_mass(disk)
    radius = sqrt(disk.sum() / np.pi)
    lines.append(f"brightest region: about y {centre[0]:.1f}, x {centre[1]:.1f} px, radius {radius:.1f} px")
    lines.append(
        "gain: no line of variance over mean can be seen"
        if gain is None
        else f"gain: about {gain:.3g} counts per electron by the line of variance over mean (a guess)"
    )
    return lines


def _saturation(raw: RawScan, highest: np.ndarray) -> str:
    limit = raw.saturation_counts
    if limit is None and raw.dtype.kind in "ui":
        limit = float(np.iinfo(raw.dtype).max)
    if limit is None:
        return "saturation: not known for floating-point counts"
    pixels = int((highest >= limit).sum())
    return f"saturation: {pixels} pixels reach {limit:.10g} counts in some sampled pattern"


def sample_name(path) -> str:
    """Return the file's name as a sample name: letters, digits, - and _."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", Path(path).stem).strip("_") or "sample"


def _stanza(path, dataset: str | None, raw: RawScan) -> str:
    lines = ["samples:", f"  - name: {sample_name(path)}", f"    file: {json.dumps(str(path), ensure_ascii=False)}"]
    if dataset is not None:
        lines.append(f"    dataset: {dataset}")
    lines.append("    acquisition:")
    keys = [k for k in Acquisition.__dataclass_fields__ if k in raw.metadata or k in _WANTED]
    if "detector_pixel_mrad" in raw.metadata:
        keys.remove("detector_pixel_inv_angstrom")
    for key in keys:
        if key in raw.metadata:
            lines.append(f"      {key}: {_yaml(raw.metadata[key])}  # from the file")
        else:
            unit = f" in {unit_of(key)}" if unit_of(key) else ""
            lines.append(f"      {key}: null  # needed{unit}: {_WANTED[key]}")
    lines.append("    phases: []  # needed for orientation: names defined under `phases:` with their CIF")
    lines.append("    stages: [virtual_image]  # add orientation, nonlocal_average")
    return "\n".join(lines) + "\n"


def _yaml(value) -> str:
    return f"[{', '.join(_yaml(v) for v in value)}]" if isinstance(value, tuple) else json.dumps(value)
