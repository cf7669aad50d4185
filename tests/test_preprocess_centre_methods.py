"""The four ways to find the beam, side by side against known truth: disks, a film, and patterns made to mislead."""

import numpy as np
import pytest
from disk_scans import disk, rms, scan_of_disks, true_centres

from fourdstem import crystal
from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.methods import preprocess, simulate
from fourdstem.methods.preprocess import Params, friedel
from fourdstem.methods.preprocess.moments import Noise

METHODS = ("disk_correlation", "centre_of_mass", "blurred_maximum", "friedel")
SHAPE = (64, 64)


def measured(data, truth, **known):
    """{method: (mean error, 95 % error, rms error in units of sigma)}, errors of single patterns in px."""
    found = {}
    for method in METHODS:
        result = preprocess.compute(Cube(data, acquisition=Acquisition(**known)), Params(centre_method=method))
        error = result.centre_measured_px - truth
        size = np.hypot(error[..., 0], error[..., 1])
        pull = rms(error / result.centre_sigma_px[..., None])
        assert np.isfinite(size).mean() > 0.97, method
        found[method] = float(np.nanmean(size)), float(np.nanquantile(size, 0.95)), pull
    return found


def scan_of(pattern, seed):
    truth = true_centres((3, 32), SHAPE[0])
    rng = np.random.default_rng(seed)
    return np.stack([[rng.poisson(pattern(c) + 0.02) for c in row] for row in truth]).astype(np.uint16), truth


@pytest.mark.parametrize("counts", [100, 1000])
def test_on_disks_correlation_wins_and_the_inversion_loses(counts):
    table = measured(*scan_of_disks(counts=counts))
    mean = {method: row[0] for method, row in table.items()}
    assert mean["disk_correlation"] < 0.85 * mean["centre_of_mass"]
    assert mean["blurred_maximum"] == pytest.approx(mean["centre_of_mass"], rel=0.05)
    assert 1.05 * mean["centre_of_mass"] < mean["friedel"] < 1.4 * mean["centre_of_mass"]
    for method, (_, _, pull) in table.items():
        assert 0.8 < pull < 1.25, method


@pytest.mark.parametrize(("electrons", "limit"), [(120.0, 0.65), (1200.0, 0.2)])
def test_on_a_film_the_four_agree_with_the_truth_and_correlation_wins(electrons, limit):
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    gold = crystal.make_crystal("gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, sites)
    film = simulate.Params(scan_shape=(8, 32), detector_shape=(96, 96), grains=6, electrons_per_pattern=electrons)
    data = np.zeros((*film.scan_shape, *film.detector_shape), np.uint16)
    truth = simulate.compute(film, [gold], data).centre_px
    known = {"beam_energy_kev": 200.0, "convergence_mrad": 1.0, "detector_pixel_inv_angstrom": 0.0203}
    table = measured(data, truth, **known)
    for method, (mean, most, _) in table.items():
        assert most < limit, method
        assert mean >= 0.98 * table["disk_correlation"][0], method


def test_a_bragg_disk_that_touches_moves_all_but_the_correlation():
    data, truth = scan_of(lambda c: 3000 * (disk(SHAPE, c, 4.0) + 0.6 * disk(SHAPE, c + [3.2, 9.0], 4.0)), 21)
    table = measured(data, truth)
    assert table["disk_correlation"][1] < 0.1
    for method in METHODS[1:]:
        assert 0.2 < table[method][0] < 0.45, method


def test_the_inversion_prefers_the_beam_to_a_stronger_rival_half_a_reciprocal_vector_away():
    apart = np.array([4.0, 16.0])
    data, truth = scan_of(lambda c: 2000 * (disk(SHAPE, c, 4.0) + 0.8 * disk(SHAPE, c + apart, 4.0)), 22)
    image = data[1, 7].astype(float)
    whole = np.fft.irfft2(np.fft.rfft2(image, (128, 128)) ** 2, (128, 128))
    strongest = np.array(np.unravel_index(np.argmax(whole), whole.shape)) / 2
    np.testing.assert_allclose(strongest, truth[1, 7] + apart / 2, atol=1.0)
    result = preprocess.compute(Cube(data), Params(centre_method="friedel"))
    assert rms(result.centre_measured_px - truth) < 0.12


def inversion(pattern, seed, radius=4.0):
    out = np.full(4, np.nan)
    friedel.locate_inversion(pattern.astype(np.float32), np.array(seed), radius, Noise(0.0, 1.0, 0.01), out)
    return out


@pytest.mark.parametrize("centre", [(30.0, 31.5), (28.37, 33.81)])
def test_the_inversion_is_exact_without_noise_whatever_the_shape_and_for_unequal_pairs(centre):
    y, x = np.indices((64, 61))
    u, v = y - centre[0], x - centre[1]
    image = 100 * np.exp(-(((0.6 * u + 0.8 * v) / 4) ** 2) - ((0.8 * u - 0.6 * v) / 2) ** 2)
    for sign, height in ((1, 40), (-1, 5)):
        image += height * np.exp(-((u - 14 * sign) ** 2 + (v - 9 * sign) ** 2) / 4)
    np.testing.assert_allclose(
        inversion(image, np.rint(centre)), [*centre, *inversion(image, np.rint(centre))[2:]], atol=2e-3
    )


def test_the_uncertainty_of_the_inversion_is_the_scatter_of_repeated_counts():
    rng = np.random.default_rng(23)
    expected = 600 * disk((48, 48), (23.2, 24.7), 4.0) + 0.05
    found = np.array([inversion(rng.poisson(expected), (23.0, 25.0)) for _ in range(150)])
    scatter = found[:, :2].std(axis=0)
    np.testing.assert_allclose(scatter, np.median(found[:, 2]), rtol=0.25)
    assert np.abs(found[:, :2].mean(axis=0) - [23.2, 24.7]).max() < 0.04


def test_a_beam_cut_by_the_edge_of_the_detector_has_a_centre_near_it_or_none():
    image = 1000 * disk((64, 64), (47.0, 20.0), 4.0)[:48, :48]
    found = inversion(image, (47.0, 20.0))
    assert np.isnan(found[2]) or np.abs(found[:2] - [47.0, 20.0]).max() < 4


def test_nothing_has_no_centre_of_inversion():
    assert np.isnan(inversion(np.zeros((32, 32)), (16.0, 16.0))[2])
