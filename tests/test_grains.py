"""Grains, local misorientation and clean-up on maps whose answers are known."""

import dataclasses

import numpy as np
import orientations as make
import pytest
from scipy import ndimage

from fourdstem import rotations
from fourdstem.methods import grains

PARAMS = grains.Params()
STEP = (20.0, 10.0)  # Å
CRYSTALS = {"m-3m": make.gold(), "6/mmm": make.magnesium(), "-1": make.random_lattice(3)}


def compute(found, crystals, source="corrected", made_of=None, **settings):
    params = dataclasses.replace(PARAMS, **settings)
    return grains.compute(found, crystals, params, source=source, scan_step=STEP, made_of=made_of)


def equivalents(orientation, crystal, rng):
    """The same orientations, each by a random one of its equivalents and either sign."""
    operations = rotations.from_matrix(crystal.operations)
    chosen = operations[rng.integers(len(operations), size=orientation.shape[:-1])]
    return rng.choice([-1, 1], orientation.shape[:-1])[..., None] * rotations.multiply(chosen, orientation)


# ---- grains --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("laue", CRYSTALS)
def test_grains_are_found_whatever_equivalent_the_index_gave(laue):
    crystal, rng = CRYSTALS[laue], np.random.default_rng(1)
    truth = make.voronoi((40, 30), 6, rng)
    own = rotations.random_orientations(6, rng)
    result = compute(make.indexed(equivalents(own[truth], crystal, rng)), [crystal])
    assert len(result.grain_size_px) == 6
    pairs = set(zip(result.grain.ravel().tolist(), truth.ravel().tolist(), strict=True))
    assert len(pairs) == 6
    for found, known in pairs:
        away = rotations.misorientation_deg(result.grain_orientation[found], own[known], crystal)
        assert away < 1e-4
        assert result.grain_size_px[found] == (truth == known).sum()
        np.testing.assert_allclose(result.grain_centroid_px[found], np.argwhere(truth == known).mean(0), rtol=1e-5)
    np.testing.assert_allclose(result.grain_area_nm2, result.grain_size_px * 2.0)
    np.testing.assert_allclose(np.pi / 4 * result.grain_diameter_nm**2, result.grain_area_nm2, rtol=1e-5)
    rim = set(np.concatenate([g.ravel() for g in (result.grain[[0, -1]], result.grain[:, [0, -1]])]).tolist())
    assert {k for k in range(6) if result.grain_on_edge[k]} == rim


def test_grains_are_numbered_in_scan_order():
    rng = np.random.default_rng(2)
    truth = make.voronoi((20, 20), 5, rng)
    result = compute(make.indexed(rotations.random_orientations(5, rng)[truth]), [make.gold()])
    assert np.unique(result.grain.ravel(), return_index=True)[1].tolist() == sorted(
        np.unique(result.grain.ravel(), return_index=True)[1].tolist()
    )


@pytest.mark.parametrize("laue", CRYSTALS)
def test_the_mean_of_scattered_equivalents_is_the_true_orientation(laue):
    crystal, rng = CRYSTALS[laue], np.random.default_rng(3)
    true = rotations.random_orientations(1, rng)[0]
    scatter = make.vectors(rng.normal(0, 1.0, (30, 30, 3)))
    found = equivalents(rotations.multiply(true, scatter), crystal, rng)
    result = compute(make.indexed(found), [crystal], threshold_deg=20.0)
    assert len(result.grain_size_px) == 1
    assert rotations.misorientation_deg(result.grain_orientation[0], true, crystal) < 4 * np.sqrt(3) / 30
    # The length of a normal vector of three components is 2 sqrt(2/pi) sigma on average.
    assert result.grain_spread_deg[0] == pytest.approx(np.sqrt(8 / np.pi), rel=0.03)
    expected = rotations.misorientation_deg(found, result.grain_orientation[0], crystal)
    np.testing.assert_allclose(result.grod_deg, expected, atol=1e-3)
    assert np.nanmax(rotations.misorientation_deg(result.orientation_mean, true, crystal)) < 0.2


def test_small_regions_and_weak_positions_belong_to_no_grain():
    orientation = np.broadcast_to([1.0, 0, 0, 0], (8, 8, 4)).copy()
    orientation[2, 2:5] = make.about([1, 2, 3], 30)
    phase, reliability = np.zeros((8, 8), int), np.full((8, 8), 50.0)
    phase[6, 6], reliability[0, 0] = -1, 3.0
    reliability[0, 1] = np.nan
    found = make.indexed(orientation, phase, reliability=reliability)
    result = compute(found, [make.gold()], minimum_reliability=10.0)
    assert (result.grain[2, 2:5] == -1).all() and len(set(result.segment[2, 2:5])) == 1
    assert result.segment[2, 2] > 0 and result.grain[6, 6] == result.segment[6, 6] == -1
    assert result.grain[0, 0] == -1 and result.grain[0, 1] == 0
    assert result.grain_size_px.tolist() == [64 - 3 - 2]
    assert len(compute(found, [make.gold()], minimum_px=3).grain_size_px) == 2


def test_phases_are_never_one_grain():
    phase = np.zeros((6, 6), int)
    phase[:, 3:] = 1
    result = compute(make.indexed(np.broadcast_to([1.0, 0, 0, 0], (6, 6, 4)), phase), [make.gold(), make.iron()])
    np.testing.assert_array_equal(result.grain, phase)
    assert result.grain_phase.tolist() == [0, 1]
    assert [row[1] for row in grains.grain_rows(result)] == ["gold", "iron"]
    assert np.isnan(result.boundary_angle_deg).all() and len(result.boundary_angle_deg) == 6
    assert result.class_name[result.boundary_class[0]] == "phase boundary"


def test_the_aspect_ratio_of_a_rectangle_is_that_of_its_sides():
    orientation = np.broadcast_to([1.0, 0, 0, 0], (6, 12, 4))
    result = compute(make.indexed(orientation), [make.gold()])
    assert result.grain_aspect_ratio[0] == pytest.approx(1.0)  # 6 × 20 Å by 12 × 10 Å
    square = compute(make.indexed(orientation[:, :6]), [make.gold()])
    assert square.grain_aspect_ratio[0] == pytest.approx(2.0)


def test_nothing_indexed_gives_no_grain_and_no_number():
    phase = np.full((5, 7), -1)
    result = compute(make.indexed(np.zeros((5, 7, 4)), phase), [make.gold()])
    assert (result.grain == -1).all() and len(result.grain_size_px) == 0 and grains.grain_rows(result) == []
    assert np.isnan(result.kam_deg).all() and np.isnan(result.texture_index).all() and not result.changed.any()
    assert result.class_segments.sum() == 0


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_a_scan_of_one_line_has_grains(shape):
    result = compute(make.indexed(np.broadcast_to([1.0, 0, 0, 0], (*shape, 4))), [make.gold()], minimum_px=1)
    assert result.grain_size_px.tolist() == [shape[0] * shape[1]]
    assert np.isnan(result.kam_deg).all()  # what does not vary does not rise above the floor


# ---- local misorientation ------------------------------------------------------------------------------------


def gradient(shape, per_y, per_x, axis=(1, 1, 2)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return make.about(axis, per_y * y + per_x * x)


def test_the_kernel_average_of_a_linear_gradient_is_its_closed_form():
    result = compute(make.indexed(gradient((9, 11), 0.2, 0.5)), [make.gold()])
    kam = result.kam_measured_deg
    np.testing.assert_allclose(kam[1:-1, 1:-1], (0.2 + 0.5) / 2, rtol=1e-3)
    np.testing.assert_allclose(kam[0, 1:-1], (0.2 + 2 * 0.5) / 3, rtol=1e-3)
    np.testing.assert_allclose(kam[1:-1, -1], (2 * 0.2 + 0.5) / 3, rtol=1e-3)
    np.testing.assert_allclose(kam[0, 0], (0.2 + 0.5) / 2, rtol=1e-3)
    np.testing.assert_allclose(result.kam_deg, kam)  # no noise: everything stands


def test_misorientation_from_the_mean_of_a_linear_gradient_is_its_closed_form():
    result = compute(make.indexed(gradient((4, 21), 0.0, 0.5)), [make.gold()])
    np.testing.assert_allclose(result.grod_deg, np.broadcast_to(0.5 * np.abs(np.arange(21) - 10), (4, 21)), atol=2e-3)
    assert result.grain_spread_deg[0] == pytest.approx(0.5 * 110 / 21, rel=1e-3)


def test_a_jump_beyond_the_threshold_is_no_part_of_the_kernel_average():
    orientation = gradient((6, 10), 0.0, 0.4)
    orientation[2:, 5:] = gradient((4, 5), 0.0, 0.4)  # meets the rest without a jump at the left end only
    orientation[2:, 5:] = rotations.multiply(make.about([0, 0, 1], 20), orientation[2:, 5:])
    result = compute(make.indexed(orientation), [make.gold()])
    np.testing.assert_allclose(
        result.kam_measured_deg[4, 5:], 0.4 / np.array([3, 2, 2, 2, 3]) * [1, 1, 1, 1, 1], rtol=1e-2
    )


def noisy(shape, sigma, rng, crystal, base=None):
    """A grain with independent noise of a standard deviation per lab axis."""
    true = rotations.random_orientations(1, rng)[0] if base is None else base
    noise = make.vectors(rng.normal(size=(*shape, 3)) * sigma)
    return equivalents(rotations.multiply(true, noise), crystal, rng)


@pytest.mark.parametrize("sigma", [(0.4, 0.4, 0.4), (0.6, 0.6, 0.1)])
def test_noise_alone_rises_above_the_floor_at_some_six_percent_of_the_positions(sigma):
    crystal, rng = make.gold(), np.random.default_rng(4)
    result = compute(make.indexed(noisy((60, 60), np.array(sigma), rng, crystal)), [crystal])
    assert len(result.grain_size_px) == 1
    assert np.isfinite(result.kam_deg).mean() == pytest.approx(0.06, abs=0.02)
    # Independent: the same by drawing from the known noise.
    drawn = rng.normal(size=(200000, 2, 3)) * sigma
    expected = np.linalg.norm(drawn[:, 0] - drawn[:, 1], axis=1).mean()
    assert result.kam_measured_deg.mean() == pytest.approx(expected, rel=0.03)
    assert expected < result.kam_floor_deg[1:-1, 1:-1].mean() < 2 * expected


def test_a_gradient_does_not_raise_the_floor_and_stands_above_it():
    crystal, rng = make.gold(), np.random.default_rng(5)
    sigma, base = np.array([0.1, 0.1, 0.1]), rotations.random_orientations(1, rng)[0]
    flat = noisy((40, 40), sigma, np.random.default_rng(6), crystal, base)
    bent = noisy((40, 40), sigma, np.random.default_rng(6), crystal, gradient((40, 40), 0.6, 0.6))
    flat, bent = (compute(make.indexed(q), [crystal]) for q in (flat, bent))
    assert bent.kam_floor_deg.mean() == pytest.approx(flat.kam_floor_deg.mean(), rel=0.03)
    assert np.isfinite(bent.kam_deg).mean() > 0.95 > 0.1 > np.isfinite(flat.kam_deg).mean()


def test_the_floor_of_averaged_patterns_knows_that_neighbours_share_members():
    crystal, rng, shape = make.gold(), np.random.default_rng(7), (50, 50)
    noise = ndimage.uniform_filter(rng.normal(size=(*shape, 3)), (5, 5, 1), mode="nearest")
    y, x = np.mgrid[: shape[0], : shape[1]]
    offset = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 2, indexing="ij"), -1).reshape(-1, 2)
    member = (y[..., None] + offset[:, 0]).clip(0, 49) * 50 + (x[..., None] + offset[:, 1]).clip(0, 49)
    member = np.concatenate([member, np.full((*shape, 2), -1)], axis=-1)  # places that no member took
    weight = np.full(member.shape, 0.04)
    found = make.indexed(make.vectors(noise))
    aware = compute(found, [crystal], made_of=(member, weight))
    unaware = compute(found, [crystal])
    assert 0.02 < np.isfinite(aware.kam_deg).mean() < 0.08 < 0.15 < np.isfinite(unaware.kam_deg).mean()
    # Second differences of a running mean say less of its first differences than those of independent noise.
    assert unaware.kam_floor_deg.mean() < 0.9 * aware.kam_floor_deg.mean()


def test_the_floor_of_a_small_grain_is_that_of_its_phase():
    crystal, rng = make.gold(), np.random.default_rng(8)
    found = noisy((30, 30), np.array([0.3] * 3), rng, crystal)
    found[:2, :3] = rotations.multiply(found[:2, :3], make.about([1, 2, 3], 30))
    result = compute(make.indexed(found), [crystal])
    small, large = result.grain[0, 0], result.grain[9, 9]
    floor = result.kam_floor_deg
    assert np.nanmean(floor[result.grain == small]) > 0.9 * np.nanmean(floor[result.grain == large])


# ---- clean-up ------------------------------------------------------------------------------------------------


def test_clean_up_fills_holes_replaces_lone_orientations_and_says_so():
    crystal, rng = make.gold(), np.random.default_rng(9)
    truth = (np.arange(12)[None, :] >= 6).astype(int).repeat(10, axis=0)
    own = rotations.random_orientations(2, rng)
    orientation, phase = own[truth], np.zeros((10, 12), int)
    orientation[4, 2], orientation[0, 0] = rotations.random_orientations(2, rng)
    phase[7, 8:10] = -1
    phase[2, 6] = -1  # at the boundary, but with more neighbours on its own side
    found = make.indexed(orientation, phase)
    before = found.orientation.copy()
    result = compute(found, [crystal])
    np.testing.assert_array_equal(found.orientation, before)
    expected = np.zeros((10, 12), int)
    expected[phase < 0], expected[4, 2], expected[0, 0] = 1, 2, 2
    np.testing.assert_array_equal(result.changed, expected)
    np.testing.assert_array_equal(result.grain_clean, truth)
    np.testing.assert_allclose(result.orientation_clean, own[truth], atol=1e-6)
    assert (result.phase_clean == 0).all() and (result.grain[phase < 0] == -1).all()


def test_a_straight_edge_does_not_grow_into_what_is_empty():
    phase = np.full((9, 9), -1)
    phase[:, :4] = 0
    orientation = np.broadcast_to([1.0, 0, 0, 0], (9, 9, 4))
    assert not compute(make.indexed(orientation, phase), [make.gold()]).changed.any()
    assert compute(make.indexed(orientation, phase), [make.gold()], clean_neighbours=3).changed.any()


def test_a_filled_position_takes_the_neighbour_of_highest_correlation():
    correlation = np.random.default_rng(0).uniform(0.2, 0.8, (5, 5))
    correlation[1, 2] = 0.9
    phase = np.zeros((5, 5), int)
    phase[2, 2] = -1
    orientation = gradient((5, 5), 0.3, 0.7)
    result = compute(make.indexed(orientation, phase, correlation), [make.gold()])
    np.testing.assert_allclose(result.orientation_clean[2, 2], orientation[1, 2], atol=1e-6)


def test_large_holes_are_filled_round_by_round():
    phase = np.zeros((12, 12), int)
    phase[3:9, 3:9] = -1
    orientation = np.broadcast_to([1.0, 0, 0, 0], (12, 12, 4))
    whole = compute(make.indexed(orientation, phase), [make.gold()])
    assert (whole.changed == (phase < 0)).all()
    once = compute(make.indexed(orientation, phase), [make.gold()], clean_rounds=1).changed.astype(bool)
    assert 0 < once.sum() < 36 and not (once & (phase == 0)).any()
    assert not compute(make.indexed(orientation, phase), [make.gold()], clean_rounds=0).changed.any()
