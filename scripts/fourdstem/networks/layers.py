"""What the networks are built of: blocks without normalisation, and the input that all of them share.

Without batch statistics a pattern's answer does not depend on its companions, nor on the size of the detector.
"""

import torch
from torch import nn
from torch.nn import functional

CHANNELS = 4  # of `features`
SMALLEST_PX = 64  # of a side of the detectors that the networks are trained on


def features(electrons: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return network input, variance-stabilised counts, and the scale of each pattern.

    ``z = 2 √(max(I, 0) + 3/8)`` (Anscombe 1948, doi 10.1093/biomet/35.3-4.246) has unit shot noise. It is divided by
    a robust constant of the pattern (of the brightest 4 × 4 blocks, on which a lone pixel has little hold), which is
    returned so that it can be undone and is shown to the network, for it tells the dose.

    Parameters
    ----------
    electrons : Tensor of float32, shape (n, 1, y, x)
        Electrons per pixel, bad pixels repaired.
    valid : Tensor of float32, shape (n, 1, y, x)
        0 = unknown pixel; its electrons do not matter.

    Returns
    -------
    input : Tensor, shape (n, 4, y, x)
        z by scale, squashed detail of z in units of noise, valid, logarithm of the scale.
    z : Tensor, shape (n, 1, y, x)
    scale : Tensor, shape (n, 1, 1, 1)
    """
    clean = electrons.clamp_min(0) * valid
    blocks = functional.avg_pool2d(clean, 4).flatten(1)
    brightest = blocks.topk(8, dim=1).values.mean(dim=1)
    scale = (2 * (brightest + 0.375).sqrt()).view(-1, 1, 1, 1)
    z = 2 * (clean + 0.375).sqrt()
    detail = z - functional.avg_pool2d(z, 3, stride=1, padding=1, count_include_pad=False)
    detail = detail / (4 + detail.abs())
    told = (scale.log() / 3).expand_as(z)
    return torch.cat([z / scale * valid, detail * valid, valid, told], dim=1), z, scale


def padded(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Append zeros below and to the right until both sides are multiples."""
    ny, nx = image.shape[-2:]
    return functional.pad(image, (0, -nx % multiple, 0, -ny % multiple))


class Block(nn.Module):
    """Two 3 × 3 convolutions added to their input; begins as the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x):
        """Return a tensor of the same shape."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Down(nn.Module):
    """Half the resolution, another width."""

    def __init__(self, width: int, wider: int):
        super().__init__()
        self.conv = nn.Conv2d(width, wider, 2, stride=2)

    def forward(self, x):
        """Return (n, wider, y / 2, x / 2)."""
        return functional.relu(self.conv(x))


class Up(nn.Module):
    """Twice the resolution, another width."""

    def __init__(self, width: int, narrower: int):
        super().__init__()
        self.conv = nn.Conv2d(width, 4 * narrower, 1)

    def forward(self, x):
        """Return (n, narrower, 2 y, 2 x)."""
        return functional.pixel_shuffle(self.conv(x), 2)


class Gate(nn.Module):
    """Additive attention on a skip connection (Attention U-Net, arXiv:1804.03999)."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.skip = nn.Conv2d(width, inner, 1)
        self.signal = nn.Conv2d(width, inner, 1)
        self.weight = nn.Conv2d(inner, 1, 1)
        nn.init.constant_(self.weight.bias, 1.0)

    def forward(self, skip, signal):
        """Return the skip connection, weighted by how much of it the coarser level asks for."""
        return skip * torch.sigmoid(self.weight(functional.relu(self.skip(skip) + self.signal(signal))))


class Merge(nn.Module):
    """Up to the next finer level, with a gated skip connection from there."""

    def __init__(self, width: int, narrower: int):
        super().__init__()
        self.up = Up(width, narrower)
        self.gate = Gate(narrower, max(narrower // 2, 8))
        self.mix = nn.Conv2d(2 * narrower, narrower, 1)

    def forward(self, coarse, skip):
        """Return (n, narrower, y, x) of the finer level."""
        signal = self.up(coarse)
        return functional.relu(self.mix(torch.cat([signal, self.gate(skip, signal)], dim=1)))


def parameters_of(network: nn.Module) -> int:
    """Return how many numbers a network has learnt."""
    return sum(p.numel() for p in network.parameters())
