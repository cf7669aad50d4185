"""From expected patterns to recorded ones, a batch at a time on the device: dose, Poisson, readout, faults, stops."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from fourdstem.methods.training.patterns import SIZE

LEAST_COUNTS, MOST_COUNTS = 1e2, 1e6


@dataclass(frozen=True)
class Recorded:
    """A batch as a network gets it, and its truth.

    Attributes
    ----------
    electrons, valid, expected : Tensor of float32, shape (n, 1, y, x)
        Electrons with known bad pixels repaired; 0 where nothing is known; expected electrons.
    centre : Tensor, shape (n, 2)
        (y, x), px.
    radius, dose : Tensor, shape (n,)
        Of the disks, px; electrons per pattern.
    """

    electrons: torch.Tensor
    valid: torch.Tensor
    expected: torch.Tensor
    centre: torch.Tensor
    radius: torch.Tensor
    dose: torch.Tensor


def draw_dose(count: int, generator: torch.Generator, low=LEAST_COUNTS, high=MOST_COUNTS) -> torch.Tensor:
    """Return log-uniform electrons per pattern, shape (count,)."""
    u = torch.rand(count, generator=generator, device=generator.device)
    return low * (high / low) ** u


def record(image, centre, radius, dose, generator: torch.Generator, faults: bool = True) -> Recorded:
    """Record a batch.

    Parameters
    ----------
    image : Tensor of shape (n, y, x)
        Expected patterns whose sum is 1 (within 128 × 128 px).
    centre, radius, dose : Tensor
        As in `Recorded`.
    generator : torch.Generator
        On the device of the batch.
    faults : bool
        Whether detectors have faults and beam stops; shot noise there always is.
    """
    expected = (image * dose[:, None, None])[:, None]
    electrons = torch.poisson(expected, generator=generator)
    valid = torch.ones_like(electrons)
    if faults:
        electrons = _readout(electrons, generator)
        electrons = _unknown_faults(electrons, generator)
        electrons, valid = _known_faults(electrons, generator)
        valid = valid * _stops(valid.shape, generator)
        electrons = electrons * valid
    return Recorded(electrons, valid, expected, centre, radius, dose)


def _uniform(shape, generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _readout(electrons, generator):
    """Uneven gain in some patterns; readout noise in a third; a few whole electrons in the others."""
    n = len(electrons)
    uneven = 0.03 * _uniform((n, 1, 1, 1), generator) * (_uniform((n, 1, 1, 1), generator) < 0.3)
    shape, device = electrons.shape, electrons.device
    gain = 1 + uneven * torch.randn(shape, generator=generator, device=device)
    noise = 0.5 * _uniform((n, 1, 1, 1), generator) * (_uniform((n, 1, 1, 1), generator) < 0.33)
    return electrons * gain + noise * torch.randn(shape, generator=generator, device=device)


def _unknown_faults(electrons, generator):
    """Hot and dead pixels that nobody has found: a few in every other pattern."""
    n = len(electrons)
    some = (_uniform((n, 1, 1, 1), generator) < 0.5) * 4 / electrons[0].numel()
    lot = _uniform(electrons.shape, generator)
    top = electrons.amax(dim=(1, 2, 3), keepdim=True)
    hot = top * (0.05 + 1.5 * _uniform(electrons.shape, generator)) + 5
    electrons = torch.where(lot < some * 0.5, electrons + hot, electrons)
    return torch.where(lot > 1 - some * 0.5, torch.zeros_like(electrons), electrons)


def _known_faults(electrons, generator):
    """Bad pixels that are known: repaired as `geometry.repair` does, by the mean of their good neighbours."""
    n = len(electrons)
    share = 0.01 * _uniform((n, 1, 1, 1), generator) ** 2
    good = (_uniform(electrons.shape, generator) >= share).float()
    kernel = torch.ones(1, 1, 3, 3, device=electrons.device)
    kernel[0, 0, 1, 1] = 0
    number = functional.conv2d(good, kernel, padding=1)
    mean = functional.conv2d(electrons * good, kernel, padding=1) / number.clamp_min(1)
    repaired = torch.where(good > 0, electrons, mean)
    return repaired, torch.where((good > 0) | (number >= 4), 1.0, 0.0)


def _stops(shape, generator):
    """Beam stops, module gaps and blind corners, in one pattern of eight."""
    n, _, ny, nx = shape
    device = generator.device
    y = torch.arange(ny, device=device).view(1, ny, 1) - (ny - 1) / 2
    x = torch.arange(nx, device=device).view(1, 1, nx) - (nx - 1) / 2
    turn, off = 6.2832 * _uniform((n, 1, 1), generator), 30 * (_uniform((n, 1, 1), generator) - 0.5)
    width = 1 + 6 * _uniform((n, 1, 1), generator)
    along, across = x * turn.cos() + y * turn.sin(), y * turn.cos() - x * turn.sin() - off
    lot = _uniform((n, 1, 1), generator)
    bar = (across.abs() < width) & (along > -2 * width) & (lot < 0.06)
    gap = ((x - off).abs() < 1.6) & (lot > 0.94)
    corner = (along > (0.85 + 0.4 * _uniform((n, 1, 1), generator)) * SIZE / 2) & (lot > 0.06) & (lot < 0.08)
    return (~(bar | gap | corner)).float()[:, None]


def dihedral(image, points, which: int):
    """Turn or mirror a batch, and points in it, by one of the eight symmetries of a square.

    Parameters
    ----------
    image : Tensor of shape (n, y, x)
        Square.
    points : Tensor of shape (n, 2)
        (y, x), px.
    which : int
        0 to 7; 0 changes nothing.
    """
    last = image.shape[-1] - 1
    y, x = points[:, 0], points[:, 1]
    if which & 1:
        image, x = image.flip(-1), last - x
    if which & 2:
        image, y = image.flip(-2), last - y
    if which & 4:
        image, y, x = image.transpose(-1, -2), x, y
    return image.contiguous(), torch.stack([y, x], dim=1)


def cropped(image, centre, size: int):
    """Cut the middle out of a batch: a smaller detector. Returns images and centres."""
    first = (image.shape[-1] - size) // 2
    return image[..., first : first + size, first : first + size], centre - first
