"""Columns of one species that share a peak: Gaussians of the template's width fitted together, neighbours included."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from fourdstem.methods.template_mask import columns

MERGED = 2.2  # widths: two Gaussians nearer than two of them have one peak
REACH_ANGSTROM = 0.9  # from the sites of a group, of the positions that are fitted
NEIGHBOUR_ANGSTROM = 1.9  # from there, of the columns whose brightness is fitted too
FARTHEST_ANGSTROM = 0.5  # of a column from its site
STEP_ANGSTROM = 0.1  # of one turn, at most
TURNS, SETTLED_ANGSTROM = 50, 1e-4
SAME_PX = 1e-3
SAMPLED = 50  # groups, at most, whose pull is measured


def positions(image, variance, columns_px, others_px, step, core: float, width: float, start_px=None):
    """Return where columns are, each by its own peak, and those that share one by a fit of all of them together.

    Parameters
    ----------
    image : ndarray of shape (scan_y, scan_x)
    variance : ndarray of shape (scan_y, scan_x) or float
    columns_px, others_px : ndarray of shape (column, 2)
        Sites of the species, and those of all species.
    step : (float, float)
        Å, (y, x).
    core, width : float
        Å: radius of the fit of a peak, standard deviation of the Gaussians.
    start_px : ndarray of shape (column, 2), optional
        Where to begin instead of the sites; then no columns are fitted together.

    Returns
    -------
    place, sigma : ndarray of shape (column, 2)
        Position and its standard deviation by counting noise, px; NaN where there is none.
    """
    place, sigma = columns.positions(image, variance, columns_px, step, core, start_px)
    if start_px is None:
        variance = np.broadcast_to(np.asarray(variance, float), np.shape(image))
        for group in groups(columns_px, step, MERGED * width):
            place[group], sigma[group] = _together(image, variance, columns_px[group], others_px, np.array(step), width)
    return place, sigma


def pull(ahead, behind, columns_px, others_px, step, width: float, shift_angstrom: float) -> float:
    """Return how far columns that share a peak follow a template that is shifted along the diagonal by ± a distance.

    Arguments as of `positions`; NaN where no columns share a peak, or none is found in both images.
    """
    found = groups(columns_px, step, MERGED * width)
    moved = []
    for group in found[:: max(1, len(found) // SAMPLED)]:
        given = (1.0 + np.zeros(ahead.shape), columns_px[group], others_px, np.array(step), width)
        one, other = (_together(image, *given)[0] for image in (ahead, behind))
        moved.append((one - other) * step)
    moved = np.concatenate(moved) if moved else np.zeros((0, 2))
    moved = moved[np.isfinite(moved).all(axis=1)]
    return float((moved @ np.array([1.0, 1.0])).mean() / np.sqrt(2) / (2 * shift_angstrom)) if len(moved) else np.nan


def groups(columns_px, step, limit_angstrom: float) -> list[np.ndarray]:
    """Return the columns that are connected by distances below a limit: indices of each group of two and more."""
    pairs = cKDTree(columns_px * np.asarray(step)).query_pairs(limit_angstrom, output_type="ndarray")
    if not len(pairs):
        return []
    size = (len(columns_px),) * 2
    _, label = connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), shape=size), directed=False)
    order = np.argsort(label, kind="stable")
    found = np.split(order, np.flatnonzero(np.diff(label[order])) + 1)
    return [one for one in found if len(one) > 1]


def _together(image, variance, sites_px, others_px, step, width: float):
    """Fit positions and brightness of a few columns, brightness of their neighbours, and a constant (Gauss-Newton)."""
    none = np.full(sites_px.shape, np.nan)
    site, span = sites_px * step, (np.array(image.shape) - 1) * step
    if ((site < width) | (site > span - width)).any():
        return none, none
    low = np.maximum(np.ceil((site.min(axis=0) - REACH_ANGSTROM) / step).astype(int), 0)
    high = np.minimum(np.floor((site.max(axis=0) + REACH_ANGSTROM) / step).astype(int) + 1, image.shape)
    index = np.stack(np.meshgrid(*map(np.arange, low, high), indexing="ij"), -1).reshape(-1, 2)
    index = index[_nearest(index * step, site) <= REACH_ANGSTROM]
    at, value, noise = index * step, *(np.asarray(v, float)[tuple(index.T)] for v in (image, variance))
    near = others_px[
        (_nearest(others_px * step, site) <= NEIGHBOUR_ANGSTROM) & (_nearest(others_px, sites_px) > SAME_PX)
    ]
    fixed = np.concatenate([np.ones((len(at), 1)), _gaussians(at, near * step, width)], axis=1)
    found = _settled(at, value, fixed, site, width)
    if found is None:
        return none, none
    place, slopes = found
    covariance = np.linalg.pinv(slopes)[: place.size]
    sigma = np.sqrt((covariance**2 * noise).sum(axis=1)).reshape(place.shape)
    return place / step, sigma / step


def _settled(at, value, fixed, site, width: float):
    """Return positions (n, 2) in Å and the slopes of the model there; None where they run away or are dark."""
    place = site.copy()
    for _ in range(TURNS):
        shape = _gaussians(at, place, width)
        bright = np.linalg.lstsq(np.concatenate([shape, fixed], axis=1), value, rcond=None)[0]
        away = (at[:, None] - place) / width**2
        slopes = ((shape * bright[: len(place)])[..., None] * away).reshape(len(at), -1)
        slopes = np.concatenate([slopes, shape, fixed], axis=1)
        model = np.concatenate([shape, fixed], axis=1) @ bright
        move = np.linalg.lstsq(slopes, value - model, rcond=None)[0][: place.size].reshape(place.shape)
        place = place + move * min(1.0, STEP_ANGSTROM / max(np.abs(move).max(), 1e-12))
        if np.linalg.norm(place - site, axis=1).max() > FARTHEST_ANGSTROM or (bright[: len(place)] <= 0).any():
            return None
        if np.abs(move).max() < SETTLED_ANGSTROM:
            return place, slopes
    return None


def _gaussians(at, place, width: float) -> np.ndarray:
    """Return Gaussians of height 1, (position, column)."""
    return np.exp(-0.5 * ((at[:, None] - place) ** 2).sum(axis=2) / width**2)


def _nearest(at, place) -> np.ndarray:
    return np.linalg.norm(at[:, None] - place, axis=2).min(axis=1)
