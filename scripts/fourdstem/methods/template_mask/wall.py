"""What masks and classical images tell of a domain wall whose columns are known, as rows of tables."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

from fourdstem.methods import template_mask
from fourdstem.methods.template_mask import claims, classical, columns, polarisation, sites, stream
from fourdstem.methods.template_mask.examine import Scan
from fourdstem.schema import build

COLUMNS = (
    "angstrom", "species", "site_x_angstrom", "columns", "shift_y_angstrom", "shift_x_angstrom", "scatter_y_angstrom",
    "true_shift_y_angstrom", "sigma_y_angstrom",
)  # fmt: skip
LONE_ANGSTROM = 1.0  # columns farther than this from others have a peak of their own
REACH_ANGSTROM = 0.8  # of the shift of a column from its place in the middle of the wall
ACROSS_ANGSTROM = 1.0  # likewise from its place in the domain from which masks are learned
DOMAIN_FROM = 0.7  # of the scan along x: what lies beyond is one domain
MOST_LOST = 0.5  # of the columns; a wall is not fitted to fewer than the rest
SAME_ROW_ANGSTROM = 0.5  # along x, between a site and its true column
CORE_ANGSTROM = 0.35
# Oxygen that has a column of its own lies between two leads.
PAIR = {"species": "O", "against": "Pb", "neighbours": 2}


def wall(key: tuple, scan: Scan, middle, domain, threads: int) -> tuple[list[tuple], list[tuple]]:
    """Return rows of the table, and rows of columns, of a 180° wall, by masks learned in the domain right of it.

    Parameters
    ----------
    key : tuple
        Specimen, thickness, electrons: what the rows begin with.
    middle, domain : list of tuple
        As ``scan.truth``, of the crystal as it is in the middle of the wall and in that domain.
    """
    shape, step = scan.counts.shape[:2], np.array(scan.step)
    ideal, right = (replace(scan, truth=rows) for rows in (middle, domain))
    lone = {"Pb": (ideal.columns("Pb"), right.columns("Pb")), "O": (_lone_oxygen(ideal), _lone_oxygen(right))}
    pictures = {s: sites.gaussians(p / step, 0.35, shape, step) for s, (_, p) in lone.items()}
    area = [0, shape[0], round(DOMAIN_FROM * shape[1]), shape[1]]
    more = {"width_angstrom": 0.35, "region": area, "search_angstrom": ACROSS_ANGSTROM}
    blocks = [{"species": s, "file": "-", **more} for s in lone]
    params = build(template_mask.Params, {"templates": blocks, "polarisation": (PAIR,)})
    found = template_mask.compute(scan.cube(threads), params, scan.radius_px, pictures=pictures)
    shown = classical.make(stream.open_source(scan.cube(threads)), scan.radius_px, step)
    pictured = [_pictured(found, shown, k, pictures[s]) for k, s in enumerate(found.species)]
    rows, table = [], []
    for k, species in enumerate(found.species):
        place = lone[species][0] / step
        inside = _inside(place, shape)
        for image, picture in pictured[k].items():
            start = columns.tops(picture, place[inside], step, REACH_ANGSTROM)
            variance = found.image_sigma[k].astype(float) ** 2
            got, sigma = columns.positions(picture, variance, place[inside], step, CORE_ANGSTROM, start)
            site = place[inside] * step
            seen = _Seen(species, site, got * step - site, sigma * step, _true_shift(scan, species, site))
            rows += [(*key, species, image, metric, value) for metric, value in seen.told(image == "mask").items()]
            table += seen.rows(key[1]) if image == "mask" else []
        rows.append((*key, species, "mask", "pull", found.pull[k]))
    more_rows, more_table = _polarised(key, scan, found, pictured)
    return rows + more_rows, table + more_table


def _inside(place_px: np.ndarray, shape) -> np.ndarray:
    return ((place_px > 3) & (place_px < np.array(shape) - 4)).all(axis=1)


def _pictured(found, shown, k: int, template) -> dict:
    """Return the images of one species by name; bright at its columns."""
    images = {"joined mask": found.joined_image[k].astype(float), "mask": found.image[k].astype(float)}
    return images | {n: _upright(shown[n], template) for n in classical.NAMES if not n.startswith("centre")}


def _polarised(key, scan: Scan, found, pictured) -> tuple[list[tuple], list[tuple]]:
    """Return rows, likewise, of how oxygen lies against lead: by the stage itself, and in the other images."""
    step, shape = np.array(scan.step), scan.counts.shape[:2]
    index = [found.species.index(PAIR[name]) for name in ("species", "against")]
    site = [found.column_site_px[found.column_species == k].astype(float) for k in index]
    cages = polarisation.surrounded(site[0] * step, site[1] * step, PAIR["neighbours"])
    around = _inside(site[1][cages.around].reshape(-1, 2), shape).reshape(cages.around.shape)
    kept = _inside(site[0][cages.site], shape) & around.all(axis=1)
    true = [_true_shift(scan, e, s * step) + s[:, 0] * step[0] for e, s in zip(("O", "Pb"), site, strict=True)]
    true = true[0][cages.site] - true[1][cages.around].mean(axis=1)
    place, name, rows, table = site[0][cages.site] * step, found.polarisation_name[0], [], []
    for image in pictured[0]:
        if image == "mask":
            move, sigma = (v.astype(float) / 100 for v in (found.polarisation_pm, found.polarisation_sigma_pm))
        else:
            at = [_found(pictured[k][image], s, step) for k, s in zip(index, site, strict=True)]
            _, move, _ = polarisation.displaced(*at, *map(np.zeros_like, at), cages, step)
            sigma = np.full(move.shape, np.nan)
        seen = _Seen(name, place[kept], move[kept], sigma[kept], true[kept])
        rows += [(*key, name, image, metric, value) for metric, value in seen.told(image == "mask").items()]
        table += seen.rows(key[1]) if image == "mask" else []
    return rows, table


def _found(picture, site_px, step) -> np.ndarray:
    start = columns.tops(picture, site_px, step, ACROSS_ANGSTROM)
    return columns.positions(picture, 1.0, site_px, step, CORE_ANGSTROM, start)[0]


def _lone_oxygen(scan: Scan) -> np.ndarray:
    """Return oxygen columns without another column within 1 Å: those that do not share theirs with titanium."""
    others = np.concatenate([scan.columns(e) for e in ("Pb", "Ti")])
    place = scan.columns("O")
    return place[cKDTree(others).query(place)[0] > LONE_ANGSTROM]


def _upright(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    return image if claims.correlation(image, template) > 0 else -image


def _true_shift(scan: Scan, element: str, site: np.ndarray) -> np.ndarray:
    """Return how far along y the true column lies from each site (n, 2), Å."""
    true = scan.columns(element)
    off = true[None] - site[:, None]
    near = np.where(np.abs(off[..., 1]) < SAME_ROW_ANGSTROM, np.abs(off[..., 0]), np.inf)
    return off[np.arange(len(site)), near.argmin(axis=1), 0]


@dataclass(frozen=True)
class _Seen:
    """Vectors (n, 2) at sites (n, 2), their standard deviations and what they are along y in truth; Å."""

    name: str
    site: np.ndarray
    move: np.ndarray
    sigma: np.ndarray
    true: np.ndarray

    def told(self, sigma_known: bool) -> dict:
        """Return errors along y, and where the wall is and how wide, by what was found and in truth."""
        moved, good = self.move[:, 0], np.isfinite(self.move).all(axis=1)
        if good.sum() < 6:
            return {"found": good.mean()}
        error = 100 * (moved - self.true)[good]
        told = {"found": good.mean(), "rms_pm": float(np.sqrt((error**2).mean())), "mean_y_pm": error.mean()}
        if sigma_known:
            sigma = 100 * self.sigma[good, 0]
            told |= {"sigma_pm": np.median(sigma), "error_by_sigma": np.sqrt(((error / sigma) ** 2).mean())}
        if np.ptp(self.true) > 0.1 and good.mean() > MOST_LOST:
            told["share_of_shift"] = float(np.polyfit(self.true[good], moved[good], 1)[0])
            for name, values in (("", moved[good]), ("true_", self.true[good])):
                told |= {f"{name}{k}": v for k, v in _profile(self.site[good, 1], values).items()}
        return told

    def rows(self, angstrom: float) -> list[tuple]:
        """Return a row per distance from the wall: mean of those that repeat along it, their scatter and noise."""
        rows, near = [], np.round(self.site[:, 1], 1)
        for x in np.unique(near):
            own = (near == x) & np.isfinite(self.move).all(axis=1)
            if own.any():
                moved = self.move[own]
                scatter = moved[:, 0].std(ddof=1) if len(moved) > 1 else np.nan
                told = (*moved.mean(axis=0), scatter, self.true[own].mean(), np.median(self.sigma[own, 0]))
                rows.append((angstrom, self.name, self.site[own, 1].mean(), len(moved), *told))
        return rows


def _profile(x: np.ndarray, shift: np.ndarray) -> dict:
    """Fit ``a + b tanh((x - x0) / w)`` to shifts across a wall."""
    start = (0.0, 0.5 * np.sign(np.corrcoef(x, shift)[0, 1]), float(x.mean()), 4.0)
    try:
        (_, b, middle, width), _ = curve_fit(
            lambda u, a, b, m, w: a + b * np.tanh((u - m) / w), x, shift, start, maxfev=5000
        )
    except RuntimeError:
        return {}
    return {"wall_angstrom": middle, "wall_half_width_angstrom": abs(width), "domain_shift_angstrom": abs(b)}
