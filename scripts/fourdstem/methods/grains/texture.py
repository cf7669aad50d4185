"""Pole figures, inverse pole figures and the texture index, in multiples of a random distribution (mrd).

All densities are those of one kernel, de la Vallée Poussin's, ``K(ω) = C cos(ω/2)**(2 k)``, whose pole figure is
``(1 + k) cos(θ/2)**(2 k)`` (Schaeben 1997, doi:10.1002/1521-3951(199704)200:2<367::AID-PSSB367>3.0.CO;2-I).
"""

from functools import lru_cache
from math import gcd

import numpy as np

from fourdstem.crystal import Crystal, conventional_rotation, reflections, structure_factors
from fourdstem.methods.grains.segments import Map
from fourdstem.rotations import (
    conjugate,
    multiply,
    random_orientations,
    sphere_grid,
    to_matrix,
)

POLES = 3
LAB_AXES = {"z": (0.0, 0.0, 1.0), "x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0)}
SPACING_DEG = 2.5
_HARMONICS = 200  # more than kernels of 5° half width need
_QUADRATURE = 4000
_TABLE = 20000
_SAMPLED = 10000  # random misorientations that give the scatter of the texture index without texture
_BLOCK = 2_000_000
_ABSENT = 1e-3  # of the largest structure factor


@lru_cache(1)
def directions() -> np.ndarray:
    """(n, 3) directions of all pole figures: rings of the upper half sphere, z = 1 first, the equator last."""
    grid = sphere_grid(SPACING_DEG)
    return grid[grid[:, 2] > -1e-9]


@lru_cache(1)
def _rings() -> tuple[np.ndarray, np.ndarray]:
    """First row of `directions` and number of directions on each ring."""
    number = np.unique(np.round(directions()[:, 2], 9), return_counts=True)[1][::-1]
    return np.concatenate([[0], np.cumsum(number)[:-1]]), number


def counted(vectors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum weights of axes (n, 3), both ends alike, by the nearest of `directions`: ring first, then azimuth."""
    start, number = _rings()
    up = np.where(vectors[:, 2:] < 0, -vectors, vectors)
    ring = np.rint(np.arccos(np.clip(up[:, 2], 0, 1)) * (len(number) - 1) / (np.pi / 2)).astype(int)
    azimuth = np.arctan2(up[:, 1], up[:, 0]) / (2 * np.pi)
    place = np.rint(azimuth * number[ring]).astype(int) % number[ring]
    return np.bincount(start[ring] + place, weights, len(directions()))


def exponent(kernel_deg: float) -> float:
    """Return k of the kernel whose half width at half maximum is given."""
    return float(np.log(0.5) / (2 * np.log(np.cos(np.deg2rad(kernel_deg) / 2))))


def smoothed(weights: np.ndarray, kernel_deg: float) -> np.ndarray:
    """Density in multiples of random, at `directions`, of axes counted there; (directions, figures)."""
    k = exponent(kernel_deg)
    filled = np.flatnonzero(weights.any(axis=1))
    grid = directions().astype(np.float32)
    cosine = np.linspace(0, 1, _TABLE + 1)
    table = ((1 + k) / 2 * (((1 + cosine) / 2) ** k + ((1 - cosine) / 2) ** k)).astype(np.float32)
    kernel = table[np.minimum(np.rint(np.abs(grid @ grid[filled].T) * _TABLE).astype(np.int32), _TABLE)]
    total = weights.sum(axis=0)
    return np.divide(kernel @ weights[filled], total, out=np.full((len(grid), len(total)), np.nan), where=total > 0)


def pole_families(crystal: Crystal, count: int = POLES) -> list[tuple[np.ndarray, np.ndarray]]:
    """The reflecting planes of largest spacing, in different directions, that are not absent.

    Returns
    -------
    list of (hkl, normals)
        A representative without common factor, (3,) int, and the unit normals of all planes that symmetry makes
        equal to it, (m, 3), crystal frame, one of each pair of opposite ones.
    """
    shortest = float(np.linalg.norm(crystal.reciprocal, axis=1).min())
    found, reach = [], 2.5 * shortest
    while len(found) < count:
        found, reach = _families(crystal, reach, count), 1.5 * reach
    return found


def _families(crystal: Crystal, g_max: float, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    hkl, g = reflections(crystal, g_max)
    strength = np.abs(structure_factors(crystal, hkl))
    kept = strength > _ABSENT * strength.max(initial=0)
    hkl, g = hkl[kept], g[kept]
    order = np.argsort(np.round(np.linalg.norm(g, axis=1), 6), kind="stable")
    found = []
    for row in order:
        normal = g[row] / np.linalg.norm(g[row])
        if any((np.abs(normals @ normal) > 1 - 1e-6).any() for _, normals in found):
            continue
        normals = _half(crystal.operations @ normal)
        found.append((_named(hkl, g, normals, np.linalg.norm(g[row])), normals))
        if len(found) == count:
            break
    return found


def _half(vectors: np.ndarray) -> np.ndarray:
    """One of each pair of opposite vectors, each once."""
    kept = []
    for vector in vectors:
        if not any(abs(vector @ other) > 1 - 1e-6 for other in kept):
            kept.append(vector)
    return np.array(kept)


def _named(hkl, g, normals, length: float) -> np.ndarray:
    """The member of a family by which it is called: 111, not -1 1 -1."""
    same = np.abs(np.linalg.norm(g, axis=1) - length) < 1e-6
    same[same] = (np.abs(g[same] @ normals.T) > (1 - 1e-6) * length).any(axis=1)
    best = max(hkl[same].tolist(), key=lambda m: (-sum(v < 0 for v in m), m))
    return np.array(best) // gcd(*best)


def texture(here: Map, grain, table: dict, kernel_deg: float, rng: np.random.Generator) -> dict:
    """Return pole figures and texture indices of all phases, by the names of `Result`."""
    shape = (len(here.crystals), POLES, len(directions()))
    hkl, poles = np.zeros((*shape[:2], 3), np.int16), np.full(shape, np.nan, np.float32)
    inverse = np.full((shape[0], len(LAB_AXES), shape[2]), np.nan, np.float32)
    index = np.full((shape[0], 4), np.nan, np.float32)
    for k, crystal in enumerate(here.crystals):
        families = pole_families(crystal)
        hkl[k] = [name for name, _ in families]
        chosen = (grain >= 0) & (here.phase == k)
        if chosen.any():
            matrices = to_matrix(here.orientation[chosen])
            poles[k] = smoothed(_pole_counts(matrices, families), kernel_deg).T
            inverse[k] = smoothed(_inverse_counts(matrices, crystal), kernel_deg).T
            mine = table["grain_phase"] == k
            index[k] = texture_index(
                table["grain_orientation"][mine], table["grain_size_px"][mine], here.operations[k], kernel_deg, rng
            )
    return {
        "pole_direction": directions().astype(np.float32),
        "pole_hkl": hkl,
        "pole_density": poles,
        "inverse_pole_density": inverse,
        **dict(zip(_INDICES, index.T, strict=True)),
    }


_INDICES = ("texture_index", "texture_index_random", "texture_index_random_sigma", "effective_grains")


def _pole_counts(matrices, families) -> np.ndarray:
    """(directions, poles): how many positions have a plane normal there, lab frame."""
    one = np.ones(len(matrices))
    columns = [sum(counted(n @ matrices, one) for n in normals) / len(normals) for _, normals in families]
    return np.stack(columns, axis=1)


def _inverse_counts(matrices, crystal: Crystal) -> np.ndarray:
    """(directions, lab axes): how many positions have a crystal direction along it, in the axes of the Laue group."""
    axes = conventional_rotation(crystal)[1]
    operations = axes @ crystal.operations @ axes.T
    columns = []
    for lab in LAB_AXES.values():
        once = counted(matrices @ np.array(lab) @ axes.T, np.ones(len(matrices)))
        filled = np.flatnonzero(once)
        everywhere = np.einsum("oij,nj->noi", operations, directions()[filled]).reshape(-1, 3)
        columns.append(counted(everywhere, np.repeat(once[filled], len(operations)) / len(operations)))
    return np.stack(columns, axis=1)


def texture_index(orientation, weight, operations, kernel_deg: float, rng) -> tuple[float, float, float, float]:
    """Integral of the squared orientation density, ∫ f² dg, and what chance makes of it.

    f is the sum of kernels at the grains' mean orientations, weighted by area; 1 would be no texture. Few grains
    make a large index by themselves: without texture it is 1 + Σw² (S0 - 1) on average, with S0 the index of a
    single grain. That and its standard deviation are returned beside it.

    Parameters
    ----------
    orientation : ndarray of shape (n, 4)
    weight : ndarray of shape (n,)
    operations : ndarray of shape (m, 4)
        Rotations of the Laue group.
    kernel_deg : float
    rng : numpy Generator
        Draws the misorientations from which the standard deviation comes.

    Returns
    -------
    index, expected, sigma, effective number of grains : float
    """
    share = np.asarray(weight, float) / np.sum(weight)
    orientation = np.asarray(orientation, float)
    orientation = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    table = overlap_table(exponent(kernel_deg))
    own = float(_overlap(np.array([[1.0, 0, 0, 0]]), operations, table)[0])
    index, step = own * float((share**2).sum()), max(1, _BLOCK // (len(share) * len(operations)))
    for start in range(0, len(share), step):
        part = np.arange(start, min(start + step, len(share)))
        first, second = np.nonzero(np.arange(len(share)) > part[:, None])
        turn = multiply(orientation[second], conjugate(orientation[part[first]]))
        index += 2 * float((share[part[first]] * share[second] * _overlap(turn, operations, table)).sum())
    squares = share**2
    scatter = _overlap(random_orientations(_SAMPLED, rng), operations, table).var()
    sigma = np.sqrt(2 * (squares.sum() ** 2 - (squares**2).sum()) * scatter)
    return index, 1 + squares.sum() * (own - 1), float(sigma), 1 / squares.sum()


def _overlap(turn, operations, table) -> np.ndarray:
    """∫ f1 f2 dg of the symmetrised kernels of two grains, from the turn between them."""
    place = np.rint(np.minimum(np.abs(turn @ conjugate(operations).T), 1) * _TABLE).astype(np.int32)
    return table[place].mean(axis=1)


def overlap_table(k: float) -> np.ndarray:
    """The kernel convolved with itself, at cos(ω/2) = 0, 1/n, …, 1.

    By its characters: ``K = Σ c_l χ_l`` with ``χ_l = sin((2l+1) ω/2) / sin(ω/2)``; convolution squares c_l and
    divides it by 2l + 1.
    """
    half = (np.arange(_QUADRATURE) + 0.5) * (np.pi / 2) / _QUADRATURE
    kernel = np.cos(half) ** (2 * k)
    order = 2 * np.arange(_HARMONICS) + 1
    # dμ = (4/π) sin²(ω/2) d(ω/2); one sine cancels against the character's.
    measure = kernel * np.sin(half)
    c = np.array([(measure * np.sin(m * half)).sum() for m in order])
    c = c / c[0]
    at = np.arccos(np.linspace(0, 1, _TABLE + 1))
    sine = np.where(at > 0, np.sin(at), 1)
    out = np.zeros(_TABLE + 1)
    for m, value in zip(order, c, strict=True):
        if value > 1e-9:
            out += value**2 / m * np.where(at > 0, np.sin(m * at) / sine, m)
    return out
