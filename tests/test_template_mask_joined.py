"""Images joined with those of the template's slopes: closed form, noise, guards."""

import dataclasses

import numpy as np
import pytest
from template_scans import STEP, compute, cube_of, disk, noise, picture, settings, specimen
from test_template_mask import leave_out

from fourdstem.methods.template_mask import joined, masks, stream

SHAPE, DETECTOR = (24, 36), (12, 12)


def question(template, slopes, region):
    """A template and its slopes, as the stage lays them out."""
    three = np.stack([masks.standardised(t, region) for t in (template, *slopes)])
    scale = np.array([t[region].std() for t in (template, *slopes)])
    return masks.Question(three, region[None], np.zeros(3, int), np.array([1, -1, -1]), scale)


def waves():
    """A picture that goes on smoothly where it is mirrored, and its slopes."""
    y, x = ((np.arange(n) + 0.5) * s for n, s in zip(SHAPE, STEP, strict=True))
    ky, kx = (np.pi * m / (n * s) for m, n, s in zip((4, 5), SHAPE, STEP, strict=True))
    whole = np.cos(ky * y)[:, None] * np.cos(kx * x)
    return whole, (-ky * np.sin(ky * y)[:, None] * np.cos(kx * x), -kx * np.cos(ky * y)[:, None] * np.sin(kx * x))


def joint(asked, fair, strength, variance):
    """The joint image of images whose masks have these strengths and noises: one pixel each."""
    learned = masks.Learned(np.reshape(strength, (3, 1)), np.ones((3, 1)), np.ones((3, 1)))
    given = (asked, fair, np.ones((3, 1)), learned, lambda w, m: np.array(variance), [(0, 1, 2)], STEP)
    return joined.join(*given)


@pytest.mark.parametrize("variance", [(1.0, 1.0, 1.0), (1.0, 1e-4, 1e-4), (1e-6, 1.0, 1.0)])
def test_images_that_agree_are_joined_to_what_they_agree_on(variance):
    template, slopes = waves()
    asked = question(template, slopes, np.ones(SHAPE, bool))
    strength = np.array([3.0, 2.0, 0.5])
    # of one specimen: each image is its template by the strength of its mask and the amplitude of the specimen
    fair = strength[:, None, None] * asked.template
    made = joint(asked, fair, strength, variance)
    own = made.image[0] / strength[0]
    expected = asked.template[0] * np.polyfit(asked.template[0].reshape(-1), own.reshape(-1), 1)[0]
    np.testing.assert_allclose(own, expected, atol=1e-9)
    assert np.corrcoef(own.reshape(-1), asked.template[0].reshape(-1))[0, 1] == pytest.approx(1.0)


def test_both_axes_of_the_scan_are_treated_alike():
    parts = np.random.default_rng(1).normal(size=(3, *SHAPE))
    strength, variance = np.array([1.0, 0.7, 0.4]), np.array([1.0, 0.5, 0.2])
    image, noise = joined._joined(parts, strength, variance, STEP)
    other = parts[[0, 2, 1]].transpose(0, 2, 1), strength[[0, 2, 1]], variance[[0, 2, 1]], STEP[::-1]
    turned, again = joined._joined(*other)
    np.testing.assert_allclose(turned.T, image, atol=1e-12)
    assert again == pytest.approx(noise, rel=1e-12)


def test_an_odd_image_with_much_noise_leaves_the_even_one_as_it_is():
    template, slopes = waves()
    asked = question(template, slopes, np.ones(SHAPE, bool))
    fair = np.random.default_rng(0).normal(size=(3, *SHAPE))
    made = joint(asked, fair, np.ones(3), (1.0, 1e12, 1e12))
    np.testing.assert_allclose(made.image[0], fair[0], atol=1e-6)
    assert made.variance[0] == pytest.approx(1.0)


def test_the_noise_is_what_repetition_shows():
    template, slopes = waves()
    asked = question(template, slopes, np.ones(SHAPE, bool))
    rng, variance = np.random.default_rng(1), np.array([1.0, 0.3, 0.2])
    runs = []
    for _ in range(400):
        fair = rng.normal(size=(3, *SHAPE)) * np.sqrt(variance)[:, None, None]
        made = joint(asked, fair, np.array([1.0, 1.0, 0.8]), variance)
        runs.append(made.image[0])
    middle = np.array(runs)[:, 6:18, 8:28]
    assert (middle**2).mean() == pytest.approx(made.variance[0], rel=0.04)
    assert made.variance[0] < 0.1 * variance[0]


def test_leaving_one_position_out_of_an_odd_mask_is_what_brute_force_gives():
    counts = specimen((9, 8), (6, 7), np.random.default_rng(102), strength=0.5)
    source = stream.open_source(cube_of(counts))
    template = np.random.default_rng(103).normal(size=(9, 8))
    region = np.ones((1, 9, 8), bool)
    ready = masks.standardised(template, region[0])[None]
    asked = masks.Question(ready, region, np.zeros(1, int), np.array([-1]), np.ones(1))
    form = masks.form(settings(), source, 3.0, asked.parity)
    fold = np.zeros((9, 8), int)
    learned = masks.learn(masks.gather(source, asked, fold), asked, fold)
    weights = form.weights(learned, asked.count)[0].reshape(6, 7)
    np.testing.assert_allclose(weights, -weights[::-1, ::-1], atol=1e-12)
    assert np.abs(weights).max() > 0
    found = masks.leave_one_out(source, asked, learned, form, 0).fair[0]
    np.testing.assert_allclose(found.reshape(-1), leave_out(counts, template.reshape(-1), form), atol=2e-5)


def test_on_pure_noise_joined_images_show_no_template():
    rng, shown = np.random.default_rng(104), []
    for _ in range(60):
        found = compute(cube_of(noise(SHAPE, DETECTOR, rng)), settings())
        shown.append((found.joined_correlation[0], found.joined_contrast[0] / found.joined_sigma[0]))
    correlation, ratio = np.array(shown).T
    assert abs(correlation.mean()) < 3 * correlation.std() / np.sqrt(60) + 0.01
    assert abs(correlation.mean()) < 0.03
    assert abs(ratio.mean()) < 0.3


def test_deflections_that_a_mask_of_one_position_cannot_see_are_seen():
    """Columns that only shift the disk towards them: every position alone looks the same but for its direction."""
    rng, places = np.random.default_rng(105), picture((40, 48), 12.0, 8.0)
    slope = np.stack(np.gradient(places, *STEP))
    y, x = (np.arange(n) - (n - 1) / 2 for n in DETECTOR)
    tilt = slope[0][..., None, None] * y[:, None] + slope[1][..., None, None] * x
    counts = rng.poisson(3 * disk(DETECTOR) * (1 + 0.03 * tilt) + 0.05).astype(np.uint16)
    found = compute(cube_of(counts), settings(), {"A": places})
    assert abs(found.correlation[0]) < 0.1
    assert found.joined_correlation[0] > 0.3
    assert found.joined_contrast_to_noise[0] > 5 * abs(found.contrast_to_noise[0])
    assert abs(found.joined_pull[0]) < 0.2


def test_joined_images_need_symmetric_signed_masks_of_this_scan_and_can_be_left_out():
    counts = specimen(SHAPE, DETECTOR, np.random.default_rng(106))
    names = [f.name for f in dataclasses.fields(compute(cube_of(counts))) if f.name.startswith("joined")]
    assert all(getattr(compute(cube_of(counts)), n) is not None for n in names)
    for given in ({"slopes": False}, {"symmetrise": False}, {"mask": "positive"}, {"significance": 1.0}):
        made = compute(cube_of(counts), settings(**given))
        assert all(getattr(made, n) is None for n in names), given
    learned = {"A": np.ones(DETECTOR)}
    assert compute(cube_of(counts), learned=learned).joined_image is None


def test_what_is_published_does_not_depend_on_slopes():
    counts = specimen(SHAPE, DETECTOR, np.random.default_rng(107))
    one, two = (compute(cube_of(counts), settings(slopes=s)) for s in (True, False))
    for name in ("image", "mask", "contrast_to_noise", "pull", "cross_talk"):
        np.testing.assert_allclose(getattr(one, name), getattr(two, name), atol=2e-5)
    assert one.statement == two.statement
