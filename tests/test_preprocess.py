"""Bad pixels, centre, descan, ellipse and gain against known truth."""

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from peak_memory import peak_growth_mb
from scipy.special import erfc

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.errors import InputError
from fourdstem.geometry import ellipse_matrix, resample
from fourdstem.methods import preprocess
from fourdstem.methods.preprocess import Params, bad_pixels, beam, centre, descan, moments, rings


def disk(shape, position, radius, edge=0.5):
    """Soft disk with unit sum."""
    y, x = np.indices(shape)
    image = 0.5 * erfc((np.hypot(y - position[0], x - position[1]) - radius) / (np.sqrt(2) * edge))
    return image / image.sum()


def true_centres(scan, size):
    y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in scan)
    y, x = y[:, None] + 0 * x, 0 * y[:, None] + x
    return np.stack([size / 2 + 0.3 + 1.0 * y + 0.4 * x, size / 2 - 1.7 - 0.7 * y + 1.2 * x + 0.3 * x * y], axis=-1)


def scan_of_disks(scan=(6, 40), size=48, radius=4.0, counts=1000, seed=0, jitter=0.0, background=0.2):
    """Poisson counts of a disk on a broad background, and its true centres."""
    rng = np.random.default_rng(seed)
    centres = true_centres(scan, size) + jitter * rng.normal(size=(*scan, 2))
    data = np.empty((*scan, size, size), np.uint16)
    y, x = np.indices((size, size))
    for place in np.ndindex(scan):
        cy, cx = centres[place]
        wide = np.exp(-np.hypot(y - cy, x - cx) / 9)
        data[place] = rng.poisson(
            counts * ((1 - background) * disk((size, size), (cy, cx), radius) + background * wide / wide.sum())
        )
    return data, centres


def rms(error):
    return float(np.sqrt(np.nanmean(error**2)))


def precision_bound(radius, counts, background, edge=0.5, size=48):
    """Cramér–Rao bound per axis for a soft disk of known shape, px."""
    y, x = np.indices((size, size))

    def expected(cy):
        wide = np.exp(-np.hypot(y - cy, x - size / 2) / 9)
        spot = disk((size, size), (cy, size / 2), radius, edge)
        return counts * ((1 - background) * spot + background * wide / wide.sum())

    slope = (expected(size / 2 + 0.01) - expected(size / 2 - 0.01)) / 0.02
    return 1 / np.sqrt((slope**2 / expected(size / 2)).sum())


@pytest.fixture(scope="module")
def plain():
    data, centres = scan_of_disks()
    return data, centres, preprocess.compute(Cube(data), Params())


@pytest.fixture(scope="module")
def mass(plain):
    return preprocess.compute(Cube(plain[0]), Params(centre_method="centre_of_mass"))


def test_correlation_comes_near_the_precision_bound_and_beats_the_centre_of_mass(plain, mass):
    _, truth, result = plain
    error = rms(result.centre_measured_px - truth)
    bound = precision_bound(4, 1000, 0.2)
    assert 0.9 * bound < error < 1.3 * bound
    assert error < 0.85 * rms(mass.centre_measured_px - truth)


def test_the_uncertainty_is_the_scatter(plain, mass):
    _, truth, result = plain
    for one in (result, mass):
        assert 0.7 < ((one.centre_measured_px - truth) / one.centre_sigma_px[..., None]).std() < 1.4


def test_a_smooth_descan_is_better_than_the_centres_it_is_fitted_to(plain):
    _, truth, result = plain
    assert (result.centre_origin == descan.SURFACE).all()
    assert rms(result.centre_px - truth) < 0.4 * rms(result.centre_measured_px - truth)
    assert abs(np.mean(result.centre_px - truth)) < 0.02


def test_a_beam_that_jitters_keeps_its_measured_centres():
    data, truth = scan_of_disks(scan=(4, 33), jitter=0.4, seed=1)
    result = preprocess.compute(Cube(data), Params())
    assert (result.centre_origin == descan.MEASURED).mean() > 0.95
    assert rms(result.centre_px - truth) < 0.1


@pytest.mark.parametrize("radius", [1.0, 2.0, 14.0])
def test_the_radius_is_found(radius):
    data, _ = scan_of_disks(scan=(2, 33), radius=radius, counts=3000, seed=2)
    result = preprocess.compute(Cube(data), Params())
    assert result.beam_radius_px == pytest.approx(radius, abs=max(0.15, 0.02 * radius))


def test_a_radius_too_small_to_measure_is_taken_from_convergence_and_pixel():
    data, _ = scan_of_disks(scan=(2, 33), radius=1.0, counts=3000)
    known = Acquisition(beam_energy_kev=200, convergence_mrad=1.0, detector_pixel_mrad=1.0)
    assert preprocess.compute(Cube(data, acquisition=known), Params()).beam_radius_px == pytest.approx(1.0)


def test_outliers_and_dark_patterns_do_not_move_the_descan():
    data, truth = scan_of_disks(scan=(8, 33), seed=3)
    rng = np.random.default_rng(3)
    for place in [(1, 4), (2, 20), (5, 30)]:
        data[place] = rng.poisson(4000 * disk((48, 48), truth[place] + [7, 9], 4.0))
    data[3, 10] = 0
    data[6, 2] = rng.poisson(0.001, (48, 48))
    result = preprocess.compute(Cube(data), Params())
    assert rms(result.centre_surface_px - truth) < 0.03
    assert result.centre_origin[3, 10] == result.centre_origin[6, 2] == descan.NONE
    assert (result.centre_origin == descan.NONE).sum() == 2
    assert np.isnan(result.centre_px[3, 10]).all()
    assert np.isnan(result.centre_measured_px[6, 2]).all()
    assert rms(result.centre_px[1, 4] - truth[1, 4]) < 0.1


def test_the_descan_survives_a_third_of_outliers_at_bragg_disks():
    rng = np.random.default_rng(12)
    truth = true_centres((12, 30), 64)
    measured = truth + 0.05 * rng.normal(size=truth.shape)
    wrong = rng.random((12, 30)) < 0.33
    measured[wrong] += [15.0, -9.0]
    fitted = descan.fit(measured, np.full((12, 30), 0.05), 5.0)
    assert rms(fitted.surface - truth) < 0.03
    assert np.array_equal(fitted.outlier, wrong)


def test_an_extinct_beam_among_bragg_disks_takes_the_surface():
    data, truth = scan_of_disks(scan=(4, 33), seed=4)
    spot = sum(disk((48, 48), truth[2, 5] + d, 4.0) for d in ([0, 17.0], [17.0, 0], [0, -17.0]))
    data[2, 5] = np.random.default_rng(4).poisson(300 * spot)
    result = preprocess.compute(Cube(data), Params())
    assert result.centre_origin[2, 5] == descan.SURFACE
    assert rms(result.centre_px[2, 5] - truth[2, 5]) < 0.05


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


@pytest.mark.parametrize("scan", [(1, 1), (1, 7), (7, 1), (2, 33)])
def test_odd_scans_work(scan):
    data, truth = scan_of_disks(scan=scan, seed=10)
    result = preprocess.compute(Cube(data), Params())
    assert result.centre_px.shape == (*scan, 2)
    assert rms(result.centre_px - truth) < 0.15
    assert not result.bad_pixel.any()


def test_the_answer_does_not_depend_on_threads_or_memory(plain):
    data, _, one = plain
    other = preprocess.compute(Cube(data, threads=3, memory_mb=1), Params())
    for field in dataclasses.fields(one):
        first, second = getattr(one, field.name), getattr(other, field.name)
        assert np.array_equal(first, second, equal_nan=not isinstance(first, str)), field.name


PREPARE = """
import h5py
import numpy as np
from fourdstem.cube import Cube
from fourdstem.methods import preprocess
file = h5py.File(sys.argv[1])
preprocess.compute(Cube(file["data"][:1, :4, :128, :128]), preprocess.Params())
"""
WORK = """
result = preprocess.compute(Cube(file["data"], memory_mb=150, threads=2), preprocess.Params())
assert np.isfinite(result.centre_px[11, 63]).all() and np.isnan(result.centre_px[12]).all()
"""


def test_a_scan_larger_than_memory_mb_is_preprocessed_within_it(tmp_path):
    h5py = pytest.importorskip("h5py")
    some = np.random.default_rng(13).poisson(3000 * disk((256, 256), (60, 70), 6.0), (64, 256, 256))
    with h5py.File(tmp_path / "scan.h5", "w") as file:  # chunks that are never written are zero and take no space
        data = file.create_dataset("data", (24, 64, 256, 256), np.uint16, chunks=(1, 16, 256, 256))
        for row in (0, 11, 20):  # of the sample
            data[row] = some
        assert data.size * 2 / 2**20 > 190
    assert peak_growth_mb(PREPARE, WORK, tmp_path / "scan.h5") < 150


def test_useless_scans_are_errors_that_say_so():
    with pytest.raises(InputError, match="every count of the scan is 0"):
        preprocess.compute(Cube(np.zeros((2, 3, 16, 16), np.uint8)), Params())
    data, _ = scan_of_disks(scan=(2, 5))
    with pytest.raises(InputError, match="masked"):
        preprocess.compute(Cube(data, valid=np.zeros((48, 48), np.uint8)), Params())


def test_nan_pixels_are_dead_and_stray_nan_is_an_error_with_its_position():
    data, truth = scan_of_disks(scan=(3, 40), seed=11)
    data = data.astype(np.float32)
    data[:, :, 9, 9] = np.nan
    result = preprocess.compute(Cube(data), Params())
    assert result.bad_pixel[9, 9] == bad_pixels.DEAD
    assert rms(result.centre_px - truth) < 0.1
    for place in ((1, 34), (2, 0)):
        broken = data.copy()
        broken[(*place, 3, 3)] = np.nan
        with pytest.raises(InputError, match=f"\\({place[0]}, {place[1]}\\)"):
            preprocess.compute(Cube(broken), Params())


@pytest.mark.parametrize("position", [(11.5, 11.5), (9.2, 14.9), (-3.4, 30.0)])
def test_centring_is_resampling_without_ellipse_and_rotation(position):
    rng = np.random.default_rng(14)
    pattern, usable = rng.poisson(5, (24, 25)).astype(np.float32), (rng.random((24, 25)) > 0.1).astype(np.uint8)
    expected = np.empty((1, 24, 25), np.float32)
    resample(pattern[None] - np.float32(0.5), usable, np.array([position]), np.eye(2), expected)
    for kernel in (centre.add_centred, centre.add_centred.py_func):
        total, peak = np.ones((24, 25)), np.full((24, 25), 2, np.float32)
        kernel(pattern, usable, 0.5, np.array(position), total, peak)
        np.testing.assert_allclose(total, 1 + expected[0], atol=1e-5)
        np.testing.assert_allclose(peak, np.maximum(2, expected[0]), atol=1e-5)


def test_rows_are_aligned_as_by_the_plain_formula():
    rng = np.random.default_rng(15)
    spectra = rng.normal(size=(6, 40)) + 1j * rng.normal(size=(6, 40))
    rows, shift = np.array([0, 2, 3, 5]), rng.normal(size=4)
    profile = (spectra[rows] * np.exp(1j * shift[:, None] * 0.7 * np.arange(40))).sum(axis=0)
    for kernel in (rings.aligned_power, rings.aligned_power.py_func):
        assert kernel(spectra, rows, np.exp(0.7j * shift)) == pytest.approx((np.abs(profile) ** 2).sum())


def test_a_radial_profile_is_the_mean_over_rings_about_the_centre():
    rng = np.random.default_rng(16)
    pattern, usable = rng.poisson(5, (20, 22)).astype(np.float32), rng.random((20, 22)) > 0.1
    y, x = np.indices((20, 22))
    r = np.hypot(y - 8.3, x - 12.1)
    for kernel in (beam.add_profile, beam.add_profile.py_func):
        sums = np.zeros((3, 30))
        kernel(pattern, usable, np.array([8.3, 12.1]), 1.0, 0.5, sums)
        for values, total in zip((r, pattern - 1, np.ones_like(r)), sums, strict=True):
            near = usable & (r < 15)
            expected = np.bincount((r[near] / 0.5).astype(int), values[near], 30)
            np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_a_detector_of_awkward_size_is_searched_as_well():
    data, truth = scan_of_disks(scan=(2, 33), size=47, seed=17)
    result = preprocess.compute(Cube(data), Params())
    assert beam.fast_shape((47, 257)) == (48, 270)
    assert rms(result.centre_measured_px - truth) < 0.15


def test_the_compiled_kernels_do_what_their_python_does():
    data, truth = scan_of_disks(scan=(1, 2), size=24, radius=3.0)
    image, table = data[0, 0].astype(np.float32), beam.template(beam.Beam(3, 0.5, 20))
    for kernel, extra in ((centre.refine, (table, beam.STEP_PX)), (centre.centre_of_mass, (3.0, 0.5))):
        answers = np.full((2, 4), np.nan)
        for k, function in enumerate((kernel, kernel.py_func)):
            function(image, truth[0, 0].round(), *extra, 0.0, 1.0, 0.01, answers[k])
        np.testing.assert_allclose(answers[0], answers[1], atol=1e-6)
    sums = np.zeros((2, 5, 24 * 24))
    for k, function in enumerate((moments.accumulate, moments.accumulate.py_func)):
        function(data[0].reshape(2, -1).astype(np.float32), np.zeros(576, bool), sums[k])
    assert np.array_equal(sums[0], sums[1])


def test_real_counts_of_a_broad_disk_have_the_known_centre_and_radius():
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if not folder:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    h5py = pytest.importorskip("h5py")
    with h5py.File(Path(folder) / "cryo_counts/virus_crop24x24_det256_raw.h5") as file:
        data = file["data"][::5]
    result = preprocess.compute(Cube(data), Params())
    np.testing.assert_allclose(result.centre_px.mean(axis=(0, 1)), [127.69, 125.99], atol=0.3)
    assert result.beam_radius_px == pytest.approx(60.7, abs=0.6)
    assert result.counts_per_electron == pytest.approx(1.08, abs=0.1)
    assert not result.bad_pixel.any()
    verdict = json.loads(result.verdict)["ellipse"]
    assert not verdict["pass"]
    assert "a/b = 1.06" in verdict["reason"]
