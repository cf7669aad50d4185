"""Mixtures of known patterns: shares, doses, seeds, bends."""

from dataclasses import replace

import numpy as np
import pytest

from fourdstem.methods.simulate import mixture

SMALL = {"scan_shape": (24, 24), "detector_shape": (32, 32), "radius_px": 1.4}


@pytest.mark.parametrize("name", mixture.KINDS)
def test_shares_sum_to_one_every_component_is_somewhere_and_the_dose_is_kept(name):
    spec = replace(mixture.kind(name, 2), **SMALL)
    mixed = mixture.mix(spec)
    np.testing.assert_allclose(mixed.fraction.sum(axis=-1), 1, atol=1e-5)
    assert set(mixed.fraction.argmax(axis=-1).ravel()) == set(range(spec.components))
    assert mixed.counts.mean(axis=(0, 1)).sum() == pytest.approx(spec.dose, rel=0.02)
    np.testing.assert_allclose(mixed.pattern.sum(axis=(1, 2)), spec.dose, rtol=1e-3)


def test_counts_are_those_of_the_shares_of_the_patterns():
    spec = mixture.Mixture("overlap", components=3, dose=1e4, seed=4, **SMALL)
    mixed = mixture.mix(spec)
    expected = np.tensordot(mixed.fraction, mixed.pattern, axes=1)
    y, x = np.mgrid[:32, :32] - 15.5
    outside = np.hypot(y, x) > 4
    found, told = (p[..., outside].sum(axis=-1) for p in (mixed.counts, expected))
    assert abs(found / told - 1).max() < mixture.SWELL  # thickness, slow over the scan, and noise
    wanted, got = expected[..., outside], mixed.counts[..., outside]
    cosine = (wanted * got).sum(axis=-1) / np.linalg.norm(wanted, axis=-1) / np.linalg.norm(got, axis=-1)
    assert cosine.min() > 0.95


def test_half_of_an_overlapping_scan_holds_two_crystals_in_nearly_equal_shares():
    mixed = mixture.mix(replace(mixture.kind("overlap", 3), **SMALL))
    shares = np.sort(mixed.fraction, axis=-1)
    assert 0.35 < (shares[..., -2] > 0.75 * shares[..., -1]).mean() < 0.65


def test_a_bent_crystal_changes_along_it_and_a_plain_one_does_not():
    rng = np.random.default_rng(0)
    spec = mixture.Mixture(**SMALL)
    bent, plain = (mixture._crystal(rng, spec, way) for way in (True, False))
    assert (len(bent), len(plain)) == (mixture.BENDS, 1)
    first, last = bent[0].ravel(), bent[-1].ravel()
    assert 0.5 < first @ last / np.linalg.norm(first) / np.linalg.norm(last) < 0.98


def test_a_seed_gives_the_same_bits_and_kinds_of_one_seed_share_no_crystal():
    one, two = (mixture.mix(mixture.Mixture(components=2, **SMALL)) for _ in range(2))
    np.testing.assert_array_equal(one.counts, two.counts)
    other = mixture.mix(mixture.Mixture(components=3, **SMALL))
    assert not np.allclose(one.pattern[0], other.pattern[0])


def test_areas_are_as_unequal_as_asked_for():
    mixed = mixture.mix(mixture.kind("unequal", 3))
    areas = np.bincount(mixed.fraction.argmax(axis=-1).ravel())
    assert 5 < areas.max() / areas.min() < 45
