"""Factorisations against known mixtures: closed forms of the scores, and rules that count clusters."""

import numpy as np
import pytest

from fourdstem.methods.evaluation import agreement, components, scan_rows, usual_ranks, weights_of


def test_the_adjusted_rand_index_is_one_for_the_same_partition_and_zero_for_chance():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 4000)
    assert components.adjusted_rand(labels, (labels + 1) % 4 - 7) == 1
    assert components.adjusted_rand(labels, rng.integers(0, 4, 4000)) == pytest.approx(0, abs=0.01)
    # the example of Hubert and Arabie's formula worked by hand: pairs 2, of 3 and 3, out of 15
    assert components.adjusted_rand([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]) == pytest.approx(
        (1 - 12 / 15) / (3.5 - 12 / 15)
    )


def test_f1_is_the_harmonic_mean_of_precision_and_recall():
    truth, found = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert components.f1(truth, found) == pytest.approx(2 / (1 / 0.5 + 1 / (1 / 3)))
    assert np.isnan(components.f1(np.zeros(3, bool), np.ones(3, bool)))


def test_labels_are_compared_with_the_partner_of_the_largest_share():
    fraction = np.array([[[0.9, 0.1], [0.55, 0.45], [0.2, 0.8]]])
    pattern = np.array([[1.0, 0, 0], [0, 1, 1]])
    told = agreement(np.array([[1, 1, -1]]), np.array([[0, 1, 0]]), pattern[::-1] * 5, fraction, pattern, 0.75)
    assert told.accuracy == pytest.approx(2 / 3)
    assert (told.overlap_f1, told.cosine_least) == (1, pytest.approx(1))
    alone = agreement(np.array([[0, 0, 0]]), np.zeros((1, 3)), pattern[:1], fraction, pattern, 0.75)
    assert (alone.cosine_least, alone.overlap_f1) == (0, 0)


def test_weights_by_the_true_patterns_are_the_electrons_of_each():
    pattern = np.array([[3.0, 1, 0], [0, 1, 1]])
    electrons = np.array([[8.0, 0], [4, 6], [0, 10]])
    mixed = electrons / pattern.sum(axis=1) @ pattern
    assert np.allclose(weights_of(mixed, pattern), electrons)
    assert weights_of(mixed - [0, 1, 1], pattern).tolist()[0][1] == 0  # less than nothing of the second


def test_usual_ways_count_clusters_that_are_far_apart():
    rng = np.random.default_rng(2)
    middles = 20 * rng.normal(size=(5, 30))
    patterns = middles[rng.integers(0, 5, 500)] + rng.normal(size=(500, 30))
    assert usual_ranks(patterns, 9) == {"PCA scree": 5, "silhouette": 5}


def test_rows_of_a_scan_hold_errors_of_ranks_and_what_is_known_of_the_agreement():
    told = components.Agreement(0.9, 0.8, float("nan"), 0.7, 0.75)
    rows = scan_rows("few", 4, {"a": 4, "b": 6}, {"a": told})
    assert rows[:2] == [("few", "a", "rank_error", "0"), ("few", "b", "rank_error", "2")]
    assert ("few", "a", "ari", "0.9000") in rows
    assert "overlap_f1" not in {row[2] for row in rows}
