"""The comparison with truth on maps made by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from fourdstem import crystal
from fourdstem.cube import Correction, Cube, Unit
from fourdstem.methods import evaluation, simulate

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


@pytest.mark.parametrize("memory_mb", [2000.0, 0.01])
@pytest.mark.parametrize("half_width", [0, 1, 4])
def test_a_box_average_is_the_mean_of_the_corrected_patterns_around(half_width, memory_mb):
    rng = np.random.default_rng(2)
    counts = rng.poisson(5, (7, 40, 12, 10)).astype(np.uint16)
    centre = np.array([5.5, 4.5]) + rng.uniform(-1, 1, (7, 40, 2))
    cube = Cube(counts, correction=Correction(centre, np.eye(2), np.zeros((12, 10), bool)), memory_mb=memory_mb)
    corrected = np.stack([cube.read(Unit(y, 0, 40)) for y in range(7)]).astype(float)
    averaged = evaluation.box_average(cube, half_width)
    for unit, patterns in averaged.map_units(lambda patterns, unit: patterns.copy()):
        for i, x in enumerate(range(unit.x0, unit.x1)):
            near = np.s_[
                max(unit.y - half_width, 0) : unit.y + half_width + 1, max(x - half_width, 0) : x + half_width + 1
            ]
            np.testing.assert_allclose(patterns[i], corrected[near].mean(axis=(0, 1)), rtol=1e-5, atol=1e-5)


def test_noise_free_patterns_go_through_a_cube(gold):
    params = simulate.Params(scan_shape=(8, 9), detector_shape=(40, 44), detector_pixel_inv_angstrom=0.05, grains=5)
    data = simulate.expected(params, [gold])
    cube = evaluation.noise_free(Cube(data), data)
    [first] = [patterns for unit, patterns in cube.map_units(lambda patterns, unit: patterns) if unit.y == 3]
    np.testing.assert_array_equal(first[:9], data[3, 0:9])
    assert not first[9:].any()


def test_sources_of_box_averages_are_named_by_their_size():
    assert [evaluation.box_name(h) for h in PARAMS.box_half_widths_px] == ["box_3x3", "box_9x9"]
