"""What may be said of a species: contrast, its test over columns, pull, and the words."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from fourdstem.methods.template_mask.sites import Cores

FEWEST = 5  # columns, for a test over columns; with fewer the counting noise has to do
EMPTY = 0.25  # a control that shows less than this share of the contrast is empty


@dataclass(frozen=True)
class Contrast:
    """Columns above background in one part of the scan; NaN where there are none."""

    value: float
    sigma: float
    columns: int
    noise: float  # counting noise of a position of the background
    scatter: float  # spatial scatter of the background
    p: float  # chance of at least this contrast where there is none

    @property
    def to_noise(self) -> float:
        """Contrast by counting noise of the background (definition: see the glossary of the report)."""
        return self.value / self.noise if self.noise > 0 else np.nan


NOTHING = Contrast(np.nan, np.nan, 0, np.nan, np.nan, 1.0)


def contrast(image, variance, cores: Cores, area, doubled: bool) -> Contrast:
    """Measure columns against background.

    Parameters
    ----------
    image : ndarray of shape (scan_y, scan_x)
    variance : ndarray of shape (scan_y, scan_x) or float
        Counting noise.
    cores : Cores
    area : ndarray of bool, shape (scan_y, scan_x)
        Where it is measured.
    doubled : bool
        The image was cross-fitted within the area: each pair of positions enters twice, so that the variance of the
        contrast on pure noise is twice that of independent positions.
    """
    label = np.where(area, cores.label, -1)
    background = image[area & cores.background]
    names, count = np.unique(label[label >= 0], return_counts=True)
    if not len(names) or not background.size:
        return NOTHING
    sums = np.bincount(label[label >= 0], image[label >= 0], names.max() + 1)[names]
    columns = sums / count
    value = float(columns.mean() - background.mean())
    noise2 = float(np.mean(np.broadcast_to(variance, image.shape)[area & cores.background]))
    within = background.var(ddof=1) / background.size if background.size > 1 else noise2
    if len(columns) >= FEWEST:
        error2, freedom = columns.var(ddof=1) / len(columns) + within, len(columns) - 1
    else:
        error2, freedom = noise2 / count.sum() + within, np.inf
    sigma = float(np.sqrt(error2 * (2 if doubled else 1)))
    z = value / sigma if sigma > 0 else 0.0
    p = float(stats.t.sf(z, freedom)) if np.isfinite(freedom) else float(stats.norm.sf(z))
    return Contrast(value, sigma, len(columns), float(np.sqrt(noise2)), float(background.std()), p)


def judge(seen: Contrast, decoy: Contrast, control: Contrast | None, elsewhere: bool, alpha: float) -> tuple[str, str]:
    """Return the statement, one of "detected", "consistent with", "not seen", and why.

    "Detected" needs a mask learned elsewhere, columns that it shows, and a control without them that stays empty: in
    a periodic crystal any template makes its own image, one at an empty site included.
    """
    if not seen.p < alpha:
        chance = f"columns stand {_text(seen)} above background (p = {seen.p:.2g})"
        return "not seen", f"{chance}, which chance may do at α = {alpha:g}"
    text = f"{seen.columns} columns stand {_text(seen)} above background (p = {seen.p:.1g})"
    if np.isfinite(decoy.value):
        text += f"; the same template at empty sites gives {_text(decoy)}"
    if not elsewhere:
        return "consistent with", f"{text}; the mask was learned where it is shown"
    if control is None or not control.columns:
        return "consistent with", f"{text}; the mask was learned elsewhere, but there is no control without the species"
    error = float(np.hypot(seen.sigma, control.sigma))
    differs = stats.norm.sf((seen.value - control.value) / error) < alpha if error > 0 else False
    empty = control.p >= alpha or control.value < EMPTY * seen.value
    shown = f"the control has {_text(control)}"
    if differs and empty:
        return "detected", f"{text}; the mask was learned elsewhere, and {shown}"
    return "consistent with", f"{text}; the mask was learned elsewhere, but {shown}: not empty (limit {EMPTY:.0%})"


def _text(found: Contrast) -> str:
    digits = int(np.clip(2 - np.floor(np.log10(max(found.sigma, 1e-9))) - 1, 0, 6))
    return f"{found.value:.{digits}f} ± {found.sigma:.{digits}f}"


def correlation(image: np.ndarray, template: np.ndarray, area=None) -> float:
    """Return the correlation of an image with a template (scan_y, scan_x); NaN where either is constant."""
    a, b = (np.asarray(v, float)[area if area is not None else ...].reshape(-1) for v in (image, template))
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / size) if size > 0 else np.nan


def expected_bias(pixels: float, positions: int) -> float:
    """Return the correlation of in-sample image and template on pure noise, √(g/(1+g)), g = pixels / positions."""
    g = pixels / positions
    return float(np.sqrt(g / (1 + g)))
