"""The smooth surface that the beam's position follows over the scan."""

from dataclasses import dataclass

import numpy as np

MEASURED, SURFACE, NONE = 0, 1, 2


@dataclass(frozen=True)
class Descan:
    """Surface (scan_y, scan_x, 2), residual scatter (px), its ratio to sigma, and which positions are outliers."""

    surface: np.ndarray
    scatter_px: float
    sigma_px: float
    outlier: np.ndarray

    @property
    def ratio(self) -> float:
        """Residual scatter in units of what counting noise explains."""
        return self.scatter_px / self.sigma_px


def fit(centre: np.ndarray, sigma: np.ndarray, outlier_sigma: float) -> Descan:
    """Fit plane and quadratic terms by reweighted least squares.

    Cauchy's weights first, about the median, which come right from a third of outliers; then Tukey's biweight.

    Parameters
    ----------
    centre : ndarray of shape (scan_y, scan_x, 2)
        Measured positions, px; NaN where there is no beam.
    sigma : ndarray of shape (scan_y, scan_x)
        Their standard deviation, px.
    outlier_sigma : float
        Beyond so many standard deviations (noise and scatter together) a position is an outlier.
    """
    seen = np.isfinite(centre[..., 0])
    terms = _terms(seen)
    design, target, noise = terms[seen], centre[seen], sigma[seen]
    typical = float(np.median(noise))
    away = np.abs(target - np.median(target, axis=0)).max(axis=1)
    excess, weight = 0.0, 1 / (1 + (away / max(np.median(away), typical)) ** 2)
    for step in range(60):
        total = np.sqrt(noise**2 + excess**2)
        root = np.sqrt(weight) / total
        coefficients = np.linalg.lstsq(design * root[:, None], target * root[:, None], rcond=1e-9)[0]
        residual = target - design @ coefficients
        size = np.abs(residual / total[:, None]).max(axis=1)
        scatter = _scatter(residual, design.shape[1])
        excess = np.sqrt(max(scatter**2 - typical**2, 0.0))
        weight = np.clip(1 - (size / (outlier_sigma + 1)) ** 2, 0, None) ** 2
        if step < 30 or not weight.any():
            weight = 1 / (1 + (size / 2) ** 2)
    outlier = np.zeros(seen.shape, bool)
    outlier[seen] = size > outlier_sigma
    return Descan(terms @ coefficients, float(scatter), typical, outlier)


def _terms(seen: np.ndarray) -> np.ndarray:
    """Polynomial terms (scan_y, scan_x, m) that the positions at hand can support."""
    ny, nx = seen.shape
    y = np.linspace(-1, 1, ny)[:, None] * np.ones(nx) if ny > 1 else np.zeros((ny, nx))
    x = np.ones(ny)[:, None] * np.linspace(-1, 1, nx) if nx > 1 else np.zeros((ny, nx))
    terms = [np.ones((ny, nx))]
    number = seen.sum()
    if number >= 6:
        terms += [t for t, n in ((y, ny), (x, nx)) if n > 1]
    if number >= 20:
        terms += [t for t, n in ((y * y, ny), (y * x, min(ny, nx) + 1), (x * x, nx)) if n > 2]
    return np.stack(terms, axis=-1)


def _scatter(residual: np.ndarray, parameters: int) -> float:
    """Robust standard deviation of the worse axis, with the parameters that were fitted taken into account."""
    free = max(len(residual) - parameters, 1) / len(residual)
    return float(1.4826 * np.median(np.abs(residual), axis=0).max() / np.sqrt(free))


def choose(centre, dark, descan: Descan, ratio_limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres in force and their origin.

    The surface where the scatter about it is counting noise: its error is then smaller than that of each
    measured centre. Otherwise the measured centres, outliers and extinct beams replaced by the surface.

    Parameters
    ----------
    centre : ndarray of shape (scan_y, scan_x, 2)
        Measured positions, px; NaN where no beam stands out.
    dark : ndarray of bool, shape (scan_y, scan_x)
        Patterns without counts, which get no centre.
    descan : Descan
    ratio_limit : float
    """
    seen = np.isfinite(centre[..., 0])
    smooth = descan.ratio <= ratio_limit and seen.sum() > 6
    origin = np.where(smooth | descan.outlier | ~seen, SURFACE, MEASURED).astype(np.uint8)
    origin[dark] = NONE
    chosen = np.where((origin == SURFACE)[..., None], descan.surface, centre)
    chosen[dark] = np.nan
    return chosen, origin
