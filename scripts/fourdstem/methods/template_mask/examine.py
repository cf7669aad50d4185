"""What masks and classical images are worth on scans whose columns are known, as rows of a table."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from fourdstem.calibration import Acquisition, wavelength_angstrom
from fourdstem.cube import Correction, Cube
from fourdstem.errors import InputError
from fourdstem.methods import template_mask
from fourdstem.methods.template_mask import claims, overlaps, sites, stream
from fourdstem.schema import build

COLUMNS = ("specimen", "angstrom", "electrons", "species", "image", "metric", "value")
SPECIES = ("Fe", "P", "O", "Li")
SAME_ANGSTROM = 0.7  # a found column belongs to a true one no farther away


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
    """Return rows of lithium's contrast in another crystal that has none, by masks learned on the whole one."""
    rows = []
    known = [(e, y * other.cell[0] / whole.cell[0], x * other.cell[1] / whole.cell[1], n) for e, y, x, n in whole.truth]
    site = Scan(other.counts, other.step, other.radius_px, known, other.cell).columns("Li") / other.step
    everything = np.concatenate([other.columns(e) for e in ("Fe", "P", "O")]) / other.step
    core = sites.cores(site, everything, other.counts.shape[:2], np.array(other.step), 0.35, 0.8)
    source = stream.open_source(other.cube(threads))
    for partial in (False, True):
        found = imaged(whole, crystal, threads, partial)
        k, name = found.species.index("Li"), "partial mask" if partial else "mask"
        weights = found.mask[k].reshape(1, -1)
        picture, variance = stream.images(source, np.concatenate([weights, weights**2]))
        there = claims.contrast(picture, variance, core, np.ones(core.label.shape, bool), False)
        own = _cores(whole, found, k)
        seen = claims.contrast(found.image[k], found.image_sigma[k] ** 2, own, np.ones(own.label.shape, bool), True)
        statement, _ = claims.judge(seen, claims.NOTHING, there, True, 0.01)
        told = {"contrast": seen.value, "vacancy_contrast": there.value, "vacancy_sigma": there.sigma}
        told |= {"vacancy_share": there.value / seen.value, "statement": statement}
        rows += [(*key, "Li", name, metric, value) for metric, value in told.items()]
    return rows


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
            given = (site, found.column_site_px.astype(float), scan.step, 0.35, 0.35)
            images[f"joined {name}"] = overlaps.positions(found.joined_image[k].astype(float), 1.0, *given)[0]
            if not partial:
                images |= _classical_positions(found, k, given)
            if np.isfinite(found.shared_pull[k]):
                rows.append((*key, species, name, "shared_pull", found.shared_pull[k]))
            rows += _told(key, scan, species, site, images)
    return rows


def _told(key, scan: Scan, species: str, site, images: dict) -> list[tuple]:
    """Return rows of errors of all columns, and of those that share a peak with one of their own species."""
    shared = np.isin(
        np.arange(len(site)), np.concatenate([[], *overlaps.groups(site, scan.step, overlaps.MERGED * 0.35)])
    )
    rows = []
    for image, place in images.items():
        for prefix, kept in (("", np.ones(len(site), bool)), ("shared_", shared), ("lone_", ~shared)):
            if kept.any() and (shared.any() or not prefix):
                told = errors(scan, species, site[kept] * scan.step, place[kept] * scan.step)
                rows += [(*key, species, image, prefix + metric, value) for metric, value in told.items()]
    return rows


def _classical_positions(found, k: int, given) -> dict:
    """Return the columns in every classical image but the two components of a deflection."""
    out = {}
    for j, name in enumerate(found.classical_name):
        if not name.startswith("centre_of_mass"):
            sign = 1.0 if found.classical_cross_talk[j, k] > 0 else -1.0
            out[name] = overlaps.positions(sign * found.classical_image[j].astype(float), 1.0, *given)[0]
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


def rounded(rows: list[tuple]) -> list[tuple]:
    """Return rows with floating-point numbers as text of four digits."""
    return [tuple(f"{v:.4g}" if isinstance(v, float | np.floating) else v for v in row) for row in rows]
