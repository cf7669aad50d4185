"""What may be said of a species: contrast, its test over columns, pull, and the words."""

from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from fourdstem.methods.template_mask.sites import Cores

FEWEST = 5  # columns, for a test over columns; with fewer the counting noise has to do
EMPTY = 0.1  # a control is empty only where it is known to keep less than this share of the contrast


@dataclass(frozen=True)
class Contrast:
    """Columns above background in one part of the scan; NaN where there are none."""

    value: float
    sigma: float
    columns: int
    noise: float  # counting noise of a position of the background
    scatter: float  # spatial scatter of the background

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the standard error: columns less one, or those of counting noise."""
        return self.columns - 1 if self.columns >= FEWEST else np.inf

    @property
    def p(self) -> float:
        """Chance of at least this contrast where there is none."""
        return float(stats.t.sf(self.value / self.sigma if self.sigma > 0 else 0.0, self.freedom))

    @property
    def to_noise(self) -> float:
        """Contrast by counting noise of the background (definition: see the glossary of the report)."""
        return self.value / self.noise if self.noise > 0 else np.nan


NOTHING = Contrast(np.nan, np.nan, 0, np.nan, np.nan)


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
    among = columns.var(ddof=1) / len(columns) if len(columns) >= FEWEST else noise2 / count.sum()
    sigma = float(np.sqrt((among + within) * (2 if doubled else 1)))
    return Contrast(value, sigma, len(columns), float(np.sqrt(noise2)), float(background.std()))


def judge(seen: Contrast, decoy: Contrast, control: Contrast | None, elsewhere: bool, alpha: float) -> tuple[str, str]:
    """Return the statement, one of "detected", "consistent with", "not seen", and why.

    "Detected" needs a mask learned elsewhere, columns that it shows, and a control without them that is empty: in a
    periodic crystal any template makes its own image, one at an empty site included. Empty is a control that shows
    nothing beyond its own error, and that is known well enough: were its contrast `EMPTY` of the columns' or more, it
    would be called empty with a chance of at most ``alpha``. Without this, fewer counts would make a stronger claim.
    """
    if not seen.p < alpha:
        chance = f"columns stand {_text(seen)} above background ({_chance(seen)})"
        return "not seen", f"{chance}, which chance may do at α = {alpha:g}"
    text = f"{seen.columns} columns stand {_text(seen)} above background ({_chance(seen)})"
    if np.isfinite(decoy.value):
        text += f"; the same template at empty sites gives {_text(decoy)}"
    if not elsewhere:
        return "consistent with", f"{text}; the mask was learned where it is shown"
    text += "; the mask was learned elsewhere"
    if control is None or not control.columns:
        return "consistent with", f"{text}, but there are no columns in a control without the species"
    share, most = control.value / seen.value, _largest(control, alpha) / seen.value
    keeps = f"the control keeps {_text(control)}, {share:.0%} of it"
    if 2 * min(control.p, 1 - control.p) < alpha:
        excess = replace(seen, value=seen.value - control.value, sigma=float(np.hypot(seen.sigma, control.sigma)))
        return "consistent with", f"{text}, but {keeps}: not empty; the excess over the control is {_text(excess)}"
    if most > EMPTY:
        why = f"its error allows {most:.0%} (limit {EMPTY:.0%}), too much to call it empty"
        return "consistent with", f"{text}, but {keeps}, and {why}"
    return "detected", f"{text}, and {keeps}, within its error and at most {most:.0%} (limit {EMPTY:.0%})"


def _largest(found: Contrast, alpha: float) -> float:
    """Return how far from 0 a contrast may be, one-sided at level ``alpha``."""
    return abs(found.value) + float(stats.t.isf(alpha, found.freedom)) * found.sigma


def _chance(found: Contrast) -> str:
    return f"p = {found.p:.1g}" if found.p > 1e-99 else "p < 1e-99"


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
