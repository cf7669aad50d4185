"""What may be said of a species: shot noise in images and masks, statements, and what they rest on."""

import numpy as np
import pytest
from template_scans import RADIUS, compute, cube_of, disk, laid_out, noise, picture, settings, specimen, told

from fourdstem.errors import InputError
from fourdstem.methods.template_mask import claims, masks, stream

SHAPE, DETECTOR = (24, 36), (18, 18)


@pytest.fixture(scope="module")
def scan():
    return specimen(SHAPE, DETECTOR, np.random.default_rng(101))


# ---- guard 1: shot noise ------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [{}, {"cross_fit": "folds"}, {"cross_fit": "split"}, {"mask": "positive"}])
def test_on_pure_noise_cross_fitted_images_do_not_look_like_the_template(given):
    inside, fair, detector = [], [], (24, 24)
    runs = 200 if not given else 60
    for seed in range(runs):
        cube = cube_of(noise((16, 24), detector, np.random.default_rng(1000 + seed)))
        source = stream.open_source(cube)
        form = masks.form(settings(symmetrise=False, **given), source, RADIUS)
        region, fold = np.ones((1, 16, 24), bool), np.zeros((16, 24), int)
        if given.get("cross_fit") == "folds":
            fold = masks.tiles((16, 24), 4)
        template = picture((16, 24))
        question = masks.Question(masks.standardised(template, region[0])[None], region, np.zeros(1, int))
        sums = masks.gather(source, question, fold)
        learned = masks.learn(sums, question, fold)
        if given.get("cross_fit") == "folds":
            made = masks.folded(source, question, sums, form, fold, 1)
        elif given.get("cross_fit") == "split":
            made = masks.halved(source, question, learned, form, 1)
        else:
            made = masks.leave_one_out(source, question, learned, form, 1)
        fair.append(claims.correlation(made.fair[0], template))
        inside.append(claims.correlation(made.in_sample[0], template))
    assert abs(np.mean(fair)) <= (0.02 if not given else 0.03)
    lit = int((disk(detector) > 0).sum())  # pixels beyond the disk are dark and weigh little
    assert np.mean(inside) > 0.8 * claims.expected_bias(lit, 16 * 24)
    assert np.mean(inside) > 0.2


def test_in_sample_images_of_uniform_noise_have_the_correlation_that_is_predicted():
    found = []
    for seed in range(20):
        counts = np.random.default_rng(2000 + seed).poisson(4.0, (16, 24, 20, 20)).astype(np.uint16)
        result = compute(cube_of(counts), settings(symmetrise=False, detector_bin=1))
        found.append(result.correlation_in_sample[0])
    assert result.correlation_by_noise[0] == pytest.approx(np.sqrt((400 / 384) / (1 + 400 / 384)))
    assert np.mean(found) == pytest.approx(result.correlation_by_noise[0], abs=0.02)


def test_symmetric_masks_of_noise_have_half_the_freedom():
    counts = [np.random.default_rng(s).poisson(4.0, (16, 24, 20, 20)).astype(np.uint16) for s in range(2100, 2120)]
    found = [compute(cube_of(c), settings(detector_bin=1, slopes=False)) for c in counts]
    mean = np.mean([f.correlation_in_sample[0] for f in found])
    assert mean == pytest.approx(found[0].correlation_by_noise[0], abs=0.02)
    assert found[0].correlation_by_noise[0] == pytest.approx(claims.expected_bias(200, 384))


# ---- statements ---------------------------------------------------------------------------------------------

LEARN, CONTROL = [0, 16, 0, 40], [0, 16, 72, 104]


def divided(control=CONTROL, learn=LEARN):
    template = {"species": "A", "file": "a.npy", "region": learn, "control": control}
    return settings(templates=[template], detector_bin=1, slopes=False)


def elsewhere(counts, control=CONTROL):
    return compute(cube_of(counts), divided(control))


def test_pure_noise_is_detected_at_most_as_often_as_the_level_allows():
    scans = (noise((16, 104), (10, 10), np.random.default_rng(3000 + s)) for s in range(200))
    first = next(scans)
    whole, scene = elsewhere(first), laid_out(cube_of(first), divided(), RADIUS)
    found = [told(scene, cube_of(first), RADIUS)[0], *(told(scene, cube_of(c), RADIUS)[0] for c in scans)]
    assert (found[0].statement, found[0].reason) == (whole.statement[0], whole.reason[0])
    said = [one.statement for one in found]
    assert len(said) == 200
    assert said.count("detected") <= 5
    assert said.count("not seen") >= 190


WIDE = [0, 16, 72, 200]


def test_columns_that_are_there_are_detected_by_a_mask_learned_elsewhere_and_not_where_they_are_missing():
    where = np.arange(200) < 72
    said, empty, scene = [], [], None
    for seed in range(40):
        rng = np.random.default_rng(4000 + seed)
        cube = cube_of(specimen((16, 200), (10, 10), rng, strength=0.5, where=where[None, :]))
        scene = scene or laid_out(cube, divided(WIDE), RADIUS)
        found = told(scene, cube, RADIUS)[0]
        said.append(found.statement)
        empty.append(found.control.value / found.control.sigma)
    assert said.count("detected") >= 38
    assert abs(np.mean(empty)) < 3.5 / np.sqrt(40)


def test_faint_columns_are_seen_but_a_control_of_few_columns_is_not_called_empty():
    where, scene = np.arange(104) < 72, None
    found = []
    for seed in range(40):
        rng = np.random.default_rng(4000 + seed)
        cube = cube_of(specimen((16, 104), (10, 10), rng, strength=0.15, where=where[None, :]))
        scene = scene or laid_out(cube, divided(), RADIUS)
        found.append(told(scene, cube, RADIUS)[0])
    assert all(f.seen.p < 0.01 for f in found)
    assert sum(f.statement == "consistent with" for f in found) >= 38
    assert sum("too much to call it empty" in f.reason for f in found) >= 37
    assert abs(np.mean([f.control.value / f.control.sigma for f in found])) < 3.5 / np.sqrt(40)


@pytest.mark.parametrize("share", [claims.EMPTY, 0.2])
def test_a_control_that_keeps_a_tenth_is_called_empty_as_seldom_as_the_level_says_however_few_the_counts(share):
    rng, alpha, runs = np.random.default_rng(14), 0.01, 200
    seen = claims.Contrast(1.0, 0.01, 50, 1.0, 1.0)
    for error in np.geomspace(0.003, 0.5, 7):
        scatter = error * np.sqrt(rng.chisquare(19, runs) / 19)
        held = zip(share + rng.normal(0, error, runs), scatter, strict=True)
        controls = [claims.Contrast(value, sigma, 20, 1.0, 1.0) for value, sigma in held]
        said = [claims.judge(seen, claims.NOTHING, control, True, alpha)[0] for control in controls]
        assert said.count("detected") <= runs * alpha + 3 * np.sqrt(runs * alpha)
    exact = claims.Contrast(0.0, 1e-3, 20, 1.0, 1.0)
    assert claims.judge(seen, claims.NOTHING, exact, True, alpha)[0] == "detected"


@pytest.mark.parametrize("kept", [0.03, -0.03])
def test_a_control_beyond_its_own_error_is_not_empty_however_little_it_keeps(kept):
    seen, control = claims.Contrast(1.0, 0.01, 50, 1.0, 1.0), claims.Contrast(kept, 0.001, 50, 1.0, 1.0)
    said, why = claims.judge(seen, claims.NOTHING, control, True, 0.01)
    assert said == "consistent with"
    assert f"{kept:.0%} of it: not empty" in why
    assert f"the excess over the control is {1 - kept:.3f} ± 0.010" in why


def test_a_control_that_shows_the_columns_too_forbids_the_word_detected():
    found = elsewhere(specimen((16, 104), (10, 10), np.random.default_rng(5), strength=0.5))
    assert found.statement == ("consistent with",)
    assert "not empty" in found.reason[0]


def test_region_and_control_that_leave_no_column_are_refused(scan):
    params = divided(control=[0, 24, 18, 36], learn=[0, 24, 0, 18])
    with pytest.raises(InputError, match="no column of A beside its background outside of region and control"):
        compute(cube_of(scan), params)


def test_without_a_control_or_where_the_mask_was_learned_nothing_is_detected(scan):
    assert compute(cube_of(scan)).statement == ("consistent with",)
    block = {"species": "A", "file": "a.npy", "region": [0, 24, 0, 18]}
    found = compute(cube_of(specimen(SHAPE, DETECTOR, np.random.default_rng(6), 0.5)), settings(templates=[block]))
    assert found.statement == ("consistent with",)
    assert "no columns in a control" in found.reason[0]


def test_a_mask_from_another_sample_is_applied_as_it_is(scan):
    given = np.random.default_rng(7).normal(size=DETECTOR)
    found = compute(cube_of(scan), settings(symmetrise=False), learned={"A": given})
    np.testing.assert_allclose(found.image[0], (scan * given).sum(axis=(2, 3)), atol=2e-3)
    np.testing.assert_array_equal(found.image, found.image_in_sample)


def test_counting_noise_of_the_image_is_what_repetition_shows():
    expected = 3.0 * np.ones((16, 16, 10, 10))
    given = np.random.default_rng(8).normal(size=(10, 10))
    runs = [cube_of(np.random.default_rng(s).poisson(expected).astype(np.uint16)) for s in range(30)]
    options = {"params": settings(symmetrise=False), "pictures": {"A": picture((16, 16))}, "learned": {"A": given}}
    found = [compute(cube, **options) for cube in runs]
    scatter = np.std([f.image[0] for f in found], axis=0).mean()
    assert np.mean([f.image_sigma[0].mean() for f in found]) == pytest.approx(scatter, rel=0.03)
