"""Phases: one merged map, how far the next phase is behind, and phases that nothing tells apart."""

import dataclasses
import logging

import numpy as np
import pytest
from test_crystal import build, expand
from test_orientation import COARSE, OPTICS, SIZE, cube_of, from_diffsims, random_orientations

from fourdstem import crystal as crystals
from fourdstem.cube import Cube
from fourdstem.methods import orientation as method
from fourdstem.methods.orientation import index, matching, phases

HEXAGONAL = "6/mmm"


def twin(laue, name, stretch=1.0):
    cell, symbols, positions = expand(laue)
    return crystals.make_crystal(name, (*(stretch * np.array(cell[:3])), *cell[3:]), symbols, positions)


@pytest.fixture(scope="module")
def truth():
    return random_orientations(24, 6)


@pytest.fixture(scope="module")
def scan(truth):
    """Left half gold, right half hexagonal titanium, two rows: (2, 12, SIZE, SIZE)."""
    half = truth.reshape(2, 12, 4)
    gold = from_diffsims("m-3m", half[:, :6].reshape(-1, 4)).reshape(2, 6, SIZE, SIZE)
    other = from_diffsims(HEXAGONAL, half[:, 6:].reshape(-1, 4)).reshape(2, 6, SIZE, SIZE)
    return np.concatenate([gold, other], axis=1)


@pytest.fixture(scope="module")
def both():
    return [build("m-3m"), build(HEXAGONAL)]


@pytest.fixture(scope="module")
def found(scan, both):
    return method.compute(Cube(scan, OPTICS), both, COARSE)


def test_two_phases_are_one_map_whose_phases_and_orientations_are_the_truth(found, truth, both):
    expected = np.repeat([[0] * 6 + [1] * 6], 2, axis=0)
    assert np.mean(found.phase == expected) >= 22 / 24
    right = 0
    for k, crystal in enumerate(both):
        here = (found.phase == expected) & (found.phase == k)
        right += np.sum(method.misorientation_deg(found.orientation[here], truth.reshape(2, 12, 4)[here], crystal) < 3)
    assert right >= 17
    sure = found.phase_reliability[found.phase == expected]
    assert np.median(sure) > 5
    assert found.phase_reliability.dtype == np.float32


def test_the_correlation_of_a_phase_is_that_of_a_map_of_this_phase_alone(found, scan, both):
    for k, crystal in enumerate(both):
        alone = method.compute(Cube(scan, OPTICS), [crystal], COARSE)
        # Not the same bits on any machine: a product of matrices may round otherwise where there are more templates.
        assert np.allclose(found.phase_correlation[..., k], alone.correlation, rtol=0, atol=1e-5)
        here = found.phase == k
        apart = method.misorientation_deg(found.orientation[here], alone.orientation[here], crystal)
        assert np.all(apart < 0.01)
        assert alone.phase_correlation is None
        assert alone.phase_reliability is None


def test_phase_reliability_is_the_distance_to_the_next_phase_even_where_all_candidates_are_of_one(found):
    one = (found.candidate_phase == found.candidate_phase[..., :1]).all(axis=2)
    assert one.any(), "no position of this scan has candidates of one phase alone"
    q = np.sort(found.phase_correlation, axis=2)
    assert np.allclose(found.phase_reliability, 100 * (1 - q[..., 0] / q[..., 1]), atol=1e-3)
    assert np.isfinite(found.phase_reliability[one]).all()
    assert np.all(found.candidate_correlation[..., 0] == q[..., 1])


def test_the_order_in_which_phases_are_named_does_not_matter(found, scan, both):
    turned = method.compute(Cube(scan, OPTICS), both[::-1], COARSE)
    assert np.array_equal(turned.phase, 1 - found.phase)
    assert np.allclose(turned.orientation, found.orientation, atol=1e-4)
    assert np.allclose(turned.phase_reliability, found.phase_reliability, atol=1e-2)


def test_two_copies_of_a_phase_are_told_and_have_no_phase_reliability(scan, caplog):
    copies = [twin("m-3m", "gold"), twin("m-3m", "also_gold")]
    with caplog.at_level(logging.WARNING, "fourdstem"):
        result = method.compute(Cube(scan[:, :6], OPTICS), copies, COARSE)
    assert np.all(np.abs(result.phase_reliability) < 1e-3)
    said = [r.getMessage() for r in caplog.records]
    assert any("gold and also_gold" in s and "100 % of 32 templates of gold within 1 %" in s for s in said)
    assert any("100 % of 12 patterns indexed as one of the two" in s for s in said)


def test_phases_that_differ_are_not_called_alike(scan, both, caplog):
    with caplog.at_level(logging.WARNING, "fourdstem"):
        method.compute(Cube(scan, OPTICS), both, COARSE)
    assert not [r for r in caplog.records if "alike" in r.getMessage()]


def test_a_lattice_smaller_by_a_thousandth_is_alike_and_one_smaller_by_a_tenth_is_not(scan):
    bank, optics, rings = bank_of(scan, [twin("m-3m", "gold"), twin("m-3m", "near", 0.999), twin("m-3m", "far", 0.9)])
    everything = [twin("m-3m", "gold"), twin("m-3m", "near", 0.999), twin("m-3m", "far", 0.9)]
    share = {pair[:2]: pair[2] for pair in phases.alike_templates(everything, bank, optics, rings, 2.5)}
    assert len(share) == 6
    assert min(share["gold", "near"], share["near", "gold"]) > 0.9
    assert max(share["gold", "far"], share["far", "gold"], share["near", "far"], share["far", "near"]) < 0.1


def bank_of(scan, everything):
    cube = Cube(scan, OPTICS)
    optics, rings = index._geometry(cube, everything, COARSE)
    _, valid = index.polar_map(rings, cube.detector_shape, cube.valid)
    return index.build_bank(everything, optics, rings, valid, 2.5, 0.25, 5.0, "cpu"), optics, rings


def test_a_phase_that_matches_nothing_counts_as_zero():
    assert phases.reliability(np.array([[[0.6, np.nan, 0.3], [np.nan, np.nan, np.nan]]])).tolist()[0][0] == 50.0
    assert np.isnan(phases.reliability(np.full((1, 1, 2), np.nan))).all()
    assert phases.reliability(np.array([[[0.6, np.nan]]]))[0, 0] == 100.0


def test_three_phases_are_merged_best_first():
    lists = []
    for k, scores in enumerate(([0.5, 0.2], [0.7, np.nan], [0.5, 0.4])):
        phase = np.where(np.isnan(scores), -1, k)[None]
        lists.append((np.full((1, 2, 4), float(k)), phase, np.array([scores])))
    quaternion, phase, score, best = phases.merged(lists, 4)
    assert phase.tolist() == [[1, 0, 2, 2]]  # of equals the first phase first
    assert score.tolist() == [[0.7, 0.5, 0.5, 0.4]]
    assert quaternion[0, :, 0].tolist() == [1, 0, 2, 2]
    assert best.tolist() == [[0.5, 0.7, 0.5]]


def test_threads_and_memory_do_not_change_the_map_of_two_phases(scan, both, found):
    again = method.compute(Cube(scan, OPTICS, threads=2, memory_mb=8), both, COARSE)
    for name in ("orientation", "phase", "phase_correlation", "phase_reliability"):
        assert np.array_equal(getattr(again, name), getattr(found, name), equal_nan=True)


@pytest.mark.parametrize("refine", [True, False])
def test_a_single_template_is_matched_and_told(scan, monkeypatch, caplog, refine):
    gold = build("m-3m")
    monkeypatch.setattr(matching, "reduced_directions", lambda operations, spacing: np.array([[0.0, 0.0, 1.0]]))
    with caplog.at_level(logging.WARNING, "fourdstem"):
        result = method.compute(
            cube_of(scan[0, :4]), [gold], dataclasses.replace(COARSE, refine=refine, minimum_correlation=0.0)
        )
    assert np.isfinite(result.correlation).all()
    assert any("1 template of m-3m" in r.getMessage() for r in caplog.records)
