"""Network 1: from a noisy pattern to the expected one."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from fourdstem.networks.layers import CHANNELS, Block, Down, Merge, features, padded

FLOOR = 2 * 0.375**0.5  # z of a pixel without electrons
MULTIPLE = 16


class Denoise(nn.Module):
    """Attention-gated U-Net on pixels taken four at a time, with residual output in units of shot noise.

    A second output says how far each pixel is to be replaced by its neighbours before the residual is added, for
    hot pixels stand out by more than a residual can learn.
    """

    def __init__(self, widths=(32, 64, 96, 128)):
        super().__init__()
        self.enter = nn.Conv2d(4 * CHANNELS, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.down = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(widths))
        self.bottom = nn.Sequential(Block(widths[-1]), Block(widths[-1]))
        self.merge = nn.ModuleList(Merge(b, a) for a, b in itertools.pairwise(widths))
        self.decode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.leave = nn.Conv2d(widths[0], 8, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        """Return residual and replacement (n, 2, y, x) of the input made by `features`."""
        ny, nx = given.shape[-2:]
        x = functional.pixel_unshuffle(padded(given, MULTIPLE), 2)
        x = functional.relu(self.enter(x))
        kept = []
        for block, down in zip(self.encode, self.down, strict=True):
            x = block(x)
            kept.append(x)
            x = down(x)
        x = self.bottom(x)
        for k in reversed(range(len(kept))):
            x = self.decode[k](self.merge[k](x, kept[k]))
        return functional.pixel_shuffle(self.leave(x), 2)[..., :ny, :nx]


def apply(network: nn.Module, electrons: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return z of the expected pattern (n, 1, y, x), see `features`; `electrons_of` undoes it."""
    given, z, _ = features(electrons, valid)
    answer = network(given.to(network.enter.weight.dtype)).float()
    around = 9 * functional.avg_pool2d(z * valid, 3, stride=1, padding=1) - z * valid
    count = 9 * functional.avg_pool2d(valid, 3, stride=1, padding=1) - valid
    neighbours = torch.where(count > 0.5, around / count.clamp_min(0.5), z)
    replaced = torch.sigmoid(answer[:, 1:] - 2) + (1 - valid)
    return z + replaced.clamp_max(1) * (neighbours - z) + answer[:, :1]


def anscombe(electrons: torch.Tensor) -> torch.Tensor:
    """Return ``2 √(max(I, 0) + 3/8)`` (doi:10.1093/biomet/35.3-4.246), whose noise is about 1; see `electrons_of`."""
    return 2 * (electrons.clamp_min(0) + 0.375).sqrt()


def electrons_of(z: torch.Tensor) -> torch.Tensor:
    """Undo the transformation: electrons per pixel, never negative."""
    return (z.clamp_min(FLOOR) / 2) ** 2 - 0.375
