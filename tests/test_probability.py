"""The probability of being right: recovery on patterns it was not fitted to, and what it must not depend on."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from orientations import gold, iron
from test_orientation import OPTICS, SIZE

from fourdstem.cube import Cube
from fourdstem.methods import evaluation, orientation, simulate
from fourdstem.methods.orientation import base_rate, evidence, logistic
from fourdstem.methods.orientation import probability as method
from fourdstem.methods.simulate import rehearsal

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


def patch_members(result, truth):
    flat = np.arange(result.phase.size).reshape(-1, 1)
    others = flat // simulate.PATCH * simulate.PATCH + (flat + np.arange(1, simulate.PATCH)) % simulate.PATCH
    others = np.where(others < result.phase.size, others, -1)
    return orientation.Averages(others.reshape(*result.phase.shape, -1), truth.number)


@pytest.fixture(scope="module", params=[(17.0, 1), (0.0, 1), (17.0, 2)], ids=["precession", "none", "two phases"])
def case(request):
    """A calibration, and other patterns of other orientations that play the scan."""
    precession, phases = request.param
    crystals = [gold(), iron()][:phases]
    cube, _ = simulate.recorded(replace(FILM, precession_mrad=precession), [gold()])
    other, truth = played(crystals, cube, 1)
    fitted, known = played(crystals, cube, 0)
    picked = patch_members(other, truth)
    heard = method.said_in_scan(other, crystals, picked)
    calibration = method.calibrate(heard, fitted, known, simulate.PATCH, crystals, MATCHER, picked)
    return SimpleNamespace(
        crystals=crystals, cube=cube, fitted=fitted, known=known, other=other, truth=truth, picked=picked,
        heard=heard, calibration=calibration, outcome=method.right(other, truth, crystals),
    )  # fmt: skip


def scored(case, calibration):
    found = method.probability(case.other, case.heard, calibration, case.crystals, case.cube, MATCHER, case.picked)
    known = np.isfinite(found)
    return logistic.scores(found[known], case.outcome[known])


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
        share=case.known.share, number=case.known.number, cube=case.cube,
    )  # fmt: skip
    wrong = ~method.right(case.fitted, case.known, case.crystals)
    turned = truth.orientation.copy()
    turned[wrong] = 0.5
    truth = SimpleNamespace(**{**vars(truth), "orientation": turned})
    mixed = method.calibrate(case.heard, shuffled, truth, simulate.PATCH, case.crystals, MATCHER, case.picked)
    good = logistic.scores(case.calibration.predicted, case.calibration.right)
    assert mixed is None or logistic.scores(mixed.predicted, mixed.right)["auc"] < good["auc"] - 0.15


def test_shuffled_probabilities_fail_the_scores(case):
    told = logistic.scores(case.calibration.predicted, case.calibration.right)
    mixed = np.random.default_rng(0).permutation(case.calibration.predicted)
    assert abs(logistic.scores(mixed, case.calibration.right)["auc"] - 0.5) < 0.08
    assert logistic.scores(mixed, case.calibration.right)["brier"] > told["brier_of_base_rate"] > told["brier"]


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
    for name, value in logistic.scores(found, outcome).items():
        assert rows["corrected", "all", f"probability_{name}"] == pytest.approx(value)


def test_a_rehearsal_that_tells_nothing_gives_no_probability(scan):
    rehearsed, truth = scan.rehearsed
    perfect = SimpleNamespace(
        orientation=rehearsed.candidate_orientation[..., 0, :], phase=rehearsed.candidate_phase[..., 0],
        share=truth.share, number=truth.number, cube=scan.cube,
    )  # fmt: skip
    result = orientation.with_probability(scan.result, rehearsed, perfect, simulate.PATCH, [gold()], MATCHER)
    assert np.isnan(result.probability).all()
    assert result.calibration_right is None
    np.testing.assert_array_equal(result.phase, scan.result.phase)


# ---- closed forms --------------------------------------------------------------------------------------------


def test_scores_by_hand():
    told = logistic.scores(np.array([0.05, 0.05, 0.95, 0.95]), np.array([False, True, True, True]))
    assert told["ece"] == pytest.approx((2 * 0.45 + 2 * 0.05) / 4)
    assert told["auc"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert told["brier"] == pytest.approx((0.05**2 * 3 + 0.95**2) / 4)
    assert told["brier_of_base_rate"] == pytest.approx(0.75 * 0.25)


def test_a_constant_probability_is_calibrated_and_worthless():
    outcome = np.arange(100) < 30
    told = logistic.scores(np.full(100, 0.3), outcome)
    assert told["ece"] == pytest.approx(0)
    assert told["auc"] == pytest.approx(0.5)
    assert told["brier"] == pytest.approx(told["brier_of_base_rate"])


def test_the_fit_finds_the_coefficients_that_made_the_outcomes():
    rng = np.random.default_rng(0)
    terms = np.column_stack([np.ones(20000), rng.normal(size=(20000, 2))])
    outcome = rng.random(20000) < 1 / (1 + np.exp(-terms @ [0.5, 2.0, -1.0]))
    np.testing.assert_allclose(logistic.fit(terms, outcome, np.zeros(3)), [0.5, 2.0, -1.0], atol=0.1)


def test_squares_and_products_are_used_only_where_they_predict_other_groups():
    rng = np.random.default_rng(1)
    z, group = rng.normal(size=(2000, 3)), np.arange(2000) // 9
    plain, curved = z[:, 0], 2 * z[:, 1] * z[:, 2]
    size = []
    for logit in (plain, curved):
        outcome = rng.random(2000) < logistic.logistic(logit)
        coefficient, predicted = logistic.fitted(z, outcome, group, np.random.default_rng(2))
        assert logistic.scores(predicted, outcome)["ece"] < 0.06
        assert logistic.scores(predicted, outcome)["auc"] > 0.7
        size.append(np.abs(coefficient[4:]).max())
    assert size[0] < 0.15
    assert size[1] > 1


def test_members_are_picked_evenly_along_the_weights():
    member = np.array([[[0, 1, 2, 3, -1]]])
    weight = np.array([[[9.0, 6.0, 1.0, 1.0, 5.0]]])  # 0 is the position itself, -1 is none
    picked = evidence.pick(member, weight)
    assert picked[0, 0].tolist() == [1, 1, 1, 1, 1, 1, 2, 3]
    assert (evidence.pick(member[..., :1], weight[..., :1]) == -1).all()


def test_agreement_is_that_of_neighbours_with_a_candidate():
    turned = np.array([[1.0, 0, 0, 0], [np.cos(0.2), 0, 0, np.sin(0.2)]])
    best = turned[np.array([[0, 0, 1], [0, 0, 1]])]
    phase = np.array([[0, 0, 0], [0, 0, -1]])
    result = SimpleNamespace(
        phase=phase, candidate_phase=phase[..., None], candidate_orientation=best[..., None, :],
        candidate_correlation=np.ones((2, 3, 1)),
    )  # fmt: skip
    found = evidence.mean_of(method.said_in_scan(result, [gold()]).alike, result.phase.shape)
    assert found[0, 0] == 1
    assert found[0, 1] == pytest.approx(3 / 4)
    assert np.isnan(found[1, 2])


def test_others_that_have_the_orientation_among_their_candidates_prefer_it_by_so_much():
    turned = np.array([[1.0, 0, 0, 0], [np.cos(0.2), 0, 0, np.sin(0.2)], [np.cos(0.1), 0, np.sin(0.1), 0]])
    phase = np.zeros((1, 3, 2), int)
    best = turned[np.array([[[0, 1], [1, 0], [2, 1]]])]
    score = np.array([[[0.9, 0.8], [0.7, 0.6], [0.5, 0.3]]])
    result = SimpleNamespace(candidate_phase=phase, candidate_orientation=best, candidate_correlation=score)
    told = evidence.said(result, np.array([[1, 2, -1], [0, 2, -1], [-1, -1, -1]]), [gold()])
    np.testing.assert_array_equal(told.alike, [[0, 0, np.nan], [0, 0, np.nan], [np.nan] * 3])
    np.testing.assert_allclose(told.preference, [[-0.1, -0.2, np.nan], [-0.1, -0.2, np.nan], [np.nan] * 3])
    np.testing.assert_allclose(told.foreign, [[-0.1, -0.2, np.nan], [-0.1, -0.2, np.nan], [np.nan] * 3])


def test_reflections_are_counted_with_the_relrods_of_the_settings():
    phase, best = np.zeros((1, 2, 1), int), np.array([[[[1.0, 0, 0, 0]], [[0.9, 0.3, 0.3, 0.1]]]])
    result = SimpleNamespace(candidate_phase=phase, candidate_orientation=best)
    pattern = SimpleNamespace(acquisition=OPTICS, detector_shape=(SIZE, SIZE))
    found = {
        rod: evidence.reflections(result, [gold()], pattern, replace(MATCHER, relrod=rod))
        for rod in ("lorentzian", "gaussian")
    }
    assert (found["gaussian"] < found["lorentzian"] - 0.2).all()  # no tails


# ---- the base rate of a scan ---------------------------------------------------------------------------------


def drawn(rate, count, seed=0):
    """Calibrated probabilities at a base rate of 0.5, of positions of which a share ``rate`` is right."""
    rng = np.random.default_rng(seed)
    outcome = rng.random(count) < rate
    return logistic.logistic(4 * (outcome - 0.5) + 2 * rng.normal(size=count)), outcome


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7, 0.9, 0.95])
def test_the_positions_of_a_scan_tell_its_base_rate(rate):
    predicted, outcome = drawn(rate, 20000)
    by = base_rate.shift(predicted, 0.5, 10**6)
    assert by == pytest.approx(np.log(rate / (1 - rate)), abs=0.15)
    moved = base_rate.shifted(predicted, by)
    assert logistic.scores(moved, outcome)["ece"] < 0.02
    assert logistic.scores(predicted, outcome)["ece"] > 0.04
    assert logistic.scores(moved, outcome)["auc"] == pytest.approx(logistic.scores(predicted, outcome)["auc"], abs=1e-6)


def test_a_scan_whose_mean_is_that_of_the_rehearsal_shifts_nothing():
    number, prior, seen = 1 / (base_rate.TOGETHER / 300 + 1 / 224), 1 / 8, set()
    for seed, rate in enumerate([0.4, 0.44, 0.48, 0.5, 0.5, 0.52, 0.56, 0.6]):
        predicted, _ = drawn(rate, 300, seed)
        excess = predicted.mean() - 0.5
        slope = number * abs(excess)  # of the likelihood
        by = base_rate.shift(predicted, 0.5, 224)
        # Between, less than a step of the grid.
        assert by == 0 if slope <= prior else by * excess > 0 or slope < 1.3 * prior
        seen.add("none" if slope <= prior else "some" if slope >= 1.3 * prior else "little")
    assert {"none", "some"} <= seen


def test_few_grains_are_not_believed_as_many_are():
    predicted, _ = drawn(0.2, 20000)
    few = base_rate.shift(predicted[:300], 0.5, 224)
    many = base_rate.shift(predicted, 0.5, 10**6)
    assert many < few <= 0


def test_probabilities_that_tell_nothing_shift_nothing():
    assert base_rate.shift(np.full(20000, 0.5), 0.5, 10**6) == 0.0
    assert base_rate.shift(np.empty(0), 0.5, 224) == 0.0


def test_the_shift_of_a_scan_is_in_its_probabilities(scan, monkeypatch):
    monkeypatch.setattr(base_rate, "shift", lambda *_: 1.5)
    moved = with_minimum(scan, 0.0)
    monkeypatch.undo()
    plain = with_minimum(scan, 0.0)
    assert moved.calibration_shift == 1.5
    before = base_rate.shifted(plain.probability.astype(float), -plain.calibration_shift)
    np.testing.assert_allclose(moved.probability, base_rate.shifted(before, 1.5), atol=1e-5)


def test_the_study_scores_every_base_rate_as_calibrated_and_as_shifted():
    films = []
    for seed in range(2):
        predicted, outcome = drawn(0.6, 4000, seed)
        films.append(evaluation.Judged(predicted, outcome, 0.4, 0.5, 10**6))
    rows = evaluation.study_rows({(60.0, "corrected"): films}, 0)
    table = {(r[3], r[2]): [float(v) for v in r[4:]] for r in rows[1:]}
    assert {kind for kind, _ in table} == {
        "found", "found, calibrated", "resampled, calibrated", "resampled, shift found", "resampled, shift known",
    }  # fmt: skip
    for rate in (0.1, 0.3, 0.7, 0.9, 0.95):
        calibrated, found, known = (
            table[f"resampled, {kind}", f"{rate:.3f}"][1] for kind in ("calibrated", "shift found", "shift known")
        )
        assert found < 0.05
        assert found < calibrated
        assert known < calibrated
    told = logistic.scores(*(np.concatenate(v) for v in zip(*[(f.probability, f.outcome) for f in films], strict=True)))
    row = next(r for r in rows if r[3] == "found")
    assert float(row[5]) == pytest.approx(told["ece"], abs=1e-3)


# ---- what is rehearsed ---------------------------------------------------------------------------------------


def test_zone_axes_lie_more_evenly_than_random_ones():
    operations, cosine = gold().operations, np.cos(np.deg2rad(25))
    expected = 3 * (1 - cosine)  # of the sphere, within 25° of a cube axis
    seeds = [np.random.default_rng(seed) for seed in range(40)]
    even = [rehearsal._orientations(operations, 200, rng) for rng in seeds]
    shares = [(np.abs(m[:, :, 2]).max(axis=1) > cosine).mean() for m in even]
    assert np.mean(shares) == pytest.approx(expected, abs=0.01)
    assert np.std(shares) < 0.6 * np.sqrt(expected * (1 - expected) / 200)
    for matrices in even[:3]:
        np.testing.assert_allclose(matrices @ np.swapaxes(matrices, 1, 2), np.eye(3)[None].repeat(200, 0), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(matrices), 1)
        assert abs(matrices[:, 2, 2].mean()) < 0.15  # no half of the sphere is preferred


def test_averages_are_rehearsed_with_the_part_that_other_grains_have_in_them(case):
    shape = case.cube.scan_shape
    flat = np.arange(np.prod(shape)).reshape(shape)
    member = np.stack([flat, np.roll(flat, 1, axis=1)], axis=-1)
    others = np.roll(flat, 1, axis=1)[..., None].repeat(8, axis=-1)
    foreign = np.where(flat % 4 == 0, 0.7, 0.0)
    foreign[0] = np.nan
    about = {"member": member, "weight": np.ones(member.shape), "others": others}
    known = simulate.conditions(case.cube, 0, **about, foreign=foreign)
    truth = simulate.rehearse(case.crystals, known, PATTERNS, 200.0, None, 0)
    without = simulate.rehearse(case.crystals, simulate.conditions(case.cube, 0, **about), PATTERNS, 200.0, None, 0)
    assert (truth.share >= 0.7).mean() == pytest.approx((known.foreign >= 0.7).mean(), abs=0.12)
    assert truth.share.mean() - without.share.mean() == pytest.approx(known.foreign.mean(), abs=0.06)
    np.testing.assert_allclose(truth.number, 2)
    far = np.unravel_index(np.flatnonzero(truth.share >= 0.7)[0], truth.share.shape)
    one, other = truth[far[0], slice(far[1], far[1] + 1)], without[far[0], slice(far[1], far[1] + 1)]
    assert np.abs(one - other).sum() > 0.2 * other.sum()
