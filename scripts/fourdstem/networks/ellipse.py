"""Network 3: the ellipse of the camera, from the centred mean pattern of a scan."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

AZIMUTHS = 96  # over half a turn: opposite ones are channels of one place
RADII = 112
INNERMOST = 0.07  # of half the detector


def unrolled(electrons: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Sample a centred pattern on ln r and azimuth, where an ellipse moves all rings of an azimuth alike.

    Parameters
    ----------
    electrons, valid : Tensor of float32, shape (n, 1, y, x)
        The beam lies in the middle.

    Returns
    -------
    Tensor of float32, shape (n, 7, RADII, AZIMUTHS)
        For both ends of each diameter: Anscombe counts by their own scale, their detail along ln r, what is valid;
        and the logarithm of the scale.
    """
    n, _, ny, nx = electrons.shape
    half = (min(ny, nx) - 1) / 2
    r = torch.exp(torch.linspace(np.log(INNERMOST * half), np.log(half - 0.5), RADII, device=electrons.device))
    turn = torch.arange(2 * AZIMUTHS, device=electrons.device) * (np.pi / AZIMUTHS)
    y, x = r[:, None] * torch.sin(turn), r[:, None] * torch.cos(turn)
    grid = torch.stack([x / ((nx - 1) / 2), y / ((ny - 1) / 2)], dim=-1).expand(n, -1, -1, -1)
    both = torch.cat([electrons.clamp_min(0) * valid, valid], dim=1)
    value, share = functional.grid_sample(both, grid, align_corners=True).split(1, dim=1)
    seen = (share > 0.5).float()
    z = 2 * (value / share.clamp_min(0.5) + 0.375).sqrt()
    floor = z.new_tensor(2 * 0.375**0.5)
    z = torch.where(seen > 0, z, floor)
    smooth = functional.avg_pool2d(z, (15, 1), stride=1, padding=(7, 0), count_include_pad=False)
    detail = (z - smooth) * seen
    strength = detail.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-3)
    scale = z.flatten(1).mean(dim=1).view(-1, 1, 1, 1)
    stack = torch.cat([z / scale, (detail / strength).clamp(-6, 6), seen], dim=1)
    stack = torch.cat([stack[..., :AZIMUTHS], stack[..., AZIMUTHS:]], dim=1)
    told = (strength.log() / 3).expand(n, 1, RADII, AZIMUTHS)
    return torch.cat([stack, told], dim=1)


class Turning(nn.Module):
    """3 × 3 convolution that goes round in azimuth."""

    def __init__(self, width: int, wider: int, stride=(1, 1)):
        super().__init__()
        self.conv = nn.Conv2d(width, wider, 3, stride=stride)

    def forward(self, x):
        """Return (n, wider, radii, azimuths)."""
        x = functional.pad(x, (1, 1, 0, 0), mode="circular")
        return self.conv(functional.pad(x, (0, 0, 1, 1)))


class TurningBlock(nn.Module):
    """Two such convolutions added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = Turning(width, width), Turning(width, width)
        nn.init.zeros_(self.second.conv.weight)
        nn.init.zeros_(self.second.conv.bias)

    def forward(self, x):
        """Return a tensor of the same shape."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Ellipse(nn.Module):
    """Residual network in polar coordinates whose answer turns with a pattern of equal Friedel pairs.

    What it says of each azimuth φ is projected on cos 2φ and sin 2φ, so that a round pattern has no ellipse and the
    angle never wraps.
    """

    def __init__(self, widths=(32, 48, 64, 96)):
        super().__init__()
        layers = [Turning(7, widths[0]), nn.ReLU(), TurningBlock(widths[0])]
        for k, stride in enumerate([(2, 1), (2, 2), (2, 2)]):
            layers += [Turning(widths[k], widths[k + 1], stride), nn.ReLU()]
            layers += [TurningBlock(widths[k + 1]), TurningBlock(widths[k + 1])]
        self.trunk = nn.Sequential(*layers)
        self.say = nn.Sequential(nn.Linear(2 * widths[-1], 128), nn.ReLU(), nn.Linear(128, 1))
        self.sure = nn.Sequential(nn.Linear(2 * widths[-1], 128), nn.ReLU(), nn.Linear(128, 1))

    def forward(self, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Find the ellipse.

        Parameters
        ----------
        given : Tensor of shape (n, 7, RADII, AZIMUTHS)
            From `unrolled`.

        Returns
        -------
        e : Tensor of float32, shape (n, 2)
            ε cos 2θ, ε sin 2θ, with ε = ½ ln(a/b), θ from +x towards +y (down).
        spread : Tensor of float32, shape (n,)
            Scale of the length of the error of e, as of the centre.
        """
        x = self.trunk(given)
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            by_azimuth = torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1).transpose(1, 2)
            told = self.say(by_azimuth)[..., 0]
            count = told.shape[1]
            # A place of the coarsest level lies where the strided convolutions centre it: at 0, 4, 8, … azimuths.
            turn = 2 * np.pi / count * torch.arange(count, device=x.device)
            basis = torch.stack([torch.cos(turn), torch.sin(turn)], dim=1)
            spread = self.sure(by_azimuth.mean(dim=1))[:, 0]
            return 0.1 * told @ basis * (2 / count), (spread - 4).clamp(-10, 0).exp()
