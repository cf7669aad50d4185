"""Ways to take counting noise off: the network, and the classical ones with their settings.

Every way takes recorded electrons (n, 1, y, x) and returns as many; all are scaled to the sum of what was recorded.
"""

import numpy as np
import torch
from skimage.restoration import denoise_nl_means

from fourdstem.methods.training.examining import SIGMAS, gaussian, restored
from fourdstem.networks import denoise

STRENGTHS = (0.4, 0.6, 0.8, 1.1, 1.5)  # of non-local means, in units of the noise
PATCHES = (3, 7)  # px
RANKS = (2, 3, 4, 6, 8, 12, 16)


def recorded(electrons: torch.Tensor) -> torch.Tensor:
    """As recorded."""
    return electrons


def nonlocal_means(electrons: torch.Tensor, setting: tuple[float, int]) -> torch.Tensor:
    """Non-local means of the Anscombe transform (Buades, Coll & Morel, doi:10.1109/CVPR.2005.38), by scikit-image."""
    strength, patch = setting
    z = denoise.anscombe(electrons)[:, 0].numpy()
    options = {"patch_size": patch, "patch_distance": 6, "h": strength, "sigma": 1.0, "fast_mode": True}
    done = np.stack([denoise_nl_means(one, **options) for one in z])
    return _back(torch.from_numpy(done.astype(np.float32))[:, None], electrons)


def principal(electrons: torch.Tensor, rank: int) -> torch.Tensor:
    """First components of a scan's patterns, Anscombe transformed, their mean taken off."""
    z = denoise.anscombe(electrons).flatten(1).double()
    mean = z.mean(dim=0)
    value, vector = torch.linalg.eigh((z - mean) @ (z - mean).T)
    chosen = vector[:, value.argsort(descending=True)[:rank]]
    done = chosen @ (chosen.T @ (z - mean)) + mean
    return _back(done.float().view_as(electrons), electrons)


def _back(z, electrons) -> torch.Tensor:
    return restored(denoise.electrons_of(z), electrons, torch.ones_like(electrons))


def network(model, device: str):
    """Return the way of the network: bfloat16, as the stage `denoise` computes by default."""
    model = model.to(device).to(memory_format=torch.channels_last).to(torch.bfloat16)

    @torch.inference_mode()
    def way(electrons):
        some = electrons.to(device)
        found = denoise.electrons_of(denoise.apply(model, some, torch.ones_like(some)))
        return restored(found, some, torch.ones_like(some)).cpu()

    return way


SINGLE = {  # ways for one pattern by itself, with the settings that are tried
    "gaussian": (gaussian, SIGMAS),
    "non-local means": (nonlocal_means, tuple((h, p) for p in PATCHES for h in STRENGTHS)),
}
OF_SCANS = {"principal components": (principal, RANKS)}
