"""What preprocessing learns about the detector, against known truth: bad pixels, gain, ellipse, camera length."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from disk_scans import rms, scan_of_disks

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.geometry import ellipse_matrix
from fourdstem.methods import preprocess
from fourdstem.methods.preprocess import Params, bad_pixels, beam, rings


def faulty():
    data, truth = scan_of_disks(scan=(6, 40), seed=5)
    rng = np.random.default_rng(5)
    hot, dead = [(5, 7), (5, 8), (24, 22), (40, 3)], [(23, 25), (20, 20)]
    for y, x in hot:
        data[:, :, y, x] += rng.poisson(60, data.shape[:2]).astype(np.uint16)
    for y, x in dead:
        data[:, :, y, x] = 0
    return data, truth, hot, dead


def test_hot_and_dead_pixels_are_found_and_nothing_else():
    data, truth, hot, dead = faulty()
    result = preprocess.compute(Cube(data), Params())
    expected = np.zeros((48, 48), np.uint8)
    expected[tuple(np.transpose(hot))], expected[tuple(np.transpose(dead))] = bad_pixels.HOT, bad_pixels.DEAD
    assert np.array_equal(result.bad_pixel, expected)
    assert rms(result.centre_px - truth) < 0.04


def test_sharp_peaks_of_a_static_pattern_are_not_hot():
    rng = np.random.default_rng(6)
    y, x = np.indices((48, 48))
    image = np.full((48, 48), 0.05)
    for cy, cx, height in ((24, 24, 400), (12, 30.5, 60), (36.3, 17.6, 60), (20, 9, 30)):
        image += height * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * 0.6**2))
    data = rng.poisson(image, (4, 32, 48, 48)).astype(np.uint16)
    data[:, :, 7, 40] = 35
    result = preprocess.compute(Cube(data), Params())
    assert np.argwhere(result.bad_pixel).tolist() == [[7, 40]]


def test_saturated_pixels_are_those_at_the_ceiling():
    data, _ = scan_of_disks(scan=(3, 33), counts=30000, seed=7)
    clipped = np.minimum(data, 255).astype(np.uint8)
    share = (data >= 255).mean(axis=(0, 1))
    flags = preprocess.compute(Cube(clipped), Params()).bad_pixel
    assert np.array_equal(flags == bad_pixels.SATURATED, share >= 0.01)
    own_ceiling = np.minimum(data, 200)
    flags = preprocess.compute(Cube(own_ceiling), Params()).bad_pixel
    assert np.array_equal(flags == bad_pixels.SATURATED, (data >= 200).sum(axis=(0, 1)) >= 3)


def test_masked_pixels_are_neither_flagged_nor_valid():
    data, _, _, _ = faulty()
    mask = np.ones((48, 48), np.uint8)
    mask[3:8, 5:10] = 0
    result = preprocess.compute(Cube(data, valid=mask), Params())
    assert not result.bad_pixel[mask == 0].any()
    assert result.valid.mean() < 0.99


def test_the_gain_line_is_recovered():
    data, _ = scan_of_disks(scan=(16, 40), size=40, counts=4000, seed=8)
    rng = np.random.default_rng(8)
    camera = (3.7 * data + 100 + rng.normal(0, 2, data.shape)).astype(np.float32)
    result = preprocess.compute(Cube(camera, acquisition=Acquisition(offset_counts=100)), Params())
    assert result.counts_per_electron == pytest.approx(3.7, rel=0.05)
    assert result.readout_noise_counts == pytest.approx(2, rel=0.25)
    counted = preprocess.compute(Cube(data), Params())
    assert counted.counts_per_electron == pytest.approx(1, rel=0.05)
    assert counted.offset_counts == 0
    assert "readout noise 0 counts" in json.loads(counted.verdict)["gain"]["reason"]


def test_the_gain_is_declined_with_a_reason_where_it_cannot_be_known():
    data, _ = scan_of_disks(scan=(1, 33), seed=9)
    result = preprocess.compute(Cube(data), Params())
    assert np.isnan(result.counts_per_electron)
    verdict = json.loads(result.verdict)["gain"]
    assert not verdict["pass"]
    assert "100 needed" in verdict["reason"]


def test_nan_pixels_are_dead_and_stray_nan_is_an_error_with_its_position():
    data, truth = scan_of_disks(scan=(3, 40), seed=11)
    data = data.astype(np.float32)
    data[:, :, 9, 9] = np.nan
    result = preprocess.compute(Cube(data), Params())
    assert result.bad_pixel[9, 9] == bad_pixels.DEAD
    assert rms(result.centre_px - truth) < 0.1
    for place in ((0, 0), (0, 5), (1, 34), (2, 0)):
        for number in (np.nan, np.inf, -np.inf):
            broken = data.copy()
            broken[(*place, 3, 3)] = number
            with pytest.raises(InputError, match=f"NaN or infinite at .* \\({place[0]}, {place[1]}\\)"):
                preprocess.compute(Cube(broken), Params())


def test_a_pixel_that_is_nan_in_the_first_patterns_only_is_placed_there():
    data = scan_of_disks(scan=(2, 40))[0].astype(np.float32)
    data[0, :32, 3, 3] = np.nan  # the first unit whole, no other
    with pytest.raises(InputError, match="\\(0, 0\\)"):
        preprocess.compute(Cube(data), Params())


def test_infinite_pixels_are_dead_as_nan_ones_are():
    data, truth = scan_of_disks(scan=(3, 40), seed=11)
    data = data.astype(np.float32)
    data[:, :, 9, 9], data[:, :, 10, 30] = np.inf, -np.inf
    result = preprocess.compute(Cube(data), Params())
    assert np.argwhere(result.bad_pixel == bad_pixels.DEAD).tolist() == [[9, 9], [10, 30]]
    assert rms(result.centre_px - truth) < 0.1
    assert np.isnan(result.mean_pattern[[9, 10], [9, 30]]).all()
    assert np.isfinite(result.mean_pattern_corrected).all()


BEAM = beam.Beam(2.5, 0.6, 50.0)
CUBIC = np.array([20.0, 23.1, 32.7, 38.3, 50.3])


def spots(angles_deg, ratio, angle_deg, size=128, noise=0.0, seed=0):
    """Centred mean pattern of spots on five rings, by (ring, azimuth), on a decaying background."""
    y, x = np.indices((size, size)) - (size - 1) / 2
    image = 2.0 * np.exp(-np.hypot(y, x) / 20)
    matrix = ellipse_matrix(ratio, angle_deg)
    for ring, azimuth in angles_deg:
        a = np.deg2rad(azimuth)
        at = matrix @ (CUBIC[ring] * np.array([np.sin(a), np.cos(a)]))
        image += np.exp(-((np.hypot(y - at[0], x - at[1]) / 2.2) ** 4))
    return image + noise * np.random.default_rng(seed).normal(size=image.shape)


def polycrystal(orientations, seed):
    turns = np.random.default_rng(seed).uniform(0, 180, orientations)
    return [(r, t + 180 * k) for r in range(5) for t in (turns + 37 * r) for k in (0, 1)]


@pytest.mark.parametrize("angle", [25.0, -70.0])
def test_a_known_ellipse_is_recovered_from_rings(angle):
    image = spots(polycrystal(40, 1), 1.03, angle, noise=0.02)
    ellipse, _ = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    assert ellipse.passed
    assert ellipse.ratio == pytest.approx(1.03, abs=0.003)
    assert ellipse.angle_deg == pytest.approx(angle, abs=4)
    assert ellipse.ratio_sigma < 0.005


def test_a_circle_is_not_made_an_ellipse():
    image = spots(polycrystal(40, 2), 1.0, 0, noise=0.02)
    ellipse, _ = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    assert ellipse.passed
    assert ellipse.ratio < 1.003


@pytest.mark.parametrize("spots_per_ring", [2, 3, 6])
def test_a_strained_single_crystal_is_declined(spots_per_ring):
    crystal = [(r, 11 + 7 * r + 180 * k / spots_per_ring) for r in range(5) for k in range(2 * spots_per_ring)]
    image = spots(crystal, 1.03, 25, noise=0.02)
    ellipse, _ = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    assert not ellipse.passed
    assert ellipse.ratio == 1
    assert np.isnan(ellipse.ratio_sigma)
    assert "single crystal" in ellipse.reason


def test_noise_without_rings_is_declined():
    for seed in range(3):
        image = spots([], 1, 0, noise=0.02, seed=seed)
        ellipse, _ = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
        assert not ellipse.passed
        assert "no ring" in ellipse.reason


def test_a_beam_alone_without_any_other_count_is_declined():
    y, x = np.indices((128, 128)) - 63.5
    ellipse, _ = rings.fit_ellipse([1.0 * (np.hypot(y, x) < 3)], np.ones((128, 128), bool), BEAM, Params())
    assert not ellipse.passed
    assert "no ring" in ellipse.reason


def test_the_camera_length_is_proposed_from_rings_and_phases(monkeypatch):
    pixel = 0.0203
    length = CUBIC * pixel
    monkeypatch.setattr(rings, "reflections", lambda c, g: (np.arange(5), length[:, None] * [1.0, 0, 0]))
    monkeypatch.setattr(rings, "structure_factors", lambda c, hkl: np.array([3.0, 2.5, 2, 2, 1])[hkl])
    image = spots(polycrystal(40, 1), 1.03, 25, noise=0.02)
    _, found = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    phase = SimpleNamespace(name="cubic")
    proposal, passed, _ = rings.camera(found, [phase], pixel * 1.01, 0.02)
    assert passed
    assert proposal == pytest.approx(pixel, rel=0.01)
    proposal, passed, reason = rings.camera(found, [phase], pixel * 1.06, 0.02)
    assert not passed
    assert "limit 2%" in reason
    assert np.isnan(rings.camera(found, [], pixel, 0.02)[0])


def test_a_calibration_off_by_a_factor_is_told_with_the_scales_that_fit(monkeypatch):
    pixel = 0.0203
    length = CUBIC * pixel
    monkeypatch.setattr(rings, "reflections", lambda c, g: (np.arange(5), length[:, None] * [1.0, 0, 0]))
    monkeypatch.setattr(rings, "structure_factors", lambda c, hkl: np.array([3.0, 2.5, 2, 2, 1])[hkl])
    image = spots(polycrystal(40, 1), 1.03, 25, noise=0.02)
    _, found = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    for factor in (1.6, 2.0, 10.0):  # a binning forgotten, a unit mixed up
        _, passed, reason = rings.camera(found, [SimpleNamespace(name="cubic")], pixel * factor, 0.02)
        assert not passed
        assert f"fit neither {pixel * factor:.5f}" in reason
        named = [float(word) for word in re.findall(r"(0\.\d{5}) \(", reason)]
        # Rings of a cubic crystal fit its own at other scales: all are named, and the true one is among them.
        assert np.abs(np.array(named) / pixel - 1).min() < 0.01
    _, passed, reason = rings.camera(found, [SimpleNamespace(name="cubic")], 0.5 * pixel, 0.02)
    assert not passed
    assert "which is in force, does not" in reason


def test_scales_that_fit_alike_far_from_the_value_in_force_are_all_named(monkeypatch):
    pixel = 0.0203
    length = CUBIC * pixel
    monkeypatch.setattr(rings, "reflections", lambda c, g: (np.arange(5), length[:, None] * [1.0, 0, 0]))
    monkeypatch.setattr(rings, "structure_factors", lambda c, hkl: np.array([3.0, 2.5, 2, 2, 1])[hkl])
    image = spots(polycrystal(40, 1), 1.03, 25, noise=0.02)
    _, found = rings.fit_ellipse([image], np.ones(image.shape, bool), BEAM, Params())
    monkeypatch.setattr(rings, "_far", lambda *_: [0.0203, 0.0124])
    proposal, passed, reason = rings.camera(found, [SimpleNamespace(name="cubic")], 0.05, 0.02)
    assert np.isnan(proposal)
    assert not passed
    assert "0.02030 (0.41 times as much) or 0.01240 (0.25 times as much)" in reason


def test_rows_are_aligned_as_by_the_plain_formula():
    rng = np.random.default_rng(15)
    spectra = rng.normal(size=(6, 40)) + 1j * rng.normal(size=(6, 40))
    rows, shift = np.array([0, 2, 3, 5]), rng.normal(size=4)
    profile = (spectra[rows] * np.exp(1j * shift[:, None] * 0.7 * np.arange(40))).sum(axis=0)
    for kernel in (rings.aligned_power, rings.aligned_power.py_func):
        assert kernel(spectra, rows, np.exp(0.7j * shift)) == pytest.approx((np.abs(profile) ** 2).sum())
