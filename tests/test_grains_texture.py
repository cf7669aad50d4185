"""Pole figures and texture index against closed forms, chance and direct integration."""

import numpy as np
import orientations as make
import pytest

from fourdstem import rotations
from fourdstem.methods import grains
from fourdstem.methods.grains import segments, texture

GOLD = make.gold()
KERNEL = 10.0
K = texture.exponent(KERNEL)


def families(crystal):
    return ["".join(map(str, hkl)) for hkl, _ in texture.pole_families(crystal)]


def textured(orientation, crystal):
    """Texture of a map in which every position is a grain."""
    here = segments.Map(make.indexed(orientation), [crystal], 0)
    grain = np.arange(here.phase.size)
    flat = orientation.reshape(-1, 4)
    table = {"grain_phase": np.zeros(len(flat), int), "grain_orientation": flat, "grain_size_px": np.ones(len(flat))}
    return texture.texture(here, grain, table, KERNEL, np.random.default_rng(0))


def at(directions, wanted):
    """Row of the direction nearest to a wanted one."""
    return int(np.argmax(np.abs(directions @ (np.asarray(wanted, float) / np.linalg.norm(wanted)))))


def test_pole_figures_are_those_of_the_strongest_low_planes():
    assert families(GOLD) == ["111", "100", "110"]
    assert families(make.iron()) == ["110", "100", "211"]
    assert families(make.magnesium()) == ["100", "001", "101"]
    assert [len(normals) for _, normals in texture.pole_families(GOLD)] == [4, 3, 6]
    assert [len(normals) for _, normals in texture.pole_families(make.random_lattice(1))] == [1, 1, 1]


def test_a_primitive_cell_has_the_same_planes():
    for (_, one), (_, other) in zip(*map(texture.pole_families, (GOLD, make.primitive_gold())), strict=True):
        angles = [np.sort(np.abs(n @ n.T).ravel()) for n in (one, other)]
        np.testing.assert_allclose(*angles, atol=1e-6)


def test_the_kernel_has_its_half_width_and_mean_one():
    assert np.cos(np.deg2rad(KERNEL) / 2) ** (2 * K) == pytest.approx(0.5)
    grid = texture.directions()
    weights = np.zeros((len(grid), 1))
    weights[at(grid, [0.3, 0.2, 0.9])] = 7.0
    density = texture.smoothed(weights, KERNEL)[:, 0]
    # Mean over the half sphere, rings weighted by their area.
    z = np.round(grid[:, 2], 9)
    mean = [density[z == level].mean() for level in np.unique(z)]
    polar = np.arccos(np.clip(np.unique(z), 0, 1))
    assert abs(np.trapezoid(np.array(mean) * np.sin(polar), polar)) == pytest.approx(1, rel=2e-3)


def test_directions_are_counted_where_they_are():
    grid = texture.directions()
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(5000, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for vector in vectors[:200]:
        found = np.flatnonzero(texture.counted(vector[None], np.ones(1)))
        assert len(found) == 1
        assert np.rad2deg(np.arccos(np.abs(grid[found[0]] @ vector).clip(0, 1))) < 0.75 * texture.SPACING_DEG
    assert texture.counted(grid, np.ones(len(grid))).tolist() == [1] * len(grid)
    assert texture.counted(vectors, np.full(5000, 0.5)).sum() == pytest.approx(2500)


def test_a_single_orientation_has_poles_where_its_planes_are_with_the_height_of_the_kernel():
    crystal = make.random_lattice(5)
    quaternion = rotations.random_orientations(1, np.random.default_rng(2))
    result = textured(quaternion[None], crystal)
    grid, matrix = result["pole_direction"], rotations.to_matrix(quaternion[0])
    for k, (hkl, _) in enumerate(texture.pole_families(crystal)):
        normal = matrix.T @ (hkl @ crystal.reciprocal)  # g_lab = Mᵀ g_crystal
        peak = int(np.argmax(result["pole_density"][0, k]))
        angle = np.rad2deg(np.arccos(abs(grid[peak] @ normal) / np.linalg.norm(normal)))
        assert angle < texture.SPACING_DEG
        assert result["pole_density"][0, k, peak] == pytest.approx((1 + K) / 2, rel=0.02)
    for k, lab in enumerate(texture.LAB_AXES.values()):
        peak = int(np.argmax(result["inverse_pole_density"][0, k]))
        along = matrix @ lab
        assert np.rad2deg(np.arccos(abs(grid[peak] @ along))) < texture.SPACING_DEG


def test_cube_texture_has_its_closed_form():
    result = textured(np.broadcast_to([1.0, 0, 0, 0], (3, 3, 4)), GOLD)
    grid = result["pole_direction"]
    hundred = result["pole_density"][0, 1]
    # One of three axes: kernel at 0 and 180°, and four times at 90°, of six.
    expected = (1 + K) * (1 + 4 * 0.5**K) / 6
    assert hundred[at(grid, [0, 0, 1])] == pytest.approx(expected, rel=1e-3)
    assert hundred[at(grid, [1, 0, 0])] == pytest.approx(expected, rel=1e-3)
    for k in range(3):
        inverse = result["inverse_pole_density"][0, k]
        assert inverse[at(grid, [0, 0, 1])] == pytest.approx(expected, rel=1e-3)
        assert inverse[at(grid, [1, 1, 1])] < 0.01


def test_random_orientations_have_no_texture():
    orientation = rotations.random_orientations(1500, np.random.default_rng(3))[None]
    result = textured(orientation, GOLD)
    # Counting noise: each position weighs in with its poles, of which the kernel holds a share of 1/(1 + k).
    sigma = np.sqrt((1 + K) / 4 / 1500)
    for name in ("pole_density", "inverse_pole_density"):
        assert np.abs(result[name] - 1).max() < 5 * sigma
        assert result[name].mean() == pytest.approx(1, abs=sigma)
    away = result["texture_index"] - result["texture_index_random"]
    assert abs(away[0]) < 3 * result["texture_index_random_sigma"][0]
    assert result["effective_grains"][0] == pytest.approx(1500)


def test_chance_gives_few_grains_a_large_index_as_predicted():
    rng, operations = np.random.default_rng(4), rotations.from_matrix(GOLD.operations)
    weight = rng.uniform(1, 20, 15)
    found = [
        texture.texture_index(rotations.random_orientations(15, rng), weight, operations, KERNEL, rng)
        for _ in range(50)
    ]
    index, expected, sigma, number = np.array(found).T
    assert expected[0] > 2 and np.ptp(expected) == 0
    assert index.mean() == pytest.approx(expected[0], abs=4 * sigma.mean() / np.sqrt(50))
    assert index.std() == pytest.approx(sigma.mean(), rel=0.35)
    assert number[0] == pytest.approx(weight.sum() ** 2 / (weight**2).sum())


@pytest.mark.parametrize("crystal", [GOLD, make.magnesium()], ids=["cubic", "hexagonal"])
def test_the_texture_index_is_the_integral_of_the_squared_density(crystal):
    rng, operations = np.random.default_rng(5), rotations.from_matrix(crystal.operations)
    orientation, weight = rotations.random_orientations(6, rng), np.array([1.0, 2, 3, 4, 5, 6])
    weight /= weight.sum()
    kernel_deg = 25.0
    k = texture.exponent(kernel_deg)
    constant = np.exp(_log_beta(1.5, 0.5) - _log_beta(1.5, k + 0.5))
    points = rotations.random_orientations(200000, rng)
    density = np.zeros(len(points))
    for quaternion, share in zip(orientation, weight, strict=True):
        for operation in operations:
            cosine = points @ rotations.multiply(operation, quaternion)
            density += share * constant * np.abs(cosine) ** (2 * k) / len(operations)
    assert density.mean() == pytest.approx(1, rel=0.02)
    found = texture.texture_index(orientation, weight, operations, kernel_deg, rng)[0]
    assert found == pytest.approx((density**2).mean(), rel=0.03)


def _log_beta(a, b):
    from math import lgamma

    return lgamma(a) + lgamma(b) - lgamma(a + b)


def test_the_texture_of_a_map_leaves_out_what_is_no_grain():
    orientation = np.broadcast_to([1.0, 0, 0, 0], (8, 8, 4)).copy()
    orientation[0, 0] = make.about([1, 1, 0], 40)
    params = grains.Params()
    with_one = grains.compute(make.indexed(orientation), [GOLD], params, source="x")
    orientation[0, 0] = [1, 0, 0, 0]
    without = grains.compute(make.indexed(orientation), [GOLD], params, source="x")
    np.testing.assert_allclose(with_one.pole_density, without.pole_density, rtol=1e-5)
    assert with_one.effective_grains[0] == 1
    # A single grain is what chance makes of a single grain.
    assert with_one.texture_index_random[0] == pytest.approx(with_one.texture_index[0], rel=1e-6)
