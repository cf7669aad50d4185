"""Network 2: where the direct disk is, and how sure that is."""

import itertools

import torch
from torch import nn
from torch.nn import functional

from fourdstem.networks.layers import CHANNELS, Block, Down, Up, padded

MULTIPLE = 16


class Centre(nn.Module):
    """Residual network on pixels taken sixteen at a time, whose heat map is read by a soft-argmax."""

    def __init__(self, widths=(64, 64, 96)):
        super().__init__()
        self.enter = nn.Conv2d(16 * CHANNELS, widths[0], 3, padding=1)
        self.encode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.down = nn.ModuleList(Down(a, b) for a, b in itertools.pairwise(widths))
        self.bottom = nn.Sequential(Block(widths[-1]), Block(widths[-1]))
        self.up = nn.ModuleList(Up(b, a) for a, b in itertools.pairwise(widths))
        self.decode = nn.ModuleList(Block(w) for w in widths[:-1])
        self.heat = nn.Conv2d(widths[0], 4, 3, padding=1)
        self.sure = nn.Sequential(nn.Linear(widths[0] + 3, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, given: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the centre.

        Parameters
        ----------
        given : Tensor of shape (n, 4, y, x)
            From `features`.

        Returns
        -------
        centre : Tensor of float32, shape (n, 2)
            (y, x), px.
        spread : Tensor of float32, shape (n,)
            Scale b of the error in px, by the density ``exp(-r/b) / (2 π b²)`` of its length r.
        heat : Tensor of float32, shape (n, cells)
            Logarithm of the heat map, flattened; cells of 2 × 2 px.
        """
        x = functional.pixel_unshuffle(padded(given, MULTIPLE), 4)
        x = functional.relu(self.enter(x))
        kept = []
        for block, down in zip(self.encode, self.down, strict=True):
            x = block(x)
            kept.append(x)
            x = down(x)
        x = self.bottom(x)
        for k in reversed(range(len(kept))):
            x = self.decode[k](functional.relu(kept[k] + self.up[k](x)))
        return self._read(x, given[:, 3, 0, 0].float())

    def _read(self, x, told):
        """Soft-argmax of the heat map, in float32 whatever the network computes in."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            heat = functional.log_softmax(functional.pixel_shuffle(self.heat(x), 2).flatten(1), dim=1)
            share = heat.exp()
            ny, nx = 2 * x.shape[-2], 2 * x.shape[-1]
            y = 2 * torch.arange(ny, device=x.device) + 0.5
            x_ = 2 * torch.arange(nx, device=x.device) + 0.5
            share_2d = share.view(-1, ny, nx)
            by_y, by_x = share_2d.sum(2), share_2d.sum(1)
            centre = torch.stack([by_y @ y, by_x @ x_], dim=1)
            variance = (by_y @ y**2 - centre[:, 0] ** 2) + (by_x @ x_**2 - centre[:, 1] ** 2)
            coarse = functional.avg_pool2d(share_2d[:, None], 2)[:, 0] * 4
            pooled = torch.einsum("nchw,nhw->nc", x, coarse)
            entropy = -(share * heat).sum(dim=1)
            known = torch.stack([told, variance.clamp_min(1e-3).log(), entropy], dim=1)
            spread = self.sure(torch.cat([pooled, known], dim=1))[:, 0]
            return centre, spread.clamp(-7, 4).exp(), heat
