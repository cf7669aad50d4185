"""Boundaries between grains: every segment with angle, axis and class, and the classes with their lengths."""

import numpy as np

from fourdstem.crystal import Crystal, conventional_rotation
from fourdstem.jit import alone
from fourdstem.methods.grains.segments import Map, Pairs
from fourdstem.rotations import angle_deg, conjugate, disorientation, from_matrix, multiply, random_orientations

with alone():
    from orix.vector import Vector3d

BRANDON_DEG = 15.0  # a class holds what is within 15°/sqrt(Σ) of it; Brandon 1966, doi:10.1016/0001-6160(66)90168-4
RANDOM = 20000  # misorientations that tell the share of a class at random
LOW, GENERAL, BETWEEN = "low angle", "general", "phase boundary"
# Cubic coincidence site lattices as integer quaternions: the odd part of the squared length is Σ. Tilts and twists of
# the smallest angle, as tabulated by Grimmer, Bollmann & Warrington 1974, doi:10.1107/S056773947400043X.
CUBIC = {
    "Σ3": (3, 1, 1, 1),
    "Σ5": (3, 1, 0, 0),
    "Σ7": (5, 1, 1, 1),
    "Σ9": (4, 1, 1, 0),
    "Σ11": (3, 1, 1, 0),
    "Σ13a": (5, 1, 0, 0),
    "Σ13b": (7, 1, 1, 1),
    "Σ15": (5, 2, 1, 0),
    "Σ17a": (4, 1, 0, 0),
    "Σ17b": (5, 2, 2, 1),
    "Σ19a": (6, 1, 1, 0),
    "Σ19b": (4, 1, 1, 1),
    "Σ21a": (9, 1, 1, 1),
    "Σ21b": (6, 2, 1, 1),
    "Σ23": (9, 3, 1, 1),
    "Σ25a": (7, 1, 0, 0),
    "Σ25b": (9, 3, 3, 1),
    "Σ27a": (5, 1, 1, 0),
    "Σ27b": (7, 2, 1, 0),
    "Σ29a": (5, 2, 0, 0),
    "Σ29b": (7, 2, 2, 1),
}


def sigma_of(name: str) -> int:
    """Return 13 for "Σ13b"."""
    return int(name.strip("Σab"))


def class_names(crystal: Crystal) -> tuple[str, ...]:
    """Return the classes of boundaries within a phase; coincidence lattices for m-3m only."""
    return (LOW, GENERAL, *(CUBIC if crystal.laue_class == "m-3m" else ()))


def classify(turn: np.ndarray, crystal: Crystal) -> np.ndarray:
    """Number of the class, within `class_names`, of misorientations in the crystal frame.

    Up to 15° is low angle; beyond, the coincidence lattice whose deviation is the smallest part of its limit
    15°/sqrt(Σ), if any is within it.

    Parameters
    ----------
    turn : ndarray of shape (n, 4)
        As from `disorientation`: no equivalent has a smaller angle.
    crystal : Crystal

    Returns
    -------
    ndarray of int, shape (n,)
    """
    names = class_names(crystal)
    angle = angle_deg(turn)
    nearest, found = np.full(len(turn), 1.0), np.full(len(turn), names.index(GENERAL))
    operations = from_matrix(crystal.operations)
    axes = from_matrix(conventional_rotation(crystal)[1])
    for number, name in enumerate(names[2:], 2):
        limit = BRANDON_DEG / np.sqrt(sigma_of(name))
        exact = np.array(CUBIC[name], float) / np.linalg.norm(CUBIC[name])
        exact = multiply(multiply(conjugate(axes), exact), axes)
        part = _distance_deg(turn, exact, operations, limit) / limit
        found[part <= nearest] = number
        nearest = np.minimum(nearest, part)
    found[angle <= BRANDON_DEG] = names.index(LOW)
    return found


def _distance_deg(turn, exact, operations, limit: float) -> np.ndarray:
    """Smallest angle between misorientations of smallest angle and the equivalents of an exact one."""
    equivalent = multiply(multiply(operations[:, None], exact), operations[None]).reshape(-1, 4)
    equivalent = np.concatenate([equivalent, conjugate(equivalent)])
    # Those of much larger angle are nearer to an equivalent of `turn` that has no smallest angle.
    angle = angle_deg(equivalent)
    equivalent = np.unique(np.round(equivalent[angle <= angle.min() + 2 * limit], 9), axis=0)
    cosine = np.abs(turn @ equivalent.T).max(axis=1, initial=0)
    return np.rad2deg(2 * np.arccos(np.minimum(cosine, 1)))


def reduced_axes(turn: np.ndarray, crystal: Crystal) -> np.ndarray:
    """Axes of turns, crystal frame, moved into the fundamental sector of the Laue group.

    Parameters
    ----------
    turn : ndarray of shape (n, 4)
    crystal : Crystal

    Returns
    -------
    ndarray of shape (n, 3)
        Unit vectors; NaN for no turn at all.
    """
    symmetry, axes = conventional_rotation(crystal)
    length = np.linalg.norm(turn[:, 1:], axis=1, keepdims=True)
    unit = np.divide(turn[:, 1:], length, out=np.full(turn[:, 1:].shape, np.nan), where=length > 1e-12)
    known = np.isfinite(unit).all(axis=1)
    if known.any():
        unit[known] = Vector3d(unit[known] @ axes.T).in_fundamental_sector(symmetry).data @ axes
    return unit


def random_turns(crystal: Crystal, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4) smallest turns between random orientations of one crystal."""
    orientation = random_orientations(count, rng)
    return disorientation(np.array([[1.0, 0, 0, 0]]), orientation, from_matrix(crystal.operations))


def boundaries(here: Map, pairs: Pairs, grain: np.ndarray, step_nm, rng: np.random.Generator) -> dict:
    """Return segments and classes of boundaries, by the names of `Result`.

    A segment is the edge that two neighbouring positions of different grains share, so that the length of an
    oblique boundary is that of a staircase: 4/pi times the true one on average over directions.
    """
    apart = (grain[pairs.first] >= 0) & (grain[pairs.second] >= 0) & (grain[pairs.first] != grain[pairs.second])
    chosen = np.flatnonzero(apart)
    first, second, turn = pairs.first[chosen], pairs.second[chosen], pairs.turn[chosen]
    width = here.shape[1]
    position = (np.stack(np.divmod(first, width), 1) + np.stack(np.divmod(second, width), 1)) / 2
    length = np.where(chosen < pairs.along_x, *step_nm)  # neighbours along x share an edge along y
    phase = np.where(here.phase[first] == here.phase[second], here.phase[first], -1)
    axis, row = np.full((len(chosen), 3), np.nan), np.zeros(len(chosen), np.int16)
    names, phases, chance = [], [], []
    for k, crystal in enumerate(here.crystals):
        mine, known = phase == k, class_names(crystal)
        axis[mine] = reduced_axes(turn[mine], crystal)
        row[mine] = len(names) + classify(turn[mine], crystal)
        drawn = classify(random_turns(crystal, RANDOM, rng), crystal)
        chance += (np.bincount(drawn, minlength=len(known)) / RANDOM).tolist()
        names += known
        phases += [k] * len(known)
    row[phase < 0] = len(names)
    total = np.bincount(row, length, len(names) + 1)
    of_phase = np.array([*phases, -1])
    number = np.bincount(row, minlength=len(of_phase))
    share = np.bincount(row, np.where(np.isnan(length), 1.0, length), len(of_phase))
    whole = np.array([share[of_phase == k].sum() for k in of_phase])
    return {
        "boundary_position_px": position.astype(np.float32),
        "boundary_grain": np.stack([grain[first], grain[second]], axis=1).reshape(-1, 2).astype(np.int32),
        "boundary_angle_deg": pairs.angle_deg[chosen].astype(np.float32),
        "boundary_axis": axis.astype(np.float32),
        "boundary_class": row,
        "class_name": (*names, BETWEEN),
        "class_phase": of_phase.astype(np.int16),
        "class_segments": number.astype(np.int32),
        "class_length_nm": total.astype(np.float32),
        "class_share": np.divide(share, whole, out=np.full(len(whole), np.nan), where=whole > 0).astype(np.float32),
        "class_random_share": np.array([*chance, np.nan], np.float32),
    }
