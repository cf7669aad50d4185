"""How many components: against known truth, and what the reason says."""

from dataclasses import replace

import numpy as np
import pytest

from fourdstem.methods.nmf import curves, noise, rank
from fourdstem.methods.nmf.solvers import Factors
from fourdstem.methods.nmf.sweep import sweep
from fourdstem.methods.simulate import mixture

SMALL = {"scan_shape": (24, 24), "detector_shape": (32, 32), "radius_px": 1.4}


def scan(seed=1, **values):
    """Counts (n, pixel) outside the direct beam, where the pixels lie, and what was mixed."""
    spec = mixture.Mixture(seed=seed, **(SMALL | values))
    mixed = mixture.mix(spec)
    y, x = np.mgrid[:32, :32] - 15.5
    mask = np.hypot(y, x) > 1.5 * spec.radius_px + 1
    return mixed.counts[:, :, mask].reshape(-1, mask.sum()).astype(np.float32), mask, mixed


# ---- what stands above the noise -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 5])
def test_as_many_patterns_stand_above_the_noise_as_were_mixed(count):
    counts, _, _ = scan(components=max(count, 2), dose=400)
    if count == 1:
        counts = np.random.default_rng(0).poisson(np.outer(np.linspace(1, 2, 576), counts.mean(axis=0)))
    assert noise.visible(counts).patterns == count


def test_the_edge_is_exceeded_by_noise_in_one_scan_of_a_hundred_at_most():
    rng = np.random.default_rng(3)
    rates = np.outer(rng.uniform(0.2, 3, 150), rng.lognormal(0, 1, 80))
    found = [noise.visible(rng.poisson(rates)) for _ in range(60)]
    assert sum(one.patterns > 1 for one in found) <= 3
    second = [one.spectrum[1] for one in found]
    assert 0.93 < np.median(second) < 1  # the edge lies where the largest noise does


def test_counts_of_unknown_gain_are_told_by_the_middle_of_their_own_spectrum():
    counts, _, _ = scan(components=4)
    blind, told = noise.visible(7 * counts, None), noise.visible(counts)
    assert blind.dispersion == pytest.approx(7, rel=0.1)
    assert blind.patterns == told.patterns == 4
    assert noise.visible(7 * counts).patterns > 50  # taken for electrons, their noise looks like signal


@pytest.mark.parametrize(("count", "dose"), [(2, 1000), (3, 200), (6, 1000)])
def test_patterns_that_were_reduced_follow_no_law_of_noise_and_are_counted_until_they_level_off(count, dose):
    counts, _, _ = scan(components=count, dose=dose)
    assert noise.visible(counts, None).known
    basis = np.linalg.eigh(counts.T.astype(float) @ counts)[1][:, -20:].astype(np.float32)
    found = noise.visible(np.maximum(counts @ basis @ basis.T, 0), None)  # by 20 directions, most of them noise
    assert not found.known and found.dispersion == 0
    assert count <= found.patterns <= count + 3


def test_patterns_without_noise_are_counted_to_the_last():
    draw = np.random.default_rng(0)
    made = draw.random((400, 12)) * 0.6 ** np.arange(12) @ draw.random((12, 90))
    found = noise.visible(made, None)
    assert (found.patterns, found.known) == (12, False)


def test_empty_rows_and_columns_and_too_many_columns_do_not_disturb(monkeypatch):
    counts, _, _ = scan(components=3)
    holed = np.zeros((len(counts) + 5, counts.shape[1] + 9), np.float32)
    holed[5:, 9:] = counts
    plain = noise.visible(counts)
    np.testing.assert_allclose(noise.visible(holed).spectrum, plain.spectrum, rtol=1e-3)
    monkeypatch.setattr(noise, "MOST_COLUMNS", 400)
    assert noise.visible(counts).patterns == 3
    assert noise.visible(np.zeros((4, 4))).patterns == 0


# ---- curves --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def four():
    counts, mask, mixed = scan(components=4)
    fits = sweep(counts, range(2, 8), 2, tol=1e-5).fits
    return counts, mask, mixed, fits, curves.measure(counts, dict(reversed(fits.items())), counts, mask)


def test_the_loss_is_the_mean_of_what_is_left(four):
    counts, _, _, fits, found = four
    best = min(fits[4], key=lambda fit: fit.loss)
    assert found.loss[2] == pytest.approx(np.abs(counts - best.weight @ best.component).mean(), rel=1e-5)
    np.testing.assert_array_equal(found.rank, range(2, 8))


def test_at_the_true_rank_components_are_stable_and_distinct_and_beyond_they_are_not(four):
    found = four[-1]
    np.testing.assert_array_equal(found.distinct[:3], [2, 3, 4])
    assert found.distinct.max() == 4
    assert found.stability[2] > 0.99
    assert np.median(found.stability[3:]) < 0.9 and found.stability[3] < 0.9


def test_pieces_of_one_pattern_are_one_group_whatever_noise_does_to_their_means():
    rng = np.random.default_rng(0)
    patterns = rng.uniform(0, 1, (2, 300)) * (rng.uniform(size=(2, 300)) < 0.2)
    sums = np.stack([rng.poisson(4 * p) for p in patterns[[0, 0, 1, 1]]]).astype(float)
    plain = sums @ sums.T / np.outer(*[np.linalg.norm(sums, axis=1)] * 2)
    assert plain[0, 1] < curves.ALIKE  # what the correction for noise is for
    np.testing.assert_allclose(curves.alikeness(sums)[[0, 2], [1, 3]], 1, atol=0.12)
    group = curves.groups(sums, np.array([50, 50, 50, 2]))
    assert group[0] == group[1] != group[2]
    assert group[3] == -1, "a cluster of two positions does not count"


def test_labels_go_by_electrons_not_by_the_size_of_weights():
    fit = Factors(np.array([[1.0, 30.0], [0.0, 0.0]]), np.array([[60.0, 40], [1, 1]]), 0.0, 1, True)
    np.testing.assert_array_equal(curves.labels(fit), [0, -1])


def test_partners_make_the_largest_sum_and_one_may_be_left_over():
    value, partner = curves.matched(np.eye(3), np.array([[0, 2.0, 0], [3, 0, 0]]))
    np.testing.assert_array_equal(partner, [1, 0, -1])
    np.testing.assert_allclose(value, [1, 1, 0])


# ---- the choice ----------------------------------------------------------------------------------------------


def test_the_rank_is_right_where_the_noise_is_known(four):
    counts, *_, found = four
    choice = rank.choose(found, noise.visible(counts))
    assert choice.rank == 4
    assert "4 patterns stand above the shot noise, and all clusters of rank 4 are distinct" in choice.reason


def test_a_bent_crystal_counts_once():
    counts, mask, _ = scan(components=3, bent=2, bend=1.2, dose=3000)
    seen = noise.visible(counts)
    assert seen.patterns > 3
    fits = sweep(counts, range(2, 7), 2, tol=1e-5).fits
    choice = rank.choose(curves.measure(counts, fits, counts, mask), seen)
    assert choice.rank == 3
    assert "bent" in choice.reason


def test_the_reason_says_that_the_noise_is_not_known(four):
    *_, found = four
    choice = rank.choose(found, noise.Visible(6, np.ones(6), 0.0, known=False))
    assert choice.rank == 4  # the clusters of five and six are alike
    assert "the noise is not known, 6 patterns stand out" in choice.reason


def test_the_reason_says_when_the_range_is_too_narrow_or_the_rank_is_set(four):
    counts, *_, found = four
    seen = noise.visible(counts)
    first = curves.Curves(**{name: getattr(found, name)[:2] for name in curves.Curves.__dataclass_fields__})
    assert rank.choose(first, seen).rank == 3
    assert "a wider range may find more" in rank.choose(first, seen).reason
    assert "fewer than the smallest candidate" in rank.choose(found, replace(seen, patterns=1)).reason
    assert rank.choose(found, seen, fixed=6).rank == 6
    assert "set" in rank.choose(found, seen, fixed=6).reason


def test_the_knee_of_a_broken_line_is_where_it_breaks():
    assert rank.knee(np.arange(2, 12), np.maximum(10.0 - 2 * np.arange(10), 4 - 0.1 * np.arange(10))) == 5
    assert rank.knee(np.arange(2, 6), np.ones(4)) == 2


def test_published_measures_vote_within_the_window(four):
    found = four[-1]
    assert abs(rank.by_measures(found) - rank.choose(found, None, fixed=4).knee) <= rank.AROUND
    better = replace(found, stability=np.where(found.rank == 5, 1.0, 0.0))
    for name, sign in (("fidelity", 1), ("redundancy", -1), ("raw_match", 1)):
        values = np.where((found.rank == 5)[:, None], 1.0, 0.0) * sign * np.array([1, 1, -1, -1])
        better = replace(better, **{name: values})
    assert rank.by_measures(better) == 5
