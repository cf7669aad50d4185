"""Takes shot noise off each pattern by itself: the first network of 4D-PreNet, or the classical way.

Denoised counts are for finding and indexing reflections. They are not quantitative: a network may invent or erase
weak detail, so everything quantitative stays on recorded counts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from fourdstem.cube import UNIT, Cube
from fourdstem.errors import InputError
from fourdstem.geometry import repair, repairable
from fourdstem.networks import denoise as network
from fourdstem.networks.layers import SMALLEST_PX
from fourdstem.networks.weights import load
from fourdstem.schema import quantity, setting

PIXELS_AT_ONCE = UNIT * 128 * 128


@dataclass(frozen=True)
class Params:
    """Denoising of single patterns."""

    method: str = setting(
        "network",
        "The trained network; or gaussian: a blur of variance-stabilised counts.",
        choices=("network", "gaussian"),
    )
    gaussian_sigma_px: float = setting(1.0, "Width of that blur.", above=0, maximum=20)
    precision: str = setting(
        "bf16",
        "Numbers that the network computes in; float32 is slower and differs by less than counting noise.",
        choices=("bf16", "float32"),
    )


@dataclass(frozen=True)
class Result:
    """What was taken off."""

    noise_ratio: np.ndarray = quantity(
        "scan_y scan_x", "", "Spread of what was taken off, by that of counting noise: above 1, detail went with it"
    )
    sum_before: np.ndarray = quantity("scan_y scan_x", "counts", "Recorded counts in the good pixels")


@dataclass(frozen=True)
class Electrons:
    """How recorded counts become electrons.

    Attributes
    ----------
    bad : ndarray of bool, shape (detector_y, detector_x)
        Dead, hot or masked pixels.
    gain, offset, noise : float
        Counts per electron; counts; standard deviation of the readout in counts.
    """

    bad: np.ndarray
    gain: float
    offset: float
    noise: float


def electrons_of(cube: Cube, bad: np.ndarray, gain: float, offset: float, noise: float) -> Electrons:
    """Check what is known of the detector.

    Raises
    ------
    InputError
        If the gain is not known and counts are not integers, or the detector is too small.
    """
    if min(cube.detector_shape) < SMALLEST_PX:
        raise InputError(
            f"a detector of {cube.detector_shape[0]} by {cube.detector_shape[1]} px",
            where="the scan",
            expected=f"at least {SMALLEST_PX} by {SMALLEST_PX} px, the least that the networks were trained on",
            do="Take `denoised` out of orientation.sources, or bin less.",
        )
    if not np.isfinite(gain):
        if not np.issubdtype(cube.data.dtype, np.integer):
            raise InputError(
                "a scan of decimal numbers whose gain could not be measured",
                where="preprocess",
                expected="counts per electron, without which counting noise is not known",
                do="Give acquisition.counts_per_electron, or take `denoised` out of orientation.sources.",
            )
        gain = 1.0
    return Electrons(bad, float(gain), float(np.nan_to_num(offset)), float(np.nan_to_num(noise)))


def compute(cube: Cube, params: Params, out, known: Electrons, weights, device: str = "cpu") -> Result:
    """Denoise every pattern in the frame in which it was recorded.

    Parameters
    ----------
    cube : Cube
        Counts as recorded.
    params : Params
    out : array-like of float32, shape of the cube
        Receives counts without the detector's offset, bad pixels filled; assigned in scan order.
    known : Electrons
    weights : path-like
        Of the network.
    device : {"cpu", "cuda"}

    Returns
    -------
    Result

    Raises
    ------
    InputError
        For weights that are missing or of another version, counts that are not finite, or too little memory on
        the device for a single pattern.
    """
    usable = (~known.bad | repairable(known.bad)).astype(np.float32)
    denoise = _network(params, weights, usable, device) if params.method == "network" else _gaussian(params, usable)
    result = Result(np.full(cube.scan_shape, np.nan, np.float32), np.zeros(cube.scan_shape, np.float32))

    def work(patterns, unit):
        found = np.isfinite(patterns[:, usable > 0])
        if not found.all():
            place = f"the pattern at ({unit.y}, {unit.x0 + int(np.argmin(found.all(axis=1)))})"
            do = "Mask these pixels (acquisition.mask), or take `denoised` out of orientation.sources."
            raise InputError("counts that are not finite", where=place, expected="finite counts in good pixels", do=do)
        electrons = (patterns - np.float32(known.offset)) / np.float32(known.gain)
        electrons = repair(np.nan_to_num(electrons), known.bad) * usable
        clean = _same_sum(denoise(electrons), electrons, usable)
        return clean * np.float32(known.gain), _noise_ratio(clean, electrons, usable, known), electrons.sum(axis=(1, 2))

    threads = torch.get_num_threads()
    try:
        for unit, (clean, ratio, total) in cube.map_units(work):
            out[unit.where] = clean[: unit.count]
            result.noise_ratio[unit.where] = ratio[: unit.count]
            result.sum_before[unit.where] = total[: unit.count] * known.gain
    finally:
        torch.set_num_threads(threads)
    return result


def _same_sum(clean, electrons, usable):
    """Scale patterns to their recorded sum; one without electrons is dark."""
    wanted = np.maximum(electrons.sum(axis=(1, 2), dtype=np.float64), 0)
    there = (clean * usable).sum(axis=(1, 2), dtype=np.float64)
    scale = np.where(there > 0, wanted / np.where(there > 0, there, 1), 0)
    return clean * scale[:, None, None].astype(np.float32)


def _noise_ratio(clean, electrons, usable, known):
    """√(Σ (recorded - clean)² / Σ (clean + readout²)); NaN for a pattern without electrons."""
    off = ((electrons - clean) ** 2 * usable).sum(axis=(1, 2), dtype=np.float64)
    expected = ((clean + (known.noise / known.gain) ** 2) * usable).sum(axis=(1, 2), dtype=np.float64)
    return np.where(expected > 0, np.sqrt(off / np.where(expected > 0, expected, 1)), np.nan)


def _gaussian(params: Params, usable):
    """Anscombe transform, Gaussian over the usable pixels, back."""
    share = np.maximum(gaussian_filter(usable, params.gaussian_sigma_px), 1e-6)

    def denoise(electrons):
        z = 2 * np.sqrt(np.maximum(electrons, 0) + 0.375) * usable
        z = gaussian_filter(z, (0, params.gaussian_sigma_px, params.gaussian_sigma_px)) / share
        return np.maximum((z / 2) ** 2 - 0.375, 0).astype(np.float32)

    return denoise


def _network(params: Params, weights, usable, device: str):
    """The trained network on parts of a unit that fit; how a unit is parted depends on the detector alone."""
    model, _ = load(weights, "denoise")
    model = model.to(device).to(memory_format=torch.channels_last)
    if params.precision == "bf16":
        model = model.to(torch.bfloat16)
    valid = torch.from_numpy(usable).to(device)
    together = int(np.clip(PIXELS_AT_ONCE // usable.size, 1, UNIT))

    @torch.inference_mode()
    def part(electrons, at_once):
        torch.set_num_threads(1)  # in this thread: sums in parallel would depend on their number
        done = []
        for some in torch.from_numpy(electrons)[:, None].split(at_once):
            some = some.to(device)
            done.append(network.electrons_of(network.apply(model, some, valid.expand_as(some))).cpu())
        return torch.cat(done)[:, 0].numpy()

    def denoise(electrons):
        at_once = together
        while True:
            try:
                return part(electrons, at_once)
            except torch.OutOfMemoryError as error:
                if at_once == 1:
                    shape = f"a pattern of {usable.shape[0]} by {usable.shape[1]} px"
                    do = "Run this stage on the CPU: --set-resources denoise:device=cpu."
                    raise InputError(
                        "too little memory on the graphics card", where="denoise", expected=f"room for {shape}", do=do
                    ) from error
                at_once = max(at_once // 2, 1)

    return denoise
