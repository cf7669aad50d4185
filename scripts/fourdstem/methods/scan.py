"""From a raw file to counts: which acquisition values hold, and which part of the scan is taken."""

import dataclasses
import difflib
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from fourdstem.calibration import Acquisition
from fourdstem.errors import ConfigError, InputError
from fourdstem.schema import quantity, setting, unit_of

_KEYS = tuple(f.name for f in dataclasses.fields(Acquisition))
_PIXEL = ("detector_pixel_inv_angstrom", "detector_pixel_mrad")
# No lens of a transmission microscope passes more to a detector; slow electrons are scattered wider.
_LARGEST_HALF_ANGLE_MRAD = 300
_LARGEST_HALF_ANGLE_SLOW_MRAD = 1000
_LINK_CHUNK_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Params:
    """Which part of the scan is taken, for a trial run in minutes."""

    roi: tuple[int, int, int, int] | None = setting(
        None, "Part of the scan, [y0, y1, x0, x1], ends excluded; null takes all of it.", minimum=0
    )
    stride: int = setting(1, "Take every n-th position along scan_y and scan_x.", minimum=1)
    bin: int = setting(1, "Sum n by n detector pixels; an odd remainder is cropped.", minimum=1)


@dataclass(frozen=True)
class Result:
    """What is stored beside the counts, which are streamed."""

    mask: np.ndarray = quantity("detector_y detector_x", "", "pixels that may be used (1) or never (0)")


def compute(detector_shape, params: Params, mask: np.ndarray | None = None) -> Result:
    """Return the mask of the detector after binning.

    Parameters
    ----------
    detector_shape : tuple of int
        (detector_y, detector_x) as recorded.
    params : Params
    mask : ndarray of shape ``detector_shape``, optional
        0 = never use this pixel. A binned pixel is used only if all of its pixels are.
    """
    usable = np.ones(detector_shape, np.uint8) if mask is None else (np.asarray(mask) != 0).astype(np.uint8)
    return Result(mask=_blocks(usable, params.bin).min(axis=(-3, -1)))


def resolve_acquisition(
    file_values: dict, config_values: dict, needed_keys=(), detector_shape=None
) -> tuple[Acquisition, dict[str, str]]:
    """Join what the file says with what the configuration says, which overrides it.

    Parameters
    ----------
    file_values, config_values : dict
        `Acquisition` values; null in the configuration leaves what the file says.
    needed_keys : iterable of str, or dict of list of str
        Keys that must have a value (and the stages that need them). Either detector_pixel key stands for both.
    detector_shape : tuple of int, optional
        (detector_y, detector_x) as recorded, to judge the angles.

    Returns
    -------
    acquisition : Acquisition
    origins : dict
        For every key "file", "config" or "default".

    Raises
    ------
    ConfigError
        Naming every missing, unknown, contradictory or absurd value.
    """
    config = {k: v for k, v in config_values.items() if v is not None}
    known = {k: v for k, v in file_values.items() if k in _KEYS and v is not None}
    if any(k in config for k in _PIXEL):
        known = {k: v for k, v in known.items() if k not in _PIXEL}
    origins = {k: "config" if k in config else "file" if k in known else "default" for k in _KEYS}
    values = {k: _typed(v) for k, v in (known | config).items() if k in _KEYS}
    invalid = (_invalid(k, values[k], origins[k]) for k in values)
    mistakes = [*_misnamed(config), *(m for m in invalid if m), *_missing(values, needed_keys)]
    acquisition = Acquisition(**values)
    mistakes = mistakes or _absurd_angles(acquisition, origins, detector_shape)
    if mistakes:
        raise ConfigError(mistakes, where="the acquisition values of the file and the configuration")
    return acquisition, origins


def _typed(value):
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _misnamed(config: dict) -> list[str]:
    out = []
    for key in (k for k in config if k not in _KEYS):
        close = difflib.get_close_matches(key, _KEYS, 1)
        hint = f"Did you mean `{close[0]}`?" if close else f"The keys are {', '.join(_KEYS)}."
        out.append(f"acquisition.{key} is no acquisition value. {hint}")
    if all(k in config for k in _PIXEL):
        out.append(f"acquisition.{_PIXEL[0]} and acquisition.{_PIXEL[1]} are both given: expected one. Remove one.")
    return out


def _invalid(key: str, value, origin: str) -> str | None:
    """Say what is wrong with one value, by its declaration."""
    if key == "mask" or isinstance(value, bool):
        return None
    field = next(f for f in dataclasses.fields(Acquisition) if f.name == key)
    limits, numbers = field.metadata["limits"], value if isinstance(value, tuple) else (value,)
    wanted = 2 if key in ("scan_shape", "scan_step_angstrom") else 1
    if len(numbers) != wanted or any(isinstance(v, (str, tuple)) for v in numbers):
        what = "[scan_y, scan_x]" if wanted == 2 else "one number"
        return f"acquisition.{key} = {_shown(value)} (from the {origin}): expected {what}. Set it in the configuration."
    wrong = any(
        not np.isfinite(v)
        or v < limits.get("minimum", -np.inf)
        or v > limits.get("maximum", np.inf)
        or v <= limits.get("exclusiveMinimum", -np.inf)
        or v >= limits.get("exclusiveMaximum", np.inf)
        for v in numbers
    )
    if not wrong:
        return None
    signs = {"minimum": ">=", "maximum": "<=", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    allowed = " and ".join(f"{signs[k]} {v:g}" for k, v in limits.items()) or "a finite number"
    hint = "Correct it in the configuration."
    if key == "beam_energy_kev" and 10e3 <= numbers[0] <= 3e6:
        hint = f"That looks like eV: write `beam_energy_kev: {numbers[0] / 1e3:g}`."
    unit = f" {unit_of(key)}" if unit_of(key) else ""
    return f"acquisition.{key} = {_shown(value)} (from the {origin}): expected {allowed}{unit}. {hint}"


def _shown(value) -> str:
    return str(list(value)) if isinstance(value, tuple) else f"{value}"


def _missing(values: dict, needed_keys) -> list[str]:
    docs = {f.name: f.metadata["doc"] for f in dataclasses.fields(Acquisition)}
    out = []
    for key in dict.fromkeys(needed_keys):
        alternatives = _PIXEL if key in _PIXEL else (key,)
        stages = f" (needed by {', '.join(needed_keys[key])})" if isinstance(needed_keys, dict) else ""
        if not any(k in values for k in alternatives):
            names = " or ".join(f"acquisition.{k}" for k in alternatives)
            out.append(
                f"{names} is missing{stages}, in the file and in the configuration: expected a value"
                f"{' in ' + unit_of(key) if unit_of(key) else ''} ({docs[key].rstrip('.')})."
                f" Write `{key}: ...` under `acquisition` of the sample."
            )
    return list(dict.fromkeys(out))


def _absurd_angles(acquisition: Acquisition, origins: dict, detector_shape) -> list[str]:
    """Compare pixel, convergence and detector: a wrong unit shows as a detector or a disk of impossible size."""
    inverse, energy = acquisition.pixel_inv_angstrom, acquisition.beam_energy_kev
    if detector_shape is None or inverse is None or energy is None:
        return []
    key = next(k for k in reversed(_PIXEL) if getattr(acquisition, k) is not None)
    pixel_mrad = inverse * acquisition.wavelength_angstrom * 1e3
    half_angle = pixel_mrad * max(detector_shape) / 2
    largest = _LARGEST_HALF_ANGLE_MRAD if energy >= 60 else _LARGEST_HALF_ANGLE_SLOW_MRAD
    if half_angle > largest:
        hint = "Is it in 1/nm? Then divide by 10." if key == _PIXEL[0] else "Is it the angle of the whole detector?"
        mistake = (
            f"acquisition.{key} = {getattr(acquisition, key):g} (from the {origins[key]}) makes the detector"
            f" of {max(detector_shape)} px reach {half_angle:.0f} mrad: expected at most {largest} mrad. {hint}"
        )
        return [mistake]
    convergence = acquisition.convergence_mrad or 0.0
    diameter_px = 2 * convergence / pixel_mrad
    if diameter_px <= min(detector_shape):
        return []
    mistake = (
        f"acquisition.convergence_mrad = {convergence:g} (from the {origins['convergence_mrad']}) makes disks of"
        f" {diameter_px:.0f} px on a detector of {min(detector_shape)} px with {pixel_mrad:.3g} mrad per pixel:"
        " expected disks that fit. It is the semi-angle; check it and the detector pixel."
    )
    return [mistake]


def resolve_scan_shape(shape, scan_shape, roi=None) -> tuple[int, int]:
    """Return (scan_y, scan_x) of recorded frames, never by a guess.

    Parameters
    ----------
    shape : tuple of int
        Shape of the frames as recorded, 3 or 4 axes.
    scan_shape : tuple of int or None
        From the configuration or the file's header.
    roi : tuple of int, optional
        A stack that ends early (an interrupted scan) is accepted where the roi lies in what was recorded.

    Raises
    ------
    InputError
        If a stack comes without a scan shape, or the two contradict each other.
    """
    recorded, frames = tuple(shape[:-2]), prod(shape[:-2])
    if scan_shape is None and len(recorded) == 2:
        return recorded
    if scan_shape is None:
        raise _shape_error(f"a stack of {frames} frames without a scan shape", frames)
    scan_shape = tuple(scan_shape)
    if scan_shape == recorded or (prod(scan_shape) == frames and (len(recorded) == 1 or 1 in recorded)):
        return scan_shape
    ends_early = len(recorded) == 1 and prod(scan_shape) > frames
    if ends_early and roi is not None and (roi[1] - 1) * scan_shape[1] + roi[3] <= frames:
        return scan_shape
    held = f"{frames} frames" if len(recorded) == 1 else f"a scan of {list(recorded)} positions"
    found = f"scan_shape {list(scan_shape)} ({prod(scan_shape)} positions), but the file holds {held}"
    more = len(recorded) == 1 and frames > prod(scan_shape)
    raise _shape_error(found, frames, _surplus(frames, *scan_shape) if more else "")


def _surplus(frames: int, ny: int, nx: int) -> str:
    """Say how to leave out frames of the flyback, or behind the scan; which they are, the file does not know."""
    row, kept = frames // ny, f"with roi: [0, {ny}, 0, {nx}]"
    if frames % ny:
        return f" If the last {frames - ny * nx} do not belong to it: scan_shape: [{-(-frames // nx)}, {nx}] {kept}."
    first = f"[0, {ny}, {row - nx}, {row}] if they come first"
    return f" If {row - nx} frames of each row are flyback: scan_shape: [{ny}, {row}] {kept}, or {first}."


def _shape_error(found: str, frames: int, hint: str = "") -> InputError:
    pairs = ", ".join(str(list(pair)) for pair in scan_shape_candidates(frames))
    return InputError(
        found,
        where="acquisition.scan_shape",
        expected=f"[scan_y, scan_x] whose product is {frames}, such as {pairs}",
        do="Set acquisition.scan_shape from the acquisition notes; for an interrupted scan give the intended shape"
        f" and a `roi` inside what was recorded.{hint}",
    )


def scan_shape_candidates(frames: int, most: int = 8) -> list[tuple[int, int]]:
    """Return the factor pairs (scan_y, scan_x) of a number of frames, the squarest first."""
    small = [n for n in range(1, int(frames**0.5) + 1) if frames % n == 0]
    pairs = [pair for n in reversed(small) for pair in dict.fromkeys([(n, frames // n), (frames // n, n)])]
    return pairs[:most]


def selected_acquisition(acquisition: Acquisition, params: Params, scan_shape) -> Acquisition:
    """Return the acquisition values of the selected counts.

    A stride lengthens the scan step. Binning lengthens the detector pixel; offsets of the summed pixels add
    up, their readout noise adds in quadrature, the gain stays.
    """
    changes: dict[str, Any] = {"scan_shape": tuple(scan_shape)}
    if acquisition.scan_step_angstrom is not None:
        changes["scan_step_angstrom"] = tuple(float(step * params.stride) for step in acquisition.scan_step_angstrom)
    for key, factor in (*((k, params.bin) for k in _PIXEL), ("offset_counts", params.bin**2)):
        if getattr(acquisition, key) is not None:
            changes[key] = getattr(acquisition, key) * factor
    if acquisition.readout_noise_counts is not None:
        changes["readout_noise_counts"] = acquisition.readout_noise_counts * params.bin
    return dataclasses.replace(acquisition, **changes)


@dataclass(frozen=True)
class Selection:
    """The selected counts, read when sliced as ``[y, x0:x1]``; fits `cube.Cube`.

    Attributes
    ----------
    data : array-like
        Frames as recorded, 3 or 4 axes.
    recorded : tuple of int
        (scan_y, scan_x) before the selection.
    roi : tuple of int
        (y0, y1, x0, x1).
    stride, bin : int
    """

    data: Any
    recorded: tuple[int, int]
    roi: tuple[int, int, int, int]
    stride: int
    bin: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(scan_y, scan_x, detector_y, detector_x) of the selected counts."""
        y0, y1, x0, x1 = self.roi
        scan = (-(-(y1 - y0) // self.stride), -(-(x1 - x0) // self.stride))
        return (*scan, *(int(n) // self.bin for n in self.data.shape[-2:]))

    @property
    def ndim(self) -> int:
        """Number of axes, 4."""
        return 4

    @property
    def dtype(self) -> np.dtype:
        """Type of a count: as recorded in native byte order, or wide enough for the sum of a bin."""
        return _summed_type(np.dtype(self.data.dtype), self.bin)

    def __getitem__(self, where) -> np.ndarray:
        y, xs = where
        if not isinstance(xs, slice):
            return self[y, xs : xs + 1][0]
        start, stop, _ = xs.indices(self.shape[1])
        if stop <= start:
            return np.empty((0, *self.shape[2:]), self.dtype)
        x = self.roi[2] + np.array([start, stop - 1]) * self.stride
        frames = self._frames(self.roi[0] + y * self.stride, int(x[0]), int(x[1]) + 1)
        return _binned(frames, self.bin, self.dtype)

    def _frames(self, y: int, x0: int, x1: int) -> np.ndarray:
        if len(self.data.shape) == 4 and tuple(self.data.shape[:2]) == self.recorded:
            return self.data[y, x0 : x1 : self.stride]
        first = y * self.recorded[1]
        run = slice(first + x0, first + x1, self.stride)
        if len(self.data.shape) == 3:
            return self.data[run]
        return self.data[0, run] if self.data.shape[0] == 1 else self.data[run, 0]


def select(data, scan_shape, params: Params) -> Selection:
    """Return the counts of the roi, every ``stride``-th position, binned, to be read piece by piece.

    Parameters
    ----------
    data : array-like of shape (frames, detector_y, detector_x) or (scan_y, scan_x, detector_y, detector_x)
        As recorded.
    scan_shape : tuple of int
        From `resolve_scan_shape`.
    params : Params

    Raises
    ------
    InputError
        If the roi leaves the scan or a bin exceeds the detector.
    """
    ny, nx = (int(n) for n in scan_shape)
    y0, y1, x0, x1 = params.roi or (0, ny, 0, nx)
    if not (0 <= y0 < y1 <= ny and 0 <= x0 < x1 <= nx):
        raise InputError(
            f"roi {[y0, y1, x0, x1]}",
            where="`roi` of the sample",
            expected=f"[y0, y1, x0, x1] with 0 <= y0 < y1 <= {ny} and 0 <= x0 < x1 <= {nx}",
            do="Correct it, or remove it to take the whole scan.",
        )
    detector = tuple(int(n) for n in data.shape[-2:])
    if params.bin > min(detector):
        raise InputError(
            f"bin {params.bin}",
            where="`bin` of the sample",
            expected=f"at most {min(detector)}, the smaller side of the detector",
            do="Choose a smaller bin.",
        )
    return Selection(data, (ny, nx), (y0, y1, x0, x1), params.stride, params.bin)


def linkable(raw, params: Params, scan_shape=None) -> bool:
    """Tell whether the counts can be linked to instead of copied.

    True for one HDF5 dataset of 4 axes in native byte order, taken whole, that is contiguous or in chunks of
    whole patterns below 16 MiB.

    Parameters
    ----------
    raw : formats.RawScan
    params : Params
    scan_shape : tuple of int, optional
        The scan shape in force, if it was not taken from the file.
    """
    as_stored = scan_shape is None or tuple(scan_shape) == raw.shape[:2]
    whole = params.roi is None and params.stride == 1 and params.bin == 1 and as_stored
    if raw.hdf5_location is None or len(raw.shape) != 4 or not whole or not raw.dtype.isnative:
        return False
    chunk = raw.chunks or (0, 0, *raw.shape[2:])
    return tuple(chunk[2:]) == raw.shape[2:] and prod(chunk) * raw.dtype.itemsize < _LINK_CHUNK_BYTES


def _summed_type(recorded: np.dtype, n: int) -> np.dtype:
    if n == 1 or recorded.kind == "f":
        return np.dtype(np.float32) if recorded == np.float16 and n > 1 else recorded.newbyteorder("=")
    sizes = (s for s in (1, 2, 4, 8) if s >= recorded.itemsize)
    largest = (1 << (8 * recorded.itemsize)) - 1
    size = next((s for s in sizes if largest * n * n < 1 << (8 * s)), 8)
    return np.dtype(f"{recorded.kind}{size}")


def _blocks(frames: np.ndarray, n: int) -> np.ndarray:
    ny, nx = (side // n for side in frames.shape[-2:])
    return frames[..., : ny * n, : nx * n].reshape(*frames.shape[:-2], ny, n, nx, n)


def _binned(frames: np.ndarray, n: int, dtype: np.dtype) -> np.ndarray:
    if n == 1:
        return np.ascontiguousarray(frames, dtype)
    return _blocks(frames, n).sum(axis=(-3, -1), dtype=np.float64 if dtype.kind == "f" else dtype).astype(dtype)
