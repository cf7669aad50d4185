"""What masks and classical images are worth on scans whose columns are known, as rows of a table."""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import curve_fit
from scipy.spatial import cKDTree

from fourdstem.calibration import Acquisition, wavelength_angstrom
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import template_mask
from fourdstem.methods.template_mask import claims, classical, columns, sites, stream
from fourdstem.schema import build

COLUMNS = ("specimen", "angstrom", "electrons", "species", "image", "metric", "value")
WALL_COLUMNS = (
    "angstrom", "species", "site_x_angstrom", "columns", "shift_y_angstrom", "shift_x_angstrom", "scatter_y_angstrom",
    "true_shift_y_angstrom",
)  # fmt: skip
SPECIES = ("Fe", "P", "O", "Li")
SAME_ANGSTROM = 0.7  # a found column belongs to a true one no farther away
LONE_ANGSTROM = 1.0  # columns farther than this from others have a peak of their own
REACH_ANGSTROM = 0.8  # of the shift of a column across a wall
DOMAIN_FROM = 0.7  # of the scan along x: what lies beyond is one domain
MOST_LOST = 0.5  # of the columns; a wall is not fitted to fewer than the rest


@dataclass(frozen=True)
class Scan:
    """A simulated scan over several cells.

    Attributes
    ----------
    counts : ndarray of shape (scan_y, scan_x, detector_y, detector_x)
    step : (float, float)
        Å, (y, x).
    radius_px : float
    truth : list of tuple
        (element, y, x, atoms) of the columns of one cell, Å.
    cell : (float, float)
        Å, (y, x), after which the columns repeat.
    """

    counts: np.ndarray
    step: tuple
    radius_px: float
    truth: list
    cell: tuple

    def columns(self, element: str) -> np.ndarray:
        """Return the true columns of an element all over the scan, (column, 2) in Å."""
        own = np.array([(y, x) for e, y, x, _ in self.truth if e == element]).reshape(-1, 2)
        span = (np.array(self.counts.shape[:2]) - 1) * self.step
        many = np.ceil(span / self.cell).astype(int) + 1
        cells = np.stack(np.meshgrid(*(np.arange(-1, n + 1) for n in many), indexing="ij"), -1).reshape(-1, 1, 2)
        place = (own + cells * np.array(self.cell)).reshape(-1, 2)
        return place[((place > -1) & (place < span + 1)).all(axis=1)]

    def cube(self, threads: int) -> Cube:
        """Return the counts as a detector that counts electrons records them."""
        shape = self.counts.shape
        centre = np.broadcast_to((np.array(shape[2:]) - 1) / 2, (*shape[:2], 2))
        correction = Correction(centre, np.eye(2), np.zeros(shape[2:], bool), 0.0, 1.0)
        known = Acquisition(scan_step_angstrom=tuple(self.step))
        return Cube(self.counts, acquisition=known, correction=correction, memory_mb=2000, threads=threads)


def radius_px(optics: dict) -> float:
    """Return the radius of the bright disk."""
    opening = optics["convergence_mrad"] * 1e-3 / wavelength_angstrom(optics["energy_kev"])
    return opening / optics["pixel_inv_angstrom"]


def imaged(scan: Scan, crystal, threads: int, partial: bool, region=None):
    """Return the result of the stage; lithium's mask is learned from ``region`` where that is given."""
    blocks = [{"species": s, "element": s} for s in SPECIES]
    for block in blocks:
        if block["species"] == "Li" and region is not None:
            block["region"] = region
    given = {"templates": blocks, "zone_axis": (0, 1, 0), "partial": partial}
    params = build(template_mask.Params, given)
    return template_mask.compute(scan.cube(threads), params, scan.radius_px, {crystal.name: crystal})


# ---- contrast, cross-talk -------------------------------------------------------------------------------------


def series(key: tuple, scan: Scan, crystal, threads: int) -> list[tuple]:
    """Return rows of contrast to noise and cross-talk of one scan; one row where the stage refuses it.

    Parameters
    ----------
    key : tuple
        Specimen, thickness, electrons: what the rows begin with.
    """
    rows = []
    try:
        made = {"mask": imaged(scan, crystal, threads, False), "partial mask": imaged(scan, crystal, threads, True)}
    except InputError as error:
        return [(*key, "", "", "refused", error.found)]
    for name, found in made.items():
        both = {name: (found.contrast_to_noise, found.cross_talk, found.pull)}
        both[f"joined {name}"] = (found.joined_contrast_to_noise, found.joined_cross_talk, found.joined_pull)
        for image, (ratio, talk, pull) in both.items():
            for k, species in enumerate(found.species):
                told = {"contrast_to_noise": ratio[k], "pull": pull[k], **_talk(talk[k], k)}
                rows += [(*key, species, image, metric, value) for metric, value in told.items()]
        rows += [(*key, s, name, "statement", w) for s, w in zip(found.species, found.statement, strict=True)]
    for j, image in enumerate(found.classical_name):
        for k, species in enumerate(found.species):
            told = {
                "contrast_to_noise": abs(found.classical_contrast_to_noise[j, k]),
                **_talk(found.classical_cross_talk[j], k),
            }
            rows += [(*key, species, image, metric, value) for metric, value in told.items()]
    for k, species in enumerate(found.species):
        rows.append((*key, species, "limit of masks", "contrast_to_noise", limit(scan, found, k)))
    return rows


def _talk(correlation: np.ndarray, k: int) -> dict:
    other = np.abs(np.delete(correlation, k))
    return {"own": correlation[k], "cross_talk": other.max()}


def limit(scan: Scan, found, k: int) -> float:
    """Return ``√(Σ (μ_c - μ_b)² / μ_b)``: no weights of one position's pixels have more contrast to counting noise.

    What noise adds to the square is taken off.
    """
    core = _cores(scan, found, k)
    flat = scan.counts.reshape(*scan.counts.shape[:2], -1)
    inside, outside = flat[core.label >= 0], flat[core.background]
    at, off = inside.mean(axis=0, dtype=float), outside.mean(axis=0, dtype=float)
    known = off * len(outside) >= 10  # of the others the mean is not known
    square = (at - off) ** 2 - at / len(inside) - off / len(outside)
    return float(np.sqrt(max((square[known] / off[known]).sum(), 0.0)))


def _cores(scan: Scan, found, k: int) -> sites.Cores:
    place, own = np.asarray(found.column_site_px, float), found.column_species == k
    return sites.cores(place[own], place, scan.counts.shape[:2], np.array(scan.step), 0.35, 0.8)


# ---- vacancies --------------------------------------------------------------------------------------------------


def vacancies(key: tuple, whole: Scan, half: Scan, crystal, threads: int) -> list[tuple]:
    """Return rows of lithium's contrast at columns and at ordered vacancies, by masks learned on the whole crystal.

    Both scans lie one below the other; lithium's mask is learned in the upper part and judged in the lower, whose
    vacancies are the control.
    """
    ny = len(whole.counts)
    both = Scan(np.concatenate([whole.counts, half.counts]), whole.step, whole.radius_px, whole.truth, whole.cell)
    rows = []
    for partial in (False, True):
        try:
            found = imaged(both, crystal, threads, partial, [0, ny, 0, both.counts.shape[1]])
        except InputError as error:
            return [(*key, "Li", "", "refused", error.found)]
        k, name = found.species.index("Li"), "partial mask" if partial else "mask"
        core = _cores(both, found, k)
        area = np.arange(len(both.counts))[:, None] >= ny + round(whole.cell[0] / whole.step[0] / 2)
        area = np.broadcast_to(area, core.label.shape)
        place = found.column_site_px[found.column_species == k].astype(float) * both.step
        there = half.columns("Li") + np.array([ny * half.step[0], 0.0])
        filled = cKDTree(there).query(place)[0] < SAME_ANGSTROM
        for image, picture, variance in (
            (name, found.image[k], found.image_sigma[k] ** 2),
            (f"joined {name}", found.joined_image[k], found.joined_sigma[k] ** 2),
        ):
            rows += _against_vacancies((*key, "Li", image), picture, variance, core, filled, area)
    return rows


def _against_vacancies(key, picture, variance, core, filled, area) -> list[tuple]:
    told = []
    for chosen in (filled, ~filled):
        kept = np.where((core.label >= 0) & chosen[core.label], core.label, -1)
        told.append(claims.contrast(picture, variance, sites.Cores(kept, core.background), area, False))
    seen, empty = told
    statement, _ = claims.judge(seen, claims.NOTHING, empty, True, 0.01)
    rows = {"contrast": seen.value, "contrast_sigma": seen.sigma, "contrast_to_noise": seen.to_noise}
    rows |= {"vacancy_contrast": empty.value, "vacancy_sigma": empty.sigma, "vacancy_share": empty.value / seen.value}
    return [(*key, metric, value) for metric, value in (rows | {"statement": statement}).items()]


def elsewhere(key: tuple, whole: Scan, other: Scan, crystal, threads: int) -> list[tuple]:
    """Return rows of lithium's contrast in another crystal that has none, by the mask learned on the whole one."""
    found = imaged(whole, crystal, threads, False)
    k = found.species.index("Li")
    weights = found.mask[k].reshape(1, -1)
    source = stream.open_source(other.cube(threads))
    picture, variance = stream.images(source, np.concatenate([weights, weights**2]))
    everything = np.concatenate([other.columns(e) for e in ("Fe", "P", "O")]) / other.step
    known = [(e, y * other.cell[0] / whole.cell[0], x * other.cell[1] / whole.cell[1], n) for e, y, x, n in whole.truth]
    site = Scan(other.counts, other.step, other.radius_px, known, other.cell).columns("Li") / other.step
    core = sites.cores(site, everything, other.counts.shape[:2], np.array(other.step), 0.35, 0.8)
    there = claims.contrast(picture, variance, core, np.ones(core.label.shape, bool), False)
    share = there.value / found.contrast[k]
    told = {"contrast": found.contrast[k], "vacancy_contrast": there.value, "vacancy_sigma": there.sigma}
    return [(*key, "Li", "mask", metric, value) for metric, value in (told | {"vacancy_share": share}).items()]


# ---- positions --------------------------------------------------------------------------------------------------


def displaced(key: tuple, scan: Scan, crystal, threads: int) -> list[tuple]:
    """Return rows of errors of positions, where every second column of O and Li lies beside its template."""
    rows = []
    for partial in (False, True):
        try:
            found = imaged(scan, crystal, threads, partial)
        except InputError as error:
            return [(*key, "", "", "refused", error.found)]
        name = "partial mask" if partial else "mask"
        for k, species in enumerate(found.species):
            site = found.column_site_px[found.column_species == k].astype(float)
            images = {name: found.column_position_px[found.column_species == k].astype(float)}
            images[f"joined {name}"] = columns.positions(found.joined_image[k], 1.0, site, scan.step, 0.35)[0]
            if not partial:
                images |= _classical_positions(found, site, k, scan.step)
            for image, place in images.items():
                told = errors(scan, species, site * scan.step, place * scan.step)
                rows += [(*key, species, image, metric, value) for metric, value in told.items()]
    return rows


def _classical_positions(found, site, k: int, step) -> dict:
    """Return the columns in every classical image but the two components of a deflection."""
    out = {}
    for j, name in enumerate(found.classical_name):
        if not name.startswith("centre_of_mass"):
            sign = 1.0 if found.classical_cross_talk[j, k] > 0 else -1.0
            out[name] = columns.positions(sign * found.classical_image[j].astype(float), 1.0, site, step, 0.35)[0]
    return out


def errors(scan: Scan, element: str, site, place) -> dict:
    """Return share found, rms error per axis and mean error (y, x) in pm of places (n, 2) in Å; NaN: not found."""
    true = scan.columns(element)
    off, index = cKDTree(true).query(site)
    known = off < SAME_ANGSTROM
    error = 100 * (place - true[index])[known & np.isfinite(place).all(axis=1)]
    told = {"found": len(error) / max(known.sum(), 1)}
    if len(error):
        told |= {"rms_pm": float(np.sqrt((error**2).mean())), "mean_y_pm": error[:, 0].mean()}
        told["mean_x_pm"] = error[:, 1].mean()
    return told


# ---- a wall -----------------------------------------------------------------------------------------------------


def wall(key: tuple, scan: Scan, middle, domain, threads: int) -> tuple[list[tuple], list[tuple]]:
    """Return rows of the table, and rows of columns, of a 180° wall, by masks learned in the domain right of it.

    Parameters
    ----------
    middle, domain : list of tuple
        As ``scan.truth``, of the crystal as it is in the middle of the wall and in that domain.
    """
    shape, step = scan.counts.shape[:2], np.array(scan.step)
    ideal, right = (replace(scan, truth=rows) for rows in (middle, domain))
    lone = {"Pb": (ideal.columns("Pb"), right.columns("Pb")), "O": (_lone_oxygen(ideal), _lone_oxygen(right))}
    pictures = {s: sites.gaussians(p / step, 0.35, shape, step) for s, (_, p) in lone.items()}
    area = [0, shape[0], round(DOMAIN_FROM * shape[1]), shape[1]]
    blocks = [{"species": s, "file": "-", "width_angstrom": 0.35, "region": area} for s in lone]
    params = build(template_mask.Params, {"templates": blocks})
    found = template_mask.compute(scan.cube(threads), params, scan.radius_px, pictures=pictures)
    shown = classical.make(stream.open_source(scan.cube(threads)), scan.radius_px, step)
    rows, table = [], []
    for k, species in enumerate(found.species):
        place = lone[species][0] / step
        inside = ((place > 3) & (place < np.array(shape) - 4)).all(axis=1)
        site = place[inside] * step
        images = {"joined mask": found.joined_image[k].astype(float), "mask": found.image[k].astype(float)}
        images |= {n: _upright(shown[n], pictures[species]) for n in classical.NAMES if not n.startswith("centre")}
        for image, picture in images.items():
            got, _ = columns.positions(picture, 1.0, _tops(picture, place[inside], step), step, 0.35)
            told = _walled(scan, species, site, got * step)
            rows += [(*key, species, image, metric, value) for metric, value in told.items()]
            if image == "mask":
                table += _wall_rows(key[1], scan, species, site, got * step)
        rows.append((*key, species, "mask", "pull", found.pull[k]))
    return rows, table


def _tops(picture: np.ndarray, place: np.ndarray, step) -> np.ndarray:
    """Return the brightest position within `REACH_ANGSTROM` of each place, px: columns lie beside their sites there."""
    grid = np.indices(picture.shape).reshape(2, -1).T
    near = cKDTree(grid * step).query_ball_point(place * step, REACH_ANGSTROM)
    return np.array([grid[sorted(n)[int(np.argmax(picture.reshape(-1)[sorted(n)]))]] for n in near], float)


def _lone_oxygen(scan: Scan) -> np.ndarray:
    """Return oxygen columns without another column within 1 Å: those that do not share theirs with titanium."""
    others = np.concatenate([scan.columns(e) for e in ("Pb", "Ti")])
    place = scan.columns("O")
    return place[cKDTree(others).query(place)[0] > LONE_ANGSTROM]


def _upright(image: np.ndarray, template: np.ndarray) -> np.ndarray:
    return image if claims.correlation(image, template) > 0 else -image


def _true_shift(scan: Scan, element: str, site: np.ndarray) -> np.ndarray:
    """Return how far along y the true column lies from each unshifted site, Å."""
    true = scan.columns(element)
    off = true[None] - site[:, None]
    near = np.where(np.abs(off[..., 1]) < 0.05, np.abs(off[..., 0]), np.inf)
    return off[np.arange(len(site)), near.argmin(axis=1), 0]


def _walled(scan: Scan, element: str, site, place) -> dict:
    """Return errors of shifts along y, and where the wall is and how wide, by what was found and in truth."""
    true = _true_shift(scan, element, site)
    moved = (place - site)[:, 0]
    good = np.isfinite(moved)
    if good.sum() < 6:
        return {"found": good.mean()}
    error = 100 * (moved - true)[good]
    told = {"found": good.mean(), "rms_pm": float(np.sqrt((error**2).mean())), "mean_y_pm": error.mean()}
    if np.ptp(true) > 0.1 and good.mean() > MOST_LOST:
        told["share_of_shift"] = float(np.polyfit(true[good], moved[good], 1)[0])
        for name, values in (("", moved[good]), ("true_", true[good])):
            told |= {f"{name}{k}": v for k, v in _profile(site[good, 1], values).items()}
    return told


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


def _wall_rows(angstrom, scan: Scan, element: str, site, place) -> list[tuple]:
    """Return a row per distance from the wall: mean of the columns that repeat along it, and their scatter."""
    true, moved, rows = _true_shift(scan, element, site), place - site, []
    for x in np.unique(np.round(site[:, 1], 3)):
        own = (np.round(site[:, 1], 3) == x) & np.isfinite(moved).all(axis=1)
        if own.any():
            scatter = moved[own, 0].std(ddof=1) if own.sum() > 1 else np.nan
            rows.append((angstrom, element, x, int(own.sum()), *moved[own].mean(axis=0), scatter, true[own].mean()))
    return rows


def rounded(rows: list[tuple]) -> list[tuple]:
    """Return rows with floating-point numbers as text of four digits."""
    return [tuple(f"{v:.4g}" if isinstance(v, float | np.floating) else v for v in row) for row in rows]
