"""Likeness of patterns: against an independent implementation, and what must not matter."""

from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fourdstem.methods.nmf import quality

EVERYWHERE = np.ones((32, 32), bool)


@pytest.fixture(scope="module")
def oracle():
    with np.load(Path(__file__).parent / "fixtures" / "image_quality.npz") as file:
        return {name: file[name] for name in file.files}


def seen(metric, first, second, mask):
    """A measure of two patterns whose values lie in 0 to 1 as they are."""
    pair = [quality.see(np.where(mask, p, 0), mask, 1.0) for p in (first, second)]
    return getattr(quality, metric)(*pair, *([] if metric == "gmsd" else [mask]))


@pytest.mark.parametrize("metric", ["gmsd", "mdsi"])
def test_a_measure_agrees_with_an_independent_implementation(oracle, metric):
    found = [seen(metric, *pair.astype(float), EVERYWHERE) for pair in oracle["pairs"]]
    assert np.ptp(oracle[metric]) > 0.1
    np.testing.assert_allclose(found, oracle[metric], rtol=1e-3, atol=3e-4)


def test_psnr_and_ssim_are_those_of_scikit_image(oracle):
    y, x = np.mgrid[:32, :32] - 15.5
    mask = np.hypot(y, x) > 4
    for first, second in np.where(mask, oracle["pairs"][1:].astype(float), 0):
        ratio = peak_signal_noise_ratio(first[mask], second[mask], data_range=1.0)
        local = structural_similarity(first, second, data_range=1.0, full=True)[1]
        assert seen("psnr", first, second, mask) == pytest.approx(ratio)
        assert seen("ssim", first, second, mask) == pytest.approx(local[mask].mean())


def test_pairs_that_are_named_are_compared_whatever_is_kept_of_them(oracle, monkeypatch):
    patterns = oracle["pairs"][:, 0].astype(float)
    pairs = [(0, 3), (2, 1), (0, 1), (3, 3)]
    found = quality.likeness(patterns, patterns, None, pairs)
    alone = [quality.likeness(patterns[i : i + 1], patterns[j : j + 1])[0] for i, j in pairs]
    np.testing.assert_array_equal(found, alone)
    monkeypatch.setattr(quality, "KEPT", 0)
    np.testing.assert_array_equal(quality.likeness(patterns, patterns, None, pairs), found)


def test_scale_does_not_matter_and_equal_patterns_are_as_alike_as_can_be(oracle):
    base = oracle["pairs"][0, 0]
    values = quality.likeness(np.stack([base, base]), np.stack([base, 7 * base]))
    np.testing.assert_allclose(values, [[100, 1, 0, 0]] * 2, atol=2e-2)


def test_what_lies_outside_the_mask_does_not_matter(oracle):
    first, second = oracle["pairs"][5].astype(float)
    y, x = np.mgrid[:32, :32] - 15.5
    mask = np.hypot(y, x) > 6
    changed = np.where(mask, second, 50.0)
    kept, told = (quality.likeness(first[None], other[None], mask) for other in (second, changed))
    np.testing.assert_array_equal(kept, told)
    assert not np.allclose(kept, quality.likeness(first[None], second[None]))


def test_every_measure_sees_that_a_noisy_copy_is_more_alike_than_another_pattern(oracle):
    noisy, other = (quality.likeness(oracle["pairs"][i, :1], oracle["pairs"][i, 1:])[0] for i in (1, 5))
    for metric, near, far in zip(quality.METRICS, noisy, other, strict=True):
        assert (near > far) == quality.HIGHER_IS_ALIKE[metric], metric


def test_an_empty_pattern_is_like_nothing():
    pattern = np.ones((1, 8, 8))
    assert np.isnan(quality.likeness(pattern, 0 * pattern)).all()
    assert np.isnan(quality.likeness(pattern, pattern, np.zeros((8, 8), bool))).all()
