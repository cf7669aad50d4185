"""Crystals and orientation maps with known answers, for the tests of what comes after the index."""

from types import SimpleNamespace

import numpy as np

from fourdstem import crystal

FCC = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
HCP = [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]


def gold():
    return crystal.make_crystal("gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, FCC)


def primitive_gold():
    """The same crystal by its primitive cell: other crystal axes."""
    edge = 4.0782 / np.sqrt(2)
    return crystal.make_crystal("gold", (edge,) * 3 + (60,) * 3, ["Au"], [[0, 0, 0]])


def iron():
    return crystal.make_crystal("iron", (2.866,) * 3 + (90,) * 3, ["Fe"] * 2, [[0, 0, 0], [0.5, 0.5, 0.5]])


def magnesium():
    return crystal.make_crystal("magnesium", (3.2089, 3.2089, 5.2101, 90, 90, 120), ["Mg"] * 2, HCP)


def random_lattice(seed: int):
    """A triclinic crystal of two different atoms."""
    rng = np.random.default_rng(seed)
    cell = (*rng.uniform(3, 6, 3), *rng.uniform(70, 110, 3))
    return crystal.make_crystal("random", cell, ["Au", "O"], [[0, 0, 0], rng.uniform(0.2, 0.8, 3)])


def about(axis, angle_deg) -> np.ndarray:
    """Quaternions (..., 4) of turns about an axis."""
    half = np.deg2rad(np.asarray(angle_deg, float)) / 2
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    return np.concatenate([np.cos(half)[..., None], np.sin(half)[..., None] * axis], axis=-1)


def vectors(rotation_deg) -> np.ndarray:
    """Quaternions (..., 4) of rotation vectors (..., 3), degrees."""
    angle = np.linalg.norm(rotation_deg, axis=-1, keepdims=True)
    half = np.deg2rad(angle) / 2
    return np.concatenate([np.cos(half), np.sin(half) * rotation_deg / np.maximum(angle, 1e-12)], axis=-1)


def indexed(orientation, phase=None, correlation=None, reliability=None):
    """An orientation map as the library reads it: single precision, NaN where the phase is -1."""
    shape = np.shape(orientation)[:2]
    phase = np.zeros(shape, np.int16) if phase is None else np.asarray(phase)
    one = np.ones(shape, np.float32)
    return SimpleNamespace(
        orientation=np.where((phase < 0)[..., None], np.nan, orientation).astype(np.float32),
        phase=phase,
        correlation=0.5 * one if correlation is None else np.asarray(correlation, np.float32),
        reliability=50 * one if reliability is None else np.asarray(reliability, np.float32),
    )


def voronoi(shape, count: int, rng) -> np.ndarray:
    """Cells of random seeds, each connected."""
    seeds = rng.uniform(0, 1, (count, 2)) * shape
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1)
