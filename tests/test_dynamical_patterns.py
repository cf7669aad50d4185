"""Orientations of gold from many-beam patterns: Bloch waves of py4DSTEM, which shares no code with the matcher.

See fixtures/make_dynamical_gold_fixture.py for what was simulated, and in which frame.
"""

import dataclasses
from pathlib import Path

import numpy as np
from test_crystal import build

from fourdstem.calibration import Acquisition
from fourdstem.cube import Cube
from fourdstem.methods import orientation

FIXTURE = np.load(Path(__file__).parent / "fixtures" / "dynamical_gold.npz")
SIZE, PIXEL = 128, 0.0203
OPTICS = Acquisition(
    beam_energy_kev=200, convergence_mrad=1.0, scan_step_angstrom=(20, 20), detector_pixel_inv_angstrom=PIXEL
)
RADIUS = 1e-3 / OPTICS.wavelength_angstrom / PIXEL


def patterns(precession, count):
    """The first patterns, of each thickness in turn, drawn by a formula of their own: smooth-edged disks."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    drawn = []
    for i, (start, stop) in enumerate(zip(FIXTURE["first"][:count], FIXTURE["first"][1:], strict=False)):
        y, x = ((SIZE - 1) / 2 + FIXTURE[axis][start:stop, None, None] / PIXEL for axis in "yx")
        intensity = FIXTURE["intensity"][i % 3, precession, start:stop, None, None]
        distance = np.hypot(rows - y, columns - x)
        drawn.append((1e4 * intensity / (1 + np.exp(np.minimum(4 * (distance - RADIUS), 50)))).sum(axis=0))
    return np.array(drawn, np.float32)


def errors(images, precession, count=100):
    """Angles in degrees between what the matcher finds and the truth; 180 where it finds nothing."""
    optics = dataclasses.replace(OPTICS, precession_mrad=float(FIXTURE["precession_mrad"][precession]))
    params = orientation.Params(thickness_angstrom=150.0)
    gold = build("m-3m")
    found = orientation.compute(Cube(images[None], optics), [gold], params).orientation[0]
    truth = np.resize(FIXTURE["orientation"][:count], (len(images), 4))
    return np.nan_to_num(orientation.misorientation_deg(found, truth, gold), nan=180)


def test_nine_of_ten_precessed_many_beam_patterns_are_within_three_degrees():
    error = errors(patterns(1, 100), 1)
    assert np.mean(error < 3) >= 0.9
    assert np.median(error) < 0.6


def test_three_of_four_many_beam_patterns_without_precession_are_within_three_degrees():
    assert np.mean(errors(patterns(0, 100), 0) < 3) >= 0.75


def test_mirrored_many_beam_patterns_have_other_orientations():
    images = patterns(1, 16)
    wrong = np.concatenate([images[:, ::-1], images[:, :, ::-1]])
    error = errors(wrong, 1, 16)
    assert np.mean(error < 3) < 0.15
