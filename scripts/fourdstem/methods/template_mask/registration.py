"""A crystal from a CIF, projected along its zone axis and laid over an image: lattice, rotation, origin, distortion."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from fourdstem.crystal import SYMBOLS, Crystal
from fourdstem.errors import InputError
from fourdstem.methods.template_mask import lattice
from fourdstem.methods.template_mask.columns import positions

POWER = 1.6  # of the atomic number: what an annular detector sees of a column
BLUR_ANGSTROM = 0.3
SCALES = np.linspace(0.94, 1.06, 7)  # of the stated scan step
LARGEST_STRAIN = 0.12
EXPECTED_STRAIN = 0.01
BRIGHT = 0.35  # of the brightest column: what the distortion is fitted to
SMALLEST_AGREEMENT = 0.5
ALONE_ANGSTROM = 0.7  # columns nearer than this have one peak
SAME_ANGSTROM = 0.05  # atoms nearer than this along the beam are one column


@dataclass(frozen=True)
class Cell:
    """A projected cell: rows of ``basis`` in Å (y, x), columns in Å, atoms per column {atomic number: how many}."""

    basis: np.ndarray
    place: np.ndarray
    atoms: list


def project(crystal: Crystal, zone_axis, mirrored: bool = False) -> Cell:
    """Return one cell of a crystal along [uvw], the beam travelling along it (mirrored: against it)."""
    axis = np.array(zone_axis) // np.gcd.reduce(zone_axis)
    z = axis @ crystal.lattice
    z = z / np.linalg.norm(z)
    flat = _completed(axis) @ crystal.lattice
    flat = flat - np.outer(flat @ z, z)
    x = flat[0] / np.linalg.norm(flat[0])
    frame = np.stack([np.cross(z, x), x])
    basis = lattice.reduced(flat @ frame.T)
    part = (crystal.positions @ crystal.lattice @ frame.T) @ np.linalg.inv(basis) % 1.0
    places, atoms = [], []
    for where, number, share in zip(part, crystal.numbers, crystal.occupancy, strict=True):
        away = [np.linalg.norm(((where - p + 0.5) % 1 - 0.5) @ basis) for p in places]
        if away and min(away) < SAME_ANGSTROM:
            k = int(np.argmin(away))
        else:
            places.append(where)
            atoms.append({})
            k = len(places) - 1
        atoms[k][int(number)] = atoms[k].get(int(number), 0.0) + float(share)
    flip = np.array([-1.0 if mirrored else 1.0, 1.0])
    return Cell(basis * flip, np.array(places) @ basis * flip, atoms)


def _completed(axis: np.ndarray) -> np.ndarray:
    """Return two lattice steps (2, 3) that make a cell of volume ±1 with an axis."""
    steps = np.array([[i, j, k] for i in range(-3, 4) for j in range(-3, 4) for k in range(-3, 4)])
    length = np.abs(steps).sum(axis=1)
    steps = steps[np.argsort(length, kind="stable")]
    for i, a in enumerate(steps):
        for b in steps[: i + 1]:
            if abs(round(np.linalg.det(np.stack([a, b, axis])))) == 1:
                return np.stack([b, a])
    raise InputError(
        f"zone_axis {axis.tolist()}",
        where="template_mask",
        expected="a zone axis of small indices",
        do="Name the axis by indices of at most 3, as found from the spacings in the image.",
    )


@dataclass(frozen=True)
class Registration:
    """How a cell lies on the scan: place in Å = ``part @ basis + origin``, plus a polynomial of the place."""

    cell: Cell
    basis: np.ndarray
    origin: np.ndarray
    agreement: float
    bend: np.ndarray | None  # coefficients (term, 2), Å
    order: int

    def sites(self, number: int, shape, step, alone: bool = False) -> np.ndarray:
        """Return the columns that hold an element, (n, 2) in px, those just beyond the scan included.

        Parameters
        ----------
        alone : bool
            Only those without another element in them or nearer than `ALONE_ANGSTROM`.
        """
        chosen = [k for k, a in enumerate(self.cell.atoms) if number in a and not (alone and self._crowded(k))]
        return self.all_sites(chosen, shape, step) if chosen else np.zeros((0, 2))

    def _crowded(self, k: int) -> bool:
        part = self.cell.place @ np.linalg.inv(self.cell.basis)
        near = np.linalg.norm(((part - part[k] + 0.5) % 1 - 0.5) @ self.cell.basis, axis=1) < ALONE_ANGSTROM
        return len({number for atoms, here in zip(self.cell.atoms, near, strict=True) if here for number in atoms}) > 1

    def all_sites(self, chosen, shape, step) -> np.ndarray:
        """Return some of the cell's columns all over the scan, likewise."""
        span = (np.array(shape) - 1) * step
        margin = 3.0
        corners = np.array([[a, b] for a in (-margin, span[0] + margin) for b in (-margin, span[1] + margin)])
        index = (corners - self.origin) @ np.linalg.inv(self.basis)
        low, high = np.floor(index.min(axis=0)).astype(int) - 1, np.ceil(index.max(axis=0)).astype(int) + 1
        cells = np.stack(np.meshgrid(*map(np.arange, low, high + 1), indexing="ij"), -1).reshape(-1, 2)
        part = self.cell.place @ np.linalg.inv(self.cell.basis)
        place = np.concatenate([(cells + part[k]) @ self.basis + self.origin for k in chosen])
        keep = ((place > -margin) & (place < span + margin)).all(axis=1)
        place = place[keep]
        if self.bend is not None:
            place = place + _terms(np.clip(place / span, 0, 1), self.order) @ self.bend
        return place / step


def register(image, crystal: Crystal, zone_axis, step, dark: bool, order: int, area=None) -> Registration:
    """Lay a crystal over an image.

    Parameters
    ----------
    image : ndarray of shape (scan_y, scan_x)
    step : (float, float)
        Å, (y, x).
    dark : bool
        Columns are dark in the image.
    order : int
        Of the polynomial by which columns may leave the lattice, 0 = none.
    area : (int, int, int, int), optional
        Part of the scan [y0, y1, x0, x1] that tells origin and sense of the crystal: one domain of several.

    Raises
    ------
    InputError
        If the lattice is not resolved, or the crystal down this zone does not fit.
    """
    step = np.asarray(step, float)
    picture = -np.asarray(image, float) if dark else np.asarray(image, float)
    lattice.reflections(picture, step)  # refuses what is not resolved
    best = None
    for mirrored in (False, True):
        cell = project(crystal, zone_axis, mirrored)
        found = _laid(picture, cell, step, area)
        if found is not None and (best is None or found.agreement > best.agreement + 1e-6):
            best = found
    if best is None or best.agreement < SMALLEST_AGREEMENT:
        said = "no rotation" if best is None else f"a correlation of {best.agreement:.2f} at best"
        raise InputError(
            f"{crystal.name} along {list(zone_axis)} lies on the image with {said}",
            where="template_mask: zone_axis",
            expected=f"a correlation of at least {SMALLEST_AGREEMENT} between Fourier amplitudes of crystal and image",
            do="Check zone_axis, the CIF and scan_step_angstrom (within 6 %), or find columns by `sublattice`.",
        )
    return _bent(picture, best, step, order) if order else best


def _model(cell: Cell, limit: float):
    """Return indices (n, 2), reciprocal vectors (n, 2) and amplitudes of the cell's picture up to ``limit`` 1/Å."""
    reciprocal = np.linalg.inv(cell.basis).T
    reach = int(np.ceil(limit * np.linalg.norm(cell.basis, axis=1).max())) + 1
    index = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    g = index @ reciprocal
    length = np.linalg.norm(g, axis=1)
    half = (index[:, 0] > 0) | ((index[:, 0] == 0) & (index[:, 1] > 0))
    keep = half & (length < limit)
    index, g = index[keep], g[keep]
    brightness = np.array([sum(n * z**POWER for z, n in a.items()) for a in cell.atoms])
    wave = np.exp(-2j * np.pi * (g @ cell.place.T)) @ brightness
    return index, g, wave * np.exp(-2 * np.pi**2 * BLUR_ANGSTROM**2 * (g**2).sum(axis=1))


def _laid(picture, cell: Cell, step, area) -> Registration | None:
    limit = min(1 / lattice.SHORTEST_ANGSTROM, 0.45 / step.max())
    index, g, wave = _model(cell, limit)
    angle, scale = _turn(picture, g, np.abs(wave), step)
    turn = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    seen = lattice.windowed(picture)
    matrix = _refine(seen, g, np.abs(wave), turn, step)
    if np.abs(np.linalg.svd(matrix)[1] - 1).max() > LARGEST_STRAIN:
        return None
    y0, y1, x0, x1 = area or (0, picture.shape[0], 0, picture.shape[1])
    found = lattice.amplitude(lattice.windowed(picture[y0:y1, x0:x1]), step, g @ matrix)
    basis = cell.basis @ np.linalg.inv(matrix).T
    best = (-1.0, None, 1)
    for sign in (1, -1):  # half a turn changes no spacing
        model = wave if sign == 1 else wave.conj()
        value, origin = _origin(model, found, index, basis)
        if value > best[0] + 1e-9:
            best = (value, origin, sign)
    agreement, origin, sign = best
    return Registration(cell, sign * basis, origin + np.array([y0, x0]) * step, agreement, None, 0)


def _turn(picture, g, weight, step) -> tuple[float, float]:
    """Return the rotation (rad) and scale of reciprocal space under which the crystal's reflections lie on peaks."""
    power, frequency = lattice.spectrum(picture, step)
    shown = np.sqrt(np.minimum(power, 1e4))
    origin, spacing = frequency[0, 0], frequency[1, 1] - frequency[0, 0]
    strong = np.argsort(-weight)[:24]
    fine = 0.2 * spacing.min() / np.linalg.norm(g[strong], axis=1).max()
    angles = np.arange(0, np.pi, max(fine, 1e-3))
    best = (-np.inf, 0.0, 1.0)
    for scale in SCALES:
        turned = scale * np.stack(
            [
                np.outer(np.cos(angles), g[strong, 0]) - np.outer(np.sin(angles), g[strong, 1]),
                np.outer(np.sin(angles), g[strong, 0]) + np.outer(np.cos(angles), g[strong, 1]),
            ]
        )
        places = (turned - origin[:, None, None]) / spacing[:, None, None]
        score = (ndimage.map_coordinates(shown, places, order=1) * np.sqrt(weight[strong])).sum(axis=1)
        k = int(score.argmax())
        if score[k] > best[0]:
            best = (float(score[k]), float(angles[k]), float(scale))
    return best[1], best[2]


def _refine(picture, g, weight, matrix, step):
    """Fit the (2, 2) matrix with ``g @ matrix`` on the peaks of the spectrum, from short to long vectors.

    A small scan fixes a peak to a tenth of its width only; there a turned and scaled crystal is believed within
    `EXPECTED_STRAIN`.
    """
    blur = 0.1 / (np.array(picture.shape) * step).min()
    length = np.linalg.norm(g, axis=1)
    strong = weight > 0.08 * weight.max()
    for share in (0.5, 0.75, 1.0, 1.0):
        chosen = strong & (length <= share * length[strong].max() + 1e-9)
        if chosen.sum() < 3:
            continue
        seen = np.array([lattice.top_near(picture, step, one) for one in g[chosen] @ matrix])
        strength = np.abs(lattice.amplitude(picture, step, seen))[:, None]
        belief = strength * blur / (EXPECTED_STRAIN * length[chosen, None])
        design = np.concatenate([g[chosen] * strength, g[chosen] * belief])
        target = np.concatenate([seen * strength, g[chosen] @ _similar(matrix) * belief])
        solved = np.linalg.lstsq(design, target, rcond=None)[0]
        matrix = solved if np.isfinite(solved).all() else matrix
    return matrix


def _similar(matrix):
    """Return the rotation and scale nearest to a (2, 2) matrix."""
    a, b = matrix[0, 0] + matrix[1, 1], matrix[0, 1] - matrix[1, 0]
    return 0.5 * np.array([[a, b], [-b, a]])


def _origin(model, found, index, basis) -> tuple[float, np.ndarray]:
    """Return the correlation of Fourier amplitudes at the best origin, and that origin in Å."""
    product = model.conj() * found
    size = np.sqrt((np.abs(model) ** 2).sum() * (np.abs(found) ** 2).sum()) + 1e-300

    def score(parts):
        return (np.exp(2j * np.pi * (parts @ index.T)) @ product).real / size

    side = 64
    grid = np.stack(np.meshgrid(*[np.arange(side) / side] * 2, indexing="ij"), -1).reshape(-1, 2)
    best, width = grid[score(grid).argmax()], 1 / side
    for _ in range(6):
        near = best + np.stack(np.meshgrid(*[np.linspace(-1, 1, 5)] * 2, indexing="ij"), -1).reshape(-1, 2) * width
        best, width = near[score(near).argmax()], width * 0.5
    return float(score(best[None])[0]), best @ basis


def _bent(picture, laid: Registration, step, order: int) -> Registration:
    """Let columns leave the lattice by a polynomial, fitted to where the bright and lonely ones are seen."""
    brightness = np.array([sum(n * z**POWER for z, n in a.items()) for a in laid.cell.atoms])
    chosen = np.flatnonzero(brightness > BRIGHT * brightness.max())
    sites = laid.all_sites(chosen, picture.shape, step)
    inside = ((sites >= 0) & (sites <= np.array(picture.shape) - 1)).all(axis=1)
    sites = sites[inside]
    seen, _ = positions(picture, 1.0, sites, step, 0.4)
    good = np.isfinite(seen).all(axis=1)
    span = (np.array(picture.shape) - 1) * step
    terms = _terms(sites * step / span, order)
    if good.sum() < 3 * terms.shape[1]:
        return laid
    move = (seen - sites) * step
    for _ in range(3):
        bend = np.linalg.lstsq(terms[good], move[good], rcond=None)[0]
        rest = np.linalg.norm(move - terms @ bend, axis=1)
        good = np.isfinite(rest) & (rest < 3 * np.median(rest[good]) + 1e-6)
    return Registration(laid.cell, laid.basis, laid.origin, laid.agreement, bend, order)


def _terms(part: np.ndarray, order: int) -> np.ndarray:
    """Return the monomials of places in the scan (0 to 1), (n, term)."""
    u, v = (2 * part - 1).T
    return np.stack([u**i * v**j for i in range(order + 1) for j in range(order + 1 - i)], axis=1)


def names(crystal: Crystal) -> list[str]:
    """Return the elements of a crystal."""
    return sorted({SYMBOLS[z - 1] for z in crystal.numbers})


def overlapping(sites: dict, step, limit: float) -> list[tuple[str, str]]:
    """Return pairs of species whose columns lie closer than ``limit`` Å: no image can tell them apart."""
    pairs = []
    keys = list(sites)
    for i, a in enumerate(keys):
        for b in keys[:i]:
            if len(sites[a]) and len(sites[b]):
                near = cKDTree(sites[b] * step).query(sites[a] * step)[0]
                pairs += [(b, a)] if np.median(near) < limit else []
    return pairs
