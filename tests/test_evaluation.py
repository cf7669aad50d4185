"""The comparison with truth on maps made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from fourdstem import crystal
from fourdstem.methods import evaluation

PARAMS = evaluation.Params()
SHAPE = (6, 8)


@pytest.fixture(scope="module")
def gold():
    sites = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    return crystal.make_crystal("gold", (4.0782,) * 3 + (90,) * 3, ["Au"] * 4, sites)


def _turned(angle_deg):
    """Quaternions of turns about z by a map of angles."""
    half = np.deg2rad(np.broadcast_to(angle_deg, SHAPE)) / 2
    return np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=-1)


def _truth(**known):
    names = ("grain", "grain_fraction", "twin_grain", "bent", "reference", "centre_px")
    return SimpleNamespace(
        **{name: known.get(name) for name in names},
        orientation=known.get("orientation", _turned(0.0)),
        phase=known.get("phase", np.zeros(SHAPE, int)),
    )


def _indexed(angle_deg, phase=0, others=()):
    """A result whose candidates are the given turn (correlation 0.9) and (turn, correlation, phase) of others."""
    angle = np.broadcast_to(np.asarray(angle_deg, float), SHAPE)
    phase = np.where(np.isnan(angle), -1, phase)
    listed = [(angle, 0.9, phase), *others]
    return SimpleNamespace(
        orientation=_turned(angle),
        phase=phase,
        correlation=np.full(SHAPE, 0.9),
        probability=None,
        candidate_orientation=np.stack([_turned(a) for a, _, _ in listed], axis=2),
        candidate_correlation=np.stack([np.full(SHAPE, c) for _, c, _ in listed], axis=2),
        candidate_phase=np.stack([np.broadcast_to(p, SHAPE) for _, _, p in listed], axis=2),
    )


def _value(result, source, region, metric):
    found = [row for row in evaluation.rows(result) if row[:3] == (source, region, metric)]
    assert len(found) == 1, (source, region, metric)
    return found[0][3]


def test_shares_count_what_is_not_indexed_as_failure(gold):
    angle = np.full(SHAPE, 1.0)
    angle[0], angle[1], angle[2] = 3.0, 20.0, np.nan
    result = evaluation.compute(_truth(), {"corrected": _indexed(angle)}, [gold], PARAMS)
    assert _value(result, "corrected", "all", "indexed") == pytest.approx(5 / 6)
    assert _value(result, "corrected", "all", "within_2_deg") == pytest.approx(3 / 6)
    assert _value(result, "corrected", "all", "within_5_deg") == pytest.approx(4 / 6)
    assert _value(result, "corrected", "all", "median_misorientation") == pytest.approx(1.0, abs=1e-4)
    assert np.isnan(result.misorientation_deg[0, 2]).all()


def test_an_orientation_that_symmetry_makes_equal_is_right(gold):
    result = evaluation.compute(_truth(), {"corrected": _indexed(91.5)}, [gold], PARAMS)
    np.testing.assert_allclose(result.misorientation_deg[0], 1.5, atol=1e-4)


def test_the_wrong_phase_is_a_failure_though_the_orientation_fits(gold):
    result = evaluation.compute(_truth(), {"corrected": _indexed(0.0, phase=1)}, [gold, gold], PARAMS)
    assert _value(result, "corrected", "all", "indexed") == 1
    assert _value(result, "corrected", "all", "within_5_deg") == 0


def test_a_rival_that_fits_equally_well_makes_a_position_unidentifiable(gold):
    near, equal, worse, other = (2.0, 0.895, 0), (30.0, 0.895, 0), (30.0, 0.88, 0), (0.0, 0.895, 1)
    for rival, wanted in ((near, 1), (equal, 0), (worse, 1), (other, 0)):
        free = _indexed(0.5, others=[rival])
        result = evaluation.compute(_truth(), {"noise_free": free}, [gold, gold], PARAMS)
        assert (result.identifiable == wanted).all(), rival


def test_a_position_that_even_noise_free_patterns_miss_is_unidentifiable(gold):
    angle = np.full(SHAPE, 0.5)
    angle[:, :2], angle[0, 5] = 10.0, np.nan
    result = evaluation.compute(_truth(), {"noise_free": _indexed(angle)}, [gold], PARAMS)
    np.testing.assert_array_equal(result.identifiable, np.abs(np.nan_to_num(angle)) == 0.5)


def test_success_is_stated_relative_to_the_noise_free_rate(gold):
    free, raw = np.full(SHAPE, 1.0), np.full(SHAPE, 40.0)
    free[:, :4] = 2.5
    raw[:, 6:] = 0.0
    sources = {"corrected": _indexed(raw), "noise_free": _indexed(free)}
    result = evaluation.compute(_truth(), sources, [gold], PARAMS)
    assert _value(result, "corrected", "all", "identifiable_within_2_deg") == pytest.approx(0.25)
    assert _value(result, "corrected", "all", "identifiable_within_2_deg_of_noise_free") == pytest.approx(0.5)
    assert _value(result, "noise_free", "all", "identifiable") == 1


def test_boundary_and_interior_meet_at_the_stated_distance():
    grain = np.zeros(SHAPE, int)
    grain[:, 4:] = 3
    found = evaluation.regions(_truth(grain=grain), PARAMS)
    np.testing.assert_array_equal(found["boundary"][0], [0, 0, 1, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(found["interior"], ~found["boundary"])


def test_the_interior_of_the_bent_grain_keeps_its_distance_from_others():
    grain = np.zeros(SHAPE, int)
    grain[:, 4:] = 3
    found = evaluation.regions(_truth(grain=grain, bent=grain > 0, reference=grain == 0), PARAMS)
    np.testing.assert_array_equal(found["bent_interior"][0], [0, 0, 0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(found["reference_interior"][0], [1, 1, 0, 0, 0, 0, 0, 0])


def test_one_grain_has_no_boundary():
    found = evaluation.regions(_truth(grain=np.zeros(SHAPE, int)), PARAMS)
    assert found["interior"].all() and "boundary" not in found


def test_the_twin_region_holds_three_quarters_of_lamella():
    fraction = np.zeros((*SHAPE, 2))
    fraction[..., 1] = np.linspace(0, 1, 8)
    found = evaluation.regions(_truth(grain_fraction=fraction, twin_grain=1), PARAMS)
    np.testing.assert_array_equal(found["twin"], fraction[..., 1] >= 0.75)


def test_truth_that_knows_only_orientations_gives_one_region():
    assert list(evaluation.regions(_truth(), PARAMS)) == ["all"]


def test_positions_without_known_truth_are_left_out(gold):
    phase = np.zeros(SHAPE, int)
    phase[0] = -1
    result = evaluation.compute(_truth(phase=phase), {"corrected": _indexed(1.0)}, [gold], PARAMS)
    assert _value(result, "corrected", "all", "positions") == 40


def test_centre_errors_are_distances(gold):
    centre = np.zeros((*SHAPE, 2))
    found = centre + [0.3, 0.4]
    found[0, 0] = np.nan
    result = evaluation.compute(_truth(centre_px=centre), {"corrected": _indexed(0.0)}, [gold], PARAMS, found)
    assert _value(result, "preprocess", "all", "centre_error_median") == pytest.approx(0.5)
    assert np.isnan(result.centre_error_px[0, 0])


@pytest.mark.parametrize(("member", "share"), [([0, 1, 6], 1 / 3), ([0, 1, -1], 0.0), ([6, 7, 4], 1.0)])
def test_own_weight_and_foreign_weight_are_what_the_table_of_members_says(gold, member, share):
    grain = np.zeros(SHAPE, int)
    grain[:, 4:] = 1
    made_of = np.broadcast_to(member, (*SHAPE, 3)), np.broadcast_to(np.float32([0.25, 0.25, 0.25]), (*SHAPE, 3))
    result = evaluation.compute(
        _truth(grain=grain), {"averaged": _indexed(0.0)}, [gold], PARAMS, made_of={"averaged": made_of}
    )
    np.testing.assert_allclose(result.foreign_weight[:, :4], share, atol=1e-6)
    np.testing.assert_allclose(result.foreign_weight[:, 4:], 1 - share, atol=1e-6)
    assert _value(result, "averaged", "all", "own_weight") == pytest.approx(0.5)
    assert _value(result, "averaged", "all", "effective_number") == pytest.approx(3)


def test_only_the_configured_average_has_a_map_of_foreign_weight(gold):
    made_of = np.zeros((*SHAPE, 1), int), np.ones((*SHAPE, 1))
    sources = {"window_pattern": _indexed(0.0)}
    known = _truth(grain=np.zeros(SHAPE, int))
    result = evaluation.compute(known, sources, [gold], PARAMS, made_of={"window_pattern": made_of})
    assert result.foreign_weight is None
    assert _value(result, "window_pattern", "all", "own_weight") == 1
    unknown = evaluation.compute(_truth(), sources, [gold], PARAMS, made_of={"window_pattern": made_of})
    assert "own_weight" not in unknown.row_metric


def test_the_table_holds_means_over_regions_of_what_was_measured(gold):
    grain = np.zeros(SHAPE, int)
    grain[:, 4:] = 1
    ratio = np.full(SHAPE, 20.0)
    ratio[:, :2], ratio[0, 0] = 30.0, np.nan
    known = _truth(grain=grain)
    known.recorded_electrons, known.scattered_electrons = np.full(SHAPE, 90.0), np.full(SHAPE, 40.0)
    result = evaluation.compute(known, {"corrected": _indexed(0.0)}, [gold], PARAMS, psnr_db={"corrected": ratio})
    assert _value(result, "corrected", "boundary", "psnr") == 20
    assert _value(result, "corrected", "interior", "psnr") == pytest.approx((11 * 30 + 12 * 20) / 23)
    assert _value(result, "truth", "boundary", "scattered_electrons") == 40
    assert _value(result, "truth", "all", "recorded_electrons") == 90
