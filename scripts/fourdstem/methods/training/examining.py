"""Tables on structures that training never saw, beside simple classical ways given the best parameters there are."""

import numpy as np
import torch
from torch.nn import functional

from fourdstem.methods.training import recording
from fourdstem.methods.training.objectives import normalised_error, outside
from fourdstem.networks import denoise, ellipse, layers

DOSES = (1e2, 1e3, 1e4, 1e5, 1e6)
CLASSES = ((1, 3), (3, 7), (7, 21))  # of the radius of the disks, px
SIGMAS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
_STEP = 64  # patterns at a time


def gaussian(electrons: torch.Tensor, sigma: float) -> torch.Tensor:
    """Anscombe transform, Gaussian, back, and the sum restored: the classical way."""
    z = denoise.anscombe(electrons)
    reach = int(4 * sigma + 1)
    k = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=z.device) / sigma) ** 2)
    k = (k / k.sum()).view(1, 1, -1, 1)
    z = functional.pad(z, (reach,) * 4, mode="reflect")
    z = functional.conv2d(functional.conv2d(z, k), k.transpose(2, 3))
    return restored(denoise.electrons_of(z), electrons, torch.ones_like(electrons))


def restored(found, electrons, valid) -> torch.Tensor:
    """Scale a pattern to the sum of what was recorded in the valid pixels."""
    wanted = (electrons * valid).sum(dim=(1, 2, 3), keepdim=True).clamp_min(0)
    return found * (wanted / (found * valid).sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6))


def by_class(radius: np.ndarray):
    """Yield the label of each class of radii, "all" first, and which patterns are in it."""
    yield "all", np.ones(len(radius), bool)
    for low, high in CLASSES:
        yield f"{low}-{high} px", (radius >= low) & (radius < high)


@torch.no_grad()
def denoise_table(network, tuning, test, seed: int, run) -> list[tuple]:
    """Rows of the test of the first network.

    Parameters
    ----------
    network : Module
    tuning, test : tuple of Tensor
        Images and extras, to tune the classical way on and to test on.
    seed : int
        Of the noise.
    run : callable
        ``run(network, ...)`` context, see `fitting.precise`.
    """
    table = []
    for dose in DOSES:
        best = min(SIGMAS, key=lambda s: _score(tuning, dose, seed, lambda r, s=s: gaussian(r.electrons, s)))
        ways = {
            "recorded": lambda r: r.electrons,
            f"gaussian {best:g}": lambda r, s=best: gaussian(r.electrons, s),
            "network": lambda r: network_denoised(network, r, run),
        }
        for way, function in ways.items():
            numbers = measured(test, dose, seed + 1, function)
            for label, chosen in by_class(test[1][:, 2].cpu().numpy()):
                for measure, values in numbers.items():
                    finite = values[chosen & np.isfinite(values)]
                    if len(finite):
                        table.append(("denoise", way, dose, label, f"{measure} mean", finite.mean(), len(finite)))
                        table.append(("denoise", way, dose, label, f"{measure} median", np.median(finite), len(finite)))
    return table


def network_denoised(network, recorded, run) -> torch.Tensor:
    """Denoised electrons, their sum that of the recorded ones."""
    with run():
        z = denoise.apply(network, recorded.electrons, recorded.valid)
    return restored(denoise.electrons_of(z), recorded.electrons, recorded.valid)


def recorded_patterns(data, dose, seed, first, faults):
    """Record 64 patterns from the ``first`` on; return them (`recording.Recorded`) and their extras."""
    image, extra = (d[first : first + _STEP] for d in data)
    generator = torch.Generator(image.device).manual_seed(seed * 1000 + first)
    doses = torch.full((len(image),), dose, device=image.device)
    return recording.record(image, extra[:, :2], extra[:, 2], doses, generator, faults), extra


def _score(data, dose, seed, function) -> float:
    total = []
    for first in range(0, len(data[0]), _STEP):
        r, _ = recorded_patterns(data, dose, seed, first, False)
        total.append(normalised_error(function(r), r.expected, outside(r)))
    return float(torch.cat(total).mean())


def measured(data, dose, seed, function) -> dict[str, np.ndarray]:
    """Return errors, recall, false spots and change of sum of every pattern; ``function`` takes a `Recorded`."""
    out = {"masked error": [], "whole error": [], "recall": [], "false spot": [], "change of sum": []}
    for first in range(0, len(data[0]), _STEP):
        r, extra = recorded_patterns(data, dose, seed, first, False)
        found = function(r)
        out["masked error"].append(normalised_error(found, r.expected, outside(r)))
        out["whole error"].append(normalised_error(found, r.expected, r.valid))
        out["change of sum"].append((found.sum(dim=(1, 2, 3)) / r.electrons.sum(dim=(1, 2, 3)).clamp_min(1) - 1).abs())
        recall, false = kept_spots(found, r, extra[:, 4:].reshape(len(extra), -1, 3), dose)
        out["recall"].append(recall)
        out["false spot"].append(false)
    return {k: torch.cat(v).float().cpu().numpy() for k, v in out.items()}


def _disk_sums(image, radius) -> torch.Tensor:
    """Sum over a disk about every pixel, by FFT; each pattern has its own radius."""
    ny, nx = image.shape[-2:]
    y = torch.minimum(torch.arange(ny), ny - torch.arange(ny)).to(image.device).view(1, ny, 1)
    x = torch.minimum(torch.arange(nx), nx - torch.arange(nx)).to(image.device).view(1, 1, nx)
    disk = (y**2 + x**2 <= radius.clamp_min(1.0).view(-1, 1, 1) ** 2).float()
    return torch.fft.irfft2(torch.fft.rfft2(image[:, 0]) * torch.fft.rfft2(disk), s=(ny, nx))


def kept_spots(found, recorded, spots, dose):
    """Share of true reflections that keep half of what their disk holds above its surroundings; and false spots.

    True reflections have 10 expected electrons. A false spot is a disk of 10 electrons and half of its content more
    than expected, in a pattern without any reflection, away from the direct disk.
    """
    n = len(found)
    inner, wide = _disk_sums(found, recorded.radius), _disk_sums(found, 1.6 * recorded.radius + 1)
    inner_true = _disk_sums(recorded.expected, recorded.radius)
    wide_true = _disk_sums(recorded.expected, 1.6 * recorded.radius + 1)
    area, wide_area = (float(np.pi) * a**2 for a in (recorded.radius.clamp_min(1), 1.6 * recorded.radius + 1))
    ratio = (area / (wide_area - area)).view(-1, 1, 1)
    above, above_true = inner - (wide - inner) * ratio, inner_true - (wide_true - inner_true) * ratio
    y, x = (spots[..., k].round().long().clamp(0, found.shape[-1] - 1) for k in (0, 1))
    at = torch.arange(n, device=found.device)[:, None]
    clear = outside(recorded)[at, 0, y, x] > 0
    real = (spots[..., 2] * dose >= 10) & clear & (above_true[at, y, x] >= 5)
    kept = real & (above[at, y, x] >= 0.5 * above_true[at, y, x])
    recall = torch.where(real.any(1), kept.sum(1) / real.sum(1).clamp_min(1), float("nan"))
    extra = inner - inner_true
    false = ((extra > 10) & (extra > 0.5 * inner_true) & (outside(recorded)[:, 0] > 0)).flatten(1).any(1).float()
    return recall, torch.where(spots[..., 2].amax(1) > 0, float("nan"), false)


@torch.no_grad()
def centre_table(network, test, seed: int, run) -> list[tuple]:
    """Rows of the test of the second network, beside correlation with the true disk and the bound."""
    table = []
    radius = test[1][:, 2].cpu().numpy()
    for dose in DOSES:
        errors, sigma, bound = {"network": [], "disk correlation": []}, [], []
        for first in range(0, len(test[0]), _STEP):
            r, _ = recorded_patterns(test, dose, seed + 2, first, False)
            with run():
                centre, spread, _ = network(layers.features(r.electrons, r.valid)[0])
            errors["network"].append((centre - r.centre).norm(dim=1))
            errors["disk correlation"].append((correlated(r) - r.centre).norm(dim=1))
            sigma.append(spread)
            bound.append(cramer_rao(r))
        bound, sigma = (torch.cat(v).cpu().numpy() for v in (bound, sigma))
        found = {k: torch.cat(v).cpu().numpy() for k, v in errors.items()}
        for label, chosen in by_class(radius):
            if not chosen.any():
                continue
            rows = [("bound", "median", np.median(bound[chosen])), ("bound", "mean", bound[chosen].mean())]
            for way, r in found.items():
                r = r[chosen]
                measures = {"mean": r.mean(), "median": np.median(r), "95 %": np.quantile(r, 0.95)}
                measures["beyond 1 px"] = (r > 1).mean()
                rows += [(way, k, v) for k, v in measures.items()]
            rows.append(("network", "median of error / spread", np.median(found["network"][chosen] / sigma[chosen])))
            rows.append(("network", "median spread", np.median(sigma[chosen])))
            sure = chosen & (sigma < 0.3)
            if sure.any():
                rows.append(("network", "beyond 1 px where spread < 0.3 px", (found["network"][sure] > 1).mean()))
            table += [("centre", way, dose, label, f"{m} px", v, int(chosen.sum())) for way, m, v in rows]
    return table


def correlated(recorded) -> torch.Tensor:
    """Centre (n, 2) by correlation with log(1 + 10 disk), radius known, within 20 px of the middle."""
    ny, nx = recorded.electrons.shape[-2:]
    device = recorded.electrons.device
    y = torch.minimum(torch.arange(ny), ny - torch.arange(ny)).to(device).view(1, ny, 1)
    x = torch.minimum(torch.arange(nx), nx - torch.arange(nx)).to(device).view(1, 1, nx)
    depth = ((y**2 + x**2).float().sqrt() - recorded.radius.view(-1, 1, 1)) / 0.7
    template = torch.log1p(10 * 0.5 * torch.erfc(depth))
    spectrum = torch.fft.rfft2(recorded.electrons[:, 0]) * torch.fft.rfft2(template).conj()
    score = torch.fft.irfft2(spectrum, s=(ny, nx))
    far = (torch.arange(ny, device=device) - (ny - 1) / 2).abs() > 20
    score = score.masked_fill(far.view(1, -1, 1) | far.view(1, 1, -1), -1e30)
    best = score.flatten(1).argmax(dim=1)
    iy, ix = best // nx, best % nx
    at = torch.arange(len(score), device=device)
    out = []
    for dy, dx, i in ((1, 0, iy), (0, 1, ix)):
        low, mid, high = (score[at, (iy + k * dy) % ny, (ix + k * dx) % nx] for k in (-1, 0, 1))
        bend = (2 * mid - low - high).clamp_min(1e-6)
        out.append(i + (0.5 * (high - low) / bend).clamp(-0.5, 0.5))
    return torch.stack(out, dim=1)


def cramer_rao(recorded) -> torch.Tensor:
    """Cramér–Rao bound of the length of the centre's error (root mean square), from what lies about the direct disk."""
    image = recorded.expected[:, 0]
    near = 1 - outside(recorded)[:, 0]
    information = []
    for axis in (1, 2):  # between neighbours, where slope and mean belong to one place
        following = image.roll(-1, axis)
        part = near * (following - image) ** 2 / (0.5 * (following + image)).clamp_min(1e-9)
        information.append(part.sum(dim=(1, 2)).clamp_min(1e-9))
    return (1 / information[0] + 1 / information[1]).sqrt()


@torch.no_grad()
def ellipse_table(network, test, seed: int, run) -> list[tuple]:
    """Rows of the test of the third network: scan means of ten orientations and more, and of fewer."""
    table = []
    count = test[1][:, 3].cpu().numpy()
    for dose in (1e4, 1e5, 1e6, 1e7, 1e8):
        found, spread = [], []
        for first in range(0, len(test[0]), _STEP):
            r, _ = recorded_patterns(test, dose, seed + 3, first, False)
            with run():
                e, b = network(ellipse.unrolled(r.electrons, r.valid))
            found.append(e)
            spread.append(b)
        e, b = torch.cat(found).cpu().numpy(), torch.cat(spread).cpu().numpy()
        true = test[1][:, :2].cpu().numpy()
        off = np.linalg.norm(e - true, axis=1)
        ratio, ratio_true = (np.exp(2 * np.linalg.norm(v, axis=1)) for v in (e, true))
        turn = np.angle((e[:, 0] + 1j * e[:, 1]) * (true[:, 0] - 1j * true[:, 1]))
        for label, chosen in (("10 orientations and more", count >= 10), ("fewer", count < 10)):
            if not chosen.any():
                continue
            long = chosen & (ratio_true >= 1.02)
            rows = {"mean error of a/b": np.abs(ratio - ratio_true)[chosen].mean()}
            rows["median error of a/b"] = np.median(np.abs(ratio - ratio_true)[chosen])
            rows["mean error of θ, a/b >= 1.02, °"] = (
                np.rad2deg(np.abs(turn[long])).mean() / 2 if long.any() else np.nan
            )
            rows["median of error / spread"] = np.median(off[chosen] / b[chosen])
            rows["median spread"] = np.median(b[chosen])
            sure = chosen & (b < 0.0015)
            rows["share with spread < 0.0015"] = sure.sum() / chosen.sum()
            rows["mean error of a/b, spread < 0.0015"] = (
                np.abs(ratio - ratio_true)[sure].mean() if sure.any() else np.nan
            )
            table += [("ellipse", "network", dose, label, k, v, int(chosen.sum())) for k, v in rows.items()]
    return table
