"""The evaluation of the preprocessing: its patterns, its measures, its table, its rule; and disks with a slope."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from disk_scans import disk, rms, scan_of_disks, true_centres
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.figures import evaluate_preprocess as figures
from fourdstem.methods import evaluate_preprocess as method
from fourdstem.methods import preprocess
from fourdstem.methods.evaluate_preprocess import centring, denoising, known, straightening, ways
from fourdstem.methods.preprocess import search, uneven
from fourdstem.methods.training import patterns

ROOT = Path(__file__).resolve().parents[1]
MANY_BEAM = ROOT / "tests" / "fixtures" / "dynamical_disks.npz"


@pytest.fixture(scope="module")
def test_patterns():
    return known.of_share(7, "test", 8)


def test_a_scene_drawn_is_the_pattern_and_leaving_a_part_out_leaves_the_rest():
    scene = patterns.draw_scene(3, "train", 1)
    assert np.array_equal(patterns.drawn(scene).image, patterns.draw_pattern(3, "train", 1).image)
    bare = centring.INGREDIENTS["an even round disk alone"](scene)
    image = patterns.drawn(bare).image
    y, x = np.indices(image.shape)
    mass = [(image * y).sum() / image.sum(), (image * x).sum() / image.sum()]
    np.testing.assert_allclose(mass, scene.centre, atol=0.02)


def test_patterns_without_reflections_have_none():
    assert not known.without_spots(7, "test", 3).extras[:, 4:].any()


def test_many_beam_patterns_hold_their_spots_and_are_uneven_inside_disks_unless_made_flat():
    some = known.many_beam(MANY_BEAM, 1, flat=False)
    flat = known.many_beam(MANY_BEAM, 1, flat=True)
    assert len(some.images) == 48
    torch.testing.assert_close(some.images.sum(dim=(1, 2)), torch.ones(48), atol=1e-4, rtol=0)
    spread = []
    for data in (some, flat):
        y, x = np.indices((128, 128))
        inside = [np.hypot(y - e[0], x - e[1]) < 0.7 * e[2] for e in data.extras.numpy()[:, :3]]
        spread.append(
            np.median([image[m].std() / image[m].mean() for image, m in zip(data.images, inside, strict=True)])
        )
    assert spread[0] > 5 * spread[1]


def test_measures_agree_with_those_of_scikit_image(test_patterns):
    recorded = denoising.recorded_of(test_patterns, 1e4, 0)
    everywhere = torch.ones_like(recorded.electrons)
    for i in range(2):
        true, seen = recorded.expected[i, 0].double().numpy(), recorded.electrons[i, 0].double().numpy()
        one = recorded.electrons[i : i + 1], recorded.expected[i : i + 1], everywhere[:1]
        peak = true.max()
        expected = peak_signal_noise_ratio(true, seen, data_range=peak)
        assert denoising.psnr(*one).item() == pytest.approx(expected, abs=1e-3)
        expected = structural_similarity(true, seen, data_range=peak)
        assert denoising.ssim(*one).item() == pytest.approx(expected, abs=1e-4)


def test_the_truth_has_no_error_and_every_way_keeps_the_sum(test_patterns):
    recorded = denoising.recorded_of(test_patterns, 1e3, 0)
    spots = test_patterns.extras[:, 4:].reshape(8, -1, 3)
    told = denoising.measures(recorded.expected, recorded, spots, 1e3)
    assert told["error"].max() == 0 and np.nanmin(told["recall"]) == 1
    for found in (
        ways.nonlocal_means(recorded.electrons, (0.6, 3)),
        ways.principal(recorded.electrons, 2),
        ways.gaussian(recorded.electrons, 1.0),
    ):
        assert denoising.measures(found, recorded, spots, 1e3)["change of sum"].max() < 1e-5


def test_principal_components_of_one_pattern_repeated_take_most_of_the_noise_off():
    scan = known.of_scenes([patterns.draw_scene(7, "test", 3)] * 24)
    recorded = denoising.recorded_of(scan, 1e4, 1)
    before = denoising._error(recorded.electrons, recorded).mean()
    assert denoising._error(ways.principal(recorded.electrons, 1), recorded).mean() < 0.4 * before


def test_the_right_ellipse_leaves_rings_round():
    assert straightening.unevenness((1.1, 30.0), (1.1, 30.0)) == pytest.approx(0, abs=1e-9)
    assert straightening.unevenness((1.1, 30.0), (1.0, 0.0)) == pytest.approx(0.5 * np.log(1.1) / np.sqrt(2), rel=0.02)


def test_a_small_evaluation_makes_a_table_and_figures_that_can_be_made_again(tmp_path):
    small = method.Params(patterns=8, tuning=4, scans=1, positions=2, means=4, ingredients=4)
    weights = ROOT / "scripts" / "fourdstem" / "networks" / "trained" / "denoise.safetensors"
    rows = method.formatted(centring.ingredients(small.seed, small.ingredients, lambda text: None))
    test, tuning = known.of_share(1, "test", 8), known.of_share(1, "train", 4)
    rows += method.formatted(centring.table(test, tuning, 1, lambda text: None))
    rows += method.formatted(straightening.table(1, small.means, lambda text: None))
    network = ways.network(method.load(weights, "denoise")[0], "cpu")
    told = denoising._all_ways({"network": network}, test, 1e3, 1, {})["network"]
    rows += method.formatted(denoising._rows("patterns", "network", 1e3, test.radii, told))
    assert {row[0] for row in rows} == {"centre", "ellipse", "denoise"}
    made = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        figures.draw(rows, tmp_path / name)
        made.append({p.name: p.read_bytes() for p in sorted((tmp_path / name).iterdir())})
    assert made[0] == made[1] and len(made[0]) == 8


def test_the_rule_is_a_target_of_its_own(tmp_path):
    command = [sys.executable, "-m", "snakemake", "evaluate_preprocess", "--dry-run", "--cores", "1"]
    command += ["--snakefile", str(ROOT / "Snakefile"), "--configfile", str(ROOT / "config" / "config.yaml")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "simulate" not in done.stdout + done.stderr


# ---- disks with a slope of brightness ------------------------------------------------------------------------


def scan_of_slopes(slope, counts, seed=5, even=0.0):
    """Poisson counts of disks brighter on one side, another one in every pattern, and their true centres.

    A share of the disks is ``even``.
    """
    rng, truth = np.random.default_rng(seed), true_centres((3, 32), 48)
    y, x = np.indices((48, 48))
    data = np.empty((3, 32, 48, 48), np.uint16)
    for place in np.ndindex(3, 32):
        (cy, cx), (gy, gx) = truth[place], rng.normal(0, slope, 2)
        if even:
            gy, gx = np.array([gy, gx]) * (rng.random() >= even)
        bright = np.maximum(1 + (gy * (y - cy) + gx * (x - cx)) / 4.0, 0)
        data[place] = rng.poisson(counts * bright * disk((48, 48), truth[place], 4.0) + 0.02)
    return data, truth


def centres(data, gain=None):
    return preprocess.compute(Cube(data, acquisition=Acquisition(counts_per_electron=gain)), preprocess.Params())


def test_a_slope_of_brightness_no_longer_moves_the_centre(monkeypatch):
    data, truth = scan_of_slopes(0.25, 30000)
    result = centres(data)
    error = result.centre_measured_px - truth
    assert "slopes by" in result.verdict
    assert rms(error) < 0.04
    # Cautious: without a gain, what differs between neighbours passes for noise.
    assert rms(error / result.centre_sigma_px[..., None]) < 1.3
    monkeypatch.setattr(search, "likely_spread", lambda *_: 0.0)
    assert rms(centres(data).centre_measured_px - truth) > 0.12


@pytest.mark.parametrize("even", [0.0, 0.5])
@pytest.mark.parametrize("counts", [1000, 3000])
def test_with_the_gain_known_the_uncertainty_is_that_of_the_errors(counts, even):
    data, truth = scan_of_slopes(0.25, counts, even=even)
    result = centres(data, gain=1.0)
    assert 0.8 < rms((result.centre_measured_px - truth) / result.centre_sigma_px[..., None]) < 1.2


def test_slopes_are_allowed_for_in_full_where_half_of_the_disks_are_even():
    data, truth = scan_of_slopes(0.25, 30000, even=0.5)
    for gain in (None, 1.0):
        result = centres(data, gain)
        error = result.centre_measured_px - truth
        assert rms(error) < 0.03
        assert rms(error / result.centre_sigma_px[..., None]) < 1.3


@pytest.mark.parametrize("counts", [100, 1000, 20000])
def test_on_even_disks_the_correlation_stays_to_the_bit(counts, monkeypatch):
    data, _ = scan_of_disks(counts=counts)
    found = centres(data).centre_measured_px
    monkeypatch.setattr(search, "likely_spread", lambda *_: 0.0)
    np.testing.assert_array_equal(found, centres(data).centre_measured_px)


def test_the_spread_of_slopes_is_found_and_none_where_noise_explains_them():
    rng = np.random.default_rng(0)
    sigma = np.full(200, 0.05)
    assert uneven.likely_spread(rng.normal(0, 0.05, (200, 2)), sigma) == 0
    assert uneven.likely_spread(rng.normal(0, 0.2, (200, 2)), sigma) == pytest.approx(0.19, abs=0.04)
    half = rng.normal(0, 0.2, (200, 2)) * np.repeat([0, 1], 100)[:, None] + rng.normal(0, 0.05, (200, 2))
    assert 0.12 < uneven.likely_spread(half, sigma) < 0.2
    assert uneven.likely_spread(np.full((3, 2), np.nan), np.full(3, np.nan)) == 0


def test_the_fit_of_slopes_does_what_its_python_does():
    data, truth = scan_of_slopes(0.25, 3000)
    image, table = data[0, 0].astype(np.float32), uneven.disk_table(search.Beam(4.0, 0.5, 10.0))
    out = np.empty((2, 6))
    for k, function in enumerate((uneven.fit_slope, uneven.fit_slope.py_func)):
        function(image, truth[0, 0].round(), 4.0, table, 0.02, 10.0, 0.3, 0.0, 1.0, 0.01, out[k])
    np.testing.assert_allclose(out[0], out[1], atol=1e-9)
