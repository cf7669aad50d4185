"""Columns that share a peak: Gaussians drawn by hand, fitted together."""

import numpy as np
import pytest

from fourdstem.methods.template_mask import columns, overlaps
from fourdstem.methods.template_mask.sites import gaussians

STEP, SHAPE, WIDTH = np.array([0.28, 0.29]), (60, 62), 0.35
SITE = np.array([[6.0, 6.0], [6.4, 6.42], [12.0, 11.0], [0.1, 9.0], [0.3, 9.5]])  # Å; the last two at the edge
OTHER = np.array([[6.2, 7.4], [11.0, 11.3]])  # of another species


def picture(place, height=(1.0, 0.8, 1.0, 1.0, 1.0), other=0.6):
    """Columns at places in Å, a species beside them, a constant."""
    parts = [h * gaussians(p[None] / STEP, WIDTH, SHAPE, STEP) for h, p in zip(height, place, strict=True)]
    return 5.0 + sum(parts) + other * gaussians(OTHER / STEP, WIDTH, SHAPE, STEP)


def fitted(image, variance=1.0, site=SITE):
    everything = np.concatenate([site, OTHER]) / STEP
    place, sigma = overlaps.positions(image, variance, site / STEP, everything, STEP, 0.35, WIDTH)
    return place * STEP, sigma * STEP


def moved():
    return SITE + np.array([[0.08, -0.1], [0.08, -0.1], [0.1, 0.0], [0, 0], [0, 0]])


def test_columns_that_share_a_peak_are_found_where_they_are_and_their_neighbours_do_not_draw_them():
    place, _ = fitted(picture(moved()))
    np.testing.assert_allclose(place[:2], moved()[:2], atol=1e-3)
    alone, _ = columns.positions(picture(moved()), 1.0, SITE / STEP, STEP, 0.35)
    assert np.isnan(alone[:2]).any()
    assert np.nanmax(np.abs(alone[:2] * STEP - moved()[:2])) > 0.1
    np.testing.assert_array_equal(place[2], alone[2] * STEP)  # has a peak of its own


def test_their_stated_uncertainty_is_that_of_repeated_noise():
    rng, image, drawn = np.random.default_rng(4), picture(moved()), []
    for _ in range(150):
        drawn.append(fitted(image + 0.01 * rng.normal(size=SHAPE))[0][:2])
    _, sigma = fitted(image, 1e-4)
    np.testing.assert_allclose(np.std(drawn, axis=0), sigma[:2], rtol=0.25)
    assert sigma[:2].min() > 1.5 * sigma[2].max()  # two that share a peak are known less well than a lone one


def test_they_follow_no_template_unless_the_image_does():
    image, everything = picture(moved()), np.concatenate([SITE, OTHER]) / STEP
    still = overlaps.pull(image, image, SITE / STEP, everything, STEP, WIDTH, 0.2)
    assert still == pytest.approx(0, abs=1e-9)
    shift = 0.1 / np.sqrt(2)
    ahead, behind = (picture(moved() + s * shift) for s in (1, -1))
    assert overlaps.pull(ahead, behind, SITE / STEP, everything, STEP, WIDTH, 0.2) == pytest.approx(0.5, abs=0.05)
    assert np.isnan(overlaps.pull(image, image, SITE[2:3] / STEP, everything, STEP, WIDTH, 0.2))


def test_dark_columns_columns_at_the_edge_and_columns_far_from_their_sites_have_no_position():
    place, sigma = fitted(picture(moved(), height=(1.0, -0.5, 1, 1, 1)))
    for one in (place, sigma):
        assert np.isnan(one[:2]).all()
        assert np.isnan(one[3:]).all()
    away = SITE + np.array([[0.0, 0.9]]) * (np.arange(5) < 2)[:, None]
    assert np.isnan(fitted(picture(away, other=0.0))[0][:2]).all()


def test_groups_are_what_is_connected():
    line = np.array([[0.0, 0.0], [0.0, 5.0], [0.0, 0.6], [0.0, 1.2], [0.0, 5.7], [0.0, 9.0]])
    found = overlaps.groups(line, (1.0, 1.0), 0.75)
    assert sorted(sorted(g.tolist()) for g in found) == [[0, 2, 3], [1, 4]]
    assert overlaps.groups(line[[0, 1]], (1.0, 1.0), 0.75) == []
