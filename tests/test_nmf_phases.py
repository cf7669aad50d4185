"""Phases from components: on made-up weights, and on a real scan that others labelled."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from fourdstem.methods.nmf import curves, noise, rank
from fourdstem.methods.nmf.sweep import sweep

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import nmf_phases


def test_a_component_is_named_by_the_reference_it_is_most_like_whatever_its_size():
    reference = np.array([[1.0, 0, 0.2], [0, 1, 0.2]])
    index, cosine = nmf_phases.nearest(np.array([[0, 30, 8.0], [0.1, 0, 0]]), reference)
    np.testing.assert_array_equal(index, [1, 0])
    assert cosine[1] == pytest.approx(1 / np.hypot(1, 0.2))


def test_components_of_a_phase_are_added_up_and_dim_positions_are_of_none():
    component = np.array([[2.0, 0], [0, 2], [1, 1]])
    weight = np.array([[3, 3, 4], [0, 0, 5], [0, 0, 1.9], [0, 0, 4], [6, 0, 0], [0, 0, 0]])
    label = nmf_phases.phase_map(weight, component, [7, 7, 9])
    np.testing.assert_array_equal(label, [7, 9, -1, 9, 7, -1])
    np.testing.assert_array_equal(nmf_phases.phase_map(weight, component, [7, 7, 9], 0.2), [7, 9, 9, 9, 7, -1])


def test_the_phases_of_a_real_scan_are_found_and_neighbouring_settings_do_not_break_it():
    """A quarter of the positions of 256 × 256; `benchmarks/nmf_phases.py` does all of them, and the other half."""
    folder = os.environ.get("FOURDSTEM_TEST_DATA")
    if folder is None:
        pytest.skip("FOURDSTEM_TEST_DATA is not set")
    patterns, _, reference, truth = nmf_phases.load(Path(folder) / "sped_alculi", slice(0, 256), step=2)
    fits = sweep(patterns, (4, 6, 10), 1, tol=1e-5).fits
    told = curves.measure(patterns, fits)
    choice = rank.choose(told, noise.visible(patterns, None))
    assert choice.rank == 10 and "20 patterns stand out before the singular values level off" in choice.reason
    for k in (6, 10):
        for least in (0.3, 0.5):
            fit = fits[k][0]
            label = nmf_phases.phase_map(fit.weight, fit.component, nmf_phases.named(fit, reference), least)
            accuracy, macro, *recall = nmf_phases.scores(np.where(label < 0, 0, label), truth)
            assert accuracy >= 0.965
            assert macro >= 0.90
            assert min(recall) >= 0.80
    label = nmf_phases.phase_map(fit.weight, fit.component, nmf_phases.named(fit, reference), 0)
    naive = nmf_phases.scores(np.where(label < 0, 0, label), truth)[0]
    assert naive < 0.955  # what the bound on dim positions is for
