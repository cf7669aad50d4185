"""Specimens of known truth for atomic-resolution scans by multislice, and counts made of their noise-free patterns.

Frame: a scan's x runs along the first axis of the supercell (a of olivine, the normal of the wall), y along the second
(c), the beam along the third (b).
"""

from dataclasses import dataclass

import numpy as np

from fourdstem.errors import InputError
from fourdstem.files import complete_or_absent

WALL_HALF_WIDTH_ANGSTROM = 4.0  # of the profile tanh(x / w) of the atoms' shifts
# Rounded from what is commonly published; fractions (a, b, c).
OLIVINE = {
    "cell": (10.332, 6.010, 4.692),
    "sites": {
        "Li": [(0, 0, 0)], "Fe": [(0.2822, 0.25, 0.9747)], "P": [(0.0948, 0.25, 0.4182)],
        "O": [(0.0968, 0.25, 0.7428), (0.4571, 0.25, 0.2060), (0.1656, 0.0465, 0.2848)],
    },
}  # fmt: skip
HETEROSITE = {
    "cell": (9.814, 5.789, 4.782),
    "sites": {
        "Fe": [(0.2753, 0.25, 0.9479)], "P": [(0.0940, 0.25, 0.3958)],
        "O": [(0.1221, 0.25, 0.7092), (0.4391, 0.25, 0.1597), (0.1664, 0.0448, 0.2507)],
    },
}  # fmt: skip
PNMA = (  # (sign, shift) of x, y, z
    ((1, 0), (1, 0), (1, 0)), ((-1, 0.5), (-1, 0), (1, 0.5)),
    ((-1, 0), (1, 0.5), (-1, 0)), ((1, 0.5), (-1, 0.5), (-1, 0.5)),
    ((-1, 0), (-1, 0), (-1, 0)), ((1, 0.5), (1, 0), (-1, 0.5)),
    ((1, 0), (-1, 0.5), (1, 0)), ((-1, 0.5), (1, 0.5), (1, 0.5)),
)  # fmt: skip
PEROVSKITE = (3.904, 3.904, 4.152)  # PbTiO3, P4mm; origin at lead
PEROVSKITE_SITES = (  # element, place in the middle of the wall, shift along c in a domain
    ("Pb", (0, 0, 0), 0.0), ("Ti", (0.5, 0.5, 0.5), 0.0377),
    ("O", (0.5, 0.5, 0), 0.1118), ("O", (0.5, 0, 0.5), 0.1174), ("O", (0, 0.5, 0.5), 0.1174),
)  # fmt: skip
VIBRATION_ANGSTROM = {"Li": 0.122, "Fe": 0.077, "P": 0.077, "O": 0.089, "Pb": 0.09, "Ti": 0.07}  # rms, per axis
NUMBER = {"Li": 3, "O": 8, "P": 15, "Ti": 22, "Fe": 26, "Pb": 82}
DISPLACED_ANGSTROM = (0.1, -0.1)  # (y, x): every second column of lithium and oxygen, in the specimen `displaced`
THICKNESS_ANGSTROM = {"wall": (50.0, 100.0, 200.0)}  # of all others:
THICKNESSES_ANGSTROM = (50.0, 200.0, 400.0, 700.0)
NAMES = ("lifepo4", "fepo4", "half", "displaced", "wall")


@dataclass(frozen=True)
class Specimen:
    """One repeat of a specimen, as the beam passes it, and the part of it that is scanned.

    Attributes
    ----------
    cell : ndarray of shape (3,)
        Å along scan_x, scan_y and the beam.
    element : list of str
    place : ndarray of shape (atom, 3)
        Å, in the order of ``cell``.
    repeat : tuple of int
        Cells side by side along scan_x and scan_y, so that the probe does not meet itself.
    scanned : tuple of float
        First and last x of the scan, Å; y runs over one cell.
    """

    cell: np.ndarray
    element: list
    place: np.ndarray
    repeat: tuple
    scanned: tuple


def specimen(name: str) -> Specimen:
    """Return a specimen by its name, one of `NAMES`.

    Raises
    ------
    InputError
        If there is none of this name.
    """
    if name == "wall":
        return _wall(cells=12)
    if name not in NAMES:
        raise InputError(
            f"specimen {name}", where="simulate_atomic", expected=f"one of {', '.join(NAMES)}", do="Name one of these."
        )
    element, place, cell = _olivine(HETEROSITE if name == "fepo4" else OLIVINE)
    second = place[:, 0] >= 0.5  # in the right half of the cell
    if name == "half":
        keep = ~(second & (element == "Li"))
        element, place = element[keep], place[keep]
    if name == "displaced":
        moved = second & np.isin(element, ["Li", "O"])
        shift = np.array([DISPLACED_ANGSTROM[1], 0.0, DISPLACED_ANGSTROM[0]]) / cell
        place = (place + moved[:, None] * shift) % 1.0
    size = cell[[0, 2, 1]]
    return Specimen(size, list(element), place[:, [0, 2, 1]] * size, (2, 3), (0.0, float(size[0])))


def _olivine(crystal: dict):
    element, place = [], []
    for name, sites in crystal["sites"].items():
        found = []
        for site in sites:
            for turns in PNMA:
                here = np.array([sign * v + shift for v, (sign, shift) in zip(site, turns, strict=True)]) % 1.0
                if not any(np.abs((here - o + 0.5) % 1 - 0.5).max() < 1e-6 for o in found):
                    found.append(np.where(here > 1 - 1e-9, 0.0, here))
        place += found
        element += [name] * len(found)
    return np.array(element), np.array(place), np.array(crystal["cell"])


def _wall(cells: int) -> Specimen:
    """Two 180° walls of lead titanate, a quarter and three quarters along x, the first of which is scanned."""
    a, b, c = PEROVSKITE
    size = np.array([cells * a, c, b])
    element, place = [], []
    for i in range(cells):
        for name, (x, y, z), shift in PEROVSKITE_SITES:
            across = (i + x) * a
            element.append(name)
            place.append([across, (z + shift * polarised(across, size[0])) * c, y * b])
    return Specimen(size, element, np.array(place) % size, (1, 3), (0.05 * float(size[0]), 0.45 * float(size[0])))


def polarised(across, length: float):
    """Return the polarisation at a place across the walls, in [-1, 1]; the first wall lies at a quarter."""
    near = np.tanh((across - 0.25 * length) / WALL_HALF_WIDTH_ANGSTROM)
    return near - np.tanh((across - 0.75 * length) / WALL_HALF_WIDTH_ANGSTROM) - 1.0


def thicknesses(name: str) -> tuple:
    """Return the thicknesses at which a specimen is simulated, Å."""
    return THICKNESS_ANGSTROM.get(name, THICKNESSES_ANGSTROM)


def at_thickness(file, name: str, angstrom: float) -> np.ndarray:
    """Return the noise-free patterns of one thickness, (scan_y, scan_x, detector_y, detector_x).

    Raises
    ------
    InputError
        If the specimen was not simulated at this thickness.
    """
    known = thicknesses(name)
    if angstrom not in known:
        raise InputError(
            f"a thickness of {angstrom:g} Å",
            where=f"simulate_atomic: {name}",
            expected=f"one of {', '.join(f'{t:g}' for t in known)}",
            do="Name one of these.",
        )
    return np.load(file, mmap_mode="r")[known.index(angstrom)]


def truth(name: str) -> list[tuple]:
    """Return (element, y, x, atoms) of every column in one cell, Å from the first position, under their names."""
    one, rows = specimen(name), [("element", "y_angstrom", "x_angstrom", "atoms")]
    flat = np.round(one.place[:, [1, 0]], 4)
    for key in sorted({(e, *map(float, p)) for e, p in zip(one.element, flat, strict=True)}):
        count = sum(e == key[0] and tuple(p) == key[1:] for e, p in zip(one.element, flat, strict=True))
        rows.append((str(key[0]), key[1], round(key[2] - one.scanned[0], 4), count))
    return rows


def without_wall(polarisation: float) -> list[tuple]:
    """Return the columns of one cell of the specimen `wall` as `truth` does, if it were polarised alike everywhere."""
    one, (a, _, c) = specimen("wall"), PEROVSKITE
    rows = set()
    for i in range(round(one.cell[0] / a)):
        for element, (x, _, z), shift in PEROVSKITE_SITES:
            rows.add((element, (z + shift * polarisation) * c, round((i + x) * a - one.scanned[0], 4), 1))
    return sorted(rows)


def grid(one: Specimen, step: float) -> tuple[int, int]:
    """Return positions (y, x) of the scan of one cell, at steps of about ``step`` Å."""
    return round(one.cell[1] / step), round((one.scanned[1] - one.scanned[0]) / step)


def steps(name: str, step: float) -> tuple[float, float]:
    """Return the steps (y, x) of a scan, Å."""
    one = specimen(name)
    count = grid(one, step)
    return float(one.cell[1] / count[0]), (one.scanned[1] - one.scanned[0]) / count[1]


def tiles(name: str) -> tuple[int, int]:
    """Return how many cells (y, x) a recorded scan has."""
    return (5, 1) if name == "wall" else (5, 2)


def acquisition(name: str, optics: dict) -> dict:
    """Return how a recorded scan was acquired, by the keys of the configuration; its counts are electrons."""
    return {
        "beam_energy_kev": optics["energy_kev"],
        "convergence_mrad": optics["convergence_mrad"],
        "scan_step_angstrom": [round(step, 6) for step in steps(name, optics["step_angstrom"])],
        "detector_pixel_inv_angstrom": optics["pixel_inv_angstrom"],
        "counts_per_electron": 1,
        "offset_counts": 0,
        "readout_noise_counts": 0,
    }


def rebinned(patterns: np.ndarray, sampling, size: int, pixel: float) -> np.ndarray:
    """Return patterns on square pixels, (…, y, x), intensity shared by area; the beam between the middle four.

    Parameters
    ----------
    patterns : ndarray of shape (…, x, y)
        The zero frequency at half of each length.
    sampling : (float, float)
        1/Å, (x, y).
    """
    along = []
    for count, width in zip(patterns.shape[-2:], sampling, strict=True):
        low = (np.arange(count) - count // 2 - 0.5) * width
        edge = (np.arange(size) - size / 2) * pixel
        shared = np.minimum(low[None] + width, edge[:, None] + pixel) - np.maximum(low[None], edge[:, None])
        along.append((np.maximum(shared, 0) / width).astype(np.float32))
    return np.einsum("yb,...ab,xa->...yx", along[1], patterns, along[0], optimize=True)


def averaged(files) -> np.ndarray:
    """Return the mean of simulated scans, in the order of their names: bits do not depend on who came first."""
    total = 0.0
    for file in sorted(map(str, files)):
        total = total + np.load(file).astype(np.float64)
    return (total / len(files)).astype(np.float32)


def recorded(cell: np.ndarray, cells, electrons: float, seed: int) -> np.ndarray:
    """Return counts (uint16) of a scan over several cells, each pixel's Poisson noise its own.

    Parameters
    ----------
    cell : ndarray of shape (scan_y, scan_x, detector_y, detector_x)
        Shares of the beam.
    cells : (int, int)
        Along y and x.
    electrons : float
        Per pattern.
    """
    rng = np.random.default_rng(seed)
    ny, nx = cell.shape[:2]
    out = np.empty((ny * cells[0], nx * cells[1], *cell.shape[2:]), np.uint16)
    expected = np.tile(cell * electrons, (1, cells[1], 1, 1))
    for i in range(cells[0]):
        out[i * ny : (i + 1) * ny] = rng.poisson(expected)
    return out


def save(path, array: np.ndarray) -> None:
    """Write an array as .npy, whole or not at all."""
    with complete_or_absent(path) as temporary, temporary.open("wb") as file:
        np.save(file, array)
