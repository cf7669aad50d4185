"""Averages that non-local averaging is compared with, and how like the noise-free pattern an average is."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fourdstem import crystal
from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube, Unit
from fourdstem.methods import evaluation, nonlocal_average, simulate
from fourdstem.schema import build


def _cube(memory_mb=2000.0, threads=1):
    rng = np.random.default_rng(2)
    counts = rng.poisson(5, (7, 40, 12, 10)).astype(np.uint16)
    centre = np.array([5.5, 4.5]) + rng.uniform(-1, 1, (7, 40, 2))
    correction = Correction(centre, np.eye(2), np.zeros((12, 10), bool))
    return Cube(counts, correction=correction, memory_mb=memory_mb, threads=threads)


def _read(cube):
    patterns = np.zeros(cube.shape)
    for unit, found in cube.map_units(lambda patterns, unit: patterns.copy()):
        patterns[unit.where] = found[: unit.count]
    return patterns


@pytest.mark.parametrize("memory_mb", [2000.0, 0.01])
@pytest.mark.parametrize(("name", "half_width"), [("box_3x3", 1), ("box_5x5", 2), ("box_9x9", 4)])
def test_a_box_average_is_the_mean_of_the_corrected_patterns_around(name, half_width, memory_mb):
    cube = _cube(memory_mb)
    corrected = _read(cube)
    averaged = _read(evaluation.average_over_positions(cube, name))
    for y, x in np.ndindex(cube.scan_shape):
        near = np.s_[max(y - half_width, 0) : y + half_width + 1, max(x - half_width, 0) : x + half_width + 1]
        np.testing.assert_allclose(averaged[y, x], corrected[near].mean(axis=(0, 1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_mb", [2000.0, 0.01])
@pytest.mark.parametrize("sigma", [1, 2])
def test_a_gaussian_average_is_that_of_scipy_normalised_at_the_edges(sigma, memory_mb):
    cube = _cube(memory_mb)
    averaged = _read(evaluation.average_over_positions(cube, f"gaussian_{sigma}"))
    options = {"sigma": (sigma, sigma), "mode": "constant", "axes": (0, 1)}
    wanted = gaussian_filter(_read(cube), **options) / gaussian_filter(np.ones(cube.shape), **options)
    np.testing.assert_allclose(averaged, wanted, rtol=1e-5, atol=1e-5)


def test_every_non_local_rival_has_settings_that_exist():
    for name, settings in evaluation.NONLOCAL.items():
        made = build(nonlocal_average.Params, settings)
        assert made.average_in == ("sqrt" if name == "window_sqrt" else "counts")
        assert name.startswith(made.search)


def test_noise_free_patterns_go_through_a_file_and_a_cube(tmp_path):
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    gold = crystal.make_crystal("gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, sites)
    params = simulate.Params(scan_shape=(8, 9), detector_shape=(40, 44), detector_pixel_inv_angstrom=0.05, grains=5)
    data = simulate.expected(params, [gold])
    cube = evaluation.noise_free(Cube(data, threads=2), data, tmp_path)
    [first] = [patterns for unit, patterns in cube.map_units(lambda patterns, unit: patterns) if unit.y == 3]
    np.testing.assert_array_equal(first[:9], data[3, 0:9])
    assert not first[9:].any()


def test_room_for_an_average_begins_without_members(tmp_path):
    room = evaluation.room_for_average(tmp_path, (3, 4, 5, 6), 7)
    assert nonlocal_average.Output(**room).patterns.shape == (3, 4, 5, 6)
    assert room["member"].shape == room["weight"].shape == (3, 4, 7)
    assert (room["member"] == -1).all() and not room["weight"].any()


# ---- peak signal-to-noise ratio -------------------------------------------------------------------------------


def _patterns(seed=0):
    """Positive patterns whose direct disk of 1 px radius holds most of the counts."""
    truth = np.random.default_rng(seed).uniform(1, 2, (2, 3, 15, 15)).astype(np.float32)
    truth[..., 7, 7] = 1000
    return truth


def test_psnr_is_peak_over_mean_square_error_outside_the_direct_disk():
    truth = _patterns()
    outside = np.hypot(*(np.indices((15, 15)) - 7)) > 2.5
    error = np.where(outside, 0.01 * (-1.0) ** np.indices((15, 15)).sum(axis=0), 0)
    error[7, 7] = -error.sum()  # the total stays
    found = evaluation.psnr(Cube(truth + error.astype(np.float32)), Cube(truth), 1.0)
    peak = truth[..., outside].max(axis=-1)
    np.testing.assert_allclose(found, 20 * np.log10(peak / 0.01), atol=0.01)


def test_psnr_does_not_ask_how_long_was_exposed():
    truth = _patterns()
    noisy = truth + np.random.default_rng(1).normal(0, 0.1, truth.shape).astype(np.float32)
    one, other = (evaluation.psnr(Cube(noisy * k), Cube(truth), 1.0) for k in (1.0, 7.0))
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_psnr_ignores_masked_pixels_and_the_direct_beam():
    truth = _patterns()
    noisy = truth + np.float32(0.1) * _patterns(1)
    valid = np.ones((15, 15), np.uint8)
    valid[0], valid[7, 7] = 0, 0
    spoilt = noisy.copy()
    spoilt[..., 0, :], spoilt[..., 7, 7] = 50, 0
    one, other = (evaluation.psnr(Cube(patterns, valid=valid), Cube(truth), 1.0) for patterns in (noisy, spoilt))
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()


def test_an_empty_pattern_has_no_psnr():
    truth = _patterns()
    noisy = truth * 1.1
    noisy[1, 2] = 0
    found = evaluation.psnr(Cube(noisy), Cube(truth), 1.0)
    assert np.isnan(found[1, 2]) and np.isnan(found).sum() == 1


def test_a_non_local_average_fills_its_room_and_keeps_a_grain_to_itself(tmp_path):
    rng = np.random.default_rng(5)
    grain = np.zeros((10, 12), int)
    grain[:, 6:] = 1
    expected = rng.uniform(0, 40, (2, 24, 24))[grain]
    acquisition = Acquisition(beam_energy_kev=200.0, convergence_mrad=1.0, detector_pixel_inv_angstrom=0.02)
    cube = Cube(rng.poisson(expected).astype(np.float32), acquisition)
    settings = build(nonlocal_average.Params, evaluation.NONLOCAL["window_pattern"])
    room = evaluation.room_for_average(tmp_path, cube.shape, nonlocal_average.members(settings, cube.scan_shape))
    nonlocal_average.compute(cube, settings, nonlocal_average.Output(**room), 2.0, tmp_path)
    assert evaluation.foreign_weight(grain, room["member"], room["weight"]).max() < 0.01
    free = Cube(expected.astype(np.float32))
    before, after = (evaluation.psnr(c, free, 2.0) for c in (cube, evaluation.stored(cube, room["patterns"])))
    gain = 10 * np.log10(evaluation.effective_number(room["weight"]))
    assert np.median(after - before) == pytest.approx(np.median(gain), abs=1.5)
    assert cube.read(Unit(0, 0, 1)).shape == (1, 24, 24)
