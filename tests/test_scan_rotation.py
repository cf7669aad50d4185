"""Detector against scan: the eight symmetries corrected back, and rotation and flip proposed from the curl."""

import itertools
import json

import numpy as np
import pytest
from disk_scans import disk
from scipy.ndimage import gaussian_filter

from fourdstem.calibration import Acquisition
from fourdstem.cube import Correction, Cube
from fourdstem.geometry import corrected_to_recorded
from fourdstem.methods import preprocess, virtual_image
from fourdstem.methods.preprocess import Params, rotation
from fourdstem.methods.preprocess.rings import Ellipse

EIGHT = list(itertools.product((0, 90, 180, 270), (False, True)))
ROUND = Ellipse(passed=True, reason="")


def recorded(patterns, turn, flip):
    """Turn and mirror images as numpy does: an independent statement of what the settings undo.

    ``rot90`` takes the right to the top, +x to -y, which a scan rotation of +90° brings back.
    """
    images = np.rot90(patterns, turn // 90, axes=(-2, -1))
    return np.ascontiguousarray(images[..., ::-1, :] if flip else images)


def corrected(data, turn, flip):
    size = data.shape[-1]
    centre = np.full((*data.shape[:2], 2), (size - 1) / 2)
    matrix = corrected_to_recorded(1.0, 0.0, turn, flip)
    return Cube(data, correction=Correction(centre, matrix, np.zeros((size, size), bool)))


def deflected(field, size, counts=None, seed=0):
    """Disks displaced from the middle by a field (scan_y, scan_x, 2) in px: counts, or expectations where None."""
    middle = (size - 1) / 2
    data = np.array([[disk((size, size), middle + v, 3.0) for v in row] for row in field])
    return data if counts is None else np.random.default_rng(seed).poisson(counts * data).astype(np.uint16)


def vector_field():
    y, x = np.mgrid[:4, :5]
    return np.stack([0.9 * np.sin(y) + 0.3 * x, 0.5 * y - 0.8 * np.cos(x)], axis=-1)


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("turn", "flip"), EIGHT)
def test_a_deflection_is_corrected_back_by_the_right_setting_and_by_no_other(turn, flip, size):
    field = vector_field()
    data = 1000 * recorded(deflected(field, size), turn, flip)
    right = []
    for setting in EIGHT:
        images = virtual_image.compute(corrected(data, *setting), virtual_image.Params(), 3.0)
        found = np.stack([images.centre_of_mass_y, images.centre_of_mass_x], axis=-1)
        if np.abs(found - field).max() < 0.01:
            right.append(setting)
    assert right == [(turn, flip)]


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("turn", "flip"), EIGHT)
def test_crystal_spots_are_corrected_back_by_the_right_setting_and_by_no_other(turn, flip, size):
    middle = (size - 1) / 2
    spots = {(0, 0): 1.0, (-9, 4): 0.5, (9, -4): 0.4, (3, 11): 0.3, (-3, -11): 0.1}
    truth = sum(h * disk((size, size), middle + np.array(at), 1.5) for at, h in spots.items()).astype(np.float32)
    data = recorded(np.broadcast_to(truth, (1, 2, size, size)), turn, flip)
    right = [s for s in EIGHT if np.abs(corrected(data, *s).pattern(0, 1) - truth).max() < 1e-5]
    assert right == [(turn, flip)]


def gradient(seed, shape=(40, 44), width=2.0):
    """Gradient of a smooth random potential, rms 1 px."""
    potential = gaussian_filter(np.random.default_rng(seed).normal(size=shape), width, mode="wrap")
    field = np.stack(np.gradient(potential), axis=-1)
    return field / field.std()


def proposal(field, **known):
    return rotation.propose(field, ROUND, Acquisition(**known), Params())


def noise(seed, shape, width=0.0):
    field = np.random.default_rng(seed).normal(size=shape)
    return gaussian_filter(field, (width, width, 0)) if width else field


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turn", [0.0, 33.0, 90.0, -71.0, 160.0])
def test_rotation_and_flip_of_a_noisy_gradient_are_found_up_to_half_a_turn(turn, flip):
    field = gradient(1) @ corrected_to_recorded(1.0, 0.0, turn, flip).T
    found = proposal(field + 0.3 * noise(2, field.shape))
    assert found.flip == flip
    off = (found.rotation_deg - turn + 90) % 180 - 90
    assert abs(off) < 3.5 * found.sigma_deg < 4
    assert "half a turn" in found.reason


def test_the_uncertainty_of_the_rotation_is_the_scatter():
    found = [proposal(gradient(s) + 0.3 * noise(100 + s, (40, 44, 2))) for s in range(40)]
    pulls = np.array([f.rotation_deg / f.sigma_deg for f in found if f.flip >= 0])
    assert len(pulls) > 35
    assert all(f.flip == 0 for f in found if f.flip >= 0)
    assert 0.6 < np.sqrt(np.mean(pulls**2)) < 1.6


def test_of_two_angles_half_a_turn_apart_the_one_nearer_to_that_in_force_is_proposed():
    field = gradient(3) @ corrected_to_recorded(1.0, 0.0, 30.0, False).T
    for known, expected in ((0.0, 30.0), (150.0, -150.0), (29.0, 30.0), (-100.0, -150.0)):
        assert proposal(field, scan_rotation_deg=known).rotation_deg == pytest.approx(expected, abs=1)


def test_the_verdict_fails_where_rotation_or_flip_in_force_contradict_the_curl():
    field = gradient(4) @ corrected_to_recorded(1.0, 0.0, 30.0, True).T
    assert proposal(field, scan_rotation_deg=30.0, detector_flip_y=True).passed
    assert proposal(field, scan_rotation_deg=-150.0, detector_flip_y=True).passed
    assert not proposal(field, scan_rotation_deg=45.0, detector_flip_y=True).passed
    assert not proposal(field, scan_rotation_deg=30.0).passed


@pytest.mark.parametrize("width", [0.0, 1.0, 3.0])
def test_noise_is_declined(width):
    for seed in range(40):
        found = proposal(noise(seed, (32, 36, 2), width))
        assert found.flip == -1
        assert np.isnan(found.rotation_deg)
        assert "too weak or no gradient" in found.reason or "both flips" in found.reason


@pytest.mark.parametrize("other", [0.0, 0.05])
def test_a_wave_in_one_direction_cannot_tell_the_flip(other):
    y, x = np.mgrid[:48, :48] / 2.0
    found = proposal(np.stack(np.gradient(np.sin(x) + other * np.sin(y)), axis=-1))
    assert found.flip == -1
    assert "both flips fit alike" in found.reason


@pytest.mark.parametrize("shape", [(1, 1), (1, 60), (2, 40), (9, 9)])
def test_a_small_scan_is_declined(shape):
    found = proposal(noise(0, (*shape, 2)))
    assert found.flip == -1
    assert "fewer than" in found.reason


def test_dark_positions_a_linear_descan_and_an_ellipse_do_not_turn_the_proposal():
    field = gradient(5)
    y, x = np.mgrid[: field.shape[0], : field.shape[1]]
    ellipse = Ellipse(ratio=1.1, angle_deg=20.0, passed=True, reason="")
    seen = (field @ corrected_to_recorded(1.1, 20.0, 25.0, False).T) + np.stack([0.2 * x, 0.1 * y - 0.3 * x], axis=-1)
    seen[5:9, 7:11] = np.nan
    surface = np.stack([0.15 * x, 0.1 * y - 0.25 * x], axis=-1)
    found = rotation.propose(seen - surface, ellipse, Acquisition(), Params())
    assert found.flip == 0
    assert found.rotation_deg == pytest.approx(25.0, abs=1e-6)


def test_the_scan_step_counts_in_the_derivative():
    field = gradient(6, (96, 48), 4.0)[::2] @ corrected_to_recorded(1.0, 0.0, 30.0, False).T
    right = proposal(field, scan_step_angstrom=(20.0, 10.0))
    assert right.rotation_deg == pytest.approx(30.0, abs=1.0)
    assert proposal(field).sigma_deg > 2 * right.sigma_deg  # taken for squares, part of the curl stays


def test_preprocessing_proposes_and_applies_nothing():
    field = 0.8 * gradient(7, (28, 33))
    data = recorded(deflected(field, 32, counts=2000), 90, True)
    result = preprocess.compute(Cube(data), Params())
    assert result.detector_flip_y_proposed == 1
    assert abs((result.scan_rotation_proposed_deg - 90 + 90) % 180 - 90) < 4 * result.scan_rotation_sigma_deg
    verdict = json.loads(result.verdict)["rotation"]
    assert not verdict["pass"]
    given = preprocess.compute(
        Cube(data, acquisition=Acquisition(scan_rotation_deg=90, detector_flip_y=True)), Params()
    )
    assert json.loads(given.verdict)["rotation"]["pass"]
    np.testing.assert_array_equal(given.centre_px, result.centre_px)
