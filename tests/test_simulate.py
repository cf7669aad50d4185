"""The simulated film against closed forms, symmetry and its own truth."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.linalg import expm

from fourdstem import crystal
from fourdstem.calibration import Acquisition, wavelength_angstrom
from fourdstem.cube import Correction, Cube, Unit
from fourdstem.errors import InputError
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods import simulate
from fourdstem.methods.simulate import bloch, detector, film

SMALL = simulate.Params(scan_shape=(10, 35), detector_shape=(64, 60), detector_pixel_inv_angstrom=0.04, grains=6)


def _gold():
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return crystal.make_crystal("gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, sites)


@pytest.fixture(scope="module")
def gold():
    return _gold()


@pytest.fixture(scope="module")
def simulated(gold):
    out = np.zeros((*SMALL.scan_shape, *SMALL.detector_shape), np.uint16)
    return simulate.compute(SMALL, [gold], out), out


@pytest.mark.parametrize("function", [bloch.propagate, bloch.propagate.py_func])
@pytest.mark.parametrize("deviation", [0.0, 0.7, 2.0])
def test_two_beams_beat_with_the_pendelloesung_of_the_closed_form(function, deviation):
    extinction = 231.0
    excitation = deviation / extinction
    structure = np.array([[0, 0.5 / extinction], [0.5 / extinction, excitation]], complex)
    thickness = 5.0 * np.arange(1, 61)
    beat = np.sqrt(1 + deviation**2) / extinction
    closed = np.sin(np.pi * thickness * beat) ** 2 / (1 + deviation**2)
    got = function(structure, 5.0, 60)
    np.testing.assert_allclose(got[:, 1], closed, atol=1e-8)
    np.testing.assert_allclose(got.sum(axis=1), 1, atol=1e-8)


def test_propagation_equals_the_matrix_exponential_with_absorption():
    rng = np.random.default_rng(0)
    hermitian = rng.normal(size=(12, 12)) + 1j * rng.normal(size=(12, 12))
    structure = 3e-3 * (hermitian + hermitian.conj().T) * (1 + 0.1j) + np.diag(rng.normal(scale=0.02, size=12))
    want = [np.abs(expm(2j * np.pi * structure * 20 * (k + 1))[:, 0]) ** 2 for k in range(5)]
    np.testing.assert_allclose(bloch.propagate(structure, 20.0, 5), want, rtol=1e-6, atol=1e-9)


def test_nothing_is_lost_without_absorption(gold):
    potential = bloch.potential(gold, 200, 1.2, 0.0)
    matrix = film.Rotation.random(random_state=3).as_matrix()
    result = bloch.spots(potential, matrix, 150, precession_mrad=8, azimuths=5, cutoff=40, most=300)
    np.testing.assert_allclose(result.intensity.sum(axis=1), 1, atol=1e-7)
    assert result.at(101.0)[0] < 0.97


def test_absorption_takes_electrons_away_and_more_in_thicker_crystals(gold):
    potential = bloch.potential(gold, 200, 1.2, 0.1)
    result = bloch.spots(potential, np.eye(3), 150, precession_mrad=0, azimuths=1, cutoff=40, most=300)
    assert (np.diff(result.intensity.sum(axis=1)) < 0).all()


def test_the_extinction_distance_of_gold_111_is_that_of_the_textbook(gold):
    potential = bloch.potential(gold, 100, 1.0, 0.0)
    one = np.flatnonzero((potential.hkl == [1, 1, 1]).all(axis=1))[0]
    extinction = potential.wavenumber / abs(potential.from_direct()[one])
    assert extinction == pytest.approx(159, rel=0.18)  # Hirsch et al. (1965), older scattering factors


def test_reflections_that_centring_forbids_take_no_part(gold):
    potential = bloch.potential(gold, 200, 1.2, 0.1)
    parity = potential.hkl % 2
    assert (parity.min(axis=1) == parity.max(axis=1)).all()


def test_reflections_reached_by_double_diffraction_alone_take_part():
    base = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    silicon = crystal.make_crystal("Si", (5.431,) * 3 + (90,) * 3, ["Si"] * 8, np.concatenate([base, base + 0.25]))
    potential = bloch.potential(silicon, 200, 1.0, 0.0)
    forbidden = (potential.hkl == [2, 0, 0]).all(axis=1)
    assert forbidden.any() and abs(potential.from_direct()[forbidden][0]) < 1e-9


def test_a_zone_axis_pattern_has_the_symmetry_of_its_zone(gold):
    potential = bloch.potential(gold, 200, 1.2, 0.1)
    result = bloch.spots(potential, np.eye(3), 150, precession_mrad=0, azimuths=1, cutoff=40, most=300)
    at = {tuple(np.round(g[:2], 4)): i for g, i in zip(result.g_lab, result.at(120), strict=True) if abs(g[2]) < 1e-6}
    assert len(at) > 20
    for (x, y), value in at.items():
        assert at[(round(-y, 4) + 0.0, x)] == pytest.approx(value, rel=1e-6)


def test_spots_lie_where_the_convention_puts_them(gold):
    params = replace(SMALL, bend_deg=0.0, twin_width_px=0.1)
    patterns = simulate.expected(params, [gold])
    truth = patterns.scene.film
    y, x = np.unravel_index(truth.fraction.max(axis=-1).argmax(), params.scan_shape)
    pattern = patterns[y, x : x + 1][0]
    _, g = crystal.reflections(gold, 1.1)
    lab = g @ truth.matrix[truth.fraction[y, x].argmax()]
    after = 1 / wavelength_angstrom(200)
    excited = np.abs(-lab[:, 2] - (lab**2).sum(axis=1) / 2 / after) < 0.01
    outside = np.hypot(*(np.indices(pattern.shape) - np.array([31.5, 29.5])[:, None, None])) > 6
    py, px = np.unravel_index(np.where(outside, pattern, 0).argmax(), pattern.shape)
    spots = np.array([31.5, 29.5]) + lab[excited][:, 1::-1] / 0.04
    assert np.hypot(*(spots - [py, px]).T).min() < 1.0


def test_excitation_error_vanishes_on_the_ewald_sphere_and_has_the_sign_of_minus_gz():
    k0 = 1 / wavelength_angstrom(200)
    on = np.array([0.5, 0.0, np.sqrt(k0**2 - 0.25) - k0])
    assert bloch.excitation_error(on, np.array([0, 0, k0])) == pytest.approx(0, abs=1e-12)
    assert bloch.excitation_error(on + [0, 0, 0.01], np.array([0, 0, k0])) == pytest.approx(-0.01, rel=1e-3)


def test_the_lamella_is_a_sigma_3_twin_with_its_plane_edge_on(gold):
    grown = film.grow(SMALL, [gold])
    parent, twin = grown.matrix[grown.parent], grown.matrix[grown.twin]
    coincident = gold.operations @ (twin @ parent.T)
    turn = np.rad2deg(np.arccos(np.clip((np.trace(coincident, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert turn.min() == pytest.approx(60, abs=1e-4)
    normal = parent.T @ np.array([1, 1, 1]) / np.sqrt(3)
    assert normal[2] == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(twin @ normal, parent @ normal, atol=1e-9)


def test_the_lamella_runs_along_the_trace_of_its_plane(gold):
    params = replace(SMALL, scan_shape=(64, 64), twin_width_px=3.0)
    grown = film.grow(params, [gold])
    normal = grown.matrix[grown.parent].T @ np.ones(3) / np.sqrt(3)
    across = np.argwhere(grown.fraction[..., grown.twin] > 0.5) @ normal[1::-1]
    assert np.ptp(across) < 3.2


def test_the_unbent_partner_has_the_mean_orientation_of_the_bent_grain(gold):
    params = replace(SMALL, scan_shape=(64, 64), bend_deg=5.0)
    grown = film.grow(params, [gold])
    np.testing.assert_array_equal(grown.matrix[grown.bent], grown.matrix[grown.reference])
    angle = grown.bend_angle_deg[grown.fraction.argmax(axis=-1) == grown.bent]
    assert 4.0 < np.ptp(angle) <= 5.0 + 1e-9
    assert abs(angle.mean()) < 0.3
    assert grown.bent != grown.reference
    zone = np.sort(np.abs(grown.matrix[grown.bent][:, 2]))[::-1]
    assert 3 <= np.rad2deg(np.arccos(zone[0])) <= 8


@pytest.mark.parametrize("seed", range(8))
def test_the_actors_are_different_grains_even_where_all_grains_touch(gold, seed):
    grown = film.grow(replace(SMALL, grains=4, seed=seed), [gold])
    assert len({grown.bent, grown.reference, grown.parent, grown.twin}) == 4


def test_shares_of_grains_sum_to_one_and_soften_at_boundaries(gold):
    fraction = film.grow(SMALL, [gold]).fraction
    np.testing.assert_allclose(fraction.sum(axis=-1), 1, atol=1e-12)
    assert ((fraction > 0.05) & (fraction < 0.95)).any()


def test_a_film_needs_a_cubic_phase():
    other = crystal.make_crystal("hcp", (2.95, 2.95, 4.68, 90, 90, 120), ["Ti"] * 2, [[0, 0, 0], [1 / 3, 2 / 3, 0.5]])
    with pytest.raises(InputError, match="cubic"):
        film.grow(SMALL, [other])


def test_counts_do_not_depend_on_threads(gold, simulated):
    truth, counts = simulated
    again = np.zeros_like(counts)
    second = simulate.compute(SMALL, [gold], again, threads=3)
    np.testing.assert_array_equal(again, counts)
    for name in ("orientation", "centre_px", "recorded_electrons"):
        np.testing.assert_array_equal(getattr(second, name), getattr(truth, name))


def test_noise_depends_on_seed_and_position_alone():
    mean, bad = np.full((8, 8), 3.0), np.zeros((8, 8), np.uint8)
    first = detector.record(mean, bad, 1.0, 7, 2, 5)
    np.testing.assert_array_equal(first, detector.record(mean, bad, 1.0, 7, 2, 5))
    for other in ((8, 2, 5), (7, 5, 2), (7, 2, 6)):
        assert (first != detector.record(mean, bad, 1.0, *other)).any()


def test_counts_scatter_like_poisson_about_the_expected_pattern():
    mean, bad = np.linspace(0.5, 20, 64).reshape(8, 8), np.zeros((8, 8), np.uint8)
    counts = np.stack([detector.record(mean, bad, 1.0, 1, 0, x) for x in range(4000)]).astype(float)
    np.testing.assert_allclose(counts.mean(axis=0), mean, atol=5 * np.sqrt(20 / 4000))
    np.testing.assert_allclose(counts.var(axis=0) / counts.mean(axis=0), 1, atol=0.15)


def test_dead_pixels_read_nothing_and_hot_ones_too_much(simulated):
    truth, counts = simulated
    assert (truth.bad_pixel == 1).sum() == SMALL.dead_pixels and (truth.bad_pixel == 2).sum() == SMALL.hot_pixels
    assert not counts[..., truth.bad_pixel == 1].any()
    assert counts[..., truth.bad_pixel == 2].mean() > 0.9 * SMALL.hot_counts


def test_disks_carry_their_electrons_wherever_they_lie():
    for matrix in (np.eye(2), corrected_to_recorded(1.1, 30, 10, True)):
        out = np.zeros((60, 61))
        position = np.array([[3.3, -2.1], [-8.25, 4.5], [0.0, 11.7]])
        args = (position, np.array([10.0, 2.0, 5.0]), 2.0, 0.4, np.array([30.2, 29.9]), np.linalg.inv(matrix), out)
        detector.add_disks(*args)
        assert out.sum() == pytest.approx(17, rel=5e-3)
        again = np.zeros_like(out)
        detector.add_disks.py_func(*args[:-1], again)
        np.testing.assert_allclose(again, out, atol=1e-12)
        weights = out / out.sum()
        centre = [(weights * i).sum() for i in np.indices(out.shape)]
        mean = matrix @ (np.array([10, 2, 5]) / 17 @ position) + [30.2, 29.9]
        np.testing.assert_allclose(centre, mean, atol=0.01)


def test_the_whole_dose_reaches_a_detector_that_is_large_enough(gold):
    params = replace(SMALL, detector_shape=(256, 256), diffuse_width_inv_angstrom=0.05, scan_shape=(8, 8))
    pattern = simulate.expected(params, [gold])[3, 3:4][0]
    assert pattern.sum(dtype=float) == pytest.approx(params.electrons_per_pattern, rel=0.01)


def test_point_spread_moves_electrons_but_keeps_them():
    pattern = np.zeros((41, 43))
    pattern[20, 21] = 100.0
    got = detector.spread(pattern, 0.5, 0.1)
    assert got.sum() == pytest.approx(100, rel=1e-3)
    y = np.arange(41)[:, None]
    variance = (got * (y - 20) ** 2).sum() / got.sum()
    assert variance == pytest.approx(0.9 * (0.25 + 1 / 12) + 0.1 * (9 + 1 / 12), rel=0.03)
    np.testing.assert_allclose(got, got[::-1, ::-1], atol=1e-12)


def test_correcting_the_recorded_patterns_by_the_truth_gives_the_expected_ones(gold):
    params = replace(
        SMALL,
        scan_shape=(8, 8),
        electrons_per_pattern=3e5,
        convergence_mrad=3,
        scan_rotation_deg=20,
        detector_flip_y=True,
    )
    counts = np.zeros((*params.scan_shape, *params.detector_shape), np.uint16)
    truth = simulate.compute(params, [gold], counts)
    want = simulate.expected(params, [gold])[7, 0:8][:, 8:-8, 8:-8]

    def disagreement(rotation, flip, shift=0.0):
        matrix = corrected_to_recorded(truth.ellipse_ratio, truth.ellipse_angle_deg, rotation, flip)
        correction = Correction(truth.centre_px + shift, matrix, truth.bad_pixel > 0)
        got = Cube(counts, correction=correction).read(Unit(7, 0, 8))[:, 8:-8, 8:-8]
        return np.abs(got - want).sum(dtype=float) / want.sum(dtype=float)

    right = disagreement(20, True)
    assert right < 0.15  # interpolation softens edges
    for wrong in ((-20, True), (20, False), (20, True, 1.0)):
        assert disagreement(*wrong) > 2 * right


def test_the_stated_electrons_are_those_of_the_good_pixels(simulated):
    truth, counts = simulated
    good = counts[..., truth.bad_pixel == 0].sum(axis=-1)
    np.testing.assert_array_equal(truth.recorded_electrons, good)
    assert (truth.scattered_electrons < truth.recorded_electrons).all()
    assert 0.5 * SMALL.electrons_per_pattern < good.mean() < SMALL.electrons_per_pattern


def test_descan_wanders_by_as_much_as_stated():
    centre = film.descan(SimpleNamespace(seed=4, scan_shape=(20, 30), detector_shape=(64, 64), descan_px=4.0))
    away = np.linalg.norm(centre - 31.5, axis=-1)
    assert 1.0 < np.ptp(away) + away.min() < 5.0


def test_the_vendor_does_not_know_ellipse_and_descan():
    told = simulate.acquisition(SMALL)
    assert Acquisition(**told).pixel_inv_angstrom == SMALL.detector_pixel_inv_angstrom
    assert not [key for key in told if "ellipse" in key or "descan" in key]
