"""Frames and resampling against closed forms and plain loops."""

import numpy as np
import pytest

from fourdstem import geometry


def test_the_ellipse_stretches_its_long_axis_and_keeps_area():
    matrix = geometry.ellipse_matrix(1.21, 30)
    along = np.array([np.sin(np.pi / 6), np.cos(np.pi / 6)])
    np.testing.assert_allclose(matrix @ along, 1.1 * along)
    across = np.array([along[1], -along[0]])
    np.testing.assert_allclose(matrix @ across, across / 1.1)
    assert np.linalg.det(matrix) == pytest.approx(1)


def test_a_positive_angle_turns_x_towards_y():
    turned = geometry.rotation_matrix(90) @ np.array([0.0, 1.0])
    np.testing.assert_allclose(turned, [1, 0], atol=1e-12)


def test_flip_then_rotation_are_undone_in_the_right_order():
    recorded = geometry.corrected_to_recorded(1, 0, 90, True) @ np.array([0.0, 1.0])
    # Recorded +y, flipped to -y, turned by +90° onto +x: a corrected +x comes from a recorded +y.
    np.testing.assert_allclose(recorded, [1, 0], atol=1e-12)


def test_resampling_about_the_middle_changes_nothing():
    patterns = np.random.default_rng(0).random((2, 7, 9)).astype(np.float32)
    out = np.empty_like(patterns)
    geometry.resample(patterns, np.ones((7, 9), np.uint8), np.full((2, 2), [3.0, 4.0]), np.eye(2), out)
    assert np.array_equal(out, patterns)


def test_resampling_shifts_by_parts_of_a_pixel_and_keeps_counts():
    pattern = np.zeros((1, 11, 11), np.float32)
    pattern[0, 4:7, 4:7] = np.arange(9).reshape(3, 3)
    out = np.empty_like(pattern)
    geometry.resample(pattern, np.ones((11, 11), np.uint8), np.array([[5.25, 4.5]]), np.eye(2), out)
    y, x = np.indices((11, 11))
    for axis, shift in ((y, 0.25), (x, -0.5)):
        before, after = ((axis * p).sum() / p.sum() for p in (pattern[0], out[0]))
        assert after == pytest.approx(before - shift, abs=1e-5)
    assert out.sum() == pytest.approx(pattern.sum())
    assert out.min() >= 0


def test_the_compiled_kernels_do_what_their_python_does():
    rng = np.random.default_rng(1)
    patterns, usable = rng.random((2, 6, 7)).astype(np.float32), (rng.random((6, 7)) > 0.2).astype(np.uint8)
    centre, matrix = rng.normal(3, 0.5, (2, 2)), geometry.corrected_to_recorded(1.1, 20, 15, True)
    compiled, plain = np.empty_like(patterns), np.empty_like(patterns)
    geometry.resample(patterns, usable, centre, matrix, compiled)
    geometry.resample.py_func(patterns, usable, centre, matrix, plain)
    np.testing.assert_allclose(compiled, plain, atol=1e-6)
    assert np.array_equal(
        geometry.valid_everywhere(usable, centre, matrix), geometry.valid_everywhere.py_func(usable, centre, matrix)
    )


@pytest.mark.parametrize("seed", range(4))
def test_valid_pixels_are_those_that_every_position_fills(seed):
    rng = np.random.default_rng(seed)
    usable = (rng.random((23, 19)) > (0.02 if seed < 3 else 0.4)).astype(np.uint8)
    centre = rng.normal([11, 9], [2.5, 0.3], (5, 2))
    centre[2] = np.nan
    matrix = geometry.corrected_to_recorded(1.05, 40, 10 * seed, seed % 2 == 1)
    expected = np.ones(usable.shape, bool)
    for one in centre[[0, 1, 3, 4]]:
        out = np.empty((1, 23, 19), np.float32)
        geometry.resample(np.ones((1, 23, 19), np.float32), usable, one[None], matrix, out)
        expected &= out[0] > 0
    assert np.array_equal(geometry.valid_everywhere(usable, centre, matrix) > 0, expected)
    assert expected.any()


def test_a_bad_pixel_takes_the_mean_of_its_good_neighbours():
    patterns = np.arange(50, dtype=np.float32).reshape(2, 5, 5)
    truth = patterns.copy()
    bad = np.zeros((5, 5), bool)
    bad[2, 2] = bad[0, 4] = True
    patterns[:, 2, 2], patterns[:, 0, 4] = 9999, 7777
    geometry.repair(patterns, bad)
    np.testing.assert_allclose(patterns[:, 2, 2], truth[:, 2, 2])
    assert (patterns[:, 0, 4] == 7777).all()  # a corner has three neighbours: too few


def test_a_wall_of_bad_pixels_is_not_repairable():
    bad = np.zeros((9, 9), bool)
    bad[:, 3:6] = True
    assert not geometry.repairable(bad)[1:-1, 4].any()
    assert geometry.repairable(bad)[4, 3] == (3 >= 4)
