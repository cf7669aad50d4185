"""Templates, rings and rotations of orientation mapping, against closed forms, numerical integration and orix."""

import numpy as np
import pytest
from orix.quaternion import Rotation
from test_crystal import LAUE, build
from test_orientation import OPTICS, PIXEL, SIZE, random_orientations

from fourdstem.crystal import structure_factors
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import polar, rotations, templates


@pytest.fixture(scope="module")
def gold():
    return build("m-3m")


@pytest.mark.parametrize("laue", LAUE)
def test_the_sampled_directions_cover_the_sphere_of_every_laue_class(laue):
    crystal = build(laue)
    spacing = 5.0
    kept = rotations.reduced_directions(crystal.operations, spacing)
    everything = np.concatenate([kept @ r.T for r in [*crystal.operations, *-crystal.operations]])
    probe = np.random.default_rng(0).normal(size=(500, 3))
    probe /= np.linalg.norm(probe, axis=1, keepdims=True)
    nearest = np.rad2deg(np.arccos(np.clip((probe @ everything.T).max(axis=1), -1, 1)))
    assert nearest.max() <= 0.72 * spacing
    grid = len(rotations.sphere_grid(spacing))
    order = 2 * len(crystal.operations)
    assert len(kept) < grid / order + 6 * np.sqrt(grid / order) + 12


def test_misorientation_knows_symmetry_and_is_nan_for_nan(gold):
    q = random_orientations(4, 5)
    for operation in rotations.from_matrix(gold.operations):
        assert np.all(method.misorientation_deg(q, rotations.multiply(operation, q), gold) < 1e-5)
    turned = rotations.multiply([np.cos(np.deg2rad(5)), np.sin(np.deg2rad(5)), 0, 0], q)
    assert np.allclose(method.misorientation_deg(q, turned, gold), 10)
    assert np.isnan(method.misorientation_deg(np.full(4, np.nan), q[0], gold))
    disorientation = 62.7994  # largest angle between two cubes
    assert method.misorientation_deg(q[:, None], random_orientations(300, 6), gold).max() <= disorientation


def test_quaternions_are_those_of_orix():
    q = random_orientations(5, 8)
    assert np.allclose(rotations.to_matrix(q), Rotation(q).to_matrix())
    assert np.allclose(rotations.from_matrix(rotations.to_matrix(q)), q)
    assert np.allclose(
        rotations.to_matrix(rotations.multiply(q[0], q[1])), rotations.to_matrix(q[0]) @ rotations.to_matrix(q[1])
    )


def test_template_patterns_hold_no_absent_reflection_and_lie_where_the_frame_says(gold):
    identity = np.array([1.0, 0, 0, 0])
    spots = method.template_pattern(gold, identity, OPTICS, (SIZE, SIZE + 10))
    offset = (spots[:, :2] - [(SIZE - 1) / 2, (SIZE + 9) / 2]) * PIXEL * gold.lattice[0, 0]
    hkl = np.rint(offset[:, ::-1]).astype(int)
    assert np.allclose(hkl, offset[:, ::-1], atol=1e-6)
    assert np.all(hkl % 2 == 0)  # [001] of a face-centred cube: h, k even
    assert np.all(np.abs(structure_factors(gold, np.c_[hkl, np.zeros(len(hkl), int)])) > 1)
    assert spots[0, 2] == 1
    assert {tuple(i) for i in hkl[:4]} == {(2, 0), (-2, 0), (0, 2), (0, -2)}


def test_excitation_error_breaks_friedel_pairs_as_the_ewald_sphere_does(gold):
    # Tilted so that +g goes up-beam: its g_z < 0 meets the sphere, which curves to negative z.
    tilt = np.deg2rad(0.6)
    rotation = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    q = rotations.from_matrix(rotation.T)
    lab = np.array([[0.49, 0, 0], [-0.49, 0, 0]]) @ rotations.to_matrix(q)
    weight = templates.relrod(lab, OPTICS.wavelength_angstrom, np.full(2, 100.0), 0.0, 0.0)
    s = -lab[:, 2] - (0.49**2) * OPTICS.wavelength_angstrom / 2
    assert np.allclose(weight, 1 / (1 + 2 * (np.pi * s * 100) ** 2), rtol=2e-2)
    assert weight[np.argmin(np.abs(s))] == weight.max()
    assert np.allclose(weight, templates.relrod.py_func(lab, OPTICS.wavelength_angstrom, np.full(2, 100.0), 0.0, 0.0))


def test_relrod_averages_over_tilt_and_precession_as_numerical_integration_does():
    g, wavelength, thickness = 0.8, 0.02508, 150.0
    lab = np.array([[g, 0.0, -0.011]])
    k0 = 1 / wavelength
    length = np.hypot(g, k0 - 0.011)
    s = (k0**2 - length**2) / (2 * length)

    def lorentz(s):
        return 1 / (1 + 2 * (np.pi * s * thickness) ** 2)

    tilts = np.linspace(-0.006, 0.006, 20001) * g
    assert templates.relrod(lab, wavelength, np.full(1, thickness), 0.0, 0.006)[0] == pytest.approx(
        lorentz(s + tilts).mean(), rel=1e-3
    )
    ring = g * 0.01 * np.cos(np.linspace(0, 2 * np.pi, 3600, endpoint=False))
    found = templates.relrod(lab, wavelength, np.full(1, thickness), 0.01, 0.004)[0]
    tilts = np.linspace(-0.004, 0.004, 401)[:, None] * g
    assert found == pytest.approx(lorentz(s + ring + tilts).mean(), rel=2e-2)


def test_disks_keep_their_sum_and_centre():
    lab = np.array([[0.313, -0.207, 0.0]])
    for render in (templates.render, templates.render.py_func):
        image = np.zeros((61, 61), np.float64)
        render(lab, np.array([7.0]), PIXEL, 2.5, image)
        y, x = np.mgrid[:61, :61] - 30
        assert image.sum() == pytest.approx(7)
        assert (y * image).sum() / 7 == pytest.approx(-0.207 / PIXEL, abs=0.05)
        assert (x * image).sum() / 7 == pytest.approx(0.313 / PIXEL, abs=0.05)


def test_the_polar_map_keeps_constants_and_finds_directions():
    rings = polar.choose_rings(4, 39, 2.0)
    usable = np.ones((SIZE, SIZE))
    usable[:, : SIZE // 4] = 0
    weights, valid = polar.polar_map(rings, (SIZE, SIZE), usable)
    ring_values = (weights @ np.full(SIZE * SIZE, 3.0)).reshape(valid.shape)
    assert np.allclose(ring_values[valid], 3, atol=1e-5)
    assert not valid[-1, rings.azimuths // 2]  # -x is masked
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    down = (weights @ np.exp(-((y - 20) ** 2 + x**2) / 8).ravel()).reshape(valid.shape)
    radius, azimuth = np.unravel_index(down.argmax(), down.shape)
    assert azimuth == rings.azimuths // 4
    assert rings.radius[radius] == pytest.approx(20, abs=rings.width)


def test_two_beams_make_the_relrod_that_blackman_s_excitation_error_gives(gold):
    wavelength, thickness = OPTICS.wavelength_angstrom, 180.0
    g, f2 = templates.bright_reflections(gold, 1.2)
    again, strength, length = templates.rods(gold, 1.2, wavelength, thickness, "two_beam")
    assert np.array_equal(g, again)
    distance = templates.extinction_distance(gold, f2, wavelength)
    for s in (0.0, 0.004, 0.05):
        expected = f2 / (1 + 2 * (np.pi * thickness) ** 2 * (s**2 + 1 / distance**2))
        assert np.allclose(strength / (1 + 2 * (np.pi * s * length) ** 2), expected)
    assert templates.intensity_model("auto", 0) == "two_beam"
    assert templates.intensity_model("auto", 9) == templates.intensity_model("kinematical", 0) == "kinematical"
    thin = templates.rods(gold, 1.2, wavelength, 1.0, "two_beam")
    assert np.allclose(thin[1], f2, rtol=2e-3)


def test_extinction_distances_of_gold_are_those_of_another_code(gold):
    # py4DSTEM 0.14.18, 200 kV, Weickenmeier and Kohl's factors, displacement of 0.087 Å: 234 Å (111), 264 Å (200).
    g, f2 = templates.bright_reflections(gold, 0.55)
    distance = templates.extinction_distance(gold, f2, OPTICS.wavelength_angstrom)
    order = np.argsort(np.linalg.norm(g, axis=1))
    assert distance[order[0]] == pytest.approx(234, rel=0.06)
    assert distance[order[8]] == pytest.approx(264, rel=0.06)


def test_the_gaussian_relrod_has_the_curvature_of_sinc_squared_at_its_top_and_no_tails():
    wavelength, thickness = OPTICS.wavelength_angstrom, 100.0

    def weight(s, half_width=0.0, phi=0.0, relrod=templates.relrod):
        along = np.sqrt(s**2 + 1 / wavelength**2) - s
        lab = np.array([[0.5, 0, np.sqrt(along**2 - 0.25) - 1 / wavelength]])
        return relrod(lab, wavelength, np.full(1, thickness), phi, half_width, True)[0]

    for s in (0.0, 0.001, 0.004):
        assert weight(s) == pytest.approx(np.exp(-((np.pi * s * thickness) ** 2) / 3), rel=1e-3)
    assert weight(0.001) == pytest.approx(np.sinc(0.001 * thickness) ** 2, abs=1e-3)
    assert weight(0.05) < 1e-9
    offsets = 0.004 + 0.5 * np.linspace(-0.006, 0.006, 2001)
    mean = np.exp(-((np.pi * offsets * thickness) ** 2) / 3).mean()
    assert weight(0.004, 0.006) == pytest.approx(mean, rel=2e-3)
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    swing = 0.004 + 0.5 * 0.02 * np.cos(angles)
    mean = np.exp(-((np.pi * swing * thickness) ** 2) / 3).mean()
    for relrod in (templates.relrod, templates.relrod.py_func):
        assert weight(0.004, 0.0, 0.02, relrod) == pytest.approx(mean, rel=1e-3)


@pytest.mark.parametrize("thickness", [50.0, 200.0, 2000.0])
def test_the_average_over_precession_is_exact_however_sharp_the_relrod(thickness):
    wavelength, phi = OPTICS.wavelength_angstrom, 0.017
    angles = np.linspace(0, 2 * np.pi, 200_000, endpoint=False)
    for s in (-0.03, -0.01, 0.0, 0.002, 0.02):
        along = np.sqrt(s**2 + 1 / wavelength**2) - s
        lab = np.array([[0.8, 0, np.sqrt(along**2 - 0.64) - 1 / wavelength]])
        y = np.sqrt(2) * np.pi * thickness * (s + 0.8 * phi * np.cos(angles))
        half = np.sqrt(2) * np.pi * thickness * 0.8 * 1e-3
        mean = ((np.arctan(y + half) - np.arctan(y - half)) / (2 * half)).mean()
        found = templates.relrod(lab, wavelength, np.full(1, thickness), phi, 1e-3)[0]
        assert found == pytest.approx(mean, rel=1e-6)
