"""How much noise each way takes off, what it erases and what it invents."""

import time

import numpy as np
import torch
from torch.nn import functional

from fourdstem.methods.evaluate_preprocess import ways
from fourdstem.methods.training.examining import DOSES, by_class, kept_spots
from fourdstem.methods.training.objectives import normalised_error, outside
from fourdstem.methods.training.recording import Recorded, record

_STEP = 48  # patterns at a time


def recorded_of(known, dose: float, seed: int) -> Recorded:
    """Record every pattern at a dose; counting noise alone."""
    generator = torch.Generator().manual_seed(seed)
    doses = torch.full((len(known.images),), dose)
    return record(known.images, known.extras[:, :2], known.extras[:, 2], doses, generator, faults=False)


def table(known: dict, spotless, tuning, scans, tuning_scans, network, seed: int, device: str, say) -> list[tuple]:
    """Rows of every way, every set of patterns and every dose.

    Parameters
    ----------
    known : dict of str to Known
        Single patterns to test on; the first is that of the table by class of radius.
    spotless : Known
        Patterns without reflections.
    tuning : Known
        Of the structures that the networks were trained on: settings of classical ways are chosen there, by dose.
    scans, tuning_scans : list of Known
        Small scans, likewise.
    network : callable
        See `ways.network`.
    seed : int
        Of the noise.
    device : str
        Name of what computes the network.
    say : callable
    """
    rows, spent = [], {}
    for dose in DOSES:
        chosen = {"recorded": ways.recorded, "network": network}
        for name, (way, settings) in ways.SINGLE.items():
            chosen[name] = _tuned(rows, name, way, settings, [tuning], dose, seed)
        for label, some in known.items():
            of_label = _all_ways(chosen, some, dose, seed + 1, spent)
            for name, told in of_label.items():
                rows += _rows(label, name, dose, some.radii if label == "patterns" else None, told)
        rows += _false(chosen, spotless, dose, seed + 2)
        for name, (way, settings) in ways.OF_SCANS.items():
            chosen[name] = _tuned(rows, name, way, settings, tuning_scans, dose, seed)
        whole = [_all_ways(chosen, scan, dose, seed + 3, {}, len(scan.images)) for scan in scans]
        for name in chosen:
            together = {k: np.concatenate([told[name][k] for told in whole]) for k in whole[0][name]}
            rows += _rows("scans", name, dose, None, together)
        say(f"denoising at {dose:g} electrons per pattern done")
    where = {"network": device}
    for name, (seconds, count) in spent.items():
        told, rate = "patterns per second of processor time", count / max(seconds, 1e-9)
        rows.append(("denoise", "speed", name, "", where.get(name, "processor"), told, rate, count))
    return rows


def _tuned(rows, name, way, settings, known, dose, seed):
    """Return a way with the setting whose mean error outside the direct disk is least on the training's structures."""
    recorded = [recorded_of(some, dose, seed) for some in known]

    def error(setting):
        return np.mean([_error(way(r.electrons, setting), r).mean() for r in recorded])

    best = min(settings, key=error)
    text = " ".join(f"{v:g}" for v in best) if isinstance(best, tuple) else f"{best:g}"
    rows.append(("denoise", "tuning", name, dose, "", "setting", text, len(known)))
    return lambda electrons: way(electrons, best)


def _error(found, recorded):
    return normalised_error(found, recorded.expected, outside(recorded)).numpy()


def _all_ways(chosen, known, dose, seed, spent, step=_STEP) -> dict:
    """Measures of every way: {way: {measure: one number per pattern}}."""
    recorded = recorded_of(known, dose, seed)
    spots = known.extras[:, 4:].reshape(len(known.extras), -1, 3)
    told = {}
    for name, way in chosen.items():
        begun = time.process_time()
        found = torch.cat([way(some) for some in recorded.electrons.split(step)])
        seconds, count = spent.get(name, (0.0, 0))
        spent[name] = seconds + time.process_time() - begun, count + len(found)
        told[name] = measures(found, recorded, spots, dose)
    return told


def _false(chosen, spotless, dose, seed) -> list[tuple]:
    """Rows of how many patterns without reflections show a spot."""
    recorded, rows = recorded_of(spotless, dose, seed), []
    none = torch.zeros(len(spotless.images), 1, 3)
    for name, way in chosen.items():
        found = torch.cat([way(some) for some in recorded.electrons.split(_STEP)])
        told = {"false spot": kept_spots(found, recorded, none, dose)[1].numpy()}
        rows += _rows("without reflections", name, dose, None, told)
    return rows


def measures(found, recorded: Recorded, spots, dose: float) -> dict[str, np.ndarray]:
    """Return {measure: (n,)}; recall is NaN without a reflection of 10 electrons, false spots are where there is one.

    Parameters
    ----------
    found : Tensor of shape (n, 1, y, x)
        Electrons.
    recorded : Recorded
    spots : Tensor of shape (n, SPOTS, 3)
    dose : float
    """
    clear, everything = outside(recorded), recorded.valid
    recall, false = kept_spots(found, recorded, spots, dose)
    before, after = (image.sum(dim=(1, 2, 3)) for image in (recorded.electrons, found))
    told = {
        "error outside the direct disk": normalised_error(found, recorded.expected, clear),
        "error": normalised_error(found, recorded.expected, everything),
        "PSNR outside the direct disk (dB)": psnr(found, recorded.expected, clear),
        "PSNR (dB)": psnr(found, recorded.expected, everything),
        "SSIM outside the direct disk": ssim(found, recorded.expected, clear),
        "SSIM": ssim(found, recorded.expected, everything),
        "recall": recall,
        "false spot": false,
        "change of sum": (after / before.clamp_min(1) - 1).abs(),
    }
    return {name: values.float().numpy() for name, values in told.items()}


def _peak(expected, weight) -> torch.Tensor:
    return (expected * weight).amax(dim=(1, 2, 3)).clamp_min(1e-12)


def psnr(found, expected, weight) -> torch.Tensor:
    """Peak signal-to-noise ratio (n,) in dB; the peak is the largest expected count where the weight is."""
    square = (weight * (found - expected) ** 2).sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1)
    return 10 * torch.log10(_peak(expected, weight) ** 2 / square.clamp_min(1e-20))


def ssim(found, expected, weight, window: int = 7) -> torch.Tensor:
    """Structural similarity (n,) by uniform windows (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    The range of the data is the largest expected count where the weight is; pixels without weight are 0 in both.
    """
    a, b = (found * weight).double(), (expected * weight).double()

    def mean(image):
        return functional.avg_pool2d(image, window, stride=1)

    more = window**2 / (window**2 - 1)  # unbiased variances
    mean_a, mean_b = mean(a), mean(b)
    of_a, of_b = (more * (mean(x * x) - m * m) for x, m in ((a, mean_a), (b, mean_b)))
    both = more * (mean(a * b) - mean_a * mean_b)
    peak = _peak(expected, weight).double().view(-1, 1, 1, 1)
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    each = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (of_a + of_b + c2))
    inner = weight[..., window // 2 : -(window // 2), window // 2 : -(window // 2)]
    return (each * inner).sum(dim=(1, 2, 3)) / inner.sum(dim=(1, 2, 3)).clamp_min(1)


def _rows(label, way, dose, radii, told) -> list[tuple]:
    """Mean and median of every measure, over all patterns and by class of radius where radii are given."""
    count = len(next(iter(told.values())))
    classes = by_class(radii) if radii is not None else [("all", np.ones(count, bool))]
    rows = []
    for name, chosen in classes:
        for measure, values in told.items():
            finite = values[chosen & np.isfinite(values)]
            if len(finite):
                rows.append(("denoise", label, way, dose, name, f"{measure}, mean", finite.mean(), len(finite)))
                if "spot" not in measure:
                    rows.append(
                        ("denoise", label, way, dose, name, f"{measure}, median", np.median(finite), len(finite))
                    )
    return rows
