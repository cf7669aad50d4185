"""Crystals: lattice, atoms, symmetry and structure factors, from a CIF file or built in code.

Crystal Cartesian axes are e1 ∥ a, e3 ∥ c*. Symmetry is always found from the atoms (spglib), never taken from
the symbol in a CIF, because many CIF files are written in P1 or in an unusual setting. The symbol and the
operations of the CIF serve only to generate the atoms.
"""

import contextlib
import functools
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import spglib
from diffpy.structure.parsers.p_cif import P_cif
from diffpy.structure.structureerrors import StructureFormatError
from diffsims.utils.atomic_scattering_params import ATOMIC_SCATTERING_PARAMS
from diffsims.utils.lobato_scattering_params import ATOMIC_SCATTERING_PARAMS_LOBATO

from fourdstem.errors import InputError
from fourdstem.jit import alone

with alone():
    from orix.quaternion import symmetry as orix_symmetry

DEFAULT_U_ISO_ANGSTROM2 = 0.005
# Distances of atoms, Å, below which spglib calls them equivalent: coordinates rounded to three digits still count.
SYMMETRY_TOLERANCE_ANGSTROM = 5e-3
# Fractional tolerance when a CIF's operations generate its atoms; 0.333 and 1/3 are one site.
SITE_TOLERANCE = 2e-3

# The keys of the Lobato table run from H to Lr in order of atomic number.
SYMBOLS = tuple(ATOMIC_SCATTERING_PARAMS_LOBATO)
_ISOTOPES = {"D": "H", "T": "H"}

# Last space group number of each Laue class, its symbol, and orix's name of the class.
_LAUE = (
    (2, "-1", "Ci"),
    (15, "2/m", "C2h"),
    (74, "mmm", "D2h"),
    (88, "4/m", "C4h"),
    (142, "4/mmm", "D4h"),
    (148, "-3", "S6"),
    (167, "-3m", "D3d"),
    (176, "6/m", "C6h"),
    (194, "6/mmm", "D6h"),
    (206, "m-3", "Th"),
    (230, "m-3m", "Oh"),
)


@dataclass(frozen=True)
class Crystal:
    """One phase.

    Attributes
    ----------
    name : str
    lattice : ndarray of shape (3, 3)
        Rows a, b, c in Å, Cartesian, e1 ∥ a and e3 ∥ c*.
    reciprocal : ndarray of shape (3, 3)
        Rows a*, b*, c* in 1/Å, without 2 pi.
    numbers : ndarray of int, shape (n,)
        Atomic numbers.
    positions : ndarray of shape (n, 3)
        Fractional coordinates.
    occupancy : ndarray of shape (n,)
    u_iso : ndarray of shape (n,)
        Mean square displacements in Å².
    space_group : int
    laue_class : str
        One of the eleven, such as "m-3m".
    operations : ndarray of shape (m, 3, 3)
        Proper rotations of the Laue group, Cartesian, crystal frame.
    """

    name: str
    lattice: np.ndarray
    reciprocal: np.ndarray
    numbers: np.ndarray
    positions: np.ndarray
    occupancy: np.ndarray
    u_iso: np.ndarray
    space_group: int
    laue_class: str
    operations: np.ndarray

    @property
    def cell(self) -> tuple[float, float, float, float, float, float]:
        """Lattice constants a, b, c in Å and alpha, beta, gamma in degrees."""
        length = np.linalg.norm(self.lattice, axis=1)
        unit = self.lattice / length[:, None]
        cosine = [unit[1] @ unit[2], unit[2] @ unit[0], unit[0] @ unit[1]]
        return (*map(float, length), *map(float, np.rad2deg(np.arccos(np.clip(cosine, -1, 1)))))


def lattice_rows(a: float, b: float, c: float, alpha: float, beta: float, gamma: float) -> np.ndarray:
    """(3, 3) rows a, b, c in Å with e1 ∥ a and e3 ∥ c*, from lattice constants in Å and degrees.

    Raises
    ------
    ValueError
        If no cell has these constants.
    """
    ca, cb, cg = np.cos(np.deg2rad([alpha, beta, gamma]))
    sg = np.sin(np.deg2rad(gamma))
    c_y = (ca - cb * cg) / sg
    height = 1 - cb**2 - c_y**2
    if min(a, b, c) <= 0 or sg <= 0 or not height > 0:
        raise ValueError(f"no unit cell has the constants {a}, {b}, {c}, {alpha}, {beta}, {gamma}")
    rows = np.array([[a, 0, 0], [b * cg, b * sg, 0], [c * cb, c * c_y, c * np.sqrt(height)]])
    rows[np.abs(rows) < 1e-12 * max(a, b, c)] = 0
    return rows


def make_crystal(name: str, cell, symbols, positions, occupancy=None, u_iso=None) -> Crystal:
    """Build a crystal from all atoms of its cell and find its symmetry.

    Parameters
    ----------
    name : str
    cell : sequence of 6 floats
        a, b, c in Å; alpha, beta, gamma in degrees.
    symbols : sequence of str
        Chemical symbols, one per atom; a charge ("Fe3+") is ignored.
    positions : array-like of shape (n, 3)
        Fractional coordinates.
    occupancy, u_iso : array-like of shape (n,), optional
        1 and 0.005 Å² where not given; likewise where ``u_iso`` is not above 0.

    Raises
    ------
    ValueError
        Unknown element, impossible cell, no atoms, or a site that is occupied more than once.
    """
    positions = np.asarray(positions, float).reshape(-1, 3)
    if len(positions) == 0:
        raise ValueError("there are no atoms")
    if not np.isfinite(positions).all():
        raise ValueError("a coordinate is not a number")
    numbers = np.array([atomic_number(symbol) for symbol in symbols])
    occupancy = np.ones(len(numbers)) if occupancy is None else np.asarray(occupancy, float)
    u_iso = np.zeros(len(numbers)) if u_iso is None else np.nan_to_num(np.asarray(u_iso, float))
    lattice = lattice_rows(*cell)
    space_group, operations = _symmetry(lattice, numbers, positions, occupancy)
    return Crystal(
        name=name,
        lattice=lattice,
        reciprocal=np.linalg.inv(lattice).T,
        numbers=numbers,
        positions=positions,
        occupancy=occupancy,
        u_iso=np.where(u_iso > 0, u_iso, DEFAULT_U_ISO_ANGSTROM2),
        space_group=space_group,
        laue_class=_laue(space_group)[1],
        operations=operations,
    )


def read_all(paths, names) -> list[Crystal]:
    """Read one crystal per CIF file, in the order of the phases' names."""
    return [read_cif(path, name) for path, name in zip(paths, names, strict=True)]


def read_cif(path, name: str) -> Crystal:
    """Read a crystal from a CIF file.

    Parameters
    ----------
    path : path-like
    name : str
        Name of the phase.

    Raises
    ------
    InputError
        If the file cannot be read, is no CIF, or holds no usable crystal.
    """
    expected = "a CIF file with a unit cell and atom sites"
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        with contextlib.redirect_stdout(io.StringIO()):  # the parser prints its complaint as well as raising it
            structure = P_cif(eps=SITE_TOLERANCE).parse(text)
        if structure is None:
            raise ValueError("it holds no crystal")
        atoms = list(structure)
        return make_crystal(
            name,
            structure.lattice.abcABG(),
            [atom.element for atom in atoms],
            [atom.xyz for atom in atoms],
            [atom.occupancy for atom in atoms],
            [atom.Uisoequiv for atom in atoms],
        )
    except OSError as error:
        found = f"the file cannot be opened: {error.strerror}"
        raise InputError(found, where=str(path), expected=expected, do="Correct the path of this phase.") from error
    except (StructureFormatError, ValueError, KeyError, IndexError) as error:
        found = f"the CIF file cannot be used: {error}"
        do = "Export the structure anew, for example from VESTA."
        raise InputError(found, where=str(path), expected=expected, do=do) from error


def atomic_number(symbol: str) -> int:
    """Atomic number of "Fe", "Fe3+", "O2-", "D"; ValueError if there is no such element."""
    letters = "".join(c for c in symbol if c.isalpha())[:2].capitalize()
    for candidate in (letters, letters[:1]):
        candidate = _ISOTOPES.get(candidate, candidate)
        if candidate in SYMBOLS:
            return SYMBOLS.index(candidate) + 1
    raise ValueError(f"unknown element {symbol!r}")


def reflections(crystal: Crystal, g_max: float) -> tuple[np.ndarray, np.ndarray]:
    """All reciprocal lattice points with 0 < |g| <= g_max, those with structure factor 0 included.

    Returns
    -------
    hkl : ndarray of int, shape (n, 3)
    g : ndarray of shape (n, 3)
        Crystal frame, 1/Å.
    """
    # h = g . a, hence |h| <= |g| |a|
    limit = np.floor(g_max * np.linalg.norm(crystal.lattice, axis=1) + 1e-9).astype(int)
    axes = [np.arange(-n, n + 1) for n in limit]
    hkl = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    g = hkl @ crystal.reciprocal
    keep = (np.linalg.norm(g, axis=1) <= g_max + 1e-9) & hkl.any(axis=1)
    return hkl[keep], g[keep]


def structure_factors(crystal: Crystal, hkl: np.ndarray, factors: str = "lobato") -> np.ndarray:
    """Electron structure factors in Å, Debye–Waller factor included.

    ``F = Σ_j occ_j f_j(g) exp(-2 π² U_j g²) exp(2 π i hkl·x_j)``; f in Å for electrons at rest.

    Parameters
    ----------
    crystal : Crystal
    hkl : ndarray of int, shape (n, 3)
    factors : {"lobato", "xtables"}
        Lobato & Van Dyck 2014 (doi:10.1107/S205327331401643X), or International Tables C, table 4.3.2.3.

    Returns
    -------
    ndarray of complex, shape (n,)
    """
    hkl = np.asarray(hkl)
    g2 = ((hkl @ crystal.reciprocal) ** 2).sum(axis=1)
    total = np.zeros(len(hkl), complex)
    scattering = {z: scattering_factor(int(z), g2, factors) for z in np.unique(crystal.numbers)}
    for z, x, occupancy, u in zip(crystal.numbers, crystal.positions, crystal.occupancy, crystal.u_iso, strict=True):
        amplitude = occupancy * scattering[z] * np.exp(-2 * np.pi**2 * u * g2)
        total += amplitude * np.exp(2j * np.pi * (hkl @ x))
    return total


def scattering_factor(number: int, g2: np.ndarray, factors: str = "lobato") -> np.ndarray:
    """Atomic electron scattering factor in Å at ``g2`` = |g|² in 1/Å² (g without 2 pi, = 2 sin θ / λ)."""
    if factors == "lobato":
        a, b = np.array(ATOMIC_SCATTERING_PARAMS_LOBATO[SYMBOLS[number - 1]]).T
        bg = b * g2[..., None]
        return (a * (2 + bg) / (1 + bg) ** 2).sum(axis=-1)
    if factors != "xtables":
        raise ValueError(f"factors must be 'lobato' or 'xtables', not {factors!r}")
    a, b = np.array(ATOMIC_SCATTERING_PARAMS[SYMBOLS[number - 1]]).T
    return (a * np.exp(-b * g2[..., None] / 4)).sum(axis=-1)


def conventional_rotation(crystal: Crystal) -> tuple[orix_symmetry.Symmetry, np.ndarray]:
    """orix's Laue group and the rotation from our crystal axes to the axes that orix assumes for it.

    orix puts the axis of 2/m along e3, the two-fold axes of -3m at e1, and so on. A monoclinic cell with unique
    axis b, or a space group such as P-31m, needs a rotation before orix's sectors and colour keys apply.

    Returns
    -------
    symmetry : orix Symmetry
    rotation : ndarray of shape (3, 3)
        ``v_orix = rotation @ v_crystal``; the identity for a conventional cell.
    """
    found = _conventional(crystal.space_group, crystal.operations.tobytes())
    if found is None:
        raise ValueError(f"{crystal.name}: no choice of axes turns its rotations into those of {crystal.laue_class}")
    return found


@functools.lru_cache(32)  # figures and tables ask for it again and again; orix takes its time
def _conventional(space_group: int, operations: bytes):
    symmetry = getattr(orix_symmetry, _laue(space_group)[2])
    rotations = np.frombuffer(operations).reshape(-1, 3, 3)
    wanted = symmetry.laue_proper_subgroup.to_matrix()
    for rotation in _axis_choices(rotations):
        if _same_rotations(rotation @ rotations @ rotation.T, wanted):
            rotation.flags.writeable = False
            return symmetry, rotation
    return None


def laue_symmetry(crystal: Crystal) -> orix_symmetry.Symmetry:
    """orix's Laue group of a crystal whose axes are those that orix assumes.

    Raises
    ------
    InputError
        If the cell is in another setting (see `conventional_rotation`, which handles any).
    """
    symmetry, rotation = conventional_rotation(crystal)
    if not np.allclose(rotation, np.eye(3), atol=1e-6):
        raise InputError(
            f"a cell whose symmetry axes are not where orix puts those of {crystal.laue_class}",
            where=f"phase {crystal.name}",
            expected="the conventional cell (2/m: unique axis along e3)",
            do="Supply the conventional cell.",
        )
    return symmetry


def _laue(space_group: int) -> tuple[int, str, str]:
    return next(row for row in _LAUE if space_group <= row[0])


def _symmetry(lattice, numbers, positions, occupancy) -> tuple[int, np.ndarray]:
    points, labels = _sites(lattice, numbers, positions, occupancy)
    # The primitive cell, not turned: a supercell would hide those rotations that its own lattice lacks.
    primitive = spglib.standardize_cell(
        (lattice, points, labels), to_primitive=True, no_idealize=True, symprec=SYMMETRY_TOLERANCE_ANGSTROM
    )
    found = primitive and spglib.get_symmetry_dataset(primitive, symprec=SYMMETRY_TOLERANCE_ANGSTROM)
    if not found:
        raise ValueError("no symmetry could be found; are there atoms on top of each other?")
    rows = np.asarray(primitive[0])
    matrices = np.unique(np.asarray(found.rotations), axis=0)
    matrices = np.unique(matrices * np.round(np.linalg.det(matrices)).astype(int)[:, None, None], axis=0)
    cartesian = rows.T @ matrices @ np.linalg.inv(rows.T)
    u, _, vt = np.linalg.svd(cartesian)  # a cell is symmetric only to its last digit; a rotation is exact
    return int(found.number), u @ vt


def _sites(lattice, numbers, positions, occupancy) -> tuple[list, list[int]]:
    """One point per site and a label for what sits on it, so that mixed sites are one site to spglib."""
    points, content = [], []
    for number, x, share in zip(numbers, positions, occupancy, strict=True):
        for point, species in zip(points, content, strict=True):
            apart = (x - point + 0.5) % 1 - 0.5
            if np.linalg.norm(apart @ lattice) < 0.05:
                species[number] = species.get(number, 0) + round(float(share), 4)
                break
        else:
            points.append(x)
            content.append({number: round(float(share), 4)})
    for point, species in zip(points, content, strict=True):
        if sum(species.values()) > 1.05:
            raise ValueError(f"the site {np.round(point, 4).tolist()} is occupied {sum(species.values()):.2f} times")
    kinds = [tuple(sorted(species.items())) for species in content]
    return points, [sorted(set(kinds)).index(kind) + 1 for kind in kinds]


def _same_rotations(first: np.ndarray, second: np.ndarray) -> bool:
    if len(first) != len(second):
        return False
    gap = np.abs(first[:, None] - second[None]).max(axis=(2, 3))
    return bool((gap.min(axis=1) < 1e-3).all())


def _axis_choices(operations: np.ndarray):
    """Yield rotations to try: the identity, 30° about e3, then frames along the crystal's own rotation axes."""
    yield np.eye(3)
    cos, sin = np.cos(np.pi / 6), np.sin(np.pi / 6)
    yield np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    order = np.round(2 * np.pi / np.arccos(np.clip((np.trace(operations, axis1=1, axis2=2) - 1) / 2, -1, 1 - 1e-12)))
    rotations = operations[order < 7]
    # The axis is the null vector of R - 1; highest order first, because it becomes e3.
    axes = [np.linalg.svd(r - np.eye(3))[2][2] for r in rotations[np.argsort(-order[order < 7], kind="stable")]]
    for e3 in axes:
        for seed in [*axes, np.array([1.0, 0, 0]), np.array([0, 1.0, 0])]:
            e1 = seed - (seed @ e3) * e3
            if np.linalg.norm(e1) > 1e-3:
                e1 = e1 / np.linalg.norm(e1)
                yield np.array([e1, np.cross(e3, e1), e3])
