"""The probability of being right: recovery on patterns it was not fitted to, and what it must not depend on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from orientations import gold, iron

from fourdstem.cube import Cube
from fourdstem.methods import evaluation, orientation, simulate
from fourdstem.methods.orientation import probability as method

PATTERNS = 960
MATCHER = orientation.Params(sampling_deg=3.0, calibration_patterns=PATTERNS)
FILM = simulate.Params(
    seed=3, scan_shape=(12, 16), detector_shape=(64, 64), detector_pixel_inv_angstrom=0.04, grains=6,
    convergence_mrad=2.0, electrons_per_pattern=400, hot_pixels=3, dead_pixels=3,
)  # fmt: skip


def played(crystals, cube, seed, patterns=PATTERNS, threads=1, **averages):
    known = simulate.conditions(cube, 0, **averages)
    truth = simulate.rehearse(crystals, known, patterns, 200.0, None, seed, threads)
    return orientation.compute(truth.cube, crystals, MATCHER), truth


def patch_members(result):
    flat = np.arange(result.phase.size).reshape(-1, 1)
    others = flat // simulate.PATCH * simulate.PATCH + (flat + np.arange(1, simulate.PATCH)) % simulate.PATCH
    others = np.where(others < result.phase.size, others, -1)
    return others.reshape(*result.phase.shape, -1)


@pytest.fixture(scope="module", params=[(17.0, 1), (0.0, 1), (17.0, 2)], ids=["precession", "none", "two phases"])
def case(request):
    """A calibration, and other patterns of other orientations that play the scan."""
    precession, phases = request.param
    crystals = [gold(), iron()][:phases]
    cube, _ = simulate.recorded(replace(FILM, precession_mrad=precession), [gold()])
    other, truth = played(crystals, cube, 1)
    fitted, known = played(crystals, cube, 0)
    picked = patch_members(other)
    calibration = method.calibrate(other, fitted, known, simulate.PATCH, crystals, MATCHER, picked)
    return SimpleNamespace(
        crystals=crystals, cube=cube, fitted=fitted, known=known, other=other, truth=truth, picked=picked,
        calibration=calibration, outcome=method.right(other, truth, crystals),
    )  # fmt: skip


def scored(case, calibration):
    found = method.probability(case.other, calibration, case.crystals, case.cube, MATCHER, case.picked)
    known = np.isfinite(found)
    return method.scores(found[known], case.outcome[known])


def test_the_probability_holds_on_patterns_that_it_was_not_fitted_to(case):
    told = scored(case, case.calibration)
    assert 0.1 < case.outcome.mean() < 0.95
    assert told["ece"] < 0.12  # of 107 orientations; 0.03 to 0.05 is what 400 give
    assert told["auc"] > 0.8
    assert told["brier"] < 0.85 * told["brier_of_base_rate"]


def test_features_that_belong_to_other_patterns_tell_nothing(case):
    order = np.random.default_rng(0).permutation(case.fitted.phase.size)
    values = case.fitted.candidate_correlation
    shuffled = replace(
        case.fitted,
        candidate_correlation=values.reshape(len(order), -1)[order].reshape(values.shape),
        candidate_orientation=case.fitted.candidate_orientation.reshape(len(order), -1, 4)[order].reshape(
            case.fitted.candidate_orientation.shape
        ),
    )
    # What was right stays with its pattern; what is seen of it comes from another.
    truth = SimpleNamespace(
        orientation=case.fitted.candidate_orientation[..., 0, :], phase=case.fitted.candidate_phase[..., 0],
        share=case.known.share, cube=case.cube,
    )  # fmt: skip
    wrong = ~method.right(case.fitted, case.known, case.crystals)
    turned = truth.orientation.copy()
    turned[wrong] = 0.5
    truth = SimpleNamespace(**{**vars(truth), "orientation": turned})
    mixed = method.calibrate(case.other, shuffled, truth, simulate.PATCH, case.crystals, MATCHER, case.picked)
    good = method.scores(case.calibration.predicted, case.calibration.right)
    assert mixed is None or method.scores(mixed.predicted, mixed.right)["auc"] < good["auc"] - 0.15


def test_shuffled_probabilities_fail_the_scores(case):
    told = method.scores(case.calibration.predicted, case.calibration.right)
    mixed = np.random.default_rng(0).permutation(case.calibration.predicted)
    assert abs(method.scores(mixed, case.calibration.right)["auc"] - 0.5) < 0.08
    assert method.scores(mixed, case.calibration.right)["brier"] > told["brier_of_base_rate"] > told["brier"]


def test_patterns_do_not_depend_on_threads_or_on_how_they_are_sliced(case):
    known = simulate.conditions(case.cube, 0)
    one, two = (simulate.rehearse(case.crystals, known, 96, 200.0, None, 5, threads) for threads in (1, 2))
    whole = np.stack([one[y, slice(0, 32)] for y in range(one.shape[0])])
    parts = np.concatenate([two[1, slice(0, 7)], two[1, slice(7, 32)]])
    np.testing.assert_array_equal(whole[1], parts)
    results = [
        orientation.compute(
            Cube(whole, case.cube.acquisition, valid=case.cube.valid, threads=t), case.crystals, MATCHER
        )
        for t in (1, 2)
    ]
    lazy = orientation.compute(two.cube, case.crystals, MATCHER)
    for result in (results[1], lazy):
        np.testing.assert_array_equal(results[0].candidate_correlation, result.candidate_correlation)


def test_another_seed_gives_other_patterns(case):
    known = simulate.conditions(case.cube, 0)
    first, second = (simulate.rehearse(case.crystals, known, 32, 200.0, None, s)[0, slice(0, 2)] for s in (0, 1))
    assert not np.array_equal(first, second)


@pytest.fixture(scope="module")
def scan():
    """A film with a dark and a constant pattern, indexed, and rehearsed."""
    cube, truth = simulate.recorded(FILM, [gold()])
    cube.data[2, 3] = 0
    patterns = np.concatenate([cube.read(unit) for unit in cube.units()]).reshape(cube.shape)
    patterns[5, 6] = 7.0
    plain = evaluation.stored(cube, patterns)
    result = orientation.compute(plain, [gold()], MATCHER)
    return SimpleNamespace(cube=cube, truth=truth, result=result, rehearsed=played([gold()], cube, 0))


def with_minimum(scan, minimum):
    settings = replace(MATCHER, minimum_probability=minimum)
    return orientation.with_probability(scan.result, *scan.rehearsed, simulate.PATCH, [gold()], settings)


def test_dark_constant_and_unindexed_patterns_have_no_probability(scan):
    found = with_minimum(scan, 0.0).probability
    assert np.isnan(found[2, 3])
    assert np.isnan(found[5, 6])
    np.testing.assert_array_equal(np.isnan(found), scan.result.phase < 0)
    assert found.dtype == np.float32
    assert np.nanmin(found) >= 0
    assert np.nanmax(found) <= 1


def test_a_minimum_takes_positions_out_of_the_map_and_keeps_what_was_found(scan):
    free, strict = with_minimum(scan, 0.0), with_minimum(scan, 0.6)
    np.testing.assert_array_equal(free.phase, scan.result.phase)
    np.testing.assert_array_equal(free.orientation, scan.result.orientation)
    gone = (strict.phase < 0) & (free.phase >= 0)
    np.testing.assert_array_equal(gone, free.probability < 0.6)
    assert 0 < gone.sum() < gone.size
    assert np.isnan(strict.orientation[gone]).all()
    np.testing.assert_array_equal(strict.probability, free.probability)
    np.testing.assert_array_equal(strict.candidate_orientation, scan.result.candidate_orientation)


def test_what_is_kept_is_more_often_right(scan):
    found, outcome = evaluation.outcomes(scan.truth, with_minimum(scan, 0.0), [gold()])
    assert outcome[found >= 0.6].mean() > outcome[found < 0.6].mean() + 0.2


def test_the_evaluation_says_how_good_the_probability_is(scan):
    result = with_minimum(scan, 0.6)
    table = evaluation.compute(scan.truth, {"corrected": result}, [gold()], evaluation.Params())
    rows = {(s, r, m): v for s, r, m, v, _ in evaluation.rows(table)}
    found, outcome = evaluation.outcomes(scan.truth, result, [gold()])
    assert rows["corrected", "all", "probability_positions"] == len(found)
    assert rows["corrected", "all", "probability_base_rate"] == pytest.approx(outcome.mean())
    for name, value in method.scores(found, outcome).items():
        assert rows["corrected", "all", f"probability_{name}"] == pytest.approx(value)


def test_a_rehearsal_that_tells_nothing_gives_no_probability(scan):
    rehearsed, truth = scan.rehearsed
    perfect = SimpleNamespace(
        orientation=rehearsed.candidate_orientation[..., 0, :], phase=rehearsed.candidate_phase[..., 0],
        share=truth.share, cube=scan.cube,
    )  # fmt: skip
    result = orientation.with_probability(scan.result, rehearsed, perfect, simulate.PATCH, [gold()], MATCHER)
    assert np.isnan(result.probability).all()
    assert result.calibration_right is None
    np.testing.assert_array_equal(result.phase, scan.result.phase)


# ---- closed forms --------------------------------------------------------------------------------------------


def test_scores_by_hand():
    told = method.scores(np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True]))
    assert told["ece"] == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    assert told["auc"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert told["brier"] == pytest.approx((0.05**2 * 3 + 0.95**2) / 4)
    assert told["brier_of_base_rate"] == pytest.approx(0.75 * 0.25)


def test_a_constant_probability_is_calibrated_and_worthless():
    outcome = np.arange(100) < 30
    told = method.scores(np.full(100, 0.3), outcome)
    assert told["ece"] == pytest.approx(0)
    assert told["auc"] == pytest.approx(0.5)
    assert told["brier"] == pytest.approx(told["brier_of_base_rate"])


def test_the_fit_finds_the_coefficients_that_made_the_outcomes(monkeypatch):
    monkeypatch.setattr(method, "_RIDGE", 1e-6)
    rng = np.random.default_rng(0)
    terms = np.column_stack([np.ones(20000), rng.normal(size=(20000, 2))])
    outcome = rng.random(20000) < 1 / (1 + np.exp(-terms @ [0.5, 2.0, -1.0]))
    np.testing.assert_allclose(method.fit(terms, outcome), [0.5, 2.0, -1.0], atol=0.1)


def test_members_are_picked_evenly_along_the_weights():
    member = np.array([[[0, 1, 2, 3, -1]]])
    weight = np.array([[[9.0, 6.0, 1.0, 1.0, 5.0]]])  # 0 is the position itself, -1 is none
    picked = method.pick(member, weight)
    assert picked[0, 0].tolist() == [1, 1, 1, 1, 1, 1, 2, 3]
    assert (method.pick(member[..., :1], weight[..., :1]) == -1).all()


def test_agreement_is_that_of_neighbours_with_a_candidate():
    turned = np.array([[1.0, 0, 0, 0], [np.cos(0.2), 0, 0, np.sin(0.2)]])
    best = turned[np.array([[0, 0, 1], [0, 0, 1]])]
    phase = np.array([[0, 0, 0], [0, 0, -1]])
    result = SimpleNamespace(phase=phase, candidate_phase=phase[..., None], candidate_orientation=best[..., None, :])
    found = orientation.probability.agreement(result, [gold()])
    assert found[0, 0] == 1
    assert found[0, 1] == pytest.approx(3 / 4)
    assert np.isnan(found[1, 2])
