"""What each network is asked for: its batches and its loss."""

from dataclasses import dataclass

import numpy as np
import torch

from fourdstem.methods.training import recording
from fourdstem.methods.training.patterns import SIZE
from fourdstem.networks import denoise, ellipse, layers

SIZES = (SIZE, SIZE, SIZE, 96, 64)  # detectors that batches pretend to come from


class Pool:
    """The latest expected patterns, kept on the device and drawn from at random."""

    def __init__(self, capacity: int, extra: int, device: str):
        self.images = torch.zeros(capacity, SIZE, SIZE, device=device)
        self.extras = torch.zeros(capacity, extra, device=device)
        self.count = self.total = 0

    def add(self, images: np.ndarray, extras: np.ndarray) -> None:
        """Put examples in, in place of the oldest."""
        for first in range(0, len(images), 256):
            some = torch.as_tensor(images[first : first + 256]).to(self.images.device)
            more = torch.as_tensor(extras[first : first + 256]).to(self.images.device)
            capacity = len(self.images)
            where = torch.arange(self.total, self.total + len(some), device=some.device) % capacity
            self.images[where], self.extras[where] = some, more
            self.total += len(some)
            self.count = min(self.total, capacity)

    def draw(self, count: int, generator):
        """Return ``count`` images and their extras, with replacement."""
        chosen = torch.randint(self.count, (count,), generator=generator, device=generator.device)
        return self.images[chosen], self.extras[chosen]


def batch(pool: Pool, count: int, generator, lot: int) -> recording.Recorded:
    """Draw and record patterns; ``lot`` chooses symmetry and size of the detector."""
    image, extra = pool.draw(count, generator)
    image, centre = recording.dihedral(image, extra[:, :2], lot % 8)
    image, centre = recording.cropped(image, centre, SIZES[lot // 8 % len(SIZES)])
    return recording.record(image, centre, extra[:, 2], recording.draw_dose(count, generator), generator)


def outside(recorded: recording.Recorded) -> torch.Tensor:
    """Return 1 where a pixel is valid and clear of the direct disk, (n, 1, y, x)."""
    ny, nx = recorded.electrons.shape[-2:]
    device = recorded.electrons.device
    y = torch.arange(ny, device=device).view(1, ny, 1) - recorded.centre[:, 0].view(-1, 1, 1)
    x = torch.arange(nx, device=device).view(1, 1, nx) - recorded.centre[:, 1].view(-1, 1, 1)
    far = y**2 + x**2 > (1.25 * recorded.radius.view(-1, 1, 1) + 2) ** 2
    return far[:, None].float() * recorded.valid


def normalised_error(found, expected, weight) -> torch.Tensor:
    """Return Σ w (found - expected)² / Σ w expected² of each pattern, shape (n,)."""
    off = (weight * (found - expected) ** 2).sum(dim=(1, 2, 3))
    return off / (weight * expected**2).sum(dim=(1, 2, 3)).clamp_min(1e-6)


def denoise_loss(network, recorded: recording.Recorded, done: float) -> torch.Tensor:
    """Error in units of shot noise, error of the counts outside and inside the direct disk, and that of the sum."""
    z = denoise.apply(network, recorded.electrons, recorded.valid)
    target = 2 * (recorded.expected + 0.375).sqrt()
    noise_units = (recorded.valid * (z - target) ** 2).sum(dim=(1, 2, 3)) / recorded.valid.sum(dim=(1, 2, 3))
    found = denoise.electrons_of(z)
    masked = normalised_error(found, recorded.expected, outside(recorded))
    whole = normalised_error(found, recorded.expected, recorded.valid)
    total = (recorded.expected * recorded.valid).sum(dim=(1, 2, 3))
    kept = (found * recorded.valid).sum(dim=(1, 2, 3)) / total.clamp_min(1) - 1
    parts = (noise_units + 1e-5).sqrt() + (masked + 1e-5).sqrt() + 0.3 * (whole + 1e-5).sqrt() + 0.3 * kept.abs()
    return parts.clamp_max(20).mean()


def centre_loss(network, recorded: recording.Recorded, done: float) -> torch.Tensor:
    """Log-likelihood of the centre; at first also that of a heat map about it, which brings it near."""
    given, _, _ = layers.features(recorded.electrons, recorded.valid)
    centre, spread, heat = network(given)
    r = ((centre - recorded.centre) ** 2).sum(dim=1).clamp_min(1e-10).sqrt()
    likelihood = 2 * spread.log() + r / spread
    ny, nx = (-(-n // 16) * 8 for n in recorded.electrons.shape[-2:])
    y = 2 * torch.arange(ny, device=r.device) + 0.5 - recorded.centre[:, :1]
    x = 2 * torch.arange(nx, device=r.device) + 0.5 - recorded.centre[:, 1:]
    wanted = torch.softmax(-(y[:, :, None] ** 2 + x[:, None, :] ** 2).flatten(1) / (2 * 1.6**2), dim=1)
    about = -(wanted * heat).sum(dim=1)
    return (0.5 * likelihood + (0.5 * (1 - done) ** 3 + 0.01) * about).mean() + 0.1 * r.clamp_max(5).mean()


@dataclass(frozen=True)
class ScanMean:
    """Recorded scan means and their ellipses (n, 2)."""

    electrons: torch.Tensor
    valid: torch.Tensor
    e: torch.Tensor


def mean_batch(pool: Pool, count: int, generator, lot: int) -> ScanMean:
    """Draw and record scan means: 1e4 to 1e8 electrons in all."""
    image, extra = pool.draw(count, generator)
    e = extra[:, :2]
    image, _ = recording.dihedral(image, e, lot % 8)
    sign = torch.ones(2, device=e.device)
    sign[1] = -1.0 if bin(lot & 3).count("1") == 1 else 1.0  # a mirror reverses the angle
    sign[0] = -1.0 if lot & 4 else 1.0  # an exchange of the axes takes θ to 90° - θ
    dose = recording.draw_dose(count, generator, 1e4, 1e8)
    none = torch.zeros(count, 2, device=e.device)
    recorded = recording.record(image, none, none[:, 0], dose, generator)
    return ScanMean(recorded.electrons, recorded.valid, e * sign)


def ellipse_loss(network, recorded: ScanMean, done: float) -> torch.Tensor:
    """Log-likelihood of the ellipse, and its error in units of 1 %."""
    e, spread = network(ellipse.unrolled(recorded.electrons, recorded.valid))
    r = ((e - recorded.e) ** 2).sum(dim=1).clamp_min(1e-14).sqrt()
    return (0.5 * (2 * spread.log() + r / spread) + r / 0.01).mean()
